//! One group by the classic protocol, as a state machine: requests and times go in, answers come out.
//!
//! ```text
//!            join                     all have joined,            the leader
//!   Empty ---------> PreparingRebalance -----------> CompletingRebalance ---> Stable
//!     ^                 |   ^  ^     or time is up        |   has assigned      |
//!     |   nobody left   |   |  |  join, leave, silence    |                     |
//!     +-----------------+   |  +--------------------------+                     |
//!                           +---------------------------------------------------+
//! ```
//!
//! The rules are those of Kafka's `GroupMetadataManager` for classic groups. Nothing here looks at a clock:
//! every call says what time it is, and [`Group::next_deadline`] says when to call [`Group::expire`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::member::{Join, Joined, JoinedMember, Member, Reply, Sender, Synced};
use crate::codes;

/// How long a member that joins for the first time is waited for while others rebalance.
const NEW_MEMBER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// The name that DescribeGroups and ListGroups give it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) state: State,
    generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// The members that keep their place over a restart, by the name they give themselves. (KIP-345)
    static_members: HashMap<String, String>,
    /// Ids handed out to clients that have not come back with them yet, and when they lapse.
    pending: BTreeMap<String, Instant>,
    /// Members of this generation that have not asked for their assignment yet.
    unsynced: BTreeSet<String>,
    /// When a rebalance goes on without those that have not joined.
    join_deadline: Option<Instant>,
    /// Set while a group that was empty waits for further members: what is left of the time it may take.
    initial_wait: Option<Duration>,
    joined_during_wait: bool,
    /// When those that have not asked for their assignment count as gone.
    sync_deadline: Option<Instant>,
    initial_delay: Duration,
}

impl Group {
    /// An empty group, which waits `initial_delay` for further members after the first.
    pub(super) fn new(initial_delay: Duration) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            join_deadline: None,
            initial_wait: None,
            joined_during_wait: false,
            sync_deadline: None,
            initial_delay,
        }
    }

    /// Whether nothing would be lost if the group were forgotten.
    pub(super) fn is_gone(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Members and ids handed out.
    pub(super) fn size(&self) -> usize {
        self.members.len() + self.pending.len()
    }

    pub(super) fn knows(&self, member_id: &str) -> bool {
        self.members.contains_key(member_id) || self.pending.contains_key(member_id)
    }

    // Joining.

    /// A client joins, with `fresh_id` if it has no id yet. The answer may come much later.
    pub(super) fn join(
        &mut self,
        join: Join,
        fresh_id: String,
        now: Instant,
        reply: Reply<Joined>,
    ) {
        if !self.accepts_protocols(&join) {
            let code = codes::INCONSISTENT_GROUP_PROTOCOL;
            return answer(reply, Joined::refused(code, &join.member_id));
        }
        if join.member_id.is_empty() {
            return self.join_without_id(join, fresh_id, now, reply);
        }
        let member_id = join.member_id.clone();
        if self.pending.remove(&member_id).is_some() {
            return self.add_member(member_id, join, now, reply);
        }
        if let Err(code) = self.check_member(&member_id, join.instance_id.as_deref()) {
            return answer(reply, Joined::refused(code, &member_id));
        }
        let unchanged = self
            .members
            .get(&member_id)
            .is_some_and(|member| member.protocols == join.protocols);
        let is_leader = self.leader.as_ref() == Some(&member_id);
        let as_it_is = match self.state {
            State::PreparingRebalance => false,
            // It has not received the answer to its last join, it seems.
            State::CompletingRebalance => unchanged,
            // A leader joins again to have the assignment made anew, for reasons only it knows.
            State::Stable => unchanged && !is_leader,
            State::Empty => {
                let refusal = Joined::refused(codes::UNKNOWN_MEMBER_ID, &member_id);
                return answer(reply, refusal);
            }
        };
        if as_it_is {
            return answer(reply, self.joined(&member_id, is_leader));
        }
        self.update_member(&member_id, join, reply);
        self.rebalance_or_go_on(now);
    }

    fn join_without_id(
        &mut self,
        join: Join,
        fresh_id: String,
        now: Instant,
        reply: Reply<Joined>,
    ) {
        let known = join
            .instance_id
            .as_ref()
            .and_then(|instance| self.static_members.get(instance))
            .cloned();
        match known {
            Some(old_id) => self.replace_static_member(&old_id, fresh_id, join, now, reply),
            None if join.instance_id.is_none() && join.id_is_required => {
                let refusal = Joined::refused(codes::MEMBER_ID_REQUIRED, &fresh_id);
                self.pending.insert(fresh_id, now + join.session_timeout);
                answer(reply, refusal);
            }
            None => self.add_member(fresh_id, join, now, reply),
        }
    }

    fn add_member(&mut self, member_id: String, join: Join, now: Instant, reply: Reply<Joined>) {
        if let Some(instance) = &join.instance_id {
            self.static_members
                .insert(instance.clone(), member_id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            expires: now + NEW_MEMBER_TIMEOUT,
            is_new: true,
            joining: Some(reply),
            syncing: None,
        };
        self.members.insert(member_id, member);
        self.joined_during_wait = true;
        self.rebalance_or_go_on(now);
    }

    fn update_member(&mut self, member_id: &str, join: Join, reply: Reply<Joined>) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.client_id = join.client_id;
            member.client_host = join.client_host;
            member.session_timeout = join.session_timeout;
            member.rebalance_timeout = join.rebalance_timeout;
            member.protocols = join.protocols;
            member.joining = Some(reply);
        }
    }

    /// A static member has come back without its id: it takes over the place of its predecessor.
    fn replace_static_member(
        &mut self,
        old_id: &str,
        new_id: String,
        join: Join,
        now: Instant,
        reply: Reply<Joined>,
    ) {
        let Some(mut member) = self.members.remove(old_id) else {
            return self.add_member(new_id, join, now, reply);
        };
        member.dismiss(codes::FENCED_INSTANCE_ID);
        member.is_heard_of(now);
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), new_id.clone());
        }
        if self.unsynced.remove(old_id) {
            self.unsynced.insert(new_id.clone());
        }
        let led_before = self.leader.clone();
        if self.leader.as_deref() == Some(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.members.insert(new_id.clone(), member);
        let may_skip_assignment = join.may_skip_assignment;
        self.update_member(&new_id, join, reply);
        match self.state {
            State::Stable if self.protocol == self.choose_protocol() => {
                // Nothing changes for the others: no rebalance.
                let is_leader = self.leader.as_ref() == Some(&new_id);
                let mut joined = self.joined(&new_id, is_leader && may_skip_assignment);
                if may_skip_assignment {
                    joined.skip_assignment = is_leader;
                } else {
                    // Told that somebody else leads, an older client does not assign; it asks for what it had.
                    joined.leader = led_before.unwrap_or_default();
                }
                if let Some(member) = self.members.get_mut(&new_id) {
                    member.answer_join(joined);
                }
            }
            // The leader may be assigning to the old id right now.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(now),
            State::PreparingRebalance | State::Empty => self.complete_join_if_all_are_here(now),
        }
    }

    // Rebalancing.

    /// Begins a rebalance, or goes on with the one there is if nobody is missing any more.
    fn rebalance_or_go_on(&mut self, now: Instant) {
        match self.state {
            State::PreparingRebalance => self.complete_join_if_all_are_here(now),
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(now);
            }
        }
    }

    fn prepare_rebalance(&mut self, now: Instant) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                member.is_heard_of_if_syncing(now);
                member.answer_sync(Synced::refused(codes::REBALANCE_IN_PROGRESS));
            }
        }
        self.sync_deadline = None;
        self.unsynced.clear();
        let was_empty = self.state == State::Empty;
        self.state = State::PreparingRebalance;
        if !was_empty {
            self.join_deadline = Some(now + self.rebalance_timeout());
            self.complete_join_if_all_are_here(now);
        } else if self.initial_delay.is_zero() {
            self.complete_join(now);
        } else {
            let left = self.rebalance_timeout().saturating_sub(self.initial_delay);
            self.initial_wait = Some(left);
            self.joined_during_wait = false;
            self.join_deadline = Some(now + self.initial_delay);
        }
    }

    fn complete_join_if_all_are_here(&mut self, now: Instant) {
        let all_here =
            self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if self.state == State::PreparingRebalance && self.initial_wait.is_none() && all_here {
            self.complete_join(now);
        }
    }

    /// The time of a waiting group is up; it may be prolonged as long as others keep joining.
    fn end_initial_wait(&mut self, left: Duration, now: Instant) {
        if std::mem::take(&mut self.joined_during_wait) && !left.is_zero() {
            let wait = self.initial_delay.min(left);
            self.initial_wait = Some(left.saturating_sub(self.initial_delay));
            self.join_deadline = Some(now + wait);
        } else {
            self.complete_join(now);
        }
    }

    /// Begins a generation with those that have joined.
    fn complete_join(&mut self, now: Instant) {
        self.initial_wait = None;
        self.join_deadline = None;
        let missing: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in missing {
            self.remove_member(&member_id);
        }
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members are left, and none of them has joined: they have until their session ends.
            self.join_deadline = Some(now + self.rebalance_timeout());
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.protocol_type = None;
            return;
        }
        self.protocol = self.choose_protocol();
        self.state = State::CompletingRebalance;
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_deadline = Some(now + self.rebalance_timeout());
        let answers: Vec<(String, Joined)> = self
            .members
            .keys()
            .map(|id| {
                (
                    id.clone(),
                    self.joined(id, self.leader.as_ref() == Some(id)),
                )
            })
            .collect();
        for (member_id, joined) in answers {
            if let Some(member) = self.members.get_mut(&member_id) {
                member.answer_join(joined);
                member.is_new = false;
                member.is_heard_of(now);
            }
        }
    }

    /// Sees to it that the leader is a member that has joined; false if none has.
    fn elect_leader(&mut self) -> bool {
        let has_joined = |member: &Member| member.joining.is_some();
        let led = self.leader.as_ref().and_then(|id| self.members.get(id));
        if led.is_some_and(has_joined) {
            return true;
        }
        let found = self.members.iter().find(|(_, member)| has_joined(member));
        match found {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    fn rebalance_timeout(&self) -> Duration {
        let timeouts = self.members.values().map(|member| member.rebalance_timeout);
        timeouts.max().unwrap_or_default()
    }

    /// The protocol that all members support and most of them like best.
    fn choose_protocol(&self) -> Option<String> {
        let everybody_supports = |protocol: &str| {
            self.members
                .values()
                .all(|member| member.supports(protocol))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member
                .protocols
                .iter()
                .find(|(name, _)| everybody_supports(name));
            if let Some((name, _)) = choice {
                *votes.entry(name).or_default() += 1;
            }
        }
        let chosen = votes.into_iter().max_by_key(|(_, count)| *count)?;
        Some(chosen.0.to_owned())
    }

    fn accepts_protocols(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let in_common = |name: &str| {
            self.members
                .iter()
                .filter(|(id, _)| **id != join.member_id)
                .all(|(_, member)| member.supports(name))
        };
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|(name, _)| in_common(name))
    }

    fn joined(&self, member_id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = with_members.then(|| {
            let members = self.members.iter().map(|(id, member)| JoinedMember {
                member_id: id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol),
            });
            members.collect()
        });
        Joined {
            code: codes::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            skip_assignment: false,
            members: members.unwrap_or_default(),
        }
    }

    // Assigning.

    /// A member asks for its assignment; the leader brings everybody's. The answer may come later.
    pub(super) fn sync(
        &mut self,
        sender: Sender<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        now: Instant,
        reply: Reply<Synced>,
    ) {
        if let Err(code) = self.check_sync(sender, protocol) {
            return answer(reply, Synced::refused(code));
        }
        self.unsynced.remove(sender.member_id);
        let is_leader = self.leader.as_deref() == Some(sender.member_id);
        let Some(member) = self.members.get_mut(sender.member_id) else {
            return answer(reply, Synced::refused(codes::UNKNOWN_MEMBER_ID));
        };
        member.syncing = Some(reply);
        if self.state == State::Stable {
            self.answer_syncs(now);
        } else if is_leader {
            for (member_id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&member_id) {
                    member.assignment = assignment;
                }
            }
            self.state = State::Stable;
            self.answer_syncs(now);
        }
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
    }

    fn check_sync(
        &self,
        sender: Sender<'_>,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
    ) -> Result<(), i16> {
        self.check_sender(sender)?;
        let differs = |said: Option<&str>, known: &Option<String>| {
            said.is_some_and(|said| known.as_deref() != Some(said))
        };
        if differs(protocol_type, &self.protocol_type) || differs(protocol, &self.protocol) {
            return Err(codes::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.state {
            State::Empty => Err(codes::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance => Err(codes::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    fn answer_syncs(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.is_heard_of_if_syncing(now);
            let synced = Synced {
                code: codes::NONE,
                protocol_type: self.protocol_type.clone(),
                protocol: self.protocol.clone(),
                assignment: member.assignment.clone(),
            };
            member.answer_sync(synced);
        }
    }

    // Living and leaving.

    /// A member shows that it is alive. The code tells it whether to join again.
    pub(super) fn heartbeat(&mut self, sender: Sender<'_>, now: Instant) -> i16 {
        if let Err(code) = self.check_sender(sender) {
            return code;
        }
        if let Some(member) = self.members.get_mut(sender.member_id) {
            member.is_heard_of(now);
        }
        match self.state {
            State::Empty => codes::UNKNOWN_MEMBER_ID,
            State::PreparingRebalance => codes::REBALANCE_IN_PROGRESS,
            State::CompletingRebalance | State::Stable => codes::NONE,
        }
    }

    /// A member leaves, or is made to leave by the name of its instance.
    pub(super) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now: Instant,
    ) -> i16 {
        let by_instance = instance_id.and_then(|instance| self.static_members.get(instance));
        let member_id = match by_instance {
            Some(found) if member_id.is_empty() => found.clone(),
            _ => member_id.to_owned(),
        };
        if self.pending.remove(&member_id).is_none() {
            if let Err(code) = self.check_member(&member_id, instance_id) {
                return code;
            }
            self.remove_member(&member_id);
        }
        self.after_removal(now);
        codes::NONE
    }

    fn remove_member(&mut self, member_id: &str) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        member.dismiss(codes::UNKNOWN_MEMBER_ID);
        self.unsynced.remove(member_id);
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    fn after_removal(&mut self, now: Instant) {
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(now),
            State::PreparingRebalance => self.complete_join_if_all_are_here(now),
            State::Empty => {}
        }
    }

    /// Whether offsets may be committed by `sender`. One without an id may, while nobody is a member.
    pub(super) fn check_commit(&mut self, sender: Sender<'_>, now: Instant) -> Result<(), i16> {
        if self.state == State::Empty && sender.generation < 0 {
            return Ok(());
        }
        if !sender.is_named() {
            return Err(codes::UNKNOWN_MEMBER_ID);
        }
        self.check_sender(sender)?;
        if self.state == State::CompletingRebalance {
            return Err(codes::REBALANCE_IN_PROGRESS);
        }
        if let Some(member) = self.members.get_mut(sender.member_id) {
            member.is_heard_of(now);
        }
        Ok(())
    }

    /// As [`Group::check_commit`], for a transaction: neither a sender without a name nor a rebalance is in
    /// its way.
    pub(super) fn check_transactional_commit(
        &mut self,
        sender: Sender<'_>,
        _now: Instant,
    ) -> Result<(), i16> {
        let is_free = self.state == State::Empty && sender.generation < 0;
        if is_free || !sender.is_named() {
            return Ok(());
        }
        self.check_sender(sender)
    }

    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), i16> {
        if let Some(instance) = instance_id {
            match self.static_members.get(instance) {
                None => return Err(codes::UNKNOWN_MEMBER_ID),
                Some(known) if known != member_id => return Err(codes::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(codes::UNKNOWN_MEMBER_ID)
        }
    }

    fn check_sender(&self, sender: Sender<'_>) -> Result<(), i16> {
        self.check_member(sender.member_id, sender.instance_id)?;
        if sender.generation == self.generation {
            Ok(())
        } else {
            Err(codes::ILLEGAL_GENERATION)
        }
    }

    // Time.

    /// When [`Group::expire`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let sessions = self
            .members
            .values()
            .filter(|member| member.may_expire())
            .map(|member| member.expires);
        self.pending
            .values()
            .copied()
            .chain(sessions)
            .chain(self.join_deadline)
            .chain(self.sync_deadline)
            .min()
    }

    /// Does what is due at `now`.
    pub(super) fn expire(&mut self, now: Instant) {
        let lapsed = self.pending.len();
        self.pending.retain(|_, lapses| *lapses > now);
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.may_expire() && member.expires <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in &silent {
            self.remove_member(member_id);
        }
        if !silent.is_empty() || lapsed > self.pending.len() {
            let only_ids_lapsed = silent.is_empty();
            if !only_ids_lapsed || self.state == State::PreparingRebalance {
                self.after_removal(now);
            }
        }
        if self.join_deadline.is_some_and(|deadline| deadline <= now) {
            match self.initial_wait.take() {
                Some(left) => self.end_initial_wait(left, now),
                None => self.complete_join(now),
            }
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.sync_deadline = None;
            for member_id in std::mem::take(&mut self.unsynced) {
                self.remove_member(&member_id);
            }
            self.after_removal(now);
        }
    }
}

impl Member {
    fn is_heard_of_if_syncing(&mut self, now: Instant) {
        if self.syncing.is_some() {
            self.is_heard_of(now);
        }
    }
}

fn answer<T>(reply: Reply<T>, value: T) {
    // Whoever asked may have left.
    drop(reply.send(value));
}
