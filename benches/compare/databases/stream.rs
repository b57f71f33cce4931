//! Any protocol: a gibibyte on one connection, each way, with nothing at either end but a read or a write.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use ::epochgate::net::proxy_header;

use super::{BOTH, COPY, DIRECT, Done, GUARD, HAPROXY, STAMP, Way, Ways, column, once};
use crate::Plan;
use crate::board::{Board, Column};
use crate::pin;

const SIZE: usize = 1 << 30;
const CHUNK: usize = 256 * 1024;

/// What a client begins with, and what it then does.
#[derive(Clone, Copy)]
enum Direction {
    Up = b'u' as isize,
    Down = b'd' as isize,
}

const DIRECTIONS: [(Direction, &str); 2] = [(Direction::Up, "1 GiB up"), (Direction::Down, "1 GiB down")];

/// Runs both ways, three times at most; the table.
pub fn run(plan: &Plan, cores: [&[usize]; 2], board: &mut Board) -> String {
    let [relays, others] = cores;
    let ways = Ways::start("tcp", server(others), relays);
    let ahead = proxy_header::write(None, None, Some(ways.sidecars.stamp().as_bytes()));
    let repeat = plan.repeat.min(3);
    for repetition in 1..=repeat {
        for (direction, what) in DIRECTIONS {
            let mut line = String::new();
            for way in ways.in_turn(repetition) {
                let ahead: &[u8] = if way.name == GUARD { &ahead } else { &[] };
                line += &once(board, what, way, (1 << 20) as f64, || move_all(way, ahead, direction));
            }
            eprintln!("tcp {repetition}/{repeat}, {what}, µs of CPU a MiB:{line}");
        }
    }
    let columns: Vec<Column> = DIRECTIONS
        .iter()
        .flat_map(|(_, what)| {
            let heading = |unit: &str| format!("{what}, {unit}");
            [column("cpu", what, &heading("CPU of a MiB, µs"), 0), column("rate", what, &heading("MiB/s"), 0)]
        })
        .collect();
    format!(
        "TCP: 1 GiB on one connection (n = {repeat})\n\n{}\n{}\n",
        board.table(&[DIRECT, HAPROXY, COPY, GUARD, STAMP, BOTH], &columns),
        board.ratios(&[GUARD, BOTH], &[DIRECT, HAPROXY, COPY], &columns)
    )
}

fn move_all(way: &Way, ahead: &[u8], direction: Direction) -> Result<Done, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(way.address).map_err(told)?;
    let began = Instant::now();
    stream.write_all(&[ahead, &[direction as u8]].concat()).map_err(told)?;
    match direction {
        Direction::Up => {
            write_all(&mut stream).map_err(told)?;
            // It has it all.
            stream.read_exact(&mut [0]).map_err(told)?;
        }
        Direction::Down => {
            let moved = read_all(&mut stream).map_err(told)?;
            if moved != SIZE {
                return Err(format!("{moved} bytes came"));
            }
        }
    }
    Ok(Done { amount: SIZE as f64, took: began.elapsed() })
}

/// Starts the other end, for as long as this program runs.
fn server(cores: &[usize]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback is free");
    let address = listener.local_addr().expect("it listens");
    let cores = cores.to_vec();
    thread::spawn(move || {
        pin::this_thread(&cores);
        for stream in listener.incoming().flatten() {
            // A client that went away has been noticed at its own end.
            thread::spawn(|| serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut direction = [0];
    stream.read_exact(&mut direction)?;
    if direction[0] == Direction::Up as u8 {
        let mut left = SIZE;
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => left -= count,
            }
        }
        stream.write_all(&[0])
    } else {
        write_all(&mut stream)
    }
}

fn write_all(stream: &mut TcpStream) -> std::io::Result<()> {
    let chunk = vec![7; CHUNK];
    (0..SIZE / CHUNK).try_for_each(|_| stream.write_all(&chunk))
}

fn read_all(stream: &mut TcpStream) -> std::io::Result<usize> {
    let (mut buffer, mut moved) = (vec![0; CHUNK], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(moved),
            count => moved += count,
        }
    }
}
