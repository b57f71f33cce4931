//! What a database is to this test: something that is written to in its own protocol, that may stand still, and that tells
//! afterwards in which order it has committed.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::{mariadb, postgres, redis};

/// A client gives up after so long: longer than anything is held, or stands still.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MariaDB, over `protocol: tcp`: the guard knows nothing of it, and what is lost is over by time.
    Mariadb,
    /// Redis, with a control connection.
    Redis,
    /// PostgreSQL, with a control connection.
    Postgres,
}

impl Kind {
    /// The value of `protocol`, and the scheme of URLs.
    pub fn protocol(self) -> &'static str {
        match self {
            Kind::Mariadb => "tcp",
            Kind::Redis => "redis",
            Kind::Postgres => "postgres",
        }
    }

    /// The guard's `upstream.control`, where it can ask the target what still runs.
    pub fn control(self) -> &'static str {
        match self {
            Kind::Mariadb => "",
            Kind::Redis => ", control: {}",
            Kind::Postgres => ", control: { user: postgres, database: app }",
        }
    }

    /// Starts one that has remembered nothing.
    pub fn start(self) -> Box<dyn Database> {
        match self {
            Kind::Mariadb => Box::new(mariadb::Server::start()),
            Kind::Redis => Box::new(redis::Server::start()),
            Kind::Postgres => Box::new(postgres::Server::start()),
        }
    }

    /// A session at this address. `ahead` is sent before everything else: a header with a stamp, or nothing.
    ///
    /// # Errors
    /// What it was told in the place of a session.
    pub fn talk(self, to: SocketAddr, ahead: &[u8]) -> Result<Box<dyn Talk>, Told> {
        let wire = Wire::open(to, ahead).map_err(Told::Gone)?;
        match self {
            Kind::Mariadb => Ok(Box::new(mariadb::Session::begin(wire)?)),
            Kind::Redis => Ok(Box::new(redis::Session::begin(wire))),
            Kind::Postgres => Ok(Box::new(postgres::Session::begin(wire, "")?)),
        }
    }

    /// A session that says by itself, in the protocol's own words, which epoch it is of.
    ///
    /// # Errors
    /// What it was told in the place of a session; also where the protocol has no such words.
    pub fn talk_of_epoch(self, to: SocketAddr, epoch: u64) -> Result<Box<dyn Talk>, Told> {
        let wire = Wire::open(to, b"").map_err(Told::Gone)?;
        match self {
            Kind::Mariadb => Err(Told::Gone(io::ErrorKind::Unsupported.into())),
            Kind::Redis => {
                redis::Session::begin(wire).of_epoch(epoch).map(|session| Box::new(session) as Box<dyn Talk>)
            }
            Kind::Postgres => {
                let options = format!("-c epochgate.epoch={epoch}");
                Ok(Box::new(postgres::Session::begin(wire, &options)?))
            }
        }
    }
}

/// The server.
pub trait Database {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// Every process of it stands still.
    fn pause(&mut self);
    /// And goes on.
    fn resume(&mut self);
    /// Whether no session is left that could still do something.
    fn is_quiet(&self) -> bool;
    /// The operations that it has committed, in the order of its own log.
    fn order(&mut self) -> Vec<String>;
}

/// How an operation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// In one word.
    Quick,
    /// In a transaction that stays open for so long, with a row locked where there are locks.
    Open(Duration),
    /// In one word that the target takes so long over, before it takes effect.
    Slow(Duration),
    /// In one word that waits at the target for something that others do there, after so long; else as [`Manner::Slow`].
    Waiting(Duration),
}

/// The row of the table `leader`, one of four, that an operation changes: several want the same one.
pub fn row_of(op: &str) -> u32 {
    op.bytes().map(u32::from).sum::<u32>() % 4
}

/// A client's session, as far as an operation goes: all of it but the last word, the last word, and what came of it.
pub trait Talk: Send {
    /// Says everything that goes before the last word. Nothing of the operation is applied by it.
    ///
    /// # Errors
    /// What the client was told instead.
    fn prepare(&mut self, op: &str, manner: Manner) -> Result<(), Told>;
    /// The last word, to be sent with [`Talk::wire`]: with it the operation may be applied.
    fn last_word(&self, op: &str, manner: Manner) -> Vec<u8>;
    /// The last word has been sent.
    fn begun(&mut self, _manner: Manner) {}
    /// What came of what was said last.
    fn answer(&mut self) -> Told;
    /// Its connection.
    fn wire(&mut self) -> &mut Wire;
}

/// What a client knows of what it said last.
#[derive(Debug)]
pub enum Told {
    /// It is applied.
    Done,
    /// The fence refused it, in the protocol's own words, and says that it was not applied.
    Refused(String),
    /// The fence ended it, and says that nobody knows.
    Unclear(String),
    /// The database refused it, with this code.
    Failed(String),
    /// The connection ended, broke, or gives no answer for so long.
    Gone(#[allow(dead_code, reason = "a failing test shows it")] io::Error),
}

/// A connection.
pub struct Wire(TcpStream);

impl Wire {
    fn open(to: SocketAddr, ahead: &[u8]) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut wire = Wire(stream);
        wire.send(ahead)?;
        Ok(wire)
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// Where the connection broke.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// Where they do not come.
    pub fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The same of a length that the peer says.
    ///
    /// # Errors
    /// Where they do not come.
    pub fn read_long(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Says that nothing follows.
    pub fn end(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}
