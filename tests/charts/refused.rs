//! Wrong values are refused, with a message that names the key.

use super::helm::{Release, release};

fn guard() -> Release {
    let guard = release("orders-guard", "charts/epochgate").set("etcd.endpoints={http://etcd:2379}");
    guard.set("upstream.url=http://orders-db:9000").set("resource=orders")
}

fn orders() -> Release {
    release("orders", "examples/kubernetes/orders")
}

fn database() -> Release {
    release("orders-db", "examples/kubernetes/orders-db")
}

/// Refuses each: what is set, and words of the message, the key first.
#[track_caller]
fn assert_refused(base: &Release, cases: &[(&[&str], &[&str])]) {
    base.render();
    for (set, words) in cases {
        let complaint = set.iter().fold(base.clone(), |release, value| release.set(value)).refusal();
        for word in *words {
            assert!(complaint.contains(word), "{set:?}: no `{word}` in: {complaint}");
        }
    }
}

/// What the schema says no to. Helm writes a path with slashes: `at '/image/tag'`.
#[test]
fn by_the_schema() {
    assert_refused(
        &guard(),
        &[
            (&["mode=enfroce"], &["/mode", "'enforce', 'audit'"]),
            (&["repicas=3"], &["'repicas'"]),
            (&["replicas=two"], &["/replicas", "integer"]),
            (&["protocol=mysql"], &["/protocol", "'postgres'"]),
            (&["port=70000"], &["/port", "65,535"]),
            (&["resource=Orders"], &["/resource"]),
            (&["etcd.endpoints={etcd:2379}"], &["/etcd/endpoints/0"]),
            (&["etcd.tls.secret=x"], &["/etcd/tls", "'secret'"]),
            (&["upstream.ulr=http://x"], &["/upstream", "'ulr'"]),
            (&["upstream.url=orders-db"], &["/upstream/url"]),
            (&["upstream.response_timeout=30"], &["/upstream/response_timeout"]),
            (&["listener.listen=:8080"], &["/listener", "'listen'"]),
            (&["listener.fence_reads=maybe"], &["/listener/fence_reads", "boolean"]),
            (&["listeners.db.listen=:5432"], &["/listeners/db", "'upstream'"]),
            (&["config.drain.quarantien=5s"], &["/config/drain", "'quarantien'"]),
            (&["config.log.level=loud"], &["/config/log/level"]),
            (&["persistence.accessMode=ReadWriteMany"], &["/persistence/accessMode", "'ReadWriteOncePod'"]),
            (&["image.digest=latest"], &["/image/digest"]),
            (&["secretMounts.Control=x"], &["/secretMounts", "Control"]),
            (&["networkPolicy.target.ports={0}"], &["/networkPolicy/target/ports/0"]),
            (&["probes.readinessPath=/metrics"], &["/probes/readinessPath"]),
            (&["fullnameOverride=Orders"], &["/fullnameOverride"]),
            (&["podSpec.hostNetwork=true"], &["/podSpec", "'hostNetwork'"]),
            (&["service.spec.selector.app=x"], &["/service/spec"]),
            (&["admission.enabeld=true"], &["/admission", "'enabeld'"]),
            (&["admission.guard.configMap="], &["/admission/guard/configMap"]),
        ],
    );
}

/// What contradicts itself, or is missing.
#[test]
fn by_the_chart() {
    assert_refused(
        &guard(),
        &[
            (&["etcd.endpoints=null"], &["etcd.endpoints: name the members"]),
            (&["upstream.url="], &["upstream.url: name the target"]),
            (&["resource="], &["resource: name what is fenced"]),
            (
                &["resource=", "config.resources.orders.hold.timeout=5s"],
                &["resource: name it, or write listener.rules"],
            ),
            (&["config.id=me"], &["config.id: it is the pod's name"]),
            (&["config.state_dir=/tmp"], &["config.state_dir: it is where the volume is"]),
            (&["config.listeners={}"], &["config.listeners: write them under listeners"]),
            (&["config.coordinator.etcd.endpoints={http://x:1}"], &["config.coordinator.etcd: write it under etcd"]),
            (&["config.coordinator.embedded=/x"], &["config.coordinator.embedded: is for the processes of one host"]),
            (
                &["config.coordinator.prefix=/a/", "etcd.prefix=/b/"],
                &["config.coordinator.prefix: stands in etcd.prefix"],
            ),
            (&["config.admin.listen=:1"], &["config.admin.listen: write admin.port"]),
            (&["etcd.endpoints={https://etcd:2379}"], &["etcd.tls.existingSecret: https://etcd:2379 needs it"]),
            (&["etcd.tls.existingSecret=x"], &["etcd.endpoints: http://etcd:2379 is not encrypted"]),
            (&["etcd.user.name=guard"], &["etcd.user.existingSecret: name the Secret"]),
            (&["etcd.user.existingSecret=x"], &["etcd.user.name: name the user"]),
            (
                &["tls.existingSecret=x", "listener.tls.cert=a", "listener.tls.key=b"],
                &["listener.tls: stands in tls too"],
            ),
            (&["secretMounts.tls=x"], &["secretMounts.tls: the chart uses this folder itself"]),
            (&["persistence.enabled=true"], &["replicas: is 2, and persistence.enabled makes a sole guard"]),
            (&["persistence.existingClaim=x"], &["persistence.existingClaim: is set, and persistence.enabled is not"]),
            (&["listener.on_coordinator_loss=keep"], &["listener.on_coordinator_loss: keep is for a sole guard"]),
            (&["listener.doors=sole"], &["listener.doors: is shared: persistence.enabled decides it"]),
            (&["persistence.enabled=true", "replicas=1", "listener.doors=shared"], &["listener.doors: is sole"]),
            (&["port=9464"], &["port: 9464 is taken by admin.port"]),
            (
                &["listeners.db.listen=:8080", "listeners.db.upstream.url=http://x"],
                &["listeners.db.listen: 8080 is taken by port"],
            ),
            (&["terminationGracePeriodSeconds=30"], &["terminationGracePeriodSeconds: is 30", "at least 40"]),
            (
                &["config.shutdown.grace=2m", "terminationGracePeriodSeconds=125"],
                &["terminationGracePeriodSeconds: is 125", "at least 130"],
            ),
            (&["networkPolicy.target.enabled=true"], &["networkPolicy.target.podSelector: say which pods"]),
            (
                &[
                    "networkPolicy.target.enabled=true",
                    "networkPolicy.target.podSelector.app=db",
                    "upstream.url=unix:/run/db.sock",
                ],
                &["networkPolicy.target.ports: name the target's ports"],
            ),
            (&["podDisruptionBudget.minAvailable=1"], &["podDisruptionBudget.minAvailable: excludes maxUnavailable"]),
            (
                &["listeners.s.role=stamp", "listeners.s.listen=:9001", "listeners.s.upstream.url=http://x"],
                &["listeners.s.role: is stamp, and this is a guard"],
            ),
            (&["admin.bind=127.0.0.1"], &["admin.bind: is this pod's own"]),
            (
                &["extraVolumes.x.emptyDir.medium=Memory", "extraVolumeMounts.x.mountPath=/var/lib/epochgate/state"],
                &["extraVolumeMounts.x.mountPath: is a folder of the chart's own"],
            ),
            (&["secretMounts.state=x"], &["secretMounts.state: the chart uses this folder itself"]),
            (&["podLabels.epochgate\\.dev/role=x"], &["podLabels.epochgate.dev/role: is what"]),
            (&["tls.clientCa=ca.crt"], &["tls.clientCa: needs tls.existingSecret"]),
            (&["protocol=redis"], &["upstream.url: is http://orders-db:9000, and protocol is redis"]),
            (&["extraEnv.EPOCHGATE_ID=x"], &["extraEnv.EPOCHGATE_ID: would go over what the chart says"]),
            (&["extraArgs={--embedded=/tmp}"], &["extraArgs: --embedded=/tmp would go over what the chart says"]),
            (&["extraVolumeMounts.x.mountPath=/x"], &["extraVolumeMounts.x: there is no such volume"]),
            (&["podLabels.app\\.kubernetes\\.io/name=x"], &["podLabels.app.kubernetes.io/name: is what"]),
            (&["commonLabels.app\\.kubernetes\\.io/instance=x"], &["commonLabels.app.kubernetes.io/instance: is what"]),
            (&["prometheusRule.disabled.NoLeader=true"], &["prometheusRule.disabled.NoLeader: there is no such alert"]),
            (&["prometheusRule.for.NoLeader=1m"], &["prometheusRule.for.NoLeader: there is no such alert"]),
            (
                &["admission.enabled=true", "admission.guard.secretMounts.state=x"],
                &["admission.guard.secretMounts.state: the chart uses this folder itself"],
            ),
        ],
    );
    let policies = guard().set("admission.enabled=true");
    assert_refused(&policies.clone().kubernetes("1.34"), &[]);
    assert!(policies.clone().kubernetes("1.33").refusal().contains("admission.mutate: Kubernetes v1.33"));
    let without_mutation = policies.set("admission.mutate=false");
    assert_refused(&without_mutation.clone().kubernetes("1.30"), &[]);
    assert!(without_mutation.kubernetes("1.29").refusal().contains("admission.enabled: Kubernetes v1.29"));
}

/// In the chart of a service the key begins with where the settings stand.
#[test]
fn by_the_library() {
    assert_refused(
        &orders(),
        &[
            (&["epochgate.role=router"], &["epochgate", "/role"]),
            (&["epochgate.resorce=orders"], &["'resorce'"]),
            (&["epochgate.upstream.url="], &["epochgate.upstream.url: name the guard"]),
            (&["epochgate.etcd.endpoints=null"], &["epochgate.etcd.endpoints: name the members"]),
            (&["epochgate.persistence.enabled=true"], &["epochgate.persistence.enabled: a stamp keeps nothing"]),
            (&["epochgate.mode=audit"], &["epochgate.mode: is a guard's"]),
            (&["epochgate.advertise=http://x:8081"], &["epochgate.advertise: names an address for others"]),
            (
                &[
                    "epochgate.advertise=http://x:8081",
                    "epochgate.bind=0.0.0.0",
                    "epochgate.listeners.b.listen=:8082",
                    "epochgate.listeners.b.upstream.url=http://x",
                ],
                &["epochgate.advertise: is for a stamp with one listener"],
            ),
            (&["epochgate.config.id=orders"], &["epochgate.config.id: it is the pod's name"]),
            (&["epochgate.port=8080"], &["epochgate.port: the container orders has the port 8080 too"]),
            (&["epochgate.admin.port=8080"], &["epochgate.admin.port: the container orders has the port 8080 too"]),
        ],
    );
    let old = orders().kubernetes("1.28").refusal();
    assert!(old.contains("epochgate.nativeSidecar: Kubernetes v1.28 has no native sidecars"), "{old}");
    orders().kubernetes("1.28").set("epochgate.nativeSidecar=false").render();

    assert_refused(
        &database(),
        &[
            (&["replicas=3"], &["epochgate.persistence.enabled: makes a sole guard", "has 3 replicas"]),
            (&["fsGroup=null"], &["epochgate.persistence.enabled: the guard does not run as root", "fsGroup"]),
        ],
    );
    // Shared ones may be as many as the pods are.
    database().set("replicas=3").set("epochgate.persistence.enabled=false").render();
}
