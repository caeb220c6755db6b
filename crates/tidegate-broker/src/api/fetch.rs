//! Fetch (1): reads batches, and waits for them if there are too few.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId, fetch_response};
use kafka_protocol::protocol::VersionRange;
use tidegate_wire::Batches;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Api, Context, find_topic, topic_name};
use crate::codes;
use crate::log::AbortedTransaction;
use crate::shared::Shared;
use crate::topics::Partition;

/// The first version that names topics by id. (KIP-516)
const TOPIC_IDS: i16 = 13;

/// The isolation level of readers that want committed records alone.
pub(super) const READ_COMMITTED: i8 = 1;

impl Api for FetchRequest {
    const SERVED: VersionRange = VersionRange { min: 4, max: 17 };

    async fn handle(self, context: &Context) -> FetchResponse {
        // No fetch sessions are kept. Id 0 in the answer says so, and clients then send whole requests, as
        // they do to a broker whose session cache is full. (KIP-227)
        if self.session_id != 0 {
            return FetchResponse::default().with_error_code(codes::FETCH_SESSION_ID_NOT_FOUND);
        }
        let wanted = find_all(&self, context);
        let wait = Duration::from_millis(u64::try_from(self.max_wait_ms).unwrap_or(0));
        let min_bytes = u64::try_from(self.min_bytes).unwrap_or(0);
        wait_for_bytes(
            &wanted,
            self.isolation_level,
            min_bytes,
            Instant::now() + wait,
        )
        .await;
        let max_bytes = usize::try_from(self.max_bytes).unwrap_or(0);
        let mut budget = Budget {
            left: max_bytes.min(context.shared.config.fetch_max_bytes),
            found_any: false,
        };
        let mut wanted = wanted.into_iter();
        let responses = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().zip(&mut wanted);
            let data = partitions.map(|(asked, place)| {
                place.map_or_else(
                    |code| refused(asked.partition, code),
                    |place| place.read(&mut budget, self.isolation_level),
                )
            });
            answer_for(topic).with_partitions(data.collect())
        });
        FetchResponse::default().with_responses(responses.collect())
    }

    fn refuse(&self, context: &Context, code: i16) -> FetchResponse {
        let responses = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter();
            answer_for(topic).with_partitions(
                partitions
                    .map(|partition| refused(partition.partition, code))
                    .collect(),
            )
        });
        let refusal = FetchResponse::default().with_responses(responses.collect());
        if self.topics.is_empty() && context.version >= 7 {
            return refusal.with_error_code(code);
        }
        refusal
    }

    fn partitions(&self, shared: &Shared) -> Vec<(String, i32)> {
        self.topics
            .iter()
            .flat_map(|topic| {
                let name = topic_name(shared, &topic.topic, topic.topic_id);
                let partitions = topic.partitions.iter();
                partitions.map(move |partition| (name.clone(), partition.partition))
            })
            .collect()
    }
}

fn answer_for(topic: &FetchTopic) -> FetchableTopicResponse {
    FetchableTopicResponse::default()
        .with_topic(topic.topic.clone())
        .with_topic_id(topic.topic_id)
}

fn refused(partition: i32, code: i16) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(code)
        .with_high_watermark(-1)
        .with_records(Some(Bytes::new()))
}

/// A place to read from.
struct Place {
    partition: Arc<Partition>,
    index: i32,
    offset: i64,
    max_bytes: usize,
}

/// What is left of the bytes that an answer may hold.
struct Budget {
    left: usize,
    /// Whether there is a batch in the answer: if not, the next one may be of any size.
    found_any: bool,
}

/// The places asked for, in the order of the request, or the code of what is wrong with each.
fn find_all(request: &FetchRequest, context: &Context) -> Vec<Result<Place, i16>> {
    let by_id = context.version >= TOPIC_IDS;
    let mut places = Vec::new();
    for asked in &request.topics {
        let topic = find_topic(&context.shared, &asked.topic, asked.topic_id, by_id);
        for partition in &asked.partitions {
            places.push(match &topic {
                Some(topic) => topic
                    .partition(partition.partition)
                    .ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)
                    .and_then(|found| Place::new(found, partition)),
                None if by_id => Err(codes::UNKNOWN_TOPIC_ID),
                None => Err(codes::UNKNOWN_TOPIC_OR_PARTITION),
            });
        }
    }
    places
}

/// Whether the epoch a client has seen is the current one; -1 asks for no check. (KIP-320)
pub(super) fn check_epoch(partition: &Partition, seen: i32) -> Result<(), i16> {
    match seen {
        -1 => Ok(()),
        seen if seen < partition.leader_epoch() => Err(codes::FENCED_LEADER_EPOCH),
        seen if seen > partition.leader_epoch() => Err(codes::UNKNOWN_LEADER_EPOCH),
        _ => Ok(()),
    }
}

impl Place {
    fn new(partition: Arc<Partition>, asked: &FetchPartition) -> Result<Self, i16> {
        check_epoch(&partition, asked.current_leader_epoch)?;
        {
            let log = partition.log();
            if asked.fetch_offset < log.start_offset() || asked.fetch_offset > log.next_offset() {
                return Err(codes::OFFSET_OUT_OF_RANGE);
            }
        }
        Ok(Self {
            partition,
            index: asked.partition,
            offset: asked.fetch_offset,
            max_bytes: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
        })
    }

    fn read(&self, budget: &mut Budget, isolation: i8) -> PartitionData {
        match self.try_read(budget, isolation) {
            Ok(data) => data,
            Err(_) => refused(self.index, codes::KAFKA_STORAGE_ERROR),
        }
    }

    fn try_read(&self, budget: &mut Budget, isolation: i8) -> io::Result<PartitionData> {
        let committed = isolation == READ_COMMITTED;
        let reading = self.partition.log().plan_reading(self.offset, committed)?;
        let records = match reading.slice {
            Some(slice) => {
                let limit = self.max_bytes.min(budget.left);
                slice.read(self.offset, limit, !budget.found_any)?
            }
            None => Bytes::new(),
        };
        budget.left = budget.left.saturating_sub(records.len());
        budget.found_any |= !records.is_empty();
        // Null and an empty list both mean that nothing was aborted; readers of committed data get a list.
        let aborted = committed.then(|| aborted_in(&records, &reading.aborted));
        Ok(PartitionData::default()
            .with_partition_index(self.index)
            .with_high_watermark(reading.next_offset)
            .with_last_stable_offset(reading.last_stable_offset)
            .with_log_start_offset(reading.start_offset)
            .with_aborted_transactions(aborted)
            .with_records(Some(records)))
    }

    /// About how many bytes there are to be read; some more than that where transactions are open.
    fn bytes_available(&self, isolation: i8) -> u64 {
        let log = self.partition.log();
        if isolation == READ_COMMITTED && self.offset >= log.last_stable_offset() {
            return 0;
        }
        log.bytes_after(self.offset)
    }
}

/// Those of the aborted transactions that have something in `records`.
fn aborted_in(
    records: &[u8],
    aborted: &[AbortedTransaction],
) -> Vec<fetch_response::AbortedTransaction> {
    if aborted.is_empty() {
        return Vec::new();
    }
    let headers = Batches::new(records).map_while(Result::ok);
    let end = headers
        .last()
        .map_or(i64::MIN, |batch| batch.header().next_offset());
    let overlapping = aborted
        .iter()
        .filter(|transaction| transaction.first_offset < end);
    overlapping
        .map(|transaction| {
            fetch_response::AbortedTransaction::default()
                .with_producer_id(ProducerId(transaction.producer_id))
                .with_first_offset(transaction.first_offset)
        })
        .collect()
}

/// Waits until there are `min_bytes` to be had, something is wrong with a place, or `deadline` has come.
async fn wait_for_bytes(
    places: &[Result<Place, i16>],
    isolation: i8,
    min_bytes: u64,
    deadline: Instant,
) {
    let appended = Arc::new(Notify::new());
    loop {
        // Registered before looking: an append in between is noticed.
        let mut available = 0;
        for place in places {
            let Ok(place) = place else { return };
            place.partition.notify_on_append(&appended);
            let bytes = place.bytes_available(isolation);
            available += bytes.min(place.max_bytes as u64).max(u64::from(bytes > 0));
        }
        if available >= min_bytes {
            return;
        }
        if tokio::time::timeout_at(deadline, appended.notified())
            .await
            .is_err()
        {
            return;
        }
    }
}
