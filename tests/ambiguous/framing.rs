//! Where a message ends: lengths, codings, chunks, and what is hidden behind them.

use super::table::{Row, Rows, chunked, put};

pub fn rows() -> Vec<Row> {
    let mut rows = lengths();
    rows.extend(codings());
    rows.extend(chunks());
    rows.extend(trailers());
    rows.extend(bodies());
    rows
}

fn lengths() -> Vec<Row> {
    let mut rows = Rows::of("Content-Length");
    let put = |value: &str| put(&format!("Content-Length: {value}\r\n"), "abcd{next}");
    rows.forwarded("PUT /c{n}", "abcd", "plain", put("4"));
    rows.forwarded("PUT /c{n}", "abcd", "spaces around it", put("  4 \t"));
    rows.forwarded("PUT /c{n}", "abcd", "leading zeros", put("0004"));
    rows.forwarded("PUT /c{n}", "abcd", "twice the same", put("4\r\nContent-Length: 4"));
    rows.refused(400, "two", put("4\r\nContent-Length: 0"));
    rows.refused(400, "two, in another case", put("4\r\ncONTENT-lENGTH: 9"));
    rows.forwarded("PUT /c{n}", "abcd", "two, as 4 and 04", put("4\r\nContent-Length: 04"));
    rows.refused(400, "list of the same", put("4, 4"));
    rows.refused(400, "list", put("4, 0"));
    rows.refused(400, "plus", put("+4"));
    rows.refused(400, "minus", put("-4"));
    rows.refused(400, "hexadecimal", put("0x4"));
    rows.refused(400, "decimal", put("4.0"));
    rows.refused(400, "exponent", put("4e0"));
    rows.refused(400, "underscore", put("4_"));
    rows.refused(400, "space inside", put("4 4"));
    rows.refused(400, "empty", put(""));
    rows.refused(400, "word", put("four"));
    rows.refused(400, "parameter", put("4;x"));
    rows.refused(400, "quotes", put("\"4\""));
    rows.refused(400, "2^64 and 4", put("18446744073709551620"));
    rows.refused(400, "thirty digits", put("000000000000000000000000000004x"));
    rows.refused(400, "vertical tab after it", put("4\u{b}"));
    rows.refused(400, "NUL after it", put("4\0"));
    rows.refused(400, "folded", put("4\r\n 4"));
    rows.refused(400, "space before the colon", put("4\r\nContent-Length : 0"));
    rows.refused(400, "another beside it, with `_`", put("4\r\nContent_Length: 0"));
    rows.refused(400, "with `_` alone", put("4").replace("Content-Length", "content_length"));
    rows.rows
}

fn codings() -> Vec<Row> {
    const NONE: &str = "0\r\n\r\n{next}";
    let mut rows = Rows::of("Transfer-Encoding");
    let put = |fields: &str, body: &str| put(&format!("{fields}\r\n"), body);
    let coded = |value: &str| put(&format!("Transfer-Encoding: {value}"), NONE);
    rows.passes("chunked", coded("chunked"));
    rows.passes("in capitals", coded("CHUNKED"));
    rows.passes("spaces around it", coded(" chunked\t"));
    rows.passes("a length before it", put("Content-Length: 4\r\nTransfer-Encoding: chunked", NONE));
    rows.passes("a length after it", put("Transfer-Encoding: chunked\r\nContent-Length: 400", NONE));
    rows.passes(
        "two lengths beside it",
        put("Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", NONE),
    );
    rows.refused(400, "twice", coded("chunked\r\nTransfer-Encoding: chunked"));
    rows.refused(400, "chunked, then another field", coded("chunked\r\nTransfer-Encoding: identity"));
    rows.refused(400, "another field, then chunked", coded("identity\r\nTransfer-Encoding: chunked"));
    rows.refused(400, "chunked, identity", coded("chunked, identity"));
    rows.refused(400, "identity, chunked", coded("identity, chunked"));
    rows.refused(400, "gzip, chunked", coded("gzip, chunked"));
    rows.refused(400, "chunked, chunked", coded("chunked, chunked"));
    rows.refused(400, "identity", put("Content-Length: 4\r\nTransfer-Encoding: identity", "abcd{next}"));
    rows.refused(400, "empty", put("Content-Length: 4\r\nTransfer-Encoding:", "abcd{next}"));
    rows.refused(400, "xchunked", put("Content-Length: 4\r\nTransfer-Encoding: xchunked", "abcd{next}"));
    rows.refused(400, "chunkedx", put("Content-Length: 4\r\nTransfer-Encoding: chunkedx", "abcd{next}"));
    rows.refused(
        400,
        "vertical tab before it",
        put("Content-Length: 4\r\nTransfer-Encoding: \u{b}chunked", "abcd{next}"),
    );
    rows.refused(
        400,
        "vertical tab after it",
        put("Content-Length: 4\r\nTransfer-Encoding: chunked\u{b}", "abcd{next}"),
    );
    rows.refused(400, "non-breaking space", put("Content-Length: 4\r\nTransfer-Encoding: \u{a0}chunked", "abcd{next}"));
    rows.refused(400, "quotes", coded("\"chunked\""));
    rows.refused(400, "parameter", coded("chunked;q=1"));
    rows.refused(400, "comma after it", coded("chunked,"));
    rows.refused(400, "comma before it", coded(", chunked"));
    rows.refused(400, "folded", put("Content-Length: 4\r\nTransfer-Encoding:\r\n chunked", "abcd{next}"));
    rows.refused(400, "space before the colon", put("Content-Length: 4\r\nTransfer-Encoding : chunked", "abcd{next}"));
    rows.refused(
        400,
        "in HTTP/1.0",
        "PUT /c{n} HTTP/1.0\r\n{via}Host: a\r\n{stamp}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}",
    );
    rows.refused(
        400,
        "in HTTP/1.0 with a length",
        "PUT /c{n} HTTP/1.0\r\n{via}Host: a\r\n{stamp}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nabcd{next}",
    );
    rows.refused(400, "with `_`", put("Content-Length: 4\r\nTransfer_Encoding: chunked", "abcd{next}"));
    rows.rows
}

fn chunks() -> Vec<Row> {
    let mut rows = Rows::of("chunks");
    rows.forwarded("PUT /c{n}", "abc", "plain", chunked("3\r\nabc\r\n0\r\n\r\n{next}"));
    rows.forwarded("PUT /c{n}", "abcdefghij", "hexadecimal", chunked("A\r\nabcdefghij\r\n0\r\n\r\n{next}"));
    rows.forwarded("PUT /c{n}", "abc", "leading zeros", chunked("0003\r\nabc\r\n000\r\n\r\n{next}"));
    rows.forwarded("PUT /c{n}", "abc", "extension", chunked("3;x=y\r\nabc\r\n0;z\r\n\r\n{next}"));
    rows.forwarded("PUT /c{n}", "abc", "space after the size", chunked("3 \r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("space before the size", chunked(" 3\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("plus", chunked("+3\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("minus", chunked("-3\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("0x", chunked("0x3\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("underscore", chunked("0_3\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("no digit", chunked("g\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("empty size", chunked("\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("seventeen digits", chunked("10000000000000003\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("2^64 and 3 with zeros", chunked("00010000000000000003\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("f many times", chunked("fffffffffffffffffff\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("bare LF after the size", chunked("3\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("bare CR after the size", chunked("3\rabc\r\n0\r\n\r\n{next}"));
    rows.broken("bare LF in an extension", chunked("3;x\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("bare CR in an extension", chunked("3;x\ry\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("bare LF after the data", chunked("3\r\nabc\n0\r\n\r\n{next}"));
    rows.broken("nothing after the data", chunked("3\r\nabc0\r\n\r\n{next}"));
    rows.broken("two bytes other than CRLF after the data", chunked("3\r\nabcxx0\r\n\r\n{next}"));
    rows.broken("more data than its size", chunked("3\r\nabcdef\r\n0\r\n\r\n{next}"));
    rows.broken("less data than its size", chunked("5\r\nabc\r\n0\r\n\r\n{next}"));
    rows.broken("an extension of 64 kB", chunked(&format!("3;{}\r\nabc\r\n0\r\n\r\n{{next}}", "x".repeat(65_536))));
    rows.broken("bare LF at the end", chunked("3\r\nabc\r\n0\n\n{next}"));
    rows.broken("end missing", chunked("3\r\nabc\r\n0\r\n"));
    rows.ends();
    rows.broken("last chunk missing", chunked("3\r\nabc\r\n"));
    rows.ends();
    rows.broken("cut in the size", chunked("3"));
    rows.ends();
    rows.rows
}

fn trailers() -> Vec<Row> {
    let mut rows = Rows::of("trailers");
    let put = |trailers: &str| chunked(&format!("3\r\nabc\r\n0\r\n{trailers}\r\n\r\n{{next}}"));
    rows.forwarded("PUT /c{n}", "abc", "one", put("X-Sum: 6"));
    rows.forwarded(
        "PUT /c{n}",
        "abc",
        "framing and addresses",
        put("Content-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: b"),
    );
    rows.broken("a stamp", put("Fencing-Epoch: {term}"));
    rows.broken("a stamp with `_`", put("fencing_epoch: 1"));
    rows.broken("a stamp among others", put("X-Sum: 6\r\nFENCING-EPOCH: 1\r\nX: 1"));
    rows.broken("space before the colon", put("X : 1"));
    rows.broken("folded", put("X: 1\r\n 2"));
    rows.broken("NUL", put("X: \0"));
    rows.broken("no colon", put("X"));
    rows.broken("cut", chunked("3\r\nabc\r\n0\r\nX-Sum: 6\r\n"));
    rows.ends();
    rows.rows
}

fn bodies() -> Vec<Row> {
    let mut rows = Rows::of("bodies");
    rows.passes("a second request behind none", put("", "{next}"));
    rows.passes("a second request behind an empty one", put("Content-Length: 0\r\n", "{next}"));
    rows.forwarded(
        "PUT /c{n}",
        "PUT /inside HTTP/1.1\r\nHost: a\r\n\r\n",
        "a request as its body",
        put("Content-Length: 33\r\n", "PUT /inside HTTP/1.1\r\nHost: a\r\n\r\n{next}"),
    );
    rows.forwarded("PUT /c{n}", "0\r\n\r\n", "chunks under a length", put("Content-Length: 5\r\n", "0\r\n\r\n{next}"));
    rows.broken("shorter than its length", put("Content-Length: 9\r\n", "abc"));
    rows.ends();
    rows.broken("none of its length", put("Content-Length: 9\r\n", ""));
    rows.ends();
    let get = |fields: &str, body: &str| format!("GET /c{{n}} HTTP/1.1\r\n{{via}}Host: a\r\n{fields}\r\n{body}");
    rows.forwarded("GET /c{n}", "abc", "GET with a length", get("Content-Length: 3\r\n", "abc{next}"));
    rows.forwarded(
        "GET /c{n}",
        "abc",
        "GET with chunks",
        get("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n{next}"),
    );
    rows.forwarded("GET /c{n}", "", "GET and a second request", get("", "{next}"));
    rows.forwarded(
        "GET /c{n}",
        "PUT /inside HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET with a request as its body",
        get("Content-Length: 33\r\n", "PUT /inside HTTP/1.1\r\nHost: a\r\n\r\n{next}"),
    );
    rows.forwarded(
        "HEAD /c{n}",
        "abc",
        "HEAD with a length",
        "HEAD /c{n} HTTP/1.1\r\n{via}Host: a\r\nContent-Length: 3\r\n\r\nabc{next}",
    );
    rows.forwarded(
        "DELETE /c{n}",
        "abc",
        "DELETE with a length",
        "DELETE /c{n} HTTP/1.1\r\n{via}Host: a\r\n{stamp}Content-Length: 3\r\n\r\nabc{next}",
    );
    rows.rows
}
