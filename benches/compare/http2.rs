//! HTTP/2 without TLS from the client, HTTP/1.1 or HTTP/2 to the upstream, with h2load: 16 connections with 10 streams
//! each.

use std::fs;
use std::path::Path;

use crate::Plan;
use crate::board::{Board, Column};
use crate::measure;
use crate::running::{find, launch};
use crate::shape::Shape;
use crate::support::process::LONG;
use crate::targets::{Field, Target, in_turn};
use crate::upstream2;

/// Of one run; the connections' beginning is part of it.
const REQUESTS: u64 = 20_000;
const FEW: u64 = 2_000;

/// CPU of a request where the upstream has HTTP/1.1.
pub const TO_HTTP1: &str = "h2 cpu";
/// The same where it has HTTP/2.
pub const TO_HTTP2: &str = "h2 to h2 cpu";

/// Runs it with upstreams of HTTP/1.1, which are running, and of HTTP/2; the tables.
pub fn run(plan: &Plan, field: &Field, folder: &Path, cores: [&[usize]; 2], board: &mut Board) -> String {
    let [proxy, others] = cores;
    let shape = Shape { http2: true, ..Shape::plain(proxy, upstream2::start(others)) };
    let both = Field::start(&folder.join("both"), &shape);
    let to_http1 = table(plan, &field.targets, TO_HTTP1, folder, board);
    let to_http2 = table(plan, &both.targets, TO_HTTP2, folder, board);
    format!(
        "HTTP/2 to the proxy, HTTP/1.1 to the upstream, 100 B (n = {n})\n\n{to_http1}\nHTTP/2 to the proxy and to the upstream, \
         100 B (n = {n}; nginx cannot)\n\n{to_http2}\n",
        n = plan.repeat
    )
}

fn table(plan: &Plan, targets: &[Target], measure: &str, folder: &Path, board: &mut Board) -> String {
    let Some(program) = find("h2load") else {
        board.note("HTTP/2: h2load is not there".to_owned());
        return String::new();
    };
    let body = folder.join("body");
    fs::write(&body, [b'.'; 100]).expect("it is in a temporary folder");
    for repetition in 1..=plan.repeat {
        let mut line = String::new();
        for target in in_turn(targets, repetition) {
            let (Some(_), Some(process)) = (target.http2, target.process) else { continue };
            // What connecting costs is measured with a few, and taken off.
            let cpu = [FEW, REQUESTS].map(|count| {
                let before = measure::cpu(process);
                once(&program, target, &body, count).map(|()| (measure::cpu(process) - before) as f64 / 1000.0)
            });
            let cpu = match cpu {
                [Ok(few), Ok(many)] => (many - few) / (REQUESTS - FEW) as f64,
                [few, many] => {
                    let error = few.and(many).err().unwrap_or_default();
                    board.note(format!("{} over HTTP/2: {error}", target.name));
                    f64::NAN
                }
            };
            board.add(measure, target.name, cpu);
            line.push_str(&format!("  {} {cpu:.1}", target.name));
        }
        eprintln!("{measure} {repetition}/{}, µs of CPU a request:{line}", plan.repeat);
    }
    let columns =
        [Column { measure: measure.into(), heading: "CPU of a PUT, 16 × 10 streams, µs".into(), digits: 1 }];
    let names: Vec<&str> = targets.iter().map(|target| target.name).collect();
    board.table(&names, &columns) + "\n" + &board.ratios(&crate::OURS, &crate::PEERS, &columns)
}

fn once(program: &Path, target: &Target, body: &Path, count: u64) -> Result<(), String> {
    let to = target.http2.ok_or("no HTTP/2")?;
    let (count, url) = (count.to_string(), format!("http://{to}/orders/7"));
    let body = body.display().to_string();
    let launch = launch(program).args(["-n", &count, "-c", "16", "-m", "10", "-d", &body, "-H", ":method: PUT"]);
    let fields = target.fields.lines().flat_map(|field| ["-H", field]);
    let done = launch.args(fields).arg(url).run(LONG);
    let said = done.stdout();
    if said.contains(&format!("status codes: {count} 2xx")) {
        return Ok(());
    }
    let line = said.lines().find(|line| line.starts_with("status codes")).unwrap_or("no answer").to_owned();
    Err(line)
}
