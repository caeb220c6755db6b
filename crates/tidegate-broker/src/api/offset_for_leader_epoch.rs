//! OffsetForLeaderEpoch (23): where a leader epoch ended, so that clients notice a log that was cut. (KIP-320)

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use kafka_protocol::protocol::VersionRange;

use super::fetch::check_epoch;
use super::{Api, Context};
use crate::codes;
use crate::shared::Shared;
use crate::topics::Topic;

impl Api for OffsetForLeaderEpochRequest {
    const SERVED: VersionRange = VersionRange { min: 2, max: 4 };

    async fn handle(self, context: &Context) -> OffsetForLeaderEpochResponse {
        let topics = self.topics.iter().map(|asked| {
            let topic = context.shared.topics.by_name(&asked.topic);
            let partitions = asked.partitions.iter().map(|partition| {
                topic
                    .as_ref()
                    .ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)
                    .and_then(|topic| find(topic, partition))
                    .unwrap_or_else(|code| refused(partition, code))
            });
            OffsetForLeaderTopicResult::default()
                .with_topic(asked.topic.clone())
                .with_partitions(partitions.collect())
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> OffsetForLeaderEpochResponse {
        let topics = self.topics.iter().map(|asked| {
            let partitions = asked.partitions.iter();
            OffsetForLeaderTopicResult::default()
                .with_topic(asked.topic.clone())
                .with_partitions(partitions.map(|asked| refused(asked, code)).collect())
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        self.topics
            .iter()
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| (topic.topic.to_string(), partition.partition))
            })
            .collect()
    }
}

fn refused(asked: &OffsetForLeaderPartition, code: i16) -> EpochEndOffset {
    EpochEndOffset::default()
        .with_partition(asked.partition)
        .with_error_code(code)
        .with_leader_epoch(-1)
        .with_end_offset(-1)
}

fn find(topic: &Topic, asked: &OffsetForLeaderPartition) -> Result<EpochEndOffset, i16> {
    let partition = topic
        .partition(asked.partition)
        .ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)?;
    check_epoch(&partition, asked.current_leader_epoch)?;
    let log = partition.log();
    let (epoch, end) = if asked.leader_epoch == partition.leader_epoch() {
        (asked.leader_epoch, log.next_offset())
    } else if asked.leader_epoch > partition.leader_epoch() {
        (-1, -1)
    } else {
        log.end_of_epoch(asked.leader_epoch).unwrap_or((-1, -1))
    };
    Ok(EpochEndOffset::default()
        .with_partition(asked.partition)
        .with_leader_epoch(epoch)
        .with_end_offset(end))
}
