//! A session over a server that the test plays.

mod ends;
mod openings;
mod reads;
mod support;
