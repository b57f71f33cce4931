//! Arguments in, exit code out.

use std::panic;
use std::process::ExitCode;

use epochgate::cli::{self, Exit};

fn main() -> ExitCode {
    // A panic was reported where it happened; what is left is to end with the code that says so.
    panic::catch_unwind(|| cli::main(std::env::args_os())).unwrap_or(Exit::Bug).into()
}
