//! The shell around the rules of a group member of the new protocol ([`crate::consumer::modern`]): a connection to the coordinator, a clock,
//! and look-ups of topic ids.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::{Request, StrBytes};
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use super::{Change, Membership, STEP_TIMEOUT, Seat, milliseconds};
use crate::admin::{Committer, group_id};
use crate::client::{Client, RETRY_PAUSE, check, topic_name};
use crate::connection::Connection;
use crate::consumer::GroupConfig;
use crate::consumer::assignor::TopicPartition;
use crate::consumer::modern::{Action, Answer, Event, Heartbeat, IdPartition, Member, Settings};
use crate::error::{Error, ErrorKind};
use crate::retry::{self, HeartbeatVerdict};

/// The epoch of a heartbeat that leaves.
const LEAVE_EPOCH: i32 = -1;

/// This process as a member of a group.
#[derive(Debug)]
pub(in crate::consumer) struct ModernMembership {
    seat: Seat,
    member: Member,
    /// By which the group knows this process, from the first to the last heartbeat. It is ours to choose (KIP-1082), which makes a join that is
    /// sent a second time the same join.
    member_id: String,
    /// The version of the heartbeat whose answer is due.
    open: Option<i16>,
    /// Whether a topic's name is missing.
    looking: bool,
    look_not_before: Instant,
}

impl ModernMembership {
    pub(in crate::consumer) fn new(
        client: Client,
        config: GroupConfig,
        topics: &[&str],
    ) -> Result<Self, Error> {
        let settings = Settings {
            rebalance_timeout: config.rebalance_timeout,
            request_timeout: client.config().request_timeout,
            assignor: config.remote_assignor.clone(),
        };
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| {
            Error::new(
                ErrorKind::Configuration,
                "the system has no random numbers to make a member id of",
            )
        })?;
        let member_id = uuid::Builder::from_random_bytes(random).into_uuid();
        Ok(Self {
            seat: Seat::new(client, config),
            member: Member::new(settings, topics),
            member_id: member_id.to_string(),
            open: None,
            looking: false,
            look_not_before: Instant::now(),
        })
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
            Action::Heartbeat(heartbeat) => {
                let request = self.request(heartbeat);
                self.open = self.seat.send(&request);
                return Ok(self.open.is_none().then_some(Event::Disconnected));
            }
            Action::LookUpTopics => self.looking = true,
            Action::RebalanceDue => self.seat.changes.push(Change::Due),
            Action::Revoked(partitions) | Action::Lost(partitions) => self.seat.stop(partitions),
            Action::Assigned(partitions) => self.seat.changes.push(Change::Start(partitions)),
            Action::Fail { code, said } => return Err(self.refusal(code, said.as_deref())),
        }
        Ok(None)
    }

    fn connect(&mut self) -> Result<Event, Error> {
        if !self.seat.connect()? {
            return Ok(Event::Disconnected);
        }
        self.open = None;
        let offered = self.seat.connection.as_ref().is_some_and(|connection| {
            let versions = connection.versions();
            versions
                .offered(ConsumerGroupHeartbeatRequest::KEY)
                .is_some()
        });
        if !offered {
            return Err(not_offered(
                &self.seat.config.id,
                "the broker does not know it",
            ));
        }
        Ok(Event::Connected)
    }

    fn refusal(&self, code: i16, said: Option<&str>) -> Error {
        const UNSUPPORTED_VERSION: i16 = 35;
        const GROUP_ID_NOT_FOUND: i16 = 69;
        let group = &self.seat.config.id;
        match code {
            UNSUPPORTED_VERSION => not_offered(group, "it is turned off there"),
            GROUP_ID_NOT_FOUND => {
                let message = format!(
                    "group {group}: it is of another kind, and group.protocol=consumer cannot join it: stop its members first, \
                     or join it as they do, with group.protocol=classic"
                );
                Error::failure(ErrorKind::Group, Some(code), message)
            }
            code => Error::kafka(format_args!("group {group}: join"), code, said),
        }
    }

    fn request(&self, heartbeat: Heartbeat) -> ConsumerGroupHeartbeatRequest {
        let topics = |names: Vec<String>| names.iter().map(|name| topic_name(name)).collect();
        self.request_of_epoch(heartbeat.epoch)
            .with_rebalance_timeout_ms(heartbeat.rebalance_timeout.map_or(-1, milliseconds))
            .with_subscribed_topic_names(heartbeat.topics.map(topics))
            .with_server_assignor(heartbeat.assignor.map(StrBytes::from_string))
            .with_topic_partitions(heartbeat.held.map(|held| by_topic(&held)))
    }

    fn request_of_epoch(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.seat.config.id))
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(-1)
    }

    /// Looks up the ids of the topics that are read.
    fn look_up(&mut self) -> Result<(), Error> {
        let names: Vec<String> = self.member.topics().map(ToOwned::to_owned).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.look_not_before = Instant::now() + RETRY_PAUSE;
        match self.seat.client.refresh_within(&names, STEP_TIMEOUT) {
            Ok(view) => {
                self.looking = false;
                let known = view
                    .topics
                    .iter()
                    .filter(|(_, topic)| topic.error_code == 0);
                let ids = known
                    .map(|(name, topic)| (topic.id, name.clone()))
                    .collect();
                self.feed(Event::Named(ids))
            }
            Err(error) if error.is_retriable() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Membership for ModernMembership {
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
        self.member.held().cloned().collect()
    }

    fn committer(&self) -> Option<Committer> {
        Some(Committer {
            member_id: self.member_id.clone(),
            generation: self.member.epoch()?,
        })
    }

    fn is_settled(&self) -> bool {
        self.member.is_settled()
    }

    fn may_pass(&self, code: i16) -> bool {
        retry::is_stale_epoch(code) || retry::heartbeat(code) == HeartbeatVerdict::JoinAnew
    }

    fn refused(&mut self, code: i16, generation: i32) -> Result<(), Error> {
        let epoch = generation;
        self.feed(Event::CommitRefused { code, epoch })
    }

    fn proceed(&mut self) -> Result<(), Error> {
        self.feed(Event::Proceed)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.feed(Event::Tick)?;
        if self.looking && Instant::now() >= self.look_not_before {
            self.look_up()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Error> {
        let (Some(version), Some(connection)) = (self.open.take(), self.seat.connection.as_mut())
        else {
            return Ok(());
        };
        let event = match connection.receive::<ConsumerGroupHeartbeatRequest>(version) {
            Ok(answer) => Event::Beaten(read_answer(&answer)),
            Err(_) => {
                self.seat.connection = None;
                Event::Disconnected
            }
        };
        self.feed(event)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let member = self.member.next_deadline();
        member
            .map(|deadline| self.seat.started + deadline)
            .into_iter()
            .chain(self.looking.then_some(self.look_not_before))
            .min()
    }

    fn open_connection(&mut self) -> Option<&mut Connection> {
        self.open.and(self.seat.connection.as_mut())
    }

    fn leave(&mut self) -> Result<(), Error> {
        let has_joined = self.member.epoch().is_some() || self.open.is_some();
        self.member.leave();
        self.seat.connection = None;
        let Some(node) = self.seat.coordinator.filter(|_| has_joined) else {
            return Ok(());
        };
        let request = self.request_of_epoch(LEAVE_EPOCH);
        let address = self.seat.client.address(node)?;
        let answer = self
            .seat
            .client
            .with_connection(&address, STEP_TIMEOUT, |connection| {
                connection.call(&request)
            })?;
        match retry::heartbeat(answer.error_code) {
            // Whom the group does not know need not leave it.
            HeartbeatVerdict::Done | HeartbeatVerdict::JoinAnew => Ok(()),
            _ => check(
                format_args!("leave group {}", self.seat.config.id),
                answer.error_code,
                answer.error_message.as_deref(),
            ),
        }
    }
}

fn not_offered(group: &str, why: &str) -> Error {
    let message = format!(
        "group {group}: this cluster does not offer group.protocol=consumer, {why} (it comes with Kafka 4.0, and with the feature group.version): \
         join with group.protocol=classic"
    );
    Error::new(ErrorKind::Configuration, message)
}

fn by_topic(held: &[IdPartition]) -> Vec<TopicPartitions> {
    let mut numbers: BTreeMap<[u8; 16], Vec<i32>> = BTreeMap::new();
    for (id, number) in held {
        numbers.entry(*id).or_default().push(*number);
    }
    numbers
        .into_iter()
        .map(|(id, partitions)| {
            TopicPartitions::default()
                .with_topic_id(Uuid::from_bytes(id))
                .with_partitions(partitions)
        })
        .collect()
}

fn read_answer(answer: &ConsumerGroupHeartbeatResponse) -> Answer {
    let assignment = answer.assignment.as_ref().map(|assignment| {
        let topics = assignment.topic_partitions.iter();
        topics
            .flat_map(|topic| {
                let id = topic.topic_id.into_bytes();
                topic.partitions.iter().map(move |number| (id, *number))
            })
            .collect::<BTreeSet<_>>()
    });
    let interval = u64::try_from(answer.heartbeat_interval_ms).unwrap_or_default();
    Answer {
        code: answer.error_code,
        said: answer.error_message.as_ref().map(ToString::to_string),
        epoch: answer.member_epoch,
        interval: Duration::from_millis(interval),
        assignment,
    }
}
