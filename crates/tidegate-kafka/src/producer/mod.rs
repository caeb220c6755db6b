//! The idempotent and the transactional producer: records go straight into the open batch of their partition; full batches are compressed and sent on other
//! threads, and settle as a whole.
//!
//! ```text
//! append -> open batch -> sealed -> compressors -> driver (machine) -> links, a few per broker -> broker
//!                                                    settled batches <-'
//! ```
//!
//! What is sent when, and what an answer means, is decided by the [`machine`] alone; the threads only move bytes and clocks. They are
//! made in `runner` and nowhere else.
//!
//! # Transactions
//! With [`ProducerConfig::transactional`] every record belongs to a transaction: [`Producer::begin`], append, [`Producer::commit`]. Opening the
//! producer ends whatever an earlier one with the same transactional id left behind. Keep the position of the source in a record of the same
//! transaction, and read it back with [`read_committed`](crate::consumer::read_committed) after opening and after each
//! [`ErrorKind::RolledBack`]: then every record is in the log exactly once, whatever happens.
//!
//! # Memory
//! Open batches take up to 128 MiB together (batches get smaller with the number of partitions), and batches that are sealed and not settled
//! 16 MiB and one batch for each partition. [`Producer::append`] waits when they would take more.

mod asker;
mod compress;
mod coordinator;
mod link;
pub mod machine;
mod runner;
mod shared;
mod types;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_wire::{BatchBuilder, HEADER_LEN, MAX_BODY_LEN, RecordHeader};

pub use types::{ProducerConfig, ProducerRecord, SettledBatch, Topic, Transactional};

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use compress::Sealed;
use machine::{Event, Identity, Outcome, Slot};
use runner::{Runner, Setup};
use shared::{Settlement, Shared, Target};

/// Open batches of all partitions together take at most this many bytes.
const OPEN_BYTES: usize = 128 * 1024 * 1024;

/// A batch is never made smaller than this to fit [`OPEN_BYTES`].
const SMALLEST_BATCH: usize = 16 * 1024;

/// Sealed batches that are not settled take at most this many bytes (uncompressed), and one batch for each partition.
const SEALED_BYTES: usize = 16 * 1024 * 1024;

/// What a sealed batch counts for beside its records: it bounds the number of small batches too.
const BATCH_CHARGE: usize = 1024;

/// Records between two looks at the clock.
const RECORDS_PER_LOOK: u32 = 512;

/// What a record's framing may add to its key and value in a batch.
const RECORD_OVERHEAD: usize = 64;

/// What a header's framing may add to its name and value.
const HEADER_OVERHEAD: usize = 10;

/// How long a wait for settlements goes on before the threads are looked after.
const LOOK_AFTER_THREADS: Duration = Duration::from_secs(1);

/// The partition that a slot stands for.
#[derive(Debug)]
struct Owner {
    topic: Topic,
    target: Target,
    /// The offset behind the last record that is known to be in the log.
    end: i64,
}

impl Owner {
    /// Takes note of where a batch stands. A topic whose name alone is in the requests (Produce before version 13, KIP-516) can be made anew
    /// without any answer that says so, but for offsets that begin again.
    fn note_offset(&mut self, client: &Client, base: i64, records: u32) -> Result<(), Error> {
        if base < self.end {
            self.target.look(client)?;
        }
        self.end = base + i64::from(records);
        Ok(())
    }
}

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    opened: Instant,
    first_tag: u64,
    last_tag: u64,
}

/// An idempotent or transactional producer with `acks=all`. One thread appends; see [`poll`](Self::poll) for how it learns what became of the records.
///
/// Dropping it ends its threads and waits for them; what was not flushed may or may not arrive. A transaction that is open then is aborted by
/// whoever opens its id next, or when it has taken too long.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    config: ProducerConfig,
    batch_size: usize,
    topics: HashMap<String, Topic>,
    /// The partition of each slot.
    owners: Vec<Owner>,
    open: Vec<Option<Open>>,
    /// No open batch was opened before this moment.
    oldest: Option<Instant>,
    records_until_look: u32,
    /// Charges of the batches that were sealed and not yet taken back as settled.
    charged: usize,
    settlements: Vec<Settlement>,
    /// Settled and not yet handed to the caller.
    settled: Vec<SettledBatch>,
    /// The number of the latest transaction, and whether it is open as far as the caller knows.
    transaction: u64,
    in_transaction: bool,
    shared: Arc<Shared>,
    runner: Runner,
}

impl Producer {
    /// Starts the threads and obtains a producer id. A transactional producer takes its id over with that: an earlier one with the same id
    /// is listened to no more, and the transaction that it left open is aborted, down to the last marker.
    ///
    /// # Errors
    /// [`ErrorKind::Authorization`] without the right to be idempotent, or to use the transactional id; [`ErrorKind::Configuration`] for a
    /// transaction time-out that the brokers do not allow; [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`].
    pub fn open(client: Client, config: ProducerConfig) -> Result<Self, Error> {
        let identity = match config.transactional {
            None => asker::init_producer_id(&client)?,
            // The machine asks for it.
            Some(_) => Identity {
                producer_id: -1,
                epoch: -1,
            },
        };
        let shared = Arc::new(Shared::new(identity));
        let setup = Setup {
            codec: config.compression,
            compressors: config.compression_threads.max(1),
            links_per_node: config.connections_per_broker.max(1),
            transactional: config.transactional.clone(),
        };
        let runner = Runner::start(&client, setup, &shared)?;
        let producer = Self {
            client,
            batch_size: config.batch_size.max(1),
            config,
            topics: HashMap::new(),
            owners: Vec::new(),
            open: Vec::new(),
            oldest: None,
            records_until_look: RECORDS_PER_LOOK,
            charged: 0,
            settlements: Vec::new(),
            settled: Vec::new(),
            transaction: 0,
            in_transaction: false,
            shared,
            runner,
        };
        if producer.config.transactional.is_some() {
            while !producer.shared.wait_ready(LOOK_AFTER_THREADS) {
                if producer.is_stuck() {
                    return Err(producer.gone());
                }
            }
        }
        Ok(producer)
    }

    /// The producer id that new batches carry. It changes if a broker forgets it, and now and then with the end of a transaction; each
    /// settled batch names its own.
    pub fn producer_id(&self) -> i64 {
        self.shared.identity().producer_id
    }

    /// Uncompressed bytes after which a batch is sealed, as it is now that the topics are known.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Opens a topic, which must exist. A producer may have several.
    ///
    /// # Errors
    /// [`ErrorKind::TopicMissing`], [`ErrorKind::Authorization`], [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`].
    pub fn topic(&mut self, name: &str) -> Result<Topic, Error> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(*topic);
        }
        let view = self.client.retrying(&[name], |client| {
            let view = client.refresh(&[name])?;
            view.topic(name).map(|_| ())?;
            Ok(view)
        })?;
        let found = view.topic(name)?;
        let too_many = |_| {
            let message = format!("topic {name} has too many partitions");
            Error::new(ErrorKind::Topic, message)
        };
        let topic = Topic {
            first_slot: u32::try_from(self.open.len()).map_err(too_many)?,
            partitions: i32::try_from(found.partitions.len()).map_err(too_many)?,
        };
        let shared_name: Arc<str> = Arc::from(name);
        for partition in 0..topic.partitions {
            self.open.push(None);
            let target = Target {
                topic: Arc::clone(&shared_name),
                topic_id: found.id,
                partition,
            };
            self.owners.push(Owner {
                topic,
                target: target.clone(),
                end: 0,
            });
            if !self.runner.add_target(target) {
                return Err(self.gone());
            }
        }
        let share = (OPEN_BYTES / self.open.len().max(1)).max(SMALLEST_BATCH);
        self.batch_size = self.batch_size.min(share).min(self.largest_batch(name));
        self.topics.insert(name.to_owned(), topic);
        Ok(topic)
    }

    /// Asks the cluster whether a topic is still the one that was opened, and gives how many partitions it has by now; `None` if the cluster cannot
    /// say so now. A broker that knows the topic by its name alone does not say so by itself.
    ///
    /// # Errors
    /// [`ErrorKind::TopicMissing`] if it was deleted and created again: what was acknowledged before is gone.
    pub fn look_at(&self, topic: Topic) -> Result<Option<i32>, Error> {
        let Some(owner) = self.owners.get(topic.first_slot as usize) else {
            return Ok(None);
        };
        let partitions = owner.target.look(&self.client)?;
        Ok(partitions.map(|count| i32::try_from(count).unwrap_or(i32::MAX)))
    }

    /// What the topic takes at most. Who may write to a topic need not have the right to read its settings: then there is no limit but the
    /// configured one, and the broker refuses what is too large.
    fn largest_batch(&self, name: &str) -> usize {
        let configs = self.client.admin().topic_configs(name).ok();
        let limit = configs.and_then(|configs| configs.get("max.message.bytes")?.parse().ok());
        limit.map_or(usize::MAX, |limit: usize| {
            limit.saturating_sub(HEADER_LEN).max(1)
        })
    }

    /// Appends a record to the open batch of its partition. Waits while too much is under way.
    ///
    /// # Errors
    /// The failure that stopped the producer, if one did, at the latest when the batch is full; [`ErrorKind::RolledBack`] likewise;
    /// [`ErrorKind::Configuration`] for a partition that the topic does not have, and outside of a transaction where there has to be one; [`ErrorKind::TooLarge`] for a record that no batch can hold.
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
        let len = most_bytes_of(&record);
        let fits = match self.open.get(slot) {
            Some(Some(open)) => open.builder.body_len() + len <= self.batch_size,
            _ => false,
        };
        if !fits {
            self.open_batch(slot, len, record.tag)?;
        }
        // One place alone that builds records, so that the compiler puts all of it here.
        if let Some(Some(open)) = self.open.get_mut(slot) {
            open.builder
                .append(record.timestamp, record.key, record.value, record.headers);
            open.last_tag = record.tag;
        }
        Ok(())
    }

    /// Seals the slot's open batch, if there is one, and opens the next one for a record of at most `len` bytes.
    #[cold]
    fn open_batch(&mut self, slot: usize, len: usize, tag: u64) -> Result<(), Error> {
        if len > MAX_BODY_LEN {
            let message = format!("a record of {len} bytes: no batch can hold it");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        self.seal(slot)?;
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        if self.config.transactional.is_some() && !self.in_transaction {
            return Err(misused("no transaction is open: begin one first"));
        }
        let mut buffer = self.shared.take_buffer();
        if buffer.capacity() < self.batch_size {
            // All of it at once: growing in steps would copy what is there.
            buffer.clear();
            buffer.reserve(self.batch_size);
        }
        let opened = Instant::now();
        self.oldest.get_or_insert(opened);
        self.open[slot] = Some(Open {
            builder: BatchBuilder::with_buffer(buffer, unix_millis()),
            opened,
            first_tag: tag,
            last_tag: tag,
        });
        Ok(())
    }

    /// Seals what has lingered.
    #[cold]
    fn look_at_the_clock(&mut self) -> Result<(), Error> {
        self.records_until_look = RECORDS_PER_LOOK;
        let linger = self.config.linger;
        let Some(oldest) = self.oldest.filter(|oldest| oldest.elapsed() >= linger) else {
            return Ok(());
        };
        let now = Instant::now().max(oldest);
        let mut oldest = None;
        for slot in 0..self.open.len() {
            let Some(opened) = self.open[slot].as_ref().map(|open| open.opened) else {
                continue;
            };
            if now.saturating_duration_since(opened) >= linger {
                self.seal(slot)?;
            } else {
                oldest = Some(oldest.map_or(opened, |oldest: Instant| oldest.min(opened)));
            }
        }
        self.oldest = oldest;
        Ok(())
    }

    /// Hands a slot's open batch on, once there is room for it.
    fn seal(&mut self, slot: usize) -> Result<(), Error> {
        let Some(open) = self.open[slot].take() else {
            return Ok(());
        };
        let body = open.builder.finish();
        let charge = body.records.len() + BATCH_CHARGE;
        let allowed = SEALED_BYTES + self.open.len() * self.batch_size;
        while self.charged > 0 && self.charged + charge > allowed {
            if !self.take_settled(LOOK_AFTER_THREADS) && self.is_stuck() {
                break;
            }
        }
        self.charged += charge;
        let slot = Slot(u32::try_from(slot).unwrap_or(u32::MAX));
        let transaction = self.transaction;
        let submitted = self.runner.submit(|batch| Sealed {
            slot,
            batch,
            body,
            charge,
            first_tag: open.first_tag,
            last_tag: open.last_tag,
            transaction,
        });
        if submitted { Ok(()) } else { Err(self.gone()) }
    }

    /// Whether waiting for settlements is in vain: the producer has failed, all that it still knew has settled, or a thread is gone.
    fn is_stuck(&self) -> bool {
        self.shared.failure().is_some() || self.runner.is_finished()
    }

    /// Why the threads are gone.
    fn gone(&self) -> Error {
        let closed = || Error::new(ErrorKind::Closed, "the producer's threads have ended");
        self.shared.failure().unwrap_or_else(closed)
    }

    /// Moves what has settled since the last call to `self.settled`; waits at most `timeout` for the first. Returns whether there was any.
    fn take_settled(&mut self, timeout: Duration) -> bool {
        self.shared.take_settled(timeout, &mut self.settlements);
        let any = !self.settlements.is_empty();
        for settlement in self.settlements.drain(..) {
            self.charged -= settlement.charge;
            let owner = &mut self.owners[settlement.slot.0 as usize];
            let result = match (settlement.result, settlement.base_offset) {
                (Ok(()), Some(base)) => {
                    let noted = owner.note_offset(&self.client, base, settlement.records);
                    noted.inspect_err(|error| self.shared.fail(error.repeat()))
                }
                (result, _) => result,
            };
            self.settled.push(SettledBatch {
                topic: owner.topic,
                partition: owner.target.partition,
                records: settlement.records,
                producer_id: settlement.producer_id,
                base_offset: settlement.base_offset,
                first_tag: settlement.first_tag,
                last_tag: settlement.last_tag,
                result,
            });
        }
        any
    }

    /// Seals every open batch, so that what was appended goes out now.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn seal_all(&mut self) -> Result<(), Error> {
        for slot in 0..self.open.len() {
            self.seal(slot)?;
        }
        self.oldest = None;
        Ok(())
    }

    /// Moves every batch that settled since the last call into `settled`, and seals batches that have lingered. Does not wait for a broker
    /// unless it has to make room for what lingered.
    ///
    /// Call it now and then while appending: settled batches that nobody takes are kept.
    ///
    /// # Errors
    /// As [`append`](Self::append); what settled is in `settled` nevertheless.
    pub fn poll(&mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        self.take_settled(Duration::ZERO);
        let looked = self.look_at_the_clock();
        settled.append(&mut self.settled);
        looked?;
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// As [`poll`](Self::poll), but waits up to `timeout` for a settlement if none is there; what lingers is sealed meanwhile. Returns
    /// whether there was one.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(
        &mut self,
        timeout: Duration,
        settled: &mut Vec<SettledBatch>,
    ) -> Result<bool, Error> {
        let until = Instant::now() + timeout;
        let before = settled.len();
        loop {
            self.poll(settled)?;
            let left = until.saturating_duration_since(Instant::now());
            if settled.len() > before || left.is_zero() {
                return Ok(settled.len() > before);
            }
            let lingers = self
                .oldest
                .map(|oldest| self.config.linger.saturating_sub(oldest.elapsed()));
            // Not shorter than a millisecond: clocks are not exact, and this is no place to spin.
            let nap = lingers.map_or(left, |lingers| {
                left.min(lingers.max(Duration::from_millis(1)))
            });
            self.take_settled(nap);
        }
    }

    /// Seals every open batch and waits until all have settled, or the producer failed. It fails if nothing at all settles within the
    /// client's delivery time-out.
    ///
    /// # Errors
    /// The failure that stopped the producer; the batches it concerns are in `settled`.
    pub fn flush(&mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        let sealed = self.seal_all();
        while self.charged > 0 {
            if !self.take_settled(LOOK_AFTER_THREADS) && self.is_stuck() {
                break;
            }
        }
        settled.append(&mut self.settled);
        sealed?;
        match self.shared.failure() {
            Some(error) => Err(error),
            None if self.charged > 0 => Err(self.gone()),
            None => Ok(()),
        }
    }

    /// Whether it sends in transactions.
    pub fn is_transactional(&self) -> bool {
        self.config.transactional.is_some()
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.in_transaction && self.shared.failure().is_none()
    }

    /// Begins a transaction. Asks nobody: the cluster hears of it with the first batch. Whatever was appended and rolled back before is
    /// forgotten, also what [`poll`](Self::poll) has not told of yet.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if one is open already or the producer is not transactional; the failure that stopped the producer.
    pub fn begin(&mut self) -> Result<(), Error> {
        if self.config.transactional.is_none() {
            return Err(misused("the producer has no transactional id"));
        }
        if self.in_transaction() {
            return Err(misused("a transaction is open already"));
        }
        self.forget_open_batches();
        self.wait_for_settlements()?;
        self.settled.clear();
        self.shared.begin();
        self.transaction += 1;
        if !self.runner.begin(self.transaction, self.shared.protocol()) {
            return Err(self.gone());
        }
        self.in_transaction = true;
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// Takes note of a roll-back: what was appended is forgotten, also what [`poll`](Self::poll) has not told of yet, and [`ErrorKind::RolledBack`] is told no
    /// more, though no other transaction has begun. Does nothing where none was rolled back.
    ///
    /// # Errors
    /// The failure that stopped the producer.
    pub fn acknowledge_rollback(&mut self) -> Result<(), Error> {
        match self.shared.failure() {
            Some(error) if error.kind() == ErrorKind::RolledBack => {}
            failure => return failure.map_or(Ok(()), Err),
        }
        self.forget_open_batches();
        self.wait_for_settlements()?;
        self.settled.clear();
        self.in_transaction = false;
        self.shared.begin();
        Ok(())
    }

    /// Seals every open batch, waits until all are acknowledged, and commits the transaction. Nothing is asked of anybody if nothing was
    /// appended.
    ///
    /// # Errors
    /// [`ErrorKind::RolledBack`] if it was rolled back instead; the failure that stopped the producer, and then whether the transaction is
    /// committed is in the log alone.
    pub fn commit(&mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        if self.config.transactional.is_none() || !self.in_transaction {
            return Err(misused("no transaction is open"));
        }
        self.flush(settled)?;
        match self.end(Event::Commit)? {
            Outcome::Committed => Ok(()),
            Outcome::RolledBack { why } => Err(shared::rolled_back(&why)),
        }
    }

    /// Gives up what was appended and rolls the transaction back; what was not acknowledged settles as failed.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if none is open; the failure that stopped the producer.
    pub fn abort(&mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        if self.config.transactional.is_none() || !self.in_transaction {
            return Err(misused("no transaction is open"));
        }
        self.forget_open_batches();
        self.end(Event::Abort)?;
        self.wait_for_settlements()?;
        settled.append(&mut self.settled);
        Ok(())
    }

    /// Asks the coordinator who owns the transactional id, which must be done now and then by whoever writes nothing for long: a producer
    /// that was replaced learns of it only when it asks for something. This question changes nothing, so it cannot get in the way of the new owner.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] if somebody else does; [`ErrorKind::Authorization`]; the failure that stopped the producer. A coordinator that
    /// cannot be asked at the moment, or does not know the question, is no error.
    pub fn prove_ownership(&mut self) -> Result<(), Error> {
        match (&self.config.transactional, self.shared.failure()) {
            (_, Some(error)) if error.kind() != ErrorKind::RolledBack => Err(error),
            // What is written in a transaction proves it.
            (Some(transactional), _) if !self.in_transaction() => {
                coordinator::prove_ownership(&self.client, transactional, self.shared.identity())
            }
            _ => Ok(()),
        }
    }

    /// Has the transaction ended and waits for that.
    fn end(&mut self, how: Event) -> Result<Outcome, Error> {
        if !self.runner.tell(how) {
            return Err(self.gone());
        }
        let outcome = loop {
            if let Some(outcome) = self.shared.wait_ended(LOOK_AFTER_THREADS) {
                break outcome;
            }
            if self.is_stuck() {
                return Err(self.gone());
            }
        };
        self.in_transaction = false;
        Ok(outcome)
    }

    fn forget_open_batches(&mut self) {
        self.open.fill_with(|| None);
        self.oldest = None;
    }

    /// Waits until every sealed batch has settled, be it as rolled back.
    fn wait_for_settlements(&mut self) -> Result<(), Error> {
        while self.charged > 0 {
            if !self.take_settled(LOOK_AFTER_THREADS) && self.runner.is_finished() {
                return Err(self.gone());
            }
        }
        Ok(())
    }

    /// Flushes, and ends the threads.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(mut self, settled: &mut Vec<SettledBatch>) -> Result<(), Error> {
        self.flush(settled)
    }
}

fn misused(message: &str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[inline]
fn slot_of(topic: Topic, partition: i32) -> Result<usize, Error> {
    match u32::try_from(partition) {
        Ok(number) if partition < topic.partitions => Ok((topic.first_slot + number) as usize),
        _ => Err(no_partition(partition)),
    }
}

#[cold]
fn no_partition(partition: i32) -> Error {
    let message = format!("the topic has no partition {partition}");
    Error::new(ErrorKind::Configuration, message)
}

/// As many bytes as the record may take in a batch, at most.
#[inline]
fn most_bytes_of(record: &ProducerRecord<'_>) -> usize {
    let key = record.key.map_or(0, <[u8]>::len);
    let value = record.value.map_or(0, <[u8]>::len);
    let headers = if record.headers.is_empty() {
        0
    } else {
        most_bytes_of_headers(record.headers)
    };
    key + value + headers + RECORD_OVERHEAD
}

fn most_bytes_of_headers(headers: &[RecordHeader<'_>]) -> usize {
    let each = headers
        .iter()
        .map(|header| header.name.len() + header.value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD);
    each.sum()
}

fn unix_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
