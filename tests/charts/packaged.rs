//! What whoever installs a chart gets: the package, the notes, and the library in charts of all shapes.

use std::fs;
use std::path::{Path, PathBuf};

use super::helm::{Release, copy, files, release, top};
use super::pods::{Manifests, list};
use super::support::process::{LONG, Launch};

/// A package has the library in it, renders as the checkout does, and is without what only we need.
#[test]
fn a_package_is_the_chart() {
    let folder = tempfile::tempdir().unwrap();
    let helm = Launch::program("helm").args(["package", "--destination"]).arg(folder.path());
    let mut helm = helm.arg(top("charts/epochgate")).start();
    assert!(helm.wait(LONG).success(), "{}", helm.stderr());
    let package = files(folder.path(), ".tgz").remove(0);
    let values = top("charts/epochgate/ci/default-values.yaml");
    let [own, packaged] = [top("charts/epochgate"), package.clone()]
        .map(|chart| release("orders-guard", "charts/epochgate").of(&chart).file(&values).render());
    assert_eq!(own, packaged);
    let tar = Launch::program("tar").arg("-tzf").arg(&package).run(LONG).stdout();
    assert!(tar.contains("epochgate/charts/epochgate-lib/templates/_inject.tpl"), "{tar}");
    assert!(tar.contains("epochgate/values.schema.json") && !tar.contains("/ci/"), "{tar}");
}

/// What Helm prints after an install.
#[track_caller]
fn notes(values: &str, set: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("epochgate");
    copy(&top("charts/epochgate"), &chart);
    // `helm template` does not print them, and what does wants a cluster.
    let shown = "kind: Notes\ntext: {{ include (print .Template.BasePath \"/NOTES.txt\") . | toJson }}\n";
    fs::write(chart.join("templates/shown.yaml"), shown).unwrap();
    let release = release("orders-guard", "charts/epochgate").of(&chart).file(&top("charts/epochgate/ci").join(values));
    let text = set.iter().fold(release, |release, value| release.set(value)).render();
    let all = Manifests::read(&text);
    all.of_kind("Notes").next().unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_notes_say_what_to_do_next() {
    let text = notes("default-values.yaml", &[]);
    for words in [
        "orders-guard: 2 shared guards, enforcing.",
        "http: orders-guard.shop:8080",
        "helm -n shop test orders-guard",
        "exec deployment/orders-guard -c epochgate -- epochgate status",
        "wait 5s and 35s before they take writes",
        "ready once a first leader has been elected",
    ] {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
    let text = notes("sole-values.yaml", &[]);
    assert!(text.contains("a sole guard, enforcing") && text.contains("exec statefulset/orders-guard"), "{text}");
    assert!(text.contains("never delete its pod by force"), "{text}");
}

#[test]
fn the_notes_warn_of_what_is_unsafe() {
    let warned = |values: &str, set: &[&str], key: &str| {
        let text = notes(values, set);
        assert!(text.contains(&format!("WARNING {key}: ")), "{set:?}: no warning of {key} in:\n{text}");
    };
    warned("audit-values.yaml", &[], "mode");
    warned("default-values.yaml", &[], "networkPolicy.target.enabled");
    warned("default-values.yaml", &[], "etcd.endpoints");
    warned("postgres-values.yaml", &["upstream.control=null"], "upstream.control");
    warned("default-values.yaml", &["config.drain.on_timeout=open"], "config.drain.on_timeout");
    warned("sole-existing-claim-values.yaml", &[], "persistence.accessMode");

    let target = ["networkPolicy.target.enabled=true", "networkPolicy.target.podSelector.app=db"];
    let safe = notes("tls-values.yaml", &target);
    assert!(!safe.contains("WARNING"), "{safe}");
}

/// A chart with workloads of all kinds, and the library twice.
fn chart_of_all_kinds(folder: &Path) -> PathBuf {
    let chart = folder.join("shop");
    copy(&top("charts/epochgate-lib"), &chart.join("charts/epochgate-lib"));
    fs::create_dir_all(chart.join("templates")).unwrap();
    let dependency = |alias: &str| format!("  - {{ name: epochgate-lib, version: 0.1.0, alias: {alias} }}\n");
    let about = "apiVersion: v2\nname: shop\nversion: 0.1.0\ndependencies:\n";
    fs::write(chart.join("Chart.yaml"), about.to_owned() + &dependency("epochgate") + &dependency("guard")).unwrap();
    fs::write(
        chart.join("values.yaml"),
        "epochgate: { resource: orders, upstream: { url: 'http://g:8080' }, etcd: { endpoints: ['http://etcd:2379'] } }\n\
         guard: { role: guard, resource: orders, upstream: { url: 'http://127.0.0.1:9000' }, etcd: { endpoints: ['http://etcd:2379'] } }\n",
    )
    .unwrap();
    let pod =
        "{ containers: [{ name: app, image: app:1 }], restartPolicy: RESTART, volumes: [{ name: own, emptyDir: {} }] }";
    let template = format!("{{ metadata: {{ labels: {{ app: KIND }} }}, spec: {} }}", pod);
    let spec = format!("{{ selector: {{ matchLabels: {{ app: KIND }} }}, MORE template: {template} }}");
    let job = format!("{{ template: {template} }}");
    let kinds = [
        ("apps/v1", "Deployment", spec.replace("MORE", ""), "Always"),
        ("apps/v1", "DaemonSet", spec.replace("MORE", ""), "Always"),
        ("apps/v1", "ReplicaSet", spec.replace("MORE", ""), "Always"),
        ("apps/v1", "StatefulSet", spec.replace("MORE", "serviceName: x,"), "Always"),
        ("batch/v1", "Job", job.clone(), "Never"),
        ("batch/v1", "CronJob", format!("{{ schedule: '@daily', jobTemplate: {{ spec: {job} }} }}"), "Never"),
        ("v1", "Pod", pod.to_owned(), "Always"),
    ];
    for (version, kind, spec, restart) in kinds {
        let name = kind.to_lowercase();
        let spec = spec.replace("KIND", &name).replace("RESTART", restart);
        let key = if kind == "StatefulSet" { " \"guard\"" } else { "" };
        let text = format!(
            "{{{{- define \"{name}\" -}}}}\napiVersion: {version}\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n\
             {{{{- end -}}}}\n{{{{ include \"epochgate.inject\" (list . (include \"{name}\" .){key}) }}}}\n"
        );
        fs::write(chart.join("templates").join(format!("{name}.yaml")), text).unwrap();
    }
    chart
}

fn shop(chart: &Path) -> Release {
    release("shop", "charts/epochgate-lib").of(chart)
}

#[test]
fn the_library_takes_workloads_of_all_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let chart = chart_of_all_kinds(folder.path());
    let text = shop(&chart).render();
    let manifests = Manifests::read(&text);
    manifests.assert_of_one_piece("all kinds");
    assert_eq!(manifests.pods().len(), 7);
    assert_eq!(manifests.configurations().len(), 7);
    for pod in manifests.pods() {
        let kind = pod.object["kind"].as_str().unwrap();
        let sidecar = &list(&pod.spec["initContainers"])[0];
        assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&"epochgate".into(), &"Always".into()), "{kind}");
        let role = if kind == "StatefulSet" { "guard" } else { "stamp" };
        assert_eq!(pod.metadata["labels"]["epochgate.dev/role"], role, "by the alias that it names");
        assert_eq!(list(&pod.spec["volumes"])[0]["name"], "own", "what was there stays");
        assert_eq!(list(&pod.spec["containers"]).len(), 1, "{kind}");
    }
    let path = folder.path().join("all.yaml");
    fs::write(&path, text).unwrap();
    let mut validate =
        Launch::program("kubernetes-validate").args(["--strict", "--kubernetes-version", "1.33"]).arg(&path).start();
    assert!(validate.wait(LONG).success(), "{}", validate.stdout());
}

#[test]
fn the_library_refuses_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let chart = chart_of_all_kinds(folder.path());
    let refused = |file: &str, words: &str| {
        let path = chart.join("templates/zz.yaml");
        fs::write(&path, file).unwrap();
        let complaint = shop(&chart).refusal();
        assert!(complaint.contains(words), "no `{words}` in: {complaint}");
        fs::remove_file(path).unwrap();
    };
    refused(
        r#"{{ include "epochgate.inject" (list . "{ kind: Service, metadata: { name: a } }") }}"#,
        "a Service has no pods",
    );
    refused(r#"{{ include "epochgate.inject" (list . "kind: Pod") }}"#, "the workload has no metadata.name");
    refused(r#"{{ include "epochgate.inject" (list . ": :") }}"#, "the workload is no YAML");
    refused(
        r#"{{ include "epochgate.inject" (list . (include "job" .) "other") }}"#,
        "other: there is no such key in the values",
    );
    let twice =
        r#"{{ include "epochgate.inject" (list . (include "job" . | replace "name: app," "name: epochgate,")) }}"#;
    refused(twice, "Job job has a container epochgate already");
    let several = r#"{{ include "epochgate.inject" (list . (printf "%s\n---\nkind: Service" (include "job" .))) }}"#;
    refused(several, "takes one workload, and this is more than one document");
    let windows = several.replace("\\n---\\n", "\\r\\n---\\r\\n");
    refused(&windows, "takes one workload, and this is more than one document");
    let host = r#"{{ include "epochgate.inject" (list . (include "job" . | replace "containers:" "hostNetwork: true, containers:")) }}"#;
    refused(host, "Job job is on its node's network");
    let name = r#"{{ include "epochgate.inject" (list . (include "job" . | replace "name: app," "name: app, ports: [{ name: eg-admin, containerPort: 80 }],")) }}"#;
    refused(name, "the container app has a port with the name eg-admin");

    let job = shop(&chart).set("epochgate.nativeSidecar=false").refusal();
    assert!(
        job.contains("epochgate.nativeSidecar: a CronJob never completes") || job.contains("a Job never completes"),
        "{job}"
    );
    let sole = shop(&chart).set("guard.persistence.enabled=true").refusal();
    assert!(sole.contains("guard.persistence.enabled: the guard does not run as root"), "the alias is named: {sole}");
}
