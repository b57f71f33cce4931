//! A real HAProxy that forwards TCP: the load balancer in front, which tells who the client is by a PROXY header.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use super::ports;
use super::process::{LONG, Launch, Process, eventually};

/// A running HAProxy.
pub struct Haproxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process, to be paused or killed.
    pub process: Process,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    /// Starts one before `server`, with more words on its server line: `send-proxy-v2`.
    #[track_caller]
    pub fn start(server: SocketAddr, words: &str) -> Haproxy {
        let (folder, address) = (tempfile::tempdir().expect("a temporary folder can be made"), ports::free_address());
        let config = folder.path().join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread 1\n\ndefaults\n  mode tcp\n  timeout connect 60s\n  timeout client 1h\n  timeout server 1h\n\n\
             listen before\n  bind {address}\n  server it {server} {words}\n"
        );
        fs::write(&config, text).expect("the folder was just made");
        let mut process = Launch::program("haproxy").args(["-db", "-f"]).arg(&config).start();
        eventually("HAProxy listens", LONG, || {
            assert!(process.is_running(), "HAProxy ended at its start: {}", process.recent());
            TcpStream::connect(address).is_ok()
        });
        Haproxy { address, process, _folder: folder }
    }
}
