//! `epochgate step-down`: an orderly handoff.

use clap::Args;

use super::client::encoded;
use super::exit::Exit;
use super::operate;
use super::options::AdminArgs;
use crate::fence::Resource;

/// Has the writer give up its leadership in order, so that another can lead
///
/// To be sent to the leader's own sidecar: it refuses new writes, lets those in flight end, gives up the leadership,
/// and does not campaign again before another has led or some seconds have passed. With no other candidate alive it is
/// refused (exit 75), unless forced.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, on the leader's host:
  epochgate step-down --resource orders

Next:
  epochgate status --watch   who leads now, and how long the handoff took")]
pub struct StepDownArgs {
    /// The resource
    #[arg(long, env = "EPOCHGATE_RESOURCE", value_name = "RESOURCE")]
    resource: Resource,

    /// Also where no other candidate is alive: nobody leads then for a while
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the process.
pub fn run(args: &StepDownArgs) -> Exit {
    let force = if args.force { "&force=true" } else { "" };
    let path = format!("/api/v1/step-down?resource={}{force}", encoded(args.resource.as_str()));
    let done = format!("{}: stepped down. See who leads now: `epochgate status`", args.resource);
    operate::post(&args.admin.admin, &path, &done, Exit::Leadership)
}
