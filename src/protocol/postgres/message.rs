//! The frames of PostgreSQL's protocol (3.0 and 3.2): where a message begins and ends, and what the first ones are.
//!
//! Slices in, places out: nothing is copied, and the body of a message is skipped by its length, so that a gigabyte of rows costs
//! no more than its heads.

use std::fmt;

/// What every message but the first begins with: its type, and its length without the type.
pub const HEAD: usize = 5;
/// The longest message: PostgreSQL makes none of more than a gibibyte, and takes none.
pub const LONGEST: u32 = 1 << 30;
/// The longest first packet, without its length (PostgreSQL's own MAX_STARTUP_PACKET_LENGTH).
pub const LONGEST_FIRST: usize = 10_000;
/// The shortest and the longest key of a session: four bytes before protocol 3.2, then up to 256.
pub const KEYS: std::ops::RangeInclusive<usize> = 4..=256;

/// The length of every first packet.
const LENGTH: usize = 4;
/// What a first packet has at least: its length, and a version or a code.
const SHORTEST_FIRST: usize = 8;

const CANCEL: u32 = code(5678);
const TLS: u32 = code(5679);
const GSS: u32 = code(5680);

/// Codes take the place of a version that there never will be.
const fn code(low: u32) -> u32 {
    (1234 << 16) | low
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// What a client begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum First<'a> {
    /// It asks for TLS.
    Tls,
    /// It asks for GSSAPI encryption.
    Gss,
    /// It asks that what another session runs be cancelled. The whole packet.
    Cancel(&'a [u8]),
    /// It begins a session. The whole packet.
    Startup(&'a [u8]),
}

impl fmt::Debug for First<'_> {
    /// Without the key of the one and what may be in the other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            First::Tls => "Tls",
            First::Gss => "Gss",
            First::Cancel(_) => "Cancel",
            First::Startup(_) => "Startup",
        })
    }
}

/// The first packet in `bytes`, and how long it is; `None` where more is needed.
///
/// # Errors
/// Where it is none, as far as can be seen already.
pub fn first(bytes: &[u8]) -> Result<Option<(First<'_>, usize)>, Malformed> {
    let Some(length) = number(bytes, 0) else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(SHORTEST_FIRST..=LONGEST_FIRST + LENGTH).contains(&length) {
        return Err(Malformed("the first packet has a length that none can have"));
    }
    let Some(code) = number(bytes, LENGTH) else { return Ok(None) };
    match code {
        TLS | GSS if length != SHORTEST_FIRST => return Err(Malformed("a request for encryption has a body")),
        CANCEL if !KEYS.contains(&length.saturating_sub(SHORTEST_FIRST + 4)) => {
            return Err(Malformed("a request to cancel has a key that none can be"));
        }
        TLS => return Ok(Some((First::Tls, length))),
        GSS => return Ok(Some((First::Gss, length))),
        CANCEL => {}
        version if version >> 16 == 3 => {}
        version if version >> 16 == 2 => {
            return Err(Malformed("this is version 2 of the protocol, which ended with PostgreSQL 14"));
        }
        _ => return Err(Malformed("the first packet is of no known version")),
    }
    let Some(packet) = bytes.get(..length) else { return Ok(None) };
    Ok(Some((if code == CANCEL { First::Cancel(packet) } else { First::Startup(packet) }, length)))
}

/// The request to cancel what a session runs, of its process and key as the server gave them.
pub fn cancel(process_and_key: &[u8]) -> Vec<u8> {
    let length = u32::try_from(SHORTEST_FIRST + process_and_key.len()).expect("a key is bounded");
    [&length.to_be_bytes()[..], &CANCEL.to_be_bytes(), process_and_key].concat()
}

/// The four bytes at `at`, as a number.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*four))
}

/// A message, or a part of one, as it lies in what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The message's type.
    pub kind: u8,
    /// The length of its body, all of it.
    pub length: u32,
    /// Whether it begins here: its head ends here.
    pub begins: bool,
    /// What of its body is here.
    pub body: &'a [u8],
    /// Whether it ends here.
    pub ends: bool,
}

/// Walks over a stream of messages, however it is cut into reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    head: [u8; HEAD],
    /// How much of a head is there.
    have: u8,
    /// What is left of the body of the message in `head`.
    left: u32,
}

impl Walk {
    /// Whether it stands between two messages.
    pub fn is_between(&self) -> bool {
        self.have == 0
    }

    /// Walks over `bytes`, and shows every part of a message to `each`.
    ///
    /// # Errors
    /// Where there is a length that no message has, and what `each` says. The walk is then to be given up.
    #[inline]
    pub fn over(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Part<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            let mut begins = false;
            if usize::from(self.have) < HEAD {
                let have = usize::from(self.have);
                let taken = bytes.len().min(HEAD - have);
                self.head[have..have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken as u8;
                bytes = &bytes[taken..];
                if usize::from(self.have) < HEAD {
                    return Ok(());
                }
                self.left = self.length()?;
                begins = true;
            }
            let here = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (body, rest) = bytes.split_at(here);
            self.left -= here as u32;
            let ends = self.left == 0;
            if ends {
                self.have = 0;
            }
            each(Part { kind: self.head[0], length: self.length()?, begins, body, ends })?;
            bytes = rest;
        }
        Ok(())
    }

    /// The length of the body, as the head says it.
    fn length(&self) -> Result<u32, Malformed> {
        let [_, length @ ..] = self.head;
        match u32::from_be_bytes(length) {
            length @ 4..=LONGEST => Ok(length - 4),
            _ => Err(Malformed("a message has a length that none can have")),
        }
    }
}

/// The whole messages at the front of `bytes` that `pass` takes: how long they are together.
///
/// # Errors
/// Where there is a length that no message has.
pub fn leading(bytes: &[u8], pass: impl Fn(u8) -> bool) -> Result<usize, Malformed> {
    let mut at = 0;
    while let Some(kind) = bytes.get(at) {
        let Some(length) = number(bytes, at + 1) else { break };
        if !(4..=LONGEST).contains(&length) {
            return Err(Malformed("a message has a length that none can have"));
        }
        let end = at + 1 + usize::try_from(length).unwrap_or(usize::MAX);
        if end > bytes.len() || !pass(*kind) {
            break;
        }
        at = end;
    }
    Ok(at)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message for tests.
    pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short");
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// A first packet for tests.
    pub fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).expect("short");
        [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
    }

    #[test]
    fn the_first_packet_is_known_by_its_code_and_never_too_early() {
        let three = |minor: u32| packet((3 << 16) | minor, b"user\0a\0\0");
        for (bytes, name) in [
            (packet(TLS, b""), "Tls"),
            (packet(GSS, b""), "Gss"),
            (packet(CANCEL, &[7; 8]), "Cancel"),
            // Keys of PostgreSQL 18.
            (packet(CANCEL, &[7; 4 + 32]), "Cancel"),
            (packet(CANCEL, &[7; 4 + 256]), "Cancel"),
            (three(0), "Startup"),
            (three(2), "Startup"),
            // What a client sends to see whether a server negotiates.
            (three(9999), "Startup"),
        ] {
            let whole = bytes.len();
            for cut in 0..whole {
                assert_eq!(first(&bytes[..cut]), Ok(None), "{name} cut at {cut}");
            }
            let longer = [&bytes[..], b"more"].concat();
            let (found, length) = first(&longer).expect("right").expect("whole");
            assert_eq!((format!("{found:?}").as_str(), length), (name, whole));
        }
    }

    #[test]
    fn what_is_no_first_packet_is_refused() {
        for (bad, why) in [
            (packet(TLS, b"x"), "body"),
            (packet(CANCEL, &[7; 7]), "key"),
            (packet(CANCEL, &[7; 4 + 257]), "key"),
            (packet(2 << 16, b"user\0a\0\0"), "version 2"),
            (packet(4 << 16, b""), "no known version"),
            (7_u32.to_be_bytes().to_vec(), "length"),
            (10_005_u32.to_be_bytes().to_vec(), "length"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "length"),
        ] {
            let error = first(&bad).expect_err(why);
            assert!(error.0.contains(why), "{error}");
        }
    }

    #[test]
    fn a_request_to_cancel_is_read_as_it_is_written() {
        let written = cancel(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(first(&written), Ok(Some((First::Cancel(&written), 16))));
    }

    #[test]
    fn a_walk_shows_the_same_messages_however_they_are_cut() {
        let stream = [message(b'Q', b"select 1\0"), message(b'S', b""), message(b'd', &[9; 300])].concat();
        let walk_over = |cuts: &[usize]| {
            let (mut walk, mut seen, mut from) = (Walk::default(), Vec::new(), 0);
            for to in cuts.iter().copied().chain([stream.len()]) {
                let collect = |part: Part<'_>| {
                    if part.begins {
                        seen.push((part.kind, part.length, Vec::new(), false));
                    }
                    let last = seen.last_mut().expect("it has begun");
                    last.2.extend_from_slice(part.body);
                    last.3 |= part.ends;
                    Ok(())
                };
                walk.over(&stream[from..to], collect).expect("right");
                from = to;
            }
            assert!(walk.is_between());
            seen
        };
        let whole = walk_over(&[]);
        assert_eq!(whole.len(), 3);
        assert!(whole.iter().all(|(_, length, body, ended)| *ended && body.len() == *length as usize));
        for one in 0..stream.len() {
            assert_eq!(walk_over(&[one]), whole, "cut at {one}");
            assert_eq!(walk_over(&[one, (one + 3).min(stream.len())]), whole, "cut at {one}");
        }
        assert_eq!(walk_over(&(1..stream.len()).collect::<Vec<_>>()), whole, "byte by byte");
    }

    #[test]
    fn a_length_that_none_has_ends_the_walk() {
        for length in [0_u32, 3, LONGEST + 1, u32::MAX] {
            let bytes = [&b"Q"[..], &length.to_be_bytes()].concat();
            assert!(Walk::default().over(&bytes, |_| Ok(())).is_err(), "{length}");
            assert!(leading(&bytes, |_| true).is_err(), "{length}");
        }
    }

    #[test]
    fn only_whole_messages_lead() {
        let bytes = [message(b'p', b"x\0"), message(b'p', b""), message(b'Q', b"\0")].concat();
        assert_eq!(leading(&bytes, |kind| kind == b'p'), Ok(12));
        assert_eq!(leading(&bytes[..11], |kind| kind == b'p'), Ok(7));
        assert_eq!(leading(&bytes, |_| true), Ok(bytes.len()));
        assert_eq!(leading(b"", |_| true), Ok(0));
    }
}
