//! Every way in which a certificate can be wrong: refused, said, and counted.

use std::fs;

use super::place::Place;
use super::support::certificates::{Authority, Pair, Special};
use super::support::client;
use super::support::process::{LONG, Launch, eventually};

/// A write through a stamp with this trust and this certificate is refused before a byte of it has left: what its answer
/// says, and what the guard counts.
fn refused(place: &Place, id: &str, ca: &str, pair: Option<&Pair>, more: &str) -> String {
    let node = place.plan(id, ca, pair, more).start();
    eventually(&format!("{id} is elected"), LONG, || node.resource("orders")["leader"]["id"] == *id);
    let answer = client::get(node.address(), "/a").unwrap();
    assert_eq!(answer.refused(), Some("upstream_unreachable"), "{}", answer.text());
    let body = answer.json();
    assert_eq!((answer.status, &body["outcome"]), (502, &"not_applied".into()), "{body}");
    body["detail"].as_str().unwrap().to_owned()
}

#[test]
fn each_way_in_which_a_certificate_is_wrong_is_said_on_both_sides() {
    let place = Place::new("");
    let good = place.authority.path();
    let strangers = Authority::new(place.folder(), "strangers");
    let own = |file: &str, special: Special<'_>| place.authority.issue(file, "orders-a", &special);
    let fine = place.pair("orders-a");

    // What the stamp says of itself, and what the guard counts it as.
    let shown = [
        ("missing", None, "upstream.tls.cert"),
        ("expired", Some(own("old", Special { expired: true, ..Special::default() })), "renew"),
        ("unknown_authority", Some(strangers.issue("stranger", "orders-a", &Special::default())), "authority"),
        (
            "bad_certificate",
            Some(own("server-only", Special { only_server: true, ..Special::default() })),
            "does not take",
        ),
    ];
    for (why, pair, help) in &shown {
        // What has expired, or is no client's, is found before anything starts: the file is replaced while it runs.
        let series = format!("tls_handshakes_failed_total{{reason=\"{why}\"}}");
        let before = place.guard.metric(&series);
        let said = match *why {
            "expired" | "bad_certificate" => by_another_client(&place, pair.as_ref().unwrap()),
            _ => refused(&place, &format!("w-{}", why.replace('_', "-")), &good, pair.as_ref(), ""),
        };
        assert!(said.contains(help), "{why}: {said}");
        eventually(&format!("the guard counts it as {why}"), LONG, || place.guard.metric(&series) > before);
    }
    assert!(place.guard.metric("connections_cut_total{reason=\"tls\"}") >= 4.0);

    // What the stamp thinks of the guard.
    let said = refused(&place, "w-ca", &strangers.path(), Some(&fine), "");
    assert!(said.contains("upstream.tls.ca"), "{said}");
    let said = refused(&place, "w-name", &good, Some(&fine), ", server_name: other.example");
    assert!(said.contains("other.example") && said.contains("db-guard") && said.contains("server_name"), "{said}");

    // Plain text to the TLS listener, and garbage.
    let plain = "tls_handshakes_failed_total{reason=\"not_tls\"}";
    let mut connection = client::Connection::open(place.guard.address()).unwrap();
    connection.send(b"PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").unwrap();
    eventually("the guard counts it", LONG, || place.guard.metric(plain) == 1.0);
    assert!(place.target.applied().is_empty());
}

/// The alert that a client gets which looks at nothing of its own.
fn by_another_client(place: &Place, pair: &Pair) -> String {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(place.authority.path()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&pair.cert).unwrap()];
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap()).unwrap();
    let config = std::sync::Arc::new(config);
    let error = super::support::sidecar::wait_for(async {
        let socket = tokio::net::TcpStream::connect(place.guard.address()).await.unwrap();
        let stream = epochgate::net::Stream::tcp(socket).unwrap();
        let name = ServerName::try_from("db-guard").unwrap();
        epochgate::net::tls::connect(stream, &config, name, LONG).await.map(|_| ()).expect_err("refused")
    });
    epochgate::tls::explain::explain(&error, false).1
}

#[test]
fn what_is_wrong_with_a_file_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let issue = |file: &str, special: Special<'_>| authority.issue(file, "orders-a", &special);
    let good = issue("good", Special::default());
    let other = issue("other", Special::default());
    let nothing = folder.path().join("nothing");
    fs::write(&nothing, "nothing of the kind").unwrap();
    let mixed = Pair { cert: good.cert.clone(), key: other.key };
    let no_cert = Pair { cert: nothing.clone(), key: good.key.clone() };
    let no_key = Pair { cert: good.cert.clone(), key: nothing };
    let no_file = Pair { cert: folder.path().join("none"), key: good.key.clone() };
    for (pair, words) in [
        (issue("old", Special { expired: true, ..Special::default() }), ["expired on 2021-02-03", "renew it"]),
        (issue("early", Special { early: true, ..Special::default() }), ["only from 2999-01-01", "clock"]),
        (mixed, ["not the key of the certificate", "pairs"]),
        (no_cert, ["no certificate in PEM", "BEGIN CERTIFICATE"]),
        (no_key, ["no private key in PEM", "BEGIN PRIVATE KEY"]),
        (no_file, ["cannot be read", "check the path"]),
    ] {
        let text = format!(
            "id: guard\nstate_dir: {0}/state\ncoordinator: {{ embedded: {0}/epochs }}\nresources: {{ orders: {{}} }}\n\
             admin: {{ listen: null }}\nlisteners:\n  - {{ name: orders-guard, role: guard, listen: \"127.0.0.1:0\", resource: orders, \
             upstream: {{ url: \"http://127.0.0.1:9\" }}, tls: {{ {1} }} }}\n",
            folder.path().display(),
            pair.keys()
        );
        let file = folder.path().join("epochgate.yaml");
        fs::write(&file, text).unwrap();
        let mut process = Launch::epochgate("guard").args(["run", "-c"]).arg(&file).run(LONG);
        assert_eq!(process.wait(LONG).code(), Some(78), "{words:?}");
        let said = process.recent();
        assert!(said.contains("listener orders-guard: tls."), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    }
}
