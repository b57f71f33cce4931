//! MariaDB: its commit order is that of its binary log; its protocol as far as statements without results need it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::database::{Database, Manner, Talk, Told, Wire, row_of};
use crate::support::mariadb::Mariadb;
use crate::support::process::program;

/// The server, with the folder of its binary log.
pub struct Server {
    server: Mariadb,
    log: tempfile::TempDir,
}

impl Server {
    /// Starts one with its tables.
    pub fn start() -> Server {
        let log = tempfile::tempdir().expect("a temporary folder can be made");
        let server = Mariadb::start_with(&[
            &format!("--log-bin={}", log.path().join("log").display()),
            // What was changed, not what was said.
            "--binlog-format=ROW",
            "--server-id=1",
            "--innodb-lock-wait-timeout=1",
        ]);
        server.query(
            "CREATE TABLE log (op VARCHAR(60) NOT NULL); CREATE TABLE leader (n INT PRIMARY KEY, op VARCHAR(60)); \
             INSERT INTO leader VALUES (0, ''), (1, ''), (2, ''), (3, '')",
        );
        Server { server, log }
    }
}

impl Database for Server {
    fn address(&self) -> SocketAddr {
        self.server.address
    }

    fn pause(&mut self) {
        self.server.process().pause();
    }

    fn resume(&mut self) {
        self.server.process().resume();
    }

    fn is_quiet(&self) -> bool {
        let others = "SELECT COUNT(*) FROM information_schema.processlist WHERE id <> CONNECTION_ID()";
        self.server.query(others) == "0"
    }

    /// The rows that were put into `log`, by transactions that stand there with their commit.
    fn order(&mut self) -> Vec<String> {
        // A server that has ended has written all of its log.
        self.server.stop();
        let mut files: Vec<PathBuf> =
            self.log.path().read_dir().expect("it is there").flatten().map(|entry| entry.path()).collect();
        files.retain(|path| {
            path.extension().is_some_and(|extension| extension.to_string_lossy().parse::<u32>().is_ok())
        });
        files.sort();
        let mut read = Command::new(program("mariadb-binlog"));
        let read = read.args(["--no-defaults", "-v", "--base64-output=DECODE-ROWS"]).args(&files).output();
        let read = read.expect("it was found");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let told = String::from_utf8_lossy(&read.stdout);
        let (mut order, mut transaction, mut table) = (Vec::new(), Vec::new(), "");
        for line in told.lines() {
            match line.strip_prefix("### ") {
                Some(row) if row.contains("INSERT INTO") => table = row.rsplit('`').nth(1).unwrap_or_default(),
                Some(row) if table == "log" => {
                    let op = row.trim().strip_prefix("@1='#").and_then(|rest| rest.split('#').next());
                    transaction.extend(op.map(str::to_owned));
                }
                Some(row) if row.contains("UPDATE") => table = "",
                _ if line.starts_with("COMMIT") => order.append(&mut transaction),
                _ if line.starts_with("ROLLBACK") || line.starts_with("START TRANSACTION") => transaction.clear(),
                _ => {}
            }
        }
        order
    }
}

/// CLIENT_LONG_PASSWORD, CLIENT_CONNECT_WITH_DB, CLIENT_PROTOCOL_41, CLIENT_TRANSACTIONS, CLIENT_SECURE_CONNECTION,
/// CLIENT_PLUGIN_AUTH.
const ABILITIES: u32 = 0x1 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;

/// A session of the user `app` in the database `app`.
pub struct Session(Wire);

impl Session {
    /// Logs in.
    ///
    /// # Errors
    /// What it was told instead.
    pub fn begin(wire: Wire) -> Result<Session, Told> {
        let mut session = Session(wire);
        session.log_in().map_err(Told::Gone)?;
        match session.answer() {
            Told::Done => Ok(session),
            told => Err(told),
        }
    }

    fn log_in(&mut self) -> io::Result<()> {
        // What the server says of itself, and its salt: there is no password.
        self.packet()?;
        let mut login = ABILITIES.to_le_bytes().to_vec();
        login.extend((1u32 << 24).to_le_bytes());
        // utf8_general_ci, and what is reserved.
        login.push(33);
        login.extend([0; 23]);
        login.extend(b"app\0");
        login.push(0);
        login.extend(b"app\0mysql_native_password\0");
        self.0.send(&framed(1, &login))
    }

    fn packet(&mut self) -> io::Result<Vec<u8>> {
        let [low, middle, high, _] = self.0.read::<4>()?;
        self.0.read_long(u32::from_le_bytes([low, middle, high, 0]) as usize)
    }

    fn say(&mut self, sql: &str) -> Result<(), Told> {
        self.0.send(&query(sql)).map_err(Told::Gone)?;
        match self.answer() {
            Told::Done => Ok(()),
            told => Err(told),
        }
    }
}

impl Talk for Session {
    fn prepare(&mut self, op: &str, manner: Manner) -> Result<(), Told> {
        if !matches!(manner, Manner::Open(_)) {
            return Ok(());
        }
        self.say("BEGIN")?;
        self.say(&format!("UPDATE leader SET op = '#{op}#' WHERE n = {}", row_of(op)))?;
        self.say(&format!("INSERT INTO log VALUES ('#{op}#')"))
    }

    fn last_word(&self, op: &str, manner: Manner) -> Vec<u8> {
        match manner {
            Manner::Quick => query(&format!("INSERT INTO log VALUES ('#{op}#')")),
            Manner::Open(_) => query("COMMIT"),
            // It goes on without its client, and is over in that time.
            Manner::Slow(span) | Manner::Waiting(span) => {
                query(&format!("INSERT INTO log SELECT IF(SLEEP({}) = 0, '#{op}#', NULL)", span.as_secs_f64()))
            }
        }
    }

    fn answer(&mut self) -> Told {
        let packet = match self.packet() {
            Ok(packet) => packet,
            Err(error) => return Told::Gone(error),
        };
        match packet[..] {
            [0x00, ..] => Told::Done,
            [0xff, low, high, ..] => Told::Failed(u16::from_le_bytes([low, high]).to_string()),
            _ => Told::Failed(format!("no answer to a statement without results: {packet:?}")),
        }
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.0
    }
}

fn query(sql: &str) -> Vec<u8> {
    framed(0, &[b"\x03", sql.as_bytes()].concat())
}

fn framed(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a statement is short").to_le_bytes();
    [&length[..3], &[number], body].concat()
}
