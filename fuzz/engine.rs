//! Runs one target: what is kept first, then mutations of it.
//!
//! A stable compiler has no coverage to steer by, so the target says what it saw: anything that can be hashed, such as
//! the refusal's words and the shape of what was read. An input that shows something new is mutated further.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::mutate::{Dice, Mutator};
use crate::config::units;

/// The longest input. What reads more has a limit of its own, and a test of that.
const LONGEST: usize = 8 * 1024;
/// Inputs of a short run.
const SHORT_RUN: u64 = 10_000;
/// No input takes so much of the processor's time, in any build on any machine.
const TOO_LONG: Duration = Duration::from_secs(5);
/// An input that is not done by then never is.
const HANGS: Duration = Duration::from_secs(120);
/// So many inputs are mutated further.
const KEPT: usize = 2_000;
/// So many attempts are made to find a shorter input that fails too.
const SHORTENINGS: usize = 400;

/// Fuzzes `check`, which panics where something is wrong. `words` are put into inputs.
pub fn fuzz<S: Hash>(name: &str, words: &[&str], check: impl Fn(&[u8]) -> S) {
    fuzz_for(name, words, SHORT_RUN, check);
}

/// The same with so many inputs in a short run.
pub fn fuzz_for<S: Hash>(name: &str, words: &[&str], short_run: u64, check: impl Fn(&[u8]) -> S) {
    let seed = seed();
    let span = std::env::var("EPOCHGATE_FUZZ").ok().map(|text| {
        units::duration(&text).unwrap_or_else(|error| panic!("EPOCHGATE_FUZZ={text}: {error}: {}", error.help))
    });
    let mut run =
        Run { name, seed, hasher: BuildHasherDefault::default(), seen: HashSet::new(), kept: Vec::new(), check };
    hush();
    let watch = Watch::start(name);
    for input in corpus(name) {
        run.one(&input, &watch);
    }
    assert!(!run.kept.is_empty(), "fuzz/corpus/{name} is empty");
    let (began, mut dice, mut count) = (Instant::now(), Dice::new(seed), 0_u64);
    while span.map_or(count < short_run, |span| began.elapsed() < span) {
        let input = Mutator { dice: &mut dice, words, kept: &run.kept, longest: LONGEST }.make();
        run.one(&input, &watch);
        count += 1;
    }
    let (shapes, took) = (run.seen.len(), began.elapsed().as_secs_f64());
    println!("fuzz {name}: {count} inputs in {took:.1} s, {shapes} shapes, seed {seed}");
}

fn seed() -> u64 {
    let text = std::env::var("EPOCHGATE_FUZZ_SEED").unwrap_or_default();
    // The same for everybody, unless somebody wants it otherwise.
    if text.is_empty() { 1 } else { text.parse().expect("EPOCHGATE_FUZZ_SEED is a whole number") }
}

fn folder(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(name)
}

/// What failed once, and what real inputs look like, in an order that is the same everywhere.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for kind in ["failures", "corpus"] {
        let entries = fs::read_dir(folder(kind, name)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        inputs.extend(paths.iter().map(|path| fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))));
    }
    inputs
}

struct Run<'a, C> {
    name: &'a str,
    seed: u64,
    hasher: BuildHasherDefault<DefaultHasher>,
    /// What was seen so far.
    seen: HashSet<u64>,
    /// The inputs that showed it first.
    kept: Vec<Vec<u8>>,
    check: C,
}

impl<S: Hash, C: Fn(&[u8]) -> S> Run<'_, C> {
    fn one(&mut self, input: &[u8], watch: &Watch) {
        watch.begin(input);
        match self.try_one(input) {
            Ok(shape) => {
                if self.seen.insert(shape) && self.kept.len() < KEPT {
                    self.kept.push(input.to_vec());
                }
            }
            Err(why) => self.fail(input, &why),
        }
    }

    /// What an input shows, or why it fails.
    fn try_one(&self, input: &[u8]) -> Result<u64, String> {
        let began = busy();
        QUIET.set(true);
        let seen = panic::catch_unwind(AssertUnwindSafe(|| self.hasher.hash_one((self.check)(input))));
        QUIET.set(false);
        let took = busy().saturating_sub(began);
        match seen {
            Err(panic) => Err(words_of(panic.as_ref())),
            Ok(_) if took > TOO_LONG => Err(format!("it took {took:?} of the processor")),
            Ok(shape) => Ok(shape),
        }
    }

    fn fail(&self, input: &[u8], why: &str) -> ! {
        let short = self.shortened(input);
        let path = keep(self.name, &short);
        panic!(
            "fuzz {} (seed {}): {why}\n  input: {}\n  kept as {}",
            self.name,
            self.seed,
            short.escape_ascii(),
            path.display()
        );
    }

    /// A shorter input that fails too, if one is found soon.
    fn shortened(&self, input: &[u8]) -> Vec<u8> {
        let (mut short, mut tries) = (input.to_vec(), 0);
        let mut piece = short.len() / 2;
        while piece > 0 && tries < SHORTENINGS {
            let mut at = 0;
            while at + piece <= short.len() && tries < SHORTENINGS {
                let mut shorter = short.clone();
                shorter.drain(at..at + piece);
                tries += 1;
                if self.try_one(&shorter).is_err() { short = shorter } else { at += piece }
            }
            piece /= 2;
        }
        short
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Says nothing of the panics that are caught here: what matters of them is said at the end.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                PLACE.set(info.location().map(ToString::to_string).unwrap_or_default());
            } else {
                before(info);
            }
        }));
    });
}

thread_local! {
    /// Where the last of them happened.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("{}: {}", PLACE.take(), text.unwrap_or("a panic without words"))
}

/// Keeps an input for ever.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let folder = folder("failures", name);
    let path = folder.join(format!("{:08x}", crc32fast::hash(input)));
    if let Err(error) = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)) {
        eprintln!("{}: {error}", path.display());
    }
    path
}

/// The processor's time that this thread has had: a machine with other things to do changes nothing about it.
fn busy() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Ends the process where an input hangs, and says which.
struct Watch(mpsc::Sender<Vec<u8>>);

impl Watch {
    fn start(name: &str) -> Watch {
        let (began, inputs) = mpsc::channel::<Vec<u8>>();
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut last = Vec::new();
            loop {
                match inputs.recv_timeout(HANGS) {
                    Ok(input) => last = input,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        let path = keep(&name, &last);
                        eprintln!("fuzz {name}: an input hangs; kept as {}", path.display());
                        std::process::abort();
                    }
                }
            }
        });
        Watch(began)
    }

    fn begin(&self, input: &[u8]) {
        // It ends only with the sender.
        let _ = self.0.send(input.to_vec());
    }
}
