//! A thread that writes lines, so that nobody else waits for a file, a pipe or a terminal.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

/// A batch is written when it has grown to this, or when nothing more waits.
const BATCH_BYTES: usize = 64 * 1024;

/// How long a flush waits between two attempts to get into a full queue.
const FLUSH_RETRY: Duration = Duration::from_millis(1);

/// The way in to such a thread. The thread ends, after having written what waits, when the last way in is gone.
#[derive(Debug)]
pub(crate) struct Lines<T>(Sender<T>);

#[derive(Debug)]
enum Sender<T> {
    Bounded(SyncSender<Message<T>>),
    Unbounded(mpsc::Sender<Message<T>>),
}

enum Message<T> {
    Line(T),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
}

/// What the thread does with what comes in.
pub(crate) trait Form<T>: Send + 'static {
    /// Appends `item` as one or more whole lines.
    fn line(&mut self, item: T, to: &mut Vec<u8>);

    /// So many items could not be written, or not wholly.
    fn lost(&mut self, items: u64, error: &io::Error);
}

impl<T: Send + 'static> Lines<T> {
    /// Starts the thread. At most `queue` items wait, all that come where it is `None`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        name: &str,
        queue: Option<usize>,
        form: impl Form<T>,
        output: Box<dyn Write + Send>,
    ) -> io::Result<Lines<T>> {
        let (sender, receiver) = match queue {
            Some(queue) => {
                let (sender, receiver) = mpsc::sync_channel(queue.max(1));
                (Sender::Bounded(sender), receiver)
            }
            None => {
                let (sender, receiver) = mpsc::channel();
                (Sender::Unbounded(sender), receiver)
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&receiver, form, output))?;
        Ok(Lines(sender))
    }

    /// Queues an item; `false` where there is no room. Never blocks.
    pub fn offer(&self, item: T) -> bool {
        match &self.0 {
            Sender::Bounded(sender) => sender.try_send(Message::Line(item)).is_ok(),
            Sender::Unbounded(sender) => sender.send(Message::Line(item)).is_ok(),
        }
    }

    /// Waits until everything that was queued before is written, or for `limit`: then `false`.
    pub fn flush(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let (done, written) = mpsc::sync_channel(1);
        if !self.queue_flush(done, until) {
            return false;
        }
        written.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
    }

    fn queue_flush(&self, done: SyncSender<()>, until: Instant) -> bool {
        let sender = match &self.0 {
            Sender::Unbounded(sender) => return sender.send(Message::Flush(done)).is_ok(),
            Sender::Bounded(sender) => sender,
        };
        let mut message = Message::Flush(done);
        loop {
            match sender.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < until => message = back,
                Err(_) => return false,
            }
            std::thread::sleep(FLUSH_RETRY);
        }
    }
}

fn run<T>(receiver: &Receiver<Message<T>>, mut form: impl Form<T>, mut output: Box<dyn Write + Send>) {
    let mut batch = Vec::new();
    let mut waiting = Vec::new();
    while let Ok(first) = receiver.recv() {
        let mut items = 0;
        let mut next = Ok(first);
        while let Ok(message) = next {
            match message {
                Message::Line(item) => {
                    form.line(item, &mut batch);
                    items += 1;
                }
                Message::Flush(done) => waiting.push(done),
            }
            next = if batch.len() < BATCH_BYTES { receiver.try_recv() } else { Err(TryRecvError::Empty) };
        }
        if let Err(error) = output.write_all(&batch).and_then(|()| output.flush()) {
            form.lost(items, &error);
        }
        batch.clear();
        for done in waiting.drain(..) {
            // Whoever waited may have given up: then nobody is there to tell.
            let _ = done.try_send(());
        }
    }
}
