//! The network between a stamp and the guard, which looks at what it carries: the header with the stamp that each connection
//! begins with, and the operations that come behind it.
//!
//! So the test knows the term of each operation without asking anybody who could be wrong about it: neither the client, which
//! cannot know, nor a sidecar, which is what is tested. A connection has one header, and a guard lets in what comes over it by
//! nothing else; an operation is named in one connection only. Operations go in clear, as `#name#`, in all three protocols.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use epochgate::clock::{Clock as _, HostClock};
use epochgate::fence::{Moment, Stamp};
use epochgate::net::proxy_header::{self, First};

/// The length of a header of version 2 without its block.
const HEAD: usize = 16;
/// The longest name of an operation, with both its marks.
const LONGEST: usize = 48;

/// What was seen of an operation before it came to the guard.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The stamp of the connection that it came over.
    pub stamp: Option<Stamp>,
    /// When, first: it is applied after that.
    pub at: Moment,
}

/// All operations that went to the guard, by name.
#[derive(Clone, Default)]
pub struct Sightings(Arc<Mutex<BTreeMap<String, Vec<Seen>>>>);

impl Sightings {
    /// An operation goes to the guard with this stamp. Once for each stamp.
    pub fn note(&self, op: &str, stamp: Option<&Stamp>) {
        let mut all = self.0.lock().expect("no holder of it panics");
        let seen = all.entry(op.to_owned()).or_default();
        if !seen.iter().any(|seen| seen.stamp.as_ref() == stamp) {
            seen.push(Seen { stamp: stamp.cloned(), at: HostClock.now() });
        }
    }

    /// What was seen of it: more than one where it came with several stamps.
    pub fn of(&self, op: &str) -> Vec<Seen> {
        self.0.lock().expect("no holder of it panics").get(op).cloned().unwrap_or_default()
    }
}

/// What the nemesis can do to a way.
#[derive(Default)]
struct Trouble {
    still: AtomicBool,
    /// Connections that began before this count are to end.
    broken: AtomicU64,
    begun: AtomicU64,
    ended: AtomicBool,
}

/// The way from one stamp to the guard.
pub struct Relay {
    /// Where the stamp connects to.
    pub address: SocketAddr,
    trouble: Arc<Trouble>,
}

impl Relay {
    /// One to `guard`.
    pub fn to(guard: SocketAddr, sightings: &Sightings) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let trouble = Arc::new(Trouble::default());
        let (shared, sightings) = (Arc::clone(&trouble), sightings.clone());
        thread::spawn(move || {
            for stamp in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (trouble, sightings) = (Arc::clone(&shared), sightings.clone());
                // Where nobody listens there, the stamp learns it as an end.
                thread::spawn(move || drop(carry(stamp, guard, &trouble, sightings)));
            }
        });
        Relay { address, trouble }
    }

    /// From here on nothing arrives, either way; it does once this is undone.
    pub fn stand_still(&self, still: bool) {
        self.trouble.still.store(still, Ordering::Relaxed);
    }

    /// Ends every connection that there is.
    pub fn break_all(&self) {
        self.trouble.broken.store(self.trouble.begun.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.trouble.ended.store(true, Ordering::Relaxed);
        self.stand_still(false);
        self.break_all();
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(stamp: TcpStream, guard: SocketAddr, trouble: &Arc<Trouble>, sightings: Sightings) -> io::Result<()> {
    let number = trouble.begun.fetch_add(1, Ordering::Relaxed) + 1;
    let guard = TcpStream::connect_timeout(&guard, Duration::from_secs(5))?;
    for end in [&stamp, &guard] {
        end.set_nodelay(true)?;
        // To look up now and then.
        end.set_read_timeout(Some(Duration::from_millis(100)))?;
    }
    let back = (guard.try_clone()?, stamp.try_clone()?, Arc::clone(trouble));
    thread::spawn(move || {
        let (from, to, trouble) = back;
        copy(from, to, &trouble, number, |_| {});
    });
    let mut looking = Looking { sightings, stamp: None, kept: Vec::new(), begun: false };
    copy(stamp, guard, trouble, number, |bytes| looking.at(bytes));
    Ok(())
}

/// One direction, to its end. An end is passed on; what breaks is broken both ways.
fn copy(mut from: TcpStream, mut to: TcpStream, trouble: &Trouble, number: u64, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    let is_broken = || trouble.broken.load(Ordering::Relaxed) >= number;
    let end = loop {
        if is_broken() {
            break Shutdown::Both;
        }
        match from.read(&mut buffer) {
            Ok(0) => break Shutdown::Write,
            Ok(read) => {
                while trouble.still.load(Ordering::Relaxed) && !is_broken() {
                    thread::sleep(Duration::from_millis(5));
                }
                look(&buffer[..read]);
                if is_broken() || to.write_all(&buffer[..read]).is_err() {
                    break Shutdown::Both;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => break Shutdown::Both,
        }
    };
    let _ = to.shutdown(end);
    if end == Shutdown::Both {
        let _ = from.shutdown(end);
    }
}

/// Finds the header, and then the names.
struct Looking {
    sightings: Sightings,
    stamp: Option<Stamp>,
    /// The header as far as it has come; then what may be the beginning of a name.
    kept: Vec<u8>,
    begun: bool,
}

impl Looking {
    fn at(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        if !self.begun {
            let length = match proxy_header::first(&self.kept[..self.kept.len().min(HEAD)]) {
                Ok(First::Block(length)) if self.kept.len() >= HEAD + length => HEAD + length,
                Ok(First::Block(_) | First::Short) => return,
                _ => 0,
            };
            let header = proxy_header::read_block(&self.kept[..length]).ok();
            self.stamp = header.and_then(|header| Stamp::parse(&header.stamp?).ok());
            self.kept.drain(..length);
            self.begun = true;
        }
        for op in names(&self.kept) {
            self.sightings.note(&op, self.stamp.as_ref());
        }
        let rest = self.kept.len().saturating_sub(LONGEST);
        self.kept.drain(..rest);
    }
}

/// The names of operations in some bytes.
fn names(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    let marks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'#').map(|(at, _)| at);
    marks.filter_map(|at| {
        let rest = &bytes[at + 1..bytes.len().min(at + LONGEST)];
        let name = &rest[..rest.iter().position(|byte| *byte == b'#')?];
        let plain = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        plain.then(|| String::from_utf8_lossy(name).into_owned())
    })
}

/// A name is found wherever the pieces are cut that it comes in, and with the stamp of its connection.
#[test]
fn operations_are_seen_with_their_stamps() {
    let text = "42;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"";
    let mut sent = proxy_header::write(None, None, Some(text.as_bytes()));
    sent.extend(b"\x03INSERT INTO log VALUES ('#w1-7#')");
    for size in 1..sent.len() {
        let sightings = Sightings::default();
        let mut looking = Looking { sightings: sightings.clone(), stamp: None, kept: Vec::new(), begun: false };
        sent.chunks(size).for_each(|part| looking.at(part));
        let seen = sightings.of("w1-7");
        assert_eq!(seen.len(), 1, "in pieces of {size}");
        assert_eq!(seen[0].stamp, Stamp::parse(text.as_bytes()).ok());
    }
}
