//! Fence actions: a command that ends what still runs in the target (DESIGN 3.2).

use std::os::fd::AsFd as _;
use std::process::Stdio;

use super::{Control, Internal};
use crate::fence::Epoch;
use crate::fence::handoff::Event;
use crate::mailbox::GateId;

impl Control {
    /// Runs the command beside; exit 0 in time is the proof that nothing older runs.
    pub(super) fn run_action(&mut self, gate: GateId, epoch: Epoch) {
        let state = self.gates.get(gate);
        let Some(action) = state.settings.fence_action.clone() else { return };
        let resource = state.name.resource.clone();
        self.beside(async move {
            let fill =
                |text: &String| text.replace("{resource}", resource.as_str()).replace("{epoch}", &epoch.to_string());
            let words: Vec<String> = action.command.iter().map(fill).collect();
            // Without its arguments, which may hold a secret.
            let program = words.first().map_or("", String::as_str);
            tracing::warn!(%resource, %epoch, program, "older writes do not end: running the fence action");
            Internal::ActionDone { gate, epoch, result: run(&words, action.timeout).await }
        });
    }

    /// It ended. A failure stays in the status for as long as its handoff is at hand: nobody runs it again.
    pub(super) fn action_done(&mut self, gate: GateId, epoch: Epoch, result: Result<(), String>) {
        let succeeded = result.is_ok();
        if let Err(why) = &result {
            let resource = &self.gates.get(gate).name.resource;
            tracing::error!(%resource, %epoch, %why, "the fence action failed");
        }
        self.gates.note_action_error(gate, result.err().map(|why| (epoch, why.into())));
        self.drive(gate, Event::ActionDone(epoch, succeeded));
    }
}

async fn run(words: &[String], limit: std::time::Duration) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("there is no command")?;
    // What it prints goes where the log goes: standard output may be the audit log's.
    let output = std::io::stderr().as_fd().try_clone_to_owned().map_err(|error| format!("{program}: {error}"))?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} did not end within {limit:?}, and was killed")),
    }
}
