//! One schedule: instances of the job, the network between them and the cluster, and what happens in it.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_kafka::ErrorKind;
use tidegate_kafka::producer::machine::{
    Action, Answer, BatchId, CoordinatorAnswer, CoordinatorRequest, Event, Failure, Identity,
    LinkId, Protocol, Rules, Slot,
};

use super::Planted;
use super::coordinator::Coordinator;
use super::job::Instance;
use super::log::{Content, Log};
use crate::counts::Counts;
use crate::random::Random;
use crate::schedule::Verdict;

/// Faults happen before this moment (ms).
const HEALED: u64 = 6_000;
/// By then the job must be done: 40 s after the last fault, which leaves time for instances to be replaced and for transactions to expire.
const GIVEN_UP: u64 = HEALED + 40_000;
/// Where the coordinator never comes back; elsewhere longer than any schedule.
const DELIVERY_TIMEOUT: u64 = 8_000;
const NO_DELIVERY_TIMEOUT: u64 = 600_000;

const FOREIGN_PRODUCER: i64 = 9_000;

/// A batch on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) slot: usize,
    pub(super) content: Content,
    pub(super) records: u32,
    pub(super) identity: Identity,
    pub(super) sequence: i32,
    pub(super) protocol: Protocol,
}

/// What reaches an instance.
#[derive(Clone, Debug)]
pub(super) enum News {
    Opened(LinkId),
    Answers(LinkId, Answer),
    Breaks(LinkId),
    Metadata(Vec<Slot>),
    Coordinator(u64, CoordinatorAnswer),
    CoordinatorSilent(u64),
    Tick,
    // The caller's own plans.
    Read,
    Begin,
    Write(u64),
    Settled(u64),
    Next,
}

#[derive(Clone, Debug)]
pub(super) enum Happening {
    Start,
    Crash,
    Hold(u64),
    Reaches(usize, News),
    Arrives(usize, LinkId, Request),
    /// A question reaches a coordinator, perhaps one of earlier days.
    Asked(usize, u64, CoordinatorRequest, u64),
    Marker(usize, Identity, bool),
    TooLong(u64),
    CoordinatorMoves,
    ForeignBegins,
    ForeignEnds(i64),
    ChangesOver,
}

pub(crate) struct World {
    pub(super) random: Random,
    planted: Option<Planted>,
    telling: bool,
    pub(super) now: u64,
    order: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    pub(super) instances: Vec<Instance>,
    /// The last one holds positions.
    pub(super) logs: Vec<Log>,
    pub(super) coordinator: Coordinator,
    pub(super) server: Protocol,
    /// Which coordinator it is by now, and until when it is away.
    pub(super) moves: u64,
    pub(super) away_until: u64,
    /// What each instance takes for the coordinator.
    pub(super) believed: Vec<u64>,
    pub(super) transaction_timeout: u64,
    /// What each step writes where.
    pub(super) plan: Vec<Vec<Slot>>,
    /// Positions that instances read before they had taken over, for [`Planted::ReadBeforeTakingOver`].
    read_early: Vec<Option<u32>>,
    /// Steps that were reported as committed.
    pub(super) reported: u32,
    pub(super) impatient: bool,
    /// Nothing goes wrong here.
    pub(super) calm: bool,
    /// The epochs of a producer id were used up.
    pub(super) rotated: bool,
    chance: u64,
    /// From then on nobody coordinates any more.
    pub(super) gone_from: Option<u64>,
    pub(super) gave_up: bool,
    foreign: i64,
    pub(super) counts: Counts,
    pub(super) broken: Option<String>,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut random = Random::new(seed);
        let server = if random.percent(50) {
            Protocol::New
        } else {
            Protocol::Old
        };
        // Some start where the epochs end.
        let epoch = if random.percent(25) {
            i16::MAX - 2 - i16::try_from(random.below(8)).unwrap()
        } else {
            -1
        };
        let partitions = random.size(1, 3);
        let slot =
            |random: &mut Random| Slot(u32::try_from(random.size(0, partitions - 1)).unwrap());
        let plan = (0..random.size(1, 8))
            .map(|_| (0..random.size(0, 6)).map(|_| slot(&mut random)).collect())
            .collect();
        let chance = [0, 3, 8, 20][random.size(0, 3)];
        let transaction_timeout = random.between(800, 4_000);
        let gone_from = random.percent(3).then(|| random.below(HEALED));
        let mut world = Self {
            planted,
            telling: false,
            now: 0,
            order: 0,
            happenings: BTreeMap::new(),
            instances: Vec::new(),
            logs: (0..=partitions).map(|_| Log::default()).collect(),
            coordinator: Coordinator::new(epoch),
            server,
            moves: 0,
            away_until: 0,
            believed: Vec::new(),
            transaction_timeout,
            plan,
            read_early: Vec::new(),
            reported: 0,
            impatient: random.percent(30),
            calm: false,
            rotated: false,
            chance,
            gone_from,
            gave_up: false,
            foreign: FOREIGN_PRODUCER,
            counts: Counts::default(),
            broken: None,
            random,
        };
        world.schedule();
        world
    }

    pub(crate) fn telling(mut self) -> Self {
        self.telling = true;
        eprintln!(
            "{:?}, faults {} %, transactions of {} ms, {:?}",
            self.server, self.chance, self.transaction_timeout, self.plan
        );
        self
    }

    /// Lays out what will happen by itself.
    fn schedule(&mut self) {
        self.at(0, Happening::Start);
        for _ in 0..self.random.below(3) {
            let at = self.random.below(HEALED);
            self.at(at, Happening::ForeignBegins);
        }
        if self.chance == 0 && self.gone_from.is_none() && self.random.percent(50) {
            self.calm = true;
            self.transaction_timeout = 60_000;
            return;
        }
        let mut any = |most: u64, happening: &dyn Fn(&mut Random) -> Happening| {
            for _ in 0..self.random.below(most + 1) {
                let at = self.random.below(HEALED);
                let happening = happening(&mut self.random);
                self.order += 1;
                self.happenings.insert((at, self.order), happening);
            }
        };
        any(3, &|_| Happening::Crash);
        any(1, &|random| Happening::Hold(random.between(100, 6_000)));
        any(1, &|_| Happening::Start);
        any(3, &|_| Happening::CoordinatorMoves);
        if self.server == Protocol::Old && self.random.percent(20) {
            let at = self.random.below(HEALED);
            self.at(at, Happening::ChangesOver);
        }
    }

    pub(super) fn steps(&self) -> u32 {
        u32::try_from(self.plan.len()).unwrap()
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.server
    }

    pub(super) fn at(&mut self, time: u64, happening: Happening) {
        self.order += 1;
        self.happenings.insert((time, self.order), happening);
    }

    pub(super) fn fault(&mut self) -> bool {
        self.now < HEALED && self.random.percent(self.chance)
    }

    pub(super) fn break_off(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }

    pub(crate) fn run(mut self) -> (Verdict, Counts) {
        while let Some(((time, _), happening)) = self.happenings.pop_first() {
            if self.broken.is_some() || time > GIVEN_UP {
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
            Happening::Start => self.start(),
            Happening::Crash => self.crash(),
            Happening::Hold(time) => self.hold(time),
            Happening::Reaches(who, news) => self.reaches(who, news),
            Happening::Arrives(who, link, request) => self.arrives(who, link, request),
            Happening::Asked(who, question, request, of) => {
                self.asked(who, question, &request, of);
            }
            Happening::Marker(slot, identity, commit) => {
                self.logs[slot].mark(identity, commit);
                self.coordinator.marked();
            }
            Happening::TooLong(transaction) => self.too_long(transaction),
            Happening::CoordinatorMoves => {
                self.counts.note("coordinators that move");
                self.moves += 1;
                self.away_until = self.now + self.random.between(0, 600);
            }
            Happening::ForeignBegins => self.foreign_begins(),
            Happening::ForeignEnds(producer_id) => {
                let identity = Identity {
                    producer_id,
                    epoch: 0,
                };
                let commit = self.random.percent(50);
                self.positions().mark(identity, commit);
            }
            Happening::ChangesOver => {
                self.counts
                    .note("clusters that change over to the new protocol");
                self.server = Protocol::New;
            }
        }
    }

    fn positions(&mut self) -> &mut Log {
        let last = self.logs.len() - 1;
        &mut self.logs[last]
    }

    /// A stranger keeps a transaction open in the partition of the positions, and writes on in it.
    fn foreign_begins(&mut self) {
        self.counts.note("foreign transactions");
        self.foreign += 1;
        let identity = Identity {
            producer_id: self.foreign,
            epoch: 0,
        };
        let appended = self.positions().append(identity, Content::Foreign, 0, 3);
        assert!(appended.is_ok(), "{appended:?}");
        let at = self.now + self.random.between(1, 20_000);
        self.at(at, Happening::ForeignEnds(identity.producer_id));
    }

    /// The step to go on with, as the log says.
    pub(super) fn position(&self) -> u32 {
        self.position_up_to(false)
    }

    fn position_up_to(&self, last_stable: bool) -> u32 {
        let committed = self.logs[self.logs.len() - 1].committed(last_stable);
        let latest = committed.iter().rev().find_map(|content| match content {
            Content::Position { next_step } => Some(*next_step),
            _ => None,
        });
        latest.unwrap_or(0)
    }

    /// The position as an instance reads it.
    pub(super) fn read_position(&mut self) -> u32 {
        let (stable, whole) = (self.position_up_to(true), self.position());
        if stable != whole {
            self.counts
                .note("positions read behind the last stable offset");
        }
        match self.planted {
            Some(Planted::ReadToLastStable) => stable,
            _ => whole,
        }
    }

    fn start(&mut self) {
        if self.instances.iter().any(Instance::is_working) {
            self.counts.note("second instances");
        }
        let delivery_timeout = match self.gone_from {
            Some(_) => DELIVERY_TIMEOUT,
            None => NO_DELIVERY_TIMEOUT,
        };
        let delivery_timeout = Duration::from_millis(delivery_timeout);
        let mut rules = Rules::new(delivery_timeout, 1);
        if let Some(Planted::Rule(rule)) = self.planted {
            rules.broken = Some(rule);
        }
        let who = self.instances.len();
        let instance = Instance::new(rules, self.logs.len(), delivery_timeout);
        self.instances.push(instance);
        self.believed.push(self.moves);
        let early = self.planted == Some(Planted::ReadBeforeTakingOver);
        self.read_early.push(early.then(|| self.position()));
        self.tell(who, Event::Tick);
    }

    /// What was read too early counts once.
    pub(super) fn read_early(&mut self, who: usize) -> Option<u32> {
        self.read_early[who].take()
    }

    fn any_working(&mut self) -> Option<usize> {
        let working: Vec<usize> = (0..self.instances.len())
            .filter(|who| self.instances[*who].is_working())
            .collect();
        let last = working.len().checked_sub(1)?;
        Some(working[self.random.size(0, last)])
    }

    fn crash(&mut self) {
        if let Some(who) = self.any_working() {
            self.counts.note("crashes");
            self.dies(who);
        }
    }

    /// Whoever looks after the job starts it again, unless another instance is at it.
    fn dies(&mut self, who: usize) {
        self.instances[who].alive = false;
        let others = self.instances.iter().any(Instance::is_working);
        if !others {
            let at = self.now + self.random.between(1, 300);
            self.at(at, Happening::Start);
        }
    }

    fn hold(&mut self, time: u64) {
        if let Some(who) = self.any_working() {
            self.counts.note("instances held up");
            self.instances[who].held_until = self.now + time;
        }
    }

    fn reaches(&mut self, who: usize, news: News) {
        let instance = &mut self.instances[who];
        if !instance.alive {
            return;
        }
        if instance.held_until > self.now {
            let at = instance.held_until;
            return self.at(at, Happening::Reaches(who, news));
        }
        match news {
            News::Opened(link) => self.opened(who, link),
            News::Answers(link, answer) => self.tell(who, Event::Answered { link, answer }),
            News::Breaks(link) => self.breaks(who, link),
            News::Metadata(slots) => self.metadata(who, &slots),
            News::Coordinator(question, answer) => {
                if instance.question == question {
                    instance.question += 1;
                    self.tell(who, Event::CoordinatorAnswered(answer));
                }
            }
            News::CoordinatorSilent(question) => {
                if instance.question == question {
                    instance.question += 1;
                    self.tell(who, Event::CoordinatorLost("no answer".to_owned()));
                }
            }
            News::Tick => {
                instance.next_tick = None;
                self.tell(who, Event::Tick);
            }
            News::Read => self.read(who),
            News::Begin => self.begin_again(who),
            News::Write(attempt) => self.write(who, attempt),
            News::Settled(attempt) => self.all_settled(who, attempt),
            News::Next => self.next_step(who),
        }
    }

    /// Reports an event to an instance's machine and does what it asks for.
    pub(super) fn tell(&mut self, who: usize, event: Event) {
        let mut actions = Vec::new();
        let now = Duration::from_millis(self.now);
        self.instances[who].machine.handle(now, event, &mut actions);
        for action in actions {
            if self.telling {
                eprintln!("       {who} -> {action:?}");
            }
            self.carry_out(who, action);
        }
        let instance = &mut self.instances[who];
        if let Some(at) = instance.machine.wake_at() {
            let at = u64::try_from(at.as_millis()).unwrap().max(self.now + 1);
            if instance.next_tick.is_none_or(|next| at < next) {
                instance.next_tick = Some(at);
                self.at(at, Happening::Reaches(who, News::Tick));
            }
        }
    }

    fn carry_out(&mut self, who: usize, action: Action) {
        match action {
            Action::Open { link, .. } => self.open(who, link),
            Action::Close(link) => {
                if let Some(link) = self.instances[who].links.get_mut(&link) {
                    link.dropped = true;
                }
            }
            Action::Send {
                link,
                slot,
                batch,
                identity,
                sequence,
                transaction,
            } => {
                let Some(protocol) = transaction else {
                    return self.break_off("a batch outside of any transaction".to_owned());
                };
                let request = self.request(who, slot, batch, identity, sequence, protocol);
                self.send(who, link, request);
            }
            Action::RefreshMetadata(slots) => {
                let at = self.now + self.random.between(1, 20);
                self.at(at, Happening::Reaches(who, News::Metadata(slots)));
            }
            Action::AskCoordinator { request, find } => self.ask(who, request, find),
            Action::Ready => self.ready(who),
            Action::Ended(outcome) => self.transaction_ended(who, &outcome),
            Action::Settle { .. } => self.settled(who),
            Action::RenewIdentity => self.break_off("an id without a transactional id".to_owned()),
            Action::Fail(failure) => self.failed(who, failure),
        }
    }

    fn request(
        &self,
        who: usize,
        slot: Slot,
        batch: BatchId,
        identity: Identity,
        sequence: i32,
        protocol: Protocol,
    ) -> Request {
        let (_, content, records) = self.instances[who].batches[usize::try_from(batch.0).unwrap()];
        Request {
            slot: slot.0 as usize,
            content,
            records,
            identity,
            sequence,
            protocol,
        }
    }

    /// one owner: an instance gives up because it was replaced, and only then; or because nobody coordinates.
    fn failed(&mut self, who: usize, failure: Failure) {
        let gone = self.gone_from.is_some_and(|from| self.now >= from);
        match failure.kind {
            ErrorKind::Fenced if self.instances[who].replaced => {
                self.counts.note("instances replaced");
                self.dies(who);
            }
            ErrorKind::Timeout if gone => {
                self.counts.note("failures at the deadline");
                self.gave_up = true;
                self.instances[who].alive = false;
            }
            _ => {
                let now = self.now;
                self.break_off(format!("instance {who} stopped at {now}: {failure:?}"));
            }
        }
        self.instances[who].failure = Some(failure);
    }
}
