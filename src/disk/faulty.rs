//! A disk in memory that fails, tears and forgets on demand: for tests and the simulation.
//!
//! Every changing operation has a number, from 0 on; a [`Fault`] can be set for any of them. After a crash,
//! [`FaultyDisk::restarted`] gives the disk as the next process finds it: what was synced, and of the rest what a
//! seed decides, sector by sector and name by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Locked};

/// The unit in which a torn write is kept or lost.
const SECTOR: usize = 512;

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing.
    Fails,
    /// It fails, and half of it has happened: a write leaves its first half, a name is changed but not durable. A
    /// sync that fails so loses what was written, though reads still show it and the next sync succeeds, as the Linux
    /// page cache does.
    FailsPartly,
    /// The machine dies while it is under way: every later operation fails, see [`FaultyDisk::restarted`].
    Crashes,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    world: Mutex<World>,
    resumed: Condvar,
}

#[derive(Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<Vec<Naming>>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    planned: BTreeMap<u64, Fault>,
    broken: bool,
    crashed: bool,
    paused: bool,
    waiting: usize,
}

/// A name and the file that it gets; none: it goes.
type Naming = (PathBuf, Option<usize>);

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// Lets operation number `operation` go wrong.
    pub fn plan(&self, operation: u64, fault: Fault) {
        self.world().planned.insert(operation, fault);
    }

    /// Lets every operation from now on fail, or no longer: a full disk.
    pub fn set_broken(&self, broken: bool) {
        self.world().broken = broken;
    }

    /// Lets every operation from now on wait, or go on: a disk that hangs.
    pub fn set_paused(&self, paused: bool) {
        self.world().paused = paused;
        self.0.resumed.notify_all();
    }

    /// How many operations wait while the disk is paused.
    pub fn waiting(&self) -> usize {
        self.world().waiting
    }

    /// How many operations there were: the number of the next one.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Kills the machine between two operations.
    pub fn crash(&self) {
        self.world().crashed = true;
    }

    /// The disk as it is found after the machine died. Seed 0 loses all that was not synced, seed 1 keeps it all (as
    /// when only the process dies), any other keeps some.
    pub fn restarted(&self, seed: u64) -> FaultyDisk {
        let world = self.world();
        let mut dice = Dice::new(seed);
        let inodes = world.inodes.iter().map(|inode| inode.after_crash(&mut dice)).collect();
        let mut names = world.durable_names.clone();
        // A journal keeps the order of names: a prefix of the changes survives.
        let survivors = dice.up_to(world.unsynced_names.len());
        for (path, inode) in world.unsynced_names.iter().take(survivors).flatten() {
            set_name(&mut names, path, *inode);
        }
        let next = World { inodes, durable_names: names.clone(), names, ..World::default() };
        FaultyDisk(Arc::new(Shared { world: Mutex::new(next), resumed: Condvar::new() }))
    }

    /// Puts this content in a file, durably, past all faults: for damage by hand.
    pub fn overwrite(&self, path: &Path, content: &[u8]) {
        let mut world = self.world();
        let inode = world.inodes.len();
        world.inodes.push(Inode { now: content.to_vec(), durable: content.to_vec(), unsynced: Vec::new() });
        world.names.insert(path.into(), inode);
        world.durable_names.insert(path.into(), inode);
    }

    /// The names of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one operation: `act` makes it happen, to the extent that it is told.
    fn operate<T>(&self, act: impl FnOnce(&mut World, Extent) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world();
        world.waiting += 1;
        while world.paused && !world.crashed {
            world = self.0.resumed.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        world.waiting -= 1;
        world.alive()?;
        let number = world.operations;
        world.operations += 1;
        if world.broken {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        match world.planned.remove(&number) {
            None => act(&mut world, Extent::Whole),
            Some(Fault::Fails) => Err(io::Error::other("a planned fault")),
            Some(Fault::FailsPartly) => {
                act(&mut world, Extent::Half)?;
                Err(io::Error::other("a planned fault, by half"))
            }
            Some(Fault::Crashes) => {
                act(&mut world, Extent::UnderWay)?;
                world.crashed = true;
                Err(crashed())
            }
        }
    }
}

/// How much of an operation happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Half,
    UnderWay,
}

impl World {
    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(crashed()) } else { Ok(()) }
    }

    /// Changes names in one step: a crash leaves all of them or none.
    fn name(&mut self, changes: Vec<Naming>) {
        for (path, inode) in &changes {
            set_name(&mut self.names, path, *inode);
        }
        self.unsynced_names.push(changes);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Inode {
    fn after_crash(&self, dice: &mut Dice) -> Inode {
        let mut durable = self.durable.clone();
        for (offset, bytes) in &self.unsynced {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                if dice.keeps() {
                    write_into(&mut durable, offset + index * SECTOR, sector);
                }
            }
        }
        Inode { now: durable.clone(), durable, unsynced: Vec::new() }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the machine is dead")
}

fn set_name(names: &mut BTreeMap<PathBuf, usize>, path: &Path, inode: Option<usize>) {
    match inode {
        Some(inode) => names.insert(path.into(), inode),
        None => names.remove(path),
    };
}

fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Disk for FaultyDisk {
    fn make_dir(&self, _path: &Path) -> io::Result<()> {
        self.world().alive()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let world = self.world();
        world.alive()?;
        let inode = world.find(path)?;
        Ok(world.inodes[inode].now.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.operate(|world, _| {
            if world.names.contains_key(path) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            let inode = world.inodes.len();
            world.inodes.push(Inode::default());
            world.name(vec![(path.into(), Some(inode))]);
            Ok(inode)
        })?;
        Ok(Box::new(FaultyFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|world, _| {
            let inode = world.find(from)?;
            world.name(vec![(from.into(), None), (to.into(), Some(inode))]);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|world, _| {
            world.find(path)?;
            world.name(vec![(path.into(), None)]);
            Ok(())
        })
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        self.operate(|world, extent| {
            if extent == Extent::Whole {
                world.durable_names = world.names.clone();
                world.unsynced_names.clear();
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Locked> {
        let mut world = self.world();
        world.alive()?;
        if !world.locks.insert(path.into()) {
            return Ok(Locked::Held(Some(std::process::id())));
        }
        Ok(Locked::Ours(Box::new(FaultyLock { disk: self.clone(), path: path.into() })))
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
}

impl DiskFile for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.disk.operate(|world, extent| {
            let bytes = if extent == Extent::Half { &bytes[..bytes.len() / 2] } else { bytes };
            let inode = &mut world.inodes[self.inode];
            write_into(&mut inode.now, offset, bytes);
            inode.unsynced.push((offset, bytes.to_vec()));
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.operate(|world, extent| {
            let inode = &mut world.inodes[self.inode];
            let written = if extent == Extent::UnderWay { Vec::new() } else { std::mem::take(&mut inode.unsynced) };
            if extent == Extent::Whole {
                for (offset, bytes) in written {
                    write_into(&mut inode.durable, offset, &bytes);
                }
            }
            Ok(())
        })
    }
}

struct FaultyLock {
    disk: FaultyDisk,
    path: PathBuf,
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        self.disk.world().locks.remove(&self.path);
    }
}

/// Decides what a crash leaves: the same for the same seed.
enum Dice {
    Nothing,
    Everything,
    Some(u64),
}

impl Dice {
    fn new(seed: u64) -> Dice {
        match seed {
            0 => Dice::Nothing,
            1 => Dice::Everything,
            seed => Dice::Some(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        }
    }

    fn roll(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
    }

    fn keeps(&mut self) -> bool {
        match self {
            Dice::Nothing => false,
            Dice::Everything => true,
            Dice::Some(state) => Dice::roll(state) & 1 == 1,
        }
    }

    /// A number from 0 to `most`.
    fn up_to(&mut self, most: usize) -> usize {
        match self {
            Dice::Nothing => 0,
            Dice::Everything => most,
            Dice::Some(state) => usize::try_from(Dice::roll(state)).unwrap_or(0) % (most + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_as_the_seed_says() {
        let disk = FaultyDisk::new();
        let path = Path::new("/d/f");
        let mut file = disk.create(path).expect("created");
        file.write_at(&[1; 2048], 0).expect("written");
        file.sync().expect("synced");
        disk.sync_dir(Path::new("/d")).expect("synced");
        file.write_at(&[2; 2048], 0).expect("written");
        disk.rename(path, Path::new("/d/g")).expect("renamed");
        disk.crash();
        assert!(disk.read(path).is_err());
        assert_eq!(disk.restarted(0).read(path).expect("the old name"), [1; 2048]);
        assert_eq!(disk.restarted(1).read(Path::new("/d/g")).expect("the new name"), [2; 2048]);
        let torn = (2..50).any(|seed| {
            let disk = disk.restarted(seed);
            let content = disk.read(&disk.files()[0]).expect("there");
            content.contains(&1) && content.contains(&2)
        });
        assert!(torn);
    }

    #[test]
    fn a_sync_that_fails_partly_loses_what_it_said_it_would_keep() {
        let disk = FaultyDisk::new();
        let path = Path::new("/d/f");
        let mut file = disk.create(path).expect("created");
        disk.sync_dir(Path::new("/d")).expect("synced");
        file.write_at(b"abc", 0).expect("written");
        disk.plan(disk.operations(), Fault::FailsPartly);
        assert!(file.sync().is_err());
        assert!(file.sync().is_ok(), "the second sync knows nothing of it");
        assert_eq!(disk.read(path).expect("there"), b"abc");
        assert_eq!(disk.restarted(1).read(path).expect("there"), b"");
    }
}
