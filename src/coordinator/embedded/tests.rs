//! The store in a folder: what it answers, what it survives, and who wins.

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::state::State;
use super::*;
use crate::clock::{HostClock, HostEntropy};
use crate::coordinator::store::{Change, Changed, Compare, Keys, WatchEvent};

/// What a test does in the middle of a commit.
#[derive(Default)]
pub(super) struct Hooks {
    before_link: Mutex<Option<Hook>>,
    after_link: Mutex<Option<Hook>>,
    kept: AtomicU64,
}

type Hook = Box<dyn FnOnce(u64) + Send>;

impl Hooks {
    /// Called with the revision's number, right before it is linked.
    pub fn before_link(&self, revision: u64) {
        self.doze();
        Hooks::run(&self.before_link, revision);
    }

    /// Called right after.
    pub fn after_link(&self, revision: u64) {
        self.doze();
        Hooks::run(&self.after_link, revision);
    }

    /// How many revisions are kept, where a test says so.
    pub fn kept(&self) -> Option<u64> {
        Some(self.kept.load(Ordering::SeqCst)).filter(|kept| *kept > 0)
    }

    /// Falls asleep now and then, where few revisions are kept. It only makes what is tested more frequent.
    fn doze(&self) {
        let dice = HostEntropy.fraction();
        if self.kept().is_some() && dice < 0.2 {
            std::thread::sleep(Duration::from_millis(300).mul_f64(dice));
        }
    }

    fn run(hook: &Mutex<Option<Hook>>, revision: u64) {
        let hook = hook.lock().expect("no test panics here").take();
        if let Some(hook) = hook {
            hook(revision);
        }
    }
}

/// Stops a committer at a hook: it says where it is, and goes on when told.
fn stop_at(hook: &Mutex<Option<Hook>>) -> (Receiver<u64>, Sender<()>) {
    let (arrived, is_there) = channel();
    let (go, gone) = channel::<()>();
    *hook.lock().expect("no test panics here") = Some(Box::new(move |revision| {
        arrived.send(revision).expect("the test waits");
        // A test that has failed tells nobody to go on; its failure is to be seen all the same.
        let _ = gone.recv_timeout(Duration::from_secs(300));
    }));
    (is_there, go)
}

/// A clock that a test sets.
#[derive(Default)]
struct SetClock(AtomicU64);

impl SetClock {
    fn advance(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_nanos()).expect("short"), Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<SetClock>,
}

impl World {
    fn new() -> World {
        World { dir: tempfile::tempdir().expect("a folder"), clock: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("epochgate.db")
    }

    fn open_in(&self, boot: &str) -> Arc<Embedded> {
        let limit = Duration::from_secs(300);
        Embedded::open_in_boot(&self.path(), self.clock.clone(), Arc::new(HostEntropy), limit, boot).expect("opens")
    }

    fn open(&self) -> Arc<Embedded> {
        self.open_in("one")
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join("revisions")).expect("there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
        names.sort_unstable();
        names
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.into(), value: value.into(), lease: None }
}

fn put_leased(key: &str, lease: LeaseId) -> Change {
    Change::Put { key: key.into(), value: b"{}".to_vec(), lease: Some(lease) }
}

fn commit(store: &Embedded, compares: Vec<Compare>, changes: Vec<Change>) -> Result<Committed, StoreError> {
    run(store.commit(Txn { compares, changes }))
}

fn done(store: &Embedded, compares: Vec<Compare>, changes: Vec<Change>) -> Revision {
    match commit(store, compares, changes).expect("an answer") {
        Committed::Done(revision) => revision,
        Committed::Refused(at) => panic!("refused at {at}"),
    }
}

fn read(store: &Embedded, keys: Keys) -> Snapshot {
    run(store.read(vec![Range::all(keys)])).expect("an answer")
}

fn value(store: &Embedded, key: &str) -> Option<String> {
    let entries = read(store, Keys::One(key.into())).ranges.remove(0);
    entries.into_iter().next().map(|entry| String::from_utf8(entry.value).expect("text"))
}

#[test]
fn every_comparison_holds_or_refuses() {
    let world = World::new();
    let store = world.open();
    let first = done(&store, vec![], vec![put("a/1", "1")]);
    let second = done(&store, vec![], vec![put("a/1", "2"), put("b", "1")]);
    let third = done(&store, vec![], vec![put("a/2", "1")]);
    let key = |key: &str| key.to_owned();
    let cases = [
        (Compare::Absent(key("c")), true),
        (Compare::Absent(key("a")), true),
        (Compare::Absent(key("b")), false),
        (Compare::CreatedAt(key("a/1"), first), true),
        (Compare::CreatedAt(key("a/1"), second), false),
        (Compare::CreatedAt(key("c"), Revision(0)), false),
        (Compare::ModifiedAt(key("a/1"), second), true),
        (Compare::ModifiedAt(key("a/1"), first), false),
        (Compare::ModifiedAt(key("c"), Revision(0)), false),
        (Compare::NoneModifiedAfter(key("a/"), third), true),
        (Compare::NoneModifiedAfter(key("a/"), second), false),
        (Compare::NoneModifiedAfter(key("b"), second), true),
        (Compare::NoneModifiedAfter(key("c"), Revision(0)), true),
        (Compare::NoneCreatedAfter(key("a/1"), first), true),
        (Compare::NoneCreatedAfter(key("a/"), second), false),
        (Compare::NoneCreatedAfter(key(""), third), true),
    ];
    for (compare, expected) in cases {
        let answer = commit(&store, vec![compare.clone()], vec![]).expect("an answer");
        let wanted = if expected { Committed::Done(third) } else { Committed::Refused(third) };
        assert_eq!(answer, wanted, "{compare:?}");
    }
    let mixed = vec![Compare::Absent(key("c")), Compare::Absent(key("b"))];
    assert_eq!(commit(&store, mixed, vec![put("c", "1")]), Ok(Committed::Refused(third)));
    assert_eq!(value(&store, "c"), None, "one condition that does not hold refuses all");
}

#[test]
fn reads_give_revisions_values_and_ranges_as_they_stand() {
    let world = World::new();
    let store = world.open();
    let first = done(&store, vec![], vec![put("a/1", "1"), put("a/2", "1"), put("b", "1")]);
    let second = done(&store, vec![], vec![put("a/2", "2"), Change::Delete("b".into())]);
    world.clock.advance(Duration::from_secs(7));
    let ranges = vec![
        Range::all(Keys::Under("a/".into())),
        Range { keys: Keys::Under(String::new()), since: second },
        Range::all(Keys::One("b".into())),
    ];
    let snapshot = run(store.read(ranges)).expect("an answer");
    assert_eq!((snapshot.revision, snapshot.sent), (second, Moment::from_nanos(7_000_000_000)));
    let shown: Vec<Vec<_>> = snapshot
        .ranges
        .iter()
        .map(|range| range.iter().map(|entry| (entry.key.as_str(), entry.created, entry.modified)).collect())
        .collect();
    assert_eq!(shown, [vec![("a/1", first, first), ("a/2", first, second)], vec![("a/2", first, second)], vec![]]);
    let third = done(&store, vec![], vec![put("b", "2")]);
    let entry = &read(&store, Keys::One("b".into())).ranges[0][0];
    assert_eq!(entry.created, third, "a key that comes again is created again");
}

#[test]
fn a_commit_that_changes_nothing_makes_no_revision_and_a_bad_one_does_nothing() {
    let world = World::new();
    let store = world.open();
    let first = done(&store, vec![], vec![put("a", "1")]);
    assert_eq!(done(&store, vec![], vec![Change::Delete("b".into())]), first);
    let twice = commit(&store, vec![], vec![put("a", "2"), Change::Delete("a".into())]);
    assert!(matches!(twice, Err(StoreError::Denied(_))), "{twice:?}");
    assert_eq!(commit(&store, vec![], vec![put_leased("c", LeaseId(5))]), Err(StoreError::LeaseGone));
    assert_eq!(read(&store, Keys::Under(String::new())).revision, first);
    assert_eq!(value(&store, "a").as_deref(), Some("1"));
}

#[test]
fn any_bytes_come_back_as_they_were_put() {
    let world = World::new();
    let store = world.open();
    let bytes = vec![0, 159, 146, 150];
    done(&store, vec![], vec![Change::Put { key: "k".into(), value: bytes.clone(), lease: None }]);
    assert_eq!(read(&world.open(), Keys::One("k".into())).ranges[0][0].value, bytes);
}

#[test]
fn eight_writers_lose_no_commit_of_four_hundred() {
    let world = World::new();
    let increment = |store: &Embedded| loop {
        let snapshot = read(store, Keys::One("count".into()));
        let (compare, count) = match snapshot.ranges[0].first() {
            None => (Compare::Absent("count".into()), 0),
            Some(entry) => {
                let text = std::str::from_utf8(&entry.value).expect("text");
                (Compare::ModifiedAt("count".into(), entry.modified), text.parse::<u32>().expect("a number"))
            }
        };
        let answer = commit(store, vec![compare], vec![put("count", &(count + 1).to_string())]);
        if let Committed::Done(_) = answer.expect("an answer") {
            return;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let store = world.open();
            scope.spawn(move || (0..50).for_each(|_| increment(&store)));
        }
    });
    let store = world.open();
    assert_eq!(value(&store, "count").as_deref(), Some("400"));
    assert_eq!(read(&store, Keys::One("count".into())).revision, Revision(401));
    assert!(world.names().len() <= 64, "{:?}", world.names());
}

/// With three revisions kept, everybody falls behind all the time: what is in doubt is told, nothing else is. Three is
/// the least that works: who finds its parent pruned takes its own link back, and that must not be the newest's parent.
#[test]
fn writers_that_fall_behind_are_told_and_no_reader_is_fooled() {
    let world = World::new();
    // The highest revision that any commit was answered with, and the count at each revision that was read.
    let (answered, seen) = (AtomicU64::new(0), Mutex::new(std::collections::BTreeMap::new()));
    let look = |store: &Embedded| {
        let before = answered.load(Ordering::SeqCst);
        let snapshot = read(store, Keys::One("count".into()));
        assert!(snapshot.revision.0 >= before, "read {} after {before} was answered", snapshot.revision);
        let entry = snapshot.ranges[0].first();
        let count =
            entry.map_or(0, |entry| std::str::from_utf8(&entry.value).expect("text").parse().expect("a number"));
        let known = *seen.lock().expect("whole").entry(snapshot.revision).or_insert(count);
        assert_eq!(known, count, "two pasts at revision {}", snapshot.revision);
        (count, entry.map(|entry| entry.modified))
    };
    let work = |store: &Embedded| {
        let (mut done, mut unclear) = (0u32, 0u32);
        for _ in 0..40 {
            let (count, modified) = look(store);
            let compare =
                modified.map_or(Compare::Absent("count".into()), |at| Compare::ModifiedAt("count".into(), at));
            match commit(store, vec![compare], vec![put("count", &(count + 1).to_string())]) {
                Ok(Committed::Done(revision)) => {
                    answered.fetch_max(revision.0, Ordering::SeqCst);
                    done += 1;
                }
                Ok(Committed::Refused(_)) => {}
                Err(StoreError::Unreachable(_)) => unclear += 1,
                Err(error) => panic!("{error}"),
            }
        }
        (done, unclear)
    };
    let (done, unclear) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let store = world.open();
                store.chain.hooks.kept.store(3, Ordering::SeqCst);
                scope.spawn(move || work(&store))
            })
            .collect();
        let results = workers.into_iter().map(|worker| worker.join().expect("no panic"));
        results.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    let (count, _): (u32, _) = look(&world.open());
    assert!((done..=done + unclear).contains(&count), "{count} counted, {done} done, {unclear} in doubt");
    assert!(done > 0 && world.names().len() < 20, "{done} done; {:?}", world.names());
}

#[test]
fn a_lease_ends_with_its_keys_unless_it_is_kept_alive() {
    let world = World::new();
    let (store, other) = (world.open(), world.open());
    let lease = run(store.grant(Duration::from_millis(1500))).expect("granted");
    assert_eq!(lease.ttl, Duration::from_millis(1500));
    let put_at = done(&store, vec![], vec![put_leased("leaders/r", lease.id), put("epochs/r", "1")]);

    world.clock.advance(Duration::from_millis(1499));
    let renewed = run(other.keep_alive(lease.id)).expect("alive");
    assert_eq!((renewed.id, renewed.ttl, renewed.sent), (lease.id, lease.ttl, world.clock.now()));
    let entry = read(&store, Keys::One("leaders/r".into())).ranges[0].remove(0);
    assert_eq!((entry.modified, entry.lease), (put_at, Some(lease.id)), "renewing touches no key");

    world.clock.advance(Duration::from_millis(1500));
    let before = put_at.0 + 1;
    let snapshot = read(&other, Keys::Under(String::new()));
    let keys: Vec<_> = snapshot.ranges[0].iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["epochs/r"]);
    assert_eq!(snapshot.revision, Revision(before + 1), "its end is a revision of its own");
    assert_eq!(run(store.keep_alive(lease.id)), Err(StoreError::LeaseGone));
    assert_eq!(commit(&store, vec![], vec![put_leased("x", lease.id)]), Err(StoreError::LeaseGone));
}

#[test]
fn an_ended_lease_is_over_for_a_commit_too() {
    let world = World::new();
    let store = world.open();
    let lease = run(store.grant(Duration::from_secs(2))).expect("granted");
    done(&store, vec![], vec![put_leased("leaders/r", lease.id)]);
    world.clock.advance(Duration::from_secs(2));
    done(&store, vec![Compare::Absent("leaders/r".into())], vec![put("leaders/r", "mine")]);
    assert_eq!(value(&store, "leaders/r").as_deref(), Some("mine"));
}

#[test]
fn revoking_ends_a_lease_with_its_keys_once() {
    let world = World::new();
    let store = world.open();
    let leases = [1, 2].map(|_| run(store.grant(Duration::from_secs(2))).expect("granted").id);
    done(&store, vec![], vec![put_leased("a", leases[0]), put_leased("b", leases[1])]);
    assert_eq!(run(store.revoke(leases[0])), Ok(()));
    assert_eq!(run(store.revoke(leases[0])), Ok(()));
    assert_eq!((value(&store, "a"), value(&store, "b").is_some()), (None, true));
    assert_eq!(run(store.keep_alive(leases[0])), Err(StoreError::LeaseGone));
}

#[test]
fn leases_do_not_outlive_the_boot() {
    let world = World::new();
    let store = world.open();
    let lease = run(store.grant(Duration::from_secs(3600))).expect("granted");
    done(&store, vec![], vec![put_leased("leaders/r", lease.id), put("epochs/r", "1")]);
    drop(store);
    let store = world.open_in("two");
    assert_eq!(value(&store, "leaders/r"), None);
    assert_eq!(value(&store, "epochs/r").as_deref(), Some("1"));
    assert_eq!(run(store.keep_alive(lease.id)), Err(StoreError::LeaseGone));
    let lease = run(store.grant(Duration::from_secs(3600))).expect("granted");
    done(&store, vec![], vec![put_leased("leaders/r", lease.id)]);
    assert!(value(&world.open_in("two"), "leaders/r").is_some(), "a lease of this boot lives");
}

/// Makes so many commits, each of them a put of `other`.
fn commit_times(store: &Embedded, times: u64) {
    for number in 0..times {
        done(store, vec![], vec![put("other", &number.to_string())]);
    }
}

#[test]
fn a_committer_that_slept_before_its_link_loses_against_one_other_commit() {
    let world = World::new();
    let (sleeper, other) = (world.open(), world.open());
    done(&other, vec![], vec![put("owner", "none")]);
    let (arrived, go) = stop_at(&sleeper.chain.hooks.before_link);
    std::thread::scope(|scope| {
        let sleeping = scope
            .spawn(|| commit(&sleeper, vec![Compare::Absent("taken".into())], vec![put("taken", "by the sleeper")]));
        assert_eq!(arrived.recv().expect("it comes"), 3);
        done(&other, vec![Compare::Absent("taken".into())], vec![put("taken", "by the other")]);
        go.send(()).expect("it waits");
        let answer = sleeping.join().expect("no panic").expect("an answer");
        assert_eq!(answer, Committed::Refused(Revision(3)));
    });
    assert_eq!(value(&sleeper, "taken").as_deref(), Some("by the other"));
}

#[test]
fn a_committer_that_slept_until_its_number_was_pruned_commits_nothing() {
    let world = World::new();
    let (sleeper, other, watcher) = (world.open(), world.open(), world.open());
    done(&other, vec![], vec![put("owner", "none")]);
    let (arrived, go) = stop_at(&sleeper.chain.hooks.before_link);
    let (linked, look) = stop_at(&sleeper.chain.hooks.after_link);
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| commit(&sleeper, vec![], vec![put("owner", "the sleeper")]));
        let revision = arrived.recv().expect("it comes");
        commit_times(&other, 100);
        go.send(()).expect("it waits");
        assert_eq!(linked.recv().expect("its link succeeds"), revision);
        let void = format!("{revision:020}");
        assert_eq!(world.names()[0], void, "and stands below all others");
        // Nobody believes it: an old handle, a new one, a watch of that age.
        for store in [&watcher, &world.open()] {
            assert_eq!(value(store, "owner").as_deref(), Some("none"));
        }
        assert_eq!(run(watcher.watch(Revision(revision - 1)).next()), WatchEvent::Gap);
        assert_eq!(run(watcher.watch(Revision(revision)).next()), WatchEvent::Gap);
        look.send(()).expect("it waits");
        let answer = sleeping.join().expect("no panic");
        assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
        assert!(!world.names().contains(&void), "it takes its name away");
    });
    assert_eq!(value(&sleeper, "owner").as_deref(), Some("none"));
}

#[test]
fn a_committer_that_slept_after_its_link_does_not_commit_twice() {
    let world = World::new();
    let (sleeper, other) = (world.open(), world.open());
    let (arrived, go) = stop_at(&sleeper.chain.hooks.after_link);
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| commit(&sleeper, vec![], vec![put("owner", "the sleeper")]));
        arrived.recv().expect("it comes");
        assert_eq!(value(&other, "owner").as_deref(), Some("the sleeper"), "it has happened");
        done(&other, vec![], vec![put("owner", "the other")]);
        commit_times(&other, 100);
        go.send(()).expect("it waits");
        let answer = sleeping.join().expect("no panic");
        assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
    });
    assert_eq!(value(&sleeper, "owner").as_deref(), Some("the other"));
}

#[test]
fn a_keep_alive_that_slept_is_simply_done_again() {
    let world = World::new();
    let (sleeper, other) = (world.open(), world.open());
    let lease = run(other.grant(Duration::from_secs(5))).expect("granted");
    let (arrived, go) = stop_at(&sleeper.chain.hooks.before_link);
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| run(sleeper.keep_alive(lease.id)));
        arrived.recv().expect("it comes");
        commit_times(&other, 100);
        go.send(()).expect("it waits");
        assert_eq!(sleeping.join().expect("no panic").expect("alive").id, lease.id);
    });
}

#[test]
fn what_a_crash_leaves_behind_is_removed_and_never_read() {
    let world = World::new();
    let store = world.open();
    commit_times(&store, 70);
    let revisions = world.path().join("revisions");
    // A void file whose owner died between link and look, a torn temporary file, and one of a live process.
    std::fs::write(revisions.join("00000000000000000002"), State::default().encode()).expect("written");
    std::fs::write(revisions.join("tmp-old"), b"epochgate-st").expect("written");
    std::fs::write(revisions.join("tmp-live"), b"").expect("written");
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    let file = std::fs::File::options().write(true).open(revisions.join("tmp-old")).expect("there");
    file.set_modified(old).expect("set");
    drop(file);
    let other = world.open();
    assert_eq!(value(&other, "other").as_deref(), Some("69"));
    commit_times(&other, 1);
    let names = world.names();
    assert!(!names.contains(&"00000000000000000002".into()) && !names.contains(&"tmp-old".into()), "{names:?}");
    assert!(names.contains(&"tmp-live".into()));
    assert_eq!(names.len(), 65);
}

#[test]
fn a_committer_whose_temporary_file_was_removed_begins_again() {
    let world = World::new();
    let (sleeper, other) = (world.open(), world.open());
    let (arrived, go) = stop_at(&sleeper.chain.hooks.before_link);
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| done(&sleeper, vec![], vec![put("a", "1")]));
        arrived.recv().expect("it comes");
        let temporary = world.names().into_iter().find(|name| name.starts_with("tmp-")).expect("there");
        std::fs::remove_file(world.path().join("revisions").join(temporary)).expect("removed");
        go.send(()).expect("it waits");
        sleeping.join().expect("no panic");
    });
    assert_eq!(value(&other, "a").as_deref(), Some("1"));
}

#[test]
fn a_damaged_newest_revision_is_refused_not_passed_over() {
    let world = World::new();
    commit_times(&world.open(), 3);
    let newest = world.path().join("revisions").join(world.names().pop().expect("some"));
    let whole = std::fs::read(&newest).expect("there");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let newer = [b"epochgate-store 2 crc=00000000\n".as_slice(), b"{}"].concat();
    for damage in [&whole[..whole.len() - 1], &[], &flipped, &newer] {
        std::fs::write(&newest, damage).expect("written");
        let limit = Duration::from_secs(300);
        let opened = Embedded::open_in_boot(&world.path(), world.clock.clone(), Arc::new(HostEntropy), limit, "one");
        let error = opened.err().expect("refused");
        assert!(matches!(&error, StoreError::Unusable(why) if why.contains("revision 4")), "{error}");
    }
}

#[test]
fn a_store_that_was_wiped_is_a_new_one_for_those_who_had_it_open() {
    let world = World::new();
    let (old, sleeper) = (world.open(), world.open());
    commit_times(&old, 10);
    let (arrived, go) = stop_at(&sleeper.chain.hooks.before_link);
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| done(&sleeper, vec![], vec![put("a", "1")]));
        arrived.recv().expect("it comes");
        std::fs::remove_dir_all(world.path()).expect("removed");
        let new = world.open();
        assert_eq!(done(&new, vec![], vec![put("b", "1")]), Revision(2));
        go.send(()).expect("it waits");
        assert_eq!(sleeping.join().expect("no panic"), Revision(3), "it lands in the new one");
    });
    let snapshot = read(&old, Keys::Under(String::new()));
    let keys: Vec<_> = snapshot.ranges[0].iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((snapshot.revision, keys), (Revision(3), vec!["a", "b"]));
}

#[test]
fn a_watch_tells_every_change_in_order_deletions_and_ended_leases_too() {
    let world = World::new();
    let (store, other) = (world.open(), world.open());
    let start = done(&store, vec![], vec![put("a", "1"), put("b", "1")]);
    let changed = |revision: u64, keys: &[&str]| {
        WatchEvent::Changed(Changed {
            revision: Revision(revision),
            keys: keys.iter().map(|key| (*key).into()).collect(),
        })
    };
    run(async {
        let mut watch = store.watch(start);
        other.commit(Txn { changes: vec![put("c", "1"), Change::Delete("a".into())], ..Txn::default() }).await?;
        let lease = other.grant(Duration::from_secs(2)).await?;
        other.commit(Txn { changes: vec![put_leased("d", lease.id)], ..Txn::default() }).await?;
        other.keep_alive(lease.id).await?;
        assert_eq!(watch.next().await, changed(start.0 + 1, &["a", "c"]));
        assert_eq!(watch.next().await, changed(start.0 + 3, &["d"]));
        // A `next` that is dropped loses nothing, however often.
        for _ in 0..50 {
            let soon = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
            assert!(soon.is_err(), "{soon:?}");
        }
        world.clock.advance(Duration::from_secs(2));
        assert_eq!(watch.next().await, changed(start.0 + 5, &["d"]), "nobody but the watch looked");
        other.commit(Txn { changes: vec![put("b", "2")], ..Txn::default() }).await?;
        let late = async {
            loop {
                if let Ok(event) = tokio::time::timeout(Duration::from_millis(1), watch.next()).await {
                    return event;
                }
            }
        };
        assert_eq!(late.await, changed(start.0 + 6, &["b"]), "impatience starves no watch");
        Ok::<(), StoreError>(())
    })
    .expect("every call is answered");
}

#[test]
fn a_watch_says_where_history_is_missing_and_goes_on() {
    let world = World::new();
    let store = world.open();
    let start = done(&store, vec![], vec![put("a", "1")]);
    let mut behind = store.watch(start);
    commit_times(&store, 100);
    let mut ahead = store.watch(Revision(5000));
    run(async {
        for watch in [&mut behind, &mut ahead] {
            assert_eq!(watch.next().await, WatchEvent::Gap);
        }
        let done = store.commit(Txn { changes: vec![put("z", "1")], ..Txn::default() }).await;
        for watch in [&mut behind, &mut ahead] {
            let event = watch.next().await;
            assert!(matches!(&event, WatchEvent::Changed(changed) if changed.keys == ["z"]), "{event:?} {done:?}");
        }
    });
}

#[test]
fn what_is_no_place_for_a_store_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = |path: &Path| Embedded::open(path, Arc::new(HostClock), Arc::new(HostEntropy));
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").expect("written");
    for path in [dir.path(), &file] {
        let error = open(path).err().expect("refused");
        assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    }
    let store = open(&dir.path().join("a/b.db")).expect("folders above are made");
    assert_eq!((store.kind(), store.endpoint().ends_with("a/b.db")), ("embedded", true));
}

#[test]
fn first_starts_at_the_same_time_make_one_store() {
    for _ in 0..10 {
        let world = World::new();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let world = &world;
                scope.spawn(move || done(&world.open(), vec![], vec![put(&number.to_string(), "1")]));
            }
        });
        let snapshot = read(&world.open(), Keys::Under(String::new()));
        assert_eq!((snapshot.revision, snapshot.ranges[0].len()), (Revision(5), 4));
        assert_eq!(std::fs::read_dir(world.path()).expect("there").count(), 1);
    }
}
