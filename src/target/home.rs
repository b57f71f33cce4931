//! From where this door reaches its target, remembered over a restart.
//!
//! A proof knows sessions by the address that this host has. A predecessor of the same state directory may have stood on another
//! one (a volume that moved with its pod): its sessions are not recognised, and what it forwarded may still run. So the addresses
//! from which a door has looked at its target stand in a file; while there is residue, and one of them is not the present one,
//! there is no proof, and the quarantine decides.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Prover, Proving};
use crate::fence::{Resource, Term};

/// What is waited for where a proof does not reach.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Whether something of a predecessor may still run.
    pub residue: bool,
    /// How long at most.
    pub quarantine: Duration,
    /// Whether time ends that.
    pub by_time: bool,
}

/// Where a door has looked at its target from.
pub struct Home {
    file: PathBuf,
    wait: Wait,
    /// The address that everything is known from, and since when another one has been waited out.
    settled: Cell<Option<IpAddr>>,
    since: Cell<Instant>,
}

impl Home {
    /// Of the door of `target` whose state directory this is, from now on.
    pub fn new(state_dir: &Path, target: &str, wait: Wait) -> Home {
        let file = state_dir.join(format!("home-{target}"));
        Home { file, wait, settled: Cell::new(None), since: Cell::new(Instant::now()) }
    }

    /// Whether a proof that is made from this address is one for everything that this door has forwarded, before and after a
    /// restart. Remembers the address, durably, before anything else.
    ///
    /// # Errors
    /// Where it is not, with what ends that; or where the file cannot be read or written.
    pub fn covers(&self, local: IpAddr) -> Result<(), String> {
        let local = local.to_canonical();
        if self.settled.get() == Some(local) {
            return Ok(());
        }
        let failed = |error: io::Error| format!("{}: {error}", self.file.display());
        let before = self.read().map_err(failed)?;
        let moved = self.settled.get().is_some();
        if moved {
            // This very process was reached from elsewhere: what it forwarded then is waited out from now on.
            self.settled.set(None);
            self.since.set(Instant::now());
        }
        let others: BTreeSet<IpAddr> = before.iter().copied().filter(|address| *address != local).collect();
        let is_waited_out = self.wait.by_time && self.since.get().elapsed() >= self.wait.quarantine;
        let is_covered = others.is_empty() || (!self.wait.residue && !moved && before.len() == 1) || is_waited_out;
        let after: BTreeSet<IpAddr> = if is_covered { [local].into() } else { &before | &[local].into() };
        if after != before {
            self.write(&after).map_err(failed)?;
        }
        if is_covered {
            self.settled.set(Some(local));
            return Ok(());
        }
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let end = if self.wait.by_time {
            format!("time decides: {:.1} s more (drain.quarantine)", self.left().as_secs_f64())
        } else {
            "no time ends that (drain.by_time: false): `epochgate gate open` once you know that nothing of it runs"
                .to_owned()
        };
        Err(format!(
            "this door reaches the target from {local}, and has done so from {} before: sessions from there cannot be told; {end}",
            others.join(", ")
        ))
    }

    fn left(&self) -> Duration {
        self.wait.quarantine.saturating_sub(self.since.get().elapsed())
    }

    fn read(&self) -> io::Result<BTreeSet<IpAddr>> {
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let line = |line: &str| line.parse().map_err(|_| io::Error::other(format!("'{line}' is no address")));
        text.lines().map(line).collect()
    }

    fn write(&self, addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
        let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        let mut new = self.file.clone().into_os_string();
        new.push(".new");
        std::fs::write(&new, text)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        self.file.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
    }
}

/// A prover whose proofs count only where its door has always looked from the same place.
pub struct FromHome {
    /// What proves.
    pub prover: Rc<dyn Prover>,
    /// From where.
    pub home: Home,
}

impl Prover for FromHome {
    fn prove<'a>(&'a self, term: &'a Term, resource: &'a Resource) -> Proving<'a> {
        Box::pin(async move {
            let proof = self.prover.prove(term, resource).await?;
            proof.from.map_or(Ok(()), |from| self.home.covers(from))?;
            Ok(proof)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(folder: &Path, residue: bool, by_time: bool) -> Home {
        Home::new(folder, "db", Wait { residue, quarantine: Duration::from_secs(30), by_time })
    }

    fn at(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn a_predecessor_that_stood_elsewhere_is_waited_out() {
        let folder = tempfile::tempdir().expect("a folder");
        home(folder.path(), false, true).covers(at("10.0.0.7")).expect("the first that there is");
        home(folder.path(), true, true).covers(at("10.0.0.7")).expect("it stood here");
        let moved = home(folder.path(), true, true);
        let why = moved.covers(at("10.0.0.9")).expect_err("it stood elsewhere");
        assert!(why.contains("from 10.0.0.9") && why.contains("10.0.0.7 before") && why.contains("30.0 s"), "{why}");
        // Back again, after a crash in between: what was forwarded from there is not forgotten.
        assert!(home(folder.path(), true, true).covers(at("10.0.0.7")).is_err());
        tokio::time::advance(Duration::from_secs(30)).await;
        moved.covers(at("10.0.0.9")).expect("its time is over");
        home(folder.path(), true, true).covers(at("10.0.0.9")).expect("only the last is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn without_residue_there_is_nobody_to_wait_for_and_time_may_end_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        home(folder.path(), false, true).covers(at("10.0.0.7")).expect("the first");
        home(folder.path(), false, true).covers(at("10.0.0.8")).expect("it had stopped in order");
        let held = home(folder.path(), true, false);
        assert!(held.covers(at("10.0.0.9")).expect_err("elsewhere").contains("gate open"));
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(held.covers(at("10.0.0.9")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_address_changes_waits_for_what_it_forwarded_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = home(folder.path(), false, true);
        home.covers(at("::ffff:10.0.0.7")).expect("the first");
        home.covers(at("10.0.0.7")).expect("the same, in the other form");
        assert!(home.covers(at("10.0.0.8")).is_err());
        tokio::time::advance(Duration::from_secs(31)).await;
        home.covers(at("10.0.0.8")).expect("waited out");
    }

    #[test]
    fn a_file_that_says_something_else_is_no_proof() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("home-db"), "here\n").expect("written");
        assert!(home(folder.path(), true, true).covers(at("10.0.0.7")).expect_err("unreadable").contains("home-db"));
    }
}
