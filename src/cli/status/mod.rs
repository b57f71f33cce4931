//! `epochgate status`: what a process knows and enforces.

mod render;
mod view;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;

use super::client::{self, Address, Answer, ClientError};
use super::exit::Exit;
use super::options::{AdminArgs, Output};
use super::paint::plain;
use super::{block_on, operate};
use view::Status;

/// Between two pictures of `--watch`.
const REDRAW: Duration = Duration::from_secs(1);

/// Resources, leaders, epochs, guards, what a handoff waits for, and what was refused
///
/// Asks one running process, a guard or a stamp: each knows the leader, a guard also what it enforces.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  epochgate status
  epochgate status --watch
  epochgate status --admin 10.0.0.7:9464 -o json | jq '.resources[].epoch'

Next: the last line of the answer names the command that fits what it shows.")]
pub struct StatusArgs {
    /// Draw it again each second, until Ctrl-C
    #[arg(long, short)]
    watch: bool,

    /// How to print it; json is what the process serves
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks, and prints.
pub fn run(args: &StatusArgs) -> Exit {
    let admin = &args.admin.admin;
    block_on(async {
        if !args.watch {
            return finish(admin, picture(admin, args.output).await);
        }
        // The first question decides whether there is anything to watch; later ones may fail and succeed again.
        let mut drawn = picture(admin, args.output).await;
        if drawn.is_err() {
            return finish(admin, drawn);
        }
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            let shown = match &drawn {
                Ok(text) => draw(text, args.output),
                Err(trouble) => draw(&format!("{}\n", trouble.text()), args.output),
            };
            if let Err(exit) = shown {
                return exit;
            }
            let next = async {
                tokio::time::sleep(REDRAW).await;
                picture(admin, args.output).await
            };
            tokio::select! {
                _ = &mut interrupted => return Exit::Ok,
                picture = next => drawn = picture,
            }
        }
    })
}

/// Why there is no picture.
enum Trouble {
    Client(ClientError),
    /// An answer, and not a status.
    Answer(Answer),
}

impl Trouble {
    fn text(&self) -> String {
        match self {
            Trouble::Client(error) => error.to_string(),
            Trouble::Answer(answer) => plain(&operate::said(answer)),
        }
    }
}

fn finish(admin: &Address, drawn: Result<String, Trouble>) -> Exit {
    match drawn {
        Ok(text) => super::print(&text),
        Err(Trouble::Client(error)) => operate::unreachable(&error),
        Err(Trouble::Answer(answer)) => operate::no_answer_to_look_at(admin, &answer),
    }
}

async fn picture(admin: &Address, output: Output) -> Result<String, Trouble> {
    let answer = client::get(admin, "/api/v1/status").await.map_err(Trouble::Client)?;
    let read: Option<Status> = serde_json::from_slice(&answer.body).ok();
    match read.filter(|_| answer.status.is_success()) {
        None => Err(Trouble::Answer(answer)),
        Some(_) if output == Output::Json => Ok(format!("{}\n", answer.text().trim_end())),
        Some(status) => Ok(render::status(&status, admin, jiff::Timestamp::now())),
    }
}

/// One picture of a series: in place of the one before on a terminal, behind it elsewhere. An error ends the series.
fn draw(text: &str, output: Output) -> Result<(), Exit> {
    if output == Output::Table && std::io::stdout().is_terminal() {
        // Straight to the terminal: `anstream` takes these out where NO_COLOR is set, and they are no colour.
        let mut out = std::io::stdout().lock();
        if out.write_all(b"\x1b[H\x1b[2J").and_then(|()| out.flush()).is_err() {
            return Err(Exit::Ok);
        }
    }
    super::put_out(text)
}
