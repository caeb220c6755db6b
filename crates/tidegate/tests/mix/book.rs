//! What the threads of the mix share: when to stop, what to disturb, and the books of what has happened.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many events are told when something is wrong.
const TOLD: usize = 80;

/// Shared by all threads of one test.
pub(crate) struct Shared {
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_over: bool,
    /// Somebody wants the program killed, as often as this.
    kills: u64,
    /// The topic of the present load, and its partitions.
    topic: (String, i32),
    answering: Vec<SocketAddr>,
    counted: BTreeMap<&'static str, u64>,
    fired: BTreeMap<&'static str, u64>,
    events: Vec<String>,
    complaints: u64,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a phase, or ends it.
    pub(crate) fn set_over(&self, is_over: bool) {
        self.state().is_over = is_over;
        self.changed.notify_all();
    }

    /// Waits; false if the phase is over by then.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let waiting = |state: &mut State| !state.is_over;
        let waited = self
            .changed
            .wait_timeout_while(self.state(), time, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.0.is_over
    }

    pub(crate) fn set_topic(&self, topic: &str, partitions: i32) {
        self.state().topic = (topic.to_owned(), partitions);
    }

    pub(crate) fn topic(&self) -> (String, i32) {
        self.state().topic.clone()
    }

    /// The brokers that run and can answer.
    pub(crate) fn answering(&self) -> Vec<SocketAddr> {
        self.state().answering.clone()
    }

    pub(crate) fn set_answering(&self, addresses: Vec<SocketAddr>) {
        self.state().answering = addresses;
    }

    /// Asks for a kill of the program.
    pub(crate) fn ask_for_kill(&self) {
        self.state().kills += 1;
    }

    /// Whether a kill was asked for, which then counts as done.
    pub(crate) fn take_kill(&self) -> bool {
        let mut state = self.state();
        let is_asked = state.kills > 0;
        state.kills = 0;
        is_asked
    }

    /// A fault has really happened.
    pub(crate) fn fire(&self, name: &'static str) {
        self.tell(name);
        *self.state().fired.entry(name).or_insert(0) += 1;
    }

    /// Something worth counting that is no fault.
    pub(crate) fn count(&self, name: &'static str, times: u64) {
        *self.state().counted.entry(name).or_insert(0) += times;
    }

    pub(crate) fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.state().fired.clone()
    }

    pub(crate) fn counted(&self) -> BTreeMap<&'static str, u64> {
        self.state().counted.clone()
    }

    /// Something is wrong that fails the test in the end. The rounds go on, for whether rows are lost is worth knowing all the more.
    pub(crate) fn complain(&self, what: &str) {
        eprintln!("WRONG: {what}\nbefore that:\n{}", self.events());
        self.state().complaints += 1;
    }

    pub(crate) fn complaints(&self) -> u64 {
        self.state().complaints
    }

    /// Notes an event, with its time.
    pub(crate) fn tell(&self, event: &str) {
        let at = self.began.elapsed().as_secs_f64();
        self.state().events.push(format!("{at:9.3} s  {event}"));
    }

    /// The last events, for a message.
    pub(crate) fn events(&self) -> String {
        let state = self.state();
        let skipped = state.events.len().saturating_sub(TOLD);
        state.events[skipped..].join("\n")
    }
}
