//! The real parts under the story: a guard and two stamping sidecars, each an instance as `epochgate guard` and
//! `epochgate stamp` would run it, on the embedded coordinator or on etcd.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pause::{Pause, PausedStore};
use super::shop::Sidecar;
use super::story::Stage;
use crate::clock::{Entropy as _, HostClock, HostEntropy};
use crate::config::resolved::CoordinatorKind;
use crate::config::{self, Config, Overrides, Problem, Single};
use crate::coordinator::embedded::Embedded;
use crate::coordinator::etcd::Etcd;
use crate::coordinator::store::{Change, Keys, Range, Store, StoreError, Txn};
use crate::run::{Instance, World};

/// Where epochs live while the story is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// In a temporary folder.
    Embedded,
    /// In etcd at these URLs, under a prefix of its own.
    Etcd(Vec<String>),
}

/// Why the story cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum CannotBegin {
    /// The coordinator is not named as it should be.
    #[error("the coordinator is not named as it should be")]
    Config(Vec<Problem>),
    /// It does not answer, or cannot be used.
    #[error("the coordinator cannot be used: {0}")]
    Store(#[from] StoreError),
    /// This host gives no folder or no runtime.
    #[error("cannot prepare a temporary folder: {0}")]
    Host(#[from] io::Error),
}

/// How many keys are deleted at once; etcd takes 128.
const BATCH: usize = 100;

/// The running parts, and what they leave behind.
pub struct Real {
    place: Where,
    prefix: String,
    folder: Folder,
    /// In the order of starting.
    running: Vec<Instance>,
    /// The settings of the coordinator, once there is one: what is to be cleared.
    used: Option<Config>,
}

impl Real {
    /// Prepares a temporary folder, and asks the coordinator whether it is there; nothing runs yet.
    pub fn new(place: Where) -> Result<Real, CannotBegin> {
        let name = random_name();
        let prefix = format!("/epochgate-demo/{name}/");
        let real = Real { place, prefix, folder: Folder::new(&name)?, running: Vec::new(), used: None };
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let config = real.config(Single::Guard, "guard", nowhere).map_err(CannotBegin::Config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = open(&config)?;
        runtime.block_on(store.read(vec![Range::all(Keys::Under(String::new()))]))?;
        Ok(real)
    }

    /// Ends everything, the last first, and takes away what it left in etcd; the folder goes with `self`. Everything
    /// is tried, whatever fails.
    pub fn clear(mut self) -> Result<(), StoreError> {
        while let Some(instance) = self.running.pop() {
            instance.stop();
        }
        match (&self.place, &self.used) {
            (Where::Etcd(_), Some(config)) => sweep(config),
            _ => Ok(()),
        }
    }

    fn start(
        &mut self,
        single: Single,
        id: &str,
        upstream: SocketAddr,
        pause: Option<Pause>,
    ) -> Result<Sidecar, String> {
        let config = self
            .config(single, id, upstream)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let mut world = World::host();
        if let Some(pause) = pause {
            let store = open(&config).map_err(|error| error.to_string())?;
            world.store = Some(PausedStore::over(store, pause));
        }
        self.used.get_or_insert_with(|| config.clone());
        let instance = Instance::start(config, world, None, None).map_err(|error| error.to_string())?;
        let name = if single == Single::Guard { "guard" } else { "stamp" };
        let listen = instance.listener_address(name).ok_or_else(|| "it does not listen".to_owned())?;
        let admin = instance.admin_address();
        self.running.push(instance);
        let admin = admin.ok_or_else(|| "it has no admin address".to_owned())?;
        Ok(Sidecar { listen, admin })
    }

    fn config(&self, single: Single, id: &str, upstream: SocketAddr) -> Result<Config, Vec<Problem>> {
        let path = |name: String| self.folder.0.join(name).display().to_string();
        let mut overrides = Overrides {
            id: Some(id.into()),
            state_dir: Some(path(format!("state-{id}"))),
            prefix: Some(self.prefix.clone()),
            lease_ttl: Some("2s".into()),
            listen: Some("127.0.0.1:0".into()),
            upstream: Some(format!("http://{upstream}")),
            resource: vec!["orders".into()],
            admin: Some("127.0.0.1:0".into()),
            audit: Some(path(format!("audit-{id}.jsonl"))),
            workers: Some("1".into()),
            ..Overrides::default()
        };
        match &self.place {
            Where::Embedded => overrides.embedded = Some(path("epochs".into())),
            Where::Etcd(urls) => overrides.etcd.clone_from(urls),
        }
        config::load(None, &overrides, Some(single)).map(|loaded| loaded.config)
    }
}

impl Stage for Real {
    fn guard(&mut self, target: SocketAddr) -> Result<Sidecar, String> {
        self.start(Single::Guard, "guard", target, None)
    }

    fn writer(&mut self, id: &str, guard: SocketAddr) -> Result<(Sidecar, Pause), String> {
        let pause = Pause::new();
        Ok((self.start(Single::Stamp, id, guard, Some(pause.clone()))?, pause))
    }
}

/// The store that a configuration names.
fn open(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
    Ok(match &config.coordinator.kind {
        CoordinatorKind::Etcd(etcd) => Etcd::new(&config.coordinator, etcd, clock, entropy)?,
        CoordinatorKind::Embedded(path) => Embedded::open(path, clock, entropy)?,
    })
}

/// Deletes every key under the prefix. The processes that wrote there have ended, so nothing comes after.
fn sweep(config: &Config) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::Unreachable(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let store = open(config)?;
    runtime.block_on(async {
        let all = store.read(vec![Range::all(Keys::Under(String::new()))]).await?;
        let keys: Vec<String> = all.ranges.into_iter().flatten().map(|entry| entry.key).collect();
        for keys in keys.chunks(BATCH) {
            let changes = keys.iter().cloned().map(Change::Delete).collect();
            store.commit(Txn { compares: Vec::new(), changes }).await?;
        }
        Ok(())
    })
}

/// A temporary folder of this user; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> io::Result<Folder> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("epochgate-demo-{name}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!(%error, path = %path.display(), "the demo's folder is left behind");
        }
    }
}

fn random_name() -> String {
    let mut bytes = [0; 8];
    HostEntropy.fill(&mut bytes);
    bytes.iter().fold(String::new(), |mut name, byte| {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}
