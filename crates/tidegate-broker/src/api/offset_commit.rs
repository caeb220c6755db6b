//! OffsetCommit (8): keeps a group's positions.

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context};
use crate::codes;
use crate::group::Sender;
use crate::journal::{Change, Committed, CommittedPartition};
use crate::shared::Shared;
use crate::topics::Topic;

/// The longest note that can be kept with a position (Kafka's `offset.metadata.max.bytes`).
const MAX_METADATA_LEN: usize = 4096;

impl Api for OffsetCommitRequest {
    const SERVED: VersionRange = VersionRange { min: 2, max: 9 };

    async fn handle(self, context: &Context) -> OffsetCommitResponse {
        let shared = &context.shared;
        if self.group_id.is_empty() {
            return self.refuse(context, codes::INVALID_GROUP_ID);
        }
        let mut offsets = Vec::new();
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            topics.push(judge(topic, shared, &mut offsets));
        }
        let sender = Sender {
            member_id: &self.member_id,
            instance_id: self.group_instance_id.as_deref(),
            generation: self.generation_id_or_member_epoch,
        };
        let committed = shared.groups.commit(&self.group_id, sender, || {
            if offsets.is_empty() {
                return Ok(());
            }
            let group = self.group_id.to_string();
            let change = Change::OffsetsCommitted { group, offsets };
            shared.commit(change).map_err(|refusal| refusal.code)
        });
        match committed {
            Ok(()) => OffsetCommitResponse::default().with_topics(topics),
            Err(code) => self.refuse(context, code),
        }
    }

    fn refuse(&self, _: &Context, code: i16) -> OffsetCommitResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter();
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(
                    partitions
                        .map(|partition| answer(partition.partition_index, code))
                        .collect(),
                )
        });
        OffsetCommitResponse::default().with_topics(topics.collect())
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

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }
}

fn answer(partition: i32, code: i16) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition::default()
        .with_partition_index(partition)
        .with_error_code(code)
}

/// Puts a position that can be kept into `offsets`; else gives the code for what is in the way.
pub(super) fn judge_position(
    topic: Option<&Topic>,
    partition: i32,
    committed: Committed,
    offsets: &mut Vec<CommittedPartition>,
) -> i16 {
    let Some(topic) = topic.filter(|topic| topic.partition(partition).is_some()) else {
        return codes::UNKNOWN_TOPIC_OR_PARTITION;
    };
    if committed.metadata.len() > MAX_METADATA_LEN {
        return codes::OFFSET_METADATA_TOO_LARGE;
    }
    offsets.push(CommittedPartition {
        topic: topic.name.clone(),
        partition,
        committed,
    });
    codes::NONE
}

/// Says of each position whether it can be kept, and puts those that can into `offsets`.
fn judge(
    topic: &OffsetCommitRequestTopic,
    shared: &Shared,
    offsets: &mut Vec<CommittedPartition>,
) -> OffsetCommitResponseTopic {
    let known = shared.topics.by_name(&topic.name);
    let mut answers = Vec::with_capacity(topic.partitions.len());
    for partition in &topic.partitions {
        let index = partition.partition_index;
        let committed = Committed::new(
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.committed_metadata.as_deref(),
        );
        let code = judge_position(known.as_deref(), index, committed, offsets);
        answers.push(answer(index, code));
    }
    OffsetCommitResponseTopic::default()
        .with_name(topic.name.clone())
        .with_partitions(answers)
}
