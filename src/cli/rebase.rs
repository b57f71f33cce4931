//! `epochgate rebase`: the operator's word that a floor far above the last epoch is real.

use clap::Args;

use super::client::encoded;
use super::exit::Exit;
use super::operate;
use super::options::AdminArgs;
use crate::fence::{Epoch, Resource};

/// The operator's last resort where a guard's floor is beyond belief
///
/// An election goes above every floor that a guard has recorded, but not above one that lies more than 1000000 above the
/// last epoch: that may be a forgery, and would use up the numbers. Then nobody is elected, and the log says so. If the
/// floor is real (the coordinator was restored from an old backup, say), name it here: the next election goes above it.
/// If it is not, take its report out of the coordinator instead. It goes to the audit log, and is taken on loopback or
/// the unix socket only.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, at any process of the resource:
  epochgate rebase --resource orders --to 4000042

Next:
  epochgate status   somebody is elected, above that number")]
pub struct RebaseArgs {
    /// The resource
    #[arg(long, env = "EPOCHGATE_RESOURCE", value_name = "RESOURCE")]
    resource: Resource,

    /// The floor that you believe, as the log names it
    #[arg(long, value_name = "EPOCH")]
    to: Epoch,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the process.
pub fn run(args: &RebaseArgs) -> Exit {
    let path = format!("/api/v1/rebase?resource={}&to={}", encoded(args.resource.as_str()), args.to);
    let done = format!(
        "{}: the floor {} is believed, which is in the audit log; the next election goes above it",
        args.resource, args.to
    );
    operate::post(&args.admin.admin, &path, &done, Exit::Failed)
}
