//! What every [`Store`] promises, whichever it is: elections, sessions and doors stand on this and on nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use epochgate::coordinator::store::{
    Change, Changed, Committed, Compare, Entry, Keys, LeaseId, Range, Revision, Store, StoreError, Txn, Watch,
    WatchEvent,
};
use futures_util::future::join_all;

/// How long a test waits for what must come; a slow machine needs a part of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Holds `store` to the contract; `second` is another client of the same store, as another process would have. The
/// store must hold no key under `contract/`. Takes about ten seconds, most of it waiting for leases to end.
pub async fn run(store: Arc<dyn Store>, second: Arc<dyn Store>) {
    reads_are_of_one_revision(&store, &second).await;
    ranges_are_exact(&store).await;
    conditions_on_one_key(&store).await;
    conditions_on_a_prefix(&store).await;
    a_commit_is_all_or_nothing(&store, &second).await;
    one_of_many_racing_committers_wins(&store, &second).await;
    increments_are_never_lost(&store, &second).await;
    leases_hold_their_keys_while_they_are_renewed(&store, &second).await;
    leases_end_by_themselves(&store, &second).await;
    leases_are_revoked(&store, &second).await;
    a_watch_sees_every_change_in_order(&store, &second).await;
    a_watch_begins_where_it_is_told(&store, &second).await;
    a_dropped_wait_for_a_change_loses_nothing(&store, &second).await;
    a_watch_sees_a_lease_end(&store, &second).await;
}

// What the tests are written in.

pub fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.into(), value: value.into(), lease: None }
}

pub fn put_leased(key: &str, value: &str, lease: LeaseId) -> Change {
    Change::Put { key: key.into(), value: value.into(), lease: Some(lease) }
}

pub fn delete(key: &str) -> Change {
    Change::Delete(key.into())
}

pub fn txn(compares: &[Compare], changes: &[Change]) -> Txn {
    Txn { compares: compares.to_vec(), changes: changes.to_vec() }
}

/// Commits without a condition.
pub async fn commit(store: &Arc<dyn Store>, changes: &[Change]) -> Revision {
    match store.commit(txn(&[], changes)).await.expect("committed") {
        Committed::Done(revision) => revision,
        Committed::Refused(revision) => panic!("refused at {revision} without a condition"),
    }
}

/// Whether these conditions hold now. Changes nothing.
pub async fn holds(store: &Arc<dyn Store>, compares: &[Compare]) -> bool {
    matches!(store.commit(txn(compares, &[])).await.expect("compared"), Committed::Done(_))
}

pub async fn entries(store: &Arc<dyn Store>, keys: Keys) -> Vec<Entry> {
    let mut snapshot = store.read(vec![Range::all(keys)]).await.expect("read");
    assert_eq!(snapshot.ranges.len(), 1, "one answer for each range");
    snapshot.ranges.remove(0)
}

pub async fn entry(store: &Arc<dyn Store>, key: &str) -> Option<Entry> {
    let mut found = entries(store, Keys::One(key.into())).await;
    assert!(found.len() <= 1, "one key has at most one entry: {found:?}");
    found.pop()
}

/// Waits until a key is gone.
async fn gone(store: &Arc<dyn Store>, key: &str) {
    let began = Instant::now();
    while entry(store, key).await.is_some() {
        assert!(began.elapsed() < PATIENCE, "{key} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

/// The changes under `prefix` up to the one of `last`, by revision; `None` where the watch said that some are missing,
/// as it may at any time: then the test begins again.
pub async fn changes_until(
    watch: &mut Box<dyn Watch>,
    prefix: &str,
    last: Revision,
) -> Option<BTreeMap<Revision, Vec<String>>> {
    let mut seen: BTreeMap<Revision, Vec<String>> = BTreeMap::new();
    let mut newest = Revision(0);
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch says something in time");
        let WatchEvent::Changed(Changed { revision, keys }) = event else { return None };
        assert!(revision >= newest, "revision {revision} after {newest}");
        newest = revision;
        let mut ours: Vec<String> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        if !ours.is_empty() {
            let all = seen.entry(revision).or_default();
            all.append(&mut ours);
            all.sort();
        }
        if revision >= last {
            return Some(seen);
        }
    }
}

/// A new place for keys, so that an attempt that begins again finds none of the last one's.
fn place(name: &str, attempt: usize) -> String {
    format!("contract/{name}-{attempt}/")
}

// Reads.

async fn reads_are_of_one_revision(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    let at = |key: &str| format!("contract/one-revision/{key}");
    commit(store, &[put(&at("a"), "0"), put(&at("b"), "0")]).await;
    let writer = async {
        for round in 1..=40 {
            let value = round.to_string();
            commit(second, &[put(&at("a"), &value), put(&at("b"), &value)]).await;
        }
    };
    let reader = async {
        for _ in 0..40 {
            let ranges = vec![Range::all(Keys::One(at("a"))), Range::all(Keys::Under(at("b")))];
            let snapshot = store.read(ranges).await.expect("read");
            let [a, b] = &snapshot.ranges[..] else { panic!("two ranges: {snapshot:?}") };
            assert_eq!(a[0].value, b[0].value, "two ranges of one read are of one revision");
            assert_eq!(a[0].modified, b[0].modified);
            assert!(a[0].modified <= snapshot.revision);
        }
    };
    tokio::join!(writer, reader);

    // Linearizable: what one client was told, the next read of any other sees, and knows that it is as new.
    for round in 0..20 {
        let done = commit(store, &[put(&at("c"), &round.to_string())]).await;
        let snapshot = second.read(vec![Range::all(Keys::One(at("c")))]).await.expect("read");
        assert!(snapshot.revision >= done, "a read is not older than an answered commit");
        assert_eq!(snapshot.ranges[0][0].modified, done);
        let nothing = second.read(vec![]).await.expect("a read of nothing");
        assert!(nothing.revision >= done && nothing.ranges.is_empty());
    }
    let first = store.read(vec![]).await.expect("read").sent;
    let later = store.read(vec![]).await.expect("read").sent;
    assert!(later >= first, "sent is counted on one clock");
}

async fn ranges_are_exact(store: &Arc<dyn Store>) {
    let at = |key: &str| format!("contract/ranges/{key}");
    let old = commit(store, &[put(&at("b"), "1"), put(&at("a/x"), "1"), put(&at("a"), "1"), put(&at("ab"), "1")]).await;
    let new = commit(store, &[put(&at("a/y"), "{\"json\": \"\u{e9}\"}"), put(&at("b"), "2")]).await;

    assert_eq!(keys(&entries(store, Keys::Under(at(""))).await), [at("a"), at("a/x"), at("a/y"), at("ab"), at("b")]);
    assert_eq!(keys(&entries(store, Keys::Under(at("a/"))).await), [at("a/x"), at("a/y")]);
    assert_eq!(keys(&entries(store, Keys::One(at("a"))).await), [at("a")]);
    assert_eq!(entries(store, Keys::One(at("a/"))).await, []);
    assert_eq!(entries(store, Keys::Under(at("zzz"))).await, []);

    let since = vec![
        Range { keys: Keys::Under(at("")), since: new },
        Range { keys: Keys::Under(at("")), since: Revision(new.0 + 1) },
        Range { keys: Keys::One(at("a")), since: old },
    ];
    let snapshot = store.read(since).await.expect("read");
    let found: Vec<Vec<&str>> = snapshot.ranges.iter().map(|range| keys(range)).collect();
    assert_eq!(found, [vec![at("a/y"), at("b")], vec![], vec![at("a")]]);

    let b = entry(store, &at("b")).await.expect("there");
    assert_eq!((b.value.as_slice(), b.created, b.modified, b.lease), (&b"2"[..], old, new, None));
    let y = entry(store, &at("a/y")).await.expect("there");
    assert_eq!((y.value, y.created, y.modified), ("{\"json\": \"\u{e9}\"}".into(), new, new));
}

// Commits.

async fn conditions_on_one_key(store: &Arc<dyn Store>) {
    let key = "contract/one-key/k".to_owned();
    let missing = Compare::Absent(key.clone());
    let created = |at| Compare::CreatedAt(key.clone(), at);
    let modified = |at| Compare::ModifiedAt(key.clone(), at);

    assert!(holds(store, std::slice::from_ref(&missing)).await);
    for revision in [0, 1, u64::MAX] {
        assert!(!holds(store, &[created(Revision(revision))]).await, "a missing key was created at no revision");
        assert!(!holds(store, &[modified(Revision(revision))]).await, "a missing key was put at no revision");
    }
    let first = commit(store, &[put(&key, "1")]).await;
    let second = commit(store, &[put(&key, "2")]).await;
    assert!(second > first);
    assert!(!holds(store, std::slice::from_ref(&missing)).await);
    assert!(holds(store, &[created(first), modified(second)]).await);
    assert!(!holds(store, &[created(second)]).await);
    assert!(!holds(store, &[modified(first)]).await);
    assert!(!holds(store, &[created(first), missing.clone()]).await, "all conditions must hold");

    commit(store, &[delete(&key)]).await;
    assert!(holds(store, std::slice::from_ref(&missing)).await);
    assert!(!holds(store, &[created(first)]).await, "a deleted key is missing");
    let again = commit(store, &[put(&key, "3")]).await;
    assert!(holds(store, &[created(again), modified(again)]).await, "a key that comes back is new");
}

async fn conditions_on_a_prefix(store: &Arc<dyn Store>) {
    let prefix = "contract/prefix/in/".to_owned();
    let none_put = |after| Compare::NoneModifiedAfter(prefix.clone(), after);
    let none_new = |after| Compare::NoneCreatedAfter(prefix.clone(), after);

    // Neighbours that a careless end of the range would take in.
    commit(store, &[put("contract/prefix/in", "x"), put("contract/prefix/in0", "x"), put("contract/prefix/j", "x")])
        .await;
    for revision in [0, 1, u64::MAX] {
        let at = Revision(revision);
        assert!(holds(store, &[none_put(at), none_new(at)]).await, "nothing is there, so nothing is newer than {at}");
    }
    let first = commit(store, &[put(&format!("{prefix}a"), "1")]).await;
    let second = commit(store, &[put(&format!("{prefix}b"), "1")]).await;
    assert!(holds(store, &[none_put(second), none_new(second)]).await);
    assert!(!holds(store, &[none_put(first)]).await);
    assert!(!holds(store, &[none_new(first)]).await);

    let third = commit(store, &[put(&format!("{prefix}a"), "2")]).await;
    assert!(!holds(store, &[none_put(second)]).await, "put again after");
    assert!(holds(store, &[none_new(second)]).await, "but not created");
    assert!(holds(store, &[none_put(third)]).await);

    commit(store, &[delete(&format!("{prefix}a"))]).await;
    assert!(holds(store, &[none_put(second)]).await, "only what exists is compared");
    commit(store, &[put(&format!("{prefix}a"), "3")]).await;
    assert!(!holds(store, &[none_new(third)]).await, "created again after");
    commit(store, &[delete(&format!("{prefix}a")), delete(&format!("{prefix}b"))]).await;
    assert!(holds(store, &[none_put(Revision(0)), none_new(Revision(0))]).await);
}

async fn a_commit_is_all_or_nothing(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    let at = |key: &str| format!("contract/whole/{key}");
    let done = commit(store, &[put(&at("a"), "1"), put(&at("b"), "1"), delete(&at("missing"))]).await;
    let both = entries(second, Keys::Under(at(""))).await;
    assert_eq!(keys(&both), [at("a"), at("b")]);
    assert!(both.iter().all(|entry| entry.created == done && entry.modified == done), "one revision: {both:?}");

    let before = store.read(vec![]).await.expect("read").revision;
    let refused = txn(
        &[Compare::Absent(at("c")), Compare::Absent(at("a"))],
        &[put(&at("c"), "1"), put(&at("a"), "2"), delete(&at("b"))],
    );
    match store.commit(refused).await.expect("answered") {
        Committed::Refused(revision) => assert!(revision >= before),
        Committed::Done(_) => panic!("a condition does not hold"),
    }
    assert_eq!(entries(second, Keys::Under(at(""))).await, both, "nothing changed");

    let swapped = txn(&[Compare::ModifiedAt(at("a"), done)], &[put(&at("c"), "1"), delete(&at("a"))]);
    let Committed::Done(swapped) = store.commit(swapped).await.expect("answered") else {
        panic!("the condition holds")
    };
    assert!(swapped > done);
    assert_eq!(keys(&entries(second, Keys::Under(at(""))).await), [at("b"), at("c")]);
}

async fn one_of_many_racing_committers_wins(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    for round in 0..10 {
        let key = format!("contract/race/{round}");
        let racers = (0..8).map(|racer| {
            let store = if racer % 2 == 0 { store } else { second };
            let value = racer.to_string();
            let request = txn(&[Compare::Absent(key.clone())], &[put(&key, &value)]);
            async move { (value, store.commit(request).await.expect("answered")) }
        });
        let outcomes = join_all(racers).await;
        let winners: Vec<_> = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Committed::Done(_))).collect();
        let [(value, Committed::Done(revision))] = winners[..] else { panic!("exactly one wins: {outcomes:?}") };
        let stands = entry(store, &key).await.expect("there");
        assert_eq!((stands.value.as_slice(), stands.created), (value.as_bytes(), *revision));
    }
}

async fn increments_are_never_lost(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    const EACH: usize = 8;
    let key = "contract/counter";
    commit(store, &[put(key, "0")]).await;
    let counters = [store, second, store, second].map(|store| async move {
        let mut counted = 0;
        while counted < EACH {
            let now = entry(store, key).await.expect("there");
            let next = String::from_utf8(now.value).expect("a number").parse::<usize>().expect("a number") + 1;
            let request = txn(&[Compare::ModifiedAt(key.into(), now.modified)], &[put(key, &next.to_string())]);
            if let Committed::Done(_) = store.commit(request).await.expect("answered") {
                counted += 1;
            }
        }
    });
    join_all(counters).await;
    let sum = entry(store, key).await.expect("there").value;
    assert_eq!(String::from_utf8(sum).expect("a number"), (4 * EACH).to_string());
}

// Leases.

async fn leases_hold_their_keys_while_they_are_renewed(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    const ASKED: Duration = Duration::from_secs(2);
    'attempts: for attempt in 0..5 {
        let key = format!("{}k", place("renewed", attempt));
        let lease = store.grant(ASKED).await.expect("granted");
        assert!(lease.ttl >= ASKED, "never shorter than asked: {lease:?}");
        commit(store, &[put_leased(&key, "1", lease.id)]).await;
        assert_eq!(entry(second, &key).await.expect("there").lease, Some(lease.id));

        let began = Instant::now();
        let mut last_sent = lease.sent;
        while began.elapsed() < lease.ttl + Duration::from_secs(1) {
            tokio::time::sleep(lease.ttl / 8).await;
            // Any client may renew it.
            let renewed = second.keep_alive(lease.id).await;
            let found = entry(store, &key).await;
            let now = store.read(vec![]).await.expect("read").sent;
            if now.since(last_sent) >= lease.ttl {
                // This machine was too slow to renew in time: that says nothing about the store.
                continue 'attempts;
            }
            let renewed = renewed.expect("renewed in time");
            assert_eq!(renewed.id, lease.id);
            assert!(renewed.ttl >= ASKED && renewed.sent > last_sent && renewed.sent <= now);
            assert!(found.is_some(), "the key goes with a lease that was renewed in time");
            last_sent = renewed.sent;
        }
        store.revoke(lease.id).await.expect("revoked");
        return;
    }
    panic!("this machine was five times too slow to renew a lease in time");
}

async fn leases_end_by_themselves(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    let at = |key: &str| format!("contract/expiry/{key}");
    let lease = store.grant(Duration::from_secs(1)).await.expect("granted");
    let changes = [
        put_leased(&at("a"), "1", lease.id),
        put_leased(&at("b"), "1", lease.id),
        put_leased(&at("taken-over"), "1", lease.id),
    ];
    // Three keys, and a slow machine: the lease may be gone before they are put, which is an answer too.
    match store.commit(txn(&[], &changes)).await {
        Ok(_) => {
            commit(store, &[put(&at("taken-over"), "2"), put(&at("stays"), "1")]).await;
        }
        Err(StoreError::LeaseGone) => {
            commit(store, &[put(&at("taken-over"), "2"), put(&at("stays"), "1")]).await;
        }
        Err(other) => panic!("{other}"),
    }
    gone(second, &at("a")).await;
    gone(second, &at("b")).await;
    let left = entries(second, Keys::Under(at(""))).await;
    assert_eq!(keys(&left), [at("stays"), at("taken-over")], "a key put again without the lease is not the lease's");
    assert!(left.iter().all(|entry| entry.lease.is_none()));
    assert_eq!(store.keep_alive(lease.id).await, Err(StoreError::LeaseGone));
    assert_eq!(second.keep_alive(lease.id).await, Err(StoreError::LeaseGone));

    let late = store.commit(txn(&[], &[put(&at("with-it"), "1"), put_leased(&at("late"), "1", lease.id)])).await;
    assert_eq!(late, Err(StoreError::LeaseGone), "nothing can be put with a lease that is gone");
    assert_eq!(entry(store, &at("late")).await, None);
    assert_eq!(entry(store, &at("with-it")).await, None, "and nothing else of that commit was");
}

async fn leases_are_revoked(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    let key = "contract/revoked/k";
    let lease = store.grant(Duration::from_secs(60)).await.expect("granted");
    let other = store.grant(Duration::from_secs(60)).await.expect("granted");
    assert_ne!(lease.id, other.id, "every lease is new");
    commit(store, &[put_leased(key, "1", lease.id), put_leased("contract/revoked/other", "1", other.id)]).await;
    second.revoke(lease.id).await.expect("any client may");
    assert_eq!(entry(store, key).await, None, "its keys are gone when the call returns");
    assert!(entry(store, "contract/revoked/other").await.is_some());
    assert_eq!(store.keep_alive(lease.id).await, Err(StoreError::LeaseGone));
    store.revoke(lease.id).await.expect("no error where it is gone");
    store.revoke(other.id).await.expect("revoked");
    assert_eq!(store.keep_alive(LeaseId(4_711)).await, Err(StoreError::LeaseGone), "nobody granted that one");
}

// Watches.

async fn a_watch_sees_every_change_in_order(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    for attempt in 0..5 {
        let place = place("watch", attempt);
        let at = |key: &str| format!("{place}{key}");
        let from = store.read(vec![]).await.expect("read").revision;
        let mut one = store.watch(from);
        let mut two = second.watch(from);
        let mut expected = BTreeMap::new();
        for round in 0..10 {
            let first = at(&round.to_string());
            let done = commit(second, &[put(&first, "1"), put(&at("each"), &round.to_string())]).await;
            expected.insert(done, vec![first.clone(), at("each")]);
            let done = commit(store, &[delete(&first), delete(&at("missing"))]).await;
            // A deletion is a change; deleting what is not there is none.
            expected.insert(done, vec![first]);
            let refused = txn(&[Compare::Absent(at("each"))], &[put(&at("refused"), "1")]);
            assert!(matches!(store.commit(refused).await, Ok(Committed::Refused(_))));
        }
        let last = *expected.keys().next_back().expect("there were changes");
        let seen = (changes_until(&mut one, &place, last).await, changes_until(&mut two, &place, last).await);
        if let (Some(one), Some(two)) = seen {
            assert_eq!(one, expected);
            assert_eq!(two, expected);
            return;
        }
    }
    panic!("a watch that is not disturbed must not miss changes every time");
}

async fn a_watch_begins_where_it_is_told(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    for attempt in 0..5 {
        let place = place("past", attempt);
        let mut done = Vec::new();
        for round in 0..4 {
            done.push(commit(second, &[put(&format!("{place}{round}"), "1")]).await);
        }
        let Some(later) = changes_until(&mut store.watch(done[1]), &place, done[3]).await else { continue };
        assert_eq!(later.into_keys().collect::<Vec<_>>(), done[2..], "after the revision, not from it on");

        // From the store's beginning: all that ever was, as far as the store remembers it.
        let mut whole = store.watch(Revision(0));
        let seen = changes_until(&mut whole, &place, done[3]).await;
        let next = commit(second, &[put(&format!("{place}next"), "1")]).await;
        match seen {
            Some(seen) => assert_eq!(seen.into_keys().collect::<Vec<_>>(), done),
            None => {
                // It no longer remembers, and said so: then it goes on with what comes.
                if changes_until(&mut whole, &place, next).await.is_none() {
                    continue;
                }
            }
        }
        return;
    }
    panic!("a watch that is not disturbed must not miss changes every time");
}

async fn a_dropped_wait_for_a_change_loses_nothing(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    for attempt in 0..5 {
        let place = place("dropped", attempt);
        let mut watch = store.watch(store.read(vec![]).await.expect("read").revision);
        let mut expected = Vec::new();
        for round in 0..20 {
            expected.push(commit(second, &[put(&format!("{place}{round}"), "1")]).await);
        }
        // Dropped at once, and after whatever part of the changes has come.
        let mut early = Vec::new();
        let mut gap = false;
        for _ in 0..20 {
            match tokio::time::timeout(Duration::from_millis(2), watch.next()).await {
                Ok(WatchEvent::Changed(changed)) if changed.keys[0].starts_with(&place) => early.push(changed.revision),
                Ok(WatchEvent::Gap) => gap = true,
                _ => {}
            }
        }
        expected.push(commit(second, &[put(&format!("{place}last"), "1")]).await);
        let last = *expected.last().expect("there is one");
        let Some(rest) = changes_until(&mut watch, &place, last).await else { continue };
        if gap {
            continue;
        }
        let seen: Vec<Revision> = early.into_iter().chain(rest.into_keys()).collect();
        assert_eq!(seen, expected);
        return;
    }
    panic!("a watch that is not disturbed must not miss changes every time");
}

async fn a_watch_sees_a_lease_end(store: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    for attempt in 0..5 {
        let place = place("lease-end", attempt);
        let key = format!("{place}k");
        let lease = second.grant(Duration::from_secs(1)).await.expect("granted");
        let put = match second.commit(txn(&[], &[put_leased(&key, "1", lease.id)])).await {
            Ok(Committed::Done(put)) => put,
            // A slow machine: the lease was gone before it was used.
            Err(StoreError::LeaseGone) => continue,
            other => panic!("{other:?}"),
        };
        let mut watch = store.watch(put);
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "the deletion is seen");
            match tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time") {
                WatchEvent::Changed(changed) if changed.keys == [key.as_str()] => {
                    assert!(changed.revision > put);
                    assert_eq!(entry(store, &key).await, None);
                    return;
                }
                WatchEvent::Changed(_) => {}
                WatchEvent::Gap => break,
            }
        }
    }
    panic!("a watch that is not disturbed must not miss changes every time");
}
