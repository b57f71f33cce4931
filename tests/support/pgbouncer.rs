//! A real pgbouncer before a PostgreSQL: the pool that people have there already, and what our cost is compared with.

use std::fs;
use std::net::SocketAddr;

use super::process::{LONG, Process, eventually};
use super::{other_user, ports, postgres};

/// A running pgbouncer, in session mode. Everybody comes in as who they say they are.
pub struct Pgbouncer {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process, to be paused or killed.
    pub process: Process,
    _folder: tempfile::TempDir,
}

impl Pgbouncer {
    /// Starts one before `server`, and waits until it serves the database `app`.
    #[track_caller]
    pub fn start(server: SocketAddr) -> Pgbouncer {
        let (folder, address) = (tempfile::tempdir().expect("a temporary folder can be made"), ports::free_address());
        let config = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = session\nmax_client_conn = 1000\ndefault_pool_size = 200\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port(),
            folder.path().join("users.txt").display(),
        );
        fs::write(&config, text).expect("the folder was just made");
        fs::write(folder.path().join("users.txt"), "\"app\" \"\"\n\"postgres\" \"\"\n").expect("it was just made");
        other_user::give(folder.path());
        let mut process = other_user::launch("pgbouncer").arg(&config).start();
        eventually("pgbouncer serves", LONG, || {
            assert!(process.is_running(), "pgbouncer ended at its start: {}", process.recent());
            postgres::psql(address, "app", "app", "SELECT 1").is_ok()
        });
        Pgbouncer { address, process, _folder: folder }
    }
}
