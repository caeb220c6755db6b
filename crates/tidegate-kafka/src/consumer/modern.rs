//! The rules of a group member by the new protocol (KIP-848, `group.protocol=consumer`) as a state machine that does no I/O: events go in,
//! actions come out.
//!
//! The coordinator divides the partitions; there is no leader, no generation that all members enter together, and but one request. A heartbeat
//! with epoch 0 joins. Its answer brings an epoch of this member's own, and what it is to hold. From then on heartbeats tell what changed, and
//! answers tell what changed: partitions that are missing from an answer are to be given up, and only once a heartbeat says that they were does
//! the coordinator give them to somebody else.
//!
//! What keeps two members from reading the same partition:
//! - a partition is named in a heartbeat as held for as long as it is read, and is read only after an answer has named it;
//! - whoever is told that its epoch is fenced, or that the group does not know it, has lost everything it held at once, and joins anew;
//! - commits carry the epoch; the coordinator refuses those of another.
//!
//! An answer that was lost may have brought a new epoch. So after every failure the next heartbeat says everything, what is held included: by
//! that the coordinator knows that it may accept the epoch before (KIP-848, "Full requests"). At most one heartbeat is open at a time. Time is
//! passed in, as the time since some fixed moment. Rules checked against Apache Kafka's ConsumerMembershipManager, ConsumerHeartbeatRequestManager,
//! and, for the other side, GroupMetadataManager and CurrentAssignmentBuilder.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::assignor::TopicPartition;
use crate::retry::{self, HeartbeatVerdict};

/// Pause before something that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long a heartbeat that the coordinator has certainly worked on may still be answered; and the shortest time that any answer is waited for.
const LATE_ANSWER: Duration = Duration::from_secs(1);

/// Time between heartbeats until the coordinator has said what it wants; its own default.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);

/// The epoch that joins.
const JOIN_EPOCH: i32 = 0;

/// By which the protocol names a topic (KIP-516): a topic of the same name that was created later is another.
pub(crate) type TopicId = [u8; 16];

/// A partition as the protocol names it.
pub(crate) type IdPartition = (TopicId, i32);

/// How a member behaves. How often it gives a sign of life, and how long the group waits for one, is the coordinator's to say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) rebalance_timeout: Duration,
    pub(crate) request_timeout: Duration,
    /// How the coordinator is to divide the partitions; `None` leaves it to it.
    pub(crate) assignor: Option<String>,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Nothing but time.
    Tick,
    /// There is a connection to the coordinator.
    Connected,
    /// There is none, or not any more: a heartbeat that was open will not be answered.
    Disconnected,
    /// The answer to [`Action::Heartbeat`].
    Beaten(Answer),
    /// Names of topics, as asked for by [`Action::LookUpTopics`]. There may be some missing.
    Named(BTreeMap<TopicId, String>),
    /// A commit in this epoch was refused.
    CommitRefused { code: i16, epoch: i32 },
    /// Whoever holds the partitions has done what he wanted to before the rebalance that [`Action::RebalanceDue`] announced.
    Proceed,
}

/// What the coordinator answers to a heartbeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) code: i16,
    pub(crate) said: Option<String>,
    pub(crate) epoch: i32,
    pub(crate) interval: Duration,
    /// What is to be held; `None` if that is as before.
    pub(crate) assignment: Option<BTreeSet<IdPartition>>,
}

/// A heartbeat: what is `None` is as it was told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) epoch: i32,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) topics: Option<Vec<String>>,
    pub(crate) assignor: Option<String>,
    pub(crate) held: Option<Vec<IdPartition>>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Find the coordinator and connect to it: [`Event::Connected`] or [`Event::Disconnected`].
    Connect,
    /// The coordinator moved or is silent: close the connection. No event is due.
    Disconnect,
    /// Send a ConsumerGroupHeartbeat request.
    Heartbeat(Heartbeat),
    /// Look up the ids of the topics that are read: [`Event::Named`].
    LookUpTopics,
    /// The group wants to rebalance. What has been read may still be committed; then [`Event::Proceed`].
    RebalanceDue,
    /// Stop reading these; they were given up in good order.
    Revoked(Vec<TopicPartition>),
    /// Stop reading these; they may belong to somebody else already, and commits on them will be refused.
    Lost(Vec<TopicPartition>),
    /// Start reading these.
    Assigned(Vec<TopicPartition>),
    /// The group does not take us. Nothing more will come.
    Fail { code: i16, said: Option<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    Connecting,
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The group does not know us yet, or not any more.
    Joining,
    /// In the group.
    Stable,
    /// In the group, and about to give up what it wants back.
    Due,
    /// Refused for good, or left.
    Ended,
}

/// One member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    settings: Settings,
    topics: BTreeSet<String>,
    names: BTreeMap<TopicId, String>,
    epoch: i32,
    interval: Duration,
    /// What the coordinator wants this member to hold.
    target: BTreeSet<IdPartition>,
    /// What is read.
    held: BTreeMap<IdPartition, TopicPartition>,
    /// What the coordinator was last told, if it is certain that it heard it.
    told_topics: Option<BTreeSet<String>>,
    told_held: Option<BTreeSet<IdPartition>>,
    /// A commit found our epoch to be stale: the next answer brings the current one.
    refreshing: bool,
    /// The next heartbeat is due at once.
    urgent: bool,
    link: Link,
    phase: Phase,
    /// When the answer to the open heartbeat is late.
    open: Option<Duration>,
    next_heartbeat: Duration,
    not_before: Duration,
    actions: Vec<Action>,
}

impl Member {
    /// A member that has not joined yet.
    pub(crate) fn new(settings: Settings, topics: &[&str]) -> Self {
        Self {
            settings,
            topics: topics.iter().map(ToString::to_string).collect(),
            names: BTreeMap::new(),
            epoch: JOIN_EPOCH,
            interval: FIRST_INTERVAL,
            target: BTreeSet::new(),
            held: BTreeMap::new(),
            told_topics: None,
            told_held: None,
            refreshing: false,
            urgent: true,
            link: Link::Down,
            phase: Phase::Joining,
            open: None,
            next_heartbeat: Duration::ZERO,
            not_before: Duration::ZERO,
            actions: Vec::new(),
        }
    }

    /// Changes the topics to read. The coordinator divides them anew.
    pub(crate) fn subscribe(&mut self, topics: &[&str]) {
        self.topics = topics.iter().map(ToString::to_string).collect();
        self.urgent = true;
    }

    /// Takes an event; returns what is to be done, in this order.
    pub(crate) fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => {}
            Event::Connected => self.link = Link::Up,
            Event::Disconnected => self.lose_link(now),
            Event::Beaten(answer) => {
                self.open = None;
                self.beaten(now, answer);
            }
            Event::Named(names) => {
                self.names.extend(names);
                self.reconcile();
            }
            Event::CommitRefused { code, epoch } => self.commit_refused(now, code, epoch),
            Event::Proceed => {
                if self.phase == Phase::Due {
                    self.give_up_surplus();
                    self.reconcile();
                }
            }
        }
        self.drive(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] will do something; `None` if only another event will.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if let Some(deadline) = self.open {
            return Some(deadline);
        }
        match (self.phase, self.link) {
            (Phase::Ended, _) | (_, Link::Connecting) => None,
            (_, Link::Up) if !self.urgent => Some(self.next_heartbeat.max(self.not_before)),
            _ => Some(self.not_before),
        }
    }

    /// The epoch to commit in; `None` while the group does not know us.
    pub(crate) fn epoch(&self) -> Option<i32> {
        matches!(self.phase, Phase::Stable | Phase::Due).then_some(self.epoch)
    }

    /// What is being read.
    pub(crate) fn held(&self) -> impl Iterator<Item = &TopicPartition> {
        self.held.values()
    }

    /// Whether the group knows us, and our epoch is, as far as we know, the current one.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Stable | Phase::Due) && !self.refreshing
    }

    /// The topics to read.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(String::as_str)
    }

    /// Ends the membership; what was held is given up.
    pub(crate) fn leave(&mut self) -> Vec<Action> {
        self.phase = Phase::Ended;
        let held: Vec<TopicPartition> = std::mem::take(&mut self.held).into_values().collect();
        if !held.is_empty() {
            self.actions.push(Action::Revoked(held));
        }
        std::mem::take(&mut self.actions)
    }

    /// Does what is due at `now`.
    fn drive(&mut self, now: Duration) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.open.is_some_and(|deadline| now >= deadline) {
            self.actions.push(Action::Disconnect);
            self.lose_link(now);
        }
        if self.open.is_some() || now < self.not_before {
            return;
        }
        match self.link {
            Link::Connecting => {}
            Link::Down => {
                self.link = Link::Connecting;
                self.actions.push(Action::Connect);
            }
            Link::Up if self.urgent || now >= self.next_heartbeat => self.send_heartbeat(now),
            Link::Up => {}
        }
    }

    fn send_heartbeat(&mut self, now: Duration) {
        let held: BTreeSet<IdPartition> = self.held.keys().copied().collect();
        // Nothing is certain to have been heard: everything is told.
        let full = self.told_held.is_none();
        let topics = (self.told_topics.as_ref() != Some(&self.topics))
            .then(|| self.topics.iter().cloned().collect());
        let changed =
            (self.told_held.as_ref() != Some(&held)).then(|| held.iter().copied().collect());
        self.actions.push(Action::Heartbeat(Heartbeat {
            epoch: self.epoch,
            rebalance_timeout: full.then_some(self.settings.rebalance_timeout),
            topics,
            assignor: self.settings.assignor.clone().filter(|_| full),
            held: changed,
        }));
        self.told_topics = Some(self.topics.clone());
        self.told_held = Some(held);
        self.urgent = false;
        self.open = Some(now + self.patience());
        self.next_heartbeat = now + self.interval;
    }

    /// How long an answer is waited for. Nobody tells a member how long its session is, only how often to give a sign of life: whoever waited for a
    /// lost answer for long would be taken for dead.
    fn patience(&self) -> Duration {
        let intervals = (self.interval * 2).max(LATE_ANSWER);
        self.settings.request_timeout.min(intervals)
    }

    fn beaten(&mut self, now: Duration, answer: Answer) {
        match retry::heartbeat(answer.code) {
            HeartbeatVerdict::Done => self.accepted(now, answer),
            // Only who joins can be told that it may not: the group is of another kind.
            HeartbeatVerdict::JoinAnew
                if self.phase == Phase::Joining && answer.code == GROUP_ID_NOT_FOUND =>
            {
                self.fail(answer);
            }
            HeartbeatVerdict::JoinAnew => {
                if self.phase == Phase::Joining {
                    self.pause(now);
                }
                self.lose_all();
            }
            HeartbeatVerdict::Again => {
                self.forget_what_was_told();
                if retry::coordinator_moved(answer.code) {
                    self.actions.push(Action::Disconnect);
                    self.lose_link(now);
                } else {
                    self.pause(now);
                }
            }
            HeartbeatVerdict::Stop => self.fail(answer),
        }
    }

    fn accepted(&mut self, now: Duration, answer: Answer) {
        self.epoch = answer.epoch;
        // From now on, whatever was thought before: who joins is told it only now.
        self.interval = answer.interval;
        self.next_heartbeat = now + self.interval;
        self.refreshing = false;
        if self.phase == Phase::Joining {
            self.phase = Phase::Stable;
        }
        if let Some(assignment) = answer.assignment {
            self.target = assignment;
        }
        self.reconcile();
    }

    /// Moves what is held towards what the coordinator wants. What is to be given up is announced first, and what is new comes after it.
    fn reconcile(&mut self) {
        if !matches!(self.phase, Phase::Stable | Phase::Due) {
            return;
        }
        if self.held.keys().any(|held| !self.target.contains(held)) {
            if self.phase != Phase::Due {
                self.phase = Phase::Due;
                self.actions.push(Action::RebalanceDue);
            }
            return;
        }
        self.phase = Phase::Stable;
        let mut added = Vec::new();
        let mut nameless = false;
        for &(id, number) in &self.target {
            if self.held.contains_key(&(id, number)) {
                continue;
            }
            match self.names.get(&id) {
                Some(name) => added.push(((id, number), TopicPartition::new(name, number))),
                None => nameless = true,
            }
        }
        if nameless {
            self.actions.push(Action::LookUpTopics);
        }
        if !added.is_empty() {
            let partitions = added.iter().map(|(_, named)| named.clone()).collect();
            self.actions.push(Action::Assigned(partitions));
            self.held.extend(added);
            self.urgent = true;
        }
    }

    fn give_up_surplus(&mut self) {
        let target = &self.target;
        let surplus: Vec<IdPartition> = self
            .held
            .keys()
            .filter(|held| !target.contains(held))
            .copied()
            .collect();
        let given_up = surplus
            .iter()
            .filter_map(|partition| self.held.remove(partition))
            .collect();
        self.actions.push(Action::Revoked(given_up));
        self.phase = Phase::Stable;
        // Somebody is waiting for them.
        self.urgent = true;
    }

    fn commit_refused(&mut self, now: Duration, code: i16, epoch: i32) {
        // A refusal of an older epoch says nothing about this one.
        if !matches!(self.phase, Phase::Stable | Phase::Due) || epoch != self.epoch {
            return;
        }
        match retry::heartbeat(code) {
            HeartbeatVerdict::JoinAnew => self.lose_all(),
            _ if retry::is_stale_epoch(code) => {
                self.refreshing = true;
                // Only a heartbeat moves the epoch on. So one that is open has been worked on, and its answer is on its way, or lost.
                match &mut self.open {
                    Some(deadline) => *deadline = (*deadline).min(now + LATE_ANSWER),
                    None => {
                        self.forget_what_was_told();
                        self.pause(now);
                    }
                }
            }
            _ => {}
        }
    }

    fn pause(&mut self, now: Duration) {
        self.not_before = now + RETRY_PAUSE;
    }

    fn lose_link(&mut self, now: Duration) {
        self.open = None;
        self.link = Link::Down;
        self.forget_what_was_told();
        self.pause(now);
    }

    /// The next heartbeat says everything.
    fn forget_what_was_told(&mut self) {
        self.told_topics = None;
        self.told_held = None;
        self.urgent = true;
    }

    fn lose_all(&mut self) {
        self.epoch = JOIN_EPOCH;
        self.phase = Phase::Joining;
        self.refreshing = false;
        self.target.clear();
        self.forget_what_was_told();
        let lost: Vec<TopicPartition> = std::mem::take(&mut self.held).into_values().collect();
        if !lost.is_empty() {
            self.actions.push(Action::Lost(lost));
        }
    }

    fn fail(&mut self, answer: Answer) {
        self.lose_all();
        self.phase = Phase::Ended;
        self.actions.push(Action::Fail {
            code: answer.code,
            said: answer.said,
        });
    }
}

const GROUP_ID_NOT_FOUND: i16 = 69;

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const T: TopicId = [1; 16];
    const NOW: Duration = Duration::from_secs(100);

    fn member() -> Member {
        let settings = Settings {
            rebalance_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(5),
            assignor: Some("uniform".to_owned()),
        };
        Member::new(settings, &["t"])
    }

    fn answer(epoch: i32, partitions: Option<&[i32]>) -> Event {
        let of_topic = |numbers: &[i32]| numbers.iter().map(|number| (T, *number)).collect();
        Event::Beaten(Answer {
            epoch,
            interval: Duration::from_secs(3),
            assignment: partitions.map(of_topic),
            ..Answer::default()
        })
    }

    fn refusal(code: i16) -> Event {
        Event::Beaten(Answer {
            code,
            said: Some("because".to_owned()),
            ..Answer::default()
        })
    }

    fn names() -> Event {
        Event::Named(BTreeMap::from([(T, "t".to_owned())]))
    }

    fn of_t(numbers: &[i32]) -> Vec<TopicPartition> {
        let numbers = numbers.iter();
        numbers
            .map(|number| TopicPartition::new("t", *number))
            .collect()
    }

    fn held(numbers: &[i32]) -> Option<Vec<IdPartition>> {
        Some(numbers.iter().map(|number| (T, *number)).collect())
    }

    /// What is told after an error.
    fn everything(epoch: i32, numbers: &[i32]) -> Action {
        Action::Heartbeat(Heartbeat {
            epoch,
            rebalance_timeout: Some(Duration::from_secs(20)),
            topics: Some(vec!["t".to_owned()]),
            assignor: Some("uniform".to_owned()),
            held: held(numbers),
        })
    }

    fn only(epoch: i32, held: Option<Vec<IdPartition>>) -> Action {
        Action::Heartbeat(Heartbeat {
            epoch,
            rebalance_timeout: None,
            topics: None,
            assignor: None,
            held,
        })
    }

    /// A member in epoch 1 that holds these, and has told so.
    fn holding(numbers: &[i32]) -> Member {
        let mut member = member();
        assert_eq!(member.handle(NOW, Event::Tick), [Action::Connect]);
        assert_eq!(member.handle(NOW, Event::Connected), [everything(0, &[])]);
        let actions = member.handle(NOW, answer(1, Some(numbers)));
        assert_eq!(actions, [Action::LookUpTopics]);
        let actions = member.handle(NOW, names());
        assert_eq!(
            actions,
            [Action::Assigned(of_t(numbers)), only(1, held(numbers))]
        );
        assert_eq!(member.handle(NOW, answer(1, None)), []);
        assert_eq!(member.epoch(), Some(1));
        member
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut member = holding(&[0, 1]);
        let later = NOW + Duration::from_secs(3);
        assert_eq!(member.next_deadline(), Some(later));
        assert_eq!(member.handle(later, Event::Tick), [only(1, None)]);
        member.handle(later, answer(1, None));
        member.subscribe(&["t", "u"]);
        let actions = member.handle(later, Event::Tick);
        let [Action::Heartbeat(heartbeat)] = &actions[..] else {
            panic!("{actions:?}");
        };
        let both = vec!["t".to_owned(), "u".to_owned()];
        assert_eq!(heartbeat.topics, Some(both));
        assert_eq!(
            (&heartbeat.held, heartbeat.rebalance_timeout),
            (&None, None)
        );
    }

    #[test]
    fn signs_of_life_are_given_as_often_as_the_coordinator_wants_them() {
        let mut member = member();
        member.handle(NOW, Event::Tick);
        member.handle(NOW, Event::Connected);
        // It gets nothing, so there is nothing to acknowledge.
        let nothing = Event::Beaten(Answer {
            epoch: 2,
            interval: Duration::from_millis(300),
            assignment: Some(BTreeSet::new()),
            ..Answer::default()
        });
        assert_eq!(member.handle(NOW, nothing), []);
        let soon = NOW + Duration::from_millis(300);
        assert_eq!(member.next_deadline(), Some(soon));
        assert_eq!(member.handle(soon, Event::Tick), [only(2, None)]);
    }

    #[test]
    fn what_is_wanted_back_is_announced_and_told_only_when_it_was_given_up() {
        let mut member = holding(&[0, 1]);
        let later = NOW + Duration::from_secs(3);
        member.handle(later, Event::Tick);
        let actions = member.handle(later, answer(1, Some(&[0])));
        assert_eq!(actions, [Action::RebalanceDue]);
        assert_eq!(member.held().count(), 2);
        // Signs of life go on meanwhile, and what is read is still told to be held.
        let beat = later + Duration::from_secs(3);
        assert_eq!(member.handle(beat, Event::Tick), [only(1, None)]);
        assert_eq!(member.handle(beat, answer(1, None)), []);
        assert_eq!(
            member.handle(beat, Event::Proceed),
            [Action::Revoked(of_t(&[1])), only(1, held(&[0]))]
        );
        // In the new epoch another comes in its place.
        assert_eq!(
            member.handle(beat, answer(2, Some(&[0, 2]))),
            [Action::Assigned(of_t(&[2])), only(2, held(&[0, 2]))]
        );
        assert_eq!(member.epoch(), Some(2));
    }

    #[test]
    fn what_was_wanted_back_and_is_not_any_more_is_kept() {
        let mut member = holding(&[0, 1]);
        let later = NOW + Duration::from_secs(3);
        member.handle(later, Event::Tick);
        member.handle(later, answer(1, Some(&[0])));
        let beat = later + Duration::from_secs(3);
        member.handle(beat, Event::Tick);
        assert_eq!(member.handle(beat, answer(2, Some(&[0, 1]))), []);
        assert_eq!(member.handle(beat, Event::Proceed), []);
        assert_eq!(member.held().count(), 2);
    }

    #[test]
    fn after_a_lost_answer_everything_is_told() {
        let mut member = holding(&[0]);
        let later = NOW + Duration::from_secs(3);
        member.handle(later, Event::Tick);
        let late = later + Duration::from_secs(5);
        assert_eq!(member.next_deadline(), Some(late));
        assert_eq!(member.handle(late, Event::Tick), [Action::Disconnect]);
        let again = late + RETRY_PAUSE;
        assert_eq!(member.handle(again, Event::Tick), [Action::Connect]);
        assert_eq!(
            member.handle(again, Event::Connected),
            [everything(1, &[0])]
        );
        member.handle(again, answer(2, Some(&[0])));
        assert_eq!(member.epoch(), Some(2));
    }

    #[test]
    fn whoever_is_fenced_or_unknown_loses_everything_and_joins_anew() {
        for code in [25, 69, 110] {
            let mut member = holding(&[0, 1]);
            let later = NOW + Duration::from_secs(3);
            member.handle(later, Event::Tick);
            assert_eq!(
                member.handle(later, refusal(code)),
                [Action::Lost(of_t(&[0, 1])), everything(0, &[])],
                "{code}"
            );
            assert_eq!(member.epoch(), None);
            let actions = member.handle(later, answer(7, Some(&[1])));
            assert_eq!(actions, [Action::Assigned(of_t(&[1])), only(7, held(&[1]))]);
        }
    }

    #[test]
    fn a_stale_commit_asks_for_the_epoch() {
        let mut member = holding(&[0]);
        let (code, epoch) = (113, 1);
        assert_eq!(member.handle(NOW, Event::CommitRefused { code, epoch }), []);
        assert!(!member.is_settled());
        let soon = NOW + RETRY_PAUSE;
        assert_eq!(member.next_deadline(), Some(soon));
        assert_eq!(member.handle(soon, Event::Tick), [everything(1, &[0])]);
        member.handle(soon, answer(3, Some(&[0])));
        assert!(member.is_settled());
        assert_eq!((member.epoch(), member.held().count()), (Some(3), 1));
        // A refusal of an epoch that is over says nothing.
        member.handle(soon, Event::CommitRefused { code, epoch });
        assert!(member.is_settled());
    }

    #[test]
    fn an_answer_that_brought_another_epoch_is_not_waited_for_long() {
        let mut member = holding(&[0]);
        let later = NOW + Duration::from_secs(3);
        member.handle(later, Event::Tick);
        let (code, epoch) = (113, 1);
        assert_eq!(
            member.handle(later, Event::CommitRefused { code, epoch }),
            []
        );
        let late = later + LATE_ANSWER;
        assert_eq!(member.next_deadline(), Some(late));
        assert_eq!(member.handle(late, Event::Tick), [Action::Disconnect]);
        let again = late + RETRY_PAUSE;
        member.handle(again, Event::Tick);
        assert_eq!(
            member.handle(again, Event::Connected),
            [everything(1, &[0])]
        );
        assert!(!member.is_settled());
        member.handle(again, answer(2, Some(&[0])));
        assert!(member.is_settled());
    }

    #[test]
    fn the_coordinator_is_looked_for_again_when_it_moved() {
        let mut member = holding(&[0]);
        let later = NOW + Duration::from_secs(3);
        member.handle(later, Event::Tick);
        assert_eq!(member.handle(later, refusal(16)), [Action::Disconnect]);
        let again = later + RETRY_PAUSE;
        assert_eq!(member.handle(again, Event::Tick), [Action::Connect]);
        // It is loading: the same one, later.
        assert_eq!(
            member.handle(again, Event::Connected),
            [everything(1, &[0])]
        );
        assert_eq!(member.handle(again, refusal(14)), []);
        let again = again + RETRY_PAUSE;
        assert_eq!(member.handle(again, Event::Tick), [everything(1, &[0])]);
        assert_eq!(member.held().count(), 1);
    }

    #[test]
    fn a_refusal_for_good_ends_it() {
        // UNSUPPORTED_ASSIGNOR, and to who joins: a group of another kind.
        for code in [112, 69] {
            let mut member = member();
            member.handle(NOW, Event::Tick);
            member.handle(NOW, Event::Connected);
            let said = Some("because".to_owned());
            assert_eq!(
                member.handle(NOW, refusal(code)),
                [Action::Fail { code, said }]
            );
            assert_eq!(member.handle(NOW, Event::Tick), []);
            assert_eq!(member.next_deadline(), None);
        }
    }

    #[test]
    fn a_topic_that_was_created_again_is_another() {
        let mut member = holding(&[0]);
        let later = NOW + Duration::from_secs(3);
        member.handle(later, Event::Tick);
        let other: TopicId = [2; 16];
        let moved = Event::Beaten(Answer {
            epoch: 2,
            interval: Duration::from_secs(3),
            assignment: Some(BTreeSet::from([(other, 0)])),
            ..Answer::default()
        });
        assert_eq!(member.handle(later, moved), [Action::RebalanceDue]);
        let actions = member.handle(later, Event::Proceed);
        assert_eq!(
            actions,
            [
                Action::Revoked(of_t(&[0])),
                Action::LookUpTopics,
                only(2, held(&[]))
            ]
        );
        member.handle(later, answer(2, None));
        let names = Event::Named(BTreeMap::from([(other, "t".to_owned())]));
        let actions = member.handle(later, names);
        assert_eq!(actions[0], Action::Assigned(of_t(&[0])));
    }

    #[test]
    fn a_name_that_is_not_known_yet_is_looked_for_again() {
        let mut member = member();
        member.handle(NOW, Event::Tick);
        member.handle(NOW, Event::Connected);
        let actions = member.handle(NOW, answer(1, Some(&[0])));
        assert_eq!(actions, [Action::LookUpTopics]);
        let nothing = Event::Named(BTreeMap::new());
        assert_eq!(member.handle(NOW, nothing), [Action::LookUpTopics]);
        assert_eq!(member.held().count(), 0);
    }

    #[test]
    fn who_leaves_gives_up_what_it_held() {
        let mut member = holding(&[0, 1]);
        assert_eq!(member.leave(), [Action::Revoked(of_t(&[0, 1]))]);
        assert_eq!(member.handle(NOW, Event::Tick), []);
        assert_eq!(member.epoch(), None);
    }
}
