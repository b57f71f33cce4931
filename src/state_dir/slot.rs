//! One slot of the floor file: a line that says what follows, and the memory as JSON.
//!
//! ```text
//! epochgate-floors 1 slot=0 size=00004096 seq=00000000000000000012 len=00000217 crc=89abcdef
//! {"door":"guard-1-9f3c2a7b","revision":118,…
//! ```
//!
//! The file holds two slots of `size` bytes each, a power of two and 4096 at least, so that no block of the disk holds
//! parts of both. The checksum covers the line up to it and the JSON; what lies behind the JSON means nothing.

use std::sync::Arc;

use crate::fence::floor::Memory;

/// The first bytes of a slot of any format.
const MAGIC: &str = "epochgate-floors ";
/// The smallest slot: one block of the disk.
pub(crate) const SMALLEST: usize = 4096;
/// The largest: the length field's end, far above what 10 000 resources take (3 MB).
const LARGEST: usize = 1 << 26;
/// The line with its newline.
const HEADER: usize = 91;

/// What a slot carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Grows by one with each slot written, over all files of the state directory.
    pub sequence: u64,
    /// The size of the file's slots.
    pub size: usize,
    pub content: Content,
}

/// What the JSON says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Content {
    /// The door whose memory it is.
    pub door: Arc<str>,
    #[serde(flatten)]
    pub memory: Memory,
}

/// What was found where a slot should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Good(Slot),
    /// Whole, but written by another version of the format.
    Foreign(String),
    Bad,
}

/// The JSON of a door's memory: what [`Content`] reads.
pub(crate) fn body(door: &str, memory: &Memory) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Written<'a> {
        door: &'a str,
        #[serde(flatten)]
        memory: &'a Memory,
    }
    serde_json::to_vec(&Written { door, memory }).expect("plain data with text keys is always JSON")
}

/// The size of slots that hold this body; `None` where none can.
pub(crate) fn size_for(body: &[u8]) -> Option<usize> {
    Some((HEADER + body.len()).next_power_of_two().max(SMALLEST)).filter(|size| *size <= LARGEST)
}

/// Header and body, to be written at the slot's start. `body` fits into `size`.
pub(crate) fn encode(index: usize, size: usize, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = signed_part(index, size, sequence, body.len()).into_bytes();
    let checksum = checksum(&bytes, body);
    bytes.extend_from_slice(format!("{checksum:08x}\n").as_bytes());
    debug_assert_eq!(bytes.len(), HEADER);
    bytes.extend_from_slice(body);
    bytes
}

/// The slots of a file, in order. Where the second one lies is told by itself: a torn first one can't hide it.
pub(crate) fn decode(file: &[u8]) -> [Found; 2] {
    let sizes = std::iter::successors(Some(SMALLEST), |size| Some(size * 2)).take_while(|size| *size <= LARGEST);
    let second = sizes
        .take_while(|size| *size < file.len())
        .map(|size| decode_slot(1, Some(size), &file[size..]))
        .find(|found| *found != Found::Bad);
    [decode_slot(0, None, file), second.unwrap_or(Found::Bad)]
}

fn signed_part(index: usize, size: usize, sequence: u64, len: usize) -> String {
    format!("{MAGIC}1 slot={index} size={size:08} seq={sequence:020} len={len:08} crc=")
}

fn checksum(signed: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(signed);
    hasher.update(body);
    hasher.finalize()
}

fn decode_slot(index: usize, size: Option<usize>, bytes: &[u8]) -> Found {
    match decode_whole(index, size, bytes) {
        Some(slot) => Found::Good(slot),
        None => foreign_format(bytes).map_or(Found::Bad, Found::Foreign),
    }
}

fn decode_whole(index: usize, at: Option<usize>, bytes: &[u8]) -> Option<Slot> {
    let header = std::str::from_utf8(bytes.get(..HEADER)?).ok()?;
    let mut fields = header.strip_prefix(MAGIC)?.strip_prefix("1 ")?.trim_end_matches('\n').split(' ');
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
    let written_index: usize = field("slot")?.parse().ok()?;
    let size: usize = field("size")?.parse().ok()?;
    let sequence: u64 = field("seq")?.parse().ok()?;
    let len: usize = field("len")?.parse().ok()?;
    // Before it is written again: what is out of bounds has no header of this length.
    if written_index != index || at.is_some_and(|at| at != size) || size > LARGEST || len > size - HEADER.min(size) {
        return None;
    }
    let body = bytes.get(HEADER..HEADER.checked_add(len)?)?;
    // Written again and compared as a whole, so that there is one spelling only.
    if bytes.get(..HEADER + len)? != encode(index, size, sequence, body).as_slice() {
        return None;
    }
    let content = serde_json::from_slice(body).ok()?;
    Some(Slot { sequence, size, content })
}

/// The format that a slot names, where it is not ours. Version 1 slots are recognised by their checksum only; for
/// others all that can be read is the name.
fn foreign_format(bytes: &[u8]) -> Option<String> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes())?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let format = std::str::from_utf8(&rest[..digits]).ok()?;
    (rest.get(digits) == Some(&b' ') && !format.is_empty() && format != "1").then(|| format.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::floor::{Floor, Remembered};
    use crate::fence::{Epoch, Nonce};

    fn content(epoch: u64, resources: u32) -> Content {
        let mut memory = Memory { revision: 118, ..Memory::default() };
        for number in 0..resources {
            let floor = Floor {
                epoch: Epoch::new(epoch).expect("in range"),
                nonce: Nonce::from_bytes([3; 8]),
                writer: "orders-a".parse().expect("an id"),
                drained: true,
                forced: false,
            };
            let record = Remembered { floor: Some(floor), clean: true, audit: false };
            memory.put(&"db".into(), &format!("orders/{number}").parse().expect("a name"), record);
        }
        Content { door: "guard-1-9f3c2a7b".into(), memory }
    }

    fn file(first: (u64, &Content), second: (u64, &Content)) -> Vec<u8> {
        let bodies = [first.1, second.1].map(|content| body(&content.door, &content.memory));
        let size = size_for(&bodies[0]).max(size_for(&bodies[1])).expect("small");
        let mut file = vec![0; 2 * size];
        for (index, sequence) in [first.0, second.0].into_iter().enumerate() {
            let bytes = encode(index, size, sequence, &bodies[index]);
            file[index * size..][..bytes.len()].copy_from_slice(&bytes);
        }
        file
    }

    #[test]
    fn what_is_written_is_read() {
        for resources in [0, 1, 100, 1000] {
            let (old, new) = (content(4, resources), content(5, resources));
            let file = file((8, &new), (7, &old));
            let [Found::Good(first), Found::Good(second)] = decode(&file) else { panic!("not read") };
            assert_eq!((first.sequence, &first.content), (8, &new));
            assert_eq!((second.sequence, &second.content), (7, &old));
            assert_eq!(file.len(), 2 * first.size);
        }
    }

    #[test]
    fn the_written_form_is_stable() {
        let content = content(42, 1);
        let body = body(&content.door, &content.memory);
        let text = String::from_utf8(encode(0, 4096, 12, &body)).expect("text");
        let expected = concat!(
            "epochgate-floors 1 slot=0 size=00004096 seq=00000000000000000012 len=00000215 crc=",
            "18364720\n",
            r#"{"door":"guard-1-9f3c2a7b","revision":118,"forgotten":false,"targets":{"db":{"orders/0":{"floor":"#,
            r#"{"epoch":"42","nonce":"AwMDAwMDAwM=","writer":"orders-a","drained":true,"forced":false},"#,
            r#""clean":true,"audit":false}}}}"#,
        );
        assert_eq!(text, expected);
    }

    /// What may be made of a file that holds sequence 7 with `old` and 8 with `new`, whatever happened to it.
    fn assert_old_new_or_refused(damaged: &[u8], old: &Content, new: &Content, what: &str) {
        for found in decode(damaged) {
            match found {
                Found::Good(slot) => {
                    let expected = if slot.sequence == 8 { new } else { old };
                    assert_eq!(&slot.content, expected, "{what}");
                    assert!(slot.sequence == 7 || slot.sequence == 8, "{what}");
                }
                Found::Foreign(_) | Found::Bad => {}
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_gives_old_new_or_refused() {
        let (old, new) = (content(4, 1), content(5, 1));
        let whole = file((8, &new), (7, &old));
        let mut damaged = whole.clone();
        for bit in 0..whole.len() * 8 {
            damaged[bit / 8] = whole[bit / 8] ^ (1 << (bit % 8));
            assert_old_new_or_refused(&damaged, &old, &new, &format!("bit {bit}"));
            let good = decode(&damaged).into_iter().filter(|found| matches!(found, Found::Good(_))).count();
            assert!(good >= 1, "bit {bit} spoilt both slots");
            damaged[bit / 8] = whole[bit / 8];
        }
        for len in 0..whole.len() {
            assert_old_new_or_refused(&whole[..len], &old, &new, &format!("cut to {len}"));
        }
    }

    /// Numbers that no slot has would be written longer than a header is, and be looked at beyond its end.
    #[test]
    fn numbers_out_of_bounds_are_bad_and_no_more() {
        for numbers in
            ["slot=61 size=4096 seq=7 len=0", "slot=0 size=99999999999 seq=7 len=0", "slot=0 size=0 seq=7 len=9"]
        {
            let mut file = format!("{MAGIC}1 {numbers} crc=").into_bytes();
            file.resize(2 * SMALLEST, b'0');
            assert_eq!(decode(&file), [Found::Bad, Found::Bad], "{numbers}");
        }
    }

    #[test]
    fn a_slot_of_another_format_is_named() {
        let mut file = file((8, &content(5, 1)), (7, &content(4, 1)));
        file[MAGIC.len()] = b'2';
        assert_eq!(decode(&file)[0], Found::Foreign("2".into()));
    }
}
