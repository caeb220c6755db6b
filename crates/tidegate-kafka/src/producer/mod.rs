//! The idempotent producer: records go straight into the open batch of their partition; full batches are compressed and sent on other
//! threads, and settle as a whole.
//!
//! ```text
//! append -> open batch -> sealed -> compressor thread -> driver thread (machine) -> link thread, one per broker -> broker
//!                                                             settled batches <-'
//! ```
//!
//! What is sent when, and what an answer means, is decided by the [`machine`] alone; the threads only move bytes and clocks. Threads
//! are made in `runner` and nowhere else.

mod link;
pub mod machine;
mod runner;
mod shared;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::InitProducerIdRequest;
use tidegate_wire::{BatchBuilder, Compression, RecordHeader};

use crate::client::{Client, check};
use crate::error::{Error, ErrorKind};
use machine::{BatchId, Identity, Slot};
use runner::Runner;
use shared::{Shared, Target};

/// How records become batches.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// How batches are compressed.
    pub compression: Compression,
    /// Uncompressed bytes after which a batch is sealed; it shrinks with the number of partitions so that open batches take at most
    /// 128 MiB together. The default, 1,000,000, stays under the default `max.message.bytes` of a topic (1,048,588) whatever the compression.
    pub batch_size: usize,
    /// Time after which an open batch is sealed although it is not full. It is looked at every few hundred records and in
    /// [`Producer::poll`], so a producer that neither appends nor polls seals nothing.
    pub linger: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            compression: Compression::Lz4,
            batch_size: 1_000_000,
            linger: Duration::from_millis(200),
        }
    }
}

/// Open batches of all partitions together take at most this many bytes.
const OPEN_BYTES: usize = 128 * 1024 * 1024;

/// A batch is never made smaller than this to fit [`OPEN_BYTES`].
const SMALLEST_BATCH: usize = 16 * 1024;

/// Sealed batches that are not settled take at most this many bytes (uncompressed), and one batch for each partition.
const SEALED_BYTES: usize = 16 * 1024 * 1024;

/// Records between two looks at the clock.
const RECORDS_PER_LOOK: u32 = 512;

/// What a record's framing may add to its key and value in a batch.
const RECORD_OVERHEAD: usize = 64;

/// A topic of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    first_slot: u32,
    partitions: i32,
}

impl Topic {
    /// How many partitions the topic had when it was opened.
    pub fn partitions(self) -> i32 {
        self.partitions
    }
}

/// A record to be appended.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerRecord<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [RecordHeader<'a>],
    /// Milliseconds since 1970; `None`: when its batch was opened.
    pub timestamp: Option<i64>,
    /// A number of the caller's, such as a row; a batch remembers those of its first and its last record.
    pub tag: u64,
}

/// What became of a batch.
#[derive(Debug)]
pub struct SettledBatch {
    /// Its topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: i32,
    /// How many records it has.
    pub records: u32,
    /// Offset of its first record; the others follow. `None` if the broker had it already and no longer knew where.
    pub base_offset: Option<i64>,
    /// Tag of its first record.
    pub first_tag: u64,
    /// Tag of its last record.
    pub last_tag: u64,
    /// Whether all in-sync replicas have it. After a failure it may or may not be in the log.
    pub result: Result<(), Error>,
}

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    opened: Instant,
    first_tag: u64,
    last_tag: u64,
}

/// An idempotent producer with `acks=all`. One thread appends; see [`poll`](Self::poll) for how it learns what became of the records.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    config: ProducerConfig,
    batch_size: usize,
    topics: HashMap<String, Topic>,
    targets: Vec<Target>,
    open: Vec<Option<Open>>,
    open_count: usize,
    records_until_look: u32,
    next_batch: u64,
    /// Uncompressed bytes of the batches that were sealed and not yet taken back as settled.
    sealed_bytes: usize,
    settled: Vec<SettledBatch>,
    shared: Arc<Shared>,
    jobs: Option<SyncSender<runner::Job>>,
    runner: Runner,
    identity: Identity,
}

impl Producer {
    /// Obtains a producer id and starts the threads.
    ///
    /// # Errors
    /// [`ErrorKind::Authorization`] without the right to be idempotent; [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`].
    pub fn open(client: Client, config: ProducerConfig) -> Result<Self, Error> {
        let identity = init_producer_id(&client)?;
        let shared = Arc::new(Shared::default());
        let (jobs, queue) = sync_channel(runner::SEALED_QUEUE);
        let runner = Runner::start(
            &client,
            config.compression,
            identity,
            Arc::clone(&shared),
            queue,
        )?;
        Ok(Self {
            client,
            batch_size: config.batch_size.max(1),
            config,
            topics: HashMap::new(),
            targets: Vec::new(),
            open: Vec::new(),
            open_count: 0,
            records_until_look: RECORDS_PER_LOOK,
            next_batch: 0,
            sealed_bytes: 0,
            settled: Vec::new(),
            shared,
            jobs: Some(jobs),
            runner,
            identity,
        })
    }

    /// The producer id that batches carry.
    pub fn producer_id(&self) -> i64 {
        self.identity.producer_id
    }

    /// Uncompressed bytes after which a batch is sealed, as it is now that the partitions are known.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Opens a topic, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::TopicMissing`], [`ErrorKind::Authorization`], [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`].
    pub fn topic(&mut self, name: &str) -> Result<Topic, Error> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(*topic);
        }
        let client = self.client.clone();
        let view = client.retrying(&[name], |client| {
            let view = client.refresh(&[name])?;
            view.topic(name).map(|_| ())?;
            Ok(view)
        })?;
        let found = view.topic(name)?;
        let too_many = |_| {
            Error::new(
                ErrorKind::Topic,
                format!("topic {name} has too many partitions"),
            )
        };
        let first_slot = u32::try_from(self.targets.len()).map_err(too_many)?;
        let partitions = i32::try_from(found.partitions.len()).map_err(too_many)?;
        let name: Arc<str> = Arc::from(name);
        for partition in 0..partitions {
            let target = Target {
                topic: Arc::clone(&name),
                topic_id: found.id,
                partition,
            };
            self.targets.push(target.clone());
            self.open.push(None);
            self.submit(runner::Job::Add(target))?;
        }
        self.batch_size = (OPEN_BYTES / self.targets.len().max(1))
            .max(SMALLEST_BATCH)
            .min(self.config.batch_size);
        let topic = Topic {
            first_slot,
            partitions,
        };
        self.topics.insert(name.to_string(), topic);
        Ok(topic)
    }

    /// Appends a record to the open batch of its partition. Waits while too much is under way.
    ///
    /// # Errors
    /// The failure that stopped the producer, if one did; [`ErrorKind::Configuration`] for a partition that the topic does not have.
    #[inline]
    pub fn append(
        &mut self,
        topic: Topic,
        partition: i32,
        record: ProducerRecord<'_>,
    ) -> Result<(), Error> {
        let slot = slot_of(topic, partition)?;
        self.records_until_look -= 1;
        if self.records_until_look == 0 {
            self.look_at_the_clock()?;
        }
        let len = record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len)
            + RECORD_OVERHEAD;
        if let Some(open) = &mut self.open[slot]
            && open.builder.body_len() + len <= self.batch_size
        {
            open.builder
                .append(record.timestamp, record.key, record.value, record.headers);
            open.last_tag = record.tag;
            return Ok(());
        }
        self.append_to_new_batch(slot, record)
    }

    #[cold]
    fn append_to_new_batch(
        &mut self,
        slot: usize,
        record: ProducerRecord<'_>,
    ) -> Result<(), Error> {
        self.seal(slot)?;
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        let mut buffer = self.shared.take_buffer();
        // All of it at once: growing in steps would copy what is there.
        buffer.reserve(self.batch_size);
        let mut builder = BatchBuilder::with_buffer(buffer, unix_millis());
        builder.append(record.timestamp, record.key, record.value, record.headers);
        self.open[slot] = Some(Open {
            builder,
            opened: Instant::now(),
            first_tag: record.tag,
            last_tag: record.tag,
        });
        self.open_count += 1;
        Ok(())
    }

    #[cold]
    fn look_at_the_clock(&mut self) -> Result<(), Error> {
        self.records_until_look = RECORDS_PER_LOOK;
        if self.open_count == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let linger = self.config.linger;
        for slot in 0..self.open.len() {
            if self.open[slot]
                .as_ref()
                .is_some_and(|open| now.duration_since(open.opened) >= linger)
            {
                self.seal(slot)?;
            }
        }
        Ok(())
    }

    /// Hands a slot's open batch on, once there is room for it.
    fn seal(&mut self, slot: usize) -> Result<(), Error> {
        let Some(open) = self.open[slot].take() else {
            return Ok(());
        };
        self.open_count -= 1;
        let body = open.builder.finish();
        let bytes = body.records.len();
        let allowed = SEALED_BYTES + self.targets.len() * self.batch_size;
        while self.sealed_bytes > 0 && self.sealed_bytes + bytes > allowed {
            self.take_settled(Some(Duration::from_secs(1)));
        }
        self.sealed_bytes += bytes;
        let sealed = runner::Sealed {
            slot: Slot(u32::try_from(slot).unwrap_or(u32::MAX)),
            batch: BatchId(self.next_batch),
            body,
            bytes,
            first_tag: open.first_tag,
            last_tag: open.last_tag,
        };
        self.next_batch += 1;
        self.submit(runner::Job::Sealed(sealed))
    }

    fn submit(&mut self, job: runner::Job) -> Result<(), Error> {
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        if sent {
            return Ok(());
        }
        Err(self
            .shared
            .failure()
            .unwrap_or_else(|| Error::new(ErrorKind::Closed, "the producer was closed")))
    }

    /// Moves what has settled since the last call to `self.settled`; waits at most `timeout` for the first.
    fn take_settled(&mut self, timeout: Option<Duration>) {
        let before = self.settled.len();
        for settled in self.shared.take_settled(timeout) {
            self.sealed_bytes -= settled.bytes;
            let target = &self.targets[settled.slot.0 as usize];
            let topic = self.topics[&*target.topic];
            self.settled.push(SettledBatch {
                topic,
                partition: target.partition,
                records: settled.records,
                base_offset: settled.base_offset,
                first_tag: settled.first_tag,
                last_tag: settled.last_tag,
                result: settled.result,
            });
        }
        debug_assert!(self.settled.len() >= before);
    }

    /// Seals every open batch, so that what was appended goes out now.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn seal_all(&mut self) -> Result<(), Error> {
        for slot in 0..self.open.len() {
            self.seal(slot)?;
        }
        Ok(())
    }

    /// Moves every batch that settled since the last call into `settled`, and seals batches that have lingered. Never waits for a broker.
    ///
    /// # Errors
    /// As [`append`](Self::append); what settled is in `settled` nevertheless.
    pub fn poll(&mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        self.take_settled(None);
        settled.append(&mut self.settled);
        self.look_at_the_clock()?;
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// As [`poll`](Self::poll), but waits up to `timeout` for a settlement if none is there. Returns whether there was one.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(
        &mut self,
        timeout: Duration,
        settled: &mut Vec<SettledBatch>,
    ) -> Result<bool, Error> {
        if self.settled.is_empty() {
            self.take_settled(Some(timeout));
        }
        let any = !self.settled.is_empty();
        self.poll(settled)?;
        Ok(any)
    }

    /// Seals every open batch and waits until all have settled, or the producer failed.
    ///
    /// # Errors
    /// The failure that stopped the producer; the batches it concerns are in `settled`.
    pub fn flush(&mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        let sealed = self.seal_all();
        while self.sealed_bytes > 0 && !self.runner.is_finished() {
            self.take_settled(Some(Duration::from_secs(1)));
        }
        self.take_settled(None);
        settled.append(&mut self.settled);
        sealed?;
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// Flushes, and ends the threads.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        self.flush(settled)
    }
}

impl Drop for Producer {
    /// Ends the threads. What was not flushed may or may not arrive.
    fn drop(&mut self) {
        drop(self.jobs.take());
        self.runner.stop();
    }
}

fn slot_of(topic: Topic, partition: i32) -> Result<usize, Error> {
    match u32::try_from(partition) {
        Ok(number) if partition < topic.partitions => Ok((topic.first_slot + number) as usize),
        _ => Err(Error::new(
            ErrorKind::Configuration,
            format!("the topic has no partition {partition}"),
        )),
    }
}

fn unix_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A producer id without a transactional id: any broker gives one.
fn init_producer_id(client: &Client) -> Result<Identity, Error> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    client.retrying(&[], |client| {
        let answer = client.call_any(&request)?;
        check("obtain a producer id", answer.error_code, None)?;
        Ok(Identity {
            producer_id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        })
    })
}
