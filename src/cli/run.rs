//! `epochgate run`: every listener in a file.

use clap::Args;

use super::exit::Exit;
use super::options::ProcessArgs;
use super::start;

/// Runs every listener of a configuration file
///
/// The process stays in the foreground. SIGTERM ends it in order: what waits is accepted, what is in flight finishes,
/// leadership is handed on; a second SIGTERM ends it at once. A changed file, certificate or key is taken up by itself, or on SIGHUP, as far as that
/// needs no restart.
#[derive(Args, Debug)]
#[command(
    mut_arg("config", |config| config.required(true)),
    after_help = "\
Example:
  epochgate run -c epochgate.yaml

Next:
  epochgate check -c epochgate.yaml   before: is the file right, is everything reachable?
  epochgate status --watch            after: who leads, what is enforced?"
)]
pub struct RunArgs {
    #[command(flatten)]
    process: ProcessArgs,
}

/// Runs until the process is told to stop.
pub fn run(args: RunArgs) -> Exit {
    start::until_stopped(&args.process.overrides(), None)
}
