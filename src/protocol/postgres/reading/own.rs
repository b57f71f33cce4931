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
/// Takes the snapshot. From then on PostgreSQL lets no transaction, and no part of one, become read-write again.
const SNAPSHOT: &[u8] = b"SELECT 1\0";

/// What the server answers to [`fence_in`], message by message.
pub const FENCED_IN: &[u8] = b"3312C3312DC33";
/// What it answers to [`sync`].
pub const SYNCED: &[u8] = b"Z";
/// What it answers to [`end`].
pub const ENDED: &[u8] = b"3312C33Z";
/// What it answers to [`sync`] and [`end`].
pub const SYNCED_AND_ENDED: &[u8] = b"Z3312C33Z";

/// How the guard ends a block of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has not failed: settings, prepared statements and cursors WITH HOLD stay.
    Commit,
    /// It has.
    Rollback,
}

/// Writes what has to be done before anything of the client's is. Where the server fails in it, it skips all that follows, up to
/// the next Sync.
pub fn fence_in(to: &mut BytesMut) {
    run(BEGIN, to);
    run(SNAPSHOT, to);
    forget(to);
}

/// Writes the end of a block that the client has not asked for, and a Sync.
pub fn end(how: Ending, to: &mut BytesMut) {
    run(if how == Ending::Commit { b"COMMIT\0" } else { b"ROLLBACK\0" }, to);
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
