//! Free ports on 127.0.0.1, for programs that cannot say which one they took.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range that the system takes the ports of outgoing connections from: none of those gets in between.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// How many ports this process has looked at.
static LOOKED_AT: AtomicU32 = AtomicU32::new(0);

/// A port that nothing listens on, and that no other call of this process returns.
pub fn free() -> u16 {
    // Test programs that run at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(997);
    for _ in 0..COUNT {
        let step = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + begin.wrapping_add(step) % COUNT).expect("it is below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// The address of a free port.
pub fn free_address() -> SocketAddr {
    local(free())
}

/// The address of a port on this host.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
