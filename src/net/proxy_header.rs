//! The PROXY protocol's header: who the client is, and, between sidecars, the stamp of a session.
//!
//! By the specification of HAProxy's authors (proxy-protocol.txt, versions 1 and 2). The stamp stands in one TLV of the range
//! that is left to applications; its value is the text that the HTTP field has. Whatever is not exactly a header is refused:
//! who may send one at all is the listener's to say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::Stream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const HEAD: usize = 16;
/// What version 1 begins with.
const FIRST_WORD: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// The longest block behind the head that is read. Headers of load balancers have a few hundred bytes, those of stamps less.
const LONGEST_BLOCK: usize = 2048;
/// The TLV that carries a stamp.
const STAMP: u8 = 0xE7;
/// The TLV with a checksum over the whole header (CRC-32C), and its length.
const CHECKSUM: (u8, usize) = (0x03, 4);
/// How long to wait for more of what may become a header: it comes in one packet as good as always.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);
/// Who sends it in pieces is looked at ever more rarely.
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Where the client connected from; none where the sender speaks for itself, or does not know.
    pub source: Option<SocketAddr>,
    /// The stamp, as text.
    pub stamp: Option<Bytes>,
}

/// Why something is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// The beginning of a header of version 1.
    Line,
    /// The head of version 2, with so many bytes behind it.
    Block(usize),
    /// No header.
    Other,
    /// There is no telling yet.
    Short,
}

/// What a connection begins with, by its first bytes: [`HEAD`] of them are enough.
///
/// # Errors
/// Where it begins as version 2 does, and is none that is read here.
pub fn first(bytes: &[u8]) -> Result<First, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(have, want)| have == want);
    if !bytes.is_empty() && begins(SIGNATURE) {
        let Some([version, family, high, low]) = bytes.get(SIGNATURE.len()..HEAD) else { return Ok(First::Short) };
        if !matches!(version, 0x20 | 0x21) || !matches!(family, 0x00 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32) {
            return Err(Malformed("its version, command or family is unknown"));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > LONGEST_BLOCK {
            return Err(Malformed("it is longer than 2064 bytes"));
        }
        return Ok(First::Block(length));
    }
    match bytes.get(..FIRST_WORD.len()) {
        Some(word) if word == FIRST_WORD => Ok(First::Line),
        None if begins(FIRST_WORD) => Ok(First::Short),
        _ => Ok(First::Other),
    }
}

/// Reads a header of version 2: its head, and the whole block that its head announces.
///
/// # Errors
/// Where it is not exactly one.
pub fn read_block(header: &[u8]) -> Result<ProxyHeader, Malformed> {
    let (head, block) = header.split_at_checked(HEAD).ok_or(Malformed("it is cut short"))?;
    let (is_local, family) = (head[12] == 0x20, head[13] >> 4);
    let addresses = match family {
        0 => 0,
        1 => 12,
        2 => 36,
        _ => 216,
    };
    let (addresses, tlvs) = block.split_at_checked(addresses).ok_or(Malformed("its addresses are cut short"))?;
    let source = match family {
        _ if is_local => None,
        1 => Some((Ipv4Addr::from(array(&addresses[..4])).into(), array(&addresses[8..10]))),
        2 => Some((Ipv6Addr::from(array(&addresses[..16])).into(), array(&addresses[32..34]))),
        _ => None,
    };
    let source = source.map(|(ip, port): (IpAddr, [u8; 2])| SocketAddr::new(ip, u16::from_be_bytes(port)));
    Ok(ProxyHeader { source, stamp: read_tlvs(header, tlvs)? })
}

/// The stamp among the TLVs. All of them are looked at: what is malformed behind it is malformed.
fn read_tlvs(header: &[u8], mut rest: &[u8]) -> Result<Option<Bytes>, Malformed> {
    const CUT: Malformed = Malformed("a TLV of it is cut short");
    let mut stamp = None;
    while let Some((kind, behind)) = rest.split_first() {
        let (length, behind) = behind.split_at_checked(2).ok_or(CUT)?;
        let length = usize::from(u16::from_be_bytes(array(length)));
        let (value, behind) = behind.split_at_checked(length).ok_or(CUT)?;
        match *kind {
            STAMP if stamp.is_some() => return Err(Malformed("it carries two stamps")),
            STAMP => stamp = Some(Bytes::copy_from_slice(value)),
            kind if kind == CHECKSUM.0 => {
                let at = header.len() - behind.len() - length;
                if length != CHECKSUM.1 || checksum_without(header, at) != u32::from_be_bytes(array(value)) {
                    return Err(Malformed("its checksum does not hold"));
                }
            }
            _ => {}
        }
        rest = behind;
    }
    Ok(stamp)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller cut so many bytes off")
}

/// CRC-32C (RFC 3720, appendix B.4) with four zeros in the place of the checksum itself.
fn checksum_without(header: &[u8], at: usize) -> u32 {
    let bytes =
        header.iter().enumerate().map(|(place, byte)| if (at..at + CHECKSUM.1).contains(&place) { 0 } else { *byte });
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 })
    })
}

/// Reads a header of version 1: a whole line with its end.
///
/// # Errors
/// Where it is not exactly one.
pub fn read_line(line: &[u8]) -> Result<ProxyHeader, Malformed> {
    const WRONG: Malformed = Malformed("its line is none of version 1");
    let line = line.strip_suffix(b"\r\n").filter(|line| line.len() + 2 <= LONGEST_LINE).ok_or(WRONG)?;
    let line = std::str::from_utf8(line).map_err(|_| WRONG)?;
    let mut words = line.split(' ').skip(1);
    let (family, rest): (_, Vec<&str>) = (words.next(), words.collect());
    let is_v4 = match family {
        Some("UNKNOWN") => return Ok(ProxyHeader::default()),
        Some("TCP4") => true,
        Some("TCP6") => false,
        _ => return Err(WRONG),
    };
    let [source, destination, source_port, destination_port] = rest[..] else { return Err(WRONG) };
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == is_v4).ok_or(WRONG);
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain).ok_or(WRONG)
    };
    address(destination)?;
    port(destination_port)?;
    Ok(ProxyHeader { source: Some(SocketAddr::new(address(source)?, port(source_port)?)), stamp: None })
}

/// Writes a header of version 2. Without an address it says that the sender does not know the client's.
///
/// The stamp has to be shorter than 2000 bytes, as every stamp is.
pub fn write(source: Option<SocketAddr>, destination: Option<SocketAddr>, stamp: Option<&[u8]>) -> Vec<u8> {
    let mut block = Vec::with_capacity(64);
    let family = match source.zip(destination).map(|(from, to)| (from.ip(), to.ip(), from.port(), to.port())) {
        Some((IpAddr::V4(from), IpAddr::V4(to), from_port, to_port)) => {
            block.extend([from.octets(), to.octets()].concat());
            block.extend([from_port.to_be_bytes(), to_port.to_be_bytes()].concat());
            0x11
        }
        Some((IpAddr::V6(from), IpAddr::V6(to), from_port, to_port)) => {
            block.extend([from.octets(), to.octets()].concat());
            block.extend([from_port.to_be_bytes(), to_port.to_be_bytes()].concat());
            0x21
        }
        _ => 0x00,
    };
    if let Some(stamp) = stamp {
        block.push(STAMP);
        block.extend((stamp.len() as u16).to_be_bytes());
        block.extend(stamp);
    }
    let mut header = Vec::with_capacity(HEAD + block.len());
    header.extend(SIGNATURE);
    header.extend([0x21, family]);
    header.extend((block.len() as u16).to_be_bytes());
    header.extend(block);
    header
}

/// Takes the header off the beginning of a stream; `None` where it begins with something else, all of which is then still there to
/// be read. To be called before anything else is read. The caller sets the time limit.
///
/// # Errors
/// Where it breaks, ends within a header, or what it begins with is a malformed one.
pub async fn take(stream: &mut Stream) -> io::Result<Option<ProxyHeader>> {
    let (mut head, mut pause) = ([0; HEAD], LOOK_AGAIN);
    loop {
        // A socket is looked into without taking anything: what comes may be TLS, which reads the socket itself.
        let seen = stream.look(&mut head).await?;
        match first(&head[..seen])? {
            First::Other => return Ok(None),
            First::Short if seen == 0 => return Ok(None),
            First::Short => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            First::Line => return take_line(stream).await.map(Some),
            First::Block(length) => {
                let mut header = vec![0; HEAD + length];
                stream.read_exact(&mut header).await?;
                return Ok(Some(read_block(&header)?));
            }
        }
    }
}

async fn take_line(stream: &mut Stream) -> io::Result<ProxyHeader> {
    let mut line = Vec::with_capacity(LONGEST_LINE);
    // Byte by byte: what follows the line is not ours.
    while !line.ends_with(b"\n") {
        if line.len() == LONGEST_LINE {
            return Err(Malformed("its line has no end").into());
        }
        line.push(stream.read_u8().await?);
    }
    Ok(read_line(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    const TEXT: &[u8] = b"42;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"";

    #[test]
    fn what_is_written_is_read() {
        for (from, to) in [("10.0.0.7:5123", "10.0.0.3:6432"), ("[fd00::7]:5123", "[fd00::3]:6432")] {
            let (from, to) = (address(from), address(to));
            let header = write(Some(from), Some(to), Some(TEXT));
            assert_eq!(first(&header), Ok(First::Block(header.len() - HEAD)));
            let read = read_block(&header).expect("a header");
            assert_eq!((read.source, read.stamp.as_deref()), (Some(from), Some(TEXT)));
        }
        let unknown = read_block(&write(None, None, Some(TEXT))).expect("a header");
        assert_eq!((unknown.source, unknown.stamp.as_deref()), (None, Some(TEXT)));
        let mixed = write(Some(address("10.0.0.7:1")), Some(address("[::1]:2")), None);
        assert_eq!(read_block(&mixed), Ok(ProxyHeader::default()));
    }

    #[test]
    fn a_header_that_is_cut_or_wrong_is_refused() {
        let whole = write(Some(address("10.0.0.7:5123")), Some(address("10.0.0.3:6432")), Some(TEXT));
        for end in 0..whole.len() {
            let cut = &whole[..end];
            match first(cut) {
                Ok(First::Short) => assert!(end < HEAD),
                Ok(First::Block(_)) => {
                    // At the end of the addresses it is a header without a stamp, which says another length.
                    assert!(read_block(cut).is_err() || end == HEAD + 12, "{end}");
                }
                other => panic!("{end}: {other:?}"),
            }
        }
        let changed = |at: usize, to: u8| {
            let mut header = whole.clone();
            header[at] = to;
            header
        };
        for (at, to) in [(12, 0x11), (12, 0x22), (13, 0x41), (13, 0x10), (14, 0x10)] {
            assert!(first(&changed(at, to)).is_err(), "{at} {to:x}");
        }
        // An address block that is longer than what is there, a TLV that is.
        assert!(read_block(&changed(13, 0x31)).is_err());
        assert!(read_block(&changed(HEAD + 12 + 2, 0xff)).is_err());
        let twice: Vec<u8> = [&whole[..], &whole[HEAD + 12..]].concat();
        assert_eq!(read_block(&twice), Err(Malformed("it carries two stamps")));
        assert!(read_block(&[&whole[..], &[0x04]].concat()).is_err(), "one byte behind the last TLV");
    }

    #[test]
    fn a_sender_that_speaks_for_itself_has_no_client() {
        for family in [0x00, 0x11] {
            let mut header = write(Some(address("10.0.0.7:5123")), Some(address("10.0.0.3:6432")), None);
            (header[12], header[13]) = (0x20, family);
            if family == 0 {
                header.truncate(HEAD);
            }
            assert_eq!(read_block(&header), Ok(ProxyHeader::default()), "LOCAL, with addresses or without any");
        }
    }

    #[test]
    fn a_checksum_is_verified_where_there_is_one() {
        let mut header = write(None, None, Some(TEXT));
        let at = header.len() + 3;
        header.extend([CHECKSUM.0, 0, 4, 0, 0, 0, 0]);
        let sum = checksum_without(&header, at);
        header[at..].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(read_block(&header).expect("it holds").stamp.as_deref(), Some(TEXT));
        // (The kind of the last TLV apart: as another one it would be none to verify.)
        for place in (HEAD..header.len()).filter(|place| *place != at - 3) {
            let mut other = header.clone();
            other[place] ^= 1;
            assert!(read_block(&other).is_err(), "{place}");
        }
        // The test value of RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(checksum_without(&[0; 32], 99), 0x8A91_36AA);
    }

    #[test]
    fn a_line_is_read_strictly() {
        let read = |line: &str| read_line(line.as_bytes());
        assert_eq!(
            read("PROXY TCP4 10.0.0.7 10.0.0.3 5123 80\r\n").expect("one").source,
            Some(address("10.0.0.7:5123"))
        );
        assert_eq!(read("PROXY TCP6 fd00::7 fd00::3 1 2\r\n").expect("one").source, Some(address("[fd00::7]:1")));
        assert_eq!(read("PROXY UNKNOWN\r\n"), Ok(ProxyHeader::default()));
        assert_eq!(read("PROXY UNKNOWN ff:: whatever\r\n"), Ok(ProxyHeader::default()));
        for line in [
            "PROXY TCP4 10.0.0.7 10.0.0.3 5123 80\n",
            "PROXY TCP4 10.0.0.7 10.0.0.3 5123 80",
            "PROXY TCP4 10.0.0.7 10.0.0.3 5123\r\n",
            "PROXY TCP4 10.0.0.7 10.0.0.3 5123 80 \r\n",
            "PROXY TCP4 fd00::7 10.0.0.3 5123 80\r\n",
            "PROXY TCP4 10.0.0.7 10.0.0.3 05123 80\r\n",
            "PROXY TCP4 10.0.0.7 10.0.0.3 +5 80\r\n",
            "PROXY TCP4 10.0.0.7 10.0.0.3 65536 80\r\n",
            "PROXY TCP5 10.0.0.7 10.0.0.3 1 80\r\n",
            "PROXY  TCP4 10.0.0.7 10.0.0.3 1 80\r\n",
            "PROXY \r\n",
        ] {
            assert!(read(line).is_err(), "{line:?}");
        }
        assert!(read(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(100))).is_err());
    }

    #[test]
    fn what_other_protocols_begin_with_is_no_header() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00", b"\0\0\0\x08\x04\xd2\x16\x2f", b"PING\r\n", b"*1\r\n"]
        {
            assert_eq!(first(bytes), Ok(First::Other), "{bytes:?}");
        }
        assert_eq!(first(b"PRO"), Ok(First::Short));
        assert_eq!(first(b"PROXY TCP4 "), Ok(First::Line));
    }

    #[tokio::test]
    async fn what_follows_a_header_is_left_and_so_is_what_is_none() {
        use tokio::io::AsyncWriteExt as _;
        let header = write(None, None, Some(TEXT));
        for (sent, stamp) in [(&header[..], Some(TEXT)), (b"PROXY UNKNOWN\r\n", None)] {
            let (mut far, near) = tokio::io::duplex(4096);
            far.write_all(&[sent, b"rest"].concat()).await.expect("it is buffered");
            drop(far);
            let mut near = Stream::other(near);
            let taken = take(&mut near).await.expect("a header").expect("one");
            assert_eq!(taken.stamp.as_deref(), stamp);
            let mut rest = String::new();
            near.read_to_string(&mut rest).await.expect("the rest");
            assert_eq!(rest, "rest");
        }
        let (mut far, near) = tokio::io::duplex(4096);
        far.write_all(b"hello, and more than sixteen bytes").await.expect("it is buffered");
        drop(far);
        let mut near = Stream::other(near);
        assert_eq!(take(&mut near).await.expect("nothing is wrong"), None);
        let mut all = String::new();
        near.read_to_string(&mut all).await.expect("all of it");
        assert_eq!(all, "hello, and more than sixteen bytes");
    }
}
