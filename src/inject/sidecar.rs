//! The container and its volumes. The charts write the same: `charts/epochgate-lib/templates/_container.tpl`.

use serde_json::{Value, json};

use super::CONTAINER;
use super::settings::{ADMIN_PORT, Role, Settings, VOLUME};

/// What a process may take to stop, in seconds: `shutdown.grace`, a stamp's `step_down.timeout` besides, and something.
const fn stop_seconds(role: Role) -> u64 {
    match role {
        Role::Guard => 30 + 10,
        Role::Stamp => 30 + 5 + 10,
    }
}

/// What Kubernetes takes where a pod says nothing.
const THEIRS: u64 = 30;

/// How long a pod needs to stop whose service is given `theirs`. A native sidecar is told to stop when the others have
/// ended, so it needs its time besides theirs; else all are told at once.
pub(super) fn pod_stop_seconds(settings: &Settings, theirs: Option<u64>) -> u64 {
    let (theirs, ours) = (theirs.unwrap_or(THEIRS), stop_seconds(settings.role));
    if settings.native { theirs.saturating_add(ours) } else { theirs.max(ours) }
}

/// The container.
pub(super) fn container(settings: &Settings) -> Value {
    let mut container = json!({
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["run"],
        "env": env(settings),
        "ports": ports(settings),
    });
    let rest = json!({
        // None of the probes depends on etcd: a process without it is well, and a restart would only cost it its memory.
        "startupProbe": probe("/livez", json!({"periodSeconds": 1, "failureThreshold": 120})),
        "livenessProbe": probe("/livez", json!({"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3})),
        "readinessProbe": probe("/readyz", json!({"periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 2})),
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(settings),
    });
    if settings.native {
        container["restartPolicy"] = json!("Always");
    }
    extend(&mut container, rest);
    container
}

fn env(settings: &Settings) -> Value {
    let mut env = vec![
        json!({"name": "EPOCHGATE_CONFIG", "value": "/etc/epochgate/epochgate.yaml"}),
        json!({"name": "EPOCHGATE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        // The probes and the scraping come over the pod's own address. What changes something is taken from inside only.
        json!({"name": "EPOCHGATE_ADMIN", "value": format!("0.0.0.0:{}", settings.admin_port)}),
    ];
    if settings.role == Role::Guard {
        // A folder inside the volume: epochgate makes it, for itself alone, and a disk's lost+found stays outside.
        env.push(json!({"name": "EPOCHGATE_STATE_DIR", "value": "/var/lib/epochgate/state"}));
    }
    env.into()
}

fn ports(settings: &Settings) -> Value {
    let port = |name: &str, number: u16| json!({"name": name, "containerPort": number});
    let mut ports: Vec<Value> = settings.ports.iter().map(|(name, number)| port(name, *number)).collect();
    ports.push(port(ADMIN_PORT, settings.admin_port));
    ports.into()
}

fn probe(path: &str, times: Value) -> Value {
    let mut probe = json!({"httpGet": {"path": path, "port": ADMIN_PORT}});
    extend(&mut probe, times);
    probe
}

fn mounts(settings: &Settings) -> Value {
    // The folder, not the file by subPath: only a folder shows what has changed.
    let mut mounts = vec![json!({"name": format!("{VOLUME}config"), "mountPath": "/etc/epochgate", "readOnly": true})];
    mounts.extend(settings.secrets.iter().map(|(folder, _)| {
        let path = format!("/run/secrets/epochgate/{folder}");
        json!({"name": format!("{VOLUME}{folder}"), "mountPath": path, "readOnly": true})
    }));
    if settings.role == Role::Guard {
        mounts.push(json!({"name": format!("{VOLUME}state"), "mountPath": "/var/lib/epochgate"}));
    }
    mounts.into()
}

/// The volumes of a pod. Without a group of its own for volumes, only a file that everybody may read can be read.
pub(super) fn volumes(settings: &Settings, has_group: bool) -> Vec<Value> {
    let mode = if has_group { 0o440 } else { 0o444 };
    let mut volumes = vec![json!({"name": format!("{VOLUME}config"), "configMap": {"name": settings.config_map}})];
    volumes.extend(settings.secrets.iter().map(|(folder, secret)| {
        json!({"name": format!("{VOLUME}{folder}"), "secret": {"secretName": secret, "defaultMode": mode}})
    }));
    if settings.role == Role::Guard {
        let source = match &settings.state_claim {
            Some(claim) => json!({"persistentVolumeClaim": {"claimName": claim}}),
            None => json!({"emptyDir": {"sizeLimit": "64Mi"}}),
        };
        let mut state = json!({"name": format!("{VOLUME}state")});
        extend(&mut state, source);
        volumes.push(state);
    }
    volumes
}

/// Puts the entries of one mapping behind those of the other.
fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(entries), Value::Object(more)) = (value, more) {
        entries.extend(more);
    }
}
