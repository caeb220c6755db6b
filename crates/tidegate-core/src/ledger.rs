//! The ledger: every record ends in exactly one outcome.
//!
//! A record is appended once, and settled once, with its whole batch: delivered or failed. The ledger keeps, per partition, counts, the
//! first and last offset and the digest, and how many rows stand in the records that are not settled yet, so that a batch can be
//! settled in rows although the broker knows only records. At the end [`Ledger::close`] holds the books against what was read:
//! `read = delivered + rejected + failed`, in every build.
//!
//! The work per record is one hash and three additions; everything else is done once per batch.

use std::collections::VecDeque;

use crate::digest::{Hash128, RecordsDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::position::PartitionPosition;
use crate::produce::{Settled, SinkError, UnknownOffset};

/// Records of one partition that follow one another and hold the same number of rows each.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    rows: u32,
    records: u64,
}

/// The records of one partition that are not settled, as runs of equal row counts. Without groups that is one run, whatever their number; in the worst case
/// there are as many runs as records in the sink, which bounds what it holds.
#[derive(Debug, Default)]
struct Outstanding {
    closed: VecDeque<Run>,
    open: Run,
    records: u64,
}

impl Outstanding {
    #[inline]
    fn push(&mut self, rows: u32) {
        if self.open.rows != rows {
            if self.open.records > 0 {
                self.closed.push_back(self.open);
            }
            self.open = Run { rows, records: 0 };
        }
        self.open.records += 1;
        self.records += 1;
    }

    /// Takes the oldest `records` out and says how many rows they hold. There must be as many.
    fn take(&mut self, mut records: u64) -> u64 {
        self.records -= records;
        let mut rows = 0;
        while let Some(run) = self.closed.front_mut() {
            let part = run.records.min(records);
            rows += part * u64::from(run.rows);
            records -= part;
            run.records -= part;
            if run.records > 0 {
                return rows;
            }
            self.closed.pop_front();
        }
        self.open.records -= records;
        rows + records * u64::from(self.open.rows)
    }
}

/// The books of one partition.
#[derive(Debug, Default)]
struct PartitionLedger {
    outstanding: Outstanding,
    /// Of all records appended, settled or not.
    digest: RecordsDigest,
    delivered_records: u64,
    delivered_rows: u64,
    failed_records: u64,
    failed_rows: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
    last_tag: Option<u64>,
    /// Records delivered behind `last_offset`, at offsets nobody told.
    beyond_known: u64,
    /// The first batch of the partition, while its offset is unknown.
    unknown_first: Option<UnknownOffset>,
    /// The last batch of the partition, while its offset is unknown.
    unknown_last: Option<UnknownOffset>,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledRows {
    /// Rows in its records.
    pub rows: u64,
    /// Whether they are in the topic.
    pub delivered: bool,
    /// Set when it is in the topic at an offset nobody told.
    pub unknown: Option<UnknownOffset>,
}

/// Sums over all partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records handed to the sink, settled or not.
    pub appended: u64,
    /// Records in the topic.
    pub delivered: u64,
    /// Rows in these.
    pub delivered_rows: u64,
    /// Records that are known, or must be taken, not to be in the topic.
    pub failed: u64,
    /// Rows in these.
    pub failed_rows: u64,
}

impl Totals {
    /// Records whose outcome is open.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.appended - self.delivered - self.failed
    }
}

/// The books of one attempt, built from those of the position it starts at.
#[derive(Debug)]
pub struct Ledger {
    partitions: Vec<PartitionLedger>,
    totals: Totals,
    failure: Option<Failure>,
}

/// The first batch that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its partition.
    pub partition: i32,
    /// Tag of its first record: the last row of that record.
    pub first_tag: u64,
    /// Tag of its last record.
    pub last_tag: u64,
    /// What the sink said.
    pub cause: SinkError,
}

impl Ledger {
    /// The books of a topic with `count` partitions, going on from `before`, which is empty at the start of a load.
    ///
    /// # Errors
    /// [`ErrorKind::InputChanged`] when `before` speaks of another number of partitions: going on would put rows of one key into two.
    pub fn new(count: i32, before: &[PartitionPosition]) -> Result<Self> {
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| Error::internal(format!("a topic with {count} partitions")))?;
        if !before.is_empty() && before.len() != count {
            let was = before.len();
            let message = format!(
                "the topic has {count} partitions; the load began on {was}, and rows of one key would now go elsewhere"
            );
            return Err(Error::new(ErrorKind::InputChanged, message));
        }
        let mut partitions: Vec<PartitionLedger> = Vec::new();
        partitions.resize_with(count, PartitionLedger::default);
        let mut totals = Totals::default();
        for (ledger, before) in partitions.iter_mut().zip(before) {
            ledger.digest = before.digest;
            ledger.delivered_records = before.records;
            ledger.delivered_rows = before.rows;
            ledger.first_offset = before.first_offset;
            ledger.last_offset = before.last_offset;
            totals.appended += before.records;
            totals.delivered += before.records;
            totals.delivered_rows += before.rows;
        }
        Ok(Self {
            partitions,
            totals,
            failure: None,
        })
    }

    /// Enters a record that the sink has taken: the hash of its content and how many rows it holds.
    ///
    /// # Panics
    /// When the topic has no such partition; the partitioner gives none.
    #[inline]
    pub fn append(&mut self, partition: i32, hash: Hash128, rows: u32) {
        let ledger = &mut self.partitions[partition.unsigned_abs() as usize];
        ledger.digest.push(hash);
        ledger.outstanding.push(rows);
        self.totals.appended += 1;
    }

    /// Settles a batch. A failed one is an outcome, not an error: it is counted, and the first failure is kept for [`take_failure`](Self::take_failure).
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the sink contradicts what was appended (an unknown partition, more records than are open, batches out of order);
    /// [`ErrorKind::Sink`] when offsets went backwards, which means that the topic lost records or was made anew.
    pub fn settle(&mut self, settled: Settled) -> Result<SettledRows> {
        let Settled {
            partition, records, ..
        } = settled;
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        let Some(ledger) = self.partitions.get_mut(index) else {
            return Err(Error::internal(format!(
                "the sink settled records of partition {partition}, which does not exist"
            )));
        };
        if u64::from(records) > ledger.outstanding.records {
            let open = ledger.outstanding.records;
            return Err(Error::internal(format!(
                "the sink settled {records} records of partition {partition}, but {open} are open"
            )));
        }
        if settled.last_tag < settled.first_tag
            || ledger
                .last_tag
                .is_some_and(|last| settled.first_tag <= last)
        {
            return Err(Error::internal(format!(
                "the sink settled batches of partition {partition} out of order"
            )));
        }
        ledger.last_tag = Some(settled.last_tag);
        let rows = ledger.outstanding.take(u64::from(records));
        match settled.outcome {
            Ok(()) => {
                let unknown = ledger.deliver(
                    partition,
                    records,
                    settled.base_offset,
                    (settled.first_tag, settled.last_tag),
                )?;
                ledger.delivered_rows += rows;
                self.totals.delivered += u64::from(records);
                self.totals.delivered_rows += rows;
                Ok(SettledRows {
                    rows,
                    delivered: true,
                    unknown,
                })
            }
            Err(cause) => {
                ledger.fail(u64::from(records), rows);
                self.totals.failed += u64::from(records);
                self.totals.failed_rows += rows;
                let (first_tag, last_tag) = (settled.first_tag, settled.last_tag);
                self.failure.get_or_insert(Failure {
                    partition,
                    first_tag,
                    last_tag,
                    cause,
                });
                Ok(SettledRows {
                    rows,
                    delivered: false,
                    unknown: None,
                })
            }
        }
    }

    /// The first failure that was settled since the last call.
    pub fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Counts everything still open as failed: the sink is gone, and nobody will tell.
    pub fn abandon(&mut self) {
        for ledger in &mut self.partitions {
            let records = ledger.outstanding.records;
            let rows = ledger.outstanding.take(records);
            ledger.fail(records, rows);
            self.totals.failed += records;
            self.totals.failed_rows += rows;
        }
    }

    /// Enters the base offset of a batch that was settled without one.
    pub fn locate(&mut self, unknown: &UnknownOffset, base_offset: i64) {
        let Some(ledger) = usize::try_from(unknown.partition)
            .ok()
            .and_then(|index| self.partitions.get_mut(index))
        else {
            return;
        };
        if ledger.unknown_first == Some(*unknown) {
            ledger.unknown_first = None;
            ledger.first_offset = Some(base_offset);
        }
        if ledger.unknown_last == Some(*unknown) {
            ledger.unknown_last = None;
            ledger.beyond_known = 0;
            ledger.last_offset = Some(last_offset(base_offset, unknown.records));
        }
    }

    /// The batches whose offset is wanted for a partition's first or last offset, and unknown.
    #[must_use]
    pub fn unknown_offsets(&self) -> Vec<UnknownOffset> {
        let mut unknown: Vec<UnknownOffset> = Vec::new();
        for ledger in &self.partitions {
            unknown.extend(ledger.unknown_first);
            unknown.extend(
                ledger
                    .unknown_last
                    .filter(|last| ledger.unknown_first != Some(*last)),
            );
        }
        unknown
    }

    /// Sums over all partitions, with those of the position the ledger started from.
    #[inline]
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How many records were appended to each partition, in order of the partitions.
    pub fn appended(&self) -> impl Iterator<Item = u64> + '_ {
        self.partitions.iter().map(|ledger| ledger.digest.records)
    }

    /// The state of every partition, in order. The digest speaks of all appended records, so it means something only where none is open or failed;
    /// where one is, it is left out.
    #[must_use]
    pub fn partitions(&self) -> Vec<(PartitionPosition, bool)> {
        let state = |(index, ledger): (usize, &PartitionLedger)| {
            let whole = ledger.digest.records == ledger.delivered_records;
            let position = PartitionPosition {
                partition: i32::try_from(index).expect("partitions were counted by an i32"),
                first_offset: ledger.first_offset,
                last_offset: ledger.last_offset.filter(|_| ledger.unknown_last.is_none()),
                records: ledger.delivered_records,
                rows: ledger.delivered_rows,
                digest: if whole {
                    ledger.digest
                } else {
                    RecordsDigest::EMPTY
                },
            };
            (position, whole)
        };
        self.partitions.iter().enumerate().map(state).collect()
    }

    /// Closes the books: every record has an outcome, and the rows read are the rows delivered, rejected and failed.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when that does not hold. It is checked in every build: a load that cannot account for each row has not succeeded.
    pub fn close(&self, rows_read: u64, rows_rejected: u64) -> Result<()> {
        let totals = self.totals;
        if totals.outstanding() != 0 {
            let open = totals.outstanding();
            return Err(Error::internal(format!(
                "{open} records have no outcome at the end of the load"
            )));
        }
        if rows_read != totals.delivered_rows + rows_rejected + totals.failed_rows {
            return Err(Error::internal(format!(
                "the books do not balance: {rows_read} rows read, but {} delivered, {rows_rejected} rejected and {} failed",
                totals.delivered_rows, totals.failed_rows
            )));
        }
        Ok(())
    }
}

impl PartitionLedger {
    fn deliver(
        &mut self,
        partition: i32,
        records: u32,
        base_offset: Option<i64>,
        (first_tag, last_tag): (u64, u64),
    ) -> Result<Option<UnknownOffset>> {
        let first = self.delivered_records == 0;
        self.delivered_records += u64::from(records);
        let Some(base) = base_offset else {
            let unknown = UnknownOffset {
                partition,
                records,
                after: self.last_offset,
                skip: self.beyond_known,
                first_tag,
                last_tag,
            };
            if first {
                self.unknown_first = Some(unknown);
            }
            self.unknown_last = Some(unknown);
            self.beyond_known += u64::from(records);
            return Ok(Some(unknown));
        };
        if let Some(last) = self.last_offset.filter(|last| base <= *last) {
            let message = format!(
                "partition {partition} put records at offset {base} after it had put some at {last}: it lost records, or the topic was made anew"
            );
            return Err(Error::new(ErrorKind::Sink, message));
        }
        if first {
            self.first_offset = Some(base);
        }
        self.last_offset = Some(last_offset(base, records));
        self.unknown_last = None;
        self.beyond_known = 0;
        Ok(None)
    }

    fn fail(&mut self, records: u64, rows: u64) {
        self.failed_records += records;
        self.failed_rows += rows;
    }
}

fn last_offset(base: i64, records: u32) -> i64 {
    base + i64::from(records) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{KeyTerm, RecordHasher};
    use proptest::prelude::*;

    fn delivered(
        partition: i32,
        records: u32,
        base_offset: Option<i64>,
        tags: (u64, u64),
    ) -> Settled {
        Settled {
            partition,
            records,
            base_offset,
            first_tag: tags.0,
            last_tag: tags.1,
            outcome: Ok(()),
        }
    }

    fn append(ledger: &mut Ledger, partition: i32, rows: u32) {
        ledger.append(
            partition,
            RecordHasher::new().hash(KeyTerm::default(), b"v", crate::produce::Headers::default()),
            rows,
        );
    }

    #[test]
    fn keeps_first_and_last_offset_of_each_partition() {
        let mut ledger = Ledger::new(2, &[]).unwrap();
        for _ in 0..5 {
            append(&mut ledger, 1, 1);
        }
        ledger.settle(delivered(1, 2, Some(40), (1, 2))).unwrap();
        ledger.settle(delivered(1, 3, Some(45), (3, 5))).unwrap();
        let (state, whole) = ledger.partitions().swap_remove(1);
        assert_eq!(
            (state.first_offset, state.last_offset, state.records, whole),
            (Some(40), Some(47), 5, true)
        );
        assert_eq!(ledger.partitions()[0].0.last_offset, None);
        ledger.close(5, 0).unwrap();
    }

    /// A last offset taken from an earlier batch would let a balance succeed too early.
    #[test]
    fn an_unknown_offset_leaves_the_last_one_unknown_until_it_is_found() {
        let mut ledger = Ledger::new(1, &[]).unwrap();
        for _ in 0..6 {
            append(&mut ledger, 0, 1);
        }
        ledger.settle(delivered(0, 2, None, (1, 2))).unwrap();
        ledger.settle(delivered(0, 2, Some(12), (3, 4))).unwrap();
        let unknown = ledger
            .settle(delivered(0, 2, None, (5, 6)))
            .unwrap()
            .unknown
            .unwrap();
        assert_eq!(unknown.after, Some(13));
        let state = &ledger.partitions()[0].0;
        assert_eq!((state.first_offset, state.last_offset), (None, None));
        let wanted = ledger.unknown_offsets();
        assert_eq!(wanted.len(), 2);
        ledger.locate(&wanted[0], 7);
        ledger.locate(&wanted[1], 20);
        let state = &ledger.partitions()[0].0;
        assert_eq!((state.first_offset, state.last_offset), (Some(7), Some(21)));
        assert!(ledger.unknown_offsets().is_empty());
    }

    /// Each of them stands behind the last offset that is known, but not right behind it.
    #[test]
    fn unknown_offsets_in_a_row_are_told_apart_by_the_records_before_them() {
        let mut ledger = Ledger::new(1, &[]).unwrap();
        for _ in 0..7 {
            append(&mut ledger, 0, 1);
        }
        ledger.settle(delivered(0, 2, Some(10), (1, 2))).unwrap();
        ledger.settle(delivered(0, 2, None, (3, 4))).unwrap();
        ledger.settle(delivered(0, 3, None, (5, 7))).unwrap();
        let wanted = ledger.unknown_offsets();
        assert_eq!(wanted.len(), 1);
        assert_eq!((wanted[0].after, wanted[0].skip), (Some(11), 2));
        ledger.locate(&wanted[0], 14);
        assert_eq!(ledger.partitions()[0].0.last_offset, Some(16));
    }

    #[test]
    fn a_batch_alone_at_an_unknown_offset_is_first_and_last() {
        let mut ledger = Ledger::new(1, &[]).unwrap();
        append(&mut ledger, 0, 1);
        append(&mut ledger, 0, 1);
        ledger.settle(delivered(0, 2, None, (1, 2))).unwrap();
        let wanted = ledger.unknown_offsets();
        assert_eq!(wanted.len(), 1);
        ledger.locate(&wanted[0], 3);
        let state = &ledger.partitions()[0].0;
        assert_eq!((state.first_offset, state.last_offset), (Some(3), Some(4)));
    }

    #[test]
    fn refuses_a_sink_that_contradicts_itself() {
        let mut ledger = Ledger::new(1, &[]).unwrap();
        for _ in 0..4 {
            append(&mut ledger, 0, 1);
        }
        assert_eq!(
            ledger
                .settle(delivered(3, 1, Some(0), (1, 1)))
                .unwrap_err()
                .kind(),
            ErrorKind::Internal
        );
        assert_eq!(
            ledger
                .settle(delivered(-1, 1, Some(0), (1, 1)))
                .unwrap_err()
                .kind(),
            ErrorKind::Internal
        );
        assert_eq!(
            ledger
                .settle(delivered(0, 5, Some(0), (1, 5)))
                .unwrap_err()
                .kind(),
            ErrorKind::Internal
        );
        ledger.settle(delivered(0, 2, Some(10), (1, 2))).unwrap();
        assert_eq!(
            ledger
                .settle(delivered(0, 1, Some(12), (2, 3)))
                .unwrap_err()
                .kind(),
            ErrorKind::Internal
        );
        let backwards = ledger
            .settle(delivered(0, 1, Some(11), (3, 3)))
            .unwrap_err();
        assert_eq!(backwards.kind(), ErrorKind::Sink, "{backwards}");
    }

    #[test]
    fn the_books_must_balance() {
        let mut ledger = Ledger::new(1, &[]).unwrap();
        append(&mut ledger, 0, 3);
        assert_eq!(
            ledger.close(3, 0).unwrap_err().kind(),
            ErrorKind::Internal,
            "one record is open"
        );
        ledger.settle(delivered(0, 1, Some(0), (3, 3))).unwrap();
        ledger.close(3, 0).unwrap();
        assert_eq!(
            ledger.close(4, 0).unwrap_err().kind(),
            ErrorKind::Internal,
            "a row is missing"
        );
        assert_eq!(
            ledger.close(3, 1).unwrap_err().kind(),
            ErrorKind::Internal,
            "a row is there twice"
        );
        ledger.close(5, 2).unwrap();
    }

    #[test]
    fn goes_on_from_a_position() {
        let mut whole = Ledger::new(1, &[]).unwrap();
        let mut first = Ledger::new(1, &[]).unwrap();
        for ledger in [&mut whole, &mut first] {
            append(ledger, 0, 2);
            ledger.settle(delivered(0, 1, Some(5), (2, 2))).unwrap();
        }
        let stored: Vec<PartitionPosition> = first
            .partitions()
            .into_iter()
            .map(|(state, _)| state)
            .collect();
        let mut resumed = Ledger::new(1, &stored).unwrap();
        for ledger in [&mut whole, &mut resumed] {
            append(ledger, 0, 3);
            ledger.settle(delivered(0, 1, Some(9), (5, 5))).unwrap();
            ledger.close(5, 0).unwrap();
        }
        assert_eq!(whole.partitions(), resumed.partitions());
        assert_eq!(
            Ledger::new(2, &stored).unwrap_err().kind(),
            ErrorKind::InputChanged
        );
    }

    proptest! {
        /// Whatever the group sizes, and however batches are cut and fail, every row is counted once.
        #[test]
        fn every_row_is_counted_once(sizes in proptest::collection::vec((0i32..3, 1u32..5), 0..80), cut in 1u32..7, fail_after in 0usize..30) {
            let mut ledger = Ledger::new(3, &[]).unwrap();
            let mut queues: [VecDeque<(u64, u32)>; 3] = Default::default();
            let mut read = 0;
            for (partition, rows) in &sizes {
                append(&mut ledger, *partition, *rows);
                read += u64::from(*rows);
                queues[partition.unsigned_abs() as usize].push_back((read, *rows));
            }
            let (mut batches, mut good_rows, mut bad_rows) = (0, 0u64, 0u64);
            for (index, queue) in queues.iter_mut().enumerate() {
                let partition = i32::try_from(index).unwrap();
                let mut offset = 0;
                while !queue.is_empty() {
                    let batch: Vec<(u64, u32)> = (0..cut).map_while(|_| queue.pop_front()).collect();
                    let records = u32::try_from(batch.len()).unwrap();
                    let rows: u64 = batch.iter().map(|(_, rows)| u64::from(*rows)).sum();
                    let fails = batches >= fail_after;
                    batches += 1;
                    let outcome = if fails { Err("broken".into()) } else { Ok(()) };
                    if fails { bad_rows += rows } else { good_rows += rows }
                    let settled = Settled { partition, records, base_offset: Some(offset), first_tag: batch[0].0, last_tag: batch[batch.len() - 1].0, outcome };
                    offset += i64::from(records);
                    prop_assert_eq!(ledger.settle(settled).unwrap().rows, rows);
                }
            }
            prop_assert_eq!((ledger.totals().delivered_rows, ledger.totals().failed_rows), (good_rows, bad_rows));
            prop_assert_eq!(ledger.take_failure().is_some(), bad_rows > 0);
            ledger.close(read, 0).unwrap();
        }
    }
}
