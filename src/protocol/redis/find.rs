//! Which command it is that a client sends.

use std::borrow::Cow;

use super::request::{Command, Malformed, Word};
use super::table::{Does, Entry, Nature, Table};

/// A command, as far as it is known.
pub struct Found<'a> {
    /// Whether it may change something.
    pub nature: Nature,
    /// What it does to its connection.
    pub does: Does,
    /// Whether its reply may be a long time coming although the server has nothing to do.
    pub blocks: bool,
    /// How a role knows it.
    pub path: Cow<'a, str>,
}

/// What a command is; `None` where more of it has to be read first.
///
/// # Errors
/// Where it is no request.
pub fn find<'a>(table: &'a Table, command: &Command<'_>) -> Result<Option<Found<'a>>, Malformed> {
    let unknown = |name: &[u8]| {
        let shown = |byte: &u8| if byte.is_ascii_graphic() { *byte as char } else { '?' };
        let path = name.iter().map(shown).fold("/".to_owned(), |path, c| path + c.encode_utf8(&mut [0; 4]));
        let does = if table.is_whole() { Does::Unknown } else { Does::Nothing };
        Found { nature: Nature::Write, does, blocks: false, path: path.into() }
    };
    if has_a_zero(command.name()) {
        return Err(Malformed::new("a command's name has a zero byte"));
    }
    let Some(name) = command.name().whole() else { return Ok(Some(unknown(b"?"))) };
    let Some(mut entry) = table.find(name) else { return Ok(Some(unknown(name))) };
    if entry.contains && command.arguments > 0 {
        entry = match command.argument(1)? {
            Word::Cut => return Ok(None),
            word if has_a_zero(word) => return Err(Malformed::new("a subcommand's name has a zero byte")),
            Word::Whole(word) => table.contained(entry, name, word),
            Word::Long | Word::None => entry,
        };
    }
    let Entry { nature, does, blocks, path, .. } = entry;
    Ok(Some(Found { nature: *nature, does: *does, blocks: *blocks, path: Cow::Borrowed(path) }))
}

/// Redis looks names up as text that ends with a zero byte: what stands behind one it does not see, and this table would.
fn has_a_zero(word: Word<'_>) -> bool {
    word.whole().is_some_and(|word| word.contains(&0))
}
