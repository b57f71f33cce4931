//! Replies as servers send them: every type of RESP2 and RESP3, passed over as they come.
//!
//! A reply is never needed whole: what is wanted is where it ends, so that what belongs between two replies can be put
//! there. So the reader keeps a count of what is still open, and the few words that tell a pushed message from an answer;
//! everything else passes by. A server is trusted not to lie, but not to be one: what is no reply is an error.

/// The first word of an aggregate that is kept has at most so many bytes: `unsubscribe` and its like fit.
const LONGEST_KIND: usize = 16;

/// So many streamed aggregates stand inside each other at most. No server sends any, so far.
const DEEPEST: usize = 32;

/// No length needs more digits.
const MOST_DIGITS: u8 = 18;

/// So many elements are open at once at most: a sum of lengths that a server states.
const MOST_OPEN: u64 = u64::MAX / 4;

/// What is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoReply(pub &'static str);

/// The first word of an aggregate, where it is a short one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    bytes: [u8; LONGEST_KIND],
    length: u8,
}

impl Kind {
    /// It.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn push(&mut self, bytes: &[u8]) {
        let from = usize::from(self.length);
        let bytes = &bytes[..bytes.len().min(LONGEST_KIND - from)];
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len() as u8;
    }
}

/// A reply that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its type: the first byte of the reply proper, behind its attributes.
    pub form: u8,
    /// Of an aggregate: its first word.
    pub kind: Kind,
    /// The last integer in it.
    pub integer: i64,
}

impl Reply {
    /// Whether it says that something failed.
    pub fn is_error(&self) -> bool {
        matches!(self.form, b'-' | b'!')
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A type's byte comes next.
    Type,
    /// In the line of a type: its number so far, with how many digits.
    Number { form: u8, value: i64, digits: u8, negative: bool, streamed: bool },
    /// In the line of a type that has no number which matters.
    Line,
    /// In a line that has only its line feed to come; then what the number said begins.
    Feed { form: u8, value: i64, streamed: bool },
    /// In so many bytes.
    Bytes(u64),
}

/// Reads replies off a stream of bytes, cut anywhere.
#[derive(Clone, Debug)]
pub struct Replies {
    state: State,
    /// Elements still to come of everything that is open.
    open: u64,
    /// What was open outside of each streamed aggregate or string.
    outer: Vec<Outer>,
    /// What is known of the present reply.
    reply: Reply,
    /// Whether the first word of an aggregate is being looked for, or taken.
    naming: bool,
    /// Whether the reply proper has been opened: no aggregate after it is the one whose first word counts.
    opened: bool,
}

#[derive(Clone, Copy, Debug)]
struct Outer {
    open: u64,
    of_a_string: bool,
}

const NEW: Reply = Reply { form: 0, kind: Kind { bytes: [0; LONGEST_KIND], length: 0 }, integer: 0 };

impl Default for Replies {
    fn default() -> Replies {
        Replies { state: State::Type, open: 1, outer: Vec::new(), reply: NEW, naming: false, opened: false }
    }
}

impl Replies {
    /// Whether no reply has begun: something else may be put here.
    pub fn between(&self) -> bool {
        self.state == State::Type && self.reply.form == 0 && self.open == 1 && self.outer.is_empty()
    }

    /// Reads on, up to the end of the reply at most: how many bytes that took, and the reply where it has ended.
    ///
    /// # Errors
    /// Where it is no reply.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Reply>), NoReply> {
        let mut at = 0;
        while at < bytes.len() {
            let over = match self.state {
                State::Type => {
                    at += 1;
                    self.begin(bytes[at - 1])?
                }
                State::Number { .. } => {
                    at += self.number(&bytes[at..])?;
                    false
                }
                State::Line => match bytes[at..].iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        at += end + 1;
                        self.element_ends()
                    }
                    None => {
                        at = bytes.len();
                        false
                    }
                },
                State::Feed { form, value, streamed } => {
                    if bytes[at] != b'\n' {
                        return Err(NoReply("a line does not end with CR LF"));
                    }
                    at += 1;
                    self.counted(form, value, streamed)?
                }
                State::Bytes(left) => {
                    let taken = left.min((bytes.len() - at) as u64);
                    let end = at + usize::try_from(taken).expect("no more than a slice has");
                    self.name(&bytes[at..end], left);
                    at = end;
                    self.state = State::Bytes(left - taken);
                    left == taken && self.bytes_end()
                }
            };
            if over {
                let reply = std::mem::replace(&mut self.reply, NEW);
                self.open = 1;
                self.opened = false;
                return Ok((at, Some(reply)));
            }
        }
        Ok((at, None))
    }

    /// A type's byte. True where the reply ends with it, which it never does.
    fn begin(&mut self, form: u8) -> Result<bool, NoReply> {
        // Attributes stand before a reply: its form is what follows them.
        let top = self.open == 1 && self.outer.is_empty();
        if (self.reply.form == 0 || (self.reply.form == b'|' && top)) && form != b'|' {
            self.reply.form = form;
        } else if self.reply.form == 0 {
            self.reply.form = b'|';
        }
        self.state = match form {
            b'+' | b'-' | b',' | b'#' | b'_' | b'(' => State::Line,
            b':' | b'$' | b'*' | b'~' | b'%' | b'>' | b'!' | b'=' | b'|' => number_of(form),
            b';' | b'.' if self.outer.is_empty() => return Err(NoReply("the end of what never began")),
            b';' if self.outer.last().is_some_and(|outer| outer.of_a_string) => number_of(form),
            b'.' if self.outer.last().is_some_and(|outer| !outer.of_a_string) => number_of(form),
            _ => return Err(NoReply("no type begins with this byte")),
        };
        if self.outer.last().is_some_and(|outer| outer.of_a_string) && form != b';' {
            return Err(NoReply("a streamed string is broken off"));
        }
        Ok(false)
    }

    fn number(&mut self, bytes: &[u8]) -> Result<usize, NoReply> {
        let State::Number { form, mut value, mut digits, mut negative, mut streamed } = self.state else {
            return Ok(0);
        };
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' if digits < MOST_DIGITS && !streamed => {
                    value = value * 10 + i64::from(byte - b'0');
                    digits += 1;
                }
                // An integer may have one more digit: nobody asks for its value then.
                b'0'..=b'9' if form == b':' => value = i64::MAX,
                b'-' if digits == 0 && !negative && !streamed => negative = true,
                b'+' if digits == 0 && form == b':' => {}
                b'?' if digits == 0 && matches!(form, b'$' | b'*' | b'~' | b'%' | b'>') => streamed = true,
                b'\r' if digits > 0 || streamed || form == b'.' => {
                    let value = if negative { -value } else { value };
                    self.state = State::Feed { form, value, streamed };
                    return Ok(at + 1);
                }
                _ => return Err(NoReply("a length is no number")),
            }
        }
        self.state = State::Number { form, value, digits, negative, streamed };
        Ok(bytes.len())
    }

    /// A line with a number has ended. True where the reply has, too.
    fn counted(&mut self, form: u8, value: i64, streamed: bool) -> Result<bool, NoReply> {
        self.state = State::Type;
        if streamed {
            return self.streams(form == b'$').map(|()| false);
        }
        match form {
            b':' => {
                self.reply.integer = value;
                Ok(self.element_ends())
            }
            b'.' => Ok(self.stream_ends()),
            b';' if value == 0 => Ok(self.stream_ends()),
            // Null, as RESP2 has it.
            b'$' | b'*' if value == -1 => Ok(self.element_ends()),
            _ if value < 0 => Err(NoReply("a length is negative")),
            b'$' | b'!' | b'=' | b';' => {
                if self.naming && value > LONGEST_KIND as i64 {
                    self.naming = false;
                }
                self.state = State::Bytes(value.unsigned_abs() + 2);
                Ok(false)
            }
            b'|' => self.opens(value.unsigned_abs() * 2).map(|()| false),
            b'%' => self.aggregate(value.unsigned_abs() * 2),
            _ => self.aggregate(value.unsigned_abs()),
        }
    }

    fn aggregate(&mut self, elements: u64) -> Result<bool, NoReply> {
        // The first element of the reply proper; nothing in an aggregate inside of it is looked at.
        // (The last element of the outermost one stands alone there too.)
        let first = self.open == 1 && self.outer.is_empty() && elements > 0 && !self.opened;
        self.opened = true;
        self.opens(elements)?;
        let over = self.element_ends();
        self.naming = first;
        Ok(over)
    }

    fn opens(&mut self, elements: u64) -> Result<(), NoReply> {
        self.open += elements;
        if self.open > MOST_OPEN { Err(NoReply("more elements than there can be")) } else { Ok(()) }
    }

    fn streams(&mut self, of_a_string: bool) -> Result<(), NoReply> {
        if self.outer.len() == DEEPEST {
            return Err(NoReply("streamed aggregates stand too deep in each other"));
        }
        self.naming = false;
        self.outer.push(Outer { open: self.open, of_a_string });
        // As many as come.
        self.open = MOST_OPEN / 2;
        Ok(())
    }

    fn stream_ends(&mut self) -> bool {
        if let Some(outer) = self.outer.pop() {
            self.open = outer.open;
        }
        self.element_ends()
    }

    /// What a length said is here. True where the reply has ended.
    fn bytes_end(&mut self) -> bool {
        if self.outer.last().is_some_and(|outer| outer.of_a_string) {
            // A piece of a streamed string.
            self.state = State::Type;
            return false;
        }
        self.element_ends()
    }

    fn element_ends(&mut self) -> bool {
        self.state = State::Type;
        self.naming = false;
        self.open -= 1;
        self.open == 0 && self.outer.is_empty()
    }

    /// Takes the bytes of the first word, of which `left` are to come with the two at its end.
    fn name(&mut self, bytes: &[u8], left: u64) {
        if self.naming {
            let word = bytes.len().min(usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX));
            self.reply.kind.push(&bytes[..word]);
        }
    }
}

fn number_of(form: u8) -> State {
    State::Number { form, value: 0, digits: 0, negative: false, streamed: false }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where each reply ends, and what is known of it.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<Vec<(usize, Reply)>, NoReply> {
        let (mut replies, mut found, mut at) = (Replies::default(), Vec::new(), 0);
        for end in cuts.iter().copied().chain([bytes.len()]) {
            while at < end {
                let (taken, reply) = replies.read(&bytes[at..end])?;
                at += taken;
                found.extend(reply.map(|reply| (at, reply)));
                assert_eq!(reply.is_some(), replies.between());
                if reply.is_none() {
                    assert_eq!(at, end, "it reads on");
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn an_aggregate_that_ends_another_is_not_named() {
        // What XRANGE says: the last element of the outermost array is itself one.
        let words = "*2\r\n$15\r\n1700000000000-0\r\n*2\r\n$5\r\nfield\r\n$5\r\nvalue\r\n";
        let nested = format!("*2\r\n{words}{words}");
        let deep = "*1\r\n*1\r\n*1\r\n$9\r\nsubscribe\r\n".to_owned();
        for reply in [nested, deep] {
            for cut in 0..reply.len() {
                let found = read(reply.as_bytes(), &[cut]).expect("a reply");
                assert_eq!(
                    (found.len(), found[0].0, found[0].1.kind.as_bytes()),
                    (1, reply.len(), &b""[..]),
                    "{reply:?}"
                );
            }
        }
    }

    /// One of every type, each a reply.
    const EVERY: &[&str] = &[
        "+OK\r\n",
        "+\r\n",
        "-ERR no\r\n",
        ":1000\r\n",
        ":-3\r\n",
        ":+3\r\n",
        "$5\r\nhello\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5e3\r\n",
        ",inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "!5\r\nERR x\r\n",
        "=8\r\ntxt:text\r\n",
        "~2\r\n+a\r\n+b\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
        "|1\r\n+ttl\r\n:3600\r\n*1\r\n|1\r\n+x\r\n+y\r\n:7\r\n",
        ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
        "$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n",
        "*?\r\n:1\r\n*?\r\n:2\r\n.\r\n$?\r\n;0\r\n.\r\n",
        "%?\r\n+a\r\n:1\r\n.\r\n",
        "*2\r\n~?\r\n.\r\n:5\r\n",
    ];

    #[test]
    fn every_type_ends_where_it_ends() {
        for reply in EVERY {
            let twice = format!("{reply}{reply}");
            let ends: Vec<usize> = read(twice.as_bytes(), &[]).expect(reply).into_iter().map(|(end, _)| end).collect();
            assert_eq!(ends, [reply.len(), twice.len()], "{reply:?}");
        }
    }

    #[test]
    fn what_tells_a_message_from_an_answer_is_known() {
        let one = |bytes: &str| read(bytes.as_bytes(), &[]).expect(bytes)[0].1;
        let message = one(EVERY[22]);
        assert_eq!((message.form, message.kind.as_bytes()), (b'>', &b"message"[..]));
        let confirmation = one("*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:7\r\n");
        assert_eq!((confirmation.kind.as_bytes(), confirmation.integer), (&b"punsubscribe"[..], 7));
        assert_eq!(one("*2\r\n$17\r\nsubscribe12345678\r\n+a\r\n").kind.as_bytes(), b"");
        assert_eq!(one("*2\r\n*1\r\n$7\r\nmessage\r\n$7\r\nmessage\r\n").kind.as_bytes(), b"");
        assert_eq!(one("*2\r\n:1\r\n$7\r\nmessage\r\n").kind.as_bytes(), b"");
        assert_eq!(one("*2\r\n$0\r\n\r\n$7\r\nmessage\r\n").kind.as_bytes(), b"");
        assert_eq!(one(EVERY[21]).form, b'*', "attributes stand before it");
        assert!(one("-ERR\r\n").is_error() && one("!1\r\nx\r\n").is_error() && !one("+OK\r\n").is_error());
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bytes in [
            "HTTP/1.1 400\r\n",
            "*x\r\n",
            "$-2\r\n",
            "*-2\r\n",
            "%-1\r\n",
            ".\r\n",
            ";1\r\n",
            "$\r\n",
            "*1\rx",
            "*1\nx",
            "$?\r\n:1\r\n",
            "*9999999999999999999\r\n",
            "*?\r\n;1\r\n",
        ] {
            assert!(read(bytes.as_bytes(), &[]).is_err(), "{bytes:?}");
        }
        assert!(read("*?\r\n".repeat(DEEPEST).as_bytes(), &[]).is_ok());
        assert!(read("*?\r\n".repeat(DEEPEST + 1).as_bytes(), &[]).is_err());
        let many = format!("*{0}\r\n", u64::MAX / 40).repeat(30);
        assert!(read(many.as_bytes(), &[]).is_err(), "no sum runs over");
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            of in prop::collection::vec(prop::sample::select(EVERY), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = of.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = read(&bytes, &[]).expect("replies");
            prop_assert_eq!(whole.len(), of.len());
            prop_assert_eq!(read(&bytes, &cuts).expect("replies"), whole);
        }
    }
}
