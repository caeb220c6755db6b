//! One schedule: a network that delays and breaks between the machine and the model of a cluster, what happens in it, and the judgement.

mod judge;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidegate_kafka::ErrorKind;
use tidegate_kafka::producer::machine::{
    Action, Answer, BatchId, BrokenRule, Event, Failure, Identity, Leader, Leadership, LinkId,
    MAX_IN_FLIGHT, Machine, Rules, Slot,
};

use crate::cluster::{
    DUPLICATE, NODES, NOT_LEADER, OK, Partition, Request, UNKNOWN_PRODUCER, UNKNOWN_TOPIC,
};
use crate::counts::Counts;
use crate::random::Random;

/// Faults happen before this moment (ms); afterwards a cluster that heals is well.
const HEALED: u64 = 4_000;
/// By then everything must have settled: 30 s after the last fault.
const GIVEN_UP: u64 = HEALED + 30_000;
const REQUEST_TIMEOUT: u64 = 700;
/// The last transaction is still being completed.
const CONCURRENT: i16 = 51;
/// Of the producer: short where the cluster never heals, and elsewhere longer than any schedule.
const DELIVERY_TIMEOUT: u64 = 15_000;
const NO_DELIVERY_TIMEOUT: u64 = 600_000;

/// Error codes with which a broker may refuse a batch for the moment.
const PASSING: [i16; 12] = [2, 3, 5, 6, 7, 13, 15, 19, 51, 56, 74, 100];
/// Error codes with which a broker refuses a batch for good, and what they are to the caller.
const FOR_GOOD: [(i16, ErrorKind); 5] = [
    (10, ErrorKind::TooLarge),
    (18, ErrorKind::TooLarge),
    (29, ErrorKind::Authorization),
    (47, ErrorKind::Fenced),
    (87, ErrorKind::Delivery),
];

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Broken(String),
}

/// How a schedule may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Everything is delivered.
    Heals,
    /// Everything is delivered, or the producer notices that the cluster lost records.
    Truncated,
    /// From this moment on no broker can be reached.
    NeverHeals(u64),
    /// From this moment on the batches of the first partition are refused.
    Refuses(u64, i16, ErrorKind),
    /// At this moment the topic is deleted.
    Deleted(u64),
}

/// A connection, as both sides see it.
#[derive(Debug)]
struct Link {
    node: i32,
    /// The client has let go of it.
    dropped: bool,
    /// From here on nothing arrives any more, in either direction.
    cut: bool,
    /// When the last thing in each direction arrives: nothing overtakes.
    last_there: u64,
    last_back: u64,
    unanswered: usize,
    /// Since when the client waits for the oldest answer.
    waiting_since: u64,
}

#[derive(Debug)]
enum Happening {
    Seal(Slot),
    Opened(LinkId),
    Arrives(LinkId, Request),
    Answers(LinkId, Slot, BatchId, Answer),
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
    ending: Ending,
    telling: bool,
    now: u64,
    order: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    next_tick: Option<u64>,
    machine: Machine,
    partitions: Vec<Partition>,
    down: Vec<i32>,
    links: BTreeMap<LinkId, Link>,
    /// Batches by partition, in order of sealing, with their records.
    sealed: Vec<Vec<(BatchId, u32)>>,
    settled: Vec<usize>,
    records: Vec<u32>,
    sends: Vec<u32>,
    in_flight: Vec<VecDeque<LinkId>>,
    counts: Counts,
    chance: u64,
    next_producer: i64,
    /// A producer was forgotten with a batch in doubt: stopping is right.
    may_stop: bool,
    failure: Option<(u64, Failure)>,
    broken: Option<String>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, broken: Option<BrokenRule>) -> Self {
        let mut random = Random::new(seed);
        let ending = Self::ending(&mut random);
        let delivery_timeout = match ending {
            Ending::NeverHeals(_) => DELIVERY_TIMEOUT,
            _ => NO_DELIVERY_TIMEOUT,
        };
        let links_per_node = random.size(1, 2);
        let mut rules = Rules::new(Duration::from_millis(delivery_timeout), links_per_node);
        rules.broken = broken;
        if random.percent(20) {
            rules.first_sequence = i32::MAX - i32::try_from(random.below(300)).unwrap();
        }
        let identity = Identity {
            producer_id: 1,
            epoch: 0,
        };
        let mut machine = Machine::new(identity, rules);
        let mut partitions = Vec::new();
        for _ in 0..random.between(1, 3) {
            machine.add_partition();
            partitions.push(Partition::new(random.node()));
        }
        let chance = [0, 3, 10, 25][random.size(0, 3)];
        let count = partitions.len();
        let mut schedule = Self {
            random,
            ending,
            telling: false,
            now: 0,
            order: 0,
            happenings: BTreeMap::new(),
            next_tick: None,
            machine,
            partitions,
            down: Vec::new(),
            links: BTreeMap::new(),
            sealed: vec![Vec::new(); count],
            settled: vec![0; count],
            records: Vec::new(),
            sends: Vec::new(),
            in_flight: vec![VecDeque::new(); count],
            counts: Counts::default(),
            chance,
            next_producer: 2,
            may_stop: false,
            failure: None,
            broken: None,
        };
        schedule.plan();
        schedule
    }

    fn ending(random: &mut Random) -> Ending {
        let at = random.below(HEALED);
        match random.below(100) {
            0..5 => Ending::Truncated,
            5..8 => Ending::NeverHeals(at),
            8..11 => {
                let (code, kind) = FOR_GOOD[random.size(0, FOR_GOOD.len() - 1)];
                Ending::Refuses(at, code, kind)
            }
            11..14 => Ending::Deleted(at),
            _ => Ending::Heals,
        }
    }

    pub(crate) fn telling(mut self) -> Self {
        self.telling = true;
        eprintln!("{:?}, faults {} %", self.ending, self.chance);
        self
    }

    /// Lays out what will happen by itself: batches, leader moves, restarts.
    fn plan(&mut self) {
        let span = self.random.between(1, HEALED);
        for _ in 0..self.random.between(5, 50) {
            let (at, slot) = (self.random.below(span), self.any_slot());
            self.at(at, Happening::Seal(slot));
        }
        if self.ending == Ending::Truncated {
            let (at, slot) = (self.random.below(HEALED), self.any_slot());
            self.at(at, Happening::Truncate(slot));
        }
        if let Ending::NeverHeals(at) = self.ending {
            self.counts.note("clusters that never heal");
            for node in 0..NODES {
                self.at(at, Happening::Restart(node));
            }
        }
        if self.chance == 0 {
            return;
        }
        for _ in 0..self.random.below(5) {
            let (at, slot) = (self.random.below(HEALED), self.any_slot());
            self.at(at, Happening::MoveLeader(slot));
        }
        for _ in 0..self.random.below(3) {
            let (at, node) = (self.random.below(HEALED), self.random.node());
            self.at(at, Happening::Restart(node));
        }
    }

    fn any_slot(&mut self) -> Slot {
        Slot(u32::try_from(self.random.below(self.partitions.len() as u64)).unwrap())
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.order += 1;
        self.happenings.insert((time, self.order), happening);
    }

    fn fault(&mut self) -> bool {
        self.now < HEALED && self.random.percent(self.chance)
    }

    pub(crate) fn run(mut self) -> (Verdict, Counts) {
        while let Some(((time, _), happening)) = self.happenings.pop_first() {
            if self.broken.is_some() || self.failure.is_some() || time > GIVEN_UP {
                break;
            }
            self.now = time;
            if self.telling {
                eprintln!("{time:>6} {happening:?}");
            }
            self.happen(happening);
        }
        let verdict = self.judge().map_or(Verdict::Kept, Verdict::Broken);
        (verdict, self.counts)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Seal(slot) => self.seal(slot),
            Happening::Opened(link) => self.opened(link),
            Happening::Arrives(link, request) => self.arrives(link, &request),
            Happening::Answers(link, slot, batch, answer) => {
                self.note_doubt(slot, batch, &answer);
                self.note_later(link, slot, &answer);
                self.answers(link, answer);
            }
            Happening::Breaks(link, why) => self.breaks(link, why),
            Happening::Expires(link) => self.expires(link),
            Happening::Metadata(slots, stale) => self.metadata(&slots, stale),
            Happening::Renewed => self.renewed(),
            Happening::MoveLeader(slot) => {
                self.counts.note("leader moves");
                self.partitions[slot.0 as usize].move_leader();
            }
            Happening::Restart(node) => self.restart(node),
            Happening::Truncate(slot) => self.truncate(slot),
            Happening::Up(node) => self.up(node),
            Happening::Tick => {
                self.next_tick = None;
                self.tell(Event::Tick);
            }
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
            if self.failure.is_some() {
                return self.break_off(format!("after the failure: {action:?}"));
            }
            self.carry_out(action);
        }
        if let Some(at) = self.machine.wake_at() {
            let at = u64::try_from(at.as_millis()).unwrap().max(self.now + 1);
            if self.next_tick.is_none_or(|next| at < next) {
                self.next_tick = Some(at);
                self.at(at, Happening::Tick);
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Open { link, node } => self.open(link, node),
            Action::Close(link) => self.drop_link(link),
            Action::Send {
                link,
                slot,
                batch,
                identity,
                sequence,
                transaction: _,
            } => {
                let records = self.records[usize::try_from(batch.0).unwrap()];
                let request = Request {
                    slot,
                    batch,
                    records,
                    identity,
                    sequence,
                };
                self.send(link, request);
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
            Action::Fail(failure) => self.failure = Some((self.now, failure)),
            Action::AskCoordinator { .. } | Action::Ready | Action::Ended(_) => {
                self.break_off("a transaction where there is none".to_owned());
            }
        }
    }

    fn seal(&mut self, slot: Slot) {
        let batch = BatchId(self.records.len() as u64);
        let records = u32::try_from(self.random.between(1, 50)).unwrap();
        self.records.push(records);
        self.sends.push(0);
        self.sealed[slot.0 as usize].push((batch, records));
        self.tell(Event::Sealed {
            slot,
            batch,
            records,
        });
    }

    fn open(&mut self, id: LinkId, node: i32) {
        let link = Link {
            node,
            dropped: false,
            cut: false,
            last_there: self.now,
            last_back: self.now,
            unanswered: 0,
            waiting_since: self.now,
        };
        self.links.insert(id, link);
        let at = self.now + self.random.between(1, 30);
        self.at(at, Happening::Opened(id));
    }

    fn opened(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id).filter(|link| !link.dropped) else {
            return;
        };
        if self.down.contains(&link.node) || self.fault() {
            self.counts.note("connections refused");
            return self.breaks(id, "refused");
        }
        self.tell(Event::Opened(id));
    }

    fn drop_link(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.dropped = true;
            for window in &mut self.in_flight {
                window.retain(|of| *of != id);
            }
        }
    }

    fn breaks(&mut self, id: LinkId, why: &'static str) {
        if self.links.get(&id).is_some_and(|link| !link.dropped) {
            self.drop_link(id);
            self.counts.note("connections that break");
            let why = why.to_owned();
            self.tell(Event::Lost { link: id, why });
        }
    }

    /// Puts a request on its way; what is sent on a link arrives in order or, from some point on, not at all.
    fn send(&mut self, id: LinkId, request: Request) {
        self.check_window(id, &request);
        self.sends[usize::try_from(request.batch.0).unwrap()] += 1;
        let (lost, break_behind, slow) = (self.fault(), self.fault(), self.fault());
        let travel = self.random.between(1, 20)
            + if slow {
                self.random.between(50, 600)
            } else {
                0
            };
        let (notice, noticed_after) = (self.random.percent(50), self.random.between(1, 60));
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.unanswered += 1;
        if link.unanswered == 1 {
            link.waiting_since = self.now;
        }
        let expires = link.waiting_since + REQUEST_TIMEOUT;
        link.last_there = link.last_there.max(self.now) + travel;
        let arrival = link.last_there;
        link.cut |= lost;
        if link.cut {
            self.counts.note("requests lost");
        } else {
            self.at(arrival, Happening::Arrives(id, request));
        }
        // The client may lose the link although the request is on its way: then it arrives late, perhaps after it was sent again.
        if break_behind || (lost && notice) {
            self.at(self.now + noticed_after, Happening::Breaks(id, "reset"));
        }
        self.at(expires, Happening::Expires(id));
    }

    /// window: never more than five in flight, and all on one link.
    fn check_window(&mut self, id: LinkId, request: &Request) {
        let window = &mut self.in_flight[request.slot.0 as usize];
        window.push_back(id);
        if window.iter().any(|of| *of != id) {
            self.break_off(format!("{:?} is on two links", request.slot));
        } else if window.len() == MAX_IN_FLIGHT {
            self.counts.note("full windows");
        }
    }

    /// A request that has waited too long: the client drops the link.
    fn expires(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let overdue = link.waiting_since + REQUEST_TIMEOUT <= self.now;
        if !link.dropped && link.unanswered > 0 && overdue {
            self.counts.note("requests timed out");
            self.breaks(id, "time-out");
        }
    }

    /// The broker works on a request, also on one whose sender has given up.
    fn arrives(&mut self, id: LinkId, request: &Request) {
        let Some(link) = self.links.get(&id).filter(|link| !link.cut) else {
            return;
        };
        let (node, dropped) = (link.node, link.dropped);
        if self.down.contains(&node) {
            return;
        }
        if dropped {
            self.counts
                .note("requests that arrive after their link was dropped");
        }
        let answer = self.produce(node, request);
        let (lost, travel) = (self.fault(), self.random.between(1, 20));
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if lost {
            self.counts.note("answers lost");
            link.cut = true;
            return;
        }
        link.last_back = link.last_back.max(self.now) + travel;
        let at = link.last_back;
        let (slot, batch) = (request.slot, request.batch);
        self.at(at, Happening::Answers(id, slot, batch, answer));
    }

    fn answers(&mut self, id: LinkId, answer: Answer) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.dropped {
            // It may already wait in the driver's queue behind the news that the link is gone.
            self.counts
                .note("answers that come after their link was dropped");
        } else {
            link.unanswered -= 1;
            link.waiting_since = self.now;
            if link.unanswered > 0 {
                self.at(self.now + REQUEST_TIMEOUT, Happening::Expires(id));
            }
        }
        self.tell(Event::Answered { link: id, answer });
    }

    fn produce(&mut self, node: i32, request: &Request) -> Answer {
        let mut answer = Answer {
            code: OK,
            base_offset: -1,
            throttle: Duration::ZERO,
            new_leader: None,
            message: None,
        };
        if self.fault() && self.random.percent(20) {
            self.counts.note("throttled");
            answer.throttle = Duration::from_millis(self.random.between(1, 100));
        }
        let partition = &self.partitions[request.slot.0 as usize];
        if self.is_deleted() {
            answer.code = UNKNOWN_TOPIC;
            return answer;
        }
        if partition.leader != node {
            answer.code = NOT_LEADER;
            let leadership = Leadership {
                node: partition.leader,
                epoch: partition.epoch,
            };
            if self.random.percent(50) {
                self.counts.note("answers that name the new leader");
                answer.new_leader = Some(leadership);
            }
            return answer;
        }
        if let Ending::Refuses(from, code, _) = self.ending
            && self.now >= from
            && request.slot == Slot(0)
        {
            answer.code = code;
            return answer;
        }
        if self.fault() {
            self.counts.note("errors before the append");
            answer.code = self.refuse_for_now();
            return answer;
        }
        self.append(request, &mut answer);
        answer
    }

    fn refuse_for_now(&mut self) -> i16 {
        if self.random.percent(15) {
            return UNKNOWN_PRODUCER;
        }
        PASSING[self.random.size(0, PASSING.len() - 1)]
    }

    /// The producer is told that it was forgotten: it can only go on if nothing that it sent may be in the log, that is, if the batch was
    /// sent once and nothing else is in flight.
    fn note_doubt(&mut self, slot: Slot, batch: BatchId, answer: &Answer) {
        if answer.code == UNKNOWN_PRODUCER {
            let sends = self.sends[usize::try_from(batch.0).unwrap()];
            self.may_stop |= sends > 1 || self.in_flight[slot.0 as usize].len() > 1;
        }
    }

    /// A batch that was alone and came too early may go by another link the next time.
    fn note_later(&mut self, link: LinkId, slot: Slot, answer: &Answer) {
        let window = &mut self.in_flight[slot.0 as usize];
        if answer.code == CONCURRENT && window.len() == 1 && !self.links[&link].dropped {
            window.clear();
        }
    }

    fn append(&mut self, request: &Request, answer: &mut Answer) {
        let partition = &mut self.partitions[request.slot.0 as usize];
        let before = partition.log.len();
        (answer.code, answer.base_offset) = partition.append(request, &mut self.counts);
        let is_duplicate = answer.code == OK && partition.log.len() == before;
        if is_duplicate && self.random.percent(10) {
            self.counts.note("duplicates recognised without an offset");
            (answer.code, answer.base_offset) = (DUPLICATE, -1);
        } else if answer.code == OK && self.fault() {
            self.counts.note("errors after the append");
            answer.code = if self.random.percent(50) { 20 } else { 7 };
            answer.base_offset = -1;
        }
    }

    fn is_deleted(&self) -> bool {
        matches!(self.ending, Ending::Deleted(at) if self.now >= at)
    }

    fn leaders(&self, slots: &[Slot]) -> Vec<(Slot, Leader)> {
        let leader = |slot: &Slot| {
            let partition = &self.partitions[slot.0 as usize];
            let (node, epoch) = (partition.leader, partition.epoch);
            let leader = if self.is_deleted() {
                Leader::Missing
            } else if self.down.contains(&node) {
                Leader::Nobody
            } else {
                Leader::Known(Leadership { node, epoch })
            };
            (*slot, leader)
        };
        slots.iter().map(leader).collect()
    }

    fn metadata(&mut self, slots: &[Slot], stale: Option<Vec<(Slot, Leader)>>) {
        let nobody_answers = i32::try_from(self.down.len()).unwrap() == NODES;
        if nobody_answers || self.fault() {
            self.counts.note("metadata failed");
            return self.tell(Event::MetadataFailed("no broker answered".to_owned()));
        }
        let mut leaders = self.leaders(slots);
        if let Some(stale) = stale {
            self.counts.note("metadata stale");
            leaders = stale;
        } else if self.fault() {
            self.counts.note("metadata missing");
            leaders = slots.iter().map(|slot| (*slot, Leader::Missing)).collect();
        }
        self.tell(Event::Metadata(leaders));
    }

    fn renewed(&mut self) {
        self.counts.note("identities renewed");
        let identity = Identity {
            producer_id: self.next_producer,
            epoch: 0,
        };
        self.next_producer += 1;
        self.tell(Event::Renewed(identity));
    }

    fn up(&mut self, node: i32) {
        if !matches!(self.ending, Ending::NeverHeals(at) if self.now >= at) {
            self.down.retain(|down| *down != node);
        }
    }

    /// A broker restarts: nothing more comes or goes by its connections, which the client notices a little later. It rebuilds its memory of
    /// producers from the log; sometimes it has none, but never where that cannot be survived (see the top of this test).
    fn restart(&mut self, node: i32) {
        self.counts.note("restarts");
        self.down.push(node);
        let up = self.now + self.random.between(10, 800);
        self.at(up, Happening::Up(node));
        let connected = self.links.iter_mut().filter(|(_, link)| link.node == node);
        let mut broken = Vec::new();
        for (id, link) in connected {
            link.cut = true;
            if !link.dropped {
                broken.push(*id);
            }
        }
        for id in broken {
            let at = self.now + self.random.between(0, 100);
            self.at(at, Happening::Breaks(id, "the broker went down"));
        }
        for slot in 0..self.partitions.len() {
            if self.partitions[slot].leader == node
                && self.random.percent(50)
                && self.survives_forgetting(slot)
                && self.partitions[slot].forget()
            {
                self.counts.note(if self.in_flight[slot].is_empty() {
                    "memories lost without any"
                } else {
                    "memories lost with batches in flight"
                });
            }
        }
    }

    /// Whether no unsettled batch of the partition is in the log, or still on its way to a broker.
    fn survives_forgetting(&self, slot: usize) -> bool {
        let partition = &self.partitions[slot];
        let unsettled = &self.sealed[slot][self.settled[slot]..];
        let in_log = unsettled
            .iter()
            .any(|(batch, _)| partition.position_of(*batch).is_some());
        let on_its_way = self.happenings.values().any(|happening| match happening {
            Happening::Arrives(link, request) => {
                request.slot.0 as usize == slot && !self.links[link].cut
            }
            _ => false,
        });
        !in_log && !on_its_way
    }

    /// The cluster loses the end of a log, acknowledged records included (an unclean election).
    fn truncate(&mut self, slot: Slot) {
        let index = slot.0 as usize;
        if let Some(lost) = self.partitions[index].truncate() {
            let settled = &self.sealed[index][..self.settled[index]];
            if settled.iter().any(|(batch, _)| *batch == lost) {
                self.counts.note("truncations of acknowledged records");
            }
        }
    }

    /// head: batches settle in the order of sealing, each once, and stand where the settlement says.
    fn settle(&mut self, slot: Slot, batch: BatchId, base_offset: Option<i64>) {
        let index = slot.0 as usize;
        self.in_flight[index].pop_front();
        let due = self.sealed[index]
            .get(self.settled[index])
            .map(|(due, _)| *due);
        self.settled[index] += 1;
        let partition = &self.partitions[index];
        let wrong = if due != Some(batch) {
            Some(format!("{batch:?} settled where {due:?} was due"))
        } else if partition.lost.contains(&batch) {
            None // acknowledged, and then lost by the cluster
        } else {
            match partition.position_of(batch) {
                None => Some(format!("{batch:?} settled, but is not in the log")),
                Some(_) if !partition.lost.is_empty() => None, // offsets were given twice
                Some(found) if base_offset.is_some_and(|said| said != found) => Some(format!(
                    "{batch:?} settled at {base_offset:?}, but stands at {found}"
                )),
                Some(_) => None,
            }
        };
        if let Some(wrong) = wrong {
            self.break_off(wrong);
        }
    }

    fn break_off(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }
}
