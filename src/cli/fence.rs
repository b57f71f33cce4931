//! `epochgate fence`: a term without a writer, and the proof that nothing older can land.

mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;
use super::options::Output;
use super::paint::plain;
use super::{block_on, complain, put_out, start};
use crate::clock::{HostClock, HostEntropy};
use crate::config::units;
use crate::config::{Config, Overrides, Single};
use crate::coordinator::agreement::{Patience, Proof};
use crate::coordinator::doors::Sightings;
use crate::coordinator::election::{Tools, resign};
use crate::coordinator::fencing::{Fence, FenceError, Progress, fence, look, on_record, release};
use crate::coordinator::store::{Store, StoreError};
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Resource, WriterId};
use words::{Said, Unproved, say, say_elected};

/// How often the doors are asked while they drain.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ends every leadership of a resource, and proves that nothing old can land any more
///
/// For orchestrators: say it before a promotion. It elects a term that has no writer, above every other, in the place of
/// whoever leads. A guard refuses the old leader's writes once it has heard of that term; one that is cut off from the
/// coordinator has not heard of it. So promote only after --wait: it returns once every guard has proved that no older
/// write can take effect any more (exit 0), and says so if that cannot be proved (exit 1). The term is held for a while,
/// proved or not, so that nobody is elected before you are ready; --release gives it up.
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
    let config = match crate::config::load_from(&overrides, Some(Single::NoListener)) {
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
    if let Some(hopeless) = hopeless(args, store.as_ref()).await? {
        return Ok(told(args, &hopeless));
    }
    let tools = Tools { store: Arc::clone(&store), clock, entropy, mechanisms: Mechanisms::all() };
    // While it waits it renews a lease of the usual length; the hold begins when it is done.
    let ttl = if args.release { config.coordinator.lease_ttl } else { args.ttl };
    let held = fence(&tools, &args.resource, &args.holder, ttl).await?;
    say_elected(&args.resource, &held);
    if !args.wait {
        return Ok(told(args, &Said::Elected(&held)));
    }
    let patience = Patience { lapsed: config.lapsed, mechanisms: Mechanisms::all() };
    let mut progress = None;
    let waited = tokio::select! {
        waited = wait(args, store.as_ref(), &held, patience, &mut progress) => waited,
        () = told_to_stop() => Ok(Err(Unproved::Interrupted)),
    };
    let ended = match waited {
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
    Ok(told(args, &Said::Waited(&held, progress.as_ref(), ended)))
}

/// Whether there will be no proof whatever is elected: then nobody loses the leadership for it.
async fn hopeless(args: &FenceArgs, store: &dyn Store) -> Result<Option<Said<'static>>, FenceError> {
    let before = on_record(store, &args.resource).await?;
    if !before.is_known {
        return Ok(Some(Said::Refused(Unproved::UnknownResource, before)));
    }
    let audits = args.wait && before.doors.iter().any(|door| !door.enforces);
    Ok(audits.then_some(Said::Refused(Unproved::AuditDoor, before)))
}

/// SIGTERM or Ctrl-C: the term stays elected all the same, which has to be said.
async fn told_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Then a signal ends it as the system does.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn over(error: StoreError, held: &Fence) -> FenceError {
    match error {
        StoreError::LeaseGone => FenceError::Over(held.term.epoch),
        error => FenceError::Store(error),
    }
}

/// Until it is proved, can't be, or the time is over. Rides out a coordinator that is away for less than the lease.
/// `seen` is what was last seen of the doors.
async fn wait(
    args: &FenceArgs,
    store: &dyn Store,
    held: &Fence,
    patience: Patience,
    seen: &mut Option<Progress>,
) -> Result<Result<(), Unproved>, FenceError> {
    let began = Instant::now();
    let (mut renewed, mut said) = (Instant::now(), String::new());
    let mut sightings = Sightings::default();
    loop {
        let looked = look(store, &args.resource, &held.term, (&mut sightings, patience), &HostClock).await;
        let now = match looked {
            Ok((progress, _)) => {
                if let Some(ended) = ended(&progress) {
                    *seen = Some(progress);
                    return Ok(ended);
                }
                let now = format!("waiting for {}", words::waits_for(&progress, held.term.epoch));
                *seen = Some(progress);
                now
            }
            Err(FenceError::Store(StoreError::Unreachable(why))) if renewed.elapsed() < held.lease.ttl => plain(&why),
            Err(error) => return Err(error),
        };
        if args.timeout.is_some_and(|limit| began.elapsed() >= limit) {
            return Ok(Err(Unproved::Timeout));
        }
        if now != said {
            words::eprint_line(&format!("  {now}"));
            said = now;
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

/// Whether looking again is of no use: it is proved, or will not be.
fn ended(progress: &Progress) -> Option<Result<(), Unproved>> {
    match &progress.proof {
        _ if progress.is_proved() => Some(Ok(())),
        Proof::Forced => Some(Err(Unproved::Forced)),
        Proof::Drained => Some(Err(Unproved::AuditDoor)),
        Proof::Missing(_) => None,
    }
}

/// The result on standard output, and the exit code.
fn told(args: &FenceArgs, said: &Said<'_>) -> Exit {
    match put_out(&say(args, said)) {
        Err(exit) => exit,
        Ok(()) if said.is_success() => Exit::Ok,
        Ok(()) => Exit::Failed,
    }
}

fn failed(resource: &Resource, error: &FenceError) -> Exit {
    match error {
        FenceError::Store(StoreError::Unusable(_)) => complain::error(error),
        FenceError::Store(_) => complain::error_with_help(
            error,
            &"is the coordinator there, and does it answer (epochgate check)? A term may have been elected all the same, \
              and may be held until its lease runs out: say it again",
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
