//! What a producer is told, and what it tells.

use std::thread;
use std::time::Duration;

use tidegate_wire::{Compression, RecordHeader};

use crate::error::Error;

/// How records become batches, and how batches travel.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// How batches are compressed.
    pub compression: Compression,
    /// Uncompressed bytes after which a batch is sealed; it shrinks with the number of partitions so that open batches take at most
    /// 128 MiB together, and to the topic's `max.message.bytes`. The default, 1,000,000, stays under the default of that (1,048,588)
    /// whatever the compression.
    pub batch_size: usize,
    /// Time after which an open batch is sealed although it is not full. It is looked at every few hundred records and by
    /// [`poll`](super::Producer::poll) and [`wait`](super::Producer::wait), so a producer of which nobody asks anything seals nothing.
    pub linger: Duration,
    /// Threads that compress, at least 1. Batches are put in order again behind them. The default leaves one core to the appending thread,
    /// and is 4 at most.
    pub compression_threads: usize,
    /// Connections to each broker, at least 1; a partition is on one of them. A broker works on one request per connection at a time, and
    /// with acks=all that takes as long as its followers need, so one connection alone cannot keep a replicated topic busy.
    pub connections_per_broker: usize,
    /// To write in transactions only; `None`, the default, is a producer without any.
    pub transactional: Option<Transactional>,
}

/// How a producer takes part in transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transactional {
    /// The transactional id. Of all producers with the same one the cluster listens to the latest only.
    pub id: String,
    /// How long a transaction may be open before its coordinator aborts it. Brokers allow 15 minutes at most by default
    /// (`transaction.max.timeout.ms`).
    pub timeout: Duration,
}

impl Transactional {
    /// With the default time-out, 60 s, as in Java's producer.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            timeout: Duration::from_secs(60),
        }
    }
}

impl Default for ProducerConfig {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            compression: Compression::Lz4,
            batch_size: 1_000_000,
            linger: Duration::from_millis(200),
            compression_threads: (cores - 1).clamp(1, 4),
            connections_per_broker: 3,
            transactional: None,
        }
    }
}

/// A topic of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    pub(super) first_slot: u32,
    pub(super) partitions: i32,
}

impl Topic {
    /// How many partitions the topic had when it was opened.
    pub fn partitions(self) -> i32 {
        self.partitions
    }
}

/// A record to be appended.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerRecord<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [RecordHeader<'a>],
    /// Milliseconds since 1970; `None`: when its batch was opened.
    pub timestamp: Option<i64>,
    /// The caller's row number; a batch remembers those of its first and its last record, and failures name them.
    pub tag: u64,
}

/// What became of a batch.
#[derive(Debug)]
pub struct SettledBatch {
    /// Its topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: i32,
    /// How many records it has.
    pub records: u32,
    /// The producer id that it carries in the log.
    pub producer_id: i64,
    /// Offset of its first record; the others follow. `None` if the broker had it already and no longer knew where.
    pub base_offset: Option<i64>,
    /// Tag of its first record.
    pub first_tag: u64,
    /// Tag of its last record.
    pub last_tag: u64,
    /// Whether all in-sync replicas have it. After a failure it may or may not be in the log.
    pub result: Result<(), Error>,
}
