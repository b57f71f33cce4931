//! Which sessions of a server have no socket on this host any more.
//!
//! A server goes on working for a client that is gone: it notices only when it next reads or writes. What has come from
//! this host and has no socket here is such a session: of a predecessor of this process that was killed, or one that a
//! worker gave up. Everything else is somebody's, and is left alone.
//!
//! The order of reading decides: first the server's list, then this host's sockets. A session that is listed had its
//! socket before; where that is missing *afterwards*, it was closed, and does not come back.
//!
//! One thing cannot be told: a session is taken as alive while a newer connection has its address and port and is not
//! listed yet. The kernel gives a port to the same server again only after the server has let the old connection go, so
//! that needs a session that works on after its connection was reset, and a second one in the middle of its login.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where the kernel lists the TCP sockets of this process' network namespace.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The states in which a process can still send on a socket (the kernel's `TCP_ESTABLISHED`, `TCP_SYN_SENT`,
/// `TCP_CLOSE_WAIT`). In all others it has closed it, or it is no connection.
const CAN_SEND: [u8; 3] = [1, 2, 8];

/// A session, as a server lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its client, as the server sees it.
    pub client: SocketAddr,
    /// Grows with each session that the server takes.
    pub order: i64,
}

/// Where this host stands towards a server: the two ends of a connection to it, as this host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vantage {
    local: SocketAddr,
    server: SocketAddr,
}

impl Vantage {
    /// Of a connection with these two ends, whose client is `seen` at the server.
    ///
    /// # Errors
    /// Where the server sees another client than this host is: something between the two changes addresses, and so
    /// nothing can be said of any session. The text says what to do.
    pub fn new(local: SocketAddr, server: SocketAddr, seen: SocketAddr) -> Result<Vantage, String> {
        let (local, server, seen) = (canonical(local), canonical(server), canonical(seen));
        if local == seen {
            return Ok(Vantage { local, server });
        }
        Err(format!(
            "the server sees the control connection from {seen}, and here it is {local}: a proxy or a translation of \
             addresses stands between, so sessions of this guard cannot be told from others; give an upstream that \
             leads to the server itself"
        ))
    }

    /// The address of this host.
    pub fn local(&self) -> IpAddr {
        self.local.ip()
    }

    /// Whether a session of that client comes from this host.
    pub fn is_own(&self, client: SocketAddr) -> bool {
        let (own, ip) = (self.local.ip(), canonical(client).ip());
        // A name such as localhost leads to either loopback address; no other host has one.
        own == ip || own.is_loopback() && ip.is_loopback() || is_of_this_host(ip)
    }

    /// Whether a socket's other end is the server.
    fn is_server(&self, remote: SocketAddr) -> bool {
        let (server, remote) = (self.server, canonical(remote));
        server == remote || server.ip().is_loopback() && remote.ip().is_loopback() && server.port() == remote.port()
    }
}

/// Whether an address is one of this host's: a session may have left from another one than the control connection, after a
/// change of routes. The kernel gives a socket no other address than its own.
fn is_of_this_host(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// The TCP connections of this host on which something can still be sent: each with its own address and the other's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sockets(HashSet<(SocketAddr, SocketAddr)>);

impl Sockets {
    /// Adds those that a table lists now.
    fn read(&mut self, table: &str) -> io::Result<()> {
        match fs::read_to_string(table) {
            Ok(text) => self.add(&text).map_err(|line| unreadable(table, &line)),
            // A kernel without IPv6 has no table of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == TABLES[1] => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), format!("{table}: {error}"))),
        }
    }

    /// Adds what a table of the kernel lists; the line that cannot be read where there is one.
    fn add(&mut self, table: &str) -> Result<(), String> {
        for line in table.lines().skip(1) {
            let (local, remote, state) = parse(line).ok_or_else(|| line.to_owned())?;
            if CAN_SEND.contains(&state) {
                self.0.insert((canonical(local), canonical(remote)));
            }
        }
        Ok(())
    }

    /// Whether the connection by which `vantage` was taken is among them: if not, this is not the table that counts.
    fn show(&self, vantage: &Vantage) -> bool {
        self.0.contains(&(vantage.local, vantage.server))
    }
}

fn unreadable(table: &str, line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{table} has a line of another form: {line:?}"))
}

/// The places in `sessions`, which was listed just before, of those that come from where `vantage` stands and have no socket
/// on this host now. Blocks for as long as the kernel needs to list its sockets: ten milliseconds and more for thousands of them.
///
/// # Errors
/// Where its tables cannot be read, or do not show the connection by which `vantage` was taken: then they are not those that
/// count.
pub fn orphans_now(sessions: &[Listed], vantage: &Vantage) -> io::Result<Vec<usize>> {
    if !sessions.iter().any(|session| vantage.is_own(session.client)) {
        return Ok(Vec::new());
    }
    let mut open = Sockets::default();
    // A socket that is found was open after the list, whichever table it stands in: the rest is read only for as long as
    // somebody seems to have none. Twice, since a table is read in pieces, and one that changes meanwhile may leave out a
    // socket that was there throughout.
    let mut orphaned = None;
    for table in TABLES.iter().chain(&TABLES) {
        open.read(table)?;
        if open.show(vantage) {
            let found = orphaned.insert(orphans(sessions, &open, vantage));
            if found.is_empty() {
                break;
            }
        }
    }
    orphaned.ok_or_else(|| {
        io::Error::other(
            "this host's list of sockets does not show the control connection: it cannot be what it is taken for \
             (/proc/net/tcp of another network namespace?)",
        )
    })
}

/// The places in `sessions` of those that come from where `vantage` stands, and have no socket in `open` any more.
///
/// `sessions` has been listed before `open` was read. Of several with the same client only the newest can be alive.
fn orphans(sessions: &[Listed], open: &Sockets, vantage: &Vantage) -> Vec<usize> {
    let mut newest: HashMap<SocketAddr, i64> = HashMap::new();
    for session in sessions {
        let order = newest.entry(canonical(session.client)).or_insert(session.order);
        *order = session.order.max(*order);
    }
    let alive: HashSet<SocketAddr> =
        open.0.iter().filter(|(_, remote)| vantage.is_server(*remote)).map(|(local, _)| *local).collect();
    let is_orphan = |session: &Listed| {
        let client = canonical(session.client);
        vantage.is_own(client) && (!alive.contains(&client) || newest[&client] != session.order)
    };
    sessions.iter().enumerate().filter(|(_, session)| is_orphan(session)).map(|(place, _)| place).collect()
}

/// The same address in one form: a socket for both families writes IPv4 addresses as mapped ones.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One line of a table: `sl local remote state …`, addresses as hexadecimal words of the host's byte order.
fn parse(line: &str) -> Option<(SocketAddr, SocketAddr, u8)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    Some((local, remote, u8::from_str_radix(fields.next()?, 16).ok()?))
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (chunk, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                chunk.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn listed(client: &str, order: i64) -> Listed {
        Listed { client: at(client), order }
    }

    fn from_here() -> Vantage {
        Vantage::new(at("10.0.0.3:40000"), at("10.0.0.9:5432"), at("10.0.0.3:40000")).expect("nothing between")
    }

    fn open(pairs: &[(&str, &str)]) -> Sockets {
        Sockets(pairs.iter().map(|(local, remote)| (at(local), at(remote))).collect())
    }

    #[test]
    fn a_session_without_a_socket_is_an_orphan_and_others_are_left_alone() {
        let sessions = [
            listed("10.0.0.3:40000", 1),
            listed("10.0.0.3:40001", 2),
            // Another host's: whether it lives is not to be seen from here.
            listed("10.0.0.4:40001", 3),
            listed("[::ffff:10.0.0.3]:40002", 4),
        ];
        let sockets = open(&[("10.0.0.3:40000", "10.0.0.9:5432"), ("10.0.0.3:40002", "10.0.0.9:5432")]);
        assert_eq!(orphans(&sessions, &sockets, &from_here()), [1]);
    }

    #[test]
    fn a_socket_to_another_server_is_no_sign_of_life() {
        let sessions = [listed("10.0.0.3:40001", 1)];
        for other in ["10.0.0.8:5432", "10.0.0.9:5433"] {
            assert_eq!(orphans(&sessions, &open(&[("10.0.0.3:40001", other)]), &from_here()), [0], "{other}");
        }
    }

    #[test]
    fn of_two_with_one_port_only_the_newest_lives() {
        let sessions = [listed("10.0.0.3:40001", 7), listed("10.0.0.3:40001", 5)];
        assert_eq!(orphans(&sessions, &open(&[("10.0.0.3:40001", "10.0.0.9:5432")]), &from_here()), [1]);
        assert_eq!(orphans(&sessions, &open(&[]), &from_here()), [0, 1]);
    }

    #[test]
    fn loopback_is_this_host_in_either_family() {
        let vantage =
            Vantage::new(at("127.0.0.1:4"), at("127.0.0.1:5432"), at("127.0.0.1:4")).expect("nothing between");
        let sessions = [listed("[::1]:40001", 1), listed("[::1]:40002", 2)];
        assert_eq!(orphans(&sessions, &open(&[("[::1]:40002", "[::1]:5432")]), &vantage), [0]);
    }

    #[test]
    fn a_vantage_needs_the_same_ends_on_both_sides() {
        let (local, server) = (at("[::ffff:10.0.0.3]:40000"), at("10.0.0.9:5432"));
        assert!(Vantage::new(local, server, at("10.0.0.3:40000")).is_ok());
        for seen in ["10.0.0.3:40001", "10.0.0.2:40000"] {
            let said = Vantage::new(local, server, at(seen)).expect_err("something is between");
            assert!(said.contains(seen) && said.contains("10.0.0.3:40000"), "{said}");
        }
    }

    /// Lines as Linux 6.1 on a little-endian machine writes them.
    #[cfg(target_endian = "little")]
    #[test]
    fn tables_are_read_as_the_kernel_writes_them() {
        let mut sockets = Sockets::default();
        let v4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                  0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1077 1 0 100 0 0 10 0\n   \
                  1: 0300000A:9C40 0900000A:1538 01 00000000:00000000 00:00000000 00000000 0 0 1078 1 0 100 0 0 10 0\n   \
                  2: 0300000A:9C41 0900000A:1538 08 00000000:00000000 00:00000000 00000000 0 0 1079 1 0 100 0 0 10 0\n   \
                  3: 0300000A:9C42 0900000A:1538 02 00000000:00000000 00:00000000 00000000 0 0 1080 1 0 100 0 0 10 0\n   \
                  4: 0300000A:9C43 0900000A:1538 04 00000000:00000000 00:00000000 00000000 0 0 1081 1 0 100 0 0 10 0\n   \
                  5: 0300000A:9C44 0900000A:1538 06 00000000:00000000 00:00000000 00000000 0 0 0 1 0 100 0 0 10 0\n";
        sockets.add(v4).expect("tables of the kernel");
        let v6 = "  sl  local_address                         remote_address                        st\n   \
                  0: 0000000000000000FFFF00000300000A:9C45 0000000000000000FFFF00000900000A:1538 01 0:0 0:0 0 0 0 1 1\n   \
                  1: B80D0120000000000000000001000000:9C46 B80D0120000000000000000002000000:1538 01 0:0 0:0 0 0 0 1 1\n";
        sockets.add(v6).expect("tables of the kernel");
        let server = "10.0.0.9:5432";
        let expected = [
            ("10.0.0.3:40000", server),
            ("10.0.0.3:40001", server),
            ("10.0.0.3:40002", server),
            ("10.0.0.3:40005", server),
            ("[2001:db8::1]:40006", "[2001:db8::2]:5432"),
        ];
        assert_eq!(sockets, open(&expected));
    }

    #[test]
    fn a_table_of_another_form_is_an_error_and_not_an_empty_one() {
        for line in ["0: 0100007F:1538", "0: xx:1538 00000000:0000 0A", "0: 0100007F 00000000:0000 0A", "x"] {
            assert!(Sockets::default().add(&format!("head\n{line}\n")).is_err(), "{line}");
        }
    }

    #[test]
    fn every_address_of_this_host_is_its_own() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        // Of the block for documentation (RFC 5737): nobody has it.
        assert!(is_of_this_host(ip("127.0.0.1")) && !is_of_this_host(ip("192.0.2.1")));
    }

    #[test]
    fn this_hosts_own_connections_are_seen_and_then_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
            let (local, server) = (client.local_addr().expect("address"), client.peer_addr().expect("address"));
            (client, Vantage::new(local, server, local).expect("nothing between"), Listed { client: local, order: 1 })
        };
        let ((control, vantage, own), (client, _unused, session)) = (connect(), connect());
        assert!(orphans_now(&[own, session], &vantage).expect("tables").is_empty());
        drop(client);
        assert_eq!(orphans_now(&[own, session], &vantage).expect("tables"), [1]);
        drop(control);
        let error = orphans_now(&[own, session], &vantage).expect_err("what is closed shows nothing");
        assert!(error.to_string().contains("does not show the control connection"), "{error}");
        // Nobody has to be found.
        assert!(orphans_now(&[listed("10.0.0.4:40001", 3)], &vantage).expect("nothing is read").is_empty());
    }
}
