//! The aborted transactions of a partition, which readers of committed records are told of.
//!
//! Kafka keeps them in a file beside each segment (`TransactionIndex`); here they are found again by
//! reading the log, like everything else that is known of it.

/// One transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    pub(crate) producer_id: i64,
    /// The offset of its first record.
    pub(crate) first_offset: i64,
    /// The offset of its marker.
    pub(crate) last_offset: i64,
    /// The last stable offset after it had ended: what ended later began there or after it.
    pub(crate) stable_offset: i64,
}

/// All aborted transactions, in the order in which they ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct AbortedIndex {
    entries: Vec<AbortedTransaction>,
}

impl AbortedIndex {
    pub(super) fn push(&mut self, transaction: AbortedTransaction) {
        self.entries.push(transaction);
    }

    /// Forgets those that ended below `offset`, because compaction took their records out.
    pub(super) fn forget_below(&mut self, offset: i64) {
        self.entries
            .retain(|transaction| transaction.last_offset >= offset);
    }

    /// Those with something in `from..to`.
    pub(crate) fn between(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let first = self
            .entries
            .partition_point(|transaction| transaction.last_offset < from);
        let mut found = Vec::new();
        for transaction in &self.entries[first..] {
            if transaction.first_offset < to {
                found.push(*transaction);
            }
            if transaction.stable_offset >= to {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_overlap_are_found() {
        let mut index = AbortedIndex::default();
        // The second one began before the first one and ended after it.
        for (producer_id, first_offset, last_offset, stable_offset) in
            [(1, 10, 20, 5), (2, 5, 30, 31), (3, 40, 50, 51)]
        {
            index.push(AbortedTransaction {
                producer_id,
                first_offset,
                last_offset,
                stable_offset,
            });
        }
        let find = |from, to| -> Vec<i64> {
            let found = index.between(from, to);
            found.iter().map(|found| found.producer_id).collect()
        };
        assert_eq!(find(0, 100), [1, 2, 3]);
        assert_eq!(find(0, 5), [0; 0]);
        assert_eq!(find(0, 6), [2]);
        assert_eq!(find(21, 40), [2]);
        assert_eq!(find(31, 41), [3]);
        assert_eq!(find(51, 100), [0; 0]);
    }
}
