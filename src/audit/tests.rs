use std::sync::{Mutex, mpsc};

use super::*;
use crate::event::EventSink;
use crate::fence::verdict::LeaderHint;
use crate::protocol::Kind;

const LIMIT: Duration = Duration::from_secs(60);

/// The boot-time clock stands at ten seconds, when it is 02:00:10 of a day.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Moment {
        Moment::from_nanos(10_000_000_000)
    }

    fn wall(&self) -> jiff::Timestamp {
        "2026-11-22T02:00:10Z".parse().expect("a time")
    }
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn counter() -> IntCounter {
    IntCounter::new("dropped_total", "Dropped.").expect("a name")
}

fn written(events: &[Event]) -> Vec<serde_json::Value> {
    let page = Page::default();
    let audit = Audit::write_to(Box::new(page.clone()), 64, Arc::new(Stopped), counter()).expect("it starts");
    let audit = Arc::new(audit);
    let sink = EventSink::new(vec![Box::new(Arc::clone(&audit))]);
    assert!(!sink.wants_history());
    events.iter().for_each(|event| sink.emit(Moment::from_nanos(1_000_000_000), event.clone()));
    assert!(audit.flush(LIMIT));
    let bytes = page.0.lock().expect("no writer panics").clone();
    let text = String::from_utf8(bytes).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn refused(method: &str, path: &str) -> Event {
    let id = |text: &str| text.parse::<WriterId>().expect("an id");
    let refusal = Refusal::new(Reason::StaleEpoch, "epoch 41 is over")
        .with_resource(&"orders".parse().expect("a name"))
        .with_epochs(Epoch::new(41), Epoch::new(42))
        .with_writer(Some(&id("orders-a")))
        .with_leader(Some(LeaderHint { id: id("orders-b"), address: None }));
    Event::Refused {
        listener: "orders-guard".into(),
        refusal: Box::new(refusal),
        peer: "10.0.0.7:5123".parse::<crate::peer::Peer>().expect("an address"),
        method: method.into(),
        path: path.into(),
        kind: Kind::Write,
    }
}

#[test]
fn a_refusal_is_written_as_the_reference_says() {
    let expected = r#"{"time":"2026-11-22T02:00:01.000Z","event":"refused","resource":"orders","listener":"orders-guard","reason":"stale_epoch","epoch":"41","required_epoch":"42","writer":"orders-a","leader":"orders-b","peer":"10.0.0.7:5123","method":"PUT","path":"/a","status":412,"outcome":"not_applied"}"#;
    let page = Page::default();
    let audit = Audit::write_to(Box::new(page.clone()), 64, Arc::new(Stopped), counter()).expect("it starts");
    audit.take(Moment::from_nanos(1_000_000_000), &refused("PUT", "/a?secret=1"));
    assert!(audit.flush(LIMIT));
    assert_eq!(String::from_utf8_lossy(&page.0.lock().expect("no writer panics")), format!("{expected}\n"));
}

#[test]
fn what_changes_who_may_write_is_written_too() {
    let resource: Resource = "orders".parse().expect("a name");
    let epoch = Epoch::new(42).expect("in range");
    let (r, t) = (|| resource.clone(), || Arc::<str>::from("db"));
    let records = written(&[
        Event::Fenced { resource: r(), target: t(), epoch },
        Event::FloorWriteFailed { resources: vec![r()], error: "disk full".into() },
        Event::Drained { resource: r(), target: t(), epoch, by: By::Action },
        Event::Opened { resource: r(), target: t(), epoch, forced: false },
        Event::Opened { resource: r(), target: t(), epoch, forced: true },
        Event::Regression { resource: r(), floor: epoch, seen: Epoch::new(3) },
        Event::DoorForgotten { door: "guard-1-9f3c2a7b".into(), target: t() },
        Event::Rebased { resource: r(), epoch },
    ]);
    let names: Vec<_> = records.iter().map(|record| record["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["fenced", "drained", "opened", "forced", "regression", "forgotten", "rebased"]);
    assert_eq!(
        (&records[1]["by"], &records[4]["floor"], &records[4]["epoch"]),
        (&"action".into(), &"42".into(), &"3".into())
    );
    assert!(records.iter().all(|record| record["reason"].is_null() && record["path"].is_null()));
}

#[test]
fn what_a_peer_sent_cannot_break_a_line_or_a_terminal() {
    let records =
        written(&[refused("PU\u{1b}T", "/a\n\r\u{7f}\u{85}\u{202e}b\\é\0?q"), refused(&"M".repeat(99), "/#x")]);
    assert_eq!(records[0]["method"], "PU\\u{1b}T");
    assert_eq!(records[0]["path"], "/a\\u{a}\\u{d}\\u{7f}\\u{85}\\u{202e}b\\\\é\\u{0}");
    assert_eq!((records[1]["method"].as_str().map(str::len), &records[1]["path"]), (Some(METHOD_BYTES), &"/".into()));
}

#[test]
fn a_path_is_cut_at_its_limit_and_never_inside_an_escape_or_a_letter() {
    assert_eq!(escaped(&"a".repeat(1000), PATH_BYTES).len(), PATH_BYTES);
    assert_eq!(escaped("aé", 2), "a");
    assert_eq!(escaped("a\u{1b}", 6), "a");
    assert_eq!(escaped("a\u{1b}", 7), "a\\u{1b}");
}

/// Says when it is asked to write, takes nothing until it is told to, then fails.
struct Stuck(mpsc::Sender<()>, mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        self.0.send(()).ok();
        self.1.recv().ok();
        Err(io::Error::other("broken"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_record_that_is_not_written_is_counted() {
    let (entered, writing) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    let dropped = counter();
    let audit =
        Audit::write_to(Box::new(Stuck(entered, wait)), 4, Arc::new(Stopped), dropped.clone()).expect("it starts");
    audit.take(Moment::from_nanos(1), &refused("PUT", "/a"));
    writing.recv_timeout(LIMIT).expect("the thread writes");
    for _ in 0..10 {
        audit.take(Moment::from_nanos(1), &refused("PUT", "/a"));
    }
    assert_eq!(dropped.get(), 6, "four of ten find a place in the queue");
    drop(go);
    assert!(audit.flush(LIMIT));
    assert_eq!(dropped.get(), 11, "what cannot be written counts too");
}

#[test]
fn a_file_that_was_moved_away_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let mut file = MovableFile::open(&path).expect("it opens");
    file.write_all(b"one\n").expect("it takes a line");
    std::fs::rename(&path, folder.path().join("audit.1")).expect("it can be moved");
    file.follow_the_name().expect("it opens again");
    file.write_all(b"two\n").expect("it takes a line");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "two\n");
}

#[test]
fn an_output_that_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { output: AuditOutput::File(folder.path().join("no/such/audit.jsonl")), queue: 8 };
    let error = Audit::start(&settings, Arc::new(Stopped), counter()).expect_err("the folder is not there");
    assert!(error.to_string().contains("no/such/audit.jsonl"), "{error}");
}
