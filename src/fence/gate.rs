//! The gate.
/// The right to write, as a gate gave it.
#[derive(Debug)]
pub struct Admitted {
    _private: (),
}
