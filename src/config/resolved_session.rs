//! What only listeners of sessions have, as the program uses it. See [`super::resolved`].

use std::net::IpAddr;
use std::path::PathBuf;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1, HTTP/2 and gRPC.
    Http,
    /// Any protocol over TCP.
    Tcp,
    /// PostgreSQL.
    Postgres,
    /// Redis and Valkey.
    Redis,
}

impl Protocol {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
            Protocol::Postgres => "postgres",
            Protocol::Redis => "redis",
        }
    }

    /// Whether a connection is a session that belongs to an epoch, and not a way for requests.
    pub const fn has_sessions(self) -> bool {
        !matches!(self, Protocol::Http)
    }
}

/// Whose PROXY protocol header is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Those who connect from here.
    pub from: Vec<Network>,
    /// Whether these have to send one.
    pub required: bool,
}

impl ProxyProtocol {
    /// Whether somebody at this address is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.from.iter().any(|network| network.contains(address))
    }
}

/// What becomes of a session, or a command, with a stale stamp or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// It is refused.
    Refuse,
    /// It may read.
    ReadOnly,
}

/// The guard's own connection to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The user; none: the default one of Redis.
    pub user: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// PostgreSQL: the database.
    pub database: String,
    /// PostgreSQL: the schema of the in-target level.
    pub schema: String,
}

/// The addresses of a network. IPv4 addresses that are written as IPv6 ones (`::ffff:10.0.0.7`) are IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, or one address. `None` for anything else, also where bits behind the prefix are set.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
        };
        let network = Network { address, bits };
        (bits <= most && masked(address, bits) == address).then_some(network)
    }

    /// Whether an address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_own_addresses_and_no_others() {
        let contains = |network: &str, address: &str| {
            Network::parse(network).expect(network).contains(address.parse().expect("an address"))
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.7", "10.0.0.7") && !contains("10.0.0.7", "10.0.0.8"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"), "the same address, as a socket for both has it");
        assert!(!contains("::/0", "10.0.0.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1"));
        for text in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0.0/", "x", "10.0.0.0/8/8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
