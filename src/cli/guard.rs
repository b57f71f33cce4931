//! `epochgate guard`: one guard listener, from flags alone.

use clap::Args;

use super::exit::Exit;
use super::options::{ListenerArgs, ProcessArgs};
use super::start;
use crate::config::{Overrides, Single};

/// Stands before a target and lets through only the writes of the present leader
///
/// Each write carries the epoch of its writer in the header Fencing-Epoch. A write of an epoch that is over is refused
/// with 412, and before a new epoch is let in, everything that was forwarded under an older one has ended. Reads pass.
#[derive(Args, Clone, Debug)]
#[command(
    group = start::coordinator(),
    after_help = "\
Example, before an API at port 9000:
  epochgate guard --listen :8080 --upstream http://127.0.0.1:9000 --resource orders --etcd http://127.0.0.1:2379

Next:
  epochgate stamp --help              the other half: it stands beside each writer
  epochgate check guard ...           the same flags with `check` before them: is everything right and reachable?
  --mode audit                        the first day: refuses nothing, counts and logs what it would refuse"
)]
pub struct GuardArgs {
    #[command(flatten)]
    listener: ListenerArgs,

    /// enforce, or audit: forward all, count and log what would be refused [default: enforce]
    #[arg(long, env = "EPOCHGATE_MODE", value_name = "MODE", help_heading = "The listener")]
    mode: Option<String>,

    /// Without the coordinator: keep (admit the epoch that it has), or close [default: keep]
    #[arg(long, env = "EPOCHGATE_ON_COORDINATOR_LOSS", value_name = "WHAT", help_heading = "The listener")]
    on_coordinator_loss: Option<String>,

    #[command(flatten)]
    process: ProcessArgs,
}

impl GuardArgs {
    /// As the configuration takes them.
    pub fn overrides(self) -> Overrides {
        Overrides { mode: self.mode, on_coordinator_loss: self.on_coordinator_loss, ..self.listener.over(self.process) }
    }
}

/// Runs until the process is told to stop.
pub fn run(args: GuardArgs) -> Exit {
    start::until_stopped(&args.overrides(), Some(Single::Guard))
}
