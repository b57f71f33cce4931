//! What a client sees, and what the server does.

use super::*;
use crate::protocol::postgres::message::Malformed;

fn told(play: &mut Play, bytes: &[u8]) -> String {
    assert_eq!(play.send(bytes), Ok(()));
    play.told()
}

#[test]
fn a_query_shows_what_a_query_shows() {
    let mut play = Play::start();
    for (sql, shown) in [
        ("select", "T D C(SELECT 1) ZI"),
        ("notice", "N S C(DO) ZI"),
        ("", "I ZI"),
        ("copy out", "H d c C(COPY 1) ZI"),
        ("write", "E(25006) ZI"),
        ("bad", "E(42601) ZI"),
        ("select; write", "E(42601) ZI"),
    ] {
        assert_eq!(told(&mut play, &query(sql)), shown, "{sql}");
        assert!(play.lockstep.rests());
    }
    assert_eq!(play.lockstep.take_refused(), 1);
}

/// EXPLAIN ANALYZE CREATE TABLE ... AS, and whatever else PostgreSQL lets through.
#[test]
fn what_a_read_only_transaction_writes_all_the_same_is_never_committed() {
    let mut play = Play::start();
    assert_eq!(told(&mut play, &query("hidden write")), "C(EXPLAIN) E(25006) ZI");
    assert_eq!(told(&mut play, &query("select")), "T D C(SELECT 1) ZI");
    for next in ["select", "commit", "chain", "hidden write"] {
        assert_eq!(told(&mut play, &query("begin")), "C(BEGIN) ZT");
        assert_eq!(told(&mut play, &query("hidden write")), "C(EXPLAIN) ZT");
        assert_eq!(told(&mut play, &query(next)), "E(25006) ZE", "{next}");
        assert_eq!(told(&mut play, &query("commit")), "C(ROLLBACK) ZI");
    }
    assert_eq!(told(&mut play, &[run("hidden write"), run("select"), sync()].concat()), "1 2 C(EXPLAIN) E(25006) ZI");
    assert_eq!(play.lockstep.take_refused(), 6);
}

#[test]
fn an_error_that_is_too_long_to_be_added_to_is_counted_all_the_same() {
    let mut play = Play::start();
    assert_eq!(play.send(&query("select")), Ok(()));
    let _ = play.told();
    assert_eq!(play.lockstep.take_refused(), 0);
    play.ahead.extend_from_slice(&query("select"));
    assert_eq!(play.lockstep.client(&mut play.ahead, &mut play.out), Ok(()));
    let long = [b"SERROR\0VERROR\0C25006\0Mno\0W".to_vec(), vec![b'y'; 70_000], b"\0\0".to_vec()].concat();
    assert_eq!(play.lockstep.server(&message(b'E', &long), &mut play.out), Ok(()));
    assert_eq!(play.lockstep.take_refused(), 1);
}

#[test]
fn a_transaction_of_the_clients_stays_open_between_its_statements() {
    let mut play = Play::start();
    for (sql, shown) in [
        ("begin", "C(BEGIN) ZT"),
        ("select", "T D C(SELECT 1) ZT"),
        ("begin", "N C(BEGIN) ZT"),
        ("commit", "C(COMMIT) ZI"),
        ("begin", "C(BEGIN) ZT"),
        ("bad", "E(42601) ZE"),
        ("select", "E(25P02) ZE"),
        ("rollback", "C(ROLLBACK) ZI"),
        ("begin", "C(BEGIN) ZT"),
        ("chain", "C(COMMIT) ZT"),
        ("read write", "E(25001) ZE"),
        ("chain", "C(COMMIT) ZT"),
        ("write", "E(25006) ZE"),
        ("commit", "C(ROLLBACK) ZI"),
    ] {
        assert_eq!(told(&mut play, &query(sql)), shown, "{sql}");
        assert!(!play.lockstep.rests() || shown.ends_with('I'));
    }
}

#[test]
fn the_extended_protocol_passes_up_to_one_execute_at_a_time() {
    let mut play = Play::start();
    let prepared = [parse("s", "select"), describe("Ss"), sync()].concat();
    assert_eq!(told(&mut play, &prepared), "1 t T ZI");
    assert_eq!(told(&mut play, &[bind("", "s"), describe("P"), execute(""), sync()].concat()), "2 T D C(SELECT 1) ZI");
    let pipeline = [run("select"), run("begin"), run("notice"), sync(), run("commit"), sync()].concat();
    assert_eq!(told(&mut play, &pipeline), "1 2 D C(SELECT 1) 1 2 C(BEGIN) 1 2 N S C(DO) ZT 1 2 C(COMMIT) ZI");
    // What was sent behind an error is dropped, up to the Sync.
    let fails = [run("select"), run("write"), run("select"), query("select"), sync(), query("select")].concat();
    assert_eq!(told(&mut play, &fails), "1 2 D C(SELECT 1) 1 2 E(25006) ZI T D C(SELECT 1) ZI");
    // A portal lives up to the Sync, from one Execute to the next.
    let twice =
        [parse("", "suspended"), bind("p", ""), execute("p"), execute("p"), sync(), execute("p"), sync()].concat();
    assert_eq!(told(&mut play, &twice), "1 2 s s ZI E(34000) ZI");
}

#[test]
fn a_client_that_flushes_is_answered_without_a_sync() {
    let mut play = Play::start();
    let flush = message(b'H', b"");
    assert_eq!(told(&mut play, &[parse("", "select"), describe("S"), flush.clone()].concat()), "1 t T");
    assert_eq!(told(&mut play, &[bind("", ""), execute(""), flush.clone()].concat()), "2 D C(SELECT 1)");
    assert_eq!(told(&mut play, &[flush, sync()].concat()), "ZI");
}

#[test]
fn the_guards_name_is_of_no_use_to_a_client() {
    let mut play = Play::start();
    let taken = [parse("epochgate", "chain"), bind("epochgate", "epochgate"), sync()].concat();
    assert_eq!(told(&mut play, &taken), "1 2 ZI");
    let mine =
        [parse("epochgate", "read write"), bind("epochgate", "epochgate"), execute("epochgate"), run("write"), sync()];
    assert_eq!(told(&mut play, &mine.concat()), "1 2 E(25001) ZI");
    assert_eq!(told(&mut play, &query("select")), "T D C(SELECT 1) ZI");
}

#[test]
fn a_copy_is_taken_in_and_what_comes_too_late_of_it_is_dropped() {
    let mut play = Play::start();
    let data = |kind| message(kind, b"x\0");
    assert_eq!(told(&mut play, &query("copy in")), "G");
    assert_eq!(told(&mut play, &[data(b'd'), sync(), message(b'c', b"")].concat()), "C(COPY 1) ZI");
    assert_eq!(told(&mut play, &[query("copy in"), data(b'd'), data(b'f')].concat()), "G E(57014) ZI");
    // By the extended protocol, as libpq does it: a Sync before, which the server overlooks, and one behind.
    assert_eq!(told(&mut play, &[run("copy in"), sync()].concat()), "1 2 G");
    assert_eq!(told(&mut play, &[data(b'd'), message(b'c', b""), sync()].concat()), "C(COPY 1) ZI");
    assert_eq!(told(&mut play, &[data(b'd'), message(b'c', b""), sync()].concat()), "ZI");
    assert_eq!(told(&mut play, &query("copy in")), "G");
    let why = Malformed("a message comes within COPY that cannot");
    assert_eq!(play.send(&query("select")), Err(Stop::Client(why)));
}

#[test]
fn a_call_is_a_step_of_its_own() {
    let mut play = Play::start();
    let call = message(b'F', &[0; 10]);
    assert_eq!(told(&mut play, &call), "V ZI");
    assert_eq!(
        told(&mut play, &[query("begin"), call.clone(), query("bad"), call].concat()),
        "C(BEGIN) ZT V ZT E(42601) ZE E(25P02) ZE"
    );
    assert_eq!(told(&mut play, &query("rollback")), "C(ROLLBACK) ZI");
}

#[test]
fn what_a_request_to_cancel_hits_is_the_clients_also_where_it_is_the_guards() {
    // The error comes in the place of every message of the fence, and behind it.
    for met in 0..13 {
        let mut play = Play::start();
        play.ahead.extend_from_slice(&[query("select"), query("select")].concat());
        assert_eq!(play.lockstep.client(&mut play.ahead, &mut play.out), Ok(()));
        let sent = play.out.server.split();
        let mut said = Vec::new();
        let answers = play.server.take(&sent);
        let mut walk = Walk::default();
        let mut nth = 0;
        walk.over(&answers, |part| {
            if nth < met && part.ends {
                said.extend(message(part.kind, part.body));
            }
            nth += usize::from(part.ends);
            Ok(())
        })
        .expect("messages");
        // Of the server that was cancelled there: it is in a transaction that has failed, or in none.
        said.extend(message(b'E', b"SERROR\0VERROR\0C57014\0Mcancelled\0\0"));
        assert_eq!(play.lockstep.server(&said, &mut play.out), Ok(()));
        let sent = play.out.server.split();
        assert_eq!(sent[..5], sync()[..], "{met}: only a Sync follows");
        play.told.extend(play.out.client.split());
        assert_eq!(play.told(), "E(57014)", "{met}");
    }
}

#[test]
fn a_server_that_is_too_old_or_says_no_version_is_refused_before_anything_is_run() {
    for (version, found) in [("15.4", 15), ("14.20 (Debian)", 14), ("9.6.1", 9), ("x", 0)] {
        let mut play = Play::ungreeted();
        assert_eq!(play.greet_as(version), Err(Stop::TooOld(found)), "{version}");
        assert!(!play.told().contains('Z') && play.out.server.is_empty());
    }
    for version in ["16.0", "17beta1", "18.1"] {
        assert_eq!(Play::ungreeted().greet_as(version), Ok(()));
    }
}

#[test]
fn until_it_is_greeted_only_answers_pass_from_a_client() {
    let mut play = Play::ungreeted();
    play.ahead.extend_from_slice(&[message(b'p', b"secret\0"), query("write")].concat());
    assert_eq!(play.lockstep.client(&mut play.ahead, &mut play.out), Ok(()));
    assert_eq!(play.out.server.split()[..], message(b'p', b"secret\0")[..]);
    assert_eq!(play.greet_as("16.1"), Ok(()));
    assert_eq!(play.turn(1), Ok(()));
    assert!(play.told().ends_with("ZI E(25006) ZI"));
}

#[test]
fn what_is_not_the_protocol_ends_it() {
    let mut play = Play::start();
    assert!(matches!(play.send(b"Y\0\0\0\x04"), Err(Stop::Client(_))));
    assert!(matches!(Play::start().send(b"Q\0\0\0\x03"), Err(Stop::Client(_))));
    assert_eq!(Play::start().send(b"X\0\0\0\x04"), Err(Stop::Terminated));
    for said in [message(b'Z', b"I"), message(b'D', b""), message(b'C', b"SELECT 1\0"), message(b'W', b"\0\0\0")] {
        let mut play = Play::start();
        assert!(matches!(play.lockstep.server(&said, &mut play.out), Err(Stop::Server(_))));
        // In the place of what the guard's own messages are answered with.
        let mut play = Play::start();
        play.ahead.extend_from_slice(&query("select"));
        assert_eq!(play.lockstep.client(&mut play.ahead, &mut play.out), Ok(()));
        assert!(matches!(play.lockstep.server(&said, &mut play.out), Err(Stop::Server(_))));
    }
}

#[test]
fn what_the_server_says_by_itself_passes() {
    let mut play = Play::start();
    let by_itself = [message(b'A', b"news"), message(b'S', b"a\0b\0"), message(b'N', b"SNOTICE\0C00000\0\0")].concat();
    assert_eq!(play.lockstep.server(&by_itself, &mut play.out), Ok(()));
    assert_eq!(short(&play.out.client), "A S N");
}

#[test]
fn a_last_word_of_the_server_while_a_message_is_half_sent_owes_nothing() {
    let mut play = Play::start();
    let half = parse("", &"x".repeat(100));
    play.ahead.extend_from_slice(&half[..50]);
    assert_eq!(play.lockstep.client(&mut play.ahead, &mut play.out), Ok(()));
    let error = message(b'E', b"SERROR\0VERROR\0C57014\0\0");
    for _ in 0..2 {
        assert_eq!(play.lockstep.server(&error, &mut play.out), Ok(()));
    }
    let before = play.out.server.len();
    play.ahead.extend_from_slice(&[&half[50..], &sync()[..]].concat());
    assert_eq!(play.lockstep.client(&mut play.ahead, &mut play.out), Ok(()));
    assert_eq!(
        play.out.server[before..],
        [&half[50..], &sync()[..]].concat()[..],
        "the guard's Sync, behind the whole message"
    );
    assert_eq!(play.lockstep.server(&message(b'Z', b"I"), &mut play.out), Ok(()));
    assert_eq!(play.lockstep.client(&mut play.ahead, &mut play.out), Ok(()));
    play.told.extend(play.out.client.split());
    assert_eq!(play.told(), "E(57014) E(57014) ZI");
}
