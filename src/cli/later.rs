//! Commands that are planned. They are refused by name, and stay out of the help until they work.

use clap::error::{ContextKind, ContextValue};

const LATER: &[(&str, &str)] = &[
    ("elect", "a command that runs only while it leads"),
    ("history", "past terms and refusals"),
    ("drill", "a failover on purpose, timed"),
    ("man", "the manual page"),
];

/// Their names.
#[cfg(test)]
pub fn names() -> impl Iterator<Item = &'static str> {
    LATER.iter().map(|(name, _)| *name)
}

/// What to say of an unknown command that is one of them.
pub fn said_of(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let (name, what) = LATER.iter().find(|(name, _)| name == typed)?;
    Some(format!("`epochgate {name}` ({what}) is not in this version; `epochgate --help` lists what is"))
}
