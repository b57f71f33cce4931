//! The tenure.
/// The right to stamp, as a tenure gave it.
#[derive(Debug)]
pub struct Stamped {
    _private: (),
}
