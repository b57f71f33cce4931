//! One thread that writes the floor file: what waits together shares one sync.
//!
//! The simulation has no threads: there the same work is a future ([`FloorWriter::without_thread`]).

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{FloorFile, WriteError, Written};
use crate::fence::floor::Memory;

/// The thread's handle. Dropping it lets the thread try what was submitted last once more, then end;
/// [`FloorWriter::stop`] waits for that.
pub struct FloorWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread says. The channel's end means that it is gone: unless it was stopped, a bug.
#[derive(Clone, Debug)]
pub enum FloorEvent {
    /// More is durable.
    Durable {
        /// The highest submission that one slot at least carries: it, or a later one.
        once: u64,
        /// The highest submission that both slots carry: it, or a later one; 0 before the first.
        twice: u64,
    },
    /// A write failed. It is tried again with a new file, and with what was submitted by then.
    Failed {
        /// How many writes have failed since the start.
        failures: u64,
        /// The last one's error.
        error: Arc<WriteError>,
    },
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// What the thread waits for.
    changed: Condvar,
    /// What the future waits for.
    rung: Notify,
}

#[derive(Default)]
struct Waiting {
    submitted: u64,
    /// The last submission, until it is durable.
    memory: Option<Arc<Memory>>,
    stopping: bool,
}

impl Waiting {
    fn next(&self) -> Next {
        match &self.memory {
            Some(memory) => Next::Write(self.submitted, memory.clone()),
            None if self.stopping => Next::Over,
            None => Next::Nothing,
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something changed to whoever writes.
    fn ring(&self) {
        self.changed.notify_all();
        self.rung.notify_one();
    }
}

impl FloorWriter {
    /// Starts the thread. After a failed write it waits `retry` (a second, in production) before the next.
    ///
    /// # Errors
    /// As the system says, where it gives no thread.
    pub fn start(file: FloorFile, retry: Duration) -> io::Result<(FloorWriter, UnboundedReceiver<FloorEvent>)> {
        let (mut writer, receiver, writing) = FloorWriter::over(file);
        let thread = std::thread::Builder::new().name("floors".into()).spawn(move || writing.run(retry))?;
        writer.thread = Some(thread);
        Ok((writer, receiver))
    }

    /// The same without a thread: the future that is returned does the writing, wherever it is polled, and is over when
    /// the thread would be. [`FloorWriter::stop`] does not wait for it.
    pub fn without_thread(
        file: FloorFile,
        retry: Duration,
    ) -> (FloorWriter, UnboundedReceiver<FloorEvent>, impl Future<Output = ()> + Send) {
        let (writer, receiver, writing) = FloorWriter::over(file);
        (writer, receiver, writing.run_here(retry))
    }

    fn over(file: FloorFile) -> (FloorWriter, UnboundedReceiver<FloorEvent>, Writing) {
        let shared = Arc::<Shared>::default();
        let (events, receiver) = unbounded_channel();
        let writing = Writing { file, shared: shared.clone(), events, failures: 0, books: Books::default() };
        (FloorWriter { shared, thread: None }, receiver, writing)
    }

    /// Has `memory` written, in the place of anything that still waits: it holds all that came before it. Never
    /// blocks on the disk. Returns the submission's number, from 1 on.
    pub fn submit(&self, memory: Arc<Memory>) -> u64 {
        let mut waiting = self.shared.waiting();
        waiting.submitted += 1;
        waiting.memory = Some(memory);
        self.shared.ring();
        waiting.submitted
    }

    /// Lets what was submitted last be tried once more, where it is not durable yet, and ends the thread. Blocks; the
    /// state directory is unlocked when it returns.
    pub fn stop(mut self) {
        self.begin_to_stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been told by the end of its channel.
            let _ = thread.join();
        }
    }

    fn begin_to_stop(&self) {
        self.shared.waiting().stopping = true;
        self.shared.ring();
    }
}

impl Drop for FloorWriter {
    fn drop(&mut self) {
        self.begin_to_stop();
    }
}

/// The side of whoever writes.
struct Writing {
    file: FloorFile,
    shared: Arc<Shared>,
    events: UnboundedSender<FloorEvent>,
    failures: u64,
    books: Books,
}

/// What there is to write.
enum Next {
    Write(u64, Arc<Memory>),
    Nothing,
    /// There is no more to come.
    Over,
}

impl Writing {
    fn run(mut self, retry: Duration) {
        while let Some((submission, memory)) = self.wait_for_next() {
            if !self.write(submission, &memory) && !self.pause(retry) {
                return;
            }
        }
    }

    async fn run_here(mut self, retry: Duration) {
        loop {
            let next = self.shared.waiting().next();
            match next {
                Next::Write(submission, memory) => {
                    if !self.write(submission, &memory) && !self.shared.pause_here(retry).await {
                        return;
                    }
                }
                Next::Nothing => self.shared.rung.notified().await,
                Next::Over => return,
            }
        }
    }

    fn wait_for_next(&self) -> Option<(u64, Arc<Memory>)> {
        let mut waiting = self.shared.waiting();
        loop {
            match waiting.next() {
                Next::Write(submission, memory) => return Some((submission, memory)),
                Next::Over => return None,
                Next::Nothing => {
                    waiting = self.shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Whether it is durable now.
    fn write(&mut self, submission: u64, memory: &Arc<Memory>) -> bool {
        let written = self.file.write(memory);
        let is_durable = written.is_ok();
        let event = match written {
            Ok(written) => {
                self.settle(submission);
                self.books.durable(submission, written)
            }
            Err(error) => {
                self.failures += 1;
                FloorEvent::Failed { failures: self.failures, error: Arc::new(error) }
            }
        };
        // Nobody listens any more where the process is ending.
        let _ = self.events.send(event);
        is_durable
    }

    fn settle(&self, submission: u64) {
        let mut waiting = self.shared.waiting();
        if waiting.submitted == submission {
            waiting.memory = None;
        }
    }

    /// Waits before the next try. Whether there is to be one: a writer that is stopping has had its last.
    fn pause(&self, retry: Duration) -> bool {
        let until = Instant::now() + retry;
        let mut waiting = self.shared.waiting();
        let was_stopping = waiting.stopping;
        while !waiting.stopping {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return true };
            let woken = self.shared.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        !was_stopping
    }
}

impl Shared {
    /// As [`Writing::pause`].
    async fn pause_here(&self, retry: Duration) -> bool {
        let until = tokio::time::Instant::now() + retry;
        let was_stopping = self.waiting().stopping;
        while !self.waiting().stopping {
            if tokio::time::timeout_at(until, self.rung.notified()).await.is_err() {
                return true;
            }
        }
        !was_stopping
    }
}

/// Which submission each of the file's writes carried.
#[derive(Default)]
struct Books {
    once: u64,
    twice: u64,
    /// The file's number of the write that carried `once`.
    sequence: u64,
}

impl Books {
    fn durable(&mut self, submission: u64, written: Written) -> FloorEvent {
        if written.in_both == written.sequence {
            self.twice = submission;
        } else if written.in_both >= self.sequence {
            self.twice = self.once;
        }
        (self.once, self.sequence) = (submission, written.sequence);
        FloorEvent::Durable { once: self.once, twice: self.twice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::HostEntropy;
    use crate::disk::{Disk, FaultyDisk};
    use crate::fence::floor::{Floor, Remembered};
    use crate::fence::{Epoch, Nonce};
    use crate::state_dir::StateDir;
    use std::path::Path;

    fn memory(epoch: u64) -> Arc<Memory> {
        let mut memory = Memory::default();
        let floor = Floor {
            epoch: Epoch::new(epoch).expect("in range"),
            nonce: Nonce::from_bytes([0; 8]),
            writer: "a".parse().expect("an id"),
            drained: false,
            forced: false,
        };
        let record = Remembered { floor: Some(floor), clean: false, audit: false };
        memory.put(&"db".into(), &"orders".parse().expect("a name"), record);
        Arc::new(memory)
    }

    fn start(disk: &FaultyDisk) -> (FloorWriter, UnboundedReceiver<FloorEvent>) {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let id = "guard".parse().expect("an id");
        let (dir, _, _) = StateDir::open(Path::new("/s"), &id, disk, &HostEntropy, false).expect("opens");
        FloorWriter::start(dir.into_floor_file(), Duration::from_millis(1)).expect("a thread")
    }

    fn durable(events: &mut UnboundedReceiver<FloorEvent>) -> (u64, u64) {
        loop {
            match events.blocking_recv().expect("the thread lives") {
                FloorEvent::Durable { once, twice } => return (once, twice),
                FloorEvent::Failed { .. } => {}
            }
        }
    }

    fn stored(disk: &FaultyDisk) -> Memory {
        let disk: Arc<dyn Disk> = Arc::new(disk.restarted(0));
        let id = "guard".parse().expect("an id");
        StateDir::open(Path::new("/s"), &id, disk, &HostEntropy, false).expect("opens").1
    }

    #[test]
    fn the_second_write_makes_the_first_stand_in_both_slots() {
        let disk = FaultyDisk::new();
        let (writer, mut events) = start(&disk);
        for submission in 1..=4 {
            assert_eq!(writer.submit(memory(submission)), submission);
            assert_eq!(durable(&mut events), (submission, submission - 1));
            assert_eq!(stored(&disk), *memory(submission));
        }
        writer.stop();
    }

    #[test]
    fn what_waits_together_shares_one_sync() {
        let disk = FaultyDisk::new();
        let (writer, mut events) = start(&disk);
        disk.set_paused(true);
        writer.submit(memory(1));
        while disk.waiting() == 0 {
            std::thread::yield_now();
        }
        let before = disk.operations();
        (2..=10_000).for_each(|submission| {
            writer.submit(memory(submission));
        });
        disk.set_paused(false);
        assert_eq!(durable(&mut events), (1, 0));
        assert_eq!(durable(&mut events), (10_000, 1));
        assert_eq!(disk.operations() - before, 4, "two writes and two syncs");
        writer.stop();
        assert_eq!(stored(&disk), *memory(10_000));
    }

    #[test]
    fn it_tries_again_until_the_disk_is_well_and_says_so() {
        let disk = FaultyDisk::new();
        let (writer, mut events) = start(&disk);
        disk.set_broken(true);
        writer.submit(memory(1));
        for expected in 1..=3 {
            match events.blocking_recv().expect("the thread lives") {
                FloorEvent::Failed { failures, error } => {
                    assert_eq!(failures, expected);
                    assert!(error.to_string().contains("/s/floors"), "{error}");
                }
                FloorEvent::Durable { .. } => panic!("durable on a broken disk"),
            }
        }
        writer.submit(memory(2));
        disk.set_broken(false);
        let (once, twice) = durable(&mut events);
        assert_eq!(once, twice, "a new file carries it in both slots");
        let last = if once == 2 { once } else { durable(&mut events).0 };
        assert_eq!(last, 2);
        assert_eq!(stored(&disk), *memory(2));
        writer.stop();
    }

    #[test]
    fn a_writer_that_is_stopped_writes_what_waits_and_gives_up_on_a_broken_disk() {
        let disk = FaultyDisk::new();
        let (writer, mut events) = start(&disk);
        disk.set_paused(true);
        writer.submit(memory(1));
        writer.submit(memory(2));
        disk.set_paused(false);
        writer.stop();
        assert_eq!(stored(&disk), *memory(2));
        while events.blocking_recv().is_some() {}

        let disk = disk.restarted(1);
        let (writer, mut events) = start(&disk);
        disk.set_broken(true);
        writer.submit(memory(3));
        writer.stop();
        while events.blocking_recv().is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_thread_it_writes_where_it_is_polled() {
        let disk = FaultyDisk::new();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let id = "guard".parse().expect("an id");
        let (dir, _, _) = StateDir::open(Path::new("/s"), &id, shared, &HostEntropy, false).expect("opens");
        let (writer, mut events, writing) = FloorWriter::without_thread(dir.into_floor_file(), Duration::from_secs(1));
        let writing = tokio::spawn(writing);
        writer.submit(memory(1));
        assert!(matches!(events.recv().await, Some(FloorEvent::Durable { once: 1, twice: 0 })));
        disk.set_broken(true);
        writer.submit(memory(2));
        assert!(matches!(events.recv().await, Some(FloorEvent::Failed { failures: 1, .. })));
        assert!(matches!(events.recv().await, Some(FloorEvent::Failed { failures: 2, .. })));
        disk.set_broken(false);
        assert!(matches!(events.recv().await, Some(FloorEvent::Durable { once: 2, twice: 2 })));
        writer.submit(memory(3));
        writer.stop();
        writing.await.expect("it ends");
        assert_eq!(stored(&disk), *memory(3));
    }
}
