//! Which core does what: the proxy has one for itself, the load and the upstream share the other.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The first two cores that this process may use.
pub fn cores() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    Some([cores.next()?, cores.next()?])
}

/// Keeps the calling thread on this core.
pub fn this_thread(core: usize) {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).expect("the core is one of those that are allowed");
}

/// Does something on this core, and comes back.
pub fn on<T>(core: usize, what: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("a thread may ask where it is");
    this_thread(core);
    let done = what();
    sched_setaffinity(None, &before).expect("it was there before");
    done
}
