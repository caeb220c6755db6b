//! The receipt: what a load did, in a form that can be checked later.
//!
//! A receipt is one JSON object. [`RECEIPT_VERSION`] is its format; a reader takes what it knows, ignores fields it does not know, and refuses a
//! higher version. `verify` and `balance` work from it.
//!
//! ```json
//! {
//!   "receipt": 1, "tidegate": "0.1.0", "status": "complete", "delivery": "at-least-once", "may_contain_duplicates": false,
//!   "topic": "usage", "topic_id": null, "schema_id": 1, "partitioner": "murmur2", "plan": {},
//!   "sources": [{"path": "usage.csv", "length": 4242, "xxh3_128": "99aa06d3014798d86001c324468d497f"}],
//!   "rows": {"read": 120, "accepted": 120, "rejected": 0, "failed": 0}, "records": {"delivered": 12, "failed": 0}, "blank_lines": 0, "comment_lines": 0,
//!   "evened_rows": 0,
//!   "partitions": [{"partition": 0, "first_offset": 0, "last_offset": 11, "records": 12, "rows": 120, "digest": "..."}],
//!   "producer_ids": [4000], "held": false, "rejects": null, "resumed_at_row": null,
//!   "started_at": 1700000000000, "finished_at": 1700000000042, "seconds": 0.042
//! }
//! ```
//!
//! `accepted` rows became part of a record, so `accepted + rejected = read` always; `failed` of them are not, or not known to be, in the topic.
//! The digests are defined in [`digest`](crate::digest); a partition whose records did not all arrive has none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::balance::Target;
use crate::digest::{Hash128, PrefixDigest};
use crate::encode::SchemaIds;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Delivery, Repeat};
use crate::limits::MAX_RECEIPT_SIZE;
use crate::read::ReadCounts;

/// The version of the format that this program writes, and the highest it reads.
pub const RECEIPT_VERSION: u32 = 1;

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Everything was read, and every accepted row is in the topic.
    Complete,
    /// It was told to stop; everything read until then is settled.
    Interrupted,
    /// An error ended it.
    Failed,
}

/// An input, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// What it was called.
    pub path: String,
    /// Bytes read, decompressed; of a load that did not complete, the beginning only.
    pub length: u64,
    /// XXH3-128 over these bytes.
    pub xxh3_128: Hash128,
}

impl SourceIdentity {
    /// Whether `found` is the same content.
    #[must_use]
    pub fn matches(&self, found: &PrefixDigest) -> bool {
        self.length == found.bytes && self.xxh3_128 == found.hash
    }
}

/// What became of the rows; `accepted + rejected = read`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows read.
    pub read: u64,
    /// Rows that became part of a record.
    pub accepted: u64,
    /// Rows rejected.
    pub rejected: u64,
    /// Accepted rows that are not, or not known to be, in the topic; 0 in a complete load.
    #[serde(default)]
    pub failed: u64,
}

/// What became of the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCounts {
    /// Records acknowledged by the topic.
    pub delivered: u64,
    /// Records that are not, or not known to be, in the topic; 0 in a complete load.
    #[serde(default)]
    pub failed: u64,
}

/// What the load has in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReceipt {
    /// The partition, from 0.
    pub partition: i32,
    /// Offset of the first record; null without records, or when no answer told it and the topic could not be asked.
    pub first_offset: Option<i64>,
    /// Offset of the last record; null as above.
    pub last_offset: Option<i64>,
    /// Records delivered.
    pub records: u64,
    /// Rows in these.
    pub rows: u64,
    /// Digest of these; null when more were sent than arrived.
    pub digest: Option<Hash128>,
}

/// The rejects file of the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectsReceipt {
    /// Where it is.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
    /// Rows in it.
    pub rows: u64,
}

/// What a load did. See the [module](self) for the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of the format.
    #[serde(rename = "receipt")]
    pub version: u32,
    /// Version of the program that wrote it.
    #[serde(rename = "tidegate")]
    pub program: String,
    /// How the load ended.
    pub status: Status,
    /// What was promised.
    pub delivery: Delivery,
    /// Whether an earlier run of the load may have left records that were sent again.
    #[serde(default)]
    pub may_contain_duplicates: bool,
    /// Which records these are.
    #[serde(default)]
    pub repeats: Vec<Repeat>,
    /// The topic.
    pub topic: String,
    /// The topic's id, where the cluster tells one.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// Id of the schema in the registry.
    #[serde(default)]
    pub schema_id: Option<u32>,
    /// Id of the schema of Avro keys; `None` with other keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_schema_id: Option<u32>,
    /// How records were spread over the partitions.
    pub partitioner: String,
    /// Every option that changes records, resolved; what a verification needs to derive the same ones.
    #[serde(default)]
    pub plan: serde_json::Value,
    /// The inputs, in order.
    pub sources: Vec<SourceIdentity>,
    /// What became of the rows.
    pub rows: RowCounts,
    /// What became of the records.
    pub records: RecordCounts,
    /// What was passed over or evened out.
    #[serde(flatten)]
    pub read_counts: ReadCounts,
    /// Every partition of the topic, in order.
    pub partitions: Vec<PartitionReceipt>,
    /// The producer ids its records carry, oldest first.
    #[serde(default)]
    pub producer_ids: Vec<i64>,
    /// Whether a last row without a line end, or the last group, was left for a later load: the source is the input up to there.
    #[serde(default)]
    pub held: bool,
    /// The rejects file; null without one.
    #[serde(default)]
    pub rejects: Option<RejectsReceipt>,
    /// The topic that holds the rejected rows; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejects_topic: Option<String>,
    /// Rows that an earlier run had done; null for a load of one run.
    #[serde(default)]
    pub resumed_at_row: Option<u64>,
    /// When the run began, in milliseconds since the Unix epoch, by the wall clock.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// How long it took, by the monotonic clock.
    pub seconds: f64,
}

impl Receipt {
    /// The ids of the schemas.
    #[must_use]
    pub fn schema_ids(&self) -> SchemaIds {
        SchemaIds {
            value: self.schema_id,
            key: self.key_schema_id,
        }
    }

    /// Reads a receipt.
    ///
    /// # Errors
    /// [`ErrorKind::LocalFile`] when it cannot be read, is no receipt, contradicts itself, or is of a higher version.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let failed = |error| Error::local_file(format!("cannot read the receipt {name}"), error);
        let mut text = Vec::new();
        File::open(path)
            .map_err(failed)?
            .take(MAX_RECEIPT_SIZE + 1)
            .read_to_end(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > MAX_RECEIPT_SIZE {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is larger than {MAX_RECEIPT_SIZE} bytes"),
            )));
        }
        Self::parse(&text)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    /// Reads a receipt from its JSON.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            receipt: u32,
        }
        let wrong = |error: serde_json::Error| {
            Error::new(ErrorKind::LocalFile, "this is no receipt").with_source(error)
        };
        let Version { receipt: version } = serde_json::from_slice(json).map_err(wrong)?;
        if version > RECEIPT_VERSION {
            let message = format!(
                "the receipt is of version {version}; this program knows up to {RECEIPT_VERSION}"
            );
            return Err(Error::new(ErrorKind::LocalFile, message));
        }
        let receipt: Self = serde_json::from_slice(json).map_err(wrong)?;
        receipt.check()?;
        Ok(receipt)
    }

    /// The receipt as JSON, for people too, with a line end.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the plan in it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        let mut json = serde_json::to_string_pretty(self).map_err(|error| {
            Error::internal("the receipt cannot be written as JSON").with_source(error)
        })?;
        json.push('\n');
        Ok(json)
    }

    /// Writes the receipt so that `path` holds the old file or the whole new one at every moment: into a file beside it, to the disk, then renamed.
    ///
    /// # Errors
    /// [`ErrorKind::LocalFile`]; then the old file, if any, is untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = self.to_json()?;
        write_whole(path, json.as_bytes()).map_err(|error| {
            Error::local_file(
                format!("cannot write the receipt {}", path.display()),
                error,
            )
        })
    }

    /// What a group must have committed for the load to be worked off, per partition that holds records of it.
    ///
    /// # Errors
    /// [`ErrorKind::LocalFile`] when the receipt does not know the last offset of a partition.
    pub fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for partition in self
            .partitions
            .iter()
            .filter(|partition| partition.records > 0)
        {
            let Some(last) = partition.last_offset else {
                let number = partition.partition;
                let message = format!(
                    "the receipt does not know the offset of the last record in partition {number}"
                );
                return Err(Error::new(ErrorKind::LocalFile, message));
            };
            targets.push(Target {
                partition: partition.partition,
                target: last + 1,
                first: partition.first_offset,
                records: Some(partition.records),
            });
        }
        Ok(targets)
    }

    /// Holds the numbers against each other.
    fn check(&self) -> Result<()> {
        let delivered: u64 = self
            .partitions
            .iter()
            .map(|partition| partition.records)
            .sum();
        let rows: u64 = self.partitions.iter().map(|partition| partition.rows).sum();
        let ordered = self
            .partitions
            .iter()
            .enumerate()
            .all(|(index, partition)| i32::try_from(index) == Ok(partition.partition));
        let RowCounts {
            read,
            accepted,
            rejected,
            failed,
        } = self.rows;
        let wrong = if !ordered {
            "its partitions are not 0, 1, 2 and so on"
        } else if accepted.checked_add(rejected) != Some(read) {
            "accepted and rejected rows are not the rows read"
        } else if delivered != self.records.delivered {
            "the records of its partitions are not the records delivered"
        } else if rows.checked_add(failed) != Some(accepted) {
            "the rows of its partitions are not the rows accepted"
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::LocalFile,
            format!("the receipt contradicts itself: {wrong}"),
        ))
    }
}

/// Puts `bytes` into `path` in one step.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let (beside, mut file) = open_beside(path, folder)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // The first error is the one to report; a file that cannot be removed either is left behind.
        drop(fs::remove_file(&beside));
        return Err(error);
    }
    // The rename itself reaches the disk with the folder. Not every file system lets a folder be opened for that; the content is safe by then.
    if let Ok(folder) = File::open(folder) {
        drop(folder.sync_all());
    }
    Ok(())
}

/// A new file in `folder`, named after `path`.
fn open_beside(path: &Path, folder: &Path) -> io::Result<(PathBuf, File)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    for attempt in 0..100 {
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}.{attempt}.tmp", std::process::id()));
        let beside = folder.join(beside);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((beside, opened?)),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "a hundred temporary files of that name are in the way",
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Receipt {
        Receipt {
            version: RECEIPT_VERSION,
            program: "0.1.0".into(),
            status: Status::Complete,
            delivery: Delivery::AtLeastOnce,
            may_contain_duplicates: false,
            repeats: Vec::new(),
            topic: "usage".into(),
            topic_id: None,
            schema_id: Some(7),
            key_schema_id: None,
            partitioner: "murmur2".into(),
            plan: serde_json::json!({"key": ["timestamp"]}),
            sources: vec![SourceIdentity {
                path: "usage.csv".into(),
                length: 42,
                xxh3_128: Hash128(5),
            }],
            rows: RowCounts {
                read: 121,
                accepted: 120,
                rejected: 1,
                failed: 0,
            },
            records: RecordCounts {
                delivered: 12,
                failed: 0,
            },
            read_counts: ReadCounts {
                blank_lines: 2,
                ..ReadCounts::default()
            },
            partitions: vec![
                PartitionReceipt {
                    partition: 0,
                    first_offset: None,
                    last_offset: None,
                    records: 0,
                    rows: 0,
                    digest: Some(Hash128(0)),
                },
                PartitionReceipt {
                    partition: 1,
                    first_offset: Some(3),
                    last_offset: Some(15),
                    records: 12,
                    rows: 120,
                    digest: Some(Hash128(9)),
                },
            ],
            producer_ids: vec![4000],
            held: false,
            rejects: Some(RejectsReceipt {
                path: "rejects.jsonl".into(),
                length: 99,
                rows: 1,
            }),
            rejects_topic: None,
            resumed_at_row: None,
            started_at: 1_700_000_000_000,
            finished_at: 1_700_000_000_042,
            seconds: 0.042,
        }
    }

    #[test]
    fn survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        sample().write(&path).unwrap();
        assert_eq!(Receipt::read(&path).unwrap(), sample());
        let mut second = sample();
        second.topic = "other".into();
        second.write(&path).unwrap();
        assert_eq!(Receipt::read(&path).unwrap(), second);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "kept").unwrap();
        assert_eq!(
            sample().write(&path).unwrap_err().kind(),
            ErrorKind::LocalFile
        );
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(
            sample()
                .write(&folder.path().join("missing/receipt.json"))
                .unwrap_err()
                .kind(),
            ErrorKind::LocalFile
        );
    }

    #[test]
    fn ignores_unknown_fields_and_refuses_higher_versions() {
        let mut json: serde_json::Value =
            serde_json::from_str(&sample().to_json().unwrap()).unwrap();
        json["added_later"] = 1.into();
        assert_eq!(
            Receipt::parse(json.to_string().as_bytes()).unwrap(),
            sample()
        );
        json["receipt"] = (RECEIPT_VERSION + 1).into();
        json["rows"] = "of another shape".into();
        let error = Receipt::parse(json.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn refuses_numbers_that_do_not_add_up() {
        let mut json: serde_json::Value =
            serde_json::from_str(&sample().to_json().unwrap()).unwrap();
        json["rows"]["read"] = 119.into();
        assert!(
            Receipt::parse(json.to_string().as_bytes())
                .unwrap_err()
                .to_string()
                .contains("accepted and rejected")
        );
        assert_eq!(
            Receipt::parse(b"[]").unwrap_err().kind(),
            ErrorKind::LocalFile
        );
    }

    #[test]
    fn targets_are_one_past_the_last_offset() {
        let targets = sample().targets().unwrap();
        assert_eq!(
            targets,
            [Target {
                partition: 1,
                target: 16,
                first: Some(3),
                records: Some(12)
            }]
        );
        let mut unknown = sample();
        unknown.partitions[1].last_offset = None;
        assert!(unknown.targets().is_err());
    }
}
