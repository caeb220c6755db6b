//! Reads one topic partition by partition, each in offset order, whichever order they are asked for in.
//!
//! A verification takes records in the order of the file, which jumps between partitions. So every partition has a small queue of fetched bytes;
//! one that is full is paused until it has been read, and one that is empty is waited for. What is held stays within
//! [`BUFFERED_BYTES`] for each partition, and one batch more.
//!
//! A [`CommittedReader`] reads what was committed, whoever else has a transaction open in the topic.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use tidegate_core::produce::{Consume, ConsumedHeader, ConsumedRecord, SinkError};
use tidegate_kafka::admin::{Isolation, OffsetSpec};
use tidegate_kafka::consumer::{Consumer, ConsumerConfig, FetchedBatches};
use tidegate_kafka::{Client, Error, ErrorKind, Outcomes, outcomes_behind};

use crate::bridge::MARKERS_PAUSE;

/// Fetched bytes that a partition may hold before it is paused.
const BUFFERED_BYTES: usize = 1 << 20;
/// Fetched bytes of all partitions that one answer may hold.
const ANSWER_BYTES: usize = 16 << 20;
/// A partition is asked for at least so much at a time.
const SMALLEST_FETCH: usize = 64 << 10;
/// How long one fetch may wait for data.
const POLL: Duration = Duration::from_millis(500);

/// How long the markers of a transaction may take that was committed: brokers write them behind the answer.
const MARKERS: Duration = Duration::from_secs(30);

/// The part of a partition that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange {
    /// The partition, from 0.
    pub partition: i32,
    /// The first offset.
    pub start: i64,
    /// One past the last offset.
    pub end: i64,
}

/// Reads the data records of a topic.
#[derive(Debug)]
pub struct TopicReader {
    client: Client,
    consumer: Consumer,
    topic: String,
    /// By partition number.
    partitions: Vec<Option<Queue>>,
}

/// What is known and held of one partition.
#[derive(Debug)]
struct Queue {
    range: ReadRange,
    fetched: VecDeque<FetchedBatches>,
    bytes: usize,
    paused: bool,
    open: OpenBatches,
}

/// The records of the fetched bytes that are being read, copied out of their batches.
#[derive(Debug, Default)]
struct OpenBatches {
    bytes: Vec<u8>,
    headers: Vec<ConsumedHeader>,
    records: Vec<Located>,
    next: usize,
}

/// Where a record lies in the buffers of [`OpenBatches`].
#[derive(Debug, Clone)]
struct Located {
    offset: i64,
    producer_id: i64,
    key: Option<(usize, usize)>,
    value: Option<(usize, usize)>,
    headers: Range<usize>,
    timestamp: Option<i64>,
}

impl TopicReader {
    /// Reads these parts of `topic`.
    ///
    /// # Errors
    /// As [`Consumer::open`].
    pub fn open(
        client: &Client,
        topic: &str,
        ranges: &[ReadRange],
        isolation: Isolation,
    ) -> Result<Self, Error> {
        let config = ConsumerConfig {
            isolation,
            max_wait: POLL,
            fetch_max_bytes: ANSWER_BYTES,
            partition_max_bytes: (2 * ANSWER_BYTES / ranges.len().max(1))
                .clamp(SMALLEST_FETCH, BUFFERED_BYTES),
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(client.clone(), config)?;
        let starts: Vec<(i32, i64)> = ranges
            .iter()
            .filter(|range| range.start < range.end)
            .map(|range| (range.partition, range.start))
            .collect();
        consumer.assign(topic, &starts)?;
        let mut partitions: Vec<Option<Queue>> = Vec::new();
        for range in ranges {
            let Ok(index) = usize::try_from(range.partition) else {
                continue;
            };
            if partitions.len() <= index {
                partitions.resize_with(index + 1, || None);
            }
            partitions[index] = Some(Queue::new(*range));
        }
        Ok(Self {
            client: client.clone(),
            consumer,
            topic: topic.to_owned(),
            partitions,
        })
    }

    /// Makes the next record of `partition` the open one; `false` at its end.
    fn advance(&mut self, partition: i32) -> Result<bool, Error> {
        let mut quiet_since = Instant::now();
        loop {
            let Some(queue) = self.queue(partition) else {
                return Ok(false);
            };
            if queue.has_record()? {
                return Ok(true);
            }
            let end = queue.range.end;
            if queue.bytes < BUFFERED_BYTES && queue.paused {
                queue.paused = false;
                self.consumer.resume(&self.topic, partition);
            }
            if self
                .consumer
                .position(&self.topic, partition)
                .is_none_or(|position| position >= end)
            {
                return Ok(false);
            }
            if self.fetch()? {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= self.client.config().delivery_timeout {
                let message = format!(
                    "{}-{partition}: nothing was read for {:?}",
                    self.topic,
                    quiet_since.elapsed()
                );
                return Err(Error::new(ErrorKind::Timeout, message));
            }
        }
    }

    /// Fetches once and pauses the partitions that hold enough; whether anything came.
    fn fetch(&mut self) -> Result<bool, Error> {
        let fetched = self.consumer.poll(POLL)?;
        let any = !fetched.is_empty();
        for batches in fetched {
            let partition = batches.partition;
            let Some(queue) = self.queue(partition) else {
                continue;
            };
            queue.bytes += batches.bytes.len();
            queue.fetched.push_back(batches);
            if queue.bytes >= BUFFERED_BYTES && !queue.paused {
                queue.paused = true;
                self.consumer.pause(&self.topic, partition);
            }
        }
        Ok(any)
    }

    fn queue(&mut self, partition: i32) -> Option<&mut Queue> {
        let index = usize::try_from(partition).ok()?;
        self.partitions.get_mut(index)?.as_mut()
    }
}

impl Queue {
    fn new(range: ReadRange) -> Self {
        Self {
            range,
            fetched: VecDeque::new(),
            bytes: 0,
            paused: false,
            open: OpenBatches::default(),
        }
    }

    /// Whether a record within the range is open, opening fetched bytes as needed.
    fn has_record(&mut self) -> Result<bool, Error> {
        loop {
            if let Some(record) = self.open.records.get(self.open.next) {
                return Ok(record.offset < self.range.end);
            }
            let Some(batches) = self.fetched.pop_front() else {
                return Ok(false);
            };
            self.bytes -= batches.bytes.len();
            self.open.fill(&batches)?;
        }
    }
}

impl OpenBatches {
    fn fill(&mut self, batches: &FetchedBatches) -> Result<(), Error> {
        self.bytes.clear();
        self.headers.clear();
        self.records.clear();
        self.next = 0;
        batches.for_each_record(|record| {
            let key = record.key.map(|key| put(&mut self.bytes, key));
            let value = record.value.map(|value| put(&mut self.bytes, value));
            let first_header = self.headers.len();
            for header in record.headers() {
                let header = header.map_err(|error| {
                    let place = format!("{}-{}", batches.topic, batches.partition);
                    let message = format!("{place}, offset {}: {error}", record.offset);
                    Error::new(ErrorKind::Protocol, message)
                })?;
                self.headers.push(ConsumedHeader {
                    name: header.name.to_owned(),
                    value: header.value.map(<[u8]>::to_vec),
                });
            }
            self.records.push(Located {
                offset: record.offset,
                producer_id: record.producer_id,
                key,
                value,
                headers: first_header..self.headers.len(),
                timestamp: Some(record.timestamp).filter(|_| !record.is_append_time),
            });
            Ok(())
        })
    }

    fn take(&mut self, partition: i32) -> Option<ConsumedRecord<'_>> {
        let record = self.records.get(self.next)?;
        self.next += 1;
        let bytes = |(start, end): (usize, usize)| &self.bytes[start..end];
        Some(ConsumedRecord {
            partition,
            offset: record.offset,
            producer_id: record.producer_id,
            key: record.key.map(bytes),
            value: record.value.map(bytes),
            headers: &self.headers[record.headers.clone()],
            timestamp: record.timestamp,
        })
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) -> (usize, usize) {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    (start, bytes.len())
}

/// Reads the committed data records of a topic. Up to the last stable offset the broker says which these are; behind it, where the transactions of
/// others may be open, the markers do.
#[derive(Debug)]
pub struct CommittedReader {
    stable: TopicReader,
    behind: TopicReader,
    /// By partition, where anything is read behind the last stable offset.
    outcomes: BTreeMap<i32, Outcomes>,
}

impl CommittedReader {
    /// Reads these parts of `topic`. All transactions of the producers in `own` were committed or rolled back: their markers are waited for.
    ///
    /// # Errors
    /// As [`Consumer::open`], and as [`outcomes_behind`].
    pub fn open(
        client: &Client,
        topic: &str,
        ranges: &[ReadRange],
        own: &[i64],
    ) -> Result<Self, Error> {
        let partitions: Vec<i32> = ranges.iter().map(|range| range.partition).collect();
        let isolation = Isolation::ReadCommitted;
        let stable =
            client
                .admin()
                .list_offsets(topic, &partitions, OffsetSpec::Latest, isolation)?;
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        let mut outcomes = BTreeMap::new();
        for range in ranges {
            let mut found = stable
                .iter()
                .filter(|(number, _)| *number == range.partition);
            let stable = found.next().map_or(range.end, |(_, offset)| *offset);
            let stable = stable.clamp(range.start, range.end.max(range.start));
            before.push(ReadRange {
                end: stable,
                ..*range
            });
            if stable < range.end {
                behind.push(ReadRange {
                    start: stable,
                    ..*range
                });
                let decided = decided(client, topic, range.partition, stable, own)?;
                outcomes.insert(range.partition, decided);
            }
        }
        Ok(Self {
            stable: TopicReader::open(client, topic, &before, isolation)?,
            behind: TopicReader::open(client, topic, &behind, Isolation::ReadUncommitted)?,
            outcomes,
        })
    }

    /// Makes the next committed record behind the last stable offset the open one; `false` at the end.
    fn advance_behind(&mut self, partition: i32) -> Result<bool, Error> {
        let Some(outcomes) = self.outcomes.get(&partition) else {
            return Ok(false);
        };
        while self.behind.advance(partition)? {
            let Some(queue) = self.behind.queue(partition) else {
                break;
            };
            match queue.open.records.get(queue.open.next) {
                Some(record) if outcomes.is_committed(record.producer_id, record.offset) => {
                    return Ok(true);
                }
                _ => queue.open.next += 1,
            }
        }
        Ok(false)
    }
}

/// The outcomes of the transactions behind `stable`, once all of our own are known.
fn decided(
    client: &Client,
    topic: &str,
    partition: i32,
    stable: i64,
    own: &[i64],
) -> Result<Outcomes, Error> {
    let since = Instant::now();
    loop {
        let outcomes = outcomes_behind(client, topic, partition, stable)?;
        if !own.iter().any(|id| outcomes.is_open(*id)) || since.elapsed() >= MARKERS {
            return Ok(outcomes);
        }
        std::thread::sleep(MARKERS_PAUSE);
    }
}

impl Consume for CommittedReader {
    fn next(&mut self, partition: i32) -> Result<Option<ConsumedRecord<'_>>, SinkError> {
        let reader = if self.stable.advance(partition)? {
            &mut self.stable
        } else if self.advance_behind(partition)? {
            &mut self.behind
        } else {
            return Ok(None);
        };
        Ok(reader
            .queue(partition)
            .and_then(|queue| queue.open.take(partition)))
    }

    fn log_start(&mut self, partition: i32) -> Result<Option<i64>, SinkError> {
        self.stable.log_start(partition)
    }
}

impl Consume for TopicReader {
    fn next(&mut self, partition: i32) -> Result<Option<ConsumedRecord<'_>>, SinkError> {
        if !self.advance(partition)? {
            return Ok(None);
        }
        Ok(self
            .queue(partition)
            .and_then(|queue| queue.open.take(partition)))
    }

    fn log_start(&mut self, partition: i32) -> Result<Option<i64>, SinkError> {
        let offsets = self.client.admin().list_offsets(
            &self.topic,
            &[partition],
            OffsetSpec::Earliest,
            Isolation::ReadUncommitted,
        )?;
        Ok(offsets.first().map(|(_, offset)| *offset))
    }
}
