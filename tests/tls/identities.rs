//! Who may write as whom.

use super::place::Place;
use super::support::client;
use super::support::process::LONG;
use super::support::scene::Scene;
use super::support::upstream::Upstream;

#[test]
fn a_writer_writes_as_itself_over_mtls_and_over_both_versions_of_http() {
    let place = Place::new("");
    let a = place.leader("orders-a");
    let answer = client::put(a.address(), "/one", "by a").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let applied = place.target.applied();
    assert_eq!((applied.len(), applied[0].epoch()), (1, Some(1)));
    // A body of many records, there and back, whole.
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    assert_eq!(client::put(a.address(), "/large", &large).unwrap().status, 200);
    assert_eq!(place.target.stored("/large").unwrap(), large);
    assert_eq!(client::get(a.address(), "/large").unwrap().body, large);
    assert!(place.guard.metric("certificate_expiry_timestamp_seconds{usage=\"server\"}") > 4e9);
}

#[test]
fn the_certificate_of_another_writer_carries_no_stamp_of_this_one() {
    let place = Place::new("");
    let a = place.leader("orders-a");
    let stamp = a.get("/leader?resource=orders").json()["stamp"].as_str().unwrap().to_owned();
    assert_eq!(client::put(a.address(), "/one", "by a").unwrap().status, 200);

    // B has A's stamp, and its own certificate. A sidecar that passes stamps on does not care who holds the term.
    let pair = place.pair("orders-b");
    let own = super::support::sidecar::wait_for(by(&place, &pair, &stamp));
    let (epoch, rest) = stamp.split_once(';').unwrap();
    let bare = super::support::sidecar::wait_for(by(&place, &pair, epoch));
    let as_b = format!("{epoch};{}", rest.replace("orders-a", "orders-b"));
    let borrowed = super::support::sidecar::wait_for(by(&place, &pair, &as_b));
    assert_eq!(own, (403, Some("identity_refused".to_owned())));
    assert_eq!(bare, (403, Some("identity_refused".to_owned())), "the epoch is A's");
    assert_eq!(borrowed, (409, Some("epoch_conflict".to_owned())), "epoch and nonce are A's");
    let with_its_own = super::support::sidecar::wait_for(by(&place, &place.pair("orders-a"), &stamp));
    assert_eq!(with_its_own, (200, None));
    assert_eq!(place.target.applied().len(), 2);
    assert_eq!(place.guard.metric("rejections_total{reason=\"identity_refused\"}"), 2.0);
    let record = place.guard.audited("it", |record| record["reason"] == "identity_refused");
    assert_eq!((&record["writer"], &record["status"]), (&"orders-a".into(), &403.into()), "{record}");
}

/// A write with this stamp, by a client with this certificate: status and reason.
async fn by(place: &Place, pair: &super::support::certificates::Pair, stamp: &str) -> (u16, Option<String>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = place.session(pair).await;
    let head = format!(
        "PUT /b HTTP/1.1\r\nhost: a\r\nfencing-epoch: {stamp}\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let reason = text.lines().find_map(|line| line.strip_prefix("fencing-refused: ").map(str::to_owned));
    (status, reason)
}

#[test]
fn a_unix_socket_knows_whose_process_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let (scene, target, folder) = (Scene::embedded(), Upstream::start(), tempfile::tempdir().unwrap());
    let uid = rustix::process::getuid().as_raw();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let guard = |id: &str, socket: &str, uid: u32| {
        let more = format!("identities: [{{ uid: {uid}, writer: orders-a }}]\ntarget: {id}\nsocket_mode: \"0600\"");
        scene.node(id).guard_at(&format!("unix:{socket}"), &target.url(), &more).start()
    };
    let good = guard("good", &path("good.sock"), uid);
    let mode = std::fs::metadata(path("good.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other = guard("other", &path("other.sock"), uid + 1);
    let upstream = |name: &str| format!("upstream: {{ url: \"unix:{}\" }}", path(name));
    let a = scene.node("orders-a").stamp("", &upstream("good.sock")).stamp("", &upstream("other.sock")).start();
    a.await_armed("orders");
    let answer = client::put(a.addresses[0], "/one", "by a").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = client::put(a.addresses[1], "/two", "by a").unwrap();
    assert_eq!((answer.status, answer.refused()), (403, Some("identity_refused")), "{}", answer.text());
    let record = other.audited("it", |record| record["reason"] == "identity_refused");
    assert!(record["peer"].as_str().unwrap().starts_with(&format!("unix:uid={uid},pid=")), "{record}");
    assert_eq!(target.applied().len(), 1);
    drop((a, good));
}
