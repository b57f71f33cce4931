//! What the tests may take out, to see that it is needed.
//!
//! A build without the Cargo feature `danger-test-switches` has every mechanism, always: [`Mechanisms`] is then a
//! value without content, and [`Mechanisms::keeps`] is `true`. A build without debug assertions refuses the feature.

#[cfg(all(feature = "danger-test-switches", not(debug_assertions)))]
compile_error!("danger-test-switches weakens the fence: it is for tests, and no release build has it");

macro_rules! mechanisms {
    ($($(#[$doc:meta])* $name:ident $word:literal)*) => {
        /// One of the things that together keep R1 to R6 (DESIGN 3.9).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mechanism { $($(#[$doc])* $name),* }

        impl Mechanism {
            /// All of them.
            pub const ALL: &'static [Mechanism] = &[$(Mechanism::$name),*];

            /// Its name in `docs/safety.md` and in the tests' switch.
            pub const fn as_str(self) -> &'static str {
                match self { $(Mechanism::$name => $word),* }
            }
        }
    };
}

mechanisms! {
    /// A stamp's epoch is compared with the floor.
    Comparison "comparison"
    /// The floor is compared again right before the first byte leaves.
    Recheck "recheck"
    /// A new epoch opens only when no write of a lower one runs.
    Drain "drain"
    /// A write that ended without an answer still counts.
    LostWrites "lost_writes"
    /// A target's 502 and 504 count as no answer.
    NoAnswer "no_answer"
    /// An answer counts once it has come to its last byte.
    WholeAnswer "whole_answer"
    /// An answer counts only where the request was sent whole before it.
    SentWhole "sent_whole"
    /// The connection of a write without an answer is closed by reset, and the kernel does not go on sending.
    Reset "reset"
    /// "Drained" is remembered apart from the floor.
    DrainedMark "drained_mark"
    /// A start that is not clean waits for what its predecessor forwarded.
    Residue "residue"
    /// The mark of an orderly stop comes off, durably, before a write is forwarded.
    CleanMark "clean_mark"
    /// The floor is on disk before its epoch opens.
    Persistence "persistence"
    /// A door that left its target joins it like a new one when it starts again.
    Leaving "leaving"
    /// A write carries the term that its writer held when it began.
    OwnTerm "own_term"
    /// A process leads only a term whose nonce it minted itself.
    OwnNonce "own_nonce"
    /// A term that began after the connection is not put on its requests.
    ConnectionBinding "connection_binding"
    /// Connections that wait are accepted under the old standing before a worker takes over a new one.
    AcceptFirst "accept_first"
    /// A stamp that comes in from the service is refused.
    IncomingStamp "incoming_stamp"
    /// A request that says which epoch its work belongs to is stamped with no other.
    Expectation "expectation"
    /// A stamp is made only before the writer's deadline.
    Deadline "deadline"
    /// A stamp that is to be signed is believed only where its signature holds.
    Signature "signature"
    /// The same epoch with another nonce is refused.
    Nonce "nonce"
    /// A higher epoch is believed only after a linearizable read.
    Confirmation "confirmation"
    /// A term stamps only when every door has drained its epoch.
    Arming "arming"
    /// A sole door stays shut while another's record stands.
    DoorRecord "door_record"
    /// A door that left with writes on their way, or was declared dead, is waited out.
    WaitingOut "waiting_out"
    /// A door that is to close without a session admits nothing once its session ran out.
    Closing "closing"
    /// A shared door opens only what every other one has drained.
    Agreement "agreement"
    /// A shared door that finds nobody who could vouch for the past waits for those who may not be on record.
    Solitude "solitude"
    /// A door reads the epoch and the floors after it has joined.
    ReadOnJoining "read_on_joining"
    /// A coordinator that went backwards is not believed.
    Regression "regression"
    /// A leader that sees a floor at or above its epoch gives up.
    GivingUp "giving_up"
    /// An election mints above the epoch and above every recorded floor.
    MintAboveFloors "mint_above_floors"
    /// An election commits only where nothing that it was decided on has changed.
    OneTransaction "one_transaction"
    /// A floor far above the epoch is not believed.
    Belief "belief"
    /// A request body that was cut is never finished towards the target.
    Truncation "truncation"
}

/// Which mechanisms are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mechanisms {
    #[cfg(feature = "danger-test-switches")]
    taken_out: u64,
}

impl Mechanisms {
    /// Every mechanism: the only value that a build without the test feature has.
    pub const fn all() -> Mechanisms {
        Mechanisms {
            #[cfg(feature = "danger-test-switches")]
            taken_out: 0,
        }
    }

    /// Whether this mechanism is in force.
    #[cfg(not(feature = "danger-test-switches"))]
    #[inline(always)]
    pub const fn keeps(self, _mechanism: Mechanism) -> bool {
        true
    }

    /// Whether this mechanism is in force.
    #[cfg(feature = "danger-test-switches")]
    pub const fn keeps(self, mechanism: Mechanism) -> bool {
        self.taken_out & (1 << mechanism as u64) == 0
    }

    /// The same without one mechanism.
    #[cfg(feature = "danger-test-switches")]
    #[must_use]
    pub const fn without(self, mechanism: Mechanism) -> Mechanisms {
        Mechanisms { taken_out: self.taken_out | (1 << mechanism as u64) }
    }

    /// The mechanisms that a comma-separated list of names leaves in force; `None` where a name is unknown.
    #[cfg(feature = "danger-test-switches")]
    pub fn without_named(names: &str) -> Option<Mechanisms> {
        let mut kept = Mechanisms::all();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            kept = kept.without(*Mechanism::ALL.iter().find(|m| m.as_str() == name)?);
        }
        Some(kept)
    }
}
