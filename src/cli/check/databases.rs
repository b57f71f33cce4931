//! Whether a guard's own connection to its database can prove what it is there for, and who goes around the guard.

use std::cell::RefCell;
use std::rc::Rc;

use jiff::Timestamp;
use tokio::task::LocalSet;

use super::super::paint::plain;
use super::report::{Category, Finding};
use crate::config::resolved::{Config, Listener, Protocol, Role};
use crate::net::dial::ClientSlot;
use crate::target::postgres::Postgres;
use crate::target::postgres::look::{Around, InTarget, Seen};
use crate::target::redis::{self, RedisProver};

/// So many of a kind are named.
const NAMED: usize = 5;

/// Every guard before a server that it can have a connection of its own to; `None` where there is none.
pub async fn look(config: &Config) -> Option<Category> {
    let guards = config.listeners.iter().filter(|listener| matches!(listener.role, Role::Guard(_)));
    let mut category = None;
    for listener in guards {
        let findings = match listener.protocol {
            Protocol::Postgres => LocalSet::new().run_until(look_at_postgres(listener)).await,
            Protocol::Redis => LocalSet::new().run_until(look_at_redis(listener)).await,
            Protocol::Http | Protocol::Tcp => continue,
        };
        let category = category.get_or_insert_with(|| Category::new("databases"));
        findings.into_iter().for_each(|finding| category.add(finding));
    }
    category
}

/// What is wrong with certificates is said elsewhere; without them this connection is not made.
fn certificates(listener: &Listener) -> ClientSlot {
    let sides = crate::tls::load(listener, Timestamp::now()).unwrap_or_default();
    Rc::new(RefCell::new(sides.client))
}

fn no_control(listener: &Listener, may_go_on: &str) -> Vec<Finding> {
    vec![Finding::warning(
        format!("{}: no control connection", listener.name),
        format!(
            "what ends without an answer is over by time alone (drain.quarantine), and {may_go_on} may run for longer \
             than that: give upstream.control, a user that may end sessions"
        ),
    )]
}

fn proves_nothing(why: &str) -> Vec<Finding> {
    vec![Finding::bad(
        plain(why).to_string(),
        "without it what is lost is never proved to be over, and a handoff that meets it stays shut",
    )]
}

async fn look_at_postgres(listener: &Listener) -> Vec<Finding> {
    let Some(server) = Postgres::new(listener.name.clone(), &listener.upstream, certificates(listener)) else {
        return no_control(listener, "a statement");
    };
    match server.look(&listener.serves).await {
        Ok(seen) => found(&listener.name, &listener.serves.iter().map(ToString::to_string).collect::<Vec<_>>(), &seen),
        Err(why) => proves_nothing(&why),
    }
}

async fn look_at_redis(listener: &Listener) -> Vec<Finding> {
    let Some(control) = listener.upstream.control.clone() else {
        return no_control(listener, "a command that blocks, or a script,");
    };
    match RedisProver::new(&listener.upstream, control, certificates(listener)).look().await {
        Ok(seen) => found_at_redis(&listener.name, &seen),
        Err(why) => proves_nothing(&why),
    }
}

fn found_at_redis(listener: &str, seen: &redis::Seen) -> Vec<Finding> {
    let good = format!("{listener}: Redis: the control connection sees every client, and may end them");
    let from: Vec<String> = seen.around.iter().map(ToString::to_string).collect();
    let around = match from.len() {
        0 => Finding::good(format!("{listener}: every client is of this host")),
        count => Finding::warning(
            format!("{listener}: {count} client(s) are not of this host: {}", named(&from)),
            "a write of theirs goes around this guard: let the server take writers from the guard's host only (bind, a \
             firewall, or an ACL user that is the guard's clients' alone)",
        ),
    };
    vec![Finding::good(good), around]
}

fn found(listener: &str, resources: &[String], seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![Finding::good(format!(
        "{listener}: PostgreSQL {}: the control connection sees every session, and may end them",
        plain(&seen.version)
    ))];
    findings.extend(resources.iter().map(|resource| {
        match seen.in_target.iter().find(|level| level.resource == *resource) {
            Some(level) => in_target(listener, level),
            None => Finding::good_with(
                format!("{listener}: {resource}: level proxy"),
                "a client that goes around the guard is not fenced; with `epochgate sql postgres` the database itself \
                 refuses it (docs/in-target.md)",
            ),
        }
    }));
    findings.push(around(listener, &seen.around));
    if !seen.prepared.is_empty() {
        findings.push(Finding::warning(
            format!("{listener}: {} prepared transaction(s): {}", seen.prepared.len(), named(&seen.prepared)),
            "they belong to no session, and no handoff ends them: COMMIT PREPARED or ROLLBACK PREPARED is the leader's \
             to say",
        ));
    }
    if seen.looks_for_clients == "0" {
        findings.push(Finding::good_with(
            format!("{listener}: the server does not look for clients that are gone while it works for them"),
            "the control connection ends them at a handoff; client_connection_check_interval = '5s' has the server do it \
             sooner",
        ));
    }
    findings
}

fn in_target(listener: &str, level: &InTarget) -> Finding {
    let what = format!("{listener}: {}: level in-target", level.resource);
    let epoch = if level.epoch == 0 {
        "not raised yet: until the next handoff every session may write".to_owned()
    } else {
        format!("at epoch {}", level.epoch)
    };
    if level.tables.is_empty() && level.turned_off.is_empty() {
        return Finding::bad(
            format!("{what}, with no table"),
            "the schema is there, and no table has its trigger: run the output of `epochgate sql postgres` again",
        );
    }
    if !level.turned_off.is_empty() {
        return Finding::bad(
            format!("{what}, and its trigger is turned off on {}", named(&level.turned_off)),
            "ALTER TABLE … ENABLE ALWAYS TRIGGER epochgate_fence",
        );
    }
    if !level.missing.is_empty() {
        return Finding::bad(
            format!("{what}, and {} has no trigger", named(&level.missing)),
            "it is a partition, child or parent of a fenced table, and the same rows can be written by its name: run the \
             output of `epochgate sql postgres` again",
        );
    }
    let (count, tables) = (level.tables.len(), named(&level.tables));
    let what = format!("{what}, {epoch}: {count} table(s): {tables}");
    if level.epoch == 0 { Finding::warning(what, "epochgate step-down brings one about") } else { Finding::good(what) }
}

fn around(listener: &str, around: &[Around]) -> Finding {
    if around.is_empty() {
        return Finding::good(format!("{listener}: every session has come through the guard"));
    }
    let one = |session: &Around| {
        format!("{}@{} from {} (process {})", session.user, session.database, session.from, session.pid)
    };
    let sessions: Vec<String> = around.iter().map(one).collect();
    Finding::warning(
        format!("{listener}: {} session(s) have not come through this guard: {}", around.len(), named(&sessions)),
        "a write of theirs is not fenced, unless the level is in-target: let pg_hba.conf take writers from the guard's \
         address only",
    )
}

/// The first few, and how many more.
fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).map(|name| plain(name).to_string()).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text += &format!(", and {} more", names.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    fn level() -> InTarget {
        InTarget {
            resource: "orders".into(),
            epoch: 42,
            tables: vec!["orders".into()],
            turned_off: Vec::new(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn the_level_is_in_target_only_where_every_way_to_the_rows_is_fenced() {
        let verdict = |level: &InTarget| in_target("db", level).verdict();
        assert_eq!(in_target("db", &level()).words(), "db: orders: level in-target, at epoch 42: 1 table(s): orders; ");
        assert_eq!(verdict(&InTarget { epoch: 0, ..level() }), Verdict::Warning);
        assert_eq!(verdict(&InTarget { tables: Vec::new(), ..level() }), Verdict::Bad);
        assert_eq!(verdict(&InTarget { turned_off: vec!["lines".into()], ..level() }), Verdict::Bad);
        assert_eq!(verdict(&InTarget { missing: vec!["part_7".into()], ..level() }), Verdict::Bad);
    }

    #[test]
    fn who_goes_around_is_named() {
        let session = Around { pid: 7, from: "10.0.0.9".into(), user: "app".into(), database: "shop".into() };
        let seen = Seen { around: vec![session; 7], version: "15.2".into(), ..Seen::default() };
        let findings = found("db", &["orders".to_owned()], &seen);
        let words: Vec<String> = findings.iter().map(Finding::words).collect();
        assert!(words[1].starts_with("db: orders: level proxy"), "{words:?}");
        assert!(
            words[2].contains("7 session(s)") && words[2].contains("app@shop from 10.0.0.9 (process 7)"),
            "{words:?}"
        );
        assert!(words[2].contains("and 2 more"), "{words:?}");
    }

    #[test]
    fn whoever_writes_to_redis_from_elsewhere_is_named() {
        let words = |around: &[&str]| {
            let around = around.iter().map(|address| address.parse().expect("an address")).collect();
            found_at_redis("db", &redis::Seen { around }).iter().map(Finding::words).collect::<Vec<_>>()
        };
        assert!(words(&[])[1].starts_with("db: every client is of this host"));
        assert!(words(&["10.0.0.9", "::1"])[1].contains("2 client(s) are not of this host: 10.0.0.9, ::1"));
    }
}
