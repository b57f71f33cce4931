//! The time limits of a connection and of what it carries, with one timer for all of them.
//!
//! The timer ticks at least as often as the shortest limit is long, and is never set for a request: a busy connection
//! touches the runtime's timers a few times a minute.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::super::forward::Trouble;
use super::super::overdue::{CATCHING_UP, STOOD_STILL};
use crate::config::resolved::Listener;

/// One connection's timer.
pub struct Ticker {
    sleep: Pin<Box<Sleep>>,
    every: Duration,
}

impl Ticker {
    /// For a connection of this listener.
    pub fn new(listener: &Listener) -> Ticker {
        let (upstream, limits) = (&listener.upstream, &listener.limits);
        let every = upstream
            .response_timeout
            .min(upstream.send_timeout)
            .min(limits.body_idle_timeout)
            .min(limits.answer_idle_timeout)
            .min(limits.header_timeout)
            .min(limits.idle_timeout);
        Ticker { sleep: Box::pin(sleep(every)), every }
    }

    /// Ready once `deadline` has passed; what came while this process stood still goes before that, and is waited for
    /// until `catching_up`.
    pub fn poll_late(
        &mut self,
        catching_up: &mut Option<Instant>,
        now: Instant,
        deadline: Instant,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut look = deadline;
        if now < deadline {
            *catching_up = None;
        } else {
            if catching_up.is_none() && now - deadline > STOOD_STILL {
                *catching_up = Some(now + CATCHING_UP);
            }
            match catching_up {
                Some(until) if now < *until => look = *until,
                _ => return Poll::Ready(()),
            }
        }
        // Whatever waits longer than a tick is looked at again after one: what it waits for may change meanwhile.
        let at = look.min(now + self.every);
        if self.sleep.deadline() <= now || self.sleep.deadline() > at {
            self.sleep.as_mut().reset(at);
        }
        if self.sleep.as_mut().poll(context).is_ready() {
            // It has run out between `now` and this moment.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// When things last happened on an exchange.
pub struct Limits {
    /// Since when nothing has moved, and whether it is the client that is waited for.
    since: Instant,
    waits_for_client: bool,
    /// Since when the next part of the answer has been waited for.
    waits_since: Option<Instant>,
    /// Since when the client has taken nothing of what waits for it.
    untaken_since: Option<Instant>,
    pub catching_up: Option<Instant>,
}

impl Limits {
    /// From now on.
    pub fn new(now: Instant) -> Limits {
        Limits { since: now, waits_for_client: false, waits_since: None, untaken_since: None, catching_up: None }
    }

    /// Some of the request came, or left.
    pub fn moved(&mut self, now: Instant) {
        self.since = now;
        self.waits_for_client = false;
    }

    /// The client is waited for, from now on or already.
    pub fn waits_for_client(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.waits_for_client, true) {
            self.since = now;
        }
    }

    /// The upstream is waited for, from now on or already.
    pub fn waits_for_upstream(&mut self, now: Instant) {
        self.waits_since.get_or_insert(now);
    }

    /// Some of the answer came.
    pub fn answers(&mut self) {
        self.waits_since = None;
    }

    /// The client is to take what waits for it, from now on or already.
    pub fn waits_to_be_taken(&mut self, now: Instant) {
        self.untaken_since.get_or_insert(now);
    }

    /// The client took some.
    pub fn taken(&mut self) {
        self.untaken_since = None;
    }

    /// Until when the client has to take some.
    pub fn taken_by(&self, listener: &Listener) -> Instant {
        self.untaken_since.unwrap_or(self.since) + listener.limits.answer_idle_timeout
    }

    /// Until when something has to happen, and what it is if it does not.
    pub fn deadline(&self, listener: &Listener, unread: bool, sent: bool) -> (Instant, Trouble) {
        let (upstream, limits) = (&listener.upstream, &listener.limits);
        match (unread, sent) {
            (true, _) if self.waits_for_client => (self.since + limits.body_idle_timeout, Trouble::ClientIdle),
            (true, _) | (false, false) => (self.since + upstream.send_timeout, Trouble::Stalled),
            (false, true) => {
                let since = self.waits_since.map_or(self.since, |waits| waits.max(self.since));
                (since + upstream.response_timeout, Trouble::Late)
            }
        }
    }
}
