//! An upstream that speaks HTTP/2 with prior knowledge, and does the same as the other: drains the body, answers 200 with
//! 100 bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, server};
use tokio::net::{TcpListener, TcpStream};

use crate::pin;

static ANSWER: [u8; 100] = [b'.'; 100];

/// Starts it on these cores, for as long as the process runs; where it listens.
pub fn start(cores: &[usize]) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback is free");
    let address = listener.local_addr().expect("it listens");
    listener.set_nonblocking(true).expect("a socket can be told");
    let cores = cores.to_vec();
    thread::spawn(move || {
        pin::this_thread(&cores);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(tokio::task::LocalSet::new().run_until(accept(listener)));
    });
    address
}

async fn accept(listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).expect("the runtime takes it");
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            // A proxy that goes away ends its connection as it likes.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    // Slower without, and no more than that.
    let _ = stream.set_nodelay(true);
    let mut connection = server::Builder::new().max_concurrent_streams(1000).handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, answer) = request?;
        tokio::task::spawn_local(async move {
            let _ = reply(request.into_body(), answer).await;
        });
    }
    Ok(())
}

async fn reply(mut body: RecvStream, mut answer: SendResponse<Bytes>) -> Result<(), h2::Error> {
    while let Some(bytes) = body.data().await {
        let count = bytes?.len();
        body.flow_control().release_capacity(count)?;
    }
    let head = http::Response::builder().header("content-type", "text/plain").header("content-length", ANSWER.len());
    let head = head.body(()).expect("these are good fields");
    answer.send_response(head, false)?.send_data(Bytes::from_static(&ANSWER), true)
}
