//! What a partition remembers of idempotent producers, and what it accepts from them.
//!
//! The rules are those of Kafka 4 (`ProducerAppendInfo` and `ProducerStateEntry` of the storage module):
//!
//! 1. A batch with exactly the sequence range of one of the last five batches of the same epoch is a resend:
//!    it is answered with the first append's offset and not appended again.
//! 2. An epoch below the last one seen is fenced.
//! 3. A higher epoch starts at sequence 0.
//! 4. Within an epoch the first sequence follows the last one.
//! 5. A producer nobody remembers may start at any sequence. (The error for unknown producers is not given
//!    any more since Kafka 2.5.) One that speaks transaction version 2 starts at 0 there too, for each of
//!    its transactions has an epoch of its own. (KIP-890)
//! 6. Within a transaction all of a producer's batches are transactional.
//!
//! A transaction is open in the partition from its first batch to its marker. The marker's epoch is the
//! producer's from then on, so that an older batch that comes late is fenced.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tidegate_wire::{Batch, BatchHeader};

use crate::codes;

/// How many batches per producer are recognised when they come again.
const REMEMBERED_BATCHES: usize = 5;

/// What stands for the epoch of the coordinator while a producer has ended no transaction.
const NO_COORDINATOR_EPOCH: i32 = -1;

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Append it.
    Append,
    /// It is here already, from this offset on.
    Duplicate { base_offset: i64 },
}

/// A batch that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: i16,
    pub(crate) message: String,
}

/// The producers of one partition.
#[derive(Debug)]
pub(crate) struct Producers {
    entries: HashMap<i64, Entry>,
    /// The producers of the open transactions, by the offset each begins at.
    open: BTreeMap<i64, i64>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    epoch: i16,
    /// Empty if there was none since the last marker that brought a new epoch.
    batches: VecDeque<Remembered>,
    /// The first offset of the open transaction.
    open: Option<i64>,
    coordinator_epoch: i32,
    /// Of the last batch or marker.
    last_offset: i64,
    last_timestamp: i64,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
}

/// A producer as DescribeProducers tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescribedProducer {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// -1 if there is none.
    pub(crate) last_sequence: i32,
    pub(crate) last_timestamp: i64,
    /// -1 if no transaction has ended yet.
    pub(crate) coordinator_epoch: i32,
    /// The first offset of the open transaction.
    pub(crate) open: Option<i64>,
}

impl Entry {
    fn last(&self) -> Option<&Remembered> {
        self.batches.back()
    }
}

impl Producers {
    /// Remembers at most `capacity` producers, and all those with an open transaction.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            open: BTreeMap::new(),
            capacity: capacity.max(1),
        }
    }

    /// Where the oldest open transaction begins.
    pub(crate) fn first_open_offset(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// Where the producer's open transaction begins.
    pub(crate) fn open_transaction(&self, producer_id: i64) -> Option<i64> {
        self.entries.get(&producer_id)?.open
    }

    /// The producers with an open transaction, each with its epoch.
    pub(crate) fn with_open_transactions(&self) -> Vec<(i64, i16)> {
        let open = self.open.values();
        open.filter_map(|id| Some((*id, self.entries.get(id)?.epoch)))
            .collect()
    }

    /// All producers, in the order of their ids.
    pub(crate) fn describe(&self) -> Vec<DescribedProducer> {
        let mut described: Vec<_> = self
            .entries
            .iter()
            .map(|(producer_id, entry)| DescribedProducer {
                producer_id: *producer_id,
                epoch: entry.epoch,
                last_sequence: entry.last().map_or(-1, |batch| batch.last_sequence),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                open: entry.open,
            })
            .collect();
        described.sort_unstable_by_key(|producer| producer.producer_id);
        described
    }

    /// Judges a batch that wants to be appended. Changes nothing. `from_zero` says that a producer nobody
    /// remembers has to begin at sequence 0.
    pub(crate) fn judge(&self, header: &BatchHeader, from_zero: bool) -> Result<Verdict, Refused> {
        if header.producer_id < 0 {
            return Ok(Verdict::Append);
        }
        let Some(entry) = self.entries.get(&header.producer_id) else {
            if from_zero && header.base_sequence != 0 {
                return Err(out_of_order(header, 0));
            }
            return Ok(Verdict::Append);
        };
        if let Some(base_offset) = entry.find_resent(header) {
            return Ok(Verdict::Duplicate { base_offset });
        }
        if header.producer_epoch < entry.epoch {
            return Err(fenced(header, entry.epoch));
        }
        let expected = if header.producer_epoch > entry.epoch {
            0
        } else {
            entry
                .last()
                .map_or(0, |batch| after(batch.last_sequence, 1))
        };
        if header.base_sequence != expected {
            return Err(out_of_order(header, expected));
        }
        if entry.open.is_some() && !header.is_transactional() {
            let message = format!(
                "producer {} sends a batch outside of its open transaction",
                header.producer_id
            );
            return Err(Refused {
                code: codes::INVALID_TXN_STATE,
                message,
            });
        }
        Ok(Verdict::Append)
    }

    /// Remembers a batch that has been appended with the offsets in its header; also used when the log is
    /// read again at the start.
    pub(crate) fn remember(&mut self, header: &BatchHeader) {
        if header.producer_id < 0 || header.is_control() {
            return;
        }
        let batch = Remembered {
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
        };
        let entry = self.entry(header);
        if entry.batches.len() == REMEMBERED_BATCHES {
            entry.batches.pop_front();
        }
        entry.batches.push_back(batch);
        if header.is_transactional() && entry.open.is_none() {
            entry.open = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
        }
    }

    /// Takes note of a marker that has been appended. Returns where the transaction began that it ended.
    pub(crate) fn end_transaction(
        &mut self,
        header: &BatchHeader,
        coordinator_epoch: i32,
    ) -> Option<i64> {
        let entry = self.entry(header);
        entry.coordinator_epoch = coordinator_epoch;
        let first_offset = entry.open.take()?;
        self.open.remove(&first_offset);
        Some(first_offset)
    }

    /// The producer's entry, made if there is none, at the epoch and offset of `header`.
    fn entry(&mut self, header: &BatchHeader) -> &mut Entry {
        if !self.entries.contains_key(&header.producer_id) && self.entries.len() >= self.capacity {
            self.forget_oldest();
        }
        let entry = self.entries.entry(header.producer_id).or_insert(Entry {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
            open: None,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            last_offset: 0,
            last_timestamp: -1,
        });
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        entry.last_offset = header.last_offset();
        entry.last_timestamp = header.max_timestamp;
        entry
    }

    /// The last offsets of the batches that compaction must leave, if only as empty ones, so that the same
    /// is known of the producers after a restart: each one's last batch or, where a marker brought a new
    /// epoch since, that marker. Those silent since before `silent_since` are left out.
    pub(super) fn needed_offsets(&self, silent_since: i64) -> impl Iterator<Item = i64> {
        let needed = self
            .entries
            .values()
            .filter(move |entry| entry.open.is_some() || entry.last_timestamp >= silent_since);
        needed.map(|entry| {
            entry
                .last()
                .map_or(entry.last_offset, |last| last.last_offset)
        })
    }

    fn forget_oldest(&mut self) {
        let closed = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.open.is_none());
        let oldest = closed
            .min_by_key(|(_, entry)| entry.last_offset)
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.entries.remove(&id);
        }
    }
}

impl Entry {
    /// The offset of the same batch, if it is among the last ones.
    fn find_resent(&self, header: &BatchHeader) -> Option<i64> {
        if self.epoch != header.producer_epoch {
            return None;
        }
        let (first, last) = (header.base_sequence, last_sequence(header));
        let resent = self
            .batches
            .iter()
            .find(|batch| batch.first_sequence == first && batch.last_sequence == last)?;
        Some(resent.base_offset)
    }
}

/// What a control batch says of the coordinator, for [`Producers::end_transaction`].
pub(crate) fn coordinator_epoch(batch: &Batch<'_>) -> i32 {
    batch.coordinator_epoch().unwrap_or(NO_COORDINATOR_EPOCH)
}

fn fenced(header: &BatchHeader, seen: i16) -> Refused {
    let message = format!(
        "producer {} sends epoch {}, the last one seen is {seen}",
        header.producer_id, header.producer_epoch
    );
    Refused {
        code: codes::INVALID_PRODUCER_EPOCH,
        message,
    }
}

fn out_of_order(header: &BatchHeader, expected: i32) -> Refused {
    let message = format!(
        "producer {} epoch {} sends sequence {}, expected is {expected}",
        header.producer_id, header.producer_epoch, header.base_sequence
    );
    Refused {
        code: codes::OUT_OF_ORDER_SEQUENCE_NUMBER,
        message,
    }
}

fn last_sequence(header: &BatchHeader) -> i32 {
    after(header.base_sequence, header.last_offset_delta)
}

/// Sequences go from 0 to 2^31 - 1 and begin again at 0.
fn after(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::{BatchBuilder, Batches, ProducerStamp, encode_header};

    fn header(
        id: i64,
        epoch: i16,
        base_sequence: i32,
        records: u32,
        base_offset: i64,
    ) -> BatchHeader {
        let mut builder = BatchBuilder::with_buffer(Vec::new(), 1);
        for _ in 0..records {
            builder.append(None, None, Some(b"v"), &[]);
        }
        let body = builder.finish();
        let stamp = ProducerStamp {
            producer_id: id,
            epoch,
            base_sequence,
            transactional: false,
        };
        let mut bytes = encode_header(&body, stamp).to_vec();
        bytes.extend_from_slice(&body.records);
        tidegate_wire::assign_offsets(&mut bytes, base_offset, 0).unwrap();
        let batch = Batches::new(&bytes).next().unwrap().unwrap();
        *batch.header()
    }

    /// Producer 7, epoch 3, has sent six batches of two records: sequences 0 to 11 at offsets 100 to 111.
    fn after_six_batches() -> Producers {
        let mut producers = Producers::new(10);
        for number in 0..6 {
            let header = header(7, 3, number * 2, 2, 100 + i64::from(number) * 2);
            assert_eq!(producers.judge(&header, false), Ok(Verdict::Append));
            producers.remember(&header);
        }
        producers
    }

    #[test]
    fn what_is_accepted_from_a_known_producer() {
        let duplicate = |base_offset| Ok(Verdict::Duplicate { base_offset });
        let gap = Err(codes::OUT_OF_ORDER_SEQUENCE_NUMBER);
        let fenced = Err(codes::INVALID_PRODUCER_EPOCH);
        let table = [
            ("the next batch", 3, 12, 2, Ok(Verdict::Append)),
            ("the last batch again", 3, 10, 2, duplicate(110)),
            ("the fifth last again", 3, 2, 2, duplicate(102)),
            ("the sixth last again", 3, 0, 2, gap),
            ("another range over the same sequences", 3, 10, 1, gap),
            ("a gap of one batch", 3, 14, 2, gap),
            ("a gap of one record", 3, 13, 2, gap),
            ("an older epoch, next sequence", 2, 12, 2, fenced),
            ("an older epoch, sequence 0", 2, 0, 2, fenced),
            ("a newer epoch from 0", 4, 0, 2, Ok(Verdict::Append)),
            ("a newer epoch from elsewhere", 4, 12, 2, gap),
        ];
        let producers = after_six_batches();
        for (what, epoch, sequence, records, expected) in table {
            let verdict = producers.judge(&header(7, epoch, sequence, records, 0), false);
            assert_eq!(verdict.map_err(|refused| refused.code), expected, "{what}");
        }
    }

    #[test]
    fn an_unknown_producer_starts_anywhere_and_a_plain_one_is_never_judged() {
        let producers = after_six_batches();
        for sequence in [0, 1, 5000] {
            let verdict = producers.judge(&header(8, 0, sequence, 1, 0), false);
            assert_eq!(verdict, Ok(Verdict::Append));
        }
        let plain = header(-1, -1, -1, 1, 0);
        assert_eq!(producers.judge(&plain, false), Ok(Verdict::Append));
    }

    #[test]
    fn sequences_begin_again_after_the_largest() {
        let mut producers = Producers::new(10);
        producers.remember(&header(1, 0, i32::MAX - 1, 3, 0));
        assert_eq!(
            producers.judge(&header(1, 0, 1, 1, 0), false),
            Ok(Verdict::Append)
        );
        let again = producers.judge(&header(1, 0, i32::MAX - 1, 3, 0), false);
        assert_eq!(again, Ok(Verdict::Duplicate { base_offset: 0 }));

        producers.remember(&header(2, 0, i32::MAX, 1, 3));
        assert_eq!(
            producers.judge(&header(2, 0, 0, 1, 0), false),
            Ok(Verdict::Append)
        );
    }

    #[test]
    fn a_new_epoch_forgets_the_batches_of_the_old_one() {
        let mut producers = after_six_batches();
        producers.remember(&header(7, 4, 0, 2, 112));
        let old = producers.judge(&header(7, 3, 10, 2, 0), false).unwrap_err();
        assert_eq!(old.code, codes::INVALID_PRODUCER_EPOCH);
        let verdict = producers.judge(&header(7, 4, 2, 2, 0), false);
        assert_eq!(verdict, Ok(Verdict::Append));
    }

    #[test]
    fn the_number_of_producers_is_bounded() {
        let mut producers = Producers::new(3);
        for id in 0..10 {
            producers.remember(&header(id, 0, 0, 1, id));
        }
        assert_eq!(producers.entries.len(), 3);
        assert!(producers.entries.contains_key(&9));
        assert!(!producers.entries.contains_key(&6));
    }
}
