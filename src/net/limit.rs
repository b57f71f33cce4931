//! How many connections a worker holds, and how many of them are of one peer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::peer::Peer;

/// Counts what is open, up to a limit. Clones count together.
#[derive(Clone, Debug)]
pub struct Limiter(Rc<Counts>);

#[derive(Debug)]
struct Counts {
    open: Cell<usize>,
    most: Cell<usize>,
    most_of_a_peer: Cell<Option<usize>>,
    /// Of each peer, where that is bounded. No larger than what is open.
    of_peers: RefCell<HashMap<Peer, usize>>,
}

/// One of the counted; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    counts: Rc<Counts>,
    /// Whose, where it was counted as theirs.
    peer: Option<Peer>,
}

impl Limiter {
    /// Allows `most` at a time, and so many of one peer.
    pub fn new(most: usize, most_of_a_peer: Option<usize>) -> Limiter {
        let (most, most_of_a_peer) = (Cell::new(most), Cell::new(most_of_a_peer));
        Limiter(Rc::new(Counts { open: Cell::new(0), most, most_of_a_peer, of_peers: RefCell::default() }))
    }

    /// Allows so many from now on; those that are open stay.
    pub fn allow(&self, most: usize, most_of_a_peer: Option<usize>) {
        self.0.most.set(most);
        self.0.most_of_a_peer.set(most_of_a_peer);
    }

    /// A place for this peer, where there is one.
    pub fn take(&self, peer: Peer) -> Option<Permit> {
        let counts = &self.0;
        if counts.open.get() >= counts.most.get() {
            return None;
        }
        let peer = counts.most_of_a_peer.get().map(|most| (peer.whoever_connects(), most));
        if let Some((peer, most)) = peer {
            let mut of_peers = counts.of_peers.borrow_mut();
            let open = of_peers.entry(peer).or_default();
            if *open >= most {
                return None;
            }
            *open += 1;
        }
        counts.open.set(counts.open.get() + 1);
        Some(Permit { counts: Rc::clone(counts), peer: peer.map(|(peer, _)| peer) })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.0.open.get()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.open.set(self.counts.open.get() - 1);
        if let Some(peer) = self.peer {
            let mut of_peers = self.counts.of_peers.borrow_mut();
            let left = of_peers.get_mut(&peer).map(|open| {
                *open -= 1;
                *open
            });
            if left == Some(0) {
                of_peers.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Credentials;

    fn one() -> Peer {
        "10.0.0.1:7".parse().expect("a peer")
    }

    fn two() -> Peer {
        "10.0.0.2:7".parse().expect("a peer")
    }

    #[test]
    fn a_place_comes_back_when_its_permit_is_dropped() {
        let limiter = Limiter::new(1, None);
        let permit = limiter.take(one()).expect("the first place is free");
        assert!(limiter.clone().take(two()).is_none());
        drop(permit);
        assert_eq!(limiter.open(), 0);
        assert!(limiter.take(one()).is_some());
    }

    #[test]
    fn one_peer_does_not_take_every_place() {
        let limiter = Limiter::new(3, Some(2));
        let first = limiter.take(one()).expect("its first");
        let mapped = "[::ffff:10.0.0.1]:8".parse().expect("a peer");
        let second = limiter.take(mapped).expect("its second, however it is written");
        assert!(limiter.take(one()).is_none(), "it has what one peer may have");
        let other = limiter.take(two()).expect("there is a place for another");
        assert!(limiter.take(two()).is_none(), "there is none at all");
        drop((first, second, other));
        assert_eq!((limiter.open(), limiter.0.of_peers.borrow().len()), (0, 0));
        let process = |pid| Peer::Unix(Credentials { uid: 1001, pid: Some(pid) });
        let _both = (limiter.take(process(1)).expect("its first"), limiter.take(process(2)).expect("its second"));
        assert!(limiter.take(process(3)).is_none(), "a user is one peer, whichever process it is");
        limiter.allow(4, None);
        let _more = (limiter.take(process(3)).expect("unbounded"), limiter.take(process(4)).expect("unbounded"));
        assert!(limiter.take(one()).is_none(), "there is none at all");
    }
}
