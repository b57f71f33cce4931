//! Commands to a Redis, as redis-benchmark sends them: one thread, every connection sends its next batch when the last is answered.
//! Of our own, so that it can say its epoch first, and so that each answer is looked at.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;

use super::Done;

/// Of what is set and got.
const VALUE: [u8; 100] = [b'x'; 100];
const KEY: &str = "key:__rand_int__";

/// One kind of command, with the answer that it gets.
#[derive(Clone, Copy)]
pub enum Command {
    Set,
    Get,
}

impl Command {
    /// Both.
    pub const ALL: [Command; 2] = [Command::Set, Command::Get];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Command::Set => "SET",
            Command::Get => "GET",
        }
    }

    fn request(self) -> Vec<u8> {
        match self {
            Command::Set => words(&[b"SET", KEY.as_bytes(), &VALUE]),
            Command::Get => words(&[b"GET", KEY.as_bytes()]),
        }
    }

    fn reply(self) -> Vec<u8> {
        match self {
            Command::Set => b"+OK\r\n".to_vec(),
            Command::Get => [format!("${}\r\n", VALUE.len()).as_bytes(), &VALUE, b"\r\n"].concat(),
        }
    }
}

/// Connections to one address.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    depth: u64,
    /// What each sends at once, and what it gets for that.
    batch: Vec<u8>,
    replies: Vec<u8>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// How much of the replies has come.
    came: usize,
}

impl Load {
    /// Connects so many times, to send `depth` commands at once on each; says `epoch` first, where there is one.
    pub fn connect(
        to: SocketAddr,
        epoch: Option<&str>,
        command: Command,
        connections: usize,
        depth: usize,
    ) -> Result<Load, String> {
        let told = |error: std::io::Error| format!("{to}: {error}");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let mut all = Vec::with_capacity(connections);
        for index in 0..connections {
            let mut stream = TcpStream::connect(to).map_err(told)?;
            stream.set_nodelay(true).map_err(told)?;
            if let Some(epoch) = epoch {
                stream.write_all(&words(&[b"EPOCHGATE", b"EPOCH", epoch.as_bytes()])).map_err(told)?;
                let mut answer = [0; 5];
                stream.read_exact(&mut answer).map_err(told)?;
                if answer != *b"+OK\r\n" {
                    return Err(format!("{to} takes no epoch: {}", String::from_utf8_lossy(&answer)));
                }
            }
            stream.set_nonblocking(true).map_err(told)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN).map_err(|error| error.to_string())?;
            all.push(Connection { stream, came: 0 });
        }
        Ok(Load {
            epoll,
            connections: all,
            depth: depth as u64,
            batch: command.request().repeat(depth),
            replies: command.reply().repeat(depth),
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Sends for so long; commands.
    pub fn closed(&mut self, window: Duration) -> Result<Done, String> {
        let began = Instant::now();
        self.run(|_| began.elapsed() < window)
    }

    /// Sends so many, or what fills all connections' batches.
    pub fn exactly(&mut self, commands: u64) -> Result<Done, String> {
        self.run(|sent| sent < commands)
    }

    fn run(&mut self, mut goes_on: impl FnMut(u64) -> bool) -> Result<Done, String> {
        let began = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        for index in 0..self.connections.len() {
            self.send(index)?;
            sent += self.depth;
        }
        let mut events = Vec::with_capacity(self.connections.len());
        while answered < sent {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            for event in events.drain(..) {
                let index = event.data.u64() as usize;
                if self.receive(index)? {
                    answered += self.depth;
                    if goes_on(sent) {
                        self.send(index)?;
                        sent += self.depth;
                    }
                }
            }
        }
        Ok(Done { amount: answered as f64, took: began.elapsed() })
    }

    fn send(&mut self, index: usize) -> Result<(), String> {
        // A batch of some kilobytes always fits into a socket whose peer has answered all before.
        self.connections[index].stream.write_all(&self.batch).map_err(|error| format!("sending: {error}"))
    }

    /// Whether the whole batch is answered now.
    fn receive(&mut self, index: usize) -> Result<bool, String> {
        let Connection { stream, came } = &mut self.connections[index];
        let count = match stream.read(&mut self.buffer) {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("receiving: {error}")),
        };
        let expected = self.replies.get(*came..*came + count);
        if expected != Some(&self.buffer[..count]) {
            return Err(format!("answered {}", String::from_utf8_lossy(&self.buffer[..count.min(200)])));
        }
        *came += count;
        let whole = *came == self.replies.len();
        if whole {
            *came = 0;
        }
        Ok(whole)
    }
}

fn words(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
