//! Whole replies, as values: for the sidecar's own connections, which speak RESP2 and ask for little.

/// So deep do lists stand in each other at most: `COMMAND` has five.
const DEEPEST: usize = 16;

/// So many bytes does a reply to the sidecar itself have at most: `CLIENT LIST` of 10 000 clients has four million.
const LONGEST: usize = 64 * 1024 * 1024;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, simple or bulk.
    Text(Vec<u8>),
    /// What the server says has failed.
    Error(String),
    /// A whole number.
    Integer(i64),
    /// Nothing.
    Null,
    /// Several.
    List(Vec<Value>),
}

impl Value {
    /// Its text, where it is one.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The reply at the front of `bytes`, and how many it has; `None` where more have to be read first.
    ///
    /// # Errors
    /// Where it is no reply of RESP2, or longer than any that was asked for.
    pub fn read(bytes: &[u8]) -> Result<Option<(Value, usize)>, &'static str> {
        let mut reader = Reader { bytes, at: 0 };
        match reader.value(0) {
            Ok(value) => Ok(Some((value, reader.at))),
            Err(Stop::Cut) if bytes.len() < LONGEST => Ok(None),
            Err(Stop::Cut) => Err("the reply has no end"),
            Err(Stop::No(why)) => Err(why),
        }
    }
}

enum Stop {
    Cut,
    No(&'static str),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        let form = *self.bytes.get(self.at).ok_or(Stop::Cut)?;
        let from = self.at + 1;
        let rest = self.bytes.get(from..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(Stop::Cut)?;
        let line = rest[..length].strip_suffix(b"\r").ok_or(Stop::No("a line does not end with CR LF"))?;
        self.at = from + length + 1;
        match form {
            b'+' => Ok(Value::Text(line.to_vec())),
            b'-' => Ok(Value::Error(String::from_utf8_lossy(line).into_owned())),
            b':' => Ok(Value::Integer(number(line)?)),
            b'$' | b'*' if line == b"-1" => Ok(Value::Null),
            b'$' => self.bulk(number(line)?),
            b'*' if depth == DEEPEST => Err(Stop::No("lists stand too deep in each other")),
            b'*' => {
                let elements = usize::try_from(number(line)?).map_err(|_| Stop::No("a length is negative"))?;
                (0..elements).map(|_| self.value(depth + 1)).collect::<Result<_, _>>().map(Value::List)
            }
            _ => Err(Stop::No("no type begins with this byte")),
        }
    }

    fn bulk(&mut self, length: i64) -> Result<Value, Stop> {
        let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST);
        let end = self.at + length.ok_or(Stop::No("a length is out of range"))?;
        let text = self.bytes.get(self.at..end).ok_or(Stop::Cut)?;
        match self.bytes.get(end..end + 2) {
            None => Err(Stop::Cut),
            Some(b"\r\n") => {
                self.at = end + 2;
                Ok(Value::Text(text.to_vec()))
            }
            Some(_) => Err(Stop::No("a bulk string does not end where its length says")),
        }
    }
}

fn number(line: &[u8]) -> Result<i64, Stop> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(Stop::No("a length is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_when_all_of_it_is_there() {
        let bytes = b"*4\r\n$3\r\nget\r\n:-2\r\n*2\r\n+readonly\r\n$0\r\n\r\n$-1\r\n-ERR no\r\n";
        let list = Value::List(vec![
            Value::Text(b"get".to_vec()),
            Value::Integer(-2),
            Value::List(vec![Value::Text(b"readonly".to_vec()), Value::Text(Vec::new())]),
            Value::Null,
        ]);
        let end = bytes.len() - b"-ERR no\r\n".len();
        for cut in 0..end {
            assert_eq!(Value::read(&bytes[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(Value::read(bytes), Ok(Some((list, end))));
        assert_eq!(Value::read(&bytes[end..]), Ok(Some((Value::Error("ERR no".into()), 9))));
        for bad in ["?\r\n", "*-2\r\n", ":x\r\n", "$3\r\nabcd\r\n", "+a\n", &"*1\r\n".repeat(20)] {
            assert!(Value::read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
