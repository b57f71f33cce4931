//! Every value file is rendered, and what comes of it is looked at from all sides.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::helm::{self, KUBERNETES, Release, assert_kept, files, release, top};
use super::pods::{Manifests, Pod, has_labels, list, name};
use super::support::process::{LONG, Launch};
use super::yaml;

/// Kinds that Kubernetes does not know of itself.
const OF_OPERATORS: [&str; 3] = ["PodMonitor", "ServiceMonitor", "PrometheusRule"];

/// A chart with a value file, and what its manifests are called when they are kept.
struct Case {
    name: String,
    release: Release,
    chart: PathBuf,
    values: Option<PathBuf>,
    /// Of [`KUBERNETES`], the oldest ones that are left out: they do not have all the kinds.
    left_out: &'static [&'static str],
}

/// The guard's chart with each of its value files, and the charts of the examples with each of theirs.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let guard = top("charts/epochgate");
    for values in files(&guard.join("ci"), "-values.yaml") {
        let name = case_name(&values);
        let release = release("orders-guard", "charts/epochgate").file(&values);
        let left_out = if ["admission", "cluster"].contains(&name.as_str()) { &KUBERNETES[1..] } else { &[] };
        cases.push(Case {
            name: format!("guard-{name}"),
            release,
            chart: guard.clone(),
            values: Some(values),
            left_out,
        });
    }
    for chart in ["orders", "orders-db"] {
        let path = format!("examples/kubernetes/{chart}");
        let folder = top(&path);
        let (name, release_of_it) = (format!("{chart}-default"), release(chart, &path));
        let own = Case { name, release: release_of_it, chart: folder, values: None, left_out: &[] };
        for values in files(&top("tests/charts/values"), ".yaml") {
            let Some(name) = case_name(&values).strip_prefix(&format!("{chart}-")).map(str::to_owned) else { continue };
            if chart == "orders" && name.starts_with("db-") {
                continue;
            }
            let release = release(chart, &path).file(&values);
            let release = if name == "old-kubernetes" { release.kubernetes("1.28") } else { release };
            let (name, chart) = (format!("{chart}-{name}"), own.chart.clone());
            cases.push(Case { name, release, chart, values: Some(values), left_out: &[] });
        }
        cases.push(own);
    }
    assert!(cases.len() >= 12, "only {} cases", cases.len());
    cases
}

fn case_name(values: &Path) -> String {
    let name = values.file_name().unwrap().to_string_lossy().into_owned();
    name.trim_end_matches(".yaml").trim_end_matches("-values").to_owned()
}

fn kept(name: &str) -> PathBuf {
    top("tests/charts/rendered").join(format!("{name}.yaml"))
}

#[test]
fn they_are_as_they_were_last_looked_at() {
    let cases = cases();
    for case in &cases {
        assert_kept(&kept(&case.name), &case.release.render());
    }
    let mut expected: Vec<PathBuf> = cases.iter().map(|case| kept(&case.name)).collect();
    expected.sort();
    assert_eq!(files(&top("tests/charts/rendered"), ".yaml"), expected, "each is kept, and nothing else is");
}

#[test]
fn they_pass_lint() {
    for case in cases() {
        helm::lint(&case.chart, case.values.as_deref());
    }
    helm::lint(&top("charts/epochgate-lib"), None);
}

/// By the schemas of each Kubernetes, none of which may have a field that it does not know.
#[test]
fn three_kubernetes_take_them() {
    let folder = tempfile::tempdir().unwrap();
    let of_all = plain_examples().into_iter().map(|path| (path, &[] as &[&str]));
    let rendered = cases().into_iter().map(|case| {
        let path = folder.path().join(format!("{}.yaml", case.name));
        fs::write(&path, case.release.render()).unwrap();
        (path, case.left_out)
    });
    let all: Vec<_> = of_all.chain(rendered).collect();
    for version in KUBERNETES {
        let paths: Vec<_> =
            all.iter().filter(|(_, left_out)| !left_out.contains(&version)).map(|(path, _)| path).collect();
        let objects = paths.iter().flat_map(|path| Manifests::read(&fs::read_to_string(path).unwrap()).0);
        let count = objects.filter(|object| !OF_OPERATORS.iter().any(|kind| object["kind"] == *kind)).count();
        let validate = Launch::program("kubernetes-validate").args(["--strict", "--kubernetes-version", version]);
        let mut validate = validate.args(&paths).start();
        let done = validate.wait(LONG * 4).success();
        let told = validate.stdout();
        assert!(done, "Kubernetes {version}:\n{}{}", wrong(&told), validate.stderr());
        let passed = told.lines().filter(|line| line.starts_with("INFO ") && line.contains(" passed ")).count();
        assert_eq!(passed, count, "Kubernetes {version} judged each object:\n{}", wrong(&told));
        let by_version = format!("against version {version}");
        assert!(told.lines().filter(|line| line.contains(" passed ")).all(|line| line.ends_with(&by_version)));
    }
}

fn wrong(told: &str) -> String {
    told.lines().filter(|line| !line.starts_with("INFO")).map(|line| format!("{line}\n")).collect()
}

/// A field that nobody knows would be found, else the test above shows nothing.
#[test]
fn a_wrong_manifest_would_be_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.yaml");
    let case = cases().into_iter().find(|case| case.name == "guard-default").unwrap();
    let text = case.release.render().replace("automountServiceAccountToken", "automountServiceAcountToken");
    fs::write(&path, text).unwrap();
    for version in KUBERNETES {
        let validate = Launch::program("kubernetes-validate").args(["--strict", "--kubernetes-version", version]);
        let mut validate = validate.arg(&path).start();
        assert!(!validate.wait(LONG).success(), "{}", validate.stdout());
        assert!(validate.stdout().contains("automountServiceAcountToken"), "{}", validate.stdout());
    }
}

#[test]
fn they_are_of_one_piece() {
    for case in cases() {
        let manifests = Manifests::read(&case.release.render());
        manifests.assert_of_one_piece(&case.name);
        for policy in manifests.of_kind("NetworkPolicy").filter(|policy| name(policy).ends_with("-target")) {
            let from = &policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
            let guards = manifests.serving();
            assert!(guards.iter().all(|pod| has_labels(&pod.metadata["labels"], from)), "{}: {policy}", case.name);
        }
    }
    for path in plain_examples() {
        Manifests::read(&fs::read_to_string(&path).unwrap()).assert_of_one_piece(&path.display().to_string());
    }
}

fn plain_examples() -> Vec<PathBuf> {
    files(&top("examples/kubernetes/plain"), ".yaml")
}

/// Pod Security Standard "restricted": of whole pods where they are ours, of our container in pods of others.
#[test]
fn pod_security_restricted_is_met() {
    let mut seen = 0;
    for case in cases() {
        let manifests = Manifests::read(&case.release.render());
        for pod in manifests.pods() {
            let whole = case.name.starts_with("guard-");
            let containers = if whole { pod.containers() } else { pod.ours() };
            assert_eq!(
                pod.ours().len(),
                usize::from(!case.name.ends_with("-disabled")).max(if pod.is_test() { 2 } else { 0 }),
                "{}",
                case.name
            );
            for container in containers {
                assert_restricted(&pod, container, &case.name);
                seen += 1;
            }
        }
    }
    assert!(seen >= 30, "only {seen} containers");
}

#[track_caller]
fn assert_restricted(pod: &Pod<'_>, container: &Value, what: &str) {
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false, "{what}");
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{what}");
    assert!(security["capabilities"]["add"].is_null() && security["privileged"].is_null(), "{what}");
    assert_eq!(security["readOnlyRootFilesystem"], true, "{what}");
    for value in ["runAsNonRoot", "seccompProfile"] {
        let either = [&security[value], &pod.spec["securityContext"][value]];
        assert!(either.iter().any(|value| **value == true || value["type"] == "RuntimeDefault"), "{what}: {value}");
    }
    assert_eq!(security["runAsUser"], 65532, "{what}: a number, which the kubelet can tell from root's");
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.spec[host].is_null(), "{what}: {host}");
    }
    for port in list(&container["ports"]) {
        assert!(port["hostPort"].is_null(), "{what}");
    }
    let mounts: Vec<&Value> = list(&container["volumeMounts"]).iter().map(|mount| &mount["name"]).collect();
    for volume in list(&pod.spec["volumes"]).iter().filter(|volume| mounts.contains(&&volume["name"])) {
        let kinds = ["configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "downwardAPI", "csi"];
        assert!(kinds.iter().any(|kind| !volume[*kind].is_null()), "{what}: {volume}");
    }
}

/// What does not depend on the values: no secret in a ConfigMap, probes that etcd does not reach, time to stop.
#[test]
fn what_must_hold_of_all_of_them() {
    for case in cases() {
        let manifests = Manifests::read(&case.release.render());
        for pod in manifests.serving() {
            for container in pod.ours() {
                assert_eq!(
                    container["livenessProbe"]["httpGet"]["path"], "/livez",
                    "{}: etcd away restarts it",
                    case.name
                );
                assert_eq!(container["startupProbe"]["httpGet"]["path"], "/livez", "{}", case.name);
                assert!(
                    container["lifecycle"].is_null(),
                    "{}: a preStop runs while the service still writes",
                    case.name
                );
                assert!(!container["image"].as_str().unwrap().contains(":latest"), "{}", case.name);
                let grace = pod.spec["terminationGracePeriodSeconds"].as_i64().unwrap();
                assert!(grace >= 40, "{}: {grace} s are less than shutdown.grace and something", case.name);
            }
        }
        for (map, text) in manifests.configurations() {
            // The kubelet and Prometheus come over the pod's address.
            let admin = &yaml::document(text)["admin"]["listen"];
            let everywhere = ["0.0.0.0:", "[::]:"].iter().any(|all| admin.as_str().unwrap().starts_with(all));
            assert!(everywhere, "{}: {map}: {admin}", case.name);
            assert!(!text.contains("BEGIN ") && !text.contains("password:"), "{}: {map}", case.name);
        }
        assert_doors_fit_their_state(&manifests, &case.name);
    }
}

/// A sole guard has a volume of its own and can never be two; shared ones have none.
#[track_caller]
fn assert_doors_fit_their_state(manifests: &Manifests, what: &str) {
    let text = manifests.configurations().into_iter().map(|(_, text)| text).collect::<String>();
    for pod in manifests.serving() {
        let volume = list(&pod.spec["volumes"]).iter().find(|volume| volume["name"] == "epochgate-state");
        let claims = list(&pod.object["spec"]["volumeClaimTemplates"]);
        let claim = claims.iter().find(|claim| claim["metadata"]["name"] == "epochgate-state");
        let keeps = claim.is_some() || volume.is_some_and(|volume| !volume["persistentVolumeClaim"].is_null());
        if keeps {
            assert!(text.contains("doors: sole") && !text.contains("doors: shared"), "{what}");
            assert_eq!(pod.object["spec"]["replicas"].as_i64().unwrap_or(1), 1, "{what}");
            let recreated = pod.object["spec"]["strategy"]["type"] == "Recreate";
            assert!(pod.object["kind"] == "StatefulSet" || recreated, "{what}: two at a time");
        } else {
            assert!(!text.contains("doors: sole"), "{what}: it would stay shut when its pod is replaced");
        }
    }
}

/// Each file, and each of the plain manifests, is one that epochgate runs.
#[test]
fn epochgate_check_takes_every_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    let rendered = cases().into_iter().map(|case| (case.name.clone(), case.release.render()));
    let plain =
        plain_examples().into_iter().map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()));
    for (case, text) in rendered.chain(plain) {
        for (map, text) in Manifests::read(&text).configurations() {
            let path = folder.path().join("epochgate.yaml");
            // No etcd is asked: its name is nobody's, and what is asked for is whether the file can be run.
            fs::write(&path, text).unwrap();
            let check = Launch::epochgate("check").args(["check", "--output", "json", "--config"]).arg(&path);
            let mut check = check.env("EPOCHGATE_ID", "orders-guard-0").start();
            let code = check.wait(LONG).code();
            assert!(matches!(code, Some(0 | 1)), "{case}: {map}: {code:?}: {}{}", check.stdout(), check.stderr());
            let report: Value = serde_json::from_str(&check.stdout()).unwrap();
            for category in list(&report["categories"]) {
                let of_the_file = ["configuration", "times", "level"];
                if !of_the_file.iter().any(|name| category["name"] == *name) {
                    continue;
                }
                for finding in list(&category["checks"]) {
                    assert_ne!(finding["result"], "failed", "{case}: {map}: {finding}");
                }
            }
            seen += 1;
        }
    }
    assert!(seen >= 14, "only {seen} configurations");
}
