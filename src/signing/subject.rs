//! What a signature covers.
//!
//! Eight texts, each as its length in decimal digits, a colon, its bytes, and a comma; one after the other, nothing
//! between. As every text says how long it is, no two requests have the same bytes, whatever their texts are made of.

use crate::fence::{Epoch, Nonce, Stamp};

/// The first text: no signature of this kind is one of another kind, or of a later version.
const KIND: &str = "epochgate-stamp-v1";

/// What a stamp is signed for: all of the stamp, and which request it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The resource.
    pub resource: &'a str,
    /// The epoch.
    pub epoch: Epoch,
    /// The term's nonce.
    pub nonce: Nonce,
    /// The writer.
    pub writer: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's path with its query, as sent.
    pub target: &'a str,
}

impl<'a> Subject<'a> {
    /// Of this stamp on this request; none where the stamp is not whole.
    pub fn of(stamp: &'a Stamp, method: &'a str, target: &'a str) -> Option<Subject<'a>> {
        let (resource, writer) = (stamp.res.as_ref()?.as_str(), stamp.by.as_ref()?.as_str());
        Some(Subject { resource, epoch: stamp.epoch, nonce: stamp.nonce?, writer, method, target })
    }

    /// The bytes, signed at `ts`.
    pub fn message(&self, ts: u64) -> Vec<u8> {
        const NUMBERS: usize = 100;
        let texts = self.resource.len() + self.writer.len() + self.method.len() + self.target.len();
        let mut message = Vec::with_capacity(KIND.len() + texts + NUMBERS);
        text(&mut message, KIND.as_bytes());
        text(&mut message, self.resource.as_bytes());
        number(&mut message, self.epoch.number());
        nonce(&mut message, self.nonce);
        text(&mut message, self.writer.as_bytes());
        text(&mut message, self.method.as_bytes());
        text(&mut message, self.target.as_bytes());
        number(&mut message, ts);
        message
    }
}

fn text(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend_from_slice(Digits::of(bytes.len() as u64).as_bytes());
    message.push(b':');
    message.extend_from_slice(bytes);
    message.push(b',');
}

fn number(message: &mut Vec<u8>, number: u64) {
    text(message, Digits::of(number).as_bytes());
}

/// In base64, as the stamp has it.
fn nonce(message: &mut Vec<u8>, nonce: Nonce) {
    text(message, nonce.to_string().as_bytes());
}

/// A number's decimal digits: this runs for every signed request, and `write!` takes several times as long.
struct Digits {
    digits: [u8; 20],
    from: usize,
}

impl Digits {
    fn of(mut number: u64) -> Digits {
        let mut digits = [b'0'; 20];
        let mut from = digits.len() - 1;
        loop {
            digits[from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Digits { digits, from };
            }
            from -= 1;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 9, 10, 42, 999_999_999_999_999, u64::MAX] {
            assert_eq!(Digits::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
