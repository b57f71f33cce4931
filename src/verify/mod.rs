//! The history checker: did what was recorded keep the rules?
//!
//! A history is a list of [`Line`]s: the product's own events (the key `history:`), and what the outside saw of it:
//! clients, targets, the coordinator, whoever kills processes. The simulation makes one in memory, the tests with real
//! processes and users read one from files. `docs/reference/history.md` describes every line.
//!
//! | file | what it is for |
//! |---|---|
//! | [`history`] | what a line may be, how it is written, and reading one |

pub mod history;

pub use history::{Line, Outside, Place, Taken, What};
