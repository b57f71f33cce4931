//! What is outstanding, by tables and beside a model of the server.

use proptest::prelude::*;

use super::super::message::tests::message;
use super::*;

/// Messages by their types; ReadyForQuery says `I`, an error is an ordinary one.
fn stream(kinds: &str) -> Vec<u8> {
    let one = |kind: u8| match kind {
        b'Z' => message(b'Z', b"I"),
        b'E' => message(b'E', b"SERROR\0VERROR\0C42601\0\0"),
        _ => message(kind, b"some"),
    };
    kinds.bytes().flat_map(one).collect()
}

fn begun() -> Tracker {
    let mut tracker = Tracker::default();
    tracker.came(&[message(b'R', &[0; 4]), stream("SK"), stream("Z")].concat()).expect("a greeting");
    tracker
}

/// `>` and what the client sends, `<` and what the server sends; says after each step whether it is idle.
fn play(script: &str) -> String {
    let mut tracker = begun();
    let mut said = String::new();
    for step in script.split_whitespace() {
        let (way, kinds) = step.split_at(1);
        if way == ">" { tracker.sent(&stream(kinds)) } else { tracker.came(&stream(kinds)) }.expect("it is right");
        said.push(if tracker.is_idle() { '.' } else { '*' });
    }
    said
}

#[test]
fn it_is_idle_when_all_is_answered_and_not_before() {
    for (script, idle) in [
        // One query after the other, several statements in one, and notices or notifications when nothing runs.
        (">Q <TDDC <Z", "**."),
        (">Q <C <C <E <Z <A <N <S", "****...."),
        (">QQQ <CZ <CZ <EZ", "***."),
        (">F <V <Z", "**."),
        // The extended protocol, with and without Sync.
        (">PBDES <12TDC <Z", "**."),
        (">PBDE >S <12TDCZ", "**."),
        (">PDH <1tT >BES <2CZ", "*.*."),
        (">PBEH <12C", "*."),
        (">BE <2Ds >E <s >C <3 >S <Z", "*.*.*.*."),
        // Pipelining, with an error in the first: everything of it is skipped, and the second is answered.
        (">PBESPBES <1E <Z <12C <Z", "****."),
        (">PBEBE >BE <12CE >S <Z", "**.*."),
        // A Query among messages of the extended protocol that failed is skipped too; one that follows a success is not.
        (">PBEQS <1E <Z", "**."),
        (">PBEQS <12C <CZ <Z", "***."),
        (">PBEQS <12C <EZ <Z", "***."),
        (">PBE <1E >QQPBE >S <Z", "*..*."),
        (">PBEQPBES <E <Z", "**."),
        // An error of the Sync itself.
        (">PBES <12C <EZ", "**."),
        // COPY in by Query: data, then its end, or a failure of either side.
        (">Q <G >dd >c <C <Z", "*****."),
        (">Q <G >f <E <Z", "****."),
        (">Q <G >d <E <Z >d >c >Q <CZ", "****...*."),
        (">QddcQ <GC <Z <CZ", "***."),
        (">Qddc <E <Z", "**."),
        // Two COPYs in one Query, the ends of both sent ahead.
        (">QdcdcQ <GC <GC <Z <CZ", "****."),
        // COPY in by the extended protocol: the Sync that comes before its end is overlooked.
        (">PBES <12G >d >c >S <C <Z", "******."),
        (">PBE <12G >dc >S <CZ", "****."),
        (">PBESdcS <12GC <Z", "**."),
        (">PBEdcS <12GC <Z", "**."),
        (">PBES <12G >dSScS <CZ", "***."),
        // It failed before it began: both Syncs are answered.
        (">PBESdcS <1E <Z <Z", "***."),
        // COPY out.
        (">Q <H <ddcC <Z", "***."),
        (">PBES <12HddcC <Z", "**."),
        // The client ends.
        (">X", "."),
    ] {
        assert_eq!(play(script), idle, "{script}");
    }
}

#[test]
fn a_sync_that_may_have_been_overlooked_counts_until_a_reply_tells() {
    // The COPY failed. The server has overlooked the first Sync, or not: one ReadyForQuery settles nothing...
    assert_eq!(play(">PBES <12G >dcS <E <Z"), "*****");
    // ...a second one does, and so does a reply to what comes next.
    assert_eq!(play(">PBES <12G >dcS <E <Z <Z"), "*****.");
    assert_eq!(play(">PBES <12G >dcS <E <Z >Q <C <Z"), "*******.");
    assert_eq!(play(">PBES <12G >dcS <E <Z >PBES <12CZ"), "******.");
    assert_eq!(play(">PBES <12G >dcSQ <E <ZCZ"), "****.");
    // The client learns of it before its Sync.
    assert_eq!(play(">PBES <12G >d <E <Z >cS <Z"), "****.*.");
}

#[test]
fn replication_streams_and_applies_nothing() {
    // START_REPLICATION; feedback; its end; and another command, which counts.
    assert_eq!(play(">Q <W >d <ddd >c <cC <C <Z >Q <CZ"), "*.......*.");
    assert_eq!(play(">Q <W >cQ <cCCZ <CZ"), "*.**.");
}

#[test]
fn the_greeting_is_work_but_while_the_server_asks() {
    let mut tracker = Tracker::default();
    assert!(!tracker.is_idle() && !tracker.has_begun());
    let ask = |code: u8| message(b'R', &[0, 0, 0, code, 1, 2]);
    for (code, idle) in [(10, true), (11, true), (12, false), (0, false), (3, true), (5, true), (7, true), (8, false)] {
        tracker.came(&ask(code)).expect("right");
        assert_eq!(tracker.is_idle(), idle, "authentication {code}");
        tracker.sent(&stream("p")).expect("right");
        assert!(!tracker.is_idle(), "the answer to {code} may have been the last");
    }
    tracker.came(&message(b'v', &[0, 0, 0, 0, 0, 0, 0, 0])).expect("what a server of 3.0 says to a client of 3.2");
    tracker.came(&message(b'K', &[7; 4 + 32])).expect("a key of PostgreSQL 18");
    tracker.came(&stream("Z")).expect("right");
    assert!(tracker.is_idle() && tracker.has_begun());
    assert_eq!(tracker.key(), Some(&[7; 36][..]));
    assert!(tracker.sent(&stream("p")).is_err(), "nobody asks for a password now");
}

#[test]
fn the_transaction_and_the_end_are_known() {
    let mut tracker = begun();
    tracker.sent(&stream("Q")).expect("right");
    tracker.came(&message(b'Z', b"T")).expect("right");
    assert_eq!((tracker.is_idle(), tracker.transaction()), (true, Transaction::Open));
    tracker.came(&message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgone\0\0")).expect("right");
    assert!(tracker.is_ended_by_server());
    let mut tracker = begun();
    tracker.came(&message(b'E', "SVFATAL\0VERROR\0C1\0MVFATAL\0\0".as_bytes())).expect("right");
    assert!(!tracker.is_ended_by_server(), "only the field counts that is in no language");
    tracker.sent(&stream("X")).expect("right");
    assert!(tracker.is_terminated());
}

#[test]
fn half_a_message_takes_no_effect() {
    let query = stream("Q");
    for cut in 1..query.len() {
        let mut tracker = begun();
        tracker.sent(&query[..cut]).expect("right");
        assert!(tracker.is_idle() && !tracker.is_between_messages(), "the server waits for the rest: {cut}");
        tracker.sent(&query[cut..]).expect("right");
        assert!(!tracker.is_idle() && tracker.is_between_messages());
    }
}

#[test]
fn what_nobody_sends_ends_the_session() {
    let mut lost = begun();
    assert!(lost.sent(&stream("Y")).is_err());
    assert!(!lost.is_idle(), "nobody knows what that was");
    assert!(lost.is_between_replies() && !lost.is_between_messages());
    assert!(begun().came(&stream("Z")).is_err(), "nothing was outstanding");
    assert!(begun().came(&message(b'Z', b"")).is_err());
    assert!(begun().came(&message(b'Z', b"II")).is_err());
    assert!(Tracker::default().came(&message(b'K', &[0; 261])).is_err());
}

#[test]
fn equal_units_cost_no_memory_and_others_are_bounded() {
    let mut tracker = begun();
    for _ in 0..10_000 {
        tracker.sent(&stream("PBES")).expect("right");
    }
    assert!(!tracker.is_full() && tracker.queue.len() == 1);
    for _ in 0..MOST_RUNS {
        tracker.sent(&stream("QS")).expect("right");
    }
    assert!(tracker.is_full());
    for _ in 0..10_000 {
        tracker.came(&stream("12CZ")).expect("right");
    }
    for _ in 0..MOST_RUNS {
        tracker.came(&stream("CZZ")).expect("right");
    }
    assert!(tracker.is_idle());
}

/// A long stream, recorded by hand, both ways.
const STEPS: &[(char, &str)] = &[
    ('>', "Q"),
    ('<', "TDDCZ"),
    ('>', "PBDES"),
    ('<', "12TDDC"),
    ('<', "Z"),
    ('>', "PBESPBES"),
    ('<', "1EZ12CZ"),
    ('>', "Q"),
    ('<', "G"),
    ('>', "ddd"),
    ('>', "c"),
    ('<', "CZ"),
    ('>', "PBES"),
    ('<', "12G"),
    ('>', "dcS"),
    ('<', "CZ"),
];

#[test]
fn the_answer_does_not_depend_on_how_reads_are_cut() {
    let whole = {
        let mut tracker = begun();
        let mut said = Vec::new();
        for (way, kinds) in STEPS {
            let bytes = stream(kinds);
            if *way == '>' { tracker.sent(&bytes) } else { tracker.came(&bytes) }.expect("right");
            said.push(tracker.is_idle());
        }
        said
    };
    for size in 1..40 {
        let mut tracker = begun();
        for ((way, kinds), idle) in STEPS.iter().zip(&whole) {
            for piece in stream(kinds).chunks(size) {
                if *way == '>' { tracker.sent(piece) } else { tracker.came(piece) }.expect("right");
            }
            assert_eq!(tracker.is_idle(), *idle, "pieces of {size}: {way}{kinds}");
        }
    }
}

/// PostgreSQL's main loop, as far as it decides what is answered (tcop/postgres.c, commands/copyfromparse.c).
#[derive(Default)]
struct Server {
    inbox: VecDeque<Sent>,
    outbox: VecDeque<u8>,
    skipping: bool,
    /// A COPY is taken in, by a Query or not.
    copy: Option<bool>,
    /// Whether an error came while a Sync might have been overlooked.
    doubt: bool,
    overlooked_since_copy: u32,
    /// Something was executed that a Sync has to commit: then that may fail.
    started: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    kind: u8,
    /// Whether it begins a COPY, if it succeeds.
    copies: bool,
}

impl Server {
    /// Does one thing; `luck` says how it goes.
    fn step(&mut self, luck: u8) {
        if let Some(by_query) = self.copy
            && luck.is_multiple_of(7)
        {
            return self.fail_copy(by_query);
        }
        let Some(sent) = self.inbox.pop_front() else { return };
        if let Some(by_query) = self.copy {
            match sent.kind {
                b'd' | b'H' => {}
                b'S' => self.overlooked_since_copy += 1,
                b'c' => {
                    self.copy = None;
                    self.outbox.extend(if by_query { &b"CZ"[..] } else { b"C" });
                }
                b'f' => self.fail_copy(by_query),
                other => panic!("{} in a COPY", char::from(other)),
            }
            return;
        }
        if sent.kind == b'S' {
            self.skipping = false;
            let fails = std::mem::take(&mut self.started) && luck.is_multiple_of(5);
            return self.outbox.extend(if fails { &b"EZ"[..] } else { b"Z" });
        }
        if self.skipping {
            return;
        }
        let fails = luck.is_multiple_of(3);
        match sent.kind {
            b'Q' | b'F' if fails => self.outbox.extend(b"EZ"),
            b'Q' | b'E' if sent.copies && !fails => {
                (self.copy, self.overlooked_since_copy) = (Some(sent.kind == b'Q'), 0);
                self.outbox.push_back(b'G');
            }
            b'Q' => self.outbox.extend(b"TDDCZ"),
            b'F' => self.outbox.extend(b"VZ"),
            b'P' | b'B' | b'D' | b'E' | b'C' if fails => {
                (self.skipping, self.started) = (true, false);
                self.outbox.push_back(b'E');
            }
            b'P' => self.outbox.push_back(b'1'),
            b'B' => self.outbox.push_back(b'2'),
            b'C' => self.outbox.push_back(b'3'),
            b'D' => self.outbox.extend(b"tT"),
            b'E' => {
                self.started = true;
                self.outbox.extend([b'D', if luck.is_multiple_of(2) { b'C' } else { b's' }]);
            }
            b'd' | b'c' | b'f' | b'H' => {}
            other => panic!("{}", char::from(other)),
        }
    }

    fn fail_copy(&mut self, by_query: bool) {
        (self.copy, self.started) = (None, false);
        self.outbox.extend(if by_query { &b"EZ"[..] } else { b"E" });
        self.skipping = !by_query;
        let unread = self.inbox.iter().any(|sent| sent.kind == b'S');
        self.doubt |= unread || self.overlooked_since_copy > 0;
    }

    /// Whether it may still do something with what it has been sent.
    fn works(&self) -> bool {
        self.copy.is_some() || !self.inbox.is_empty() || !self.outbox.is_empty()
    }
}

/// What a client may send in one go; `c` marks a COPY.
fn unit() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Q",
        "QQ",
        "F",
        "PBES",
        "PBDES",
        "PBEPBES",
        "PBEH S",
        "S",
        "PDH",
        "PBEQS",
        "PBEFPBES",
        "Q@ddc",
        "Q@df",
        "Q@c",
        "Q@dSdc",
        "PBE@dcS",
        "PBE@SddcS",
        "PBE@SdfS",
        "PBE@SdcSPBES",
        "PBE@SdcSQ",
        "PBEQ@dcS",
        "CS",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a client sends, however the server fares, and however the two overlap: what is called idle has nothing left to
    /// do, and what has nothing left to do is called idle, but for a doubt.
    #[test]
    fn idle_is_what_has_nothing_left_to_do(
        units in prop::collection::vec(unit(), 1..8),
        schedule in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let (mut tracker, mut server) = (begun(), Server::default());
        let mut script: Vec<Sent> = Vec::new();
        for kind in units.concat().bytes().filter(|kind| *kind != b' ') {
            match kind {
                b'@' => script.last_mut().expect("something copies").copies = true,
                kind => script.push(Sent { kind, copies: false }),
            }
        }
        script.push(Sent { kind: b'S', copies: false });
        let mut script = VecDeque::from(script);
        let mut schedule = schedule.into_iter().cycle();
        for turn in 0_u32.. {
            prop_assert!(turn < 10_000);
            let luck = schedule.next().expect("it cycles").wrapping_add((turn % 251) as u8);
            match luck % 4 {
                0 | 1 => if let Some(sent) = script.pop_front() {
                    tracker.sent(&stream(&char::from(sent.kind).to_string())).expect("right");
                    server.inbox.push_back(sent);
                },
                2 => server.step(luck / 4),
                _ => if let Some(reply) = server.outbox.pop_front() {
                    tracker.came(&stream(&char::from(reply).to_string())).expect("right");
                },
            }
            if tracker.is_idle() {
                // What it skips, and what no COPY takes, it does nothing with.
                let skips = |sent: &Sent| matches!(sent.kind, b'd' | b'c' | b'f' | b'H');
                let rests = server.copy.is_none() && server.outbox.is_empty() && server.inbox.iter().all(skips);
                let skips_all = server.skipping && server.outbox.is_empty() && server.inbox.iter().all(|sent| sent.kind != b'S');
                prop_assert!(rests || skips_all, "called idle: {:?} {:?}", server.inbox, server.outbox);
            }
            if script.is_empty() && !server.works() {
                break;
            }
        }
        prop_assert!(tracker.is_idle() || server.doubt, "never idle: {tracker:?}");
    }
}
