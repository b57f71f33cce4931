//! `epochgate demo`: the whole story in ten seconds.

use clap::Args;

use super::complain;
use super::exit::Exit;
use crate::demo::{self, CannotBegin, Ending, Story, Where};

/// Shows the whole story in ten seconds, in one process
///
/// Two writers, a guard, and a server that knows nothing of them: a leader is stopped, another is elected, the first
/// wakes up and writes on. Ends with what the server applied, and how much of it was stale. Needs nothing: epochs live
/// in a temporary folder, or in your etcd, under a prefix of its own that is deleted at the end.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  epochgate demo
  epochgate demo --unsafe
  epochgate demo --etcd http://127.0.0.1:2379

Next:
  epochgate guard --help   put it before a server of your own")]
pub struct DemoArgs {
    /// Uses this etcd instead of the embedded coordinator; may be repeated
    #[arg(long, env = "EPOCHGATE_ETCD", value_name = "URL", value_delimiter = ',')]
    etcd: Vec<String>,

    /// Tells it with the writers going around the guard: why it is needed
    #[arg(long = "unsafe")]
    around: bool,
}

/// Tells it.
pub fn run(args: DemoArgs) -> Exit {
    let story = if args.around { Story::Unsafe } else { Story::Safe };
    let place = if args.etcd.is_empty() { Where::Embedded } else { Where::Etcd(args.etcd) };
    match demo::tell(story, place, &mut anstream::stdout()) {
        Ok(Ending::AsTold) => Exit::Ok,
        Ok(Ending::Otherwise) => Exit::Failed,
        Ok(Ending::NotBegun(CannotBegin::Config(problems))) => {
            complain::problems(&problems);
            Exit::Config
        }
        Ok(Ending::NotBegun(CannotBegin::Host(error))) => {
            complain::error(&error);
            Exit::Failed
        }
        Ok(Ending::NotBegun(error @ CannotBegin::Store(_))) => {
            complain::error_with_help(
                &error,
                &"without --etcd the demo needs nothing: epochs are in a temporary folder",
            );
            Exit::Unreachable
        }
        // A reader that has gone away is told nothing more, and the story was not told.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Failed,
        Err(error) => {
            complain::error(&format!("cannot write to standard output: {error}"));
            Exit::Failed
        }
    }
}
