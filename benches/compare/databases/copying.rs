//! A relay that reads and writes and does nothing else: what the kernel and tokio cost alone. In a process of its own, so that its
//! CPU can be told.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use crate::running::{Running, Wrap};
use crate::support::process::{LONG, Launch, eventually_some};

/// The argument that makes a process of this program such a relay; where to comes after it.
pub const ALONE: &str = "--copy-to";
/// Tokio's own 8 KiB cost a large transfer twice as much.
const BUFFER: usize = 64 * 1024;

/// One that runs.
pub struct Copying {
    pub process: Running,
    pub address: SocketAddr,
}

impl Copying {
    /// Starts it before a server, on these cores.
    pub fn start(server: SocketAddr, cores: &[usize]) -> Copying {
        Copying::under(&Wrap::none(), server, cores)
    }

    /// The same under a tool.
    pub fn under(wrap: &Wrap, server: SocketAddr, cores: &[usize]) -> Copying {
        let program = std::env::current_exe().expect("this program has a file").display().to_string();
        let launch = Launch::program(&program).named("copy").args(["--bench", ALONE]).arg(server.to_string());
        let mut process = wrap.start(launch, cores);
        let address = eventually_some("the copy loop listens", LONG, || {
            assert!(process.is_running(), "it ended: {}", process.recent());
            process.stdout().lines().next()?.parse().ok()
        });
        Copying { process, address }
    }
}

/// Is one, for as long as the process that started it runs.
pub fn be() {
    // Where that cannot be had, whoever started it ends it.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let to = std::env::args().skip_while(|argument| argument != ALONE).nth(1);
    let to: SocketAddr = to.and_then(|to| to.parse().ok()).expect("it is told where to");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime can be made");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port of the loopback is free");
        println!("{}", listener.local_addr().expect("it listens"));
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            tokio::task::spawn_local(copy(client, to));
        }
    });
}

async fn copy(mut client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await.map(drop)
}
