//! Reads every committed record of one partition that is there now, whoever else has a transaction open in it.
//!
//! A position that is kept in a topic has to be read like this. A read-committed consumer stops at the last stable offset: a stranger's open
//! transaction would hide the newest committed position, and whoever resumed from an older one would write its records a second time.

use std::time::{Duration, Instant};

use tidegate_wire::{Batches, Marker};

use super::records::damaged;
use super::{ConsumedRecord, Consumer, ConsumerConfig, FetchedBatches, Outcomes};
use crate::admin::{Isolation, OffsetSpec};
use crate::client::Client;
use crate::error::{Error, ErrorKind};

/// How long a broker may wait for data, of which there is some.
const POLL: Duration = Duration::from_millis(200);

/// Gives every committed record of `partition` to `take`, in offset order, up to the high watermark at the time of the call, which is
/// returned. Records of transactions that were aborted or are still open are left out, and hide nothing behind them.
///
/// To find out what a transactional producer has committed, open the producer first: only then is everything that it left behind decided. A
/// transaction whose commit was answered a moment ago may be missing, for its markers are written afterwards.
///
/// # Errors
/// [`ErrorKind::TopicMissing`], [`ErrorKind::Authorization`], [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`] if the partition cannot be read
/// within the client's delivery time-out without any progress; [`ErrorKind::Protocol`] for damaged data; whatever `take` returns.
pub fn read_committed(
    client: &Client,
    topic: &str,
    partition: i32,
    mut take: impl FnMut(ConsumedRecord<'_>) -> Result<(), Error>,
) -> Result<i64, Error> {
    let stretch = Stretch {
        client,
        topic,
        partition,
    };
    let end = stretch.offset(OffsetSpec::Latest, Isolation::ReadUncommitted)?;
    let start = stretch.offset(OffsetSpec::Earliest, Isolation::ReadUncommitted)?;
    // Up to here everything is decided, and the broker says which transactions were aborted.
    let stable = stretch.offset(OffsetSpec::Latest, Isolation::ReadCommitted)?;
    let stable = stable.clamp(start, end);
    let committed = Isolation::ReadCommitted;
    stretch.read(committed, start, stable, |fetched| {
        fetched.for_each_record(|record| match record.offset < stable {
            true => take(record),
            false => Ok(()),
        })
    })?;
    // Behind it the markers say so. They come after the records that they decide about: so once for the markers, and once for the records.
    let outcomes = stretch.outcomes(stable, end)?;
    stretch.read(Isolation::ReadUncommitted, stable, end, |fetched| {
        fetched.for_each_batch_record(|batch, record| {
            let in_doubt = batch.is_transactional()
                && !outcomes.is_committed(batch.producer_id, batch.base_offset);
            if in_doubt || !(stable..end).contains(&record.offset) {
                return Ok(());
            }
            take(record)
        })
    })?;
    Ok(end)
}

/// What became of the transactions in `partition` behind `stable`, its last stable offset of this moment or before, as the markers tell up to the
/// high watermark at the time of the call.
///
/// # Errors
/// As [`read_committed`].
pub fn outcomes_behind(
    client: &Client,
    topic: &str,
    partition: i32,
    stable: i64,
) -> Result<Outcomes, Error> {
    let stretch = Stretch {
        client,
        topic,
        partition,
    };
    let end = stretch.offset(OffsetSpec::Latest, Isolation::ReadUncommitted)?;
    stretch.outcomes(stable, end)
}

/// Notes the transactions in these batches.
fn note(
    fetched: &FetchedBatches,
    within: std::ops::Range<i64>,
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    for batch in Batches::new(&fetched.bytes) {
        let batch = batch.map_err(|error| damaged(&fetched.topic, fetched.partition, error))?;
        let header = batch.header();
        if !header.is_transactional() || !within.contains(&header.base_offset) {
            continue;
        }
        match batch.control_marker() {
            Some(marker) => {
                let is_commit = marker == Marker::Commit;
                outcomes.note_marker(header.producer_id, header.base_offset, is_commit);
            }
            None if header.is_control() => {}
            None => outcomes.note_records(header.producer_id, header.base_offset),
        }
    }
    Ok(())
}

struct Stretch<'a> {
    client: &'a Client,
    topic: &'a str,
    partition: i32,
}

impl Stretch<'_> {
    fn offset(&self, spec: OffsetSpec, isolation: Isolation) -> Result<i64, Error> {
        let admin = self.client.admin();
        let found = admin.list_offsets(self.topic, &[self.partition], spec, isolation)?;
        let offset = found.first().map(|(_, offset)| *offset);
        offset.ok_or_else(|| {
            let message = format!("{}-{}: no offset was told", self.topic, self.partition);
            Error::new(ErrorKind::Protocol, message)
        })
    }

    fn outcomes(&self, start: i64, end: i64) -> Result<Outcomes, Error> {
        let mut outcomes = Outcomes::default();
        self.read(Isolation::ReadUncommitted, start, end, |fetched| {
            note(fetched, start..end, &mut outcomes)
        })?;
        Ok(outcomes)
    }

    /// Fetches from `start` to `end`.
    fn read(
        &self,
        isolation: Isolation,
        start: i64,
        end: i64,
        mut take: impl FnMut(&FetchedBatches) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if start >= end {
            return Ok(());
        }
        let config = ConsumerConfig {
            isolation,
            max_wait: POLL,
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(self.client.clone(), config)?;
        consumer.assign(self.topic, &[(self.partition, start)])?;
        let mut quiet_since = Instant::now();
        let patience = self.client.config().delivery_timeout;
        while consumer
            .position(self.topic, self.partition)
            .is_none_or(|position| position < end)
        {
            let fetched = consumer.poll(POLL)?;
            if !fetched.is_empty() {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= patience {
                let waited = patience.as_secs_f64();
                let place = format!("{}-{}", self.topic, self.partition);
                let message = format!("{place}: nothing was read for {waited:.0} s");
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            for batches in &fetched {
                take(batches)?;
            }
        }
        Ok(())
    }
}
