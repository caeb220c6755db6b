//! Members of the new protocol against a model of the coordinator, through seeded schedules of lost requests and answers, silent and broken
//! connections, members that freeze until they are evicted, die, leave and come, a coordinator that moves, and topics that grow.
//!
//! After each step: no partition is read by two members that the coordinator knows, and no accepted commit goes backwards. When the faults
//! have ended: the group settles, every partition is read by exactly one member, evenly, and commits move on.
//!
//! A failure names its seed; `TIDEGATE_GROUP_SEED=N` runs that one alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use super::super::assignor::TopicPartition;
use super::super::group::simulation::Random;
use super::{Action, Answer, Event, Heartbeat, Member, Settings, TopicId};

const SCHEDULES: u64 = 150;
const CHAOS_MS: u64 = 120_000;
const CALM_MS: u64 = 120_000;
const SESSION_MS: u64 = 4_000;
const REBALANCE_MS: u64 = 20_000;
const INTERVAL_MS: u64 = 1_000;
const TOPIC: TopicId = [7; 16];

/// Where an answer goes: a node, and which of its connections.
type Route = (usize, u64);

/// A member as the coordinator knows it (Kafka: ConsumerGroupMember).
#[derive(Clone, Debug, Default)]
struct Known {
    epoch: i32,
    previous_epoch: i32,
    assigned: BTreeSet<i32>,
    revoking: BTreeSet<i32>,
    /// Whether some of its target is held by others yet.
    waits: bool,
    last_seen: u64,
    revoke_until: Option<u64>,
}

/// The coordinator, as Kafka's is by GroupMetadataManager and CurrentAssignmentBuilder.
#[derive(Debug, Default)]
struct Coordinator {
    epoch: i32,
    partitions: i32,
    members: BTreeMap<String, Known>,
    target: BTreeMap<String, BTreeSet<i32>>,
    committed: BTreeMap<i32, i64>,
}

impl Coordinator {
    /// Evenly, and with as few changes as that allows.
    fn divide(&mut self) {
        self.epoch += 1;
        let count = self.members.len();
        if count == 0 {
            return self.target.clear();
        }
        let all = usize::try_from(self.partitions).unwrap();
        let (least, mut larger) = (all / count, all % count);
        let mut free: BTreeSet<i32> = (0..self.partitions).collect();
        let mut target = BTreeMap::new();
        for id in self.members.keys() {
            let before = self.target.get(id).cloned().unwrap_or_default();
            let mut quota = least;
            if larger > 0 && before.len() > least {
                (quota, larger) = (quota + 1, larger - 1);
            }
            let kept: BTreeSet<i32> = before.into_iter().take(quota).collect();
            free.retain(|partition| !kept.contains(partition));
            target.insert(id.clone(), kept);
        }
        for kept in target.values_mut() {
            while kept.len() < least {
                kept.insert(free.pop_first().expect("enough for all"));
            }
        }
        for kept in target.values_mut().filter(|kept| kept.len() == least) {
            kept.extend(free.pop_first());
        }
        assert!(free.is_empty());
        self.target = target;
    }

    fn refuse(code: i16) -> Answer {
        Answer {
            code,
            ..Answer::default()
        }
    }

    fn heartbeat(&mut self, now: u64, id: &str, heartbeat: &Heartbeat) -> Answer {
        let held: Option<BTreeSet<i32>> = heartbeat
            .held
            .as_ref()
            .map(|held| held.iter().map(|(_, number)| *number).collect());
        let is_full = heartbeat.rebalance_timeout.is_some()
            && heartbeat.topics.is_some()
            && heartbeat.held.is_some();
        if heartbeat.epoch == 0 {
            assert!(is_full, "who joins says everything");
            assert_eq!(held, Some(BTreeSet::new()), "who joins holds nothing");
            if !self.members.contains_key(id) {
                self.members.insert(id.to_owned(), Known::default());
                self.divide();
            }
        } else {
            let Some(known) = self.members.get(id) else {
                return Self::refuse(25);
            };
            let is_subset = held
                .as_ref()
                .is_some_and(|held| held.is_subset(&known.assigned));
            let is_previous = heartbeat.epoch == known.previous_epoch && is_subset;
            if heartbeat.epoch != known.epoch && !is_previous {
                return Self::refuse(110);
            }
        }
        let before = self.members[id].assigned.clone();
        self.reconcile(now, id, held.as_ref());
        let known = self.members.get_mut(id).expect("a member");
        known.last_seen = now;
        let assigned = known.assigned.iter();
        let tells = is_full || known.assigned != before;
        Answer {
            epoch: known.epoch,
            interval: Duration::from_millis(INTERVAL_MS),
            assignment: tells.then(|| assigned.map(|number| (TOPIC, *number)).collect()),
            ..Answer::default()
        }
    }

    fn reconcile(&mut self, now: u64, id: &str, held: Option<&BTreeSet<i32>>) {
        let mut known = self.members[id].clone();
        let still_holds =
            |revoking: &BTreeSet<i32>| held.is_none_or(|held| !held.is_disjoint(revoking));
        if !known.revoking.is_empty() {
            if still_holds(&known.revoking) {
                return;
            }
            known.revoking.clear();
        } else if known.epoch == self.epoch && !known.waits {
            return;
        }
        known.revoke_until = None;
        self.members.insert(id.to_owned(), known.clone());
        let target = &self.target[id];
        let kept: BTreeSet<i32> = known.assigned.intersection(target).copied().collect();
        let revoking: BTreeSet<i32> = known.assigned.difference(&kept).copied().collect();
        known.assigned = kept;
        if !revoking.is_empty() && still_holds(&revoking) {
            known.revoking = revoking;
            known.revoke_until = Some(now + REBALANCE_MS);
        } else {
            let others: BTreeSet<i32> = self
                .members
                .iter()
                .filter(|(other, _)| *other != id)
                .flat_map(|(_, other)| other.assigned.union(&other.revoking))
                .copied()
                .collect();
            known.waits = target.iter().any(|number| others.contains(number));
            known.assigned.extend(target.difference(&others));
            if known.epoch != self.epoch {
                known.previous_epoch = known.epoch;
                known.epoch = self.epoch;
            }
        }
        self.members.insert(id.to_owned(), known);
    }

    fn commit(&mut self, id: &str, epoch: i32, positions: &BTreeMap<i32, i64>) -> i16 {
        let Some(known) = self.members.get(id) else {
            return 25;
        };
        if known.epoch != epoch {
            return 113;
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

    fn remove(&mut self, id: &str) {
        if self.members.remove(id).is_some() {
            self.target.remove(id);
            self.divide();
        }
    }

    fn watch(&mut self, now: u64) {
        let late = |known: &Known| {
            now > known.last_seen + SESSION_MS
                || known.revoke_until.is_some_and(|until| now > until)
        };
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, known)| late(known))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove(&id);
        }
    }
}

enum Happening {
    Wake(usize),
    Work(usize),
    Send(Route, Heartbeat),
    Deliver(Route, Event),
    /// The node notices that this connection broke.
    Break(Route),
    Watch,
    Chaos,
}

struct Node {
    id: String,
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
    moves: u32,
    stale_commits: u32,
    fenced_commits: u32,
    lost_partitions: u32,
    revoked_partitions: u32,
}

struct World {
    now: u64,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    sequence: u64,
    nodes: Vec<Node>,
    coordinator: Coordinator,
    fired: Fired,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let coordinator = Coordinator {
            partitions: i32::try_from(1 + random.below(12)).unwrap(),
            ..Coordinator::default()
        };
        let mut world = Self {
            now: 0,
            random,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            coordinator,
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
        let settings = Settings {
            rebalance_timeout: Duration::from_millis(REBALANCE_MS),
            request_timeout: Duration::from_secs(5),
            assignor: None,
        };
        self.nodes.push(Node {
            id: format!("member-{:03}", self.nodes.len()),
            member: Member::new(settings, &["t"]),
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
            Happening::Send(route, heartbeat) => self.arrive(route, &heartbeat),
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
                self.coordinator.watch(self.now);
                self.after(500, Happening::Watch);
            }
            Happening::Chaos => self.chaos(),
        }
    }

    fn feed(&mut self, node: usize, event: Event) {
        let now = Duration::from_millis(self.now);
        for action in self.nodes[node].member.handle(now, event) {
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
        let route = (node, self.nodes[node].connection);
        match action {
            Action::Connect => {
                let delay = 1 + self.random.below(50);
                self.nodes[node].connection += 1;
                let event = if self.chance(10) {
                    Event::Disconnected
                } else {
                    Event::Connected
                };
                let route = (node, self.nodes[node].connection);
                self.after(delay, Happening::Deliver(route, event));
            }
            Action::Disconnect => self.nodes[node].connection += 1,
            Action::LookUpTopics => {
                let delay = 1 + self.random.below(100);
                let names = BTreeMap::from([(TOPIC, "t".to_owned())]);
                self.after(delay, Happening::Deliver(route, Event::Named(names)));
            }
            Action::Heartbeat(heartbeat) => {
                let held: BTreeSet<i32> = self.nodes[node].positions.keys().copied().collect();
                if let Some(told) = &heartbeat.held {
                    let told: BTreeSet<i32> = told.iter().map(|(_, number)| *number).collect();
                    assert_eq!(told, held, "what is read is what is told");
                }
                let delay = 1 + self.random.below(30);
                if self.chance(3) {
                    self.fired.lost_requests += 1;
                    self.break_or_stay_silent(route);
                } else {
                    self.after(delay, Happening::Send(route, heartbeat));
                }
            }
            Action::RebalanceDue => {}
            Action::Revoked(partitions) => {
                self.fired.revoked_partitions += 1;
                self.stop_reading(node, &partitions);
            }
            Action::Lost(partitions) => {
                self.fired.lost_partitions += 1;
                self.stop_reading(node, &partitions);
            }
            Action::Assigned(partitions) => {
                for partition in partitions {
                    let number = partition.partition;
                    let committed = self.coordinator.committed.get(&number).copied();
                    self.nodes[node]
                        .positions
                        .insert(number, committed.unwrap_or(0));
                }
            }
            Action::Fail { code, said } => panic!("{code} {said:?}"),
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

    fn arrive(&mut self, route: Route, heartbeat: &Heartbeat) {
        let id = self.nodes[route.0].id.clone();
        let answer = if self.chance(2) {
            self.fired.moves += 1;
            let codes = [14, 15, 16];
            let code = codes[usize::try_from(self.random.below(3)).unwrap()];
            Coordinator::refuse(code)
        } else {
            self.coordinator.heartbeat(self.now, &id, heartbeat)
        };
        if self.chance(3) {
            self.fired.lost_answers += 1;
            self.break_or_stay_silent(route);
        } else {
            let delay = 1 + self.random.below(30);
            self.after(delay, Happening::Deliver(route, Event::Beaten(answer)));
        }
    }

    /// One turn of the program around the member: what was read is committed, and then the rebalance may go on.
    fn work(&mut self, node: usize) {
        let epoch = self.nodes[node].member.epoch();
        for offset in self.nodes[node].positions.values_mut() {
            *offset += 1;
        }
        if let Some(epoch) = epoch
            && !self.nodes[node].positions.is_empty()
            && !self.chance(5)
        {
            let (id, positions) = (
                self.nodes[node].id.clone(),
                self.nodes[node].positions.clone(),
            );
            let code = self.coordinator.commit(&id, epoch, &positions);
            match code {
                0 => {}
                113 => self.fired.stale_commits += 1,
                _ => self.fired.fenced_commits += 1,
            }
            if code != 0 {
                self.feed(node, Event::CommitRefused { code, epoch });
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
                    let id = self.nodes[node].id.clone();
                    self.coordinator.remove(&id);
                }
            }
            4 | 5 if self.nodes.len() < 8 => self.add_node(),
            6 | 7 => {
                for index in 0..self.nodes.len() {
                    let route = (index, self.nodes[index].connection);
                    self.after(1 + index as u64, Happening::Break(route));
                }
            }
            8 => {
                self.coordinator.partitions += 1;
                self.coordinator.divide();
            }
            _ => {}
        }
        let delay = 500 + self.random.below(8000);
        self.after(delay, Happening::Chaos);
    }

    /// No two members that the coordinator knows read the same partition.
    fn check_owners(&self) {
        let mut owners: BTreeMap<i32, &str> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.alive) {
            if !self.coordinator.members.contains_key(&node.id) {
                continue;
            }
            for number in node.positions.keys() {
                let other = owners.insert(*number, &node.id);
                assert!(
                    other.is_none(),
                    "partition {number}: {other:?} and {}",
                    node.id
                );
            }
        }
    }

    fn check_settled(&self) {
        let alive: Vec<&Node> = self.nodes.iter().filter(|node| node.alive).collect();
        let mut read = BTreeSet::new();
        for node in &alive {
            assert!(node.member.is_settled(), "{:?}", node.member);
            assert_eq!(node.member.epoch(), Some(self.coordinator.epoch));
            let held: BTreeSet<i32> = node.member.held().map(|held| held.partition).collect();
            assert_eq!(held, node.positions.keys().copied().collect());
            read.extend(held);
        }
        assert_eq!(
            read,
            (0..self.coordinator.partitions).collect(),
            "not every partition is read"
        );
        let fair = usize::try_from(self.coordinator.partitions).unwrap() / alive.len();
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
    for partition in 0..world.coordinator.partitions {
        let (then, now) = (
            before.get(&partition).copied(),
            world.coordinator.committed.get(&partition).copied(),
        );
        assert!(now > then, "partition {partition} stands still at {now:?}");
    }
    world.fired
}

#[test]
fn no_schedule_of_faults_breaks_a_modern_group() {
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
        total.moves += fired.moves;
        total.stale_commits += fired.stale_commits;
        total.fenced_commits += fired.fenced_commits;
        total.lost_partitions += fired.lost_partitions;
        total.revoked_partitions += fired.revoked_partitions;
    }
    // A fault that never fired was not survived.
    for (what, count) in [
        ("lost requests", total.lost_requests),
        ("lost answers", total.lost_answers),
        ("silent connections", total.silences),
        ("frozen members", total.freezes),
        ("dead members", total.deaths),
        ("coordinators that moved", total.moves),
        ("stale commits", total.stale_commits),
        ("fenced commits", total.fenced_commits),
        ("lost partitions", total.lost_partitions),
        ("revoked partitions", total.revoked_partitions),
    ] {
        assert!(count > 100, "{what}: {count}");
    }
}
