//! How requests are told apart: which are writes, and to which resource.

/// One rule of a listener.
#[derive(Clone, Debug)]
pub struct Rule {}
