//! No secret comes out: real processes with a recognisable secret in every place that can hold one, failures provoked,
//! at the most talkative log level, and then everything that came out is searched.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use support::client;
use support::etcd::{Etcd, Options, certificates};
use support::process::{LONG, Launch, Process, eventually};
use support::sidecar::{Setup, Sidecar, guard, stamp, wait_for};
use support::upstream::Upstream;

/// What must not come out, each in its own place.
const PASSWORD: &str = "tell-nobody-the-password";
const WRONG_PASSWORD: &str = "tell-nobody-the-wrong-one";
const IN_A_URL: &str = "tell-nobody-the-url";
const INLINE: &str = "tell-nobody-the-inline";
const IN_THE_ENVIRONMENT: &str = "tell-nobody-the-environment";
const ARGUMENT: &str = "tell-nobody-the-argument";
const AUTHORIZATION: &str = "tell-nobody-the-authorization";
const COOKIE: &str = "tell-nobody-the-cookie";
const QUERY: &str = "tell-nobody-the-query";
const BODY: &str = "tell-nobody-the-body";
/// All of them.
const MARK: &str = "tell-nobody";

/// Everything that came out, by where.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    fn add(&mut self, whence: &str, text: String) {
        self.0.push((whence.to_owned(), text));
    }

    fn process(&mut self, whence: &str, process: &Process) {
        self.add(&format!("{whence}'s standard output"), process.stdout());
        self.add(&format!("{whence}'s standard error"), process.stderr());
    }

    /// Every file below a folder: state, history, audit, but not the configuration, which may name what it likes.
    fn files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.files(&path);
            } else if !path.ends_with("epochgate.yaml") {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
                self.add(&path.display().to_string(), text);
            }
        }
    }

    fn admin(&mut self, sidecar: &Sidecar) {
        for path in
            ["/", "/metrics", "/livez", "/readyz?verbose", "/leader?resource=orders", "/api/v1/status", "/api/v1/doors"]
        {
            let answer = client::get(sidecar.admin, path).unwrap();
            assert!(!answer.body.is_empty(), "{path}");
            self.add(&format!("{} of {}", path, sidecar.id), format!("{:?}\n{}", answer.headers, answer.text()));
        }
    }

    /// Nothing of `secrets` is in it, nor of what is marked.
    #[track_caller]
    fn assert_silent(&self, secrets: &[String]) {
        for (whence, text) in &self.0 {
            let told =
                std::iter::once(MARK).chain(secrets.iter().map(String::as_str)).find(|secret| text.contains(secret));
            let line = |secret: &str| text.lines().find(|line| line.contains(secret)).unwrap_or_default().to_owned();
            assert!(told.is_none(), "{whence} tells {}: {}", told.unwrap(), line(told.unwrap()));
        }
    }
}

/// An etcd with authentication over TLS, and what it takes to be its user.
struct Cluster {
    etcd: Etcd,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), "ca", &["server", "client"]);
        // A login each second, so that a changed password shows at once.
        let flags = ["--auth-token-ttl", "1"].map(str::to_owned).to_vec();
        let tls = Some(folder.path().to_owned());
        let etcd = wait_for(Etcd::start_with(&Options { tls, flags, ..Options::default() }));
        let cluster = Cluster { etcd, folder };
        for command in [
            &["user", "add", "root:root"][..],
            &["user", "grant-role", "root", "root"],
            &["user", "add", &format!("epochgate:{PASSWORD}")],
            &["role", "add", "all"],
            &["role", "grant-permission", "all", "readwrite", "--prefix=true", "/epochgate/v1/"],
            &["user", "grant-role", "epochgate", "all"],
            &["auth", "enable"],
        ] {
            cluster.etcdctl(command);
        }
        cluster.give(PASSWORD);
        fs::set_permissions(cluster.at("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
        cluster
    }

    fn etcdctl(&self, args: &[&str]) {
        let (ca, cert, key) = (self.at("ca.pem"), self.at("client.pem"), self.at("client.key"));
        let launch = Launch::program("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", self.etcd.url()]);
        let mut ran = launch.arg("--cacert").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key).args(args).run(LONG);
        assert!(ran.wait(LONG).success(), "{args:?}: {}", ran.recent());
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn give(&self, password: &str) {
        fs::write(self.at("password"), password).unwrap();
        fs::set_permissions(self.at("password"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn run_as_user(&self, setup: Setup) -> Setup {
        let at = |name: &str| self.at(name).display().to_string();
        let (ca, cert, key, password) = (at("ca.pem"), at("client.pem"), at("client.key"), at("password"));
        let tls = format!("tls: {{ ca: {ca}, cert: {cert}, key: {key} }}");
        let user = format!("user: {{ name: epochgate, password_file: {password} }}");
        let etcd = format!("etcd: {{ endpoints: [\"{}\"], {tls}, {user} }}", self.etcd.url());
        setup
            .top(&format!("coordinator: {{ {etcd}, lease_ttl: 2s, verify_every: 250ms }}"))
            .top("log: { format: text, level: trace }")
    }
}

/// The lines of the private key.
fn key_lines(folder: &Path) -> Vec<String> {
    let key = fs::read_to_string(folder.join("client.key")).unwrap();
    let lines: Vec<String> =
        key.lines().filter(|line| line.len() > 20 && !line.starts_with('-')).map(str::to_owned).collect();
    assert!(!lines.is_empty());
    lines
}

/// Its log goes to a file: at this level it is longer than what is kept of a process' output.
fn start(sidecar: &mut Sidecar) {
    let log = log(sidecar).display().to_string();
    let launch = sidecar.launch().env("ORCHESTRATOR_TOKEN", IN_THE_ENVIRONMENT);
    sidecar.start_by(launch.under("sh", &["-c", "exec \"$@\" 2>>\"$0\"", &log]));
}

fn log(sidecar: &Sidecar) -> PathBuf {
    sidecar.config().with_file_name("log")
}

fn has_logged(sidecar: &Sidecar, words: &str) -> bool {
    fs::read_to_string(log(sidecar)).is_ok_and(|log| log.contains(words))
}

#[track_caller]
fn await_log(sidecar: &Sidecar, words: &str) {
    eventually(&format!("{} logs {words:?}", sidecar.id), LONG, || has_logged(sidecar, words));
}

/// A request with a secret in every part that may hold one.
fn send(to: SocketAddr, method: &str, stamp: Option<&str>, more: &[(&str, &str)]) -> u16 {
    let bearer = format!("Bearer {AUTHORIZATION}");
    let cookie = format!("session={COOKIE}");
    let mut fields = vec![("Authorization", bearer.as_str()), ("Cookie", cookie.as_str())];
    fields.extend(stamp.map(|stamp| ("Fencing-Epoch", stamp)));
    fields.extend_from_slice(more);
    let path = format!("/orders/1?token={QUERY}");
    client::request(to, method, &path, &fields, BODY.as_bytes()).map_or(0, |answer| answer.status)
}

/// A guard whose drain only its fence action could end, and that fails.
fn guarded(cluster: &Cluster, target: &Upstream) -> Sidecar {
    let command = format!("command: [sh, -c, \"echo what the action said; exit 1\", \"{ARGUMENT}\"], timeout: 1s");
    let setup = guard("guard-1", cluster.etcd.url(), &target.url())
        .top(&format!("resources: {{ orders: {{ fence_action: {{ {command} }} }} }}"))
        .top("drain: { timeout: 200ms, quarantine: 2s, by_time: false }");
    let mut guard = cluster.run_as_user(setup).prepare();
    start(&mut guard);
    guard
}

#[test]
fn no_secret_comes_out_of_a_process() {
    let cluster = Cluster::start();
    let target = Upstream::start();
    let mut guard = guarded(&cluster, &target);
    let writer = |id| {
        let mut writer = cluster.run_as_user(stamp(id, cluster.etcd.url(), guard.address)).prepare();
        start(&mut writer);
        writer
    };
    let mut a = writer("orders-a");
    let first = a.await_leadership();
    let mut b = writer("orders-b");
    let mut heard = Heard::default();

    // What goes well, and what is refused: for its stamp, its form, its time.
    for (to, method, stamp, more, status) in [
        (a.address, "PUT", None, &[][..], 200),
        (a.address, "GET", None, &[], 200),
        (guard.address, "PUT", None, &[], 428),
        (guard.address, "PUT", Some("7 of 9"), &[], 400),
        (guard.address, "PUT", Some("900000;nonce=:AAAAAAAAAAA=:"), &[], 412),
        (guard.address, "PUT", None, &[("Transfer-Encoding", "nonsense")], 400),
        (a.address, "PUT", Some(first.as_str()), &[], 400),
        (a.address, "PUT", None, &[("X-Upstream", "status=500")], 500),
        (a.address, "PUT", None, &[("X-Upstream", "close")], 502),
        // It ends in no answer, so that the next handoff waits, and the fence action runs.
        (a.address, "PUT", None, &[("X-Upstream", "answer=@never")], 504),
    ] {
        assert_eq!(send(to, method, stamp, more), status, "{method} {stamp:?} {more:?}");
    }
    assert!(a.operate(&["step-down", "--resource", "orders"]).wait(LONG).success());
    await_log(&guard, "the fence action failed");
    assert!(has_logged(&guard, "what the action said"), "its output goes where the log goes");
    assert_eq!(send(guard.address, "PUT", Some(&first), &[]), 412);
    [&guard, &a, &b].into_iter().for_each(|sidecar| heard.admin(sidecar));
    for args in [&["status"][..], &["status", "-o", "json"], &["doors", "list"]] {
        heard.process("an operator's command", &guard.operate(args));
    }

    // An etcd that is away, and a password that is refused at the next login: said, and not shown.
    let Cluster { mut etcd, folder } = cluster;
    etcd.kill();
    eventually("the guard says that etcd is away", LONG, || guard.readiness().text().contains("[!] coordinator"));
    heard.admin(&guard);
    fs::write(folder.path().join("password"), WRONG_PASSWORD).unwrap();
    wait_for(etcd.restart());
    for sidecar in [&guard, &b] {
        await_log(sidecar, "authentication failed, invalid user ID or password");
        heard.admin(sidecar);
    }
    heard.process("check", &check(guard.config()));
    let fence = Launch::epochgate("fence").args(["fence", "--resource", "orders", "-c"]).arg(guard.config()).run(LONG);
    assert!(fence.has_said("authentication failed"), "{}", fence.recent());
    heard.process("fence", &fence);

    for sidecar in [&mut a, &mut b, &mut guard] {
        sidecar.process().terminate();
        sidecar.process().wait(LONG);
        assert!(has_logged(sidecar, "TRACE"), "it was asked to say everything");
        assert!(has_logged(sidecar, "coordinator.etcd.tls.key"), "it warns of the key that all can read");
        assert!(!has_logged(sidecar, "key=\"coordinator.etcd.user.password_file\""), "and of nothing else");
        heard.process(&sidecar.id.clone(), sidecar.process());
        heard.files(sidecar.config().parent().unwrap());
    }
    heard.assert_silent(&key_lines(folder.path()));
    assert!(heard.0.iter().any(|(whence, text)| whence.ends_with("audit.jsonl") && text.contains("/orders/1")));
}

fn check(config: &Path) -> Process {
    Launch::epochgate("check").args(["check", "-c"]).arg(config).run(LONG)
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("epochgate.yaml");
    let mut heard = Heard::default();
    let good = "http://127.0.0.1:1";
    let urls = ["http://root:{}@host:2379", "root:{}@host:2379", "host//root:{}@host", "postgres://root:{}@host:99999"];
    for url in urls.map(|url| url.replace("{}", IN_A_URL)) {
        let text = |etcd: &str, upstream: &str, more: &str| {
            format!(
                "resources: {{ orders: {{}} }}\ncoordinator: {{ etcd: {{ endpoints: [\"{etcd}\"] }} }}\nlisteners: [{{ name: g, \
                 role: guard, protocol: http, listen: \":1\", upstream: {{ url: \"{upstream}\" }}, resource: orders }}]\n{more}"
            )
        };
        let inline = format!("password: {INLINE}\nadmin: {{ password: {INLINE} }}\n");
        // One that is no YAML either, where the secret is.
        let broken = format!("password: \"{INLINE}\n  : [");
        for text in [text(&url, good, ""), text(good, &url, ""), text(good, good, &inline), text(good, good, &broken)] {
            fs::write(&config, text).unwrap();
            for process in [check(&config), Launch::epochgate("run").args(["run", "-c"]).arg(&config).run(LONG)] {
                assert!(!process.stderr().is_empty());
                heard.process("a configuration that is refused", &process);
            }
        }
        let flags = ["guard", "--listen", "127.0.0.1:0", "--resource", "orders"];
        for (etcd, upstream) in [(url.as_str(), good), (good, url.as_str())] {
            let told = Launch::epochgate("guard").args(flags).args(["--etcd", etcd, "--upstream", upstream]);
            heard.process("flags that are refused", &told.run(LONG));
            let told =
                Launch::epochgate("guard").args(flags).env("EPOCHGATE_ETCD", etcd).env("EPOCHGATE_UPSTREAM", upstream);
            heard.process("variables that are refused", &told.run(LONG));
        }
        let fence = Launch::epochgate("fence").args(["fence", "--resource", "orders", "--etcd", &url]);
        heard.process("fence", &fence.run(LONG));
    }
    heard.assert_silent(&[]);
    assert!(heard.0.iter().filter(|(_, text)| text.contains("user or password")).count() > 20, "and it is said why");
}
