//! The fields of a head, as they stand in a buffer: found, and copied.

/// The fields of a head.
pub struct Lines<'a, 'b> {
    /// The head itself.
    head: &'b [u8],
    all: &'a [httparse::Header<'b>],
    /// A bit for each length (modulo 64) that a name has: most names that are asked for are not there.
    lengths: u64,
}

impl<'a, 'b> Lines<'a, 'b> {
    /// Of this head.
    pub fn new(head: &'b [u8], all: &'a [httparse::Header<'b>]) -> Lines<'a, 'b> {
        let lengths = all.iter().fold(0, |lengths, field| lengths | bit(field.name));
        Lines { head, all, lengths }
    }

    /// All of them, in order.
    pub fn all(&self) -> &'a [httparse::Header<'b>] {
        self.all
    }

    /// Whether there is one of this name, in any case.
    pub fn has(&self, name: &str) -> bool {
        self.each(name).next().is_some()
    }

    /// The values under this name, in any case.
    pub fn each<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'a, 'b, 'n> {
        let all = if self.lengths & bit(name) == 0 { &[] } else { self.all };
        all.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Writes those that are `kept`, in order, each as `name: value` and one line's end.
    pub fn write(&self, to: &mut Vec<u8>, mut kept: impl FnMut(&httparse::Header<'b>) -> bool) {
        // Fields that stand in the head as they are written, one after the other, are copied at once.
        let mut run = 0..0;
        for field in self.all {
            if !kept(field) {
                continue;
            }
            match self.canonical(field) {
                Some((from, end)) if from == run.end => run.end = end,
                Some((from, end)) => {
                    to.extend_from_slice(&self.head[run]);
                    run = from..end;
                }
                None => {
                    to.extend_from_slice(&self.head[std::mem::take(&mut run)]);
                    line(to, field.name.as_bytes(), field.value);
                }
            }
        }
        to.extend_from_slice(&self.head[run]);
    }

    /// Where a field's line begins and ends in the head, if it stands there as [`line`] would write it.
    fn canonical(&self, field: &httparse::Header<'_>) -> Option<(usize, usize)> {
        let from = field.name.as_ptr().addr().checked_sub(self.head.as_ptr().addr())?;
        let value = from + field.name.len() + 2;
        let end = value + field.value.len() + 2;
        let line = self.head.get(from..end)?;
        let (name, rest) = line.split_at(field.name.len());
        let is_so = std::ptr::eq(name.as_ptr(), field.name.as_ptr())
            && rest.starts_with(b": ")
            && (field.value.is_empty() || std::ptr::eq(rest[2..].as_ptr(), field.value.as_ptr()))
            && rest.ends_with(b"\r\n");
        is_so.then_some((from, end))
    }
}

/// The bit of a name's length.
fn bit(name: &str) -> u64 {
    1 << (name.len() % 64)
}

/// One field.
pub fn line(to: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    to.extend_from_slice(name);
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(head: &str, then: impl FnOnce(&Lines<'_, '_>) -> T) -> T {
        let mut space = [httparse::EMPTY_HEADER; 20];
        let (_, all) = httparse::parse_headers(head.as_bytes(), &mut space).expect("fields").unwrap();
        then(&Lines::new(head.as_bytes(), all))
    }

    #[test]
    fn however_a_field_stood_it_is_written_in_one_way() {
        let head = "A: 1\r\nB:2\r\nC:   3  \r\nd: \r\nE:\r\nF: 6\nG: 7\r\nH:\t8\r\nI: 9\t\r\nJ: a: b\r\n\r\n";
        let written = |kept: &str| {
            with(head, |lines| {
                let mut to = Vec::new();
                lines.write(&mut to, |field| kept.contains(field.name));
                String::from_utf8(to).expect("text")
            })
        };
        let canonical = |kept: &str| -> String {
            let values = ["1", "2", "3", "", "", "6", "7", "8", "9", "a: b"];
            let all = ["A", "B", "C", "d", "E", "F", "G", "H", "I", "J"].into_iter().zip(values);
            all.filter(|(name, _)| kept.contains(name)).map(|(name, value)| format!("{name}: {value}\r\n")).collect()
        };
        for kept in 0..1 << 10 {
            let kept: String =
                "ABCdEFGHIJ".chars().enumerate().filter(|(at, _)| kept & (1 << at) != 0).map(|it| it.1).collect();
            assert_eq!(written(&kept), canonical(&kept), "{kept}");
        }
    }

    #[test]
    fn a_field_is_found_in_any_case_and_as_often_as_it_stands() {
        let long = "x".repeat(66);
        with(&format!("Ab: 1\r\nAB: 2\r\nabc: 3\r\n{long}: 4\r\n\r\n"), |lines| {
            assert_eq!(lines.each("aB").collect::<Vec<_>>(), [b"1", b"2"]);
            assert!(lines.has("ABC") && !lines.has("a") && !lines.has("abd") && !lines.has("xy"));
            assert!(lines.has(&long.to_uppercase()));
        });
    }
}
