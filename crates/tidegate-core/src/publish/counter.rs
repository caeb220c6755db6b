//! A sink that only counts: everything but sending, for a dry run.

use std::time::Duration;

use crate::position::LoadPosition;
use crate::produce::{OutRecord, Produce, Settled, SinkError};

/// A sink that only counts: everything but sending, for a dry run.
#[derive(Debug)]
pub struct Counter {
    partitions: i32,
    open: Vec<(u32, u64, u64)>,
    next_offsets: Vec<i64>,
}

impl Counter {
    /// A counter with `partitions` partitions, at least 1, for a load that begins at `position`: it counts on from there.
    #[must_use]
    pub fn new(partitions: i32, position: &LoadPosition) -> Self {
        let partitions = partitions.max(1);
        let next = |partition| position.last_offset(partition).map_or(0, |last| last + 1);
        Self {
            partitions,
            open: vec![(0, 0, 0); partitions.unsigned_abs() as usize],
            next_offsets: (0..partitions).map(next).collect(),
        }
    }
}

impl Produce for Counter {
    fn partitions(&self) -> i32 {
        self.partitions
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        let open = &mut self.open[record.partition.unsigned_abs() as usize];
        if open.0 == 0 {
            open.1 = record.tag;
        }
        (open.0, open.2) = (open.0 + 1, record.tag);
        Ok(())
    }

    fn poll(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.flush(settled)
    }

    fn wait(&mut self, _timeout: Duration, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.flush(settled)
    }

    fn seal(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        for ((partition, open), next) in (0..).zip(&mut self.open).zip(&mut self.next_offsets) {
            let (records, first_tag, last_tag) = std::mem::take(open);
            if records > 0 {
                let base_offset = Some(*next);
                settled.push(Settled {
                    partition,
                    records,
                    base_offset,
                    first_tag,
                    last_tag,
                    outcome: Ok(()),
                });
                *next += i64::from(records);
            }
        }
        Ok(())
    }
}
