//! The facade's consumer: a member of a group that commits what it has worked off, and the wait until a group has.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_core::balance::{BalanceOptions, BalanceStatus, Target, wait};
use tidegate_core::limits::BALANCE_TIMEOUT;
use tidegate_kafka::consumer::{Consumer as KafkaConsumer, ConsumerConfig, GroupConfig};
use tidegate_kafka::{Client, ClientConfig, Error as KafkaError, ErrorKind as KafkaErrorKind};

use crate::bridge::{GroupCommits, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::producer::LastOffsets;

/// A record read from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// A member of a consumer group, shared by reference: each method takes `&self`.
///
/// It keeps its place in the group while [`poll`](Self::poll) is called often enough: within the group's rebalance time-out.
pub struct Consumer {
    client: Client,
    group: String,
    state: Mutex<State>,
}

struct State {
    kafka: KafkaConsumer,
    /// What was given out and is not committed: the next offset per partition.
    given: BTreeMap<(String, i32), i64>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// A member of `group` that reads `topics`, from their first record where the group has committed nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Kafka`] when the cluster cannot be reached, or the group refuses.
    pub fn connect(bootstrap: &str, group: &str, topics: &[&str]) -> Result<Self, Error> {
        let client = Client::connect(ClientConfig::new(bootstrap)?)?;
        let config = ConsumerConfig {
            group: Some(GroupConfig::new(group)),
            ..ConsumerConfig::default()
        };
        Self::open(client, config, topics)
    }

    /// A consumer with a configuration of your own, which must name a group. It says by which protocol the group is joined, too
    /// ([`tidegate_kafka::GroupProtocol`]); [`connect`](Self::connect) takes the classic one, which every broker offers.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn open(client: Client, config: ConsumerConfig, topics: &[&str]) -> Result<Self, Error> {
        let Some(group) = config.group.as_ref().map(|group| group.id.clone()) else {
            return Err(Error::new(
                ErrorKind::Kafka,
                "the consumer's configuration names no group",
            ));
        };
        let mut kafka = KafkaConsumer::open(client.clone(), config)?;
        kafka.subscribe(topics)?;
        Ok(Self {
            client,
            group,
            state: Mutex::new(State {
                kafka,
                given: BTreeMap::new(),
            }),
        })
    }

    /// The group it is a member of.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The next messages, at the latest after `timeout`; then there may be none.
    ///
    /// # Errors
    /// [`ErrorKind::Kafka`] when reading fails for good, or the group dismissed this member.
    pub fn poll(&self, timeout: Duration) -> Result<Vec<Message>, Error> {
        let mut state = self.lock();
        let mut messages = Vec::new();
        for batches in state.kafka.poll(timeout)? {
            batches.for_each_record(|record| {
                messages.push(Message {
                    topic: batches.topic.clone(),
                    partition: batches.partition,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                });
                Ok(())
            })?;
        }
        for message in &messages {
            state.given.insert(
                (message.topic.clone(), message.partition),
                message.offset + 1,
            );
        }
        Ok(messages)
    }

    /// Commits everything that [`poll`](Self::poll) has given out: call it when these messages are worked off.
    ///
    /// # Errors
    /// [`ErrorKind::Kafka`] when the group refuses, as after a rebalance that took a partition away.
    pub fn commit(&self) -> Result<(), Error> {
        let mut state = self.lock();
        let State { kafka, given } = &mut *state;
        if given.is_empty() {
            return Ok(());
        }
        let offsets: Vec<(&str, i32, i64)> = given
            .iter()
            .map(|((topic, partition), offset)| (topic.as_str(), *partition, *offset))
            .collect();
        let committed = kafka.commit(&offsets);
        // What a rebalance took away is the new owner's to read again and to commit.
        let taken = |error: &KafkaError| error.kind() == KafkaErrorKind::Group;
        if committed.as_ref().err().is_none_or(taken) {
            given.clear();
        }
        Ok(committed?)
    }

    /// Leaves the group, so that others take over at once.
    ///
    /// # Errors
    /// [`ErrorKind::Kafka`] when the group could not be told; then it notices after the session time-out.
    pub fn leave(self) -> Result<(), Error> {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(state.kafka.leave()?)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between taking a message and noting it leaves at most a message that is read again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the consumer's group has committed every partition up to the last delivered offset, ten minutes at most.
///
/// It asks the group's coordinator, so it can wait in one thread while the consumer works in another. What a consumer does before it
/// commits is its own affair.
///
/// # Errors
/// [`ErrorKind::Behind`] when the group was not done in time; [`ErrorKind::Kafka`] when it could not be asked.
pub fn balance_offset(consumer: &Consumer, last_offsets: &LastOffsets) -> Result<(), Error> {
    balance_offset_within(consumer, last_offsets, BALANCE_TIMEOUT)
}

/// As [`balance_offset`], for `timeout` at most; zero looks once.
///
/// # Errors
/// As [`balance_offset`].
pub fn balance_offset_within(
    consumer: &Consumer,
    last_offsets: &LastOffsets,
    timeout: Duration,
) -> Result<(), Error> {
    let clock = SystemClock::new();
    let never = AtomicBool::new(false);
    let mut by_topic: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for (topic, partition, last) in last_offsets.to_vec() {
        let target = Target {
            partition,
            target: last + 1,
            first: None,
            records: None,
        };
        by_topic.entry(topic).or_default().push(target);
    }
    for (topic, targets) in by_topic {
        let partitions = targets.iter().map(|target| target.partition);
        let mut commits = GroupCommits::new(&consumer.client, &consumer.group, &topic, partitions);
        let left = timeout.saturating_sub(tidegate_core::clock::Clock::monotonic(&clock));
        let report = wait(
            &mut commits,
            targets,
            BalanceOptions { timeout: left },
            &never,
            &clock,
            &mut |_| {},
        )
        .map_err(|error| Error::new(ErrorKind::Kafka, error.to_string()).because(error))?;
        if report.status == BalanceStatus::Behind {
            let message = format!(
                "group {} has not committed everything on {topic} within {timeout:?}: {} offsets behind",
                consumer.group,
                report.behind()
            );
            return Err(Error::new(ErrorKind::Behind, message));
        }
    }
    Ok(())
}
