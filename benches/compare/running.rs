//! Processes that are measured: how one is started, and that it ends in order.

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::pin;
use crate::support::process::{Launch, Process};

/// What a process is started under: a tool, and its arguments.
#[derive(Clone, Default)]
pub struct Wrap(pub Vec<String>);

impl Wrap {
    /// Nothing.
    pub fn none() -> Wrap {
        Wrap::default()
    }

    /// Starts a process under it, on these cores.
    pub fn start(&self, launch: Launch, cores: &[usize]) -> Running {
        let launch = match self.0.split_first() {
            Some((tool, arguments)) => launch.under(tool, &arguments.iter().map(String::as_str).collect::<Vec<_>>()),
            None => launch,
        };
        // What a thread starts is where the thread is: no other program has to run first.
        Running(pin::on(cores, || launch.start()))
    }
}

/// A process that is told to end, and only then killed: nginx' workers outlive a master that is killed.
pub struct Running(Process);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.terminate();
            let began = std::time::Instant::now();
            while self.0.is_running() && began.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Deref for Running {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// A program of this name. Of what `tools/fetch` unpacked the program itself, not the script that finds its libraries:
/// what is measured has nothing around it.
pub fn find(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    let fetched = ["root/usr/sbin", "root/usr/bin", "bin"].map(|folder| tools.join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = fetched.into_iter().chain(std::env::split_paths(&path)).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Such a program to be, with the libraries that were unpacked beside it.
pub fn launch(program: &Path) -> Launch {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/root");
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders: [PathBuf; 2] = ["lib", "usr/lib"].map(|folder| root.join(folder).join(&machine));
    let libraries: OsString = std::env::join_paths(folders).unwrap_or_default();
    Launch::program(&program.display().to_string()).env("LD_LIBRARY_PATH", libraries)
}
