//! Least privilege in etcd: with the roles of `docs/etcd.md`, made by the very commands of that page, a guard and two
//! writers run a whole failover; and what the roles are to forbid, etcd refuses.
//!
//! Over TLS with client certificates. The guard and A log in by a password; B is who its certificate says.

mod support;

use std::fs;
use std::path::Path;

use support::etcd::{Etcd, Options, certificates};
use support::process::{LONG, Launch, Process, eventually};
use support::sidecar::{Setup, Sidecar, assert_refused, epoch_of, guard, stamp, wait_for};
use support::upstream::Upstream;

const PREFIX: &str = "/epochgate/v1/";

/// An etcd with authentication on, and the users of the page.
struct Cluster {
    etcd: Etcd,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // The common name of a certificate is a user to etcd: `nobody` is none of the page's.
        certificates(folder.path(), "ca", &["server", "nobody", "orders-stamp"]);
        let tls = Some(folder.path().to_owned());
        // Each command logs in anew, and the cost of that is no matter of this test.
        let flags = vec!["--bcrypt-cost".to_owned(), "4".to_owned()];
        let etcd = wait_for(Etcd::start_with(&Options { tls, flags, ..Options::default() }));
        let cluster = Cluster { etcd, folder };
        let commands = commands_of_the_page();
        assert!(commands.len() >= 35, "the page has all its commands: {commands:?}");
        // Turning it on ends the rights of whoever goes on making roles.
        let (on, before): (Vec<_>, Vec<_>) = commands.into_iter().partition(|command| command == "etcdctl auth enable");
        for command in before.iter().chain(&on) {
            // Typed at the prompt; here behind a colon.
            let words = command.split_whitespace().skip(1).map(str::to_owned);
            let asks = command.starts_with("etcdctl user add ");
            let words =
                words.enumerate().map(|(at, word)| if asks && at == 2 { format!("{word}:{word}-pw") } else { word });
            let mut ran = cluster.etcdctl().args(words).run(LONG);
            assert!(ran.wait(LONG).success(), "{command}: {}", ran.recent());
        }
        for user in ["orders-guard", "orders-stamp", "orders-fence", "shop-guard", "shop-stamp"] {
            fs::write(cluster.folder.path().join(format!("{user}.password")), format!("{user}-pw\n")).expect("written");
        }
        cluster
    }

    fn etcdctl(&self) -> Launch {
        let at = |name: &str| self.folder.path().join(name);
        let launch = Launch::program("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", self.etcd.url()]);
        launch.arg("--cacert").arg(at("ca.pem")).arg("--cert").arg(at("nobody.pem")).arg("--key").arg(at("nobody.key"))
    }

    /// etcdctl with a user's credentials.
    #[track_caller]
    fn as_user(&self, user: &str, args: &[&str]) -> Process {
        self.etcdctl().arg(format!("--user={user}:{user}-pw")).args(args).run(LONG)
    }

    #[track_caller]
    fn put(&self, user: &str, key: &str, value: &str) {
        let mut put = self.as_user(user, &["put", key, value]);
        assert!(put.wait(LONG).success(), "{user} may put {key}: {}", put.recent());
    }

    /// Neither a put nor a deletion of that key is this user's to make.
    #[track_caller]
    fn assert_forbidden(&self, user: &str, key: &str) {
        let key = format!("{PREFIX}{key}");
        for args in [&["put", &key, "{}"][..], &["del", &key], &["del", "--prefix", &key]] {
            let mut tried = self.as_user(user, args);
            assert!(!tried.wait(LONG).success(), "{user} may not {args:?}");
            assert!(tried.stderr().contains("permission denied"), "{user}: {args:?}: {}", tried.recent());
        }
    }

    /// The value of a key, as root sees it.
    fn value(&self, key: &str) -> String {
        let key = format!("{PREFIX}{key}");
        self.as_user("root", &["get", &key, "--print-value-only"]).stdout()
    }

    /// Where epochs live, for a process that is this user: by a password, or by its certificate's name.
    fn coordinator(&self, user: &str, by_certificate: bool) -> String {
        let at = |name: String| self.folder.path().join(name).display().to_string();
        let name = if by_certificate { user } else { "nobody" };
        let tls = format!(
            "tls: {{ ca: {}, cert: {}, key: {} }}",
            at("ca.pem".to_owned()),
            at(format!("{name}.pem")),
            at(format!("{name}.key"))
        );
        let login = format!(", user: {{ name: {user}, password_file: {} }}", at(format!("{user}.password")));
        let login = if by_certificate { "" } else { &login };
        let url = self.etcd.url();
        format!(
            "coordinator: {{ etcd: {{ endpoints: [\"{url}\"], {tls}{login} }}, lease_ttl: 2s, verify_every: 250ms }}"
        )
    }

    fn run_as(&self, user: &str, setup: Setup) -> Setup {
        setup.top(&self.coordinator(user, false))
    }
}

/// Every `etcdctl role`, `user` and `auth` command of the page, in order.
fn commands_of_the_page() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/etcd.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let setting_up = ["etcdctl role ", "etcdctl user ", "etcdctl auth "];
    let lines = page.lines().filter(|line| setting_up.iter().any(|begin| line.starts_with(begin)));
    lines.map(str::to_owned).collect()
}

/// The last epoch of `orders`, as etcd has it.
fn epoch(cluster: &Cluster) -> u64 {
    let record: serde_json::Value = serde_json::from_str(&cluster.value("epochs/orders")).expect("a record");
    record["epoch"].as_str().expect("an epoch").parse().expect("a number")
}

#[test]
fn a_failover_needs_no_more_and_etcd_refuses_the_rest() {
    let cluster = Cluster::start();
    let target = Upstream::start();
    let url = cluster.etcd.url();
    let mut guard = cluster.run_as("orders-guard", guard("guard-1", url, &target.url())).start();
    let mut a = cluster.run_as("orders-stamp", stamp("orders-a", url, guard.address)).start();
    let first = a.await_leadership();
    assert_eq!(a.put("/orders/1", "of A").status, 200);
    let by_certificate = cluster.coordinator("orders-stamp", true);
    let b = stamp("orders-b", url, guard.address).top(&by_certificate).start();

    // A vanishes; B takes over, and A's stamp is worth nothing any more.
    a.kill();
    let second = b.await_leadership();
    assert!(epoch_of(&second) > epoch_of(&first));
    assert_eq!(b.put("/orders/2", "of B").status, 200);
    assert_refused(&guard.put_stamped("/orders/1", "late", &first), 412, &["stale_epoch"], "not_applied");
    // Back in order: a step-down, and a stop that takes the lease's keys back.
    a.start();
    eventually("A is a candidate", LONG, || !cluster.value("candidates/orders/orders-a").is_empty());
    assert!(b.operate(&["step-down", "--resource", "orders"]).wait(LONG).success());
    a.await_leadership();

    guards_cannot_mint(&cluster, &guard);
    writers_cannot_touch_another(&cluster, &guard);
    shards_are_granted_by_prefix(&cluster);
    operators_need_what_the_page_says(&cluster, &guard, &a);
    check_says_what_is_too_wide_and_what_is_missing(&cluster, &guard, &a, &b);

    // A guard that stops in order takes its own record back, and the place is free for the next.
    let record = format!("doors/orders/{}", guard.door());
    assert!(!cluster.value(&record).is_empty());
    guard.process().terminate();
    assert!(guard.process().wait(LONG).success());
    assert_eq!(cluster.value(&record), "");

    // Without authentication, the rest is worth nothing.
    let mut off = cluster.as_user("root", &["auth", "disable"]);
    assert!(off.wait(LONG).success(), "{}", off.recent());
    for sidecar in [&guard, &b] {
        let [(result, words)] = checked(sidecar).try_into().expect("one finding");
        assert!(result == "warning" && words.contains("authentication is off"), "{words}");
    }
}

/// What `epochgate check` finds of the privileges of a process' user, with its hints.
#[track_caller]
fn checked(sidecar: &Sidecar) -> Vec<(String, String)> {
    let check = Launch::epochgate("check").args(["check", "-o", "json", "-c"]).arg(sidecar.config());
    let report: serde_json::Value = serde_json::from_str(&check.run(LONG).stdout()).expect("JSON");
    let categories = report["categories"].as_array().expect("categories");
    let found = categories.iter().find(|category| category["name"] == "etcd privileges").expect("the category");
    let checks = found["checks"].as_array().expect("findings");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    checks
        .iter()
        .map(|check| (text(&check["result"]), format!("{}; {}", text(&check["what"]), text(&check["hint"]))))
        .collect()
}

/// What is granted too much, or not at all, is found; and what the hint says mends it.
fn check_says_what_is_too_wide_and_what_is_missing(cluster: &Cluster, guard: &Sidecar, a: &Sidecar, b: &Sidecar) {
    let passes = |sidecar: &Sidecar| {
        let [(result, words)] = checked(sidecar).try_into().expect("one finding");
        assert!(result == "ok" && words.contains("and nothing else"), "{words}");
    };
    [guard, a, b].into_iter().for_each(passes);
    let role = |command: &str| {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let mut done = cluster.as_user("root", &words);
        assert!(done.wait(LONG).success(), "{command}: {}", done.recent());
    };
    let in_the_hint = |words: &str| {
        let from = words.find("etcdctl role ").expect("the hint has a command");
        words[from..].to_owned()
    };
    for (sidecar, role_name, keys, worth) in [
        (guard, "guard-orders", "/epochgate/v1/epochs/orders", "could mint epochs;"),
        (guard, "guard-orders", "--prefix=true /epochgate/v1/doors/", "could declare doors dead;"),
        (a, "stamp-orders", "--prefix=true /epochgate/v1/epochs/", "could mint epochs;"),
        (b, "stamp-orders", "--from-key=true /", "take a leader's place"),
    ] {
        role(&format!("etcdctl role grant-permission {role_name} write {keys}"));
        let [(result, words)] = checked(sidecar).try_into().expect("one finding");
        assert!(result == "warning" && words.contains(worth), "{words}");
        role(&in_the_hint(&words));
        passes(sidecar);
    }
    role("etcdctl role revoke-permission stamp-orders /epochgate/v1/leaders/orders");
    let [(result, words)] = checked(a).try_into().expect("one finding");
    assert!(result == "failed" && words.contains("may not write /epochgate/v1/leaders/orders"), "{words}");
    role(&in_the_hint(&words));
    passes(a);
    // root itself, which needs no role's grants.
    role("etcdctl user grant-role orders-stamp root");
    let [(result, words)] = checked(a).try_into().expect("one finding");
    assert!(result == "warning" && words.contains("has the role root"), "{words}");
    let [(result, words)] = checked(b).try_into().expect("one finding");
    assert!(result == "warning" && words.contains("is root"), "{words}");
    role("etcdctl user revoke-role orders-stamp root");
}

/// The guard's password in the wrong hands.
fn guards_cannot_mint(cluster: &Cluster, guard: &Sidecar) {
    let before = epoch(cluster);
    for key in [
        "epochs/orders",
        "epochs/billing",
        "epochs/orders%2F7",
        "leaders/orders",
        "candidates/orders/orders-a",
        "candidates/orders/thief",
        "doors/billing/thief",
        "doors/orders2/thief",
        "reports/billing/orders/thief",
        "reports/orders/billing/thief",
        "elsewhere",
    ] {
        cluster.assert_forbidden("orders-guard", key);
    }
    let mut outside = cluster.as_user("orders-guard", &["get", "/other/key"]);
    assert!(!outside.wait(LONG).success() && outside.stderr().contains("permission denied"), "{}", outside.recent());
    // As one transaction too, with a condition that holds.
    let txn = Launch::program("sh").args([
        "-c",
        "printf 'ver(\"x\") = \"0\"\\n\\nput /epochgate/v1/epochs/orders {}\\n\\n\\n' | \"$@\"",
        "sh",
    ]);
    let mut txn =
        txn.arg(support::process::program("etcdctl")).args(etcdctl_args(cluster, "orders-guard")).arg("txn").run(LONG);
    assert!(!txn.wait(LONG).success() && txn.stderr().contains("permission denied"), "{}", txn.recent());
    assert_eq!(epoch(cluster), before, "nothing was minted");
    assert_eq!(guard.phase(), "open");
    // Nor can it end a writer's lease: that would delete keys that are not its own.
    let leader = cluster.as_user("root", &["get", &format!("{PREFIX}leaders/orders"), "-w", "json"]).stdout();
    let leader: serde_json::Value = serde_json::from_str(&leader).expect("JSON");
    let lease = format!("{:x}", leader["kvs"][0]["lease"].as_i64().expect("a lease"));
    let mut revoked = cluster.as_user("orders-guard", &["lease", "revoke", &lease]);
    assert!(!revoked.wait(LONG).success(), "{}", revoked.recent());
    assert!(revoked.stderr().contains("permission denied"), "{}", revoked.recent());
}

fn etcdctl_args(cluster: &Cluster, user: &str) -> Vec<String> {
    let at = |name: &str| cluster.folder.path().join(name).display().to_string();
    let pairs = [("--cacert", at("ca.pem")), ("--cert", at("nobody.pem")), ("--key", at("nobody.key"))];
    let mut args: Vec<String> = pairs.into_iter().flat_map(|(flag, file)| [flag.to_owned(), file]).collect();
    args.extend(["--endpoints".to_owned(), cluster.etcd.url().to_owned(), format!("--user={user}:{user}-pw")]);
    args
}

/// A writer's password in the wrong hands.
fn writers_cannot_touch_another(cluster: &Cluster, guard: &Sidecar) {
    let door = guard.door();
    for key in [
        "epochs/billing",
        "epochs/orders%2F7",
        "leaders/billing",
        "candidates/billing/orders-a",
        &format!("doors/orders/{door}"),
        &format!("doors/orders/{door}/alive"),
        "doors/orders/thief",
        &format!("reports/orders/orders/{door}"),
        "reports/orders/orders/thief",
    ] {
        cluster.assert_forbidden("orders-stamp", key);
    }
    // Its own it may: that is what the role is for.
    cluster.put("orders-stamp", &format!("{PREFIX}candidates/orders/spare"), "{}");
    let mut gone = cluster.as_user("orders-stamp", &["del", &format!("{PREFIX}candidates/orders/spare")]);
    assert!(gone.wait(LONG).success(), "{}", gone.recent());
}

/// `orders/{0..63}` by one grant each, which reaches neither `orders` nor `orders2`.
fn shards_are_granted_by_prefix(cluster: &Cluster) {
    for shard in [0, 7, 63] {
        cluster.put("shop-stamp", &format!("{PREFIX}epochs/orders%2F{shard}"), "{}");
        cluster.put("shop-stamp", &format!("{PREFIX}candidates/orders%2F{shard}/orders-a"), "{}");
        cluster.put("shop-guard", &format!("{PREFIX}reports/orders%2F{shard}/shop/door"), "{}");
        cluster.assert_forbidden("shop-guard", &format!("epochs/orders%2F{shard}"));
        cluster.assert_forbidden("shop-stamp", &format!("reports/orders%2F{shard}/shop/door"));
    }
    for key in ["epochs/orders", "epochs/orders2", "epochs/billing%2F7", "leaders/orders", "doors/shop/thief"] {
        cluster.assert_forbidden("shop-stamp", key);
    }
    for key in ["doors/orders/thief", "reports/orders/orders/thief", "reports/orders/shop/thief"] {
        cluster.assert_forbidden("shop-guard", key);
    }
    let mut gone = cluster.as_user("root", &["del", "--prefix", &format!("{PREFIX}reports/orders%2F")]);
    assert!(gone.wait(LONG).success(), "{}", gone.recent());
}

/// `doors forget` at a guard, `rebase` at a stamp, `fence` with a user of its own.
fn operators_need_what_the_page_says(cluster: &Cluster, guard: &Sidecar, a: &Sidecar) {
    // A door that is long dead, as root remembers it.
    let own = cluster.value(&format!("doors/orders/{}", guard.door()));
    let dead = own.replace("\"enforce\"", "\"audit\"");
    assert_ne!(own, dead, "{own}");
    cluster.put("root", &format!("{PREFIX}doors/orders/dead-0badcafe"), dead.trim());
    let forget = ["doors", "forget", "dead-0badcafe", "--target", "orders"];
    let mut refused = a.operate(&forget);
    assert_eq!(refused.wait(LONG).code(), Some(1), "{}", refused.recent());
    assert!(refused.has_said("permission denied"), "{}", refused.recent());
    let mut forgotten = guard.operate(&forget);
    assert!(forgotten.wait(LONG).success(), "{}", forgotten.recent());
    assert!(cluster.value("doors/orders/dead-0badcafe").contains("\"left\":true"));
    let mut gone = cluster.as_user("root", &["del", &format!("{PREFIX}doors/orders/dead-0badcafe")]);
    assert!(gone.wait(LONG).success(), "{}", gone.recent());

    // An orchestrator's user fences: it mints, and takes the leader's place; the guard proves what it proves.
    let before = epoch(cluster);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let config = folder.path().join("fence.yaml");
    for (user, works) in [("orders-guard", false), ("shop-stamp", false), ("orders-fence", true)] {
        let text = format!("{}\nresources: {{ orders: {{}} }}\n", cluster.coordinator(user, false));
        fs::write(&config, text).expect("written");
        let fence = Launch::epochgate("fence").args(["fence", "--resource", "orders", "--wait", "--release", "-c"]);
        let mut fence = fence.arg(&config).run(LONG);
        assert_eq!(fence.wait(LONG).success(), works, "{user}: {}", fence.recent());
        assert_eq!(fence.has_said("permission denied"), !works, "{user}: {}", fence.recent());
        assert_eq!(epoch(cluster) > before, works, "{user}");
    }
    cluster.assert_forbidden("orders-fence", "candidates/orders/fence");
    cluster.assert_forbidden("orders-fence", "epochs/billing");

    // A floor far above the last epoch, that a door long gone has recorded: only who may write the epoch may believe it.
    let report = cluster.value(&format!("reports/orders/orders/{}", guard.door()));
    let mut report: serde_json::Value = serde_json::from_str(&report).expect("a report");
    report["floor"] = "9000000".into();
    cluster.put("root", &format!("{PREFIX}reports/orders/orders/gone-0badcafe"), &report.to_string());
    let rebase = ["rebase", "--resource", "orders", "--to", "9000000"];
    let mut refused = guard.operate(&rebase);
    assert_eq!(refused.wait(LONG).code(), Some(1), "{}", refused.recent());
    assert!(refused.has_said("permission denied"), "{}", refused.recent());
    let mut rebased = a.operate(&rebase);
    assert!(rebased.wait(LONG).success(), "{}", rebased.recent());
    assert_eq!(epoch(cluster), 9_000_000);
}
