//! The model of a cluster: partition logs, what each remembers of producers, and who leads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate_kafka::producer::machine::{BatchId, Identity, Slot};

use crate::counts::Counts;

pub(crate) const NODES: i32 = 3;

/// A broker remembers this many batches of a producer.
const REMEMBERED: usize = 5;

pub(crate) const OK: i16 = 0;
pub(crate) const UNKNOWN_TOPIC: i16 = 3;
pub(crate) const NOT_LEADER: i16 = 6;
pub(crate) const OUT_OF_ORDER: i16 = 45;
pub(crate) const DUPLICATE: i16 = 46;
pub(crate) const UNKNOWN_PRODUCER: i16 = 59;

/// A Produce request as it arrives.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) slot: Slot,
    pub(crate) batch: BatchId,
    pub(crate) records: u32,
    pub(crate) identity: Identity,
    pub(crate) sequence: i32,
}

/// A batch in a log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) batch: BatchId,
    pub(crate) base_offset: i64,
    producer_id: i64,
    sequence: i32,
    records: u32,
}

/// What a broker remembers of one producer on one partition.
#[derive(Clone, Debug, Default)]
struct Memory {
    last: VecDeque<(i32, u32, i64)>,
    next_sequence: i32,
}

impl Memory {
    fn remember(&mut self, entry: &Entry) {
        let (sequence, records) = (entry.sequence, entry.records);
        self.last.push_back((sequence, records, entry.base_offset));
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
        self.next_sequence = wrapping_after(sequence, records);
    }
}

/// Written apart from the client's own, so that one mistake does not hide the other.
fn wrapping_after(sequence: i32, records: u32) -> i32 {
    let next = i64::from(sequence) + i64::from(records);
    let modulus = 1_i64 << 31;
    i32::try_from(next % modulus).unwrap()
}

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
    pub(crate) log: Vec<Entry>,
    next_offset: i64,
    memories: BTreeMap<i64, Memory>,
    /// Batches that were in the log once and are not any more.
    pub(crate) lost: BTreeSet<BatchId>,
    forgot: bool,
}

impl Partition {
    pub(crate) fn new(leader: i32) -> Self {
        Self {
            leader,
            epoch: 1,
            log: Vec::new(),
            next_offset: 0,
            memories: BTreeMap::new(),
            lost: BTreeSet::new(),
            forgot: false,
        }
    }

    pub(crate) fn move_leader(&mut self) {
        self.leader = (self.leader + 1) % NODES;
        self.epoch += 1;
    }

    /// Appends as a broker does: a duplicate among the last five is recognised, a gap refused, an unknown producer believed.
    pub(crate) fn append(&mut self, request: &Request, counts: &mut Counts) -> (i16, i64) {
        let producer_id = request.identity.producer_id;
        if let Some(memory) = self.memories.get(&producer_id) {
            let same = |(sequence, records, _): &&(i32, u32, i64)| {
                *sequence == request.sequence && *records == request.records
            };
            if let Some((.., base_offset)) = memory.last.iter().find(same) {
                counts.note("duplicates recognised");
                return (OK, *base_offset);
            }
            if memory.next_sequence != request.sequence {
                return (OUT_OF_ORDER, -1);
            }
        } else if self.forgot {
            counts.note("batches appended to a log that forgot their producer");
        }
        let entry = Entry {
            batch: request.batch,
            base_offset: self.next_offset,
            producer_id,
            sequence: request.sequence,
            records: request.records,
        };
        if wrapping_after(request.sequence, request.records) < request.sequence {
            counts.note("sequences wrapped");
        }
        self.next_offset += i64::from(request.records);
        self.memories
            .entry(producer_id)
            .or_default()
            .remember(&entry);
        let base_offset = entry.base_offset;
        self.log.push(entry);
        (OK, base_offset)
    }

    pub(crate) fn position_of(&self, batch: BatchId) -> Option<i64> {
        let entry = self.log.iter().rev().find(|entry| entry.batch == batch)?;
        Some(entry.base_offset)
    }

    /// Loses what it knows of producers. Returns whether there was anything.
    pub(crate) fn forget(&mut self) -> bool {
        let forgot = !self.memories.is_empty();
        self.forgot |= forgot;
        self.memories.clear();
        forgot
    }

    /// Loses the end of the log, as in an unclean election; what is remembered of producers is rebuilt from the rest.
    pub(crate) fn truncate(&mut self) -> Option<BatchId> {
        let lost = self.log.pop()?;
        self.next_offset = lost.base_offset;
        self.lost.insert(lost.batch);
        self.memories.clear();
        for entry in &self.log {
            self.memories
                .entry(entry.producer_id)
                .or_default()
                .remember(entry);
        }
        Some(lost.batch)
    }
}
