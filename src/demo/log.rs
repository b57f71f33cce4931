//! What a target applied, and how much of it was stale.

use crate::fence::Epoch;

/// A write that the target applied. A log holds them in the order in which they took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The epoch that its writer led in when it began; none where nobody knows.
    pub epoch: Option<Epoch>,
    /// Who wrote it.
    pub writer: String,
    /// What was written to.
    pub key: String,
    /// What was written.
    pub what: String,
}

/// How many writes took effect after one of a later epoch. Zero is what epochgate promises (R1).
///
/// Nothing speaks for a write whose epoch is not known: it is stale as soon as one with an epoch came before it. The
/// same write twice is stale the second time only where a later epoch came between.
pub fn count_stale(applied: &[Applied]) -> usize {
    let mut newest = None;
    let mut stale = 0;
    for write in applied {
        if write.epoch < newest {
            stale += 1;
        } else {
            newest = write.epoch;
        }
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 0 stands for an epoch that is not known.
    fn log(epochs: &[u64]) -> Vec<Applied> {
        let one = |&epoch: &u64| Applied {
            epoch: Epoch::new(epoch),
            writer: "A".into(),
            key: "/orders/1001".into(),
            what: "a lamp".into(),
        };
        epochs.iter().map(one).collect()
    }

    fn stale(epochs: &[u64]) -> usize {
        count_stale(&log(epochs))
    }

    #[test]
    fn good_logs_have_none() {
        assert_eq!(stale(&[]), 0);
        assert_eq!(stale(&[7]), 0);
        assert_eq!(stale(&[1, 1, 2, 2, 9, 9]), 0, "epochs may repeat, and may be skipped");
    }

    #[test]
    fn out_of_order_counts_each_late_write() {
        assert_eq!(stale(&[1, 2, 1]), 1);
        assert_eq!(stale(&[1, 2, 1, 3, 2]), 2, "the story of --unsafe");
        assert_eq!(stale(&[3, 1, 2, 3]), 2, "the newest stays the newest: 2 after 1 is stale all the same");
        assert_eq!(stale(&[5, 4, 3, 2, 1]), 4);
    }

    #[test]
    fn an_unknown_epoch_is_not_given_the_benefit_of_the_doubt() {
        assert_eq!(stale(&[0, 0, 1]), 0, "nothing newer came before");
        assert_eq!(stale(&[1, 0]), 1);
        assert_eq!(stale(&[1, 0, 1]), 1, "it does not reset what is newest");
        assert_eq!(stale(&[0, 2, 0, 2, 0]), 2);
    }

    #[test]
    fn duplicates_are_judged_by_what_came_between() {
        assert_eq!(stale(&[1, 1]), 0);
        assert_eq!(stale(&[1, 2, 2, 1, 1]), 2);
    }

    #[test]
    fn the_writer_and_the_key_do_not_excuse_it() {
        let mut writes = log(&[1, 2, 1]);
        writes[2].writer = "B".into();
        writes[2].key = "/orders/7".into();
        assert_eq!(count_stale(&writes), 1, "R1 is about the target, not about one file");
    }

    proptest! {
        #[test]
        fn none_exactly_where_epochs_never_decrease(epochs in proptest::collection::vec(0_u64..5, 0..12)) {
            prop_assert_eq!(stale(&epochs) == 0, epochs.is_sorted());
        }
    }
}
