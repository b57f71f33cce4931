//! Any protocol over TCP: a connection belongs to its epoch, and ends with it.
//!
//! Nothing is known of what it carries, so all of it may write. A guard decides before a byte has left, and cuts the connection
//! when the epoch moves on: the client's end at once; the target's is told that nothing follows, and waited for until it has ended
//! its side too. What a client is told is a closed connection: there are no words that every protocol understands.

use std::rc::Rc;

use bytes::Bytes;

use super::right::Settled;
use super::session::{Asked, Sessions};
use super::tunnel::{Ends as _, Tunnel};
use super::{Accepted, Kind};
use crate::fence::{Outcome, Refusal};

/// Serves one connection to its end.
pub async fn serve(sessions: Rc<Sessions>, accepted: Accepted) {
    let Accepted { stream: client, who, stamp, mut closing, .. } = accepted;
    let _counted = sessions.count();
    let mut finish = sessions.begin(Kind::Write);
    let asked = Asked { method: "TCP", path: "/", kind: Kind::Write, lasts: true, who: &who, stamp: stamp.as_deref() };
    let refused = |refusal: Box<Refusal>| sessions.say_refused(&asked, &refusal);
    let right = match sessions.admit(&asked, &mut closing).await {
        Ok(right) => right,
        Err(refusal) => return refused(refusal),
    };
    let upstream = match sessions.connect(&right, &who).await {
        Ok(upstream) => upstream,
        Err(refusal) => {
            right.settle(Settled::NothingLeft);
            return refused(refusal);
        }
    };
    finish.ends_as(Outcome::Unknown);
    let tunnel = Tunnel {
        upstream,
        ahead: Bytes::new(),
        signal: right.lasting_signal(),
        right: Some(right),
        finish: Some(Box::new(finish)),
        role: Rc::clone(&sessions.role),
        yields: true,
    };
    tunnel.run(client, Bytes::new(), closing).await;
}
