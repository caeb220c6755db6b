//! The rules of a group member (classic protocol) as a state machine that does no I/O: events go in, actions come out.
//!
//! The order of things: find the coordinator, join, and as the leader divide the partitions; sync, and read what was given; heartbeat, until
//! the coordinator says that the group rebalances; join again. With an eager assignor everything is given up before joining; with a
//! cooperative one (KIP-429) only what is meant for somebody else, afterwards, which takes another round.
//!
//! What keeps two members from reading the same partition:
//! - a generation is a term: the coordinator refuses heartbeats and commits of another generation than its own;
//! - whoever is told that the group does not know him, or his generation, has lost everything he held at once;
//! - a partition that is held is never given to another member before its holder has come back without it ([`super::assignor`]).
//!
//! At most one request is open at a time; what it was is in [`Member::open`], and an answer that is not to it is a defect of the caller. Time
//! is passed in, as the time since some fixed moment. Rules checked against Apache Kafka's AbstractCoordinator and ConsumerCoordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::assignor::{Assignor, MemberSubscription, TopicPartition, assign};
use super::protocol;
use crate::error::{Error, ErrorKind};
use crate::retry;

/// Pause before something that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How much longer than the rebalance may take the coordinator has to answer a join or sync, as in Java.
const JOIN_LAPSE: Duration = Duration::from_secs(5);

mod code {
    pub(super) const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub(super) const ILLEGAL_GENERATION: i16 = 22;
    pub(super) const UNKNOWN_MEMBER_ID: i16 = 25;
    pub(super) const REBALANCE_IN_PROGRESS: i16 = 27;
    pub(super) const MEMBER_ID_REQUIRED: i16 = 79;
}

/// How a member behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) request_timeout: Duration,
    /// In order of preference. The group uses the first that all members know.
    pub(crate) assignors: Vec<Assignor>,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Nothing but time.
    Tick,
    /// There is a connection to the coordinator.
    Connected,
    /// There is none, or not any more: a request that was open will not be answered.
    Disconnected,
    /// The answer to [`Action::Join`].
    Joined(JoinAnswer),
    /// The number of partitions of topics, as asked for by [`Action::CountPartitions`], or because it was looked up anew.
    Counted(BTreeMap<String, i32>),
    /// The answer to [`Action::Sync`].
    Synced { code: i16, assignment: Vec<u8> },
    /// The answer to [`Action::Heartbeat`].
    Beaten { code: i16 },
    /// A commit of this generation was refused.
    CommitRefused { code: i16, generation: i32 },
    /// Whoever holds the partitions has done what he wanted to before the rebalance that [`Action::RebalanceDue`] announced.
    Proceed,
}

/// What the coordinator answers to a join.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinAnswer {
    pub(crate) code: i16,
    pub(crate) generation: i32,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// Only for the leader: member ids and subscriptions.
    pub(crate) members: Vec<(String, Vec<u8>)>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Find the coordinator and connect to it: [`Event::Connected`] or [`Event::Disconnected`].
    Connect,
    /// The coordinator moved or is silent: close the connection. No event is due.
    Disconnect,
    /// Send a JoinGroup request.
    Join {
        member_id: String,
        protocols: Vec<(&'static str, Vec<u8>)>,
    },
    /// Look up how many partitions these topics have.
    CountPartitions(Vec<String>),
    /// Send a SyncGroup request.
    Sync {
        generation: i32,
        member_id: String,
        protocol: &'static str,
        assignments: Vec<(String, Vec<u8>)>,
    },
    /// Send a heartbeat.
    Heartbeat { generation: i32, member_id: String },
    /// The group wants to rebalance. What has been read may still be committed; then [`Event::Proceed`].
    RebalanceDue,
    /// Stop reading these; they were given up in good order.
    Revoked(Vec<TopicPartition>),
    /// Stop reading these; they may belong to somebody else already, and commits on them will be refused.
    Lost(Vec<TopicPartition>),
    /// Start reading these.
    Assigned(Vec<TopicPartition>),
    /// The group does not take us. Nothing more will come.
    Fail { code: Option<i16>, message: String },
}

impl Action {
    /// The error that a failure is to the caller.
    pub(crate) fn failure(group: &str, code: Option<i16>, message: &str) -> Error {
        let doing = format!("group {group}: {message}");
        match code {
            Some(code) => Error::kafka(doing, code, None),
            None => Error::new(ErrorKind::Group, doing),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    Connecting,
    Up,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// To join, as soon as possible.
    Join,
    /// Joined, as the leader: the partitions are being counted.
    Count(BTreeMap<String, MemberSubscription>),
    /// Joined: the assignments, empty for all but the leader, are to be handed in.
    Sync(Vec<(String, Vec<u8>)>),
    /// In the group.
    Stable,
    /// In the group, which wants to rebalance.
    Due,
    /// Refused for good, or left.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Join,
    Sync,
    Heartbeat,
}

/// One member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    settings: Settings,
    topics: BTreeSet<String>,
    member_id: String,
    /// The generation last joined; -1 if none.
    generation: i32,
    assignor: Assignor,
    leader: bool,
    /// The counts that our own last assignment as the leader was made with.
    counted: BTreeMap<String, i32>,
    owned: BTreeSet<TopicPartition>,
    /// Those of `owned` that were taken away and are held until the next join, so that what was read of them can still be committed.
    leaving: BTreeSet<TopicPartition>,
    /// The generation in which `owned` was given.
    owned_generation: i32,
    link: Link,
    phase: Phase,
    open: Option<(Open, Duration)>,
    next_heartbeat: Duration,
    not_before: Duration,
    actions: Vec<Action>,
}

impl Member {
    /// A member that has not joined yet. There is at least one assignor.
    pub(crate) fn new(settings: Settings, topics: &[&str]) -> Self {
        let assignor = settings
            .assignors
            .first()
            .copied()
            .unwrap_or(Assignor::Range);
        Self {
            settings,
            topics: topics.iter().map(ToString::to_string).collect(),
            member_id: String::new(),
            generation: -1,
            assignor,
            leader: false,
            counted: BTreeMap::new(),
            owned: BTreeSet::new(),
            leaving: BTreeSet::new(),
            owned_generation: -1,
            link: Link::Down,
            phase: Phase::Join,
            open: None,
            next_heartbeat: Duration::ZERO,
            not_before: Duration::ZERO,
            actions: Vec::new(),
        }
    }

    /// Changes the topics to read. The group rebalances for it.
    pub(crate) fn subscribe(&mut self, topics: &[&str]) {
        self.topics = topics.iter().map(ToString::to_string).collect();
        if matches!(self.phase, Phase::Stable | Phase::Due) {
            self.phase = Phase::Join;
        }
    }

    /// Takes an event; returns what is to be done, in this order.
    pub(crate) fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => {}
            Event::Connected => self.link = Link::Up,
            Event::Disconnected => self.lose_link(now),
            Event::Joined(answer) => {
                self.open = None;
                self.joined(now, answer);
            }
            Event::Counted(counts) => self.partitions_counted(&counts),
            Event::Synced { code, assignment } => {
                self.open = None;
                self.synced(now, code, &assignment);
            }
            Event::Beaten { code } => {
                self.open = None;
                self.beaten(now, code);
            }
            Event::CommitRefused { code, generation } => self.commit_refused(now, code, generation),
            Event::Proceed => {
                if self.phase == Phase::Due {
                    self.phase = Phase::Join;
                }
            }
        }
        self.drive(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] will do something; `None` if only another event will.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if let Some((_, deadline)) = self.open {
            return Some(deadline);
        }
        match (&self.phase, self.link) {
            (Phase::Ended | Phase::Count(_), _) | (_, Link::Connecting) => None,
            (Phase::Stable | Phase::Due, Link::Up) => {
                Some(self.next_heartbeat.max(self.not_before))
            }
            _ => Some(self.not_before),
        }
    }

    /// The id by which the coordinator knows this member; empty if it does not.
    pub(crate) fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The generation to commit in; `None` outside of any.
    pub(crate) fn generation(&self) -> Option<i32> {
        (self.generation >= 0 && self.phase != Phase::Ended).then_some(self.generation)
    }

    /// What is being read.
    pub(crate) fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }

    /// Whether no rebalance is under way.
    pub(crate) fn is_stable(&self) -> bool {
        matches!(self.phase, Phase::Stable | Phase::Due)
    }

    /// Whether this member divides the partitions.
    pub(crate) fn is_leader(&self) -> bool {
        self.leader
    }

    /// The topics to read.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(String::as_str)
    }

    /// Ends the membership; what was held is given up.
    pub(crate) fn leave(&mut self) -> Vec<Action> {
        self.phase = Phase::Ended;
        self.give_up_all(false);
        std::mem::take(&mut self.actions)
    }

    fn is_eager(&self) -> bool {
        // A group that any member of may choose an eager assignor for has to rebalance eagerly, whichever is chosen.
        !self
            .settings
            .assignors
            .iter()
            .all(|assignor| assignor.is_cooperative())
    }

    /// Does what is due at `now`.
    fn drive(&mut self, now: Duration) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.open.is_some_and(|(_, deadline)| now >= deadline) {
            self.actions.push(Action::Disconnect);
            self.lose_link(now);
        }
        if self.open.is_some() || now < self.not_before {
            return;
        }
        match self.link {
            Link::Connecting => return,
            Link::Down => {
                self.link = Link::Connecting;
                self.actions.push(Action::Connect);
                return;
            }
            Link::Up => {}
        }
        match &self.phase {
            Phase::Join => self.send_join(now),
            Phase::Sync(assignments) => {
                let assignments = assignments.clone();
                self.send_sync(now, assignments);
            }
            Phase::Stable | Phase::Due if now >= self.next_heartbeat => self.send_heartbeat(now),
            Phase::Stable | Phase::Due | Phase::Count(_) | Phase::Ended => {}
        }
    }

    fn send_join(&mut self, now: Duration) {
        if self.is_eager() {
            self.give_up_all(false);
        }
        let leaving = std::mem::take(&mut self.leaving);
        if !leaving.is_empty() {
            self.owned.retain(|partition| !leaving.contains(partition));
            self.actions
                .push(Action::Revoked(leaving.into_iter().collect()));
        }
        let subscription = MemberSubscription {
            topics: self.topics.iter().cloned().collect(),
            owned: self.owned.iter().cloned().collect(),
            generation: self.owned_generation,
        };
        let protocols = self
            .settings
            .assignors
            .iter()
            .map(|assignor| {
                (
                    assignor.name(),
                    protocol::encode_subscription(&subscription, *assignor),
                )
            })
            .collect();
        self.actions.push(Action::Join {
            member_id: self.member_id.clone(),
            protocols,
        });
        self.open = Some((
            Open::Join,
            now + self.settings.rebalance_timeout + JOIN_LAPSE,
        ));
    }

    fn send_sync(&mut self, now: Duration, assignments: Vec<(String, Vec<u8>)>) {
        self.actions.push(Action::Sync {
            generation: self.generation,
            member_id: self.member_id.clone(),
            protocol: self.assignor.name(),
            assignments,
        });
        self.open = Some((
            Open::Sync,
            now + self.settings.rebalance_timeout + JOIN_LAPSE,
        ));
    }

    fn send_heartbeat(&mut self, now: Duration) {
        self.actions.push(Action::Heartbeat {
            generation: self.generation,
            member_id: self.member_id.clone(),
        });
        let patience = self
            .settings
            .request_timeout
            .min(self.settings.session_timeout);
        self.open = Some((Open::Heartbeat, now + patience));
        self.next_heartbeat = now + self.settings.heartbeat_interval;
    }

    fn joined(&mut self, now: Duration, answer: JoinAnswer) {
        match answer.code {
            0 => self.enter_generation(answer),
            // KIP-394: a new member is told its id first, and joins with it.
            code::MEMBER_ID_REQUIRED => {
                self.member_id = answer.member_id;
                self.phase = Phase::Join;
            }
            code => {
                self.phase = Phase::Join;
                self.refused(now, code, "join");
            }
        }
    }

    fn enter_generation(&mut self, answer: JoinAnswer) {
        let agreed = self
            .settings
            .assignors
            .iter()
            .find(|assignor| assignor.name() == answer.protocol);
        let Some(&assignor) = agreed else {
            let message = format!(
                "it agreed on the assignor \"{}\", which was not offered",
                answer.protocol
            );
            return self.fail(None, message);
        };
        self.assignor = assignor;
        self.generation = answer.generation;
        self.leader = answer.leader == answer.member_id;
        self.member_id = answer.member_id;
        if !self.leader {
            self.phase = Phase::Sync(Vec::new());
            return;
        }
        // A member whose subscription cannot be read gets nothing, but is not forgotten: without an assignment it could not go on.
        let members: BTreeMap<String, MemberSubscription> = answer
            .members
            .into_iter()
            .map(|(id, metadata)| {
                (
                    id,
                    protocol::decode_subscription(&metadata).unwrap_or_default(),
                )
            })
            .collect();
        let topics: BTreeSet<&String> =
            members.values().flat_map(|member| &member.topics).collect();
        self.actions.push(Action::CountPartitions(
            topics.into_iter().cloned().collect(),
        ));
        self.phase = Phase::Count(members);
    }

    fn partitions_counted(&mut self, counts: &BTreeMap<String, i32>) {
        match &self.phase {
            Phase::Count(members) => {
                let assignments = assign(self.assignor, members, counts)
                    .into_iter()
                    .map(|(id, partitions)| (id, protocol::encode_assignment(&partitions)))
                    .collect();
                self.counted.clone_from(counts);
                self.phase = Phase::Sync(assignments);
            }
            // Topics have grown, or appeared: the leader makes the group divide them again.
            Phase::Stable if self.leader => {
                let changed = counts.iter().any(|(topic, count)| {
                    *count > 0 && self.counted.get(topic).is_none_or(|before| before != count)
                });
                if changed {
                    self.counted
                        .extend(counts.iter().map(|(topic, count)| (topic.clone(), *count)));
                    self.rebalance_due();
                }
            }
            _ => {}
        }
    }

    fn synced(&mut self, now: Duration, code: i16, assignment: &[u8]) {
        if code != 0 {
            // Not a sync again but a join: the coordinator may be another one, which does not know this generation.
            self.phase = Phase::Join;
            return self.refused(now, code, "sync");
        }
        let Some(given) = protocol::decode_assignment(assignment) else {
            return self.fail(None, "the leader's assignment cannot be read".to_owned());
        };
        let given: BTreeSet<TopicPartition> = given
            .into_iter()
            .filter(|partition| self.topics.contains(&partition.topic))
            .collect();
        let added: Vec<TopicPartition> = given.difference(&self.owned).cloned().collect();
        self.leaving = self.owned.difference(&given).cloned().collect();
        self.owned.extend(given);
        self.owned_generation = self.generation;
        self.phase = Phase::Stable;
        self.next_heartbeat = now + self.settings.heartbeat_interval;
        if !added.is_empty() {
            self.actions.push(Action::Assigned(added));
        }
        if !self.leaving.is_empty() {
            // Somebody is waiting for these: come back without them, so that they can be given out.
            self.rebalance_due();
        }
    }

    fn beaten(&mut self, now: Duration, code: i16) {
        match code {
            0 => {}
            code::REBALANCE_IN_PROGRESS => {
                if self.phase == Phase::Stable {
                    self.rebalance_due();
                }
            }
            code => self.refused(now, code, "heartbeat"),
        }
    }

    fn commit_refused(&mut self, now: Duration, code: i16, generation: i32) {
        // A refusal of an older generation says nothing about this one.
        if generation != self.generation || !self.is_stable() {
            return;
        }
        match code {
            code::REBALANCE_IN_PROGRESS => self.rebalance_due(),
            code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID => self.refused(now, code, "commit"),
            _ => {}
        }
    }

    /// What the refusal of any request means. The caller has set the phase to go on from.
    fn refused(&mut self, now: Duration, code: i16, what: &str) {
        match code {
            code::UNKNOWN_MEMBER_ID => {
                self.member_id.clear();
                self.lose_generation();
            }
            // The member is known still, only its generation is over.
            code::ILLEGAL_GENERATION => self.lose_generation(),
            code::COORDINATOR_LOAD_IN_PROGRESS | code::REBALANCE_IN_PROGRESS => self.pause(now),
            code if retry::coordinator_moved(code) => {
                self.actions.push(Action::Disconnect);
                self.lose_link(now);
            }
            code if retry::is_retriable(code) => self.pause(now),
            code => self.fail(Some(code), what.to_owned()),
        }
    }

    fn pause(&mut self, now: Duration) {
        self.not_before = now + RETRY_PAUSE;
    }

    fn lose_link(&mut self, now: Duration) {
        // Whatever the coordinator was told of this generation may be gone with it.
        if matches!(self.phase, Phase::Count(_) | Phase::Sync(_)) {
            self.phase = Phase::Join;
        }
        self.open = None;
        self.link = Link::Down;
        self.pause(now);
    }

    fn lose_generation(&mut self) {
        self.generation = -1;
        self.leader = false;
        self.give_up_all(true);
        self.phase = Phase::Join;
    }

    /// Who holds nothing has nothing to finish.
    fn rebalance_due(&mut self) {
        if self.owned.is_empty() {
            self.phase = Phase::Join;
        } else {
            self.phase = Phase::Due;
            self.actions.push(Action::RebalanceDue);
        }
    }

    fn give_up_all(&mut self, lost: bool) {
        self.owned_generation = -1;
        self.leaving.clear();
        if self.owned.is_empty() {
            return;
        }
        let partitions = std::mem::take(&mut self.owned).into_iter().collect();
        self.actions.push(if lost {
            Action::Lost(partitions)
        } else {
            Action::Revoked(partitions)
        });
    }

    fn fail(&mut self, code: Option<i16>, message: String) {
        self.give_up_all(true);
        self.phase = Phase::Ended;
        self.actions.push(Action::Fail { code, message });
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests;
