//! `epochgate check`: the configuration, then the world.
//!
//! | file | what it looks at |
//! |---|---|
//! | [`times`] | the inequalities with their numbers, and what the times mean for a failover |
//! | [`levels`] | what each listener promises, and what it does not |
//! | [`coordinator`] | whether the coordinator can be used |
//! | [`privileges`] | whether the user of etcd may do what it needs to, and nothing else |
//! | [`databases`] | whether a guard's control connection can prove anything, and who goes around the guard |
//! | [`secrets`] | whether files with secrets are there, and for their owner alone |
//! | [`state_dir`] | whether the state directory can be used |
//! | [`actions`] | whether the programs of fence actions are there |
//! | [`keys`] | whether the keys of signed stamps can be used |
//! | [`trust`] | certificates and keys |
//! | [`report`] | how findings are put together and printed |

mod actions;
mod coordinator;
mod databases;
mod keys;
mod levels;
mod privileges;
mod report;
mod secrets;
mod state_dir;
mod times;
mod trust;

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::guard::GuardArgs;
use super::options::{Output, ProcessArgs};
use super::stamp::StampArgs;
use super::{block_on, complain, print};
use crate::config::{Loaded, Problem, Single};
use report::{Category, Finding, Report};

/// Looks whether a configuration is right, and whether what it names can be used
///
/// First the file: every mistake in it, with its place and what to do (exit 78). Then the world: what the times mean,
/// what each listener promises, whether the coordinator answers, what the user of etcd may do beside what it needs,
/// who can read files with secrets, whether certificates are fit and for how long, whether the state directory can be used, whether a database lets its guard
/// prove what it must and who goes around the guard, whether the programs of fence actions are there (exit 1 where one of these fails; a warning is no failure). It changes nothing, and may run beside the process.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    mut_arg("config", |config| config.required(true)),
    after_help = "\
Examples:
  epochgate check -c epochgate.yaml
  epochgate check guard --listen :8080 --upstream http://127.0.0.1:9000 --resource orders --etcd http://127.0.0.1:2379

Next:
  epochgate run -c epochgate.yaml   when nothing is marked ×"
)]
pub struct CheckArgs {
    #[command(subcommand)]
    what: Option<CheckCommand>,

    #[command(flatten)]
    process: ProcessArgs,

    /// How to print it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// What `epochgate guard` with these flags would find
    #[command(after_help = "Example: write `check` before `guard` in the command that is to be run.")]
    Guard {
        #[command(flatten)]
        args: Box<GuardArgs>,
        /// How to print it
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// What `epochgate stamp` with these flags would find
    #[command(after_help = "Example: write `check` before `stamp` in the command that is to be run.")]
    Stamp {
        #[command(flatten)]
        args: Box<StampArgs>,
        /// How to print it
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

/// Looks, and prints what it found.
pub fn run(args: CheckArgs) -> Exit {
    let (overrides, single, output) = match args.what {
        None => (args.process.overrides(), None, args.output),
        Some(CheckCommand::Guard { args, output }) => (args.overrides(), Some(Single::Guard), output),
        Some(CheckCommand::Stamp { args, output }) => (args.overrides(), Some(Single::Stamp), output),
    };
    match crate::config::load_from(&overrides, single) {
        Ok(loaded) => {
            let report = look(&loaded);
            let printed = show(&report, output);
            if printed == Exit::Ok && report.has_failed() { Exit::Failed } else { printed }
        }
        Err(problems) => {
            match output {
                Output::Table => complain::problems(&problems),
                Output::Json => {
                    show(&bad_configuration(&problems), output);
                }
            }
            Exit::Config
        }
    }
}

fn show(report: &Report, output: Output) -> Exit {
    match output {
        Output::Table => print(&report.to_text()),
        Output::Json => print(&format!("{}\n", report.to_json())),
    }
}

/// Everything there is to look at, of a configuration that can be run.
fn look(loaded: &Loaded) -> Report {
    let config = &loaded.config;
    let mut report = Report::default();
    report.add(configuration(loaded));
    report.add(times::look(config));
    report.add(levels::look(config));
    report.add(block_on(coordinator::look(config)));
    if let Some(privileges) = block_on(privileges::look(config)) {
        report.add(privileges);
    }
    if let Some(secrets) = secrets::look(config) {
        report.add(secrets);
    }
    report.add(state_dir::look(config));
    if let Some(databases) = block_on(databases::look(config)) {
        report.add(databases);
    }
    for category in [trust::look(config), actions::look(config), keys::look(config)].into_iter().flatten() {
        report.add(category);
    }
    report
}

fn configuration(loaded: &Loaded) -> Category {
    let mut category = Category::new("configuration");
    let (resources, listeners) = (loaded.config.resources.len(), loaded.config.listeners.len());
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    category.add(Finding::good(format!(
        "is right: {}, {}",
        count(listeners, "listener"),
        count(resources, "resource")
    )));
    for warning in &loaded.warnings {
        category.add(Finding::warning(format!("{}: {}", warning.at, warning.what), warning.help.clone()));
    }
    category
}

fn bad_configuration(problems: &[Problem]) -> Report {
    let mut category = Category::new("configuration");
    for problem in problems {
        category.add(Finding::bad(format!("{}: {}", problem.at, problem.what), problem.help.clone()));
    }
    let mut report = Report::default();
    report.add(category);
    report
}
