//! The shell around the rules of a group member ([`super::group`]): a connection to the coordinator, a clock, and look-ups of metadata.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Message, Request, StrBytes};

use super::GroupConfig;
use super::assignor::TopicPartition;
use super::group::{Action, Event, JoinAnswer, Member, Settings};
use super::protocol::PROTOCOL_TYPE;
use crate::admin::{check_commit, commit_request, group_id};
use crate::client::{Client, RETRY_PAUSE, at_coordinator, check};
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};

/// How long one look-up may hold up a poll.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a leader looks whether its group's topics have grown.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// What a change of membership means for the partitions.
#[derive(Debug)]
pub(super) enum Change {
    /// Read these.
    Start(Vec<TopicPartition>),
    /// Do not read these any more.
    Stop(Vec<TopicPartition>),
    /// A rebalance is about to begin.
    Due,
}

/// The request that is open at the coordinator, with its version.
#[derive(Clone, Copy, Debug)]
enum Open {
    Join(i16),
    Sync(i16),
    Heartbeat(i16),
}

/// This process as a member of a group.
#[derive(Debug)]
pub(super) struct Membership {
    client: Client,
    config: GroupConfig,
    member: Member,
    started: Instant,
    coordinator: Option<i32>,
    connection: Option<Connection>,
    open: Option<Open>,
    /// Topics to count, for an assignment that waits for it.
    to_count: Option<Vec<String>>,
    next_count: Instant,
    changes: Vec<Change>,
    /// For each partition that is held and placed: the offset at which reading began when it was given to us. An offset below comes from an
    /// earlier tenure, and somebody else may have committed more since.
    floors: BTreeMap<TopicPartition, i64>,
}

impl Membership {
    pub(super) fn new(client: Client, config: GroupConfig, topics: &[&str]) -> Self {
        let settings = Settings {
            session_timeout: config.session_timeout,
            heartbeat_interval: config.heartbeat_interval,
            rebalance_timeout: config.rebalance_timeout,
            request_timeout: client.config().request_timeout,
            assignors: config.assignors.clone(),
        };
        let now = Instant::now();
        Self {
            client,
            config,
            member: Member::new(settings, topics),
            started: now,
            coordinator: None,
            connection: None,
            open: None,
            to_count: None,
            next_count: now,
            changes: Vec::new(),
            floors: BTreeMap::new(),
        }
    }

    pub(super) fn subscribe(&mut self, topics: &[&str]) {
        self.member.subscribe(topics);
    }

    pub(super) fn owned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.member.owned().iter()
    }

    /// Notes that a partition that was given to us is read from here on; no offset below it may be committed.
    pub(super) fn placed(&mut self, partition: TopicPartition, floor: i64) {
        self.floors.insert(partition, floor);
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The connection on which an answer is due.
    pub(super) fn open_connection(&mut self) -> Option<&mut Connection> {
        self.open.and(self.connection.as_mut())
    }

    /// When [`advance`](Self::advance) has something to do even though no answer came.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let member = self
            .member
            .next_deadline()
            .map(|deadline| self.started + deadline);
        let counts =
            self.to_count.is_some() || (self.member.is_leader() && self.member.is_stable());
        member
            .into_iter()
            .chain(counts.then_some(self.next_count))
            .min()
    }

    /// The rebalance that was announced may begin.
    pub(super) fn proceed(&mut self) -> Result<(), Error> {
        self.feed(Event::Proceed)
    }

    /// Does what is due: finds the coordinator, joins, heartbeats.
    ///
    /// # Errors
    /// The group's refusal for good.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.feed(Event::Tick)?;
        if Instant::now() < self.next_count {
            return Ok(());
        }
        let topics = match &self.to_count {
            Some(topics) => topics.clone(),
            None if self.member.is_leader() && self.member.is_stable() => {
                self.member.topics().map(ToOwned::to_owned).collect()
            }
            None => return Ok(()),
        };
        match self.count(&topics) {
            Ok(counts) => {
                self.to_count = None;
                self.next_count = Instant::now() + COUNT_INTERVAL;
                self.feed(Event::Counted(counts))
            }
            Err(error) if error.is_retriable() => {
                self.next_count = Instant::now() + RETRY_PAUSE;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the answer that has begun to arrive from the coordinator.
    ///
    /// # Errors
    /// The group's refusal for good.
    pub(super) fn receive(&mut self) -> Result<(), Error> {
        let (Some(open), Some(connection)) = (self.open.take(), self.connection.as_mut()) else {
            return Ok(());
        };
        let event = read_answer(connection, open).unwrap_or_else(|_| {
            self.connection = None;
            Event::Disconnected
        });
        self.feed(event)
    }

    fn feed(&mut self, event: Event) -> Result<(), Error> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.started.elapsed();
            for action in self.member.handle(now, event) {
                events.extend(self.act(action)?);
            }
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<Option<Event>, Error> {
        match action {
            Action::Connect => return self.connect().map(Some),
            Action::Disconnect => {
                self.connection = None;
                self.open = None;
            }
            Action::Join {
                member_id,
                protocols,
            } => return Ok(self.join(member_id, protocols)),
            Action::CountPartitions(topics) => {
                self.to_count = Some(topics);
                self.next_count = Instant::now();
            }
            Action::Sync {
                generation,
                member_id,
                protocol,
                assignments,
            } => {
                return Ok(self.sync(generation, member_id, protocol, assignments));
            }
            Action::Heartbeat {
                generation,
                member_id,
            } => {
                let request = HeartbeatRequest::default()
                    .with_group_id(group_id(&self.config.id))
                    .with_generation_id(generation)
                    .with_member_id(StrBytes::from_string(member_id));
                return Ok(self.send(&request, Open::Heartbeat));
            }
            Action::RebalanceDue => self.changes.push(Change::Due),
            Action::Revoked(partitions) | Action::Lost(partitions) => {
                self.floors
                    .retain(|partition, _| !partitions.contains(partition));
                self.changes.push(Change::Stop(partitions));
            }
            Action::Assigned(partitions) => self.changes.push(Change::Start(partitions)),
            Action::Fail { code, message } => {
                return Err(Action::failure(&self.config.id, code, &message));
            }
        }
        Ok(None)
    }

    fn connect(&mut self) -> Result<Event, Error> {
        let found = self
            .client
            .group_coordinator_within(&self.config.id, STEP_TIMEOUT)
            .and_then(|node| Ok((node, self.client.open_within(node, STEP_TIMEOUT)?)));
        match found {
            Ok((node, connection)) => {
                self.coordinator = Some(node);
                self.connection = Some(connection);
                self.open = None;
                Ok(Event::Connected)
            }
            Err(error) if error.is_retriable() => Ok(Event::Disconnected),
            Err(error) => Err(error.context(format_args!("group {}", self.config.id))),
        }
    }

    fn join(
        &mut self,
        member_id: String,
        protocols: Vec<(&'static str, Vec<u8>)>,
    ) -> Option<Event> {
        let milliseconds = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let protocols = protocols
            .into_iter()
            .map(|(name, metadata)| {
                JoinGroupRequestProtocol::default()
                    .with_name(StrBytes::from_static_str(name))
                    .with_metadata(Bytes::from(metadata))
            })
            .collect();
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(&self.config.id))
            .with_session_timeout_ms(milliseconds(self.config.session_timeout))
            .with_rebalance_timeout_ms(milliseconds(self.config.rebalance_timeout))
            .with_member_id(StrBytes::from_string(member_id))
            .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
            .with_protocols(protocols);
        self.send(&request, Open::Join)
    }

    fn sync(
        &mut self,
        generation: i32,
        member_id: String,
        protocol: &'static str,
        assignments: Vec<(String, Vec<u8>)>,
    ) -> Option<Event> {
        // From this version on the coordinator checks that all mean the same assignor (KIP-559).
        const WITH_PROTOCOL: i16 = 5;
        let assignments = assignments
            .into_iter()
            .map(|(member_id, assignment)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(StrBytes::from_string(member_id))
                    .with_assignment(Bytes::from(assignment))
            })
            .collect();
        let mut request = SyncGroupRequest::default()
            .with_group_id(group_id(&self.config.id))
            .with_generation_id(generation)
            .with_member_id(StrBytes::from_string(member_id))
            .with_assignments(assignments);
        if self
            .version_of::<SyncGroupRequest>()
            .is_some_and(|version| version >= WITH_PROTOCOL)
        {
            request = request
                .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
                .with_protocol_name(Some(StrBytes::from_static_str(protocol)));
        }
        self.send(&request, Open::Sync)
    }

    fn version_of<R: Request>(&self) -> Option<i16> {
        let connection = self.connection.as_ref()?;
        connection.versions().choose(R::KEY, R::VERSIONS).ok()
    }

    /// Sends a request; the event that follows if that was not possible.
    fn send<R: Request>(&mut self, request: &R, open: impl Fn(i16) -> Open) -> Option<Event> {
        let sent = self.version_of::<R>().is_some_and(|version| {
            self.open = Some(open(version));
            let connection = self.connection.as_mut();
            connection.is_some_and(|connection| connection.send(request, version).is_ok())
        });
        if sent {
            return None;
        }
        self.connection = None;
        self.open = None;
        Some(Event::Disconnected)
    }

    fn count(&self, topics: &[String]) -> Result<BTreeMap<String, i32>, Error> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let view = self.client.refresh_within(&names, STEP_TIMEOUT)?;
        let count = |name: &&str| {
            let partitions = view.topics.get(*name)?.partitions.len();
            Some(((*name).to_owned(), i32::try_from(partitions).ok()?))
        };
        Ok(names.iter().filter_map(count).collect())
    }

    /// Commits what is still ours, going through a rebalance if one is under way.
    ///
    /// # Errors
    /// [`ErrorKind::Group`] if a partition was taken away before; the offsets of the others are committed all the same.
    pub(super) fn commit(&mut self, offsets: &[(&str, i32, i64)]) -> Result<(), Error> {
        let deadline = Instant::now() + self.client.config().request_timeout;
        loop {
            let (ours, lost) = self.divide(offsets);
            let result = self.commit_ours(&ours);
            let code = match result {
                Ok(()) => return self.report_lost(&lost),
                Err(error) => match error.kafka_code() {
                    // Between generations: another try when it has settled.
                    Some(code) if is_between_generations(code) && Instant::now() < deadline => code,
                    _ => return Err(error),
                },
            };
            if self.member.is_stable()
                && let Some(generation) = self.member.generation()
            {
                self.feed(Event::CommitRefused { code, generation })?;
                self.proceed()?;
            }
            self.settle(deadline)?;
        }
    }

    fn divide<'a>(
        &self,
        offsets: &[(&'a str, i32, i64)],
    ) -> (Vec<(&'a str, i32, i64)>, Vec<TopicPartition>) {
        let mut ours = Vec::new();
        let mut lost = Vec::new();
        for offset in offsets {
            let partition = TopicPartition::new(offset.0, offset.1);
            if self
                .floors
                .get(&partition)
                .is_some_and(|floor| offset.2 >= *floor)
            {
                ours.push(*offset);
            } else {
                lost.push(partition);
            }
        }
        (ours, lost)
    }

    fn commit_ours(&self, ours: &[(&str, i32, i64)]) -> Result<(), Error> {
        let Some(generation) = self.member.generation().filter(|_| !ours.is_empty()) else {
            return Ok(());
        };
        let group = &self.config.id;
        let request = commit_request(group, generation, self.member.member_id(), ours);
        // Not on the connection on which a join may be waiting: the coordinator would answer only after it.
        at_coordinator(&self.client, group, |client, node| {
            let result = check_commit(group, &client.call(node, &request)?);
            match &result {
                // To be tried again only after the member has done its part.
                Err(error) if error.kafka_code().is_some_and(is_between_generations) => Ok(result),
                _ => result.map(Ok),
            }
        })?
    }

    fn report_lost(&self, lost: &[TopicPartition]) -> Result<(), Error> {
        if lost.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let message = format!(
            "group {}: {} not committed: taken away by a rebalance, and read again from its last commit",
            self.config.id,
            names.join(", ")
        );
        Err(Error::new(ErrorKind::Group, message))
    }

    /// Goes on with a rebalance until the group is settled or the deadline has passed.
    fn settle(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            self.advance()?;
            let now = Instant::now();
            if self.member.is_stable() || now >= deadline {
                return Ok(());
            }
            let until = self
                .next_deadline()
                .map_or(deadline, |due| due.min(deadline));
            let patience = until
                .saturating_duration_since(now)
                .max(Duration::from_millis(1));
            match self
                .open_connection()
                .map(|connection| connection.wait_readable(patience))
            {
                Some(Ok(false)) => {}
                Some(_) => self.receive()?,
                None => std::thread::sleep(patience.min(RETRY_PAUSE)),
            }
        }
    }

    /// Leaves the group, so that the others need not wait for the session time-out.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] or [`ErrorKind::Unreachable`] if the coordinator could not be told.
    pub(super) fn leave(mut self) -> Result<(), Error> {
        /// From this version on several members may leave in one request.
        const SEVERAL: i16 = 3;
        const UNKNOWN_MEMBER_ID: i16 = 25;
        let member_id = StrBytes::from_string(self.member.member_id().to_owned());
        self.member.leave();
        self.connection = None;
        let Some(node) = self.coordinator.filter(|_| !member_id.is_empty()) else {
            return Ok(());
        };
        let address = self.client.address(node)?;
        let request = LeaveGroupRequest::default().with_group_id(group_id(&self.config.id));
        let answer = self
            .client
            .with_connection(&address, STEP_TIMEOUT, |connection| {
                let versions = connection.versions();
                let version =
                    versions.choose(LeaveGroupRequest::KEY, LeaveGroupRequest::VERSIONS)?;
                let request = if version >= SEVERAL {
                    let member = MemberIdentity::default().with_member_id(member_id.clone());
                    request.clone().with_members(vec![member])
                } else {
                    request.clone().with_member_id(member_id.clone())
                };
                connection.call_version(&request, version)
            })?;
        if answer.error_code == UNKNOWN_MEMBER_ID {
            return Ok(());
        }
        check(
            format_args!("leave group {}", self.config.id),
            answer.error_code,
            None,
        )
    }
}

/// Whether a refusal means that the group is, or was, rebalancing: ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS.
fn is_between_generations(code: i16) -> bool {
    matches!(code, 22 | 25 | 27)
}

fn read_answer(connection: &mut Connection, open: Open) -> Result<Event, Error> {
    Ok(match open {
        Open::Join(version) => join_answer(&connection.receive::<JoinGroupRequest>(version)?),
        Open::Sync(version) => {
            let answer = connection.receive::<SyncGroupRequest>(version)?;
            Event::Synced {
                code: answer.error_code,
                assignment: answer.assignment.to_vec(),
            }
        }
        Open::Heartbeat(version) => {
            let answer = connection.receive::<HeartbeatRequest>(version)?;
            Event::Beaten {
                code: answer.error_code,
            }
        }
    })
}

fn join_answer(answer: &JoinGroupResponse) -> Event {
    let members = answer.members.iter();
    Event::Joined(JoinAnswer {
        code: answer.error_code,
        generation: answer.generation_id,
        protocol: answer
            .protocol_name
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        leader: answer.leader.to_string(),
        member_id: answer.member_id.to_string(),
        members: members
            .map(|member| (member.member_id.to_string(), member.metadata.to_vec()))
            .collect(),
    })
}
