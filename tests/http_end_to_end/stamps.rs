//! Stamps: in every wrong form (FAULTS row 27), from the future (row 28), bare, the service's own, and what it expects.

use super::support::client::{self, Connection};
use super::support::process::{LONG, eventually};
use super::support::scene::Scene;
use super::{Upstream, Way};

/// What is not a stamp. Each is sent as a whole line (or lines) of the head.
fn wrong_forms() -> Vec<(&'static str, Vec<u8>)> {
    let digits = format!("Fencing-Epoch: {}", "7".repeat(4000));
    let forms: [(&str, &[u8]); 38] = [
        ("two that are the same", b"Fencing-Epoch: 1\r\nFencing-Epoch: 1"),
        ("two that differ", b"Fencing-Epoch: 1\r\nFencing-Epoch: 2"),
        ("two spellings", b"Fencing-Epoch: 1\r\nfencing_epoch: 1"),
        ("a list", b"Fencing-Epoch: 1, 1"),
        ("an empty list's comma", b"Fencing-Epoch: 1,"),
        ("nothing", b"Fencing-Epoch:"),
        ("blanks", b"Fencing-Epoch:    "),
        ("blanks inside", b"Fencing-Epoch: 0 1"),
        ("a tab before it, as a value", b"Fencing-Epoch: 1\t1"),
        ("zero", b"Fencing-Epoch: 0"),
        ("plus", b"Fencing-Epoch: +1"),
        ("minus", b"Fencing-Epoch: -1"),
        ("hex", b"Fencing-Epoch: 0x1"),
        ("a leading zero", b"Fencing-Epoch: 01"),
        ("a decimal", b"Fencing-Epoch: 1.0"),
        ("an exponent", b"Fencing-Epoch: 1e0"),
        ("sixteen digits", b"Fencing-Epoch: 1000000000000000"),
        ("u64's highest", b"Fencing-Epoch: 18446744073709551615"),
        ("one more", b"Fencing-Epoch: 18446744073709551616"),
        ("4,000 digits", digits.as_bytes()),
        ("quotes", b"Fencing-Epoch: \"1\""),
        ("a token", b"Fencing-Epoch: one"),
        ("an inner list", b"Fencing-Epoch: (1)"),
        ("a byte sequence", b"Fencing-Epoch: :AQ==:"),
        ("a parameter that is not known", b"Fencing-Epoch: 1;x"),
        ("a parameter twice", b"Fencing-Epoch: 1;by=\"a\";by=\"a\""),
        ("an empty parameter", b"Fencing-Epoch: 1;"),
        ("a nonce that is text", b"Fencing-Epoch: 1;nonce=\"n58qe3yfEjQ=\""),
        ("a nonce that is too short", b"Fencing-Epoch: 1;nonce=:AQ==:"),
        ("a nonce without an end", b"Fencing-Epoch: 1;nonce=:n58qe3yfEjQ="),
        ("a writer that is no text", b"Fencing-Epoch: 1;by=orders-a"),
        ("bytes after the end", b"Fencing-Epoch: 1 x"),
        ("Arabic digits", "Fencing-Epoch: \u{661}".as_bytes()),
        ("full-width digits", "Fencing-Epoch: \u{ff11}".as_bytes()),
        ("a byte that is no text", b"Fencing-Epoch: 1\xff"),
        ("an underscore for the dash", b"Fencing_Epoch: 1"),
        ("named in Connection", b"Fencing-Epoch: 1\r\nConnection: close, fencing-epoch"),
        ("announced as a trailer", b"Fencing-Epoch: 1\r\nTrailer: Fencing-Epoch"),
    ];
    forms.into_iter().map(|(what, form)| (what, form.to_vec())).collect()
}

#[test]
fn what_is_no_stamp_is_refused_and_moves_nothing() {
    let way = Way::new();
    let before = way.guard.resource("orders");
    let mut count = 0.0;
    for method in ["PUT", "get-it"] {
        for (what, form) in wrong_forms() {
            let mut connection = Connection::open(way.guard.address()).unwrap();
            let mut request = format!("{method} /row27 HTTP/1.1\r\nHost: target.test\r\n").into_bytes();
            request.extend_from_slice(&form);
            request.extend_from_slice(b"\r\nContent-Length: 1\r\n\r\nx");
            connection.send(&request).unwrap();
            let answer = connection.answer().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((answer.status, answer.refused()), (400, Some("malformed_stamp")), "{what}: {}", answer.text());
            let problem = answer.json();
            assert_eq!(
                (&problem["outcome"], &problem["resource"]),
                (&"not_applied".into(), &"orders".into()),
                "{what}"
            );
            count += 1.0;
        }
    }
    let after = way.guard.resource("orders");
    for of in ["epoch", "state", "leader"] {
        assert_eq!(before[of], after[of], "{of}");
    }
    for of in ["floor", "drained", "phase", "in_flight", "lost", "held"] {
        assert_eq!(before["gate"][of], after["gate"][of], "{of}");
    }
    assert_eq!(way.guard.metric("rejections_total{listener=\"guard\",reason=\"malformed_stamp\"}"), count);
    assert!(way.target.arrived().is_empty(), "none of it reached the target");
    assert_eq!(way.send("PUT", "/row27", &[], b"1").status, 200, "nobody is locked out");
}

#[test]
fn no_stamp_is_asked_for_one_and_every_case_of_the_name_is_the_name() {
    let way = Way::new();
    let answer = way.at_guard("PUT", "/none", &[], b"1");
    assert_eq!((answer.status, answer.refused()), (428, Some("stamp_required")));
    assert_eq!(answer.json()["required_epoch"], "1");

    for name in ["fencing-epoch", "FENCING-EPOCH", "fEnCiNg-EpOcH"] {
        let answer = way.at_guard("PUT", "/case", &[(name, "1")], b"1");
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    let answer = way.at_guard("PUT", "/blanks", &[("Fencing-Epoch", "  1  ")], b"1");
    assert_eq!(answer.status, 200, "blanks around a field's value are none of it");
    assert_eq!(way.written("/blanks").stamp.as_deref(), Some("1"), "canonical");

    // A stamp that comes after the body is none: the comparison was before the body.
    let mut connection = Connection::open(way.guard.address()).unwrap();
    connection.begin_chunked("PUT", "/trailer", &[]).unwrap();
    assert_eq!(connection.answer().unwrap().status, 428);
}

#[test]
fn an_epoch_from_the_future_locks_nobody_out() {
    let way = Way::new();
    let own = way.own_stamp();
    for epoch in ["1000007", "2", "999999999999999"] {
        let forged = own.replacen('1', epoch, 1);
        for stamp in [epoch, &forged] {
            let answer = way.at_guard("PUT", "/row28", &[("Fencing-Epoch", stamp)], b"1");
            let problem = answer.json();
            assert_eq!((answer.status, answer.refused()), (412, Some("epoch_denied")), "{problem}");
            assert_eq!((&problem["epoch"], &problem["required_epoch"]), (&epoch.into(), &"1".into()), "{problem}");
            assert_eq!(problem["leader"]["id"], "orders-a");
        }
    }
    // The same epoch as the leader's, and somebody else's nonce.
    let (before, after) = own.split_once("nonce=:").expect("it has a nonce");
    let forged = format!("{before}nonce=:{}{}", "n58qe3yfEjQ=", &after[12..]);
    let answer = way.at_guard("PUT", "/row28", &[("Fencing-Epoch", &forged)], b"1");
    assert_eq!((answer.status, answer.refused()), (409, Some("epoch_conflict")), "{}", answer.text());
    // The leader's own, for another resource.
    let other = own.replace("res=\"orders\"", "res=\"others\"");
    let answer = way.at_guard("PUT", "/row28", &[("Fencing-Epoch", &other)], b"1");
    assert_eq!((answer.status, answer.refused()), (421, Some("resource_mismatch")), "{}", answer.text());

    let gate = way.guard.gate();
    assert_eq!((&gate["floor"], &gate["phase"]), (&"1".into(), &"open".into()), "{gate}");
    assert!(way.target.arrived().is_empty());
    assert_eq!(way.send("PUT", "/row28", &[], b"1").status, 200);
    assert_eq!(way.guard.metric("epoch_mismatch_total{direction=\"ahead\"}"), 6.0);
    assert_eq!(way.guard.metric("epoch_mismatch_total{direction=\"conflict\"}"), 1.0);

    // Also after a failover.
    let second = way.scene.node("orders-b").stamp(&way.guard.url(), "").start();
    eventually("the second is a candidate", LONG, || way.stamp.post("/api/v1/step-down?resource=orders").status == 200);
    second.await_armed("orders");
    let answer = way.at_guard("PUT", "/row28", &[("Fencing-Epoch", &own)], b"late");
    let problem = answer.json();
    assert_eq!((answer.status, answer.refused()), (412, Some("stale_epoch")), "{problem}");
    assert_eq!((&problem["epoch"], &problem["required_epoch"]), (&"1".into(), &"2".into()), "{problem}");
    assert_eq!((&problem["writer"], &problem["leader"]["id"]), (&"orders-a".into(), &"orders-b".into()), "{problem}");
    assert_eq!(client::put(second.address(), "/row28", "2").unwrap().status, 200);
    way.target.assert_epochs_never_decrease();
}

#[test]
fn bare_stamps_are_taken_or_refused_as_the_door_says() {
    for (bare_stamps, expected) in [("allow", 200), ("refuse", 428)] {
        let way = Way::with("", &format!("bare_stamps: {bare_stamps}"));
        let answer = way.at_guard("PUT", "/bare", &[("Fencing-Epoch", "1")], b"1");
        assert_eq!(answer.status, expected, "{}", answer.text());
        let answer = way.at_guard("PUT", "/whole", &[("Fencing-Epoch", &way.own_stamp())], b"1");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn a_door_may_keep_the_stamp_from_the_target_and_fence_reads() {
    let way = Way::with(
        "rules: [{ method: [GET], path: \"/fenced/**\", kind: write }]\nresource: orders",
        "forward_stamp: false\nfence_reads: true",
    );
    assert_eq!(way.send("PUT", "/fenced/a", &[], b"1").status, 200);
    assert_eq!(way.written("/fenced/a").stamp, None);

    let answer = way.at_guard("GET", "/fenced/a", &[], b"");
    assert_eq!((answer.status, answer.refused()), (428, Some("stamp_required")));
    assert_eq!(way.at_guard("GET", "/fenced/a", &[("Fencing-Epoch", "1")], b"").text(), "1");
    assert_eq!(way.at_guard("GET", "/fenced/a", &[("Fencing-Epoch", "2")], b"").refused(), Some("epoch_denied"));
    assert_eq!(way.send("GET", "/fenced/a", &[], b"").text(), "1", "the stamp stamps it");
    assert_eq!(way.send("GET", "/other", &[], b"").refused(), Some("stamp_required"), "it does not stamp reads");
}

#[test]
fn the_services_own_stamp_is_refused_required_or_stripped() {
    let forged = [("Fencing-Epoch", "7")];
    let way = Way::new();
    for name in ["Fencing-Epoch", "fencing_epoch"] {
        let answer = way.send("PUT", "/own", &[(name, "1")], b"1");
        assert_eq!((answer.status, answer.refused()), (400, Some("stamp_present")), "{name}: {}", answer.text());
    }
    assert!(way.target.arrived().is_empty());

    let way = Way::with("incoming_stamp: require", "");
    assert_eq!(way.send("PUT", "/own", &[], b"1").refused(), Some("epoch_expected"));
    assert_eq!(way.send("PUT", "/own", &forged, b"1").refused(), Some("epoch_expected"));
    let own = way.own_stamp();
    assert_eq!(way.send("PUT", "/own", &[("Fencing-Epoch", &own)], b"1").status, 200);
    assert_eq!(way.written("/own").stamp, Some(own));

    let mut way = Way::with("incoming_stamp: strip", "");
    way.stamp.process.await_words("strip", LONG);
    assert_eq!(way.send("PUT", "/own", &forged, b"1").status, 200);
    assert_eq!(way.written("/own").stamp, Some(way.own_stamp()), "only its own");
}

#[test]
fn work_of_another_epoch_is_refused_where_the_service_says_which() {
    let way = Way::new();
    assert_eq!(way.send("PUT", "/work", &[("Fencing-Expect", "1")], b"1").status, 200);
    for wrong in ["2", "0", "01", "one", "1, 1", ""] {
        let answer = way.send("PUT", "/work", &[("Fencing-Expect", wrong)], b"2");
        let problem = answer.json();
        assert_eq!((answer.status, answer.refused()), (412, Some("epoch_expected")), "{wrong}: {problem}");
        assert_eq!(problem["outcome"], "not_applied");
    }
    let twice = [("Fencing-Expect", "1"), ("Fencing-Expect", "1")];
    assert_eq!(way.send("PUT", "/work", &twice, b"2").refused(), Some("epoch_expected"));
    assert_eq!(way.send("GET", "/work", &[], b"").text(), "1");

    let way = Way::with("expect: require", "");
    assert_eq!(way.send("PUT", "/work", &[], b"1").refused(), Some("epoch_expected"));
    assert_eq!(way.send("PUT", "/work", &[("Fencing-Expect", "1")], b"1").status, 200);
}

#[test]
fn a_door_in_audit_mode_refuses_nothing_and_counts_everything() {
    let scene = Scene::embedded();
    let target = Upstream::start();
    let guard = scene.guard(&target.url(), "mode: audit");
    let a = scene.leader("orders-a", &guard, "");
    eventually("the door knows", LONG, || guard.resource("orders")["epoch"] == "1");

    let sends = |headers: &[(&str, &str)]| client::request(guard.address(), "PUT", "/x", headers, b"1").unwrap().status;
    assert_eq!(sends(&[]), 200);
    assert_eq!(sends(&[("Fencing-Epoch", "07")]), 200);
    assert_eq!(sends(&[("Fencing-Epoch", "1")]), 200);
    assert_eq!(client::put(a.address(), "/x", "1").unwrap().status, 200);
    let refused = |reason: &str| guard.metric(&format!("would_reject_total{{listener=\"guard\",reason=\"{reason}\"}}"));
    assert_eq!((refused("stamp_required"), refused("malformed_stamp"), refused("stale_epoch")), (1.0, 1.0, 0.0));
    assert_eq!(guard.metric("rejections_total{listener=\"guard\"}"), 0.0);
    assert_eq!(target.applied().len(), 4);
    let record = guard.audited("what it would refuse", |record| record["reason"] == "stamp_required");
    assert_eq!((&record["event"], &record["status"]), (&"would_refuse".into(), &428.into()), "{record}");
    assert!(record.get("outcome").is_none(), "{record}");

    let b = scene.node("orders-b").stamp(&guard.url(), "").start();
    eventually("the second is a candidate", LONG, || a.post("/api/v1/step-down?resource=orders").status == 200);
    eventually("the door knows", LONG, || guard.resource("orders")["epoch"] == "2");
    assert_eq!(sends(&[("Fencing-Epoch", "1")]), 200, "stale, and forwarded all the same");
    assert_eq!(refused("stale_epoch"), 1.0);
    assert_eq!(guard.status()["listeners"][0]["mode"], "audit");
    b.await_armed("orders");
    assert_eq!(client::put(b.address(), "/x", "2").unwrap().status, 200);
}
