//! The checker on histories that it can be checked with itself: one that keeps every rule, and each way to break one.

mod legal;
mod page;

use super::read::input;
use super::*;

/// Two writers, one door: a write of the first epoch, a handoff, a refusal, a loss, and one more after all faults.
pub(super) const GOOD: &str = r#"
{"at":100,"from":"guard","event":"started","id":"guard","listeners":[{"name":"orders-guard","target":"db"}]}
{"at":100,"from":"a","event":"started","id":"a","listeners":[{"name":"orders-stamp"}]}
{"at":100,"from":"b","event":"started","id":"b","listeners":[{"name":"orders-stamp"}]}
{"at":110,"from":"etcd","event":"granted","resource":"orders","epoch":"1","nonce":"AAAAAAAAAAE=","writer":"a"}
{"at":120,"from":"a","event":"elected","resource":"orders","epoch":"1","nonce":"AAAAAAAAAAE=","writer":"a","own":true}
{"at":130,"from":"guard","event":"verified","resource":"orders","target":"db","epoch":"1","nonce":"AAAAAAAAAAE=","writer":"a","revision":3}
{"at":140,"from":"guard","event":"persisted","resource":"orders","target":"db","epoch":"1","drained":false}
{"at":150,"from":"guard","event":"fenced","resource":"orders","target":"db","epoch":"1"}
{"at":155,"from":"guard","event":"drained","resource":"orders","target":"db","epoch":"1","by":"answers"}
{"at":160,"from":"guard","event":"persisted","resource":"orders","target":"db","epoch":"1","drained":true}
{"at":170,"from":"guard","event":"opened","resource":"orders","target":"db","epoch":"1","forced":false}
{"at":180,"from":"client","event":"sent","op":"w1","resource":"orders","target":"db","body":"d1"}
{"at":185,"from":"a","event":"stamped","listener":"orders-stamp","resource":"orders","epoch":"1","nonce":"AAAAAAAAAAE=","deadline":1000}
{"at":190,"from":"guard","event":"admitted","listener":"orders-guard","resource":"orders","epoch":"1","write":1}
{"at":191,"from":"guard","event":"forwarded","listener":"orders-guard","resource":"orders","epoch":"1","write":1}
{"at":195,"from":"db","event":"received","target":"db","resource":"orders","op":"w1","epoch":"1","nonce":"AAAAAAAAAAE=","writer":"a"}
{"at":200,"from":"db","event":"applied","target":"db","resource":"orders","op":"w1","epoch":"1","nonce":"AAAAAAAAAAE=","writer":"a","body":"d1","seq":1}
{"at":210,"from":"guard","event":"settled","listener":"orders-guard","resource":"orders","epoch":"1","write":1,"how":"answered"}
{"at":220,"from":"client","event":"ended","op":"w1","outcome":"answered","status":201}
{"at":300,"from":"etcd","event":"granted","resource":"orders","epoch":"2","nonce":"AAAAAAAAAAI=","writer":"b"}
{"at":310,"from":"b","event":"elected","resource":"orders","epoch":"2","nonce":"AAAAAAAAAAI=","writer":"b","own":true}
{"at":315,"from":"a","event":"elected","resource":"orders","epoch":"2","nonce":"AAAAAAAAAAI=","writer":"b","own":false}
{"at":320,"from":"guard","event":"verified","resource":"orders","target":"db","epoch":"2","nonce":"AAAAAAAAAAI=","writer":"b","revision":5}
{"at":330,"from":"guard","event":"persisted","resource":"orders","target":"db","epoch":"2","drained":false}
{"at":340,"from":"guard","event":"fenced","resource":"orders","target":"db","epoch":"2"}
{"at":345,"from":"client","event":"sent","op":"w2","resource":"orders","target":"db","body":"d2"}
{"at":350,"from":"guard","event":"refused","listener":"orders-guard","refusal":{"reason":"stale_epoch","detail":"it is over","resource":"orders","epoch":"1","required_epoch":"2","writer":"a"},"peer":"127.0.0.1:1","method":"PUT","path":"/w2","kind":"write"}
{"at":355,"from":"client","event":"ended","op":"w2","outcome":"not_applied","status":412,"reason":"stale_epoch"}
{"at":360,"from":"guard","event":"drained","resource":"orders","target":"db","epoch":"2","by":"answers"}
{"at":370,"from":"guard","event":"persisted","resource":"orders","target":"db","epoch":"2","drained":true}
{"at":380,"from":"guard","event":"opened","resource":"orders","target":"db","epoch":"2","forced":false}
{"at":390,"from":"client","event":"sent","op":"w3","resource":"orders","target":"db","body":"d3"}
{"at":395,"from":"b","event":"stamped","listener":"orders-stamp","resource":"orders","epoch":"2","nonce":"AAAAAAAAAAI=","deadline":1000}
{"at":400,"from":"guard","event":"admitted","listener":"orders-guard","resource":"orders","epoch":"2","write":2}
{"at":401,"from":"guard","event":"forwarded","listener":"orders-guard","resource":"orders","epoch":"2","write":2}
{"at":405,"from":"db","event":"received","target":"db","resource":"orders","op":"w3","epoch":"2"}
{"at":410,"from":"guard","event":"settled","listener":"orders-guard","resource":"orders","epoch":"2","write":2,"how":"lost"}
{"at":420,"from":"client","event":"ended","op":"w3","outcome":"unknown","status":502,"reason":"upstream_broken"}
{"at":419,"from":"guard","event":"refused","listener":"orders-guard","refusal":{"reason":"upstream_broken","detail":"it broke off","resource":"orders","epoch":"2"},"peer":"127.0.0.1:1","method":"PUT","path":"/w3","kind":"write"}
{"at":430,"from":"db","event":"applied","target":"db","resource":"orders","op":"w3","epoch":"2","body":"d3","seq":2}
{"at":500,"from":"test","event":"faults_over","within_ns":1000}
{"at":600,"from":"client","event":"sent","op":"w4","resource":"orders","target":"db","body":"d4"}
{"at":610,"from":"guard","event":"admitted","listener":"orders-guard","resource":"orders","epoch":"2","write":3}
{"at":611,"from":"guard","event":"forwarded","listener":"orders-guard","resource":"orders","epoch":"2","write":3}
{"at":620,"from":"db","event":"applied","target":"db","resource":"orders","op":"w4","epoch":"2","body":"d4","seq":3}
{"at":630,"from":"guard","event":"settled","listener":"orders-guard","resource":"orders","epoch":"2","write":3,"how":"answered"}
{"at":700,"from":"client","event":"ended","op":"w4","outcome":"answered","status":200}
{"at":800,"from":"a","event":"stopped"}
{"at":800,"from":"b","event":"stopped"}
{"at":800,"from":"guard","event":"stopped"}
"#;

pub(super) fn lines(text: &str) -> Vec<Line> {
    input(text.as_bytes(), "").unwrap_or_else(|error| panic!("{error}")).lines
}

fn verdict(text: &str) -> Verdict {
    check(&lines(text), Options::default())
}

/// The good history with some of its lines different: each pair is the begin of what stands there once, and what stands
/// there instead.
#[track_caller]
fn with(changes: &[(&str, &str)]) -> String {
    let mut text = GOOD.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "{from} stands there once");
        text = text.replacen(from, to, 1);
    }
    text
}

/// The good history without the one line that has this in it.
#[track_caller]
fn without(text: &str, part: &str) -> String {
    assert_eq!(text.lines().filter(|line| line.contains(part)).count(), 1, "{part} is in one line");
    text.lines().filter(|line| !line.contains(part)).fold(String::new(), |all, line| all + line + "\n")
}

/// That exactly one thing is wrong: the invariant, the rule, what the sentence says, and the times of the lines.
#[track_caller]
fn assert_wrong(text: &str, invariant: Invariant, rule: &str, said: &str, at: &[u64]) {
    let verdict = verdict(text);
    let [violation] = verdict.violations.as_slice() else { panic!("one violation of {invariant}: {verdict}") };
    assert_eq!((violation.invariant, violation.rule), (invariant, rule), "{verdict}");
    assert!(violation.what.contains(said), "{verdict}");
    let times: Vec<u64> = violation.lines.iter().map(|line| line.at.as_nanos()).collect();
    assert_eq!(times, at, "{verdict}");
}

#[test]
fn a_good_history_is_good() {
    let verdict = verdict(GOOD);
    assert!(verdict.is_good() && verdict.not_checked.is_empty(), "{verdict} {:?}", verdict.not_checked);
    let Counts { lines, processes, starts, operations, acknowledged, applied, terms, opened } = verdict.counts;
    assert_eq!((lines, processes, starts), (50, 3, 3));
    assert_eq!((operations, acknowledged, applied, terms, opened), (4, 2, 3, 2, 2));
    for options in [Options { clock: false, whole: false }, Options { clock: true, whole: true }] {
        assert!(check(&super::tests::lines(GOOD), options).is_good(), "{options:?}");
    }
}

#[test]
fn i0_the_history_contradicts_itself() {
    let twice = with(&[("\"body\":\"d3\",\"seq\":2}", "\"body\":\"d3\",\"seq\":1}")]);
    assert_wrong(&twice, Invariant::Record, "history", "have the place 1", &[200, 430]);
    let end = r#"{"at":421,"from":"client","event":"ended","op":"w2","outcome":"unknown"}"#;
    assert_wrong(&(GOOD.to_owned() + end), Invariant::Record, "history", "w2 ended 2 times", &[345, 355, 421]);
}

/// The write of epoch 1 lands after that of epoch 2, unseen by the door, whose books have it as answered.
#[test]
fn i1_an_old_write_is_applied_after_a_new_one() {
    let late = with(&[("\"body\":\"d1\",\"seq\":1}", "\"body\":\"d1\",\"seq\":9}")]);
    let said = "orders at db: a write of epoch 1 was applied (place 9) after one of epoch 2 (place 3)";
    assert_wrong(&late, Invariant::Order, "R1", said, &[620, 200]);
}

#[test]
fn i2_a_write_is_applied_after_its_epoch_was_closed() {
    let late = with(&[("{\"at\":200,\"from\":\"db\"", "{\"at\":390,\"from\":\"db\"")]);
    let said = "a write of epoch 1 was applied 10ns after guard had opened epoch 2";
    assert_wrong(&late, Invariant::Closed, "R1", said, &[380, 390]);
    let forced = late.replace("\"epoch\":\"2\",\"forced\":false", "\"epoch\":\"2\",\"forced\":true");
    assert!(verdict(&forced).is_good(), "whoever opens by force has been told");
    let admitted = with(&[(
        "{\"at\":610,\"from\":\"guard\"",
        "{\"at\":345,\"from\":\"guard\",\"event\":\"admitted\",\"listener\":\"orders-guard\",\"resource\":\"orders\",\"epoch\":\"1\",\"write\":9}\n\
         {\"at\":346,\"from\":\"guard\",\"event\":\"settled\",\"listener\":\"orders-guard\",\"resource\":\"orders\",\"epoch\":\"1\",\"write\":9,\"how\":\"nothing_left\"}\n\
         {\"at\":610,\"from\":\"guard\"",
    )]);
    assert_wrong(&admitted, Invariant::Closed, "R1", "epoch 1 was admitted after epoch 2 was fenced", &[340, 345]);
}

/// Where a target has several doors, any of them closes it for what is older.
#[test]
fn i2_counts_every_door_of_a_target() {
    let other = r#"{"at":198,"from":"guard-2","event":"started","id":"g","listeners":[{"name":"g","target":"db"}]}
{"at":198,"from":"guard-2","event":"persisted","resource":"orders","target":"db","epoch":"2","drained":true}
{"at":199,"from":"guard-2","event":"opened","resource":"orders","target":"db","epoch":"2","forced":false}
{"at":800,"from":"guard-2","event":"stopped"}"#;
    let said = "after guard-2 had opened epoch 2";
    assert_wrong(&(GOOD.to_owned() + other), Invariant::Closed, "R1", said, &[199, 200]);
}

#[test]
fn i3_an_acknowledged_write_is_not_there_or_twice_or_another() {
    let lost = without(GOOD, "\"op\":\"w4\",\"epoch\"");
    assert_wrong(&lost, Invariant::Acknowledged, "R6", "w4 was acknowledged, and never applied", &[600, 700]);
    let again =
        r#"{"at":640,"from":"db","event":"applied","target":"db","resource":"orders","op":"w4","body":"d4","seq":4}"#;
    let twice = GOOD.to_owned() + again + "\n" + &one_more_forward();
    assert_wrong(&twice, Invariant::Acknowledged, "R6", "w4 was sent once, and applied 2 times", &[600, 620, 640, 700]);
    let other = with(&[("\"body\":\"d4\",\"seq\"", "\"body\":\"d5\",\"seq\"")]);
    assert_wrong(&other, Invariant::Acknowledged, "R6", "another body (d5)", &[600, 620, 700]);
}

/// A door lets one more in, so that the target's count is right.
fn one_more_forward() -> String {
    ["admitted", "forwarded", "settled"]
        .iter()
        .enumerate()
        .map(|(number, event)| {
            let how = if *event == "settled" { ",\"how\":\"answered\"" } else { "" };
            let at = 635 + number;
            format!(
                "{{\"at\":{at},\"from\":\"guard\",\"event\":\"{event}\",\"listener\":\"orders-guard\",\"resource\":\"orders\",\"epoch\":\"2\",\"write\":8{how}}}\n"
            )
        })
        .collect()
}

#[test]
fn i4_a_refused_write_is_there() {
    let applied =
        r#"{"at":660,"from":"db","event":"applied","target":"db","resource":"orders","op":"w2","epoch":"2","seq":5}"#;
    let there = GOOD.to_owned() + applied + "\n" + &one_more_forward();
    assert_wrong(&there, Invariant::Refused, "R6", "w2 was refused, certainly not applied", &[345, 355, 660]);
}

#[test]
fn i5_an_unknown_write_is_there_twice() {
    let again =
        r#"{"at":431,"from":"db","event":"applied","target":"db","resource":"orders","op":"w3","epoch":"2","seq":6}"#;
    let twice = GOOD.to_owned() + again + "\n" + &one_more_forward();
    assert_wrong(&twice, Invariant::Unknown, "R6", "w3 was sent once, and applied 2 times", &[390, 405, 420, 430, 431]);
    let never = without(&without(GOOD, "\"op\":\"w3\",\"epoch\":\"2\",\"body\""), "\"op\":\"w3\",\"epoch\":\"2\"}");
    assert!(verdict(&never).is_good(), "once, or not at all");
}

/// A client may send again by itself: then each send may be applied, and each that was refused is not.
#[test]
fn what_a_client_sends_again_may_be_there_again() {
    let again = r#"{"at":640,"from":"client","event":"sent","op":"w4","resource":"orders","body":"d4"}
{"at":650,"from":"client","event":"ended","op":"w4","outcome":"unknown"}"#;
    assert!(verdict(&(GOOD.to_owned() + again)).is_good());
    let applied = "\n{\"at\":645,\"from\":\"db\",\"event\":\"applied\",\"target\":\"db\",\"resource\":\"orders\",\"op\":\"w4\",\"body\":\"d4\",\"seq\":4}\n";
    let there = GOOD.to_owned() + again + applied + &one_more_forward();
    assert!(verdict(&there).is_good(), "{}", verdict(&there));
    let refused = there.replace("\"op\":\"w4\",\"outcome\":\"unknown\"", "\"op\":\"w4\",\"outcome\":\"not_applied\"");
    let said = "w4 was applied 2 times; of its 2 sends, 1 were certainly not applied";
    assert_wrong(&refused, Invariant::Acknowledged, "R6", said, &[600, 620, 640, 645, 650, 700]);
}

#[test]
fn i6_an_epoch_was_never_granted() {
    let forged = with(&[
        ("\"op\":\"w4\",\"epoch\":\"2\"", "\"op\":\"w4\",\"epoch\":\"9\""),
        ("\"epoch\":\"2\",\"write\":3}\n{\"at\":620", "\"epoch\":\"9\",\"write\":3}\n{\"at\":620"),
        ("\"epoch\":\"2\",\"write\":3}\n{\"at\":611", "\"epoch\":\"9\",\"write\":3}\n{\"at\":611"),
        ("\"epoch\":\"2\",\"write\":3,\"how\"", "\"epoch\":\"9\",\"write\":3,\"how\""),
    ]);
    let verdict = verdict(&forged);
    let granted = verdict.violations.iter().find(|violation| violation.invariant == Invariant::Granted);
    let granted = granted.unwrap_or_else(|| panic!("{verdict}"));
    assert_eq!(granted.rule, "R4");
    assert!(granted.what.contains("a write of epoch 9 was applied, and nobody was granted"), "{verdict}");
    assert_eq!(granted.lines[0].at.as_nanos(), 620);
}

/// "Stamp with the current epoch": the old leader's write goes out under the new leader's epoch.
#[test]
fn i6_an_epoch_is_used_by_another() {
    let laundered = with(&[("\"op\":\"w4\",\"epoch\":\"2\"", "\"op\":\"w4\",\"epoch\":\"2\",\"writer\":\"a\"")]);
    let said = "under the term of a, and the epoch was granted to b (nonce AAAAAAAAAAI=)";
    assert_wrong(&laundered, Invariant::Granted, "R2", said, &[300, 620]);
    let stamped = with(&[("{\"at\":395,\"from\":\"b\"", "{\"at\":395,\"from\":\"a\"")]);
    assert_wrong(
        &stamped,
        Invariant::Granted,
        "R2",
        "a stamped epoch 2 (nonce AAAAAAAAAAI=), which it had not won",
        &[315, 395],
    );
    let too_late = with(&[(
        "\"epoch\":\"2\",\"nonce\":\"AAAAAAAAAAI=\",\"deadline\":1000",
        "\"epoch\":\"2\",\"nonce\":\"AAAAAAAAAAI=\",\"deadline\":395",
    )]);
    assert_wrong(&too_late, Invariant::Granted, "R2", "b stamped epoch 2 0ns after its deadline", &[395]);
}

#[test]
fn i6_an_epoch_is_granted_twice_or_backwards() {
    let again = r#"{"at":400,"from":"etcd","event":"granted","resource":"orders","epoch":"2","nonce":"AAAAAAAAAAM=","writer":"a"}"#;
    let twice = GOOD.to_owned() + again;
    let said = "epoch 2 was granted by both b (nonce AAAAAAAAAAI=) and a (nonce AAAAAAAAAAM=)";
    assert_wrong(&twice, Invariant::Granted, "R3", said, &[300, 400]);
    let rewound = twice + "\n{\"at\":399,\"from\":\"test\",\"event\":\"rewound\"}\n";
    assert!(verdict(&rewound).is_good(), "a coordinator that lost its memory does that");
    let both = rewound
        + r#"{"at":440,"from":"db","event":"applied","target":"db","resource":"orders","epoch":"2","nonce":"AAAAAAAAAAM=","seq":7}
{"at":441,"from":"db","event":"applied","target":"db","resource":"orders","epoch":"2","nonce":"AAAAAAAAAAI=","seq":8}
"# + &one_more_forward()
        + &one_more_forward().replace("\"write\":8", "\"write\":9");
    assert_wrong(&both, Invariant::Granted, "R3", "epoch 2 was used by both", &[440, 441]);
    let back = GOOD.replace(
        "\"event\":\"granted\",\"resource\":\"orders\",\"epoch\":\"1\"",
        "\"event\":\"granted\",\"resource\":\"orders\",\"epoch\":\"3\"",
    );
    let back = back
        + r#"{"at":105,"from":"etcd","event":"granted","resource":"orders","epoch":"1","nonce":"AAAAAAAAAAE=","writer":"a"}"#;
    assert_wrong(&back, Invariant::Granted, "R3", "epoch 2 was granted after epoch 3", &[110, 300]);
}

/// The guard was killed, and starts again with `after`.
fn restarted(after: &str) -> String {
    let text = without(GOOD, "{\"at\":800,\"from\":\"guard\"");
    let started = r#"{"at":900,"from":"guard","event":"started","id":"guard","listeners":[{"name":"orders-guard","target":"db"}]}"#;
    format!("{text}{{\"at\":850,\"from\":\"test\",\"event\":\"killed\",\"process\":\"guard\"}}\n{started}\n{after}")
}

#[test]
fn i7_a_door_forgets() {
    let floor =
        r#"{"at":910,"from":"guard","event":"persisted","resource":"orders","target":"db","epoch":"1","drained":true}"#;
    assert_wrong(&restarted(floor), Invariant::Floor, "R5", "its floor went down, from epoch 2 to 1", &[370, 910]);
    let old = r#"{"at":910,"from":"guard","event":"admitted","listener":"orders-guard","resource":"orders","epoch":"1","write":1}"#;
    let said = "epoch 1 was admitted after a restart; its floor had been epoch 2";
    assert_wrong(&restarted(old), Invariant::Floor, "R5", said, &[370, 910]);
}

#[test]
fn i7_a_floor_that_was_never_granted() {
    let forged = with(&[(
        "{\"at\":800,\"from\":\"guard\"",
        "{\"at\":790,\"from\":\"guard\",\"event\":\"persisted\",\"resource\":\"orders\",\"target\":\"db\",\"epoch\":\"999999999999999\",\"drained\":false}\n{\"at\":800,\"from\":\"guard\"",
    )]);
    let said = "its floor is epoch 999999999999999; the highest that was ever granted is 2";
    assert_wrong(&forged, Invariant::Floor, "R4", said, &[300, 790]);
}

#[test]
fn i8_a_door_acts_before_the_disk_has_it() {
    let unwritten = without(&without(GOOD, "{\"at\":330"), "{\"at\":370");
    let fenced = verdict(&unwritten);
    assert_eq!(fenced.violations.len(), 2, "{fenced}");
    assert!(fenced.violations[0].what.contains("fenced for epoch 2 before that was on disk"), "{fenced}");
    assert!(fenced.violations[1].what.contains("epoch 2 was opened before it was on disk"), "{fenced}");
    let failed = r#"{"at":335,"from":"guard","event":"floor_write_failed","resources":["orders"],"error":"disk full"}"#;
    let from_memory = without(GOOD, "{\"at\":330").replace("{\"at\":340,", &format!("{failed}\n{{\"at\":340,"));
    assert!(verdict(&from_memory).is_good(), "{}", verdict(&from_memory));

    let unmarked = without(GOOD, "{\"at\":370");
    let said = "epoch 2 was opened before the mark that it has drained was on disk";
    assert_wrong(&unmarked, Invariant::Persisted, "R1", said, &[330, 380]);
    let early = with(&[("{\"at\":170,", "{\"at\":192,")]);
    assert_wrong(&early, Invariant::Persisted, "R1", "epoch 1 was admitted before it was opened", &[190]);
    let next_life = r#"{"at":910,"from":"guard","event":"admitted","listener":"orders-guard","resource":"orders","epoch":"2","write":1}"#;
    assert_wrong(
        &restarted(next_life),
        Invariant::Persisted,
        "R1",
        "epoch 2 was admitted before it was opened",
        &[910],
    );
}

#[test]
fn i9_the_books_are_wrong() {
    for (text, said, at) in [
        (without(GOOD, "{\"at\":210"), "write 1 was never settled, and the process stopped", &[190, 191][..]),
        (without(GOOD, "{\"at\":190"), "write 1 was forwarded, and never admitted", &[191, 210]),
        (without(GOOD, "{\"at\":611"), "write 3 was answered, and never forwarded", &[610, 630]),
        (with(&[("{\"at\":210,", "{\"at\":190,")]), "write 1 went on after it was settled", &[190, 190, 191]),
        (
            with(&[("\"epoch\":\"1\",\"write\":1,\"how\"", "\"epoch\":\"2\",\"write\":1,\"how\"")]),
            "does not have one epoch",
            &[190, 191, 210],
        ),
        (GOOD.replace("\"write\":3", "\"write\":2"), "write 2 was admitted 2 times", &[400, 401, 410, 610, 611, 630]),
    ] {
        let found = verdict(&text);
        let violation = found.violations.iter().find(|violation| violation.what.contains(said));
        let violation = violation.unwrap_or_else(|| panic!("{said}: {found}"));
        assert_eq!((violation.invariant, violation.rule), (Invariant::Books, "R6"), "{found}");
        assert_eq!(violation.lines.iter().map(|line| line.at.as_nanos()).collect::<Vec<_>>(), at, "{found}");
        assert_eq!(found.broken(), [Invariant::Books].into(), "{found}");
    }
    let killed = without(GOOD, "{\"at\":210").replace(
        "\"from\":\"guard\",\"event\":\"stopped\"",
        "\"from\":\"guard\",\"event\":\"coordinator_up\",\"endpoint\":\"\"",
    );
    assert!(verdict(&killed).is_good(), "one that was killed has not written everything: {}", verdict(&killed));
}

/// A new life counts its writes from the start.
#[test]
fn numbers_begin_anew_with_the_process() {
    let again = r#"{"at":905,"from":"guard","event":"persisted","resource":"orders","target":"db","epoch":"2","drained":true}
{"at":906,"from":"guard","event":"opened","resource":"orders","target":"db","epoch":"2","forced":false}
{"at":910,"from":"guard","event":"admitted","listener":"orders-guard","resource":"orders","epoch":"2","write":1}"#;
    let text = restarted(again);
    assert!(verdict(&text).is_good(), "{}", verdict(&text));
    // The same where only the test says so.
    let silent = text.lines().filter(|line| !line.contains("\"started\"")).collect::<Vec<_>>().join("\n");
    assert!(verdict(&silent).is_good(), "{}", verdict(&silent));
    assert_eq!(verdict(&silent).counts.starts, 4);
    let unsaid =
        silent.replace("\"killed\"", "\"restarted\"").replace("\"process\":\"guard\"", "\"process\":\"other\"");
    assert_eq!(verdict(&unsaid).broken(), [Invariant::Books].into(), "{}", verdict(&unsaid));
}

#[test]
fn i9_something_goes_around_the_door() {
    let past = r#"{"at":640,"from":"db","event":"applied","target":"db","resource":"orders","epoch":"2","seq":4}"#;
    let found = verdict(&(GOOD.to_owned() + past));
    assert_eq!(found.broken(), [Invariant::Books].into(), "{found}");
    assert!(found.violations[0].what.contains("3 writes of epoch 2 came, and its doors forwarded 2"), "{found}");
    let unstamped = verdict(&(GOOD.to_owned() + &past.replace("\"epoch\":\"2\",", "")));
    assert!(unstamped.violations[0].what.contains("4 writes came, and its doors forwarded 3"), "{unstamped}");
}

/// A session that was let in may carry any number of writes; where none was, there is none that could have.
#[test]
fn i9_a_session_carries_many_writes() {
    let sessions = GOOD.replace(
        r#"{"name":"orders-guard","target":"db"}"#,
        r#"{"name":"orders-guard","target":"db","sessions":true}"#,
    );
    let more = r#"{"at":640,"from":"db","event":"applied","target":"db","resource":"orders","epoch":"2","seq":4}"#;
    assert!(verdict(&(sessions.clone() + more)).is_good());
    let silent = without(&without(&sessions, "{\"at\":191"), "{\"at\":210");
    let found = verdict(&silent);
    assert!(
        found
            .violations
            .iter()
            .any(|violation| violation.what.contains("1 writes of epoch 1 came, and its doors forwarded 0")),
        "{found}"
    );
}

#[test]
fn i10_an_operation_comes_more_often_than_it_was_sent() {
    let again = r#"{"at":196,"from":"db","event":"received","target":"db","resource":"orders","op":"w1","epoch":"1"}"#;
    let found = verdict(&(GOOD.to_owned() + again));
    assert_eq!(found.broken(), [Invariant::Books, Invariant::Once].into(), "{found}");
    assert!(
        found
            .violations
            .iter()
            .any(|violation| violation.what == "operation w1 was received 2 times, and sent 1 times")
    );
    let unsent = without(&without(GOOD, "\"sent\",\"op\":\"w4\""), "\"ended\",\"op\":\"w4\"");
    let unsent = unsent.replace("{\"at\":500,", "{\"at\":50,").replace("\"within_ns\":1000", "\"within_ns\":900");
    assert_wrong(&unsent, Invariant::Once, "R6", "w4 was applied 1 times, and sent 0 times", &[620]);
}

#[test]
fn i11_it_does_not_go_on() {
    for text in [
        with(&[("\"within_ns\":1000", "\"within_ns\":199")]),
        with(&[(
            "\"op\":\"w4\",\"outcome\":\"answered\",\"status\":200",
            "\"op\":\"w4\",\"outcome\":\"answered\",\"status\":500",
        )]),
    ] {
        assert_wrong(&text, Invariant::Liveness, "liveness", "no write that was sent after the faults", &[500]);
    }
    let quiet = with(&[("{\"at\":500,", "{\"at\":650,")]);
    assert_wrong(&quiet, Invariant::Liveness, "liveness", "nothing was sent after the faults were over", &[650]);
}

#[test]
fn i13_what_clients_were_told() {
    let silent = without(GOOD, "{\"at\":350");
    assert_wrong(&silent, Invariant::Told, "R7", "1 clients were refused with stale_epoch, and 0 such", &[355]);
    let senseless = with(&[("\"required_epoch\":\"2\"", "\"required_epoch\":\"1\"")]);
    assert_wrong(&senseless, Invariant::Told, "R7", "without a higher one that is required", &[350]);
}

/// Several hosts: nothing is concluded from the times of two files.
#[test]
fn times_of_several_clocks_are_not_compared() {
    let late = with(&[("{\"at\":200,\"from\":\"db\"", "{\"at\":390,\"from\":\"db\"")]);
    let mut lines = lines(&late);
    for line in &mut lines {
        line.place.file = format!("{}.jsonl", line.from).into();
    }
    assert_eq!(check(&lines, Options::default()).broken(), [Invariant::Closed].into());
    let verdict = check(&lines, Options { clock: false, whole: false });
    assert!(verdict.is_good(), "{verdict}");
    assert_not_checked(&verdict, "I11: the times of several clocks");
    assert_not_checked(&verdict, "I2 at db: its doors' lines are in other files than its own");
}

#[track_caller]
fn assert_not_checked(verdict: &Verdict, said: &str) {
    assert!(verdict.not_checked.iter().any(|what| what.contains(said)), "{said}: {:#?}", verdict.not_checked);
}

/// The good history without the lines of some.
fn without_lines_of(whose: &[&str]) -> String {
    let of = |line: &&str| whose.iter().any(|name| line.contains(&format!("\"from\":\"{name}\"")));
    GOOD.lines().filter(|line| !of(line)).fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn what_nobody_could_look_at_is_listed() {
    for (whose, said) in [
        (&["db"][..], "I1, I2, I9 and I10 at the target, and I3, I4 and I5: no target's lines are there"),
        (&["client", "test"], "I3, I4, I5 and I10: no client's lines are there"),
        (&["guard"], "I2, I7, I8 and I9: no door's lines are there"),
        (&["a", "b"], "I6, that writers stamp only what they won: no stamp's lines are there"),
        (&["a"], "I6, that writers stamp only what they won: no lines are there of a"),
        (&["etcd"], "I6 and I7, that every epoch was granted: no `granted` line is of orders"),
    ] {
        let verdict = verdict(&without_lines_of(whose));
        assert_not_checked(&verdict, said);
        assert_eq!(verdict.not_checked.len(), 1, "{whose:?}: {:#?}", verdict.not_checked);
    }
    let headless = verdict(&without(GOOD, "\"started\",\"id\":\"guard\""));
    assert_not_checked(&headless, "of guard in part: its lines do not begin with `started`");
    let unstamped = verdict(&GOOD.replace("\"op\":\"w4\",\"epoch\":\"2\"", "\"op\":\"w4\""));
    assert_not_checked(&unstamped, "I1, I2 and I6 of 1 writes at db: they have no `epoch`");
}

/// One name for a target in the configuration of its door, another in the lines of its own.
#[test]
fn two_names_for_one_target_are_noticed() {
    let lines = GOOD.lines().map(|line| match line.contains("\"from\":\"db\"") {
        true => line.replace("\"target\":\"db\"", "\"target\":\"base\"") + "\n",
        false => line.to_owned() + "\n",
    });
    let verdict = verdict(&lines.collect::<String>());
    assert_not_checked(&verdict, "no `applied` line is of db; there are some of base");
    assert_not_checked(&verdict, "I2 and I9 at base: no door guards base; there are some before db");
}

#[test]
fn whoever_did_not_stop_in_order_is_named() {
    let killed = without(&without(GOOD, "{\"at\":800,\"from\":\"guard\""), "{\"at\":630,");
    let verdict = verdict(&killed);
    assert!(verdict.is_good(), "{verdict}");
    assert_not_checked(&verdict, "I9 at db, whether anything went past its doors: the lines of guard do not end");
    assert_not_checked(&verdict, "I13, that all that clients were told is on record: the lines of guard do not end");
    assert_not_checked(&verdict, "I9 of 1 writes that guard let in: it did not stop in order");
    assert!(verdict.not_checked.iter().any(|what| what.contains("stop each process in order (SIGTERM) before")));
}

/// Without the coordinator's own lines, and with a process killed, an epoch from nowhere is no proof of a forgery.
#[test]
fn an_epoch_that_nobody_tells_of_is_listed_where_it_proves_nothing() {
    let forged = r#"{"at":640,"from":"db","event":"applied","target":"db","resource":"orders","epoch":"78","seq":4}"#;
    let text = without_lines_of(&["etcd"]) + forged;
    let killed = without(&text, "{\"at\":800,\"from\":\"guard\"");
    let verdict = verdict(&killed);
    assert!(verdict.is_good(), "{verdict}");
    assert_not_checked(&verdict, "I6, who was granted what writes were applied under: no other line tells of epoch 78");
}

/// One write of a newer epoch puts all that follow behind it.
#[test]
fn one_stray_write_is_one_violation_of_the_order() {
    let mut text = GOOD.to_owned();
    let line = |epoch: u64, seq: u64| {
        let at = 700 + seq;
        format!(
            "{{\"at\":{at},\"from\":\"db\",\"event\":\"applied\",\"target\":\"db\",\"resource\":\"orders\",\"epoch\":\"{epoch}\",\"seq\":{seq}}}\n"
        )
    };
    text += &line(78, 4);
    (5..61).for_each(|seq| text += &line(2, seq));
    let verdict = verdict(&text);
    let order = verdict.violations.iter().filter(|violation| violation.invariant == Invariant::Order);
    let [order] = order.collect::<Vec<_>>()[..] else { panic!("one violation: {verdict}") };
    let said = "a write of epoch 2 was applied (place 5) after one of epoch 78 (place 4); so were 55 more of lower epochs, up to place 60";
    assert!(order.what.ends_with(said), "{verdict}");
    assert_eq!(order.lines.iter().map(|line| line.at.as_nanos()).collect::<Vec<_>>(), [704, 705, 760]);
    let past = verdict.violations.iter().find(|violation| violation.what.contains("1 writes of epoch 78 came"));
    assert!(past.is_some_and(|past| past.what.contains("or a door's file is missing")), "{verdict}");
}

#[test]
fn what_only_counts_is_not_held_to_the_order() {
    let late = with(&[
        ("\"body\":\"d1\",\"seq\":1}", "\"body\":\"d1\",\"seq\":9}"),
        (
            "{\"name\":\"orders-guard\",\"target\":\"db\"}",
            "{\"name\":\"orders-guard\",\"target\":\"db\",\"audit\":true}",
        ),
    ]);
    let verdict = verdict(&late);
    assert!(verdict.is_good(), "{verdict}");
    assert!(verdict.not_checked.iter().any(|what| what.starts_with("I1 and I2 at db")), "{:?}", verdict.not_checked);
}

/// A field that is misspelt is absent.
#[test]
fn what_was_applied_without_an_epoch_is_said_to_be_left_out() {
    let late = r#""op":"w3","epoch":"2","body":"d3","seq":2"#;
    let verdict = verdict(&with(&[(late, &late.replace("epoch", "Epoch"))]));
    assert!(verdict.is_good(), "{verdict}");
    let what = "I1, I2 and I6 of 1 writes at db: they have no `epoch`";
    assert_eq!(verdict.not_checked, [what.to_owned()].into());
}

#[test]
fn a_flood_of_violations_is_cut_short() {
    let mut text = GOOD.to_owned();
    for number in 0..500 {
        text += &format!(
            "{{\"at\":1000,\"from\":\"client\",\"event\":\"sent\",\"op\":\"x{number}\",\"resource\":\"orders\"}}\n"
        );
        text += &format!(
            "{{\"at\":1001,\"from\":\"client\",\"event\":\"ended\",\"op\":\"x{number}\",\"outcome\":\"answered\"}}\n"
        );
    }
    let verdict = verdict(&text);
    assert_eq!(verdict.violations.len(), Verdict::SHOWN);
    assert_eq!(verdict.left_out, [(Invariant::Acknowledged, 400)].into());
    assert!(verdict.to_string().contains("I3: 400 more\n500 violations in"), "{verdict}");
}
