//! Group membership: all groups, their clock, and the offsets they commit.
//!
//! [`classic`] holds the rules of one group of the classic protocol, [`modern`] of one of the new (KIP-848). A group with members is of one or the
//! other; one without is of neither, and the next member decides. Here are the lock around all of them, the task that lets time
//! pass for them, and what concerns a group whether or not it has members. Memberships are in memory only:
//! after a restart members are told that they are unknown, and join again. Committed offsets are in the
//! journal and stay.

mod classic;
mod member;
pub(crate) mod modern;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use classic::Group;
pub(crate) use classic::State;
pub(crate) use member::{Join, Joined, Sender, Synced};
use modern::{Beat, Beaten, ModernGroup};

use crate::codes;
use crate::config::BrokerConfig;
use crate::sync::lock;

/// All groups with members.
#[derive(Debug)]
pub(crate) struct Coordinator {
    groups: Mutex<Groups>,
    /// Told whenever a deadline may have become earlier.
    changed: Notify,
    session_timeouts: std::ops::RangeInclusive<Duration>,
    initial_delay: Duration,
    max_group_size: usize,
    modern_session_timeout: Duration,
    modern_heartbeat_interval: Duration,
}

/// The groups with members, by the protocol of these. No name is in both.
#[derive(Debug, Default)]
struct Groups {
    classic: HashMap<String, Group>,
    modern: HashMap<String, ModernGroup>,
}

/// A group as DescribeGroups and ListGroups tell of it.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) state: State,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member as DescribeGroups tells of it.
#[derive(Debug, Clone)]
pub(crate) struct DescribedMember {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

impl Described {
    /// A group that has committed offsets and no members.
    pub(crate) fn empty() -> Self {
        Self {
            state: State::Empty,
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }
}

impl Coordinator {
    pub(crate) fn new(config: &BrokerConfig) -> Self {
        Self {
            groups: Mutex::default(),
            changed: Notify::new(),
            session_timeouts: config.min_session_timeout..=config.max_session_timeout,
            initial_delay: config.initial_rebalance_delay,
            max_group_size: config.max_group_size,
            modern_session_timeout: config.modern_session_timeout,
            modern_heartbeat_interval: config.modern_heartbeat_interval,
        }
    }

    /// How often members of the new protocol are to give a sign of life.
    pub(crate) fn modern_heartbeat_interval(&self) -> Duration {
        self.modern_heartbeat_interval
    }

    /// A client joins. Returns when the group has a new generation, or at once if it is refused.
    pub(crate) async fn join(&self, group_id: &str, join: Join) -> Joined {
        let refused = |code| Joined::refused(code, &join.member_id);
        if group_id.is_empty() {
            return refused(codes::INVALID_GROUP_ID);
        }
        if !self.session_timeouts.contains(&join.session_timeout) {
            return refused(codes::INVALID_SESSION_TIMEOUT);
        }
        let member_id = join.member_id.clone();
        let (reply, answer) = oneshot::channel();
        {
            let mut groups = lock(&self.groups);
            if groups.modern.contains_key(group_id) {
                return refused(codes::INCONSISTENT_GROUP_PROTOCOL);
            }
            let groups = &mut groups.classic;
            if !member_id.is_empty() && !groups.contains_key(group_id) {
                return refused(codes::UNKNOWN_MEMBER_ID);
            }
            let group = groups
                .entry(group_id.to_owned())
                .or_insert_with(|| Group::new(self.initial_delay));
            if !group.knows(&member_id) && group.size() >= self.max_group_size {
                return Joined::refused(codes::GROUP_MAX_SIZE_REACHED, "");
            }
            let name = join.instance_id.as_ref().unwrap_or(&join.client_id);
            let fresh_id = format!("{name}-{}", Uuid::new_v4());
            group.join(join, fresh_id, Instant::now(), reply);
            forget_if_gone(groups, group_id);
        }
        self.changed.notify_one();
        let dismissed = Joined::refused(codes::UNKNOWN_MEMBER_ID, &member_id);
        answer.await.unwrap_or(dismissed)
    }

    /// A member asks for its assignment, and the leader brings everybody's. Returns when there is one.
    pub(crate) async fn sync(
        &self,
        group_id: &str,
        sender: Sender<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
    ) -> Synced {
        let (reply, answer) = oneshot::channel();
        match lock(&self.groups).classic.get_mut(group_id) {
            Some(group) => group.sync(sender, protocol, assignments, Instant::now(), reply),
            None => return Synced::refused(unknown(group_id)),
        }
        self.changed.notify_one();
        let dismissed = Synced::refused(codes::UNKNOWN_MEMBER_ID);
        answer.await.unwrap_or(dismissed)
    }

    /// A member shows that it is alive.
    pub(crate) fn heartbeat(&self, group_id: &str, sender: Sender<'_>) -> i16 {
        match lock(&self.groups).classic.get_mut(group_id) {
            Some(group) => group.heartbeat(sender, Instant::now()),
            None => unknown(group_id),
        }
    }

    /// A member leaves.
    pub(crate) fn leave(&self, group_id: &str, member_id: &str, instance_id: Option<&str>) -> i16 {
        let groups = &mut lock(&self.groups).classic;
        let code = match groups.get_mut(group_id) {
            Some(group) => group.leave(member_id, instance_id, Instant::now()),
            None => unknown(group_id),
        };
        forget_if_gone(groups, group_id);
        self.changed.notify_one();
        code
    }

    /// A member of the new protocol joins, shows that it is alive and what it holds, or leaves. `look_up` knows topics by name.
    pub(crate) fn beat(
        &self,
        group_id: &str,
        beat: &Beat,
        look_up: impl Fn(&str) -> Option<(Uuid, i32)>,
    ) -> Result<Beaten, i16> {
        let mut groups = lock(&self.groups);
        if groups.classic.contains_key(group_id) {
            return Err(codes::GROUP_ID_NOT_FOUND);
        }
        let groups = &mut groups.modern;
        if beat.leaves() {
            let group = groups.get_mut(group_id);
            let code = group.map_or(codes::UNKNOWN_MEMBER_ID, |group| {
                group.leave(&beat.member_id)
            });
            if groups.get(group_id).is_some_and(ModernGroup::is_gone) {
                groups.remove(group_id);
            }
            self.changed.notify_one();
            return match code {
                codes::NONE => Ok(Beaten {
                    epoch: beat.epoch,
                    assignment: None,
                }),
                code => Err(code),
            };
        }
        if !beat.joins() && !groups.contains_key(group_id) {
            return Err(codes::UNKNOWN_MEMBER_ID);
        }
        let group = groups
            .entry(group_id.to_owned())
            .or_insert_with(|| ModernGroup::new(self.modern_session_timeout));
        let is_full = group.members.len() >= self.max_group_size;
        if beat.joins() && is_full && !group.members.contains_key(&beat.member_id) {
            return Err(codes::GROUP_MAX_SIZE_REACHED);
        }
        let beaten = group.beat(beat, Instant::now(), look_up);
        self.changed.notify_one();
        beaten
    }

    /// Whether this is a member of a group of the new protocol, in this epoch. Of another group nobody has to be one.
    pub(crate) fn check_reader(
        &self,
        group_id: &str,
        member_id: &str,
        epoch: i32,
    ) -> Result<(), i16> {
        match lock(&self.groups).modern.get(group_id) {
            Some(group) => group.check_member(member_id, epoch),
            None => Ok(()),
        }
    }

    /// What `describe` tells of a group of the new protocol that has members.
    pub(crate) fn describe_modern<T>(
        &self,
        group_id: &str,
        describe: impl FnOnce(&ModernGroup) -> T,
    ) -> Option<T> {
        lock(&self.groups).modern.get(group_id).map(describe)
    }

    /// All groups of the new protocol with members, with their states.
    pub(crate) fn list_modern(&self) -> Vec<(String, &'static str)> {
        let groups = lock(&self.groups);
        let groups = groups.modern.iter();
        groups
            .map(|(id, group)| (id.clone(), group.state()))
            .collect()
    }

    /// Runs `commit` if `sender` may commit offsets for the group now. Membership cannot change meanwhile.
    pub(crate) fn commit(
        &self,
        group_id: &str,
        sender: Sender<'_>,
        commit: impl FnOnce() -> Result<(), i16>,
    ) -> Result<(), i16> {
        let modern = |group: &ModernGroup| group.check_commit(sender);
        self.commit_if(group_id, sender, Group::check_commit, modern, commit)
    }

    /// As [`Coordinator::commit`], for positions that a transaction commits. Its producer may know nothing of
    /// the group's members; what it does know must be right. (KIP-447)
    pub(crate) fn commit_in_transaction(
        &self,
        group_id: &str,
        sender: Sender<'_>,
        commit: impl FnOnce() -> Result<(), i16>,
    ) -> Result<(), i16> {
        let modern = |group: &ModernGroup| group.check_transactional_commit(sender);
        let classic = Group::check_transactional_commit;
        self.commit_if(group_id, sender, classic, modern, commit)
    }

    fn commit_if(
        &self,
        group_id: &str,
        sender: Sender<'_>,
        classic: impl FnOnce(&mut Group, Sender<'_>, Instant) -> Result<(), i16>,
        modern: impl FnOnce(&ModernGroup) -> Result<(), i16>,
        commit: impl FnOnce() -> Result<(), i16>,
    ) -> Result<(), i16> {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.modern.get(group_id) {
            modern(group)?;
            return commit();
        }
        match groups.classic.get_mut(group_id) {
            Some(group) => classic(group, sender, Instant::now())?,
            // Nobody is a member, so a generation is one of the past.
            None if sender.generation >= 0 => return Err(codes::ILLEGAL_GENERATION),
            None => {}
        }
        commit()
    }

    /// Runs `change` if the group has no members; none can join meanwhile.
    pub(crate) fn while_empty<T>(
        &self,
        group_id: &str,
        change: impl FnOnce() -> Result<T, i16>,
    ) -> Result<T, i16> {
        let groups = lock(&self.groups);
        if groups.classic.contains_key(group_id) || groups.modern.contains_key(group_id) {
            return Err(codes::NON_EMPTY_GROUP);
        }
        change()
    }

    /// The group of the classic protocol, if it has members or is about to.
    pub(crate) fn describe(&self, group_id: &str) -> Option<Described> {
        lock(&self.groups).classic.get(group_id).map(describe)
    }

    /// All groups of the classic protocol with members.
    pub(crate) fn list(&self) -> Vec<(String, Described)> {
        let groups = lock(&self.groups);
        let groups = groups.classic.iter();
        let described = groups.map(|(id, group)| (id.clone(), describe(group)));
        described.collect()
    }

    /// Lets time pass for all groups, for as long as it is polled.
    pub(crate) async fn run_timers(&self) {
        loop {
            let changed = self.changed.notified();
            match self.expire(Instant::now()) {
                Some(deadline) => {
                    // Either way the groups are looked at again.
                    drop(tokio::time::timeout_at(deadline, changed).await);
                }
                None => changed.await,
            }
        }
    }

    /// Does what is due, and says when the next thing is.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut groups = lock(&self.groups);
        let Groups { classic, modern } = &mut *groups;
        for group in classic.values_mut() {
            if group
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                group.expire(now);
            }
        }
        classic.retain(|_, group| !group.is_gone());
        for group in modern.values_mut() {
            group.expire(now);
        }
        modern.retain(|_, group| !group.is_gone());
        let classic = classic.values().filter_map(Group::next_deadline);
        let modern = modern.values().filter_map(ModernGroup::next_deadline);
        classic.chain(modern).min()
    }
}

fn forget_if_gone(groups: &mut HashMap<String, Group>, group_id: &str) {
    if groups.get(group_id).is_some_and(Group::is_gone) {
        groups.remove(group_id);
    }
}

fn unknown(group_id: &str) -> i16 {
    if group_id.is_empty() {
        codes::INVALID_GROUP_ID
    } else {
        codes::UNKNOWN_MEMBER_ID
    }
}

fn describe(group: &Group) -> Described {
    let protocol = group.protocol.clone().unwrap_or_default();
    let members = group.members.iter().map(|(id, member)| DescribedMember {
        member_id: id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: match group.state {
            State::Stable => member.metadata(&protocol),
            _ => Bytes::new(),
        },
        assignment: match group.state {
            State::Stable => member.assignment.clone(),
            _ => Bytes::new(),
        },
    });
    let members = members.collect();
    Described {
        state: group.state,
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol,
        members,
    }
}
