//! What the appending thread and the producer's own threads share: settlements, the first failure, the identity, and buffers to use again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::machine::{Identity, Slot};
use crate::error::Error;

/// Buffers kept for reuse; more are given back to the operating system. Open batches hold their own, so these only pass between the
/// threads.
const KEPT_BUFFERS: usize = 8;

/// Where the batches of a slot go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) topic: Arc<str>,
    pub(super) topic_id: [u8; 16],
    pub(super) partition: i32,
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
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct State {
    /// As many as there are sealed batches at most, and those are bounded by their charges.
    settled: Vec<Settlement>,
    failure: Option<Error>,
    identity: Identity,
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
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            buffers: Mutex::default(),
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
        lock(&self.state).failure.as_ref().map(Error::repeat)
    }

    pub(super) fn identity(&self) -> Identity {
        lock(&self.state).identity
    }

    pub(super) fn renew(&self, identity: Identity) {
        lock(&self.state).identity = identity;
    }

    /// What has settled, at the end of `into`; waits up to `timeout` if that is nothing yet.
    pub(super) fn take_settled(&self, timeout: Duration, into: &mut Vec<Settlement>) {
        let mut state = lock(&self.state);
        if !timeout.is_zero() {
            let nothing_yet = |state: &mut State| state.settled.is_empty();
            let waited = self.changed.wait_timeout_while(state, timeout, nothing_yet);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        into.append(&mut state.settled);
    }

    pub(super) fn take_buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    pub(super) fn give_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = lock(&self.buffers);
        if buffers.len() < KEPT_BUFFERS {
            buffers.push(buffer);
        }
    }
}
