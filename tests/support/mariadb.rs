//! A real MariaDB for a test: on a free port of 127.0.0.1, in a fresh folder, ended with its owner.
//!
//! The user `app` comes in without a password and may do everything in the database `app`; `root` may
//! do everything everywhere.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::process::{LONG, Launch, Process, eventually, program};
use super::talk::Talk;
use super::{ports, template};

/// The scripts, in Debian's `share/mysql`, that make what a server needs to know of itself; no help, no performance schema.
const SCRIPTS: [&str; 2] = ["mysql_system_tables.sql", "mysql_system_tables_data.sql"];

/// After them.
const USERS: &str = "\
FLUSH PRIVILEGES;
CREATE DATABASE app;
CREATE USER app@'127.0.0.1';
GRANT ALL ON app.* TO app@'127.0.0.1';
";

/// A server, running or stopped.
pub struct Mariadb {
    /// Where it listens.
    pub address: SocketAddr,
    settings: Vec<String>,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Mariadb {
    /// Starts one, and waits until it serves.
    #[track_caller]
    pub fn start() -> Mariadb {
        Mariadb::start_with(&[])
    }

    /// With settings as on its command line: `--max-connections=5`.
    #[track_caller]
    pub fn start_with(settings: &[&str]) -> Mariadb {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let data = folder.path().join("data");
        let version = Launch::program("mariadbd").args(["--no-defaults", "--version"]).run(LONG).stdout();
        template::copy("mariadb", &format!("{version}{USERS}"), &data, make);
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut mariadb = Mariadb { address: ports::free_address(), settings, process: None, folder };
        mariadb.begin();
        mariadb
    }

    /// Starts it again after [`Mariadb::stop`] or [`Mariadb::kill`], at the same address, with what it had on disk.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let launch = server(&self.folder.path().join("data"))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"])
            .args(["--innodb-buffer-pool-size=32M", "--max-allowed-packet=256M"])
            .arg(format!("--port={}", self.address.port()))
            .arg(format!("--socket={}", self.folder.path().join("socket").display()));
        let process = self.process.insert(launch.args(&self.settings).start());
        let address = self.address;
        eventually("MariaDB serves", LONG, || {
            assert!(process.is_running(), "MariaDB ended at its start: {}", process.recent());
            mariadb(address, "SELECT 1").is_ok()
        });
    }

    /// SIGTERM: sessions are ended, transactions rolled back.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.terminate();
        process.wait(LONG);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Runs SQL as `app` in the database `app`, around every guard: one line a row, columns between tabs.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        mariadb(self.address, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Its process, to be paused.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }
}

/// Runs SQL at any address: one line a row, columns between tabs. The error is what the client says.
pub fn mariadb(address: SocketAddr, sql: &str) -> Result<String, String> {
    mariadb_launch(address).args(["-e", sql]).start().told()
}

/// A client that stays: it goes on after an error, and does not connect again.
#[track_caller]
pub fn talk(address: SocketAddr) -> Talk {
    let launch = mariadb_launch(address).args(["--force", "--unbuffered", "--skip-reconnect"]);
    Talk::start(launch, |line| format!("\\! echo '{line}'"))
}

/// The client, as `app` in the database `app`; it goes on with options.
pub fn mariadb_launch(address: SocketAddr) -> Launch {
    let (host, port) = (format!("-h{}", address.ip()), format!("-P{}", address.port()));
    let launch = Launch::program("mariadb").args(["--no-defaults", &host, &port, "--protocol=tcp", "-uapp", "-Dapp"]);
    launch.args(["-N", "-B", "--connect-timeout=60", "--max-allowed-packet=256M"])
}

/// Fills the template.
fn make(data: &Path) {
    let mut sql = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_owned();
    for script in SCRIPTS {
        let path = installed_under().join("share/mysql").join(script);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The name of this computer is nobody's business.
        text.lines().filter(|line| !line.contains("@current_hostname")).for_each(|line| {
            let _ = writeln!(sql, "{line}");
        });
    }
    sql.push_str(USERS);
    let input = data.with_file_name("bootstrap.sql");
    fs::write(&input, sql).expect("the folder was just made");
    let mut made = server(data).args(["--bootstrap", "--log-warnings=0"]).input(&input).run(LONG * 5);
    assert!(made.wait(LONG).success(), "{}", made.recent());
}

/// A server that reads no files of the system's. It asks to be told that root may run it.
fn server(data: &Path) -> Launch {
    let under = installed_under();
    let mut launch = Launch::program("mariadbd").arg("--no-defaults");
    if rustix::process::geteuid().is_root() {
        launch = launch.arg("--user=root");
    }
    launch
        .arg(format!("--basedir={}", under.display()))
        .arg(format!("--lc-messages-dir={}", under.join("share/mysql").display()))
        .arg(format!("--plugin-dir={}", under.join("lib/mysql/plugin").display()))
        .arg(format!("--datadir={}", data.display()))
        // As large as the files that are copied for every test.
        .arg("--innodb-log-file-size=16M")
}

/// The folder that `sbin`, `share` and `lib` of this MariaDB lie in.
fn installed_under() -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    if program("mariadbd").starts_with(&fetched) { fetched.join("root/usr") } else { "/usr".into() }
}
