//! Which records of a partition were committed, told from the markers in its log.
//!
//! A read-committed answer stops at the last stable offset, before the first record of the oldest open transaction, whosever that is. Behind
//! it a reader can tell for itself: the log has a marker for each transaction that has ended. That holds behind the last stable offset only.
//! Below it, compaction removes markers in time, and what a producer once wrote could be taken for part of its next transaction.

use std::collections::BTreeMap;

/// Follows the transactions through a stretch of a log that begins at a last stable offset. Batches are noted in order.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// First offset of the transaction that each producer has open.
    open: BTreeMap<i64, i64>,
    /// Aborted transactions: producer, first offset, offset of the marker.
    aborted: Vec<(i64, i64, i64)>,
}

impl Outcomes {
    /// A transactional batch.
    pub fn note_records(&mut self, producer_id: i64, base_offset: i64) {
        self.open.entry(producer_id).or_insert(base_offset);
    }

    /// A marker: the producer's transaction has ended. One without any record before it ends nothing.
    pub fn note_marker(&mut self, producer_id: i64, offset: i64, is_commit: bool) {
        if let Some(first) = self.open.remove(&producer_id)
            && !is_commit
        {
            self.aborted.push((producer_id, first, offset));
        }
    }

    /// Whether the producer's last transaction has not ended.
    #[must_use]
    pub fn is_open(&self, producer_id: i64) -> bool {
        self.open.contains_key(&producer_id)
    }

    /// Once all was noted: whether a transactional batch belongs to a committed transaction.
    #[must_use]
    pub fn is_committed(&self, producer_id: i64, base_offset: i64) -> bool {
        let is_open = self
            .open
            .get(&producer_id)
            .is_some_and(|first| base_offset >= *first);
        let within = |(aborted, first, end): &(i64, i64, i64)| {
            *aborted == producer_id && (*first..*end).contains(&base_offset)
        };
        !is_open && !self.aborted.iter().any(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_counts_if_its_own_producer_committed_it() {
        let mut outcomes = Outcomes::default();
        outcomes.note_records(7, 0);
        outcomes.note_records(8, 1);
        outcomes.note_records(7, 2);
        outcomes.note_marker(7, 3, false);
        outcomes.note_records(7, 4);
        outcomes.note_marker(7, 5, true);
        outcomes.note_marker(9, 6, false);
        outcomes.note_records(7, 7);
        for (producer_id, offset, expected) in [
            (7, 0, false),
            (8, 1, false),
            (7, 2, false),
            (7, 4, true),
            (7, 7, false),
        ] {
            let found = outcomes.is_committed(producer_id, offset);
            assert_eq!(found, expected, "{producer_id} at {offset}");
        }
        assert!(outcomes.is_open(7) && outcomes.is_open(8) && !outcomes.is_open(9));
    }
}
