//! Guards and stamps that run as their manifests say: arguments, variables, volumes, ports and probes are those that Helm
//! rendered, on a real etcd.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::helm::{Release, release, top};
use super::node::{Container, Host};
use super::pods::{Manifests, list};
use super::support::certificates::{Authority, Pair, Special};
use super::support::client;
use super::support::etcd::{Etcd, Options};
use super::support::ports;
use super::support::process::{LONG, eventually, eventually_some};
use super::support::sidecar::{assert_refused, etcd, wait_for};
use super::support::upstream::Upstream;

/// Of the guard's chart, with times that a test can wait for.
fn guard(etcd: &Etcd, target: &Upstream, port: u16) -> Release {
    let times = ["upstream.response_timeout=1s", "upstream.send_timeout=1s", "config.drain.quarantine=2s"];
    let release = release("orders-guard", "charts/epochgate").set("resource=orders");
    let release =
        release.set(format!("etcd.endpoints={{{}}}", etcd.url())).set(format!("upstream.url={}", target.url()));
    let release = release.set(format!("port={port}")).set(format!("admin.port={}", ports::free()));
    times.iter().fold(release.set("config.coordinator.lease_ttl=2s"), |release, time| release.set(time))
}

/// Of the service with the library, before a guard.
fn service(etcd: &Etcd, guard: u16) -> Release {
    let release = release("orders", "examples/kubernetes/orders");
    let release = release.set(format!("epochgate.etcd.endpoints={{{}}}", etcd.url()));
    let release = release.set(format!("epochgate.upstream.url=http://127.0.0.1:{guard}"));
    let release = release.set("epochgate.config.coordinator.lease_ttl=2s").set("epochgate.config.step_down.pause=1s");
    release.set(format!("epochgate.port={}", ports::free())).set(format!("epochgate.admin.port={}", ports::free()))
}

/// Starts our container of the only pod that serves.
#[track_caller]
fn start(host: &Host, manifests: &Manifests, name: &str) -> Container {
    let pods = manifests.serving();
    assert_eq!((pods.len(), pods[0].ours().len()), (1, 1));
    host.start(manifests, &pods[0], name, pods[0].ours()[0])
}

/// Where the service finds its stamp: the address that the sample service is given.
#[track_caller]
fn stamp_address(manifests: &Manifests) -> SocketAddr {
    let pods = manifests.serving();
    let service = list(&pods[0].spec["containers"]).iter().find(|container| container["name"] == "orders").unwrap();
    let url = list(&service["env"]).iter().find(|variable| variable["name"] == "DATABASE_URL").unwrap();
    url["value"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
}

#[track_caller]
fn await_leadership(stamp: &Container) -> String {
    let admin = stamp.port(&"eg-admin".into());
    eventually_some("it leads and is armed", LONG, || {
        let leader = client::get(admin, "/leader?resource=orders").ok().filter(|answer| answer.status == 200)?;
        Some(leader.json()["stamp"].as_str().unwrap().to_owned())
    })
}

/// A first install, and the whole life of it: a write, a failover, a reload, `helm test`, the end.
#[test]
fn a_guard_and_its_stamps() {
    let (etcd, target, mut host, port) = (etcd(), Upstream::start(), Host::new(), ports::free());
    let release = guard(&etcd, &target, port);
    let manifests = Manifests::read(&release.render());
    let mut guard = start(&host, &manifests, "orders-guard-6d4f-x7k2p");
    let service_side = guard.port(&"http".into());
    eventually("it serves", LONG, || client::get(service_side, "/a").is_ok());
    assert_refused(&client::put(service_side, "/a", "bare").unwrap(), 428, &["stamp_required"], "not_applied");
    assert_eq!(guard.probe("readinessProbe"), Some(503), "nobody was ever elected: there is nothing to admit");
    passes_its_own_test(&mut host, &manifests, &guard, "unknown");

    // Two instances are two hosts; on one each has ports of its own.
    let [one, two] = [0, 1].map(|_| Manifests::read(&service(&etcd, port).render()));
    let mut a = start(&host, &one, "orders-0");
    a.await_readiness();
    let stamp = await_leadership(&a);
    guard.await_readiness();
    assert!(stamp.contains("by=\"orders-0\""), "a writer is known by its pod: {stamp}");
    assert_eq!(client::put(stamp_address(&one), "/a", "one").unwrap().status, 200);

    let mut b = start(&host, &two, "orders-1");
    b.await_readiness();
    assert_refused(&client::put(stamp_address(&two), "/a", "two").unwrap(), 421, &["not_leader"], "not_applied");
    a.stop();
    await_leadership(&b);
    assert_eq!(client::put(stamp_address(&two), "/a", "three").unwrap().status, 200);
    let late = client::request(service_side, "PUT", "/a", &[("Fencing-Epoch", &stamp)], b"late").unwrap();
    assert_refused(&late, 412, &["stale_epoch"], "not_applied");
    let bodies: Vec<_> = target.applied().into_iter().map(|write| write.epoch()).collect();
    assert_eq!(bodies, [Some(1), Some(2)]);

    reloads(&host, &release, &guard);
    passes_its_own_test(&mut host, &manifests, &guard, "open");
    b.stop();
    guard.stop();
}

/// What is changed in the values reaches a process that runs, by the way that the kubelet changes a ConfigMap.
fn reloads(host: &Host, release: &Release, guard: &Container) {
    let listener = guard.port(&"http".into());
    assert_eq!(client::get(listener, "/a").unwrap().status, 200);
    let changed = Manifests::read(&release.clone().set("listener.fence_reads=true").render());
    let pods = changed.serving();
    host.renew(&changed, &pods[0], "orders-guard-6d4f-x7k2p", pods[0].ours()[0]);
    eventually("reads are fenced too", LONG, || client::get(listener, "/a").unwrap().status == 428);
}

/// `helm test`, also before anybody was elected; `status` shows the gate's phase.
fn passes_its_own_test(host: &mut Host, manifests: &Manifests, guard: &Container, phase: &str) {
    let admin = guard.port(&"admin".into());
    host.resolve(&format!("orders-guard-admin.shop:{}", admin.port()), &admin.to_string());
    let test = manifests.pods().into_iter().find(|pod| pod.is_test()).unwrap();
    let containers = test.ours();
    assert_eq!(containers.len(), 2);
    for container in containers {
        let mut asked = host.start(manifests, &test, "orders-guard-test", container);
        let status = asked.process.wait(LONG);
        assert!(
            status.success(),
            "{}: {status}: {}{}",
            container["name"],
            asked.process.stdout(),
            asked.process.stderr()
        );
        let name = container["name"].as_str().unwrap();
        let word = if name == "check" { "Check results: 0 failed" } else { phase };
        assert!(asked.process.stdout().contains(word), "{name}: {}", asked.process.stdout());
    }
}

/// A sole guard whose pod is killed and comes back is the same door, and goes on at once: its volume has come along.
#[test]
fn a_sole_guard_comes_back_as_the_same_door() {
    let (etcd, target, host, port) = (etcd(), Upstream::start(), Host::new(), ports::free());
    let release = guard(&etcd, &target, port).set("persistence.enabled=true").set("replicas=1");
    let manifests = Manifests::read(&release.render());
    let mut guard = start(&host, &manifests, "orders-guard-0");
    let service = Manifests::read(&service(&etcd, port).render());
    let mut stamp = start(&host, &service, "orders-0");
    await_leadership(&stamp);
    guard.await_readiness();
    assert_eq!(client::put(stamp_address(&service), "/a", "one").unwrap().status, 200);
    // Its status learns of its own record from the coordinator, a moment later.
    let mut before = Vec::new();
    eventually("the guard lists itself", LONG, || {
        before = doors(&guard);
        !before.is_empty()
    });

    guard.process.kill();
    let mut guard = start(&host, &manifests, "orders-guard-0");
    guard.await_readiness();
    eventually("it takes writes of the same epoch", LONG, || {
        client::put(stamp_address(&service), "/a", "two").is_ok_and(|answer| answer.status == 200)
    });
    eventually("it lists the same door again", LONG, || doors(&guard) == before);
    assert_eq!(before.len(), 1, "{before:?}");
    stamp.stop();
    guard.stop();
}

fn doors(guard: &Container) -> Vec<String> {
    let doors = client::get(guard.port(&"admin".into()), "/api/v1/doors").unwrap().json();
    list(&doors["doors"]).iter().map(|door| door["id"].as_str().unwrap().to_owned()).collect()
}

/// Secrets by reference, on every link: etcd asks for a certificate, the guard for the stamp's, the stamp for the guard's.
#[test]
fn secrets_are_where_the_configuration_looks() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let pair = |name: &str| authority.issue(name, name, &Special::default());
    let secret = |name: &str| secret_of(folder.path(), &authority, name, &pair(name));
    let server = folder.path().join("etcd");
    fs::create_dir(&server).unwrap();
    let own = pair("etcd");
    for (from, to) in [(Path::new(&authority.path()), "ca.pem"), (&own.cert, "server.pem"), (&own.key, "server.key")] {
        fs::copy(from, server.join(to)).unwrap();
    }
    let etcd = wait_for(Etcd::start_with(&Options { tls: Some(server), ..Options::default() }));
    let host = Host::new().secret("etcd-client", &secret("client")).secret("orders-guard-tls", &secret("guard"));
    let host = host.secret("orders-0-tls", &secret("orders-0"));
    let (target, port) = (Upstream::start(), ports::free());

    let release = guard(&etcd, &target, port).set("etcd.tls.existingSecret=etcd-client");
    let release = release.set("tls.existingSecret=orders-guard-tls").set("tls.clientCa=ca.crt");
    let manifests = Manifests::read(&release.render());
    let mut guard = start(&host, &manifests, "orders-guard-0");

    let at = "/run/secrets/epochgate/own";
    let service = service(&etcd, port).set("epochgate.etcd.tls.existingSecret=etcd-client");
    let service =
        service.set("epochgate.secretMounts.own=orders-0-tls").set(format!("epochgate.upstream.tls.ca={at}/ca.crt"));
    let service = service.set(format!("epochgate.upstream.tls.cert={at}/tls.crt"));
    let service = service.set(format!("epochgate.upstream.tls.key={at}/tls.key"));
    let service = Manifests::read(&service.set(format!("epochgate.upstream.url=https://127.0.0.1:{port}")).render());
    let mut stamp = start(&host, &service, "orders-0");
    await_leadership(&stamp);
    guard.await_readiness();
    assert_eq!(client::put(stamp_address(&service), "/a", "one").unwrap().status, 200);
    assert!(client::put(guard.port(&"http".into()), "/a", "plain").is_err(), "nobody without a certificate gets in");
    stamp.stop();
    guard.stop();
}

/// The folder of a Secret as cert-manager and `kubectl create secret tls` make it, with the authority.
fn secret_of(folder: &Path, authority: &Authority, name: &str, pair: &Pair) -> std::path::PathBuf {
    let secret = folder.join(format!("secret-{name}"));
    fs::create_dir(&secret).unwrap();
    for (from, to) in [(Path::new(&authority.path()), "ca.crt"), (&pair.cert, "tls.crt"), (&pair.key, "tls.key")] {
        fs::copy(from, secret.join(to)).unwrap();
    }
    secret
}

/// The plain manifests run too, beside each other: what they say of ports and names is what they need.
#[test]
fn the_plain_manifests_run() {
    let (etcd, target, mut host) = (etcd(), Upstream::start(), Host::new());
    let read = |name: &str| fs::read_to_string(top("examples/kubernetes/plain").join(name)).unwrap();
    let free: Vec<String> = (0..4).map(|_| ports::free().to_string()).collect();
    // Two pods on one host: each gets ports of its own. A quarantine of the default would be waited out at first.
    let short = "    drain: { quarantine: 2s }\n    resources: { orders";
    let guards = read("guard.yaml")
        .replace("9464", &free[0])
        .replace("8080", &free[1])
        .replace("    resources: { orders", short);
    let guards = guards.replace(":9000\" }", ":9000\", response_timeout: 1s, send_timeout: 1s }");
    let writers = read("writer.yaml").replace("9464", &free[2]).replace("8081", &free[3]).replace("8080", &free[1]);
    host.resolve("http://etcd:2379", etcd.url());
    host.resolve("http://orders-api:9000", &target.url());
    host.resolve("http://orders-guard:", "http://127.0.0.1:");
    let (guards, writers) = (Manifests::read(&guards), Manifests::read(&writers));

    let mut guard = start(&host, &guards, "orders-guard-1");
    let mut stamp = start(&host, &writers, "orders-1");
    await_leadership(&stamp);
    eventually("it is ready", LONG, || guard.probe("readinessProbe") == Some(200));
    assert_eq!(client::put(stamp_address(&writers), "/a", "one").unwrap().status, 200);
    stamp.stop();
    guard.stop();
}
