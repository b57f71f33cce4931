//! The admission policies of `charts/epochgate`, before the plugins of a real API server: `tests/cel` is a program of Go that
//! compiles their CEL and puts pods before them. Where there is no `go`, nothing is tested, and a line says so.
//!
//! | file in `tests/cel` | what it is |
//! |---|---|
//! | `policies.yaml` | the policies as the chart renders them; compared with that where helm and the chart are there |
//! | `pods.yaml` | pods as they come to admission |
//! | `verdicts.json` | what becomes of each |
//!
//! `UPDATE=1` writes the first and the last anew.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

/// What `policies.yaml` is rendered with.
const SETTINGS: &[&str] =
    &["enabled=false", "admission.enabled=true", "admission.guard.secretMounts.etcd-tls=etcd-client"];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    top().join("tests/cel")
}

/// The program, built once; `None` where there is no Go.
fn program() -> Option<&'static PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(build).as_ref()
}

fn build() -> Option<PathBuf> {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("there is no go: the admission policies are not tested");
        return None;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("admission");
    let built = Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(folder()).output();
    let built = built.expect("go runs");
    assert!(built.status.success(), "tests/cel cannot be built:\n{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

/// What becomes of each pod, by its name.
fn verdicts(program: &Path, policies: &Path, pods: &Path) -> BTreeMap<String, Value> {
    let output = Command::new(program).args([policies, pods]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let named =
        values.map(|value| value.expect("JSON")).map(|value| (value["name"].as_str().unwrap().to_owned(), value));
    named.collect()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn what_becomes_of_every_pod_is_what_is_kept() {
    let Some(program) = program() else { return };
    let verdicts = verdicts(program, &folder().join("policies.yaml"), &folder().join("pods.yaml"));
    for (name, verdict) in &verdicts {
        assert_eq!(verdict["again"], json!(false), "{name}: the second time changes it again");
    }
    let short = |(name, verdict): (&String, &Value)| {
        let spec = &verdict["pod"]["spec"];
        let short = json!({
            "mutated": verdict["mutated"], "refused": verdict["refused"], "warnings": verdict["warnings"],
            "initContainers": names(&spec["initContainers"]), "containers": names(&spec["containers"]),
            "volumes": spec["volumes"], "terminationGracePeriodSeconds": spec["terminationGracePeriodSeconds"],
        });
        (name.clone(), short)
    };
    let is: serde_json::Map<String, Value> = verdicts.iter().map(short).collect();
    let is = serde_json::to_string_pretty(&is).expect("JSON") + "\n";
    let path = folder().join("verdicts.json");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &is).expect("it can be written");
    }
    assert_eq!(fs::read_to_string(&path).expect("it is kept"), is, "UPDATE=1 keeps what is");
}

/// Whoever adds the sidecar, by hand or in the cluster, adds the same.
#[test]
fn the_policies_add_what_inject_adds() {
    let Some(program) = program() else { return };
    let pods = folder().join("pods.yaml");
    let by_policy = verdicts(program, &folder().join("policies.yaml"), &pods);
    let nothing = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-policies.yaml");
    fs::write(&nothing, "").expect("it can be written");
    let guard = "--role guard --config-map epochgate-guard --secret etcd-tls=etcd-client";
    for (name, flags) in [
        ("stamp", "--role stamp --config-map epochgate-stamp".to_owned()),
        ("stamp-with-everything", "--role stamp --config-map orders-stamp".to_owned()),
        ("guard", guard.to_owned()),
        ("guard-with-claim", format!("{guard} --state-claim orders-guard")),
    ] {
        let injected = Command::new(env!("CARGO_BIN_EXE_epochgate"))
            .args(["inject", "-f"])
            .arg(&pods)
            .args(flags.split_whitespace())
            .output()
            .expect("the program runs");
        assert!(injected.status.success(), "{}", String::from_utf8_lossy(&injected.stderr));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("injected-{name}.yaml"));
        fs::write(&path, injected.stdout).expect("it can be written");
        let mut by_inject = verdicts(program, &nothing, &path);
        let (mut by_inject, mut by_policy) = (by_inject.remove(name).unwrap(), by_policy[name].clone());
        if name == "stamp-with-everything" {
            // What a manifest says is left as it is, with a word; at admission there is nobody to tell.
            let seconds = |verdict: &mut Value| verdict["pod"]["spec"]["terminationGracePeriodSeconds"].take();
            assert_eq!((seconds(&mut by_inject), seconds(&mut by_policy)), (json!(60), json!(105)));
        }
        for part in ["metadata", "spec"] {
            assert_eq!(by_inject["pod"][part], by_policy["pod"][part], "{name}");
        }
    }
}

#[test]
fn the_policies_are_those_of_the_chart() {
    let chart = top().join("charts/epochgate");
    if !chart.join("Chart.yaml").exists() || Command::new("helm").arg("version").output().is_err() {
        eprintln!("there is no helm, or no chart: tests/cel/policies.yaml is not compared with it");
        return;
    }
    let mut helm = Command::new("helm");
    helm.args(["template", "epochgate"]).arg(&chart).args(["--kube-version", "1.36.0"]);
    helm.args(["-s", "templates/admission-policies.yaml"]);
    helm.args(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
    let output = helm.output().expect("helm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (path, is) = (folder().join("policies.yaml"), String::from_utf8(output.stdout).expect("text"));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &is).expect("it can be written");
    }
    assert_eq!(fs::read_to_string(&path).expect("it is kept"), is, "UPDATE=1 keeps what is");
}
