//! How the control connection is made, and what has to be true of it before anything that it says counts.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

use super::super::orphans::Vantage;
use crate::config::resolved::{Control, Upstream};
use crate::config::secrets;
use crate::net::dial::ClientSlot;
use crate::net::{Dial as _, Speaks, UpstreamDial};

/// As it stands in `pg_stat_activity`.
pub(super) const APPLICATION_NAME: &str = "epochgate control";

/// Settings of the session, whatever the server's, the database's and the user's defaults are: nobody's operators are
/// found in a path, nothing ends it for being idle, and what it has written is on the disk when it says so.
const OPTIONS: &str = "-c search_path=pg_catalog -c idle_session_timeout=0 -c statement_timeout=0 \
                       -c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed \
                       -c synchronous_commit=on";

/// A control connection that can prove something.
pub(super) struct Connected {
    client: Client,
    /// The task that carries its messages; it ends with this.
    carried: AbortHandle,
    /// Where this host stands.
    pub vantage: Vantage,
    server: SocketAddr,
    /// Who it is.
    pub user: String,
    limit: Duration,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.carried.abort();
    }
}

impl Connected {
    /// Whether it is still there, and its server one of these.
    pub fn leads_to(&self, servers: &[SocketAddr]) -> bool {
        !self.client.is_closed() && servers.contains(&self.server)
    }

    /// Asks one question, no longer than an answer may take.
    ///
    /// # Errors
    /// As [`Failed::text`] says them.
    pub async fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failed> {
        match tokio::time::timeout(self.limit, self.client.query(sql, parameters)).await {
            Ok(answer) => answer.map_err(Failed::Server),
            Err(_) => Err(Failed::Silent(self.limit)),
        }
    }
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server said no, or the connection broke.
    Server(tokio_postgres::Error),
    /// Nothing came in time.
    Silent(Duration),
}

impl Failed {
    /// Whether the server gave this reason.
    pub fn is(&self, state: &SqlState) -> bool {
        matches!(self, Failed::Server(error) if error.code() == Some(state))
    }

    /// In words: what the server said, with what it says to do.
    pub fn text(&self) -> String {
        match self {
            Failed::Silent(limit) => format!("no answer within {limit:?} (upstream.response_timeout)"),
            Failed::Server(error) => said(error),
        }
    }
}

impl From<Failed> for String {
    fn from(failed: Failed) -> String {
        failed.text()
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    let Some(answer) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return format!("{error}{source}");
    };
    let more = |what: &str, text: Option<&str>| text.map(|text| format!("; {what}{text}")).unwrap_or_default();
    format!(
        "the server says: {} ({}){}{}",
        answer.message(),
        answer.code().code(),
        more("", answer.detail()),
        more("hint: ", answer.hint())
    )
}

/// Where the upstream's name leads now.
///
/// # Errors
/// Where it leads nowhere, or to several servers: a proof would be of one of them, and a session may be at another.
pub(super) async fn servers(upstream: &Upstream) -> Result<Vec<SocketAddr>, String> {
    if upstream.socket.is_some() {
        return Err("behind a unix socket sessions have no address to be known by: connect over TCP".to_owned());
    }
    let looked_up = tokio::time::timeout(upstream.connect_timeout, tokio::net::lookup_host(&*upstream.authority)).await;
    let addresses: Vec<SocketAddr> = match looked_up {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(format!("{} has no address: {error}", upstream.authority)),
        Err(_) => return Err(format!("{}: no address within {:?}", upstream.authority, upstream.connect_timeout)),
    };
    if is_one_host(&addresses) {
        return Ok(addresses);
    }
    Err(format!(
        "{} has {} addresses, and a proof would be of one server only; give an upstream with one address",
        upstream.authority,
        addresses.len()
    ))
}

/// Whether all are one address, or this host by its loopback addresses.
fn is_one_host(addresses: &[SocketAddr]) -> bool {
    addresses.windows(2).all(|two| two[0] == two[1]) || addresses.iter().all(|address| address.ip().is_loopback())
}

/// Makes the connection, and looks whether it can prove anything: whether the server sees this host where it is, and
/// lets it see and end sessions.
pub(super) async fn connect(upstream: &Upstream, control: &Control, slot: &ClientSlot) -> Result<Connected, String> {
    // Never a password in plain text where TLS is wanted.
    if upstream.tls.is_some() && slot.borrow().is_none() {
        return Err("there are no certificates yet to make a TLS session with".to_owned());
    }
    let dial = UpstreamDial::new(upstream, Rc::clone(slot));
    let stream = dial.dial(&upstream.authority, Speaks::Postgres).await.map_err(|error| error.to_string())?;
    let ends = stream.tcp_ends().ok_or("the connection has no addresses")?;
    let (local, server) = ends.map_err(|error| format!("the connection has no addresses: {error}"))?;
    let user = control.user.clone().unwrap_or_else(|| "epochgate".to_owned());
    let mut config = Config::new();
    config.user(&user).dbname(&control.database).application_name(APPLICATION_NAME).options(OPTIONS);
    // TLS is done already, or not wanted: the library has the stream as it is.
    config.ssl_mode(SslMode::Disable);
    if let Some(file) = &control.password_file {
        config.password(secrets::password("upstream.control.password_file", file)?.as_bytes());
    }
    let limit = upstream.response_timeout;
    let logged_in = tokio::time::timeout(limit, config.connect_raw(stream, NoTls)).await;
    let (client, messages) = match logged_in {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(format!("cannot log in as {user} to {}: {}", control.database, said(&error))),
        Err(_) => return Err(format!("no login within {limit:?} (upstream.response_timeout)")),
    };
    let carried = tokio::task::spawn_local(async move {
        if let Err(error) = messages.await {
            tracing::debug!("the control connection has ended: {error}");
        }
    });
    let abort = carried.abort_handle();
    // The vantage is known only when the server has been asked; until then nothing is proved by it.
    let unproved = Unproved { client, carried: abort, user, limit };
    unproved.prove(local, server).await
}

/// A connection of which nothing is known yet.
struct Unproved {
    client: Client,
    carried: AbortHandle,
    user: String,
    limit: Duration,
}

impl Unproved {
    async fn prove(self, local: SocketAddr, server: SocketAddr) -> Result<Connected, String> {
        const ABOUT: &str = "SELECT host(a.client_addr), a.client_port, \
             pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), \
             pg_has_role(current_user, 'pg_signal_backend', 'USAGE') \
             FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()";
        let Unproved { client, carried, user, limit } = self;
        let about = match tokio::time::timeout(limit, client.query_one(ABOUT, &[])).await {
            Ok(answer) => answer.map_err(|error| said(&error)),
            Err(_) => Err(Failed::Silent(limit).text()),
        };
        let vantage = about.and_then(|row| {
            let (seen, may_see, may_end) = (client_of(&row, 0)?, column::<bool>(&row, 2)?, column::<bool>(&row, 3)?);
            if !(may_see && may_end) {
                return Err(format!(
                    "{user} may not see and end other users' sessions: GRANT pg_monitor, pg_signal_backend TO \"{}\"",
                    user.replace('"', "\"\"")
                ));
            }
            let seen =
                seen.ok_or("the server sees the control connection without an address: a proxy stands between")?;
            Vantage::new(local, server, seen)
        });
        match vantage {
            Ok(vantage) => Ok(Connected { client, carried, vantage, server, user, limit }),
            Err(why) => {
                carried.abort();
                Err(why)
            }
        }
    }
}

/// A column of a question of ours.
pub(super) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, String> {
    row.try_get(at).map_err(|error| format!("the server answers in another form than PostgreSQL: {error}"))
}

/// The client of a session, in the columns `at` (its address as text) and the next (its port); `None` where it came
/// over a unix socket, or is no client at all.
pub(super) fn client_of(row: &Row, at: usize) -> Result<Option<SocketAddr>, String> {
    let (ip, port): (Option<String>, Option<i32>) = (column(row, at)?, column(row, at + 1)?);
    let Some((ip, port)) = ip.zip(port) else { return Ok(None) };
    let ip: IpAddr = ip.parse().map_err(|_| format!("the server lists {ip:?} as an address"))?;
    let port = u16::try_from(port).map_err(|_| format!("the server lists {port} as a port"))?;
    Ok(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_are_several_servers_but_for_this_hosts_own() {
        let one_host = |addresses: &[&str]| {
            is_one_host(&addresses.iter().map(|address| address.parse().expect("an address")).collect::<Vec<_>>())
        };
        assert!(one_host(&["10.0.0.9:5432"]) && one_host(&["10.0.0.9:5432", "10.0.0.9:5432"]));
        assert!(one_host(&["[::1]:5432", "127.0.0.1:5432"]));
        assert!(!one_host(&["10.0.0.9:5432", "10.0.0.8:5432"]));
        assert!(!one_host(&["10.0.0.9:5432", "127.0.0.1:5432"]));
    }
}
