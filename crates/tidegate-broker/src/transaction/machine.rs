//! The rules of one transactional id: what each call does to it, without storage, sockets or clocks.
//!
//! Every call looks at the state and returns the one that follows, or Kafka's error code. Whoever calls
//! writes the new state down first and takes it over afterwards, so that what is in memory is never ahead of
//! what a restart finds. The rules are Kafka's (`TransactionCoordinator`, `TransactionMetadata`):
//!
//! ```text
//!            init                    add                   end, fence, time-out
//!  Empty <--------- (any but  --------------> Ongoing ---------------------------> PrepareCommit
//!                   Ongoing,                                                       PrepareAbort
//!                   Prepare*)                                                           | complete:
//!                                                                                       | all markers
//!                              CompleteCommit, CompleteAbort <--------------------------+ are written
//! ```
//!
//! In the first protocol an epoch lasts as long as a producer does, so a delayed request of one transaction
//! can reach the next one. In the second (KIP-890, transaction version 2) every end brings a new epoch, the
//! epoch of the marker, and with it a resend can be told from a new request.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_wire::Marker;

use crate::codes;

/// What stands for "no producer id".
pub(crate) const NO_PRODUCER_ID: i64 = -1;

/// What stands for "no epoch".
pub(crate) const NO_EPOCH: i16 = -1;

/// The last epoch a client gets. The one above it is left for fencing that client.
const LAST_CLIENT_EPOCH: i16 = i16::MAX - 1;

/// Where a transactional id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// A producer is initialised and has begun nothing.
    Empty,
    /// Partitions or groups have been added.
    Ongoing,
    /// It is decided that the transaction counts; markers are being written.
    PrepareCommit,
    /// It is decided that the transaction does not count; markers are being written.
    PrepareAbort,
    /// All markers of a committed transaction are written.
    CompleteCommit,
    /// All markers of an aborted transaction are written.
    CompleteAbort,
}

impl State {
    /// The name Kafka's admin APIs have for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The marker being written.
    pub(crate) fn marker(self) -> Option<Marker> {
        match self {
            Self::PrepareCommit => Some(Marker::Commit),
            Self::PrepareAbort => Some(Marker::Abort),
            _ => None,
        }
    }
}

/// Which of the two protocols a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// An epoch for as long as a producer lives. (Transaction versions 0 and 1)
    First,
    /// An epoch for each transaction. (Transaction version 2)
    Second,
}

/// Who calls: a producer id with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// Partitions by topic.
pub(crate) type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// What a transaction writes to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Touched {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) partitions: Partitions,
    /// The groups whose offsets it commits.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) groups: BTreeSet<String>,
}

impl Touched {
    pub(crate) fn partition(topic: &str, partition: i32) -> Self {
        let partitions = Partitions::from([(topic.to_owned(), BTreeSet::from([partition]))]);
        Self {
            partitions,
            groups: BTreeSet::new(),
        }
    }

    pub(crate) fn group(group: &str) -> Self {
        Self {
            partitions: Partitions::new(),
            groups: BTreeSet::from([group.to_owned()]),
        }
    }

    /// Whether all of `other` is in `self`.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let partitions = other.partitions.iter().all(|(topic, partitions)| {
            let known = self.partitions.get(topic);
            partitions.is_empty() || known.is_some_and(|known| known.is_superset(partitions))
        });
        partitions && self.groups.is_superset(&other.groups)
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (topic, partitions) in other.partitions {
            self.partitions.entry(topic).or_default().extend(partitions);
        }
        self.groups.extend(other.groups);
    }

    /// Takes out a partition whose marker has been written.
    pub(crate) fn remove_partition(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.partitions.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.partitions.remove(topic);
            }
        }
    }
}

/// One transactional id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transaction {
    pub(crate) producer_id: i64,
    /// The id before the current one, or -1: an EndTxn that used it up may be sent again.
    pub(crate) previous_producer_id: i64,
    /// The id that follows when the markers are written, because this one's epochs are used up; or -1.
    pub(crate) next_producer_id: i64,
    pub(crate) epoch: i16,
    /// The epoch before the current one if the same producer had it, or -1.
    pub(crate) last_epoch: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) state: State,
    /// The protocol of the last step.
    pub(crate) protocol: Protocol,
    /// What the open transaction writes to; while markers are written, where they are still missing.
    #[serde(flatten)]
    pub(crate) touched: Touched,
    /// When the transaction began, in milliseconds since 1970; -1 if there was none.
    pub(crate) started_ms: i64,
    /// When something was last done, in milliseconds since 1970.
    pub(crate) updated_ms: i64,
}

/// What InitProducerId comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Init {
    /// The producer is initialised.
    Ready(Transaction),
    /// A transaction is open: it is aborted first, and the client asks again.
    Abort(Transaction),
}

/// What EndTxn comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Decided now; the markers have to be written.
    Prepared(Transaction),
    /// It had been done before: a resend.
    Repeated,
}

impl Transaction {
    /// A transactional id that was not known before.
    pub(crate) fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            epoch: NO_EPOCH,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: State::Empty,
            protocol: Protocol::First,
            touched: Touched::default(),
            started_ms: -1,
            updated_ms: now_ms,
        }
    }

    /// InitProducerId: fences whoever had the id. `expected` is what a producer says it is that had it
    /// itself and goes on after an error (KIP-360); it must not fence a later one.
    pub(crate) fn init(
        &self,
        expected: Option<Caller>,
        timeout_ms: i32,
        broker_protocol: Protocol,
        now_ms: i64,
        new_id: impl FnOnce() -> Result<i64, i16>,
    ) -> Result<Init, i16> {
        match self.state {
            // Whoever asks: the caller may have its new producer id from the very transaction that is being ended.
            State::PrepareCommit | State::PrepareAbort => Err(codes::CONCURRENT_TRANSACTIONS),
            _ if expected.is_some_and(|caller| !self.may_go_on(caller)) => {
                Err(codes::PRODUCER_FENCED)
            }
            // The epoch of the abort is never told to anybody; the client's next call brings a further one.
            State::Ongoing => Ok(Init::Abort(self.fence(broker_protocol, now_ms))),
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let mut next = Self {
                    state: State::Empty,
                    protocol: Protocol::First,
                    previous_producer_id: self.producer_id,
                    next_producer_id: NO_PRODUCER_ID,
                    timeout_ms,
                    touched: Touched::default(),
                    started_ms: -1,
                    updated_ms: now_ms,
                    ..*self
                };
                let is_current = expected.is_none_or(|caller| caller.epoch == self.epoch);
                if is_exhausted(self.epoch) && is_current {
                    next.producer_id = new_id()?;
                    next.epoch = 0;
                    next.last_epoch = expected.map_or(NO_EPOCH, |_| self.epoch);
                } else {
                    (next.epoch, next.last_epoch) = self.next_epoch(expected)?;
                }
                Ok(Init::Ready(next))
            }
        }
    }

    /// Whether a producer with this id may ask for a new epoch. The last case is a producer whose epochs
    /// were used up, and which never got the answer with its new id.
    fn may_go_on(&self, caller: Caller) -> bool {
        self.epoch == NO_EPOCH
            || caller.producer_id == self.producer_id
            || (caller.producer_id == self.previous_producer_id && is_exhausted(caller.epoch))
    }

    /// The epoch after an InitProducerId and the one before it.
    fn next_epoch(&self, expected: Option<Caller>) -> Result<(i16, i16), i16> {
        let bumped = self.epoch.saturating_add(1);
        match expected {
            None => Ok((bumped, NO_EPOCH)),
            Some(caller) if self.epoch == NO_EPOCH || caller.epoch == self.epoch => {
                Ok((bumped, self.epoch))
            }
            // The answer to an earlier call was lost. Had another producer come, there were no last epoch.
            Some(caller) if caller.epoch == self.last_epoch => Ok((self.epoch, self.last_epoch)),
            Some(_) => Err(codes::PRODUCER_FENCED),
        }
    }

    /// Adds partitions and groups, and begins a transaction with the first. `None` if all of them are in it.
    pub(crate) fn add(
        &self,
        caller: Caller,
        added: &Touched,
        protocol: Protocol,
        now_ms: i64,
    ) -> Result<Option<Self>, i16> {
        self.check_caller(caller)?;
        if self.state == State::Ongoing && self.touched.covers(added) {
            return Ok(None);
        }
        let mut next = Self {
            state: State::Ongoing,
            protocol,
            updated_ms: now_ms,
            ..self.clone()
        };
        if self.state != State::Ongoing {
            next.started_ms = now_ms;
        }
        next.touched.extend(added.clone());
        Ok(Some(next))
    }

    /// Whether `caller` has a transaction open that writes to `wanted`.
    pub(crate) fn verify(&self, caller: Caller, wanted: &Touched) -> Result<(), i16> {
        self.check_caller(caller)?;
        if self.touched.covers(wanted) {
            Ok(())
        } else {
            Err(codes::TRANSACTION_ABORTABLE)
        }
    }

    fn check_caller(&self, caller: Caller) -> Result<(), i16> {
        if caller.producer_id != self.producer_id {
            Err(codes::INVALID_PRODUCER_ID_MAPPING)
        } else if caller.epoch != self.epoch {
            Err(codes::PRODUCER_FENCED)
        } else if self.state.marker().is_some() {
            Err(codes::CONCURRENT_TRANSACTIONS)
        } else {
            Ok(())
        }
    }

    /// EndTxn: decides how the transaction ends.
    pub(crate) fn end(
        &self,
        caller: Caller,
        marker: Marker,
        protocol: Protocol,
        now_ms: i64,
        new_id: impl FnOnce() -> Result<i64, i16>,
    ) -> Result<Ending, i16> {
        match protocol {
            Protocol::First => self.end_first(caller, marker, now_ms),
            Protocol::Second => self.end_second(caller, marker, now_ms, new_id),
        }
    }

    fn end_first(&self, caller: Caller, marker: Marker, now_ms: i64) -> Result<Ending, i16> {
        if caller.producer_id != self.producer_id {
            return Err(codes::INVALID_PRODUCER_ID_MAPPING);
        }
        if caller.epoch != self.epoch {
            return Err(codes::PRODUCER_FENCED);
        }
        match (self.state, marker) {
            (State::Ongoing, _) => {
                let mut next = self.decided(marker, now_ms);
                next.protocol = Protocol::First;
                Ok(Ending::Prepared(next))
            }
            // Nothing tells a resend from an end without a beginning here.
            (State::CompleteCommit, Marker::Commit) | (State::CompleteAbort, Marker::Abort) => {
                Ok(Ending::Repeated)
            }
            _ => Err(self.refusal_to_end(marker)),
        }
    }

    /// | state | abort again | abort | commit again | commit |
    /// |---|---|---|---|---|
    /// | Empty | fenced | new epoch | fenced | invalid |
    /// | CompleteAbort | done | new epoch | invalid | invalid |
    /// | CompleteCommit | invalid | new epoch | done | invalid |
    fn end_second(
        &self,
        caller: Caller,
        marker: Marker,
        now_ms: i64,
        new_id: impl FnOnce() -> Result<i64, i16>,
    ) -> Result<Ending, i16> {
        let used_up = self.previous_producer_id == caller.producer_id
            && caller.epoch == LAST_CLIENT_EPOCH
            && self.epoch == 0;
        let is_again = used_up || i32::from(self.epoch) == i32::from(caller.epoch) + 1;
        let is_current = caller.epoch == self.epoch;
        if caller.producer_id != self.producer_id && !used_up {
            return Err(codes::INVALID_PRODUCER_ID_MAPPING);
        }
        let is_valid = match self.state {
            State::Ongoing | State::Empty => is_current,
            State::PrepareCommit | State::PrepareAbort => is_again,
            State::CompleteCommit | State::CompleteAbort => is_again || is_current,
        };
        if !is_valid {
            return Err(codes::PRODUCER_FENCED);
        }
        match (self.state, marker) {
            (State::CompleteCommit, Marker::Commit) | (State::CompleteAbort, Marker::Abort)
                if is_again =>
            {
                Ok(Ending::Repeated)
            }
            (State::Ongoing, _) => self.end_with_new_epoch(marker, now_ms, new_id),
            // A client that aborts does not always know whether something was added.
            (State::Empty | State::CompleteCommit | State::CompleteAbort, Marker::Abort)
                if !is_again =>
            {
                self.end_with_new_epoch(marker, now_ms, new_id)
            }
            _ => Err(self.refusal_to_end(marker)),
        }
    }

    /// A transaction that is being ended the same way is worth asking for again; anything else is wrong.
    fn refusal_to_end(&self, marker: Marker) -> i16 {
        if self.state.marker() == Some(marker) {
            codes::CONCURRENT_TRANSACTIONS
        } else {
            codes::INVALID_TXN_STATE
        }
    }

    fn end_with_new_epoch(
        &self,
        marker: Marker,
        now_ms: i64,
        new_id: impl FnOnce() -> Result<i64, i16>,
    ) -> Result<Ending, i16> {
        let mut next = self.decided(marker, now_ms);
        if is_exhausted(self.epoch) {
            next.next_producer_id = new_id()?;
        }
        next.bump();
        if self.state != State::Ongoing {
            next.started_ms = now_ms;
        }
        Ok(Ending::Prepared(next))
    }

    /// Takes the transaction from its producer and aborts it: another one comes, or time is up. The marker
    /// carries an epoch above the producer's, which fences it.
    pub(crate) fn fence(&self, broker_protocol: Protocol, now_ms: i64) -> Self {
        let mut next = self.decided(Marker::Abort, now_ms);
        next.bump();
        next.protocol = broker_protocol;
        if broker_protocol == Protocol::First {
            // The second protocol lets the producer find out by sending its EndTxn; the first just fences.
            next.last_epoch = NO_EPOCH;
        }
        next
    }

    fn decided(&self, marker: Marker, now_ms: i64) -> Self {
        Self {
            state: match marker {
                Marker::Commit => State::PrepareCommit,
                Marker::Abort => State::PrepareAbort,
            },
            updated_ms: now_ms,
            ..self.clone()
        }
    }

    fn bump(&mut self) {
        self.last_epoch = self.epoch;
        self.epoch = self.epoch.saturating_add(1);
        self.protocol = Protocol::Second;
    }

    /// All markers are written.
    pub(crate) fn complete(&self, now_ms: i64) -> Self {
        let mut next = Self {
            state: match self.state {
                State::PrepareCommit => State::CompleteCommit,
                _ => State::CompleteAbort,
            },
            touched: Touched::default(),
            next_producer_id: NO_PRODUCER_ID,
            updated_ms: now_ms,
            ..*self
        };
        if self.protocol == Protocol::Second {
            next.previous_producer_id = self.producer_id;
            if self.next_producer_id != NO_PRODUCER_ID {
                next.producer_id = self.next_producer_id;
                next.epoch = 0;
            }
        }
        next
    }
}

fn is_exhausted(epoch: i16) -> bool {
    epoch >= LAST_CLIENT_EPOCH
}
