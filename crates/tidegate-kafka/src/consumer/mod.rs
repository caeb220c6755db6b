//! Reading topics: fetching records, alone or as a member of a group.
//!
//! [`Consumer::assign`] reads partitions of your choice; [`Consumer::subscribe`] joins the group, by either protocol, and reads what it is given. Everything
//! happens in [`Consumer::poll`]: there is no thread behind it, so a member that does not poll for as long as the session time-out is taken
//! for dead. What `poll` returns is raw batches; [`FetchedBatches::for_each_record`] reads them.

mod assignor;
mod committed;
mod fetch;
mod group;
mod membership;
mod modern;
mod outcomes;
mod protocol;
mod records;
#[cfg(test)]
mod simulation;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

pub use assignor::{Assignor, TopicPartition};
pub use committed::{outcomes_behind, read_committed};
#[doc(hidden)]
pub use outcomes::Outcomes;
pub use records::{ConsumedRecord, FetchedBatches};

use fetch::{Fetcher, Start};
use membership::classic::ClassicMembership;
use membership::modern::ModernMembership;
use membership::{Change, Membership};

use crate::admin::{GroupOffsets, Isolation};
use crate::client::{Client, RETRY_PAUSE};
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};

/// How long one of several connections is waited for before the next has its turn.
const TURN: Duration = Duration::from_millis(5);

/// Where to begin when there is no offset to begin at: nothing was committed, or the log does not hold what was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// At the first record that is still there.
    #[default]
    Earliest,
    /// After the last record that is there now.
    Latest,
    /// Nowhere: it is an error.
    None,
}

/// By which rules a group divides its partitions (Kafka: `group.protocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GroupProtocol {
    /// One of the members divides them, and all stop for it or take turns. Every broker offers it.
    #[default]
    Classic,
    /// The coordinator divides them, and only who is concerned notices (KIP-848). Brokers offer it from Kafka 4.0 on, unless it was turned off.
    Consumer,
}

/// How to be a member of a group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The group.
    pub id: String,
    /// By which rules.
    pub protocol: GroupProtocol,
    /// With [`GroupProtocol::Consumer`]: how the coordinator is to divide the partitions, by the name it knows it by, `uniform` or `range` say; it
    /// chooses where none is given (Kafka: `group.remote.assignor`).
    pub remote_assignor: Option<String>,
    /// Time without a sign of life after which the group goes on without a member. Brokers allow 6 s to 30 min by default. With
    /// [`GroupProtocol::Consumer`] the group's own setting counts instead, as for the interval between signs of life.
    pub session_timeout: Duration,
    /// Time between signs of life; a third of the session time-out at most.
    pub heartbeat_interval: Duration,
    /// Time that members have to finish what they are doing when the group rebalances.
    pub rebalance_timeout: Duration,
    /// With [`GroupProtocol::Classic`]: how to divide the partitions, in order of preference. With [`Assignor::Range`] among them, everything is given up before each
    /// rebalance, whichever is chosen in the end.
    pub assignors: Vec<Assignor>,
    /// Where to begin without a committed offset.
    pub reset: Reset,
}

impl GroupConfig {
    /// The defaults, those of Java's consumer where it has one: 45 s, 3 s, range before cooperative-sticky. The rebalance time-out is 60 s
    /// and the reset is [`Reset::Earliest`].
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            protocol: GroupProtocol::Classic,
            remote_assignor: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(60),
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            reset: Reset::Earliest,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = if self.id.is_empty() {
            "a group needs a name"
        } else if self.protocol == GroupProtocol::Consumer {
            // The rest is said to nobody.
            return Ok(());
        } else if self.remote_assignor.is_some() {
            "an assignor of the broker's (group.remote.assignor) needs group.protocol=consumer"
        } else if self.assignors.is_empty() {
            "a group needs an assignor"
        } else if self.heartbeat_interval.is_zero()
            || self.heartbeat_interval > self.session_timeout / 3
        {
            "heartbeats must be due at least three times in a session time-out"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Configuration, wrong))
    }
}

/// A partition was to be read from an offset that its log does not hold, any more or yet, and is read from another one instead, as [`Reset`] says.
/// What was between them and was deleted is not read by anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset that was to be read next.
    pub from: i64,
    /// The offset that is read next.
    pub to: i64,
}

/// How to read.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Which records to see.
    pub isolation: Isolation,
    /// Bytes that one broker may answer with; 50 MiB by default. One batch is answered whatever its size.
    pub fetch_max_bytes: usize,
    /// Bytes that one broker may answer with for one partition; 1 MiB by default. More only for a batch that is larger.
    pub partition_max_bytes: usize,
    /// How long a broker may wait for data before it answers that there is none; 500 ms by default.
    pub max_wait: Duration,
    /// The group to join with [`Consumer::subscribe`], or to commit for.
    pub group: Option<GroupConfig>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadCommitted,
            fetch_max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            max_wait: Duration::from_millis(500),
            group: None,
        }
    }
}

/// Reads partitions of topics.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    fetcher: Fetcher,
    membership: Option<Box<dyn Membership>>,
    /// Whether the caller was told that a rebalance is about to begin.
    announced: bool,
    /// Partitions the group gave us, of which the committed offset is not known yet.
    unplaced: Vec<TopicPartition>,
    place_not_before: Instant,
}

/// Which connection has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Broker(i32),
    Coordinator,
}

impl Consumer {
    /// A consumer that reads nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the group's settings contradict each other.
    pub fn open(client: Client, config: ConsumerConfig) -> Result<Self, Error> {
        if let Some(group) = &config.group {
            group.check()?;
        }
        let fetcher = Fetcher::new(client.clone(), &config);
        Ok(Self {
            client,
            config,
            fetcher,
            membership: None,
            announced: false,
            unplaced: Vec::new(),
            place_not_before: Instant::now(),
        })
    }

    /// Reads these partitions of `topic` from these offsets on, besides what is read already. May be called for several topics, and again
    /// for the same partition to move to another offset.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a member of a group: the group decides what it reads.
    pub fn assign(&mut self, topic: &str, starts: &[(i32, i64)]) -> Result<(), Error> {
        if self.membership.is_some() {
            let message = "partitions cannot be assigned to a member of a group: it reads what the group gives it";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        for (partition, offset) in starts {
            self.fetcher
                .add(TopicPartition::new(topic, *partition), Start::At(*offset));
        }
        Ok(())
    }

    /// Reads these topics as a member of the group: whichever of their partitions the group gives us, from where it has committed. A later
    /// call replaces the topics.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] without a group, or if partitions were assigned by hand.
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<(), Error> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::Configuration, message));
        if let Some(membership) = &mut self.membership {
            membership.subscribe(topics);
            return Ok(());
        }
        let Some(group) = self.config.group.clone() else {
            return wrong("a subscription needs a group");
        };
        if self.fetcher.partitions().next().is_some() {
            return wrong("partitions were assigned by hand: either those or a subscription");
        }
        let client = self.client.clone();
        self.membership = Some(match group.protocol {
            GroupProtocol::Classic => Box::new(ClassicMembership::new(client, group, topics)),
            GroupProtocol::Consumer => Box::new(ModernMembership::new(client, group, topics)?),
        });
        Ok(())
    }

    /// Waits at most `timeout` for data (longer only while a broker is looked up or connected to: 3 s a time). Returns what one broker
    /// answered, at most one stretch for each partition; empty if nothing came.
    ///
    /// In a group it also returns early and empty when a rebalance is about to begin: offsets committed before the next call of `poll` still
    /// count. Partitions that are given up then are not returned any more.
    ///
    /// # Errors
    /// What will not get better by itself: a missing topic or right, the group's refusal, damaged data, an offset outside of the log with
    /// [`Reset::None`]; and troubles that last longer than the client's delivery time-out.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<FetchedBatches>, Error> {
        let deadline = Instant::now() + timeout;
        if std::mem::take(&mut self.announced)
            && let Some(membership) = &mut self.membership
        {
            membership.proceed()?;
        }
        loop {
            if self.advance_membership()? {
                self.announced = true;
                return Ok(Vec::new());
            }
            let held = self.fetcher.take_held();
            // Asks for what comes next before the caller looks at what is there.
            self.fetcher.advance()?;
            if !held.is_empty() {
                return Ok(held);
            }
            match self.wait(deadline)? {
                Some(Source::Coordinator) => {
                    if let Some(membership) = &mut self.membership {
                        membership.receive()?;
                    }
                }
                Some(Source::Broker(node)) => {
                    let fetched = self.fetcher.receive(node)?;
                    if !fetched.is_empty() {
                        self.fetcher.advance()?;
                        return Ok(fetched);
                    }
                }
                None if Instant::now() >= deadline => return Ok(Vec::new()),
                None => {}
            }
        }
    }

    /// Does what the group asks for; `true` if a rebalance is about to begin.
    fn advance_membership(&mut self) -> Result<bool, Error> {
        let Some(membership) = &mut self.membership else {
            return Ok(false);
        };
        membership.advance()?;
        let mut due = false;
        for change in membership.seat_mut().take_changes() {
            match change {
                Change::Start(partitions) => self.unplaced.extend(partitions),
                Change::Stop(partitions) => {
                    for partition in &partitions {
                        self.fetcher.remove(partition);
                    }
                    self.unplaced
                        .retain(|partition| !partitions.contains(partition));
                }
                Change::Due => due = true,
            }
        }
        if !due {
            self.place()?;
        }
        Ok(due)
    }

    /// Starts to read what the group gave us, from where it has committed.
    fn place(&mut self) -> Result<(), Error> {
        let Some(group) = self.config.group.as_ref() else {
            return Ok(());
        };
        if self.unplaced.is_empty() || Instant::now() < self.place_not_before {
            return Ok(());
        }
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in &self.unplaced {
            by_topic
                .entry(&partition.topic)
                .or_default()
                .push(partition.partition);
        }
        let membership = self.membership.as_mut();
        // In a classic group anybody may look.
        let mut membership = membership.filter(|_| group.protocol == GroupProtocol::Consumer);
        let member = membership
            .as_ref()
            .and_then(|membership| membership.committer());
        let mut starts = Vec::new();
        for (topic, partitions) in by_topic {
            let offsets = GroupOffsets {
                group: &group.id,
                topic,
                partitions: &partitions,
                stable: self.config.isolation == Isolation::ReadCommitted,
                member: member.as_ref(),
            };
            match offsets.fetch(&self.client) {
                Ok(found) => {
                    for (number, committed) in found {
                        let partition = TopicPartition::new(topic, number);
                        let start = start_at(&partition, committed, group)?;
                        starts.push((partition, start));
                    }
                }
                Err(error) if error.is_retriable() => {
                    self.place_not_before = Instant::now() + RETRY_PAUSE;
                }
                Err(error) => match (&mut membership, &member, error.kafka_code()) {
                    // Its epoch moved on, or it was forgotten: the next heartbeat says what is to be placed.
                    (Some(membership), Some(member), Some(code)) if membership.may_pass(code) => {
                        membership.refused(code, member.generation)?;
                        self.place_not_before = Instant::now() + RETRY_PAUSE;
                    }
                    _ => return Err(error),
                },
            }
        }
        for (partition, start) in starts {
            self.unplaced.retain(|waiting| *waiting != partition);
            if let Some(membership) = &mut self.membership {
                let floor = match start {
                    Start::At(offset) => offset,
                    Start::Earliest | Start::Latest => i64::MIN,
                };
                membership.seat_mut().placed(partition.clone(), floor);
            }
            self.fetcher.add(partition, start);
        }
        Ok(())
    }

    /// Waits until an answer arrives, something else is due, or the deadline has passed.
    fn wait(&mut self, deadline: Instant) -> Result<Option<Source>, Error> {
        let placing = (!self.unplaced.is_empty()).then_some(self.place_not_before);
        let membership = self.membership.as_ref();
        let membership = membership.and_then(|membership| membership.next_deadline());
        let due = [self.fetcher.next_deadline(), membership, placing];
        let until = due.into_iter().flatten().fold(deadline, Instant::min);
        let coordinator = self
            .membership
            .as_mut()
            .and_then(|membership| membership.open_connection());
        let mut connections: Vec<(Source, &mut Connection)> = coordinator
            .map(|connection| (Source::Coordinator, connection))
            .into_iter()
            .chain(
                self.fetcher
                    .open_connections()
                    .map(|(node, connection)| (Source::Broker(node), connection)),
            )
            .collect();
        if connections.is_empty() {
            thread::sleep(until.saturating_duration_since(Instant::now()));
            return Ok(None);
        }
        let turn = if connections.len() == 1 {
            Duration::MAX
        } else {
            TURN
        };
        let mut next = 0;
        loop {
            for (source, connection) in &mut connections {
                // A broken connection is readable too: reading says what is wrong.
                if connection.wait_readable(Duration::ZERO).unwrap_or(true) {
                    return Ok(Some(*source));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let (source, connection) = &mut connections[next];
            if connection.wait_readable(left.min(turn)).unwrap_or(true) {
                return Ok(Some(*source));
            }
            next = (next + 1) % connections.len();
        }
    }

    /// Stops returning data of a partition until [`resume`](Self::resume). What is on its way already is kept for then.
    pub fn pause(&mut self, topic: &str, partition: i32) {
        self.fetcher
            .pause(&TopicPartition::new(topic, partition), true);
    }

    /// Returns data of a partition again.
    pub fn resume(&mut self, topic: &str, partition: i32) {
        self.fetcher
            .pause(&TopicPartition::new(topic, partition), false);
    }

    /// The offset after the last that was returned: what to commit once all of it is worked off. `None` if the partition is not read, or
    /// where to begin is not known yet.
    #[must_use]
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.fetcher
            .position(&TopicPartition::new(topic, partition))
    }

    /// Where reading jumped since the last call, if anywhere: once for a partition, the latest. Without a group to say how, it is an error instead.
    pub fn take_jumps(&mut self) -> Vec<Jump> {
        self.fetcher.take_jumps()
    }

    /// The high watermark of a partition, as the last answer gave it.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Option<i64> {
        let ends = self.fetcher.ends(&TopicPartition::new(topic, partition))?;
        Some(ends.high_watermark)
    }

    /// How many offsets (not records: markers and compaction count too) are between the position and what there is to read; as the last
    /// answer told.
    #[must_use]
    pub fn lag(&self, topic: &str, partition: i32) -> Option<i64> {
        let partition = TopicPartition::new(topic, partition);
        let ends = self.fetcher.ends(&partition)?;
        let end = match self.config.isolation {
            Isolation::ReadCommitted => ends.last_stable_offset,
            Isolation::ReadUncommitted => ends.high_watermark,
        };
        Some((end - self.fetcher.position(&partition)?).max(0))
    }

    /// The partitions that are read, in order.
    #[must_use]
    pub fn assignment(&self) -> Vec<(String, i32)> {
        let pairs = |partition: &TopicPartition| (partition.topic.clone(), partition.partition);
        match &self.membership {
            Some(membership) => membership.owned().iter().map(pairs).collect(),
            None => self.fetcher.partitions().map(pairs).collect(),
        }
    }

    /// Commits offsets (of the NEXT record to be read) for the group: topic, partition, offset. If the group is rebalancing, waits for it at
    /// most the request time-out.
    ///
    /// # Errors
    /// [`ErrorKind::Group`] if a partition was taken away by a rebalance, even if it came back since: the offsets of the others are committed
    /// all the same, whoever holds it reads it again from its last commit, and this member may go on. [`ErrorKind::Configuration`] without a group.
    pub fn commit(&mut self, offsets: &[(&str, i32, i64)]) -> Result<(), Error> {
        if let Some(membership) = &mut self.membership {
            return membership.commit(offsets);
        }
        let Some(group) = &self.config.group else {
            return Err(Error::new(
                ErrorKind::Configuration,
                "a commit needs a group",
            ));
        };
        let mut by_topic: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
        for (topic, partition, offset) in offsets {
            by_topic
                .entry(topic)
                .or_default()
                .push((*partition, *offset));
        }
        let admin = self.client.admin();
        by_topic
            .into_iter()
            .try_for_each(|(topic, offsets)| admin.commit_offsets(&group.id, topic, &offsets))
    }

    /// Ends reading and leaves the group, so that others take over at once. Commits nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] or [`ErrorKind::Timeout`] if the group could not be told; then it notices after the session time-out.
    pub fn leave(mut self) -> Result<(), Error> {
        self.fetcher.clear();
        match self.membership.take() {
            Some(mut membership) => membership.leave(),
            None => Ok(()),
        }
    }
}

fn start_at(
    partition: &TopicPartition,
    committed: Option<i64>,
    group: &GroupConfig,
) -> Result<Start, Error> {
    match (committed, group.reset) {
        (Some(offset), _) => Ok(Start::At(offset)),
        (None, Reset::Earliest) => Ok(Start::Earliest),
        (None, Reset::Latest) => Ok(Start::Latest),
        (None, Reset::None) => {
            let message = format!(
                "group {} has committed no offset on {partition}, and is not to choose one",
                group.id
            );
            Err(Error::new(ErrorKind::OffsetOutOfRange, message))
        }
    }
}
