//! The model: brokers with logs and a memory of producers, a network that delays and breaks, and the schedule that drives both.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use tidegate_kafka::producer::machine::{
    Action, Answer, BatchId, BrokenRule, Event, Identity, Leader, LinkId, Machine, Rules, Slot,
};

use crate::random::Random;

const NODES: i32 = 3;
/// Faults happen before this moment (ms); afterwards the cluster is well.
const HEALED: u64 = 4_000;
/// By then everything must have settled: 30 s after the last fault.
const GIVEN_UP: u64 = HEALED + 30_000;
const REQUEST_TIMEOUT: u64 = 700;
/// A broker remembers this many batches of a producer.
const REMEMBERED: usize = 5;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Broken(String),
}

/// Faults that really happened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests_lost: u64,
    pub(crate) requests_late: u64,
    pub(crate) answers_lost: u64,
    pub(crate) timeouts: u64,
    pub(crate) late_answers: u64,
    pub(crate) disconnects: u64,
    pub(crate) refused_opens: u64,
    pub(crate) errors_before_append: u64,
    pub(crate) errors_after_append: u64,
    pub(crate) leader_moves: u64,
    pub(crate) restarts: u64,
    pub(crate) memories_lost: u64,
    pub(crate) duplicates_recognised: u64,
    pub(crate) metadata_failed: u64,
    pub(crate) metadata_stale_or_missing: u64,
    pub(crate) throttled: u64,
    pub(crate) identities_renewed: u64,
    pub(crate) truncations: u64,
}

impl Counts {
    fn fields(&mut self) -> [(&'static str, &mut u64); 18] {
        [
            ("requests_lost", &mut self.requests_lost),
            ("requests_late", &mut self.requests_late),
            ("answers_lost", &mut self.answers_lost),
            ("timeouts", &mut self.timeouts),
            ("late_answers", &mut self.late_answers),
            ("disconnects", &mut self.disconnects),
            ("refused_opens", &mut self.refused_opens),
            ("errors_before_append", &mut self.errors_before_append),
            ("errors_after_append", &mut self.errors_after_append),
            ("leader_moves", &mut self.leader_moves),
            ("restarts", &mut self.restarts),
            ("memories_lost", &mut self.memories_lost),
            ("duplicates_recognised", &mut self.duplicates_recognised),
            ("metadata_failed", &mut self.metadata_failed),
            (
                "metadata_stale_or_missing",
                &mut self.metadata_stale_or_missing,
            ),
            ("throttled", &mut self.throttled),
            ("identities_renewed", &mut self.identities_renewed),
            ("truncations", &mut self.truncations),
        ]
    }

    pub(crate) fn add(&mut self, other: &mut Self) {
        for ((_, sum), (_, more)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }

    pub(crate) fn assert_all_fired(&mut self) {
        for (name, count) in self.fields() {
            assert!(*count > 0, "the fault {name} never happened");
        }
    }
}

/// A batch in a log.
#[derive(Clone, Debug)]
struct Entry {
    batch: BatchId,
    base_offset: i64,
    producer_id: i64,
    sequence: i32,
    records: u32,
}

/// What a broker remembers of one producer on one partition.
#[derive(Clone, Debug, Default)]
struct Memory {
    last: VecDeque<(i32, u32, i64)>,
    next_sequence: i32,
}

#[derive(Debug)]
struct Partition {
    leader: i32,
    log: Vec<Entry>,
    next_offset: i64,
    memories: BTreeMap<i64, Memory>,
    /// Acknowledged records were lost by the cluster itself.
    truncated: bool,
}

#[derive(Clone, Debug)]
struct Request {
    slot: Slot,
    batch: BatchId,
    identity: Identity,
    sequence: i32,
}

#[derive(Debug)]
struct Link {
    node: i32,
    dropped: bool,
    /// When the last thing in each direction arrives: nothing overtakes.
    last_there: u64,
    last_back: u64,
    unanswered: usize,
    /// From here on nothing arrives any more.
    cut: bool,
}

#[derive(Debug)]
enum Happening {
    Seal(Slot),
    Opened(LinkId),
    Arrives(LinkId, Request),
    Answers(LinkId, Answer),
    /// The client notices that a link is gone.
    Breaks(LinkId, &'static str),
    Expires(LinkId),
    Metadata(Vec<Slot>, Option<Vec<(Slot, Leader)>>),
    Renewed,
    MoveLeader(Slot),
    Restart(i32),
    Truncate(Slot),
    Up(i32),
    Tick,
}

pub(crate) struct Schedule {
    random: Random,
    telling: bool,
    now: u64,
    order: u64,
    happenings: BTreeMap<u64, Happening>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    machine: Machine,
    partitions: Vec<Partition>,
    down: Vec<i32>,
    links: BTreeMap<LinkId, Link>,
    sealed: Vec<Vec<(BatchId, u32)>>,
    records: BTreeMap<BatchId, u32>,
    sends: BTreeMap<BatchId, u32>,
    settled: BTreeMap<BatchId, Slot>,
    counts: Counts,
    chance: u64,
    next_producer: i64,
    failure: Option<String>,
    broken: Option<String>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, broken: Option<BrokenRule>) -> Self {
        let mut random = Random::new(seed);
        let rules = Rules {
            delivery_timeout: Duration::from_secs(600),
            broken,
        };
        let mut machine = Machine::new(
            Identity {
                producer_id: 1,
                epoch: 0,
            },
            rules,
        );
        let count = random.between(1, 3);
        let mut partitions = Vec::new();
        for _ in 0..count {
            machine.add_partition();
            let leader = i32::try_from(random.below(NODES as u64)).unwrap();
            let memories = BTreeMap::new();
            partitions.push(Partition {
                leader,
                log: Vec::new(),
                next_offset: 0,
                memories,
                truncated: false,
            });
        }
        let chance = [0, 3, 10, 25][usize::try_from(random.below(4)).unwrap()];
        let sealed = vec![Vec::new(); partitions.len()];
        let mut schedule = Self {
            random,
            telling: false,
            now: 0,
            order: 0,
            happenings: BTreeMap::new(),
            queue: BinaryHeap::new(),
            machine,
            partitions,
            down: Vec::new(),
            links: BTreeMap::new(),
            sealed,
            records: BTreeMap::new(),
            sends: BTreeMap::new(),
            settled: BTreeMap::new(),
            counts: Counts::default(),
            chance,
            next_producer: 2,
            failure: None,
            broken: None,
        };
        schedule.plan();
        schedule
    }

    pub(crate) fn telling(mut self) -> Self {
        self.telling = true;
        self
    }

    /// Lays out what will happen by itself: batches, leader moves, restarts.
    fn plan(&mut self) {
        let batches = self.random.between(5, 50);
        let span = self.random.between(1, HEALED);
        for _ in 0..batches {
            let (at, slot) = (self.random.below(span), self.any_slot());
            self.at(at, Happening::Seal(slot));
        }
        if self.chance == 0 {
            return;
        }
        for _ in 0..self.random.below(5) {
            let (at, slot) = (self.random.below(HEALED), self.any_slot());
            self.at(at, Happening::MoveLeader(slot));
        }
        for _ in 0..self.random.below(3) {
            let at = self.random.below(HEALED);
            let node = i32::try_from(self.random.below(NODES as u64)).unwrap();
            self.at(at, Happening::Restart(node));
        }
        if self.random.percent(5) {
            let (at, slot) = (self.random.below(HEALED), self.any_slot());
            self.at(at, Happening::Truncate(slot));
        }
    }

    fn any_slot(&mut self) -> Slot {
        Slot(u32::try_from(self.random.below(self.partitions.len() as u64)).unwrap())
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.order += 1;
        self.happenings.insert(self.order, happening);
        self.queue.push(Reverse((time, self.order)));
    }

    fn fault(&mut self) -> bool {
        self.now < HEALED && self.random.percent(self.chance)
    }

    pub(crate) fn run(mut self) -> (Verdict, Counts) {
        while let Some(Reverse((time, order))) = self.queue.pop() {
            if self.broken.is_some() || self.failure.is_some() || time > GIVEN_UP {
                break;
            }
            self.now = time;
            let happening = self
                .happenings
                .remove(&order)
                .expect("each order has its happening");
            if self.telling {
                eprintln!("{time:>6} {happening:?}");
            }
            self.happen(happening);
        }
        let verdict = self.judge();
        (verdict, self.counts)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Seal(slot) => self.seal(slot),
            Happening::Opened(link) => self.opened(link),
            Happening::Arrives(link, request) => self.arrives(link, &request),
            Happening::Answers(link, answer) => self.answers(link, answer),
            Happening::Breaks(link, why) => self.breaks(link, why),
            Happening::Expires(link) => self.expires(link),
            Happening::Metadata(slots, stale) => self.metadata(&slots, stale),
            Happening::Renewed => {
                self.counts.identities_renewed += 1;
                let producer_id = self.next_producer;
                self.next_producer += 1;
                self.tell(Event::Renewed(Identity {
                    producer_id,
                    epoch: 0,
                }));
            }
            Happening::MoveLeader(slot) => {
                self.counts.leader_moves += 1;
                let partition = &mut self.partitions[slot.0 as usize];
                partition.leader = (partition.leader + 1) % NODES;
            }
            Happening::Restart(node) => self.restart(node),
            Happening::Truncate(slot) => self.truncate(slot),
            Happening::Up(node) => self.down.retain(|down| *down != node),
            Happening::Tick => self.tell(Event::Tick),
        }
    }

    /// Reports an event to the machine and does what it asks for.
    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine
            .handle(Duration::from_millis(self.now), event, &mut actions);
        for action in actions {
            if self.telling {
                eprintln!("         -> {action:?}");
            }
            self.carry_out(action);
        }
        if let Some(at) = self.machine.wake_at() {
            let at = u64::try_from(at.as_millis()).unwrap().max(self.now + 1);
            if at <= GIVEN_UP {
                self.at(at, Happening::Tick);
            }
        }
    }

    fn seal(&mut self, slot: Slot) {
        let batch = BatchId(self.records.len() as u64);
        let records = u32::try_from(self.random.between(1, 50)).unwrap();
        self.records.insert(batch, records);
        self.sealed[slot.0 as usize].push((batch, records));
        self.tell(Event::Sealed {
            slot,
            batch,
            records,
        });
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Open { link, node } => {
                let (last_there, last_back) = (self.now, self.now);
                let fresh = Link {
                    node,
                    dropped: false,
                    last_there,
                    last_back,
                    unanswered: 0,
                    cut: false,
                };
                self.links.insert(link, fresh);
                let at = self.now + self.random.between(1, 30);
                self.at(at, Happening::Opened(link));
            }
            Action::Close(link) => self.drop_link(link),
            Action::Send {
                link,
                slot,
                batch,
                identity,
                sequence,
            } => {
                *self.sends.entry(batch).or_default() += 1;
                self.send(
                    link,
                    Request {
                        slot,
                        batch,
                        identity,
                        sequence,
                    },
                );
            }
            Action::RefreshMetadata(slots) => {
                // Either what holds when the answer arrives, or what held when it was asked for.
                let stale = self.fault().then(|| self.leaders(&slots));
                let at = self.now + self.random.between(1, 40);
                self.at(at, Happening::Metadata(slots, stale));
            }
            Action::RenewIdentity => self.at(self.now + 5, Happening::Renewed),
            Action::Settle {
                slot,
                batch,
                base_offset,
            } => self.settle(slot, batch, base_offset),
            Action::Fail(failure) => self.failure = Some(failure.why),
        }
    }

    fn drop_link(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.dropped = true;
        }
    }

    fn opened(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id).filter(|link| !link.dropped) else {
            return;
        };
        if self.down.contains(&link.node) || self.fault() {
            self.counts.refused_opens += 1;
            return self.breaks(id, "refused");
        }
        self.tell(Event::Opened(id));
    }

    /// Puts a request on its way; what is sent on a link arrives in order or, from some point on, not at all.
    fn send(&mut self, id: LinkId, request: Request) {
        let (lost, cut_after) = (self.fault(), self.fault());
        let travel = self.random.between(1, 20);
        let slow = if self.fault() {
            self.random.between(50, 400)
        } else {
            0
        };
        let patience = self.now + REQUEST_TIMEOUT;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.unanswered += 1;
        let arrival = link.last_there.max(self.now) + travel + slow;
        link.last_there = arrival;
        let cut_before = link.cut;
        link.cut |= lost;
        if cut_before || lost {
            self.counts.requests_lost += 1;
            if self.random.percent(50) {
                let at = self.now + self.random.between(1, 50);
                self.at(at, Happening::Breaks(id, "reset"));
            }
        } else {
            self.at(arrival, Happening::Arrives(id, request));
            if cut_after {
                // The client loses the link although the request is on its way: it arrives, late.
                let at = self.now + self.random.between(1, 30);
                self.at(at, Happening::Breaks(id, "reset"));
            }
        }
        self.at(patience, Happening::Expires(id));
    }

    /// A link on which nothing came back for too long although something is due: the client drops it.
    fn expires(&mut self, id: LinkId) {
        let waiting = |link: &&Link| !link.dropped && link.unanswered > 0;
        let Some(link) = self.links.get(&id).filter(waiting) else {
            return;
        };
        let patience = link.last_back + REQUEST_TIMEOUT;
        if patience > self.now {
            return self.at(patience, Happening::Expires(id));
        }
        self.counts.timeouts += 1;
        self.breaks(id, "time-out");
    }

    fn breaks(&mut self, id: LinkId, why: &'static str) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.dropped) {
            link.dropped = true;
            self.counts.disconnects += 1;
            self.tell(Event::Lost {
                link: id,
                why: why.to_owned(),
            });
        }
    }

    /// The broker works on a request, also on one whose sender has given up.
    fn arrives(&mut self, id: LinkId, request: &Request) {
        let (node, dropped) = self
            .links
            .get(&id)
            .map_or((0, true), |link| (link.node, link.dropped));
        if self.down.contains(&node) {
            return;
        }
        if dropped {
            self.counts.requests_late += 1;
        }
        let answer = self.produce(node, request);
        if self.fault() {
            self.counts.answers_lost += 1;
            if let Some(link) = self.links.get_mut(&id) {
                link.cut = true;
            }
            return;
        }
        let travel = self.random.between(1, 20);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.cut {
            return;
        }
        let at = link.last_back.max(self.now) + travel;
        link.last_back = at;
        self.at(at, Happening::Answers(id, answer));
    }

    fn answers(&mut self, id: LinkId, answer: Answer) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.dropped {
            // It may already wait in the driver's queue behind the news that the link is gone.
            self.counts.late_answers += 1;
        }
        link.unanswered = link.unanswered.saturating_sub(1);
        link.last_back = link.last_back.max(self.now);
        self.tell(Event::Answered { link: id, answer });
    }

    fn produce(&mut self, node: i32, request: &Request) -> Answer {
        let throttle = if self.fault() && self.random.percent(20) {
            self.counts.throttled += 1;
            Duration::from_millis(self.random.between(1, 100))
        } else {
            Duration::ZERO
        };
        let answer = |code, base_offset| Answer {
            code,
            base_offset,
            throttle,
        };
        if self.partitions[request.slot.0 as usize].leader != node {
            return answer(6, -1);
        }
        if self.fault() {
            self.counts.errors_before_append += 1;
            // Only of a producer that is new to the partition: its batch travels alone, so none behind it is in doubt.
            let new = self.partitions[request.slot.0 as usize].memories.is_empty();
            let first_and_only = new
                && self.sends[&request.batch] == 1
                && self
                    .links
                    .values()
                    .filter(|link| !link.dropped)
                    .map(|link| link.unanswered)
                    .sum::<usize>()
                    == 1;
            if first_and_only && self.random.percent(30) {
                return answer(59, -1);
            }
            let codes = [3, 5, 6, 7, 19, 56, 2, 51];
            return answer(
                codes[usize::try_from(self.random.below(codes.len() as u64)).unwrap()],
                -1,
            );
        }
        let (code, base_offset) = self.append(request);
        if code == 0 && self.fault() {
            self.counts.errors_after_append += 1;
            return answer(if self.random.percent(50) { 20 } else { 7 }, -1);
        }
        answer(code, base_offset)
    }

    /// Appends as a broker does: a duplicate among the last five is recognised, a gap refused, an unknown producer believed.
    fn append(&mut self, request: &Request) -> (i16, i64) {
        let records = self.records[&request.batch];
        let partition = &mut self.partitions[request.slot.0 as usize];
        let producer_id = request.identity.producer_id;
        if let Some(memory) = partition.memories.get(&producer_id) {
            let same = |(sequence, count, _): &&(i32, u32, i64)| {
                *sequence == request.sequence && *count == records
            };
            if let Some((.., base_offset)) = memory.last.iter().find(same) {
                self.counts.duplicates_recognised += 1;
                return (0, *base_offset);
            }
            if memory.next_sequence != request.sequence {
                return (45, -1);
            }
        }
        let base_offset = partition.next_offset;
        partition.next_offset += i64::from(records);
        partition.log.push(Entry {
            batch: request.batch,
            base_offset,
            producer_id,
            sequence: request.sequence,
            records,
        });
        remember(
            partition.memories.entry(producer_id).or_default(),
            request.sequence,
            records,
            base_offset,
        );
        (0, base_offset)
    }

    fn leaders(&self, slots: &[Slot]) -> Vec<(Slot, Leader)> {
        let leader = |slot: &Slot| {
            let node = self.partitions[slot.0 as usize].leader;
            (
                *slot,
                if self.down.contains(&node) {
                    Leader::Nobody
                } else {
                    Leader::Node(node)
                },
            )
        };
        slots.iter().map(leader).collect()
    }

    fn metadata(&mut self, slots: &[Slot], stale: Option<Vec<(Slot, Leader)>>) {
        if self.fault() {
            self.counts.metadata_failed += 1;
            return self.tell(Event::MetadataFailed("no broker answered".to_owned()));
        }
        let mut leaders = self.leaders(slots);
        if let Some(stale) = stale {
            self.counts.metadata_stale_or_missing += 1;
            leaders = stale;
        } else if self.fault() {
            self.counts.metadata_stale_or_missing += 1;
            leaders = slots.iter().map(|slot| (*slot, Leader::Missing)).collect();
        }
        self.tell(Event::Metadata(leaders));
    }

    /// A broker restarts: its connections break. It rebuilds its memory from the log; sometimes it has none, but never of a producer with a
    /// batch in doubt (see the top of this test).
    fn restart(&mut self, node: i32) {
        self.counts.restarts += 1;
        self.down.push(node);
        let up = self.now + self.random.between(10, 800);
        self.at(up, Happening::Up(node));
        let broken: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.node == node && !link.dropped)
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            self.breaks(id, "the broker went down");
        }
        for slot in 0..self.partitions.len() {
            if self.partitions[slot].leader != node {
                continue;
            }
            let in_doubt = self.sealed[slot].iter().any(|(batch, _)| {
                self.sends.contains_key(batch) && !self.settled.contains_key(batch)
            });
            if !in_doubt && self.random.percent(50) && !self.partitions[slot].memories.is_empty() {
                self.counts.memories_lost += 1;
                self.partitions[slot].memories.clear();
            }
        }
    }

    /// The cluster loses the end of a log, acknowledged records included (an unclean election).
    fn truncate(&mut self, slot: Slot) {
        let partition = &mut self.partitions[slot.0 as usize];
        let Some(lost) = partition.log.pop() else {
            return;
        };
        self.counts.truncations += 1;
        partition.truncated = true;
        partition.next_offset = lost.base_offset;
        partition.memories.clear();
        for entry in &partition.log {
            let memory = partition.memories.entry(entry.producer_id).or_default();
            remember(memory, entry.sequence, entry.records, entry.base_offset);
        }
    }

    fn settle(&mut self, slot: Slot, batch: BatchId, base_offset: Option<i64>) {
        let entry = self.partitions[slot.0 as usize]
            .log
            .iter()
            .rev()
            .find(|entry| entry.batch == batch);
        let truncated = self.partitions[slot.0 as usize].truncated;
        match entry {
            None if truncated && base_offset.is_some() => {} // acknowledged, then lost by the cluster
            None => self.break_off(format!("batch {batch:?} settled, but is not in the log")),
            Some(entry)
                if !truncated && base_offset.is_some_and(|offset| offset != entry.base_offset) =>
            {
                let message = format!(
                    "batch {batch:?} settled at {base_offset:?}, but stands at {}",
                    entry.base_offset
                );
                self.break_off(message);
            }
            Some(_) => {}
        }
        if self.settled.insert(batch, slot).is_some() {
            self.break_off(format!("batch {batch:?} settled twice"));
        }
    }

    fn break_off(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }

    fn judge(&mut self) -> Verdict {
        if let Some(why) = self.broken.take() {
            return Verdict::Broken(why);
        }
        let truncated = self.partitions.iter().any(|partition| partition.truncated);
        if truncated {
            return Verdict::Kept; // what settled was looked at when it did
        }
        if let Some(why) = &self.failure {
            return Verdict::Broken(format!("the producer stopped: {why}"));
        }
        for (slot, sealed) in self.sealed.iter().enumerate() {
            let logged: Vec<BatchId> = self.partitions[slot]
                .log
                .iter()
                .map(|entry| entry.batch)
                .collect();
            let expected: Vec<BatchId> = sealed.iter().map(|(batch, _)| *batch).collect();
            if logged != expected {
                return Verdict::Broken(format!(
                    "partition {slot}: sealed {expected:?}, logged {logged:?}"
                ));
            }
        }
        if self.settled.len() != self.records.len() {
            let message = format!(
                "{} of {} batches settled",
                self.settled.len(),
                self.records.len()
            );
            return Verdict::Broken(message);
        }
        Verdict::Kept
    }
}

fn remember(memory: &mut Memory, sequence: i32, records: u32, base_offset: i64) {
    memory.last.push_back((sequence, records, base_offset));
    if memory.last.len() > REMEMBERED {
        memory.last.pop_front();
    }
    memory.next_sequence = sequence + i32::try_from(records).unwrap();
}
