//! What `epochgate fence` says: of the term, of the proof, and why there is none.

use serde_json::{Value, json};

use super::super::options::Output;
use super::super::paint::{self, GOOD, WARNING, plain, styled};
use super::FenceArgs;
use crate::coordinator::agreement::Proof;
use crate::coordinator::fencing::{DoorProgress, Fence, OnRecord, Progress};
use crate::fence::{Epoch, Resource};

/// Why nothing is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproved {
    /// Nothing is on record of the resource.
    UnknownResource,
    /// A guard only counts.
    AuditDoor,
    /// A guard was opened without proof.
    Forced,
    /// `--timeout` has passed.
    Timeout,
    /// SIGTERM or Ctrl-C.
    Interrupted,
}

impl Unproved {
    /// As in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Unproved::UnknownResource => "unknown_resource",
            Unproved::AuditDoor => "audit_door",
            Unproved::Forced => "forced",
            Unproved::Timeout => "timeout",
            Unproved::Interrupted => "interrupted",
        }
    }
}

/// How it ended.
pub enum Said<'a> {
    /// Before anything was elected.
    Refused(Unproved, OnRecord),
    /// Elected, and not waited.
    Elected(&'a Fence),
    /// Elected and waited, with what was last seen of the guards.
    Waited(&'a Fence, Option<&'a Progress>, Result<(), Unproved>),
}

impl Said<'_> {
    /// Whether that is what was asked for.
    pub fn is_success(&self) -> bool {
        matches!(self, Said::Elected(_) | Said::Waited(_, _, Ok(())))
    }
}

/// A line on the way there, to standard error.
pub fn eprint_line(line: &str) {
    use std::io::Write as _;
    // Whoever does not read it has the exit code.
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// That the term began, and whose it ended.
pub fn say_elected(resource: &Resource, held: &Fence) {
    let before = match &held.deposed {
        Some(leader) => format!("{} led at epoch {}", leader.term.writer, leader.term.epoch),
        None => "nobody led".to_owned(),
    };
    let epoch = styled(paint::epoch(held.term.epoch.number()), held.term.epoch);
    eprint_line(&format!("{resource}: elected epoch {epoch}, without a writer ({before})"));
}

/// The whole result.
pub fn say(args: &FenceArgs, said: &Said<'_>) -> String {
    match args.output {
        Output::Json => format!("{}\n", as_json(args, said)),
        Output::Table => in_words(args, said),
    }
}

fn in_words(args: &FenceArgs, said: &Said<'_>) -> String {
    let not_proved = |why: String, then: String| format!("{} {why}\n  {then}\n", styled(WARNING, "not proved:"));
    match said {
        Said::Refused(unproved, on_record) => {
            not_proved(why_refused(args, *unproved, on_record), what_to_do(*unproved, on_record))
        }
        Said::Elected(held) => format!(
            "epoch {} is elected, and nobody writes under it. Guards refuse older epochs once they hear of it, and one \
             that is cut off from the coordinator does not: promote only after --wait\n  {}\n",
            held.term.epoch,
            hold(args, held)
        ),
        Said::Waited(held, _, Ok(())) => {
            let hold = match args.release {
                true => "whoever campaigns may be elected now".to_owned(),
                false => format!("nobody else is elected for {} s", held.lease.ttl.as_secs()),
            };
            let epoch = held.term.epoch;
            format!("{} nothing below epoch {epoch} can land any more; {hold}\n", styled(GOOD, "proved:"))
        }
        Said::Waited(held, progress, Err(unproved)) => {
            not_proved(why_not(args, held, *progress, *unproved), hold(args, held))
        }
    }
}

/// How long nobody else is elected, and what ends that: neither the exit code nor a signal does.
fn hold(args: &FenceArgs, held: &Fence) -> String {
    if args.release {
        return "whoever campaigns may be elected now".to_owned();
    }
    let seconds = held.lease.ttl.as_secs();
    format!("nobody else is elected for {seconds} s; to end that now: {}", release_command(args))
}

/// The command that ends the hold, with the flags that lead to the same coordinator.
fn release_command(args: &FenceArgs) -> String {
    let mut words = vec!["epochgate fence --resource".to_owned(), args.resource.to_string(), "--release".to_owned()];
    let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), quoted(value)]);
    if args.holder.as_str() != "fence" {
        flag("--as", args.holder.as_str());
    }
    if let Some(file) = &args.config {
        flag("-c", &file.display().to_string());
    }
    for url in &args.etcd {
        flag("--etcd", url);
    }
    if let Some(path) = &args.embedded {
        flag("--embedded", path);
    }
    if let Some(prefix) = &args.prefix {
        flag("--prefix", prefix);
    }
    words.join(" ")
}

/// As a shell takes it for one word.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.:_-,[]%".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_owned(),
        false => format!("'{}'", plain(&value.replace('\'', "'\\''"))),
    }
}

fn why_refused(args: &FenceArgs, unproved: Unproved, on_record: &OnRecord) -> String {
    match unproved {
        Unproved::AuditDoor => format!("{}; nothing was elected", audits(&on_record.doors)),
        _ => format!("nothing is on record of {}, neither a guard nor an epoch; nothing was elected", args.resource),
    }
}

fn what_to_do(unproved: Unproved, on_record: &OnRecord) -> String {
    match (unproved, on_record.others.as_slice()) {
        (Unproved::AuditDoor, _) => {
            "stop it, or start it with mode: enforce; without --wait a term is elected all the same".to_owned()
        }
        (_, []) => {
            "no guard at all is on record: is it started, and are this coordinator and --prefix the guards'?".to_owned()
        }
        (_, others) => format!("is that its name? The guards on record are of {}", named(others)),
    }
}

/// Some names, and how many more there are.
fn named(all: &[String]) -> String {
    let shown: Vec<String> = all.iter().take(5).map(|name| plain(name)).collect();
    match all.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn audits(doors: &[DoorProgress]) -> String {
    let audits: Vec<&str> = doors.iter().filter(|door| !door.enforces).map(|door| door.name.id.as_str()).collect();
    format!("{} only counts (mode: audit), and lets everything through", audits.join(", "))
}

fn why_not(args: &FenceArgs, held: &Fence, progress: Option<&Progress>, unproved: Unproved) -> String {
    let missing = match progress {
        Some(progress) => format!("no proof yet from {}", waits_for(progress, held.term.epoch)),
        None => "the coordinator did not say how far the guards are".to_owned(),
    };
    match unproved {
        Unproved::UnknownResource => "nothing is on record of it".to_owned(),
        Unproved::AuditDoor => audits(progress.map_or(&[], |progress| &progress.doors)),
        Unproved::Forced => "a guard was opened by force, which proves nothing".to_owned(),
        Unproved::Timeout => {
            let limit = args.timeout.unwrap_or_default();
            format!("{limit:?} (--timeout) have passed; {missing}")
        }
        Unproved::Interrupted => format!("interrupted; {missing}"),
    }
}

/// Which guards are missing, and what each of them waits for.
pub fn waits_for(progress: &Progress, epoch: Epoch) -> String {
    let Proof::Missing(missing) = &progress.proof else { return "nothing".to_owned() };
    if missing.is_empty() {
        return match progress.doors.is_empty() {
            true => "a guard of the resource that is alive: none is on record".to_owned(),
            false => "a guard of the resource that is alive: those on record are not".to_owned(),
        };
    }
    let missing = missing.iter().map(|name| match progress.doors.iter().find(|door| door.name == *name) {
        Some(door) => format!("{} before {} ({})", name.id, name.target, state(door, epoch)),
        None => format!("{} before {}", name.id, name.target),
    });
    missing.collect::<Vec<_>>().join(", ")
}

/// What a guard without proof is at, as far as its report tells: it writes one when it has drained, not before.
fn state(door: &DoorProgress, epoch: Epoch) -> String {
    match door {
        door if door.left => "it has left, and what it forwarded may still land".to_owned(),
        door if !door.alive => "not alive: stopped, or cut off from the coordinator".to_owned(),
        door if door.of_another_term => format!("alive, with epoch {epoch} of another term"),
        door if door.floor < Some(epoch) => {
            "alive, not drained: its status names the older writes that it waits for, or it has not heard of the epoch"
                .to_owned()
        }
        _ => "alive, refuses older epochs, waits for older writes to end: its status names them".to_owned(),
    }
}

fn as_json(args: &FenceArgs, said: &Said<'_>) -> Value {
    let mut json = json!({ "resource": args.resource });
    let mut put = |key: &str, value: Value| json[key] = value;
    match said {
        Said::Refused(unproved, on_record) => {
            put("held_s", 0.into());
            put("proved", false.into());
            put("reason", unproved.as_str().into());
            put("detail", why_refused(args, *unproved, on_record).into());
            put("doors", doors(&on_record.doors));
        }
        Said::Elected(held) => put_term(args, held, &mut put),
        Said::Waited(held, progress, ended) => {
            put_term(args, held, &mut put);
            put("proved", ended.is_ok().into());
            if let Err(unproved) = ended {
                put("reason", unproved.as_str().into());
                put("detail", why_not(args, held, *progress, *unproved).into());
            }
            if let Some(progress) = progress {
                put("doors", doors(&progress.doors));
            }
        }
    }
    json
}

fn put_term(args: &FenceArgs, held: &Fence, put: &mut impl FnMut(&str, Value)) {
    put("epoch", json!(held.term.epoch));
    put("nonce", json!(held.term.nonce));
    put("held_s", if args.release { 0 } else { held.lease.ttl.as_secs() }.into());
    if let Some(leader) = &held.deposed {
        put("deposed", json!({ "id": leader.term.writer, "epoch": leader.term.epoch }));
    }
}

fn doors(doors: &[DoorProgress]) -> Value {
    let door = |door: &DoorProgress| {
        json!({ "id": door.name.id, "target": door.name.target, "mode": if door.enforces { "enforce" } else { "audit" },
                "alive": door.alive, "floor": door.floor, "drained": door.drained })
    };
    doors.iter().map(door).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::coordinator::keys::DoorName;
    use crate::coordinator::store::{Lease, LeaseId};
    use crate::fence::{Moment, Nonce, Term};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: FenceArgs,
    }

    fn args(more: &str) -> FenceArgs {
        let line = format!("fence --resource orders {more}");
        Line::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}")).args
    }

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number).expect("in range")
    }

    fn held() -> Fence {
        let term = Term { epoch: epoch(2), nonce: Nonce::from_bytes([7; 8]), writer: "fence".parse().expect("an id") };
        Fence {
            term,
            deposed: None,
            lease: Lease { id: LeaseId(1), ttl: Duration::from_secs(60), sent: Moment::default() },
        }
    }

    fn door(id: &str) -> DoorProgress {
        DoorProgress {
            name: DoorName { target: "db".into(), id: id.into() },
            enforces: true,
            alive: true,
            floor: Some(epoch(1)),
            drained: Some(epoch(1)),
            left: false,
            of_another_term: false,
        }
    }

    fn missing(door: DoorProgress) -> Progress {
        Progress { proof: Proof::Missing(vec![door.name.clone()]), doors: vec![door] }
    }

    fn drawn(args: &FenceArgs, said: &Said<'_>) -> String {
        anstream::adapter::strip_str(&say(args, said)).to_string()
    }

    #[test]
    fn an_election_alone_promises_nothing_of_the_guards() {
        let text = drawn(&args("--etcd http://e:1"), &Said::Elected(&held()));
        assert!(text.starts_with("epoch 2 is elected, and nobody writes under it. Guards refuse older epochs once"));
        assert!(text.contains("promote only after --wait"), "{text}");
        let end = "nobody else is elected for 60 s; to end that now: epochgate fence --resource orders --release --etcd http://e:1";
        assert!(text.contains(end), "{text}");
        for lie in ["fenced", "admitted", "proved"] {
            assert!(!text.contains(lie), "{lie}: {text}");
        }
    }

    #[test]
    fn what_is_not_proved_names_the_limit_the_guard_and_the_hold() {
        let (progress, held) = (missing(door("g-1")), held());
        let args = args("--wait --timeout 3s --as runbook --embedded /a/b --prefix /x/");
        let text = drawn(&args, &Said::Waited(&held, Some(&progress), Err(Unproved::Timeout)));
        let first = "not proved: 3s (--timeout) have passed; no proof yet from g-1 before db (alive, not drained: its status names the older writes that it waits for, or it has not heard of the epoch)\n";
        assert!(text.starts_with(first), "{text}");
        let command = "epochgate fence --resource orders --release --as runbook --embedded /a/b --prefix /x/\n";
        assert!(text.ends_with(command), "{text}");
        let line: Vec<&str> = command.trim().split(' ').skip(1).collect();
        assert!(Line::try_parse_from(line).is_ok(), "it can be typed");
    }

    #[test]
    fn what_a_guard_is_at_is_said() {
        let fenced = || DoorProgress { floor: Some(epoch(2)), ..door("g") };
        for (door, said) in [
            // It reports nothing while it drains: whether it has heard of the epoch is not known.
            (door("g"), "alive, not drained: its status names the older writes that it waits for, or it has not heard"),
            (DoorProgress { floor: None, ..door("g") }, "alive, not drained"),
            (DoorProgress { alive: false, ..door("g") }, "not alive"),
            (DoorProgress { left: true, alive: false, ..door("g") }, "it has left"),
            (DoorProgress { of_another_term: true, ..fenced() }, "of another term"),
            (fenced(), "waits for older writes to end"),
        ] {
            let text = waits_for(&missing(door), epoch(2));
            assert!(text.starts_with("g before db (") && text.contains(said), "{said}: {text}");
        }
        let nobody = Progress { proof: Proof::Missing(Vec::new()), doors: Vec::new() };
        assert_eq!(waits_for(&nobody, epoch(2)), "a guard of the resource that is alive: none is on record");
    }

    #[test]
    fn a_script_can_tell_the_reasons_apart() {
        let (progress, held, args) = (missing(door("g")), held(), args("--wait -o json --embedded /a"));
        let said = |unproved| as_json(&args, &Said::Waited(&held, Some(&progress), Err(unproved)));
        for unproved in [Unproved::AuditDoor, Unproved::Forced, Unproved::Timeout, Unproved::Interrupted] {
            let json = said(unproved);
            assert_eq!((&json["proved"], &json["reason"]), (&false.into(), &unproved.as_str().into()), "{json}");
            assert!(json["detail"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
            assert_eq!(json["held_s"], 60, "{json}");
        }
        let proved = as_json(&args, &Said::Waited(&held, Some(&progress), Ok(())));
        assert!(proved.get("reason").is_none() && proved["proved"] == true, "{proved}");
        let on_record = OnRecord { doors: Vec::new(), is_known: false, others: vec!["orders".to_owned()] };
        let refused = Said::Refused(Unproved::UnknownResource, on_record);
        let json = as_json(&args, &refused);
        assert_eq!((&json["reason"], &json["held_s"]), (&"unknown_resource".into(), &0.into()), "{json}");
        assert!(json.get("epoch").is_none() && !refused.is_success(), "nothing was elected: {json}");
    }

    #[test]
    fn what_a_shell_would_split_is_quoted() {
        for (value, said) in [("/a/b-c", "/a/b-c"), ("/a b", "'/a b'"), ("", "''"), ("it's", "'it'\\''s'")] {
            assert_eq!(quoted(value), said);
        }
    }
}
