//! The first line, and the lines of the fields.

use super::table::{Fate, Row, Rows, bare, line, put};

pub fn rows() -> Vec<Row> {
    let mut rows = first_lines();
    rows.extend(targets());
    rows.extend(fields());
    rows.extend(hosts());
    rows
}

fn first_lines() -> Vec<Row> {
    let mut rows = Rows::of("request line");
    rows.passes("plain", line("PUT /c{n} HTTP/1.1"));
    rows.forwarded("put /c{n}", "", "method in lower case", line("put /c{n} HTTP/1.1"));
    rows.forwarded("PURGE /c{n}", "", "unknown method", line("PURGE /c{n} HTTP/1.1"));
    rows.forwarded("TRACE /c{n}", "", "TRACE", "TRACE /c{n} HTTP/1.1\r\n{via}Host: a\r\n\r\n");
    rows.refused(400, "CONNECT", "CONNECT a:80 HTTP/1.1\r\n{via}Host: a:80\r\n{stamp}\r\n{next}");
    rows.refused(400, "space before the method", line(" PUT /c{n} HTTP/1.1"));
    rows.refused(400, "two spaces after the method", line("PUT  /c{n} HTTP/1.1"));
    rows.refused(400, "two spaces before the version", line("PUT /c{n}  HTTP/1.1"));
    rows.refused(400, "tabs for spaces", line("PUT\t/c{n}\tHTTP/1.1"));
    rows.refused(400, "space after the version", line("PUT /c{n} HTTP/1.1 "));
    rows.refused(400, "space in the target", line("PUT /c{n} x HTTP/1.1"));
    rows.refused(400, "no target", line("PUT HTTP/1.1"));
    rows.refused(400, "no version", line("PUT /c{n}"));
    rows.refused(400, "HTTP/0.9", "GET /c{n}\r\n\r\n");
    rows.refused(400, "HTTP/1.2", line("PUT /c{n} HTTP/1.2"));
    rows.refused(400, "HTTP/2.0", line("PUT /c{n} HTTP/2.0"));
    rows.refused(400, "HTTP/1.10", line("PUT /c{n} HTTP/1.10"));
    rows.refused(400, "HTTP/01.1", line("PUT /c{n} HTTP/01.1"));
    rows.refused(400, "HTTP/1,1", line("PUT /c{n} HTTP/1,1"));
    rows.refused(400, "version in lower case", line("PUT /c{n} http/1.1"));
    rows.refused(400, "another protocol", line("PUT /c{n} ICAP/1.0"));
    rows.refused(400, "byte above 127 in the method", line("P\u{dc}T /c{n} HTTP/1.1"));
    rows.refused(400, "NUL in the method", line("P\0T /c{n} HTTP/1.1"));
    rows.refused(400, "bare CR in the line", line("PUT /c{n}\rx HTTP/1.1"));
    rows.refused(400, "bare CR for the line's end", "PUT /c{n} HTTP/1.1\rHost: a\r\r\n\r\n");
    rows.passes("bare LF for every line's end", "PUT /c{n} HTTP/1.1\nHost: a\n{stamp}Content-Length: 0\n\n");
    rows.passes("CRLF before the line", format!("\r\n\r\n{}", line("PUT /c{n} HTTP/1.1")));
    rows.passes("LF before the line", format!("\n{}", line("PUT /c{n} HTTP/1.1")));
    rows.refused(400, "CR before the line", format!("\r{}", line("PUT /c{n} HTTP/1.1")));
    rows.refused(400, "field before the line", format!("x: 1\r\n{}", line("PUT /c{n} HTTP/1.1")));
    rows.refused(400, "TLS instead of HTTP", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n");
    let old = "PUT /c{n} HTTP/1.0\r\n{via}{stamp}";
    rows.passes("HTTP/1.0 without Host", format!("{old}Content-Length: 0\r\n\r\n{{next}}"));
    rows.passes("HTTP/1.0 kept alive", format!("{old}Connection: keep-alive\r\nContent-Length: 0\r\n\r\n{{next}}"));
    rows.rows
}

fn targets() -> Vec<Row> {
    let mut rows = Rows::of("target");
    rows.passes("whole URI", line("PUT http://a/c{n} HTTP/1.1"));
    rows.passes("whole URI, another scheme", line("PUT https://a/c{n} HTTP/1.1"));
    rows.refused(400, "whole URI of another host", line("PUT http://b/c{n} HTTP/1.1"));
    rows.refused(400, "whole URI of another port", line("PUT http://a:81/c{n} HTTP/1.1"));
    rows.refused(400, "whole URI with credentials", line("PUT http://x@a/c{n} HTTP/1.1"));
    rows.refused(400, "whole URI without a host", line("PUT http:///c{n} HTTP/1.1"));
    rows.forwarded("PUT /", "", "whole URI without a path", line("PUT http://a HTTP/1.1"));
    rows.refused(400, "authority", line("PUT a:80 HTTP/1.1"));
    rows.refused(400, "asterisk", line("PUT * HTTP/1.1"));
    rows.forwarded("OPTIONS *", "", "asterisk of OPTIONS", "OPTIONS * HTTP/1.1\r\n{via}Host: a\r\n\r\n");
    rows.refused(400, "no slash", line("PUT c{n} HTTP/1.1"));
    rows.refused(400, "query alone", line("PUT ?c{n} HTTP/1.1"));
    rows.passes("fragment", line("PUT /c{n}#x HTTP/1.1"));
    rows.refused(400, "backslash", line("PUT \\c{n} HTTP/1.1"));
    rows.refused(400, "NUL", line("PUT /c{n}\0 HTTP/1.1"));
    rows.refused(400, "DEL", line("PUT /c{n}\u{7f} HTTP/1.1"));
    rows.refused(400, "byte above 127", line("PUT /c{n}\u{e4} HTTP/1.1"));
    rows.forwarded("PUT //b/c{n}", "", "two slashes", line("PUT //b/c{n} HTTP/1.1"));
    rows.forwarded("PUT /x/../c{n}", "", "dot segments", line("PUT /x/../c{n} HTTP/1.1"));
    rows.forwarded("PUT /c{n}%0d%0aX:1", "", "encoded line end", line("PUT /c{n}%0d%0aX:1 HTTP/1.1"));
    let long = format!("PUT /c{{n}}{} HTTP/1.1", "x".repeat(70_000));
    rows.refused(431, "70 kB", line(&long));
    rows.rows
}

fn fields() -> Vec<Row> {
    let mut rows = Rows::of("field lines");
    let put = |field: &str| put(&format!("{field}\r\nContent-Length: 0\r\n"), "");
    rows.refused(400, "space before the colon", put("X : 1"));
    rows.refused(400, "tab before the colon", put("X\t: 1"));
    rows.refused(400, "space before the name", put(" X: 1"));
    rows.refused(400, "folded value", put("X: 1\r\n 2"));
    rows.refused(400, "folded by a tab", put("X: 1\r\n\t2"));
    rows.refused(400, "folded with nothing", put("X: 1\r\n "));
    rows.refused(400, "folded first line", "PUT /c{n} HTTP/1.1\r\n {via}Host: a\r\n{stamp}Content-Length: 0\r\n\r\n");
    rows.refused(400, "NUL in a value", put("X: a\0b"));
    rows.refused(400, "NUL in a name", put("X\0: 1"));
    rows.refused(400, "bare CR in a value", put("X: a\rY: b"));
    rows.refused(400, "control byte in a value", put("X: a\u{1}b"));
    rows.refused(400, "DEL in a value", put("X: a\u{7f}b"));
    rows.passes("bytes above 127 in a value", put("X: \u{e4}\u{ff}"));
    rows.refused(400, "byte above 127 in a name", put("X\u{e4}: 1"));
    rows.refused(400, "empty name", put(": 1"));
    rows.refused(400, "no colon", put("X"));
    rows.refused(400, "parenthesis in a name", put("X(1): 1"));
    rows.refused(400, "space in a name", put("X Y: 1"));
    rows.passes("no space after the colon", put("X:1"));
    rows.passes("tabs around a value", put("X:\t1\t"));
    rows.passes("empty value", put("X:"));
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    rows.refused(431, "two hundred fields", put(many.trim_end()));
    rows.refused(431, "a value of 70 kB", put(&format!("X: {}", "y".repeat(70_000))));
    rows.refused(431, "a name of 70 kB", put(&format!("{}: 1", "x".repeat(70_000))));
    rows.closed("a head without an end", bare("X: 1", "").trim_end().to_owned());
    rows.ends();
    rows.rows
}

fn hosts() -> Vec<Row> {
    let mut rows = Rows::of("Host");
    let put = |hosts: &str| format!("PUT /c{{n}} HTTP/1.1\r\n{{via}}{hosts}{{stamp}}Content-Length: 0\r\n\r\n");
    rows.refused(400, "none", put(""));
    rows.refused(400, "twice the same", put("Host: a\r\nHost: a\r\n"));
    rows.refused(400, "two", put("Host: a\r\nHost: b\r\n"));
    rows.refused(400, "two, one with `Host ` before the colon", put("Host: a\r\nHost : b\r\n"));
    rows.refused(400, "folded", put("Host:\r\n a\r\n"));
    rows.refused(400, "list", put("Host: a, b\r\n"));
    rows.refused(400, "space inside", put("Host: a b\r\n"));
    rows.refused(400, "path", put("Host: a/b\r\n"));
    rows.refused(400, "credentials", put("Host: x@a\r\n"));
    rows.refused(400, "two ports", put("Host: a:80:81\r\n"));
    rows.refused(400, "byte above 127", put("Host: \u{e4}\r\n"));
    rows.passes("empty", put("Host:\r\n"));
    // HTTP/2 has no way to say it.
    rows.over_http2(Fate::Refused(400));
    rows.passes("with a port", put("Host: a:8080\r\n"));
    rows.passes("IPv6", put("Host: [::1]:8080\r\n"));
    rows.passes("after all others", "PUT /c{n} HTTP/1.1\r\n{via}{stamp}Content-Length: 0\r\nhOsT: a\r\n\r\n");
    rows.passes("X-Forwarded-Host beside it", put("Host: a\r\nX-Forwarded-Host: b\r\n"));
    rows.rows
}
