//! How a connection begins: requests for encryption, then a startup message, or a request to cancel.
//!
//! Nothing that came in plain text counts once TLS was asked for: bytes that stand behind the request are refused, or they would
//! pass for the beginning of what TLS protects (CVE-2021-23222).

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::message::{self, First, Malformed};
use crate::net::{Stream, tls};
use crate::peer::Names;

/// So much is read at once before a session begins.
const STEP: usize = 1024;

/// How Terminate begins.
const GOODBYE: &[u8] = b"X\0\0\0";

/// A connection whose client has said what it wants.
pub struct Opened {
    /// Its bytes, behind TLS where that was agreed on.
    pub stream: Stream,
    /// What the certificate that it has shown here names it.
    pub names: Option<Rc<Names>>,
    /// What it wants.
    pub wants: Wants,
    /// What it sent behind that.
    pub ahead: BytesMut,
}

/// What a client wants.
pub enum Wants {
    /// A session: its startup message, whole.
    Session(Vec<u8>),
    /// What another session runs is to be cancelled: the request, whole.
    Cancel(Vec<u8>),
}

/// Why nothing came of it.
pub enum Unfit {
    /// The client has gone.
    Gone,
    /// It does not speak the protocol, and can be told so.
    Malformed(Stream, Malformed),
    /// No TLS session came about.
    Tls,
}

/// Hears a client out. `tls` is what sessions are agreed on with; where there is something, none begins without.
///
/// # Errors
/// Where the connection is to be closed, after the client was told what it can be told.
pub async fn open(mut stream: Stream, tls: Option<Arc<ServerConfig>>) -> Result<Opened, Unfit> {
    let (mut read, mut names) = (BytesMut::new(), None);
    let (mut asked_tls, mut asked_gss, mut secured) = (false, false, stream.tls().is_some());
    loop {
        let (first, length) = match message::first(&read) {
            Ok(Some(found)) => found,
            Ok(None) => {
                more(&mut stream, &mut read).await?;
                continue;
            }
            // A client that is told to end before it has connected (node-postgres). The server closes without a word, too.
            Err(_) if read.starts_with(GOODBYE) => return Err(Unfit::Gone),
            Err(why) => return Err(Unfit::Malformed(stream, why)),
        };
        let wants = match first {
            First::Tls | First::Gss if length < read.len() => {
                return Err(Unfit::Malformed(stream, Malformed("bytes follow a request for encryption in plain text")));
            }
            First::Tls if asked_tls || secured => {
                return Err(Unfit::Malformed(stream, Malformed("TLS is asked for a second time")));
            }
            First::Gss if asked_gss || secured => {
                return Err(Unfit::Malformed(stream, Malformed("GSSAPI encryption is asked for a second time")));
            }
            First::Tls => {
                asked_tls = true;
                read.clear();
                let Some(config) = &tls else {
                    answer(&mut stream, b"N").await?;
                    continue;
                };
                answer(&mut stream, b"S").await?;
                stream = tls::accept(stream, config).await.map_err(|_| Unfit::Tls)?;
                names = tls::peer_names(&stream);
                secured = true;
                continue;
            }
            First::Gss => {
                asked_gss = true;
                read.clear();
                answer(&mut stream, b"N").await?;
                continue;
            }
            // As PostgreSQL has it: many clients cancel in plain text, whatever their session goes over.
            First::Cancel(packet) => Wants::Cancel(packet.to_vec()),
            First::Startup(_) if tls.is_some() && !secured => {
                return Err(Unfit::Malformed(
                    stream,
                    Malformed("this listener takes sessions over TLS only (sslmode=require)"),
                ));
            }
            First::Startup(packet) => Wants::Session(packet.to_vec()),
        };
        read.advance(length);
        return Ok(Opened { stream, names, wants, ahead: read });
    }
}

async fn more(stream: &mut Stream, read: &mut BytesMut) -> Result<(), Unfit> {
    read.reserve(STEP);
    match stream.read_buf(read).await {
        Ok(0) | Err(_) => Err(Unfit::Gone),
        Ok(_) => Ok(()),
    }
}

async fn answer(stream: &mut Stream, byte: &[u8; 1]) -> Result<(), Unfit> {
    stream.write_all(byte).await.map_err(|_| Unfit::Gone)?;
    stream.flush().await.map_err(|_| Unfit::Gone)
}
