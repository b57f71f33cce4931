//! A worker: one thread with its own listeners, gates, standing and upstream connections; nothing is shared with
//! another but the two queues between each of them and control.
//!
//! | file | what it holds |
//! |---|---|
//! | here | starting a worker: [`spawn`] on a thread of its own, or [`run`] on a runtime that is there |
//! | [`setup`] | what a worker is given, and how it is put together |
//! | [`listening`] | one listener: connections in, bounded, bound to the standing |
//! | [`in_force`] | a listener's role, which may change under its connections |
//! | [`greeting`] | what a connection begins with: PROXY header, TLS |
//! | [`over_http()`], [`over_sessions()`] | HTTP, and protocols with sessions, as a worker's protocol |
//! | [`work`] | the loop: orders, reports, time, and the end |
//!
//! A panic inside one request's task is a loss in the ledger. A panic of the worker itself ends its thread, and with
//! it its ledgers: control sees that, and ends the process.

mod greeting;
mod in_force;
mod listening;
mod over_http;
mod over_sessions;
pub mod setup;
mod work;

#[cfg(test)]
mod tests;

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::mailbox::ToWorker;
pub use listening::{Protocol, Serving};
pub use over_http::{MakeDial, over_http, over_http_by};
pub use over_sessions::over_sessions;
pub use setup::{ListenerSetup, WorkerSetup};
use work::Worker;

/// A worker on its thread.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Its queue. Dropping the last sender ends the worker as [`ToWorker::Abort`] does.
    pub to: mpsc::UnboundedSender<ToWorker>,
    /// Its thread; ends after [`ToControl::Stopped`](crate::mailbox::ToControl::Stopped), by an error where a listener
    /// could not be set up, or by a panic.
    pub thread: JoinHandle<io::Result<()>>,
}

/// Starts a worker on a thread and a runtime of its own.
///
/// # Errors
/// Where the system gives no thread or no runtime.
pub fn spawn(setup: WorkerSetup) -> io::Result<WorkerHandle> {
    let (to, mailbox) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new()
        .name(format!("worker-{}", setup.id.0))
        .spawn(move || runtime.block_on(run(setup, mailbox)))?;
    Ok(WorkerHandle { to, thread })
}

/// Runs a worker on the present, current-thread runtime until it is told to stop. Dropping the future is an abort
/// without a report.
///
/// # Errors
/// Where a listener cannot be set up; nothing was accepted then.
pub async fn run(setup: WorkerSetup, mut mailbox: mpsc::UnboundedReceiver<ToWorker>) -> io::Result<()> {
    let tasks = LocalSet::new();
    let worker = tasks.run_until(async { Worker::build(setup) }).await?;
    tasks.run_until(worker.work(&mut mailbox)).await;
    // What is still under way ends here, and settles as lost, before the ledgers are looked at.
    drop(tasks);
    worker.say_stopped();
    Ok(())
}
