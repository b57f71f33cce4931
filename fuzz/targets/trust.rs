//! What certificates and sessions say: of peers whose authority is trusted, and of everybody who connects.

use std::sync::Arc;

use super::text;
use crate::config::forms::{Form as _, San};
use crate::peer::Peer;
use crate::tls::certificate::{Certificate, Purpose};
use crate::tls::explain::explain;

#[test]
fn certificate() {
    crate::fuzz::engine::fuzz(
        "certificate",
        &["\u{30}\u{82}", "\u{6}\u{3}\u{55}\u{1d}\u{11}", "\u{18}\u{f}"],
        |input| {
            let read = Certificate::read(input)?;
            assert!(
                read.names.dns.iter().all(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase())),
                "in lower case"
            );
            let (server, client) = (read.is_for(Purpose::Server), read.is_for(Purpose::Client));
            Some((read.names.dns.len(), read.names.uris.len(), read.is_authority, server, client))
        },
    );
}

#[test]
fn names_of_certificates() {
    crate::fuzz::engine::fuzz("names_of_certificates", &["{writer}", "spiffe://", "*.", "{", "}"], |input| {
        let text = text(input)?;
        if let Ok(peer) = text.parse::<Peer>() {
            assert_eq!(peer.to_string().parse(), Ok(peer), "it is written as it is read");
        }
        San::read(text).ok().map(|san| {
            assert!(!san.before.starts_with("*."), "a wildcard says nothing of who it is");
            (san.is_uri, san.before.is_empty(), san.after.as_ref().map(|after| after.is_empty()))
        })
    });
}

/// The first bytes of a connection to a listener with TLS, by somebody who may be anybody.
#[test]
fn hello() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = crate::tls::tests::server_side(folder.path());
    crate::fuzz::engine::fuzz("hello", &["\u{16}\u{3}\u{1}", "\u{1}\u{0}", "\u{3}\u{3}"], |input| {
        let mut session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
        let mut rest = input;
        while !rest.is_empty() {
            match session.read_tls(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Some(format!("{:?}", explain(&error, true).0)),
            }
            if let Err(error) = session.process_new_packets() {
                return Some(format!("{:?}", explain(&std::io::Error::other(error), true).0));
            }
        }
        assert!(session.is_handshaking(), "a session was agreed on without a key");
        None
    });
}
