//! Other programs, and our own, as child processes: started, watched, stopped, and always ended.
//!
//! A [`Process`] is killed when it is dropped, so also when its test panics; it then prints what it had said.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long to wait for what should take a moment: a slow machine must not fail a test.
pub const LONG: Duration = Duration::from_secs(60);

/// How many lines of a process are kept, and how many of them a failing test prints.
const KEPT: usize = 50_000;
const PRINTED: usize = 60;

/// Waits until `is_so`, asking every few milliseconds; panics with `what` was awaited once `limit` has passed.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    eventually_some(what, limit, || is_so().then_some(()));
}

/// The same for what yields something: waits for a `Some`.
#[track_caller]
pub fn eventually_some<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Where a program is: what `tools/fetch` fetched, else where Debian keeps PostgreSQL's own, else PATH, else where
/// Debian keeps servers.
pub fn program(name: &str) -> PathBuf {
    let found = find_program(name);
    found.unwrap_or_else(|| panic!("{name} is neither in .tools/bin nor in PATH: `make tools` fetches it"))
}

/// The same where it may be missing.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(fetched)
        .chain(postgres_folder())
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// The newest PostgreSQL's programs. They come before PATH, where Debian has scripts that take longer than a query.
fn postgres_folder() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    Some(format!("/usr/lib/postgresql/{newest}/bin").into())
}

/// A process to be.
pub struct Launch {
    name: String,
    command: Command,
}

impl Launch {
    /// The real binary, or another one that `EPOCHGATE_TESTED` names; `name` is how its output is marked.
    pub fn epochgate(name: &str) -> Launch {
        let tested = std::env::var_os("EPOCHGATE_TESTED").map(PathBuf::from);
        let mut launch = Launch::at(name, &tested.unwrap_or_else(|| env!("CARGO_BIN_EXE_epochgate").into()));
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("EPOCHGATE_") {
                launch.command.env_remove(key);
            }
        }
        launch.env("RUST_BACKTRACE", "1")
    }

    /// Another program, found by its name.
    pub fn program(name: &str) -> Launch {
        Launch::at(name, &program(name))
    }

    fn at(name: &str, path: &Path) -> Launch {
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Launch { name: name.to_owned(), command }
    }

    /// Marks its output with this instead of the program's name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Launch {
        name.clone_into(&mut self.name);
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Launch {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Launch {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Launch {
        self.command.env(key, value);
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn env_remove(mut self, key: &str) -> Launch {
        self.command.env_remove(key);
        self
    }

    /// Gives it a file as its standard input; after [`Launch::under`].
    #[must_use]
    pub fn input(mut self, file: &Path) -> Launch {
        let file = fs::File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.command.stdin(file);
        self
    }

    /// Runs it in another network namespace: the file that keeps it. Say everything else before.
    #[must_use]
    pub fn inside(self, namespace: &Path) -> Launch {
        self.under("nsenter", &[&format!("--net={}", namespace.display()), "--"])
    }

    /// Has another program, which becomes this one, start it. Say everything else before.
    #[must_use]
    pub fn under(self, name: &str, args: &[&str]) -> Launch {
        let mut launch = Launch::at(&self.name, &program(name)).args(args);
        launch.command.arg(self.command.get_program()).args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            match value {
                Some(value) => launch.command.env(key, value),
                None => launch.command.env_remove(key),
            };
        }
        if let Some(folder) = self.command.get_current_dir() {
            launch.command.current_dir(folder);
        }
        launch
    }

    /// Runs it in this folder.
    #[must_use]
    pub fn dir(mut self, folder: &Path) -> Launch {
        self.command.current_dir(folder);
        self
    }

    /// Starts it with a pipe as its standard input.
    #[track_caller]
    pub fn start_with_input(mut self) -> (Process, ChildStdin) {
        self.command.stdin(Stdio::piped());
        let mut process = self.start();
        let input = process.child.stdin.take().expect("it was piped");
        (process, input)
    }

    /// Starts it.
    #[track_caller]
    pub fn start(mut self) -> Process {
        let started = self.command.spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        let said = Arc::new(Said { began: Instant::now(), lines: Mutex::default() });
        let readers =
            [listen(child.stdout.take(), Stream::Out, &said), listen(child.stderr.take(), Stream::Err, &said)];
        Process { name: self.name, child, exit: None, said, readers }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(self, limit: Duration) -> Process {
        let mut process = self.start();
        process.wait(limit);
        process
    }
}

/// A running process, or one that has ended and can still be asked what it said.
pub struct Process {
    name: String,
    child: Child,
    exit: Option<ExitStatus>,
    said: Arc<Said>,
    readers: [JoinHandle<()>; 2],
}

impl Process {
    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// SIGSTOP; returns when every thread of it has stopped.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        await_standstill(self.id());
    }

    /// SIGCONT.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGSTOP, unless it has ended.
    pub fn pause_if_running(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::STOP);
        }
    }

    /// SIGCONT, unless it has ended.
    pub fn resume_if_running(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// SIGTERM. To wait for the end is another call.
    #[track_caller]
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: its files are to be read again.
    #[track_caller]
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGKILL; returns when it has ended.
    pub fn kill(&mut self) {
        if self.poll().is_none() {
            // It may end in between: no error.
            let _ = self.child.kill();
            self.exit = self.child.wait().ok();
        }
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let sent = self.pid().map(|pid| kill_process(pid, signal));
        assert!(matches!(sent, Some(Ok(()))), "{} takes no {signal:?}: {sent:?}", self.name);
    }

    /// Waits for its end, and for its last words.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let status = eventually_some(&what, limit, || self.poll());
        // What it has started may keep its output open: that is not waited for long.
        let began = Instant::now();
        while !self.readers.iter().all(JoinHandle::is_finished) && began.elapsed() < Duration::from_secs(2) {
            thread::sleep(Duration::from_millis(1));
        }
        status
    }

    /// How a short command of a client's came out: what it wrote, or what it complained of.
    #[track_caller]
    pub fn told(&mut self) -> Result<String, String> {
        let ended = self.wait(LONG * 5);
        if ended.success() { Ok(self.stdout().trim_end_matches('\n').to_owned()) } else { Err(self.stderr()) }
    }

    /// Everything on its standard output so far.
    pub fn stdout(&self) -> String {
        self.said.text(Some(Stream::Out))
    }

    /// The lines on its standard output after the first `count`.
    pub fn stdout_from(&self, count: usize) -> Vec<String> {
        let lines = self.said.lines.lock().unwrap();
        let of_out = lines.iter().filter(|(_, stream, _)| *stream == Stream::Out);
        of_out.skip(count).map(|(_, _, line)| line.clone()).collect()
    }

    /// Whether all that it has said has been read: only after its end.
    pub fn has_been_heard(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Everything on its standard error so far.
    pub fn stderr(&self) -> String {
        self.said.text(Some(Stream::Err))
    }

    /// Whether any line on either contains `text`.
    pub fn has_said(&self, text: &str) -> bool {
        self.said.any(text)
    }

    /// Waits until a line contains `text`; fails at once where the process ends without having said it.
    #[track_caller]
    pub fn await_words(&mut self, text: &str, limit: Duration) {
        let what = format!("{} says `{text}`", self.name);
        eventually(&what, limit, || {
            let running = self.is_running();
            let said = self.said.any(text);
            // Its last words may still be on their way when it has ended.
            let listening = self.readers.iter().any(|reader| !reader.is_finished());
            assert!(said || running || listening, "{} ended ({:?}) and never said `{text}`", self.name, self.exit);
            said
        });
    }

    /// Its last lines, each with its name and when it was said.
    pub fn recent(&self) -> String {
        self.said.recent(&self.name)
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().ok().flatten();
        }
        self.exit
    }

    fn pid(&self) -> Option<Pid> {
        // Once it was waited for, its id may be another's.
        if self.exit.is_some() { None } else { i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let before = self.poll();
        self.kill();
        if thread::panicking() {
            let state = before.map_or("was running".to_owned(), |status| format!("had ended: {status}"));
            eprintln!("---- {} ({state}), its last words:\n{}----", self.name, self.recent());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// What a process has said.
struct Said {
    began: Instant,
    lines: Mutex<VecDeque<(Duration, Stream, String)>>,
}

impl Said {
    fn add(&self, stream: Stream, line: String) {
        let mut lines = self.lines.lock().unwrap();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back((self.began.elapsed(), stream, line));
    }

    fn any(&self, text: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|(_, _, line)| line.contains(text))
    }

    fn text(&self, only: Option<Stream>) -> String {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|(_, stream, _)| only.is_none_or(|only| only == *stream)).fold(
            String::new(),
            |mut text, (_, _, line)| {
                text.push_str(line);
                text.push('\n');
                text
            },
        )
    }

    fn recent(&self, name: &str) -> String {
        let lines = self.lines.lock().unwrap();
        let mut text = String::new();
        for (at, _, line) in lines.iter().skip(lines.len().saturating_sub(PRINTED)) {
            let _ = writeln!(text, "{name} {:8.3} | {line}", at.as_secs_f64());
        }
        text
    }
}

/// Keeps every line that comes out of `pipe`, on a thread of its own.
fn listen(pipe: Option<impl Read + Send + 'static>, stream: Stream, said: &Arc<Said>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    thread::spawn(move || {
        let Some(pipe) = pipe else { return };
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            said.add(stream, String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
            line.clear();
        }
    })
}

/// Waits until every thread of a stopped process has stopped: the signal's sender does not wait for that.
#[track_caller]
pub fn await_standstill(id: u32) {
    eventually("a stopped process stands still", LONG, || thread_states(id).iter().all(|&is| is == 'T'));
}

/// The state letter of every thread of a process, as in /proc; empty once it is gone.
fn thread_states(id: u32) -> Vec<char> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return Vec::new() };
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    // The name in parentheses may hold anything, so count from its end.
    stats.filter_map(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())).collect()
}
