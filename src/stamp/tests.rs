use std::time::Duration;

use super::*;
use crate::config::resolved;
use crate::event::sink::Recorder;
use crate::fence::mechanism::Mechanisms;
use crate::fence::tenure::{Armed, Leader, Standing};
use crate::fence::{Epoch, Reason, Stamp};
use crate::protocol::right::Settled;
use crate::roles::Hold;
use crate::roles::testing::*;
use crate::rules::{Rule, RuleText};

/// One stamp listener for `orders` in one worker, with the clock and the standing in the test's hands.
struct Sidecar {
    clock: Arc<TestClock>,
    recorder: Arc<Recorder>,
    desk: Rc<StampDesk>,
    role: StampRole,
}

impl Sidecar {
    fn new(standing: &Standing) -> Sidecar {
        let (clock, (recorder, events)) = (Arc::new(TestClock::default()), recording());
        let timeout = Duration::from_secs(10);
        let hold = Hold::new(resolved::Hold { requests: 2, bytes: 1000, timeout });
        let resources = vec![StampedResource { resource: orders(), hold_timeout: timeout }];
        let writer = "orders-a".parse().expect("an id");
        let desk = Rc::new(StampDesk::new(clock.clone(), events, hold, &writer, resources, standing));
        let health = RuleText { path: Some("/health"), pass_unarmed: true, ..RuleText::default() };
        let rules = vec![Rule::read(&health).expect("a rule")];
        let listener = StampListener {
            identities: crate::roles::Identities::default(),
            name: "orders-stamp".into(),
            rules: Rules::new(rules, Some(&orders()), [&orders()].into_iter()),
            field: StampField::new("fencing-epoch"),
            incoming_stamp: IncomingStamp::Refuse,
            expect_required: false,
            until_armed: UntilArmed::Hold,
            signatures: KeysInForce::default(),
            meters: Rc::new(crate::metrics::tests::metrics(&["orders"]).meters("orders-stamp").expect("it is there")),
        };
        Sidecar { clock, recorder, role: StampRole::new(listener, vec![0], Rc::clone(&desk)), desk }
    }

    /// On a connection that is accepted now.
    fn decide(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Decision {
        let bound = self.role.bind().standing;
        self.role.decide(&facts(method, path, &Head::of(fields), bound))
    }

    fn write(&self, fields: &[(&str, &str)]) -> Decision {
        self.decide("PUT", "/a", fields)
    }
}

fn epochs(refusal: &Refusal) -> (Reason, Option<u64>, Option<u64>) {
    (refusal.reason, refusal.epoch.map(Epoch::number), refusal.required_epoch.map(Epoch::number))
}

fn pending(held: &mut Held) -> bool {
    poll(held).is_pending()
}

#[test]
fn a_leader_stamps_its_own_term() {
    let sidecar = Sidecar::new(&leading(3, Armed::Yes));
    let rights = [forwarded(sidecar.write(&[])), forwarded(sidecar.write(&[]))];
    for right in &rights {
        assert_eq!(right.stamp().expect("it is stamped").as_bytes(), stamp(3).as_bytes());
        assert_eq!((right.kind(), right.resource()), (Kind::Write, Some(&orders())));
        assert!(right.confirm().is_ok() && right.signal().is_none());
    }
    assert_eq!(sidecar.desk.in_flight(), [(orders(), 2)]);
    let [one, two] = rights;
    one.settle(Settled::Answered);
    drop(two);
    assert_eq!((sidecar.desk.in_flight(), sidecar.desk.running()), (vec![], 0));
    assert_eq!(names(&sidecar.recorder), ["stamped", "stamped"]);
    let read = forwarded(sidecar.decide("GET", "/a", &[]));
    assert_eq!((read.kind(), read.stamp()), (Kind::Read, None));
}

#[test]
fn who_does_not_lead_refuses_writes_and_says_who_does() {
    let mut standing = Standing::new(Mechanisms::all());
    standing.leaders.insert(orders(), Leader { term: term(4), address: Some("http://b".into()), held: false });
    let sidecar = Sidecar::new(&standing);
    let refusal = refused(sidecar.write(&[]));
    assert_eq!(refusal.reason, Reason::NotLeader);
    let leader = refusal.leader.expect("it is known");
    assert_eq!((leader.id.as_str(), leader.address.as_deref()), ("orders-b", Some("http://b")));
    forwarded(sidecar.decide("GET", "/a", &[])).settle(Settled::Answered);
}

#[test]
fn a_connection_older_than_the_term_carries_nothing_of_it() {
    let mut standing = leading(3, Armed::Yes);
    let sidecar = Sidecar::new(&standing);
    let old = sidecar.role.bind().standing;
    standing.end(&orders());
    sidecar.desk.adopt(&standing);
    standing.begin(orders(), term(5));
    standing.tenures.get_mut(&orders()).expect("it leads").armed = Armed::Yes;
    sidecar.desk.adopt(&standing);
    let head = Head::default();
    let refusal = refused(sidecar.role.decide(&facts("PUT", "/a", &head, old)));
    assert_eq!(refusal.reason, Reason::TermChanged);
    let right = forwarded(sidecar.write(&[]));
    assert_eq!(right.stamp().expect("a new connection's").as_bytes(), stamp(5).as_bytes());
}

#[test]
fn the_deadline_is_compared_at_stamping_and_before_the_first_byte() {
    let sidecar = Sidecar::new(&leading(3, Armed::Yes));
    sidecar.clock.set(99);
    let right = forwarded(sidecar.write(&[]));
    sidecar.clock.set(100);
    assert_eq!(refused(sidecar.write(&[])).reason, Reason::NotLeader);
    assert_eq!(epochs(&right.confirm().expect_err("its time is over")), (Reason::NotLeader, Some(3), None));
    sidecar.desk.set_deadline(Some(Moment::from_nanos(105_000_000_000)));
    assert!(right.confirm().is_ok(), "the lease was kept alive meanwhile");
    right.settle(Settled::Answered);
    sidecar.desk.set_deadline(None);
    sidecar.clock.set(1_000_000);
    forwarded(sidecar.write(&[])).settle(Settled::Answered);
}

#[test]
fn what_was_stamped_with_a_term_that_is_over_is_not_sent() {
    let mut standing = leading(3, Armed::Yes);
    let sidecar = Sidecar::new(&standing);
    let right = forwarded(sidecar.write(&[]));
    standing.end(&orders());
    sidecar.desk.adopt(&standing);
    assert_eq!(right.confirm().expect_err("it leads no more").reason, Reason::NotLeader);
    standing.begin(orders(), term(5));
    sidecar.desk.adopt(&standing);
    let refusal = right.confirm().expect_err("it leads again, another term");
    assert_eq!((refusal.reason, refusal.resource.clone()), (Reason::NotLeader, Some(orders())));
    right.settle(Settled::NothingLeft);
    assert_eq!(sidecar.desk.running(), 0);
}

#[tokio::test]
async fn until_it_is_armed_a_term_holds_writes_and_reads() {
    let sidecar = Sidecar::new(&leading(3, Armed::No));
    let mut write = held(sidecar.write(&[]));
    let mut read = held(sidecar.decide("GET", "/a", &[]));
    assert!(pending(&mut write) && pending(&mut read));
    assert_eq!(refused(sidecar.write(&[])).reason, Reason::HoldFull);
    forwarded(sidecar.decide("GET", "/health", &[])).settle(Settled::Answered);
    sidecar.desk.adopt(&leading(3, Armed::No));
    assert!(pending(&mut write) && pending(&mut read), "a standing that changes nothing for them");
    sidecar.desk.adopt(&leading(3, Armed::Forced));
    assert!(matches!(poll(&mut write), std::task::Poll::Ready(Ok(()))));
    assert!(matches!(poll(&mut read), std::task::Poll::Ready(Ok(()))));
    drop((write, read));
    assert_eq!(sidecar.desk.hold.taken(), (0, 0));
    forwarded(sidecar.write(&[])).settle(Settled::Answered);
}

#[tokio::test]
async fn a_term_that_ends_unarmed_frees_what_it_held() {
    let sidecar = Sidecar::new(&leading(3, Armed::No));
    let mut write = held(sidecar.write(&[]));
    let mut read = held(sidecar.decide("GET", "/a", &[]));
    assert!(pending(&mut write) && pending(&mut read));
    sidecar.desk.adopt(&Standing::new(Mechanisms::all()));
    assert!(!pending(&mut write) && !pending(&mut read));
    assert_eq!(refused(sidecar.write(&[])).reason, Reason::NotLeader);
    forwarded(sidecar.decide("GET", "/a", &[])).settle(Settled::Answered);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_too_long_is_refused_as_not_armed() {
    let sidecar = Sidecar::new(&leading(3, Armed::No));
    let refusal = held(sidecar.write(&[])).await.expect_err("nothing arms it");
    assert_eq!(epochs(&refusal), (Reason::NotArmed, None, Some(3)));
    assert_eq!(refusal.resource, Some(orders()));
}

#[test]
fn the_listener_decides_what_becomes_of_an_unarmed_term() {
    let mut sidecar = Sidecar::new(&leading(3, Armed::No));
    sidecar.role.listener.until_armed = UntilArmed::Refuse;
    assert_eq!(refused(sidecar.write(&[])).reason, Reason::NotArmed);
    assert_eq!(refused(sidecar.decide("GET", "/a", &[])).reason, Reason::NotArmed);
    forwarded(sidecar.decide("GET", "/health", &[])).settle(Settled::Answered);
    forwarded(sidecar.decide("PUT", "/health", &[])).settle(Settled::Answered);
    sidecar.role.listener.until_armed = UntilArmed::Pass;
    forwarded(sidecar.write(&[])).settle(Settled::Answered);
    forwarded(sidecar.decide("GET", "/a", &[])).settle(Settled::Answered);
    // Past its deadline it does not lead: reads are as everywhere.
    sidecar.role.listener.until_armed = UntilArmed::Hold;
    sidecar.clock.set(100);
    forwarded(sidecar.decide("GET", "/a", &[])).settle(Settled::Answered);
}

#[test]
fn work_of_another_epoch_is_refused() {
    let mut sidecar = Sidecar::new(&leading(3, Armed::Yes));
    forwarded(sidecar.write(&[("fencing-expect", "3")])).settle(Settled::Answered);
    assert_eq!(epochs(&refused(sidecar.write(&[("fencing-expect", "2")]))), (Reason::EpochExpected, Some(2), Some(3)));
    for bad in ["", "03", "3 ", "x", "3;nonce=:AAAAAAAAAAA=:", "0"] {
        let refusal = refused(sidecar.write(&[("fencing-expect", bad)]));
        assert_eq!(epochs(&refusal), (Reason::EpochExpected, None, Some(3)), "{bad:?}");
    }
    let twice = [("fencing-expect", "3"), ("fencing-expect", "3")];
    assert_eq!(refused(sidecar.write(&twice)).reason, Reason::EpochExpected);
    // It would go unseen, and the work of one epoch be stamped with another.
    assert_eq!(refused(sidecar.write(&[("fencing_expect", "2")])).reason, Reason::EpochExpected);
    sidecar.role.listener.expect_required = true;
    assert_eq!(refused(sidecar.write(&[])).reason, Reason::EpochExpected);
    forwarded(sidecar.decide("GET", "/a", &[])).settle(Settled::Answered);
}

#[test]
fn a_stamp_that_comes_in_is_refused_or_taken_off() {
    let mut sidecar = Sidecar::new(&leading(3, Armed::Yes));
    for fields in [[("fencing-epoch", "3")], [("fencing_epoch", "3")]] {
        assert_eq!(refused(sidecar.write(&fields)).reason, Reason::StampPresent);
        assert_eq!(refused(sidecar.decide("GET", "/a", &fields)).reason, Reason::StampPresent);
    }
    sidecar.role.listener.incoming_stamp = IncomingStamp::Strip;
    let right = forwarded(sidecar.write(&[("fencing-epoch", "2"), ("fencing-epoch", "x")]));
    assert_eq!(right.stamp().expect("its own").as_bytes(), stamp(3).as_bytes());
}

#[test]
fn a_stamp_that_must_come_in_must_be_of_the_term_held() {
    let mut sidecar = Sidecar::new(&leading(3, Armed::Yes));
    sidecar.role.listener.incoming_stamp = IncomingStamp::Require;
    for good in ["3", &stamp(3), "3;by=\"orders-a\"", "3;res=\"orders\""] {
        let right = forwarded(sidecar.write(&[("fencing-epoch", good)]));
        assert_eq!(right.stamp().expect("the whole one").as_bytes(), stamp(3).as_bytes());
    }
    let expected = Reason::EpochExpected;
    for (bad, reason) in [
        ("2", expected),
        ("4", expected),
        ("3;nonce=:AAAAAAAAAAA=:", expected),
        ("3;by=\"orders-b\"", expected),
        ("3;res=\"others\"", Reason::ResourceMismatch),
        ("03", expected),
        ("3,3", expected),
    ] {
        assert_eq!(refused(sidecar.write(&[("fencing-epoch", bad)])).reason, reason, "{bad:?}");
    }
    assert_eq!(refused(sidecar.write(&[])).reason, expected);
    assert_eq!(refused(sidecar.write(&[("fencing-epoch", "3"), ("fencing-expect", "4")])).reason, expected);
    assert_eq!(refused(sidecar.write(&[("fencing-epoch", "3"), ("connection", "fencing-epoch")])).reason, expected);
    forwarded(sidecar.decide("GET", "/a", &[])).settle(Settled::Answered);
}

#[test]
fn a_refusal_is_told_once_with_its_kind() {
    let sidecar = Sidecar::new(&Standing::new(Mechanisms::all()));
    let refusal = refused(sidecar.write(&[]));
    sidecar.role.refused(&facts("PUT", "/a", &Head::default(), 0), &refusal);
    assert_eq!(names(&sidecar.recorder), ["refused"]);
}

#[test]
fn a_signature_is_for_this_very_request_at_this_moment() {
    let mut sidecar = Sidecar::new(&leading(3, Armed::Yes));
    sidecar.role.listener.signatures =
        KeysInForce::new(Some(crate::signing::tests::keys(&[("k2", 2), ("k1", 1)], 30, true)));
    let verifier = crate::signing::tests::keys(&[("k1", 1), ("k2", 2)], 30, true);
    let mut values = Vec::new();
    for (at, method, target) in [(7, "PUT", "/a"), (7, "PUT", "/a?b=c"), (8, "PUT", "/a"), (8, "POST", "/a")] {
        sidecar.clock.set_wall(at);
        let right = forwarded(sidecar.decide(method, target, &[]));
        let value = right.stamp().expect("it is stamped").as_bytes().to_vec();
        let (read, signature, _) = Stamp::parse_signed(&value).expect("it is a stamp");
        let signature = signature.expect("it is signed");
        assert_eq!(read.to_string(), stamp(3), "the term that the tenure gave");
        assert_eq!((signature.kid.as_str(), signature.ts), ("k2", at));
        let subject = Subject::of(&read, method, target).expect("it is whole");
        assert_eq!(verifier.verify(&subject, &signature, at), Ok(()));
        values.push(value);
    }
    values.dedup();
    assert_eq!(values.len(), 4);
    let read = forwarded(sidecar.decide("GET", "/a", &[]));
    assert!(read.stamp().is_none(), "a read has no stamp to sign");
}
