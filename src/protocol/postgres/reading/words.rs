//! What a reading session's server says that is looked at, and what is said with it.

use bytes::BytesMut;

use super::own;
use crate::fence::Refusal;
use crate::protocol::postgres::refuse;

/// The oldest server of which a read-only transaction only reads: before, large objects can be written in one, and RESET makes it
/// a read-write one.
pub const OLDEST: u32 = 16;

/// `read_only_sql_transaction`: the server has refused a write.
const REFUSED: &[u8] = b"25006";
/// What else it says of a statement that only a writer needs, within the guard's block: `active_sql_transaction` (COMMIT PREPARED,
/// VACUUM, BEGIN READ WRITE), `invalid_transaction_termination` (a procedure that commits).
const REFUSED_IN_BLOCKS: [&[u8]; 2] = [b"25001", b"2D000"];
const SYNTAX_ERROR: &[u8] = b"42601";
/// The function that says that a statement is more than one: the only thing about that error that is in no language.
const OF_SEVERAL: &[u8] = b"exec_parse_message";

/// What stands behind what the server says of each write that it refuses.
#[derive(Clone, Debug)]
pub struct Words {
    detail: String,
    hint: &'static str,
}

impl Words {
    /// Of a session that reads because it was refused with this.
    pub fn of(refusal: &Refusal) -> Words {
        Words {
            detail: format!(
                "This session may only read: {}",
                refuse::detail(refusal, refusal.reason.outcome().as_str())
            ),
            hint: refuse::hint(refusal.reason),
        }
    }

    /// Writes the error of a transaction that has written although it only reads, or has a cursor that its end would run.
    pub fn write_refusal(&self, to: &mut BytesMut) {
        const FIELDS: &[u8] = b"SERROR\0VERROR\0C25006\0Mthis session may only read: \
            its transaction has written something, or has a cursor WITH HOLD, and cannot go on\0";
        own::message(b'E', &[FIELDS, b"D", self.detail.as_bytes(), b"\0H", self.hint.as_bytes(), b"\0\0"], to);
    }

    /// Writes an error with this body for the client, with what there is to add. Says whether it is a refused write.
    pub fn write_error(&self, body: &[u8], is_query: bool, to: &mut BytesMut) -> bool {
        let is_refused = is_refused_write(body);
        let is_several =
            is_query && code(body) == Some(SYNTAX_ERROR) && field(body, b'R').is_some_and(|by| by == OF_SEVERAL);
        let (detail, hint) = match (is_refused, is_several) {
            (true, _) => (self.detail.as_str(), self.hint),
            (_, true) => ("", "This session may only read, and takes one statement at a time."),
            _ => ("", ""),
        };
        let own = |kind: u8, text: &str| match field(body, kind) {
            None if !text.is_empty() => [&[kind], text.as_bytes(), &[0]].concat(),
            _ => Vec::new(),
        };
        // A body ends with a zero byte behind its last field.
        let fields = body.strip_suffix(b"\0").unwrap_or(body);
        own::message(b'E', &[fields, &own(b'D', detail), &own(b'H', hint), b"\0"], to);
        is_refused
    }
}

/// Whether an error that begins so refuses a write.
pub fn is_refused_write(body: &[u8]) -> bool {
    code(body).is_some_and(|code| code == REFUSED || REFUSED_IN_BLOCKS.contains(&code))
}

/// The SQLSTATE of an error or a notice.
pub fn code(body: &[u8]) -> Option<&[u8]> {
    field(body, b'C')
}

fn field(body: &[u8], kind: u8) -> Option<&[u8]> {
    body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[kind]))
}

/// The major version, of a ParameterStatus that says it: `16.4 (Debian 16.4-1)`, `18beta1`.
pub fn server_version(status: &[u8]) -> Option<u32> {
    let text = status.strip_prefix(b"server_version\0")?;
    let digits = text.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Epoch, Reason};

    fn words() -> Words {
        let stale = Refusal::new(Reason::StaleEpoch, "it is over").with_epochs(Epoch::new(41), Epoch::new(42));
        Words::of(&stale)
    }

    fn told(body: &[u8]) -> (Vec<String>, bool) {
        let mut to = BytesMut::new();
        let refused = words().write_error(body, true, &mut to);
        (refuse::tests::fields(&to), refused)
    }

    #[test]
    fn a_refused_write_says_which_epochs_and_any_other_error_stays_as_it_is() {
        let (fields, refused) = told(b"SERROR\0VERROR\0C25006\0Mcannot execute INSERT\0\0");
        assert!(refused);
        assert!(
            fields[4].starts_with("DThis session may only read: it is over (reason stale_epoch, outcome not_applied")
        );
        assert!(fields[4].contains("epoch 41 given, 42 required") && fields[5].starts_with('H'), "{fields:?}");
        let other = b"SERROR\0VERROR\0C42P01\0Mno table\0Rparse\0\0";
        assert_eq!(
            told(other),
            (vec!["SERROR".into(), "VERROR".into(), "C42P01".into(), "Mno table".into(), "Rparse".into()], false)
        );
        // What the server says itself is not overwritten.
        let (fields, _) = told(b"SERROR\0VERROR\0C25006\0Mno\0Down\0Hown\0\0");
        assert_eq!(&fields[4..], ["Down", "Hown"]);
    }

    #[test]
    fn several_statements_are_told_that_one_goes_at_a_time() {
        let several = b"SFEHLER\0VERROR\0C42601\0Mmehrere\0Fpostgres.c\0L1451\0Rexec_parse_message\0\0";
        assert!(told(several).0.last().expect("a hint").contains("one statement at a time"));
        assert_eq!(told(b"SERROR\0VERROR\0C42601\0Msyntax error\0Rscanner_yyerror\0\0").0.len(), 5);
    }

    #[test]
    fn a_version_is_its_first_number() {
        for (text, version) in [
            ("16.4 (Debian 16.4-1.pgdg)", Some(16)),
            ("18beta1", Some(18)),
            ("9.6.24", Some(9)),
            ("x", None),
            ("", None),
        ] {
            let status = format!("server_version\0{text}\0");
            assert_eq!(server_version(status.as_bytes()), version, "{text}");
        }
        assert_eq!(server_version(b"server_version_num\x00160004\0"), None);
    }
}
