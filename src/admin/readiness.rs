//! Can this process answer?
//!
//! A process that guards is ready while it may admit or hold a write of some resource, whatever the coordinator does;
//! a door in audit mode always may, since it forwards everything. One that only stamps is always ready: a standby
//! answers too, and leadership has an endpoint of its own.

use std::fmt;

use super::status::{GateStatus, Phase, Status};

/// What `/readyz` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether this process can answer.
    pub ready: bool,
    /// Why, one by one.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it looks.
    pub finding: Finding,
    /// What was found, and what it waits for.
    pub detail: String,
}

/// How a check looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Good,
    /// Not as it should be, and this process answers all the same.
    Degraded,
    /// As far as this goes, it cannot answer.
    Failed,
}

impl Readiness {
    /// Judges a state.
    pub fn of(status: &Status) -> Readiness {
        let mut checks = vec![stopping(status), coordinator(status), floor_file(status)];
        let audits = status.listeners.iter().any(|listener| listener.mode.as_deref() == Some("audit"));
        let (mut guards, mut answers) = (false, audits);
        for resource in &status.resources {
            for gate in resource.gates() {
                guards = true;
                answers |= gate.phase.admits_or_holds();
                checks.push(gate_check(resource.name.as_str(), gate));
            }
        }
        Readiness { ready: !status.stopping && (answers || !guards), checks }
    }
}

fn check(name: impl Into<String>, finding: Finding, detail: impl Into<String>) -> Check {
    Check { name: name.into(), finding, detail: detail.into() }
}

fn stopping(status: &Status) -> Check {
    match status.stopping {
        true => check("running", Finding::Failed, "the process is stopping"),
        false => check("running", Finding::Good, "yes"),
    }
}

fn coordinator(status: &Status) -> Check {
    let coordinator = &status.coordinator;
    let endpoint = coordinator.endpoint.as_deref().unwrap_or(&coordinator.kind);
    if !coordinator.up {
        return check("coordinator", Finding::Degraded, format!("{endpoint} does not answer"));
    }
    let behind = status.resources.iter().filter(|resource| resource.gates().any(|gate| gate.regression.is_some()));
    match behind.count() {
        0 => check("coordinator", Finding::Good, format!("{endpoint} answers")),
        some => {
            check("coordinator", Finding::Degraded, format!("{endpoint} is behind this guard for {some} resource(s)"))
        }
    }
}

fn floor_file(status: &Status) -> Check {
    match &status.floor_file_error {
        None => check("floor-file", Finding::Good, "written"),
        Some(error) => check("floor-file", Finding::Degraded, format!("cannot be written, tried again: {error}")),
    }
}

fn gate_check(resource: &str, gate: &GateStatus) -> Check {
    let name = match &gate.target {
        Some(target) => format!("gate {resource} before {target}"),
        None => format!("gate {resource}"),
    };
    let finding = match gate.phase {
        Phase::Open if gate.regression.is_none() => Finding::Good,
        phase if phase.admits_or_holds() => Finding::Degraded,
        _ => Finding::Failed,
    };
    let mut detail = gate.phase.as_str().to_owned();
    if let Some(door) = &gate.blocked_by {
        detail.push_str(&format!(", blocked by {door}"));
    }
    for waits_for in gate.waits_for.iter().chain(&gate.regression) {
        detail.push_str(&format!(", waits for {waits_for}"));
    }
    check(name, finding, detail)
}

/// One line a check, the verdict last.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let sign = match check.finding {
                Finding::Good => '+',
                Finding::Degraded => '!',
                Finding::Failed => '-',
            };
            // A detail comes from all over the place: it stays on its line.
            writeln!(f, "[{sign}] {}: {}", check.name, check.detail.replace(['\n', '\r'], " "))?;
        }
        f.write_str(if self.ready { "ready\n" } else { "not ready\n" })
    }
}
