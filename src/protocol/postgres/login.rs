//! Until the server takes queries only what belongs to the greeting passes on from the client: so a session that the target does
//! not list yet has done nothing, and every kind of authentication is untouched.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::message::leading;
use crate::net::Stream;
use crate::protocol::way::{Stop, Watch, Way};

/// So much of a client waits for the greeting's end: more than any message of an authentication has.
const WAITS: usize = 80 * 1024;
/// What one read takes at most meanwhile.
const STEP: usize = 4 * 1024;
/// Password, and whatever else answers the server.
const ANSWER: u8 = b'p';
const TERMINATE: u8 = b'X';

/// Passes on the client's answers, whole ones; ready when nothing goes this way any more. What else it has sent stays in `up.left`.
pub fn poll(
    up: &mut Way,
    client: &mut Stream,
    upstream: &mut Stream,
    watch: &mut impl Watch,
    context: &mut Context<'_>,
) -> Poll<Stop> {
    loop {
        let answers = match leading(&up.left, |kind| kind == ANSWER) {
            Ok(answers) => answers,
            Err(why) => return Poll::Ready(Stop::Malformed(why.0)),
        };
        if answers > 0 {
            let waits = up.left.split_off(answers);
            let sent = up.poll_left(upstream, watch, context);
            up.left.unsplit(waits);
            if let Some(stop) = ready!(sent) {
                return Poll::Ready(stop);
            }
            continue;
        }
        match up.left.first() {
            Some(&TERMINATE) => return Poll::Ready(Stop::End),
            // It speaks before it is asked: that waits.
            Some(kind) if *kind != ANSWER => return Poll::Pending,
            _ if up.left.len() >= WAITS => return Poll::Pending,
            _ => {}
        }
        let mut buffer = [0; STEP];
        let mut space = ReadBuf::new(&mut buffer);
        match ready!(Pin::new(&mut *client).poll_read(context, &mut space)) {
            Ok(()) if space.filled().is_empty() => return Poll::Ready(Stop::End),
            Ok(()) => up.left.extend_from_slice(space.filled()),
            Err(_) => return Poll::Ready(Stop::FromBroke),
        }
        debug_assert!(up.left.has_remaining());
    }
}
