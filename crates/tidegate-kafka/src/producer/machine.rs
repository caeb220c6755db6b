//! The rules of the idempotent producer as a state machine without sockets, threads and clocks.
//!
//! Whoever drives it reports what happened ([`Event`]) at which time, and carries out what it asks for ([`Action`]). So the very code that
//! runs in production also runs through millions of simulated schedules of loss, delay, crashes and leader moves.
//!
//! The rules, each marked where it is kept:
//! - **window**: at most [`MAX_IN_FLIGHT`] unacknowledged batches of a partition, all on one link: a broker remembers the last five
//!   batches of a producer, and recognises only those when they come again.
//! - **fixed**: a batch gets its sequence when it is first sent; from then on neither the sequence nor the bytes change.
//! - **head**: only the oldest batch of a partition completes.
//! - **repair**: there is one answer to a broken link and to every retriable error: drop the link, refresh the metadata, and send the whole
//!   window again in order, before anything new.
//! - **alone**: the first batch of a producer id on a partition, and the first after a repair, is sent alone until it is acknowledged. A
//!   broker that knows nothing of a producer takes any first sequence, so a second batch could otherwise pass a first one that was refused.
//! - **certain**: no batch whose fate is unknown is given up while later ones go on; the whole producer stops.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::retry::{self, Verdict};

/// Unacknowledged batches of one partition.
pub const MAX_IN_FLIGHT: usize = 5;

/// Requests that wait for an answer on one link.
const MAX_PER_LINK: usize = 16;

/// Time after which a topic that metadata does not know is taken for missing: a broker that is starting may not know it yet.
const MISSING_GRACE: Duration = Duration::from_secs(10);

const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
const LONGEST_BACK_OFF: Duration = Duration::from_millis(1000);

/// Time since the producer was opened, by a monotonic clock.
pub type Time = Duration;

/// A partition of any topic of the producer: a dense index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A sealed batch. Numbers are given by the caller and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// One attempt at a connection to one broker. Numbers are never used again, so what comes late from a dropped link is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Who this producer is to the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Given by InitProducerId.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// What one Produce answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Kafka's error code.
    pub code: i16,
    /// Offset of the batch's first record; negative if the answer does not tell.
    pub base_offset: i64,
    /// Time that the broker wants to be left alone.
    pub throttle: Duration,
}

/// What metadata says about the leader of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// This node leads it.
    Node(i32),
    /// Nobody does at the moment.
    Nobody,
    /// The topic or partition is not known.
    Missing,
    /// The topic was deleted and created again under the same name.
    Recreated,
    /// The broker refuses to tell, with this error code.
    Refused(i16),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A batch is ready to be sent; batches of one partition come in order.
    Sealed {
        /// Its partition.
        slot: Slot,
        /// Its number.
        batch: BatchId,
        /// Its records: sequences count records.
        records: u32,
    },
    /// The link asked for by [`Action::Open`] is there.
    Opened(LinkId),
    /// A link could not be opened, broke, or a request on it timed out.
    Lost {
        /// Which.
        link: LinkId,
        /// Why, for people.
        why: String,
    },
    /// The oldest unanswered request of a link was answered.
    Answered {
        /// The link.
        link: LinkId,
        /// The answer.
        answer: Answer,
    },
    /// The metadata asked for by [`Action::RefreshMetadata`]: a leader for each slot that was named.
    Metadata(Vec<(Slot, Leader)>),
    /// The metadata could not be had.
    MetadataFailed(String),
    /// The new identity asked for by [`Action::RenewIdentity`].
    Renewed(Identity),
    /// The new identity could not be had, not by trying again either.
    RenewalFailed(String),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to a broker; answer [`Event::Opened`] or [`Event::Lost`].
    Open {
        /// The new link.
        link: LinkId,
        /// The broker's node id.
        node: i32,
    },
    /// Drop a link; nothing more is expected from it.
    Close(LinkId),
    /// Send a batch; answer [`Event::Answered`] in the order of sending, or [`Event::Lost`].
    Send {
        /// The link.
        link: LinkId,
        /// The partition.
        slot: Slot,
        /// The batch.
        batch: BatchId,
        /// Producer id and epoch to send it with.
        identity: Identity,
        /// Sequence of its first record.
        sequence: i32,
    },
    /// Ask for the leaders of these partitions.
    RefreshMetadata(Vec<Slot>),
    /// Ask for a new producer id.
    RenewIdentity,
    /// A batch is in the log.
    Settle {
        /// The partition.
        slot: Slot,
        /// The batch.
        batch: BatchId,
        /// Offset of its first record, if the broker still knew it.
        base_offset: Option<i64>,
    },
    /// Nothing more can be delivered; every batch that is not settled has failed.
    Fail(Failure),
}

/// Why the producer stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// The broker's error code, if it was one.
    pub code: Option<i16>,
    /// The partition concerned, if it was one.
    pub slot: Option<Slot>,
    /// Why, for people.
    pub why: String,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Time without any settlement after which the producer gives up.
    pub delivery_timeout: Duration,
    /// A rule that is broken on purpose, to show that the simulator notices.
    #[doc(hidden)]
    pub broken: Option<BrokenRule>,
}

/// A rule to break on purpose in a simulation.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenRule {
    /// Sends a whole window at once, also at the start and after a repair.
    NotAlone,
    /// Gives a batch a new sequence when it is sent again.
    NewSequence,
    /// Sends only the failed batch again, behind those in flight.
    NoRepair,
    /// Takes a lost link as success of what was on it.
    AssumeDelivered,
    /// Takes possible loss as success.
    IgnoreGap,
}

#[derive(Debug)]
struct Batch {
    id: BatchId,
    records: u32,
    sequence: Option<i32>,
    sends: u32,
}

#[derive(Debug)]
struct Partition {
    leader: Option<i32>,
    /// Unsettled batches; the first `in_flight` of them are on `link`.
    queue: VecDeque<Batch>,
    in_flight: usize,
    link: Option<LinkId>,
    alone: bool,
    needs_metadata: bool,
    next_sequence: i32,
    missing_since: Option<Time>,
}

impl Partition {
    fn new() -> Self {
        Self {
            leader: None,
            queue: VecDeque::new(),
            in_flight: 0,
            link: None,
            alone: true,
            needs_metadata: true,
            next_sequence: 0,
            missing_since: None,
        }
    }
}

#[derive(Debug)]
struct Link {
    node: i32,
    open: bool,
    /// Partitions of the unanswered requests, oldest first.
    unanswered: VecDeque<Slot>,
    quiet_until: Time,
    /// Where the next round over the partitions starts, so that none starves.
    cursor: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Refresh {
    Idle,
    Due(Time),
    Asked,
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
    refresh: Refresh,
    renewal: Renewal,
    back_off: Duration,
    unsettled: usize,
    last_progress: Time,
    last_trouble: String,
    failed: bool,
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
            refresh: Refresh::Idle,
            renewal: Renewal::No,
            back_off: FIRST_BACK_OFF,
            unsettled: 0,
            last_progress: Duration::ZERO,
            last_trouble: String::new(),
            failed: false,
        }
    }

    /// Adds the next partition.
    pub fn add_partition(&mut self) -> Slot {
        let slot = Slot(u32::try_from(self.partitions.len()).unwrap_or(u32::MAX));
        self.partitions.push(Partition::new());
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
        if self.failed || self.unsettled == 0 {
            return None;
        }
        let refresh = match self.refresh {
            Refresh::Due(at) => Some(at),
            _ => None,
        };
        let quiet = self
            .links
            .values()
            .map(|link| link.quiet_until)
            .filter(|at| !at.is_zero())
            .min();
        let deadline = self.last_progress + self.rules.delivery_timeout;
        [refresh, quiet, Some(deadline)].into_iter().flatten().min()
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
                self.refresh_later(now);
            }
            Event::Renewed(identity) => self.renewed(identity),
            Event::RenewalFailed(why) => {
                self.fail(ErrorKind::Unreachable, None, None, why, actions);
            }
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
            let why = format!(
                "nothing was acknowledged for {waited:.0} s; last trouble: {}",
                self.last_trouble
            );
            return self.fail(ErrorKind::Timeout, None, None, why, actions);
        }
        self.renew_when_drained(actions);
        self.ask_for_metadata(now, actions);
        self.attach(actions);
        self.send(now, actions);
    }

    fn sealed(&mut self, now: Time, slot: Slot, batch: BatchId, records: u32) {
        if self.unsettled == 0 {
            self.last_progress = now;
        }
        self.unsettled += 1;
        let batch = Batch {
            id: batch,
            records,
            sequence: None,
            sends: 0,
        };
        self.partitions[slot.0 as usize].queue.push_back(batch);
        if self.refresh == Refresh::Idle && self.partitions[slot.0 as usize].needs_metadata {
            self.refresh = Refresh::Due(now);
        }
    }

    /// repair: a link is gone; whatever was on it will be sent again in order, its head alone.
    fn lost(&mut self, now: Time, link: LinkId, why: String, actions: &mut Vec<Action>) {
        if self.links.remove(&link).is_none() {
            return;
        }
        self.last_trouble = why;
        for slot in 0..self.partitions.len() {
            if self.partitions[slot].link != Some(link) {
                continue;
            }
            if self.rules.broken == Some(BrokenRule::AssumeDelivered) {
                for _ in 0..self.partitions[slot].in_flight {
                    self.settle_head(
                        now,
                        Slot(u32::try_from(slot).unwrap_or(u32::MAX)),
                        None,
                        actions,
                    );
                }
            }
            let partition = &mut self.partitions[slot];
            partition.link = None;
            partition.in_flight = 0;
            partition.alone = true;
            partition.needs_metadata = true;
            if self.rules.broken == Some(BrokenRule::NewSequence) {
                for batch in &mut partition.queue {
                    batch.sequence = None;
                }
            }
        }
        self.refresh_later(now);
    }

    /// Metadata is due after a pause that grows while nothing succeeds.
    fn refresh_later(&mut self, now: Time) {
        self.refresh = Refresh::Due(now + self.back_off);
        self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
    }

    fn answered(&mut self, now: Time, id: LinkId, answer: Answer, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&id) else {
            return; // late, from a dropped link: the batch was or will be sent again
        };
        let Some(slot) = link.unanswered.pop_front() else {
            return self.drop_link(
                now,
                id,
                "an answer that nothing was asked for".to_owned(),
                actions,
            );
        };
        if !answer.throttle.is_zero() {
            link.quiet_until = now + answer.throttle;
        }
        // A link answers in order and holds all batches of a partition, so this answer is about the head.
        match retry::produce(answer.code) {
            Verdict::Appended => {
                let base_offset = (answer.base_offset >= 0).then_some(answer.base_offset);
                self.acknowledged(now, slot, base_offset, actions);
            }
            Verdict::AppendedSomewhere => self.acknowledged(now, slot, None, actions),
            Verdict::Repair if self.rules.broken == Some(BrokenRule::NoRepair) => {
                // Planted: the failed batch goes to the back of the window.
                let partition = &mut self.partitions[slot.0 as usize];
                partition.in_flight -= 1;
                if let Some(head) = partition.queue.pop_front() {
                    partition.queue.push_back(head);
                }
            }
            Verdict::Repair => {
                let why = format!("error {} ({})", retry::code_name(answer.code), answer.code);
                self.drop_link(now, id, why, actions);
            }
            Verdict::OutOfOrder if self.rules.broken == Some(BrokenRule::IgnoreGap) => {
                self.acknowledged(now, slot, None, actions);
            }
            Verdict::OutOfOrder => {
                let why = "the broker misses records before this batch, which it had acknowledged: they may be lost";
                self.stop(slot, answer.code, why, actions);
            }
            Verdict::ProducerUnknown => self.producer_unknown(now, id, slot, answer.code, actions),
            Verdict::Fenced => self.stop(slot, answer.code, "another producer took over", actions),
            Verdict::Abort => self.stop(slot, answer.code, "the transaction was aborted", actions),
            Verdict::Stop => self.stop(slot, answer.code, "refused for good", actions),
        }
    }

    fn acknowledged(
        &mut self,
        now: Time,
        slot: Slot,
        base_offset: Option<i64>,
        actions: &mut Vec<Action>,
    ) {
        let partition = &mut self.partitions[slot.0 as usize];
        partition.in_flight -= 1;
        partition.alone = false;
        self.settle_head(now, slot, base_offset, actions);
        self.back_off = FIRST_BACK_OFF;
    }

    /// head: the oldest batch of the partition, and no other, completes.
    fn settle_head(
        &mut self,
        now: Time,
        slot: Slot,
        base_offset: Option<i64>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(batch) = self.partitions[slot.0 as usize].queue.pop_front() {
            self.unsettled -= 1;
            self.last_progress = now;
            actions.push(Action::Settle {
                slot,
                batch: batch.id,
                base_offset,
            });
        }
    }

    fn drop_link(&mut self, now: Time, link: LinkId, why: String, actions: &mut Vec<Action>) {
        actions.push(Action::Close(link));
        self.lost(now, link, why, actions);
    }

    /// The broker forgot this producer. A batch that it refused at its first sending, with none before it in doubt, is surely not in the
    /// log: it may go again under a new producer id. Any other might be doubled.
    fn producer_unknown(
        &mut self,
        now: Time,
        link: LinkId,
        slot: Slot,
        code: i16,
        actions: &mut Vec<Action>,
    ) {
        let head = self.partitions[slot.0 as usize].queue.front_mut();
        match head {
            Some(head) if head.sends == 1 => head.sequence = None,
            _ => {
                let why = "the broker forgot this producer while a batch was in doubt: it may be lost or doubled";
                return self.stop(slot, code, why, actions);
            }
        }
        if self.partitions[slot.0 as usize].in_flight > 1 {
            // Those behind it were refused for the same reason, but their answers are not in: their fate is unknown.
            let why = "the broker forgot this producer while several batches were in flight";
            return self.stop(slot, code, why, actions);
        }
        self.renewal = Renewal::Draining;
        self.drop_link(
            now,
            link,
            "the broker forgot this producer".to_owned(),
            actions,
        );
    }

    fn renew_when_drained(&mut self, actions: &mut Vec<Action>) {
        let sent = |batch: &Batch| batch.sequence.is_some();
        if self.renewal == Renewal::Draining
            && !self
                .partitions
                .iter()
                .any(|partition| partition.queue.iter().any(sent))
        {
            self.renewal = Renewal::Asked;
            actions.push(Action::RenewIdentity);
        }
    }

    /// A new identity counts from 0 again on every partition, each head alone.
    fn renewed(&mut self, identity: Identity) {
        self.identity = identity;
        self.renewal = Renewal::No;
        for partition in &mut self.partitions {
            partition.next_sequence = 0;
            partition.alone = true;
        }
    }

    fn ask_for_metadata(&mut self, now: Time, actions: &mut Vec<Action>) {
        if !matches!(self.refresh, Refresh::Due(at) if at <= now) {
            return;
        }
        let wanted: Vec<Slot> =
            self.slots(|partition| partition.needs_metadata && !partition.queue.is_empty());
        if wanted.is_empty() {
            self.refresh = Refresh::Idle;
            return;
        }
        self.refresh = Refresh::Asked;
        actions.push(Action::RefreshMetadata(wanted));
    }

    fn slots(&self, wanted: impl Fn(&Partition) -> bool) -> Vec<Slot> {
        let all = (0u32..).map(Slot).zip(&self.partitions);
        all.filter(|(_, partition)| wanted(partition))
            .map(|(slot, _)| slot)
            .collect()
    }

    fn metadata(&mut self, now: Time, leaders: &[(Slot, Leader)], actions: &mut Vec<Action>) {
        self.refresh = Refresh::Idle;
        for (slot, leader) in leaders {
            let partition = &mut self.partitions[slot.0 as usize];
            if !matches!(leader, Leader::Missing) {
                partition.missing_since = None;
            }
            match *leader {
                Leader::Node(node) => {
                    partition.leader = Some(node);
                    partition.needs_metadata = false;
                }
                Leader::Nobody => self.last_trouble = "the partition has no leader".to_owned(),
                Leader::Missing => {
                    let since = *partition.missing_since.get_or_insert(now);
                    if now >= since + MISSING_GRACE {
                        let why = format!(
                            "not in the cluster's metadata for {:.0} s",
                            MISSING_GRACE.as_secs_f64()
                        );
                        return self.fail(ErrorKind::TopicMissing, None, Some(*slot), why, actions);
                    }
                    self.last_trouble = "the topic is not in the cluster's metadata".to_owned();
                }
                Leader::Recreated => {
                    let why = "the topic was deleted and created again".to_owned();
                    return self.fail(ErrorKind::TopicMissing, None, Some(*slot), why, actions);
                }
                Leader::Refused(code) if retry::is_retriable(code) => {
                    self.last_trouble = retry::code_name(code);
                }
                Leader::Refused(code) => {
                    return self.stop(*slot, code, "metadata was refused", actions);
                }
            }
        }
        let waiting =
            |partition: &Partition| partition.needs_metadata && !partition.queue.is_empty();
        if self.partitions.iter().any(waiting) {
            self.refresh_later(now);
        }
    }

    /// Gives each partition with work a link to its leader, opening one where there is none.
    fn attach(&mut self, actions: &mut Vec<Action>) {
        for partition in &mut self.partitions {
            if partition.link.is_some() || partition.needs_metadata || partition.queue.is_empty() {
                continue;
            }
            let Some(node) = partition.leader else {
                continue;
            };
            let existing = self
                .links
                .iter()
                .find(|(_, link)| link.node == node)
                .map(|(id, _)| *id);
            partition.link = existing.or_else(|| {
                let id = LinkId(self.next_link);
                self.next_link += 1;
                let link = Link {
                    node,
                    open: false,
                    unanswered: VecDeque::new(),
                    quiet_until: Time::ZERO,
                    cursor: 0,
                };
                self.links.insert(id, link);
                actions.push(Action::Open { link: id, node });
                Some(id)
            });
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
            let count = self.partitions.len();
            let mut idle_rounds = 0;
            while link.unanswered.len() < MAX_PER_LINK && idle_rounds < count {
                let index = link.cursor % count;
                link.cursor = index + 1;
                let partition = &mut self.partitions[index];
                let may_start = self.renewal == Renewal::No;
                let Some(batch) = sendable(partition, *id, may_start, &self.rules) else {
                    idle_rounds += 1;
                    continue;
                };
                idle_rounds = 0;
                let slot = Slot(u32::try_from(index).unwrap_or(u32::MAX));
                link.unanswered.push_back(slot);
                actions.push(Action::Send {
                    link: *id,
                    slot,
                    batch: batch.0,
                    identity: self.identity,
                    sequence: batch.1,
                });
            }
        }
    }

    fn stop(&mut self, slot: Slot, code: i16, why: &str, actions: &mut Vec<Action>) {
        let why = format!("{} ({code}): {why}", retry::code_name(code));
        self.fail(retry::kind_of(code), Some(code), Some(slot), why, actions);
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
        actions.push(Action::Fail(Failure {
            kind,
            code,
            slot,
            why,
        }));
    }
}

/// The next batch that the partition may send on this link, with its sequence.
fn sendable(
    partition: &mut Partition,
    link: LinkId,
    may_start: bool,
    rules: &Rules,
) -> Option<(BatchId, i32)> {
    // window, alone
    let alone = partition.alone && rules.broken != Some(BrokenRule::NotAlone);
    let allowed = if alone { 1 } else { MAX_IN_FLIGHT };
    if partition.link != Some(link) || partition.in_flight >= allowed {
        return None;
    }
    let batch = partition.queue.get_mut(partition.in_flight)?;
    // fixed
    let sequence = match batch.sequence {
        Some(sequence) => sequence,
        None if !may_start => return None,
        None => {
            let sequence = partition.next_sequence;
            partition.next_sequence = after(sequence, batch.records);
            *batch.sequence.insert(sequence)
        }
    };
    batch.sends += 1;
    partition.in_flight += 1;
    Some((batch.id, sequence))
}

/// The sequence after `records` more records; sequences wrap at 2^31 (KIP-98).
pub(crate) fn after(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    i32::try_from(next).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_at_two_to_the_31() {
        assert_eq!(after(0, 5), 5);
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 5), 3);
    }
}
