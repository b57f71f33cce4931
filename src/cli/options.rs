//! Flags that several commands share. Each that has a key in the configuration file is read as text and checked where
//! the file is checked, so that a value is judged by one rule wherever it was written.

use std::path::PathBuf;

use clap::Args;

use super::client::Address;
use crate::config::Overrides;

/// What every process has: who it is, where epochs live, what it writes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "The process")]
pub struct ProcessArgs {
    /// Configuration file (YAML); `epochgate schema` describes it
    #[arg(long, short, env = "EPOCHGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Writer id, and the first part of the door id [default: the host name]
    #[arg(long, env = "EPOCHGATE_ID", value_name = "ID")]
    pub id: Option<String>,

    /// Folder for what must survive a restart [default: $STATE_DIRECTORY, else /var/lib/epochgate as root, else
    /// ~/.local/state/epochgate]
    #[arg(long, env = "EPOCHGATE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<String>,

    /// Take over a floor file that is of another door, or that cannot be read
    ///
    /// What the file remembered is then taken from the coordinator instead. Only for the case that a start was refused
    /// for it, and that no other guard of the target runs.
    #[arg(long)]
    pub adopt_floor: bool,

    /// URL of an etcd member, such as http://127.0.0.1:2379; may be repeated
    #[arg(long, env = "EPOCHGATE_ETCD", value_name = "URL", value_delimiter = ',', conflicts_with = "embedded")]
    pub etcd: Vec<String>,

    /// Epochs in files at this path instead of in etcd: for the processes of one host, for trying things out
    #[arg(long, env = "EPOCHGATE_EMBEDDED", value_name = "PATH")]
    pub embedded: Option<String>,

    /// Every key in the coordinator begins with this [default: /epochgate/v1/]
    #[arg(long, env = "EPOCHGATE_PREFIX", value_name = "PREFIX")]
    pub prefix: Option<String>,

    /// How long a leader that is gone still counts as alive: whole seconds, at least 2s [default: 5s]
    #[arg(long, env = "EPOCHGATE_LEASE_TTL", value_name = "DURATION")]
    pub lease_ttl: Option<String>,

    /// Where metrics, health, leader and status are served, or none [default: 127.0.0.1:9464]
    #[arg(long, env = "EPOCHGATE_ADMIN", value_name = "ADDR")]
    pub admin: Option<String>,

    /// Where the audit log goes: stdout, stderr, or a file [default: stdout]
    #[arg(long, env = "EPOCHGATE_AUDIT", value_name = "OUTPUT")]
    pub audit: Option<String>,

    /// auto, text or json [default: auto: text on a terminal, else json]
    #[arg(long, env = "EPOCHGATE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// error, warn, info, debug or trace [default: info]
    #[arg(long, env = "EPOCHGATE_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Worker threads [default: auto: one a core, at most 4]
    #[arg(long, env = "EPOCHGATE_WORKERS", value_name = "NUMBER")]
    pub workers: Option<String>,
}

impl ProcessArgs {
    /// What was said on the command line and in the environment, to be laid over the file.
    pub fn overrides(self) -> Overrides {
        Overrides {
            config: self.config,
            id: self.id,
            state_dir: self.state_dir,
            adopt_floor: self.adopt_floor,
            etcd: self.etcd,
            embedded: self.embedded,
            prefix: self.prefix,
            lease_ttl: self.lease_ttl,
            admin: self.admin,
            audit: self.audit,
            log_format: self.log_format,
            log_level: self.log_level,
            workers: self.workers,
            ..Overrides::default()
        }
    }
}

/// What the one listener of `guard` and of `stamp` has.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The listener")]
pub struct ListenerArgs {
    /// Where to listen: 127.0.0.1:8080, or :8080 for all interfaces
    #[arg(long, env = "EPOCHGATE_LISTEN", value_name = "ADDR")]
    pub listen: String,

    /// What it speaks: http, tcp, postgres or redis [default: http]
    #[arg(long, env = "EPOCHGATE_PROTOCOL", value_name = "PROTOCOL")]
    pub protocol: Option<String>,

    /// Where requests go, such as http://127.0.0.1:9000 or postgres://127.0.0.1:5432
    #[arg(long, env = "EPOCHGATE_UPSTREAM", value_name = "URL")]
    pub upstream: String,

    /// What is fenced: a name such as orders, or orders/7
    #[arg(long, env = "EPOCHGATE_RESOURCE", value_name = "RESOURCE")]
    pub resource: String,
}

impl ListenerArgs {
    /// Lays the listener over the process.
    pub fn over(self, process: ProcessArgs) -> Overrides {
        Overrides {
            protocol: self.protocol,
            listen: Some(self.listen),
            upstream: Some(self.upstream),
            resource: vec![self.resource],
            ..process.overrides()
        }
    }
}

/// Where a process has its admin side unless it was told otherwise.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:9464";

/// Where the running process is that a command talks to.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Admin address of the running process: host:port, or unix:/path/of/the/socket
    #[arg(long, env = "EPOCHGATE_ADMIN", value_name = "ADDR", default_value = DEFAULT_ADMIN)]
    pub admin: Address,
}

/// How a command answers.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs; only ever added to
    Json,
}
