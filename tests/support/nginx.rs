//! A real nginx with WebDAV: the target that knows nothing of epochs.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use super::ports;
use super::process::{LONG, Launch, Process, eventually};

/// The configuration of the example: what users run is what is tested.
const TEMPLATE: &str = include_str!("../../examples/http-two-writers/nginx.conf");

/// A running nginx: PUT writes a file, GET reads it, DELETE removes it.
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process, to be paused or killed.
    pub process: Process,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts one in a fresh folder, and waits until it listens.
    #[track_caller]
    pub fn start() -> Nginx {
        let address = ports::free_address();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::create_dir(folder.path().join("files")).expect("it was just made");
        let config = folder.path().join("nginx.conf");
        fs::write(&config, TEMPLATE.replace("@LISTEN@", &address.to_string())).expect("it was just made");

        let prefix = format!("{}/", folder.path().display());
        let mut process =
            Launch::program("nginx").args(["-e", "stderr", "-p", prefix.as_str(), "-c"]).arg(&config).start();
        eventually("nginx listens", LONG, || {
            assert!(process.is_running(), "nginx has ended");
            TcpStream::connect(address).is_ok()
        });
        Nginx { address, process, folder }
    }

    /// What is stored under a path (`/orders/1`), as it lies on disk; `None` where nothing is.
    pub fn stored(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.file(path)).ok()
    }

    /// Where that lies.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("files").join(path.trim_start_matches('/'))
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
