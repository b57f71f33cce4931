//! Messages that mean nothing, or two things, through a guard, and through a stamping sidecar and its guard, to an origin
//! that keeps every byte. However they are put: the origin never sees two requests where one was admitted, nor a write
//! with another stamp than the one that was admitted, nor anything of what was refused, nor a message whose end two
//! readers could find in two places.
//!
//! Each message goes every way that there is: over the direct path, over hyper's (a field that only says so puts it
//! there), and over HTTP/2 between the two sidecars. A marker follows it on its own connection, where that goes on, and on
//! a new one: what was smuggled past the sidecars would show as, before, or instead of these.
//!
//! `cargo test --test ambiguous -- --nocapture` prints the table.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod between;
mod framing;
mod lines;
mod origin;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use origin::{Origin, Record};
use support::client::Connection;
use support::world::{Sidecar, World};
use table::{Fate, Row};

/// No message of the table takes so long, on any machine: one that does hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many rows the table has at least.
const LEAST: usize = 130;
/// A field that is between neighbours, so that it is not passed on; and too much for the direct path.
const OVER_HYPER: &str = "Proxy-Way: hyper\r\n";

fn rows() -> Vec<Row> {
    [lines::rows(), framing::rows(), between::rows()].into_iter().flatten().collect()
}

/// A way for messages to go: who is asked, and what stands behind.
struct Way {
    name: &'static str,
    to: SocketAddr,
    is_stamp: bool,
    /// Whether it goes over HTTP/2 between the two.
    is_http2: bool,
    via: &'static str,
    /// The stamp of the epoch at hand.
    term: String,
}

impl Way {
    /// What is sent for a row, or a marker.
    fn bytes(&self, message: &str, number: usize) -> Vec<u8> {
        let stamp = if self.is_stamp { String::new() } else { format!("Fencing-Epoch: {}\r\n", self.term) };
        let next = format!("PUT /next{number} HTTP/1.1\r\nHost: a\r\nFencing-Epoch: 1\r\nContent-Length: 0\r\n\r\n");
        let text = message
            .replace("{n}", &number.to_string())
            .replace("{via}", self.via)
            .replace("{stamp}", &stamp)
            .replace("{term}", &self.term)
            .replace("{next}", &next);
        text.chars().map(|c| u8::try_from(u32::from(c)).expect("a character of the table is one byte")).collect()
    }

    fn marker(&self, path: &str) -> Vec<u8> {
        self.bytes(&format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{{stamp}}Content-Length: 2\r\n\r\nok"), 0)
    }

    fn fate<'a>(&self, row: &'a Row) -> &'a Fate {
        let over_http2 = row.over_http2.as_ref().filter(|_| self.is_http2);
        over_http2.or(row.at_stamp.as_ref().filter(|_| self.is_stamp)).unwrap_or(&row.fate)
    }

    /// Sends a row, and what shows whether more came of it than it was.
    fn play(&self, row: &Row, number: usize) -> Played {
        let mut played = Played::default();
        let mut client = Connection::open(self.to).unwrap();
        client.patience(PATIENCE).unwrap();
        // The other side may close before it has all of it.
        let _ = client.send(&self.bytes(&row.message, number));
        if row.ends {
            let _ = client.finish_sending();
        }
        let mut asked = row.ends;
        let marker = format!("/marker{number}");
        while let Ok(answer) = client.answer() {
            played.statuses.push(answer.status);
            if answer.header("x-path") == Some(&marker) {
                played.marked = true;
                break;
            }
            if answer.header("connection").is_some_and(|value| value == "close") {
                break;
            }
            if !asked {
                asked = true;
                let _ = client.send(&self.marker(&marker));
            }
        }
        drop(client);
        let fresh = format!("/fresh{number}");
        let mut client = Connection::open(self.to).unwrap();
        client.patience(PATIENCE).unwrap();
        client.send(&self.marker(&fresh)).unwrap();
        let answer =
            client.answer().unwrap_or_else(|error| panic!("{}: {}: the next one: {error}", self.name, row.name));
        let answered = (answer.status, answer.header("x-path"));
        assert_eq!(answered, (200, Some(&*fresh)), "{}: {}: the next one", self.name, row.name);
        played
    }
}

/// What the sender saw.
#[derive(Debug, Default)]
struct Played {
    /// Of all answers on its connection.
    statuses: Vec<u16>,
    /// Whether the marker was answered on it.
    marked: bool,
}

/// What the origin has of one row.
#[derive(Default)]
struct Found<'a> {
    whole: Vec<&'a Record>,
    parts: Vec<&'a Record>,
}

/// Everything that is wrong about what became of a row.
fn judge(way: &Way, row: &Row, number: usize, played: &Played, found: &Found<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let first = played.statuses.first().copied();
    let targets: Vec<String> = found.whole.iter().map(|record| plain(&record.line)).collect();
    match way.fate(row) {
        Fate::Refused(status) => {
            let gone = found.whole.is_empty() && found.parts.is_empty();
            if first != Some(*status) || !gone {
                wrong.push(format!("not refused with {status}: {first:?}, {targets:?}"));
            }
        }
        Fate::Closed => {
            if first.is_some() || !found.whole.is_empty() {
                wrong.push(format!("not closed: {first:?}, {targets:?}"));
            }
        }
        Fate::Broken => {
            if !found.whole.is_empty() || first.is_some_and(|status| !(400..=502).contains(&status)) {
                wrong.push(format!("not broken: {first:?}, {targets:?}"));
            }
        }
        Fate::Forwarded(line, body) => {
            let line = line.replace("{n}", &number.to_string());
            let bodies: Vec<String> = found.whole.iter().map(|record| text(&record.body)).collect();
            if first != Some(200) || targets != [line.clone()] || bodies != [body.clone()] {
                wrong.push(format!("not forwarded as {line:?} with {body:?}: {first:?}, {targets:?}, {bodies:?}"));
            }
        }
    }
    // Two at least: its own answer, or what was admitted behind it, and never one more than that.
    if found.whole.len() > 1 {
        wrong.push(format!("two requests where one was admitted: {targets:?}"));
    }
    wrong
}

/// What is wrong with a record, whatever it is of.
fn faults(way: &Way, record: &Record) -> Vec<String> {
    let mut wrong: Vec<String> = record.faults.clone();
    let stamps: Vec<&str> = record.values("fencing-epoch").collect();
    let admitted = [way.term.as_str()];
    // A head of which not all came says nothing of what it lacks.
    if (record.whole && record.is_write() || !stamps.is_empty()) && stamps != admitted {
        wrong.push(format!("its stamps are {stamps:?}"));
    }
    for ours in ["fencing-expect", "proxy-way", "te", "expect", "keep-alive", "proxy-connection"] {
        let said: Vec<&str> = record.values(ours).filter(|value| *value != "trailers").collect();
        if !said.is_empty() {
            wrong.push(format!("{ours} was passed on"));
        }
    }
    for (name, _) in &record.trailers {
        if ["content-length", "transfer-encoding", "host"].contains(&&*name.to_ascii_lowercase()) {
            wrong.push(format!("{name} in the trailers was passed on"));
        }
    }
    if record.target().starts_with("/next") || record.target() == "/inside" {
        wrong.push("it was smuggled".to_owned());
    }
    wrong
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// A first line without its version.
fn plain(line: &str) -> String {
    line.trim_end_matches(" HTTP/1.1").to_owned()
}

/// The row that a record is of: by the number in its target; one that has none, by when it came. (A request that broke
/// off is noticed when its connection ends, which may be a row later.)
fn owner(record: &Record, at: usize, spans: &[usize]) -> usize {
    let numbered = ["/marker", "/fresh", "/next", "/c"].iter().find_map(|word| {
        let rest = &record.line[record.line.find(word)? + word.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    numbered.unwrap_or_else(|| spans.partition_point(|began| *began <= at) - 1)
}

/// Plays the whole table on one way, and judges it.
fn play_all(way: &Way, origin: &Origin) {
    let rows = rows();
    let mut played = Vec::new();
    let mut spans = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let before = origin.records().len();
        played.push(way.play(row, number));
        spans.push(before);
    }
    let records = origin.records();
    let owners: Vec<usize> = records.iter().enumerate().map(|(at, record)| owner(record, at, &spans)).collect();
    let mut failures = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mut found = Found::default();
        let (marker, fresh) = (format!("/marker{number}"), format!("/fresh{number}"));
        let mut of_markers: HashMap<&str, usize> = HashMap::new();
        for (record, _) in records.iter().zip(&owners).filter(|(_, owner)| **owner == number) {
            let wrong = faults(way, record);
            let broken = !record.whole && matches!(way.fate(row), Fate::Broken);
            if !broken {
                failures.extend(wrong.into_iter().map(|wrong| (number, format!("{wrong}: {:?}", text(&record.raw)))));
            }
            match record.target() {
                target if target == marker || target == fresh => {
                    *of_markers.entry(record.target()).or_default() += 1;
                    if !record.whole || record.body != b"ok" {
                        failures.push((number, format!("the marker came as {:?}", text(&record.raw))));
                    }
                }
                _ if record.whole => found.whole.push(record),
                _ => found.parts.push(record),
            }
        }
        failures.extend(judge(way, row, number, &played[number], &found).into_iter().map(|wrong| (number, wrong)));
        if of_markers.values().any(|times| *times > 1) || of_markers.get(&*fresh) != Some(&1) {
            failures.push((number, format!("the markers came {of_markers:?}")));
        }
        if played[number].marked != of_markers.contains_key(&*marker) {
            failures.push((number, format!("the marker's answer is another's: {of_markers:?}")));
        }
        println!("{:<28} | {:<18} | {:<45} | {}", way.name, row.category, row.name, told(&played[number], &found));
    }
    for (number, wrong) in &failures {
        println!("!! {}: {}: {}: {wrong}", way.name, rows[*number].category, rows[*number].name);
    }
    assert!(failures.is_empty(), "{}: {} of the table's {} rows", way.name, failures.len(), rows.len());
}

/// What became of a row, for people.
fn told(played: &Played, found: &Found<'_>) -> String {
    let statuses: Vec<String> = played.statuses.iter().map(u16::to_string).collect();
    let came: Vec<String> = found.whole.iter().map(|record| plain(&record.line)).collect();
    let after = if played.marked { "goes on" } else { "closed" };
    let parts = if found.parts.is_empty() { "" } else { ", a part" };
    format!("{} {after}; at the origin: {}{parts}", statuses.join(" "), came.join(", "))
}

/// A world whose epoch at hand is the second, with what the first was.
struct Place {
    origin: Origin,
    world: World,
}

impl Place {
    fn new() -> Place {
        let mut world = World::embedded();
        world.elect("orders-old");
        Place { origin: Origin::start(), world }
    }

    /// `variables` weaken what is started; of them only a build for that knows.
    fn guard(&self, without: &str) -> Sidecar {
        let url = self.origin.address;
        let upstream = format!("upstream: {{ url: \"http://{url}\", version: http1, response_timeout: 40s }}");
        self.world.guard("guard").listener(&upstream).env("EPOCHGATE_DANGER_WITHOUT", without).start()
    }
}

fn at_a_guard(name: &'static str, via: &'static str, without: &str) {
    let mut place = Place::new();
    let guard = place.guard(without);
    let (term, stamp) = place.world.elect("orders-a");
    guard.await_open(&term);
    play_all(&Way { name, to: guard.address, is_stamp: false, is_http2: false, via, term: stamp }, &place.origin);
}

fn at_a_stamp(name: &'static str, via: &'static str, version: &str, without: &str) {
    let mut place = Place::new();
    let guard = place.guard(without);
    place.world.terms.resign();
    let upstream =
        format!("upstream: {{ url: \"http://{}\", version: {version}, response_timeout: 50s }}", guard.address);
    let stamp = place.world.stamp("orders-a", guard.address).listener(&upstream);
    let stamp = stamp.env("EPOCHGATE_DANGER_WITHOUT", without).start();
    let term = stamp.await_leadership();
    assert!(term.starts_with("2;"), "{term}");
    play_all(&Way { name, to: stamp.address, is_stamp: true, is_http2: version == "http2", via, term }, &place.origin);
}

#[test]
fn the_table_is_long_and_names_each_row_once() {
    let rows = rows();
    assert!(rows.len() >= LEAST, "{} rows", rows.len());
    let names: HashSet<_> = rows.iter().map(|row| (row.category, row.name)).collect();
    assert_eq!(names.len(), rows.len(), "two rows of one name");
    let mut categories: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *categories.entry(row.category).or_default() += 1);
    println!("{} rows: {categories:?}", rows.len());
}

#[test]
fn through_a_guard_over_the_direct_path() {
    at_a_guard("guard, direct", "", "");
}

#[test]
fn through_a_guard_over_hyper() {
    at_a_guard("guard, hyper", OVER_HYPER, "");
}

#[test]
fn through_a_stamp_and_its_guard_over_the_direct_path() {
    at_a_stamp("stamp and guard, direct", "", "http1", "");
}

#[test]
fn through_a_stamp_and_its_guard_over_hyper() {
    at_a_stamp("stamp and guard, hyper", OVER_HYPER, "http1", "");
}

#[test]
fn through_a_stamp_that_speaks_http2_to_its_guard() {
    at_a_stamp("stamp and guard over HTTP/2", "", "http2", "");
}

/// Where a mechanism is missing the direct path is off, markers and all; this one is nobody's business here.
#[cfg(feature = "danger-test-switches")]
#[test]
fn with_everything_on_hypers_path() {
    at_a_guard("guard, hyper alone", "", "giving_up");
    at_a_stamp("stamp and guard, hyper alone", "", "http1", "giving_up");
}
