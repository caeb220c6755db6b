//! What the shells around the rules of a group member share: [`classic`] and [`modern`] move bytes and clocks for [`super::group`] and
//! [`super::modern`]. Here are the connection to the coordinator, the commits, and which offsets are this member's to commit.

pub(super) mod classic;
pub(super) mod modern;

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::protocol::Request;

use super::GroupConfig;
use super::assignor::TopicPartition;
use crate::admin::{Committer, check_commit, commit_request};
use crate::client::{Client, RETRY_PAUSE, at_coordinator};
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};

/// How long one look-up may hold up a poll.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

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

/// This process as a member of a group, by whichever protocol.
pub(super) trait Membership: fmt::Debug + Send {
    /// What all memberships have.
    fn seat(&self) -> &Seat;

    /// The same, to change it.
    fn seat_mut(&mut self) -> &mut Seat;

    /// Changes the topics to read.
    fn subscribe(&mut self, topics: &[&str]);

    /// The partitions that are held.
    fn owned(&self) -> Vec<TopicPartition>;

    /// Who commits, and fetches what was committed: `None` while the group does not know us.
    fn committer(&self) -> Option<Committer>;

    /// Whether a refused commit may be tried again: no rebalance, nor a look for the current epoch, is under way.
    fn is_settled(&self) -> bool;

    /// Whether this refusal of a commit may pass once the member has done its part.
    fn may_pass(&self, code: i16) -> bool;

    /// A commit, or a look at what was committed, was refused to this member as it was in `generation`. Nothing is left to be done before a rebalance.
    fn refused(&mut self, code: i16, generation: i32) -> Result<(), Error>;

    /// The rebalance that was announced may begin.
    fn proceed(&mut self) -> Result<(), Error>;

    /// Does what is due: finds the coordinator, joins, heartbeats.
    ///
    /// # Errors
    /// The group's refusal for good.
    fn advance(&mut self) -> Result<(), Error>;

    /// Reads the answer that has begun to arrive from the coordinator.
    ///
    /// # Errors
    /// The group's refusal for good.
    fn receive(&mut self) -> Result<(), Error>;

    /// When [`advance`](Self::advance) has something to do even though no answer came.
    fn next_deadline(&self) -> Option<Instant>;

    /// The connection on which an answer is due.
    fn open_connection(&mut self) -> Option<&mut Connection>;

    /// Leaves the group, so that the others need not wait for the session time-out.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] or [`ErrorKind::Unreachable`] if the coordinator could not be told.
    fn leave(&mut self) -> Result<(), Error>;

    /// Commits what is still ours, going through a rebalance if one is under way.
    ///
    /// # Errors
    /// [`ErrorKind::Group`] if a partition was taken away before; the offsets of the others are committed all the same.
    fn commit(&mut self, offsets: &[(&str, i32, i64)]) -> Result<(), Error> {
        let deadline = Instant::now() + self.seat().client.config().request_timeout;
        loop {
            let (ours, lost) = self.seat().divide(offsets);
            let Some(committer) = self.committer().filter(|_| !ours.is_empty()) else {
                return self.seat().report_lost(&lost);
            };
            let code = match self.commit_ours(&committer, &ours) {
                Ok(()) => return self.seat().report_lost(&lost),
                Err(error) => match error.kafka_code() {
                    // Another try when it has settled.
                    Some(code) if self.may_pass(code) && Instant::now() < deadline => code,
                    _ => return Err(error),
                },
            };
            self.refused(code, committer.generation)?;
            self.settle(deadline)?;
        }
    }

    /// One try to commit.
    fn commit_ours(&self, committer: &Committer, ours: &[(&str, i32, i64)]) -> Result<(), Error> {
        let group = &self.seat().config.id;
        let request = commit_request(group, Some(committer), ours);
        // Not on the connection on which a join may be waiting: the coordinator would answer only after it.
        at_coordinator(&self.seat().client, group, |client, node| {
            let result = check_commit(group, &client.call(node, &request)?);
            match &result {
                // To be tried again only after the member has done its part.
                Err(error) if error.kafka_code().is_some_and(|code| self.may_pass(code)) => {
                    Ok(result)
                }
                _ => result.map(Ok),
            }
        })?
    }

    /// Goes on with a rebalance until the group is settled or the deadline has passed.
    fn settle(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            self.advance()?;
            let now = Instant::now();
            if self.is_settled() || now >= deadline {
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
                None => thread::sleep(patience.min(RETRY_PAUSE)),
            }
        }
    }
}

/// Where a member sits: its group, its coordinator, and what it may commit.
#[derive(Debug)]
pub(super) struct Seat {
    client: Client,
    config: GroupConfig,
    started: Instant,
    coordinator: Option<i32>,
    connection: Option<Connection>,
    changes: Vec<Change>,
    /// For each partition that is held and placed: the offset at which reading began when it was given to us. An offset below comes from an
    /// earlier tenure, and somebody else may have committed more since.
    floors: BTreeMap<TopicPartition, i64>,
}

impl Seat {
    fn new(client: Client, config: GroupConfig) -> Self {
        Self {
            client,
            config,
            started: Instant::now(),
            coordinator: None,
            connection: None,
            changes: Vec::new(),
            floors: BTreeMap::new(),
        }
    }

    /// Notes that a partition that was given to us is read from here on; no offset below it may be committed.
    pub(super) fn placed(&mut self, partition: TopicPartition, floor: i64) {
        self.floors.insert(partition, floor);
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// These are not ours any more.
    fn stop(&mut self, partitions: Vec<TopicPartition>) {
        self.floors
            .retain(|partition, _| !partitions.contains(partition));
        self.changes.push(Change::Stop(partitions));
    }

    /// Whether there is a connection to the coordinator now.
    ///
    /// # Errors
    /// What will not get better by trying again.
    fn connect(&mut self) -> Result<bool, Error> {
        let found = self
            .client
            .group_coordinator_within(&self.config.id, STEP_TIMEOUT)
            .and_then(|node| Ok((node, self.client.open_within(node, STEP_TIMEOUT)?)));
        match found {
            Ok((node, connection)) => {
                self.coordinator = Some(node);
                self.connection = Some(connection);
                Ok(true)
            }
            Err(error) if error.is_retriable() => Ok(false),
            Err(error) => Err(error.context(format_args!("group {}", self.config.id))),
        }
    }

    fn version_of<R: Request>(&self) -> Option<i16> {
        let connection = self.connection.as_ref()?;
        connection.versions().choose(R::KEY, R::VERSIONS).ok()
    }

    /// Sends a request and gives its version; `None`, and the connection is closed, if that was not possible.
    fn send<R: Request>(&mut self, request: &R) -> Option<i16> {
        let sent = self.version_of::<R>().filter(|version| {
            let connection = self.connection.as_mut();
            connection.is_some_and(|connection| connection.send(request, *version).is_ok())
        });
        if sent.is_none() {
            self.connection = None;
        }
        sent
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
}

fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
