//! A part of a state: shared between the states that have it in common, and hashed once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A value that a state shares with its predecessors until a step changes it.
#[derive(Debug)]
pub struct Part<T>(Arc<Hashed<T>>);

#[derive(Debug)]
struct Hashed<T> {
    hash: u64,
    value: T,
}

impl<T: Hash> Part<T> {
    /// This value, not shared with anything yet.
    pub fn new(value: T) -> Part<T> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Part(Arc::new(Hashed { hash: hasher.finish(), value }))
    }
}

impl<T> Part<T> {
    /// By what it is told from others.
    pub fn fingerprint(&self) -> u64 {
        self.0.hash
    }
}

impl<T: Hash + Clone> Part<T> {
    /// Changes this state's copy of the value.
    pub fn edit<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.value.clone();
        let result = change(&mut value);
        *self = Part::new(value);
        result
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Part<T> {
        Part(Arc::clone(&self.0))
    }
}

impl<T: Eq> PartialEq for Part<T> {
    fn eq(&self, other: &Part<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.value == other.0.value)
    }
}

impl<T: Eq> Eq for Part<T> {}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0.hash);
    }
}
