//! The rules of the idempotent producer as a state machine without sockets, threads and clocks.
//!
//! Whoever drives it reports what happened ([`Event`]) at which time, and carries out what it asks for ([`Action`]). So the very code that
//! runs in production also runs through millions of simulated schedules of loss, delay, crashes and leader moves.
//!
//! The rules, each marked with its name where it is kept:
//! - **window**: at most [`MAX_IN_FLIGHT`] unacknowledged batches of a partition, all on one link: a broker remembers the last five
//!   batches of a producer, and recognises only those when they come again.
//! - **fixed**: a batch gets its sequence when it is first sent; from then on neither the sequence nor the bytes change.
//! - **head**: only the oldest batch of a partition completes. What a dropped link still has to say is not listened to.
//! - **repair**: there is one answer to a broken link and to every retriable error: drop the link, refresh the metadata, and send the whole
//!   window again in order, before anything new.
//! - **alone**: the first batch of a producer id on a partition, and the first after a repair, is sent alone until it is acknowledged. A
//!   broker that knows nothing of a producer takes any first sequence, so a second batch could otherwise pass a first one that was refused.
//! - **gap**: a broker that misses records before the head lost something that it had acknowledged.
//! - **renewal**: a new producer id is taken only when no batch is in doubt; then every partition counts from 0 again.
//! - **certain**: no batch whose fate is unknown is given up while later ones go on; the whole producer stops.
//!
//! The rules of transactions are told in `transaction`. Where this text says that the producer stops, one in a transaction rolls back instead,
//! unless trying again would not help.
//!
//! What the protocol itself cannot promise: a broker that forgets a producer while one of its batches is in the log unacknowledged takes
//! that batch a second time, and nobody can tell. Kafka rebuilds that memory from the log, so it takes the loss of the log's end, or
//! retention shorter than a repair.

mod event;
mod transaction;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::retry::{self, Verdict};

pub use event::{
    Action, Answer, BatchId, BrokenRule, CoordinatorAnswer, CoordinatorRequest, Event, Failure,
    Identity, Leader, Leadership, LinkId, Outcome, Protocol, Rules, Slot, Time,
};
use transaction::Transactions;
pub use window::MAX_IN_FLIGHT;
use window::Window;

/// Requests that wait for an answer on one link.
pub const MAX_PER_LINK: usize = 16;

/// Time after which a topic that metadata does not know is taken for missing: a broker that is starting may not know it yet.
pub const MISSING_GRACE: Duration = Duration::from_secs(10);

const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
/// As [`FIRST_BACK_OFF`], where only the markers of the last transaction are waited for: a few milliseconds, in each transaction.
const MARKER_BACK_OFF: Duration = Duration::from_millis(2);
const LONGEST_BACK_OFF: Duration = Duration::from_millis(1000);

/// How a partition's batches get to its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// The leader has to be looked up, not before this moment.
    Unknown(Time),
    /// It is being looked up.
    Asked,
    /// By this link, until it is lost.
    Link(LinkId),
}

#[derive(Debug)]
struct Partition {
    window: Window,
    route: Route,
    leader_epoch: i32,
    /// Repairs since the last acknowledgement: the pause before the next one grows with them.
    repairs: u32,
    missing_since: Option<Time>,
    /// Whether it stands in its link's queue of those that may have something to send.
    is_queued: bool,
}

#[derive(Debug)]
struct Link {
    node: i32,
    open: bool,
    /// Partitions on this link.
    slots: BTreeSet<Slot>,
    /// Those that may have something to send; taken in turn, so that none starves.
    ready: VecDeque<Slot>,
    /// Partitions of the unanswered requests, oldest first.
    unanswered: VecDeque<Slot>,
    quiet_until: Time,
}

#[derive(Debug, PartialEq, Eq)]
enum Renewal {
    No,
    /// No new batch is sent until those that were sent are settled.
    Draining,
    Asked,
}

/// The state machine. See the module's text for the rules.
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    identity: Identity,
    partitions: Vec<Partition>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    /// Partitions with work whose leader has to be looked up, by the moment from which on that may be done.
    lookups: BTreeSet<(Time, Slot)>,
    /// Partitions whose leader is being looked up.
    asked: Vec<Slot>,
    is_asking: bool,
    renewal: Renewal,
    /// Only of a transactional producer.
    transactions: Option<Transactions>,
    unsettled: usize,
    last_progress: Time,
    last_trouble: String,
    failed: bool,
    /// What was unanswered on links that are gone, for [`BrokenRule::LateAnswers`] alone.
    ghosts: BTreeMap<LinkId, VecDeque<Slot>>,
}

impl Machine {
    /// A machine without partitions.
    pub fn new(identity: Identity, rules: Rules) -> Self {
        Self {
            rules,
            identity,
            partitions: Vec::new(),
            links: BTreeMap::new(),
            next_link: 0,
            lookups: BTreeSet::new(),
            asked: Vec::new(),
            is_asking: false,
            renewal: Renewal::No,
            transactions: None,
            unsettled: 0,
            last_progress: Duration::ZERO,
            last_trouble: String::new(),
            failed: false,
            ghosts: BTreeMap::new(),
        }
    }

    /// Adds the next partition.
    pub fn add_partition(&mut self) -> Slot {
        let slot = Slot(u32::try_from(self.partitions.len()).unwrap_or(u32::MAX));
        self.partitions.push(Partition {
            window: Window::new(self.rules.first_sequence),
            route: Route::Unknown(Time::ZERO),
            leader_epoch: -1,
            repairs: 0,
            missing_since: None,
            is_queued: false,
        });
        slot
    }

    /// Batches that have been sealed and are neither settled nor failed.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Producer id and epoch in force.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// When a [`Event::Tick`] is due at the latest, if at all.
    pub fn wake_at(&self) -> Option<Time> {
        if self.failed {
            return None;
        }
        let question = self.transactions.as_ref().and_then(Transactions::wake_at);
        if self.unsettled == 0 {
            return question;
        }
        let lookup = self.lookups.first().map(|(at, _)| *at);
        let lookup = lookup.filter(|_| !self.is_asking);
        let quiet = self.links.values().map(|link| link.quiet_until);
        let quiet = quiet.filter(|at| !at.is_zero()).min();
        let deadline = self.last_progress + self.rules.delivery_timeout;
        let due = [lookup, quiet, question, Some(deadline)];
        due.into_iter().flatten().min()
    }

    /// Takes in what happened at `now` and adds what is to be done to `actions`.
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        if self.failed {
            return;
        }
        match event {
            Event::Sealed {
                slot,
                batch,
                records,
            } => self.sealed(now, slot, batch, records),
            Event::Opened(link) => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.open = true;
                }
            }
            Event::Lost { link, why } => self.lost(now, link, why, actions),
            Event::Answered { link, answer } => self.answered(now, link, answer, actions),
            Event::Metadata(leaders) => self.metadata(now, &leaders, actions),
            Event::MetadataFailed(why) => {
                self.last_trouble = why;
                self.is_asking = false;
                self.postpone_asked(now);
            }
            Event::Renewed(identity) => self.renewed(identity),
            Event::Refused { kind, why } => self.fail(kind, None, None, why, actions),
            Event::Begin(protocol) => self.begin(protocol),
            Event::Commit => self.commit(),
            Event::Abort => self.abort(now, actions),
            Event::CoordinatorAnswered(answer) => self.coordinator_answered(now, answer, actions),
            Event::CoordinatorLost(why) => self.coordinator_lost(now, why, actions),
            Event::Tick => {}
        }
        self.advance(now, actions);
    }

    /// Everything that follows from the state as it is now.
    fn advance(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.failed {
            return;
        }
        if self.unsettled > 0 && now >= self.last_progress + self.rules.delivery_timeout {
            // certain: what became of the batches in flight is not known, so none of the later ones may go on.
            let waited = self.rules.delivery_timeout.as_secs_f64();
            let mut why = format!("nothing was acknowledged for {waited:.0} s");
            if !self.last_trouble.is_empty() {
                why = format!("{why}; last trouble: {}", self.last_trouble);
            }
            return self.fail(ErrorKind::Timeout, None, None, why, actions);
        }
        self.renew_when_drained(actions);
        self.advance_transaction(now, actions);
        self.ask_for_metadata(now, actions);
        self.send(now, actions);
    }

    fn sealed(&mut self, now: Time, slot: Slot, batch: BatchId, records: u32) {
        if let Some(transactions) = &mut self.transactions {
            if !transactions.is_open() {
                return; // rolled back: it fails with the others
            }
            transactions.sealed(slot);
        }
        if self.unsettled == 0 {
            self.last_progress = now;
        }
        self.unsettled += 1;
        let partition = &mut self.partitions[slot.0 as usize];
        partition.window.push(batch, records);
        match partition.route {
            Route::Unknown(at) => {
                self.lookups.insert((at, slot));
            }
            Route::Asked => {}
            Route::Link(_) => self.queue_for_sending(slot),
        }
    }

    /// repair: a link is gone; whatever was on it will be sent again in order, its head alone.
    fn lost(&mut self, now: Time, id: LinkId, why: String, actions: &mut Vec<Action>) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.last_trouble = why;
        for slot in link.slots {
            let partition = &mut self.partitions[slot.0 as usize];
            partition.is_queued = false;
            if self.rules.break_rule(BrokenRule::AssumeDelivered) {
                for _ in 0..partition.window.in_flight() {
                    self.settle_head(now, slot, None, actions);
                }
            }
            self.partitions[slot.0 as usize].window.recall(&self.rules);
            self.look_up_later(now, slot);
        }
        if self.rules.break_rule(BrokenRule::LateAnswers) {
            self.ghosts.insert(id, link.unanswered);
        }
    }

    fn drop_link(&mut self, now: Time, link: LinkId, why: String, actions: &mut Vec<Action>) {
        actions.push(Action::Close(link));
        self.lost(now, link, why, actions);
    }

    /// The leader of a partition has to be looked up after a pause that grows while nothing on the partition succeeds.
    fn look_up_later(&mut self, now: Time, slot: Slot) {
        self.look_up_after(now, slot, FIRST_BACK_OFF);
    }

    fn look_up_after(&mut self, now: Time, slot: Slot, first_pause: Duration) {
        let partition = &mut self.partitions[slot.0 as usize];
        let pause = first_pause * (1 << partition.repairs.min(6));
        partition.repairs = partition.repairs.saturating_add(1);
        let at = now + pause.min(LONGEST_BACK_OFF);
        partition.route = Route::Unknown(at);
        if !partition.window.is_empty() {
            self.lookups.insert((at, slot));
        }
    }

    fn postpone_asked(&mut self, now: Time) {
        for slot in std::mem::take(&mut self.asked) {
            if self.partitions[slot.0 as usize].route == Route::Asked {
                self.look_up_later(now, slot);
            }
        }
    }

    fn answered(&mut self, now: Time, id: LinkId, answer: Answer, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&id) else {
            return self.answered_late(now, id, &answer, actions);
        };
        let Some(slot) = link.unanswered.pop_front() else {
            let why = "an answer that nothing was asked for".to_owned();
            return self.drop_link(now, id, why, actions);
        };
        if !answer.throttle.is_zero() {
            // KIP-219: it is for us to keep quiet; a quota is counted by broker.
            let node = link.node;
            for link in self.links.values_mut().filter(|link| link.node == node) {
                link.quiet_until = link.quiet_until.max(now + answer.throttle);
            }
        }
        // head: a link answers in order, holds all batches of a partition, and is dropped at the first failure; so this answer is about
        // the head of the window.
        match retry::produce(answer.code) {
            Verdict::Appended => {
                let base_offset = (answer.base_offset >= 0).then_some(answer.base_offset);
                self.acknowledged(now, slot, base_offset, actions);
            }
            Verdict::AppendedSomewhere => self.acknowledged(now, slot, None, actions),
            Verdict::Repair if self.rules.break_rule(BrokenRule::NoRepair) => {
                self.partitions[slot.0 as usize]
                    .window
                    .send_head_to_the_back();
                self.queue_for_sending(slot);
            }
            Verdict::Repair => self.repair(now, id, slot, &answer, actions),
            Verdict::Later => self.send_later(now, id, slot, &answer, actions),
            // rolled back: the log has none of it, so none of it has to be explained.
            Verdict::OutOfOrder | Verdict::ProducerUnknown | Verdict::Fenced | Verdict::Abort
                if self.transactions.is_some() =>
            {
                self.roll_back(now, explain(&answer, ""), actions);
            }
            Verdict::OutOfOrder if self.rules.break_rule(BrokenRule::IgnoreGap) => {
                self.acknowledged(now, slot, None, actions);
            }
            // gap: a batch behind a failed one would get this too, but its link is gone by then and it is not listened to.
            Verdict::OutOfOrder => {
                let why = "the broker misses records before this batch, which it had acknowledged: they may be lost";
                self.stop(slot, &answer, why, actions);
            }
            Verdict::ProducerUnknown => self.producer_unknown(now, id, slot, &answer, actions),
            Verdict::Fenced => self.stop(slot, &answer, "another producer took over", actions),
            Verdict::Abort => self.stop(slot, &answer, "the transaction was aborted", actions),
            Verdict::Stop => self.stop(slot, &answer, "", actions),
        }
    }

    /// head: what a dropped link still says does not count; the batch was or will be sent again.
    fn answered_late(&mut self, now: Time, id: LinkId, answer: &Answer, actions: &mut Vec<Action>) {
        let slot = self.ghosts.get_mut(&id).and_then(VecDeque::pop_front);
        if let (Some(slot), 0) = (slot, answer.code) {
            self.settle_head(now, slot, Some(answer.base_offset), actions);
        }
    }

    fn repair(
        &mut self,
        now: Time,
        link: LinkId,
        slot: Slot,
        answer: &Answer,
        actions: &mut Vec<Action>,
    ) {
        self.drop_link(now, link, explain(answer, ""), actions);
        // A term that is later than the one we knew cannot lead in circles, so no pause is needed.
        let Some(leadership) = answer.new_leader else {
            return;
        };
        let partition = &self.partitions[slot.0 as usize];
        if leadership.epoch > partition.leader_epoch {
            if let Route::Unknown(at) = partition.route {
                self.lookups.remove(&(at, slot));
            }
            self.attach(slot, leadership, actions);
        }
    }

    /// The first batch of a transaction came before the last one's markers. As it went out alone, the partition can come again without
    /// the others on the link having to.
    fn send_later(
        &mut self,
        now: Time,
        id: LinkId,
        slot: Slot,
        answer: &Answer,
        actions: &mut Vec<Action>,
    ) {
        if self.partitions[slot.0 as usize].window.in_flight() != 1 {
            return self.repair(now, id, slot, answer, actions);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.slots.remove(&slot);
            link.ready.retain(|ready| *ready != slot);
        }
        let partition = &mut self.partitions[slot.0 as usize];
        partition.is_queued = false;
        partition.window.recall(&self.rules);
        self.last_trouble = explain(answer, "");
        self.look_up_after(now, slot, MARKER_BACK_OFF);
    }

    fn acknowledged(
        &mut self,
        now: Time,
        slot: Slot,
        base_offset: Option<i64>,
        actions: &mut Vec<Action>,
    ) {
        self.partitions[slot.0 as usize].repairs = 0;
        self.settle_head(now, slot, base_offset, actions);
        self.queue_for_sending(slot);
    }

    /// head: the oldest batch of the partition, and no other, completes.
    fn settle_head(
        &mut self,
        now: Time,
        slot: Slot,
        base_offset: Option<i64>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(batch) = self.partitions[slot.0 as usize].window.settle_head() {
            self.unsettled -= 1;
            self.last_progress = now;
            actions.push(Action::Settle {
                slot,
                batch,
                base_offset,
            });
        }
    }

    /// renewal: the broker forgot this producer. A batch that it refused at its first sending, with none before it in doubt, is surely not in
    /// the log: it may go again under a new producer id. Any other might be doubled.
    fn producer_unknown(
        &mut self,
        now: Time,
        link: LinkId,
        slot: Slot,
        answer: &Answer,
        actions: &mut Vec<Action>,
    ) {
        let window = &mut self.partitions[slot.0 as usize].window;
        if !window.head_is_fresh() && !self.rules.break_rule(BrokenRule::RenewInDoubt) {
            let why = "the broker forgot this producer while batches were in doubt: they may be lost, or doubled if sent again";
            return self.stop(slot, answer, why, actions);
        }
        window.forget_sequences();
        self.renewal = Renewal::Draining;
        self.drop_link(now, link, explain(answer, ""), actions);
    }

    fn renew_when_drained(&mut self, actions: &mut Vec<Action>) {
        if self.renewal != Renewal::Draining {
            return;
        }
        let mut windows = self.partitions.iter().map(|partition| &partition.window);
        if !windows.any(Window::is_in_doubt) {
            self.renewal = Renewal::Asked;
            actions.push(Action::RenewIdentity);
        }
    }

    /// renewal, alone: a new identity counts from the start again on every partition, each head alone.
    fn renewed(&mut self, identity: Identity) {
        self.identity = identity;
        self.renewal = Renewal::No;
        for slot in (0u32..).map(Slot).take(self.partitions.len()) {
            self.partitions[slot.0 as usize]
                .window
                .restart(self.rules.first_sequence);
            self.queue_for_sending(slot);
        }
    }

    fn ask_for_metadata(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.is_asking {
            return;
        }
        while let Some((at, slot)) = self.lookups.first().copied() {
            if at > now {
                break;
            }
            self.lookups.pop_first();
            self.partitions[slot.0 as usize].route = Route::Asked;
            self.asked.push(slot);
        }
        if !self.asked.is_empty() {
            self.is_asking = true;
            actions.push(Action::RefreshMetadata(self.asked.clone()));
        }
    }

    fn metadata(&mut self, now: Time, leaders: &[(Slot, Leader)], actions: &mut Vec<Action>) {
        self.is_asking = false;
        for (slot, leader) in leaders {
            let partition = &mut self.partitions[slot.0 as usize];
            if partition.route != Route::Asked {
                continue;
            }
            if !matches!(leader, Leader::Missing) {
                partition.missing_since = None;
            }
            match *leader {
                Leader::Known(leadership) => self.attach(*slot, leadership, actions),
                Leader::Nobody => "the partition has no leader".clone_into(&mut self.last_trouble),
                Leader::Missing => {
                    let since = *partition.missing_since.get_or_insert(now);
                    if now >= since + MISSING_GRACE {
                        let grace = MISSING_GRACE.as_secs_f64();
                        let why = format!("not in the cluster's metadata for {grace:.0} s");
                        return self.fail(ErrorKind::TopicMissing, None, Some(*slot), why, actions);
                    }
                    "the topic is not in the cluster's metadata".clone_into(&mut self.last_trouble);
                }
                Leader::Recreated => {
                    let why = "the topic was deleted and created again".to_owned();
                    return self.fail(ErrorKind::TopicMissing, None, Some(*slot), why, actions);
                }
                Leader::Refused(code) if retry::is_retriable(code) => {
                    self.last_trouble = retry::code_name(code);
                }
                Leader::Refused(code) => {
                    let why = format!("metadata was refused: {}", retry::describe(code));
                    let kind = retry::kind_of(code);
                    return self.fail(kind, Some(code), Some(*slot), why, actions);
                }
            }
        }
        self.postpone_asked(now);
    }

    /// Puts a partition on a link to its leader, opening one where there are fewer than allowed.
    fn attach(&mut self, slot: Slot, leadership: Leadership, actions: &mut Vec<Action>) {
        let node = leadership.node;
        let of_node = self.links.iter().filter(|(_, link)| link.node == node);
        let emptiest = of_node
            .clone()
            .min_by_key(|(id, link)| (link.slots.len(), **id));
        let id = match emptiest {
            Some((id, _)) if of_node.count() >= self.rules.links_per_node => *id,
            _ => self.open_link(node, actions),
        };
        let partition = &mut self.partitions[slot.0 as usize];
        partition.route = Route::Link(id);
        partition.leader_epoch = leadership.epoch;
        if let Some(link) = self.links.get_mut(&id) {
            link.slots.insert(slot);
        }
        self.queue_for_sending(slot);
    }

    fn open_link(&mut self, node: i32, actions: &mut Vec<Action>) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let link = Link {
            node,
            open: false,
            slots: BTreeSet::new(),
            ready: VecDeque::new(),
            unanswered: VecDeque::new(),
            quiet_until: Time::ZERO,
        };
        self.links.insert(id, link);
        actions.push(Action::Open { link: id, node });
        id
    }

    /// Notes that a partition may have something to send on its link.
    fn queue_for_sending(&mut self, slot: Slot) {
        let partition = &mut self.partitions[slot.0 as usize];
        let may_start = may_start(&self.renewal, self.transactions.as_ref(), slot);
        if partition.is_queued || !partition.window.may_send(may_start, &self.rules) {
            return;
        }
        if let Route::Link(id) = partition.route
            && let Some(link) = self.links.get_mut(&id)
        {
            partition.is_queued = true;
            link.ready.push_back(slot);
        }
    }

    fn send(&mut self, now: Time, actions: &mut Vec<Action>) {
        for (id, link) in &mut self.links {
            if link.quiet_until <= now {
                link.quiet_until = Time::ZERO;
            }
            if !link.open || !link.quiet_until.is_zero() {
                continue;
            }
            while link.unanswered.len() < MAX_PER_LINK {
                let Some(slot) = link.ready.pop_front() else {
                    break;
                };
                let partition = &mut self.partitions[slot.0 as usize];
                let may_start = may_start(&self.renewal, self.transactions.as_ref(), slot);
                partition.is_queued = false;
                if !partition.window.may_send(may_start, &self.rules) {
                    continue;
                }
                let Some((batch, sequence)) = partition.window.send_next() else {
                    continue;
                };
                link.unanswered.push_back(slot);
                actions.push(Action::Send {
                    link: *id,
                    slot,
                    batch,
                    identity: self.identity,
                    sequence,
                    transaction: self.transactions.as_mut().map(Transactions::sent),
                });
                if partition.window.may_send(may_start, &self.rules) {
                    partition.is_queued = true;
                    link.ready.push_back(slot);
                }
            }
        }
    }

    fn stop(&mut self, slot: Slot, answer: &Answer, why: &str, actions: &mut Vec<Action>) {
        let kind = retry::kind_of(answer.code);
        self.fail(
            kind,
            Some(answer.code),
            Some(slot),
            explain(answer, why),
            actions,
        );
    }

    fn fail(
        &mut self,
        kind: ErrorKind,
        code: Option<i16>,
        slot: Option<Slot>,
        why: String,
        actions: &mut Vec<Action>,
    ) {
        self.failed = true;
        self.unsettled = 0;
        actions.extend(self.links.keys().map(|link| Action::Close(*link)));
        self.links.clear();
        let batch = slot.and_then(|slot| self.partitions[slot.0 as usize].window.head());
        actions.push(Action::Fail(Failure {
            kind,
            code,
            slot,
            batch,
            why,
        }));
    }
}

/// Whether batches that were never sent may go to this partition now.
fn may_start(renewal: &Renewal, transactions: Option<&Transactions>, slot: Slot) -> bool {
    match transactions {
        Some(transactions) => transactions.may_start(slot),
        None => *renewal == Renewal::No,
    }
}

/// An error code by name and number, with what the broker and we have to say about it.
fn explain(answer: &Answer, why: &str) -> String {
    let mut text = retry::describe(answer.code);
    let said = answer.message.as_deref().unwrap_or_default();
    for part in [said, why].into_iter().filter(|part| !part.is_empty()) {
        text.push_str(": ");
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests;
