//! `epochgate inject`: the sidecar, added to Kubernetes manifests.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::paint::{FAINT, GOOD, HEADING, WARNING, plain, styled};
use super::{complain, print};
use crate::inject::{self, Input, Outcome, Said, Settings};

/// Adds the sidecar to Kubernetes manifests: YAML or JSON in, the same with the sidecar out
///
/// For Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Pod, and List of them; everything else passes through.
/// It asks no cluster. What it does not add stays as it was to the byte, comments too, and what has a container `epochgate`
/// is left alone, so that it may run any number of times. What became of each workload, and why, goes to standard error.
///
/// The sidecar is a native one (Kubernetes 1.29 and later) and stands first, so that other init containers, migrations say,
/// write through it too. It takes its configuration from the key `epochgate.yaml` of a ConfigMap.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  epochgate inject -f deploy.yaml --role stamp --config-map orders-stamp | kubectl apply -f -
  kubectl get deploy orders -o yaml | epochgate inject -f - --role stamp --config-map orders-stamp | kubectl apply -f -
  epochgate inject -f db.yaml --role guard --config-map orders-guard --state-claim orders-guard \\
    --port guard=5432 --secret etcd-tls=etcd-client > db-guarded.yaml

A workload with `epochgate.dev/inject: disabled` among its labels or annotations is skipped.
Exit codes: 0 also where nothing was added, 2 a file cannot be read, 78 a manifest makes no sense, or --strict and a workload was
skipped. Unless 0, there is no output.")]
pub struct InjectArgs {
    /// A file of manifests, or - for standard input; repeatable
    #[arg(long, short, value_name = "FILE", required = true)]
    file: Vec<PathBuf>,

    /// stamp: beside a writer. guard: beside the database itself, in its pod
    #[arg(long, value_enum)]
    role: Role,

    /// The ConfigMap with the configuration, under the key epochgate.yaml
    #[arg(long, value_name = "NAME", value_parser = name)]
    config_map: String,

    /// The image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value_t = inject::default_image(), value_parser = image)]
    image: String,

    /// A Secret, mounted at /run/secrets/epochgate/FOLDER; repeatable
    #[arg(long, value_name = "FOLDER=SECRET", value_parser = secret)]
    secret: Vec<(String, String)>,

    /// Guard: the claim of the volume for what must survive its pod; without it, run it with `doors: shared`
    #[arg(long, value_name = "NAME", value_parser = name)]
    state_claim: Option<String>,

    /// A port of a listener by name, for a Service that names its target port; repeatable
    #[arg(long, value_name = "NAME=PORT", value_parser = port)]
    port: Vec<(String, u16)>,

    /// Where metrics, health, leader and status are served
    #[arg(long, value_name = "PORT", default_value_t = 9464, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,

    /// A container beside the others, for Kubernetes before 1.29: it starts and ends with them; not for Jobs
    #[arg(long)]
    no_native_sidecar: bool,

    /// Fail, and print nothing, where a workload is skipped that has not opted out: for a pipeline
    #[arg(long)]
    strict: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Role {
    Stamp,
    Guard,
}

fn name(text: &str) -> Result<String, String> {
    let help =
        "a name of Kubernetes has small letters, digits, '-' and '.', and begins and ends with a letter or digit";
    if inject::is_name(text) { Ok(text.to_owned()) } else { Err(help.to_owned()) }
}

fn image(text: &str) -> Result<String, String> {
    let is_one = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one { Ok(text.to_owned()) } else { Err("write it as registry/repository:tag".to_owned()) }
}

fn secret(text: &str) -> Result<(String, String), String> {
    let help =
        "write FOLDER=SECRET, such as etcd-tls=etcd-client; the folder has small letters, digits and '-', at most 50";
    let (folder, secret) = text.split_once('=').ok_or(help)?;
    // The volume is called epochgate-FOLDER, and may have 63 bytes.
    if !inject::is_label(folder, 50) {
        return Err(help.to_owned());
    }
    Ok((folder.to_owned(), name(secret)?))
}

fn port(text: &str) -> Result<(String, u16), String> {
    let help =
        "write NAME=PORT, such as postgres=5432; the name has small letters, digits and '-', at most 15, and a letter";
    let (name, number) = text.split_once('=').ok_or(help)?;
    let number: u16 = number.parse().map_err(|_| help)?;
    let is_name =
        inject::is_label(name, 15) && name.bytes().any(|byte| byte.is_ascii_lowercase()) && !name.contains("--");
    if is_name && number > 0 { Ok((name.to_owned(), number)) } else { Err(help.to_owned()) }
}

/// Reads, adds, prints.
pub fn run(args: &InjectArgs) -> Exit {
    let settings = settings(args);
    if let Err(unfit) = settings.check() {
        complain::error(&unfit.0);
        return Exit::Usage;
    }
    let texts = match read(&args.file) {
        Ok(texts) => texts,
        Err(problem) => {
            complain::error(&plain(&problem));
            return Exit::Usage;
        }
    };
    let inputs: Vec<Input<'_>> = texts.iter().map(|(name, text)| Input { name, text }).collect();
    match inject::inject(&inputs, &settings) {
        Ok(outcome) => {
            let _ = anstream::stderr().write_all(report(&outcome, &settings).as_bytes());
            if args.strict && outcome.lacks() {
                complain::error_with_help(&"--strict: a workload is left without its sidecar", &STRICT_HELP);
                return Exit::Config;
            }
            print(&outcome.yaml)
        }
        Err(problem) => {
            let what = plain(&format!("{}: {}", problem.at, problem.what));
            complain::error_with_help(&what, &problem.help);
            Exit::Config
        }
    }
}

const STRICT_HELP: &str = "mend what the report says, or have the workload opt out: epochgate.dev/inject: disabled";

fn settings(args: &InjectArgs) -> Settings {
    Settings {
        role: match args.role {
            Role::Stamp => inject::Role::Stamp,
            Role::Guard => inject::Role::Guard,
        },
        config_map: args.config_map.clone(),
        image: args.image.clone(),
        secrets: args.secret.clone(),
        state_claim: args.state_claim.clone(),
        admin_port: args.admin_port,
        ports: args.port.clone(),
        native: !args.no_native_sidecar,
    }
}

/// Every file with the name that messages give it.
fn read(files: &[PathBuf]) -> Result<Vec<(String, String)>, String> {
    let is_input = |path: &&PathBuf| path.as_path() == Path::new("-");
    if files.iter().filter(is_input).count() > 1 {
        return Err("standard input can be read once: keep one `-f -`".to_owned());
    }
    let read_one = |path: &PathBuf| {
        let (name, bytes) = if is_input(&path) {
            let mut bytes = Vec::new();
            ("standard input".to_owned(), io::stdin().read_to_end(&mut bytes).map(|_| bytes))
        } else {
            (path.display().to_string(), fs::read(path))
        };
        let bytes = bytes.map_err(|error| format!("cannot read {name}: {error}"))?;
        let text = String::from_utf8(bytes);
        text.map(|text| (name.clone(), text)).map_err(|_| format!("{name} is not UTF-8: save it as that"))
    };
    files.iter().map(read_one).collect()
}

/// A line for each workload, one for the rest, and what is left to do.
fn report(outcome: &Outcome, settings: &Settings) -> String {
    let mut text = String::new();
    for workload in &outcome.workloads {
        let said = match &workload.said {
            Said::Added(None) => styled(GOOD, "added"),
            Said::Added(Some(note)) => format!("{}; {}", styled(GOOD, "added"), plain(note)),
            Said::Present => styled(FAINT, "has it already"),
            Said::Skipped(why) | Said::OptedOut(why) => format!("{}: {}", styled(WARNING, "skipped"), plain(why)),
        };
        text += &format!("{}: {said}\n", plain(&workload.name));
    }
    match outcome.others {
        0 => {}
        1 => text += "1 other object passed through\n",
        others => text += &format!("{others} other objects passed through\n"),
    }
    if outcome.workloads.is_empty() {
        text += &format!("{} there is no workload in it: nothing was added\n", styled(WARNING, "warning:"));
    }
    if outcome.added() { text + &next(outcome, settings) } else { text }
}

/// What the manifests alone do not do.
fn next(outcome: &Outcome, settings: &Settings) -> String {
    let mut namespaces: Vec<&str> = Vec::new();
    for workload in outcome.workloads.iter().filter(|workload| matches!(workload.said, Said::Added(_))) {
        let namespace = workload.namespace.as_deref().unwrap_or_default();
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
    let mut text = format!("{}\n", styled(HEADING, "next:"));
    for namespace in namespaces {
        let of = if namespace.is_empty() { String::new() } else { format!(" -n {}", plain(namespace)) };
        text += &format!("  kubectl create configmap {}{of} --from-file=epochgate.yaml\n", settings.config_map);
    }
    text += match settings.role {
        inject::Role::Stamp => {
            "  let the service write to the stamp's listener, such as 127.0.0.1:8081, instead of to the database\n"
        }
        inject::Role::Guard => {
            "  bind the database to 127.0.0.1, and let its Service lead to the guard's listener: what goes around is not fenced\n"
        }
    };
    if settings.role == inject::Role::Guard {
        let doors = if settings.state_claim.is_some() { "sole" } else { "shared" };
        text += &format!(
            "  doors: {doors}, at the guard's listeners in epochgate.yaml, fits the volume that it has here\n"
        );
    }
    text
}
