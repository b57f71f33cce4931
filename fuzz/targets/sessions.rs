//! What sessions begin with: the PROXY protocol's header, which carries their stamp.

use crate::net::proxy_header::{First, first, read_block, read_line, write};

/// A header is told by its first bytes, however few of them are there yet; what one says is said again by the one that we
/// would write; and nothing behind it belongs to it.
#[test]
fn proxy_header() {
    const WORDS: &[&str] = &[
        "\r\n\r\n\0\r\nQUIT\n",
        "!\u{11}",
        "!\u{21}",
        " \0",
        "PROXY ",
        "TCP4 ",
        "TCP6 ",
        "UNKNOWN",
        "10.0.0.7 10.0.0.3 5123 80\r\n",
        "fd00::7 fd00::3 1 2\r\n",
        "42;nonce=:n58qe3yfEjQ=:",
    ];
    crate::fuzz::engine::fuzz("proxy_header", WORDS, |input| {
        let told = first(input);
        for end in 0..input.len().min(16) {
            let earlier = first(&input[..end]);
            assert!(earlier == Ok(First::Short) || earlier == told, "{end}: {earlier:?}, then {told:?}");
        }
        let (header, length) = match told.map_err(|malformed| malformed.0)? {
            First::Other | First::Short => return Ok((false, 0)),
            First::Line => {
                let end = input.iter().position(|byte| *byte == b'\n').ok_or("no end")? + 1;
                (read_line(&input[..end]).map_err(|malformed| malformed.0)?, end)
            }
            First::Block(length) => {
                let whole = input.get(..16 + length).ok_or("cut")?;
                (read_block(whole).map_err(|malformed| malformed.0)?, whole.len())
            }
        };
        let again = write(header.source, header.source, header.stamp.as_deref());
        assert_eq!(first(&again), Ok(First::Block(again.len() - 16)));
        assert_eq!(read_block(&again), Ok(header.clone()));
        assert!(length <= 2064);
        Ok::<_, &str>((header.source.is_some(), header.stamp.map_or(0, |stamp| stamp.len())))
    });
}
