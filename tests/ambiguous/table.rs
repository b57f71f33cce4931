//! What a row of the table is: a message, and what is to become of it.

/// What is to become of a message. Whatever it is, the invariants of `main.rs` hold besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Answered with this status by a sidecar; nothing of it is at the origin.
    Refused(u16),
    /// The origin has one whole request: its method and target, and its body.
    Forwarded(String, String),
    /// Broken on its way: the origin has nothing whole of it.
    Broken,
    /// The connection is closed without an answer; nothing of it is at the origin.
    Closed,
}

/// A message of the table.
pub struct Row {
    pub category: &'static str,
    pub name: &'static str,
    /// What is sent. `{n}` is the row's number, `{stamp}` the line with the writer's own stamp where a guard is asked
    /// and nothing where a stamping sidecar is, `{term}` the stamp itself, `{via}` a field that puts a request on one path
    /// of the two and is not passed on, `{next}` a second request, stamped with an epoch that is over, which no origin
    /// may see. A character stands for one byte.
    pub message: String,
    /// At a guard.
    pub fate: Fate,
    /// At a stamping sidecar, where that is another.
    pub at_stamp: Option<Fate>,
    /// Where the stamping sidecar speaks HTTP/2 to its guard, where that is yet another.
    pub over_http2: Option<Fate>,
    /// Whether the message is not whole: its sender then ends its side, and waits for no more.
    pub ends: bool,
}

/// The rows of one category.
pub struct Rows {
    category: &'static str,
    pub rows: Vec<Row>,
}

impl Rows {
    pub fn of(category: &'static str) -> Rows {
        Rows { category, rows: Vec::new() }
    }

    fn add(&mut self, name: &'static str, message: String, fate: Fate) {
        let category = self.category;
        self.rows.push(Row { category, name, message, fate, at_stamp: None, over_http2: None, ends: false });
    }

    /// Refused, with this status.
    pub fn refused(&mut self, status: u16, name: &'static str, message: impl Into<String>) {
        self.add(name, message.into(), Fate::Refused(status));
    }

    /// Forwarded as this: method and target, and body.
    pub fn forwarded(&mut self, line: &str, body: &str, name: &'static str, message: impl Into<String>) {
        self.add(name, message.into(), Fate::Forwarded(line.to_owned(), body.to_owned()));
    }

    /// Forwarded as `PUT` of the row's own path, without a body.
    pub fn passes(&mut self, name: &'static str, message: impl Into<String>) {
        self.forwarded("PUT /c{n}", "", name, message);
    }

    /// Broken on its way.
    pub fn broken(&mut self, name: &'static str, message: impl Into<String>) {
        self.add(name, message.into(), Fate::Broken);
    }

    /// Closed without a word.
    pub fn closed(&mut self, name: &'static str, message: impl Into<String>) {
        self.add(name, message.into(), Fate::Closed);
    }

    /// The last one has another fate at a stamping sidecar.
    pub fn at_stamp(&mut self, fate: Fate) {
        self.rows.last_mut().unwrap().at_stamp = Some(fate);
    }

    /// The last one has another fate where it goes over HTTP/2.
    pub fn over_http2(&mut self, fate: Fate) {
        self.rows.last_mut().unwrap().over_http2 = Some(fate);
    }

    /// The last one is not whole.
    pub fn ends(&mut self) {
        self.rows.last_mut().unwrap().ends = true;
    }
}

/// A PUT with these lines after the usual ones, each with its own end, and this body.
pub fn put(lines: &str, body: &str) -> String {
    format!("PUT /c{{n}} HTTP/1.1\r\n{{via}}Host: a\r\n{{stamp}}{lines}\r\n{body}")
}

/// A PUT without a stamp of the table's own.
pub fn bare(lines: &str, body: &str) -> String {
    format!("PUT /c{{n}} HTTP/1.1\r\n{{via}}Host: a\r\n{lines}\r\n{body}")
}

/// A PUT with this first line and no body.
pub fn line(line: &str) -> String {
    format!("{line}\r\n{{via}}Host: a\r\n{{stamp}}Content-Length: 0\r\n\r\n")
}

/// A PUT with this as its chunked body.
pub fn chunked(body: &str) -> String {
    put("Transfer-Encoding: chunked\r\n", body)
}
