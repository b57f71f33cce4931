//! Workloads, and whether one gets the sidecar.

use std::rc::Rc;

use super::additions::{self, Addition};
use super::cursor::{Cursor, Obstacle, get};
use super::settings::{ADMIN_PORT, Settings, VOLUME};
use super::tree::{Document, Node};
use super::{CONTAINER, Input, OPT, Problem, Said, Workload};

/// An object of a document.
pub(super) enum Found<'a> {
    /// One with pods: what was decided, where its pod spec is, and what is to be added there.
    Workload { workload: Workload, spec: Cursor<'a>, additions: Vec<Addition> },
    /// One without.
    Other,
}

/// A kind of workload.
struct Kind {
    kind: &'static str,
    /// The group of its `apiVersion`; empty is the core's.
    groups: &'static [&'static str],
    /// The way to its pod template.
    template: &'static [&'static str],
}

const APPS: &[&str] = &["apps", "extensions"];

const KINDS: &[Kind] = &[
    Kind { kind: "Deployment", groups: APPS, template: &["spec", "template"] },
    Kind { kind: "StatefulSet", groups: APPS, template: &["spec", "template"] },
    Kind { kind: "DaemonSet", groups: APPS, template: &["spec", "template"] },
    Kind { kind: "ReplicaSet", groups: APPS, template: &["spec", "template"] },
    Kind { kind: "Job", groups: &["batch"], template: &["spec", "template"] },
    Kind { kind: "CronJob", groups: &["batch"], template: &["spec", "jobTemplate", "spec", "template"] },
    Kind { kind: "Pod", groups: &[""], template: &[] },
];

/// Every object of a document, those of a List one by one. An empty document has none.
pub(super) fn workloads<'a>(
    input: &Input<'_>,
    document: &'a Document,
    settings: &Settings,
) -> Result<Vec<Found<'a>>, Problem> {
    let mut found = Vec::new();
    if !document.root.is_null() {
        object(input, Cursor::root(document), settings, &mut found)?;
    }
    Ok(found)
}

fn object<'a>(
    input: &Input<'_>,
    object: Cursor<'a>,
    settings: &Settings,
    found: &mut Vec<Found<'a>>,
) -> Result<(), Problem> {
    let word = |key: &str| object.read(key).and_then(|node| node.text()).unwrap_or_default();
    let problem = |name: &str, why: String| Problem {
        at: format!("{}:{}", input.name, object.node.line),
        what: format!("{name}: {why}"),
        help: "look at the manifest: it is to be whole (no patch), and rendered (no template)".to_owned(),
    };
    let (kind, version) = (word("kind"), word("apiVersion"));
    if kind == "List" && version == "v1" {
        let items = match object.step("items") {
            Ok(items) => items,
            Err(Obstacle::Skip(why) | Obstacle::Broken(why)) => return Err(problem("the List", why)),
        };
        let count = items.as_ref().map_or(0, |items| items.node.items().len());
        for item in (0..count).filter_map(|at| items.as_ref().and_then(|items| items.item(at))) {
            self::object(input, item, settings, found)?;
        }
        return Ok(());
    }
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let Some(kind) = KINDS.iter().find(|known| known.kind == kind && known.groups.contains(&group)) else {
        found.push(Found::Other);
        return Ok(());
    };
    let (name, namespace) = names(&object, kind);
    let (said, spec, additions) = match decide(&object, kind, settings) {
        Ok(decided) => decided,
        Err(Obstacle::Skip(why)) => (Said::Skipped(why), object.clone(), Vec::new()),
        Err(Obstacle::Broken(why)) => return Err(problem(&name, why)),
    };
    found.push(Found::Workload { workload: Workload { name, namespace, said }, spec, additions });
    Ok(())
}

/// What messages call it, and its namespace.
fn names(object: &Cursor<'_>, kind: &Kind) -> (String, Option<String>) {
    let of = |key: &str| {
        let metadata = object.read("metadata")?;
        get(object.document, metadata, key)?.text().map(str::to_owned)
    };
    let name = of("name").or_else(|| of("generateName").map(|begin| begin + "*")).unwrap_or_else(|| "?".to_owned());
    (format!("{}/{name}", kind.kind.to_lowercase()), of("namespace"))
}

fn decide<'a>(
    object: &Cursor<'a>,
    kind: &Kind,
    settings: &Settings,
) -> Result<(Said, Cursor<'a>, Vec<Addition>), Obstacle> {
    let missing = |what: &str| Obstacle::Broken(format!("it has no {what}"));
    is_editable(object)?;
    let mut template = object.clone();
    for key in kind.template {
        template = template.step(key)?.ok_or_else(|| missing(key))?;
    }
    let spec = template.step("spec")?.ok_or_else(|| missing("pod spec"))?;
    let containers = spec.step("containers")?.filter(|list| !list.node.items().is_empty());
    let containers = containers.ok_or_else(|| missing("containers"))?;
    let before = spec.step("initContainers")?;
    let all = || containers.node.items().iter().chain(before.iter().flat_map(|list| list.node.items()));
    if all().any(|container| name_of(&spec, container) == Some(CONTAINER)) {
        return Ok((Said::Present, spec, Vec::new()));
    }
    if let Some(how) = opted_out(object, &template, settings) {
        return Ok((Said::OptedOut(how), spec, Vec::new()));
    }
    if let Some(why) = why_not(object, kind, &spec, settings) {
        return Err(Obstacle::Skip(why));
    }
    for container in all() {
        no_port_taken(&spec, container, settings)?;
    }
    no_volume_taken(&spec, settings)?;
    let has_group = spec.read("securityContext").and_then(|context| get(spec.document, context, "fsGroup")).is_some();
    if settings.state_claim.is_some() {
        is_for_one_pod(object, kind, settings, has_group)?;
    }
    let (additions, note) = additions::wanted(&spec, settings, has_group)?;
    Ok((Said::Added(note), spec, additions))
}

/// The root of a document, and an item of a List.
fn is_editable(object: &Cursor<'_>) -> Result<(), Obstacle> {
    if object.document.is_shared(object.node) {
        return Err(Obstacle::Skip("it is used by alias elsewhere too; write it out there".to_owned()));
    }
    Ok(())
}

/// Where it says that it wants no sidecar, or one for the other role.
fn opted_out(object: &Cursor<'_>, template: &Cursor<'_>, settings: &Settings) -> Option<String> {
    let role = settings.role.word();
    for place in [template, object] {
        for field in ["labels", "annotations"] {
            let metadata = place.read("metadata").and_then(|metadata| get(place.document, metadata, field));
            let opt = metadata.and_then(|field| get(place.document, field, OPT)).and_then(|value| value.text());
            match opt {
                Some("disabled") => return Some(format!("{OPT}: disabled is among its {field}")),
                Some(other @ ("guard" | "stamp")) if other != role => {
                    return Some(format!("{OPT}: {other} is among its {field}, and --role is {role}"));
                }
                _ => {}
            }
        }
    }
    None
}

/// Why it cannot have the sidecar.
fn why_not(object: &Cursor<'_>, kind: &Kind, spec: &Cursor<'_>, settings: &Settings) -> Option<String> {
    if let Some(owner) = owner(object) {
        return Some(format!("it belongs to {owner}, which would undo it; give that to inject"));
    }
    // As YAML 1.1 has it, by which kubectl reads.
    let is_true = |text: &str| ["true", "yes", "on", "y"].contains(&text.to_ascii_lowercase().as_str());
    if spec.read("hostNetwork").and_then(|value| value.text()).is_some_and(is_true) {
        let why = "hostNetwork: its ports are the node's, and 127.0.0.1 is everybody's there";
        return Some(why.to_owned());
    }
    let system = spec.read("os").and_then(|os| get(spec.document, os, "name"));
    if system.and_then(|name| name.text()) == Some("windows") {
        return Some("its pods run Windows, and epochgate runs on Linux".to_owned());
    }
    if !settings.native && ["Job", "CronJob"].contains(&kind.kind) {
        return Some(format!(
            "a {} never completes beside a sidecar that is not native; leave --no-native-sidecar out",
            kind.kind
        ));
    }
    None
}

/// The object that made this one: `replicaset/orders-5d7f`.
fn owner(object: &Cursor<'_>) -> Option<String> {
    let document = object.document;
    let owners = get(document, object.read("metadata")?, "ownerReferences")?;
    let owner = owners.items().first()?;
    let word = |key: &str| get(document, owner, key).and_then(|node| node.text()).unwrap_or("?");
    Some(format!("{}/{}", word("kind").to_lowercase(), word("name")))
}

fn name_of<'a>(spec: &Cursor<'a>, item: &'a Rc<Node>) -> Option<&'a str> {
    get(spec.document, item, "name")?.text()
}

/// All containers of a pod share its ports.
fn no_port_taken(spec: &Cursor<'_>, container: &Rc<Node>, settings: &Settings) -> Result<(), Obstacle> {
    let Some(ports) = get(spec.document, container, "ports") else { return Ok(()) };
    let ours =
        || settings.ports.iter().map(|(name, port)| (name.as_str(), *port)).chain([(ADMIN_PORT, settings.admin_port)]);
    for port in ports.items() {
        let text = |key: &str| get(spec.document, port, key).and_then(|value| value.text());
        let (name, number) = (text("name"), text("containerPort"));
        let taken = ours().find(|(our, ours)| name == Some(our) || number == Some(ours.to_string().as_str()));
        if let Some((our, ours)) = taken {
            let whose = name_of(spec, container).unwrap_or("?");
            let flag = if our == ADMIN_PORT { "--admin-port" } else { "--port" };
            let why = format!("its container {whose} has the port {ours} or the name {our}; give another with {flag}");
            return Err(Obstacle::Skip(why));
        }
    }
    Ok(())
}

fn no_volume_taken(spec: &Cursor<'_>, settings: &Settings) -> Result<(), Obstacle> {
    let ours = |name: &str| {
        let folder = name.strip_prefix(VOLUME);
        folder.is_some_and(|folder| {
            ["config", "state"].contains(&folder) || settings.secrets.iter().any(|(ours, _)| ours == folder)
        })
    };
    let Some(volumes) = spec.step("volumes")? else { return Ok(()) };
    match volumes.node.items().iter().find_map(|volume| name_of(spec, volume).filter(|name| ours(name))) {
        Some(name) => {
            let why = format!("it has a volume {name}, and no container {CONTAINER}; take the volume out");
            Err(Obstacle::Skip(why))
        }
        None => Ok(()),
    }
}

/// A claim is one guard's: a second pod with it would be another guard of the same target, with the same memory.
fn is_for_one_pod(object: &Cursor<'_>, kind: &Kind, settings: &Settings, has_group: bool) -> Result<(), Obstacle> {
    let claim = settings.state_claim.as_deref().unwrap_or_default();
    let in_spec = |key: &str| object.read("spec").and_then(|spec| get(object.document, spec, key));
    let skip = |why: String| Err(Obstacle::Skip(why));
    if !["Deployment", "StatefulSet", "Pod"].contains(&kind.kind) {
        return skip(format!(
            "a {} may have several pods at a time, and the claim {claim} is for one; leave --state-claim out",
            kind.kind
        ));
    }
    let replicas = in_spec("replicas").and_then(|value| value.text()).unwrap_or("1");
    if !["0", "1"].contains(&replicas) {
        return skip(format!("it has {replicas} replicas, and the claim {claim} is for one; leave --state-claim out"));
    }
    let strategy = in_spec("strategy").and_then(|strategy| get(object.document, strategy, "type"));
    if kind.kind == "Deployment" && strategy.and_then(|kind| kind.text()) != Some("Recreate") {
        return skip(
            "with a claim there is one guard, and a new pod would start beside the old one; set strategy.type: \
            Recreate"
                .to_owned(),
        );
    }
    if !has_group {
        return skip(
            "the guard does not run as root; set securityContext.fsGroup of its pods, so that it may write to the \
            claim's volume"
                .to_owned(),
        );
    }
    Ok(())
}
