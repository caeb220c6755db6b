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
//!    any more since Kafka 2.5.)

use std::collections::{HashMap, VecDeque};

use tidegate_wire::BatchHeader;

use crate::codes;

/// How many batches per producer are recognised when they come again.
const REMEMBERED_BATCHES: usize = 5;

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
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    epoch: i16,
    /// Never empty.
    batches: VecDeque<Remembered>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
}

impl Entry {
    fn last(&self) -> Option<&Remembered> {
        self.batches.back()
    }
}

impl Producers {
    /// Remembers at most `capacity` producers.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            capacity: capacity.max(1),
        }
    }

    /// Judges a batch that wants to be appended. Changes nothing.
    pub(crate) fn judge(&self, header: &BatchHeader) -> Result<Verdict, Refused> {
        if header.producer_id < 0 {
            return Ok(Verdict::Append);
        }
        let Some(entry) = self.entries.get(&header.producer_id) else {
            return Ok(Verdict::Append);
        };
        let first = header.base_sequence;
        let last = last_sequence(header);
        if entry.epoch == header.producer_epoch {
            let resent = entry
                .batches
                .iter()
                .find(|batch| batch.first_sequence == first && batch.last_sequence == last);
            if let Some(batch) = resent {
                let base_offset = batch.base_offset;
                return Ok(Verdict::Duplicate { base_offset });
            }
        }
        if header.producer_epoch < entry.epoch {
            let message = format!(
                "producer {} sends epoch {}, the last one seen is {}",
                header.producer_id, header.producer_epoch, entry.epoch
            );
            return Err(Refused {
                code: codes::INVALID_PRODUCER_EPOCH,
                message,
            });
        }
        let expected = if header.producer_epoch > entry.epoch {
            0
        } else {
            entry
                .last()
                .map_or(0, |batch| after(batch.last_sequence, 1))
        };
        if first == expected {
            return Ok(Verdict::Append);
        }
        let message = format!(
            "producer {} epoch {} sends sequence {first}, expected is {expected}",
            header.producer_id, header.producer_epoch
        );
        Err(Refused {
            code: codes::OUT_OF_ORDER_SEQUENCE_NUMBER,
            message,
        })
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
        if !self.entries.contains_key(&header.producer_id) && self.entries.len() >= self.capacity {
            self.forget_oldest();
        }
        let entry = self.entries.entry(header.producer_id).or_insert(Entry {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
        });
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        if entry.batches.len() == REMEMBERED_BATCHES {
            entry.batches.pop_front();
        }
        entry.batches.push_back(batch);
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| entry.last().map(|batch| batch.last_offset))
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.entries.remove(&id);
        }
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
            assert_eq!(producers.judge(&header), Ok(Verdict::Append));
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
            let verdict = producers.judge(&header(7, epoch, sequence, records, 0));
            assert_eq!(verdict.map_err(|refused| refused.code), expected, "{what}");
        }
    }

    #[test]
    fn an_unknown_producer_starts_anywhere_and_a_plain_one_is_never_judged() {
        let producers = after_six_batches();
        for sequence in [0, 1, 5000] {
            let verdict = producers.judge(&header(8, 0, sequence, 1, 0));
            assert_eq!(verdict, Ok(Verdict::Append));
        }
        let plain = header(-1, -1, -1, 1, 0);
        assert_eq!(producers.judge(&plain), Ok(Verdict::Append));
    }

    #[test]
    fn sequences_begin_again_after_the_largest() {
        let mut producers = Producers::new(10);
        producers.remember(&header(1, 0, i32::MAX - 1, 3, 0));
        assert_eq!(producers.judge(&header(1, 0, 1, 1, 0)), Ok(Verdict::Append));
        let again = producers.judge(&header(1, 0, i32::MAX - 1, 3, 0));
        assert_eq!(again, Ok(Verdict::Duplicate { base_offset: 0 }));

        producers.remember(&header(2, 0, i32::MAX, 1, 3));
        assert_eq!(producers.judge(&header(2, 0, 0, 1, 0)), Ok(Verdict::Append));
    }

    #[test]
    fn a_new_epoch_forgets_the_batches_of_the_old_one() {
        let mut producers = after_six_batches();
        producers.remember(&header(7, 4, 0, 2, 112));
        let old = producers.judge(&header(7, 3, 10, 2, 0)).unwrap_err();
        assert_eq!(old.code, codes::INVALID_PRODUCER_EPOCH);
        let verdict = producers.judge(&header(7, 4, 2, 2, 0));
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
