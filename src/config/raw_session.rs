//! What only listeners of sessions have (`tcp`, `postgres`, `redis`), as written. See [`super::raw`] for how these comments are
//! used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{Network, Path, User, Written};

/// Whose PROXY protocol header (version 1 or 2) is believed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocol {
    /// The addresses of those whose header is read, as they connect. Processes behind a unix socket are believed too, and so is
    /// who has shown a certificate that `tls.client_ca` vouches for. From anybody else none is read: what looks like one is
    /// then the client's own first bytes. Behind a balancer's header a stamp's own, inside TLS, is read of who has shown such a certificate.
    pub from: Vec<Written<Network>>,
    /// Whether a connection from these without a header ends too.
    pub required: bool,
}

impl Default for ProxyProtocol {
    fn default() -> ProxyProtocol {
        ProxyProtocol { from: vec![Written::default_of("127.0.0.0/8"), Written::default_of("::1")], required: false }
    }
}

/// What becomes of a session, or a command, with a stale stamp or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stale {
    /// It is refused.
    Refuse,
    /// It may read.
    ReadOnly,
}

/// The guard's own connection to the target.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// The user that it logs in as. In PostgreSQL it needs `pg_signal_backend` and `pg_monitor`; in Redis `CLIENT LIST`,
    /// `CLIENT KILL` and `COMMAND`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`epochgate` for postgres, the default user for redis"))]
    pub user: Option<Written<User>>,
    /// The file that holds its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<Written<Path>>,
    /// PostgreSQL: the database to connect to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`postgres`"))]
    pub database: Option<Written<User>>,
    /// PostgreSQL: where in that database the SQL of the in-target level was put (`epochgate sql postgres`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`epochgate`"))]
    pub schema: Option<Written<User>>,
}
