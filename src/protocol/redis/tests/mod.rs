//! Played against a server that the test is.
