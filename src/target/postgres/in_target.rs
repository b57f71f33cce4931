//! The in-target level: the epoch in the database itself.
//!
//! Opt-in SQL ([`Install`], printed by `epochgate sql postgres`) gives each fenced table a trigger that compares the
//! session's epoch (`epochgate.epoch`, a setting) with the one in a row, before each statement that writes. The check and
//! the commit are one step, in this way:
//!
//! 1. the trigger takes a shared advisory lock for the length of its transaction, named after the resource and the epoch
//!    that its session has: its *mark*. Only then it reads the row, with a snapshot taken after that;
//! 2. the raise writes the row and commits; then it waits until no transaction has a mark of another epoch, and ends
//!    those that stay.
//!
//! A transaction that has read the old epoch got its mark before the raise was committed. So the raise sees it, and waits
//! for its end; one that gets its mark later reads the new epoch and fails. Nothing blocks anything but that wait: marks
//! are shared, they write no log and dirty no page, and writers of the new epoch go on while old ones are waited for.
//! (Locking the row itself, `FOR SHARE`, costs a record of the log in each transaction, and a multixact for each that
//! runs beside others.)
//!
//! Under REPEATABLE READ and SERIALIZABLE a snapshot may be older than the mark. There the row is locked too
//! (`FOR SHARE`): PostgreSQL fails that with 40001 where the row has changed since the snapshot, and has the raise wait.
//!
//! The mark of a prepared transaction stays with it. It is counted ([`super::Proof::prepared`]) and not waited for: it
//! is the new leader's to decide.

mod install;

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::connect::{Connected, column};
use super::sessions::end;
use super::{Patience, sessions};
use crate::fence::{Epoch, Resource, Term};
pub use install::{Install, Table};

/// How long older transactions may go on by themselves before they are ended.
const GRACE: Duration = Duration::from_secs(1);

/// The schema that the SQL makes, where no other is named.
pub const SCHEMA: &str = "epochgate";

/// The name of a resource's marks: the first half of an advisory lock.
pub fn mark_of(resource: &Resource) -> i32 {
    i32::from_ne_bytes(crc32fast::hash(resource.as_str().as_bytes()).to_ne_bytes())
}

/// The second half: the low bits of the epoch that a session has. Two epochs of a resource that are as far apart as to
/// share them never meet: elections go up by one, and a floor is believed for a million ([`Epoch::BELIEVABLE_STEP`]).
fn mark_of_epoch(epoch: Epoch) -> u32 {
    u32::try_from(epoch.number() & u64::from(u32::MAX)).unwrap_or(0)
}

/// Whether the database has the SQL, as far as the control connection may use it: the function is there, and runs with
/// its owner's rights. One that ran with the caller's could be anybody's, and would have those of the control connection.
const IS_THERE: &str = "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') \
     FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
     WHERE n.nspname = $1 AND p.proname = 'raise_epoch' AND p.prosecdef \
     AND oidvectortypes(p.proargtypes) = 'text, bigint, text, text'";

/// Transactions with a mark of another epoch; those without a process are prepared ones.
const OLDER: &str = "SELECT l.pid, (extract(epoch FROM a.backend_start) * 1000000)::int8 \
     FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = $1 AND l.objid <> $2 \
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())";

/// Raises the epoch of `resource` to that of `term`, and waits until no transaction of another goes on; ends those that
/// stay. `None` where the database has no row for it; else how many sessions were ended.
///
/// # Errors
/// Where the row is above already, or of another term; where it may not be raised, or older transactions stay.
pub(super) async fn raise(
    connected: &Connected,
    schema: &str,
    term: &Term,
    resource: &Resource,
    limit: Duration,
) -> Result<Option<usize>, String> {
    let there = connected.ask(IS_THERE, &[&schema]).await?;
    let Some(row) = there.first() else { return Ok(None) };
    if !column::<bool>(row, 0)? {
        return Err(format!(
            "{} may not raise the epoch in schema {schema}: run the output of `epochgate sql postgres` with --guard-role {}",
            connected.user, connected.user
        ));
    }
    let older = Older { connected, mark: mark_of(resource).cast_unsigned(), epoch: mark_of_epoch(term.epoch) };
    let mut ended = Ended::default();
    if !set(connected, schema, term, resource, &older, &mut ended).await? {
        return Ok(None);
    }
    let grace = GRACE.min(limit);
    if !older.gone_within(grace).await? {
        older.end(&mut ended).await?;
        if !older.gone_within(limit).await? {
            return Err(format!(
                "transactions of an older epoch were told to end, and are still there after {limit:?}: \
                 SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = {}",
                older.mark
            ));
        }
    }
    Ok(Some(ended.0.len()))
}

/// Sessions that were told to end.
#[derive(Default)]
struct Ended(Vec<(i32, i64)>);

/// Writes the row; `false` where there is none.
async fn set(
    connected: &Connected,
    schema: &str,
    term: &Term,
    resource: &Resource,
    older: &Older<'_>,
    ended: &mut Ended,
) -> Result<bool, String> {
    let sql = format!("SELECT {}.raise_epoch($1, $2, $3, $4)", quoted(schema));
    let epoch = i64::try_from(term.epoch.number()).map_err(|_| "an epoch has 15 digits at most")?;
    let (nonce, writer) = (term.nonce.to_string(), term.writer.as_str());
    // The first time a transaction that has locked the row (REPEATABLE READ) is waited for, as long as the function does;
    // then it is ended.
    for again in [true, false] {
        match connected.ask(&sql, &[&resource.as_str(), &epoch, &nonce, &writer]).await {
            Ok(rows) => return rows.first().map_or(Ok(false), |row| column(row, 0)),
            Err(failed) if failed.is(&SqlState::LOCK_NOT_AVAILABLE) && again => {
                older.end(ended).await?;
                older.gone_within(GRACE).await?;
            }
            Err(failed) if failed.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(format!(
                    "the epoch of {resource} is locked, and by no session: prepared transactions of REPEATABLE READ or \
                     SERIALIZABLE do that ({}); COMMIT PREPARED or ROLLBACK PREPARED them",
                    sessions::prepared_names(connected).await?.join(", ")
                ));
            }
            Err(failed) => return Err(format!("the epoch of {resource} cannot be raised: {}", failed.text())),
        }
    }
    Ok(false)
}

/// Transactions with a mark of another epoch.
struct Older<'a> {
    connected: &'a Connected,
    mark: u32,
    epoch: u32,
}

impl Older<'_> {
    async fn list(&self) -> Result<Vec<(i32, i64)>, String> {
        let rows = self.connected.ask(OLDER, &[&self.mark, &self.epoch]).await?;
        let mut found = Vec::new();
        for row in &rows {
            let (pid, began): (Option<i32>, Option<i64>) = (column(row, 0)?, column(row, 1)?);
            // One that is not listed any more has ended between the two tables, or is at it: it is asked for again.
            found.extend(pid.map(|pid| (pid, began.unwrap_or(0))));
        }
        Ok(found)
    }

    async fn gone_within(&self, limit: Duration) -> Result<bool, String> {
        let mut patience = Patience::of(limit);
        while !self.list().await?.is_empty() {
            if !patience.goes_on().await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn end(&self, ended: &mut Ended) -> Result<(), String> {
        for (pid, began) in self.list().await? {
            end(self.connected, pid, began).await?;
            if !ended.0.contains(&(pid, began)) {
                ended.0.push((pid, began));
            }
        }
        Ok(())
    }
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL has it.
fn literal(text: &str) -> String {
    // No backslash means anything in it (standard_conforming_strings).
    format!("'{}'", text.replace('\'', "''"))
}
