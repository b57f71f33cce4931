//! Uploads whose upstream never reads: what of each is kept in the proxy's memory. The rest waits in the kernel.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::shape::Shape;
use crate::targets::Field;
use crate::wire::Request;

const UPLOADS: usize = 200;
const BODY: u64 = 16 << 20;
/// After this nothing moves any more; well below the times after which a stalled body is given up.
const SETTLED: Duration = Duration::from_millis(1500);

/// Runs it for every target once, with a field of its own before an upstream that takes connections and nothing else.
pub fn run(folder: &Path, cores: &[usize], board: &mut Board) -> String {
    let (upstream, _keep) = never_reads();
    let field = Field::start(folder, &Shape::plain(cores, upstream));
    for target in &field.targets {
        let Some(process) = target.process else { continue };
        let before = measure::memory(process);
        let request = Request::put(target.address, BODY, &target.fields);
        let stalled = Load::connect(target.address, request, UPLOADS).and_then(|mut load| {
            load.closed(SETTLED, 0)?;
            let each = measure::memory(process).saturating_sub(before) as f64 / UPLOADS as f64;
            Ok((load, each))
        });
        match stalled {
            Ok((_load, each)) => {
                eprintln!("stalled, {}: {each:.1} KiB an upload", target.name);
                board.add("stalled", target.name, each);
            }
            Err(error) => board.note(format!("{} with stalled uploads: {error}", target.name)),
        }
    }
    let column = Column { measure: "stalled".into(), heading: "KiB of an upload".into(), digits: 1 };
    let names: Vec<&str> = field.targets.iter().map(|target| target.name).collect();
    format!("{UPLOADS} uploads whose upstream does not read (PSS)\n\n{}\n", board.table(&names, &[column]))
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
