//! What the in-target level costs: the same transactions straight to the server, with its triggers on the tables and without.

use super::postgres::{SETTINGS, fill, pgbench, tidy};
use super::{Way, column, once};
use crate::Plan;
use crate::board::Board;
use crate::pin;
use crate::support::postgres::{Postgres, psql_launch};
use crate::support::process::Launch;

const PLAIN: &str = "without";
const FENCED: &str = "with";
const TABLES: &str = "pgbench_accounts,pgbench_branches,pgbench_tellers,pgbench_history";
const WHAT: &str = "in-target";

/// Runs both in turn; the table.
pub fn run(plan: &Plan, others: &[usize], board: &mut Board) -> String {
    let server = pin::on(others, || Postgres::start_with(&SETTINGS));
    server.query("CREATE ROLE epochgate LOGIN");
    for database in ["plain", "fenced"] {
        server.query(&format!("CREATE DATABASE {database} OWNER app"));
        fill(server.address, database);
    }
    let printed = Launch::epochgate("sql").args(["sql", "postgres", "--resource", "orders", "--tables", TABLES]);
    let sql = printed.start().told().expect("it needs nothing");
    psql_launch(server.address, "app", "fenced").args(["-c", &sql]).start().told().expect("the owner may put it in");
    let raise = "SELECT epochgate.raise_epoch('orders', 7, 'AAAAAAAAAAA=', 'orders-a')";
    let raised = psql_launch(server.address, "postgres", "fenced").args(["-At", "-c", raise]).start().told();
    assert_eq!(raised.as_deref(), Ok("t"), "the row is there, and of an older epoch");

    // All sessions have the setting, as they would through a guard.
    let options = "-c epochgate.epoch=7";
    for repetition in 1..=plan.repeat {
        let mut both = [(PLAIN, "plain"), (FENCED, "fenced")];
        both.rotate_left(repetition % 2);
        for (name, database) in both {
            let way = Way { name, address: server.address, processes: Vec::new() };
            tidy(server.address, database, options);
            let bench = || pgbench(server.address, database, options, "tpcb-like", plan.window * 2);
            once(board, WHAT, &way, 1.0, bench);
        }
        let last = |name| board.of(&format!("rate {WHAT}"), name).last().copied().unwrap_or(f64::NAN);
        eprintln!("in_target {repetition}/{}: {:.3} of the rate without", plan.repeat, last(FENCED) / last(PLAIN));
    }
    let columns = [column("rate", WHAT, "transactions a second", 0)];
    format!(
        "The in-target level: pgbench TPC-B straight to the server (n = {})\n\n{}\n{}\n",
        plan.repeat,
        board.rows("triggers on the tables", &[PLAIN, FENCED], &columns),
        board.ratios(&[FENCED], &[PLAIN], &columns)
    )
}
