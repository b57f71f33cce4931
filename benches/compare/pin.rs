//! Which core does what: the proxy has one for itself, the load and the upstream share the other.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that the calling thread may use.
pub fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).expect("a thread may ask where it is");
    (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect()
}

/// Keeps the calling thread, and what it starts from now on, on these cores.
pub fn this_thread(cores: &[usize]) {
    let mut only = CpuSet::new();
    cores.iter().for_each(|&core| only.set(core));
    sched_setaffinity(None, &only).expect("the cores are some of those that are allowed");
}

/// Does something on these cores, and comes back.
pub fn on<T>(cores: &[usize], what: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("a thread may ask where it is");
    this_thread(cores);
    let done = what();
    sched_setaffinity(None, &before).expect("it was there before");
    done
}
