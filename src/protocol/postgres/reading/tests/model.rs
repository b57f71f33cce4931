//! A server for tests: the main loop of PostgreSQL as far as a lockstep depends on it, over a handful of statements.
//!
//! It is the judge too: whatever a client has it run has to be run in a read-only transaction with a snapshot, or in a
//! transaction that has failed.

use std::collections::HashMap;

use crate::protocol::postgres::message::Walk;
use crate::protocol::postgres::message::tests::message;

/// The guard's own names and statements.
const GUARD: &str = "epochgate";
const BEGIN_READ_ONLY: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Block {
    failed: bool,
    read_only: bool,
    snapshot: bool,
    /// Something was written although it only reads.
    wrote: bool,
}

/// The server.
#[derive(Default)]
pub struct Server {
    /// Whether a guard stands before it.
    pub guarded: bool,
    walk: Walk,
    body: Vec<u8>,
    block: Option<Block>,
    statements: HashMap<String, String>,
    portals: HashMap<String, String>,
    skips: bool,
    /// A COPY is taken in; whether a Query began it.
    copying: Option<bool>,
    said: Vec<u8>,
}

struct Failed(&'static str);

/// Whether it is the guard's look at what the transaction has written.
fn is_check(sql: &str) -> bool {
    sql.contains("pg_current_xact_id_if_assigned() IS NULL")
}

impl Server {
    /// Takes these bytes, and says what it says to them.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut walk = self.walk;
        walk.over(bytes, |part| {
            self.body.extend_from_slice(part.body);
            if part.ends {
                let body = std::mem::take(&mut self.body);
                self.hear(part.kind, &body);
            }
            Ok(())
        })
        .expect("what reaches the server is the protocol");
        self.walk = walk;
        std::mem::take(&mut self.said)
    }

    fn hear(&mut self, kind: u8, body: &[u8]) {
        if self.skips && kind != b'S' {
            return;
        }
        if let Some(by_query) = self.copying {
            return self.copy(kind, by_query);
        }
        let texts: Vec<String> =
            body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into()).collect();
        let done = match kind {
            b'P' => self.parse(&texts[0], &texts[1]),
            b'B' => self.bind(&texts[0], &texts[1]),
            b'D' => self.describe(&texts[0]),
            b'E' => self.execute(&texts[0]),
            b'C' => {
                let name = &texts[0][1..];
                if texts[0].starts_with('S') {
                    self.statements.remove(name)
                } else {
                    self.portals.remove(name)
                };
                self.say(b'3', b"");
                Ok(())
            }
            b'S' => {
                self.skips = false;
                return self.ready();
            }
            b'F' => {
                self.judge("", "a call");
                let failed = self.block.is_some_and(|block| block.failed);
                if failed {
                    self.fail("25P02")
                } else {
                    self.say(b'V', b"\0\0\0\0")
                }
                return self.ready();
            }
            b'Q' => {
                assert!(!self.guarded, "a Query reaches the server");
                self.statements.remove("");
                if let Err(Failed(code)) = self.run(&texts[0], true) {
                    self.fail(code);
                }
                return if self.copying.is_none() {
                    self.ready()
                };
            }
            _ => Ok(()),
        };
        if let Err(Failed(code)) = done {
            self.fail(code);
            self.skips = true;
        }
    }

    fn copy(&mut self, kind: u8, by_query: bool) {
        match kind {
            b'c' => {
                self.copying = None;
                self.say(b'C', b"COPY 1\0");
            }
            b'f' => {
                self.copying = None;
                self.fail("57014");
                self.skips = !by_query;
            }
            // Data; and a Sync or a Flush is overlooked.
            _ => return,
        }
        if by_query {
            self.ready();
        }
    }

    fn parse(&mut self, name: &str, sql: &str) -> Result<(), Failed> {
        self.judge(name, sql);
        self.may_run(sql)?;
        match sql {
            _ if sql.contains(';') => return Err(Failed("42601")),
            "bad" => return Err(Failed("42601")),
            _ if !name.is_empty() && self.statements.contains_key(name) => return Err(Failed("42P05")),
            _ => {}
        }
        self.statements.insert(name.into(), sql.into());
        self.say(b'1', b"");
        Ok(())
    }

    fn bind(&mut self, portal: &str, name: &str) -> Result<(), Failed> {
        let sql = self.statements.get(name).cloned().ok_or(Failed("26000"))?;
        self.judge(name, &sql);
        self.may_run(&sql)?;
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(Failed("42P03"));
        }
        self.portals.insert(portal.into(), sql);
        self.say(b'2', b"");
        Ok(())
    }

    fn describe(&mut self, what: &str) -> Result<(), Failed> {
        let (among, name) = (if what.starts_with('S') { &self.statements } else { &self.portals }, &what[1..]);
        let sql = among.get(name).cloned().ok_or(Failed("34000"))?;
        self.judge(name, &sql);
        if what.starts_with('S') {
            self.say(b't', b"\0\0");
        }
        match sql == "select" {
            true => self.say(b'T', b"\0\0"),
            false => self.say(b'n', b""),
        }
        Ok(())
    }

    fn execute(&mut self, portal: &str) -> Result<(), Failed> {
        let sql = self.portals.get(portal).cloned().ok_or(Failed("34000"))?;
        self.judge(portal, &sql);
        self.run(&sql, false)
    }

    /// What a client has it run, it runs in the one place where it can change nothing.
    fn judge(&self, name: &str, what: &str) {
        let own = name == GUARD && ([BEGIN_READ_ONLY, "COMMIT", "ROLLBACK"].contains(&what) || is_check(what));
        let held = self.block.is_some_and(|block| block.failed || block.read_only && block.snapshot);
        assert!(!self.guarded || own || held, "{what:?} is run in {:?}", self.block);
    }

    fn may_run(&self, sql: &str) -> Result<(), Failed> {
        let failed = self.block.is_some_and(|block| block.failed);
        let ends = ["commit", "rollback", "chain", "COMMIT", "ROLLBACK"].contains(&sql);
        if failed && !ends { Err(Failed("25P02")) } else { Ok(()) }
    }

    fn run(&mut self, sql: &str, by_query: bool) -> Result<(), Failed> {
        self.may_run(sql)?;
        if by_query && sql == "select" {
            self.say(b'T', b"\0\0");
        }
        match sql {
            check if is_check(check) && self.block.is_some_and(|block| block.wrote) => return Err(Failed("22012")),
            // EXPLAIN ANALYZE CREATE TABLE ... AS, say.
            "hidden write" => {
                self.block.iter_mut().for_each(|block| block.wrote = true);
                self.say(b'C', b"EXPLAIN\0");
            }
            select if select == "select" || is_check(select) => {
                self.block.iter_mut().for_each(|block| block.snapshot = true);
                self.say(b'D', b"\0\0");
                self.say(b'C', b"SELECT 1\0");
            }
            "begin" | BEGIN_READ_ONLY => {
                if self.block.is_some() {
                    self.say(b'N', b"SWARNING\0C25001\0\0");
                }
                let block = self.block.get_or_insert_default();
                block.read_only |= sql == BEGIN_READ_ONLY;
                self.say(b'C', b"BEGIN\0");
            }
            "commit" | "COMMIT" | "rollback" | "ROLLBACK" => self.end(sql.eq_ignore_ascii_case("commit")),
            "chain" => {
                let Some(block) = &mut self.block else { return Err(Failed("25P01")) };
                assert!(!self.guarded || block.failed || !block.wrote, "what was written is committed");
                *block = Block { failed: false, snapshot: false, wrote: false, ..*block };
                self.portals.clear();
                self.say(b'C', b"COMMIT\0");
            }
            "read write" => {
                let block = self.block.get_or_insert_default();
                if block.read_only && block.snapshot {
                    return Err(Failed("25001"));
                }
                block.read_only = false;
                self.say(b'C', b"SET\0");
            }
            "write" => {
                self.judge("", "a write");
                return Err(Failed("25006"));
            }
            "suspended" => self.say(b's', b""),
            "" => self.say(b'I', b""),
            "copy out" => {
                self.say(b'H', b"\0\0\0");
                self.say(b'd', b"row");
                self.say(b'c', b"");
                self.say(b'C', b"COPY 1\0");
            }
            "copy in" => {
                self.copying = Some(by_query);
                self.say(b'G', b"\0\0\0");
            }
            "notice" => {
                self.say(b'N', b"SNOTICE\0C00000\0Mhear\0\0");
                self.say(b'S', b"a\0b\0");
                self.say(b'C', b"DO\0");
            }
            "bad" => return Err(Failed("42601")),
            other => unreachable!("no script says {other:?}"),
        }
        Ok(())
    }

    fn end(&mut self, commits: bool) {
        let failed = match self.block.take() {
            None => {
                self.say(b'N', b"SWARNING\0C25P01\0\0");
                false
            }
            Some(block) => {
                assert!(!self.guarded || !commits || block.failed || !block.wrote, "what was written is committed");
                block.failed
            }
        };
        self.portals.clear();
        self.say(b'C', if commits && !failed { b"COMMIT\0" } else { b"ROLLBACK\0" });
    }

    fn fail(&mut self, code: &str) {
        self.block.iter_mut().for_each(|block| block.failed = true);
        self.say(b'E', format!("SERROR\0VERROR\0C{code}\0Mno\0\0").as_bytes());
    }

    fn ready(&mut self) {
        if self.block.is_none() {
            self.portals.clear();
        }
        let state = match self.block {
            None => b"I",
            Some(Block { failed: true, .. }) => b"E",
            Some(_) => b"T",
        };
        self.say(b'Z', state);
    }

    fn say(&mut self, kind: u8, body: &[u8]) {
        self.said.extend(message(kind, body));
    }
}
