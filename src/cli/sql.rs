//! `epochgate sql`: the SQL of the in-target level.

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::print;
use crate::fence::Resource;
use crate::target::postgres::in_target::{Install, SCHEMA, Table};

/// Prints the SQL of the in-target level: the database itself refuses what is of an old epoch
///
/// With it the check and the commit are one step inside the database: also a client that goes around the guard is
/// fenced. It changes nothing by itself; docs/in-target.md says what it fences and what it does not.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, to put it in and to take it away again:
  epochgate sql postgres --resource orders --tables orders,order_lines | psql -v ON_ERROR_STOP=1 shop
  epochgate sql postgres --resource orders --drop | psql -v ON_ERROR_STOP=1 shop

Next:
  epochgate check -c epochgate.yaml   which tables are fenced, and who goes around the guard?")]
pub struct SqlArgs {
    #[command(subcommand)]
    database: Database,
}

#[derive(Debug, Subcommand)]
enum Database {
    Postgres(PostgresArgs),
}

/// For PostgreSQL 14 or later: an epoch row, and a trigger on each table that compares a session's epoch with it
///
/// A session's epoch is its setting `epochgate.epoch`; the guard sets it at the start of each session, and a client
/// without a sidecar says options='-c epochgate.epoch=42'. The output may be run any number of times.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  epochgate sql postgres --resource orders --tables orders,audit.order_log --role app | psql -v ON_ERROR_STOP=1 shop")]
struct PostgresArgs {
    /// The resource that the tables belong to
    #[arg(long, env = "EPOCHGATE_RESOURCE", value_name = "RESOURCE")]
    resource: Resource,

    /// The tables, as name or schema.name; their partitions and children too
    #[arg(long, value_name = "TABLE", value_delimiter = ',', required_unless_present = "drop")]
    tables: Vec<Table>,

    /// Where its own objects go; upstream.control.schema of the guard's listener, where it is another
    #[arg(long, value_name = "SCHEMA", default_value = SCHEMA, value_parser = is_name)]
    schema: String,

    /// A role that may read the epochs, repeatable; to write, a role needs nothing
    #[arg(long, value_name = "ROLE", value_parser = is_name)]
    role: Vec<String>,

    /// The role of the guard's control connection, which raises the epoch
    #[arg(long, value_name = "ROLE", default_value = "epochgate", value_parser = is_name)]
    guard_role: String,

    /// Take it away again: every trigger of the resource, its row, and with the last resource the schema
    #[arg(long, conflicts_with_all = ["tables", "role"])]
    drop: bool,
}

/// What the bodies of the functions stand between: a name with it would end one.
const QUOTE: &str = "$epochgate$";

fn is_name(text: &str) -> Result<String, String> {
    // More than 63 bytes PostgreSQL cuts off, and then it is another name.
    if (1..=63).contains(&text.len()) && !text.contains(char::is_control) && !text.contains(QUOTE) {
        return Ok(text.to_owned());
    }
    Err("a name of PostgreSQL has 1 to 63 bytes, without control characters (and here without $epochgate$)".to_owned())
}

/// Prints it.
pub fn run(args: &SqlArgs) -> Exit {
    let Database::Postgres(args) = &args.database;
    let install = Install {
        resource: &args.resource,
        tables: &args.tables,
        schema: &args.schema,
        readers: &args.role,
        guard: &args.guard_role,
    };
    print(&if args.drop { install.take_away() } else { install.put_in() })
}
