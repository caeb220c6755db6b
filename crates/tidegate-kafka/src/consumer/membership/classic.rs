//! The shell around the rules of a group member of the classic protocol ([`crate::consumer::group`]): a connection to the coordinator, a clock,
//! and look-ups of metadata.

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

use super::{Change, Membership, STEP_TIMEOUT, Seat, milliseconds};
use crate::admin::{Committer, group_id};
use crate::client::{Client, RETRY_PAUSE, check};
use crate::connection::Connection;
use crate::consumer::GroupConfig;
use crate::consumer::assignor::TopicPartition;
use crate::consumer::group::{Action, Event, JoinAnswer, Member, Settings};
use crate::consumer::protocol::PROTOCOL_TYPE;
use crate::error::Error;
use crate::retry;

/// How often a leader looks whether its group's topics have grown.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// The request that is open at the coordinator, with its version.
#[derive(Clone, Copy, Debug)]
enum Open {
    Join(i16),
    Sync(i16),
    Heartbeat(i16),
}

/// This process as a member of a group.
#[derive(Debug)]
pub(in crate::consumer) struct ClassicMembership {
    seat: Seat,
    member: Member,
    open: Option<Open>,
    /// Topics to count, for an assignment that waits for it.
    to_count: Option<Vec<String>>,
    next_count: Instant,
}

impl ClassicMembership {
    pub(in crate::consumer) fn new(client: Client, config: GroupConfig, topics: &[&str]) -> Self {
        let settings = Settings {
            session_timeout: config.session_timeout,
            heartbeat_interval: config.heartbeat_interval,
            rebalance_timeout: config.rebalance_timeout,
            request_timeout: client.config().request_timeout,
            assignors: config.assignors.clone(),
        };
        Self {
            seat: Seat::new(client, config),
            member: Member::new(settings, topics),
            open: None,
            to_count: None,
            next_count: Instant::now(),
        }
    }

    fn feed(&mut self, event: Event) -> Result<(), Error> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.seat.started.elapsed();
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
                self.seat.connection = None;
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
                    .with_group_id(group_id(&self.seat.config.id))
                    .with_generation_id(generation)
                    .with_member_id(StrBytes::from_string(member_id));
                return Ok(self.send(&request, Open::Heartbeat));
            }
            Action::RebalanceDue => self.seat.changes.push(Change::Due),
            Action::Revoked(partitions) | Action::Lost(partitions) => {
                self.seat.stop(partitions);
            }
            Action::Assigned(partitions) => self.seat.changes.push(Change::Start(partitions)),
            Action::Fail { code, message } => {
                return Err(Action::failure(&self.seat.config.id, code, &message));
            }
        }
        Ok(None)
    }

    fn connect(&mut self) -> Result<Event, Error> {
        if !self.seat.connect()? {
            return Ok(Event::Disconnected);
        }
        self.open = None;
        Ok(Event::Connected)
    }

    fn join(
        &mut self,
        member_id: String,
        protocols: Vec<(&'static str, Vec<u8>)>,
    ) -> Option<Event> {
        let protocols = protocols
            .into_iter()
            .map(|(name, metadata)| {
                JoinGroupRequestProtocol::default()
                    .with_name(StrBytes::from_static_str(name))
                    .with_metadata(Bytes::from(metadata))
            })
            .collect();
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(&self.seat.config.id))
            .with_session_timeout_ms(milliseconds(self.seat.config.session_timeout))
            .with_rebalance_timeout_ms(milliseconds(self.seat.config.rebalance_timeout))
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
            .with_group_id(group_id(&self.seat.config.id))
            .with_generation_id(generation)
            .with_member_id(StrBytes::from_string(member_id))
            .with_assignments(assignments);
        if self
            .seat
            .version_of::<SyncGroupRequest>()
            .is_some_and(|version| version >= WITH_PROTOCOL)
        {
            request = request
                .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
                .with_protocol_name(Some(StrBytes::from_static_str(protocol)));
        }
        self.send(&request, Open::Sync)
    }

    /// Sends a request; the event that follows if that was not possible.
    fn send<R: Request>(&mut self, request: &R, open: impl Fn(i16) -> Open) -> Option<Event> {
        self.open = self.seat.send(request).map(open);
        self.open.is_none().then_some(Event::Disconnected)
    }

    fn count(&self, topics: &[String]) -> Result<BTreeMap<String, i32>, Error> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let view = self.seat.client.refresh_within(&names, STEP_TIMEOUT)?;
        let count = |name: &&str| {
            let partitions = view.topics.get(*name)?.partitions.len();
            Some(((*name).to_owned(), i32::try_from(partitions).ok()?))
        };
        Ok(names.iter().filter_map(count).collect())
    }
}

impl Membership for ClassicMembership {
    fn seat(&self) -> &Seat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut Seat {
        &mut self.seat
    }

    fn subscribe(&mut self, topics: &[&str]) {
        self.member.subscribe(topics);
    }

    fn owned(&self) -> Vec<TopicPartition> {
        self.member.owned().iter().cloned().collect()
    }

    fn committer(&self) -> Option<Committer> {
        let generation = self.member.generation()?;
        Some(Committer {
            member_id: self.member.member_id().to_owned(),
            generation,
        })
    }

    fn is_settled(&self) -> bool {
        self.member.is_stable()
    }

    fn may_pass(&self, code: i16) -> bool {
        retry::is_between_generations(code)
    }

    fn refused(&mut self, code: i16, _generation: i32) -> Result<(), Error> {
        if self.member.is_stable()
            && let Some(generation) = self.member.generation()
        {
            self.feed(Event::CommitRefused { code, generation })?;
            self.proceed()?;
        }
        Ok(())
    }

    fn open_connection(&mut self) -> Option<&mut Connection> {
        self.open.and(self.seat.connection.as_mut())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let member = self
            .member
            .next_deadline()
            .map(|deadline| self.seat.started + deadline);
        let counts =
            self.to_count.is_some() || (self.member.is_leader() && self.member.is_stable());
        member
            .into_iter()
            .chain(counts.then_some(self.next_count))
            .min()
    }

    fn proceed(&mut self) -> Result<(), Error> {
        self.feed(Event::Proceed)
    }

    fn advance(&mut self) -> Result<(), Error> {
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

    fn receive(&mut self) -> Result<(), Error> {
        let (Some(open), Some(connection)) = (self.open.take(), self.seat.connection.as_mut())
        else {
            return Ok(());
        };
        let event = read_answer(connection, open).unwrap_or_else(|_| {
            self.seat.connection = None;
            Event::Disconnected
        });
        self.feed(event)
    }

    fn leave(&mut self) -> Result<(), Error> {
        /// From this version on several members may leave in one request.
        const SEVERAL: i16 = 3;
        const UNKNOWN_MEMBER_ID: i16 = 25;
        let member_id = StrBytes::from_string(self.member.member_id().to_owned());
        self.member.leave();
        self.seat.connection = None;
        let Some(node) = self.seat.coordinator.filter(|_| !member_id.is_empty()) else {
            return Ok(());
        };
        let group = &self.seat.config.id;
        let address = self.seat.client.address(node)?;
        let request = LeaveGroupRequest::default().with_group_id(group_id(group));
        let answer = self
            .seat
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
        check(format_args!("leave group {group}"), answer.error_code, None)
    }
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
