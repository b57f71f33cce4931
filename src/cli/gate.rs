//! `epochgate gate open`: the last resort for a drain that does not end.

use clap::{Args, Subcommand};

use super::client::encoded;
use super::exit::Exit;
use super::operate;
use super::options::AdminArgs;
use crate::fence::Resource;

/// The operator's last resort for a gate that stays shut
#[derive(Args, Debug)]
#[command(after_help = "\
Example, at the guard:
  epochgate gate open --resource orders --accept-reordering

Next:
  epochgate status   before: what does the gate wait for? A fence action ends it without this risk")]
pub struct GateArgs {
    #[command(subcommand)]
    what: GateCommand,
}

#[derive(Debug, Subcommand)]
enum GateCommand {
    /// Opens the gate of this door for the new epoch although old writes may still take effect
    ///
    /// An old write that still runs in the target may then land after a write of the new leader. It is written down as
    /// forced, never as drained, goes to the audit log, and is taken on loopback or the unix socket only.
    Open(OpenArgs),
}

#[derive(Args, Debug)]
struct OpenArgs {
    /// The resource
    #[arg(long, env = "EPOCHGATE_RESOURCE", value_name = "RESOURCE")]
    resource: Resource,

    /// The target, where the process guards the resource before several
    #[arg(long, env = "EPOCHGATE_TARGET", value_name = "TARGET")]
    target: Option<String>,

    /// Says that you know: an old write may land after a new one
    #[arg(long, required = true)]
    accept_reordering: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the process.
pub fn run(args: GateArgs) -> Exit {
    let GateCommand::Open(args) = args.what;
    debug_assert!(args.accept_reordering, "clap requires it");
    let target = args.target.as_deref().map(|target| format!("&target={}", encoded(target))).unwrap_or_default();
    let resource = encoded(args.resource.as_str());
    let path = format!("/api/v1/gate/open?resource={resource}{target}&accept-reordering=true");
    let done = format!("{}: opened by force, which is in the audit log. Look: `epochgate status`", args.resource);
    operate::post(&args.admin.admin, &path, &done, Exit::Failed)
}
