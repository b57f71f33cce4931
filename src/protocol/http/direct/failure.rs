//! What is said to a client whose request has no answer of the upstream's.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout};

use super::super::body::Answer;
use super::super::classify::{self, Seen};
use super::super::forward::{Trouble, plain_of, refusal_of, stamp_in_trailer, unreachable};
use super::super::{Http, UNWANTED, UNWANTED_WAIT, refuse};
use super::fields::line as field;
use super::line::Came;
use super::request::MOST_FIELDS;
use super::scratch::Scratch;
use super::{After, Line};
use crate::fence::{Outcome, Reason, Refusal, Resource};
use crate::protocol::CutReason;

/// Why a request got no answer of the upstream's.
pub enum Failed {
    /// The role took its word back: nothing has left.
    Refused(Box<Refusal>),
    /// There is no connection: nothing has left.
    Unreachable(String),
    /// Something ended it, with this outcome.
    Trouble(Trouble, Outcome),
}

impl Http {
    /// Says so; `Err` where the connection is cut.
    pub(super) async fn say_failed(
        self: &Rc<Http>,
        line: &mut Line,
        came: &Came,
        failed: Failed,
        resource: Option<Resource>,
    ) -> Result<After, Option<CutReason>> {
        let seen = self.seen(line, &came.head);
        let mut cut = None;
        let refusal = match &failed {
            Failed::Refused(refusal) => Some((**refusal).clone()),
            Failed::Unreachable(why) => Some(unreachable(why)),
            Failed::Trouble(trouble, outcome) => {
                refusal_of(trouble, &self.listener.upstream).or_else(|| stamp_in_trailer(trouble, *outcome))
            }
        };
        let answer = match (refusal, &failed) {
            (Some(mut refusal), _) => {
                refusal.resource = refusal.resource.or(resource).or_else(|| self.role.resource(&seen.facts()));
                self.role.refused(&seen.facts(), &refusal);
                if refusal.reason == Reason::TermChanged {
                    cut = Some(CutReason::TermChanged);
                }
                refuse::refusal(&refusal, &seen)
            }
            (None, Failed::Trouble(trouble, outcome)) => {
                if matches!(trouble, Trouble::ClientIdle) {
                    cut = Some(CutReason::Idle);
                }
                plain_of(trouble, *outcome, &seen.head.method)
            }
            (None, _) => refuse::plain(StatusCode::SERVICE_UNAVAILABLE, "It was not sent.", &seen.head.method),
        };
        let last = came.close || cut.is_some() || came.is_unread;
        let bytes = self.written(answer, last, &seen).await;
        let patience = self.listener.limits.body_idle_timeout;
        let say = async {
            line.stream.write_all(&bytes).await?;
            line.stream.flush().await
        };
        let told = matches!(timeout(patience, say).await, Ok(Ok(())));
        if !told {
            return Err(cut);
        }
        if let Some(reason) = cut {
            self.role.cut(reason);
        }
        Ok(After { unread: came.is_unread, last, now: Instant::now() })
    }

    /// Reads the rest of a refused request where it is small and about to come, so that its connection can take another.
    pub(super) async fn came_whole(&self, line: &mut Line, came: &Came) -> bool {
        let mut left = came.length - came.body.bytes().len() as u64;
        if came.length > UNWANTED {
            return false;
        }
        let read = async {
            while left > 0 {
                let mut space = Scratch::to_read();
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
                match poll_fn(|context| {
                    let mut buffer = ReadBuf::new(&mut space[..most]);
                    Pin::new(&mut line.stream).poll_read(context, &mut buffer).map_ok(|()| buffer.filled().len())
                })
                .await
                {
                    Ok(read @ 1..) => left -= read as u64,
                    Ok(_) | Err(_) => return false,
                }
            }
            true
        };
        timeout(UNWANTED_WAIT, read).await.unwrap_or(false)
    }

    /// The request as hyper's path would have it.
    fn seen(&self, line: &Line, head: &Scratch) -> Seen {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        // It was parsed before: it is whole, and plain.
        let _ = parsed.parse(head);
        let mut request = Request::builder().method(parsed.method.unwrap_or("")).uri(parsed.path.unwrap_or("/"));
        for field in parsed.headers.iter() {
            request = request.header(field.name, field.value);
        }
        let parts = request.body(()).unwrap_or_default().into_parts().0;
        match classify::read(&parts, true, &self.names, MOST_FIELDS) {
            Ok(said) => Seen::new(parts, said, line.who.clone()),
            Err(_) => Seen::unread(parts, line.who.clone()),
        }
    }

    /// An answer that is whole in memory, as bytes.
    async fn written(&self, answer: Response<Answer>, close: bool, seen: &Seen) -> Vec<u8> {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let reason = head.status.canonical_reason().unwrap_or("");
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
        for (name, value) in &head.headers {
            field(&mut bytes, name.as_str().as_bytes(), value.as_bytes());
        }
        if seen.head.method != http::Method::HEAD {
            field(&mut bytes, b"content-length", body.len().to_string().as_bytes());
        }
        bytes.extend_from_slice(b"date: ");
        self.direct.date(Instant::now(), &mut bytes);
        bytes.extend_from_slice(b"\r\n");
        if close {
            field(&mut bytes, b"connection", b"close");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }
}
