//! The rules of one group of the new protocol (KIP-848): the broker divides the partitions, each member has an epoch of its own, and a
//! partition changes hands only after a heartbeat of its holder no longer names it.
//!
//! As in Kafka's GroupMetadataManager and CurrentAssignmentBuilder. What Kafka has beyond it is refused or left out: patterns of topics, racks,
//! and classic members in such a group. Memberships are in memory only; after a restart members are told that they are unknown, and join again.

mod divide;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Sender;
use crate::codes;

/// The epoch that joins.
const JOIN: i32 = 0;
/// The epoch that leaves.
const LEAVE: i32 = -1;
/// The epoch by which a static member leaves for a while.
const LEAVE_FOR_A_WHILE: i32 = -2;

/// How the partitions may be divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Assignor {
    /// Evenly over all topics, and with few changes.
    #[default]
    Uniform,
    /// Neighbouring partitions of each topic.
    Range,
}

impl Assignor {
    /// By the name that members know it by.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// The name that members know it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }
}

/// A partition, by its topic's id.
pub(crate) type Place = (Uuid, i32);

/// The topics that are read: the id and the number of partitions of each, by name.
pub(crate) type Topics = BTreeMap<String, (Uuid, i32)>;

/// What a heartbeat says; `None` is as before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub(crate) member_id: String,
    pub(crate) epoch: i32,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) topics: Option<BTreeSet<String>>,
    pub(crate) assignor: Option<Assignor>,
    pub(crate) held: Option<BTreeSet<Place>>,
}

impl Beat {
    fn is_full(&self) -> bool {
        let said = self.rebalance_timeout.is_some() && self.topics.is_some();
        self.epoch == JOIN || (said && self.held.is_some())
    }

    /// Whether the member leaves.
    pub(crate) fn leaves(&self) -> bool {
        matches!(self.epoch, LEAVE | LEAVE_FOR_A_WHILE)
    }

    /// Whether the member joins.
    pub(crate) fn joins(&self) -> bool {
        self.epoch == JOIN
    }
}

/// What is answered to a heartbeat that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beaten {
    pub(crate) epoch: i32,
    /// What the member is to hold; `None` if that is as before.
    pub(crate) assignment: Option<BTreeSet<Place>>,
}

/// A member, and how far it is on its way to what it is to hold.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) epoch: i32,
    previous_epoch: i32,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) topics: BTreeSet<String>,
    rebalance_timeout: Duration,
    assignor: Option<Assignor>,
    /// What it was told to hold.
    pub(crate) assigned: BTreeSet<Place>,
    /// What it was told to give up, and has not yet.
    revoking: BTreeSet<Place>,
    /// Whether others hold some of what it is to have.
    waits: bool,
    session_until: Instant,
    revoke_until: Option<Instant>,
}

/// One group.
#[derive(Debug)]
pub(crate) struct ModernGroup {
    epoch: i32,
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) target: BTreeMap<String, BTreeSet<Place>>,
    /// What the target was made of.
    topics: Topics,
    pub(crate) assignor: Assignor,
    /// Members or what they read have changed since the target was made.
    is_changed: bool,
    session_timeout: Duration,
}

impl ModernGroup {
    pub(super) fn new(session_timeout: Duration) -> Self {
        Self {
            epoch: 0,
            members: BTreeMap::new(),
            target: BTreeMap::new(),
            topics: Topics::new(),
            assignor: Assignor::default(),
            is_changed: false,
            session_timeout,
        }
    }

    /// The epoch of the group.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The state, by Kafka's name.
    pub(crate) fn state(&self) -> &'static str {
        let is_there = |member: &Member| {
            member.epoch == self.epoch && member.revoking.is_empty() && !member.waits
        };
        if self.members.is_empty() {
            "Empty"
        } else if self.is_changed {
            "Assigning"
        } else if self.members.values().all(is_there) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Takes a heartbeat, of a member that does not leave. `look_up` knows topics by name.
    pub(super) fn beat(
        &mut self,
        beat: &Beat,
        now: Instant,
        look_up: impl Fn(&str) -> Option<(Uuid, i32)>,
    ) -> Result<Beaten, i16> {
        self.admit(beat, now)?;
        self.update(beat);
        self.divide(look_up);
        let before = self.members[&beat.member_id].assigned.clone();
        self.reconcile(&beat.member_id, beat.held.as_ref(), now);
        let session = now + self.session_timeout;
        let member = self.member_mut(&beat.member_id)?;
        member.session_until = session;
        let tells = beat.is_full() || member.assigned != before;
        Ok(Beaten {
            epoch: member.epoch,
            assignment: tells.then(|| member.assigned.clone()),
        })
    }

    /// Whether the sender is who it says it is; who joins becomes a member.
    fn admit(&mut self, beat: &Beat, now: Instant) -> Result<(), i16> {
        if beat.joins() {
            if let Some(instance) = &beat.instance_id {
                let others = self.members.iter();
                let mut others = others.filter(|(id, _)| **id != beat.member_id);
                if others.any(|(_, other)| other.instance_id.as_ref() == Some(instance)) {
                    return Err(codes::UNRELEASED_INSTANCE_ID);
                }
            }
            if !self.members.contains_key(&beat.member_id) {
                let member = Member::new(beat, now + self.session_timeout);
                self.members.insert(beat.member_id.clone(), member);
                self.is_changed = true;
            }
            return Ok(());
        }
        let member = self.member_mut(&beat.member_id)?;
        // An answer that brought an epoch may have been lost. Whoever holds no more than it was given may go on.
        let holds_no_more = |member: &Member| {
            let held = beat.held.as_ref();
            held.is_some_and(|held| held.is_subset(&member.assigned))
        };
        let is_previous = beat.epoch == member.previous_epoch && holds_no_more(member);
        if beat.epoch != member.epoch && !is_previous {
            return Err(codes::FENCED_MEMBER_EPOCH);
        }
        Ok(())
    }

    /// Enters what the member says of itself.
    fn update(&mut self, beat: &Beat) {
        let Some(member) = self.members.get_mut(&beat.member_id) else {
            return;
        };
        if let Some(timeout) = beat.rebalance_timeout {
            member.rebalance_timeout = timeout;
        }
        if let Some(assignor) = beat.assignor {
            self.is_changed |= member.assignor != Some(assignor);
            member.assignor = Some(assignor);
        }
        if let Some(topics) = &beat.topics {
            self.is_changed |= member.topics != *topics;
            member.topics.clone_from(topics);
        }
    }

    /// Makes a new target where the members, what they read, or its partitions have changed.
    fn divide(&mut self, look_up: impl Fn(&str) -> Option<(Uuid, i32)>) {
        let names = self.members.values().flat_map(|member| &member.topics);
        let topics: Topics = names
            .filter_map(|name| Some((name.clone(), look_up(name)?)))
            .collect();
        if !self.is_changed && topics == self.topics {
            return;
        }
        self.epoch += 1;
        self.is_changed = false;
        self.topics = topics;
        self.assignor = self.preferred_assignor();
        let wishes = self.members.iter();
        let wishes = wishes
            .map(|(id, member)| (id.clone(), member.topics.clone()))
            .collect();
        self.target = divide::divide(self.assignor, &wishes, &self.topics, &self.target);
    }

    /// What most of those ask for who ask for any.
    fn preferred_assignor(&self) -> Assignor {
        let asked = self.members.values().filter_map(|member| member.assignor);
        let (ranges, others): (Vec<_>, Vec<_>) = asked.partition(|asked| *asked == Assignor::Range);
        match ranges.len() > others.len() {
            true => Assignor::Range,
            false => Assignor::Uniform,
        }
    }

    /// Moves the member towards its target: first it gives up, then it gets what nobody else holds any more.
    fn reconcile(&mut self, id: &str, held: Option<&BTreeSet<Place>>, now: Instant) {
        let still_holds =
            |revoking: &BTreeSet<Place>| held.is_none_or(|held| !held.is_disjoint(revoking));
        let epoch = self.epoch;
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if !member.revoking.is_empty() {
            if still_holds(&member.revoking) {
                return;
            }
            member.revoking.clear();
            member.revoke_until = None;
        } else if member.epoch == epoch && !member.waits {
            return;
        }
        let target = self.target.get(id).cloned().unwrap_or_default();
        let kept: BTreeSet<Place> = member.assigned.intersection(&target).copied().collect();
        let revoking: BTreeSet<Place> = member.assigned.difference(&kept).copied().collect();
        member.assigned = kept;
        if !revoking.is_empty() && still_holds(&revoking) {
            member.revoking = revoking;
            member.revoke_until = Some(now + member.rebalance_timeout);
            return;
        }
        let others: BTreeSet<Place> = self
            .members
            .iter()
            .filter(|(other, _)| *other != id)
            .flat_map(|(_, other)| other.assigned.union(&other.revoking))
            .copied()
            .collect();
        if let Some(member) = self.members.get_mut(id) {
            member.waits = !target.is_disjoint(&others);
            member.assigned.extend(target.difference(&others));
            if member.epoch != epoch {
                member.previous_epoch = member.epoch;
                member.epoch = epoch;
            }
        }
    }

    /// A member leaves.
    pub(super) fn leave(&mut self, member_id: &str) -> i16 {
        match self.members.contains_key(member_id) {
            true => {
                self.remove(member_id);
                codes::NONE
            }
            false => codes::UNKNOWN_MEMBER_ID,
        }
    }

    fn remove(&mut self, member_id: &str) {
        self.members.remove(member_id);
        self.target.remove(member_id);
        self.is_changed = true;
    }

    /// Whether offsets may be committed by `sender`: a member in its epoch, or anybody without a name while there are no members.
    pub(super) fn check_commit(&self, sender: Sender<'_>) -> Result<(), i16> {
        if sender.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        self.check_member(sender.member_id, sender.generation)
    }

    /// As [`check_commit`](Self::check_commit), for a transaction, whose producer need not say who reads.
    pub(super) fn check_transactional_commit(&self, sender: Sender<'_>) -> Result<(), i16> {
        if sender.generation < 0 {
            return Ok(());
        }
        let checked = self.check_member(sender.member_id, sender.generation);
        // Producers know the code of old.
        checked.map_err(|code| match code {
            codes::STALE_MEMBER_EPOCH => codes::ILLEGAL_GENERATION,
            code => code,
        })
    }

    /// Whether this is a member, in this epoch.
    pub(super) fn check_member(&self, member_id: &str, epoch: i32) -> Result<(), i16> {
        match self.members.get(member_id) {
            None => Err(codes::UNKNOWN_MEMBER_ID),
            Some(member) if member.epoch != epoch => Err(codes::STALE_MEMBER_EPOCH),
            Some(_) => Ok(()),
        }
    }

    /// Whether nothing is left of it but offsets.
    pub(super) fn is_gone(&self) -> bool {
        self.members.is_empty()
    }

    /// The next moment at which a member is overdue.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let members = self.members.values();
        members.map(Member::deadline).min()
    }

    /// Dismisses those who are overdue.
    pub(super) fn expire(&mut self, now: Instant) {
        let late = self.members.iter();
        let late: Vec<String> = late
            .filter(|(_, member)| member.deadline() <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.remove(&id);
        }
    }

    /// The name of a topic that is read.
    pub(crate) fn topic_name(&self, id: Uuid) -> &str {
        let mut topics = self.topics.iter();
        let found = topics.find(|(_, (other, _))| *other == id);
        found.map_or("", |(name, _)| name)
    }

    fn member_mut(&mut self, id: &str) -> Result<&mut Member, i16> {
        self.members.get_mut(id).ok_or(codes::UNKNOWN_MEMBER_ID)
    }
}

impl Member {
    fn new(beat: &Beat, session_until: Instant) -> Self {
        Self {
            epoch: JOIN,
            previous_epoch: JOIN,
            instance_id: beat.instance_id.clone(),
            client_id: beat.client_id.clone(),
            client_host: beat.client_host.clone(),
            topics: BTreeSet::new(),
            rebalance_timeout: Duration::ZERO,
            assignor: None,
            assigned: BTreeSet::new(),
            revoking: BTreeSet::new(),
            waits: false,
            session_until,
            revoke_until: None,
        }
    }

    fn deadline(&self) -> Instant {
        let revoke = self.revoke_until.unwrap_or(self.session_until);
        self.session_until.min(revoke)
    }
}
