//! That the simulation sees something: with a mechanism taken out, some seed finds a violation.

use epochgate::fence::mechanism::{Mechanism, Mechanisms};

use crate::{first_line, first_wrong, number};

/// Within so many seeds each is found.
const WITHIN: u64 = 100;

/// What is taken out, and what the judgement then says. Each is found by one of the first seeds; others, which need more
/// to come together, by one of some hundred (`EPOCHGATE_DANGER_WITHOUT=all` shows it).
const FOUND: &[(Mechanism, &str)] = &[
    (Mechanism::Comparison, "R"),
    (Mechanism::Drain, "(R1)"),
    (Mechanism::LostWrites, "(R1)"),
    (Mechanism::NoAnswer, "(R1)"),
    (Mechanism::WholeAnswer, "(R1)"),
    (Mechanism::SentWhole, "(R1)"),
    (Mechanism::Reset, "(R1)"),
    (Mechanism::DrainedMark, "(R1)"),
    (Mechanism::Residue, "(R1)"),
    (Mechanism::CleanMark, "(R1)"),
    (Mechanism::Persistence, "I8"),
    (Mechanism::OwnTerm, "(R2)"),
    (Mechanism::ConnectionBinding, "R2"),
    (Mechanism::AcceptFirst, "R2"),
    (Mechanism::Deadline, "(R2)"),
    (Mechanism::Nonce, "(R3)"),
    (Mechanism::Confirmation, "(R"),
    (Mechanism::Agreement, "(R1)"),
    (Mechanism::Regression, "(R5)"),
];

/// Prints a table. `EPOCHGATE_DANGER_WITHOUT` names what is to be taken out ("all": each in turn), `EPOCHGATE_SEEDS` says
/// among how many seeds the first is looked for that finds a violation.
#[test]
fn what_is_taken_out_is_found_missing() {
    let within = number("EPOCHGATE_SEEDS").unwrap_or(WITHIN);
    let only = std::env::var("EPOCHGATE_DANGER_WITHOUT").unwrap_or_default();
    let named = |mechanism: &Mechanism| only == "all" || only.split(',').any(|name| name == mechanism.as_str());
    let lines: Vec<(Mechanism, &str)> = match only.is_empty() {
        true => FOUND.to_vec(),
        false => Mechanism::ALL.iter().copied().filter(named).map(|mechanism| (mechanism, "")).collect(),
    };
    println!("| taken out | first seed | what it finds |\n|---|---|---|");
    let mut missed = Vec::new();
    for (mechanism, what) in lines {
        let name = mechanism.as_str();
        match first_wrong(1, within, Mechanisms::all().without(mechanism), what) {
            Some((seed, wrong)) => println!("| `{name}` | {seed} | {} |", first_line(&wrong)),
            None => {
                println!("| `{name}` | none of {within} | |");
                missed.push(name);
            }
        }
    }
    assert!(missed.is_empty() || only == "all", "without these no seed of {within} found anything: {missed:?}");
}
