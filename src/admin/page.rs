//! The page for people: the status as a table. No script, nothing from elsewhere; everything is escaped.

use std::fmt::{self, Write as _};

use super::readiness::Readiness;
use super::status::{GateStatus, ListenerStatus, ResourceStatus, Status};

/// More rows than this help nobody; the JSON has them all.
const ROWS: usize = 500;

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">
<meta http-equiv=\"refresh\" content=\"2\"><title>epochgate</title><style>
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #8884;vertical-align:top}th{font-weight:600}
.good{color:#197a3e}.bad{color:#c0271f}small{opacity:.75}td.n{font-variant-numeric:tabular-nums}
@media(prefers-color-scheme:dark){.good{color:#5fd38a}.bad{color:#ff8a80}}
</style></head><body>
";

/// Shows a text as text.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// The whole page.
pub(super) fn of(status: &Status) -> String {
    let mut page = String::from(HEAD);
    write(status, &mut page).expect("a String takes everything");
    page
}

fn write(status: &Status, page: &mut String) -> fmt::Result {
    let readiness = Readiness::of(status);
    let (class, word) = if readiness.ready { ("good", "ready") } else { ("bad", "not ready") };
    let (id, version) = (Escaped(status.id.as_str()), Escaped(&status.version));
    writeln!(page, "<h1>{id} <small>epochgate {version}, since {:.0}</small></h1>", status.started)?;
    writeln!(page, "<p><b class=\"{class}\">{word}</b>, {}</p>", coordinator(status))?;
    if let Some(error) = &status.floor_file_error {
        writeln!(page, "<p class=\"bad\">The floor file cannot be written: {}</p>", Escaped(error))?;
    }
    resources(&status.resources, page)?;
    listeners(&status.listeners, page)?;
    page.push_str(
        "<p><small>This page in JSON: <a href=\"/api/v1/status\">/api/v1/status</a>. Also: <a href=\"/metrics\">\
         /metrics</a>, <a href=\"/readyz?verbose\">/readyz?verbose</a>, <a href=\"/api/v1/doors\">/api/v1/doors</a>.\
         </small></p>\n</body></html>\n",
    );
    Ok(())
}

fn coordinator(status: &Status) -> String {
    let coordinator = &status.coordinator;
    let endpoint = Escaped(coordinator.endpoint.as_deref().unwrap_or_default()).to_string();
    let (class, word) = if coordinator.up { ("good", "answers") } else { ("bad", "does not answer") };
    let mut text = format!("{} {endpoint} <span class=\"{class}\">{word}</span>", Escaped(&coordinator.kind));
    if let Some(confirmed) = coordinator.confirmed {
        text.push_str(&format!(", epochs confirmed {confirmed:.0}"));
    }
    if coordinator.regressions > 0 {
        text.push_str(&format!(", <b class=\"bad\">went backwards {} times</b>", coordinator.regressions));
    }
    text
}

fn resources(resources: &[ResourceStatus], page: &mut String) -> fmt::Result {
    page.push_str(
        "<h2>Resources</h2>\n<table><tr><th>resource<th>epoch<th>leader<th>gate<th>writes<th>doors<th>last handoff\
         <th>refused</tr>\n",
    );
    for resource in resources.iter().take(ROWS) {
        row(resource, page)?;
    }
    page.push_str("</table>\n");
    if let Some(more) = resources.len().checked_sub(ROWS).filter(|more| *more > 0) {
        writeln!(page, "<p>and {more} more, in the JSON</p>")?;
    }
    Ok(())
}

fn row(resource: &ResourceStatus, page: &mut String) -> fmt::Result {
    let epoch = resource.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
    write!(page, "<tr><td>{}<td class=\"n\">{epoch}<td>", Escaped(resource.name.as_str()))?;
    match &resource.leader {
        Some(leader) => write!(page, "{} ({})", Escaped(leader.id.as_str()), resource.state.as_str())?,
        None => page.push_str(resource.state.as_str()),
    }
    if let Some(stopped) = &resource.election_stopped {
        write!(page, "<br><small class=\"bad\">elections are stopped: {}</small>", Escaped(stopped))?;
    }
    if resource.standing.as_ref().is_some_and(|standing| standing.leads) {
        page.push_str(" <b>this one</b>");
    }
    page.push_str("<td>");
    resource.gates().try_for_each(|gate| gate_phase(gate, page))?;
    page.push_str("<td class=\"n\">");
    resource.gates().try_for_each(|gate| gate_writes(gate, page))?;
    page.push_str("<td>");
    for door in &resource.doors {
        let (class, word) = match (door.left, door.alive) {
            (true, _) => ("", "left"),
            (false, true) => ("good", "alive"),
            (false, false) => ("bad", "not alive"),
        };
        let (id, target) = (Escaped(&door.id), Escaped(&door.target));
        write!(
            page,
            "{id} <small>{} before {target}</small> <span class=\"{class}\">{word}</span><br>",
            Escaped(&door.mode)
        )?;
    }
    page.push_str("<td class=\"n\">");
    if let Some(handoff) = &resource.last_handoff {
        let took = handoff.fence_ms + handoff.drain_ms + handoff.mark_ms + handoff.doors_ms + handoff.open_ms;
        write!(page, "{:.0}<br><small>{took:.1} ms, by {}</small>", handoff.at, handoff.by.as_str())?;
    }
    page.push_str("<td class=\"n\">");
    for (reason, count) in &resource.refused {
        write!(page, "{} {count}<br>", Escaped(reason))?;
    }
    page.push_str("</tr>\n");
    Ok(())
}

fn gate_phase(gate: &GateStatus, page: &mut String) -> fmt::Result {
    let class = if gate.phase.admits_or_holds() { "good" } else { "bad" };
    write!(page, "<span class=\"{class}\">{}</span>", gate.phase.as_str())?;
    if let Some(target) = &gate.target {
        write!(page, " <small>before {}</small>", Escaped(target))?;
    }
    if let Some(door) = &gate.blocked_by {
        write!(page, "<br><small>blocked by {}</small>", Escaped(door))?;
    }
    for waits_for in gate.waits_for.iter().chain(&gate.regression) {
        write!(page, "<br><small>waits for {}</small>", Escaped(waits_for))?;
    }
    page.push_str("<br>");
    Ok(())
}

fn gate_writes(gate: &GateStatus, page: &mut String) -> fmt::Result {
    write!(page, "{} in flight, {} lost, {} held<br>", gate.in_flight, gate.lost, gate.held)?;
    for holder in &gate.holders {
        let (what, peer) = (Escaped(&holder.what), Escaped(&holder.peer));
        let epoch = holder.epoch.map(|epoch| format!("epoch {epoch}, ")).unwrap_or_default();
        write!(page, "<small>{epoch}{what} of {peer}, {} ms</small><br>", holder.age_ms)?;
    }
    Ok(())
}

fn listeners(listeners: &[ListenerStatus], page: &mut String) -> fmt::Result {
    page.push_str(
        "<h2>Listeners</h2>\n<table><tr><th>listener<th>role<th>mode<th>level<th>listens<th>upstream<th>connections</tr>\n",
    );
    for listener in listeners {
        let (name, role) = (Escaped(&listener.name), Escaped(&listener.role));
        let (mode, level) =
            (listener.mode.as_deref().unwrap_or_default(), listener.level.as_deref().unwrap_or_default());
        let (listen, upstream) = (Escaped(&listener.listen), Escaped(&listener.upstream));
        writeln!(
            page,
            "<tr><td>{name}<td>{role}<td>{}<td>{}<td>{listen}<td>{upstream}<td class=\"n\">{}</tr>",
            Escaped(mode),
            Escaped(level),
            listener.connections
        )?;
    }
    page.push_str("</table>\n");
    Ok(())
}
