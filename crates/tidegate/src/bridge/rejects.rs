//! The topic for rejected rows: each is a record of its own, with its raw bytes as the value, no key, and in its headers where it stood and why it was rejected.
//!
//! | header | value |
//! |---|---|
//! | `topic`, `job` | the topic of the load, and its job, where it has one |
//! | `file` | the input, where it has a name |
//! | `row`, `line`, `byte` | the number of the row, counted through all inputs; the line and the byte it starts at in its own |
//! | `column` | the column to blame, where one is |
//! | `kind`, `reason` | what kind of fault it is; what was found and what was expected |
//! | `raw_length` | the length of the row, where the value is only the beginning of it |
//!
//! These are the fields of the rejects file.

use tidegate_core::partition::Partitioner;
use tidegate_core::produce::Reject;
use tidegate_kafka::producer::{Producer, ProducerRecord, Topic};
use tidegate_kafka::{Client, Error};
use tidegate_wire::RecordHeader;

/// What a topic takes by default, in bytes (`max.message.bytes`).
const DEFAULT_LIMIT: usize = 1_048_588;

/// What is kept of that for everything but the row itself. A reason quotes a cell, but never all of a long one.
const KEPT_FREE: usize = 64 * 1024;

/// A topic for rejected rows, opened by the producer of the load.
#[derive(Debug)]
pub(super) struct RejectsTopic {
    topic: Topic,
    name: String,
    /// The topic of the load.
    target: String,
    job: Option<String>,
    /// So much of a row is sent at most.
    limit: usize,
}

impl RejectsTopic {
    pub(super) fn open(
        client: &Client,
        producer: &mut Producer,
        name: &str,
        target: &str,
        job: Option<&str>,
    ) -> Result<Self, Error> {
        let topic = producer.topic(name)?;
        // Who may write there need not have the right to read the settings.
        let configs = client.admin().topic_configs(name).ok();
        let limit = configs.and_then(|configs| configs.get("max.message.bytes")?.parse().ok());
        let limit: usize = limit.unwrap_or(DEFAULT_LIMIT);
        Ok(Self {
            topic,
            name: name.to_owned(),
            target: target.to_owned(),
            job: job.map(str::to_owned),
            limit: limit.saturating_sub(KEPT_FREE).max(limit / 2),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Appends a rejected row.
    pub(super) fn put(&self, producer: &mut Producer, reject: &Reject<'_>) -> Result<(), Error> {
        let bad = reject.row;
        let raw = &bad.raw[..bad.raw.len().min(self.limit)];
        let is_whole = raw.len() as u64 == bad.raw_len;
        let kind = serde_json::to_value(bad.kind).unwrap_or_default();
        let [row, line, byte, length] =
            [bad.row, bad.line, bad.byte, bad.raw_len].map(|number| number.to_string());
        let headers = [
            ("topic", Some(self.target.as_str())),
            ("job", self.job.as_deref()),
            ("file", reject.input),
            ("row", Some(&row)),
            ("line", Some(&line)),
            ("byte", Some(&byte)),
            ("column", bad.column.as_deref()),
            ("kind", kind.as_str()),
            ("reason", Some(&bad.reason)),
            ("raw_length", Some(length.as_str()).filter(|_| !is_whole)),
        ];
        let headers: Vec<RecordHeader<'_>> = headers
            .into_iter()
            .filter_map(|(name, value)| {
                let value = Some(value?.as_bytes());
                Some(RecordHeader { name, value })
            })
            .collect();
        let record = ProducerRecord {
            value: Some(raw),
            headers: &headers,
            tag: bad.row,
            ..ProducerRecord::default()
        };
        let partitions = self.topic.partitions();
        let partition = Partitioner::default().partition(None, reject.number, partitions);
        producer.append(self.topic, partition, record)
    }
}
