//! What `epochgate check` wants to know of a server: it reads, and changes nothing.

use std::rc::Rc;

use super::connect::{APPLICATION_NAME, Connected, client_of, column};
use super::in_target::quoted;
use super::{Postgres, sessions};
use crate::fence::Resource;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The server's version, as it says it.
    pub version: String,
    /// Where the in-target level is on, in the control connection's database.
    pub in_target: Vec<InTarget>,
    /// Sessions that did not come through a guard of this host.
    pub around: Vec<Around>,
    /// The names of prepared transactions, in all databases.
    pub prepared: Vec<String>,
    /// How often the server looks whether a client is still there while it works for it; `0` is never.
    pub looks_for_clients: String,
}

/// The in-target level of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTarget {
    /// Which.
    pub resource: String,
    /// The row's epoch; 0 before the first raise.
    pub epoch: i64,
    /// Tables whose trigger always fires.
    pub tables: Vec<String>,
    /// Tables whose trigger somebody has turned off, wholly or for some sessions.
    pub turned_off: Vec<String>,
    /// Partitions, children and parents of fenced tables, by which the same rows can be written and which have no trigger.
    pub missing: Vec<String>,
}

/// A session that did not come through a guard of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Around {
    /// Its process at the server.
    pub pid: i32,
    /// Where it comes from; `a unix socket` where that is the server's own host.
    pub from: String,
    /// As whom.
    pub user: String,
    /// In which database.
    pub database: String,
}

/// What a guard writes into `application_name`, behind what the client has there.
const MARK: &str = "[epochgate";

impl Postgres {
    /// Looks at the server, for these resources.
    ///
    /// # Errors
    /// Why there is no control connection that could prove anything, or what could not be read.
    pub async fn look(&self, resources: &[Resource]) -> Result<Seen, String> {
        let looked = async {
            let connected: Rc<Connected> = self.connected().await?;
            let settings = "SELECT current_setting('server_version'), \
                            coalesce(current_setting('client_connection_check_interval', true), '0')";
            let rows = connected.ask(settings, &[]).await?;
            let row = rows.first().ok_or("the server has no settings")?;
            Ok::<Seen, String>(Seen {
                version: column(row, 0)?,
                looks_for_clients: column(row, 1)?,
                in_target: in_target(&connected, &self.control.schema, resources).await?,
                around: around(&connected).await?,
                prepared: sessions::prepared_names(&connected).await?,
            })
        };
        looked.await.map_err(|why| self.placed(&why))
    }
}

/// Standbys and other readers of the log are no writers; everybody else who is not the guard's is named.
async fn around(connected: &Connected) -> Result<Vec<Around>, String> {
    const LIST: &str = "SELECT a.pid, host(a.client_addr), a.client_port, coalesce(a.usename::text, ''), \
         coalesce(a.datname::text, ''), a.application_name \
         FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a.backend_type = 'client backend' ORDER BY a.pid";
    let mut found = Vec::new();
    for row in &connected.ask(LIST, &[]).await? {
        let client = client_of(row, 1)?;
        let name: String = column(row, 5)?;
        let is_ours = client.is_some_and(|client| connected.vantage.is_own(client));
        if is_ours && (name.contains(MARK) || name == APPLICATION_NAME) {
            continue;
        }
        let from = client.map_or_else(|| "a unix socket".to_owned(), |client| client.ip().to_string());
        found.push(Around { pid: column(row, 0)?, from, user: column(row, 3)?, database: column(row, 4)? });
    }
    Ok(found)
}

/// The first argument of a fence's trigger is its resource; each has a zero byte behind it.
const TRIGGERS: &str = "SELECT c.oid, c.oid::regclass::text, t.tgenabled = 'A' \
     FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid \
     JOIN pg_namespace n ON n.oid = p.pronamespace \
     WHERE n.nspname = $1 AND p.proname = 'fence' AND NOT t.tgisinternal \
     AND substring(t.tgargs FOR octet_length($2::text) + 1) = convert_to($2::text, 'UTF8') || '\\x00'::bytea \
     ORDER BY 2";

/// Whoever is in one family with these tables, and none of them.
const KIN: &str = "WITH RECURSIVE kin AS (\
       SELECT member FROM unnest($1::oid[]) AS fenced (member) \
       UNION SELECT CASE WHEN i.inhparent = k.member THEN i.inhrelid ELSE i.inhparent END \
       FROM pg_inherits i JOIN kin k ON k.member IN (i.inhparent, i.inhrelid)) \
     SELECT c.oid::regclass::text FROM kin JOIN pg_class c ON c.oid = kin.member \
     WHERE c.relkind IN ('r', 'p', 'f') AND c.oid <> ALL ($1::oid[]) ORDER BY 1";

async fn in_target(connected: &Connected, schema: &str, resources: &[Resource]) -> Result<Vec<InTarget>, String> {
    // A table and nothing that only looks like one: a view would run what somebody wrote with this connection's rights.
    const IS_THERE: &str = "SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = 'epochs' AND c.relkind = 'r' AND NOT c.relrowsecurity";
    let there = connected.ask(IS_THERE, &[&schema]).await?;
    let Some(row) = there.first() else { return Ok(Vec::new()) };
    if !column::<bool>(row, 0)? {
        return Err(format!(
            "{} may not read schema {schema}: run the output of `epochgate sql postgres` with --guard-role {}",
            connected.user, connected.user
        ));
    }
    let epoch_of = format!("SELECT epoch FROM {}.epochs WHERE resource = $1", quoted(schema));
    let mut found = Vec::new();
    for resource in resources {
        let rows = connected.ask(&epoch_of, &[&resource.as_str()]).await?;
        let Some(row) = rows.first() else { continue };
        let mut level = InTarget {
            resource: resource.to_string(),
            epoch: column(row, 0)?,
            tables: Vec::new(),
            turned_off: Vec::new(),
            missing: Vec::new(),
        };
        let mut fenced: Vec<u32> = Vec::new();
        for row in &connected.ask(TRIGGERS, &[&schema, &resource.as_str()]).await? {
            fenced.push(column(row, 0)?);
            let list = if column(row, 2)? { &mut level.tables } else { &mut level.turned_off };
            list.push(column(row, 1)?);
        }
        let kin = connected.ask(KIN, &[&fenced]).await?;
        level.missing = kin.iter().map(|row| column(row, 0)).collect::<Result<_, _>>()?;
        found.push(level);
    }
    Ok(found)
}
