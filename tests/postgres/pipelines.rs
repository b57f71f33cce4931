//! `stale: read_only`, and clients that write their bytes themselves: no order of messages gets a write through.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::reading::{INSERT, Readers};
use crate::support::process::LONG;
use crate::wire::startup;

/// A client that writes its bytes itself.
struct Wire(TcpStream);

impl Wire {
    fn open(at: SocketAddr, user: &str) -> Wire {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&startup(&[("user", user), ("database", "app")])).unwrap();
        let mut wire = Wire(stream);
        wire.until_ready(1);
        wire
    }

    /// The types of all messages up to so many ReadyForQuery, with the codes of errors and the states.
    fn until_ready(&mut self, mut times: usize) -> String {
        let mut told = String::new();
        while times > 0 {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).unwrap_or_else(|error| panic!("{told}: {error}"));
            let mut body = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
            self.0.read_exact(&mut body).unwrap();
            told.push(char::from(head[0]));
            match head[0] {
                b'E' => {
                    let code = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C")).unwrap();
                    told.push_str(&String::from_utf8_lossy(code));
                }
                b'Z' => {
                    told.push(char::from(body[0]));
                    times -= 1;
                }
                _ => {}
            }
        }
        told
    }
}

fn message(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&[kind][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), &body].concat()
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), &[0; 3]])
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), &[0; 7]])
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0; 5]])
}

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", ""), execute("")].concat()
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"])
}

const SYNC: &[u8] = b"S\0\0\0\x04";

#[test]
fn no_order_of_messages_gets_a_write_through() {
    let Some(readers) = Readers::start() else { return };
    let before = readers.state();
    let guard = readers.world.guard.address;
    let turn = "SET TRANSACTION READ WRITE";
    let pipelines: &[(&str, Vec<u8>, usize)] = &[
        ("a commit, and a write in its pipeline", [run("COMMIT"), run(INSERT), SYNC.into()].concat(), 1),
        ("with the mode turned", [run("COMMIT"), run(turn), run(INSERT), SYNC.into()].concat(), 1),
        ("by a chain", [run("COMMIT AND CHAIN"), run(turn), run(INSERT), SYNC.into()].concat(), 1),
        (
            "by a chain in a transaction",
            [run("BEGIN"), run("COMMIT AND CHAIN"), run(turn), run(INSERT), SYNC.into()].concat(),
            1,
        ),
        (
            "prepared outside",
            [parse("w", INSERT), SYNC.into(), run("COMMIT"), bind("", "w"), execute(""), SYNC.into()].concat(),
            2,
        ),
        (
            "bound, then committed",
            [parse("w2", INSERT), bind("p", "w2"), run("COMMIT"), execute("p"), SYNC.into()].concat(),
            1,
        ),
        (
            "the guard's own name, prepared and bound",
            [
                parse("epochgate", INSERT),
                bind("epochgate", "epochgate"),
                SYNC.into(),
                query("COMMIT"),
                query("PREPARE epochgate AS INSERT INTO orders VALUES (18, 'x')"),
                query("DECLARE epochgate CURSOR WITH HOLD FOR SELECT 1"),
                query("SELECT 1"),
            ]
            .concat(),
            5,
        ),
        ("queries sent at once", [query("COMMIT"), query(turn), query(INSERT), query("COMMIT")].concat(), 4),
        ("a query within a pipeline", [run("COMMIT"), query(turn), run(INSERT), SYNC.into()].concat(), 2),
        (
            "behind an error",
            [query("BEGIN"), run("SELECT nothing"), SYNC.into(), run("ROLLBACK"), run(turn), run(INSERT), SYNC.into()]
                .concat(),
            3,
        ),
        (
            "chained behind an error",
            [
                query("BEGIN"),
                run("SELECT nothing"),
                SYNC.into(),
                run("ROLLBACK AND CHAIN"),
                run(turn),
                run(INSERT),
                SYNC.into(),
            ]
            .concat(),
            3,
        ),
        ("a COPY", query("COPY orders FROM STDIN"), 1),
        // lo_create by its number, with one argument of four bytes.
        (
            "a call",
            [
                message(b'F', &[&715_u32.to_be_bytes(), &[0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1]]),
                query("COMMIT"),
            ]
            .concat(),
            2,
        ),
    ];
    for user in ["app", "postgres"] {
        for (what, bytes, times) in pipelines {
            for piece in [usize::MAX, 7, 1] {
                let mut wire = Wire::open(guard, user);
                for piece in bytes.chunks(piece.min(bytes.len())) {
                    wire.0.write_all(piece).unwrap();
                }
                let told = wire.until_ready(*times);
                // It goes on, and the next write is refused too.
                wire.0.write_all(&query("ROLLBACK")).unwrap();
                wire.until_ready(1);
                wire.0.write_all(&query(INSERT)).unwrap();
                assert_eq!(wire.until_ready(1), "E25006ZI", "{user}: {what}: {told}");
                assert_eq!(readers.state(), before, "{user}: {what}: {told}");
            }
        }
    }
    assert_eq!(Wire::open(guard, "app").0.write_all(&query("SELECT 1")).map_err(|error| error.kind()), Ok(()));
    readers.world.assert_rules_kept();
}
