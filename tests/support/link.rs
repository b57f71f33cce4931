//! A way to a server that a test can cut: bytes stop, connections stay, as where a network drops packets.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// A TCP forwarder on a thread of its own. It ends when it is dropped.
pub struct Link {
    /// Where it listens.
    pub address: SocketAddr,
    cut: watch::Sender<bool>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// A link to a server, whole.
    pub fn to(server: SocketAddr) -> Link {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener.set_nonblocking(true).expect("a listener can be set to non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let (cut, is_cut) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is non-blocking");
                tokio::select! {
                    () = accept(listener, server, is_cut) => {}
                    _ = ended => {}
                }
            });
        });
        Link { address, cut, end: Some(end), thread: Some(thread) }
    }

    /// From now on nothing comes through, either way, and nobody is told.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// New connections come through again. Old ones end: what they had in them is gone.
    pub fn mend(&self) {
        self.cut.send_replace(false);
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Its panic is in the output already.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, is_cut: watch::Receiver<bool>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let is_cut = is_cut.clone();
        tokio::spawn(async move {
            // How a connection ends is its two sides' business, and a closed channel is the link's end.
            let _ = forward(client, server, is_cut).await;
        });
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr, mut is_cut: watch::Receiver<bool>) -> Option<()> {
    becomes(&mut is_cut, false).await?;
    let mut server = TcpStream::connect(server).await.ok()?;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return Some(()),
        cut = becomes(&mut is_cut, true) => cut?,
    }
    // Both sides stay as they are, and hear nothing.
    becomes(&mut is_cut, false).await
}

async fn becomes(is_cut: &mut watch::Receiver<bool>, wanted: bool) -> Option<()> {
    is_cut.wait_for(|cut| *cut == wanted).await.ok().map(drop)
}
