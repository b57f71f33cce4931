//! PostgreSQL: its commit order is that in which logical decoding gives its transactions, which is that of their commit records
//! in the write-ahead log; its protocol as far as simple queries need it.

use std::io;
use std::net::SocketAddr;

use crate::database::{Database, Manner, Talk, Told, Wire, row_of};
use crate::support::postgres::Postgres;

/// The server.
pub struct Server(Postgres);

impl Server {
    /// Starts one with its tables, and with a slot that sees everything from here on.
    pub fn start() -> Server {
        // What is decoded is what has been written; nothing here writes it later by itself.
        let server = Postgres::start_with(&[("lock_timeout", "1500"), ("synchronous_commit", "on")]);
        server.query(
            "CREATE TABLE log (op text NOT NULL); CREATE TABLE leader (n int PRIMARY KEY, op text); \
             INSERT INTO leader VALUES (0, ''), (1, ''), (2, ''), (3, ''); GRANT ALL ON log, leader TO app",
        );
        server.query("SELECT pg_create_logical_replication_slot('commits', 'test_decoding')");
        Server(server)
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
        self.0.sessions() == 0
    }

    fn order(&mut self) -> Vec<String> {
        let changes = self.0.query("SELECT data FROM pg_logical_slot_get_changes('commits', NULL, NULL)");
        let of_log = changes.lines().filter(|change| change.starts_with("table public.log: INSERT:"));
        of_log.filter_map(|change| change.split('#').nth(1)).map(str::to_owned).collect()
    }
}

/// A session of the user `app` in the database `app`.
pub struct Session(Wire);

impl Session {
    /// Logs in, with these options.
    ///
    /// # Errors
    /// What it was told instead.
    pub fn begin(mut wire: Wire, options: &str) -> Result<Session, Told> {
        let mut startup = 0x0003_0000_u32.to_be_bytes().to_vec();
        for (name, value) in [("user", "app"), ("database", "app"), ("options", options)] {
            if !value.is_empty() {
                startup.extend(format!("{name}\0{value}\0").bytes());
            }
        }
        startup.push(0);
        let length = u32::try_from(startup.len() + 4).expect("it is short").to_be_bytes();
        wire.send(&[&length[..], &startup].concat()).map_err(Told::Gone)?;
        let mut session = Session(wire);
        match session.answer() {
            Told::Done => Ok(session),
            told => Err(told),
        }
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let [kind, length @ ..] = self.0.read::<5>()?;
        let body = (u32::from_be_bytes(length) as usize).checked_sub(4).ok_or(io::ErrorKind::InvalidData)?;
        Ok((kind, self.0.read_long(body)?))
    }

    fn read_answer(&mut self) -> io::Result<Told> {
        let mut told = Told::Done;
        loop {
            match self.message()? {
                (b'Z', _) => return Ok(told),
                (b'E', body) => {
                    let fields: Vec<String> = body
                        .split(|byte| *byte == 0)
                        .map(|field| String::from_utf8_lossy(field).into_owned())
                        .collect();
                    let (fatal, error) = read_error(&fields);
                    told = error;
                    // Nothing follows.
                    if fatal {
                        return Ok(told);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Whether the session ends with it, and what it says.
fn read_error(fields: &[String]) -> (bool, Told) {
    let field = |kind: char| fields.iter().find_map(|field| field.strip_prefix(kind)).unwrap_or_default();
    let (code, message, detail) = (field('C').to_owned(), field('M'), field('D'));
    let fatal = matches!(field('V'), "FATAL" | "PANIC");
    let outcome = detail.split("outcome ").nth(1).map(|rest| rest.split([',', ')']).next().unwrap_or_default());
    let told = match outcome {
        // Idle: nothing was outstanding, and a transaction that was open is rolled back.
        Some("not_applied" | "idle") => Told::Refused(reason(detail)),
        Some(_) => Told::Unclear(reason(detail)),
        // The server itself, or the guard over its control connection, has ended the session: as if it broke.
        None if fatal => Told::Unclear(format!("{code} {message}")),
        None => Told::Failed(code),
    };
    (fatal, told)
}

fn reason(detail: &str) -> String {
    let word = detail.split("(reason ").nth(1).and_then(|rest| rest.split(',').next());
    word.unwrap_or("none is named").to_owned()
}

impl Talk for Session {
    fn prepare(&mut self, op: &str, manner: Manner) -> Result<(), Told> {
        let Manner::Open(_) = manner else { return Ok(()) };
        let row = row_of(op);
        let work = format!("BEGIN; UPDATE leader SET op = '#{op}#' WHERE n = {row}; INSERT INTO log VALUES ('#{op}#')");
        self.0.send(&query(&work)).map_err(Told::Gone)?;
        match self.answer() {
            Told::Done => Ok(()),
            told => Err(told),
        }
    }

    fn last_word(&self, op: &str, manner: Manner) -> Vec<u8> {
        match manner {
            Manner::Quick => query(&format!("INSERT INTO log VALUES ('#{op}#')")),
            Manner::Open(_) => query("COMMIT"),
            Manner::Slow(span) | Manner::Waiting(span) => {
                query(&format!("INSERT INTO log SELECT '#{op}#' FROM pg_sleep({})", span.as_secs_f64()))
            }
        }
    }

    fn answer(&mut self) -> Told {
        self.read_answer().unwrap_or_else(Told::Gone)
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.0
    }
}

fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).expect("it is short").to_be_bytes();
    [b"Q", &length[..], sql.as_bytes(), b"\0"].concat()
}
