//! The pure core: what may be written, by whom, when.
//!
//! Nothing here reads a clock, opens a file or a socket, spawns a task, or touches an atomic; time comes in as a
//! [`Moment`]. Every state is `Clone + Eq + Hash`, so that production, the unit and property tests, the model and the
//! simulation run the very same code. `tests/dependencies.rs` holds the folder to it.
//!
//! | file | what it decides |
//! |---|---|
//! | [`epoch`], [`term`], [`resource`], [`moment`] | the words: what is counted, who leads, what is fenced, when |
//! | [`stamp`] | the header that carries a term (RFC 9651) |
//! | [`signature`] | what a signed stamp carries besides |
//! | [`gate`] | may this write go to the target? The only maker of [`gate::Admitted`] |
//! | [`ledger`] | which forwarded writes may still take effect |
//! | [`handoff`] | from one epoch to the next at a door: event in, effects out |
//! | [`floor`] | what a door remembers of a resource over a restart |
//! | [`tenure`] | may this writer stamp? The only maker of [`tenure::Stamped`] |
//! | [`verdict`] | every refusal with its status, outcome and words: one closed table |
//! | [`mechanism`] | what the tests may take out to see that it is needed |

pub mod epoch;
pub mod floor;
pub mod gate;
pub mod handoff;
pub mod ledger;
pub mod mechanism;
pub mod moment;
pub mod resource;
pub mod signature;
pub mod stamp;
pub mod tenure;
pub mod term;
pub mod verdict;

pub use epoch::Epoch;
pub use moment::Moment;
pub use resource::Resource;
pub use signature::{KeyId, Signature};
pub use stamp::Stamp;
pub use term::{Nonce, Term, WriterId};
pub use verdict::{Outcome, Reason, Refusal};
