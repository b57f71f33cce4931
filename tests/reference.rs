//! `docs/reference/` says what the program does. What can be compared beside the code is compared there (metrics,
//! configuration, command line, status, admin side); here are the refusals, and what needs the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use epochgate::fence::Reason;
use epochgate::fence::verdict::{GrpcCode, Outcome};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference")
}

fn page(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("docs/reference/{name}: {error}"))
}

/// The rows of the tables under one heading, by their first cell, which is code.
fn rows(page: &str, heading: &str) -> BTreeMap<String, Vec<String>> {
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("there is a heading `{heading}`"));
    let mut found = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<String> = line.trim_matches('|').split(" |").map(|cell| cell.trim().to_owned()).collect();
        let name = cells[0].trim_matches('`').to_owned();
        assert!(found.insert(name.clone(), cells[1..].to_vec()).is_none(), "`{name}` stands twice under {heading}");
    }
    found
}

const fn grpc(code: GrpcCode) -> &'static str {
    match code {
        GrpcCode::Unknown => "UNKNOWN",
        GrpcCode::InvalidArgument => "INVALID_ARGUMENT",
        GrpcCode::PermissionDenied => "PERMISSION_DENIED",
        GrpcCode::FailedPrecondition => "FAILED_PRECONDITION",
        GrpcCode::Aborted => "ABORTED",
        GrpcCode::Unavailable => "UNAVAILABLE",
    }
}

#[test]
fn every_refusal_is_documented_and_the_other_way_round() {
    let page = page("refusals.md");
    let program: BTreeMap<String, Vec<String>> = Reason::ALL
        .iter()
        .map(|reason| {
            let cells = [&reason.status().to_string(), grpc(reason.grpc()), reason.outcome().as_str()];
            (reason.to_string(), cells.map(str::to_owned).to_vec())
        })
        .collect();
    let table = rows(&page, "Reasons");
    let documented = table.iter().map(|(reason, cells)| (reason.clone(), cells[..3].to_vec())).collect();
    assert_eq!(program, documented, "reason: HTTP, gRPC, outcome");
    for (reason, cells) in &table {
        let places = ["guard", "stamp", "guard, stamp"];
        assert!(places.contains(&cells[3].as_str()), "{reason} is refused at {}", cells[3]);
    }
    let explained = rows(&page, "What they mean, and what to do");
    assert_eq!(explained.keys().collect::<Vec<_>>(), table.keys().collect::<Vec<_>>());
    for (reason, cells) in &explained {
        assert!(!cells[0].is_empty(), "{reason} is explained");
    }
    for reason in Reason::ALL.iter().filter(|reason| reason.is_worth_retrying()) {
        assert_eq!(reason.status(), 503, "each 503 carries Retry-After, and nothing else does");
    }

    let outcomes: BTreeSet<String> = rows(&page, "What became of the write").into_keys().collect();
    assert_eq!(outcomes, Outcome::ALL.map(|outcome| outcome.as_str().to_owned()).into());
}

#[test]
fn every_page_of_the_reference_can_be_followed() {
    let mut pages = 0;
    for entry in fs::read_dir(folder()).expect("there is a reference").flatten() {
        let text = fs::read_to_string(entry.path()).expect("pages are text");
        pages += 1;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { entry.path() } else { folder().join(file) };
            let target = fs::read_to_string(&target).unwrap_or_else(|_| panic!("{:?}: no {link}", entry.file_name()));
            let anchors: Vec<String> =
                target.lines().filter_map(|line| line.strip_prefix('#')).map(as_anchor).collect();
            let found = anchor.is_empty() || anchors.iter().any(|have| have == anchor);
            assert!(found, "{:?}: {link}: there are {anchors:?}", entry.file_name());
        }
    }
    assert!(pages >= 7, "configuration, command line, admin, status, metrics, audit, refusals");
}

/// A heading as links name it.
fn as_anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .replace(' ', "-")
        .chars()
        .filter(|letter| letter.is_alphanumeric() || *letter == '-' || *letter == '_')
        .collect()
}
