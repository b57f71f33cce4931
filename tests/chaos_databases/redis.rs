//! Redis: it does one thing after the other, so its order is that of the list that each operation is put into; RESP as far as
//! commands and their replies need it.

use std::io;
use std::net::SocketAddr;
use std::thread;

use crate::database::{Database, Manner, Talk, Told, Wire};
use crate::support::redis::Redis;

/// The server.
pub struct Server(Redis);

impl Server {
    /// Starts one.
    pub fn start() -> Server {
        Server(Redis::start())
    }
}

impl Database for Server {
    fn address(&self) -> SocketAddr {
        self.0.address
    }

    fn pause(&mut self) {
        self.0.pause();
    }

    fn resume(&mut self) {
        self.0.resume();
    }

    fn is_quiet(&self) -> bool {
        // The one that asks.
        self.0.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("addr=")).count() == 1
    }

    fn order(&mut self) -> Vec<String> {
        let log = self.0.cli(&["LRANGE", "log", "0", "-1"]);
        log.lines().filter_map(|line| line.split('#').nth(1)).map(str::to_owned).collect()
    }
}

/// Counts so far, and then writes. (Redis does nothing else meanwhile.)
const SLOW: &str = "for n = 1, ARGV[2] do end return redis.call('RPUSH', KEYS[1], ARGV[1])";
/// How far it counts in a quarter of a millisecond, or so.
const COUNTS: u128 = 20_000;
/// Everybody else waits meanwhile: what is to take longer is a command that waits.
const LONGEST: u128 = 800;

/// A connection.
pub struct Session {
    wire: Wire,
    /// How many replies are due.
    due: usize,
}

impl Session {
    /// On this connection: nobody logs in.
    pub fn begin(wire: Wire) -> Session {
        Session { wire, due: 0 }
    }

    /// With an epoch that it says of itself.
    ///
    /// # Errors
    /// What it was told instead.
    pub fn of_epoch(mut self, epoch: u64) -> Result<Session, Told> {
        self.say(&[&["EPOCHGATE", "EPOCH", &epoch.to_string()]])?;
        Ok(self)
    }

    fn say(&mut self, commands: &[&[&str]]) -> Result<(), Told> {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| request(command)).collect();
        self.wire.send(&bytes).map_err(Told::Gone)?;
        self.due = commands.len();
        match self.answer() {
            Told::Done => Ok(()),
            told => Err(told),
        }
    }

    /// Reads a whole reply: the error in it, if there is one, or that there is nothing.
    fn reply(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.wire.read::<1>()?);
        }
        let text = String::from_utf8_lossy(&line[1..line.len() - 2]).into_owned();
        let length = || text.parse::<i64>().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        match line[0] {
            b'-' => return Ok(Some(text)),
            b'$' => match usize::try_from(length()?) {
                Ok(length) => drop(self.wire.read_long(length + 2)?),
                Err(_) => return Ok(Some(NOTHING.to_owned())),
            },
            b'*' => {
                let Ok(parts) = usize::try_from(length()?) else { return Ok(Some(NOTHING.to_owned())) };
                let mut first = None;
                for _ in 0..parts {
                    let error = self.reply()?;
                    first = first.or(error);
                }
                return Ok(first);
            }
            _ => {}
        }
        Ok(None)
    }
}

/// What a null reply is put down as.
const NOTHING: &str = "NULL";

impl Talk for Session {
    fn prepare(&mut self, op: &str, manner: Manner) -> Result<(), Told> {
        let Manner::Open(_) = manner else { return Ok(()) };
        let op = format!("#{op}#");
        self.say(&[&["MULTI"], &["SET", "leader", &op], &["RPUSH", "log", &op]])
    }

    fn last_word(&self, op: &str, manner: Manner) -> Vec<u8> {
        let op = format!("#{op}#");
        match manner {
            Manner::Quick => {
                let all: [&[&str]; 4] = [&["MULTI"], &["SET", "leader", &op], &["RPUSH", "log", &op], &["EXEC"]];
                all.into_iter().flat_map(request).collect()
            }
            Manner::Open(_) => request(&["EXEC"]),
            Manner::Slow(span) => {
                request(&["EVAL", SLOW, "1", "log", &op, &(span.as_millis().min(LONGEST) * COUNTS).to_string()])
            }
            // It is moved into the log when it comes.
            Manner::Waiting(_) => request(&["BLMOVE", &format!("wait:{op}"), "log", "LEFT", "RIGHT", "3"]),
        }
    }

    fn answer(&mut self) -> Told {
        let mut told = Told::Done;
        // Of several, the first error is the reason.
        for _ in 0..std::mem::replace(&mut self.due, 1).max(1) {
            match self.reply() {
                Ok(Some(error)) if matches!(told, Told::Done) => told = read_error(error),
                Ok(_) => {}
                Err(error) => return Told::Gone(error),
            }
        }
        told
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn begun(&mut self, manner: Manner) {
        self.due = if manner == Manner::Quick { 4 } else { 1 };
    }
}

fn read_error(error: String) -> Told {
    let reason = || error.split([' ', ':']).nth(1).unwrap_or_default().to_owned();
    match error.split("outcome ").nth(1).map(|rest| rest.trim_end_matches(')')) {
        Some("not_applied") => Told::Refused(reason()),
        Some(_) => Told::Unclear(reason()),
        None => Told::Failed(error),
    }
}

/// Gives what waits for it its operation, at the server itself, after so long: no write of a leader, but what happens there.
pub fn release_later(server: SocketAddr, op: &str, after: std::time::Duration) {
    let op = format!("#{op}#");
    thread::spawn(move || {
        thread::sleep(after);
        // At the end of the test it may be gone.
        let _ = crate::support::redis::cli(server, &["RPUSH", &format!("wait:{op}"), &op]);
    });
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    bytes
}
