//! What the appending thread and the producer's own threads share: settlements, the first failure, the identity, how the transaction
//! ended, and buffers to use again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::machine::{Identity, Outcome, Protocol, Slot};
use crate::client::Client;
use crate::cluster::TopicView;
use crate::error::{Error, ErrorKind};
use crate::versions::Versions;

/// Buffers kept for reuse; more are given back to the operating system. Open batches hold their own, so these only pass between the
/// threads.
const KEPT_BUFFERS: usize = 8;

/// The feature that says how a cluster speaks of transactions, and from which level on it does so in the new way (KIP-890).
const TRANSACTION_VERSION: &str = "transaction.version";
const NEW_PROTOCOL_FROM: i16 = 2;

/// Where the batches of a slot go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) topic: Arc<str>,
    pub(super) topic_id: [u8; 16],
    pub(super) partition: i32,
}

impl Target {
    /// Whether the topic that has the name now is another one than that which was opened (KIP-516).
    pub(super) fn is_made_anew(&self, now: &TopicView) -> bool {
        now.id != self.topic_id
    }

    /// Asks whether the topic is still the one that was opened, and gives how many partitions it has by now; `None` if the cluster cannot say so now.
    ///
    /// # Errors
    /// [`ErrorKind::TopicMissing`] if it was deleted and created again.
    pub(super) fn look(&self, client: &Client) -> Result<Option<usize>, Error> {
        let name = &*self.topic;
        let view = client.refresh(&[name]).ok();
        match view.as_ref().and_then(|view| view.topic(name).ok()) {
            Some(now) if self.is_made_anew(now) => {
                let message = format!("topic {name} was deleted and created again in mid-run");
                Err(Error::new(ErrorKind::TopicMissing, message))
            }
            now => Ok(now.map(|now| now.partitions.len())),
        }
    }
}

/// A batch that has its outcome.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) slot: Slot,
    pub(super) records: u32,
    /// What it was counted for against the budget.
    pub(super) charge: usize,
    pub(super) producer_id: i64,
    pub(super) base_offset: Option<i64>,
    pub(super) first_tag: u64,
    pub(super) last_tag: u64,
    pub(super) result: Result<(), Error>,
}

/// Touched once a batch, not once a record.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// That batches are built in.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// That compressed batches wait in: memory that is new to a process costs more than the compressed bytes do to copy.
    packed: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct State {
    /// As many as there are sealed batches at most, and those are bounded by their charges.
    settled: Vec<Settlement>,
    failure: Option<Error>,
    identity: Identity,
    /// Whether the transactional id is ours.
    is_ready: bool,
    /// How the latest transaction ended, until the next one begins.
    outcome: Option<Outcome>,
    /// The level of `transaction.version` and how new that news is.
    transaction_version: (i64, i16),
}

impl State {
    /// Why nothing more can be delivered, for good or until the next transaction.
    fn failure(&self) -> Option<Error> {
        match (&self.failure, &self.outcome) {
            (Some(error), _) => Some(error.repeat()),
            (None, Some(Outcome::RolledBack { why })) => Some(rolled_back(why)),
            (None, _) => None,
        }
    }
}

/// What everyone is told whom the end of a transaction concerns.
pub(super) fn rolled_back(why: &str) -> Error {
    let message = format!("the transaction was rolled back: {why}");
    Error::new(ErrorKind::RolledBack, message)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks: a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(identity: Identity) -> Self {
        let state = State {
            settled: Vec::new(),
            failure: None,
            identity,
            is_ready: false,
            outcome: None,
            transaction_version: (-1, 0),
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            buffers: Mutex::default(),
            packed: Mutex::default(),
        }
    }

    pub(super) fn settle(&self, settlement: Settlement) {
        lock(&self.state).settled.push(settlement);
        self.changed.notify_all();
    }

    /// Keeps the first failure: the later ones follow from it.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.state).failure.get_or_insert(error);
        self.changed.notify_all();
    }

    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.state).failure()
    }

    /// The transactional id is ours.
    pub(super) fn make_ready(&self) {
        lock(&self.state).is_ready = true;
        self.changed.notify_all();
    }

    /// Whether the transactional id is ours; waits up to `timeout` for that, or for a failure.
    pub(super) fn wait_ready(&self, timeout: Duration) -> bool {
        let undecided = |state: &mut State| !state.is_ready && state.failure.is_none();
        self.wait_while(timeout, undecided).is_ready
    }

    /// A transaction begins: how the last one ended does not matter any more.
    pub(super) fn begin(&self) {
        lock(&self.state).outcome = None;
    }

    pub(super) fn end(&self, outcome: Outcome) {
        lock(&self.state).outcome = Some(outcome);
        self.changed.notify_all();
    }

    /// How the transaction ended, if it has; waits up to `timeout` for that, or for a failure.
    pub(super) fn wait_ended(&self, timeout: Duration) -> Option<Outcome> {
        let undecided = |state: &mut State| state.outcome.is_none() && state.failure.is_none();
        self.wait_while(timeout, undecided).outcome.clone()
    }

    fn wait_while(
        &self,
        timeout: Duration,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        let waited = self.changed.wait_timeout_while(state, timeout, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// A broker said which features the cluster has. Another one may have told newer news.
    pub(super) fn note_features(&self, versions: &Versions) {
        let level = versions.finalised_feature(TRANSACTION_VERSION);
        let news = (versions.finalised_epoch(), level.unwrap_or(0));
        let known = &mut lock(&self.state).transaction_version;
        if news.0 >= known.0 {
            *known = news;
        }
    }

    /// How the next transaction is spoken of.
    pub(super) fn protocol(&self) -> Protocol {
        if lock(&self.state).transaction_version.1 >= NEW_PROTOCOL_FROM {
            Protocol::New
        } else {
            Protocol::Old
        }
    }

    pub(super) fn identity(&self) -> Identity {
        lock(&self.state).identity
    }

    pub(super) fn renew(&self, identity: Identity) {
        lock(&self.state).identity = identity;
    }

    /// What has settled, at the end of `into`; waits up to `timeout` if that is nothing yet.
    pub(super) fn take_settled(&self, timeout: Duration, into: &mut Vec<Settlement>) {
        let mut state = if timeout.is_zero() {
            lock(&self.state)
        } else {
            self.wait_while(timeout, |state| state.settled.is_empty())
        };
        into.append(&mut state.settled);
    }

    pub(super) fn take_buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    /// Takes a buffer back, with whatever is in it.
    pub(super) fn give_buffer(&self, buffer: Vec<u8>) {
        keep(&self.buffers, buffer);
    }

    /// An empty buffer with room for `len` bytes and not for many more.
    pub(super) fn take_packed(&self, len: usize) -> Vec<u8> {
        let mut kept = lock(&self.packed);
        let fitting = |buffer: &Vec<u8>| (len..=len + len / 2).contains(&buffer.capacity());
        match kept.iter().position(fitting) {
            Some(index) => kept.swap_remove(index),
            None => Vec::with_capacity(len + len / 16),
        }
    }

    /// Takes the buffer of a compressed batch back.
    pub(super) fn give_packed(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        keep(&self.packed, buffer);
    }
}

fn keep(buffers: &Mutex<Vec<Vec<u8>>>, buffer: Vec<u8>) {
    let mut buffers = lock(buffers);
    if buffers.len() >= KEPT_BUFFERS {
        // The one that was kept for the longest time, so that sizes that are wanted no more make room.
        buffers.remove(0);
    }
    buffers.push(buffer);
}
