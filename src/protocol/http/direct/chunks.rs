//! The chunked coding of an answer, taken off strictly (RFC 9112 7.1).

/// A chunk's size line, its extensions included, is no longer than this; nor is a trailer section.
const LONGEST_LINE: usize = 4 * 1024;
const LONGEST_TRAILERS: usize = 16 * 1024;

/// The coding is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a size line: the size so far, how many digits it has, and how many bytes the line.
    Size {
        size: u64,
        digits: usize,
        bytes: usize,
    },
    /// In what follows the size, up to the line's end.
    Extension {
        size: u64,
        bytes: usize,
    },
    /// After a size line's CR.
    SizeEnd(u64),
    /// In a chunk's data, so much of it to come.
    Data(u64),
    /// After a chunk's data, and after the CR there.
    DataCr,
    DataLf,
    /// In the trailer section: how many bytes it has, and how many of them stand in the line at hand.
    Trailer {
        bytes: usize,
        line: usize,
    },
    /// After the CR of a line in the trailer section.
    TrailerEnd {
        bytes: usize,
        line: usize,
    },
    Over,
}

/// Takes the coding off as it comes.
#[derive(Debug)]
pub struct Chunks(State);

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks(START)
    }
}

const START: State = State::Size { size: 0, digits: 0, bytes: 0 };

impl Chunks {
    /// Whether the last chunk, and the trailer section after it, have come.
    pub fn is_over(&self) -> bool {
        self.0 == State::Over
    }

    /// Hands what is data in `input` to `data`, piece by piece. Returns how much of the input belongs to the message:
    /// less than all of it only where the message is over.
    ///
    /// # Errors
    /// Where two readers could see different messages.
    pub fn take(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Broken> {
        let mut at = 0;
        while at < input.len() && !self.is_over() {
            if let State::Data(left) = self.0 {
                let piece = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                data(&input[at..at + piece]);
                at += piece;
                let left = left - piece as u64;
                self.0 = if left == 0 { State::DataCr } else { State::Data(left) };
                continue;
            }
            self.0 = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&self, byte: u8) -> Result<State, Broken> {
        Ok(match (self.0, byte) {
            (State::Size { size, digits: digits @ 1.., .. }, b'\r') => {
                debug_assert!(digits > 0);
                State::SizeEnd(size)
            }
            (State::Size { size, digits: 1.., bytes }, b';' | b' ' | b'\t') => State::Extension { size, bytes },
            (State::Size { size, digits, bytes }, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(Broken)?;
                let size = size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit))).ok_or(Broken)?;
                within(bytes, LONGEST_LINE)?;
                State::Size { size, digits: digits + 1, bytes: bytes + 1 }
            }
            (State::Extension { size, .. }, b'\r') => State::SizeEnd(size),
            (State::Extension { .. }, b'\n') => return Err(Broken),
            (State::Extension { size, bytes }, _) => {
                within(bytes, LONGEST_LINE)?;
                State::Extension { size, bytes: bytes + 1 }
            }
            (State::SizeEnd(0), b'\n') => State::Trailer { bytes: 0, line: 0 },
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => START,
            (State::Trailer { bytes, line }, b'\r') => State::TrailerEnd { bytes, line },
            (State::Trailer { .. }, b'\n') => return Err(Broken),
            (State::Trailer { bytes, line }, _) => {
                within(bytes, LONGEST_TRAILERS)?;
                State::Trailer { bytes: bytes + 1, line: line + 1 }
            }
            (State::TrailerEnd { line: 0, .. }, b'\n') => State::Over,
            (State::TrailerEnd { bytes, .. }, b'\n') => State::Trailer { bytes, line: 0 },
            _ => return Err(Broken),
        })
    }
}

fn within(bytes: usize, most: usize) -> Result<(), Broken> {
    if bytes < most { Ok(()) } else { Err(Broken) }
}

/// Writes one chunk.
pub fn write(data: &[u8], to: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    let mut size = [0; 16];
    let mut at = size.len();
    let mut left = data.len();
    while left > 0 {
        at -= 1;
        size[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    to.extend_from_slice(&size[at..]);
    to.extend_from_slice(b"\r\n");
    to.extend_from_slice(data);
    to.extend_from_slice(b"\r\n");
}

/// The last chunk, and the end of the trailer section.
pub const END: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Broken> {
        let (mut chunks, mut data, mut used) = (Chunks::default(), Vec::new(), 0);
        for piece in pieces {
            used += chunks.take(piece, |part| data.extend_from_slice(part))?;
        }
        Ok((data, used, chunks.is_over()))
    }

    #[test]
    fn the_coding_is_taken_off_however_it_is_cut() {
        let whole = b"3\r\nabc\r\n00A ; x=\"y\"\r\n0123456789\r\n0\r\nx: 1\r\ny: 2\r\n\r\nHTTP/1.1";
        let expected = (b"abc0123456789".to_vec(), whole.len() - 8, true);
        assert_eq!(decode(&[whole]), Ok(expected.clone()));
        for at in 0..whole.len() {
            assert_eq!(decode(&[&whole[..at], &whole[at..]]), Ok(expected.clone()), "{at}");
        }
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(decode(&single), Ok(expected));
    }

    #[test]
    fn what_two_readers_could_read_two_ways_is_broken() {
        for bad in [
            &b"\r\n"[..],
            b"3\nabc\r\n0\r\n\r\n",
            b"3;x\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"+3\r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b"-1\r\n",
            b" 3\r\nabc\r\n",
            b"10000000000000000\r\n",
            b"0\r\nx: 1\n\r\n",
            b"0\r\n\n",
            b"g\r\n",
        ] {
            assert_eq!(decode(&[bad]), Err(Broken), "{}", String::from_utf8_lossy(bad));
        }
        let long = [b"1;".to_vec(), vec![b'x'; LONGEST_LINE + 2]].concat();
        assert_eq!(decode(&[&long]), Err(Broken));
        let trailers = [b"0\r\n".to_vec(), b"x: yyyyyyyyyyyyyyyy\r\n".repeat(2000)].concat();
        assert_eq!(decode(&[&trailers]), Err(Broken));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [1, 15, 16, 255, 4096, 70_000] {
            let data = vec![b'x'; length];
            let mut coded = Vec::new();
            write(&data, &mut coded);
            write(&[], &mut coded);
            coded.extend_from_slice(END);
            assert_eq!(decode(&[&coded]), Ok((data, coded.len(), true)));
        }
    }
}
