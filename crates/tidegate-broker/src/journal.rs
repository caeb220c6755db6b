//! What the broker knows besides the logs: topics and their settings, committed offsets, the producer ids
//! handed out, transactions. Kept in memory, and in a journal from which it is read again.
//!
//! The journal is a text file with one change a line: its CRC-32C in hexadecimal, a space, and the change as
//! JSON. A line cut off at the end of the file is what a crash leaves, and is dropped; a line that is wrong
//! anywhere else is damage. When the file has grown to several times what it has to say it is written anew
//! beside the old one and renamed over it, so there is a whole one at any time.
//!
//! Topics and producer ids are forced to the disk when they change. Committed offsets and transactions are
//! not, as with Kafka's defaults: they survive the death of the process, and the last few may be lost with
//! the power. The logs they speak of are no better off.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::transaction::{State, Touched, Transaction};

const JOURNAL_FILE: &str = "metadata.journal";

/// Hexadecimal digits of a line's checksum.
const CHECKSUM_LEN: usize = 8;

/// A journal smaller than this is never written anew.
const COMPACT_FROM: u64 = 1 << 20;

/// How many times its compact size the journal may reach.
const COMPACT_FACTOR: u64 = 4;

/// Settings of a topic that differ from the defaults.
pub(crate) type Configs = BTreeMap<String, String>;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub(crate) enum Change {
    /// The cluster was made.
    Cluster {
        id: String,
    },
    /// A broker took over the data; its appends carry this leader epoch.
    Started {
        leader_epoch: i32,
    },
    TopicCreated {
        name: String,
        id: String,
        partitions: i32,
        configs: Configs,
    },
    PartitionsCreated {
        name: String,
        partitions: i32,
    },
    ConfigsChanged {
        name: String,
        configs: Configs,
    },
    /// Offsets committed on the topic are gone with it.
    TopicDeleted {
        name: String,
    },
    OffsetsCommitted {
        group: String,
        offsets: Vec<CommittedPartition>,
    },
    OffsetsDeleted {
        group: String,
        topic: String,
        partitions: Vec<i32>,
    },
    GroupDeleted {
        group: String,
    },
    /// Producer ids below this one may be in use.
    ProducerIds {
        next: i64,
    },
    /// The whole state of a transactional id.
    TransactionChanged {
        id: String,
        transaction: Transaction,
    },
    /// An open transaction writes to something more. Said alone, for the whole grows with each partition.
    TransactionGrown {
        id: String,
        added: Touched,
        updated_ms: i64,
    },
    /// All markers are written: offsets that waited for it are committed or dropped at the same time.
    TransactionCompleted {
        id: String,
        /// The producer that wrote the transaction; `transaction` may name its successor.
        producer_id: i64,
        transaction: Transaction,
    },
    /// A transactional id has not been used for long.
    TransactionForgotten {
        id: String,
    },
    /// Offsets that are committed if the producer's transaction is.
    OffsetsPending {
        producer_id: i64,
        group: String,
        offsets: Vec<CommittedPartition>,
    },
}

impl Change {
    /// Whether the change is forced to the disk before it is answered.
    fn is_forced(&self) -> bool {
        match self {
            Self::Cluster { .. }
            | Self::TopicCreated { .. }
            | Self::PartitionsCreated { .. }
            | Self::ConfigsChanged { .. }
            | Self::TopicDeleted { .. }
            | Self::OffsetsDeleted { .. }
            | Self::GroupDeleted { .. }
            | Self::ProducerIds { .. } => true,
            Self::Started { .. }
            | Self::OffsetsCommitted { .. }
            | Self::OffsetsPending { .. }
            | Self::TransactionChanged { .. }
            | Self::TransactionGrown { .. }
            | Self::TransactionCompleted { .. }
            | Self::TransactionForgotten { .. } => false,
        }
    }
}

/// A group's position in one partition, with where that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommittedPartition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    #[serde(flatten)]
    pub(crate) committed: Committed,
}

/// A group's position in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// The next offset to read.
    pub(crate) offset: i64,
    /// The leader epoch of the last record read, or -1.
    #[serde(default = "no_epoch", skip_serializing_if = "is_no_epoch")]
    pub(crate) leader_epoch: i32,
    /// What the member wanted kept with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) metadata: String,
}

impl Committed {
    /// A position. To keep no metadata is to keep an empty one.
    pub(crate) fn new(offset: i64, leader_epoch: i32, metadata: Option<&str>) -> Self {
        Self {
            offset,
            leader_epoch,
            metadata: metadata.unwrap_or_default().to_owned(),
        }
    }
}

fn no_epoch() -> i32 {
    -1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_no_epoch(epoch: &i32) -> bool {
    *epoch == -1
}

/// A topic as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRecord {
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    pub(crate) configs: Configs,
}

/// A group's positions by topic and partition.
pub(crate) type GroupOffsets = BTreeMap<(String, i32), Committed>;

/// Everything the journal says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Metadata {
    pub(crate) cluster_id: String,
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) topics: BTreeMap<String, TopicRecord>,
    pub(crate) offsets: BTreeMap<String, GroupOffsets>,
    pub(crate) next_producer_id: i64,
    pub(crate) transactions: BTreeMap<String, Transaction>,
    /// Offsets that wait for the end of a transaction, by producer id and group.
    pub(crate) pending_offsets: BTreeMap<i64, BTreeMap<String, GroupOffsets>>,
}

impl Metadata {
    /// Whether a transaction that has not ended yet may change the group's position there.
    pub(crate) fn is_offset_pending(&self, group: &str, place: &(String, i32)) -> bool {
        self.pending_offsets.values().any(|groups| {
            let offsets = groups.get(group);
            offsets.is_some_and(|offsets| offsets.contains_key(place))
        })
    }

    fn apply(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::Cluster { id } => self.cluster_id = id,
            Change::Started { leader_epoch } => self.leader_epoch = Some(leader_epoch),
            Change::TopicCreated {
                name,
                id,
                partitions,
                configs,
            } => {
                let id = id.parse().map_err(|_| format!("topic id {id:?}"))?;
                let record = TopicRecord {
                    id,
                    partitions,
                    configs,
                };
                self.topics.insert(name, record);
            }
            Change::PartitionsCreated { name, partitions } => {
                self.topic(&name)?.partitions = partitions;
            }
            Change::ConfigsChanged { name, configs } => self.topic(&name)?.configs = configs,
            Change::TopicDeleted { name } => {
                self.topics.remove(&name);
                let pending = self.pending_offsets.values_mut();
                let pending = pending.flat_map(BTreeMap::values_mut);
                for offsets in self.offsets.values_mut().chain(pending) {
                    offsets.retain(|(topic, _), _| *topic != name);
                }
            }
            Change::OffsetsCommitted { group, offsets } => self.commit_offsets(group, offsets),
            Change::OffsetsDeleted {
                group,
                topic,
                partitions,
            } => {
                if let Some(offsets) = self.offsets.get_mut(&group) {
                    offsets.retain(|(name, partition), _| {
                        *name != topic || !partitions.contains(partition)
                    });
                }
            }
            Change::GroupDeleted { group } => {
                self.offsets.remove(&group);
                for groups in self.pending_offsets.values_mut() {
                    groups.remove(&group);
                }
            }
            Change::ProducerIds { next } => self.next_producer_id = next,
            change => self.apply_to_transaction(change)?,
        }
        Ok(())
    }

    fn apply_to_transaction(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::TransactionChanged { id, transaction } => {
                self.transactions.insert(id, transaction);
            }
            Change::TransactionGrown {
                id,
                added,
                updated_ms,
            } => {
                let transaction = self
                    .transactions
                    .get_mut(&id)
                    .ok_or_else(|| format!("transactional id {id:?} is not known"))?;
                transaction.touched.extend(added);
                transaction.updated_ms = updated_ms;
            }
            Change::TransactionCompleted {
                id,
                producer_id,
                transaction,
            } => {
                let pending = self.pending_offsets.remove(&producer_id);
                if transaction.state == State::CompleteCommit {
                    for (group, offsets) in pending.unwrap_or_default() {
                        self.offsets.entry(group).or_default().extend(offsets);
                    }
                }
                self.transactions.insert(id, transaction);
            }
            Change::TransactionForgotten { id } => drop(self.transactions.remove(&id)),
            Change::OffsetsPending {
                producer_id,
                group,
                offsets,
            } => {
                let groups = self.pending_offsets.entry(producer_id).or_default();
                groups.entry(group).or_default().extend(by_place(offsets));
            }
            other => return Err(format!("{other:?} is not about transactions")),
        }
        Ok(())
    }

    /// A position committed outside of a transaction is newer than those that wait for the end of one: they
    /// must not take its place later.
    fn commit_offsets(&mut self, group: String, offsets: Vec<CommittedPartition>) {
        let pending = self.pending_offsets.values_mut();
        for waiting in pending.filter_map(|groups| groups.get_mut(&group)) {
            for entry in &offsets {
                waiting.remove(&(entry.topic.clone(), entry.partition));
            }
        }
        let kept = self.offsets.entry(group).or_default();
        kept.extend(by_place(offsets));
    }

    fn topic(&mut self, name: &str) -> Result<&mut TopicRecord, String> {
        self.topics
            .get_mut(name)
            .ok_or_else(|| format!("topic {name:?} is not known"))
    }

    /// The fewest changes that lead here.
    fn changes(&self) -> impl Iterator<Item = Change> {
        let cluster = Change::Cluster {
            id: self.cluster_id.clone(),
        };
        let started = self
            .leader_epoch
            .map(|leader_epoch| Change::Started { leader_epoch });
        let ids = Change::ProducerIds {
            next: self.next_producer_id,
        };
        let topics = self
            .topics
            .iter()
            .map(|(name, topic)| Change::TopicCreated {
                name: name.clone(),
                id: topic.id.to_string(),
                partitions: topic.partitions,
                configs: topic.configs.clone(),
            });
        let offsets = self
            .offsets
            .iter()
            .map(|(group, offsets)| Change::OffsetsCommitted {
                group: group.clone(),
                offsets: as_list(offsets),
            });
        let transactions = self.transactions.iter();
        let transactions = transactions.map(|(id, transaction)| Change::TransactionChanged {
            id: id.clone(),
            transaction: transaction.clone(),
        });
        // Behind the committed ones, which would remove them.
        let pending = self
            .pending_offsets
            .iter()
            .flat_map(|(producer_id, groups)| {
                groups
                    .iter()
                    .map(|(group, offsets)| Change::OffsetsPending {
                        producer_id: *producer_id,
                        group: group.clone(),
                        offsets: as_list(offsets),
                    })
            });
        std::iter::once(cluster)
            .chain(started)
            .chain(std::iter::once(ids))
            .chain(topics)
            .chain(offsets)
            .chain(transactions)
            .chain(pending)
    }
}

fn by_place(offsets: Vec<CommittedPartition>) -> impl Iterator<Item = ((String, i32), Committed)> {
    let offsets = offsets.into_iter();
    offsets.map(|entry| ((entry.topic, entry.partition), entry.committed))
}

fn as_list(offsets: &GroupOffsets) -> Vec<CommittedPartition> {
    let offsets = offsets.iter();
    let listed = offsets.map(|((topic, partition), committed)| CommittedPartition {
        topic: topic.clone(),
        partition: *partition,
        committed: committed.clone(),
    });
    listed.collect()
}

/// The metadata and the file it is kept in.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    len: u64,
    /// The length at which the file is written anew.
    compact_at: u64,
    metadata: Metadata,
    /// Set when a failed write could not be taken back: nothing may be written behind it.
    broken: bool,
}

impl Journal {
    /// Reads the journal in `dir`, and makes it if there is none.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(JOURNAL_FILE);
        let file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(|error| Error::file("open", &path, error))?;
        let bytes = fs::read(&path).map_err(|error| Error::file("read", &path, error))?;
        let (metadata, len) = replay(&bytes, &path)?;
        if len < bytes.len() as u64 {
            file.set_len(len)
                .map_err(|error| Error::file("cut", &path, error))?;
        }
        let mut journal = Self {
            path,
            file,
            len,
            compact_at: (len * COMPACT_FACTOR).max(COMPACT_FROM),
            metadata,
            broken: false,
        };
        if journal.metadata.cluster_id.is_empty() {
            let id = Uuid::new_v4().simple().to_string();
            journal.commit_at_start(Change::Cluster { id })?;
        }
        let leader_epoch = journal.metadata.leader_epoch.map_or(0, |epoch| epoch + 1);
        journal.commit_at_start(Change::Started { leader_epoch })?;
        Ok(journal)
    }

    fn commit_at_start(&mut self, change: Change) -> Result<(), Error> {
        self.commit(change)
            .map_err(|error| Error::file("write", &self.path, error))
    }

    /// What the journal says.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Writes `change` and takes it over; on an error neither has happened.
    pub(crate) fn commit(&mut self, change: Change) -> io::Result<()> {
        if self.broken {
            let message = "an earlier write failed and could not be taken back";
            return Err(io::Error::other(message));
        }
        let line = encode(&change)?;
        let forced = change.is_forced();
        let written = self.file.write_all(&line).and_then(|()| match forced {
            true => self.file.sync_data(),
            false => Ok(()),
        });
        if let Err(error) = written {
            self.broken = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.len += line.len() as u64;
        self.metadata
            .apply(change)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        if self.len >= self.compact_at {
            self.compact()?;
        }
        Ok(())
    }

    /// Forces everything to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the journal anew, as short as it can be.
    fn compact(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("journal.new");
        let mut content = Vec::new();
        for change in self.metadata.changes() {
            content.extend_from_slice(&encode(&change)?);
        }
        let mut file = File::create(&fresh)?;
        file.write_all(&content)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&fresh, &self.path)?;
        sync_directory(&self.path)?;
        self.file = File::options().read(true).append(true).open(&self.path)?;
        self.len = content.len() as u64;
        self.compact_at = (self.len * COMPACT_FACTOR).max(COMPACT_FROM);
        Ok(())
    }
}

/// Makes a rename in the folder of `path` durable, where the system can.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if cfg!(unix) => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

fn encode(change: &Change) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(change)?;
    let mut line = format!("{:0CHECKSUM_LEN$x} ", crc32c::crc32c(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn decode(line: &[u8]) -> Result<Change, String> {
    let (checksum, json) = line
        .split_at_checked(CHECKSUM_LEN + 1)
        .ok_or("the line is too short")?;
    let expected = std::str::from_utf8(checksum)
        .ok()
        .and_then(|text| u32::from_str_radix(text.trim_end(), 16).ok())
        .ok_or("the line has no checksum")?;
    if crc32c::crc32c(json) != expected {
        return Err("the checksum does not fit".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// The state that `bytes` lead to, and how many of them are whole lines.
fn replay(bytes: &[u8], path: &Path) -> Result<(Metadata, u64), Error> {
    let mut metadata = Metadata::default();
    let mut at = 0;
    while let Some(len) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let applied = decode(&bytes[at..at + len]).and_then(|change| metadata.apply(change));
        if let Err(what) = applied {
            // A last line that is wrong is the trace of a power failure in mid-write.
            if at + len + 1 == bytes.len() && at > 0 {
                break;
            }
            return Err(Error::corrupt(path, at as u64, what));
        }
        at += len + 1;
    }
    Ok((metadata, at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn commit_offset(group: &str, partition: i32, offset: i64) -> Change {
        let committed = Committed {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        Change::OffsetsCommitted {
            group: group.to_owned(),
            offsets: vec![CommittedPartition {
                topic: "orders".to_owned(),
                partition,
                committed,
            }],
        }
    }

    fn create(name: &str) -> Change {
        Change::TopicCreated {
            name: name.to_owned(),
            id: Uuid::new_v4().to_string(),
            partitions: 3,
            configs: Configs::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
        }
    }

    fn filled(dir: &Path) -> Journal {
        let mut journal = Journal::open(dir).unwrap();
        journal.commit(create("orders")).unwrap();
        journal.commit(create("gone")).unwrap();
        journal.commit(commit_offset("g", 0, 5)).unwrap();
        journal.commit(commit_offset("g", 1, 6)).unwrap();
        journal.commit(commit_offset("g", 0, 7)).unwrap();
        let name = "gone".to_owned();
        journal.commit(Change::TopicDeleted { name }).unwrap();
        journal.commit(Change::ProducerIds { next: 2000 }).unwrap();
        let mut transaction = Transaction::new(1000, 60_000, 5);
        transaction.state = State::Ongoing;
        transaction.touched = Touched::partition("orders", 0);
        let id = "t".to_owned();
        let changed = Change::TransactionChanged { id, transaction };
        journal.commit(changed).unwrap();
        journal.commit(grow("t", 1)).unwrap();
        journal.commit(pending(1000, 2, 8)).unwrap();
        journal
    }

    fn grow(id: &str, partition: i32) -> Change {
        Change::TransactionGrown {
            id: id.to_owned(),
            added: Touched::partition("orders", partition),
            updated_ms: 6,
        }
    }

    fn pending(producer_id: i64, partition: i32, offset: i64) -> Change {
        let Change::OffsetsCommitted { group, offsets } = commit_offset("g", partition, offset)
        else {
            unreachable!()
        };
        Change::OffsetsPending {
            producer_id,
            group,
            offsets,
        }
    }

    #[test]
    fn offsets_of_a_transaction_are_committed_with_it_and_dropped_with_it() {
        for (state, expected) in [
            (State::CompleteCommit, Some(8)),
            (State::CompleteAbort, None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = filled(dir.path());
            let place = ("orders".to_owned(), 2);
            assert!(journal.metadata().is_offset_pending("g", &place));
            let mut transaction = journal.metadata().transactions["t"].clone();
            assert!(transaction.touched.covers(&Touched::partition("orders", 1)));
            transaction.state = state;
            let completed = Change::TransactionCompleted {
                id: "t".to_owned(),
                producer_id: 1000,
                transaction,
            };
            journal.commit(completed).unwrap();
            assert!(!journal.metadata().is_offset_pending("g", &place));
            let found = journal.metadata().offsets["g"].get(&place);
            assert_eq!(found.map(|committed| committed.offset), expected);
        }
    }

    #[test]
    fn a_position_committed_meanwhile_is_not_taken_back_by_a_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = filled(dir.path());
        journal.commit(commit_offset("g", 2, 9)).unwrap();
        let mut transaction = journal.metadata().transactions["t"].clone();
        transaction.state = State::CompleteCommit;
        let completed = Change::TransactionCompleted {
            id: "t".to_owned(),
            producer_id: 1000,
            transaction,
        };
        journal.commit(completed).unwrap();
        let found = &journal.metadata().offsets["g"][&("orders".to_owned(), 2)];
        assert_eq!(found.offset, 9);
    }

    #[test]
    fn everything_is_found_again_and_the_leader_epoch_grows() {
        let dir = tempfile::tempdir().unwrap();
        let before = filled(dir.path()).metadata().clone();
        let after = Journal::open(dir.path()).unwrap().metadata().clone();
        assert_eq!(before.leader_epoch, Some(0));
        assert_eq!(after.leader_epoch, Some(1));
        let expected = Metadata {
            leader_epoch: Some(1),
            ..before
        };
        assert_eq!(after, expected);
        assert_eq!(after.offsets["g"][&("orders".to_owned(), 0)].offset, 7);
    }

    #[test]
    fn compacting_changes_the_size_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = filled(dir.path());
        for offset in 0..1000 {
            journal.commit(commit_offset("g", 0, offset)).unwrap();
        }
        let (long, before) = (journal.len, journal.metadata().clone());
        journal.compact().unwrap();
        assert!(journal.len * 10 < long);
        journal.commit(commit_offset("h", 0, 1)).unwrap();
        drop(journal);
        let mut after = Journal::open(dir.path()).unwrap().metadata().clone();
        assert!(after.offsets.remove("h").is_some());
        after.leader_epoch = before.leader_epoch;
        assert_eq!(after, before);
    }

    #[test]
    fn the_file_stays_bounded_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = filled(dir.path());
        for offset in 0..20_000 {
            journal.commit(commit_offset("g", 0, offset)).unwrap();
        }
        assert!(journal.len < COMPACT_FROM + 1024, "{}", journal.len);
    }

    #[test]
    fn a_cut_anywhere_loses_whole_changes_at_the_end_only() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let path = dir.path().join(JOURNAL_FILE);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            let whole_lines = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            let (_, kept) = replay(&bytes[..cut], &path).unwrap();
            let kept = &bytes[..usize::try_from(kept).unwrap()];
            let found = kept.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(found, whole_lines);
        }
    }

    #[test]
    fn damage_before_the_end_names_file_and_byte() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let path = dir.path().join(JOURNAL_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        bytes[second + 20] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = Journal::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let message = error.to_string();
        assert!(message.contains("metadata.journal"), "{message}");
        assert!(message.contains(&format!("byte {second}")), "{message}");
    }
}
