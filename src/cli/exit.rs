//! How a command ends: the exit codes, all of them.

use std::process::ExitCode;

/// What a command's exit code says. Scripts rely on the numbers; they follow `sysexits.h` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; also a process that was asked to stop and stopped in order.
    Ok = 0,
    /// A check failed, or a story did not go as told.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Something cannot be reached, or an address, a state directory or a writer id is taken.
    Unreachable = 69,
    /// A bug in epochgate.
    Bug = 70,
    /// Leadership was lost, or not had in time.
    Leadership = 75,
    /// The configuration is bad.
    Config = 78,
}

impl Exit {
    /// All of them, for the reference.
    pub const ALL: [Exit; 7] =
        [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Bug, Exit::Leadership, Exit::Config];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
