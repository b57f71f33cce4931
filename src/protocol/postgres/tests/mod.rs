//! A session over a server that the test plays.
