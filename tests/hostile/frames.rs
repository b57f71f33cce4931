//! HTTP/2 by hand: frames, heads, and a client that sends what it is told for as long as anybody takes it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Nobody takes so long to take something who still takes anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field without a table; none is long enough for a second byte of length.
fn field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
        block.extend(text.as_bytes());
    }
}

/// The head of a stamped PUT of `/`, in HPACK without a table.
pub fn put(stamp: &str) -> Vec<u8> {
    let mut block = vec![0x02, 3, b'P', b'U', b'T', 0x86, 0x84, 0x01, 1, b'a'];
    field(&mut block, "fencing-epoch", stamp);
    block
}

/// The head of a GET of this path.
pub fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 1, b'a'];
    field(&mut block, ":path", path);
    // A pseudo field comes before all others: put it there.
    let path = block.split_off(5);
    [&block[..2], &path, &block[2..5]].concat()
}

/// How a flood ended.
#[derive(Debug)]
pub struct Sent {
    /// How many bytes went out.
    pub bytes: usize,
    /// Whether the other side ended it.
    pub ended: bool,
}

/// Speaks HTTP/2 with these settings: sends what `next` gives until that is all, the other side ends the connection, or
/// takes nothing for a while. What comes back is read and dropped where `reads`.
pub fn flood(to: SocketAddr, settings: &[u8], reads: bool, mut next: impl FnMut(u32) -> Option<Vec<u8>>) -> Sent {
    let mut stream = begin(to, settings);
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    if reads {
        let mut reading = stream.try_clone().unwrap();
        thread::spawn(move || while reading.read(&mut [0; 16 * 1024]).is_ok_and(|count| count > 0) {});
    }
    let mut bytes = 0;
    for number in 0.. {
        let Some(frames) = next(number) else { break };
        match stream.write_all(&frames) {
            Ok(()) => bytes += frames.len(),
            Err(error) => {
                let full = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                return Sent { bytes, ended: !full };
            }
        }
    }
    // It may have been ended while the last frames were on their way.
    Sent { bytes, ended: is_ended(&mut stream, PATIENCE) }
}

/// A connection that has said its preface and these settings.
pub fn begin(to: SocketAddr, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).unwrap();
    stream
}

/// Whether the other side ends the connection, reading what it says until then.
pub fn is_ended(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut heard = [0; 4096];
    loop {
        match stream.read(&mut heard) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }
}
