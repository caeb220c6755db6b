//! The model of a partition as a transactional producer sees it: epochs, sequences, open transactions and markers.

use std::collections::{BTreeMap, VecDeque};

use tidegate_kafka::consumer::Outcomes;
use tidegate_kafka::producer::machine::Identity;

pub(super) const INVALID_EPOCH: i16 = 47;
const OUT_OF_ORDER: i16 = 45;
const REMEMBERED: usize = 5;

/// What a batch holds: the number of the job's step, and which of its batches it is; the position of the step comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    Row { step: u32, index: u32 },
    Position { next_step: u32 },
    Foreign,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Data(Content),
    Marker { commit: bool },
}

#[derive(Clone, Debug)]
struct Entry {
    offset: i64,
    producer_id: i64,
    what: What,
}

/// What the leader remembers of a producer.
#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// Sequence, records and offset of the latest batches of this epoch.
    last: VecDeque<(i32, u32, i64)>,
    open_since: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    next_offset: i64,
    producers: BTreeMap<i64, Producer>,
}

impl Log {
    /// Whether the producer's transaction is known to the leader, so that it does not ask the coordinator about it. One of another epoch may
    /// have ended, its marker being on its way (`UnifiedLog.hasOngoingTransaction`).
    pub(super) fn has_open(&self, identity: Identity) -> bool {
        let producer = self.producers.get(&identity.producer_id);
        let is_open = |of: &Producer| of.open_since.is_some() && of.epoch == identity.epoch;
        producer.is_some_and(is_open)
    }

    /// Appends as a leader does (`ProducerAppendInfo`), or says where it has the batch already.
    pub(super) fn append(
        &mut self,
        identity: Identity,
        content: Content,
        sequence: i32,
        records: u32,
    ) -> Result<i64, i16> {
        let offset = self.next_offset;
        let first = !self.producers.contains_key(&identity.producer_id);
        let producer = self
            .producers
            .entry(identity.producer_id)
            .or_insert_with(|| Producer {
                epoch: identity.epoch,
                last: VecDeque::new(),
                open_since: None,
            });
        if identity.epoch < producer.epoch {
            return Err(INVALID_EPOCH);
        }
        if identity.epoch > producer.epoch {
            if sequence != 0 {
                return Err(OUT_OF_ORDER);
            }
            producer.epoch = identity.epoch;
            producer.last.clear();
        } else {
            let known = |(had, many, _): &&(i32, u32, i64)| *had == sequence && *many == records;
            if let Some((.., offset)) = producer.last.iter().find(known) {
                return Ok(*offset);
            }
            let next = producer
                .last
                .back()
                .map_or(0, |(last, many, _)| last + i32::try_from(*many).unwrap());
            if !first && sequence != next {
                return Err(OUT_OF_ORDER);
            }
        }
        producer.open_since.get_or_insert(offset);
        producer.last.push_back((sequence, records, offset));
        if producer.last.len() > REMEMBERED {
            producer.last.pop_front();
        }
        self.push(
            identity.producer_id,
            What::Data(content),
            i64::from(records),
        );
        Ok(offset)
    }

    /// A marker ends the producer's transaction; a higher epoch in it is the producer's from now on.
    pub(super) fn mark(&mut self, identity: Identity, commit: bool) {
        let producer = self
            .producers
            .entry(identity.producer_id)
            .or_insert(Producer {
                epoch: identity.epoch,
                last: VecDeque::new(),
                open_since: None,
            });
        if identity.epoch < producer.epoch {
            return;
        }
        if identity.epoch > producer.epoch {
            producer.epoch = identity.epoch;
            producer.last.clear();
        }
        producer.open_since = None;
        self.push(identity.producer_id, What::Marker { commit }, 1);
    }

    fn push(&mut self, producer_id: i64, what: What, records: i64) {
        self.entries.push(Entry {
            offset: self.next_offset,
            producer_id,
            what,
        });
        self.next_offset += records;
    }

    fn last_stable_offset(&self) -> i64 {
        let open = self.producers.values().filter_map(|of| of.open_since);
        open.min().unwrap_or(self.next_offset)
    }

    /// What a reader finds committed: up to the high watermark, or, wrongly, only up to the last stable offset.
    pub(super) fn committed(&self, to_last_stable: bool) -> Vec<Content> {
        let end = if to_last_stable {
            self.last_stable_offset()
        } else {
            self.next_offset
        };
        let read = || self.entries.iter().filter(|entry| entry.offset < end);
        let mut outcomes = Outcomes::default();
        for entry in read() {
            match entry.what {
                What::Data(_) => outcomes.note_records(entry.producer_id, entry.offset),
                What::Marker { commit } => {
                    outcomes.note_marker(entry.producer_id, entry.offset, commit);
                }
            }
        }
        let committed = |entry: &Entry| match entry.what {
            What::Data(content) if outcomes.is_committed(entry.producer_id, entry.offset) => {
                Some(content)
            }
            _ => None,
        };
        read().filter_map(committed).collect()
    }
}
