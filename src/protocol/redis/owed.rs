//! Which replies a server owes: so that it is known when a write has been answered, and where between two replies there is
//! room for one of the sidecar's own.
//!
//! Redis answers in order, one reply a command, but for subscriptions: those are confirmed once for each channel, and what
//! is published comes whenever it comes. Where no count can be kept (MONITOR, a subscription inside a transaction), none is:
//! the connection is *uncounted* from then on, and what it still owes stays owed.

use std::collections::VecDeque;

use super::reply::Reply;
use super::table::Topic;

/// One or more replies that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    due: Due,
    /// Whether the client is not to see it.
    hidden: bool,
    /// Whether it may be a long time coming although the server has nothing to do.
    blocks: bool,
    times: u32,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// A reply.
    Reply,
    /// What comes of a command that the server's table does not name: a renamed one may be confirmed many times.
    Doubtful,
    /// The reply to HELLO.
    Hello,
    /// The reply to RESET.
    Reset,
    /// The reply to MONITOR.
    Monitor,
    /// The confirmations of a subscription, or of its end.
    Subscription {
        /// What it is to.
        topic: Topic,
        /// Whether it ends.
        ends: bool,
        /// So many words of the command: one confirmation each. None: one for each subscription that there is, or one.
        words: u64,
    },
    /// A reply of the sidecar's own.
    Own(Vec<u8>),
}

/// So many different things are due at most: alike ones that follow each other count as one.
const MOST_DUE: usize = 4096;

/// The replies of one connection.
#[derive(Debug, Default)]
pub struct Owed {
    due: VecDeque<Entry>,
    /// Of the subscription at the front: so many confirmations are still to come, once one has.
    confirmations: Option<u64>,
    /// Commands sent, and commands answered, since the connection began.
    sent: u64,
    answered: u64,
    channels: i64,
    patterns: i64,
    shards: i64,
    /// Whether messages are pushed as RESP3 has it, and cannot be taken for replies.
    pushes: bool,
    uncounted: bool,
}

impl Owed {
    /// A command has been sent.
    pub fn owe(&mut self, due: Due, hidden: bool, blocks: bool) {
        self.sent += 1;
        if self.uncounted {
            return;
        }
        match self.due.back_mut() {
            Some(last)
                if due == Due::Reply
                    && last.due == due
                    && last.hidden == hidden
                    && last.blocks == blocks
                    && last.times < u32::MAX =>
            {
                last.times += 1;
            }
            _ => self.due.push_back(Entry { due, hidden, blocks, times: 1 }),
        }
    }

    /// The rest of the command that was sent last will never come, and so no reply to it, unless it came early.
    pub fn give_up_last(&mut self) {
        if self.uncounted || self.answered == self.sent {
            return;
        }
        match self.due.back_mut() {
            Some(entry) if entry.times > 1 => entry.times -= 1,
            _ => drop(self.due.pop_back()),
        }
    }

    /// A reply of the sidecar's own is to come behind everything that is due.
    pub fn own(&mut self, text: Vec<u8>) {
        self.due.push_back(Entry { due: Due::Own(text), hidden: false, blocks: false, times: 1 });
    }

    /// The next reply of the sidecar's own, where it is its turn. To be asked between replies only.
    pub fn take_own(&mut self) -> Option<Vec<u8>> {
        match &mut self.due.front_mut()?.due {
            Due::Own(text) => {
                let text = std::mem::take(text);
                self.due.pop_front();
                Some(text)
            }
            _ => None,
        }
    }

    /// Whether the next reply is the sidecar's own.
    pub fn owns_the_next(&self) -> bool {
        matches!(self.due.front(), Some(Entry { due: Due::Own(_), .. }))
    }

    /// How many commands have been sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many commands have been answered.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Whether the server may have nothing to do, and yet not answer.
    pub fn blocks(&self) -> bool {
        self.due.front().is_some_and(|entry| entry.blocks)
    }

    /// Whether so much is due that no more is to be taken of the client.
    pub fn is_full(&self) -> bool {
        self.due.len() >= MOST_DUE
    }

    /// Whether replies are no longer counted.
    pub fn is_uncounted(&self) -> bool {
        self.uncounted
    }

    /// Whether the reply that begins with this byte is one that the client is not to see. Subscriptions are confirmed to
    /// one that wants no replies too, as everything is that Redis pushes.
    #[inline]
    pub fn hides(&self, form: u8) -> bool {
        let is_pushed = |entry: &Entry| form == b'*' && matches!(entry.due, Due::Subscription { .. });
        form != b'>' && self.due.front().is_some_and(|entry| entry.hidden && !is_pushed(entry))
    }

    /// A reply has come, and whatever was due before it had.
    #[inline]
    pub fn reply(&mut self, reply: &Reply) {
        let simple = reply.form != b'>' && (reply.form != b'*' || self.pushes);
        match self.due.front() {
            _ if self.uncounted => {}
            Some(Entry { due: Due::Reply, .. }) if simple => self.answer(),
            _ => self.unusual(reply),
        }
    }

    fn unusual(&mut self, reply: &Reply) {
        if self.is_pushed(reply) {
            return;
        }
        match self.due.front().map(|entry| &entry.due) {
            Some(Due::Hello) if !reply.is_error() => self.pushes = reply.form == b'%',
            Some(Due::Reset) if !reply.is_error() => {
                (self.channels, self.patterns, self.shards, self.pushes) = (0, 0, 0, false);
            }
            // Of the lines that follow, some will come in the middle of others' replies. A subscription that was queued is
            // confirmed in the middle of EXEC's reply.
            Some(Due::Monitor | Due::Subscription { .. } | Due::Doubtful) if !reply.is_error() => {
                return self.stop_counting();
            }
            // Nobody asked.
            Some(Due::Own(_)) | None => return,
            Some(_) => {}
        }
        self.answer();
    }

    fn stop_counting(&mut self) {
        self.uncounted = true;
        self.due.retain(|entry| matches!(entry.due, Due::Own(_)));
    }

    /// Whether this is no answer to a command, or one confirmation of several: then it has been dealt with.
    fn is_pushed(&mut self, reply: &Reply) -> bool {
        let pushed = reply.form == b'>';
        let subscribed = self.channels + self.patterns + self.shards > 0;
        let front = match self.due.front() {
            Some(Entry { due: Due::Subscription { topic, ends, words }, .. }) => Some((*topic, *ends, *words)),
            _ => None,
        };
        if !pushed && (reply.form != b'*' || self.pushes || !(subscribed || front.is_some())) {
            return false;
        }
        let Some((topic, ends)) = confirmed(reply.kind.as_bytes()) else {
            return pushed || matches!(reply.kind.as_bytes(), b"message" | b"pmessage" | b"smessage");
        };
        // Before it counts: how many there are to end.
        let there = match topic {
            Topic::Channel => self.channels,
            Topic::Pattern => self.patterns,
            Topic::Shard => self.shards,
        };
        self.count(topic, reply.integer);
        if let Some((of, front_ends, words)) = front
            && (of, front_ends) == (topic, ends)
        {
            self.pushes = pushed;
            let all = if words > 0 { words } else { there.max(1).unsigned_abs() };
            let left = self.confirmations.unwrap_or(all) - 1;
            self.confirmations = Some(left);
            if left == 0 {
                self.answer();
            }
        }
        true
    }

    fn count(&mut self, topic: Topic, total: i64) {
        match topic {
            // The server gives the sum of these two.
            Topic::Channel => self.channels = total - self.patterns,
            Topic::Pattern => self.patterns = total - self.channels,
            Topic::Shard => self.shards = total,
        }
    }

    fn answer(&mut self) {
        self.answered += 1;
        self.confirmations = None;
        match self.due.front_mut() {
            Some(entry) if entry.times > 1 => entry.times -= 1,
            _ => drop(self.due.pop_front()),
        }
    }
}

fn confirmed(kind: &[u8]) -> Option<(Topic, bool)> {
    Some(match kind {
        b"subscribe" => (Topic::Channel, false),
        b"psubscribe" => (Topic::Pattern, false),
        b"ssubscribe" => (Topic::Shard, false),
        b"unsubscribe" => (Topic::Channel, true),
        b"punsubscribe" => (Topic::Pattern, true),
        b"sunsubscribe" => (Topic::Shard, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::reply::Replies;
    use super::*;

    /// What becomes of each reply in `bytes`: `+` on, `-` nowhere.
    fn play(owed: &mut Owed, bytes: &str) -> String {
        let (mut replies, mut rest, mut said) = (Replies::default(), bytes.as_bytes(), String::new());
        while !rest.is_empty() {
            let (taken, reply) = replies.read(rest).expect("a reply");
            rest = &rest[taken..];
            let reply = reply.expect("whole");
            said.push(if owed.hides(reply.form) { '-' } else { '+' });
            owed.reply(&reply);
        }
        said
    }

    fn subscription(topic: Topic, ends: bool, words: u64) -> Due {
        Due::Subscription { topic, ends, words }
    }

    fn confirmation(form: char, kind: &str, count: i64) -> String {
        format!("{form}3\r\n${}\r\n{kind}\r\n$1\r\nc\r\n:{count}\r\n", kind.len())
    }

    #[test]
    fn each_command_is_answered_once_and_hidden_replies_go_nowhere() {
        let mut owed = Owed::default();
        for hidden in [false, false, true, false] {
            owed.owe(Due::Reply, hidden, false);
        }
        owed.own(b"-NO\r\n".to_vec());
        assert_eq!(play(&mut owed, "+OK\r\n*2\r\n$7\r\nmessage\r\n:1\r\n$-1\r\n"), "++-");
        assert_eq!((owed.sent(), owed.answered(), owed.take_own()), (4, 3, None));
        assert_eq!(play(&mut owed, "-ERR\r\n"), "+");
        assert_eq!(owed.take_own().as_deref(), Some(&b"-NO\r\n"[..]));
        assert!(owed.is_empty() && owed.answered() == 4);
        assert_eq!(play(&mut owed, "-ERR nobody asked\r\n"), "+");
        assert_eq!(owed.answered(), 4);
    }

    #[test]
    fn a_subscription_is_confirmed_to_a_client_that_wants_no_replies() {
        for form in ['*', '>'] {
            let mut owed = Owed::default();
            owed.owe(Due::Reply, true, false);
            owed.owe(subscription(Topic::Channel, false, 2), true, false);
            owed.owe(subscription(Topic::Pattern, false, 1), true, false);
            let confirmed = confirmation(form, "subscribe", 1) + &confirmation(form, "subscribe", 2);
            assert_eq!(play(&mut owed, &format!("+OK\r\n{confirmed}-NOPERM\r\n")), "-++-");
            assert!(owed.is_empty() && owed.answered() == 3);
        }
    }

    #[test]
    fn what_never_becomes_whole_is_not_waited_for() {
        let mut owed = Owed::default();
        owed.owe(Due::Reply, false, false);
        owed.owe(Due::Reply, false, false);
        owed.give_up_last();
        owed.own(b"-NO\r\n".to_vec());
        assert_eq!(owed.take_own(), None);
        play(&mut owed, "+OK\r\n");
        assert_eq!(owed.take_own().as_deref(), Some(&b"-NO\r\n"[..]));
        assert!(owed.is_empty());
        // One that the server did not have to read to its end.
        let mut owed = Owed::default();
        owed.owe(Due::Reply, false, false);
        owed.owe(subscription(Topic::Channel, false, 2), false, false);
        play(&mut owed, "+OK\r\n-ERR invalid bulk length\r\n");
        owed.give_up_last();
        assert!(owed.is_empty());
    }

    #[test]
    fn a_subscription_is_answered_when_each_word_is_confirmed_and_messages_answer_nothing() {
        for form in ['*', '>'] {
            let mut owed = Owed::default();
            owed.owe(subscription(Topic::Channel, false, 2), false, false);
            owed.owe(Due::Reply, false, false);
            play(&mut owed, &confirmation(form, "subscribe", 1));
            play(&mut owed, &format!("{form}3\r\n$7\r\nmessage\r\n$1\r\nc\r\n:9\r\n"));
            assert_eq!(owed.answered(), 0);
            play(&mut owed, &confirmation(form, "subscribe", 2));
            assert_eq!(owed.answered(), 1);
            play(&mut owed, &format!("{form}3\r\n$7\r\nmessage\r\n$1\r\nc\r\n:9\r\n"));
            assert_eq!(owed.answered(), 1, "a message is no answer");
            play(&mut owed, "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
            assert_eq!(owed.answered(), 2);
        }
    }

    #[test]
    fn the_end_of_all_subscriptions_is_confirmed_for_each() {
        let mut owed = Owed::default();
        owed.owe(subscription(Topic::Channel, false, 3), false, false);
        owed.owe(subscription(Topic::Pattern, false, 1), false, false);
        owed.owe(subscription(Topic::Channel, true, 0), false, false);
        owed.owe(subscription(Topic::Pattern, true, 0), false, false);
        owed.owe(subscription(Topic::Pattern, true, 0), false, false);
        owed.owe(Due::Reply, false, false);
        for count in 1..=3 {
            play(&mut owed, &confirmation('*', "subscribe", count));
        }
        play(&mut owed, &confirmation('*', "psubscribe", 4));
        for count in [3, 2, 1] {
            assert_eq!(owed.answered(), 2);
            play(&mut owed, &confirmation('*', "unsubscribe", count));
        }
        play(&mut owed, &confirmation('*', "punsubscribe", 0));
        play(&mut owed, &confirmation('*', "punsubscribe", 0));
        assert_eq!(owed.answered(), 5);
        play(&mut owed, &confirmation('*', "message", 0));
        assert_eq!(owed.answered(), 6, "with no subscription left, that is a list");
    }

    #[test]
    fn a_list_is_no_message_where_messages_are_pushed() {
        let mut owed = Owed::default();
        owed.owe(Due::Hello, false, false);
        owed.owe(subscription(Topic::Channel, false, 1), false, false);
        owed.owe(Due::Reply, false, false);
        play(&mut owed, "%1\r\n$5\r\nproto\r\n:3\r\n");
        play(&mut owed, &confirmation('>', "subscribe", 1));
        play(&mut owed, ">2\r\n$10\r\ninvalidate\r\n*0\r\n");
        assert_eq!(owed.answered(), 2);
        play(&mut owed, "*1\r\n$7\r\nmessage\r\n");
        assert_eq!(owed.answered(), 3);
        owed.owe(Due::Hello, false, false);
        owed.owe(Due::Reply, false, false);
        play(&mut owed, "*2\r\n$5\r\nproto\r\n:2\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n");
        assert_eq!(owed.answered(), 4);
    }

    #[test]
    fn what_fails_is_answered_by_its_error() {
        let mut owed = Owed::default();
        for due in [subscription(Topic::Shard, false, 5), Due::Monitor, Due::Reset, Due::Hello] {
            owed.owe(due, false, false);
        }
        play(&mut owed, "-NOPERM\r\n-ERR\r\n-ERR\r\n-NOPROTO\r\n");
        assert_eq!((owed.answered(), owed.is_uncounted()), (4, false));
    }

    #[test]
    fn what_can_not_be_counted_is_not() {
        for due in [Due::Monitor, subscription(Topic::Channel, false, 1)] {
            let mut owed = Owed::default();
            owed.owe(due, false, false);
            owed.owe(Due::Reply, false, false);
            play(&mut owed, "+QUEUED\r\n+OK\r\n+OK\r\n");
            assert!(owed.is_uncounted() && owed.answered() == 0);
            owed.own(b"-NO\r\n".to_vec());
            assert!(owed.take_own().is_some(), "what is said between two replies can still be said");
        }
    }

    #[test]
    fn what_blocks_is_known_when_it_is_next() {
        let mut owed = Owed::default();
        owed.owe(Due::Reply, false, false);
        owed.owe(Due::Reply, false, true);
        assert!(!owed.blocks());
        play(&mut owed, "+OK\r\n");
        assert!(owed.blocks());
    }
}
