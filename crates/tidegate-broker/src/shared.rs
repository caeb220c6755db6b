//! What all connections of a broker share.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::codes;
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::group::Coordinator;
use crate::journal::{Change, Configs, Journal};
use crate::sync::lock;
use crate::topic_config;
use crate::topics::{Topic, Topics, invalid_name};
use crate::transaction::Transactions;

/// Producer ids reserved in the journal at a time, so that it is not written for each.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// The most partitions of one topic: a folder each.
const MAX_PARTITIONS: i32 = 10_000;

/// The unit in which buffered bytes are counted, so that the count fits a semaphore.
pub(crate) const BUFFER_UNIT: usize = 1024;

/// What all connections of a broker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) cluster_id: String,
    pub(crate) topics: Topics,
    pub(crate) groups: Coordinator,
    pub(crate) transactions: Transactions,
    leader_epoch: i32,
    journal: Mutex<Journal>,
    producer_ids: Mutex<ProducerIds>,
    /// Held while topics are made, changed or deleted: one such change at a time.
    topic_changes: Mutex<()>,
    pub(crate) connections: AtomicUsize,
    /// Room for requests being read or worked on, in units of [`BUFFER_UNIT`].
    pub(crate) buffers: Arc<Semaphore>,
    /// What could not be written last.
    storage_failure: Mutex<Option<String>>,
}

#[derive(Debug)]
struct ProducerIds {
    next: i64,
    reserved: i64,
}

/// A refusal as Kafka words it: code and sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i16,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: i16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn storage(error: &impl std::fmt::Display) -> Self {
        Self::new(codes::KAFKA_STORAGE_ERROR, error.to_string())
    }
}

impl Shared {
    /// The broker's node id, the only one in its cluster.
    pub(crate) const NODE_ID: i32 = 1;

    /// Opens everything in the data directory, whose lock is held.
    pub(crate) fn open(config: BrokerConfig) -> Result<Self, Error> {
        let journal = Journal::open(&config.data_dir)?;
        let topics = Topics::open(&config, journal.metadata())?;
        let next = journal.metadata().next_producer_id;
        let permits = (config.max_buffered_bytes / BUFFER_UNIT)
            .max(config.max_request_bytes / BUFFER_UNIT + 1)
            .min(Semaphore::MAX_PERMITS);
        let shared = Self {
            cluster_id: journal.metadata().cluster_id.clone(),
            topics,
            groups: Coordinator::new(&config),
            transactions: Transactions::open(&config, journal.metadata()),
            leader_epoch: journal.metadata().leader_epoch.unwrap_or(0),
            journal: Mutex::new(journal),
            producer_ids: Mutex::new(ProducerIds {
                next,
                reserved: next,
            }),
            topic_changes: Mutex::new(()),
            connections: AtomicUsize::new(0),
            buffers: Arc::new(Semaphore::new(permits)),
            storage_failure: Mutex::new(None),
            config,
        };
        shared.transactions.recover(&shared)?;
        Ok(shared)
    }

    /// The epoch of this broker's leadership, which grows with each start. It is the coordinator's epoch and
    /// that of the finalised features too.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Notes that records of a topic cannot be written. A disk that is full stays full for as long as anybody would ask again, and no other broker
    /// leads instead, as clients hope of KAFKA_STORAGE_ERROR.
    pub(crate) fn cannot_write(&self, topic: &str, error: &io::Error) -> Refusal {
        let folder = self.config.data_dir.display();
        let message = format!(
            "the data directory {folder}: cannot write records of the topic {topic}: {error}"
        );
        *lock(&self.storage_failure) = Some(message.clone());
        let is_full = error.kind() == io::ErrorKind::StorageFull;
        let code = if is_full {
            codes::UNKNOWN_SERVER_ERROR
        } else {
            codes::KAFKA_STORAGE_ERROR
        };
        Refusal::new(code, message)
    }

    /// What could not be written last.
    pub(crate) fn storage_failure(&self) -> Option<String> {
        lock(&self.storage_failure).clone()
    }

    /// The journal, locked.
    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// A producer id that was never handed out before, also not before a crash.
    pub(crate) fn new_producer_id(&self) -> io::Result<i64> {
        let mut ids = lock(&self.producer_ids);
        if ids.next == ids.reserved {
            let next = ids.reserved + PRODUCER_ID_BLOCK;
            self.journal().commit(Change::ProducerIds { next })?;
            ids.reserved = next;
        }
        ids.next += 1;
        Ok(ids.next - 1)
    }

    /// Makes a topic, or only says whether it could be made. Returns it with its id and partitions as they
    /// are or would be.
    pub(crate) fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: Configs,
        validate_only: bool,
    ) -> Result<(Uuid, i32), Refusal> {
        let _one_at_a_time = lock(&self.topic_changes);
        if let Some(message) = invalid_name(name) {
            return Err(Refusal::new(codes::INVALID_TOPIC_EXCEPTION, message));
        }
        if self.topics.by_name(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(codes::TOPIC_ALREADY_EXISTS, message));
        }
        if let Some(other) = self.topics.colliding(name) {
            let message =
                format!("topic {name:?} collides with topic {other:?}: '.' and '_' are the same");
            return Err(Refusal::new(codes::INVALID_TOPIC_EXCEPTION, message));
        }
        let partitions = match partitions {
            -1 => self.config.default_partitions,
            asked => asked,
        };
        check_partition_count(partitions)?;
        topic_config::validate(&configs)
            .map_err(|message| Refusal::new(codes::INVALID_CONFIG, message))?;
        if validate_only {
            return Ok((Uuid::nil(), partitions));
        }
        let id = Uuid::new_v4();
        self.commit(Change::TopicCreated {
            name: name.to_owned(),
            id: id.to_string(),
            partitions,
            configs: configs.clone(),
        })?;
        self.topics
            .add(name, id, partitions, configs)
            .map_err(|error| Refusal::storage(&error))?;
        Ok((id, partitions))
    }

    /// Deletes a topic with all its data and the offsets committed on it.
    pub(crate) fn delete_topic(&self, topic: &Topic) -> Result<(), Refusal> {
        let _one_at_a_time = lock(&self.topic_changes);
        self.commit(Change::TopicDeleted {
            name: topic.name.clone(),
        })?;
        self.topics
            .remove(topic)
            .map_err(|error| Refusal::storage(&error))
    }

    /// Adds partitions to a topic so that there are `count`, or only says whether that could be done.
    pub(crate) fn create_partitions(
        &self,
        topic: &Topic,
        count: i32,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let _one_at_a_time = lock(&self.topic_changes);
        let present = topic.partition_count();
        if count <= present {
            let message =
                format!("Topic has {present} partitions; {count} would not be an increase.");
            return Err(Refusal::new(codes::INVALID_PARTITIONS, message));
        }
        check_partition_count(count)?;
        if validate_only {
            return Ok(());
        }
        self.commit(Change::PartitionsCreated {
            name: topic.name.clone(),
            partitions: count,
        })?;
        self.topics
            .grow(topic, count)
            .map_err(|error| Refusal::storage(&error))
    }

    /// Replaces the settings of a topic, or only says whether they could be.
    pub(crate) fn configure_topic(
        &self,
        topic: &Topic,
        configs: Configs,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let _one_at_a_time = lock(&self.topic_changes);
        topic_config::validate(&configs)
            .map_err(|message| Refusal::new(codes::INVALID_CONFIG, message))?;
        if validate_only {
            return Ok(());
        }
        self.commit(Change::ConfigsChanged {
            name: topic.name.clone(),
            configs: configs.clone(),
        })?;
        self.topics.configure(topic, configs);
        Ok(())
    }

    /// The topic, made on the way if it is missing and that is allowed on both sides.
    pub(crate) fn topic_or_create(
        &self,
        name: &str,
        client_allows: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        if let Some(topic) = self.topics.by_name(name) {
            return Ok(topic);
        }
        if let Some(message) = invalid_name(name) {
            return Err(Refusal::new(codes::INVALID_TOPIC_EXCEPTION, message));
        }
        let missing = || {
            let message = format!("topic {name:?} does not exist");
            Refusal::new(codes::UNKNOWN_TOPIC_OR_PARTITION, message)
        };
        if !client_allows || !self.config.auto_create_topics {
            return Err(missing());
        }
        match self.create_topic(name, -1, Configs::new(), false) {
            // Somebody else was faster.
            Err(refusal) if refusal.code != codes::TOPIC_ALREADY_EXISTS => Err(refusal),
            _ => self.topics.by_name(name).ok_or_else(missing),
        }
    }

    /// Writes `change` into the journal.
    pub(crate) fn commit(&self, change: Change) -> Result<(), Refusal> {
        self.journal()
            .commit(change)
            .map_err(|error| Refusal::storage(&error))
    }

    /// Forces everything to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.topics.sync()?;
        self.journal().sync()
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}

fn check_partition_count(count: i32) -> Result<(), Refusal> {
    let what = if count < 1 {
        "Number of partitions must be larger than 0."
    } else if count > MAX_PARTITIONS {
        "Number of partitions is limited to 10000 by this broker."
    } else {
        return Ok(());
    };
    Err(Refusal::new(codes::INVALID_PARTITIONS, what))
}

/// The wall clock in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
