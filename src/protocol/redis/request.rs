//! Requests as clients send them: arrays of bulk strings, and inline commands.
//!
//! Redis takes a few things for granted that it does not look at (that a line feed follows a carriage return, that a
//! bulk ends with both). What is not exactly as the protocol says is refused here, so that what the server reads is
//! always what was read here. Nothing is copied, and no argument is ever needed whole: a command is known by its first
//! words, and the rest of it is passed over by its lengths.

use std::fmt;

/// A word that says what a command is has at most so many bytes. A longer one is no command that anybody knows.
pub const LONGEST_WORD: usize = 64;

/// The longest inline command, as with Redis.
pub const LONGEST_INLINE: usize = 64 * 1024;

/// The most elements of a command, as with Redis 7.
const MOST_ELEMENTS: i64 = i32::MAX as i64;

/// No length needs more digits. Redis has a limit of its own (`proto-max-bulk-len`), and says so itself.
const MOST_DIGITS: usize = 15;

/// Why bytes are no request. Redis words its protocol errors like this, and ends the connection after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed {
    what: &'static str,
    /// The byte that stands where another was to.
    got: Option<u8>,
}

impl Malformed {
    /// For this reason.
    pub const fn new(what: &'static str) -> Malformed {
        Malformed { what, got: None }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protocol error: {}", self.what)?;
        self.got.map_or(Ok(()), |got| write!(f, ", got '{}'", char::from(got)))
    }
}

/// A word of a command, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// It is here.
    Whole(&'a [u8]),
    /// Longer than any word that says what a command is.
    Long,
    /// There is no such word.
    None,
    /// More bytes have to be read first.
    Cut,
}

impl<'a> Word<'a> {
    /// It, where it is here.
    pub fn whole(self) -> Option<&'a [u8]> {
        match self {
            Word::Whole(word) => Some(word),
            Word::Long | Word::None | Word::Cut => None,
        }
    }
}

/// What stands at the front of what a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// Too little to say.
    Cut,
    /// So many bytes that are no command, and that Redis does not answer: an empty line, an empty array.
    Nothing(usize),
    /// A command.
    Command(Command<'a>),
}

/// A command of which at least the name has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    form: Form<'a>,
    /// Its words without the name.
    pub arguments: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form<'a> {
    Array {
        bytes: &'a [u8],
        name: Word<'a>,
        /// Where the first argument begins; where a long name begins.
        at: usize,
    },
    Inline {
        words: Vec<Vec<u8>>,
        length: usize,
    },
}

/// What stands at the front of `bytes`, which begin where a command begins.
///
/// # Errors
/// Where it is no request.
pub fn front(bytes: &[u8]) -> Result<Front<'_>, Malformed> {
    match bytes.first() {
        None => Ok(Front::Cut),
        Some(b'*') => array(bytes),
        Some(_) => inline(bytes),
    }
}

fn array(bytes: &[u8]) -> Result<Front<'_>, Malformed> {
    let Some((elements, at)) = number(bytes, 1, "invalid multibulk length")? else { return Ok(Front::Cut) };
    if elements > MOST_ELEMENTS {
        return Err(Malformed::new("invalid multibulk length"));
    }
    if elements <= 0 {
        return Ok(Front::Nothing(at));
    }
    let (name, at) = match bulk(bytes, at)? {
        (Word::Cut, _) => return Ok(Front::Cut),
        (name, next) => (name, next),
    };
    let arguments = elements.unsigned_abs() - 1;
    Ok(Front::Command(Command { form: Form::Array { bytes, name, at }, arguments }))
}

/// The bulk string at `at` as a word, and where the next one begins; where it is long, where it begins itself.
fn bulk(bytes: &[u8], at: usize) -> Result<(Word<'_>, usize), Malformed> {
    let Some((length, from)) = bulk_length(bytes, at)? else { return Ok((Word::Cut, at)) };
    if length > LONGEST_WORD as u64 {
        return Ok((Word::Long, at));
    }
    let end = from + usize::from(u8::try_from(length).expect("no word is longer than 64"));
    match bytes.get(end..end + 2) {
        None => Ok((Word::Cut, at)),
        Some(b"\r\n") => Ok((Word::Whole(&bytes[from..end]), end + 2)),
        Some(_) => Err(NO_END),
    }
}

const NO_END: Malformed = Malformed::new("a bulk string does not end where its length says");

/// The length of the bulk string at `at`, and where its bytes begin; `None` where more has to be read first.
#[inline]
fn bulk_length(bytes: &[u8], at: usize) -> Result<Option<(u64, usize)>, Malformed> {
    match bytes.get(at) {
        None => Ok(None),
        Some(b'$') => match number(bytes, at + 1, "invalid bulk length")? {
            Some((length, from)) => {
                let length = u64::try_from(length).map_err(|_| Malformed::new("invalid bulk length"))?;
                Ok(Some((length, from)))
            }
            None => Ok(None),
        },
        Some(got) => Err(Malformed { what: "expected '$'", got: Some(*got) }),
    }
}

/// The number at `at` with its line's end, and where the next line begins; `None` where more has to be read first.
#[inline]
fn number(bytes: &[u8], at: usize, what: &'static str) -> Result<Option<(i64, usize)>, Malformed> {
    let (negative, from) = if bytes.get(at) == Some(&b'-') { (true, at + 1) } else { (false, at) };
    let (mut value, mut at) = (0_i64, from);
    let end = loop {
        match bytes.get(at) {
            None if at - from > MOST_DIGITS => return Err(Malformed::new(what)),
            None => return Ok(None),
            Some(digit @ b'0'..=b'9') if at - from < MOST_DIGITS => value = value * 10 + i64::from(digit - b'0'),
            Some(b'\r') => break at,
            Some(_) => return Err(Malformed::new(what)),
        }
        at += 1;
    };
    // One spelling for each number, as Redis has it.
    let padded = bytes[from] == b'0' && (end - from > 1 || negative);
    match bytes.get(end + 1) {
        _ if end == from || padded => Err(Malformed::new(what)),
        None => Ok(None),
        Some(b'\n') => Ok(Some((if negative { -value } else { value }, end + 2))),
        Some(_) => Err(Malformed::new(what)),
    }
}

fn inline(bytes: &[u8]) -> Result<Front<'_>, Malformed> {
    let within = &bytes[..bytes.len().min(LONGEST_INLINE)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_INLINE {
            Ok(Front::Cut)
        } else {
            Err(Malformed::new("too big inline request"))
        };
    };
    let line = &bytes[..end];
    if line.contains(&0) {
        // Redis reads a line as a C string, and would not see what follows.
        return Err(Malformed::new("a zero byte in an inline request"));
    }
    let words =
        split(line.strip_suffix(b"\r").unwrap_or(line)).ok_or(Malformed::new("unbalanced quotes in request"))?;
    match words.len() {
        0 => Ok(Front::Nothing(end + 1)),
        many => {
            let arguments = many as u64 - 1;
            Ok(Front::Command(Command { form: Form::Inline { words, length: end + 1 }, arguments }))
        }
    }
}

/// A line's words: with "..." and its escapes, and '...' with its one. `None` where a quote does not end, or something
/// other than a blank follows it.
fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut words, mut rest) = (Vec::new(), line);
    loop {
        rest = &rest[rest.iter().take_while(|byte| is_blank(byte)).count()..];
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = first_word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// As isspace has it.
fn is_blank(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || *byte == 0x0b
}

/// The word that a line begins with, and what follows.
fn first_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut word, mut quote) = (Vec::new(), None);
    loop {
        rest = match (quote, rest) {
            (None, [] | [b' ' | b'\r' | b'\t', ..]) => return Some((word, rest)),
            (None, [opening @ (b'"' | b'\''), after @ ..]) => {
                quote = Some(*opening);
                after
            }
            (Some(_), []) => return None,
            (Some(open), [byte, after @ ..]) if *byte == open => {
                return after.first().is_none_or(is_blank).then_some((word, after));
            }
            (Some(b'"'), [b'\\', b'x', high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) * 16 + hex(*low));
                after
            }
            (Some(b'"'), [b'\\', letter, after @ ..]) => {
                word.push(escaped(*letter));
                after
            }
            (Some(b'\''), [b'\\', b'\'', after @ ..]) => {
                word.push(b'\'');
                after
            }
            (_, [byte, after @ ..]) => {
                word.push(*byte);
                after
            }
        };
    }
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).map_or(0, |value| value as u8)
}

fn escaped(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

impl Command<'_> {
    /// Its name, as it was sent.
    pub fn name(&self) -> Word<'_> {
        match &self.form {
            Form::Array { name, .. } => *name,
            Form::Inline { words, .. } => word_of(&words[0]),
        }
    }

    /// The `nth` word after the name, from 1. One behind a long word is long itself: nobody looks for it.
    ///
    /// # Errors
    /// Where it is no bulk string.
    pub fn argument(&self, nth: u64) -> Result<Word<'_>, Malformed> {
        if nth > self.arguments {
            return Ok(Word::None);
        }
        match &self.form {
            Form::Array { name: Word::Long, .. } => Ok(Word::Long),
            Form::Array { bytes, at, .. } => {
                let (mut word, mut at) = (Word::None, *at);
                for _ in 0..nth {
                    (word, at) = bulk(bytes, at)?;
                    if !matches!(word, Word::Whole(_)) {
                        break;
                    }
                }
                Ok(word)
            }
            Form::Inline { words, .. } => {
                Ok(usize::try_from(nth).ok().and_then(|nth| words.get(nth)).map_or(Word::None, |word| word_of(word)))
            }
        }
    }

    /// Where what was not read of it begins, and how to pass over that.
    pub fn rest(&self) -> (usize, Rest) {
        match &self.form {
            Form::Array { name: Word::Long, at, .. } => (*at, Rest { bulks: self.arguments + 1, bytes: 0 }),
            Form::Array { at, .. } => (*at, Rest { bulks: self.arguments, bytes: 0 }),
            Form::Inline { length, .. } => (*length, Rest::default()),
        }
    }
}

fn word_of(word: &[u8]) -> Word<'_> {
    if word.len() > LONGEST_WORD { Word::Long } else { Word::Whole(word) }
}

/// What is still to come of a command: bulk strings, and of the one that has begun so many bytes with its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    bulks: u64,
    bytes: u64,
}

impl Rest {
    /// Whether all of it was there.
    pub fn is_over(self) -> bool {
        self.bulks == 0 && self.bytes == 0
    }

    /// Passes over as much of it as `bytes` has; says how much that is. What is left, if it is not over, is too little of
    /// a bulk string's first line to go on with.
    ///
    /// # Errors
    /// Where it is no bulk string.
    #[inline]
    pub fn pass(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        loop {
            if self.bytes > 0 {
                at = self.pass_bytes(bytes, at)?;
                if self.bytes > 0 {
                    return Ok(at);
                }
            }
            if self.bulks == 0 {
                return Ok(at);
            }
            match bulk_length(bytes, at)? {
                None => return Ok(at),
                Some((length, from)) => {
                    at = from;
                    self.bytes = length + 2;
                    self.bulks -= 1;
                }
            }
        }
    }

    #[inline]
    fn pass_bytes(&mut self, bytes: &[u8], at: usize) -> Result<usize, Malformed> {
        let here = (bytes.len() - at) as u64;
        let taken = here.min(self.bytes);
        let end = at + usize::try_from(taken).expect("no more than a slice has");
        // Of the end of a bulk, what lies in these bytes.
        for (from_end, expected) in [(2, b'\r'), (1, b'\n')] {
            if let Some(place) = self.bytes.checked_sub(from_end)
                && place < taken
                && bytes[at + usize::try_from(place).expect("no more than a slice has")] != expected
            {
                return Err(NO_END);
            }
        }
        self.bytes -= taken;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Words = Vec<Vec<u8>>;

    /// The words of each command, as far as they are looked at, and the bytes that were taken.
    fn read(bytes: &[u8]) -> Result<(Vec<Words>, usize), Malformed> {
        let (mut commands, mut at) = (Vec::new(), 0);
        loop {
            match front(&bytes[at..])? {
                Front::Cut => return Ok((commands, at)),
                Front::Nothing(length) => at += length,
                Front::Command(command) => {
                    let mut words = vec![command.name().whole().unwrap_or(b"<long>").to_vec()];
                    for nth in 1..=command.arguments.min(3) {
                        match command.argument(nth)? {
                            Word::Cut => return Ok((commands, at)),
                            Word::Whole(word) => words.push(word.to_vec()),
                            Word::Long => words.push(b"<long>".to_vec()),
                            Word::None => unreachable!("it has so many"),
                        }
                    }
                    let (length, mut rest) = command.rest();
                    let taken = rest.pass(&bytes[at + length..])?;
                    if !rest.is_over() {
                        return Ok((commands, at));
                    }
                    at += length + taken;
                    commands.push(words);
                }
            }
        }
    }

    fn words(of: &[&str]) -> Vec<Vec<u8>> {
        of.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn arrays_are_commands() {
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!(read(bytes), Ok((vec![words(&["SET", "k", ""]), words(&["PING"])], bytes.len())));
        let long = format!("*2\r\n$65\r\n{0}\r\n$65\r\n{0}\r\n*1\r\n$1\r\na\r\n", "x".repeat(65));
        assert_eq!(read(long.as_bytes()), Ok((vec![words(&["<long>", "<long>"]), words(&["a"])], long.len())));
    }

    #[test]
    fn inline_commands_are_split_as_redis_splits_them() {
        for (line, expected) in [
            ("SET k v\r\n", vec!["SET", "k", "v"]),
            ("  set\tk   v \n", vec!["set", "k", "v"]),
            ("set \"a b\" 'c d'\r\n", vec!["set", "a b", "c d"]),
            (r#"set "\x41\n\"\q" '\'\n'"#, vec!["set", "A\n\"q", "'\\n"]),
            ("foo\"bar\" x\r\n", vec!["foobar", "x"]),
            ("\"\"\r\n", vec![""]),
            ("a\u{b}b\r\n", vec!["a\u{b}b"]),
        ] {
            let line = if line.ends_with('\n') { line.to_owned() } else { format!("{line}\n") };
            assert_eq!(read(line.as_bytes()), Ok((vec![words(&expected)], line.len())), "{line:?}");
        }
        for nothing in ["\r\n", "  \r\n", "\n"] {
            assert_eq!(read(nothing.as_bytes()), Ok((vec![], nothing.len())));
        }
    }

    #[test]
    fn what_redis_might_read_otherwise_is_refused() {
        for bytes in [
            &b"*x\r\n"[..],
            b"*01\r\n",
            b"*+1\r\n",
            b"*-0\r\n",
            b"*\r\n",
            b"*1\rX",
            b"*2147483648\r\n",
            b"*1234567890123456\r\n",
            b"*12345678901234567890",
            b"*1\r\n:3\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$3\r\nGETx\r\n",
            b"*1\r\n$3\r\nGET\rx",
            b"*2\r\n$3\r\nGET\r\n$70\rx",
            b"set \"a\r\n",
            b"set 'a\r\n",
            b"set \"a\"b\r\n",
            b"set a\0b\r\n",
        ] {
            assert!(read(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        let mut value = format!("*2\r\n$3\r\nSET\r\n$100\r\n{}", "v".repeat(100)).into_bytes();
        assert!(read(&value).is_ok());
        value.extend_from_slice(b"v\n");
        assert_eq!(read(&value), Err(NO_END));
        assert!(read(&[b'a'; LONGEST_INLINE - 1]).is_ok());
        assert!(read(&[b'a'; LONGEST_INLINE]).is_err());
    }

    #[test]
    fn a_huge_bulk_is_passed_over_and_not_kept() {
        let length = 1_u64 << 40;
        let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\n");
        let Ok(Front::Command(command)) = front(head.as_bytes()) else { panic!("a command") };
        let (at, mut rest) = command.rest();
        assert_eq!(rest.pass(&head.as_bytes()[at..]), Ok(head.len() - at));
        let chunk = vec![0; 1 << 16];
        for _ in 0..3 {
            assert_eq!(rest.pass(&chunk), Ok(chunk.len()));
        }
        assert!(!rest.is_over());
    }

    fn any_command() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![Just(b"SET".to_vec()), prop::collection::vec(any::<u8>(), 0..90)];
        let array = prop::collection::vec(word, 1..5).prop_map(|words| {
            let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
            for word in words {
                bytes.extend(format!("${}\r\n", word.len()).bytes().chain(word).chain(*b"\r\n"));
            }
            bytes
        });
        prop_oneof![8 => array, 1 => Just(b"get 'a b'\r\n".to_vec()), 1 => Just(b"\r\n".to_vec())]
    }

    proptest! {
        /// However what is sent is cut into reads, the same commands are read, and the same bytes passed over.
        #[test]
        fn cuts_change_nothing(commands in prop::collection::vec(any_command(), 0..6), cut in any::<prop::sample::Index>()) {
            let bytes = commands.concat();
            let (whole, taken) = read(&bytes).expect("well formed");
            prop_assert_eq!(taken, bytes.len());
            let cut = cut.index(bytes.len() + 1);
            let (mut first, taken) = read(&bytes[..cut]).expect("a beginning of it");
            let (second, _) = read(&bytes[taken..]).expect("what follows");
            first.extend(second);
            prop_assert_eq!(first, whole);
        }

        #[test]
        fn the_rest_of_a_command_ends_where_it_ends(command in any_command(), cuts in prop::collection::vec(1_usize..9, 1..40)) {
            let Ok(Front::Command(read)) = front(&command) else { return Ok(()) };
            let (mut at, mut rest) = read.rest();
            let (mut cuts, mut space) = (cuts.into_iter().cycle(), 0);
            while !rest.is_over() {
                space = (space + cuts.next().expect("endless")).min(command.len() - at);
                let taken = rest.pass(&command[at..at + space]).expect("well formed");
                at += taken;
                space -= taken;
            }
            prop_assert_eq!(at, command.len());
        }
    }
}
