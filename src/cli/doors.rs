//! `epochgate doors`: which guards are on record, and forgetting one that is dead.

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::client::{self, Address, encoded};
use super::exit::Exit;
use super::options::{AdminArgs, Output};
use super::paint::{BAD, GOOD, WARNING, plain};
use super::table::{Cell, Table};
use super::{block_on, complain, operate};

/// Which guards are on record, and the operator's word that one is dead
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  epochgate doors list
  epochgate doors forget guard-1-9f3c2a7b

Next:
  epochgate status   is the guard that was blocked by it open now?")]
pub struct DoorsArgs {
    #[command(subcommand)]
    what: DoorsCommand,
}

#[derive(Debug, Subcommand)]
enum DoorsCommand {
    /// Every guard on record, as the process knows it
    List {
        /// How to print it; json is what the process serves
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Says that a guard is dead: it runs nowhere and forwards nothing
    ///
    /// A sole guard claims its target; another one stays shut until that guard has left. Where it will never leave by
    /// itself, because its host or its state directory is gone, you say so here. Its record is marked as left, and the
    /// time in which its last writes may still land is waited out. If it does still run, old writes may land after new
    /// ones. It goes to the audit log, and is taken on loopback or the unix socket only.
    Forget(ForgetArgs),
}

#[derive(Args, Debug)]
struct ForgetArgs {
    /// The door's id, from `epochgate doors list`
    #[arg(value_name = "ID")]
    id: String,

    /// Its target [default: the one that the record names]
    #[arg(long, env = "EPOCHGATE_TARGET", value_name = "TARGET")]
    target: Option<String>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// What a process says of the doors; what another version leaves out is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Doors {
    doors: Vec<Door>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Door {
    id: String,
    target: String,
    kind: Option<String>,
    mode: Option<String>,
    alive: Option<bool>,
    address: Option<String>,
    left: bool,
    resources: Vec<String>,
}

/// Asks the process.
pub fn run(args: DoorsArgs) -> Exit {
    match args.what {
        DoorsCommand::List { output, admin } => match ask(&admin.admin) {
            Ok((text, _)) if output == Output::Json => super::print(&format!("{}\n", text.trim_end())),
            Ok((_, doors)) => super::print(&table(&doors)),
            Err(exit) => exit,
        },
        DoorsCommand::Forget(args) => forget(&args),
    }
}

fn forget(args: &ForgetArgs) -> Exit {
    let admin = &args.admin.admin;
    let target = match &args.target {
        Some(target) => target.clone(),
        None => match ask(admin).and_then(|(_, doors)| target_of(&args.id, &doors)) {
            Ok(target) => target,
            Err(exit) => return exit,
        },
    };
    let path = format!("/api/v1/doors/forget?target={}&id={}", encoded(&target), encoded(&args.id));
    let done = format!("{}: marked as left. Look at what was blocked by it: `epochgate status`", args.id);
    operate::post(admin, &path, &done, Exit::Failed)
}

/// What the process served, as text and read.
fn ask(admin: &Address) -> Result<(String, Doors), Exit> {
    let answer = block_on(client::get(admin, "/api/v1/doors")).map_err(|error| operate::unreachable(&error))?;
    let read = serde_json::from_slice(&answer.body);
    match read {
        Ok(doors) if answer.status.is_success() => Ok((answer.text(), doors)),
        _ => Err(operate::no_answer_to_look_at(admin, &answer)),
    }
}

/// The one target that a door of this id stands before.
fn target_of(id: &str, doors: &Doors) -> Result<String, Exit> {
    let targets: Vec<&str> = doors.doors.iter().filter(|door| door.id == id).map(|door| &*door.target).collect();
    match targets.as_slice() {
        [target] => Ok((*target).to_owned()),
        [] => {
            complain::error_with_help(
                &format!("no door {id} is on record, as far as this process knows"),
                &"see which are with `epochgate doors list`; it may be another process' business (--admin)",
            );
            Err(Exit::Failed)
        }
        several => {
            let several = plain(&several.join(", "));
            complain::error_with_help(
                &format!("door {id} is on record for several targets: {several}"),
                &"say which with --target",
            );
            Err(Exit::Usage)
        }
    }
}

fn table(doors: &Doors) -> String {
    let mut table = Table::new(&["DOOR", "TARGET", "KIND", "MODE", "ALIVE", "ADDRESS", "RESOURCES"]);
    for door in &doors.doors {
        table.row(vec![
            Cell::new(&door.id),
            Cell::new(&door.target),
            Cell::maybe(door.kind.as_ref()),
            Cell::maybe(door.mode.as_ref()),
            alive(door.left, door.alive),
            Cell::maybe(door.address.as_ref()),
            Cell::new(resources(&door.resources)),
        ]);
    }
    if table.is_empty() { "No guard is on record.\n".into() } else { table.to_string() }
}

/// Whether a door lives, as a cell.
pub fn alive(left: bool, alive: Option<bool>) -> Cell {
    match (left, alive) {
        (true, _) => Cell::new("left").styled(WARNING),
        (false, Some(true)) => Cell::new("yes").styled(GOOD),
        (false, Some(false)) => Cell::new("no").styled(BAD),
        (false, None) => Cell::new("-"),
    }
}

/// The first few, and how many there are besides.
fn resources(names: &[String]) -> String {
    const NAMED: usize = 3;
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors() -> Doors {
        let served = r#"{"doors":[
            {"id":"g-1","target":"orders","kind":"sole","mode":"enforce","alive":false,"left":false,"resources":["a","b","c","d"]},
            {"id":"g-2","target":"orders","alive":true},{"id":"g-2","target":"api","left":true}]}"#;
        serde_json::from_str(served).expect("doors")
    }

    #[test]
    fn doors_are_listed_with_what_is_known() {
        let text = anstream::adapter::strip_str(&table(&doors())).to_string();
        assert!(text.contains("g-1   orders  sole  enforce  no     -        a, b, c and 1 more\n"), "{text}");
        assert!(text.contains("g-2   api     -     -        left   -        -\n"), "{text}");
        assert_eq!(table(&Doors::default()), "No guard is on record.\n");
    }

    #[test]
    fn the_target_is_looked_up_and_never_guessed() {
        assert_eq!(target_of("g-1", &doors()), Ok("orders".into()));
        assert_eq!(target_of("g-2", &doors()), Err(Exit::Usage));
        assert_eq!(target_of("g-3", &doors()), Err(Exit::Failed));
    }
}
