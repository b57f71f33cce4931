//! Where events go.

use std::fmt;
use std::sync::Arc;

use super::Event;
use crate::fence::Moment;

/// One reader of events. Called on the thread that emits: it must be quick and must never block.
pub trait Sink: Send + Sync {
    /// Something happened.
    fn take(&self, at: Moment, event: &Event);

    /// Whether it wants what happens once a request ([`Event::is_hot`]).
    fn wants_hot(&self) -> bool {
        false
    }
}

impl<S: Sink + ?Sized> Sink for Arc<S> {
    fn take(&self, at: Moment, event: &Event) {
        (**self).take(at, event);
    }

    fn wants_hot(&self) -> bool {
        (**self).wants_hot()
    }
}

/// The way in for events: cheap to clone, for every thread. Emitting never blocks.
#[derive(Clone)]
pub struct EventSink {
    sinks: Arc<[Box<dyn Sink>]>,
    hot: bool,
}

impl EventSink {
    /// Fans out to `sinks`, in this order.
    pub fn new(sinks: Vec<Box<dyn Sink>>) -> EventSink {
        let hot = sinks.iter().any(|sink| sink.wants_hot());
        EventSink { sinks: sinks.into(), hot }
    }

    /// Leads nowhere.
    pub fn nowhere() -> EventSink {
        EventSink::new(Vec::new())
    }

    /// Says that something happened.
    pub fn emit(&self, at: Moment, event: Event) {
        for sink in self.sinks.iter() {
            if sink.wants_hot() || !event.is_hot() {
                sink.take(at, &event);
            }
        }
    }

    /// Whether hot events are worth building.
    pub fn wants_history(&self) -> bool {
        self.hot
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSink").field("sinks", &self.sinks.len()).field("hot", &self.hot).finish()
    }
}

/// Keeps every event, hot ones too: for tests of what emits.
#[derive(Debug, Default)]
pub struct Recorder(std::sync::Mutex<Vec<super::Recorded>>);

impl Recorder {
    /// What has come in, in order.
    pub fn all(&self) -> Vec<super::Recorded> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Sink for Recorder {
    fn take(&self, at: Moment, event: &Event) {
        let recorded = super::Recorded { at, event: event.clone() };
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(recorded);
    }

    fn wants_hot(&self) -> bool {
        true
    }
}
