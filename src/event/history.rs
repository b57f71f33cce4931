//! The history: every event, hot ones too, as one JSON line each, for `epochgate verify` and the tests.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use super::{Event, Recorded, Sink};
use crate::fence::Moment;
use crate::lines::{Form, Lines};

/// Writes every event to a file. A checker needs all of them, so nothing is dropped: what the disk does not take in
/// time waits in memory.
#[derive(Debug)]
pub struct History(Lines<Recorded>);

impl History {
    /// Appends to `path`, which is made where it is not there.
    ///
    /// # Errors
    /// Where the file cannot be opened or no thread can be started.
    pub fn start(path: &Path) -> io::Result<History> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        end_the_last_line(path, &mut file)?;
        Lines::start("history", None, AsJson { told: false }, Box::new(file)).map(History)
    }

    /// Waits until every event so far is written, or for `limit`: then `false`.
    pub fn flush(&self, limit: Duration) -> bool {
        self.0.flush(limit)
    }
}

impl Sink for History {
    fn take(&self, at: Moment, event: &Event) {
        self.0.offer(Recorded { at, event: event.clone() });
    }

    fn wants_hot(&self) -> bool {
        true
    }
}

/// One who was killed may not have written its last line to its end: what comes now begins a new one.
fn end_the_last_line(path: &Path, file: &mut File) -> io::Result<()> {
    let about = file.metadata()?;
    if !about.is_file() || about.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, about.len() - 1)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

struct AsJson {
    told: bool,
}

impl Form<Recorded> for AsJson {
    fn line(&mut self, recorded: Recorded, to: &mut Vec<u8>) {
        let start = to.len();
        match serde_json::to_writer(&mut *to, &recorded) {
            Ok(()) => to.push(b'\n'),
            Err(error) => {
                to.truncate(start);
                self.lost(1, &error.into());
            }
        }
    }

    fn lost(&mut self, items: u64, error: &io::Error) {
        if !self.told {
            self.told = true;
            tracing::error!(%error, items, "the history has a hole: events could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::event::{By, EventSink, Listening, TermEnd};
    use crate::fence::verdict::LeaderHint;
    use crate::fence::{Epoch, Nonce, Reason, Refusal, Resource, WriterId};
    use crate::protocol::Kind;
    use crate::protocol::right::Settled;

    fn orders() -> Resource {
        "orders".parse().expect("a name")
    }

    fn refusal() -> Box<Refusal> {
        let writer: WriterId = "orders-b".parse().expect("an id");
        let hint = LeaderHint { id: writer.clone(), address: Some("http://10.0.0.8:8081".into()) };
        let refusal = Refusal::new(Reason::StaleEpoch, "epoch 41 is over").with_resource(&orders());
        let refusal = refusal.with_epochs(Epoch::new(41), Epoch::new(42)).with_writer(Some(&writer));
        Box::new(refusal.with_leader(Some(hint)))
    }

    /// One of each variant.
    fn one_of_each() -> Vec<Event> {
        let (resource, target, listener) = (orders(), Arc::<str>::from("db"), Arc::<str>::from("orders-guard"));
        let epoch = Epoch::new(42).expect("in range");
        let peer = "10.0.0.7:5123".parse().expect("an address");
        let (method, path) = (Arc::<str>::from("PUT"), Arc::<str>::from("/a"));
        let ms = Duration::from_millis;
        let (r, t, l) = (|| resource.clone(), || target.clone(), || listener.clone());
        let (m, p) = (|| method.clone(), || path.clone());
        let nonce = Nonce::from_bytes([7; 8]);
        let listeners = [
            Listening { name: l(), target: Some(t()), audit: true, sessions: true },
            Listening { name: "orders-stamp".into(), target: None, audit: false, sessions: false },
        ];
        vec![
            Event::Started { id: "a".parse().expect("an id"), listeners: listeners.into() },
            Event::Stopped {},
            Event::Verified {
                resource: r(),
                target: t(),
                epoch,
                nonce,
                writer: "a".parse().expect("an id"),
                revision: 118,
            },
            Event::Persisted { resource: r(), target: t(), epoch, drained: true },
            Event::Admitted { listener: l(), resource: r(), epoch: Some(epoch), write: 7 },
            Event::Forwarded { listener: l(), resource: r(), epoch: None, write: 7 },
            Event::Settled { listener: l(), resource: r(), epoch: Some(epoch), write: 7, how: Settled::NothingLeft },
            Event::Stamped { listener: l(), resource: r(), epoch, nonce, deadline: Moment::from_nanos(u64::MAX) },
            Event::Refused { listener: l(), refusal: refusal(), peer, method: m(), path: p(), kind: Kind::Write },
            Event::WouldRefuse { listener: l(), refusal: refusal(), peer, method: m(), path: p(), kind: Kind::Read },
            Event::Cut { listener: l(), resource: r(), epoch: Some(epoch), peer, method: m(), path: p() },
            Event::Lost { listener: l(), resource: r(), epoch: None, peer, method: m(), path: p() },
            Event::Fenced { resource: r(), target: t(), epoch },
            Event::Drained { resource: r(), target: t(), epoch, by: By::Time },
            Event::Opened { resource: r(), target: t(), epoch, forced: false },
            Event::HandoffDone {
                resource: r(),
                target: t(),
                epoch,
                fence: ms(1),
                drain: ms(2),
                mark: ms(3),
                doors: ms(5),
                open: ms(4),
                by: By::Answers,
            },
            Event::Elected {
                resource: r(),
                epoch,
                nonce,
                writer: "a".parse().expect("an id"),
                own: true,
                took: Some(ms(9)),
            },
            Event::Elected { resource: r(), epoch, nonce, writer: "a".parse().expect("an id"), own: false, took: None },
            Event::Armed { resource: r(), epoch, forced: true },
            Event::TermEnded { resource: r(), epoch, why: TermEnd::Overtaken },
            Event::Regression { resource: r(), floor: epoch, seen: None },
            Event::CoordinatorUp { endpoint: "http://127.0.0.1:2379".into() },
            Event::CoordinatorDown { error: "no\nleader".into() },
            Event::FloorWriteFailed { resources: vec![r()], error: "disk full".into() },
            Event::Rebased { resource: r(), epoch },
            Event::DoorForgotten { door: "guard-1-9f3c2a7b".into(), target: t() },
        ]
    }

    #[test]
    fn every_event_comes_back_from_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.jsonl");
        let history = Arc::new(History::start(&path).expect("the history starts"));
        let sink = EventSink::new(vec![Box::new(Arc::clone(&history))]);
        assert!(sink.wants_history());
        let events = one_of_each();
        for (nanos, event) in (1..).zip(&events) {
            sink.emit(Moment::from_nanos(nanos), event.clone());
        }
        assert!(history.flush(Duration::from_secs(60)));
        let text = std::fs::read_to_string(&path).expect("the file is there");
        let read: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let expected: Vec<Recorded> =
            (1..).map(Moment::from_nanos).zip(events).map(|(at, event)| Recorded { at, event }).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn after_a_torn_line_a_new_one_begins() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.jsonl");
        for before in ["", "whole\n", "torn"] {
            std::fs::write(&path, before).expect("it is in a temporary folder");
            let history = History::start(&path).expect("the history starts");
            history.take(Moment::from_nanos(1), &Event::Stopped {});
            assert!(history.flush(Duration::from_secs(60)));
            let text = std::fs::read_to_string(&path).expect("the file is there");
            let whole = format!("{before}{}", if before == "torn" { "\n" } else { "" });
            assert_eq!(text, whole + "{\"at\":1,\"event\":\"stopped\"}\n");
        }
    }

    /// The words of `docs/reference/history.md`, with their fields: both ways.
    #[test]
    fn every_event_and_field_is_documented() {
        let page = include_str!("../../docs/reference/history.md");
        let section =
            page.split("\n## ").find(|section| section.starts_with("What epochgate writes")).expect("a section");
        let quoted =
            |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            let fields = if cells[0].trim() == "`started`" {
                ["id", "listeners"].map(str::to_owned).into()
            } else {
                quoted(cells[2])
            };
            (quoted(cells[0]).pop_first().expect("a word"), fields)
        });
        let documented: BTreeMap<String, BTreeSet<String>> = rows.collect();
        let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for event in one_of_each() {
            let line = serde_json::to_value(&event).expect("it is plain data");
            let fields = line.as_object().expect("an object").keys().filter(|key| *key != "event");
            let name = line["event"].as_str().expect("a word").to_owned();
            written.entry(name).or_default().extend(fields.cloned());
        }
        assert_eq!(documented, written);
    }

    #[test]
    fn a_line_says_when_and_what() {
        let recorded = Recorded {
            at: Moment::from_nanos(5),
            event: Event::Drained {
                resource: orders(),
                target: "db".into(),
                epoch: Epoch::new(42).expect("in range"),
                by: By::Answers,
            },
        };
        assert_eq!(
            serde_json::to_string(&recorded).expect("it is plain data"),
            r#"{"at":5,"event":"drained","resource":"orders","target":"db","epoch":"42","by":"answers"}"#
        );
    }
}
