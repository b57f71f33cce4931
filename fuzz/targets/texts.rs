//! What people write, and what is recorded: every text gives a value or says what is wrong with it, soon.

use std::path::Path;
use std::time::Duration;

use super::text;
use crate::config::{self, Overrides, Surroundings, units};
use crate::verify::{self, Options, read};

#[test]
fn configuration() {
    let words = [
        "coordinator:",
        "etcd:",
        "endpoints: [\"http://127.0.0.1:2379\"]",
        "embedded: ./x",
        "resources:",
        "\"orders/{0..63}\": {}",
        "listeners:",
        "  - ",
        "name: g",
        "role: guard",
        "role: stamp",
        "listen: :8080",
        "upstream: { url: \"http://127.0.0.1:9000\" }",
        "rules:",
        "- { method: [POST], path: /search, kind: read }",
        "{shard}",
        "/**",
        "drain: {",
        "timeout: 5s",
        "lease_ttl: 2s",
        "&a",
        "*a",
        "<<: *a",
        "!!binary",
        "---",
        "...",
        "|",
        ">-",
        "? ",
        "%YAML 1.2",
    ];
    let host = Surroundings { host_name: "host".into(), state_directory: None, root: true, home: None, cores: 2 };
    crate::fuzz::engine::fuzz_for("configuration", &words, 3_000, |input| {
        let text = text(input)?;
        let loaded = config::load_in(Some((Path::new("f.yaml"), text)), &Overrides::default(), None, &host);
        Some(match loaded {
            Ok(loaded) => vec![format!("{} {}", loaded.config.listeners.len(), loaded.warnings.len())],
            Err(problems) => {
                assert!(!problems.is_empty(), "refused without a reason");
                // Not the words that the input itself put into it.
                problems
                    .iter()
                    .take(4)
                    .map(|problem| {
                        assert!(!problem.what.is_empty() && !problem.at.to_string().is_empty());
                        problem.what.split('\'').step_by(2).collect::<String>()
                    })
                    .collect()
            }
        })
    });
}

/// Durations, sizes and addresses: within their bounds, and shown as what they are.
#[test]
fn units() {
    crate::fuzz::engine::fuzz(
        "units",
        &["ms", "s", "m", "h", "KiB", "GiB", ":8080", "[::1]:", "127.0.0.1:"],
        |input| {
            let text = text(input)?;
            let duration = units::duration(text).inspect(|duration| {
                assert!(*duration <= Duration::from_secs(30 * 24 * 3600));
                let shown = units::show(*duration);
                if !shown.contains('.') {
                    assert_eq!(units::duration(&shown).as_ref(), Ok(duration));
                }
            });
            let size = units::size(text).inspect(|size| assert!(*size <= 1 << 40));
            let listen = units::listen(text)
                .inspect(|address| assert_eq!(units::listen(&address.to_string()).as_ref(), Ok(address)));
            let words = |error: units::Unfit| error.what.split('\'').next().unwrap_or_default().to_owned();
            Some((duration.map(drop).map_err(words), size.map(drop).map_err(words), listen.map(drop).map_err(words)))
        },
    );
}

/// Any file is a history or has a line that is none, and any history can be checked.
#[test]
fn history() {
    let words = [
        "\n",
        "{\"at\":1,",
        "\"event\":\"applied\"",
        "\"event\":\"started\",\"id\":\"a\",\"listeners\":[]",
        "\"seq\":1",
        "\"epoch\":\"2\"",
        "\"from\":\"x\"",
        "\"op\":\"w1\"",
        "\"target\":\"db\"",
        "\"write\":1",
        "\"within_ns\":",
        "18446744073709551615",
    ];
    crate::fuzz::engine::fuzz_for("history", &words, 5_000, |input| {
        let read = read::input(input, "f").map_err(|error| {
            let said = error.to_string();
            said.split(['`', '"'])
                .next()
                .unwrap_or_default()
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .collect::<String>()
        })?;
        for line in &read.lines {
            let again = verify::Line::parse(&line.to_json(), &line.from, line.place.clone());
            assert_eq!(again.as_ref().ok(), Some(line), "it is not read as it was written");
        }
        let shapes = [(true, false), (false, false), (true, true)].map(|(clock, whole)| {
            let verdict = verify::check(&read.lines, Options { clock, whole });
            let said = verdict.to_string();
            assert!(verdict.is_good() || said.contains("violations in"));
            verdict.broken()
        });
        read::first_start_that_went_back(&read.lines);
        Ok::<_, String>((shapes, read.torn.len()))
    });
}
