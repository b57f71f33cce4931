//! The etcd store against a real etcd: what it promises when all is well, and when etcd stands still, dies, forgets,
//! or wants to know who asks.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use epochgate::clock::{HostClock, HostEntropy};
use epochgate::config::resolved::{self, Coordinator, CoordinatorKind, EtcdTls};
use epochgate::coordinator::etcd::{Etcd, MAX_TXN_OPS};
use epochgate::coordinator::store::{
    Change, Committed, Compare, Keys, Range, Revision, Store, StoreError, Watch, WatchEvent,
};
use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use support::etcd::{self as server, Options, certificates, cluster};
use support::store_contract::{self as contract, changes_until, commit, entries, entry, put, txn};

/// How long a test waits for what must come; a slow machine needs a part of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time limit of a call in these tests.
const LIMIT: Duration = Duration::from_secs(1);
/// What a call may take beyond its limit on a machine that is busy with all the other tests.
const SLACK: Duration = Duration::from_secs(5);

const PREFIX: &str = "/epochgate/v1/";

fn configured(endpoints: &[&str]) -> resolved::Etcd {
    resolved::Etcd { endpoints: endpoints.iter().map(|&url| url.to_owned()).collect(), tls: None, user: None }
}

fn client(etcd: &resolved::Etcd) -> Arc<Etcd> {
    client_within(etcd, LIMIT)
}

fn client_within(etcd: &resolved::Etcd, request_timeout: Duration) -> Arc<Etcd> {
    let coordinator = Coordinator {
        kind: CoordinatorKind::Etcd(etcd.clone()),
        prefix: PREFIX.into(),
        lease_ttl: Duration::from_secs(5),
        request_timeout,
        verify_every: Duration::from_secs(1),
    };
    Etcd::new(&coordinator, etcd, Arc::new(HostClock), Arc::new(HostEntropy)).expect("settings that can work")
}

fn store(etcd: &resolved::Etcd) -> Arc<dyn Store> {
    client(etcd)
}

/// For tests of something else than time limits.
fn patient(etcd: &resolved::Etcd) -> Arc<dyn Store> {
    client_within(etcd, Duration::from_secs(10))
}

/// Waits until the store answers.
async fn answers(store: &Arc<dyn Store>) -> Revision {
    let began = Instant::now();
    loop {
        match store.read(vec![]).await {
            Ok(snapshot) => return snapshot.revision,
            Err(error) => assert!(began.elapsed() < PATIENCE, "still: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the watch has said that changes of `key` may have been missed, or shown that of `revision`.
async fn notices(watch: &mut Box<dyn Watch>, revision: Revision) -> WatchEvent {
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch notices in time");
        match &event {
            WatchEvent::Changed(changed) if changed.revision < revision => {}
            _ => return event,
        }
    }
}

/// Waits until the watch shows this change, whatever it says before.
async fn shows(watch: &mut Box<dyn Watch>, key: &str) {
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the change is seen in time");
        if matches!(&event, WatchEvent::Changed(changed) if changed.keys.iter().any(|changed| changed == key)) {
            return;
        }
    }
}

fn is_unreachable<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unreachable(_)))
}

// All is well.

#[tokio::test]
async fn etcd_keeps_the_contract() {
    let etcd = server::Etcd::start().await;
    let settings = configured(&[etcd.url()]);
    contract::run(patient(&settings), patient(&settings)).await;
}

#[tokio::test]
async fn keys_stay_under_the_prefix_and_foreign_ones_outside_are_not_seen() {
    let etcd = server::Etcd::start().await;
    let store = patient(&configured(&[etcd.url()]));
    let mut raw = Client::connect([etcd.url()], None).await.unwrap();
    let mut watch = store.watch(store.read(vec![]).await.unwrap().revision);
    raw.put("/epochgate/v10/foreign", "x", None).await.unwrap();
    raw.put("/epochgate/v1", "x", None).await.unwrap();
    raw.put([PREFIX.as_bytes(), b"\xff\xfe"].concat(), "not UTF-8", None).await.unwrap();
    commit(&store, &[put("epochs/orders", "1")]).await;
    let found = entries(&store, Keys::Under(String::new())).await;
    assert_eq!(found.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["epochs/orders"]);
    shows(&mut watch, "epochs/orders").await;
    let kv = raw.get("/epochgate/v1/epochs/orders", None).await.unwrap().take_kvs().pop().expect("there");
    assert_eq!(kv.value(), b"1");
    assert_eq!((store.kind(), store.endpoint().as_str()), ("etcd", etcd.url()));
}

#[tokio::test]
async fn an_answer_may_be_large_and_a_transaction_may_not() {
    let etcd = server::Etcd::start().await;
    let store = patient(&configured(&[etcd.url()]));
    let mut watch = store.watch(store.read(vec![]).await.unwrap().revision);
    let large = "x".repeat(1 << 20);
    for i in 0..6 {
        commit(&store, &[put(&format!("large/{i}"), &large)]).await;
    }
    // 6 MiB at once, alone and beside another range: beyond the client's own limit of 4.
    assert_eq!(entries(&store, Keys::Under("large/".into())).await.len(), 6);
    let two = vec![Range::all(Keys::Under("large/".into())), Range::all(Keys::Under("none/".into()))];
    assert_eq!(store.read(two).await.unwrap().ranges[0].len(), 6);
    shows(&mut watch, "large/5").await;
    // All of them at once, too.
    shows(&mut store.watch(Revision(0)), "large/5").await;

    let puts: Vec<Change> = (0..=MAX_TXN_OPS).map(|i| put(&format!("many/{i}"), "x")).collect();
    let refused = store.commit(txn(&[], &puts)).await;
    assert!(matches!(&refused, Err(StoreError::Denied(text)) if text.contains("129 changes")), "{refused:?}");
    assert!(matches!(store.commit(txn(&[], &puts[1..])).await, Ok(Committed::Done(_))));
    let twice = store.commit(txn(&[], &[put("a", "1"), put("a", "2")])).await;
    assert!(matches!(&twice, Err(StoreError::Denied(text)) if text.contains("duplicate key")), "{twice:?}");
    let huge = store.commit(txn(&[], &[put("huge", &"x".repeat(2 << 20))])).await;
    assert!(matches!(&huge, Err(StoreError::Denied(text)) if text.contains("--max-request-bytes")), "{huge:?}");
}

#[tokio::test]
async fn a_slow_reader_of_a_watch_is_told_that_it_missed_something() {
    let etcd = server::Etcd::start().await;
    let store = patient(&configured(&[etcd.url()]));
    let from = store.read(vec![]).await.unwrap().revision;
    let mut slow = store.watch(from);
    let mut quick = store.watch(from);
    for batch in 0..15 {
        let commits = (0..100).map(|i| {
            let store = &store;
            async move { commit(store, &[put(&format!("burst/{batch}/{i}"), "1")]).await }
        });
        futures_util::future::join_all(commits).await;
        // The quick one keeps up, which also shows that all of it has been sent to the slow one.
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(1), quick.next()).await {
            drop(event);
        }
    }
    let last = commit(&store, &[put("burst/last", "1")]).await;
    shows(&mut quick, "burst/last").await;
    assert_eq!(notices(&mut slow, last).await, WatchEvent::Gap);
    shows(&mut slow, "burst/last").await;
}

// etcd is away.

#[tokio::test]
async fn an_etcd_that_is_away_at_the_start_is_no_error() {
    let mut etcd = server::Etcd::start().await;
    etcd.kill();
    let store = store(&configured(&[etcd.url()]));
    let mut watch = store.watch(Revision(0));
    let began = Instant::now();
    let read = store.read(vec![]).await;
    assert!(is_unreachable(&read), "{read:?}");
    let text = read.unwrap_err().to_string();
    assert!(text.contains(etcd.url()) && text.contains("is etcd running there?"), "{text}");
    let outcome = store.commit(txn(&[], &[put("k", "1")])).await;
    assert!(is_unreachable(&outcome), "{outcome:?}");
    assert!(!outcome.unwrap_err().to_string().contains("not known"), "it certainly did not happen");
    assert!(began.elapsed() < 2 * LIMIT + SLACK);

    etcd.restart().await;
    answers(&store).await;
    let put = commit(&store, &[put("k", "1")]).await;
    notices(&mut watch, put).await;
}

#[tokio::test]
async fn an_etcd_that_stands_still_costs_no_call_more_than_its_limit() {
    let etcd = server::Etcd::start().await;
    let settings = configured(&[etcd.url()]);
    let store = store(&settings);
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let mut watch = store.watch(answers(&store).await);
    let put_before = commit(&store, &[put("k", "0")]).await;
    notices(&mut watch, put_before).await;

    etcd.pause();
    let stopped = Instant::now();
    let reads = vec![Range::all(Keys::One("k".into()))];
    let (read, committed, granted, renewed, revoked) = tokio::join!(
        store.read(reads),
        store.commit(txn(&[Compare::Absent("frozen".into())], &[put("frozen", "1")])),
        store.grant(LIMIT),
        store.keep_alive(lease.id),
        store.revoke(lease.id),
    );
    assert!(stopped.elapsed() < LIMIT + SLACK, "{:?}", stopped.elapsed());
    assert!(is_unreachable(&read) && is_unreachable(&granted) && is_unreachable(&renewed) && is_unreachable(&revoked));
    let Err(StoreError::Unreachable(text)) = committed else { panic!("{committed:?}") };
    assert!(text.contains("whether it happened is not known"), "{text}");
    // Not one that is known to be wrong afterwards either: the next calls fail in time as well.
    while stopped.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        assert!(is_unreachable(&store.read(vec![]).await));
        assert!(asked.elapsed() < LIMIT + SLACK);
    }
    etcd.resume();
    answers(&store).await;
    // What the commit did is read back; it may have happened, once.
    let frozen = entry(&store, "frozen").await;
    assert!(frozen.is_none_or(|entry| entry.value == b"1"));
    let put = commit(&store, &[put("after", "1")]).await;
    notices(&mut watch, put).await;
}

#[tokio::test]
async fn an_etcd_that_was_killed_is_used_again_and_the_watch_says_that_it_was_away() {
    let mut etcd = server::Etcd::start().await;
    let store = store(&configured(&[etcd.url()]));
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let before = commit(&store, &[contract::put_leased("leased", "1", lease.id)]).await;
    let mut watch = store.watch(before);
    let seen = commit(&store, &[put("seen", "1")]).await;
    notices(&mut watch, seen).await;

    etcd.kill();
    let began = Instant::now();
    assert!(is_unreachable(&store.read(vec![]).await));
    assert!(began.elapsed() < LIMIT + SLACK);
    etcd.restart().await;
    answers(&store).await;
    let missed = commit(&store, &[put("missed", "1")]).await;
    assert_eq!(notices(&mut watch, missed).await, WatchEvent::Gap);
    shows(&mut watch, "missed").await;
    assert!(entry(&store, "leased").await.is_some(), "leases outlive a restart");
    assert!(store.keep_alive(lease.id).await.is_ok());
}

#[tokio::test]
async fn a_watch_whose_changes_were_compacted_says_so() {
    let mut etcd = server::Etcd::start().await;
    let store = patient(&configured(&[etcd.url()]));
    let mut raw = Client::connect([etcd.url()], None).await.unwrap();
    let from = commit(&store, &[put("k", "0")]).await;
    let mut last = from;
    for i in 1..20 {
        last = commit(&store, &[put("k", &i.to_string())]).await;
    }
    raw.compact(i64::try_from(last.0).unwrap(), None).await.unwrap();
    // One that begins before what is left.
    let mut late = store.watch(from);
    assert_eq!(notices(&mut late, Revision(u64::MAX)).await, WatchEvent::Gap);
    let next = commit(&store, &[put("next", "1")]).await;
    assert!(changes_until(&mut late, "next", next).await.is_some_and(|changes| changes.contains_key(&next)));

    // One that was cut off while they were made.
    let mut cut = store.watch(next);
    let seen = commit(&store, &[put("seen", "1")]).await;
    notices(&mut cut, seen).await;
    etcd.kill();
    etcd.restart().await;
    let mut raw = Client::connect([etcd.url()], None).await.unwrap();
    let mut revision = 0;
    for _ in 0..20 {
        revision = raw.put("/epochgate/v1/elsewhere", "1", None).await.unwrap().header().unwrap().revision();
    }
    raw.compact(revision, None).await.unwrap();
    assert_eq!(notices(&mut cut, Revision(u64::MAX)).await, WatchEvent::Gap);
    commit(&store, &[put("end", "1")]).await;
    shows(&mut cut, "end").await;
    shows(&mut late, "end").await;
}

#[tokio::test]
async fn an_etcd_that_forgot_everything_is_reported_as_it_is() {
    let mut etcd = server::Etcd::start().await;
    let store = store(&configured(&[etcd.url()]));
    for i in 0..30 {
        commit(&store, &[put(&format!("k/{i}"), "1")]).await;
    }
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let high = answers(&store).await;
    let mut watch = store.watch(high);
    let seen = commit(&store, &[put("seen", "1")]).await;
    notices(&mut watch, seen).await;

    etcd.kill();
    etcd.wipe();
    etcd.restart().await;
    let low = answers(&store).await;
    assert!(low < high, "the revision goes back ({high} to {low}), and that is not hidden");
    assert_eq!(store.keep_alive(lease.id).await, Err(StoreError::LeaseGone));
    assert_eq!(notices(&mut watch, Revision(u64::MAX)).await, WatchEvent::Gap);
    // Long before the store comes to where the watch was.
    let first = commit(&store, &[put("anew", "1")]).await;
    assert!(first < high);
    shows(&mut watch, "anew").await;
}

// Several members.

#[tokio::test]
async fn a_dead_member_of_three_fails_no_read_and_a_lone_one_fails_them_all() {
    let mut members = cluster(3, &Options::default()).await;
    let urls: Vec<String> = members.iter().map(|member| member.url().to_owned()).collect();
    let all = configured(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    // Each of them is somebody's first choice, and one is found stopped instead of dead.
    let stores: Vec<Arc<dyn Store>> =
        (0..6).map(|_| client_within(&all, Duration::from_secs(4)) as Arc<dyn Store>).collect();
    for store in &stores {
        answers(store).await;
    }
    let mut watch = stores[0].watch(answers(&stores[0]).await);
    let seen = commit(&stores[0], &[put("seen", "1")]).await;
    notices(&mut watch, seen).await;

    let read_through = async |stores: &[Arc<dyn Store>]| {
        for store in stores {
            // The members that are left may be electing: one call may meet that, a second one not.
            if store.read(vec![]).await.is_err() {
                store.read(vec![]).await.expect("no read fails for longer than one call");
            }
            for _ in 0..5 {
                store.read(vec![]).await.expect("a member that is away is left at once");
            }
        }
    };
    members[0].kill();
    read_through(&stores).await;
    commit(&stores[1], &[put("with-two", "1")]).await;
    shows(&mut watch, "with-two").await;
    members[0].restart().await;

    members[1].pause();
    read_through(&stores).await;
    members[1].resume();

    // Without a quorum nobody is believed, however willing: not in the moment before it knows that it is alone either. It
    // has these keys, and whether they are still so only the others know.
    let lone = store(&configured(&[members[2].url()]));
    answers(&lone).await;
    members[0].pause();
    members[1].pause();
    let (one, every) = (Range::all(Keys::One("seen".into())), Range::all(Keys::Under(String::new())));
    let reads = [vec![one.clone()], vec![every.clone()], vec![one, every]].map(|ranges| lone.read(ranges));
    for read in futures_util::future::join_all(reads).await {
        assert!(is_unreachable(&read), "{read:?}");
    }
    members[0].kill();
    members[1].kill();
    let began = Instant::now();
    while lone.read(vec![]).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "a member without a quorum must not answer");
    }
    assert!(is_unreachable(&lone.read(vec![]).await));
    assert!(is_unreachable(&lone.commit(txn(&[], &[put("k", "1")])).await));
    let health = client(&all).probe().await;
    assert_eq!(health.iter().map(|health| health.endpoint.as_str()).collect::<Vec<_>>(), urls);
    assert!(health.iter().all(|health| health.error.is_some()), "{health:?}");
    assert!(health[0].error.as_ref().unwrap().contains("is etcd running there?"), "{health:?}");
}

#[tokio::test]
async fn endpoints_of_two_clusters_are_never_mixed() {
    let mut first = server::Etcd::start().await;
    let other = server::Etcd::start_with(&Options {
        flags: vec!["--initial-cluster-token".into(), "another".into()],
        ..Options::default()
    })
    .await;
    let store = patient(&configured(&[first.url(), other.url()]));
    answers(&store).await;
    // Whichever it found first is the cluster; the other one is no stand-in for it.
    let known = store.endpoint();
    let (known, other) = if known == first.url() { (&mut first, other) } else { (&mut { other }, first) };
    known.kill();
    let outcome = store.read(vec![]).await;
    assert!(is_unreachable(&outcome), "{outcome:?}");
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("members of one cluster") && text.contains(other.url()), "{text}");
}

// Who asks.

const PASSWORD: &str = "correct horse";

/// Turns authentication on, with a user `guard` who may read and write the prefix.
async fn with_authentication(url: &str) -> Client {
    let mut raw = Client::connect([url], None).await.unwrap();
    raw.user_add("root", "root-password", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.role_add("epochgate").await.unwrap();
    let all = Permission::new(PermissionType::Readwrite, PREFIX).with_prefix();
    raw.role_grant_permission("epochgate", all).await.unwrap();
    raw.user_add("guard", PASSWORD, None).await.unwrap();
    raw.user_grant_role("guard", "epochgate").await.unwrap();
    raw.auth_enable().await.unwrap();
    let root = ConnectOptions::new().with_user("root", "root-password");
    Client::connect([url], Some(root)).await.unwrap()
}

fn with_user(etcd: &server::Etcd, name: &str, password: &Path) -> resolved::Etcd {
    resolved::Etcd { user: Some((name.into(), password.to_owned())), ..configured(&[etcd.url()]) }
}

#[tokio::test]
async fn a_login_is_renewed_for_calls_and_watches() {
    let ttl = ["--auth-token-ttl".to_owned(), "1".to_owned()];
    let etcd = server::Etcd::start_with(&Options { flags: ttl.to_vec(), ..Options::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();

    // The configuration may be ahead of the cluster.
    let early = patient(&with_user(&etcd, "guard", &password));
    commit(&early, &[put("early", "1")]).await;
    let mut root = with_authentication(etcd.url()).await;
    commit(&early, &[put("early", "2")]).await;

    let store = patient(&with_user(&etcd, "guard", &password));
    let mut watch = store.watch(commit(&store, &[put("k", "0")]).await);
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    for round in 1..4 {
        // Longer than a token lives, and than etcd takes to notice.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        match round {
            1 => assert!(store.read(vec![]).await.is_ok()),
            2 => assert!(store.keep_alive(lease.id).await.is_ok()),
            _ => {}
        }
        let done = commit(&store, &[put("k", &round.to_string())]).await;
        notices(&mut watch, done).await;
    }
    // A watch that begins with a token that has lapsed: etcd refuses it inside the stream.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut fresh = store.watch(Revision(0));
    shows(&mut fresh, "k").await;

    // A password that was changed is used from the next login on, without a restart.
    root.refresh_token().await.unwrap();
    root.user_change_password("guard", "battery staple").await.unwrap();
    std::fs::write(&password, "battery staple").unwrap();
    commit(&store, &[put("k", "new password")]).await;
    shows(&mut fresh, "k").await;
}

#[tokio::test]
async fn who_may_not_is_told_so_without_a_secret() {
    let etcd = server::Etcd::start().await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let mut root = with_authentication(etcd.url()).await;

    let denied = |result: Result<_, StoreError>, needle: &str| {
        let Err(StoreError::Denied(text)) = result else { panic!("{result:?}") };
        assert!(text.contains(needle) && text.contains(etcd.url()), "{text}");
        assert!(!text.contains(PASSWORD) && !text.contains("wrong one"), "{text}");
    };
    let nobody = patient(&configured(&[etcd.url()]));
    denied(nobody.read(vec![]).await.map(|_| ()), "set `coordinator.etcd.user`");
    denied(nobody.commit(txn(&[], &[put("k", "1")])).await.map(|_| ()), "set `coordinator.etcd.user`");

    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "wrong one").unwrap();
    let stranger = client(&with_user(&etcd, "guard", &wrong));
    denied(stranger.read(vec![]).await.map(|_| ()), "password file");
    let health = stranger.probe().await.pop().unwrap();
    assert!(health.error.as_deref().is_some_and(|error| error.contains("password file")), "{health:?}");

    root.user_add("reader", PASSWORD, None).await.unwrap();
    root.role_add("reader").await.unwrap();
    let read_only = Permission::new(PermissionType::Read, PREFIX).with_prefix();
    root.role_grant_permission("reader", read_only).await.unwrap();
    root.user_grant_role("reader", "reader").await.unwrap();
    let reader = client_within(&with_user(&etcd, "reader", &password), Duration::from_secs(10));
    assert!(reader.read(vec![]).await.is_ok());
    denied(reader.commit(txn(&[], &[put("k", "1")])).await.map(|_| ()), "grant the user's role");
    let health = reader.probe().await.pop().unwrap();
    assert!(health.error.is_none() && health.latency.is_some(), "{health:?}");
    assert!(health.version.is_some_and(|version| version.starts_with("3.")));

    // A missing file is told by name, at the call that needs it, and heals when it comes.
    let missing = folder.path().join("missing");
    let hopeful = patient(&with_user(&etcd, "guard", &missing));
    let said = hopeful.read(vec![]).await.expect_err("no password");
    assert!(matches!(&said, StoreError::Unusable(text) if text.contains("missing")), "{said:?}");
    std::fs::rename(&wrong, &missing).unwrap();
    std::fs::write(&missing, PASSWORD).unwrap();
    assert!(hopeful.read(vec![]).await.is_ok());
}

#[tokio::test]
async fn tls_with_client_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    certificates(folder.path(), "ca", &["server", "guard"]);
    certificates(folder.path(), "stranger-ca", &["stranger"]);
    let etcd = server::Etcd::start_with(&Options { tls: Some(folder.path().to_owned()), ..Options::default() }).await;
    let with_tls = |ca: &str, name: Option<&str>| resolved::Etcd {
        tls: Some(EtcdTls {
            ca: Some(at(ca)),
            cert: name.map(|name| at(&format!("{name}.pem"))),
            key: name.map(|name| at(&format!("{name}.key"))),
        }),
        ..configured(&[etcd.url()])
    };

    let store = patient(&with_tls("ca.pem", Some("guard")));
    let mut watch = store.watch(Revision(0));
    let done = commit(&store, &[put("k", "1")]).await;
    notices(&mut watch, done).await;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    store.keep_alive(lease.id).await.unwrap();

    let said = async |settings: &resolved::Etcd| client(settings).read(vec![]).await.expect_err("refused").to_string();
    let untrusted = said(&with_tls("stranger-ca.pem", Some("guard"))).await;
    assert!(untrusted.contains("tls.ca"), "{untrusted}");
    for refused in [with_tls("ca.pem", None), with_tls("ca.pem", Some("stranger"))] {
        let text = said(&refused).await;
        assert!(text.contains("client certificate"), "{text}");
    }
    let no_file = said(&with_tls("ca.pem", Some("nobody"))).await;
    assert!(no_file.contains("nobody.pem"), "{no_file}");
    let plain = configured(&[&etcd.url().replace("https", "http")]);
    let text = said(&plain).await;
    assert!(text.contains("https://"), "{text}");
}
