//! The load generator: one thread, one epoll, no allocation per request. Closed loop (every connection sends its next
//! request when its answer is there) and open loop (requests begin at times of their own; what is late counts as slow).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::wire::{Answer, Request, ZEROS, parse_answer};

/// What became of a window.
pub struct Outcome {
    /// Requests answered with 200 in it.
    pub requests: u64,
    /// How long it was.
    pub took: Duration,
    /// Of each of them, in nanoseconds, sorted.
    latencies: Vec<u64>,
}

impl Outcome {
    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// A percentile of the latencies, in microseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() as f64 * percent / 100.0) as usize;
        self.latencies.get(at.min(last)).map_or(f64::NAN, |&nanos| nanos as f64 / 1000.0)
    }
}

/// Connections to one address.
pub struct Load {
    epoll: OwnedFd,
    to: SocketAddr,
    /// What each connection sends: as many take turns as there are.
    requests: Vec<Request>,
    connections: Vec<Connection>,
    /// Those that wait for nothing.
    idle: Vec<usize>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    latencies: Vec<u64>,
    /// How many were answered with something else than 200; none where that is an error.
    refused: Option<u64>,
}

struct Connection {
    stream: TcpStream,
    /// How much of the request is out.
    sent: u64,
    /// Whether epoll is to tell when more can be sent.
    blocked: bool,
    /// When the request began, or was meant to; `None` between requests.
    began: Option<Instant>,
    /// An answer that came in parts.
    partial: Vec<u8>,
}

impl Load {
    /// Connects `connections` times. Nothing is sent yet.
    pub fn connect(to: SocketAddr, request: Request, connections: usize) -> Result<Load, String> {
        Load::connect_mixed(to, vec![request], connections)
    }

    /// The same with several kinds of request: each connection sends one kind.
    pub fn connect_mixed(to: SocketAddr, requests: Vec<Request>, connections: usize) -> Result<Load, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let mut load = Load {
            epoll,
            to,
            requests,
            connections: Vec::with_capacity(connections),
            idle: (0..connections).rev().collect(),
            events: Vec::with_capacity(1024),
            buffer: vec![0; 64 * 1024],
            latencies: Vec::with_capacity(1 << 18),
            refused: None,
        };
        for index in 0..connections {
            let connection = load.dial(index)?;
            load.connections.push(connection);
        }
        Ok(load)
    }

    /// Counts other answers than 200 from now on, instead of ending with them.
    pub fn tolerate_refusals(&mut self) {
        self.refused = Some(0);
    }

    /// How many there were.
    pub fn refused(&self) -> u64 {
        self.refused.unwrap_or(0)
    }

    /// Sends another request from now on, on all connections.
    pub fn send_from_now_on(&mut self, request: Request) {
        self.requests = vec![request];
    }

    fn dial(&self, index: usize) -> Result<Connection, String> {
        let stream = TcpStream::connect(self.to).map_err(|error| format!("connecting to {}: {error}", self.to))?;
        let ready = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true));
        ready.map_err(|error| error.to_string())?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).map_err(|error| error.to_string())?;
        Ok(Connection { stream, sent: 0, blocked: false, began: None, partial: Vec::new() })
    }

    /// Every connection sends one request after the other, for this long; or for up to five times as long, where
    /// fewer than `least` are answered by then, since somebody else has the cores.
    pub fn closed(&mut self, window: Duration, least: usize) -> Result<Outcome, String> {
        let began = Instant::now();
        self.latencies.clear();
        while let Some(index) = self.idle.pop() {
            self.begin(index, began)?;
        }
        while began.elapsed() < window || (self.latencies.len() < least && began.elapsed() < window * 5) {
            self.wait(Duration::from_millis(100))?;
            while let Some(index) = self.idle.pop() {
                self.begin(index, Instant::now())?;
            }
        }
        Ok(self.outcome(began))
    }

    /// Requests begin at random, this many a second, for this long.
    pub fn open(&mut self, per_second: f64, window: Duration) -> Result<Outcome, String> {
        let began = Instant::now();
        self.latencies.clear();
        let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
        let mut pause = || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            // Exponential, so that arrivals are independent of each other.
            let uniform = ((dice >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            Duration::from_secs_f64(-uniform.ln() / per_second)
        };
        let mut next = began + pause();
        let mut due = VecDeque::new();
        loop {
            let now = Instant::now();
            if now - began > window {
                return Ok(self.outcome(began));
            }
            while next <= now {
                due.push_back(next);
                next += pause();
            }
            while !due.is_empty() && !self.idle.is_empty() {
                if let (Some(index), Some(intended)) = (self.idle.pop(), due.pop_front()) {
                    self.begin(index, intended)?;
                }
            }
            self.wait(next.saturating_duration_since(Instant::now()))?;
        }
    }

    /// Waits for the answers that are still to come.
    pub fn settle(&mut self) -> Result<(), String> {
        let limit = Instant::now() + Duration::from_secs(60);
        while self.idle.len() < self.connections.len() {
            if Instant::now() > limit {
                return Err("no answer within a minute".into());
            }
            self.wait(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// One request on every connection, one after the other.
    pub fn once_each(&mut self) -> Result<(), String> {
        while let Some(index) = self.idle.pop() {
            self.begin(index, Instant::now())?;
            let limit = Instant::now() + Duration::from_secs(60);
            while self.connections[index].began.is_some() {
                if Instant::now() > limit {
                    return Err("no answer within a minute".into());
                }
                self.wait(Duration::from_millis(100))?;
            }
            self.idle.pop();
        }
        self.idle = (0..self.connections.len()).rev().collect();
        Ok(())
    }

    /// `count` requests in all, over all connections, and until the last answer is there.
    pub fn exactly(&mut self, count: u64) -> Result<Outcome, String> {
        let began = Instant::now();
        self.latencies.clear();
        let (mut begun, mut quiet_since) = (0, began);
        let mut answered = 0;
        while answered < count {
            while begun < count {
                let Some(index) = self.idle.pop() else { break };
                self.begin(index, Instant::now())?;
                begun += 1;
            }
            self.wait(Duration::from_millis(100))?;
            if self.latencies.len() as u64 > answered {
                answered = self.latencies.len() as u64;
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() > Duration::from_secs(60) {
                return Err("no answer within a minute".into());
            }
        }
        Ok(self.outcome(began))
    }

    fn outcome(&mut self, began: Instant) -> Outcome {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        Outcome { requests: latencies.len() as u64, took: began.elapsed(), latencies }
    }

    fn begin(&mut self, index: usize, at: Instant) -> Result<(), String> {
        let connection = &mut self.connections[index];
        connection.began = Some(at);
        connection.sent = 0;
        self.send(index)
    }

    fn send(&mut self, index: usize) -> Result<(), String> {
        let request = &self.requests[index % self.requests.len()];
        let connection = &mut self.connections[index];
        let mut full = false;
        while !full && connection.sent < request.length() {
            match connection.stream.write(request.after(connection.sent, &ZEROS)) {
                Ok(count) => connection.sent += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => full = true,
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        if full != connection.blocked {
            connection.blocked = full;
            let flags = if full { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, flags).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Waits for events, at most this long, and handles them.
    fn wait(&mut self, limit: Duration) -> Result<(), String> {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        for event in events.drain(..) {
            let (index, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(epoll::EventFlags::OUT) {
                self.send(index)?;
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.receive(index)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<(), String> {
        let connection = &mut self.connections[index];
        let count = match connection.stream.read(&mut self.buffer) {
            Ok(0) if connection.began.is_none() => {
                // An idle connection may be closed by the other side: another takes its place.
                self.connections[index] = self.dial(index)?;
                return Ok(());
            }
            Ok(0) => return Err("the connection was closed before its answer".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("receiving: {error}")),
        };
        let answer = if connection.partial.is_empty() {
            let answer = parse_answer(&self.buffer[..count]);
            if matches!(answer, Answer::Part) {
                connection.partial.extend_from_slice(&self.buffer[..count]);
            }
            answer
        } else {
            connection.partial.extend_from_slice(&self.buffer[..count]);
            parse_answer(&connection.partial)
        };
        match (answer, connection.began) {
            (Answer::Part, _) => return Ok(()),
            (Answer::Whole, Some(began)) => {
                self.latencies.push(began.elapsed().as_nanos() as u64);
                connection.began = None;
                connection.partial.clear();
                self.idle.push(index);
            }
            (Answer::Whole, None) => return Err("an answer that nobody asked for".into()),
            (Answer::Other(_), Some(_)) if self.refused.is_some() => {
                self.refused = self.refused.map(|refused| refused + 1);
                connection.began = None;
                connection.partial.clear();
                self.idle.push(index);
            }
            (Answer::Other(what) | Answer::Bad(what), _) => return Err(format!("answered {what}")),
        }
        Ok(())
    }
}
