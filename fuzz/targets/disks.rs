//! What a disk gives back: something that was written, whole, or an error.

use crate::coordinator::embedded::state::State;
use crate::state_dir::slot::{self, Found};

/// Whatever a file holds, a slot that counts as good is one that was written there, to the last byte.
#[test]
fn floor_file() {
    let words = ["epochgate-floors 1 ", "slot=0", "slot=1", "size=00004096", "seq=", "len=", "crc=", "\n", "\"door\""];
    crate::fuzz::engine::fuzz("floor_file", &words, |input| {
        // Slots lie far apart: the input's second half is put where the second one belongs.
        let (first, second) = input.split_at(input.len() / 2);
        let mut apart = first.to_vec();
        apart.resize(slot::SMALLEST, 0);
        apart.extend_from_slice(second);
        [look(input), look(&apart)]
    });
}

fn look(file: &[u8]) -> Vec<String> {
    let slots = slot::decode(file);
    let shapes = slots.iter().enumerate().map(|(index, found)| match found {
        Found::Bad => "bad".to_owned(),
        Found::Foreign(format) => format!("foreign {}", format.len()),
        Found::Good(slot) => {
            let at = if index == 0 { 0 } else { slot.size };
            let len: usize = std::str::from_utf8(&file[at..at + 91])
                .ok()
                .and_then(|line| line.split("len=").nth(1)?.split(' ').next()?.parse().ok())
                .expect("a good slot says its length");
            let body = &file[at + 91..at + 91 + len];
            let written = slot::encode(index, slot.size, slot.sequence, body);
            assert_eq!(&file[at..at + written.len()], written, "it was never written like this");
            assert!(slot.size.is_power_of_two() && slot.size >= slot::SMALLEST && written.len() <= slot.size);
            format!("good {}", slot.content.memory.records().count())
        }
    });
    shapes.collect()
}

/// Any JSON under a right checksum: what is read is written again as the same.
#[test]
fn floor_content() {
    let words = [
        "\"door\":\"g\"",
        "\"revision\":",
        "\"targets\":{",
        "\"floor\":{",
        "\"epoch\":\"42\"",
        "\"clean\":true",
        "\"left\":[",
        "\"forgotten\":true",
    ];
    crate::fuzz::engine::fuzz("floor_content", &words, |input| {
        let size = slot::size_for(input)?;
        let file = slot::encode(0, size, 7, input);
        let [found, second] = slot::decode(&file);
        assert_eq!(second, Found::Bad);
        let Found::Good(slot) = found else { return Some(None) };
        let again = slot::body(&slot.content.door, &slot.content.memory);
        let size = slot::size_for(&again).expect("it came from a body that fits");
        let [written, _] = slot::decode(&slot::encode(0, size, 7, &again));
        let Found::Good(written) = written else { panic!("what was read cannot be written") };
        assert_eq!(written.content, slot.content);
        Some(Some(
            slot.content
                .memory
                .records()
                .map(|(_, _, record)| (record.clean, record.floor.is_some()))
                .collect::<Vec<_>>(),
        ))
    });
}

/// The embedded store: as it comes, and as JSON under a right checksum.
#[test]
fn revision_file() {
    let words = [
        "epochgate-store ",
        "crc=",
        "\n",
        "\"revision\":",
        "\"keys\":{",
        "\"leases\":{",
        "\"base64\":\"AAAA\"",
        "\"modified\":",
    ];
    crate::fuzz::engine::fuzz("revision_file", &words, |input| {
        let mut shapes = Vec::new();
        let body_at = input.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let body = &input[body_at..];
        let line = input.get(..body_at).map(String::from_utf8_lossy).unwrap_or_default();
        let line = line.split(" crc=").next().unwrap_or_default();
        let signed = [format!("{line} crc={:08x}\n", crc32fast::hash(body)).as_bytes(), body].concat();
        for file in [input, &signed] {
            shapes.push(match State::decode(file) {
                Err(why) => why.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
                Ok(state) => {
                    let again = State::decode(&state.encode()).expect("what was read can be written");
                    assert_eq!(again, state);
                    format!("{:?}", state.first_end("boot").is_some())
                }
            });
        }
        shapes
    });
}
