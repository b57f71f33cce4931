//! What an HTTP/2 client's frames are worth: one that sends much that asks for nothing is cut.
//!
//! The library bounds what a client can make it keep: streams that are reset at once, heads without an end, bodies in tiny
//! frames. It answers pings and settings, and reads past priorities, window updates and frames of unknown kinds, for as
//! long as they come: none of that needs memory, all of it takes the worker's time from others. So each such frame costs
//! one point here, and whoever runs out of points is cut. Points come back with what is no flood: requests, bodies, time,
//! and what the client is sent, since that is what window updates answer.
//!
//! Pure: bytes and a time in, a word out.

use tokio::time::Instant;

/// The points of a connection at its beginning, and the most that it can have.
const MOST: u32 = 10_000;
/// What comes back for each head, and for each frame that carries a part of a body.
const OF_A_FRAME: u32 = 10;
/// What comes back in a second.
const OF_A_SECOND: u32 = 100;
/// So many bytes to the client give one back: no client confirms less at a time for long.
const BYTES_TO_CLIENT: u64 = 256;

/// A frame's head: three bytes of length, kind, flags, four of the stream.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
/// What HTTP/2 begins with is no frame.
const PREFACE: usize = 24;

/// Follows the frames of one connection.
pub struct Frames {
    /// What is passed over: the rest of a frame's payload, or of the preface.
    skip: usize,
    head: [u8; HEAD],
    /// How much of `head` is there.
    have: usize,
    points: u32,
    /// When points last came back for time.
    since: Instant,
    /// Bytes to the client that have given none yet.
    sent: u64,
}

impl Frames {
    /// Of a connection that begins at this time, with the preface.
    pub fn new(now: Instant) -> Frames {
        Frames { skip: PREFACE, head: [0; HEAD], have: 0, points: MOST, since: now, sent: 0 }
    }

    /// So much was sent to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Takes in what has come; `false` where that is a flood. `now` is read only where it matters.
    pub fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let part = self.skip.min(bytes.len());
                (self.skip, bytes) = (self.skip - part, &bytes[part..]);
                continue;
            }
            let part = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            (self.have, bytes) = (self.have + part, &bytes[part..]);
            if self.have == HEAD {
                self.have = 0;
                let length = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
                self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                if !self.weigh(length, &now) {
                    return false;
                }
            }
        }
        true
    }

    /// Whether there are points for the frame whose head has come.
    fn weigh(&mut self, length: u32, now: &impl Fn() -> Instant) -> bool {
        let [.., kind, flags, _, _, _, _] = self.head;
        match kind {
            HEADERS => self.give(OF_A_FRAME),
            DATA if length > 0 => self.give(OF_A_FRAME),
            // It ends what a head began; resets have a limit of their own in the library.
            DATA if flags & END_STREAM != 0 => {}
            RESET => {}
            CONTINUATION if length > 0 => {}
            _ => return self.charge(now),
        }
        true
    }

    fn charge(&mut self, now: &impl Fn() -> Instant) -> bool {
        if self.points == 0 {
            let now = now();
            let seconds = now.saturating_duration_since(self.since).as_secs();
            if seconds > 0 {
                self.since = now;
                self.give(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(OF_A_SECOND));
            }
            let of_sent = u32::try_from(std::mem::take(&mut self.sent) / BYTES_TO_CLIENT).unwrap_or(u32::MAX);
            self.give(of_sent);
        }
        match self.points.checked_sub(1) {
            Some(rest) => {
                self.points = rest;
                true
            }
            None => false,
        }
    }

    fn give(&mut self, points: u32) {
        self.points = self.points.saturating_add(points).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), b'x');
        frame
    }

    fn begun(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        assert!(frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now));
        frames
    }

    /// How many of these it takes, in pieces of this size.
    fn taken(frames: &mut Frames, frame: &[u8], most: u32, piece: usize, now: Instant) -> u32 {
        let take = |frames: &mut Frames| frame.chunks(piece).all(|part| frames.read(part, || now));
        (0..most).take_while(|_| take(frames)).count().try_into().expect("it is no more than most")
    }

    #[test]
    fn what_asks_for_nothing_is_taken_so_often_and_no_more() {
        let now = Instant::now();
        for (kind, flags, length) in
            [(PING, 0, 8), (4, 0, 0), (2, 0, 5), (WINDOW_UPDATE, 0, 4), (99, 0, 0), (DATA, 0, 0)]
        {
            for piece in [1, 4, 1000] {
                let mut frames = begun(now);
                assert_eq!(taken(&mut frames, &frame(kind, flags, length), 2 * MOST, piece, now), MOST, "{kind}");
            }
        }
    }

    #[test]
    fn requests_and_bodies_are_no_flood() {
        let now = Instant::now();
        for (kind, flags, length) in [(HEADERS, 5, 9), (DATA, 0, 1), (DATA, END_STREAM, 0), (RESET, 0, 4)] {
            let mut frames = begun(now);
            assert_eq!(taken(&mut frames, &frame(kind, flags, length), 3 * MOST, 1000, now), 3 * MOST, "{kind}");
        }
        // A ping with each request.
        let both = [frame(HEADERS, 5, 9), frame(PING, 0, 8)].concat();
        assert_eq!(taken(&mut begun(now), &both, 3 * MOST, 1000, now), 3 * MOST);
    }

    #[test]
    fn points_come_back_with_time_and_with_what_the_client_is_sent() {
        let now = Instant::now();
        let mut frames = begun(now);
        let ping = frame(PING, 0, 8);
        assert_eq!(taken(&mut frames, &ping, 2 * MOST, 1000, now), MOST);
        let later = now + Duration::from_secs(3);
        frames.have = 0;
        frames.skip = 0;
        assert_eq!(taken(&mut frames, &ping, 2 * MOST, 1000, later), 3 * OF_A_SECOND);
        let mut frames = begun(now);
        let update = frame(WINDOW_UPDATE, 0, 4);
        for _ in 0..4 * MOST {
            frames.sent(512);
            assert!(frames.read(&update, || now));
        }
    }
}
