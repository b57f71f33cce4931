//! Plain tables: columns two spaces apart, no lines, so that `awk` reads them too.

use std::fmt;

use anstyle::Style;

use super::paint::{self, HEADING, plain};

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text as it is, less control characters; `-` where it is empty.
    pub fn new(text: impl fmt::Display) -> Cell {
        let text = plain(&text.to_string());
        Cell { text: if text.is_empty() { "-".into() } else { text }, style: Style::new() }
    }

    /// What is there, or `-`.
    pub fn maybe(text: Option<impl fmt::Display>) -> Cell {
        text.map_or_else(|| Cell::new("-"), Cell::new)
    }

    /// An epoch in its colour, or `-`.
    pub fn epoch(epoch: Option<&str>) -> Cell {
        let style = epoch.and_then(|epoch| epoch.parse().ok()).map_or_else(Style::new, paint::epoch);
        Cell::maybe(epoch).styled(style)
    }

    /// The same in a style.
    #[must_use]
    pub fn styled(self, style: Style) -> Cell {
        Cell { style, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A heading and rows of as many cells.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&str]) -> Table {
        Table { rows: vec![columns.iter().map(|column| Cell::new(column).styled(HEADING)).collect()] }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.rows[0].len(), "a row has as many cells as the heading");
        self.rows.push(cells);
    }

    /// Whether it has no row but the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let widths: Vec<usize> =
            (0..columns).map(|at| self.rows.iter().map(|row| row[at].width()).max().unwrap_or(0)).collect();
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                let style = cell.style;
                write!(f, "{style}{}{style:#}", cell.text)?;
                if at + 1 < columns {
                    write!(f, "{:1$}", "", widths[at] - cell.width() + 2)?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let mut table = Table::new(&["RESOURCE", "EPOCH", "LEADER"]);
        assert!(table.is_empty());
        table.row(vec![Cell::new("orders"), Cell::epoch(Some("42")), Cell::maybe(Some("größe"))]);
        table.row(vec![Cell::new("a"), Cell::epoch(None), Cell::maybe(None::<&str>)]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(plain, "RESOURCE  EPOCH  LEADER\norders    42     größe\na         -      -\n");
    }
}
