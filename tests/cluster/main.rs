//! A real control plane of Kubernetes takes what the charts render and what `inject` adds, makes pods of it, and runs the
//! admission policies. There is no node: what runs in a pod is shown by `tests/charts`.
//!
//! It needs programs that `make test` does not fetch, since building them takes minutes: `tools/fetch kube-apiserver
//! kube-controller-manager kubectl`. Where they are not there, nothing is tested, and a line says so.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod control_plane;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use control_plane::ControlPlane;
use support::process::{LONG, Launch, eventually};

const GUARD: [&str; 6] = [
    "--set",
    "etcd.endpoints={http://etcd:2379}",
    "--set",
    "upstream.url=http://orders-api:9000",
    "--set",
    "resource=orders",
];

fn top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &str, end: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(top(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(end)).collect()
}

/// The documents of a file, without kinds of operators that are not there, and without what is in other namespaces.
fn documents(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let of_operators = ["kind: PodMonitor", "kind: ServiceMonitor", "kind: PrometheusRule"];
    let documents = text.split("\n---").filter(|document| !of_operators.iter().any(|kind| document.contains(kind)));
    documents.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_api_server_takes_what_is_rendered_without_a_warning() {
    let Some(cluster) = ControlPlane::start().await else { return };
    cluster.namespace("shop", "restricted");
    cluster.namespace("data", "restricted");
    cluster.namespace("monitoring", "restricted");
    // What a test pod runs as.
    for account in ["orders-guard", "guards"] {
        let manifest = format!("{{ apiVersion: v1, kind: ServiceAccount, metadata: {{ name: {account} }} }}");
        assert!(cluster.apply(&manifest, &["--namespace=shop"]).1);
    }
    let mut objects = 0;
    for path in files("tests/charts/rendered", ".yaml").into_iter().chain(files("examples/kubernetes/plain", ".yaml")) {
        for document in documents(&path) {
            let others = ["data", "monitoring"];
            let is_in = |name: &&&str| document.contains(&format!("\n  namespace: {name}\n"));
            let namespace = others.iter().find(is_in).unwrap_or(&"shop");
            let (told, done) = cluster.apply(&document, &["--namespace", namespace, "--dry-run=server"]);
            assert!(done, "{}: {told}\n{document}", path.display());
            // Containers of a service are its own business; ours meets the standard.
            let ours = |line: &&str| {
                line.contains("Warning") && (!line.contains("PodSecurity") || line.contains("\"epochgate\""))
            };
            assert_eq!(told.lines().filter(ours).collect::<Vec<_>>(), [""; 0], "{}", path.display());
            objects += told.matches("(server dry run)").count();
        }
    }
    assert!(objects > 100, "only {objects} objects");
}

#[tokio::test]
async fn a_release_is_installed_changed_and_taken_away() {
    let Some(cluster) = ControlPlane::start().await else { return };
    cluster.namespace("shop", "restricted");
    let chart = top("charts/epochgate").display().to_string();
    let release = |verb: &[&str], more: &[&str]| {
        let of_it = ["orders-guard", &chart, "--namespace=shop"];
        cluster.helm(&[verb, &of_it, &GUARD, more].concat())
    };
    release(&["install"], &[]);
    let selector = "app.kubernetes.io/instance=orders-guard";
    let pods = cluster.pods("shop", selector, 2);
    for pod in &pods {
        assert_eq!(pod["spec"]["containers"][0]["name"], "epochgate", "{pod}");
        assert!(!pod["spec"]["volumes"].to_string().contains("serviceAccountToken"), "it needs no token: {pod}");
    }

    // What stands is what would be applied.
    let manifests = cluster.helm(&["get", "manifest", "orders-guard", "--namespace=shop"]);
    let path = cluster.config().with_file_name("manifests.yaml");
    fs::write(&path, manifests).unwrap();
    cluster.must(&["--namespace=shop", "diff", "-f", path.to_str().unwrap()]);

    release(&["upgrade"], &["--set", "replicas=3"]);
    cluster.pods("shop", selector, 3);
    // Shared guards become a sole one with a volume that one pod may have.
    release(&["upgrade"], &["--set", "replicas=1,persistence.enabled=true"]);
    let pods = cluster.pods("shop", selector, 1);
    assert_eq!(pods[0]["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
    let claims = || cluster.get(&["--namespace=shop", "persistentvolumeclaims"])["items"].clone();
    assert_eq!(claims()[0]["spec"]["accessModes"], json!(["ReadWriteOncePod"]));

    cluster.helm(&["uninstall", "orders-guard", "--namespace=shop"]);
    cluster.pods("shop", selector, 0);
    assert_eq!(claims().as_array().unwrap().len(), 1, "what a guard remembers is not taken away with it");
}

#[tokio::test]
async fn pods_that_ask_for_a_sidecar_get_it_and_none_starts_without_its_guard() {
    let Some(cluster) = ControlPlane::start().await else { return };
    cluster.namespace("shop", "privileged");
    let chart = top("charts/epochgate").display().to_string();
    let install = ["install", "policies", &chart, "--namespace=shop"];
    cluster.helm(&[&install[..], &GUARD, &["--set", "admission.enabled=true"]].concat());

    // They are in force a moment after they have been applied.
    let try_out = |manifest: &str| cluster.apply(manifest, &["--namespace=shop", "--dry-run=server", "--output=json"]);
    eventually("policies refuse", LONG, || !try_out(&pod("a", "gaurd", "")).1);
    eventually("policies add", LONG, || try_out(&pod("a", "guard", "")).0.contains("initContainers"));
    eventually("policies add", LONG, || try_out(&pod("a", "stamp", "")).0.contains("initContainers"));

    let (told, done) = try_out(&pod("a", "gaurd", ""));
    assert!(!done && told.contains("epochgate.dev/inject is 'gaurd'; write stamp, guard or disabled"), "{told}");
    let (told, done) = try_out(&pod("a", "guard", "hostNetwork: true, "));
    assert!(
        !done && told.contains("has no running container epochgate: every write would reach its database"),
        "{told}"
    );
    let (told, done) = try_out(&pod("a", "disabled", ""));
    assert!(done && !told.contains("\"name\": \"epochgate\""), "{told}");

    what_is_added_is_what_inject_adds(&cluster);

    // A workload's pods are asked about as every pod is.
    let template = "{ metadata: { labels: { app: orders, epochgate.dev/inject: stamp } }, \
                    spec: { containers: [{ name: a, image: a:1 }] } }";
    let deployment = format!(
        "{{ apiVersion: apps/v1, kind: Deployment, metadata: {{ name: orders }}, spec: {{ replicas: 2, \
         selector: {{ matchLabels: {{ app: orders }} }}, template: {template} }} }}"
    );
    assert!(cluster.apply(&deployment, &["--namespace=shop"]).1);
    for pod in cluster.pods("shop", "app=orders", 2) {
        assert_eq!(names(&pod["spec"]["initContainers"]), ["epochgate"], "{pod}");
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 75);
    }

    // What asks in a way that nobody hears is told so.
    let told = |labels: &str, template: &str| {
        let manifest = format!(
            "{{ apiVersion: batch/v1, kind: CronJob, metadata: {{ name: nightly{labels} }}, spec: {{ schedule: '@daily', \
             jobTemplate: {{ spec: {{ template: {{ {template}spec: {{ restartPolicy: Never, \
             containers: [{{ name: a, image: a:1 }}] }} }} }} }} }} }}"
        );
        cluster.apply(&manifest, &["--namespace=shop", "--dry-run=server"]).0
    };
    let asks = "{ epochgate.dev/inject: stamp }";
    let (here, there) = (format!(", labels: {asks}"), format!("metadata: {{ labels: {asks} }}, "));
    eventually("policies warn", LONG, || told(&here, "").contains("put it under template.metadata.labels"));
    assert!(!told(&here, &there).contains("Warning"), "{}", told(&here, &there));
    assert!(told("", &there.replace("labels", "annotations")).contains("as an annotation it adds nothing"));
    assert!(
        told("", &there.replace("stamp", "stmap")).contains("they will be refused; write stamp, guard or disabled")
    );

    // Where nothing adds it any more, a database does not start without it, and a writer does, with a word.
    cluster.must(&["delete", "mutatingadmissionpolicybinding", "--all"]);
    eventually("nothing is added", LONG, || !try_out(&pod("a", "guard", "")).1);
    eventually("nothing is added", LONG, || {
        let (told, done) = try_out(&pod("a", "stamp", ""));
        assert!(done, "{told}");
        told.contains("an enforcing guard refuses whatever it writes")
    });
}

/// By the policies, and by the program: the same, as the API server makes it whole.
fn what_is_added_is_what_inject_adds(cluster: &ControlPlane) {
    for role in ["stamp", "guard"] {
        let (label, more) = (pod("a", role, ""), "automountServiceAccountToken: false, ");
        let plain = cluster.config().with_file_name("plain.yaml");
        fs::write(&plain, pod("a", "disabled", more).replace(", labels: { epochgate.dev/inject: disabled }", ""))
            .unwrap();
        let config_map = format!("epochgate-{role}");
        let inject = Launch::epochgate("inject").args(["inject", "--role", role, "--config-map", &config_map]);
        let injected = inject.arg("-f").arg(&plain).start().told().unwrap();
        let made = |manifest: &str| {
            let (told, done) = cluster.apply(manifest, &["--namespace=shop", "--dry-run=server", "--output=json"]);
            assert!(done, "{told}");
            serde_json::from_str::<Value>(&told).unwrap()["spec"].clone()
        };
        let label = label.replace("spec: { ", &format!("spec: {{ {more}"));
        assert_eq!(made(&label), made(&injected), "{role}");
    }
}

fn pod(name: &str, role: &str, more: &str) -> String {
    format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name}, labels: {{ epochgate.dev/inject: {role} }} }}, \
         spec: {{ {more}containers: [{{ name: db, image: db:1 }}] }} }}\n"
    )
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
}
