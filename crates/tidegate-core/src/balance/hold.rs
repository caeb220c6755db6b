//! Holding back: how many records of the load the group has not committed yet.
//!
//! Records are counted, not offsets: the offsets of the load's batches are kept as ranges until the group has committed them. A commit that is
//! seen late only makes the count too high, so the bound holds at every moment. The one exception is a group that is moved back: what it
//! had worked off is outstanding again, at once and without anything being sent; then nothing more is sent until it has caught up.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::HOLD_TIMEOUT;
use crate::position::PartitionPosition;

/// How far a load may run ahead of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldOptions {
    /// Most records sent and not committed; at least 1.
    pub limit: u64,
    /// How long the load may be held back in one piece.
    pub timeout: Duration,
}

impl HoldOptions {
    /// A hold at `limit` records with the default time-out.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            timeout: HOLD_TIMEOUT,
        }
    }
}

/// Records of the load at offsets `base..end`. `records` is less where others wrote in between.
#[derive(Debug, Clone, Copy)]
struct Range {
    base: i64,
    end: i64,
    records: u64,
}

impl Range {
    /// Cuts off what is below `committed`, and says how many records of the load are there at least.
    fn cut(&mut self, committed: i64) -> u64 {
        let left = self
            .end
            .abs_diff(committed.clamp(self.base, self.end))
            .min(self.records);
        let done = self.records - left;
        self.base = self.base.max(committed);
        self.records = left;
        done
    }
}

#[derive(Debug, Default)]
struct HeldPartition {
    ranges: VecDeque<Range>,
    /// The highest commit seen.
    highest: Option<i64>,
    /// The last commit seen.
    current: Option<i64>,
    /// Records of the load below `highest`.
    worked_off: u64,
}

impl HeldPartition {
    /// Records that were worked off and, since the group was moved back, are not any more; at most.
    fn moved_back(&self) -> u64 {
        match (self.highest, self.current) {
            (Some(highest), Some(current)) => highest.abs_diff(current).min(self.worked_off),
            (Some(_), None) => self.worked_off,
            (None, _) => 0,
        }
    }
}

/// A group that went back in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedBack {
    /// The partition.
    pub partition: i32,
    /// Where the group was.
    pub from: i64,
    /// Where it is now; `None` when it has no commit any more.
    pub to: Option<i64>,
}

/// The bookkeeping of a hold.
#[derive(Debug)]
pub struct Hold {
    limit: u64,
    partitions: Vec<HeldPartition>,
    worked_off: u64,
    moved_back: u64,
}

impl Hold {
    /// A hold at `limit` records (at least 1) over `partitions` partitions, going on from what a load had in them before.
    #[must_use]
    pub fn new(limit: u64, partitions: i32, before: &[PartitionPosition]) -> Self {
        let mut held: Vec<HeldPartition> = Vec::new();
        held.resize_with(
            usize::try_from(partitions).unwrap_or(0),
            HeldPartition::default,
        );
        for (held, before) in held.iter_mut().zip(before) {
            if let (Some(first), Some(last)) = (before.first_offset, before.last_offset) {
                held.ranges.push_back(Range {
                    base: first,
                    end: last + 1,
                    records: before.records,
                });
            }
        }
        Self {
            limit: limit.max(1),
            partitions: held,
            worked_off: 0,
            moved_back: 0,
        }
    }

    /// Enters a delivered batch, as soon as its offset is known; until then it stays outstanding.
    pub fn delivered(&mut self, partition: i32, base_offset: i64, records: u32) {
        let Some(held) = usize::try_from(partition)
            .ok()
            .and_then(|index| self.partitions.get_mut(index))
        else {
            return;
        };
        let end = base_offset + i64::from(records);
        let mut range = Range {
            base: base_offset,
            end,
            records: u64::from(records),
        };
        if let Some(highest) = held.highest {
            let before = held.moved_back();
            let done = range.cut(highest);
            held.worked_off += done;
            self.worked_off += done;
            self.moved_back += held.moved_back() - before;
        }
        match held.ranges.back_mut() {
            _ if range.records == 0 => {}
            // Without other producers in between a whole load is one range.
            Some(last) if last.end == range.base => {
                last.end = range.end;
                last.records += range.records;
            }
            _ => held.ranges.push_back(range),
        }
    }

    /// Enters what the group has committed, and says where it went back since the last time. A partition that is not named has no commit.
    pub fn committed(&mut self, committed: &[(i32, Option<i64>)]) -> Vec<MovedBack> {
        let mut moved = Vec::new();
        for (number, held) in (0..).zip(&mut self.partitions) {
            let now = committed
                .iter()
                .find(|(partition, _)| *partition == number)
                .and_then(|(_, offset)| *offset);
            if let Some(was) = held.current.filter(|was| now.is_none_or(|now| now < *was)) {
                moved.push(MovedBack {
                    partition: number,
                    from: was,
                    to: now,
                });
            }
            held.current = now;
            if let Some(now) = now.filter(|now| held.highest.is_none_or(|highest| *now > highest)) {
                held.highest = Some(now);
                let done = work_off(&mut held.ranges, now);
                held.worked_off += done;
                self.worked_off += done;
            }
        }
        self.moved_back = self.partitions.iter().map(HeldPartition::moved_back).sum();
        moved
    }

    /// Records of `appended` that the group has not committed; never too low.
    #[inline]
    #[must_use]
    pub fn outstanding(&self, appended: u64) -> u64 {
        appended.saturating_sub(self.worked_off) + self.moved_back
    }

    /// Whether no further record may be sent.
    #[inline]
    #[must_use]
    pub fn is_full(&self, appended: u64) -> bool {
        self.outstanding(appended) >= self.limit
    }

    /// Most records that may be outstanding.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The last commit seen of each partition, for messages.
    #[must_use]
    pub fn commits(&self) -> Vec<(i32, Option<i64>)> {
        (0..)
            .zip(&self.partitions)
            .map(|(number, held)| (number, held.current))
            .collect()
    }
}

/// Takes what is below `committed` out of `ranges`, and says how many records that were at least.
fn work_off(ranges: &mut VecDeque<Range>, committed: i64) -> u64 {
    let mut done = 0;
    while let Some(range) = ranges.front_mut().filter(|range| range.base < committed) {
        done += range.cut(committed);
        if range.records > 0 {
            break;
        }
        ranges.pop_front();
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_records_not_offsets() {
        let mut hold = Hold::new(4, 1, &[]);
        hold.delivered(0, 10, 2);
        // Offset 12 is a transaction marker.
        hold.delivered(0, 13, 2);
        assert!(hold.is_full(4));
        hold.committed(&[(0, Some(13))]);
        assert_eq!(hold.outstanding(4), 2);
        hold.committed(&[(0, Some(14))]);
        assert_eq!(hold.outstanding(4), 1);
        hold.committed(&[(0, Some(99))]);
        assert_eq!(hold.outstanding(4), 0);
    }

    #[test]
    fn a_group_without_commits_has_not_started() {
        let mut hold = Hold::new(2, 2, &[]);
        hold.delivered(0, 0, 1);
        hold.delivered(1, 0, 1);
        assert!(hold.committed(&[(0, None)]).is_empty());
        assert!(hold.is_full(2));
        hold.committed(&[(0, None), (1, Some(1))]);
        assert_eq!(hold.outstanding(2), 1);
    }

    #[test]
    fn sent_but_not_settled_counts() {
        let mut hold = Hold::new(3, 1, &[]);
        assert!(hold.is_full(3));
        hold.delivered(0, 0, 3);
        assert!(hold.is_full(3));
    }

    #[test]
    fn a_group_moved_back_is_outstanding_again_and_told_once() {
        let mut hold = Hold::new(5, 1, &[]);
        hold.delivered(0, 0, 5);
        hold.committed(&[(0, Some(5))]);
        assert_eq!(hold.outstanding(5), 0);
        assert_eq!(
            hold.committed(&[(0, Some(1))]),
            [MovedBack {
                partition: 0,
                from: 5,
                to: Some(1)
            }]
        );
        assert_eq!(hold.outstanding(5), 4);
        assert!(hold.committed(&[(0, Some(1))]).is_empty());
        assert_eq!(
            hold.committed(&[(0, None)]),
            [MovedBack {
                partition: 0,
                from: 1,
                to: None
            }]
        );
        assert!(hold.is_full(5));
        hold.committed(&[(0, Some(3))]);
        assert_eq!(hold.outstanding(5), 2);
        hold.committed(&[(0, Some(5))]);
        assert_eq!(hold.outstanding(5), 0);
    }

    /// Of an earlier run only first, last and count are known: what lies between may be markers, so the count stays on the high side.
    #[test]
    fn a_resumed_load_never_counts_too_low() {
        let before = PartitionPosition {
            partition: 0,
            first_offset: Some(0),
            last_offset: Some(11),
            records: 10,
            ..PartitionPosition::default()
        };
        let mut hold = Hold::new(3, 1, &[before]);
        assert_eq!(hold.outstanding(10), 10);
        hold.committed(&[(0, Some(6))]);
        assert_eq!(hold.outstanding(10), 6);
        hold.committed(&[(0, Some(12))]);
        assert_eq!(hold.outstanding(10), 0);
    }

    proptest! {
        /// Against a plain list of offsets: never too low, and exact while the group only moves forward.
        #[test]
        fn never_counts_too_low(steps in proptest::collection::vec((0i32..3, 0i64..3, 1u32..5, 0i64..30, any::<bool>()), 1..60)) {
            let mut hold = Hold::new(10, 3, &[]);
            let mut offsets: [Vec<i64>; 3] = Default::default();
            let mut ends = [0i64; 3];
            let mut commits = [None; 3];
            let mut appended = 0;
            let mut went_back = false;
            for (partition, gap, records, commit, is_commit) in steps {
                let index = usize::try_from(partition).unwrap();
                if is_commit {
                    went_back |= commits[index].is_some_and(|before| commit < before);
                    commits[index] = Some(commit);
                    hold.committed(&[(0, commits[0]), (1, commits[1]), (2, commits[2])]);
                } else {
                    let base = ends[index] + gap;
                    ends[index] = base + i64::from(records);
                    offsets[index].extend(base..ends[index]);
                    appended += u64::from(records);
                    hold.delivered(partition, base, records);
                }
                let outstanding = offsets.iter().zip(commits).map(|(offsets, commit)| offsets.iter().filter(|offset| commit.is_none_or(|commit| **offset >= commit)).count() as u64).sum::<u64>();
                prop_assert!(hold.outstanding(appended) >= outstanding);
                if !went_back {
                    prop_assert_eq!(hold.outstanding(appended), outstanding);
                }
            }
        }
    }
}
