//! The transaction coordinator: all transactional ids, their journal, their markers and their clock.
//!
//! [`machine`] holds the rules of one transactional id. Here are the lock around each of them, and the order
//! of what is written when, on which everything rests that must survive a crash:
//!
//! 1. A partition is in the journal as part of the transaction before the first batch is appended to it.
//! 2. The decision (`PrepareCommit`, `PrepareAbort`) is in the journal before the first marker is written.
//!    From there on the transaction can only end that way, also after a restart.
//! 3. `CompleteCommit` or `CompleteAbort` is in the journal after the last marker. In the same line the
//!    offsets that waited for the transaction are committed or dropped.
//!
//! Markers are written before EndTxn is answered, where Kafka answers after the decision and writes them
//! moments later; a client may rely on neither. A test can hold them back, for each counts as a
//! `WriteTxnMarkers` request to the [faults](crate::Faults): what Kafka's coordinator sends to the leaders.

mod machine;
mod markers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_wire::Marker;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use machine::{Caller, NO_EPOCH, NO_PRODUCER_ID, Protocol, State, Touched, Transaction};
use machine::{Ending, Init};

use crate::codes;
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::journal::{Change, Metadata};
use crate::shared::{Shared, now_ms};
use crate::sync::lock;
use crate::topics::Partition;

/// How long an unused transactional id is remembered (Kafka's `transactional.id.expiration.ms`).
const REMEMBERED_FOR_MS: i64 = 7 * 24 * 3600 * 1000;

/// The version of the feature `transaction.version` with which the second protocol begins.
const SECOND_PROTOCOL: i16 = 2;

/// All transactional ids.
#[derive(Debug)]
pub(crate) struct Transactions {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// Told whenever a deadline may have become earlier.
    changed: Notify,
    max_timeout: Duration,
    /// What the broker itself does when it takes a transaction from its producer.
    protocol: Protocol,
}

/// One transactional id. Its lock is held for as long as something is done to it, appends included: no
/// marker can come between a batch and the check that its transaction is open.
#[derive(Debug)]
pub(crate) struct Slot {
    id: String,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    transaction: Transaction,
    /// When the open transaction is aborted, by a clock that nobody sets.
    deadline: Option<Instant>,
}

/// Something about to be written in a transaction.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    /// The transactional id.
    pub(crate) id: &'a str,
    pub(crate) caller: Caller,
    /// Where it goes.
    pub(crate) place: Touched,
    pub(crate) protocol: Protocol,
}

/// A transactional id as ListTransactions tells of it.
pub(crate) type Described = (String, Transaction);

impl Transactions {
    /// The transactional ids that the journal knows.
    pub(crate) fn open(config: &BrokerConfig, metadata: &Metadata) -> Self {
        let protocol = match config.transaction_version {
            SECOND_PROTOCOL.. => Protocol::Second,
            _ => Protocol::First,
        };
        let now = now_ms();
        let slots = metadata.transactions.iter().map(|(id, transaction)| {
            let deadline = (transaction.state == State::Ongoing).then(|| {
                // What is left of its time by the wall clock, for no other clock outlives a process.
                let timeout = i64::from(transaction.timeout_ms);
                let left = transaction.started_ms.saturating_add(timeout) - now;
                Instant::now() + milliseconds(left.clamp(0, timeout))
            });
            let held = Mutex::new(Held {
                transaction: transaction.clone(),
                deadline,
            });
            let id = id.clone();
            (id.clone(), Arc::new(Slot { id, held }))
        });
        Self {
            slots: Mutex::new(slots.collect()),
            changed: Notify::new(),
            max_timeout: config.max_transaction_timeout,
            protocol,
        }
    }

    /// After a restart: writes the markers of what had been decided, ends what nobody coordinates, and
    /// forgets what has not been used for long.
    pub(crate) fn recover(&self, shared: &Shared) -> Result<(), Error> {
        for slot in self.all() {
            let mut held = lock(&slot.held);
            if held.transaction.state.marker().is_some() {
                markers::finish_at_start(shared, &slot.id, &mut held)?;
            }
            let unused_for = now_ms() - held.transaction.updated_ms;
            if held.deadline.is_none() && unused_for > REMEMBERED_FOR_MS {
                let id = slot.id.clone();
                shared
                    .commit(Change::TransactionForgotten { id })
                    .map_err(|refusal| Error::journal(&refusal.message))?;
                lock(&self.slots).remove(&slot.id);
            }
        }
        markers::end_orphans(shared, |producer_id, place| {
            self.all().iter().any(|slot| {
                let held = lock(&slot.held);
                held.transaction.producer_id == producer_id
                    && held.transaction.touched.covers(place)
            })
        })
    }

    fn all(&self) -> Vec<Arc<Slot>> {
        lock(&self.slots).values().cloned().collect()
    }

    fn slot(&self, id: &str) -> Option<Arc<Slot>> {
        lock(&self.slots).get(id).cloned()
    }

    /// InitProducerId: the producer id and epoch for whoever asks; others who had them are fenced.
    pub(crate) fn init(
        &self,
        shared: &Arc<Shared>,
        id: &str,
        expected: Option<Caller>,
        timeout_ms: i32,
    ) -> Result<Caller, i16> {
        if id.is_empty() {
            return Err(codes::INVALID_REQUEST);
        }
        if timeout_ms <= 0 || milliseconds(i64::from(timeout_ms)) > self.max_timeout {
            return Err(codes::INVALID_TRANSACTION_TIMEOUT);
        }
        let now = now_ms();
        let slot = self.slot_or_new(shared, id, timeout_ms)?;
        let mut held = lock(&slot.held);
        let transaction = &held.transaction;
        let init = transaction.init(expected, timeout_ms, self.protocol, now, || {
            new_producer_id(shared)
        })?;
        match init {
            Init::Ready(next) => {
                change(shared, &slot, &mut held, next)?;
                Ok(Caller {
                    producer_id: held.transaction.producer_id,
                    epoch: held.transaction.epoch,
                })
            }
            // The client comes again, as it has to with Kafka, where the markers take a moment.
            Init::Abort(next) => {
                change(shared, &slot, &mut held, next)?;
                markers::finish(shared, &slot, &mut held);
                Err(codes::CONCURRENT_TRANSACTIONS)
            }
        }
    }

    fn slot_or_new(&self, shared: &Shared, id: &str, timeout_ms: i32) -> Result<Arc<Slot>, i16> {
        if let Some(slot) = self.slot(id) {
            return Ok(slot);
        }
        let producer_id = new_producer_id(shared)?;
        let mut slots = lock(&self.slots);
        let slot = slots.entry(id.to_owned()).or_insert_with(|| {
            let transaction = Transaction::new(producer_id, timeout_ms, now_ms());
            let held = Mutex::new(Held {
                transaction,
                deadline: None,
            });
            let id = id.to_owned();
            Arc::new(Slot { id, held })
        });
        Ok(Arc::clone(slot))
    }

    /// AddPartitionsToTxn and AddOffsetsToTxn.
    pub(crate) fn add(
        &self,
        shared: &Shared,
        id: &str,
        caller: Caller,
        added: &Touched,
    ) -> Result<(), i16> {
        self.with(id, |slot, held| {
            self.add_to(shared, slot, held, caller, added, Protocol::First)
        })
    }

    /// Whether `caller` has a transaction open that writes to `wanted`.
    pub(crate) fn verify(&self, id: &str, caller: Caller, wanted: &Touched) -> Result<(), i16> {
        self.with(id, |_, held| held.transaction.verify(caller, wanted))
    }

    /// Runs `write` while the transaction is open and the place is part of it, which it becomes on the way
    /// in the second protocol.
    pub(crate) fn write_to<T>(
        &self,
        shared: &Shared,
        writing: &Writing<'_>,
        write: impl FnOnce() -> T,
    ) -> Result<T, i16> {
        self.with(writing.id, |slot, held| {
            self.admit(shared, slot, held, writing)?;
            Ok(write())
        })
    }

    /// As [`Transactions::write_to`] for a batch. Like Kafka it asks for nothing once there is a batch of
    /// the transaction in the partition: the partition itself knows what to take until the marker comes.
    pub(crate) fn append_to<T>(
        &self,
        shared: &Shared,
        partition: &Partition,
        writing: &Writing<'_>,
        append: impl FnOnce() -> T,
    ) -> Result<T, i16> {
        self.with(writing.id, |slot, held| {
            let producer_id = writing.caller.producer_id;
            let open = partition.log().producers().open_transaction(producer_id);
            match open {
                None => self.admit(shared, slot, held, writing)?,
                // Whoever holds this lock must be the one whose markers wait for it.
                Some(_) if held.transaction.producer_id != producer_id => {
                    return Err(codes::INVALID_PRODUCER_ID_MAPPING);
                }
                // An epoch that was never handed out would fence the rightful producer.
                Some(_) if held.transaction.epoch < writing.caller.epoch => {
                    return Err(codes::PRODUCER_FENCED);
                }
                Some(_) => {}
            }
            Ok(append())
        })
    }

    fn admit(
        &self,
        shared: &Shared,
        slot: &Slot,
        held: &mut Held,
        writing: &Writing<'_>,
    ) -> Result<(), i16> {
        let (caller, place) = (writing.caller, &writing.place);
        match writing.protocol {
            Protocol::First => held.transaction.verify(caller, place),
            Protocol::Second => self.add_to(shared, slot, held, caller, place, Protocol::Second),
        }
    }

    fn add_to(
        &self,
        shared: &Shared,
        slot: &Slot,
        held: &mut Held,
        caller: Caller,
        added: &Touched,
        protocol: Protocol,
    ) -> Result<(), i16> {
        let before = &held.transaction;
        let Some(next) = before.add(caller, added, protocol, now_ms())? else {
            return Ok(());
        };
        if before.state == State::Ongoing {
            let grown = Change::TransactionGrown {
                id: slot.id.clone(),
                added: added.clone(),
                updated_ms: next.updated_ms,
            };
            shared.commit(grown).map_err(unwritten)?;
            held.transaction = next;
            return Ok(());
        }
        change(shared, slot, held, next)?;
        let timeout = milliseconds(i64::from(held.transaction.timeout_ms));
        held.deadline = Some(Instant::now() + timeout);
        self.changed.notify_one();
        Ok(())
    }

    /// EndTxn. Returns the producer id and epoch to go on with.
    pub(crate) fn end(
        &self,
        shared: &Arc<Shared>,
        id: &str,
        caller: Caller,
        marker: Marker,
        protocol: Protocol,
    ) -> Result<Caller, i16> {
        self.with(id, |slot, held| {
            let transaction = &held.transaction;
            let ending = transaction.end(caller, marker, protocol, now_ms(), || {
                new_producer_id(shared)
            })?;
            if let Ending::Prepared(next) = ending {
                change(shared, slot, held, next)?;
                markers::finish(shared, slot, held);
            }
            // Before the markers are written the state still has the used-up id; the client needs the next.
            let next = match held.transaction.next_producer_id {
                NO_PRODUCER_ID => &held.transaction,
                _ => &held.transaction.complete(now_ms()),
            };
            Ok(Caller {
                producer_id: next.producer_id,
                epoch: next.epoch,
            })
        })
    }

    fn with<T>(
        &self,
        id: &str,
        call: impl FnOnce(&Arc<Slot>, &mut Held) -> Result<T, i16>,
    ) -> Result<T, i16> {
        if id.is_empty() {
            return Err(codes::INVALID_REQUEST);
        }
        let slot = self.slot(id).ok_or(codes::INVALID_PRODUCER_ID_MAPPING)?;
        call(&slot, &mut lock(&slot.held))
    }

    /// One transactional id, if it is known.
    pub(crate) fn describe(&self, id: &str) -> Option<Transaction> {
        let slot = self.slot(id)?;
        let held = lock(&slot.held);
        // Between its making and its first epoch an id is nobody's yet.
        (held.transaction.epoch != NO_EPOCH).then(|| held.transaction.clone())
    }

    /// All transactional ids.
    pub(crate) fn list(&self) -> Vec<Described> {
        let slots = self.all();
        let described = slots
            .iter()
            .filter_map(|slot| Some((slot.id.clone(), self.describe(&slot.id)?)));
        described.collect()
    }

    /// Aborts transactions whose time is up, for as long as it is polled.
    pub(crate) async fn run_timers(&self, shared: &Arc<Shared>) {
        loop {
            let changed = self.changed.notified();
            match self.expire(shared, Instant::now()) {
                Some(deadline) => {
                    // Either way the transactions are looked at again.
                    drop(tokio::time::timeout_at(deadline, changed).await);
                }
                None => changed.await,
            }
        }
    }

    /// Aborts what is due, and says when the next thing is.
    fn expire(&self, shared: &Arc<Shared>, now: Instant) -> Option<Instant> {
        /// When to try again what the disk refused.
        const RETRY: Duration = Duration::from_secs(1);
        let mut next_deadline: Option<Instant> = None;
        for slot in self.all() {
            let mut held = lock(&slot.held);
            if held.deadline.is_some_and(|deadline| deadline <= now) {
                let fenced = held.transaction.fence(self.protocol, now_ms());
                match change(shared, &slot, &mut held, fenced) {
                    Ok(()) => markers::finish(shared, &slot, &mut held),
                    Err(_) => held.deadline = Some(now + RETRY),
                }
            }
            if let Some(deadline) = held.deadline {
                next_deadline = Some(next_deadline.map_or(deadline, |next| next.min(deadline)));
            }
        }
        next_deadline
    }
}

/// Writes `next` into the journal and takes it over.
fn change(shared: &Shared, slot: &Slot, held: &mut Held, next: Transaction) -> Result<(), i16> {
    let changed = Change::TransactionChanged {
        id: slot.id.clone(),
        transaction: next.clone(),
    };
    shared.commit(changed).map_err(unwritten)?;
    held.transaction = next;
    held.deadline = None;
    Ok(())
}

/// What a client is told when the journal cannot be written: to come again, as while Kafka's coordinator
/// has no replicas.
fn unwritten<E>(_: E) -> i16 {
    codes::COORDINATOR_NOT_AVAILABLE
}

fn new_producer_id(shared: &Shared) -> Result<i64, i16> {
    shared.new_producer_id().map_err(unwritten)
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}
