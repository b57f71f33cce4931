//! The stamp.
/// A stamp as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {}
