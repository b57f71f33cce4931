//! `epochgate completions`: what a shell needs to complete commands and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Exit;

/// Prints a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  epochgate completions bash > ~/.local/share/bash-completion/completions/epochgate
  epochgate completions fish > ~/.config/fish/completions/epochgate.fish
  epochgate completions zsh  > a file _epochgate in a folder of $fpath")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints it.
pub fn run(args: CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "epochgate", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
