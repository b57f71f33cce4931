//! The command line: one file a command. Each builds a configuration or asks a running process, and prints.
//!
//! | file | what it is for |
//! |---|---|
//! | [`options`] | flags that several commands share |
//! | [`start`] | the one place where a process is started |
//! | [`run`], [`guard`], [`stamp`] | a process, from a file or from flags |
//! | [`status`], [`step_down`], [`gate`], [`doors`], [`rebase`] | ask a running process, or have it do something |
//! | [`fence`] | ends every leadership, and proves that nothing old can land |
//! | [`check`] | the configuration, then the world |
//! | [`cert`] | certificates for a first set-up of mTLS |
//! | [`verify`] | recorded histories, against the rules |
//! | [`sql`] | the SQL of the in-target level |
//! | [`inject`] | the sidecar, added to Kubernetes manifests |
//! | [`demo`], [`schema`], [`completions`], [`version`] | the rest |
//! | [`exit`] | every exit code |
//! | [`later`] | commands that are planned: refused by name |
//! | [`client`], [`operate`] | how a running process is talked to |
//! | [`paint`], [`table`], [`complain`] | how things look |
//!
//! Nothing here is started twice or retried: a command does one thing and says how it went.

mod cert;
mod check;
pub mod client;
mod complain;
mod completions;
mod demo;
mod doors;
pub mod exit;
mod fence;
mod gate;
mod guard;
mod inject;
mod later;
mod operate;
mod options;
pub mod paint;
mod rebase;
#[cfg(test)]
mod reference;
mod run;
mod schema;
mod sql;
mod stamp;
mod start;
mod status;
mod step_down;
mod table;
mod verify;
mod version;

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::guard::ungated;
pub use exit::Exit;

/// A fencing sidecar proxy: after a failover, no write of an old leader is applied after a write of a new one
///
/// A lock tells a process that it was the leader. epochgate makes the database check: beside each writer a stamping
/// sidecar puts the epoch of its leadership on every write; before the target a guard refuses what is of an epoch that
/// is over. Neither the service nor the database is changed.
#[derive(Debug, Parser)]
#[command(
    name = "epochgate",
    version = version::text(),
    arg_required_else_help = true,
    subcommand_required = true,
    propagate_version = false,
    after_help = "\
Begin with:
  epochgate demo             the whole story in ten seconds, in one process; needs nothing
  epochgate demo --unsafe    the same without the guard: why it is needed

Every flag that has a key in the configuration has a variable too: EPOCHGATE_ and the flag in capitals.
A flag wins over its variable, a variable over the file, the file over the default.
Exit codes: 0 ok, 1 a check failed, 2 usage, 69 unreachable or taken, 70 a bug, 75 leadership, 78 configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Guard(guard::GuardArgs),
    Stamp(stamp::StampArgs),
    Status(status::StatusArgs),
    StepDown(step_down::StepDownArgs),
    Fence(Box<fence::FenceArgs>),
    Gate(gate::GateArgs),
    Doors(doors::DoorsArgs),
    Rebase(rebase::RebaseArgs),
    Check(Box<check::CheckArgs>),
    Cert(cert::CertArgs),
    Verify(verify::VerifyArgs),
    Schema(schema::SchemaArgs),
    Sql(sql::SqlArgs),
    Inject(inject::InjectArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
}

/// Does what the arguments say, the program's name first, and says how the process is to end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    if let Some(objection) = ungated::objection() {
        complain::error(&objection);
        return Exit::Config;
    }
    match cli.command {
        Command::Run(args) => run::run(args),
        Command::Guard(args) => guard::run(args),
        Command::Stamp(args) => stamp::run(args),
        Command::Status(args) => status::run(&args),
        Command::StepDown(args) => step_down::run(&args),
        Command::Fence(args) => fence::run(*args),
        Command::Gate(args) => gate::run(args),
        Command::Doors(args) => doors::run(args),
        Command::Rebase(args) => rebase::run(&args),
        Command::Check(args) => check::run(*args),
        Command::Cert(args) => cert::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Schema(args) => schema::run(args),
        Command::Sql(args) => sql::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Completions(args) => completions::run(args),
    }
}

/// Help and version are no errors; a command that is planned is refused by name.
fn refuse(error: &clap::Error) -> Exit {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(said) = later::said_of(error)
    {
        complain::error(&said);
        return Exit::Usage;
    }
    // Nowhere to say it: the exit code must do.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// Writes to standard output. A reader that has gone away has read enough.
fn print(text: &str) -> Exit {
    put_out(text).err().unwrap_or(Exit::Ok)
}

/// The same for a command with more to say: an error is the code to end with, for nobody reads on.
fn put_out(text: &str) -> Result<(), Exit> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Exit::Ok;
        }
        complain::error(&format!("cannot write to standard output: {error}"));
        Exit::Failed
    })
}

/// Runs a command's questions on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a current-thread runtime needs nothing but an epoll descriptor")
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn ends(arguments: &[&str]) -> Exit {
        main(std::iter::once("epochgate").chain(arguments.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_usage_and_help_is_not() {
        assert_eq!(ends(&[]), Exit::Usage);
        assert_eq!(ends(&["nonsense"]), Exit::Usage);
        assert_eq!(ends(&["run"]), Exit::Usage, "without a file");
        assert_eq!(ends(&["guard", "--listen", ":1"]), Exit::Usage);
        assert_eq!(ends(&["gate", "open", "--resource", "orders"]), Exit::Usage, "without accepting the reordering");
        assert_eq!(ends(&["--help"]), Exit::Ok);
        assert_eq!(ends(&["--version"]), Exit::Ok);
        assert_eq!(ends(&["help", "status"]), Exit::Ok);
        for name in later::names() {
            assert_eq!(ends(&[name]), Exit::Usage);
            assert_eq!(ends(&[name, "--flag", "-x"]), Exit::Usage);
            assert!(Cli::command().find_subcommand(name).is_none(), "{name} works, and is still listed as planned");
        }
    }

    #[test]
    fn every_command_teaches_by_an_example() {
        let mut command = Cli::command();
        command.build();
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = command.get_name();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Example") && after.contains("epochgate "), "{name} shows no example");
            assert!(command.get_about().is_some(), "{name} does not say what it does");
        }
    }
}
