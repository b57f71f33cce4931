//! The startup message: whose session it is, the epoch that its client names, and how the target gets to see it.
//!
//! A client without a sidecar names its epoch as PostgreSQL lets it set anything for a session: `options='-c epochgate.epoch=42'`,
//! or a parameter `epochgate.epoch` of its own. What counts for the fence is read strictly; all else passes as it came.

use std::borrow::Cow;

use super::message::{LONGEST_FIRST, Malformed};
use crate::fence::Epoch;

/// The setting that names the epoch of a session, in the startup message and in the database.
pub const EPOCH: &str = "epochgate.epoch";
/// The name that a session goes by in `pg_stat_activity`.
const APPLICATION_NAME: &str = "application_name";
/// What the server makes of a transaction that does not say whether it only reads.
const READS_BY_DEFAULT: &str = "default_transaction_read_only";
/// PostgreSQL cuts names off behind so many bytes (NAMEDATALEN).
const LONGEST_NAME: usize = 63;
/// What stands before the parameters: length and version.
const VERSION_ENDS: usize = 8;

/// What a role looks at: none of these may stand twice, or two readers could read two things.
const LOOKED_AT: [&str; 6] = ["user", "database", "options", "replication", APPLICATION_NAME, EPOCH];

/// A startup message, read.
#[derive(Clone, PartialEq, Eq)]
pub struct Startup<'a> {
    version: [u8; 4],
    parameters: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Startup<'a> {
    /// Reads the whole packet ([`First::Startup`](super::message::First::Startup)).
    ///
    /// # Errors
    /// Where its parameters are not pairs of texts up to an empty one at its very end, where it has no user, or where something
    /// stands twice that is looked at.
    pub fn parse(packet: &'a [u8]) -> Result<Startup<'a>, Malformed> {
        let (head, mut rest) = packet.split_at_checked(VERSION_ENDS).ok_or(UNENDED)?;
        let mut startup = Startup { version: [head[4], head[5], head[6], head[7]], parameters: Vec::with_capacity(8) };
        loop {
            let name = text(&mut rest)?;
            if name.is_empty() {
                break;
            }
            let value = text(&mut rest)?;
            // The names of settings are the same in upper and lower case.
            let looked_at = LOOKED_AT.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
            if looked_at && startup.parameters.iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
                return Err(Malformed("a parameter of the startup message stands twice"));
            }
            startup.parameters.push((name, value));
        }
        if !rest.is_empty() {
            return Err(Malformed("bytes follow where the startup message should end"));
        }
        if startup.user().is_empty() {
            return Err(Malformed("the startup message names no user"));
        }
        Ok(startup)
    }

    fn parameter(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.parameters.iter().find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| *value)
    }

    fn user(&self) -> &'a [u8] {
        self.parameter("user").unwrap_or_default()
    }

    /// The database that it connects to, as a path: `/orders`. What no path has in it is encoded.
    pub fn path(&self) -> String {
        let database = self.parameter("database").filter(|name| !name.is_empty()).unwrap_or_else(|| self.user());
        let mut path = String::with_capacity(database.len() + 1);
        path.push('/');
        for byte in database {
            if byte.is_ascii_alphanumeric() || b"-._".contains(byte) {
                path.push(char::from(*byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
        path
    }

    /// What the client says of its epoch: the text of a stamp, a bare epoch as a rule.
    ///
    /// # Errors
    /// Where it says it more than once.
    pub fn epoch(&self) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
        let mut found = self.parameter(EPOCH).map(Cow::Borrowed);
        for (name, value) in settings(self.parameter("options").unwrap_or_default()) {
            if name.eq_ignore_ascii_case(EPOCH.as_bytes()) && found.replace(Cow::Owned(value)).is_some() {
                return Err(Malformed("the startup message names more than one epoch"));
            }
        }
        Ok(found)
    }

    /// The packet as the target is to get it, of a session that was admitted with this epoch: it names it as the session's
    /// setting, in the place of what the client said, and marks the session's name, for people. Nothing else is touched.
    ///
    /// # Errors
    /// Where it would be longer than PostgreSQL takes.
    pub fn for_target(&self, epoch: Epoch) -> Result<Vec<u8>, Malformed> {
        let epoch = epoch.to_string();
        self.with((EPOCH, &epoch), &[EPOCH], &format!("[epochgate {epoch}]"))
    }

    /// The packet as the target is to get it, of a session that may only read: its transactions only read by default, whatever
    /// else the client said (a parameter is applied after `options`), which covers what the server runs before the first
    /// statement. No epoch is named, and the session's name is marked, for people.
    ///
    /// # Errors
    /// Where it asks for replication, which is no reading of tables; where it would be longer than PostgreSQL takes.
    pub fn for_reading(&self) -> Result<Vec<u8>, Malformed> {
        let replication = self.parameter("replication").unwrap_or(b"false");
        if ![&b"false"[..], b"off", b"no", b"0"].contains(&replication) {
            return Err(Malformed("a session that may only read takes no part in replication"));
        }
        self.with((READS_BY_DEFAULT, "on"), &[EPOCH, READS_BY_DEFAULT], "[epochgate reads]")
    }

    /// The packet with this parameter at its end in the place of others, and with a mark where there is room for one.
    fn with(&self, put: (&str, &str), out: &[&str], mark: &str) -> Result<Vec<u8>, Malformed> {
        let marked = self.marked(mark);
        // Only people miss the mark.
        for marked in [marked.as_deref(), None] {
            let packet = self.written(put, out, marked);
            if packet.len() - 4 <= LONGEST_FIRST {
                return Ok(packet);
            }
        }
        Err(Malformed("the startup message is so long that what the guard adds finds no place"))
    }

    fn written(&self, last: (&str, &str), out: &[&str], marked: Option<&[u8]>) -> Vec<u8> {
        let mut packet = vec![0; 4];
        packet.extend_from_slice(&self.version);
        let mut put = |name: &[u8], value: &[u8]| {
            for text in [name, value] {
                packet.extend_from_slice(text);
                packet.push(0);
            }
        };
        let is = |name: &[u8], known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let stays = |name: &[u8]| !out.iter().any(|known| is(name, known));
        for (name, value) in self.parameters.iter().filter(|(name, _)| stays(name)) {
            put(name, marked.filter(|_| is(name, APPLICATION_NAME)).unwrap_or(value));
        }
        if let Some(marked) = marked.filter(|_| self.parameter(APPLICATION_NAME).is_none()) {
            put(APPLICATION_NAME.as_bytes(), marked);
        }
        put(last.0.as_bytes(), last.1.as_bytes());
        packet.push(0);
        let length = u32::try_from(packet.len()).expect("the packet that it comes from is bounded");
        packet[..4].copy_from_slice(&length.to_be_bytes());
        packet
    }

    /// The session's name with a mark behind it; none where the client names it in its options, which a parameter would
    /// override.
    fn marked(&self, mark: &str) -> Option<Vec<u8>> {
        let in_options = settings(self.parameter("options").unwrap_or_default());
        if in_options.into_iter().any(|(name, _)| name.eq_ignore_ascii_case(APPLICATION_NAME.as_bytes())) {
            return None;
        }
        let own = self.parameter(APPLICATION_NAME).unwrap_or_default();
        let mark = if own.is_empty() { mark.to_owned() } else { format!(" {mark}") };
        let mut end = own.len().min(LONGEST_NAME - mark.len());
        // Not within a character: its other bytes look like 10xxxxxx.
        while end < own.len() && end > 0 && own[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        Some([&own[..end], mark.as_bytes()].concat())
    }
}

const UNENDED: Malformed = Malformed("a text of the startup message has no end");

/// Takes a text off the front, which a zero byte ends.
fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let end = rest.iter().position(|byte| *byte == 0).ok_or(UNENDED)?;
    let (text, more) = rest.split_at(end);
    *rest = &more[1..];
    Ok(text)
}

/// The settings in `options`: `-c name=value`, `-cname=value`, `--name=value`. Everything else that a server's command line may
/// have says nothing of epochs, and is the server's to judge.
fn settings(options: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut settings = Vec::new();
    let mut words = words(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == b"-c" {
            words.next()
        } else {
            [&b"-c"[..], b"--"].iter().find_map(|dash| word.strip_prefix(*dash)).map(<[u8]>::to_vec)
        };
        let Some(setting) = setting else { continue };
        if let Some(equals) = setting.iter().position(|byte| *byte == b'=') {
            settings.push((setting[..equals].to_vec(), setting[equals + 1..].to_vec()));
        }
    }
    settings
}

/// As PostgreSQL splits them (pg_split_opts): at blanks, and a backslash takes the byte behind it as it is.
fn words(options: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut begun) = (Vec::new(), Vec::new(), false);
    let mut bytes = options.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            b'\\' => {
                begun = true;
                word.extend(bytes.next());
            }
            _ => {
                begun = true;
                word.push(byte);
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::message::tests::packet;
    use super::*;

    const THREE: u32 = 3 << 16;

    /// A startup message for tests.
    pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
        packet(THREE, &body(parameters))
    }

    fn body(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut body: Vec<u8> =
            parameters.iter().flat_map(|(name, value)| format!("{name}\0{value}\0").into_bytes()).collect();
        body.push(0);
        body
    }

    fn epoch_of(parameters: &[(&str, &str)]) -> Result<Option<String>, Malformed> {
        let packet = startup(&[&[("user", "a")], parameters].concat());
        let found = Startup::parse(&packet)?.epoch()?;
        Ok(found.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    #[test]
    fn an_epoch_is_found_wherever_postgresql_finds_a_setting() {
        for options in [
            "-c epochgate.epoch=42",
            "-cepochgate.epoch=42",
            "--epochgate.epoch=42",
            "  -c  search_path=a\\ b -c epochgate.epoch=42 ",
            "-c\tEpochGate.Epoch=42",
            "-c epochgate\\.epoch=4\\2",
            "-e -c work_mem=1MB --epochgate.epoch=42 -c x=y",
        ] {
            assert_eq!(epoch_of(&[("options", options)]), Ok(Some("42".into())), "{options}");
        }
        assert_eq!(epoch_of(&[("epochgate.epoch", "42")]), Ok(Some("42".into())));
        assert_eq!(epoch_of(&[("EPOCHGATE.EPOCH", "42")]), Ok(Some("42".into())));
        let whole = "--epochgate.epoch=42;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"";
        assert_eq!(epoch_of(&[("options", whole)]), Ok(Some(whole[18..].into())), "a whole stamp");
    }

    #[test]
    fn what_names_none_is_not_taken_for_one() {
        for options in [
            "",
            "-c",
            "-c epochgate.epoch",
            "-c xepochgate.epoch=42",
            "epochgate.epoch=42",
            "-c a=epochgate.epoch=42",
            "\\",
        ] {
            assert_eq!(epoch_of(&[("options", options)]), Ok(None), "{options}");
        }
        // Whatever the value is, it is found, and the role says what is wrong with it.
        assert_eq!(epoch_of(&[("options", "-c epochgate.epoch=")]), Ok(Some(String::new())));
        assert_eq!(epoch_of(&[("options", "-c epochgate.epoch=\\ 42")]), Ok(Some(" 42".into())));
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for twice in [
            &[("options", "-c epochgate.epoch=42 -c epochgate.epoch=42")][..],
            &[("options", "-c epochgate.epoch=42"), ("epochgate.epoch", "42")],
            &[("epochgate.epoch", "42"), ("EpochGate.epoch", "41")],
            &[("options", ""), ("options", "")],
            &[("database", "a"), ("database", "b")],
            &[("user", "b")],
        ] {
            assert!(epoch_of(twice).is_err(), "{twice:?}");
        }
        assert!(epoch_of(&[("client_encoding", "a"), ("client_encoding", "b")]).is_ok(), "the server's to judge");
    }

    #[test]
    fn a_startup_message_is_texts_to_its_end() {
        for bad in [
            packet(THREE, b""),
            packet(THREE, b"\0"),
            packet(THREE, b"user\0a\0"),
            packet(THREE, b"user\0a"),
            packet(THREE, b"user\0a\0\0\0"),
            packet(THREE, b"user\0\0\0"),
            packet(THREE, b"user\0a\0\0x"),
        ] {
            assert!(Startup::parse(&bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(Startup::parse(&packet(THREE, b"user\0a\0\0")).is_ok());
    }

    #[test]
    fn the_database_is_the_path() {
        let path = |parameters: &[(&str, &str)]| Startup::parse(&startup(parameters)).expect("right").path();
        assert_eq!(path(&[("user", "a")]), "/a");
        assert_eq!(path(&[("user", "a"), ("database", "")]), "/a");
        assert_eq!(path(&[("user", "a"), ("database", "orders_7.b-c")]), "/orders_7.b-c");
        assert_eq!(path(&[("user", "a"), ("database", "../x y/ü?")]), "/..%2Fx%20y%2F%C3%BC%3F");
    }

    #[test]
    fn the_target_sees_the_epoch_and_all_else_as_it_came() {
        let rewritten = |parameters: &[(&str, &str)]| {
            let packet = startup(parameters);
            let epoch = Epoch::new(42).expect("in range");
            Startup::parse(&packet).expect("right").for_target(epoch).expect("it fits")
        };
        let psql = [("user", "a"), ("_pq_.x", "1"), ("application_name", "psql"), ("client_encoding", "UTF8")];
        assert_eq!(
            rewritten(&psql),
            startup(&[
                ("user", "a"),
                ("_pq_.x", "1"),
                ("application_name", "psql [epochgate 42]"),
                ("client_encoding", "UTF8"),
                ("epochgate.epoch", "42"),
            ])
        );
        assert_eq!(
            rewritten(&[("EPOCHGATE.epoch", "41"), ("user", "a")]),
            startup(&[("user", "a"), ("application_name", "[epochgate 42]"), ("epochgate.epoch", "42")])
        );
        let named = [("user", "a"), ("options", "-c application_name=me")];
        assert_eq!(rewritten(&named), startup(&[&named[..], &[("epochgate.epoch", "42")]].concat()));
        let two = packet((3 << 16) | 2, &body(&[("user", "a")]));
        let epoch = Epoch::new(42).expect("in range");
        assert_eq!(Startup::parse(&two).expect("right").for_target(epoch).expect("it fits")[4..8], [0, 3, 0, 2]);
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_a_long_message_keeps_its_epoch() {
        let epoch = Epoch::LAST;
        let name = format!("x{}", "ü".repeat(40));
        let packet = startup(&[("user", "a"), ("application_name", &name)]);
        let written = Startup::parse(&packet).expect("right").for_target(epoch).expect("it fits");
        let marked = Startup::parse(&written).expect("right").parameter("application_name").expect("it is there");
        let marked = std::str::from_utf8(marked).expect("whole characters");
        assert!(marked.len() <= LONGEST_NAME && marked.ends_with("ü [epochgate 999999999999999]"), "{marked}");
        let room = |room: usize| {
            let bare = startup(&[("user", "a"), ("x", "")]).len() - 4;
            let packet = startup(&[("user", "a"), ("x", &"y".repeat(LONGEST_FIRST - bare - room))]);
            Startup::parse(&packet).expect("right").for_target(Epoch::FIRST)
        };
        let settings = |packet: &[u8]| Startup::parse(packet).expect("right").parameters.len();
        assert_eq!(room(100).map(|packet| settings(&packet)), Ok(4));
        assert_eq!(room(18).map(|packet| settings(&packet)), Ok(3));
        assert!(room(17).is_err());
    }
}
