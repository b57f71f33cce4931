//! `epochgate fence`: a term without a writer, and the proof that nothing older can land.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::exit::Exit;
use super::options::Output;
use super::paint::{self, GOOD, WARNING, plain};
use super::{block_on, complain, put_out, start};
use crate::clock::{HostClock, HostEntropy};
use crate::config::units;
use crate::config::{Config, Overrides, Single};
use crate::coordinator::agreement::{Patience, Proof};
use crate::coordinator::doors::Sightings;
use crate::coordinator::election::{Tools, resign};
use crate::coordinator::fencing::{Fence, FenceError, Progress, fence, look, release};
use crate::coordinator::store::{Store, StoreError};
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Resource, WriterId};

/// How often the doors are asked while they drain.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ends every leadership of a resource, and proves that nothing old can land any more
///
/// For orchestrators: say it before a promotion. It elects a term that has no writer, above every other, in the place of
/// whoever leads: from then on the guards refuse the old leader's writes. With --wait it returns once every guard has
/// proved that no older write can take effect any more (exit 0), and says so if that cannot be proved (exit 1). The
/// term is held for a while, so that nobody is elected before you are ready; --release gives it up.
#[derive(Args, Debug)]
#[command(
    group = start::coordinator(),
    after_help = "\
Examples:
  epochgate fence --resource orders --wait --etcd http://127.0.0.1:2379
  epochgate fence --resource orders --wait --release -c epochgate.yaml   then whoever campaigns may lead
  epochgate fence --resource orders --release --etcd http://127.0.0.1:2379   ends the hold of an earlier fence

Next:
  epochgate status   who leads now, and what the guards enforce"
)]
pub struct FenceArgs {
    /// The resource
    #[arg(long, env = "EPOCHGATE_RESOURCE", value_name = "RESOURCE")]
    resource: Resource,

    /// Wait until every guard has proved that nothing older can land
    #[arg(long)]
    wait: bool,

    /// How long nobody else is elected, from the end of the command on: whole seconds, at least 2s
    #[arg(long, value_name = "DURATION", default_value = "60s", conflicts_with = "release", value_parser = lease)]
    ttl: Duration,

    /// Give the term up at the end; without --wait: end the hold of an earlier fence, and do nothing else
    #[arg(long)]
    release: bool,

    /// Give the proof up after so long (exit 1) [default: never]
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = duration)]
    timeout: Option<Duration>,

    /// Under which name the term is held
    #[arg(long = "as", value_name = "ID", default_value = "fence")]
    holder: WriterId,

    /// Configuration file (YAML), for its coordinator
    #[arg(long, short, env = "EPOCHGATE_CONFIG", value_name = "FILE")]
    config: Option<std::path::PathBuf>,

    /// URL of an etcd member; may be repeated
    #[arg(long, env = "EPOCHGATE_ETCD", value_name = "URL", value_delimiter = ',', conflicts_with = "embedded")]
    etcd: Vec<String>,

    /// Path of an embedded coordinator of this host
    #[arg(long, env = "EPOCHGATE_EMBEDDED", value_name = "PATH")]
    embedded: Option<String>,

    /// Every key in the coordinator begins with this [default: /epochgate/v1/]
    #[arg(long, env = "EPOCHGATE_PREFIX", value_name = "PREFIX")]
    prefix: Option<String>,

    /// How to print the proof
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|unfit| unfit.to_string())
}

fn lease(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    let whole = ttl.subsec_nanos() == 0 && ttl >= Duration::from_secs(2);
    if whole { Ok(ttl) } else { Err("a lease is a whole number of seconds, at least 2s".to_owned()) }
}

/// Fences.
pub fn run(args: FenceArgs) -> Exit {
    let overrides = Overrides {
        config: args.config.clone(),
        etcd: args.etcd.clone(),
        embedded: args.embedded.clone(),
        prefix: args.prefix.clone(),
        resource: vec![args.resource.to_string()],
        ..Overrides::default()
    };
    let config = match start::load(&overrides, Some(Single::NoListener)) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            complain::problems(&problems);
            return Exit::Config;
        }
    };
    block_on(async {
        match carry_out(&args, &config).await {
            Ok(exit) => exit,
            Err(error) => failed(&args.resource, &error),
        }
    })
}

async fn carry_out(args: &FenceArgs, config: &Config) -> Result<Exit, FenceError> {
    let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
    let store = crate::run::open_store(config, clock.clone(), entropy.clone())?;
    if args.release && !args.wait {
        let ended = release(store.as_ref(), &args.resource, &args.holder).await?;
        let what = if ended { "the hold is over" } else { "no hold of that name: nothing was done" };
        return Ok(super::print(&format!("{}: {what}\n", args.resource)));
    }
    let tools = Tools { store: Arc::clone(&store), clock, entropy, mechanisms: Mechanisms::all() };
    // While it waits it renews a lease of the usual length; the hold begins when it is done.
    let ttl = if args.release { config.coordinator.lease_ttl } else { args.ttl };
    let held = fence(&tools, &args.resource, &args.holder, ttl).await?;
    say_fenced(&args.resource, &held);
    if !args.wait {
        return Ok(told(args, &held, None));
    }
    let patience = Patience { lapsed: config.lapsed, mechanisms: Mechanisms::all() };
    let progress = match wait(args, store.as_ref(), &held, patience).await {
        Err(error @ FenceError::Over(_)) => {
            // Nobody is to wait for a term that comes to nothing. Where that fails, its lease ends.
            let _ = resign(store.as_ref(), &args.resource, &held.term).await;
            return Err(error);
        }
        waited => waited?,
    };
    if args.release {
        resign(store.as_ref(), &args.resource, &held.term).await?;
    } else {
        store.keep_alive(held.lease.id).await.map_err(|error| over(error, &held))?;
    }
    Ok(told(args, &held, Some(&progress)))
}

fn over(error: StoreError, held: &Fence) -> FenceError {
    match error {
        StoreError::LeaseGone => FenceError::Over(held.term.epoch),
        error => FenceError::Store(error),
    }
}

/// Until it is proved, can't be, or the time is over. Rides out a coordinator that is away for less than the lease.
async fn wait(args: &FenceArgs, store: &dyn Store, held: &Fence, patience: Patience) -> Result<Progress, FenceError> {
    let began = Instant::now();
    let (mut renewed, mut said) = (Instant::now(), String::new());
    let mut sightings = Sightings::default();
    loop {
        let looked = look(store, &args.resource, &held.term, (&mut sightings, patience), &HostClock).await;
        match looked {
            Ok((progress, _)) => {
                let late = args.timeout.is_some_and(|limit| began.elapsed() >= limit);
                let cannot = progress.proof != Proof::Drained || progress.is_proved();
                let forced = progress.proof == Proof::Forced;
                if progress.is_proved() || forced || late || (!cannot && progress.audits().next().is_some()) {
                    return Ok(progress);
                }
                let now = waits_for(&progress);
                if now != said {
                    eprint_line(&format!("  waiting for {now}"));
                    said = now;
                }
            }
            Err(FenceError::Store(StoreError::Unreachable(why))) if renewed.elapsed() < held.lease.ttl => {
                if said != why {
                    eprint_line(&format!("  {}", plain(&why)));
                    said = why;
                }
            }
            Err(error) => return Err(error),
        }
        if renewed.elapsed() >= held.lease.ttl / 3 {
            match store.keep_alive(held.lease.id).await {
                Ok(_) => renewed = Instant::now(),
                Err(StoreError::Unreachable(_)) => {}
                Err(error) => return Err(over(error, held)),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn waits_for(progress: &Progress) -> String {
    match &progress.proof {
        Proof::Missing(doors) if !doors.is_empty() => {
            doors.iter().map(|door| format!("{} before {}", door.id, door.target)).collect::<Vec<_>>().join(", ")
        }
        Proof::Missing(_) => "a guard of the resource that is alive".to_owned(),
        Proof::Forced | Proof::Drained => "nothing".to_owned(),
    }
}

fn say_fenced(resource: &Resource, held: &Fence) {
    let before = match &held.deposed {
        Some(leader) => format!("{} led at epoch {}", leader.term.writer, leader.term.epoch),
        None => "nobody led".to_owned(),
    };
    let epoch = paint::styled(paint::epoch(held.term.epoch.number()), held.term.epoch);
    eprint_line(&format!("{resource}: fenced at epoch {epoch} ({before})"));
}

fn eprint_line(line: &str) {
    use std::io::Write as _;
    // Whoever does not read it has the exit code.
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// The result on standard output, and the exit code.
fn told(args: &FenceArgs, held: &Fence, progress: Option<&Progress>) -> Exit {
    let proved = progress.map(Progress::is_proved);
    let text = match args.output {
        Output::Json => format!("{}\n", as_json(args, held, progress)),
        Output::Table => in_words(args, held, progress),
    };
    match put_out(&text) {
        Err(exit) => exit,
        Ok(()) if proved == Some(false) => Exit::Failed,
        Ok(()) => Exit::Ok,
    }
}

fn in_words(args: &FenceArgs, held: &Fence, progress: Option<&Progress>) -> String {
    let epoch = held.term.epoch;
    let Some(progress) = progress else {
        return format!(
            "fenced: nothing below epoch {epoch} is admitted; --wait proves that nothing older is on its way\n"
        );
    };
    if progress.is_proved() {
        let hold = match args.release {
            true => "whoever campaigns may be elected now".to_owned(),
            false => format!("nobody else is elected for {} s", held.lease.ttl.as_secs()),
        };
        return format!("{} nothing below epoch {epoch} can land any more; {hold}\n", paint::styled(GOOD, "proved:"));
    }
    let audits: Vec<&str> = progress.audits().map(|door| door.name.id.as_str()).collect();
    let why = match (&progress.proof, audits.as_slice()) {
        (Proof::Forced, _) => "a guard was opened by force, which proves nothing".to_owned(),
        (Proof::Missing(_), _) => format!("no word yet from {}", waits_for(progress)),
        (Proof::Drained, audits) => {
            format!("{} only counts (mode: audit), and lets everything through", audits.join(", "))
        }
    };
    format!("{} {why}\n", paint::styled(WARNING, "not proved:"))
}

fn as_json(args: &FenceArgs, held: &Fence, progress: Option<&Progress>) -> Value {
    let deposed = held.deposed.as_ref().map(|leader| json!({ "id": leader.term.writer, "epoch": leader.term.epoch }));
    let doors = progress.map(|progress| {
        let door = |door: &crate::coordinator::fencing::DoorProgress| {
            json!({ "id": door.name.id, "target": door.name.target, "mode": if door.enforces { "enforce" } else { "audit" },
                    "alive": door.alive, "floor": door.floor, "drained": door.drained })
        };
        progress.doors.iter().map(door).collect::<Vec<_>>()
    });
    let mut said = json!({
        "resource": args.resource, "epoch": held.term.epoch, "nonce": held.term.nonce,
        "held_s": if args.release { 0 } else { held.lease.ttl.as_secs() },
    });
    for (key, value) in [
        ("deposed", deposed),
        ("proved", progress.map(|progress| json!(progress.is_proved()))),
        ("doors", doors.map(Value::from)),
    ] {
        if let Some(value) = value {
            said[key] = value;
        }
    }
    said
}

fn failed(resource: &Resource, error: &FenceError) -> Exit {
    match error {
        FenceError::Store(StoreError::Unusable(_)) => complain::error(error),
        FenceError::Store(_) => complain::error_with_help(
            error,
            &"is the coordinator there, and does it answer (epochgate check)? A term may have been elected all the same: \
              say it again",
        ),
        FenceError::Unbelievable { floor, .. } => complain::error_with_help(
            error,
            &format!("if that floor is real: epochgate rebase --resource {resource} --to {floor}"),
        ),
        FenceError::Over(_) => complain::error_with_help(error, &"say it again, if it is still needed"),
        FenceError::Exhausted => complain::error(error),
    }
    match error {
        FenceError::Store(_) => Exit::Unreachable,
        FenceError::Over(_) => Exit::Leadership,
        FenceError::Unbelievable { .. } | FenceError::Exhausted => Exit::Failed,
    }
}
