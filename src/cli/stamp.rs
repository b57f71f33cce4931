//! `epochgate stamp`: one stamping listener, from flags alone.

use clap::Args;

use super::exit::Exit;
use super::options::{ListenerArgs, ProcessArgs};
use super::start;
use crate::config::{Overrides, Single};

/// Stands beside a writer, campaigns for it, and puts its epoch on each write
///
/// The service talks to this address as if it were the target. While its writer leads, writes are stamped and
/// forwarded; while it does not, they are refused with 421, which names the leader. Give each writer an id of its own.
#[derive(Args, Clone, Debug)]
#[command(
    group = start::coordinator(),
    after_help = "\
Example, beside writer orders-a, with the guard at db-guard:8080:
  epochgate stamp --listen 127.0.0.1:8081 --upstream http://db-guard:8080 --resource orders --id orders-a \\
    --advertise http://10.0.0.7:8081 --etcd http://127.0.0.1:2379

Next:
  curl -i 'http://127.0.0.1:9464/leader?resource=orders'   200 where this writer leads, else 503 and who does
  epochgate step-down --resource orders                    hands leadership on in order"
)]
pub struct StampArgs {
    #[command(flatten)]
    listener: ListenerArgs,

    /// What a refusal at another writer names as this one's address, such as http://10.0.0.7:8081
    #[arg(long, env = "EPOCHGATE_ADVERTISE", value_name = "URL", help_heading = "The listener")]
    advertise: Option<String>,

    /// Without the coordinator: stop at the deadline, or keep, where every effect of the writer goes through a guard
    /// [default: stop]
    #[arg(long, env = "EPOCHGATE_ON_COORDINATOR_LOSS", value_name = "WHAT", help_heading = "The listener")]
    on_coordinator_loss: Option<String>,

    #[command(flatten)]
    process: ProcessArgs,
}

impl StampArgs {
    /// As the configuration takes them.
    pub fn overrides(self) -> Overrides {
        Overrides {
            advertise: self.advertise,
            on_coordinator_loss: self.on_coordinator_loss,
            ..self.listener.over(self.process)
        }
    }
}

/// Runs until the process is told to stop.
pub fn run(args: StampArgs) -> Exit {
    start::until_stopped(&args.overrides(), Some(Single::Stamp))
}
