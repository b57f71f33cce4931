//! Scripts at random: nothing of them is run where it could change something, and what a client sees is what it would see without a
//! guard.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// One thing that a client does.
#[derive(Clone, Debug)]
enum Act {
    Query(&'static str),
    Run(&'static str),
    Prepare(&'static str, &'static str),
    RunPrepared(&'static str),
    Close(&'static str),
    Sync,
    Flush,
    Call,
    Data,
    CopyDone,
}

impl Act {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Act::Query(sql) => query(sql),
            Act::Run(sql) => run(sql),
            Act::Prepare(name, sql) => parse(name, sql),
            Act::RunPrepared(name) => [bind("", name), describe("P"), execute("")].concat(),
            Act::Close(name) => message(b'C', format!("S{name}\0").as_bytes()),
            Act::Sync => sync(),
            Act::Flush => message(b'H', b""),
            Act::Call => message(b'F', &[0; 10]),
            Act::Data => message(b'd', b"x"),
            Act::CopyDone => message(b'c', b""),
        }
    }
}

/// What is the same in a transaction of the guard's and in none.
const HARMLESS: &[&str] = &["select", "begin", "commit", "rollback", "write", "bad", "", "copy out", "notice"];
const ALL: &[&str] = &[
    "select",
    "begin",
    "commit",
    "rollback",
    "chain",
    "read write",
    "write",
    "bad",
    "copy out",
    "suspended",
    "hidden write",
];
const NAMES: &[&str] = &["", "s", "epochgate"];

fn hostile() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => select(ALL).prop_map(Act::Query),
        4 => select(ALL).prop_map(Act::Run),
        2 => (select(NAMES), select(ALL)).prop_map(|(name, sql)| Act::Prepare(name, sql)),
        2 => select(NAMES).prop_map(Act::RunPrepared),
        1 => select(NAMES).prop_map(Act::Close),
        3 => Just(Act::Sync),
        1 => Just(Act::Flush),
        1 => Just(Act::Call),
        1 => Just(Act::Data),
        1 => Just(Act::CopyDone),
    ]
}

fn harmless() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => select(HARMLESS).prop_map(Act::Query),
        4 => select(HARMLESS).prop_map(Act::Run),
        2 => select(HARMLESS).prop_map(|sql| Act::Prepare("s", sql)),
        2 => Just(Act::RunPrepared("s")),
        1 => Just(Act::Close("s")),
        4 => Just(Act::Sync),
        1 => Just(Act::Flush),
        1 => Just(Act::Call),
    ]
}

/// Warnings about BEGIN and COMMIT outside of a transaction are the one thing that a client does not see.
fn without_warnings(told: &str) -> String {
    told.split(' ').filter(|message| *message != "N").collect::<Vec<_>>().join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_run_but_in_a_read_only_transaction_with_a_snapshot(
        acts in prop::collection::vec(hostile(), 1..40),
        cuts in prop::collection::vec(1..200_usize, 1..20),
    ) {
        let bytes: Vec<u8> = acts.iter().flat_map(Act::bytes).collect();
        let (mut play, mut rest, mut cuts) = (Play::start(), &bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cuts.next().expect("a cycle")).min(rest.len()));
            play.ahead.extend_from_slice(now);
            // The model judges.
            play.turn(*cuts.next().expect("a cycle")).expect("it goes on");
            rest = later;
        }
        play.send(&sync()).expect("it goes on");
        prop_assert!(play.told().contains('Z'), "every Sync is answered");
        prop_assert!(play.ahead.is_empty(), "nothing waits for ever");
    }

    #[test]
    fn a_client_sees_what_it_would_see_without_a_guard(
        acts in prop::collection::vec(harmless(), 1..30),
        piece in 1..100_usize,
    ) {
        let bytes: Vec<u8> = acts.iter().flat_map(Act::bytes).chain(sync()).collect();
        let mut play = Play::start();
        play.ahead.extend_from_slice(&bytes);
        play.turn(piece).expect("it goes on");
        let direct = short(&Server::default().take(&bytes));
        prop_assert_eq!(without_warnings(&play.told()), without_warnings(&direct));
    }
}
