//! What a state directory comes back with after a crash at each step, after failures, and after damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::disk::{Fault, FaultyDisk, HostDisk};
use crate::fence::floor::{Floor, Remembered};
use crate::fence::{Epoch, Nonce, Resource};

/// Counts, so that every run of a test is the same.
#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        bytes.iter_mut().rev().zip(number.iter().rev()).for_each(|(byte, digit)| *byte = *digit);
    }
}

fn orders() -> Resource {
    "orders".parse().expect("a name")
}

/// Epoch `epoch`, clean at every third, with enough other records at the fourth to need larger slots.
fn memory(epoch: u64) -> Arc<Memory> {
    let floor = |epoch| Floor {
        epoch: Epoch::new(epoch).expect("in range"),
        nonce: Nonce::from_bytes(epoch.to_be_bytes()),
        writer: "orders-a".parse().expect("an id"),
        drained: epoch % 2 == 0,
        forced: false,
    };
    let mut memory = Memory { revision: 100 + epoch, ..Memory::default() };
    let record = Remembered { floor: Some(floor(epoch)), clean: epoch.is_multiple_of(3), audit: false };
    memory.put(&"db".into(), &orders(), record);
    for number in 0..if epoch >= 4 { 40 } else { 0 } {
        let record = Remembered { floor: Some(floor(1)), clean: false, audit: false };
        memory.put(&"db".into(), &format!("orders/{number}").parse().expect("a name"), record);
    }
    Arc::new(memory)
}

fn open(disk: &FaultyDisk, adopt: bool) -> Result<(StateDir, Memory, Start), StateError> {
    let id = "guard-1".parse().expect("an id");
    StateDir::open(Path::new("/s"), &id, Arc::new(disk.clone()), &Counting::default(), adopt)
}

/// Starts a door and raises its floor from 1 to 6, trying each write up to three times. Returns the last epoch that
/// was durable and the last that was tried; 0 where none was.
fn raise_floors(disk: &FaultyDisk) -> (u64, u64) {
    let Some((dir, _, _)) = (0..3).find_map(|_| open(disk, false).ok()) else { return (0, 0) };
    let mut file = dir.into_floor_file();
    let (mut durable, mut tried) = (0, 0);
    for epoch in 1..=6 {
        tried = epoch;
        if (0..3).any(|_| file.write(&memory(epoch)).is_ok()) {
            durable = epoch;
        } else {
            break;
        }
    }
    (durable, tried)
}

/// The next start finds the last durable memory, or one that was under way, and what it found is durable.
fn assert_comes_back(disk: &FaultyDisk, (durable, tried): (u64, u64), what: &str) {
    for seed in 0..6 {
        let disk = disk.restarted(seed);
        let what = format!("{what}, seed {seed}, durable {durable}, tried {tried}");
        let (dir, found, start) = open(&disk, false).unwrap_or_else(|error| panic!("{what}: {error}"));
        let epoch = found.of("db", &orders()).floor.map_or(0, |floor| floor.epoch.number());
        assert!((durable..=tried).contains(&epoch), "{what}: found {epoch}");
        if epoch > 0 {
            let mut expected = Memory::clone(&memory(epoch));
            if start == Start::OneSlot {
                expected.distrust();
            }
            assert_eq!(found, expected, "{what}");
        }
        let again = open(&disk.restarted(0), false).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((&found, dir.door()), (&again.1, again.0.door()), "{what}: what was found was not durable");
    }
}

#[test]
fn a_crash_at_any_operation_gives_the_last_durable_floor_or_the_one_under_way() {
    let healthy = FaultyDisk::new();
    assert_eq!(raise_floors(&healthy), (6, 6));
    for operation in 0..healthy.operations() {
        let disk = FaultyDisk::new();
        disk.plan(operation, Fault::Crashes);
        let floors = raise_floors(&disk);
        assert_comes_back(&disk, floors, &format!("crash at {operation}"));
    }
}

#[test]
fn a_failure_at_any_operation_and_a_crash_at_any_later_one_lose_nothing() {
    let healthy = FaultyDisk::new();
    raise_floors(&healthy);
    for fault in [Fault::Fails, Fault::FailsPartly] {
        for operation in 0..healthy.operations() {
            let disk = FaultyDisk::new();
            disk.plan(operation, fault);
            assert_eq!(raise_floors(&disk), (6, 6), "{fault:?} at {operation}");
            for later in operation + 1..disk.operations() {
                let disk = FaultyDisk::new();
                disk.plan(operation, fault);
                disk.plan(later, Fault::Crashes);
                let floors = raise_floors(&disk);
                assert_comes_back(&disk, floors, &format!("{fault:?} at {operation}, crash at {later}"));
            }
        }
    }
}

#[test]
fn a_file_whose_sync_failed_is_never_written_again() {
    let disk = FaultyDisk::new();
    let mut file = open(&disk, false).expect("opens").0.into_floor_file();
    file.write(&memory(1)).expect("written");
    disk.plan(disk.operations() + 1, Fault::FailsPartly);
    assert!(file.write(&memory(2)).is_err());
    let written = file.write(&memory(2)).expect("a new file");
    assert_eq!(written.in_both, written.sequence);
    assert_eq!(open(&disk.restarted(0), false).expect("opens").1, *memory(2));
}

#[test]
fn a_floor_is_never_lowered_or_lost() {
    let disk = FaultyDisk::new();
    let mut file = open(&disk, false).expect("opens").0.into_floor_file();
    file.write(&memory(2)).expect("written");
    assert!(matches!(file.write(&memory(1)), Err(WriteError::Lowered { .. })));
    assert!(matches!(file.write(&Arc::default()), Err(WriteError::Lowered { .. })));
    let mut file = open(&disk.restarted(1), false).expect("opens").0.into_floor_file();
    assert!(matches!(file.write(&memory(1)), Err(WriteError::Lowered { .. })), "over a restart, too");
}

#[test]
fn the_door_is_made_once_and_the_directory_is_locked() {
    let disk = FaultyDisk::new();
    let (dir, memory, start) = open(&disk, false).expect("opens");
    assert_eq!((memory, start), (Memory::default(), Start::Fresh));
    let door = dir.door().clone();
    assert!(is_door(&door) && door.starts_with("guard-1-"), "{door}");
    let file = dir.into_floor_file();
    let refused = open(&disk, false).err().expect("in use");
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    assert!(!refused.needs_an_operator());
    drop(file);
    let (dir, _, start) = open(&disk, false).expect("opens");
    assert_eq!((dir.door(), start), (&door, Start::Known));
}

/// A disk with floors at epoch 3 (clean), and its floor file's place.
fn with_floors() -> (FaultyDisk, PathBuf) {
    let disk = FaultyDisk::new();
    let mut file = open(&disk, false).expect("opens").0.into_floor_file();
    (1..=3).for_each(|epoch| {
        file.write(&memory(epoch)).expect("written");
    });
    let path = file.path().to_owned();
    (disk, path)
}

#[test]
fn an_orderly_stop_is_remembered_as_clean_and_one_bad_slot_is_not() {
    let (disk, path) = with_floors();
    let (_, found, start) = open(&disk.restarted(1), false).expect("opens");
    assert_eq!((found, start), (Memory::clone(&memory(3)), Start::Known));
    let whole = disk.read(&path).expect("there");
    for (damaged, expected) in [(100, 2), (4096 + 100, 3)] {
        let disk = disk.restarted(1);
        let mut bytes = whole.clone();
        bytes[damaged] ^= 1;
        disk.overwrite(&path, &bytes);
        let (_, found, start) = open(&disk, false).expect("opens");
        let record = found.of("db", &orders());
        assert_eq!((record.floor.map(|floor| floor.epoch.number()), record.clean), (Some(expected), false));
        assert_eq!(start, Start::OneSlot);
    }
}

#[test]
fn floors_that_cannot_be_read_are_refused_until_adopted_and_kept_aside() {
    let (disk, path) = with_floors();
    for damage in [&b""[..], b"rubbish", &[0; 8192], b"epochgate-floors 2 something newer"] {
        let disk = disk.restarted(1);
        disk.overwrite(&path, damage);
        let refused = open(&disk, false).err().expect("refused");
        assert!(refused.needs_an_operator() && refused.to_string().contains("--adopt-floor"), "{refused}");
        assert_eq!(disk.read(&path).expect("untouched"), damage);

        let (dir, found, start) = open(&disk, true).expect("adopted");
        assert_eq!(start, Start::Adopted);
        assert!(found.of("db", &orders()).has_residue(false), "its predecessor may have forwarded anything");
        let aside = disk.files().into_iter().find(|file| file.to_string_lossy().contains("unreadable"));
        assert_eq!(disk.read(&aside.expect("kept")).expect("there"), damage);
        drop(dir);
        let (_, found, start) = open(&disk.restarted(0), false).expect("opens");
        assert_eq!(start, Start::Known);
        assert!(found.forgotten, "a second start still has the residue");
    }
}

/// A start on this file finds the newest floor, or the one before it without trust, or is refused; never less.
fn assert_newest_before_or_refused(disk: &FaultyDisk, path: &Path, bytes: &[u8], what: &str) -> bool {
    disk.overwrite(path, bytes);
    match open(disk, false) {
        Err(refused) => {
            assert!(refused.needs_an_operator(), "{what}: {refused}");
            false
        }
        Ok((_, found, start)) => {
            let record = found.of("db", &orders());
            let epoch = record.floor.map(|floor| floor.epoch.number());
            let as_it_was = (start, epoch, record.clean) == (Start::Known, Some(3), true);
            let from_one = start == Start::OneSlot && matches!(epoch, Some(2 | 3)) && !record.clean;
            assert!(as_it_was || from_one, "{what}: {start:?} with {epoch:?}, clean: {}", record.clean);
            true
        }
    }
}

/// Every length that a file can be cut to; every bit of what is written in it, and one bit of every other byte.
#[test]
fn every_truncation_and_every_flipped_bit_gives_the_newest_floor_or_the_one_before_or_a_refusal() {
    let (disk, path) = with_floors();
    let disk = disk.restarted(1);
    let whole = disk.read(&path).expect("there");
    for length in 0..whole.len() {
        let started = assert_newest_before_or_refused(&disk, &path, &whole[..length], &format!("cut to {length}"));
        assert!(started || length < whole.len() / 2, "cut to {length}: the first slot is whole");
    }
    let mut damaged = whole.clone();
    for byte in 0..whole.len() {
        let bits = if whole[byte] == 0 { byte % 8..byte % 8 + 1 } else { 0..8 };
        for bit in bits {
            damaged[byte] = whole[byte] ^ (1 << bit);
            let what = format!("bit {bit} of byte {byte}");
            assert!(assert_newest_before_or_refused(&disk, &path, &damaged, &what), "{what}: the other slot is whole");
        }
        damaged[byte] = whole[byte];
    }
}

#[test]
fn floors_that_are_gone_are_refused_until_adopted() {
    let (disk, path) = with_floors();
    let disk = disk.restarted(1);
    disk.remove(&path).expect("removed");
    let refused = open(&disk, false).err().expect("refused");
    assert!(refused.needs_an_operator() && refused.to_string().contains("gone"), "{refused}");
    let (_, found, start) = open(&disk, true).expect("adopted");
    assert!(start == Start::Adopted && found.forgotten);
}

#[test]
fn another_doors_floors_are_refused_until_adopted() {
    let (disk, path) = with_floors();
    let door = Path::new("/s/door");
    for own in [Some("guard-2-00000001\n"), None] {
        let disk = disk.restarted(1);
        match own {
            Some(own) => disk.overwrite(door, own.as_bytes()),
            None => disk.remove(door).expect("removed"),
        }
        let before = disk.read(&path).expect("there");
        let refused = open(&disk, false).err().expect("refused");
        assert!(matches!(refused, StateError::OtherDoor { .. }), "{refused}");
        assert_eq!(disk.read(&path).expect("untouched"), before);
        let (dir, found, start) = open(&disk, true).expect("adopted");
        let record = found.of("db", &orders());
        assert_eq!((record.floor.map(|floor| floor.epoch.number()), record.clean), (Some(3), false));
        assert_eq!(start, Start::Adopted);
        assert!(own.is_none_or(|own| own.trim_end() == &**dir.door()));
        drop(dir);
        assert_eq!(open(&disk, false).expect("opens").2, Start::Known);
    }
}

#[test]
fn a_damaged_door_is_refused_and_taken_from_its_floors_when_adopted() {
    let (disk, _) = with_floors();
    for damage in ["", "\n", "guard-1-0000000", "guard-1-0000000G\n", "guard 1-00000001\n"] {
        let disk = disk.restarted(1);
        disk.overwrite(Path::new("/s/door"), damage.as_bytes());
        let refused = open(&disk, false).err().expect("refused");
        assert!(refused.needs_an_operator(), "{refused}");
        let (dir, found, _) = open(&disk, true).expect("adopted");
        assert!(dir.door().starts_with("guard-1-"));
        assert_eq!(found.of("db", &orders()).floor.map(|floor| floor.epoch.number()), Some(3));
    }
}

#[test]
fn it_works_on_the_disk_of_this_host() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("state");
    let id = "guard-1".parse().expect("an id");
    let open = || StateDir::open(&path, &id, Arc::new(HostDisk), &Counting::default(), false);
    let (dir, _, start) = open().expect("opens");
    assert_eq!(start, Start::Fresh);
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
    let door = dir.door().clone();
    let mut file = dir.into_floor_file();
    assert!(matches!(open().err(), Some(StateError::InUse { pid: Some(pid), .. }) if pid == std::process::id()));
    for epoch in 1..=6 {
        file.write(&memory(epoch)).expect("written");
    }
    drop(file);
    let (dir, found, start) = open().expect("opens");
    assert_eq!((dir.door(), found, start), (&door, Memory::clone(&memory(6)), Start::Known));
}

#[test]
fn a_directory_that_is_moved_under_a_running_process_is_noticed_and_never_healed() {
    let root = tempfile::tempdir().expect("a folder");
    let (path, aside) = (root.path().join("state"), root.path().join("aside"));
    let id = "guard-1".parse().expect("an id");
    let open = || StateDir::open(&path, &id, Arc::new(HostDisk), &Counting::default(), false);
    let mut file = open().expect("opens").0.into_floor_file();
    file.write(&memory(1)).expect("written");
    for replaced in [false, true] {
        std::fs::rename(&path, &aside).expect("moved");
        if replaced {
            drop(open().expect("another process begins anew in its place"));
        }
        assert!(matches!(file.write(&memory(2)), Err(WriteError::Moved { .. })), "replaced: {replaced}");
        assert!(replaced || !path.exists(), "it made nothing in the place of what is gone");
        let _ = std::fs::remove_dir_all(&path);
        std::fs::rename(&aside, &path).expect("put back");
        file.write(&memory(2)).expect("it is in its place again");
    }
}

#[test]
fn an_older_copy_that_is_put_in_the_files_place_is_replaced_by_the_next_write() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("state");
    let id = "guard-1".parse().expect("an id");
    let open = || StateDir::open(&path, &id, Arc::new(HostDisk), &Counting::default(), false);
    let mut file = open().expect("opens").0.into_floor_file();
    file.write(&memory(1)).expect("written");
    let copy = std::fs::read(path.join("floors")).expect("there");
    file.write(&memory(2)).expect("written");
    std::fs::write(path.join("copy"), copy).expect("written");
    std::fs::rename(path.join("copy"), path.join("floors")).expect("put in its place");
    file.write(&memory(3)).expect("written");
    drop(file);
    let (_, found, _) = open().expect("opens");
    assert_eq!(found.of("db", &orders()).floor.map(|floor| floor.epoch.number()), Some(3));
}
