//! What a certificate says (RFC 5280).

use std::net::IpAddr;

use jiff::Timestamp;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::peer::Names;

/// What a certificate is to be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be shown to clients.
    Server,
    /// To be shown to servers.
    Client,
}

impl Purpose {
    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Purpose::Server => "server",
            Purpose::Client => "client",
        }
    }

    /// As tools that make certificates call it.
    pub const fn usage(self) -> &'static str {
        match self {
            Purpose::Server => "serverAuth",
            Purpose::Client => "clientAuth",
        }
    }
}

/// What of a certificate somebody here may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject alternative names.
    pub names: Names,
    /// The addresses among them.
    pub addresses: Vec<IpAddr>,
    /// Its first moment.
    pub not_before: Timestamp,
    /// Its last moment.
    pub not_after: Timestamp,
    /// Whether others may be signed with it.
    pub is_authority: bool,
    /// The purposes that it names, server and client; `None` where it names none at all, and so serves for every one.
    usages: Option<(bool, bool)>,
}

impl Certificate {
    /// Reads one in DER; `None` where it is none.
    pub fn read(der: &[u8]) -> Option<Certificate> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let moment = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let mut certificate = Certificate {
            names: Names::default(),
            addresses: Vec::new(),
            not_before: moment(parsed.validity().not_before)?,
            not_after: moment(parsed.validity().not_after)?,
            is_authority: parsed.is_ca(),
            usages: None,
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => certificate.take_names(&names.general_names),
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    certificate.usages = Some((usage.any || usage.server_auth, usage.any || usage.client_auth));
                }
                _ => {}
            }
        }
        Some(certificate)
    }

    /// Whether it may be used so.
    pub fn is_for(&self, purpose: Purpose) -> bool {
        self.usages.is_none_or(|(server, client)| if purpose == Purpose::Server { server } else { client })
    }

    fn take_names(&mut self, names: &[GeneralName<'_>]) {
        for name in names {
            match name {
                GeneralName::DNSName(name) => self.names.dns.push(name.to_ascii_lowercase().into()),
                GeneralName::URI(uri) => self.names.uris.push((*uri).into()),
                GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }
}

/// An address as a certificate has it: four bytes, or sixteen.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
