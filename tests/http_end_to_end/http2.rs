//! HTTP/2 with prior knowledge, and gRPC over it.

use super::http2_client::Http2;
use super::support::scene::Scene;
use super::{Way, noise};

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];
/// One message of five bytes: not compressed, its length, itself.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

#[test]
fn http2_passes_whole_and_stays_http2() {
    let way = Way::new();
    let mut client = Http2::open(way.stamp.address());
    for round in 0..10 {
        let path = format!("/h2/{round}");
        let answer = client.request("PUT", &path, &[("x-kept", "1")], path.as_bytes(), &[]).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "applied\n"));
        let answer = client.request("GET", &path, &[], b"", &[]).unwrap();
        assert_eq!(answer.text(), path);
    }
    let head = client.request("HEAD", "/h2/0", &[], b"", &[]).unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let empty = client.request("GET", "/h2/0", &[("x-upstream", "status=204")], b"", &[]).unwrap();
    assert_eq!((empty.status, empty.body.len()), (204, 0));
    assert_eq!(client.request("DELETE", "/h2/0", &[], b"", &[]).unwrap().status, 200);
    assert!(way.target.arrived().iter().all(|seen| seen.http2), "version: same");
    let write = way.written("/h2/1");
    assert_eq!((write.epoch(), write.head.header("x-kept")), (Some(1), Some("1")));
    assert_eq!(write.head.header("x-forwarded-for"), Some("127.0.0.1, 127.0.0.1"));
    assert_eq!(way.stamp.metric("connections_open{listener=\"stamp\"}"), 1.0);
}

#[test]
fn ten_mebibytes_pass_byte_for_byte_over_http2() {
    let way = Way::new();
    let body = noise(10 * 1024 * 1024);
    let mut client = Http2::open(way.stamp.address());
    let answer = client.request("PUT", "/large", &[], &body, &[("x-sum", "10")]).unwrap();
    assert_eq!(answer.status, 200);
    let write = way.written("/large");
    assert!(write.complete && write.body == body, "the target has other bytes");
    assert_eq!(write.trailers, [("x-sum".to_owned(), "10".to_owned())]);
    let answer = client.request("GET", "/large", &[], b"", &[]).unwrap();
    assert!(answer.body == body, "the client got other bytes");
}

#[test]
fn a_client_and_a_target_may_speak_different_versions() {
    for (version, is_http2) in [("http1", false), ("http2", true)] {
        let scene = Scene::embedded();
        let target = super::Upstream::start();
        let upstream = format!("upstream: {{ url: \"{}\", version: {version} }}", target.url());
        let guard = scene.guard("", &upstream);
        let stamp = scene.leader("orders-a", &guard, "");
        let answer = Http2::open(stamp.address()).request("PUT", "/by/h2", &[], b"two", &[("x-sum", "3")]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = super::client::put(stamp.address(), "/by/h1", "one").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(target.arrived().iter().all(|seen| seen.http2 == is_http2), "version: {version}");
        assert_eq!(target.stored("/by/h2").as_deref(), Some(&b"two"[..]));
        assert_eq!(target.stored("/by/h1").as_deref(), Some(&b"one"[..]));
    }
}

#[test]
fn a_grpc_call_passes_with_its_trailers() {
    let way = Way::new();
    let mut client = Http2::open(way.stamp.address());
    let answer = client.request("POST", "/shop.Orders/Create", &GRPC, MESSAGE, &[]).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, MESSAGE));
    assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let seen = way.written("/shop.Orders/Create");
    assert_eq!((seen.epoch(), seen.head.header("te")), (Some(1), Some("trailers")));
}

#[test]
fn a_grpc_call_is_refused_in_grpc_words() {
    let way = Way::new();
    let standby = way.scene.node("orders-b").stamp(&way.guard.url(), "").start();
    let answer = Http2::open(standby.address()).request("POST", "/shop.Orders/Create", &GRPC, MESSAGE, &[]).unwrap();
    let said = |name: &str| answer.header(name).map(str::to_owned);
    assert_eq!((answer.status, said("grpc-status").as_deref()), (200, Some("9")), "{answer:?}");
    assert_eq!(answer.refused(), Some("not_leader"));
    assert_eq!(said("content-type").as_deref(), Some("application/grpc"));
    assert!(said("grpc-message").is_some() && said("grpc-status-details-bin").is_some(), "{answer:?}");
    assert!(answer.body.is_empty());

    // The guard's: no stamp at all.
    let answer = Http2::open(way.guard.address()).request("POST", "/shop.Orders/Create", &GRPC, MESSAGE, &[]).unwrap();
    assert_eq!((answer.header("grpc-status"), answer.refused()), (Some("9"), Some("stamp_required")));
    // And through the stamp, unchanged: an epoch that the coordinator does not know.
    let answer = Http2::open(way.guard.address())
        .request("POST", "/shop.Orders/Create", &[GRPC[0], GRPC[1], ("fencing-epoch", "1000007")], MESSAGE, &[])
        .unwrap();
    assert_eq!((answer.header("grpc-status"), answer.refused()), (Some("9"), Some("epoch_denied")));
    assert!(way.target.arrived().is_empty());
}
