//! Colour and symbols, for people. Everything here is written through `anstream`, which takes the colour out where
//! the output is no terminal or NO_COLOR is set.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};

/// Headings of tables and sections.
pub const HEADING: Style = Style::new().bold();
/// What is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What deserves a look.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// What is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What matters less.
pub const FAINT: Style = Style::new().dimmed();

/// Neighbouring epochs look different, and an epoch looks the same wherever it stands.
const EPOCHS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Yellow,
    AnsiColor::Blue,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
];

/// The colour of an epoch.
pub fn epoch(number: u64) -> Style {
    let place = usize::try_from(number.wrapping_sub(1) % EPOCHS.len() as u64).unwrap_or(0);
    EPOCHS[place].on_default().bold()
}

/// A text in a style, the style ended behind it.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A text that came from elsewhere, without what could move a terminal's cursor or pose as another line.
pub fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut clean, c| {
        if c.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(clean, "{}", c.escape_default());
        } else {
            clean.push(c);
        }
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_epochs_look_different() {
        for number in 1..20 {
            assert_ne!(epoch(number), epoch(number + 1));
            assert_eq!(epoch(number), epoch(number));
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(plain("größe"), "größe");
    }
}
