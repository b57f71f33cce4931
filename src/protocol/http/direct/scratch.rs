//! The buffers of a worker's direct path: lent out from one poll to its end, so that an idle connection holds none and
//! a busy worker uses the same few over and over.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A read takes so much at most: a body of 64 KiB with its head comes in one piece.
pub const READ: usize = 68 * 1024;
/// Room for a head, and more where one needs it.
const HEAD: usize = 2 * 1024;
/// What has grown beyond this is not kept.
const LARGEST_KEPT: usize = 128 * 1024;
/// So many are kept of each kind; a worker runs one poll at a time, and few of its requests wait with a head in hand.
const MOST_KEPT: usize = 256;

thread_local! {
    static READS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static HEADS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

type Shelf = std::thread::LocalKey<RefCell<Vec<Vec<u8>>>>;

/// A buffer that goes back when it is dropped.
pub struct Scratch {
    bytes: Vec<u8>,
    shelf: &'static Shelf,
}

impl Scratch {
    /// [`READ`] bytes to read into; what is in them is of no meaning.
    pub fn to_read() -> Scratch {
        let bytes = READS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ]);
        Scratch { bytes, shelf: &READS }
    }

    /// Empty, to write into.
    pub fn to_write() -> Scratch {
        let mut bytes = HEADS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(HEAD));
        bytes.clear();
        Scratch { bytes, shelf: &HEADS }
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() > LARGEST_KEPT {
            return;
        }
        // Where the thread is ending there is no shelf any more.
        let _ = self.shelf.try_with(|shelf| {
            let mut shelf = shelf.borrow_mut();
            if shelf.len() < MOST_KEPT {
                shelf.push(bytes);
            }
        });
    }
}
