//! What is between two neighbours only, what asks before it sends, and what pretends to be a stamp.

use super::table::{Fate, Row, Rows, bare, put};

pub fn rows() -> Vec<Row> {
    let mut rows = neighbours();
    rows.extend(expectations());
    rows.extend(stamps());
    rows.extend(methods());
    rows
}

fn neighbours() -> Vec<Row> {
    let mut rows = Rows::of("hop by hop");
    let none = |fields: &str| put(&format!("{fields}\r\nContent-Length: 0\r\n"), "{next}");
    let body = |fields: &str| put(&format!("{fields}\r\nContent-Length: 4\r\n"), "abcd{next}");
    rows.refused(400, "Connection names the stamp", none("Connection: Fencing-Epoch"));
    rows.refused(400, "Connection names the stamp with `_`", none("Connection: fencing_epoch"));
    rows.refused(400, "Connection names the stamp among others", none("Connection: close , \tFENCING-epoch,x"));
    rows.refused(
        400,
        "a second Connection names the stamp",
        none("Connection: keep-alive\r\nConnection: fencing-epoch"),
    );
    rows.forwarded("PUT /c{n}", "abcd", "Connection names Content-Length", body("Connection: content-length"));
    rows.passes(
        "Connection names Transfer-Encoding",
        put("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n{next}"),
    );
    rows.passes("Connection names Host", none("Connection: host"));
    rows.passes("Connection names Authorization", none("Connection: authorization\r\nAuthorization: x"));
    rows.passes("Connection names X-Forwarded-For", none("Connection: x-forwarded-for\r\nX-Forwarded-For: 9.9.9.9"));
    rows.passes("Connection is no list of names", none("Connection: \"fencing-epoch\", (x)"));
    rows.passes("Connection is empty", none("Connection:"));
    rows.passes("close and keep-alive", none("Connection: close, keep-alive"));
    rows.passes("close", none("Connection: close"));
    rows.passes("Keep-Alive", none("Keep-Alive: timeout=9999\r\nConnection: keep-alive"));
    rows.passes("Proxy-Connection", none("Proxy-Connection: fencing-epoch"));
    rows.passes("Proxy-Authorization", none("Proxy-Authorization: x"));
    rows.passes("TE", none("TE: trailers, chunked;q=1\r\nConnection: TE"));
    rows.passes("TE unnamed", none("TE: chunked"));
    rows.passes(
        "upgrade to HTTP/2",
        none("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ"),
    );
    rows.passes("upgrade with early bytes", put("Connection: upgrade\r\nUpgrade: websocket\r\n", "{next}"));
    rows.passes("Upgrade unnamed", put("Upgrade: websocket\r\n", "{next}"));
    rows.passes("Connection names an Upgrade that is not there", put("Connection: upgrade\r\n", "{next}"));
    rows.refused(400, "upgrade with a body", body("Connection: upgrade\r\nUpgrade: websocket"));
    rows.refused(
        400,
        "upgrade with a chunked body",
        put(
            "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
            "3\r\nabc\r\n0\r\n\r\n{next}",
        ),
    );
    rows.passes("upgrade in HTTP/1.0", "PUT /c{n} HTTP/1.0\r\n{via}Host: a\r\n{stamp}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n{next}");
    rows.forwarded(
        "GET /c{n}",
        "",
        "upgrade of GET without a stamp",
        "GET /c{n} HTTP/1.1\r\n{via}Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{next}",
    );
    rows.rows.last_mut().unwrap().fate = Fate::Refused(428);
    rows.at_stamp(Fate::Forwarded("GET /c{n}".to_owned(), String::new()));
    rows.refused(
        400,
        "Trailer announces the stamp",
        put("Trailer: X, fencing_epoch\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n{next}"),
    );
    rows.passes(
        "Trailer announces a length",
        put("Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n{next}"),
    );
    rows.rows
}

fn expectations() -> Vec<Row> {
    let mut rows = Rows::of("Expect");
    let body = |fields: &str| put(&format!("{fields}\r\nContent-Length: 4\r\n"), "abcd{next}");
    rows.forwarded("PUT /c{n}", "abcd", "100-continue", body("Expect: 100-continue"));
    rows.forwarded("PUT /c{n}", "abcd", "in capitals", body("EXPECT: 100-CONTINUE"));
    rows.forwarded("PUT /c{n}", "abcd", "twice", body("Expect: 100-continue\r\nExpect: 100-continue"));
    rows.forwarded("PUT /c{n}", "abcd", "something else", body("Expect: 200-ok"));
    rows.forwarded("PUT /c{n}", "abcd", "a list", body("Expect: 100-continue, x"));
    rows.passes("without a body", put("Expect: 100-continue\r\nContent-Length: 0\r\n", "{next}"));
    rows.forwarded(
        "PUT /c{n}",
        "abc",
        "with chunks",
        put("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n{next}"),
    );
    rows.refused(400, "folded", body("Expect: 100-\r\n continue"));
    rows.forwarded(
        "PUT /c{n}",
        "abcd",
        "in HTTP/1.0",
        "PUT /c{n} HTTP/1.0\r\n{via}Host: a\r\n{stamp}Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd{next}",
    );
    rows.broken("with a body that never comes", put("Expect: 100-continue\r\nContent-Length: 4\r\n", ""));
    rows.ends();
    rows.rows
}

/// What a stamping sidecar refuses for being there at all, and a guard for being what it is.
fn stamps() -> Vec<Row> {
    let mut rows = Rows::of("stamps");
    let bare = |fields: &str| bare(&format!("{fields}\r\nContent-Length: 0\r\n"), "{next}");
    let stamp = |value: &str| bare(&format!("Fencing-Epoch: {value}"));
    rows.refused(428, "none", bare("X: 1"));
    rows.at_stamp(Fate::Forwarded("PUT /c{n}".to_owned(), String::new()));
    rows.passes("one", stamp("{term}"));
    rows.at_stamp(Fate::Refused(400));
    rows.passes("in capitals, spaces around", bare("FENCING-EPOCH:  {term}\t"));
    rows.at_stamp(Fate::Refused(400));
    for (name, value) in [
        ("twice the same", "{term}\r\nFencing-Epoch: {term}"),
        ("two", "{term}\r\nFencing-Epoch: 1"),
        ("an old one first", "1\r\nFencing-Epoch: {term}"),
        ("the other spelling beside it", "{term}\r\nFencing_Epoch: 1"),
        ("the other spelling before it", "{term}\r\nX: 1\r\nfencing_epoch: {term}"),
        ("a list", "{term}, {term}"),
        ("a list of another", "{term}, 1"),
        ("empty", ""),
        ("plus", "+2"),
        ("minus", "-2"),
        ("leading zero", "02"),
        ("zero", "0"),
        ("hexadecimal", "0x2"),
        ("decimal", "2.0"),
        ("sixteen digits", "1000000000000002"),
        ("a word", "two"),
        ("bytes behind it", "2 x"),
        ("unknown parameter", "2;x=1"),
        ("parameter twice", "2;res=\"orders\";res=\"orders\""),
        ("nonce that is none", "2;nonce=:AAAA:"),
        ("semicolon behind it", "2;"),
        ("quotes", "\"2\""),
        ("a byte above 127", "2\u{e4}"),
        ("50 kB", "2;by=\"{long}\""),
    ] {
        rows.refused(400, name, stamp(value).replace("{long}", &"x".repeat(50_000)));
    }
    rows.refused(400, "folded", stamp("2\r\n ;res=\"orders\""));
    rows.refused(400, "space before the colon", bare("Fencing-Epoch : {term}"));
    rows.refused(400, "NUL", stamp("{term}\0"));
    rows.refused(400, "the other spelling alone", bare("fencing_epoch: {term}"));
    rows.refused(412, "an epoch that is over", stamp("1"));
    rows.at_stamp(Fate::Refused(400));
    rows.refused(409, "another term of the epoch", stamp("2;nonce=:AAAAAAAAAAA=:"));
    rows.at_stamp(Fate::Refused(400));
    rows.refused(412, "an epoch that never was", stamp("999999999999999"));
    rows.at_stamp(Fate::Refused(400));
    rows.refused(421, "another resource", stamp("2;res=\"others\""));
    rows.at_stamp(Fate::Refused(400));
    rows.passes(
        "a field whose name only begins like it",
        put("Fencing-Epochs: 1\r\nX-Fencing-Epoch: 1\r\nContent-Length: 0\r\n", "{next}"),
    );
    rows.passes("Fencing-Refused in a request", put("Fencing-Refused: stale_epoch\r\nContent-Length: 0\r\n", "{next}"));
    rows.rows
}

fn methods() -> Vec<Row> {
    let mut rows = Rows::of("what it is for");
    let get = |field: &str| format!("GET /c{{n}} HTTP/1.1\r\n{{via}}Host: a\r\n{field}\r\n\r\n{{next}}");
    for (name, field) in [
        ("GET with X-HTTP-Method-Override", "X-HTTP-Method-Override: PUT"),
        ("GET with X-HTTP-Method", "X-HTTP-Method: DELETE"),
        ("GET with X-Method-Override", "X-Method-Override: PATCH"),
        ("GET with an override of GET", "X-HTTP-Method-Override: GET"),
        ("GET with two overrides", "X-HTTP-Method-Override: GET\r\nX-HTTP-Method-Override: PUT"),
        ("GET with an override spelt with `_`", "X_HTTP_Method_Override: PUT"),
    ] {
        rows.refused(428, name, get(field));
        rows.at_stamp(Fate::Forwarded("GET /c{n}".to_owned(), String::new()));
    }
    let put = |field: &str| put(&format!("{field}\r\nContent-Length: 0\r\n"), "{next}");
    rows.passes("PUT with an override of GET", put("X-HTTP-Method-Override: GET"));
    rows.passes("Fencing-Expect", put("Fencing-Expect: 2"));
    for (name, field) in [
        ("Fencing-Expect of another epoch", "Fencing-Expect: 1"),
        ("Fencing-Expect twice", "Fencing-Expect: 2\r\nFencing-Expect: 2"),
        ("two Fencing-Expect", "Fencing-Expect: 2\r\nFencing-Expect: 1"),
        ("Fencing-Expect as a list", "Fencing-Expect: 2, 1"),
        ("Fencing-Expect that is no epoch", "Fencing-Expect: x"),
        ("Fencing-Expect spelt with `_`", "Fencing_Expect: 2"),
    ] {
        rows.passes(name, put(field));
        rows.at_stamp(Fate::Refused(412));
    }
    rows.rows
}
