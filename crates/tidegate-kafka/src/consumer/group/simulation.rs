//! Members against a model of the coordinator, through seeded schedules of lost requests and answers, silent and broken connections, members
//! that freeze until they are evicted, die, leave and come, a coordinator that crashes and forgets what it had not stored, and topics that grow.
//!
//! After each step: no partition is read by two members that the coordinator knows, and no accepted commit goes backwards. When the faults
//! have ended: the group settles, every partition is read by exactly one member, evenly, and commits move on.
//!
//! A failure names its seed; `TIDEGATE_GROUP_SEED=N` runs that one alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use super::super::assignor::{Assignor, TopicPartition};
use super::super::protocol;
use super::{Action, Event, JoinAnswer, Member, tests::settings};

const SCHEDULES: u64 = 300;
const CHAOS_MS: u64 = 120_000;
const CALM_MS: u64 = 120_000;
const SESSION_MS: u64 = 10_000;
const REBALANCE_MS: u64 = 20_000;

/// SplitMix64: small, and the same on every machine.
pub(in crate::consumer) struct Random(pub(in crate::consumer) u64);

impl Random {
    pub(in crate::consumer) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(in crate::consumer) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(in crate::consumer) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Where an answer goes: a node, and which of its connections.
type Route = (usize, u64);

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

type Answers = Vec<(Route, Event)>;

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
        for (partition, offset) in positions {
            let committed = self.committed.entry(*partition).or_insert(0);
            assert!(
                offset >= committed,
                "partition {partition}: commit {offset} after {committed}"
            );
            *committed = *offset;
        }
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

enum Happening {
    Wake(usize),
    Work(usize),
    Send(Route, Action),
    Deliver(Route, Event),
    /// The node notices that this connection broke.
    Break(Route),
    Watch,
    Chaos,
}

struct Node {
    member: Member,
    alive: bool,
    frozen_until: u64,
    connection: u64,
    wakes_at: Option<u64>,
    positions: BTreeMap<i32, i64>,
}

#[derive(Default)]
struct Fired {
    lost_requests: u32,
    lost_answers: u32,
    silences: u32,
    freezes: u32,
    deaths: u32,
    crashes: u32,
    fenced_commits: u32,
    lost_partitions: u32,
}

struct World {
    now: u64,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    sequence: u64,
    nodes: Vec<Node>,
    coordinator: Coordinator,
    partitions: i32,
    assignors: Vec<Assignor>,
    fired: Fired,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let assignors = match random.below(4) {
            0 => vec![Assignor::Range],
            1 => vec![Assignor::Range, Assignor::CooperativeSticky],
            _ => vec![Assignor::CooperativeSticky],
        };
        let partitions = i32::try_from(1 + random.below(12)).unwrap();
        let mut world = Self {
            now: 0,
            random,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            coordinator: Coordinator::new(),
            partitions,
            assignors,
            fired: Fired::default(),
        };
        for _ in 0..=world.random.below(4) {
            world.add_node();
        }
        world.after(1000, Happening::Watch);
        world.after(2000, Happening::Chaos);
        world
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    fn add_node(&mut self) {
        let member = Member::new(settings(&self.assignors), &["t"]);
        self.nodes.push(Node {
            member,
            alive: true,
            frozen_until: 0,
            connection: 0,
            wakes_at: None,
            positions: BTreeMap::new(),
        });
        let (index, delay) = (self.nodes.len() - 1, self.random.below(3000));
        self.after(delay, Happening::Wake(index));
        self.after(delay, Happening::Work(index));
    }

    fn in_chaos(&self) -> bool {
        self.now < CHAOS_MS
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.in_chaos() && self.random.percent(percent)
    }

    fn run(&mut self, until: u64) {
        while let Some(Reverse((time, sequence))) = self.queue.pop() {
            if time > until {
                self.queue.push(Reverse((time, sequence)));
                break;
            }
            self.now = time;
            let happening = self.happenings.remove(&sequence).expect("queued once");
            self.happen(happening);
            self.check_owners();
        }
    }

    fn happen(&mut self, happening: Happening) {
        let node = match &happening {
            Happening::Wake(node) | Happening::Work(node) => Some(*node),
            Happening::Deliver((node, _), _) | Happening::Break((node, _)) => Some(*node),
            _ => None,
        };
        if let Some(node) = node {
            if !self.nodes[node].alive {
                return;
            }
            let frozen = self.nodes[node].frozen_until.saturating_sub(self.now);
            if frozen > 0 {
                return self.after(frozen, happening);
            }
        }
        match happening {
            Happening::Wake(node) => {
                self.nodes[node].wakes_at = None;
                self.feed(node, Event::Tick);
            }
            Happening::Work(node) => self.work(node),
            Happening::Send(route, action) => self.arrive(route, action),
            Happening::Deliver(route, event) => {
                if self.nodes[route.0].connection == route.1 {
                    self.feed(route.0, event);
                }
            }
            Happening::Break(route) => {
                if self.nodes[route.0].connection == route.1 {
                    self.nodes[route.0].connection += 1;
                    self.feed(route.0, Event::Disconnected);
                }
            }
            Happening::Watch => {
                let answers = self.coordinator.watch(self.now);
                self.answer(answers);
                self.after(500, Happening::Watch);
            }
            Happening::Chaos => self.chaos(),
        }
    }

    fn feed(&mut self, node: usize, event: Event) {
        let actions = self.nodes[node]
            .member
            .handle(Duration::from_millis(self.now), event);
        for action in actions {
            self.act(node, action);
        }
        if let Some(deadline) = self.nodes[node].member.next_deadline() {
            let at = u64::try_from(deadline.as_millis())
                .unwrap()
                .max(self.now + 1);
            if self.nodes[node].wakes_at.is_none_or(|earlier| earlier > at) {
                self.nodes[node].wakes_at = Some(at);
                self.after(at - self.now, Happening::Wake(node));
            }
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Connect => {
                let delay = 1 + self.random.below(50);
                self.nodes[node].connection += 1;
                let event = if self.chance(10) {
                    Event::Disconnected
                } else {
                    Event::Connected
                };
                self.after(
                    delay,
                    Happening::Deliver((node, self.nodes[node].connection), event),
                );
            }
            Action::Disconnect => self.nodes[node].connection += 1,
            Action::CountPartitions(_) => {
                let delay = 1 + self.random.below(100);
                let counts = BTreeMap::from([("t".to_owned(), self.partitions)]);
                let route = (node, self.nodes[node].connection);
                self.after(delay, Happening::Deliver(route, Event::Counted(counts)));
            }
            Action::Join { .. } | Action::Sync { .. } | Action::Heartbeat { .. } => {
                let route = (node, self.nodes[node].connection);
                let delay = 1 + self.random.below(30);
                if self.chance(3) {
                    self.fired.lost_requests += 1;
                    self.break_or_stay_silent(route);
                } else {
                    self.after(delay, Happening::Send(route, action));
                }
            }
            Action::RebalanceDue => {}
            Action::Revoked(partitions) => self.stop_reading(node, &partitions),
            Action::Lost(partitions) => {
                self.fired.lost_partitions += 1;
                self.stop_reading(node, &partitions);
            }
            Action::Assigned(partitions) => {
                for partition in partitions {
                    let number = partition.partition;
                    let offset = self
                        .coordinator
                        .committed
                        .get(&number)
                        .copied()
                        .unwrap_or(0);
                    self.nodes[node].positions.insert(number, offset);
                }
            }
            Action::Fail { code, message } => panic!("{message} {code:?}"),
        }
    }

    fn stop_reading(&mut self, node: usize, partitions: &[TopicPartition]) {
        for partition in partitions {
            let held = self.nodes[node].positions.remove(&partition.partition);
            assert!(held.is_some(), "{partition} was given up, but not held");
        }
    }

    fn break_or_stay_silent(&mut self, route: Route) {
        if self.random.percent(50) {
            let delay = 1 + self.random.below(200);
            self.after(delay, Happening::Break(route));
        } else {
            self.fired.silences += 1;
        }
    }

    fn arrive(&mut self, route: Route, action: Action) {
        let now = self.now;
        let answers = match action {
            Action::Join {
                member_id,
                protocols,
            } => self.coordinator.join(now, route, member_id, protocols),
            Action::Sync {
                generation,
                member_id,
                assignments,
                ..
            } => {
                self.check_assignments(&assignments);
                self.coordinator
                    .sync(now, route, &member_id, generation, assignments)
            }
            Action::Heartbeat {
                generation,
                member_id,
            } => {
                vec![(
                    route,
                    self.coordinator.heartbeat(now, &member_id, generation),
                )]
            }
            _ => unreachable!("only requests are sent"),
        };
        self.answer(answers);
    }

    fn answer(&mut self, answers: Answers) {
        for (route, event) in answers {
            if self.chance(3) {
                self.fired.lost_answers += 1;
                self.break_or_stay_silent(route);
            } else {
                let delay = 1 + self.random.below(30);
                self.after(delay, Happening::Deliver(route, event));
            }
        }
    }

    /// One turn of the program around the member: what was read is committed, and then the rebalance may go on.
    fn work(&mut self, node: usize) {
        let generation = self.nodes[node].member.generation();
        for offset in self.nodes[node].positions.values_mut() {
            *offset += 1;
        }
        if let Some(generation) = generation
            && !self.nodes[node].positions.is_empty()
            && !self.chance(5)
        {
            let (id, positions) = (
                self.nodes[node].member.member_id().to_owned(),
                self.nodes[node].positions.clone(),
            );
            let code = self
                .coordinator
                .commit(self.now, &id, generation, &positions);
            if code != 0 {
                self.fired.fenced_commits += 1;
                self.feed(node, Event::CommitRefused { code, generation });
            }
        }
        self.feed(node, Event::Proceed);
        let delay = 20 + self.random.below(300);
        self.after(delay, Happening::Work(node));
    }

    fn chaos(&mut self) {
        if !self.in_chaos() {
            return;
        }
        let node = usize::try_from(self.random.below(self.nodes.len() as u64)).unwrap();
        match self.random.below(10) {
            0..=2 if self.nodes[node].alive => {
                self.fired.freezes += 1;
                self.nodes[node].frozen_until = self.now + self.random.below(25_000);
            }
            3 if self.nodes.iter().filter(|node| node.alive).count() > 1 => {
                self.fired.deaths += 1;
                self.nodes[node].alive = false;
                if self.random.percent(50) {
                    self.nodes[node].member.leave();
                    let id = self.nodes[node].member.member_id().to_owned();
                    let answers = self.coordinator.remove(self.now, &id);
                    self.answer(answers);
                }
            }
            4 | 5 if self.nodes.len() < 8 => self.add_node(),
            6 | 7 => {
                self.fired.crashes += 1;
                self.coordinator.crash(self.now);
                for index in 0..self.nodes.len() {
                    let route = (index, self.nodes[index].connection);
                    self.after(1 + index as u64, Happening::Break(route));
                }
            }
            8 => {
                self.partitions += 1;
                let counts = BTreeMap::from([("t".to_owned(), self.partitions)]);
                for index in 0..self.nodes.len() {
                    let route = (index, self.nodes[index].connection);
                    self.after(1, Happening::Deliver(route, Event::Counted(counts.clone())));
                }
            }
            _ => {}
        }
        let delay = 500 + self.random.below(8000);
        self.after(delay, Happening::Chaos);
    }

    fn check_assignments(&self, assignments: &[(String, Vec<u8>)]) {
        let mut given = BTreeSet::new();
        for (_, assignment) in assignments {
            for partition in
                protocol::decode_assignment(assignment).expect("our own leader wrote it")
            {
                assert!(
                    given.insert(partition.clone()),
                    "{partition} is given twice"
                );
            }
        }
    }

    /// No two members that the coordinator knows read the same partition.
    fn check_owners(&self) {
        let mut owners: BTreeMap<i32, &str> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.alive) {
            if !self
                .coordinator
                .members
                .contains_key(node.member.member_id())
            {
                continue;
            }
            for number in node.positions.keys() {
                let other = owners.insert(*number, node.member.member_id());
                assert!(
                    other.is_none(),
                    "partition {number}: {other:?} and {}",
                    node.member.member_id()
                );
            }
        }
    }

    fn check_settled(&self) {
        let alive: Vec<&Node> = self.nodes.iter().filter(|node| node.alive).collect();
        let mut read = BTreeSet::new();
        for node in &alive {
            assert!(node.member.is_stable(), "{:?}", node.member);
            assert_eq!(node.member.generation(), Some(self.coordinator.generation));
            let owned: BTreeSet<i32> = node
                .member
                .owned()
                .iter()
                .map(|owned| owned.partition)
                .collect();
            assert_eq!(owned, node.positions.keys().copied().collect());
            read.extend(owned);
        }
        assert_eq!(
            read,
            (0..self.partitions).collect(),
            "not every partition is read"
        );
        let fair = usize::try_from(self.partitions).unwrap() / alive.len();
        for node in &alive {
            let share = node.positions.len();
            assert!(
                share == fair || share == fair + 1,
                "{share} partitions, {fair} would be fair"
            );
        }
    }
}

fn run_schedule(seed: u64) -> Fired {
    let mut world = World::new(seed);
    world.run(CHAOS_MS + CALM_MS / 2);
    let before = world.coordinator.committed.clone();
    world.run(CHAOS_MS + CALM_MS);
    world.check_settled();
    for partition in 0..world.partitions {
        let (then, now) = (
            before.get(&partition).copied(),
            world.coordinator.committed.get(&partition).copied(),
        );
        assert!(now > then, "partition {partition} stands still at {now:?}");
    }
    world.fired
}

#[test]
fn no_schedule_of_faults_breaks_a_group() {
    if let Ok(seed) = std::env::var("TIDEGATE_GROUP_SEED") {
        run_schedule(seed.parse().expect("TIDEGATE_GROUP_SEED is a number"));
        return;
    }
    let mut total = Fired::default();
    for seed in 0..SCHEDULES {
        let result = std::panic::catch_unwind(|| run_schedule(seed));
        let Ok(fired) = result else {
            panic!("schedule {seed} failed: TIDEGATE_GROUP_SEED={seed} runs it alone");
        };
        total.lost_requests += fired.lost_requests;
        total.lost_answers += fired.lost_answers;
        total.silences += fired.silences;
        total.freezes += fired.freezes;
        total.deaths += fired.deaths;
        total.crashes += fired.crashes;
        total.fenced_commits += fired.fenced_commits;
        total.lost_partitions += fired.lost_partitions;
    }
    // A fault that never fired was not survived.
    for (what, count) in [
        ("lost requests", total.lost_requests),
        ("lost answers", total.lost_answers),
        ("silent connections", total.silences),
        ("frozen members", total.freezes),
        ("dead members", total.deaths),
        ("coordinator crashes", total.crashes),
        ("fenced commits", total.fenced_commits),
        ("lost partitions", total.lost_partitions),
    ] {
        assert!(count > 100, "{what}: {count}");
    }
}
