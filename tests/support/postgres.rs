//! A real PostgreSQL for a test: on a free port of 127.0.0.1, in a fresh folder, ended with its owner.
//!
//! Users: `postgres` (superuser) and `app` come in without a password; `scram` has the password `secret` and is asked
//! for it by SCRAM-SHA-256. Each has the database `app` to work in, and may do everything there.
//!
//! It is the newest of Debian's; `EPOCHGATE_POSTGRES=18` names another, which `tools/fetch postgres-18` fetches.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::process::{LONG, Launch, Process, eventually, find_program};
use super::talk::Talk;
use super::{other_user, ports, template};

/// Who may come in how. A replication connection names no database but `replication`.
const ACCESS: &str = "\
host all,replication scram 127.0.0.1/32 scram-sha-256
host all,replication all 127.0.0.1/32 trust
";

/// What each test's server begins with.
const USERS: &str = "\
CREATE ROLE app LOGIN REPLICATION;
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret';
CREATE DATABASE app OWNER app;
GRANT app TO scram;
";

/// Fast where nothing but the computer's own crash would tell the difference; a test says otherwise.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("shared_buffers", "16MB"),
    ("max_connections", "200"),
    ("max_prepared_transactions", "10"),
    ("wal_level", "logical"),
    ("max_wal_size", "256MB"),
    // These read the system's own files of zones and of compiled code, which need not be there.
    ("jit", "off"),
    ("timezone", "GMT"),
    ("log_timezone", "GMT"),
    ("unix_socket_directories", ""),
    ("listen_addresses", "127.0.0.1"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

/// The versions beside Debian's that can be fetched, the newest first.
const FETCHED: [&str; 4] = ["18", "17", "16", "14"];

/// A server, running or stopped.
pub struct Postgres {
    /// Where it listens.
    pub address: SocketAddr,
    version: Version,
    settings: Vec<(String, String)>,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// Starts one, and waits until it serves.
    #[track_caller]
    pub fn start() -> Postgres {
        Postgres::start_with(&[])
    }

    /// With settings as in `postgresql.conf`: `("fsync", "on")`.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> Postgres {
        Postgres::of(Version::wanted(), settings)
    }

    /// One that can hold a session to reading (16 or later): the one that is asked for, else the newest that there is. `None`, with
    /// a word, where there is none.
    #[track_caller]
    pub fn start_for_reading() -> Option<Postgres> {
        let wanted = Version::wanted();
        let fetched = || FETCHED.iter().map(|version| Version(format!("-{version}"))).find(Version::is_there);
        let version = if wanted.0.is_empty() { fetched().unwrap_or(wanted) } else { wanted };
        if version.major() < 16 {
            eprintln!("left out: this needs PostgreSQL 16 or later, and {} is what there is", version.major());
            return None;
        }
        Some(Postgres::of(version, &[]))
    }

    fn of(version: Version, settings: &[(&str, &str)]) -> Postgres {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let data = folder.path().join("data");
        let named = version.named();
        template::copy(&version.program("postgres"), &format!("{named}{ACCESS}{USERS}"), &data, |data| {
            make(&version, data)
        });
        other_user::give(folder.path());
        let settings = SETTINGS.iter().chain(settings).map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let mut postgres =
            Postgres { address: ports::free_address(), version, settings: settings.collect(), process: None, folder };
        postgres.begin();
        postgres
    }

    /// Its major version.
    pub fn major(&self) -> u32 {
        self.version.major()
    }

    /// Starts it again after [`Postgres::stop`] or [`Postgres::kill`], with what it had on disk, at the same address.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let port = self.address.port().to_string();
        let mut launch =
            other_user::launch(&self.version.program("postgres")).arg("-D").arg(self.data()).args(["-p", &port]);
        for (name, value) in &self.settings {
            launch = launch.args(["-c", &format!("{name}={value}")]);
        }
        let process = self.process.insert(launch.start());
        let address = self.address;
        eventually("PostgreSQL serves", LONG, || {
            assert!(process.is_running(), "PostgreSQL ended at its start: {}", process.recent());
            psql(address, "postgres", "postgres", "SELECT 1").is_ok()
        });
    }

    /// Changes settings for good: `("max_connections", "5")`. Most need [`Postgres::stop`] and [`Postgres::begin`].
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// A fast shutdown: sessions are ended with 57P01, transactions rolled back.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::INT);
        process.wait(LONG);
    }

    /// SIGKILL to every process of it, as when the computer crashes.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Stopped first, so that none has another one started meanwhile.
            process.pause_if_running();
            let backends = children_of(process.id());
            process.kill();
            for backend in &backends {
                let _ = kill_process(*backend, Signal::KILL);
            }
            let gone = |id: &Pid| !Path::new(&format!("/proc/{}", id.as_raw_nonzero())).exists();
            eventually("PostgreSQL's processes are gone", LONG, || backends.iter().all(gone));
        }
    }

    /// SIGSTOP to every process of it: it keeps its connections and says nothing.
    #[track_caller]
    pub fn pause(&self) {
        let process = self.process.as_ref().expect("it runs");
        process.pause();
        for backend in children_of(process.id()) {
            let _ = kill_process(backend, Signal::STOP);
        }
    }

    /// SIGCONT to every process of it.
    #[track_caller]
    pub fn resume(&self) {
        let process = self.process.as_ref().expect("it runs");
        for backend in children_of(process.id()) {
            let _ = kill_process(backend, Signal::CONT);
        }
        process.resume();
    }

    /// Runs SQL as the superuser in the database `app`, around every guard: one line a row, columns between `|`.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        psql(self.address, "postgres", "app", sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// How many sessions clients have there, without the guard's own, whose `application_name` begins with
    /// `epochgate`.
    #[track_caller]
    pub fn sessions(&self) -> usize {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender') \
                   AND pid <> pg_backend_pid() AND application_name NOT LIKE 'epochgate%'";
        self.query(sql).parse().expect("a count is a number")
    }

    /// Its process; every backend is a child of it.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// Its data folder: the server's user may read what is put there.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.pause_if_running();
            for backend in children_of(process.id()) {
                let _ = kill_process(backend, Signal::CONT);
            }
            process.resume_if_running();
            // An immediate shutdown takes its shared memory with it, which a SIGKILL leaves to the system.
            if process.is_running() {
                process.signal(Signal::QUIT);
                let until = std::time::Instant::now() + Duration::from_secs(10);
                while process.is_running() && std::time::Instant::now() < until {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
        self.kill();
    }
}

/// Runs SQL through any address: one line a row, columns between `|`. The error is what psql says, with SQLSTATE,
/// DETAIL and HINT.
pub fn psql(address: SocketAddr, user: &str, database: &str, sql: &str) -> Result<String, String> {
    psql_launch(address, user, database).args(["-At", "-c", sql]).start().told()
}

/// psql that reads no files of the user's, says everything about an error, and never asks.
pub fn psql_launch(address: SocketAddr, user: &str, database: &str) -> Launch {
    let mut launch =
        Launch::program("psql").args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]);
    launch =
        launch.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-U", user, "-d", database]);
    let launch = without_settings(launch).env("PGCONNECT_TIMEOUT", "60").env("PGPASSFILE", "/nonexistent");
    if user == "scram" { launch.env("PGPASSWORD", "secret") } else { launch }
}

/// The folder of libpq 18, where it was fetched with its server: in `LD_LIBRARY_PATH` an older psql uses it too.
pub fn newest_libpq() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/root/postgresql-18/lib");
    folder.join("libpq.so.5").is_file().then_some(folder)
}

/// What the environment says about another PostgreSQL is not meant for this one.
fn without_settings(launch: Launch) -> Launch {
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"));
    ours.fold(launch, |launch, (name, _)| launch.env_remove(&name.to_string_lossy()))
}

/// A psql that stays.
pub struct Session(Talk);

impl Session {
    /// Connects, and fails where that does.
    #[track_caller]
    pub fn open(address: SocketAddr, user: &str, database: &str) -> Session {
        let mut session = Session::try_open(address, user, database);
        assert_eq!(session.say("SELECT 'ready'"), "ready");
        session
    }

    /// Begins to connect.
    #[track_caller]
    pub fn try_open(address: SocketAddr, user: &str, database: &str) -> Session {
        // An error is told, and it goes on.
        let launch = psql_launch(address, user, database).args(["-At", "-v", "ON_ERROR_STOP=0"]);
        Session(Talk::start(launch, |line| format!("\\echo {line}")))
    }

    /// Says SQL and returns what comes back, errors too; what was said before psql ended where it ended.
    #[track_caller]
    pub fn say(&mut self, sql: &str) -> String {
        self.0.say(&format!("{sql};"))
    }

    /// Says SQL and does not wait; then [`Session::answer`].
    pub fn begin(&mut self, sql: &str) {
        self.0.begin(&format!("{sql};"));
    }

    /// What came back for what was begun.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        self.0.answer()
    }

    /// Ctrl-C: psql asks the server, over a connection of its own, to cancel what runs, tells what came of it, and
    /// ends, as it does where it reads a script.
    pub fn interrupt(&self) {
        self.0.process.signal(Signal::INT);
    }

    /// The process, to be paused or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0.process
    }
}

/// Which PostgreSQL: what stands behind the names of its programs, nothing for Debian's.
struct Version(String);

impl Version {
    fn wanted() -> Version {
        let wanted = std::env::var("EPOCHGATE_POSTGRES").unwrap_or_default();
        Version(if wanted.is_empty() { wanted } else { format!("-{wanted}") })
    }

    fn program(&self, name: &str) -> String {
        format!("{name}{}", self.0)
    }

    fn is_there(&self) -> bool {
        find_program(&self.program("postgres")).is_some()
    }

    /// `postgres (PostgreSQL) 16.11`.
    fn named(&self) -> String {
        Launch::program(&self.program("postgres")).arg("--version").run(LONG).stdout()
    }

    fn major(&self) -> u32 {
        let named = self.named();
        let number = named.split_whitespace().nth(2).unwrap_or_else(|| panic!("{named:?} names no version"));
        let digits = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
        number[..digits].parse().unwrap_or_else(|_| panic!("{named:?} names no version"))
    }
}

/// Fills the template.
fn make(version: &Version, data: &Path) {
    other_user::give(data.parent().expect("it lies in a folder of its own"));
    let mut made = other_user::launch(&version.program("initdb"))
        .args([
            "--no-sync",
            "--no-instructions",
            "--locale=C",
            "--encoding=UTF8",
            "--auth=trust",
            "-U",
            "postgres",
            "-D",
        ])
        .arg(data)
        .run(LONG * 5);
    assert!(made.wait(LONG).success(), "{}", made.recent());
    fs::write(data.join("pg_hba.conf"), ACCESS).expect("it was just made");
    // By the single-user server, which needs no port.
    let script = data.with_file_name("users.sql");
    fs::write(&script, USERS.replace(";\n", ";\n\n")).expect("the folder was just made");
    let mut filled = other_user::launch(&version.program("postgres"))
        .args(["--single", "-j", "-c", "timezone=GMT", "-c", "log_timezone=GMT", "-D"])
        .arg(data)
        .arg("postgres")
        .input(&script)
        .run(LONG * 5);
    assert!(filled.wait(LONG).success() && !filled.has_said("ERROR"), "{}", filled.recent());
}

/// The processes that a process has started.
fn children_of(id: u32) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)).collect()
}
