//! Members of the new protocol against a model of the coordinator, which moves. The schedules, and what is checked, are those of
//! [`crate::consumer::simulation`]; here is besides that a heartbeat names exactly what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::simulation::{
    self, Answers, Machine, Model, Node, REBALANCE_MS, Random, Route, Signal, Step, World,
    run_schedules,
};
use super::{Action, Answer, Event, Heartbeat, Member, Settings, TopicId};

const SCHEDULES: u64 = 150;
const SESSION_MS: u64 = 4_000;
const INTERVAL_MS: u64 = 1_000;
const TOPIC: TopicId = [7; 16];

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

    /// Forgets a member, if it knew it, and divides what it had.
    fn forget(&mut self, id: &str) {
        if self.members.remove(id).is_some() {
            self.target.remove(id);
            self.divide();
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
            Signal::CommitRefused(code, epoch) => Event::CommitRefused { code, epoch },
        }
    }

    fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.handle(now, event)
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.next_deadline()
    }

    fn generation(&self) -> Option<i32> {
        self.epoch()
    }

    fn is_settled(&self) -> bool {
        self.is_settled()
    }

    fn held(&self) -> BTreeSet<i32> {
        self.held().map(|held| held.partition).collect()
    }

    fn leave(&mut self) {
        self.leave();
    }
}

impl Model for Coordinator {
    type Member = Member;
    type Request = Heartbeat;

    fn new(random: &mut Random) -> Self {
        Self {
            partitions: i32::try_from(1 + random.below(12)).unwrap(),
            ..Self::default()
        }
    }

    fn new_member(&self) -> Member {
        let settings = Settings {
            rebalance_timeout: Duration::from_millis(REBALANCE_MS),
            request_timeout: Duration::from_secs(5),
            assignor: None,
        };
        Member::new(settings, &["t"])
    }

    fn id(node: usize, _member: &Member) -> String {
        format!("member-{node:03}")
    }

    fn step(&self, node: &Node<Member>, action: Action) -> Step<Heartbeat, Event> {
        match action {
            Action::Connect => Step::Connect,
            Action::Disconnect => Step::Disconnect,
            Action::LookUpTopics => {
                let names = BTreeMap::from([(TOPIC, "t".to_owned())]);
                Step::LookUp(Event::Named(names))
            }
            Action::Heartbeat(heartbeat) => {
                if let Some(told) = &heartbeat.held {
                    let told: BTreeSet<i32> = told.iter().map(|(_, number)| *number).collect();
                    let held = node.positions.keys().copied().collect();
                    assert_eq!(told, held, "what is read is what is told");
                }
                Step::Request(heartbeat)
            }
            Action::RebalanceDue => Step::RebalanceDue,
            Action::Revoked(partitions) => Step::Revoked(partitions),
            Action::Lost(partitions) => Step::Lost(partitions),
            Action::Assigned(partitions) => Step::Assigned(partitions),
            Action::Fail { code, said } => panic!("{code} {said:?}"),
        }
    }

    fn arrive(world: &mut World<Self>, route: Route, heartbeat: Heartbeat) -> Answers<Self> {
        let answer = if world.chance(2) {
            world.count("coordinators that moved");
            let codes = [14, 15, 16];
            let code = codes[usize::try_from(world.random.below(3)).unwrap()];
            Self::refuse(code)
        } else {
            let id = world.id(route.0);
            world.coordinator.heartbeat(world.now, &id, &heartbeat)
        };
        vec![(route, Event::Beaten(answer))]
    }

    fn commit(&mut self, _now: u64, id: &str, epoch: i32, positions: &BTreeMap<i32, i64>) -> i16 {
        let Some(known) = self.members.get(id) else {
            return 25;
        };
        if known.epoch != epoch {
            return 113;
        }
        simulation::store(&mut self.committed, positions);
        0
    }

    fn refusal(code: i16) -> &'static str {
        match code {
            113 => "stale commits",
            _ => "fenced commits",
        }
    }

    fn remove(&mut self, _now: u64, id: &str) -> Answers<Self> {
        self.forget(id);
        Vec::new()
    }

    fn watch(&mut self, now: u64) -> Answers<Self> {
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
            self.forget(&id);
        }
        Vec::new()
    }

    /// Everything is stored before it is answered, so that nothing is forgotten.
    fn crash(_world: &mut World<Self>) {}

    fn grow(world: &mut World<Self>) {
        world.coordinator.partitions += 1;
        world.coordinator.divide();
    }

    fn generation(&self) -> i32 {
        self.epoch
    }

    fn partitions(&self) -> i32 {
        self.partitions
    }

    fn knows(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    fn committed(&self) -> &BTreeMap<i32, i64> {
        &self.committed
    }
}

#[test]
fn no_schedule_of_faults_breaks_a_modern_group() {
    let faults = [
        "lost requests",
        "lost answers",
        "silent connections",
        "frozen members",
        "dead members",
        "coordinators that moved",
        "stale commits",
        "fenced commits",
        "lost partitions",
        "revoked partitions",
    ];
    run_schedules::<Coordinator>(SCHEDULES, &faults);
}
