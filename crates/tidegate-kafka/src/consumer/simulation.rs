//! What the simulations of group members share: seeded schedules of lost requests and answers, silent and broken connections, members that
//! freeze until they are evicted, die, leave and come, coordinators that fail, and topics that grow. Each protocol brings its own [`Machine`] and
//! its own [`Model`] of the coordinator ([`super::group`], [`super::modern`]).
//!
//! After each step: no partition is read by two members that the coordinator knows, and no accepted commit goes backwards. When the faults
//! have ended: the group settles, every partition is read by exactly one member, evenly, and commits move on.
//!
//! A failure names its seed; `TIDEGATE_GROUP_SEED=N` runs that one alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::time::Duration;

use super::assignor::TopicPartition;

const CHAOS_MS: u64 = 120_000;
const CALM_MS: u64 = 120_000;
pub(super) const REBALANCE_MS: u64 = 20_000;

/// Where an answer goes: a node, and which of its connections.
pub(super) type Route = (usize, u64);

/// What the coordinator answers, and to whom.
pub(super) type Answers<M> = Vec<(Route, EventOf<M>)>;

pub(super) type EventOf<M> = <<M as Model>::Member as Machine>::Event;

/// How often each kind of fault happened.
type Fired = BTreeMap<&'static str, u32>;

/// SplitMix64: small, and the same on every machine.
pub(super) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What any member is told, by whichever protocol.
pub(super) enum Signal {
    Tick,
    Connected,
    Disconnected,
    Proceed,
    /// A commit was refused with this code to the member as it was in this generation.
    CommitRefused(i16, i32),
}

/// What any member wants done, by whichever protocol.
pub(super) enum Step<R, E> {
    Connect,
    Disconnect,
    /// To the coordinator.
    Request(R),
    /// A look at metadata, which will bring this.
    LookUp(E),
    RebalanceDue,
    Revoked(Vec<TopicPartition>),
    Lost(Vec<TopicPartition>),
    Assigned(Vec<TopicPartition>),
}

/// The state machine of a member, as the simulation drives it.
pub(super) trait Machine: fmt::Debug {
    type Event;
    type Action;

    fn signal(signal: Signal) -> Self::Event;
    fn handle(&mut self, now: Duration, event: Self::Event) -> Vec<Self::Action>;
    fn next_deadline(&self) -> Option<Duration>;
    /// The generation, or the epoch, in which it may commit.
    fn generation(&self) -> Option<i32>;
    fn is_settled(&self) -> bool;
    fn held(&self) -> BTreeSet<i32>;
    fn leave(&mut self);
}

/// The coordinator, as Kafka's behaves by one of the protocols.
pub(super) trait Model: Sized {
    type Member: Machine;
    type Request;

    fn new(random: &mut Random) -> Self;
    fn new_member(&self) -> Self::Member;
    /// By which the coordinator knows the member of this node.
    fn id(node: usize, member: &Self::Member) -> String;
    fn step(
        &self,
        node: &Node<Self::Member>,
        action: <Self::Member as Machine>::Action,
    ) -> Step<Self::Request, EventOf<Self>>;
    /// A request has come.
    fn arrive(world: &mut World<Self>, route: Route, request: Self::Request) -> Answers<Self>;
    /// 0, or why the commit is refused.
    fn commit(
        &mut self,
        now: u64,
        id: &str,
        generation: i32,
        positions: &BTreeMap<i32, i64>,
    ) -> i16;
    /// Which fault it is that a commit is refused with this code.
    fn refusal(code: i16) -> &'static str;
    fn remove(&mut self, now: u64, id: &str) -> Answers<Self>;
    /// Looks who is late.
    fn watch(&mut self, now: u64) -> Answers<Self>;
    /// The coordinator fails, just before all connections break.
    fn crash(world: &mut World<Self>);
    /// The topic grows by a partition.
    fn grow(world: &mut World<Self>);
    fn generation(&self) -> i32;
    fn partitions(&self) -> i32;
    fn knows(&self, id: &str) -> bool;
    fn committed(&self) -> &BTreeMap<i32, i64>;
}

/// Stores what was committed, which never goes backwards.
pub(super) fn store(committed: &mut BTreeMap<i32, i64>, positions: &BTreeMap<i32, i64>) {
    for (partition, offset) in positions {
        let committed = committed.entry(*partition).or_insert(0);
        assert!(
            offset >= committed,
            "partition {partition}: commit {offset} after {committed}"
        );
        *committed = *offset;
    }
}

enum Happening<R, E> {
    Wake(usize),
    Work(usize),
    Send(Route, R),
    Deliver(Route, E),
    /// The node notices that this connection broke.
    Break(Route),
    Watch,
    Chaos,
}

/// A process with a member.
pub(super) struct Node<T> {
    member: T,
    alive: bool,
    frozen_until: u64,
    connection: u64,
    wakes_at: Option<u64>,
    /// What is read, and up to where.
    pub(super) positions: BTreeMap<i32, i64>,
}

pub(super) struct World<M: Model> {
    pub(super) now: u64,
    pub(super) random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening<M::Request, EventOf<M>>>,
    sequence: u64,
    nodes: Vec<Node<M::Member>>,
    pub(super) coordinator: M,
    fired: Fired,
}

impl<M: Model> World<M> {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let coordinator = M::new(&mut random);
        let mut world = Self {
            now: 0,
            random,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            coordinator,
            fired: Fired::new(),
        };
        for _ in 0..=world.random.below(4) {
            world.add_node();
        }
        world.after(1000, Happening::Watch);
        world.after(2000, Happening::Chaos);
        world
    }

    fn after(&mut self, delay: u64, happening: Happening<M::Request, EventOf<M>>) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    fn add_node(&mut self) {
        self.nodes.push(Node {
            member: self.coordinator.new_member(),
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

    /// Notes that this fault happened.
    pub(super) fn count(&mut self, fault: &'static str) {
        *self.fired.entry(fault).or_default() += 1;
    }

    pub(super) fn id(&self, node: usize) -> String {
        M::id(node, &self.nodes[node].member)
    }

    fn route(&self, node: usize) -> Route {
        (node, self.nodes[node].connection)
    }

    fn in_chaos(&self) -> bool {
        self.now < CHAOS_MS
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
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

    fn happen(&mut self, happening: Happening<M::Request, EventOf<M>>) {
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
                self.signal(node, Signal::Tick);
            }
            Happening::Work(node) => self.work(node),
            Happening::Send(route, request) => {
                let answers = M::arrive(self, route, request);
                self.answer(answers);
            }
            Happening::Deliver(route, event) => {
                if self.nodes[route.0].connection == route.1 {
                    self.feed(route.0, event);
                }
            }
            Happening::Break(route) => {
                if self.nodes[route.0].connection == route.1 {
                    self.nodes[route.0].connection += 1;
                    self.signal(route.0, Signal::Disconnected);
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

    fn signal(&mut self, node: usize, signal: Signal) {
        self.feed(node, M::Member::signal(signal));
    }

    fn feed(&mut self, node: usize, event: EventOf<M>) {
        let now = Duration::from_millis(self.now);
        for action in self.nodes[node].member.handle(now, event) {
            let step = self.coordinator.step(&self.nodes[node], action);
            self.act(node, step);
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

    fn act(&mut self, node: usize, step: Step<M::Request, EventOf<M>>) {
        match step {
            Step::Connect => {
                let delay = 1 + self.random.below(50);
                self.nodes[node].connection += 1;
                let signal = if self.chance(10) {
                    Signal::Disconnected
                } else {
                    Signal::Connected
                };
                let event = M::Member::signal(signal);
                self.after(delay, Happening::Deliver(self.route(node), event));
            }
            Step::Disconnect => self.nodes[node].connection += 1,
            Step::LookUp(event) => {
                let delay = 1 + self.random.below(100);
                self.after(delay, Happening::Deliver(self.route(node), event));
            }
            Step::Request(request) => {
                let route = self.route(node);
                let delay = 1 + self.random.below(30);
                if self.chance(3) {
                    self.count("lost requests");
                    self.break_or_stay_silent(route);
                } else {
                    self.after(delay, Happening::Send(route, request));
                }
            }
            Step::RebalanceDue => {}
            Step::Revoked(partitions) => {
                self.count("revoked partitions");
                self.stop_reading(node, &partitions);
            }
            Step::Lost(partitions) => {
                self.count("lost partitions");
                self.stop_reading(node, &partitions);
            }
            Step::Assigned(partitions) => {
                for partition in partitions {
                    let number = partition.partition;
                    let committed = self.coordinator.committed().get(&number).copied();
                    self.nodes[node]
                        .positions
                        .insert(number, committed.unwrap_or(0));
                }
            }
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
            self.count("silent connections");
        }
    }

    fn answer(&mut self, answers: Answers<M>) {
        for (route, event) in answers {
            if self.chance(3) {
                self.count("lost answers");
                self.break_or_stay_silent(route);
            } else {
                let delay = 1 + self.random.below(30);
                self.after(delay, Happening::Deliver(route, event));
            }
        }
    }

    /// Every node learns of this at once.
    pub(super) fn tell_all(&mut self, event: impl Fn() -> EventOf<M>) {
        for node in 0..self.nodes.len() {
            self.after(1, Happening::Deliver(self.route(node), event()));
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
            let id = self.id(node);
            let positions = &self.nodes[node].positions;
            let code = self
                .coordinator
                .commit(self.now, &id, generation, positions);
            if code != 0 {
                self.count(M::refusal(code));
                self.signal(node, Signal::CommitRefused(code, generation));
            }
        }
        self.signal(node, Signal::Proceed);
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
                self.count("frozen members");
                self.nodes[node].frozen_until = self.now + self.random.below(25_000);
            }
            3 if self.nodes.iter().filter(|node| node.alive).count() > 1 => {
                self.count("dead members");
                self.nodes[node].alive = false;
                if self.random.percent(50) {
                    self.nodes[node].member.leave();
                    let id = self.id(node);
                    let answers = self.coordinator.remove(self.now, &id);
                    self.answer(answers);
                }
            }
            4 | 5 if self.nodes.len() < 8 => self.add_node(),
            6 | 7 => {
                M::crash(self);
                for index in 0..self.nodes.len() {
                    self.after(1 + index as u64, Happening::Break(self.route(index)));
                }
            }
            8 => M::grow(self),
            _ => {}
        }
        let delay = 500 + self.random.below(8000);
        self.after(delay, Happening::Chaos);
    }

    /// No two members that the coordinator knows read the same partition.
    fn check_owners(&self) {
        let mut owners: BTreeMap<i32, String> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let id = self.id(index);
            if !node.alive || !self.coordinator.knows(&id) {
                continue;
            }
            for number in node.positions.keys() {
                let other = owners.insert(*number, id.clone());
                assert!(other.is_none(), "partition {number}: {other:?} and {id}");
            }
        }
    }

    fn check_settled(&self) {
        let alive: Vec<_> = self.nodes.iter().filter(|node| node.alive).collect();
        let mut read = BTreeSet::new();
        for node in &alive {
            assert!(node.member.is_settled(), "{:?}", node.member);
            assert_eq!(
                node.member.generation(),
                Some(self.coordinator.generation())
            );
            let held = node.member.held();
            assert_eq!(held, node.positions.keys().copied().collect());
            read.extend(held);
        }
        let partitions = self.coordinator.partitions();
        assert_eq!(
            read,
            (0..partitions).collect(),
            "not every partition is read"
        );
        let fair = usize::try_from(partitions).unwrap() / alive.len();
        for node in &alive {
            let share = node.positions.len();
            assert!(
                share == fair || share == fair + 1,
                "{share} partitions, {fair} would be fair"
            );
        }
    }
}

fn run_schedule<M: Model>(seed: u64) -> Fired {
    let mut world = World::<M>::new(seed);
    world.run(CHAOS_MS + CALM_MS / 2);
    let before = world.coordinator.committed().clone();
    world.run(CHAOS_MS + CALM_MS);
    world.check_settled();
    for partition in 0..world.coordinator.partitions() {
        let (then, now) = (
            before.get(&partition).copied(),
            world.coordinator.committed().get(&partition).copied(),
        );
        assert!(now > then, "partition {partition} stands still at {now:?}");
    }
    world.fired
}

/// Runs the schedules of the seeds below `schedules`, or the one that was asked for, and checks that all these faults happened often.
pub(super) fn run_schedules<M: Model>(schedules: u64, faults: &[&str]) {
    if let Ok(seed) = std::env::var("TIDEGATE_GROUP_SEED") {
        run_schedule::<M>(seed.parse().expect("TIDEGATE_GROUP_SEED is a number"));
        return;
    }
    let mut total = Fired::new();
    for seed in 0..schedules {
        let result = std::panic::catch_unwind(|| run_schedule::<M>(seed));
        let Ok(fired) = result else {
            panic!("schedule {seed} failed: TIDEGATE_GROUP_SEED={seed} runs it alone");
        };
        for (fault, count) in fired {
            *total.entry(fault).or_default() += count;
        }
    }
    // A fault that never fired was not survived.
    for fault in faults {
        let count = total.get(fault).copied().unwrap_or(0);
        assert!(count > 100, "{fault}: {count}");
    }
}
