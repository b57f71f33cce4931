//! What a connection costs in memory while it is idle.

use std::rc::Rc;

use super::support::*;
use crate::net::Stream;
use crate::protocol::Role as _;

/// Most of what an idle connection takes is the future that serves it.
const MOST: usize = 2100;

#[test]
fn serving_a_connection_takes_little_memory() {
    run(async {
        let world = world(|_| {}).await;
        let stream = Stream::other(tokio::io::duplex(1).0);
        let binding = world.role.bind();
        let serving = Rc::clone(&world.http).serve(
            stream,
            crate::protocol::Party::unnamed(world.address, binding),
            world.closer.handle(),
        );
        let size = size_of_val(&serving);
        assert!(
            size <= MOST,
            "{size} bytes, and {MOST} were enough: box what is rare, pass by reference what is large"
        );
    });
}
