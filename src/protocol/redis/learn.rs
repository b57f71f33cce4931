//! Learns the server's table of commands, over a connection of the sidecar's own.
//!
//! The table holds for as long as that connection stands: another server, or the same one started anew, may have others. It is
//! read again every minute, for what was loaded since. Where it cannot be had, every command that is not known without a server
//! is a write: that is safe, and said in the log.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Client, Failure};
use super::table::Table;
use crate::peer::Peer;
use crate::protocol::session::Sessions;
use crate::protocol::{Binding, Party};

/// So long is the server given to list its commands.
const PATIENCE: Duration = Duration::from_secs(5);
/// So often is the table read again.
const EVERY: Duration = Duration::from_secs(60);
/// So long after a connection that failed is the next one made.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);
/// So long after the server said no.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(10);

/// What is known of the server's commands.
pub struct Commands {
    table: RefCell<Rc<Table>>,
    /// Whether nobody knows yet whether the server tells.
    first: RefCell<bool>,
    told: Notify,
    learning: RefCell<Option<AbortOnDropHandle<()>>>,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands {
            table: RefCell::new(Rc::new(Table::default())),
            first: RefCell::new(true),
            told: Notify::new(),
            learning: RefCell::default(),
        }
    }
}

impl Commands {
    /// What is known now.
    pub fn table(&self) -> Rc<Table> {
        Rc::clone(&self.table.borrow())
    }

    /// Begins to ask, if nobody did; resolves when the server has told, or has not.
    pub async fn known(self: &Rc<Self>, sessions: &Rc<Sessions>) {
        if self.learning.borrow().is_none() {
            let task = tokio::task::spawn_local(learn(Rc::downgrade(self), Rc::downgrade(sessions)));
            *self.learning.borrow_mut() = Some(AbortOnDropHandle::new(task));
        }
        loop {
            let told = self.told.notified();
            if !*self.first.borrow() {
                return;
            }
            told.await;
        }
    }

    /// As if the server had told, and were never asked again.
    #[cfg(test)]
    pub fn is_told(&self, table: Table) {
        let never = tokio::task::spawn_local(std::future::pending());
        *self.learning.borrow_mut() = Some(AbortOnDropHandle::new(never));
        self.knows(table);
    }

    fn knows(&self, table: Table) {
        *self.table.borrow_mut() = Rc::new(table);
        *self.first.borrow_mut() = false;
        self.told.notify_waiters();
    }
}

/// Asks for as long as somebody wants to know.
async fn learn(commands: Weak<Commands>, sessions: Weak<Sessions>) {
    let mut said = None;
    loop {
        let failure = match once(&commands, &sessions).await {
            Some(failure) => failure,
            None => return,
        };
        let Some(known) = commands.upgrade() else { return };
        known.knows(Table::default());
        let Some(listener) = sessions.upgrade().map(|sessions| sessions.listener.name.clone()) else { return };
        let pause = match failure {
            Failure::Connection(_) => AFTER_A_FAILURE,
            Failure::Refused(_) => AFTER_A_REFUSAL,
        };
        if said.as_ref() != Some(&failure) {
            tracing::warn!(
                %listener,
                "the server's table of commands cannot be had, so nearly every command counts as a write: {failure}"
            );
            said = Some(failure);
        }
        drop(known);
        tokio::time::sleep(pause).await;
    }
}

/// Over one connection, until it breaks; `None` when nobody wants to know any more.
async fn once(commands: &Weak<Commands>, sessions: &Weak<Sessions>) -> Option<Failure> {
    let sessions = sessions.upgrade()?;
    let connected = timeout(PATIENCE, connect(&sessions)).await;
    drop(sessions);
    let mut client = match connected.unwrap_or_else(|_| Err(too_slow())) {
        Ok(client) => client,
        Err(failure) => return Some(failure),
    };
    loop {
        let listed = timeout(PATIENCE, client.ask(&[b"COMMAND"])).await.unwrap_or_else(|_| Err(too_slow()));
        let table = listed.and_then(|listed| {
            let table = Table::of_server(&listed);
            table.ok_or_else(|| Failure::Connection("its answer to COMMAND is no table of commands".into()))
        });
        match table {
            Ok(table) => commands.upgrade()?.knows(table),
            Err(failure) => return Some(failure),
        }
        if timeout(EVERY, client.closed()).await.is_ok() {
            return Some(Failure::Connection("the server closed the connection".into()));
        }
    }
}

async fn connect(sessions: &Sessions) -> Result<Client, Failure> {
    // Nobody's in particular: it is this sidecar's own.
    let nobody = Party::unnamed(Peer::Tcp(([127, 0, 0, 1], 0).into()), Binding::default());
    let mut client = Client::new(sessions.connect_without_right(&nobody).await?);
    client.log_in(sessions.listener.upstream.control.as_ref()).await?;
    Ok(client)
}

fn too_slow() -> Failure {
    Failure::Connection("the server did not answer in time".into())
}
