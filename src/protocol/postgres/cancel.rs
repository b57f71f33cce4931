//! Requests to cancel: a client's, passed on as it came, and a session's own, when it is to end.
//!
//! A request names a process and its secret key, and is a connection of its own. Workers share nothing, so it goes to the target
//! whichever session it is for: the key is what PostgreSQL checks. It needs no right, and works while everything is fenced.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::net::Stream;
use crate::protocol::Party;
use crate::protocol::session::Sessions;

/// So many are under way at once in a worker for one listener; what is more is dropped, as if it came too late.
const MOST: usize = 64;
/// So long may one take.
const TIME: Duration = Duration::from_secs(10);

/// Counts what is under way.
#[derive(Debug, Default)]
pub struct Cancels(Rc<Cell<usize>>);

struct Place(Rc<Cell<usize>>);

impl Cancels {
    fn place(&self) -> Option<Place> {
        let taken = self.0.get();
        (taken < MOST).then(|| {
            self.0.set(taken + 1);
            Place(Rc::clone(&self.0))
        })
    }

    /// Sends a request, whole, to the upstream, and waits until that has closed the connection: then it has been heard. Whether it
    /// found anything to cancel, nobody says.
    pub async fn send(&self, sessions: &Sessions, who: &Party, request: &[u8]) {
        let Some(_place) = self.place() else { return };
        let sent = async {
            let mut upstream = sessions.connect_without_right(who).await?;
            upstream.write_all(request).await?;
            upstream.flush().await?;
            wait_for_the_end(&mut upstream).await
        };
        match timeout(TIME, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a request to cancel did not reach the upstream"),
            Err(_) => tracing::debug!("a request to cancel was not taken in time"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn wait_for_the_end(stream: &mut Stream) -> std::io::Result<()> {
    let mut nothing = [0; 64];
    while stream.read(&mut nothing).await? > 0 {}
    Ok(())
}
