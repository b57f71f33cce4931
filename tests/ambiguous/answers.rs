//! The way back: a target that answers what nobody can read in one way. Its client gets one answer or a broken one, the
//! next request on that client's connection gets its own, and a connection on which something is wrong carries nothing
//! more.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::support::client::Connection;
use super::support::world::World;
use super::{OVER_HYPER, PATIENCE};

/// What the client gets of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// This status, and the body `ok`, or none.
    Passed(u16),
    /// A refusal that says that the target broke: 502.
    Broken,
    /// An answer that breaks off, or, where none of it had been handed on, the refusal.
    Cut,
}

/// Whether the target's connection carries another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It may.
    Kept,
    /// It must not.
    Closed,
}

struct Row {
    name: &'static str,
    method: &'static str,
    answer: String,
    gets: Gets,
    then: Then,
    /// Whether the target closes its connection after it.
    closes: bool,
}

fn row(name: &'static str, answer: impl Into<String>, gets: Gets, then: Then) -> Row {
    Row { name, method: "PUT", answer: answer.into(), gets, then, closes: false }
}

fn rows() -> Vec<Row> {
    use Gets::{Broken, Cut, Passed};
    use Then::{Closed, Kept};
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let with = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}");
    let chunked = |body: &str| with("Transfer-Encoding: chunked", body);
    let mut rows = vec![
        row("plain", OK, Passed(200), Kept),
        row("chunks", chunked("2\r\nok\r\n0\r\n\r\n"), Passed(200), Kept),
        row("trailers with framing", chunked("2\r\nok\r\n0\r\nContent-Length: 9\r\nX: 1\r\n\r\n"), Passed(200), Kept),
        row(
            "a length and chunks",
            with("Content-Length: 99\r\nTransfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
            Passed(200),
            Closed,
        ),
        row("two lengths, the same", with("Content-Length: 2\r\nContent-Length: 2", "ok"), Passed(200), Kept),
        row("two lengths", with("Content-Length: 2\r\nContent-Length: 3", "ok"), Broken, Closed),
        row("a list of lengths", with("Content-Length: 2, 2", "ok"), Broken, Closed),
        row("a length with a plus", with("Content-Length: +2", "ok"), Broken, Closed),
        row("a length below nothing", with("Content-Length: -2", "ok"), Broken, Closed),
        row("a length of 2^64 and 2", with("Content-Length: 18446744073709551618", "ok"), Broken, Closed),
        row(
            "chunked twice",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
            Broken,
            Closed,
        ),
        row("gzip, chunked", with("Transfer-Encoding: gzip, chunked", "2\r\nok\r\n0\r\n\r\n"), Broken, Closed),
        row("another coding", with("Transfer-Encoding: identity\r\nContent-Length: 2", "ok"), Broken, Closed),
        row(
            "chunks in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Broken,
            Closed,
        ),
        row("a chunk's size that is none", chunked("2\r\nok\r\nx\r\n\r\n"), Cut, Closed),
        row("a chunk's size with a minus", chunked("2\r\nok\r\n-2\r\n\r\n"), Cut, Closed),
        row("a chunk's size beyond all", chunked("2\r\nok\r\n10000000000000002\r\n\r\n"), Cut, Closed),
        row("a chunk without its end", chunked("2\r\nokxx0\r\n\r\n"), Cut, Closed),
        row("more behind the answer", format!("{OK}more"), Passed(200), Closed),
        row(
            "a second answer behind it",
            format!("{OK}HTTP/1.1 200 OK\r\nx-path: /wrong\r\nContent-Length: 0\r\n\r\n"),
            Passed(200),
            Closed,
        ),
        row("an answer behind the last chunk", format!("{}{OK}", chunked("2\r\nok\r\n0\r\n\r\n")), Passed(200), Closed),
        row("204 with a body", "HTTP/1.1 204 None\r\nContent-Length: 2\r\n\r\nok", Passed(204), Closed),
        row("304 with a body", "HTTP/1.1 304 Same\r\n\r\nok", Passed(304), Closed),
        row(
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nok",
            Broken,
            Closed,
        ),
        row(
            "100, 102 and 103 before it",
            format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n{OK}"),
            Passed(200),
            Kept,
        ),
        row("103 with a length", format!("HTTP/1.1 103 Hints\r\nContent-Length: 9\r\n\r\n{OK}"), Passed(200), Kept),
        row("no HTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n", Broken, Closed),
        row("a status that is none", "HTTP/1.1 2x0 OK\r\nContent-Length: 2\r\n\r\nok", Broken, Closed),
        row("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", Broken, Closed),
        row("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Broken, Closed),
        row("space before the colon", with("X : 1\r\nContent-Length: 2", "ok"), Broken, Closed),
        row("NUL in a value", with("X: \0\r\nContent-Length: 2", "ok"), Broken, Closed),
        row("bare CR in a value", with("X: a\rb\r\nContent-Length: 2", "ok"), Broken, Closed),
        row("folded value", with("X: 1\r\n 2\r\nContent-Length: 2", "ok"), Broken, Closed),
        row(
            "two hundred fields",
            with(&format!("{}Content-Length: 2", (0..200).map(|n| format!("X-{n}: 1\r\n")).collect::<String>()), "ok"),
            Broken,
            Closed,
        ),
        row(
            "a head of a megabyte",
            with(&format!("X: {}\r\nContent-Length: 2", "y".repeat(1 << 20)), "ok"),
            Broken,
            Closed,
        ),
        row(
            "Connection names Content-Length",
            with("Connection: content-length\r\nContent-Length: 2", "ok"),
            Passed(200),
            Kept,
        ),
        row(
            "a refusal that is none of ours",
            with("Fencing-Refused: stale_epoch\r\nContent-Length: 2", "ok"),
            Passed(200),
            Kept,
        ),
    ];
    for (name, answer, gets) in [
        ("no length, and the end", with("X: 1", "ok"), Passed(200)),
        ("shorter than its length", with("Content-Length: 9", "ok"), Cut),
        ("chunks without their end", chunked("2\r\nok\r\n"), Cut),
        ("a head without an end", "HTTP/1.1 200 OK\r\nX: 1\r\n".to_owned(), Broken),
        ("nothing", String::new(), Broken),
    ] {
        rows.push(Row { closes: true, ..row(name, answer, gets, Closed) });
    }
    let head = |name, answer: &str, then| Row { method: "HEAD", ..row(name, answer, Passed(200), then) };
    rows.push(head("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Kept));
    rows.push(head("HEAD with a body", OK, Closed));
    rows.push(head(
        "HEAD with chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Closed,
    ));
    rows
}

/// On which connections of the target's which paths came.
type Seen = Arc<Mutex<HashMap<String, usize>>>;

/// Answers `/r<n>` with the row of that number, and all else with its path.
fn target() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let of_thread = Arc::clone(&seen);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let seen = Arc::clone(&of_thread);
            thread::spawn(move || {
                let _ = serve(stream, number, &seen);
            });
        }
    });
    (address, seen)
}

fn serve(mut stream: TcpStream, number: usize, seen: &Seen) -> io::Result<()> {
    let rows = rows();
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.to_lowercase().contains("content-length: 2") {
            stream.read_exact(&mut [0; 2])?;
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        seen.lock().unwrap().insert(path.clone(), number);
        let row = path.strip_prefix("/r").and_then(|number| number.parse::<usize>().ok()).map(|at| &rows[at]);
        match row {
            Some(row) => {
                stream.write_all(row.answer.as_bytes())?;
                if row.closes {
                    return Ok(());
                }
            }
            None => write!(stream, "HTTP/1.1 200 OK\r\nx-path: {path}\r\nContent-Length: 0\r\n\r\n")?,
        }
    }
}

/// Everything wrong about what became of one row.
fn play(row: &Row, number: usize, to: SocketAddr, fields: &[(&str, &str)], seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let ask = |client: &mut Connection, method: &str, path: &str| {
        let body: &[u8] = if method == "HEAD" { b"" } else { b"ok" };
        client.request(method, path, fields, body)
    };
    let mut client = Connection::open(to).unwrap();
    client.patience(PATIENCE).unwrap();
    let (path, marker, fresh) = (format!("/r{number}"), format!("/marker{number}"), format!("/fresh{number}"));
    let got = ask(&mut client, row.method, &path);
    let gets = match &got {
        Err(_) => Gets::Cut,
        Ok(answer) if answer.refused() == Some("upstream_broken") => Gets::Broken,
        Ok(answer) => Gets::Passed(answer.status),
    };
    println!("{:<32} | {gets:?}", row.name);
    if gets != row.gets && (gets, row.gets) != (Gets::Broken, Gets::Cut) {
        wrong.push(format!("{gets:?}: {got:?}"));
    }
    if let Ok(answer) = &got {
        let framings = [answer.header("content-length"), answer.header("transfer-encoding")];
        if framings.iter().flatten().count() > 1 || answer.header("fencing-refused") == Some("stale_epoch") {
            wrong.push(format!("passed on as {:?}", answer.headers));
        }
        let body = if row.method == "HEAD" || [204, 304].contains(&answer.status) { "" } else { "ok" };
        if gets != Gets::Broken && answer.text() != body {
            wrong.push(format!("its body is {:?}", answer.text()));
        }
        if client.stays_open_after(answer) {
            let next = ask(&mut client, "PUT", &marker);
            let own = next.as_ref().is_ok_and(|next| next.header("x-path") == Some(&marker));
            if !own {
                wrong.push(format!("the next one on its connection: {next:?}"));
            }
        }
    }
    let mut client = Connection::open(to).unwrap();
    client.patience(PATIENCE).unwrap();
    let next = ask(&mut client, "PUT", &fresh);
    if !next.as_ref().is_ok_and(|next| next.header("x-path") == Some(&fresh)) {
        wrong.push(format!("the next one: {next:?}"));
    }
    let seen = seen.lock().unwrap();
    let of = |path: &str| seen.get(path).copied();
    let reused = of(&path).is_some() && [of(&marker), of(&fresh)].contains(&of(&path));
    if reused && row.then == Then::Closed {
        wrong.push("its connection carried another request".to_owned());
    }
    wrong
}

fn play_all(over_hyper: bool) {
    let (target, seen) = target();
    let mut world = World::embedded();
    let upstream = format!("upstream: {{ url: \"http://{target}\", response_timeout: 40s }}");
    let guard = world.guard("guard").listener(&upstream).start();
    let (term, stamp) = world.elect("orders-a");
    guard.await_open(&term);
    let mut fields = vec![("Fencing-Epoch", &*stamp)];
    let way = OVER_HYPER.trim_end().split_once(": ").unwrap();
    fields.extend(over_hyper.then_some(way));
    let failures: Vec<String> = rows()
        .iter()
        .enumerate()
        .flat_map(|(number, row)| {
            let wrong = play(row, number, guard.address, &fields, &seen);
            wrong.into_iter().map(|wrong| format!("{}: {wrong}", row.name)).collect::<Vec<_>>()
        })
        .collect();
    failures.iter().for_each(|wrong| println!("!! {wrong}"));
    assert!(failures.is_empty(), "{} of {} answers", failures.len(), rows().len());
}

#[test]
fn answers_over_the_direct_path() {
    play_all(false);
}

#[test]
fn answers_over_hyper() {
    play_all(true);
}
