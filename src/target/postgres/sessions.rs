//! What the server lists: orphans are ended, and seen gone.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::super::orphans::{Listed, orphans_now};
use super::Patience;
use super::connect::{Connected, client_of, column};

/// A session, as `pg_stat_activity` has it.
pub(super) struct Session {
    pub pid: i32,
    /// As the server keeps time, in microseconds: with the process id it names one session for good.
    pub began: i64,
    pub listed: Option<Listed>,
}

/// What a session gets to end by itself. Little, since others of this host may be there that go on.
const MOMENTS: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(4)];

/// Every session of a client in every database, but for the one that asks. Walsenders are sessions too: such a client
/// may also write.
const LIST: &str = "SELECT a.pid, (extract(epoch FROM a.backend_start) * 1000000)::int8, host(a.client_addr), a.client_port \
     FROM pg_stat_activity a \
     WHERE a.pid <> pg_backend_pid() AND a.backend_type IN ('client backend', 'walsender')";

/// Ends one session. That its beginning is compared spares one that got the same process id in the meantime.
const END: &str = "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a \
     WHERE a.pid = $1 AND (extract(epoch FROM a.backend_start) * 1000000)::int8 = $2";

pub(super) async fn list(connected: &Connected) -> Result<Vec<Session>, String> {
    let session = |row: &tokio_postgres::Row| {
        let began: i64 = column(row, 1)?;
        let listed = client_of(row, 2)?.map(|client| Listed { client, order: began });
        Ok(Session { pid: column(row, 0)?, began, listed })
    };
    connected.ask(LIST, &[]).await?.iter().map(session).collect()
}

/// Ends every session that came from this host and has no socket here any more, and waits until none is listed. Says how
/// many there were.
///
/// # Errors
/// Where one may not be ended, or is still there when the time is over.
pub(super) async fn end_orphans(connected: &Connected, limit: Duration) -> Result<usize, String> {
    let_go(connected).await?;
    let mut told: Vec<(i32, i64)> = Vec::new();
    let mut patience = Patience::of(limit);
    loop {
        let left = orphaned(connected).await?;
        for session in &left {
            if !told.contains(&(session.pid, session.began)) {
                end(connected, session.pid, session.began).await?;
                told.push((session.pid, session.began));
            }
        }
        let Some(first) = left.first() else { return Ok(told.len()) };
        if !patience.goes_on().await {
            return Err(format!(
                "{} session(s) whose client is gone were told to end, and are still there after {limit:?}; the first is \
                 process {}: SELECT * FROM pg_stat_activity WHERE pid = {}",
                left.len(),
                first.pid,
                first.pid
            ));
        }
    }
}

/// A session that a worker has just ended goes by itself in a moment: to wait for that is cheaper than to list this host's
/// sockets, and to have the server end it once more.
async fn let_go(connected: &Connected) -> Result<(), String> {
    for pause in MOMENTS {
        let own = |session: &Session| session.listed.is_some_and(|listed| connected.vantage.is_own(listed.client));
        if !list(connected).await?.iter().any(own) {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// First the list, then the sockets: the other way round one that was made in between would seem to have none.
async fn orphaned(connected: &Connected) -> Result<Vec<Session>, String> {
    let mut sessions = list(connected).await?;
    sessions.retain(|session| session.listed.is_some());
    let listed: Vec<Listed> = sessions.iter().filter_map(|session| session.listed).collect();
    let gone = orphans_now(&listed, &connected.vantage)
        .map_err(|error| format!("cannot list this host's sockets: {error}"))?;
    let mut places = gone.into_iter().peekable();
    let mut place = 0;
    sessions.retain(|_| {
        let is_orphan = places.next_if_eq(&place).is_some();
        place += 1;
        is_orphan
    });
    Ok(sessions)
}

/// Tells the server to end one session; one that is gone already is no error.
///
/// # Errors
/// Where the control connection may not.
pub(super) async fn end(connected: &Connected, pid: i32, began: i64) -> Result<(), String> {
    match connected.ask(END, &[&pid, &began]).await {
        Ok(_) => Ok(()),
        Err(failed) if failed.is(&SqlState::INSUFFICIENT_PRIVILEGE) => Err(format!(
            "{} may not end process {pid}: {}; a superuser's session only a superuser can end: let clients log in as \
             others, or make the control connection's user a superuser",
            connected.user,
            failed.text()
        )),
        Err(failed) => Err(failed.text()),
    }
}

/// The names of the prepared transactions that stand in all databases, the oldest first.
pub(super) async fn prepared_names(connected: &Connected) -> Result<Vec<String>, String> {
    let rows = connected.ask("SELECT gid FROM pg_prepared_xacts ORDER BY prepared", &[]).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}
