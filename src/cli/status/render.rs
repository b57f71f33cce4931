//! A status as text for people.

use jiff::Timestamp;

use super::super::client::Address;
use super::super::operate::with_admin;
use super::super::paint::{BAD, GOOD, HEADING, WARNING, plain, styled};
use super::super::table::{Cell, Table};
use super::view::{Gate, Handoff, Resource, Status};

/// More rows than this are counted, not shown: nobody reads a table of ten thousand.
const SHOWN: usize = 100;

/// The whole picture of the process at `admin`, as of `now`. The commands that it names go to the same process.
pub fn status(status: &Status, admin: &Address, now: Timestamp) -> String {
    let mut text = heading(status, now);
    text += &format!("\n{}", resources(status, now));
    let doors = doors(status);
    if !doors.is_empty() {
        text += &format!("\n{}\n{doors}", styled(HEADING, "Doors"));
    }
    let holders = holders(status);
    if !holders.is_empty() {
        text += &format!("\n{}\n{holders}", styled(HEADING, "The drain waits for"));
    }
    text += &with_admin(&notes(status), admin);
    text += &listeners(status);
    text + &format!("\n{} {}\n", styled(HEADING, "Hint:"), with_admin(&hint(status), admin))
}

/// Every door on record, or nothing.
fn doors(status: &Status) -> String {
    let columns = ["RESOURCE", "TARGET", "DOOR", "KIND", "MODE", "ALIVE", "FLOOR", "DRAINED", "ADDRESS"];
    let rows = status.resources.iter().flat_map(|resource| resource.doors.iter().map(move |door| (resource, door)));
    rows_of(&columns, rows, |(resource, door)| {
        vec![
            Cell::new(&resource.name),
            Cell::maybe(door.target.as_ref()),
            Cell::new(&door.id),
            Cell::maybe(door.kind.as_ref()),
            Cell::maybe(door.mode.as_ref()),
            super::super::doors::alive(door.left, door.alive),
            Cell::epoch(door.floor.as_deref()),
            Cell::epoch(door.drained.as_deref()),
            Cell::maybe(door.address.as_ref()),
        ]
    })
}

fn heading(status: &Status, now: Timestamp) -> String {
    let word = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
    let ready = match status.ready {
        Some(true) => styled(GOOD, "ready"),
        Some(false) => styled(BAD, "not ready"),
        None => "-".into(),
    };
    let up = status.started.map_or_else(|| "-".into(), |started| span(now, started));
    let mut text = format!(
        "{} {} (epochgate {}, up {up}): {ready}\n",
        styled(HEADING, "Process:"),
        word(&status.id),
        word(&status.version)
    );
    let coordinator = &status.coordinator;
    let up = match coordinator.up {
        Some(true) => styled(GOOD, "up"),
        Some(false) => styled(BAD, "away"),
        None => "-".into(),
    };
    let confirmed = coordinator.confirmed.map_or_else(|| "never".into(), |at| format!("{} ago", span(now, at)));
    text += &format!(
        "{} {} {} {up}, revision {}, confirmed {confirmed}",
        styled(HEADING, "Coordinator:"),
        word(&coordinator.kind),
        word(&coordinator.endpoint),
        word(&coordinator.revision)
    );
    if coordinator.regressions > 0 {
        text += &styled(BAD, format_args!(", went backwards {} times since the start", coordinator.regressions));
    }
    text + "\n"
}

fn resources(status: &Status, now: Timestamp) -> String {
    let columns = [
        "RESOURCE",
        "STATE",
        "EPOCH",
        "LEADER",
        "PHASE",
        "FLOOR",
        "IN-FLIGHT",
        "LOST",
        "HELD",
        "REFUSED",
        "LAST HANDOFF",
    ];
    let mut rows = Vec::new();
    for resource in &status.resources {
        rows.push((resource, resource.gate.as_ref()));
        rows.extend(resource.other_gates.iter().map(|gate| (resource, Some(gate))));
    }
    let table = rows_of(&columns, rows.into_iter(), |(resource, gate)| {
        let name = match gate.and_then(|gate| gate.target.as_ref()) {
            Some(target) => format!("{} at {target}", resource.name),
            None => resource.name.clone(),
        };
        vec![
            Cell::new(name),
            state(resource),
            Cell::epoch(resource.epoch.as_deref()),
            Cell::maybe(leader(resource)),
            phase(gate),
            Cell::epoch(gate.and_then(|gate| gate.floor.as_deref())),
            Cell::maybe(gate.and_then(|gate| gate.in_flight)),
            Cell::maybe(gate.and_then(|gate| gate.lost)),
            Cell::maybe(gate.and_then(|gate| gate.held)),
            Cell::new(resource.refusals()),
            Cell::maybe(resource.last_handoff.as_ref().map(|handoff| self::handoff(handoff, now))),
        ]
    });
    if table.is_empty() { "No resources are configured.\n".into() } else { table }
}

fn state(resource: &Resource) -> Cell {
    let style = match resource.state.as_deref() {
        Some("armed") => GOOD,
        Some("elected") => WARNING,
        _ => BAD,
    };
    Cell::maybe(resource.state.as_ref()).styled(style)
}

fn leader(resource: &Resource) -> Option<String> {
    let here = resource.standing.as_ref().is_some_and(|standing| standing.leads);
    let id = resource.leader.as_ref()?.id.as_ref()?;
    Some(match (here, holder(resource).is_some()) {
        (true, _) => format!("{id} (here)"),
        (false, true) => format!("{id} (a hold)"),
        (false, false) => id.clone(),
    })
}

/// Under which name `epochgate fence` holds the leadership, where it does.
fn holder(resource: &Resource) -> Option<&str> {
    resource.leader.as_ref().filter(|leader| leader.held)?.id.as_deref()
}

fn phase(gate: Option<&Gate>) -> Cell {
    let phase = gate.and_then(|gate| gate.phase.as_deref());
    let style = match phase {
        Some("open") => GOOD,
        Some("fencing" | "draining" | "quarantine" | "waiting_doors") => WARNING,
        Some(_) => BAD,
        None => anstyle::Style::new(),
    };
    Cell::maybe(phase).styled(style)
}

fn handoff(handoff: &Handoff, now: Timestamp) -> String {
    let took = handoff.fence_ms + handoff.drain_ms + handoff.mark_ms + handoff.doors_ms + handoff.open_ms;
    let doors = if handoff.doors_ms > 0.0 {
        format!(" ({:.1} of it for other doors)", handoff.doors_ms)
    } else {
        String::new()
    };
    let by = handoff.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
    let ago = handoff.at.map(|at| format!(", {} ago", span(now, at))).unwrap_or_default();
    let epoch = handoff.epoch.as_deref().map(|epoch| format!("to {epoch} in ")).unwrap_or_default();
    format!("{epoch}{took:.1} ms{doors}{by}{ago}")
}

/// What drains wait for, the oldest first.
fn holders(status: &Status) -> String {
    let held = status
        .resources
        .iter()
        .flat_map(|resource| resource.gates().flat_map(|gate| &gate.holders).map(move |holder| (resource, holder)));
    rows_of(&["RESOURCE", "EPOCH", "WRITE", "FROM", "FOR"], held, |(resource, holder)| {
        vec![
            Cell::new(&resource.name),
            Cell::epoch(holder.epoch.as_deref()),
            Cell::maybe(holder.what.as_ref()),
            Cell::maybe(holder.peer.as_ref()),
            Cell::maybe(holder.age_ms.map(|ms| format!("{:.1} s", seconds(ms)))),
        ]
    })
}

/// What a table has no column for.
fn notes(status: &Status) -> String {
    let mut notes = Vec::new();
    if let Some(error) = &status.floor_file_error {
        notes.push(format!("the floor file cannot be written, new epochs stay shut: {error}"));
    }
    for resource in &status.resources {
        if let Some(stopped) = &resource.election_stopped {
            notes.push(format!("{}: elections are stopped: {stopped}", resource.name));
        }
        for gate in resource.gates() {
            let mut note = |text: String| notes.push(format!("{}: {text}", resource.name));
            match (&gate.blocked_by, &gate.waits_for) {
                (Some(_), Some(what)) => note(format!("kept shut; waits for {what}")),
                (Some(door), None) => note(format!("kept shut by the record of door {door}")),
                (None, Some(what)) => note(format!("waits for {what}")),
                (None, None) => {}
            }
            if gate.residue_ms > 0 && gate.phase.as_deref() != Some("quarantine") {
                note(format!(
                    "this guard was not stopped in order; what it forwarded then may still land for {:.1} s",
                    seconds(gate.residue_ms)
                ));
            }
            if let Some(regression) = &gate.regression {
                note(format!(
                    "the coordinator is behind this guard; only the epoch at hand is admitted; waits for {regression}"
                ));
            }
        }
        if resource.doors.iter().any(|door| door.mode.as_deref() == Some("audit") && !door.left) {
            notes.push(format!("{}: not proven: a door in audit mode is on record and refuses nothing", resource.name));
        }
        if let Some(holder) = holder(resource) {
            notes.push(format!(
                "{}: nobody writes: `epochgate fence` holds the leadership as {holder}, and nobody is elected until that ends",
                resource.name
            ));
        }
    }
    let more = notes.len().saturating_sub(SHOWN);
    notes.truncate(SHOWN);
    let mut text: String = notes.iter().map(|note| format!("{} {}\n", styled(WARNING, "‼"), plain(note))).collect();
    if more > 0 {
        text += &format!("… and {more} more\n");
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn listeners(status: &Status) -> String {
    let columns = ["LISTENER", "ROLE", "LISTENS", "MODE", "LEVEL", "UPSTREAM", "CONNECTIONS"];
    let table = rows_of(&columns, status.listeners.iter(), |listener| {
        let mode = Cell::maybe(listener.mode.as_ref());
        vec![
            Cell::new(&listener.name),
            Cell::maybe(listener.role.as_ref()),
            Cell::maybe(listener.listen.as_ref()),
            if listener.mode.as_deref() == Some("audit") { mode.styled(WARNING) } else { mode },
            Cell::maybe(listener.level.as_ref()),
            Cell::maybe(listener.upstream.as_ref()),
            Cell::maybe(listener.connections),
        ]
    });
    if table.is_empty() { table } else { format!("\n{table}") }
}

/// The command that fits what is seen: the most urgent first. What stands above among the notes is not said twice.
fn hint(status: &Status) -> String {
    if status.coordinator.up == Some(false) {
        return "the coordinator is away; see why with `epochgate check -c FILE`".into();
    }
    if let Some(blocked) = blocked(status) {
        return blocked;
    }
    if let Some(stopped) = status.resources.iter().find(|resource| resource.election_stopped.is_some()) {
        return format!("elections of {} are stopped; which floor to look at stands above", plain(&stopped.name));
    }
    let phase = |gate: &Gate, phases: &[&str]| gate.phase.as_deref().is_some_and(|phase| phases.contains(&phase));
    for resource in &status.resources {
        let name = plain(&resource.name);
        for gate in resource.gates() {
            if gate.stuck {
                return format!("nothing ends the drain of {name} by itself; the ways out stand above");
            }
            if phase(gate, &["draining", "quarantine", "waiting_doors"]) {
                return "follow the handoff with `epochgate status --watch`; what it waits for stands above".into();
            }
            let never_elected = resource.epoch.is_none() && resource.state.as_deref() == Some("vacant");
            if phase(gate, &["shut", "unknown"]) && !never_elected {
                return format!("why {name} is shut stands above; `epochgate check -c FILE` looks further");
            }
        }
    }
    if let Some((name, holder)) = status.resources.iter().find_map(|held| Some((&held.name, holder(held)?))) {
        let name = plain(name);
        let holder = if holder == "fence" { String::new() } else { format!(" --as {}", plain(holder)) };
        return format!(
            "the hold of {name} ends by itself after its --ttl, or now with `epochgate fence --resource {name} --release{holder}` and the coordinator's flags"
        );
    }
    if let Some(vacant) = status.resources.iter().find(|resource| resource.state.as_deref() == Some("vacant")) {
        return format!("nobody leads {}; a writer needs a sidecar: `epochgate stamp --help`", plain(&vacant.name));
    }
    let leads = |resource: &&Resource| resource.standing.as_ref().is_some_and(|standing| standing.leads);
    if let Some(led) = status.resources.iter().find(leads) {
        let name = plain(&led.name);
        return format!("hand leadership on in order with `epochgate step-down --resource {name}`");
    }
    "follow it with `epochgate status --watch`".into()
}

/// What to do about a gate that another door's record keeps shut, unless it was said already: never to declare one dead
/// that lives.
fn blocked(status: &Status) -> Option<String> {
    let doors = || status.resources.iter().flat_map(|resource| &resource.doors);
    let has_left = |id: &String| doors().any(|door| door.id == *id && door.left);
    let gates = status.resources.iter().flat_map(Resource::gates);
    let by = gates.filter_map(|gate| gate.blocked_by.as_ref()).find(|id| !has_left(id))?;
    let lives = doors().any(|door| door.id == *by && door.alive == Some(true));
    let door = plain(by);
    Some(if lives {
        format!("the guard {door} lives, so it is not to be forgotten; what ends it stands above")
    } else {
        format!("if the guard {door} will never come back, say so with `epochgate doors forget {door}`")
    })
}

fn rows_of<T>(columns: &[&str], rows: impl Iterator<Item = T>, cells: impl Fn(T) -> Vec<Cell>) -> String {
    let mut table = Table::new(columns);
    let mut rows = rows.fuse();
    for row in rows.by_ref().take(SHOWN) {
        table.row(cells(row));
    }
    if table.is_empty() {
        return String::new();
    }
    match rows.count() {
        0 => table.to_string(),
        more => format!("{table}… and {more} more\n"),
    }
}

/// From `then` to `now`, as short as people say it.
fn span(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs_f64().max(0.0);
    match seconds {
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7200.0 => format!("{:.0}m", (s / 60.0).floor()),
        s if s < 172_800.0 => format!("{:.0}h", (s / 3600.0).floor()),
        s => format!("{:.0}d", (s / 86_400.0).floor()),
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize as _;
    use serde_json::{Value, json};

    /// The example of INTERFACES.md.
    fn served() -> Value {
        json!({"version":"0.1.0","id":"orders-a","started":"2026-11-22T02:00:00.000Z","ready":true,
            "coordinator":{"kind":"etcd","up":true,"endpoint":"http://127.0.0.1:2379","revision":"118","confirmed":"2026-11-22T02:00:09.000Z","regressions":0},
            "resources":[{"name":"orders","epoch":"42","state":"armed","leader":{"id":"orders-a","address":"http://10.0.0.7:8081"},
            "standing":{"leads":true,"deadline_ms":3120},
            "gate":{"phase":"open","floor":"42","drained":"42","in_flight":3,"lost":0,"held":0,"residue_ms":0,
                    "holders":[{"epoch":"41","peer":"10.0.0.7:5123","what":"PUT /a","age_ms":812}]},
            "doors":[{"id":"guard-1-9f3c2a7b","target":"orders","kind":"sole","mode":"enforce","alive":true,"address":"10.0.0.3:8080","floor":"42","drained":"42","left":false}],
            "last_handoff":{"epoch":"42","at":"2026-11-22T02:00:03.000Z","fence_ms":0.4,"drain_ms":12.0,"mark_ms":0.3,"open_ms":0.1,"by":"answers"},
            "refused":{"stale_epoch":50}}],
            "listeners":[{"name":"orders-guard","role":"guard","protocol":"http","listen":"0.0.0.0:8080","mode":"enforce","level":"proxy","upstream":"http://127.0.0.1:9000","connections":12}]})
    }

    fn drawn(served: &Value) -> String {
        drawn_of("127.0.0.1:9464", served)
    }

    fn drawn_of(admin: &str, served: &Value) -> String {
        let now = "2026-11-22T02:00:10Z".parse().expect("a time");
        let admin = admin.parse().expect("an address");
        let text = status(&Status::deserialize(served).expect("a status"), &admin, now);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn everything_is_shown() {
        let text = drawn(&served());
        for part in [
            "Process: orders-a (epochgate 0.1.0, up 10s): ready",
            "Coordinator: etcd http://127.0.0.1:2379 up, revision 118, confirmed 1.0s ago",
            "RESOURCE  STATE  EPOCH  LEADER           PHASE  FLOOR  IN-FLIGHT  LOST  HELD  REFUSED  LAST HANDOFF",
            "orders    armed  42     orders-a (here)  open   42     3          0     0     50       to 42 in 12.8 ms by answers, 7.0s ago",
            "orders    orders  guard-1-9f3c2a7b  sole  enforce  yes    42     42       10.0.0.3:8080",
            "orders    41     PUT /a  10.0.0.7:5123  0.8 s",
            "orders-guard  guard  0.0.0.0:8080  enforce  proxy  http://127.0.0.1:9000  12",
            "Hint: hand leadership on in order with `epochgate step-down --resource orders`",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn what_is_missing_is_a_dash() {
        let text = drawn(&json!({"resources":[{"name":"orders"}],"something":"new"}));
        assert!(
            text.contains("orders    -      -      -       -      -      -          -     -     0        -"),
            "{text}"
        );
        assert!(drawn(&json!({})).contains("No resources are configured."));
    }

    #[test]
    fn the_hint_fits_what_is_seen() {
        let hint_with = |change: fn(&mut Value)| {
            let mut served = served();
            change(&mut served);
            drawn(&served).lines().last().expect("a last line").to_owned()
        };
        assert!(hint_with(|s| s["coordinator"]["up"] = json!(false)).contains("epochgate check"));
        assert!(hint_with(|s| s["resources"][0]["gate"]["phase"] = json!("draining")).contains("--watch"));
        assert!(hint_with(|s| s["resources"][0]["gate"]["blocked_by"] = json!("g-1")).contains("doors forget g-1"));
        let forgotten = hint_with(|s| {
            s["resources"][0]["gate"]["blocked_by"] = json!("g-1");
            s["resources"][0]["doors"][0] = json!({"id": "g-1", "left": true});
        });
        assert!(!forgotten.contains("doors forget"), "it was said already: {forgotten}");
        let living = hint_with(|s| {
            s["resources"][0]["gate"]["blocked_by"] = json!("g-1");
            s["resources"][0]["doors"][0] = json!({"id": "g-1", "kind": "shared", "alive": true});
        });
        assert!(!living.contains("doors forget") && living.contains("g-1"), "{living}");
        let ordinary = hint_with(|s| s["resources"][0]["gate"]["phase"] = json!("quarantine"));
        assert!(!ordinary.contains("gate open"), "time ends it: {ordinary}");
        assert!(hint_with(|s| s["resources"][0]["gate"]["stuck"] = json!(true)).contains("nothing ends"));
        let mut held = served();
        held["resources"][0]["leader"] = json!({"id": "fence", "held": true});
        held["resources"][0]["standing"]["leads"] = json!(false);
        let text = drawn(&held);
        assert!(text.contains("fence (a hold)") && text.contains("holds the leadership as fence"), "{text}");
        assert!(
            text.ends_with("`epochgate fence --resource orders --release` and the coordinator's flags\n"),
            "{text}"
        );
        held["resources"][0]["leader"]["id"] = json!("runbook");
        assert!(drawn(&held).contains("--release --as runbook`"));
        let mut vacant = served();
        vacant["resources"][0]["state"] = json!("vacant");
        assert!(drawn(&vacant).contains("epochgate stamp --help"));
        let mut stopped = vacant.clone();
        stopped["resources"][0]["election_stopped"] = json!("say so with `epochgate rebase --resource orders --to 9`");
        let text = drawn(&stopped);
        assert!(
            text.contains("orders: elections are stopped: say so with `epochgate rebase")
                && !text.contains("stamp --help"),
            "{text}"
        );
        vacant["resources"][0]["gate"] = json!({"phase": "unknown", "waits_for": "the first election"});
        assert!(drawn(&vacant).contains("why orders is shut"), "it had an epoch");
        vacant["resources"][0].as_object_mut().expect("a mapping").remove("epoch");
        assert!(drawn(&vacant).contains("epochgate stamp --help"), "nobody ever led");
    }

    #[test]
    fn commands_go_to_the_process_that_was_asked() {
        let hint = drawn_of("127.0.0.1:9465", &served());
        assert!(hint.contains("`epochgate step-down --resource orders --admin 127.0.0.1:9465`"), "{hint}");
        let mut blocked = served();
        blocked["resources"][0]["gate"]["waits_for"] = json!(
            "a door: `epochgate doors forget g-1`; or `epochgate step-down --resource orders` at the leader's sidecar"
        );
        let text = drawn_of("unix:/run/e.sock", &blocked);
        assert!(text.contains("`epochgate doors forget g-1 --admin unix:/run/e.sock`; or"), "{text}");
        assert!(text.contains("step-down --resource orders` at the leader's"), "that is another process: {text}");
    }

    #[test]
    fn a_wait_for_other_doors_is_told_apart_from_the_rest_of_a_handoff() {
        let mut waited = served();
        waited["resources"][0]["last_handoff"]["doors_ms"] = json!(40_000.0);
        assert!(drawn(&waited).contains("to 42 in 40012.8 ms (40000.0 of it for other doors) by answers"));
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor() {
        let mut served = served();
        served["resources"][0]["gate"]["holders"][0]["what"] = json!("PUT /\u{1b}[2J");
        served["resources"][0]["gate"]["waits_for"] = json!("\u{7}");
        assert!(!drawn(&served).contains(['\u{1b}', '\u{7}']));
    }

    #[test]
    fn thousands_of_resources_are_counted() {
        let many: Vec<Value> = (0..SHOWN + 7).map(|n| json!({"name": format!("orders/{n}")})).collect();
        assert!(drawn(&json!({ "resources": many })).contains("… and 7 more"));
    }
}
