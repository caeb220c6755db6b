//! The model of a transaction coordinator with one transactional id, after Apache Kafka's `TransactionCoordinator`: both protocols, time-outs
//! that abort and end the epoch, and new producer ids once the epochs are used up. Its memory is durable, as the real one's log is.

use std::collections::BTreeSet;

use tidegate_kafka::producer::machine::{CoordinatorRequest, Identity, Protocol};

const INVALID_TXN_STATE: i16 = 48;
const UNKNOWN_MAPPING: i16 = 49;
const CONCURRENT: i16 = 51;
pub(super) const FENCED: i16 = 90;
const ABORTABLE: i16 = 120;

/// No producer may have the last epoch, so that there is always one left to fence it.
const LAST_EPOCH: i16 = i16::MAX - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing,
    /// Decided: commit or abort. The markers are being written.
    Prepared(bool),
    Complete(bool),
}

/// Markers that have to be written.
#[derive(Debug)]
pub(super) struct Markers {
    pub(super) slots: Vec<usize>,
    pub(super) identity: Identity,
    pub(super) commit: bool,
}

/// What a request brings about.
pub(super) type Effect = Result<(Option<Identity>, Option<Markers>), i16>;

#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) current: Identity,
    last_epoch: i16,
    previous_producer_id: i64,
    next_producer_id: Option<i64>,
    state: State,
    /// The protocol in which the last transaction was ended.
    ended_by: Protocol,
    partitions: BTreeSet<usize>,
    unmarked: usize,
    /// Counts transactions, for time-outs.
    pub(super) transaction: u64,
    ids_given: i64,
}

impl Coordinator {
    /// The first producer starts with the epoch after `epoch`.
    pub(super) fn new(epoch: i16) -> Self {
        Self {
            current: Identity {
                producer_id: 1,
                epoch,
            },
            last_epoch: -1,
            previous_producer_id: -1,
            next_producer_id: None,
            state: State::Empty,
            ended_by: Protocol::Old,
            partitions: BTreeSet::new(),
            unmarked: 0,
            transaction: 0,
            ids_given: 1,
        }
    }

    pub(super) fn is_ongoing(&self) -> bool {
        self.state == State::Ongoing
    }

    fn give_producer_id(&mut self) -> i64 {
        self.ids_given += 1;
        self.ids_given
    }

    pub(super) fn handle(&mut self, request: &CoordinatorRequest, server: Protocol) -> Effect {
        match request {
            CoordinatorRequest::InitProducerId(expected) => self.initialise(*expected, server),
            CoordinatorRequest::AddPartitions { identity, slots } => {
                for slot in slots {
                    self.add(*identity, slot.0 as usize)?;
                }
                Ok((None, None))
            }
            CoordinatorRequest::EndTxn {
                identity,
                commit,
                protocol,
            } => self.end(*identity, *commit, *protocol),
        }
    }

    fn initialise(&mut self, expected: Option<Identity>, server: Protocol) -> Effect {
        let is_valid = |expected: &Identity| {
            expected.producer_id == self.current.producer_id
                || (expected.producer_id == self.previous_producer_id
                    && expected.epoch >= LAST_EPOCH)
        };
        match self.state {
            // Whoever asks, as Kafka does: the caller may have its new producer id from the very transaction that is being ended.
            State::Prepared(_) => return Err(CONCURRENT),
            _ if !expected.as_ref().is_none_or(is_valid) => return Err(FENCED),
            // Whoever asks, and with whatever epoch.
            State::Ongoing => {
                return Ok((None, Some(self.fence(server))));
            }
            State::Empty | State::Complete(_) => {}
        }
        let matches = expected.is_none_or(|expected| expected.epoch == self.current.epoch);
        if self.current.epoch >= LAST_EPOCH && matches {
            self.previous_producer_id = self.current.producer_id;
            self.last_epoch = expected.map_or(-1, |_| self.current.epoch);
            self.current = Identity {
                producer_id: self.give_producer_id(),
                epoch: 0,
            };
        } else {
            match expected {
                None => self.last_epoch = -1,
                Some(expected) if expected.epoch == self.current.epoch => {
                    self.last_epoch = self.current.epoch;
                }
                // A repetition of what succeeded.
                Some(expected) if expected.epoch == self.last_epoch => {
                    return Ok((Some(self.current), None));
                }
                Some(_) => return Err(FENCED),
            }
            self.current.epoch += 1;
        }
        self.state = State::Empty;
        Ok((Some(self.current), None))
    }

    /// Aborts the open transaction and ends its epoch: it took too long, or somebody takes over.
    pub(super) fn fence(&mut self, server: Protocol) -> Markers {
        let epoch = self.current.epoch;
        self.current.epoch += 1;
        // Under the new protocol the producer may still ask what became of it (seen with Kafka 4.3).
        self.last_epoch = match server {
            Protocol::New => epoch,
            Protocol::Old => -1,
        };
        self.ended_by = server;
        self.prepare(false)
    }

    fn prepare(&mut self, commit: bool) -> Markers {
        self.state = State::Prepared(commit);
        let slots: Vec<usize> = std::mem::take(&mut self.partitions).into_iter().collect();
        self.unmarked = slots.len();
        let identity = self.current;
        if slots.is_empty() {
            self.complete(commit);
        }
        Markers {
            slots,
            identity,
            commit,
        }
    }

    /// One of the markers is written.
    pub(super) fn marked(&mut self) {
        self.unmarked -= 1;
        if let (0, State::Prepared(commit)) = (self.unmarked, self.state) {
            self.complete(commit);
        }
    }

    fn complete(&mut self, commit: bool) {
        self.state = State::Complete(commit);
        if let Some(producer_id) = self.next_producer_id.take() {
            self.previous_producer_id = self.current.producer_id;
            self.current = Identity {
                producer_id,
                epoch: 0,
            };
        }
    }

    fn check(&self, identity: Identity) -> Result<(), i16> {
        if identity.producer_id != self.current.producer_id {
            Err(UNKNOWN_MAPPING)
        } else if identity.epoch != self.current.epoch {
            Err(FENCED)
        } else if matches!(self.state, State::Prepared(_)) {
            Err(CONCURRENT)
        } else {
            Ok(())
        }
    }

    /// Adds a partition, for the producer or for a leader that got a batch.
    pub(super) fn add(&mut self, identity: Identity, slot: usize) -> Result<(), i16> {
        self.check(identity)?;
        if self.state != State::Ongoing {
            self.state = State::Ongoing;
            self.transaction += 1;
        }
        self.partitions.insert(slot);
        Ok(())
    }

    /// A leader asks whether a partition belongs to the transaction (KIP-890, first part).
    pub(super) fn verify(&self, identity: Identity, slot: usize) -> Result<(), i16> {
        self.check(identity)?;
        if self.partitions.contains(&slot) {
            Ok(())
        } else {
            Err(ABORTABLE)
        }
    }

    fn end(&mut self, identity: Identity, commit: bool, protocol: Protocol) -> Effect {
        let is_same = identity == self.current;
        let was_new = self.ended_by == Protocol::New;
        let is_bumped = was_new
            && identity.producer_id == self.current.producer_id
            && i32::from(self.current.epoch) == i32::from(identity.epoch) + 1;
        let is_rotated = was_new
            && identity.producer_id == self.previous_producer_id
            && identity.epoch == LAST_EPOCH
            && self.current.epoch == 0;
        let is_repeated = is_bumped || is_rotated;
        if identity.producer_id != self.current.producer_id && !is_rotated {
            return Err(UNKNOWN_MAPPING);
        }
        let is_valid = match self.state {
            State::Ongoing | State::Empty => is_same,
            State::Prepared(_) if was_new => is_bumped,
            State::Complete(_) if was_new => is_same || is_repeated,
            State::Prepared(_) | State::Complete(_) => is_same,
        };
        if !is_valid {
            return Err(FENCED);
        }
        let repeats = is_repeated || protocol == Protocol::Old;
        match self.state {
            State::Ongoing => {}
            State::Prepared(decided) if decided == commit => return Err(CONCURRENT),
            State::Complete(decided) if decided == commit && repeats => {
                return Ok((self.answer(protocol), None));
            }
            // An abort of nothing ends the epoch too.
            State::Empty | State::Complete(_)
                if is_same && !commit && protocol == Protocol::New => {}
            State::Empty | State::Prepared(_) | State::Complete(_) => {
                return Err(INVALID_TXN_STATE);
            }
        }
        self.ended_by = protocol;
        if protocol == Protocol::New {
            if self.current.epoch >= LAST_EPOCH {
                self.next_producer_id = Some(self.give_producer_id());
            }
            self.last_epoch = self.current.epoch;
            self.current.epoch += 1;
        }
        let answer = self.answer(protocol);
        let markers = self.prepare(commit);
        Ok((answer, Some(markers)))
    }

    fn answer(&self, protocol: Protocol) -> Option<Identity> {
        let next = self.next_producer_id.map(|producer_id| Identity {
            producer_id,
            epoch: 0,
        });
        (protocol == Protocol::New).then(|| next.unwrap_or(self.current))
    }
}
