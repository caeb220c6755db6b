//! The topics and their partitions while the broker runs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::BrokerConfig;
use crate::error::Error;
use crate::journal::{Configs, Metadata};
use crate::log::{
    AppendError, AppendRules, Appended, CompactionRules, End, FilePool, PartitionLog, Truncation,
};
use crate::shared::now_ms;
use crate::sync::{lock, read, write};
use crate::topic_config::TopicSettings;
use tidegate_wire::BatchHeader;

/// The longest topic name Kafka allows.
const MAX_NAME_LEN: usize = 249;

/// The folder in the data directory with one folder per topic.
const TOPICS_DIR: &str = "topics";

/// One partition: its log, and the fetches that wait for it to grow.
#[derive(Debug)]
pub(crate) struct Partition {
    log: Mutex<PartitionLog>,
    waiting: Mutex<Vec<Weak<Notify>>>,
    leader_epoch: i32,
}

impl Partition {
    /// The log, locked. Hold it for planning and appending, not for reading.
    pub(crate) fn log(&self) -> MutexGuard<'_, PartitionLog> {
        lock(&self.log)
    }

    /// The epoch of this broker's leadership, which grows with each start.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Appends a checked batch and wakes the fetches that wait for it. `from_zero` says that a producer
    /// nobody remembers here has to begin at sequence 0.
    pub(crate) fn append(
        self: &Arc<Self>,
        batch: &[u8],
        header: &BatchHeader,
        settings: &TopicSettings,
        now_ms: i64,
        from_zero: bool,
    ) -> Result<Appended, AppendError> {
        let rules = AppendRules {
            leader_epoch: self.leader_epoch,
            segment_bytes: settings.segment_bytes,
            segment_ms: settings.segment_ms,
            now_ms,
            append_time: settings.log_append_time.then_some(now_ms),
            from_zero,
        };
        let mut appended = self.log().append(batch, header, rules)?;
        if !appended.duplicate {
            self.wake();
        }
        if let Some(path) = appended.completed.take() {
            self.tidy_in_background(path, *settings);
        }
        Ok(appended)
    }

    /// Appends the marker that ends a transaction and wakes the fetches that wait for it.
    pub(crate) fn append_marker(
        self: &Arc<Self>,
        end: &End,
        settings: &TopicSettings,
    ) -> Result<(), AppendError> {
        let rules = AppendRules {
            leader_epoch: self.leader_epoch,
            segment_bytes: settings.segment_bytes,
            segment_ms: settings.segment_ms,
            now_ms: end.timestamp,
            append_time: None,
            from_zero: false,
        };
        let appended = self.log().append_marker(end, rules)?;
        self.wake();
        if let Some(path) = appended.completed {
            self.tidy_in_background(path, *settings);
        }
        Ok(())
    }

    /// Forces a complete file to the disk, and compacts the log if its topic wants that. Both may take long
    /// and are waited for by nobody: what the file holds has been acknowledged already, by the rules in the
    /// log's documentation.
    fn tidy_in_background(self: &Arc<Self>, completed: PathBuf, settings: TopicSettings) {
        let partition = Arc::clone(self);
        let tidy = move || {
            // If the disk refuses, the appends that follow will say so.
            drop(std::fs::File::open(completed).and_then(|file| file.sync_data()));
            partition.compact_if_due(&settings);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(tidy)),
            // While the broker starts, nobody waits either.
            Err(_) => tidy(),
        }
    }

    /// Compacts the log if its topic wants that and there is enough to do. What fails is tried again when the
    /// next file is complete; the log stays as it was.
    pub(crate) fn compact_if_due(&self, settings: &TopicSettings) {
        if !settings.compacted {
            return;
        }
        let rules = CompactionRules {
            min_dirty_ratio: settings.min_cleanable_dirty_ratio,
            min_lag_ms: settings.min_compaction_lag_ms,
            delete_retention_ms: settings.delete_retention_ms,
            segment_bytes: settings.segment_bytes,
            now_ms: now_ms(),
        };
        let plan = self.log().plan_compaction(rules);
        if let Some(plan) = plan {
            let compacted = plan.run();
            drop(self.log().install(compacted));
        }
    }

    fn wake(&self) {
        for waiting in lock(&self.waiting).drain(..) {
            if let Some(notify) = waiting.upgrade() {
                notify.notify_one();
            }
        }
    }

    /// Has `notify` told of the next append. Its end is noticed by itself.
    pub(crate) fn notify_on_append(&self, notify: &Arc<Notify>) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|other| other.strong_count() > 0);
        waiting.push(Arc::downgrade(notify));
    }
}

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    partitions: RwLock<Vec<Arc<Partition>>>,
    configured: RwLock<(Configs, TopicSettings)>,
}

impl Topic {
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        read(&self.partitions).clone()
    }

    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(index).ok()?;
        read(&self.partitions).get(index).cloned()
    }

    /// How many partitions there are.
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(read(&self.partitions).len()).unwrap_or(i32::MAX)
    }

    /// The settings given for this topic.
    pub(crate) fn configs(&self) -> Configs {
        read(&self.configured).0.clone()
    }

    /// All settings, defaults filled in.
    pub(crate) fn settings(&self) -> TopicSettings {
        read(&self.configured).1
    }
}

/// All topics by name and by id.
#[derive(Debug)]
pub(crate) struct Topics {
    dir: PathBuf,
    files: Arc<FilePool>,
    max_producers: usize,
    leader_epoch: i32,
    defaults: TopicSettings,
    maps: RwLock<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl Topics {
    /// Opens the logs of all topics in `metadata`, and removes what deleted ones have left.
    pub(crate) fn open(config: &BrokerConfig, metadata: &Metadata) -> Result<Self, Error> {
        let topics = Self {
            dir: config.data_dir.join(TOPICS_DIR),
            files: Arc::new(FilePool::new(config.max_open_files)),
            max_producers: config.max_producers_per_partition,
            leader_epoch: metadata.leader_epoch.unwrap_or(0),
            defaults: TopicSettings::defaults(config),
            maps: RwLock::default(),
        };
        std::fs::create_dir_all(&topics.dir)
            .map_err(|error| Error::file("make", &topics.dir, error))?;
        topics.remove_leftovers(metadata)?;
        for (name, record) in &metadata.topics {
            topics.add(name, record.id, record.partitions, record.configs.clone())?;
        }
        Ok(topics)
    }

    fn remove_leftovers(&self, metadata: &Metadata) -> Result<(), Error> {
        let failed = |error| Error::file("tidy", &self.dir, error);
        let kept: Vec<PathBuf> = metadata
            .topics
            .iter()
            .map(|(name, record)| topic_dir(&self.dir, name, record.id))
            .collect();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !kept.contains(&path) {
                std::fs::remove_dir_all(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes the topic's partitions, or opens those it has, and lets it be seen.
    pub(crate) fn add(
        &self,
        name: &str,
        id: Uuid,
        partitions: i32,
        configs: Configs,
    ) -> Result<Arc<Topic>, Error> {
        let settings = TopicSettings::with(&self.defaults, &configs);
        let topic = Arc::new(Topic {
            name: name.to_owned(),
            id,
            partitions: RwLock::new(self.open_partitions(name, id, 0..partitions)?),
            configured: RwLock::new((configs, settings)),
        });
        let mut maps = write(&self.maps);
        maps.by_name.insert(name.to_owned(), Arc::clone(&topic));
        maps.by_id.insert(id, Arc::clone(&topic));
        Ok(topic)
    }

    fn open_partitions(
        &self,
        name: &str,
        id: Uuid,
        indexes: std::ops::Range<i32>,
    ) -> Result<Vec<Arc<Partition>>, Error> {
        let dir = topic_dir(&self.dir, name, id);
        indexes
            .map(|index| {
                let dir = dir.join(index.to_string());
                let files = Arc::clone(&self.files);
                Ok(Arc::new(Partition {
                    log: Mutex::new(PartitionLog::open(&dir, files, self.max_producers)?),
                    waiting: Mutex::default(),
                    leader_epoch: self.leader_epoch,
                }))
            })
            .collect()
    }

    /// Adds partitions so that there are `count`.
    pub(crate) fn grow(&self, topic: &Topic, count: i32) -> Result<(), Error> {
        let mut partitions = write(&topic.partitions);
        let present = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        partitions.extend(self.open_partitions(&topic.name, topic.id, present..count)?);
        Ok(())
    }

    /// Replaces the settings given for `topic`.
    pub(crate) fn configure(&self, topic: &Topic, configs: Configs) {
        let settings = TopicSettings::with(&self.defaults, &configs);
        *write(&topic.configured) = (configs, settings);
    }

    /// Lets the topic not be seen any more and deletes its files.
    pub(crate) fn remove(&self, topic: &Topic) -> io::Result<()> {
        {
            let mut maps = write(&self.maps);
            maps.by_name.remove(&topic.name);
            maps.by_id.remove(&topic.id);
        }
        for partition in topic.partitions() {
            partition.log().close();
        }
        let dir = topic_dir(&self.dir, &topic.name, topic.id);
        self.files.forget(&dir);
        std::fs::remove_dir_all(dir)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        read(&self.maps).by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        read(&self.maps).by_id.get(&id).cloned()
    }

    /// All topics in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        read(&self.maps).by_name.values().cloned().collect()
    }

    /// The defaults that topics without settings of their own have.
    pub(crate) fn defaults(&self) -> &TopicSettings {
        &self.defaults
    }

    /// The name of a topic that cannot stand beside `name`, because metric names would be the same.
    pub(crate) fn colliding(&self, name: &str) -> Option<String> {
        let flat = |name: &str| name.replace('.', "_");
        let wanted = flat(name);
        read(&self.maps)
            .by_name
            .keys()
            .find(|other| other.as_str() != name && flat(other) == wanted)
            .cloned()
    }

    /// What was cut off when the logs were opened.
    pub(crate) fn truncations(&self) -> Vec<Truncation> {
        self.each_partition(|partition| partition.log().truncation().cloned())
            .into_iter()
            .flatten()
            .collect()
    }

    /// Compacts what was due when the broker ended.
    pub(crate) fn compact(&self) {
        for topic in self.all() {
            for partition in topic.partitions() {
                partition.compact_if_due(&topic.settings());
            }
        }
    }

    /// Lets go of all files: nothing is done to them in the background any more.
    pub(crate) fn close(&self) {
        self.each_partition(|partition| partition.log().close());
    }

    /// Forces all logs to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.each_partition(|partition| partition.log().sync())
            .into_iter()
            .collect()
    }

    fn each_partition<T>(&self, visit: impl Fn(&Partition) -> T) -> Vec<T> {
        self.all()
            .iter()
            .flat_map(|topic| topic.partitions())
            .map(|partition| visit(&partition))
            .collect()
    }
}

/// A name to recognise and an id so that a topic made again does not meet its predecessor's files. Names
/// are cut so that the whole stays below the 255 bytes most file systems allow.
fn topic_dir(dir: &Path, name: &str, id: Uuid) -> PathBuf {
    let shown = name.get(..200).unwrap_or(name);
    dir.join(format!("{shown}-{id}"))
}

/// What is wrong with a topic name, by Kafka's rules.
pub(crate) fn invalid_name(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Some("the topic name is empty".to_owned())
    } else if name == "." || name == ".." {
        Some(format!("the topic name cannot be {name:?}"))
    } else if name.len() > MAX_NAME_LEN {
        Some(format!(
            "the topic name has {} characters, and {MAX_NAME_LEN} is the limit",
            name.len()
        ))
    } else if !name.chars().all(legal) {
        Some(format!(
            "the topic name {name:?} has other characters than ASCII letters, digits, '.', '_' and '-'"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for good in ["a", "usage.2024-01_x", "A9", &"n".repeat(249)] {
            assert_eq!(invalid_name(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", "a:b", &"n".repeat(250)] {
            assert!(invalid_name(bad).is_some(), "{bad}");
        }
    }
}
