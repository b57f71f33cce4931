//! The time limits of a request that is under way, and what they mean after this process stood still.

use std::future::Future as _;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::forward::{Flight, Trouble};
use super::pool::Lease;

/// Found so long after it had passed, a time limit was not watched: this process, or its host, stood still.
pub const STOOD_STILL: Duration = Duration::from_millis(100);
/// What came in meanwhile lies in the sockets, and nobody has looked at it: so long it goes before the limit.
pub const CATCHING_UP: Duration = Duration::from_millis(100);

impl Flight {
    pub(super) fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Trouble> {
        let (upstream, limits) = (&self.http.listener.upstream, &self.http.listener.limits);
        // What is waited for may change without this task being woken: so it looks again after the shortest time.
        let shortest = upstream.response_timeout.min(upstream.send_timeout).min(limits.body_idle_timeout);
        loop {
            let now = Instant::now();
            let (deadline, trouble) = self.deadline();
            let Some(look) = self.next_look(now, deadline, shortest) else { return Poll::Ready(trouble) };
            let armed = self.timer.deadline();
            if armed <= now || armed > look {
                self.timer.as_mut().reset(look);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// When to look at the deadline again; `None` where it has passed.
    fn next_look(&mut self, now: Instant, deadline: Instant, shortest: Duration) -> Option<Instant> {
        if now < deadline {
            self.catching_up = None;
            return Some(deadline.min(now + shortest));
        }
        if self.catching_up.is_none() && now - deadline > STOOD_STILL {
            self.catching_up = Some(now + CATCHING_UP);
        }
        self.catching_up.filter(|until| now < *until)
    }

    /// Until when something has to happen, and what it is if it does not.
    fn deadline(&self) -> (Instant, Trouble) {
        let (upstream, limits) = (&self.http.listener.upstream, &self.http.listener.limits);
        let (since, waits_for_client) = self.upload.standing_since();
        let moved = self.lease.as_ref().and_then(Lease::moved);
        let progress = moved.map_or(since, |moved| moved.max(since));
        if !self.upload.is_handed_over() {
            return match waits_for_client {
                true => (since + limits.body_idle_timeout, Trouble::ClientIdle),
                false => (progress + upstream.send_timeout, Trouble::Stalled),
            };
        }
        if moved.is_some() && !self.upload.is_sent() {
            return (progress + upstream.send_timeout, Trouble::Stalled);
        }
        (progress.max(self.waits_since) + upstream.response_timeout, Trouble::Late)
    }
}
