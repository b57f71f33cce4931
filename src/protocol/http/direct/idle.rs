//! Connections to the upstream that wait for their next request; the one that was used last is taken first.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::Instant;

use crate::config::resolved::Listener;
use crate::net::{Dial, Speaks, Stream};

/// One connection to the upstream.
pub struct Upstream {
    pub stream: Stream,
    /// Whether it has carried a request before, so that the upstream may just have closed it.
    pub used: bool,
    idle_since: Instant,
}

/// The connections of one listener, in one worker, that carry nothing.
pub struct Idle {
    listener: Arc<Listener>,
    dial: Rc<dyn Dial>,
    waiting: RefCell<Vec<Upstream>>,
    sweeping: Cell<bool>,
}

impl Idle {
    /// Of the upstream of this listener.
    pub fn new(listener: Arc<Listener>, dial: Rc<dyn Dial>) -> Rc<Idle> {
        Rc::new(Idle { listener, dial, waiting: RefCell::default(), sweeping: Cell::new(false) })
    }

    /// One that waits, and whose upstream has said nothing since.
    pub fn take(&self, now: Instant) -> Option<Upstream> {
        let idle_timeout = self.listener.upstream.idle_timeout;
        loop {
            let mut upstream = self.waiting.borrow_mut().pop()?;
            if now - upstream.idle_since < idle_timeout && is_silent(&mut upstream.stream) {
                return Some(upstream);
            }
        }
    }

    /// A new one.
    ///
    /// # Errors
    /// Where none can be made within the connect timeout.
    pub async fn dial(&self) -> io::Result<Upstream> {
        let upstream = &self.listener.upstream;
        match tokio::time::timeout(upstream.connect_timeout, self.dial.dial(&upstream.authority, Speaks::Http1)).await {
            Ok(stream) => Ok(Upstream { stream: stream?, used: false, idle_since: Instant::now() }),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")),
        }
    }

    /// It carries nothing any more, and nothing is left on it to be read.
    pub fn give_back(self: &Rc<Idle>, mut upstream: Upstream, now: Instant) {
        upstream.stream.reset_on_close().set(false);
        upstream.used = true;
        upstream.idle_since = now;
        self.waiting.borrow_mut().push(upstream);
        self.sweep();
    }

    /// Has a task close what has been idle for too long, as long as anything waits.
    fn sweep(self: &Rc<Idle>) {
        if self.sweeping.replace(true) {
            return;
        }
        let idle_timeout = self.listener.upstream.idle_timeout;
        let every = (idle_timeout / 2).max(Duration::from_millis(10));
        let idle = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(idle) = idle.upgrade() else { return };
                let over = |upstream: &mut Upstream| {
                    upstream.idle_since.elapsed() >= idle_timeout || !is_silent(&mut upstream.stream)
                };
                let closed: Vec<Upstream> = idle.waiting.borrow_mut().extract_if(.., over).collect();
                drop(closed);
                if idle.waiting.borrow().is_empty() {
                    idle.sweeping.set(false);
                    return;
                }
            }
        });
    }
}

/// Whether nothing has come on a connection that carries nothing: neither its end, nor an answer to no request. Costs
/// no call to the kernel where nothing has.
fn is_silent(stream: &mut Stream) -> bool {
    let mut space = [0; 1];
    let mut context = Context::from_waker(Waker::noop());
    matches!(Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut space)), Poll::Pending)
}
