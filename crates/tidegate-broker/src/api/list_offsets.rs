//! ListOffsets (2): offsets by time, and the ends of a partition.

use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use kafka_protocol::protocol::VersionRange;

use super::fetch::{READ_COMMITTED, check_epoch};
use super::{Api, Context};
use crate::codes;
use crate::log::first_record_at;
use crate::shared::Shared;
use crate::topics::{Partition, Topic};

// Times that stand for a place instead.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

impl Api for ListOffsetsRequest {
    const SERVED: VersionRange = VersionRange { min: 1, max: 10 };

    async fn handle(self, context: &Context) -> ListOffsetsResponse {
        let topics = self.topics.iter().map(|asked| {
            let topic = context.shared.topics.by_name(&asked.name);
            let partitions = asked.partitions.iter().map(|partition| {
                topic
                    .as_ref()
                    .ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)
                    .and_then(|topic| find(topic, partition, self.isolation_level, context.version))
                    .unwrap_or_else(|code| refused(partition, code))
            });
            ListOffsetsTopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> ListOffsetsResponse {
        let topics = self.topics.iter().map(|asked| {
            let partitions = asked.partitions.iter();
            ListOffsetsTopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions.map(|asked| refused(asked, code)).collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        self.topics
            .iter()
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| (topic.name.to_string(), partition.partition_index))
            })
            .collect()
    }
}

fn refused(asked: &ListOffsetsPartition, code: i16) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(code)
        .with_timestamp(-1)
        .with_offset(-1)
}

fn find(
    topic: &Topic,
    asked: &ListOffsetsPartition,
    isolation: i8,
    version: i16,
) -> Result<ListOffsetsPartitionResponse, i16> {
    let partition = topic
        .partition(asked.partition_index)
        .ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)?;
    check_epoch(&partition, asked.current_leader_epoch)?;
    let nothing = (-1, -1);
    let (timestamp, offset) = match asked.timestamp {
        EARLIEST | EARLIEST_LOCAL => (-1, partition.log().start_offset()),
        LATEST if isolation == READ_COMMITTED => (-1, partition.log().last_stable_offset()),
        LATEST => (-1, partition.log().next_offset()),
        // Nothing is ever moved to another tier.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => nothing,
        MAX_TIMESTAMP => max_timestamp(&partition)?.unwrap_or(nothing),
        time if time >= 0 => by_time(&partition, time)?.unwrap_or(nothing),
        _ => return Err(codes::UNSUPPORTED_VERSION),
    };
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_timestamp(timestamp)
        .with_offset(offset);
    Ok(if version >= 4 && offset >= 0 {
        response.with_leader_epoch(partition.leader_epoch())
    } else {
        response
    })
}

/// Timestamp and offset of the first record that is not older than `time`.
fn by_time(partition: &Partition, time: i64) -> Result<Option<(i64, i64)>, i16> {
    let failed = |_| codes::KAFKA_STORAGE_ERROR;
    let Some(slice) = partition.log().slice_by_time(time).map_err(failed)? else {
        return Ok(None);
    };
    let batch = slice
        .find(|header| header.max_timestamp >= time)
        .map_err(failed)?;
    first_in(batch.as_deref(), time)
}

/// The largest timestamp, and the offset of the first record that has it. (KIP-734)
fn max_timestamp(partition: &Partition) -> Result<Option<(i64, i64)>, i16> {
    let failed = |_| codes::KAFKA_STORAGE_ERROR;
    let found = partition.log().slice_of_max_timestamp().map_err(failed)?;
    let Some((time, slice)) = found else {
        return Ok(None);
    };
    let batch = slice
        .find(|header| header.max_timestamp >= time)
        .map_err(failed)?;
    first_in(batch.as_deref(), time)
}

fn first_in(batch: Option<&[u8]>, time: i64) -> Result<Option<(i64, i64)>, i16> {
    let found = batch.map(|batch| first_record_at(batch, time)).transpose();
    let found = found.map_err(|_| codes::CORRUPT_MESSAGE)?.flatten();
    Ok(found.map(|(offset, timestamp)| (timestamp, offset)))
}
