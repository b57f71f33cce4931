//! One call of the store: which endpoints it is tried at, and for how long.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::endpoints::{Endpoints, Link};
use super::failure::{Failure, with_hint};
use crate::coordinator::store::StoreError;

/// Whether a request that may have been sent may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Yes: asking twice is as good as asking once.
    Harmless,
    /// Only where it is certain that it never left.
    OnlyIfNotSent,
}

impl Endpoints {
    /// Makes one call, within the configured time limit over all endpoints and attempts. `what` is for the error's text:
    /// "read", "commit".
    pub(super) async fn call<T, F, A>(&self, what: &str, repeat: Repeat, ask: F) -> Result<T, StoreError>
    where
        F: Fn(Link) -> A + Send + Sync,
        A: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        let deadline = Instant::now() + self.settings.timeout;
        // An attempt that begins in the last quarter has too little time to say anything but that it had too little.
        let last_begin = deadline - self.settings.timeout / 4;
        let mut logged_in_again = false;
        let mut unfit = false;
        loop {
            let turn = self.pick();
            if turn.due > last_begin {
                break;
            }
            turn.come().await;
            let failure = match self.attempt(turn.endpoint, deadline, repeat, &ask).await {
                Ok(answer) => {
                    self.worked(turn.endpoint);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            match failure.what {
                Failure::Login(_) if self.settings.has_user() && !logged_in_again => {
                    logged_in_again = true;
                    if let Some(link) = &failure.link {
                        self.forget(link);
                    }
                    continue;
                }
                Failure::Login(text) => {
                    let hint = if self.settings.has_user() { "" } else { " (set `coordinator.etcd.user`)" };
                    return Err(StoreError::Denied(self.say(what, turn.endpoint, &format!("{text}{hint}"))));
                }
                Failure::Denied(text) => return Err(StoreError::Denied(self.say(what, turn.endpoint, &text))),
                Failure::Unusable(text) => return Err(StoreError::Unusable(self.say(what, turn.endpoint, &text))),
                Failure::LeaseGone => return Err(StoreError::LeaseGone),
                Failure::NotSent(_) | Failure::NoAnswer(_) | Failure::Unfit(_) => {}
            }
            self.failed(turn.endpoint, failure.link.as_ref(), failure.what.text());
            unfit = matches!(failure.what, Failure::Unfit(_));
            if failure.sent && repeat == Repeat::OnlyIfNotSent {
                let text = self.say(what, turn.endpoint, failure.what.text());
                return Err(StoreError::Unreachable(format!("{text}; whether it happened is not known")));
            }
        }
        let text = format!("cannot {what}: no endpoint of etcd answers: {}", self.complaints());
        Err(if unfit && self.len() == 1 { StoreError::Unusable(text) } else { StoreError::Unreachable(text) })
    }

    async fn attempt<T, F, A>(&self, endpoint: usize, end: Instant, repeat: Repeat, ask: &F) -> Result<T, Failed>
    where
        F: Fn(Link) -> A + Send + Sync,
        A: Future<Output = Result<T, Failure>> + Send,
    {
        let began = Instant::now();
        // A silent endpoint must not use up the time in which another one could answer.
        let half = began + (end - began) / 2;
        let limit = |alone: bool| if alone || !self.another(endpoint) { end } else { half };
        let until = limit(false);
        let link = match timeout_at(until, self.link(endpoint)).await {
            Ok(Ok(link)) => link,
            Ok(Err(what)) => return Err(Failed { what, sent: false, link: None }),
            Err(_) => {
                let what = Failure::NotSent(with_hint(format!("no connection within {}", millis(until - began))));
                return Err(Failed { what, sent: false, link: None });
            }
        };
        let until = limit(repeat == Repeat::OnlyIfNotSent);
        let what = match timeout_at(until, ask(link.clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(what)) => what,
            Err(_) => Failure::NoAnswer(format!("no answer within {}", millis(until - began))),
        };
        let sent = !matches!(what, Failure::NotSent(_));
        Err(Failed { what, sent, link: Some(link) })
    }

    fn say(&self, what: &str, endpoint: usize, text: &str) -> String {
        format!("cannot {what} at etcd {}: {text}", self.url(endpoint))
    }
}

/// An attempt that failed.
struct Failed {
    what: Failure,
    /// Whether the request may have left.
    sent: bool,
    link: Option<Link>,
}

fn millis(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}
