//! The upstream of everything that is measured: one thread that drains bodies and answers 200 with 100 bytes, as
//! cheaply as it can, so that the other core is left to the load.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;

use crate::pin;
use crate::wire::{content_length, head_length};

const LISTENER: u64 = u64::MAX;

/// Starts it on these cores, for as long as the process runs; where it listens.
pub fn start(cores: &[usize]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback is free");
    let address = listener.local_addr().expect("it listens");
    let cores = cores.to_vec();
    thread::spawn(move || {
        pin::this_thread(&cores);
        if let Err(error) = Upstream::new(listener).and_then(|mut upstream| upstream.serve()) {
            // What is measured next says so too; ending here would leave every proxy running.
            eprintln!("the upstream ended: {error}");
        }
    });
    address
}

/// The argument that makes a process of this program an upstream and nothing else.
pub const ALONE: &str = "--upstream";

/// One in a process of its own, which ends with it.
pub struct Apart {
    process: Child,
    pub address: SocketAddr,
}

impl Apart {
    /// Starts it on these cores.
    pub fn start(cores: &[usize]) -> Apart {
        let program = std::env::current_exe().expect("this program has a file");
        let mut command = Command::new(program);
        command.args(["--bench", ALONE]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = pin::on(cores, || command.spawn()).expect("it was started before");
        let mut line = String::new();
        let out = process.stdout.take().expect("it was asked for");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        Apart { address: line.trim().parse().expect("it says where it listens"), process }
    }

    /// Is one, until whoever started it has ended.
    pub fn be() {
        println!("{}", start(&pin::cores()));
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It ends with its standard input too; killing it only makes that sooner.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Upstream {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    answer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// A head that came in parts.
    partial: Vec<u8>,
    /// What is still to come of the body.
    body: u64,
}

impl Upstream {
    fn new(listener: TcpListener) -> std::io::Result<Upstream> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        listener.set_nonblocking(true)?;
        // Two hundred connections at once are more than a listener queues unless told.
        rustix::net::listen(&listener, 4096)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n".to_vec();
        answer.resize(answer.len() + 100, b'.');
        Ok(Upstream { epoll, listener, connections: vec![], free: vec![], buffer: vec![0; 256 * 1024], answer })
    }

    fn serve(&mut self) -> std::io::Result<()> {
        let mut events = Vec::with_capacity(1024);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    index => self.read(index as usize),
                }
            }
        }
    }

    fn accept(&mut self) -> std::io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
            self.connections[index] = Some(Connection { stream, partial: Vec::new(), body: 0 });
        }
    }

    fn read(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let open = match connection.stream.read(&mut self.buffer) {
            Ok(0) => false,
            Ok(count) => connection.take(&self.buffer[..count], &self.answer),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if !open {
            self.connections[index] = None;
            self.free.push(index);
        }
    }
}

impl Connection {
    /// Takes what came, and answers each request that is whole; false where the connection is to be closed.
    fn take(&mut self, mut bytes: &[u8], answer: &[u8]) -> bool {
        if self.partial.is_empty() {
            while !bytes.is_empty() {
                if self.body == 0 && !self.begin(&mut bytes) {
                    self.partial = bytes.to_vec();
                    return true;
                }
                let body = self.body.min(bytes.len() as u64);
                self.body -= body;
                bytes = &bytes[body as usize..];
                // A hundred bytes always fit into a socket whose peer waits for them.
                if self.body == 0 && self.stream.write_all(answer).is_err() {
                    return false;
                }
            }
            return true;
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(bytes);
        self.take(&whole, answer)
    }

    /// Takes a head off the front; false where it is not whole.
    fn begin(&mut self, bytes: &mut &[u8]) -> bool {
        let Some(head) = head_length(bytes) else { return false };
        self.body = content_length(&bytes[..head]).unwrap_or(0);
        *bytes = &bytes[head..];
        true
    }
}
