//! One revision of the store as a value: no files, no clock. The model and the simulation hold it in their own hands.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::coordinator::store::{
    Change, Changed, Committed, Compare, Entry, Keys, LeaseId, Range, Revision, StoreError, Txn,
};
use crate::fence::Moment;

/// The first bytes of a revision's file; the format follows.
const MAGIC: &str = "epochgate-store ";
const FORMAT: &str = "1";

/// Everything that the store holds, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// Its number: it grows by one with each change.
    pub revision: u64,
    /// Tells this revision's file from any other that ever had, or tries to have, its number.
    pub id: String,
    /// The `id` of the revision before it; empty for the first.
    pub parent: String,
    /// The boot in which the leases were granted: their ends mean nothing in another.
    pub boot: String,
    /// The leases that have not been seen to end.
    pub leases: BTreeMap<i64, LeaseState>,
    /// Every key with its value.
    pub keys: BTreeMap<String, Key>,
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct LeaseState {
    /// How long it lives from each renewal on.
    pub ttl_ms: u64,
    /// When it ends: nanoseconds on the boot-time clock.
    pub ends: u64,
}

/// One key's value, and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Key {
    /// The value.
    pub value: Value,
    /// The revision at which it came into being.
    pub created: u64,
    /// The revision at which it was last put.
    pub modified: u64,
    /// The lease that it goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<i64>,
}

/// A value: text where it is text (JSON, always, in our use), so that people can read the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// As it is.
    Text(String),
    /// Anything else.
    Bytes {
        /// In base64.
        base64: String,
    },
}

impl Value {
    fn of(bytes: &[u8]) -> Value {
        match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Bytes { base64: STANDARD.encode(bytes) },
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Value::Text(text) => text.clone().into_bytes(),
            Value::Bytes { base64 } => STANDARD.decode(base64).unwrap_or_default(),
        }
    }
}

/// What a call makes of a state.
pub enum Decision<T> {
    /// Nothing changes; the answer.
    Keep(T),
    /// This is to be the next revision; the answer where it becomes that.
    Next(State, T),
}

impl State {
    /// The next revision, with nothing changed yet. Its id is given when it is written.
    fn successor(&self) -> State {
        State { revision: self.revision + 1, id: String::new(), parent: self.id.clone(), ..self.clone() }
    }

    /// When the first lease ends; at once where they are of another boot.
    pub fn first_end(&self, boot: &str) -> Option<Moment> {
        let ends = self.leases.values().map(|lease| if self.boot == boot { lease.ends } else { 0 });
        ends.min().map(Moment::from_nanos)
    }

    /// The next revision, without the leases that have ended and their keys; `None` where none has.
    pub fn reaped(&self, now: Moment, boot: &str) -> Option<State> {
        self.first_end(boot).filter(|end| *end <= now)?;
        let mut next = self.successor();
        next.leases.retain(|_, lease| self.boot == boot && lease.ends > now.as_nanos());
        next.drop_keys_of_ended_leases();
        Some(next)
    }

    fn drop_keys_of_ended_leases(&mut self) {
        let leases = &self.leases;
        self.keys.retain(|_, key| key.lease.is_none_or(|lease| leases.contains_key(&lease)));
    }

    /// The entries of each range.
    pub fn read(&self, ranges: &[Range]) -> Vec<Vec<Entry>> {
        ranges.iter().map(|range| self.range(range)).collect()
    }

    fn range(&self, range: &Range) -> Vec<Entry> {
        let first = match &range.keys {
            Keys::One(key) | Keys::Under(key) => key,
        };
        let from_first = self.keys.range(first.clone()..);
        from_first
            .take_while(|(name, _)| range.keys.contain(name))
            .filter(|(_, key)| key.modified >= range.since.0)
            .map(|(name, key)| Entry {
                key: name.clone(),
                value: key.value.to_bytes(),
                created: Revision(key.created),
                modified: Revision(key.modified),
                lease: key.lease.map(LeaseId),
            })
            .collect()
    }

    /// Evaluates a transaction.
    ///
    /// # Errors
    /// Where a lease is gone, or a key stands twice.
    pub fn transact(&self, txn: &Txn) -> Result<Decision<Committed>, StoreError> {
        if !txn.compares.iter().all(|compare| self.holds(compare)) {
            return Ok(Decision::Keep(Committed::Refused(Revision(self.revision))));
        }
        let mut next = self.successor();
        let mut seen = std::collections::BTreeSet::new();
        let mut changed = false;
        for change in &txn.changes {
            let (Change::Put { key, .. } | Change::Delete(key)) = change;
            if !seen.insert(key) {
                return Err(StoreError::Denied(format!("the key {key} stands twice in one transaction")));
            }
            changed |= next.change(change)?;
        }
        Ok(match changed {
            true => {
                let revision = Revision(next.revision);
                Decision::Next(next, Committed::Done(revision))
            }
            false => Decision::Keep(Committed::Done(Revision(self.revision))),
        })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let none_under = |prefix: &String, is_later: &dyn Fn(&Key) -> bool| {
            let mut under = self.keys.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(prefix));
            !under.any(|(_, key)| is_later(key))
        };
        match compare {
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::CreatedAt(key, at) => self.keys.get(key).is_some_and(|key| key.created == at.0),
            Compare::ModifiedAt(key, at) => self.keys.get(key).is_some_and(|key| key.modified == at.0),
            Compare::NoneModifiedAfter(prefix, after) => none_under(prefix, &|key| key.modified > after.0),
            Compare::NoneCreatedAfter(prefix, after) => none_under(prefix, &|key| key.created > after.0),
        }
    }

    /// Makes one change, in the new revision; whether there was anything to change.
    fn change(&mut self, change: &Change) -> Result<bool, StoreError> {
        match change {
            Change::Put { key, value, lease } => {
                if lease.is_some_and(|lease| !self.leases.contains_key(&lease.0)) {
                    return Err(StoreError::LeaseGone);
                }
                let created = self.keys.get(key).map_or(self.revision, |key| key.created);
                let lease = lease.map(|lease| lease.0);
                self.keys.insert(key.clone(), Key { value: Value::of(value), created, modified: self.revision, lease });
                Ok(true)
            }
            Change::Delete(key) => Ok(self.keys.remove(key).is_some()),
        }
    }

    /// A lease that lives for `ttl` from `now` on: a new one, or the one of that id renewed.
    pub fn grant(&self, id: i64, ttl: Duration, now: Moment, boot: &str) -> Decision<Duration> {
        let ttl_ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
        let ttl = Duration::from_millis(ttl_ms);
        let mut next = self.successor();
        // No lease of another boot is left here: they were reaped before this was asked.
        next.boot = boot.into();
        next.leases.insert(id, LeaseState { ttl_ms, ends: now.plus(ttl).as_nanos() });
        Decision::Next(next, ttl)
    }

    /// The lease renewed from `now` on, with its time to live.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] where there is none.
    pub fn keep_alive(&self, id: i64, now: Moment, boot: &str) -> Result<Decision<Duration>, StoreError> {
        let lease = self.leases.get(&id).ok_or(StoreError::LeaseGone)?;
        Ok(self.grant(id, Duration::from_millis(lease.ttl_ms), now, boot))
    }

    /// The lease ended, and its keys with it.
    pub fn revoke(&self, id: i64) -> Decision<()> {
        let mut next = self.successor();
        if next.leases.remove(&id).is_none() {
            return Decision::Keep(());
        }
        next.drop_keys_of_ended_leases();
        Decision::Next(next, ())
    }

    /// What changed from the revision before to this one; `None` where no key did (a lease was renewed).
    pub fn changed_since(&self, before: &State) -> Option<Changed> {
        let put = self.keys.iter().filter(|(_, key)| key.modified == self.revision).map(|(name, _)| name);
        let deleted = before.keys.keys().filter(|name| !self.keys.contains_key(*name));
        let mut keys: Vec<String> = put.chain(deleted).cloned().collect();
        keys.sort_unstable();
        (!keys.is_empty()).then_some(Changed { revision: Revision(self.revision), keys })
    }

    /// As it stands in its file: a line with the checksum, and JSON.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("plain data with text keys is always JSON");
        let mut bytes = format!("{MAGIC}{FORMAT} crc={:08x}\n", crc32fast::hash(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn decode(bytes: &[u8]) -> Result<State, String> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
        let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "its first line is not text")?;
        let (format, checksum) = line
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.split_once(" crc="))
            .ok_or("it is not a revision of an epochgate store")?;
        if format != FORMAT {
            return Err(format!("it has format {format}; this version reads format {FORMAT}"));
        }
        let body = &bytes[end + 1..];
        if checksum != format!("{:08x}", crc32fast::hash(body)) {
            return Err("its checksum is wrong".into());
        }
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }
}
