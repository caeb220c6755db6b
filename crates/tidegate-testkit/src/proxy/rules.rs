//! What the proxy is told to do: which frames a rule is about, what becomes of them, and how often it has come to that.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, EndTxnRequest, InitProducerIdRequest, ProduceRequest, RequestHeader,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};

use super::hub::{Hub, State};

/// How many answers a rule keeps to be looked at, and how long one may be.
const MOST_KEPT: usize = 64;
const LONGEST_KEPT: usize = 1 << 20;

/// What becomes of a frame. Frames behind it on the same connection never overtake it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It passes: to count, or to spare some from a later rule.
    Pass,
    /// It passes after this time.
    Delay(Duration),
    /// It is kept until [`ActiveRule::release`] and passes then, even if its sender has died. It is lost with the proxy.
    Hold,
    /// It is lost; the connection stays open.
    Drop,
    /// Half of it passes, then both sides see a reset.
    Reset,
    /// It is lost, and from now on neither side of the connection hears anything of the other, not even its end.
    HalfOpen,
    /// It passes at so many bytes a second.
    Slow(u64),
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// From the client to the broker.
    Request,
    /// Back.
    Answer,
}

type Condition = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;

/// Which frames, and what becomes of them. Of several rules that fit a frame, the one that was injected first decides.
#[derive(Clone)]
pub struct Rule {
    api_key: Option<ApiKey>,
    client_id: Option<String>,
    topic: Option<String>,
    transactional_id: Option<String>,
    condition: Option<Condition>,
    skip: u64,
    times: u64,
    side: Side,
    pub(super) verb: Verb,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("verb", &self.verb)
            .field("side", &self.side)
            .field("api_key", &self.api_key)
            .field("client_id", &self.client_id)
            .field("topic", &self.topic)
            .field("transactional_id", &self.transactional_id)
            .field("condition", &self.condition.is_some())
            .field("skip", &self.skip)
            .field("times", &self.times)
            .finish()
    }
}

impl Rule {
    /// All requests of one API.
    #[must_use]
    pub fn new(api_key: ApiKey, verb: Verb) -> Self {
        Self {
            api_key: Some(api_key),
            ..Self::any(verb)
        }
    }

    /// All requests.
    #[must_use]
    pub fn any(verb: Verb) -> Self {
        Self {
            api_key: None,
            client_id: None,
            topic: None,
            transactional_id: None,
            condition: None,
            skip: 0,
            times: u64::MAX,
            side: Side::Request,
            verb,
        }
    }

    /// The same with another verb.
    #[must_use]
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verb = verb;
        self
    }

    /// The answers to these requests instead: when one of them is lost, say, the broker has done what was asked.
    #[must_use]
    pub fn on_answer(mut self) -> Self {
        self.side = Side::Answer;
        self
    }

    /// Only those of clients with this client id.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Only Produce requests that name this topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only Produce, InitProducerId and EndTxn requests of this transactional id.
    #[must_use]
    pub fn transactional_id(mut self, transactional_id: impl Into<String>) -> Self {
        self.transactional_id = Some(transactional_id.into());
        self
    }

    /// Only those for which `condition` holds. It is asked last, and must not call the proxy.
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

    /// Whether `seen`, on its way to `side`, is one of those it is about.
    fn is_about(&self, side: Side, seen: &Seen, topics: &super::hub::Topics) -> bool {
        self.side == side
            && self.api_key.is_none_or(|key| key == seen.api_key)
            && self
                .client_id
                .as_ref()
                .is_none_or(|wanted| *wanted == seen.client_id)
            && self
                .transactional_id
                .as_ref()
                .is_none_or(|wanted| seen.transactional_id().as_ref() == Some(wanted))
            && self
                .topic
                .as_ref()
                .is_none_or(|wanted| seen.produces_to(wanted, topics))
            && self.condition.as_ref().is_none_or(|holds| holds(seen))
    }
}

/// A request as the proxy saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which API.
    pub api_key: ApiKey,
    /// In which version.
    pub version: i16,
    /// The number the client gave it.
    pub correlation_id: i32,
    /// The client's name for itself; empty if it has none.
    pub client_id: String,
    /// The connection it came by, counted from 1.
    pub connection: u64,
    /// The broker it goes to, `HOST:PORT`, past the proxy.
    pub broker: Arc<str>,
    body: Bytes,
}

impl Seen {
    /// Reads the header of a request.
    pub(super) fn parse(connection: u64, broker: &Arc<str>, frame: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(i16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let api_key = ApiKey::try_from(word(0)?).ok()?;
        let version = word(2)?;
        let mut bytes = Bytes::copy_from_slice(frame);
        let header =
            RequestHeader::decode(&mut bytes, api_key.request_header_version(version)).ok()?;
        Some(Self {
            api_key,
            version,
            correlation_id: header.correlation_id,
            client_id: header
                .client_id
                .map(|name| name.to_string())
                .unwrap_or_default(),
            connection,
            broker: Arc::clone(broker),
            body: bytes,
        })
    }

    /// The request, if it is an `R`.
    #[must_use]
    pub fn request<R: Request>(&self) -> Option<R> {
        if ApiKey::try_from(R::KEY) != Ok(self.api_key) {
            return None;
        }
        R::decode(&mut self.body.clone(), self.version).ok()
    }

    /// The transactional id that a Produce, InitProducerId or EndTxn request names.
    #[must_use]
    pub fn transactional_id(&self) -> Option<String> {
        let named = match self.api_key {
            ApiKey::Produce => self.request::<ProduceRequest>()?.transactional_id,
            ApiKey::InitProducerId => self.request::<InitProducerIdRequest>()?.transactional_id,
            ApiKey::EndTxn => Some(self.request::<EndTxnRequest>()?.transactional_id),
            _ => None,
        };
        named.map(|id| id.to_string())
    }

    fn produces_to(&self, topic: &str, topics: &super::hub::Topics) -> bool {
        self.request::<ProduceRequest>().is_some_and(|request| {
            request.topic_data.iter().any(|data| {
                // Up to version 12 the name, then the id.
                data.name.as_str() == topic
                    || topics
                        .get(data.topic_id.as_bytes())
                        .is_some_and(|name| name == topic)
            })
        })
    }

    /// A Produce request may ask for no acknowledgement, and gets no answer then.
    pub(super) fn expects_answer(&self) -> bool {
        self.api_key != ApiKey::Produce
            || self
                .request::<ProduceRequest>()
                .is_none_or(|request| request.acks != 0)
    }
}

/// A rule in force, and its books.
pub(super) struct InForce {
    rule: Rule,
    matched: u64,
    fired: u64,
    answered: u64,
    answers: Vec<Answer>,
    pub(super) is_released: bool,
    is_removed: bool,
}

/// A broker's answer to a request that a rule acted on.
struct Answer {
    api_key: ApiKey,
    version: i16,
    frame: Bytes,
}

impl InForce {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            matched: 0,
            fired: 0,
            answered: 0,
            answers: Vec::new(),
            is_released: false,
            is_removed: false,
        }
    }

    fn fires(&mut self) -> bool {
        let before = self.matched;
        self.matched += 1;
        let fires = before >= self.rule.skip && before - self.rule.skip < self.rule.times;
        self.fired += u64::from(fires);
        fires
    }

    fn note_answer(&mut self, seen: &Seen, frame: &[u8]) {
        self.answered += 1;
        if self.answers.len() < MOST_KEPT && frame.len() <= LONGEST_KEPT {
            self.answers.push(Answer {
                api_key: seen.api_key,
                version: seen.version,
                frame: Bytes::copy_from_slice(frame),
            });
        }
    }
}

/// What is to happen to one frame, and by which rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ruling {
    pub(super) verb: Verb,
    pub(super) rule: Option<usize>,
}

impl State {
    /// Decides about a frame. Those who wait for a rule to fire must be woken afterwards.
    pub(super) fn judge(&mut self, side: Side, seen: &Seen) -> Ruling {
        let Self { rules, topics, .. } = self;
        for (index, in_force) in rules.iter_mut().enumerate() {
            if !in_force.is_removed
                && in_force.rule.is_about(side, seen, topics)
                && in_force.fires()
            {
                return Ruling {
                    verb: in_force.rule.verb,
                    rule: Some(index),
                };
            }
        }
        Ruling {
            verb: Verb::Pass,
            rule: None,
        }
    }

    /// Enters the answer to a request that `rule` acted on.
    pub(super) fn note_answer(&mut self, rule: Option<usize>, seen: &Seen, frame: &[u8]) {
        if let Some(in_force) = rule.and_then(|index| self.rules.get_mut(index)) {
            in_force.note_answer(seen, frame);
        }
    }
}

/// A rule that was injected: counts, waits and ends.
#[derive(Debug, Clone)]
pub struct ActiveRule {
    pub(super) hub: Arc<Hub>,
    pub(super) index: usize,
}

impl ActiveRule {
    /// How many frames it has acted on.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.read(|rule| rule.fired)
    }

    /// How many of the requests it acted on have been answered by the broker.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.read(|rule| rule.answered)
    }

    /// Waits until it has acted on `count` frames; false if that takes longer than `patience`.
    #[must_use]
    pub fn wait_fired(&self, count: u64, patience: Duration) -> bool {
        self.wait(patience, |rule| rule.fired >= count)
    }

    /// Waits until the broker has answered `count` of the requests it acted on; false if that takes longer than `patience`.
    #[must_use]
    pub fn wait_answered(&self, count: u64, patience: Duration) -> bool {
        self.wait(patience, |rule| rule.answered >= count)
    }

    /// What the broker answered to those of the requests it acted on that are an `R`, in that order.
    #[must_use]
    pub fn answers<R: Request>(&self) -> Vec<R::Response> {
        let decode = |answer: &Answer| {
            if ApiKey::try_from(R::KEY) != Ok(answer.api_key) {
                return None;
            }
            let mut bytes = answer.frame.clone();
            let header = R::Response::header_version(answer.version);
            kafka_protocol::messages::ResponseHeader::decode(&mut bytes, header).ok()?;
            R::Response::decode(&mut bytes, answer.version).ok()
        };
        self.read(|rule| rule.answers.iter().filter_map(decode).collect())
    }

    /// Lets go of what it holds, and of what it would hold from now on.
    pub fn release(&self) {
        self.change(|rule| rule.is_released = true);
    }

    /// Ends it. What it holds stays held until it is released.
    pub fn remove(&self) {
        self.change(|rule| rule.is_removed = true);
    }

    fn read<T>(&self, look: impl FnOnce(&InForce) -> T) -> T {
        look(&self.hub.state().rules[self.index])
    }

    fn change(&self, change: impl FnOnce(&mut InForce)) {
        self.hub
            .change(|state| change(&mut state.rules[self.index]));
    }

    fn wait(&self, patience: Duration, mut done: impl FnMut(&InForce) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        self.hub
            .wait(Some(deadline), |state| done(&state.rules[self.index]))
    }
}
