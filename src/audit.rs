//! The audit log: who was refused, and every change of who may write, as one JSON line each.
//!
//! `docs/reference/audit.md` has the fields. Records wait in a bounded queue for a thread of their own; what finds no
//! room, or cannot be written, is counted (R7). No request ever waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use serde::Serialize;

use crate::clock::{Clock, to_wall};
use crate::config::resolved::{Audit as Settings, AuditOutput};
use crate::event::{By, Event, Sink};
use crate::fence::{Epoch, Moment, Outcome, Reason, Refusal, Resource, WriterId};
use crate::lines::{Form, Lines};
use crate::peer::Peer;

/// The longest path in a record, in bytes, escapes included.
pub const PATH_BYTES: usize = 256;

/// The longest method in a record.
const METHOD_BYTES: usize = 32;

/// How often it is looked whether the file was moved away (rotated).
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The audit log of one process.
#[derive(Debug)]
pub struct Audit {
    lines: Lines<(Moment, Event)>,
    dropped: IntCounter,
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened.
    #[error("the audit log {path} cannot be opened: {source}; make its folder writable, or change `audit.output`")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("the audit log's thread cannot be started: {0}")]
    Thread(io::Error),
}

impl Audit {
    /// Opens the output and starts the thread. `dropped` counts the records that are not written.
    ///
    /// # Errors
    /// Where the file cannot be opened, or the system gives no thread.
    pub fn start(settings: &Settings, clock: Arc<dyn Clock>, dropped: IntCounter) -> Result<Audit, AuditError> {
        let output: Box<dyn Write + Send> = match &settings.output {
            AuditOutput::Stdout => Box::new(io::stdout()),
            AuditOutput::Stderr => Box::new(io::stderr()),
            AuditOutput::File(path) => {
                Box::new(MovableFile::open(path).map_err(|source| AuditError::Open { path: path.clone(), source })?)
            }
        };
        Audit::write_to(output, settings.queue, clock, dropped).map_err(AuditError::Thread)
    }

    fn write_to(
        output: Box<dyn Write + Send>,
        queue: usize,
        clock: Arc<dyn Clock>,
        dropped: IntCounter,
    ) -> io::Result<Audit> {
        let form = AsJson { clock, dropped: dropped.clone(), failing: false };
        Ok(Audit { lines: Lines::start("audit", Some(queue), form, output)?, dropped })
    }

    /// Waits until every record so far is written, or for `limit`: then `false`.
    pub fn flush(&self, limit: Duration) -> bool {
        self.lines.flush(limit)
    }
}

impl Sink for Audit {
    fn take(&self, at: Moment, event: &Event) {
        if name(event).is_some() && !self.lines.offer((at, event.clone())) {
            self.dropped.inc();
        }
    }
}

/// The value of a record's `event`; `None` for what is not audited.
const fn name(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Refused { .. } => "refused",
        Event::WouldRefuse { .. } => "would_refuse",
        Event::Cut { .. } => "cut",
        Event::Fenced { .. } => "fenced",
        Event::Drained { .. } => "drained",
        Event::Opened { forced: false, .. } => "opened",
        Event::Opened { forced: true, .. } => "forced",
        Event::Elected { .. } => "elected",
        Event::Lost { .. } => "lost",
        Event::Regression { .. } => "regression",
        Event::DoorForgotten { .. } => "forgotten",
        Event::Rebased { .. } => "rebased",
        _ => return None,
    })
}

/// One record, in the order in which its fields are written.
#[derive(Debug, Default, Serialize)]
struct Record<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writer: Option<&'a WriterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<&'a WriterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
    #[serde(skip_serializing_if = "Option::is_none")]
    door: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

impl<'a> Record<'a> {
    fn of(event: &'a Event) -> Option<Record<'a>> {
        let blank = Record { event: name(event)?, ..Record::default() };
        Some(match event {
            Event::Refused { listener, refusal, peer, method, path, .. } => {
                let outcome = Some(refusal.reason.outcome().as_str());
                Record { outcome, ..blank.refusal(refusal).request(listener, *peer, method, path) }
            }
            // It was forwarded: what became of it is for the target to say.
            Event::WouldRefuse { listener, refusal, peer, method, path, .. } => {
                blank.refusal(refusal).request(listener, *peer, method, path)
            }
            Event::Cut { listener, resource, epoch, peer, method, path } => {
                let reason = Some(Reason::FencedInFlight.as_str());
                blank.unknown(resource, *epoch, reason).request(listener, *peer, method, path)
            }
            Event::Lost { listener, resource, epoch, peer, method, path } => {
                blank.unknown(resource, *epoch, None).request(listener, *peer, method, path)
            }
            Event::Fenced { resource, target, epoch } | Event::Opened { resource, target, epoch, .. } => {
                Record { resource: Some(resource), target: Some(target), epoch: Some(*epoch), ..blank }
            }
            Event::Drained { resource, target, epoch, by } => {
                Record { resource: Some(resource), target: Some(target), epoch: Some(*epoch), by: Some(*by), ..blank }
            }
            Event::Elected { resource, epoch, writer, .. } => {
                Record { resource: Some(resource), epoch: Some(*epoch), writer: Some(writer), ..blank }
            }
            Event::Regression { resource, floor, seen } => {
                Record { resource: Some(resource), epoch: *seen, floor: Some(*floor), ..blank }
            }
            Event::Rebased { resource, epoch } => Record { resource: Some(resource), epoch: Some(*epoch), ..blank },
            Event::DoorForgotten { door, target } => Record { target: Some(target), door: Some(door), ..blank },
            _ => return None,
        })
    }

    fn refusal(self, refusal: &'a Refusal) -> Record<'a> {
        Record {
            resource: refusal.resource.as_ref(),
            reason: Some(refusal.reason.as_str()),
            epoch: refusal.epoch,
            required_epoch: refusal.required_epoch,
            writer: refusal.writer.as_ref(),
            leader: refusal.leader.as_ref().map(|hint| &hint.id),
            status: Some(refusal.reason.status()),
            ..self
        }
    }

    fn unknown(self, resource: &'a Resource, epoch: Option<Epoch>, reason: Option<&'static str>) -> Record<'a> {
        let outcome = Some(Outcome::Unknown.as_str());
        Record { resource: Some(resource), epoch, reason, outcome, ..self }
    }

    fn request(self, listener: &'a str, peer: Peer, method: &str, path: &str) -> Record<'a> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        Record {
            listener: Some(listener),
            peer: Some(peer),
            method: Some(escaped(method, METHOD_BYTES)),
            path: Some(escaped(path, PATH_BYTES)),
            ..self
        }
    }
}

/// `text` as at most `limit` bytes that neither a terminal nor a reader of lines acts on: control characters, and
/// those that turn the direction of text, are `\u{..}`, a backslash is `\\`. An escape is never cut in two.
fn escaped(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let before = out.len();
        match character {
            '\\' => out.push_str("\\\\"),
            _ if turns || character.is_control() => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
        if out.len() > limit {
            out.truncate(before);
            break;
        }
    }
    out
}

struct AsJson {
    clock: Arc<dyn Clock>,
    dropped: IntCounter,
    failing: bool,
}

impl Form<(Moment, Event)> for AsJson {
    fn line(&mut self, (at, event): (Moment, Event), to: &mut Vec<u8>) {
        let Some(mut record) = Record::of(&event) else { return };
        record.time = format!("{:.3}", to_wall(&*self.clock, at));
        let start = to.len();
        if serde_json::to_writer(&mut *to, &record).is_ok() {
            to.push(b'\n');
        } else {
            to.truncate(start);
            self.dropped.inc();
        }
    }

    fn lost(&mut self, items: u64, error: &io::Error) {
        self.dropped.inc_by(items);
        if !self.failing {
            self.failing = true;
            tracing::error!(%error, "audit records cannot be written; the metric of dropped ones counts them");
        }
    }
}

/// A file that is appended to under its name, also after somebody has moved it away.
struct MovableFile {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl MovableFile {
    fn open(path: &Path) -> io::Result<MovableFile> {
        // Records name peers and paths: for the owner and the group.
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
        Ok(MovableFile { path: path.to_owned(), file, looked: Instant::now() })
    }

    fn was_moved(&self) -> io::Result<bool> {
        let here = self.file.metadata()?;
        Ok(std::fs::metadata(&self.path).map_or(true, |there| (there.ino(), there.dev()) != (here.ino(), here.dev())))
    }

    fn follow_the_name(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        if self.was_moved()? {
            *self = MovableFile::open(&self.path)?;
        }
        Ok(())
    }
}

impl Write for MovableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A record that goes on into the old file is better than none: what fails here is tried again later.
        if self.looked.elapsed() >= LOOK_EVERY && self.follow_the_name().is_err() {
            tracing::debug!(path = %self.path.display(), "the audit log cannot be opened again");
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;
