//! Whether this process itself gets to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How much longer than told a thread has slept at most.
pub struct Stalls {
    longest: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Stalls {
    /// Looks from now on.
    pub fn watch() -> Stalls {
        let (longest, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ends) = (Arc::clone(&longest), Arc::clone(&end));
        thread::spawn(move || {
            let pause = Duration::from_millis(20);
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                thread::sleep(pause);
                let late = began.elapsed().saturating_sub(pause);
                seen.fetch_max(u64::try_from(late.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Stalls { longest, end }
    }

    /// The longest so far.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}
