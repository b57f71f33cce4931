//! `epochgate demo`: why a lock is not enough, and what epochgate does about it, in one process and ten seconds.
//!
//! | file | what it is |
//! |---|---|
//! | [`story`] | the beats, with the guard and without it |
//! | [`stage`] | the parts under the story: a real guard and real sidecars on a real coordinator |
//! | [`target`], [`shop`] | what epochgate stands between: a server that keeps a file, and two services that write it |
//! | [`pause`] | stopping a writer |
//! | [`log`] | what was applied, and how much of it was stale |
//! | [`narrate`], [`serve`] | how it is told, and a small HTTP server |

mod log;
mod narrate;
mod pause;
mod serve;
mod shop;
mod stage;
mod story;
mod target;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

pub use stage::{CannotBegin, Where};

use log::count_stale;
use narrate::Narrator;
use story::{Failure, Stage};
use target::Target;

/// Which story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// With the guard.
    Safe,
    /// Around the guard.
    Unsafe,
}

/// How a story ended.
#[derive(Debug)]
pub enum Ending {
    /// As told.
    AsTold,
    /// Otherwise, and it was said how.
    Otherwise,
    /// It did not begin.
    NotBegun(CannotBegin),
}

/// Tells a story. Blocks for about ten seconds; Ctrl-C ends it early. What it made, files and keys in a coordinator, is
/// gone afterwards.
///
/// # Errors
/// Where `out` takes no more.
pub fn tell(story: Story, place: Where, out: &mut dyn Write) -> io::Result<Ending> {
    let mut stage = match stage::Real::new(place.clone()) {
        Ok(stage) => stage,
        Err(error) => return Ok(Ending::NotBegun(error)),
    };
    let opening = match place {
        Where::Embedded => "epochgate demo, on the embedded coordinator, all in this process".to_owned(),
        Where::Etcd(urls) => format!("epochgate demo, on etcd at {}, the rest in this process", urls.join(", ")),
    };
    let told = writeln!(out, "{opening}").and_then(|()| play(story, &mut stage, out));
    if let Err(error) = stage.clear() {
        writeln!(io::stderr(), "what the demo made is not all gone: {error}").ok();
    }
    Ok(if told? { Ending::AsTold } else { Ending::Otherwise })
}

/// Plays a story on a stage, and counts what was stale in the target's log.
fn play(story: Story, stage: &mut impl Stage, out: &mut dyn Write) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut tell = Narrator::new(out);
        let target = Target::start().await?;
        let telling = async {
            match story {
                Story::Safe => story::safe(stage, &target, &mut tell).await,
                Story::Unsafe => story::unsafe_story(stage, &target, &mut tell).await,
            }
        };
        let told = tokio::select! {
            told = telling => told,
            _ = tokio::signal::ctrl_c() => Err(Failure::Otherwise("it was interrupted".into())),
        };
        let applied = target.log();
        let stale = count_stale(&applied);
        tell.log(&applied)?;
        let went = match (&told, story) {
            (Err(Failure::Out(_)), _) => return told.map(|()| false).or_else(ended_by_output),
            (Err(failure), _) => {
                tell.line(&narrate::bad(&format!("The story did not go as told: {failure}")))?;
                false
            }
            (Ok(()), Story::Safe) => stale == 0,
            (Ok(()), Story::Unsafe) => {
                tell.line("Asking whether one leads and then writing are two steps; a pause fits between them, and no lock helps.")?;
                tell.line("Only the side that applies the write can refuse it: `epochgate demo` shows the same with the guard.\n")?;
                stale > 0
            }
        };
        tell.line(&format!("stale writes applied: {stale}"))?;
        Ok(went)
    })
}

fn ended_by_output(failure: Failure) -> io::Result<bool> {
    match failure {
        Failure::Out(error) => Err(error),
        other => Err(io::Error::other(other)),
    }
}
