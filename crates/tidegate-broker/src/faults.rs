//! Faults to inject and requests to watch, for tests of clients.
//!
//! A [`Rule`] says which requests it is about and what happens to them; [`Faults::inject`] puts it in force
//! and returns an [`InjectedFault`] that counts how often it fired. A test whose fault never fired has
//! tested nothing, so ask it.
//!
//! ```
//! use tidegate_broker::{Action, ApiKey, Broker, BrokerConfig, Rule};
//!
//! # fn main() -> Result<(), tidegate_broker::Error> {
//! # let dir = tempfile::tempdir().expect("a temporary folder");
//! let broker = Broker::start(BrokerConfig::new(dir.path()))?;
//! // The third Produce to the topic is appended, and its answer is lost.
//! let lost = broker
//!     .faults()
//!     .inject(Rule::new(ApiKey::Produce, Action::DropAnswer).topic("usage").nth(3));
//! // ... produce ...
//! assert_eq!(lost.fired(), 0);
//! broker.stop()
//! # }
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use tokio::sync::watch;

use crate::sync::lock;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Nothing: to count requests, or to let some through that a later rule would catch.
    Pass,
    /// It is worked on after this time. It is worked on even if the client has left by then.
    Delay(Duration),
    /// It is never worked on and never answered; the connection stays open.
    DropRequest,
    /// It is worked on, and the answer is lost; the connection stays open.
    DropAnswer,
    /// It is not worked on, and the connection is closed.
    Disconnect,
    /// It is worked on, and the connection is closed instead of an answer.
    DisconnectAfter,
    /// It is not worked on, and answered with this Kafka error code, in each place of the answer that has
    /// to do with what was asked for.
    AnswerError(i16),
    /// It is held until [`InjectedFault::release`], and then worked on, even if the client has left by then:
    /// a late request. Requests behind it on the same connection wait, as they always do.
    Hold,
}

/// Which requests a fault is about: those that fit everything that was set.
#[derive(Clone)]
pub struct Rule {
    api_key: Option<ApiKey>,
    topic: Option<String>,
    partition: Option<i32>,
    client_id: Option<String>,
    condition: Option<Condition>,
    skip: u64,
    times: u64,
    action: Action,
}

type Condition = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;
type Observer = Arc<dyn Fn(&Seen) + Send + Sync>;

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("api_key", &self.api_key)
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("client_id", &self.client_id)
            .field("condition", &self.condition.is_some())
            .field("skip", &self.skip)
            .field("times", &self.times)
            .field("action", &self.action)
            .finish()
    }
}

impl Rule {
    /// All requests of one API.
    #[must_use]
    pub fn new(api_key: ApiKey, action: Action) -> Self {
        Self {
            api_key: Some(api_key),
            ..Self::any(action)
        }
    }

    /// All requests.
    #[must_use]
    pub fn any(action: Action) -> Self {
        Self {
            api_key: None,
            topic: None,
            partition: None,
            client_id: None,
            condition: None,
            skip: 0,
            times: u64::MAX,
            action,
        }
    }

    /// Only those that name this topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only those that name this partition (of the topic of [`Rule::topic`], if that is set).
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Only those of clients with this client id.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Only those for which `condition` holds. It is asked after the other conditions.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// Only the `nth` of them, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.skip = nth.saturating_sub(1);
        self.times = 1;
        self
    }

    /// Not the first `count` of them.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// At most `count` of them.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    fn is_about(&self, seen: &Seen) -> bool {
        let partition_fits =
            |partition: i32| self.partition.is_none_or(|wanted| wanted == partition);
        let target_fits = (self.topic.is_none() && self.partition.is_none())
            || seen.partitions.iter().any(|(topic, partition)| {
                self.topic.as_ref().is_none_or(|wanted| wanted == topic)
                    && partition_fits(*partition)
            });
        self.api_key.is_none_or(|key| key == seen.api_key)
            && self
                .client_id
                .as_ref()
                .is_none_or(|wanted| *wanted == seen.client_id)
            && target_fits
            && self.condition.as_ref().is_none_or(|holds| holds(seen))
    }
}

/// A request as rules and observers see it.
///
/// The markers that end a transaction are seen too, each as a `WriteTxnMarkers` request of no client and no
/// connection: what the coordinator of a cluster sends to the partition's leader. One that is not let through
/// is written later, when the delay is over or the hold released, or in a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Which API.
    pub api_key: ApiKey,
    /// In which version.
    pub version: i16,
    /// The number the client gave the request.
    pub correlation_id: i32,
    /// The client's name for itself; empty if it has none.
    pub client_id: String,
    /// The connection it came by, counted from 1.
    pub connection: u64,
    /// The topics and partitions it names. An API that names topics alone has -1 as the partition.
    pub partitions: Vec<(String, i32)>,
    /// The group it names.
    pub group: Option<String>,
    /// The transactional id it names.
    pub transactional_id: Option<String>,
}

/// The faults in force in a broker, and those who watch its requests. Clones share them.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Whether there is anything to do for a request; spares the rest where there is not.
    active: AtomicBool,
    rules: Mutex<Vec<Arc<InForce>>>,
    observers: Mutex<Vec<Observer>>,
}

struct InForce {
    rule: Rule,
    matched: AtomicU64,
    fired: Mutex<u64>,
    fired_more: Condvar,
    released: watch::Sender<bool>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = lock(&self.inner.rules);
        f.debug_list()
            .entries(rules.iter().map(|state| &state.rule))
            .finish()
    }
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `rule` in force. Of several that fit a request, the one injected first decides.
    pub fn inject(&self, rule: Rule) -> InjectedFault {
        let state = Arc::new(InForce {
            rule,
            matched: AtomicU64::new(0),
            fired: Mutex::new(0),
            fired_more: Condvar::new(),
            released: watch::Sender::new(false),
        });
        lock(&self.inner.rules).push(Arc::clone(&state));
        self.inner.active.store(true, Ordering::Release);
        InjectedFault {
            state,
            faults: self.clone(),
        }
    }

    /// Has `observer` called with every request, before anything is done with it. It must not block.
    pub fn observe(&self, observer: impl Fn(&Seen) + Send + Sync + 'static) {
        lock(&self.inner.observers).push(Arc::new(observer));
        self.inner.active.store(true, Ordering::Release);
    }

    /// Ends all faults, releases what is held, and dismisses all observers.
    pub fn clear(&self) {
        self.inner.active.store(false, Ordering::Release);
        lock(&self.inner.observers).clear();
        for state in lock(&self.inner.rules).drain(..) {
            state.released.send_replace(true);
        }
    }

    /// What is to happen to a request, described only if anybody asks.
    pub(crate) fn judge(&self, describe: impl FnOnce() -> Seen) -> Ruling {
        if !self.inner.active.load(Ordering::Acquire) {
            return Ruling::PASS;
        }
        let seen = describe();
        let observers = lock(&self.inner.observers).clone();
        for observer in observers {
            observer(&seen);
        }
        let rules = lock(&self.inner.rules).clone();
        for state in rules {
            if state.rule.is_about(&seen) && state.fires() {
                return Ruling {
                    action: state.rule.action,
                    released: Some(state.released.subscribe()),
                };
            }
        }
        Ruling::PASS
    }
}

impl InForce {
    /// Counts a request the rule is about; says whether it is one of those to act on.
    fn fires(&self) -> bool {
        let before = self.matched.fetch_add(1, Ordering::Relaxed);
        let fires = before >= self.rule.skip && before - self.rule.skip < self.rule.times;
        if fires {
            *lock(&self.fired) += 1;
            self.fired_more.notify_all();
        }
        fires
    }
}

/// What is to happen to one request.
pub(crate) struct Ruling {
    pub(crate) action: Action,
    released: Option<watch::Receiver<bool>>,
}

impl Ruling {
    pub(crate) const PASS: Self = Self {
        action: Action::Pass,
        released: None,
    };

    /// Waits until a held request is released.
    pub(crate) async fn wait_for_release(&mut self) {
        if let Some(released) = &mut self.released {
            // An error means that nobody can release it any more; then it is as good as released.
            drop(released.wait_for(|released| *released).await);
        }
    }
}

/// A fault in force. Dropping this does not end it: see [`InjectedFault::remove`].
#[derive(Clone)]
pub struct InjectedFault {
    state: Arc<InForce>,
    faults: Faults,
}

impl fmt::Debug for InjectedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectedFault")
            .field("rule", &self.state.rule)
            .field("fired", &self.fired())
            .finish()
    }
}

impl InjectedFault {
    /// How many requests it has acted on.
    #[must_use]
    pub fn fired(&self) -> u64 {
        *lock(&self.state.fired)
    }

    /// Waits until it has acted on `count` requests; false if that takes longer than `timeout`.
    #[must_use]
    pub fn wait_fired(&self, count: u64, timeout: Duration) -> bool {
        let fired = lock(&self.state.fired);
        let waited = self
            .state
            .fired_more
            .wait_timeout_while(fired, timeout, |fired| *fired < count);
        let (fired, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *fired >= count
    }

    /// Lets go of what it holds, and of what it would hold from now on.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// Ends it, and lets go of what it holds.
    pub fn remove(&self) {
        lock(&self.faults.inner.rules).retain(|state| !Arc::ptr_eq(state, &self.state));
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce(topic: &str, partition: i32, client_id: &str) -> Seen {
        Seen {
            api_key: ApiKey::Produce,
            version: 9,
            correlation_id: 1,
            client_id: client_id.to_owned(),
            connection: 1,
            partitions: vec![(topic.to_owned(), partition)],
            group: None,
            transactional_id: None,
        }
    }

    fn judge(faults: &Faults, seen: Seen) -> Action {
        faults.judge(|| seen).action
    }

    #[test]
    fn a_rule_acts_on_what_it_is_about() {
        let table = [
            (Rule::new(ApiKey::Produce, Action::DropRequest), true),
            (Rule::new(ApiKey::Fetch, Action::DropRequest), false),
            (Rule::any(Action::DropRequest).topic("a"), true),
            (Rule::any(Action::DropRequest).topic("b"), false),
            (Rule::any(Action::DropRequest).partition(1), true),
            (
                Rule::any(Action::DropRequest).topic("a").partition(2),
                false,
            ),
            (Rule::any(Action::DropRequest).client_id("me"), true),
            (Rule::any(Action::DropRequest).client_id("you"), false),
            (
                Rule::any(Action::DropRequest).when(|seen| seen.version == 9),
                true,
            ),
            (
                Rule::any(Action::DropRequest).when(|seen| seen.group.is_some()),
                false,
            ),
        ];
        for (rule, acts) in table {
            let faults = Faults::new();
            let fault = faults.inject(rule);
            let expected = if acts {
                Action::DropRequest
            } else {
                Action::Pass
            };
            assert_eq!(judge(&faults, produce("a", 1, "me")), expected, "{fault:?}");
            assert_eq!(fault.fired(), u64::from(acts));
        }
    }

    #[test]
    fn the_nth_and_the_number_of_times_are_counted() {
        let faults = Faults::new();
        let third = faults.inject(Rule::any(Action::Disconnect).nth(3));
        let two = faults.inject(Rule::any(Action::AnswerError(7)).after(3).times(2));
        let found: Vec<_> = (0..7)
            .map(|_| judge(&faults, produce("a", 0, "")))
            .collect();
        let (pass, error) = (Action::Pass, Action::AnswerError(7));
        // The request that the first rule takes never reaches the second.
        let expected = [pass, pass, Action::Disconnect, pass, error, error, pass];
        assert_eq!(found, expected);
        assert_eq!((third.fired(), two.fired()), (1, 2));
        assert!(two.wait_fired(2, Duration::ZERO));
        assert!(!two.wait_fired(3, Duration::ZERO));
    }

    #[test]
    fn a_removed_rule_acts_no_more_and_observers_see_all() {
        let faults = Faults::new();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        faults.observe(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let fault = faults.inject(Rule::any(Action::Disconnect));
        assert_eq!(judge(&faults, produce("a", 0, "")), Action::Disconnect);
        fault.remove();
        assert_eq!(judge(&faults, produce("a", 0, "")), Action::Pass);
        assert_eq!(count.load(Ordering::Relaxed), 2);
        faults.clear();
        assert_eq!(judge(&faults, produce("a", 0, "")), Action::Pass);
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
