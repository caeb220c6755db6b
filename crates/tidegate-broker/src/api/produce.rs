//! Produce (0): checks record batches and appends them.

use bytes::Bytes;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::VersionRange;
use tidegate_wire::{Batch, BatchHeader, Batches, Compression, Kind};

use super::{Api, Context, find_topic, text, topic_name};
use crate::codes;
use crate::log::AppendError;
use crate::shared::{Refusal, Shared, now_ms};
use crate::topic_config::TopicSettings;
use crate::topics::Topic;
use crate::transaction::{Caller, Protocol, Touched, Writing};

/// The first version that names topics by id. (KIP-516)
const TOPIC_IDS: i16 = 13;

/// The first version whose clients know zstd. (KIP-110)
const ZSTD: i16 = 7;

/// The first version whose clients know TRANSACTION_ABORTABLE. (KIP-890)
const ABORTABLE_KNOWN: i16 = 11;

/// The first version that adds the partition to the transaction on the way. (KIP-890)
const SECOND_PROTOCOL: i16 = 12;

/// The largest size a batch is decompressed to where its records have to be looked at.
const DECOMPRESSED_LIMIT: usize = 256 << 20;

impl Api for ProduceRequest {
    const SERVED: VersionRange = VersionRange { min: 3, max: 13 };

    async fn handle(self, context: &Context) -> ProduceResponse {
        if !(-1..=1).contains(&self.acks) {
            return self.refuse(context, codes::INVALID_REQUIRED_ACKS);
        }
        let id = self.transactional_id.as_ref().map(|id| &***id);
        let by_id = context.version >= TOPIC_IDS;
        let mut responses = Vec::with_capacity(self.topic_data.len());
        for data in &self.topic_data {
            let topic = find_topic(&context.shared, &data.name, data.topic_id, by_id);
            let mut answers = Vec::with_capacity(data.partition_data.len());
            for partition in &data.partition_data {
                answers.push(match &topic {
                    Some(topic) => produce(topic, partition, id, context),
                    None if by_id => refused(partition.index, codes::UNKNOWN_TOPIC_ID),
                    None => refused(partition.index, codes::UNKNOWN_TOPIC_OR_PARTITION),
                });
            }
            let response = TopicProduceResponse::default()
                .with_name(data.name.clone())
                .with_topic_id(data.topic_id)
                .with_partition_responses(answers);
            responses.push(response);
        }
        ProduceResponse::default().with_responses(responses)
    }

    fn refuse(&self, _: &Context, code: i16) -> ProduceResponse {
        let responses = self.topic_data.iter().map(|data| {
            let partitions = data.partition_data.iter();
            TopicProduceResponse::default()
                .with_name(data.name.clone())
                .with_topic_id(data.topic_id)
                .with_partition_responses(
                    partitions
                        .map(|partition| refused(partition.index, code))
                        .collect(),
                )
        });
        ProduceResponse::default().with_responses(responses.collect())
    }

    fn partitions(&self, shared: &Shared) -> Vec<(String, i32)> {
        self.topic_data
            .iter()
            .flat_map(|data| {
                let name = topic_name(shared, &data.name, data.topic_id);
                let partitions = data.partition_data.iter();
                partitions.map(move |partition| (name.clone(), partition.index))
            })
            .collect()
    }

    fn transactional_id(&self) -> Option<String> {
        self.transactional_id.as_ref().map(|id| id.to_string())
    }

    fn is_answered(&self) -> bool {
        self.acks != 0
    }
}

fn refused(index: i32, code: i16) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(code)
        .with_base_offset(-1)
}

fn produce(
    topic: &Topic,
    data: &PartitionProduceData,
    transactional_id: Option<&str>,
    context: &Context,
) -> PartitionProduceResponse {
    match append(topic, data, transactional_id, context) {
        Ok(response) => response,
        Err(refusal) => {
            let response = refused(data.index, refusal.code);
            if context.version >= 8 {
                response.with_error_message(Some(text(refusal.message)))
            } else {
                response
            }
        }
    }
}

fn append(
    topic: &Topic,
    data: &PartitionProduceData,
    transactional_id: Option<&str>,
    context: &Context,
) -> Result<PartitionProduceResponse, Refusal> {
    let Some(partition) = topic.partition(data.index) else {
        let message = format!("topic {} has no partition {}", topic.name, data.index);
        return Err(Refusal::new(codes::UNKNOWN_TOPIC_OR_PARTITION, message));
    };
    let settings = topic.settings();
    let now = now_ms();
    let none = Bytes::new();
    let batch = only_batch(data.records.as_ref().unwrap_or(&none))?;
    check(&batch, &settings, context.version, now)?;
    let header = batch.header();
    let appended = if header.is_transactional() {
        let place = Touched::partition(&topic.name, data.index);
        let writing = writing(header, transactional_id, place, context.version)?;
        let from_zero = writing.protocol == Protocol::Second;
        let append = || partition.append(batch.raw(), header, &settings, now, from_zero);
        let transactions = &context.shared.transactions;
        transactions
            .append_to(&context.shared, &partition, &writing, append)
            .map_err(|code| not_admitted(code, context.version))?
    } else {
        partition.append(batch.raw(), header, &settings, now, false)
    };
    let appended = appended.map_err(|error| match error {
        AppendError::Refused(refused) => Refusal::new(refused.code, refused.message),
        AppendError::Io(error) => context.shared.cannot_write(&topic.name, &error),
    })?;
    let log_append_time = if settings.log_append_time && !appended.duplicate {
        now
    } else {
        -1
    };
    Ok(PartitionProduceResponse::default()
        .with_index(data.index)
        .with_base_offset(appended.base_offset)
        .with_log_append_time_ms(log_append_time)
        .with_log_start_offset(partition.log().start_offset()))
}

/// What a transactional batch is about to do.
fn writing<'a>(
    header: &BatchHeader,
    transactional_id: Option<&'a str>,
    place: Touched,
    version: i16,
) -> Result<Writing<'a>, Refusal> {
    let Some(id) = transactional_id else {
        let message = "a transactional batch needs a transactional id in its request";
        return Err(Refusal::new(
            codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            message,
        ));
    };
    let caller = Caller {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let protocol = match version {
        SECOND_PROTOCOL.. => Protocol::Second,
        _ => Protocol::First,
    };
    Ok(Writing {
        id,
        caller,
        place,
        protocol,
    })
}

/// Why a batch is not part of a transaction, in codes that a producer of `version` knows what to do with, as
/// Kafka chooses them (`AddPartitionsToTxnManager`, `ReplicaManager`).
fn not_admitted(code: i16, version: i16) -> Refusal {
    let message = "the partition is not part of an open transaction of this producer";
    let code = match code {
        codes::PRODUCER_FENCED => codes::INVALID_PRODUCER_EPOCH,
        codes::TRANSACTION_ABORTABLE if version < ABORTABLE_KNOWN => codes::INVALID_TXN_STATE,
        // What older producers do not retry becomes something they do.
        codes::CONCURRENT_TRANSACTIONS if version < SECOND_PROTOCOL => codes::NOT_ENOUGH_REPLICAS,
        codes::COORDINATOR_NOT_AVAILABLE => codes::NOT_ENOUGH_REPLICAS,
        code => code,
    };
    Refusal::new(code, message)
}

/// The one batch that a partition's part of a request holds since version 3.
fn only_batch(records: &Bytes) -> Result<Batch<'_>, Refusal> {
    let mut batches = Batches::new(records);
    let batch = match batches.next() {
        Some(Ok(batch)) => batch,
        Some(Err(error)) => {
            let code = match error.kind() {
                Kind::Unsupported => codes::INVALID_RECORD,
                _ => codes::CORRUPT_MESSAGE,
            };
            return Err(Refusal::new(code, error.to_string()));
        }
        None if records.is_empty() => {
            let message = "a Produce request needs a record batch for each partition";
            return Err(Refusal::new(codes::INVALID_RECORD, message));
        }
        None => {
            let message = "the record batch is cut off";
            return Err(Refusal::new(codes::CORRUPT_MESSAGE, message));
        }
    };
    if batches.remaining() > 0 {
        let message = "a Produce request holds one record batch for each partition";
        return Err(Refusal::new(codes::INVALID_RECORD, message));
    }
    Ok(batch)
}

/// Judges everything about a batch that does not depend on those before it.
fn check(
    batch: &Batch<'_>,
    settings: &TopicSettings,
    version: i16,
    now: i64,
) -> Result<(), Refusal> {
    let header = batch.header();
    let invalid = |message: String| Err(Refusal::new(codes::INVALID_RECORD, message));
    if header.total_len() > settings.max_message_bytes {
        let message = format!(
            "the record batch has {} bytes, over the limit of {} (max.message.bytes)",
            header.total_len(),
            settings.max_message_bytes
        );
        return Err(Refusal::new(codes::MESSAGE_TOO_LARGE, message));
    }
    batch
        .check_crc()
        .map_err(|error| Refusal::new(codes::CORRUPT_MESSAGE, error.to_string()))?;
    let compression = header
        .compression()
        .map_err(|error| Refusal::new(codes::UNSUPPORTED_COMPRESSION_TYPE, error.to_string()))?;
    if compression == Compression::Zstd && version < ZSTD {
        let message = format!("zstd cannot be used with version {version} of Produce");
        return Err(Refusal::new(codes::UNSUPPORTED_COMPRESSION_TYPE, message));
    }
    if header.is_control() {
        return invalid("clients do not write control batches".to_owned());
    }
    if header.is_transactional() && header.producer_id < 0 {
        return invalid("a transactional batch comes with a producer id".to_owned());
    }
    if header.record_count < 1 || header.last_offset_delta != header.record_count - 1 {
        return invalid(format!(
            "the last of {} records cannot have the offset delta {}",
            header.record_count, header.last_offset_delta
        ));
    }
    if header.producer_id >= 0 && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return invalid("a producer id comes with an epoch and a sequence number".to_owned());
    }
    check_timestamps(header.base_timestamp, header.max_timestamp, settings, now)?;
    if settings.compacted {
        check_keys(batch)?;
    }
    Ok(())
}

/// A clock far off, or milliseconds taken for microseconds, would spoil every search by time.
fn check_timestamps(
    base: i64,
    max: i64,
    settings: &TopicSettings,
    now: i64,
) -> Result<(), Refusal> {
    if settings.log_append_time {
        return Ok(());
    }
    let ahead = max.saturating_sub(now) > settings.timestamp_after_max_ms;
    let behind = now.saturating_sub(base) > settings.timestamp_before_max_ms;
    if ahead || behind {
        let message = format!(
            "timestamps from {base} to {max} are too far from the broker's time {now} (message.timestamp.{}.max.ms)",
            if ahead { "after" } else { "before" }
        );
        return Err(Refusal::new(codes::INVALID_TIMESTAMP, message));
    }
    Ok(())
}

fn check_keys(batch: &Batch<'_>) -> Result<(), Refusal> {
    let corrupt =
        |error: tidegate_wire::Error| Refusal::new(codes::CORRUPT_MESSAGE, error.to_string());
    let mut scratch = Vec::new();
    for record in batch
        .records(&mut scratch, DECOMPRESSED_LIMIT)
        .map_err(corrupt)?
    {
        if record.map_err(corrupt)?.key.is_none() {
            let message = "a compacted topic takes no record without a key";
            return Err(Refusal::new(codes::INVALID_RECORD, message));
        }
    }
    Ok(())
}
