//! The SQL of the in-target level, as text.

use std::fmt;
use std::str::FromStr;

use super::{literal, mark_of, quoted};
use crate::fence::Resource;

/// What is put in, or taken away again.
#[derive(Clone, Debug)]
pub struct Install<'a> {
    /// What is fenced.
    pub resource: &'a Resource,
    /// The tables that belong to it.
    pub tables: &'a [Table],
    /// Where its own objects live.
    pub schema: &'a str,
    /// Who may read the epochs.
    pub readers: &'a [String],
    /// As whom the guard logs in.
    pub guard: &'a str,
}

/// A table, as `name` or `schema.name`; each part stands as it is, and may be in double quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(Vec<String>);

/// Why a text names no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table is written name or schema.name; a name with dots or quotes in it in double quotes")]
pub struct NotATable;

impl FromStr for Table {
    type Err = NotATable;

    fn from_str(text: &str) -> Result<Table, NotATable> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = first_part(rest).ok_or(NotATable)?;
            parts.push(part);
            match after {
                "" => break,
                after => rest = after.strip_prefix('.').ok_or(NotATable)?,
            }
        }
        // The text of the functions stands between two of these.
        if parts.len() <= 2 && !text.contains("$epochgate$") { Ok(Table(parts)) } else { Err(NotATable) }
    }
}

/// One name, and what follows it.
fn first_part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let is_name =
            end > 0 && !text[..end].contains(|c: char| c == '"' || c == '\'' || c.is_whitespace() || c.is_control());
        return is_name.then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let end = rest.find('"')?;
        name += &rest[..end];
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return (!name.is_empty()).then_some((name, rest)),
        }
    }
}

/// As SQL has it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|part| quoted(part)).collect();
        f.write_str(&parts.join("."))
    }
}

const PUT_IN: &str = include_str!("put_in.sql");
const TAKE_AWAY: &str = include_str!("take_away.sql");

impl Install<'_> {
    /// What puts it in; run again, it changes nothing but what is new: a table, a partition, a role.
    pub fn put_in(&self) -> String {
        self.fill(PUT_IN)
    }

    /// What takes it away again: the triggers of this resource, its row, and, with the last one, the schema.
    pub fn take_away(&self) -> String {
        self.fill(TAKE_AWAY)
    }

    fn fill(&self, template: &str) -> String {
        let schema = quoted(self.schema);
        let tables: Vec<String> = self.tables.iter().map(|table| literal(&table.to_string())).collect();
        let readers: Vec<String> = self
            .readers
            .iter()
            .map(|reader| {
                let reader = quoted(reader);
                format!("GRANT USAGE ON SCHEMA {schema} TO {reader};\nGRANT SELECT ON {schema}.epochs TO {reader};\n")
            })
            .collect();
        let filled = [
            ("@SCHEMA_TEXT@", literal(self.schema)),
            ("@SCHEMA@", schema.clone()),
            ("@RESOURCE@", literal(self.resource.as_str())),
            ("@MARK@", mark_of(self.resource).to_string()),
            ("@TABLES@", tables.join(", ")),
            ("@READERS@", readers.concat()),
            ("@GUARD@", quoted(self.guard)),
        ];
        // In one pass: what is filled in is not looked at again, whatever it says.
        let mut text = String::new();
        let mut rest = template;
        while let Some(at) = rest.find('@') {
            text += &rest[..at];
            rest = &rest[at..];
            let (word, value) = filled
                .iter()
                .find(|(word, _)| rest.starts_with(word))
                .expect("the templates have no other words between two @, as a test of them shows");
            text += value;
            rest = &rest[word.len()..];
        }
        text + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_one_or_two_names() {
        let table = |text: &str| text.parse::<Table>().map(|table| table.to_string());
        assert_eq!(table("orders").as_deref(), Ok("\"orders\""));
        assert_eq!(table("App.Orders").as_deref(), Ok("\"App\".\"Orders\""));
        assert_eq!(table("\"a.\"\"b\".c").as_deref(), Ok("\"a.\"\"b\".\"c\""));
        for bad in ["", ".", "a.", ".a", "a.b.c", "a b", "a'b", "\"a", "\"\"", "\"a\"b", "a\"b", "\"$epochgate$\""] {
            assert_eq!(table(bad), Err(NotATable), "{bad:?}");
        }
    }

    #[test]
    fn what_is_filled_in_stays_what_it_is() {
        let resource: Resource = "orders/7".parse().expect("a resource");
        let tables = ["a.\"x'@SCHEMA@\"".parse().expect("a table")];
        let readers = ["app\"; DROP".to_owned()];
        let install =
            Install { resource: &resource, tables: &tables, schema: "eg'\"", readers: &readers, guard: "guard" };
        for text in [install.put_in(), install.take_away()] {
            assert!(text.contains("\"eg'\"\"\".epochs") && text.contains("'orders/7'"), "{text}");
            assert!(!text.replace("@SCHEMA@", "").contains('@'), "{text}");
        }
        let text = install.put_in();
        assert!(text.contains("'\"a\".\"x''@SCHEMA@\"'") && text.contains("TO \"app\"\"; DROP\""), "{text}");
        assert_eq!(text, install.put_in(), "the same each time");
    }
}
