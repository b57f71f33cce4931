//! Uploads whose upstream never reads: what of each is kept in the proxy's memory. The rest waits in the kernel.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::shape::Shape;
use crate::targets::{Field, Target};
use crate::wire::Request;

const UPLOADS: usize = 200;
/// What is spliced on our side, and what is copied.
const BODIES: [(u64, &str); 2] = [(16 << 20, "16 MiB"), (512 << 10, "512 KiB")];
/// The goal is of this one.
pub const LONG_BODY: &str = "stalled 16 MiB";
/// After this nothing moves any more; well below the times after which a stalled body is given up.
const SETTLED: Duration = Duration::from_millis(1500);

/// Runs it for every target once, with a field of its own for each length before an upstream that takes connections and
/// nothing else: what a proxy keeps after a first load would hide what the next one costs.
pub fn run(folder: &Path, cores: &[usize], board: &mut Board) -> String {
    let (upstream, _keep) = never_reads();
    let mut names: Vec<&str> = Vec::new();
    for (body, length) in BODIES {
        let field = Field::start(&folder.join(body.to_string()), &Shape::plain(cores, upstream));
        for target in &field.targets {
            let Some(process) = target.process else { continue };
            match once(target, process, body) {
                Ok(each) => {
                    eprintln!("stalled {length}, {}: {each:.1} KiB an upload", target.name);
                    board.add(&format!("stalled {length}"), target.name, each);
                }
                Err(error) => board.note(format!("{} with stalled uploads of {length}: {error}", target.name)),
            }
        }
        names = field.targets.iter().map(|target| target.name).collect();
    }
    let columns = BODIES.map(|(_, length)| Column {
        measure: format!("stalled {length}"),
        heading: format!("KiB of an upload of {length}"),
        digits: 1,
    });
    format!("{UPLOADS} uploads whose upstream does not read (PSS; n = 1)\n\n{}\n", board.table(&names, &columns))
}

/// KiB of each.
fn once(target: &Target, process: u32, body: u64) -> Result<f64, String> {
    let before = measure::memory(process);
    let request = Request::put(target.address, body, &target.fields);
    let mut load = Load::connect(target.address, request, UPLOADS)?;
    load.closed(SETTLED, 0)?;
    Ok(measure::memory(process).saturating_sub(before) as f64 / UPLOADS as f64)
}

/// The thread that takes connections ends with the process.
fn never_reads() -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback is free");
    rustix::net::listen(&listener, 4096).expect("it listens already");
    let address = listener.local_addr().expect("it listens");
    let taken = thread::spawn(move || {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            streams.push(stream);
        }
    });
    (address, taken)
}
