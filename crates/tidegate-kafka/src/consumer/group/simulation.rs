//! Members against a model of the classic coordinator, which crashes and forgets what it had not stored. The schedules, and what is checked, are
//! those of [`crate::consumer::simulation`]; here is besides that the leader gives no partition twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::assignor::Assignor;
use super::super::protocol;
use super::super::simulation::{
    self, Machine, Model, Node, REBALANCE_MS, Random, Route, Signal, Step, World, run_schedules,
};
use super::{Action, Event, JoinAnswer, Member, tests::settings};

const SCHEDULES: u64 = 300;
const SESSION_MS: u64 = 10_000;

#[derive(Clone, Debug, Default)]
struct Known {
    protocols: Vec<(&'static str, Vec<u8>)>,
    assignment: Vec<u8>,
    awaits_join: Option<Route>,
    awaits_sync: Option<Route>,
    last_seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Preparing { until: u64 },
    Completing { until: u64 },
    Stable,
}

/// The coordinator, as Kafka's classic one behaves.
#[derive(Clone, Debug)]
struct Coordinator {
    state: State,
    generation: i32,
    leader: String,
    protocol: &'static str,
    members: BTreeMap<String, Known>,
    pending: BTreeSet<String>,
    ids: u64,
    committed: BTreeMap<i32, i64>,
    /// What is in the log: the state when a generation last became stable.
    stored: Option<Box<Self>>,
}

type Answers = simulation::Answers<Group>;

impl Coordinator {
    fn new() -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            leader: String::new(),
            protocol: "",
            members: BTreeMap::new(),
            pending: BTreeSet::new(),
            ids: 0,
            committed: BTreeMap::new(),
            stored: None,
        }
    }

    fn refuse_join(code: i16, member_id: &str) -> Event {
        Event::Joined(JoinAnswer {
            code,
            member_id: member_id.to_owned(),
            ..JoinAnswer::default()
        })
    }

    fn join(
        &mut self,
        now: u64,
        route: Route,
        member_id: String,
        protocols: Vec<(&'static str, Vec<u8>)>,
    ) -> Answers {
        if member_id.is_empty() {
            self.ids += 1;
            let id = format!("member-{:03}", self.ids);
            self.pending.insert(id.clone());
            return vec![(route, Self::refuse_join(79, &id))];
        }
        if self.pending.remove(&member_id) {
            self.members.insert(member_id.clone(), Known::default());
        }
        let is_leader = member_id == self.leader;
        let Some(member) = self.members.get_mut(&member_id) else {
            return vec![(route, Self::refuse_join(25, &member_id))];
        };
        member.last_seen = now;
        let changed = member.protocols != protocols;
        let rejoins = match self.state {
            State::Preparing { .. } | State::Empty => true,
            State::Completing { .. } => changed,
            State::Stable => changed || is_leader,
        };
        if !rejoins {
            let answer = self.join_answer(&member_id);
            return vec![(route, answer)];
        }
        member.protocols = protocols;
        member.awaits_join = Some(route);
        let mut answers = self.prepare(now);
        answers.extend(self.complete_join(now, false));
        answers
    }

    fn prepare(&mut self, now: u64) -> Answers {
        if matches!(self.state, State::Preparing { .. }) {
            return Vec::new();
        }
        self.state = State::Preparing {
            until: now + REBALANCE_MS,
        };
        let waiting = self
            .members
            .values_mut()
            .filter_map(|member| member.awaits_sync.take());
        waiting
            .map(|route| {
                (
                    route,
                    Event::Synced {
                        code: 27,
                        assignment: Vec::new(),
                    },
                )
            })
            .collect()
    }

    fn complete_join(&mut self, now: u64, time_is_up: bool) -> Answers {
        if !matches!(self.state, State::Preparing { .. }) {
            return Vec::new();
        }
        if time_is_up {
            self.members
                .retain(|_, member| member.awaits_join.is_some());
        }
        if self.members.is_empty() {
            self.state = State::Empty;
            return Vec::new();
        }
        if self
            .members
            .values()
            .any(|member| member.awaits_join.is_none())
        {
            return Vec::new();
        }
        self.generation += 1;
        self.state = State::Completing {
            until: now + REBALANCE_MS,
        };
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().expect("not empty").clone();
        }
        let first = &self.members[&self.leader].protocols;
        self.protocol = first
            .iter()
            .map(|(name, _)| *name)
            .find(|name| {
                self.members
                    .values()
                    .all(|member| member.protocols.iter().any(|(known, _)| known == name))
            })
            .expect("all members of a schedule have an assignor in common");
        let ids: Vec<String> = self.members.keys().cloned().collect();
        let mut answers = Vec::new();
        for id in ids {
            let member = self.members.get_mut(&id).expect("just listed");
            member.last_seen = now;
            let route = member.awaits_join.take().expect("all await");
            answers.push((route, self.join_answer(&id)));
        }
        answers
    }

    fn join_answer(&self, member_id: &str) -> Event {
        let metadata = |member: &Known| {
            let found = member
                .protocols
                .iter()
                .find(|(name, _)| *name == self.protocol);
            found
                .map(|(_, metadata)| metadata.clone())
                .unwrap_or_default()
        };
        let members = if member_id == self.leader {
            self.members
                .iter()
                .map(|(id, member)| (id.clone(), metadata(member)))
                .collect()
        } else {
            Vec::new()
        };
        Event::Joined(JoinAnswer {
            code: 0,
            generation: self.generation,
            protocol: self.protocol.to_owned(),
            leader: self.leader.clone(),
            member_id: member_id.to_owned(),
            members,
        })
    }

    /// 0, or why a request of this member in this generation is refused.
    fn check(&mut self, now: u64, member_id: &str, generation: i32) -> i16 {
        let Some(member) = self.members.get_mut(member_id) else {
            return 25;
        };
        if generation != self.generation {
            return 22;
        }
        member.last_seen = now;
        0
    }

    fn sync(
        &mut self,
        now: u64,
        route: Route,
        member_id: &str,
        generation: i32,
        assignments: Vec<(String, Vec<u8>)>,
    ) -> Answers {
        let mut code = self.check(now, member_id, generation);
        if code == 0 && matches!(self.state, State::Preparing { .. }) {
            code = 27;
        }
        if code != 0 {
            return vec![(
                route,
                Event::Synced {
                    code,
                    assignment: Vec::new(),
                },
            )];
        }
        self.members
            .get_mut(member_id)
            .expect("checked")
            .awaits_sync = Some(route);
        if matches!(self.state, State::Completing { .. }) && member_id == self.leader {
            for (id, assignment) in assignments {
                self.members
                    .get_mut(&id)
                    .expect("the leader knows only members")
                    .assignment = assignment;
            }
            self.state = State::Stable;
            let mut stored = self.clone();
            stored.stored = None;
            self.stored = Some(Box::new(stored));
        }
        if self.state != State::Stable {
            return Vec::new();
        }
        let mut answers = Vec::new();
        for member in self.members.values_mut() {
            if let Some(route) = member.awaits_sync.take() {
                member.last_seen = now;
                answers.push((
                    route,
                    Event::Synced {
                        code: 0,
                        assignment: member.assignment.clone(),
                    },
                ));
            }
        }
        answers
    }

    fn heartbeat(&mut self, now: u64, member_id: &str, generation: i32) -> Event {
        let code = match self.check(now, member_id, generation) {
            0 if matches!(self.state, State::Preparing { .. }) => 27,
            code => code,
        };
        Event::Beaten { code }
    }

    fn commit(
        &mut self,
        now: u64,
        member_id: &str,
        generation: i32,
        positions: &BTreeMap<i32, i64>,
    ) -> i16 {
        let code = self.check(now, member_id, generation);
        if code != 0 {
            return code;
        }
        if matches!(self.state, State::Completing { .. }) {
            return 27;
        }
        simulation::store(&mut self.committed, positions);
        0
    }

    fn remove(&mut self, now: u64, member_id: &str) -> Answers {
        self.pending.remove(member_id);
        if self.members.remove(member_id).is_none() {
            return Vec::new();
        }
        let mut answers = self.prepare(now);
        answers.extend(self.complete_join(now, false));
        answers
    }

    fn watch(&mut self, now: u64) -> Answers {
        let mut answers = Vec::new();
        match self.state {
            State::Preparing { until } if now >= until => {
                answers.extend(self.complete_join(now, true));
            }
            State::Completing { until } if now >= until => {
                self.members
                    .retain(|_, member| member.awaits_sync.is_some());
                answers.extend(self.prepare(now));
                answers.extend(self.complete_join(now, false));
            }
            _ => {}
        }
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.awaits_join.is_none() && member.awaits_sync.is_none())
            .filter(|(_, member)| now > member.last_seen + SESSION_MS)
            .map(|(id, _)| id.clone())
            .collect();
        for id in silent {
            answers.extend(self.remove(now, &id));
        }
        answers
    }

    /// Comes up again with what it had stored; offsets are always stored.
    fn crash(&mut self, now: u64) {
        let stored = self.stored.take();
        let (ids, committed) = (self.ids, std::mem::take(&mut self.committed));
        *self = stored.as_deref().cloned().unwrap_or_else(Self::new);
        self.stored = stored;
        self.ids = ids;
        self.committed = committed;
        for member in self.members.values_mut() {
            member.last_seen = now;
            member.awaits_join = None;
            member.awaits_sync = None;
        }
    }
}

/// The group: its coordinator, and what its members are set to.
struct Group {
    coordinator: Coordinator,
    partitions: i32,
    assignors: Vec<Assignor>,
}

impl Group {
    fn counts(&self) -> BTreeMap<String, i32> {
        BTreeMap::from([("t".to_owned(), self.partitions)])
    }
}

fn check_assignments(assignments: &[(String, Vec<u8>)]) {
    let mut given = BTreeSet::new();
    for (_, assignment) in assignments {
        for partition in protocol::decode_assignment(assignment).expect("our own leader wrote it") {
            assert!(
                given.insert(partition.clone()),
                "{partition} is given twice"
            );
        }
    }
}

impl Machine for Member {
    type Event = Event;
    type Action = Action;

    fn signal(signal: Signal) -> Event {
        match signal {
            Signal::Tick => Event::Tick,
            Signal::Connected => Event::Connected,
            Signal::Disconnected => Event::Disconnected,
            Signal::Proceed => Event::Proceed,
            Signal::CommitRefused(code, generation) => Event::CommitRefused { code, generation },
        }
    }

    fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.handle(now, event)
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.next_deadline()
    }

    fn generation(&self) -> Option<i32> {
        self.generation()
    }

    fn is_settled(&self) -> bool {
        self.is_stable()
    }

    fn held(&self) -> BTreeSet<i32> {
        self.owned().iter().map(|owned| owned.partition).collect()
    }

    fn leave(&mut self) {
        self.leave();
    }
}

impl Model for Group {
    type Member = Member;
    type Request = Action;

    fn new(random: &mut Random) -> Self {
        let assignors = match random.below(4) {
            0 => vec![Assignor::Range],
            1 => vec![Assignor::Range, Assignor::CooperativeSticky],
            _ => vec![Assignor::CooperativeSticky],
        };
        Self {
            coordinator: Coordinator::new(),
            partitions: i32::try_from(1 + random.below(12)).unwrap(),
            assignors,
        }
    }

    fn new_member(&self) -> Member {
        Member::new(settings(&self.assignors), &["t"])
    }

    fn id(_node: usize, member: &Member) -> String {
        member.member_id().to_owned()
    }

    fn step(&self, _node: &Node<Member>, action: Action) -> Step<Action, Event> {
        match action {
            Action::Connect => Step::Connect,
            Action::Disconnect => Step::Disconnect,
            Action::CountPartitions(_) => Step::LookUp(Event::Counted(self.counts())),
            Action::Join { .. } | Action::Sync { .. } | Action::Heartbeat { .. } => {
                Step::Request(action)
            }
            Action::RebalanceDue => Step::RebalanceDue,
            Action::Revoked(partitions) => Step::Revoked(partitions),
            Action::Lost(partitions) => Step::Lost(partitions),
            Action::Assigned(partitions) => Step::Assigned(partitions),
            Action::Fail { code, message } => panic!("{message} {code:?}"),
        }
    }

    fn arrive(world: &mut World<Self>, route: Route, request: Action) -> Answers {
        let (now, coordinator) = (world.now, &mut world.coordinator.coordinator);
        match request {
            Action::Join {
                member_id,
                protocols,
            } => coordinator.join(now, route, member_id, protocols),
            Action::Sync {
                generation,
                member_id,
                assignments,
                ..
            } => {
                check_assignments(&assignments);
                coordinator.sync(now, route, &member_id, generation, assignments)
            }
            Action::Heartbeat {
                generation,
                member_id,
            } => vec![(route, coordinator.heartbeat(now, &member_id, generation))],
            _ => unreachable!("only requests are sent"),
        }
    }

    fn commit(
        &mut self,
        now: u64,
        id: &str,
        generation: i32,
        positions: &BTreeMap<i32, i64>,
    ) -> i16 {
        self.coordinator.commit(now, id, generation, positions)
    }

    fn refusal(_code: i16) -> &'static str {
        "fenced commits"
    }

    fn remove(&mut self, now: u64, id: &str) -> Answers {
        self.coordinator.remove(now, id)
    }

    fn watch(&mut self, now: u64) -> Answers {
        self.coordinator.watch(now)
    }

    fn crash(world: &mut World<Self>) {
        world.count("coordinator crashes");
        world.coordinator.coordinator.crash(world.now);
    }

    fn grow(world: &mut World<Self>) {
        world.coordinator.partitions += 1;
        let counts = world.coordinator.counts();
        world.tell_all(|| Event::Counted(counts.clone()));
    }

    fn generation(&self) -> i32 {
        self.coordinator.generation
    }

    fn partitions(&self) -> i32 {
        self.partitions
    }

    fn knows(&self, id: &str) -> bool {
        self.coordinator.members.contains_key(id)
    }

    fn committed(&self) -> &BTreeMap<i32, i64> {
        &self.coordinator.committed
    }
}

#[test]
fn no_schedule_of_faults_breaks_a_group() {
    let faults = [
        "lost requests",
        "lost answers",
        "silent connections",
        "frozen members",
        "dead members",
        "coordinator crashes",
        "fenced commits",
        "lost partitions",
    ];
    run_schedules::<Group>(SCHEDULES, &faults);
}
