//! Sessions over real sockets, without a sidecar around them.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as Key};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::files::Reader;
use super::{ClientSide, sides};
use crate::config::resolved::{KeyPair, ListenerTls, UpstreamTls};
use crate::net::{Stream, tls};

const RECORD: usize = 16 * 1024;
const LONG: Duration = Duration::from_secs(60);

/// A server's side and a client's, which trust each other; the client shows a certificate only where it has one.
fn sides_in(folder: &Path, shows: bool) -> (Arc<ServerConfig>, Arc<ClientSide>) {
    let key = Key::generate().expect("a key");
    let mut params = CertificateParams::new(vec![]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = |name: &str| folder.join(name);
    std::fs::write(file("ca.crt"), params.self_signed(&key).expect("signed").pem()).expect("written");
    let issuer = Issuer::new(params, key);
    let key = Key::generate().expect("a key");
    let params = CertificateParams::new(vec!["both".to_owned()]).expect("a name");
    std::fs::write(file("both.crt"), params.signed_by(&key, &issuer).expect("signed").pem()).expect("written");
    std::fs::write(file("both.key"), key.serialize_pem()).expect("written");
    let pair = KeyPair { cert: file("both.crt"), key: file("both.key") };
    let mut reader = Reader::new("l", Timestamp::now());
    let listener = ListenerTls { pair: pair.clone(), client_ca: Some(file("ca.crt")), only_tls13: false };
    let server = sides::server(&listener, crate::config::resolved::Protocol::Http, &mut reader);
    let upstream =
        UpstreamTls { ca: file("ca.crt"), pair: shows.then_some(pair), server_name: "both".into(), only_tls13: false };
    let client = sides::client(&upstream, &mut reader);
    reader.finish().expect("nothing is wrong");
    (server.expect("a server's side"), client.expect("a client's side"))
}

/// A server's side that wants certificates.
pub(crate) fn server_side(folder: &Path) -> Arc<ServerConfig> {
    sides_in(folder, true).0
}

/// A session: the client's end, then the server's.
async fn session(shows: bool) -> (io::Result<Stream>, io::Result<Stream>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = sides_in(folder.path(), shows);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let stream = |socket| Stream::tcp(socket).expect("options");
    let (near, far) = (stream(near.expect("connect")), stream(far.expect("accept").0));
    tokio::join!(tls::connect(near, &client.http1, client.name.clone(), LONG), tls::accept(far, &server))
}

#[tokio::test]
async fn a_write_takes_one_record_and_the_next_waits_until_it_is_out() {
    let (near, far) = session(true).await;
    let (mut near, mut far) = (near.expect("a session"), far.expect("a session"));
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 253) as u8).collect();
    let mut sent = 0;
    let full = poll_fn(|context| {
        // Nobody reads: sooner or later the kernel takes no more.
        loop {
            let out = near.has_sent_all();
            match Pin::new(&mut near).poll_write(context, &bytes[sent..]) {
                Poll::Ready(Ok(taken)) => {
                    assert!(out, "a record was sealed while another waited");
                    assert!((1..=RECORD).contains(&taken), "{taken}");
                    sent += taken;
                }
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => return Poll::Ready(!near.has_sent_all()),
            }
        }
    });
    assert!(full.await, "it says that something waits in here");
    let mut came = vec![0; bytes.len()];
    let writing = async {
        near.write_all(&bytes[sent..]).await.expect("the rest");
        near.flush().await.expect("all of it");
        assert!(near.has_sent_all());
    };
    let reading = async { far.read_exact(&mut came).await.expect("all of it") };
    tokio::join!(writing, reading);
    assert!(came == bytes, "it came as it was sent");
}

#[tokio::test]
async fn an_end_in_order_is_told_from_a_connection_that_broke() {
    let (near, far) = session(true).await;
    let (mut near, mut far) = (near.expect("a session"), far.expect("a session"));
    near.write_all(b"all of it").await.expect("written");
    drop(near);
    let mut came = Vec::new();
    far.read_to_end(&mut came).await.expect("an end that was said");
    assert_eq!(came, b"all of it");

    let (near, far) = session(true).await;
    let (mut near, mut far) = (near.expect("a session"), far.expect("a session"));
    near.write_all(b"half").await.expect("written");
    near.reset_on_close().set(true);
    drop(near);
    far.read_to_end(&mut Vec::new()).await.expect_err("a reset");
}

#[tokio::test]
async fn a_client_knows_that_its_certificate_was_refused_before_it_writes() {
    let (near, far) = session(false).await;
    let (why, text) = super::explain::explain(&near.expect_err("it is wanted"), false);
    assert_eq!((why.as_str(), text.contains("upstream.tls.cert")), ("missing", true), "{text}");
    let (why, _) = super::explain::explain(&far.expect_err("none came"), true);
    assert_eq!(why.as_str(), "missing");
}

#[tokio::test]
async fn nobody_is_spared_to_show_a_certificate_again() {
    use rustls::HandshakeKind;
    let folder = tempfile::tempdir().expect("a folder");
    let (server, client) = sides_in(folder.path(), true);
    // A client that would resume, if it could.
    let mut config = (*client.http1).clone();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    for _ in 0..3 {
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let far = Stream::tcp(far.expect("accept").0).expect("options");
        let (near, far) =
            tokio::join!(connector.connect(client.name.clone(), near.expect("connect")), tls::accept(far, &server));
        let (mut near, mut far) = (near.expect("a session"), far.expect("a session"));
        far.write_all(b"x").await.expect("written");
        near.read_exact(&mut [0; 1]).await.expect("tickets came before it");
        assert!(near.get_ref().1.tls13_tickets_received() > 0);
        assert_ne!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        assert!(far.tls().expect("TLS").peer_certificates().is_some());
    }
}

#[test]
fn what_no_known_authority_has_signed_is_called_so_whatever_it_is_named() {
    use super::explain::{Why, explain};
    use rustls::{AlertDescription, CertificateError, Error};
    for error in [
        Error::InvalidCertificate(CertificateError::UnknownIssuer),
        // An authority of the same name, and another key.
        Error::InvalidCertificate(CertificateError::BadSignature),
        Error::AlertReceived(AlertDescription::UnknownCA),
        Error::AlertReceived(AlertDescription::DecryptError),
    ] {
        for server in [true, false] {
            let (why, text) = explain(&io::Error::other(error.clone()), server);
            assert_eq!(why, Why::UnknownAuthority, "{error:?}");
            assert!(text.contains("authority"), "{text}");
        }
    }
}
