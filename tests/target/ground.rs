//! A server with a role for the control connection, and a prover that uses it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use epochgate::config::resolved::{Control, Upstream, UpstreamVersion};
use epochgate::config::{Overrides, load_from};
use epochgate::fence::{Epoch, Nonce, Resource, Term};
use epochgate::net::dial::ClientSlot;
use epochgate::target::postgres::Postgres as Prover;
use epochgate::target::{Proof, Prover as _};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::support::postgres::{Postgres, Session, psql};
use crate::support::process::{LONG, Launch, eventually};

/// The user of the control connection.
pub const GUARD: &str = "epochgate";

/// A server with that user, which may see and end sessions.
pub fn server() -> Postgres {
    let server = Postgres::start();
    // On disk: a test may have the server crash.
    server.query(
        "SET synchronous_commit = on; CREATE ROLE epochgate LOGIN; GRANT pg_monitor, pg_signal_backend TO epochgate",
    );
    server
}

/// A control connection, on a thread's own runtime as control has one.
pub struct Asker {
    // Before the runtime: its task ends with it.
    prover: Prover,
    local: LocalSet,
    runtime: Runtime,
}

impl Asker {
    pub fn of(server: SocketAddr) -> Asker {
        Asker::with(upstream(server), ClientSlot::default())
    }

    pub fn with(upstream: Upstream, slot: ClientSlot) -> Asker {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let prover = Prover::new("orders-guard".into(), &upstream, slot).unwrap();
        Asker { prover, local: LocalSet::new(), runtime }
    }

    /// As a configuration has it that asks for TLS and trusts the authority in this file.
    pub fn over_tls(server: SocketAddr, ca: &str) -> Asker {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("epochgate.yaml");
        let text = format!(
            "id: guard-1\nstate_dir: {0}/state\ncoordinator: {{ embedded: {0}/epochs }}\nresources: {{ orders: {{}} }}\n\
             listeners:\n- name: orders-guard\n  role: guard\n  protocol: postgres\n  listen: 127.0.0.1:0\n  \
             resource: orders\n  upstream:\n    url: postgres://{server}\n    connect_timeout: 60s\n    tls: {{ ca: {ca} }}\n    \
             control: {{ database: app }}\n",
            folder.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let overrides = Overrides { config: Some(file), ..Overrides::default() };
        let loaded = load_from(&overrides, None).unwrap_or_else(|problems| panic!("{problems:?}"));
        let listener = &loaded.config.listeners[0];
        let sides = epochgate::tls::load(listener, jiff::Timestamp::now()).unwrap();
        Asker::with(listener.upstream.clone(), Rc::new(RefCell::new(sides.client)))
    }

    /// Proves that nothing older than `epoch` goes on.
    pub fn prove(&self, epoch: u64) -> Result<Proof, String> {
        self.prove_of(&term(epoch, 1))
    }

    pub fn prove_of(&self, term: &Term) -> Result<Proof, String> {
        self.local.block_on(&self.runtime, self.prover.prove(term, &orders()))
    }
}

pub fn orders() -> Resource {
    "orders".parse().unwrap()
}

pub fn term(epoch: u64, nonce: u8) -> Term {
    let writer = "orders-a".parse().unwrap();
    Term { epoch: Epoch::new(epoch).unwrap(), nonce: Nonce::from_bytes([nonce; 8]), writer }
}

/// Patient, so that a slow machine fails no test.
pub fn upstream(server: SocketAddr) -> Upstream {
    Upstream {
        url: format!("postgres://{server}").into(),
        authority: server.to_string().into(),
        socket: None,
        tls: None,
        control: Some(Control {
            user: Some(GUARD.into()),
            password_file: None,
            database: "app".into(),
            schema: "epochgate".into(),
        }),
        version: UpstreamVersion::Same,
        connect_timeout: LONG,
        response_timeout: LONG,
        send_timeout: LONG,
        idle_timeout: LONG,
        no_answer: Vec::new(),
    }
}

/// With another user.
pub fn as_user(mut upstream: Upstream, user: &str) -> Upstream {
    upstream.control.as_mut().unwrap().user = Some(user.to_owned());
    upstream
}

/// What the command prints.
pub fn sql(arguments: &[&str]) -> String {
    let printed = Launch::epochgate("sql").args(["sql", "postgres", "--resource", "orders"]).args(arguments);
    printed.start().told().unwrap()
}

/// Puts the in-target level on the tables, as their owner.
pub fn put_in(server: &Postgres, tables: &str) {
    psql(server.address, "app", "app", &sql(&["--tables", tables])).unwrap();
}

/// A session of `app` that says of itself that it has an epoch.
pub fn session_of(server: &Postgres, epoch: u64) -> Session {
    let mut session = Session::open(server.address, "app", "app");
    assert_eq!(session.say(&format!("SET epochgate.epoch = '{epoch}'")), "");
    session
}

/// Waits until so many sessions run a statement that contains `words`.
pub fn await_running(server: &Postgres, words: &str, count: usize) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{words}%' \
         AND pid <> pg_backend_pid()"
    );
    eventually(&format!("{count} sessions run {words}"), LONG, || server.query(&sql) == count.to_string());
}

pub const SHORT: Duration = Duration::from_millis(500);
