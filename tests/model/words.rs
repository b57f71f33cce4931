//! The names and the times of the world.
//!
//! Time stands still: everything happens at [`NOW`], and a step that says that a time has passed is played at [`LATER`].
//! So no state differs from another by its clock alone, and such a step can be allowed exactly where the time may have
//! passed: a quarantine where nothing can land any more, a deadline where the writer's clock is beyond it.

use std::sync::LazyLock;
use std::time::Duration;

use epochgate::coordinator::keys::DoorName;
use epochgate::fence::{Moment, Nonce, Resource, Term, WriterId};

/// The target that every door stands before.
pub const TARGET: &str = "db";
/// How long a door's or a writer's session lasts.
pub const SESSION: Duration = Duration::from_secs(10);
/// How long what nobody answered may still take effect.
pub const QUARANTINE: Duration = Duration::from_secs(1_000);
/// When everything happens.
pub const NOW: Moment = Moment::from_nanos(1);
/// When the quarantine of what was before has passed, and nothing that takes longer.
pub const QUARANTINE_OVER: Moment = Moment::from_nanos(1_000_000_000_001);
/// When every time that is waited for has passed.
pub const LATER: Moment = Moment::from_nanos(5_000_000_000_000);
/// After this a drain gets help; never, here: what help does (cutting), the network may do at any moment.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(1_000_000);

static ORDERS: LazyLock<Resource> = LazyLock::new(|| "orders".parse().expect("a resource"));
static WRITERS: LazyLock<[WriterId; 3]> =
    LazyLock::new(|| ["orders-a", "orders-b", "mallory"].map(|id| id.parse().expect("an id")));

/// The resource.
pub fn orders() -> &'static Resource {
    &ORDERS
}

/// The id of a writer, by number.
pub fn writer_id(number: usize) -> WriterId {
    WRITERS[number].clone()
}

/// Who forges stamps.
pub fn mallory() -> WriterId {
    WRITERS[2].clone()
}

/// There are no more doors than this.
pub const DOORS: usize = 3;

/// The id of a door, by number.
pub fn door_id(number: usize) -> &'static str {
    ["guard-1", "guard-2", "guard-3"][number]
}

/// The name of a door, by number.
pub fn door_name(number: usize) -> DoorName {
    DoorName { target: TARGET.to_owned(), id: door_id(number).to_owned() }
}

/// The number of a door, by its name.
pub fn door_number(name: &DoorName) -> Option<usize> {
    (0..DOORS).find(|number| *name == door_name(*number))
}

/// The nonce of this number.
pub fn nonce(number: u8) -> Nonce {
    Nonce::from_bytes([number; 8])
}

/// A term as the runs are told: `2` or, where a coordinator has minted it a second time, `2 (again)`.
pub fn told(term: &Term) -> String {
    format!("{}/{}", term.epoch, term.nonce.to_bytes()[0])
}
