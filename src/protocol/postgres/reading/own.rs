//! What the guard itself has the server run around a reading client's statements, and what the server answers to it.
//!
//! All of it goes by messages of the extended protocol, under a name of the guard's own: a simple Query would destroy the client's
//! unnamed statement. The name is closed each time before it is parsed, so that what a client has put there is never run.

use bytes::BytesMut;

/// The statement and the portal of the guard.
const NAME: &[u8] = b"epochgate\0";

/// Makes the transaction that is at hand, or a new one, a read-only one. In one that is open already it is a warning, and its
/// options apply all the same. REPEATABLE READ, so that who asks for it afterwards gets it.
const BEGIN: &[u8] = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY\0";
/// Takes the snapshot: from then on PostgreSQL lets no transaction, and no part of one, become read-write again. And fails where the
/// transaction has an id, which it gets when something of it is to last: some statements write although it only reads (`EXPLAIN
/// ANALYZE CREATE TABLE ... AS`). And where it has declared a cursor WITH HOLD, of which the query is run by its COMMIT, when
/// nobody can look any more. Each name is said in full: a client may put its own before the catalog's.
const UNCHANGED: &[u8] = b"SELECT 1 OPERATOR(pg_catalog./) \
    (pg_catalog.pg_current_xact_id_if_assigned() IS NULL AND NOT EXISTS \
    (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable AND \
    creation_time OPERATOR(pg_catalog.>=) pg_catalog.transaction_timestamp()))::pg_catalog.int4\0";
/// `division_by_zero`: what [`UNCHANGED`] fails with.
pub const CHANGED: &[u8] = b"22012";

/// What the server answers to [`fence_in`], message by message.
pub const FENCED_IN: &[u8] = b"3312C3312DC33";
/// What it answers to [`sync`].
pub const SYNCED: &[u8] = b"Z";
/// How the guard ends a block of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has not failed: settings, prepared statements and cursors WITH HOLD stay.
    Commit,
    /// It has.
    Rollback,
}

impl Ending {
    /// What the server answers to [`sync`] and [`end`].
    pub fn synced_and_ended(self) -> &'static [u8] {
        match self {
            Ending::Commit => b"Z3312DC3312C33Z",
            Ending::Rollback => b"Z3312C33Z",
        }
    }

    /// What it answers to [`end`] alone.
    pub fn ended(self) -> &'static [u8] {
        &self.synced_and_ended()[1..]
    }
}

/// Writes what has to be done before anything of the client's is. Where the server fails in it, it skips all that follows, up to
/// the next Sync.
pub fn fence_in(to: &mut BytesMut) {
    run(BEGIN, to);
    run(UNCHANGED, to);
    forget(to);
}

/// Writes the end of a block that the client has not asked for, and a Sync.
pub fn end(how: Ending, to: &mut BytesMut) {
    match how {
        Ending::Commit => {
            run(UNCHANGED, to);
            run(b"COMMIT\0", to);
        }
        Ending::Rollback => run(b"ROLLBACK\0", to),
    }
    forget(to);
    sync(to);
}

/// Writes a Sync.
pub fn sync(to: &mut BytesMut) {
    message(b'S', &[], to);
}

/// Writes a Flush: what the server has to say so far is wanted.
pub fn flush(to: &mut BytesMut) {
    message(b'H', &[], to);
}

/// Writes the head of the Parse that a Query of this length becomes, up to its text.
pub fn parse_begins(query: u32, to: &mut BytesMut) {
    to.extend_from_slice(b"P");
    // Its own length, a name without letters, the text with its zero byte, and no types.
    to.extend_from_slice(&(4 + 1 + query + 2).to_be_bytes());
    to.extend_from_slice(b"\0");
}

/// Writes what follows the text: the end of the Parse, and what runs it and shows what a Query shows.
pub fn parse_ends(to: &mut BytesMut) {
    to.extend_from_slice(&[0, 0]);
    message(b'B', &[b"\0\0", &[0; 6][..]], to);
    message(b'D', &[b"P\0"], to);
    message(b'E', &[b"\0", &[0; 4][..]], to);
    flush(to);
}

fn run(statement: &[u8], to: &mut BytesMut) {
    forget(to);
    message(b'P', &[NAME, statement, &[0; 2]], to);
    message(b'B', &[NAME, NAME, &[0; 6]], to);
    message(b'E', &[NAME, &[0; 4]], to);
}

fn forget(to: &mut BytesMut) {
    message(b'C', &[b"P", NAME], to);
    message(b'C', &[b"S", NAME], to);
}

/// Writes a message whose body is these parts.
pub fn message(kind: u8, body: &[&[u8]], to: &mut BytesMut) {
    let length = 4 + body.iter().map(|part| part.len()).sum::<usize>();
    head(kind, u32::try_from(length - 4).expect("what the guard says is short"), to);
    body.iter().for_each(|part| to.extend_from_slice(part));
}

/// Writes the head of a message with so long a body.
pub fn head(kind: u8, length: u32, to: &mut BytesMut) {
    to.extend_from_slice(&[kind]);
    to.extend_from_slice(&(length + 4).to_be_bytes());
}
