//! The log: what an operator reads, to stderr.
//!
//! Text with colour on a terminal, else JSON lines. No thread ever waits for stderr: lines go through a bounded queue
//! to a thread of their own, and what finds no room is counted and said afterwards.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::resolved::{Log, LogFormat};
use crate::lines::{Form, Lines};

/// Lines that may wait to be written.
const QUEUE: usize = 8192;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system gives no thread.
    #[error("the log's thread cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// It was set up before.
    #[error("the log is set up already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// What can still be done with the log once it is set up. Cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    queue: Queue,
}

impl LogHandle {
    /// Changes the level from now on.
    pub fn set_level(&self, level: Level) {
        if let Err(error) = self.filter.reload(filter(level)) {
            // Only when the subscriber is gone: then nobody reads a log.
            debug_assert!(error.is_dropped(), "{error}");
        }
    }

    /// How many lines found no room so far.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line so far is written, or for `limit`: then `false`. To be called before the process ends.
    pub fn flush(&self, limit: Duration) -> bool {
        self.queue.lines.flush(limit)
    }
}

/// Sets up the log of this process, once.
///
/// # Errors
/// Where it was set up before, or the system gives no thread.
pub fn init(settings: &Log) -> Result<LogHandle, LogError> {
    let terminal = io::stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // https://no-color.org: set and not empty.
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (subscriber, handle) = subscriber(json, colour, settings.level, QUEUE, Box::new(io::stderr()))?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(handle)
}

fn subscriber(
    json: bool,
    colour: bool,
    level: Level,
    queue: usize,
    output: Box<dyn Write + Send>,
) -> io::Result<(impl Subscriber + Send + Sync, LogHandle)> {
    let dropped = Arc::new(AtomicU64::new(0));
    let form = Plain { json, dropped: Arc::clone(&dropped), told: 0 };
    let queue = Queue { lines: Arc::new(Lines::start("log", Some(queue), form, output)?), dropped };
    let (filter, reload) = reload::Layer::new(filter(level));
    let lines = if json {
        // Without the module that a line comes from: its key would be `target`, which is a field of ours.
        fmt::layer().json().flatten_event(true).with_target(false).with_writer(queue.clone()).boxed()
    } else {
        fmt::layer().with_ansi(colour).with_target(false).with_writer(queue.clone()).boxed()
    };
    let handle = LogHandle { filter: reload, queue };
    Ok((tracing_subscriber::registry().with(filter).with(lines), handle))
}

/// Our own lines at `level`, those of libraries only where something is wrong; `trace` shows everything.
fn filter(level: Level) -> Targets {
    let libraries = if level == Level::TRACE { level } else { level.min(Level::WARN) };
    Targets::new().with_default(LevelFilter::from(libraries)).with_target(env!("CARGO_CRATE_NAME"), level)
}

/// The way in for lines.
#[derive(Clone)]
struct Queue {
    lines: Arc<Lines<Vec<u8>>>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> &'a Queue {
        self
    }
}

impl Write for &Queue {
    /// One call is one event: the format layer hands over whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.lines.offer(line.to_vec()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Plain {
    json: bool,
    dropped: Arc<AtomicU64>,
    told: u64,
}

impl Form<Vec<u8>> for Plain {
    fn line(&mut self, line: Vec<u8>, to: &mut Vec<u8>) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let more = dropped - self.told;
        if more > 0 {
            self.told = dropped;
            let now = jiff::Timestamp::now();
            let text = if self.json {
                format!(
                    "{{\"timestamp\":\"{now:.6}\",\"level\":\"WARN\",\"message\":\"log lines were dropped\",\"lines\":{more}}}\n"
                )
            } else {
                format!("{now:.6}  WARN log lines were dropped lines={more}\n")
            };
            to.extend_from_slice(text.as_bytes());
        }
        to.extend_from_slice(&line);
    }

    /// There is nowhere left to say it.
    fn lost(&mut self, items: u64, _error: &io::Error) {
        self.dropped.fetch_add(items, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text")
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_lines_and_a_level_that_can_be_changed() {
        let page = Page::default();
        let (subscriber, handle) =
            subscriber(true, false, Level::INFO, 64, Box::new(page.clone())).expect("the log starts");
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too quiet");
            tracing::info!(resource = "orders", target = "api", "opened");
            tracing::info!(target: "h2::client", "a library talks");
            handle.set_level(Level::DEBUG);
            tracing::debug!("quiet");
        });
        assert!(handle.flush(LIMIT));
        let text = page.text();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().expect("a message")).collect();
        assert_eq!(messages, ["opened", "quiet"]);
        assert_eq!(lines[0]["resource"], "orders");
        assert_eq!(lines[0]["target"], "api");
        assert_eq!(text.matches("\"target\"").count(), 1, "{text}");
    }

    #[test]
    fn text_without_colour_has_no_escapes() {
        let page = Page::default();
        let (subscriber, handle) =
            subscriber(false, false, Level::INFO, 64, Box::new(page.clone())).expect("the log starts");
        tracing::subscriber::with_default(subscriber, || tracing::info!(path = "/\u{1b}[31m", "opened"));
        assert!(handle.flush(LIMIT));
        assert!(page.text().contains("opened") && !page.text().contains('\u{1b}'), "{}", page.text());
    }

    /// Takes nothing until it is told to.
    struct Stuck(mpsc::Receiver<()>, Page);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other).ok();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_costs_lines_and_says_so() {
        let page = Page::default();
        let (go, wait) = mpsc::channel();
        let (subscriber, handle) =
            subscriber(true, false, Level::INFO, 2, Box::new(Stuck(wait, page.clone()))).expect("the log starts");
        tracing::subscriber::with_default(subscriber, || {
            while handle.dropped() == 0 {
                tracing::info!("a line");
            }
            drop(go);
            assert!(handle.flush(LIMIT));
            tracing::info!("after");
        });
        assert!(handle.flush(LIMIT));
        assert!(page.text().contains("log lines were dropped"), "{}", page.text());
        assert!(page.text().lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}
