//! OffsetDelete (47): forgets positions of a group without members.

use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context};
use crate::codes;
use crate::journal::Change;

impl Api for OffsetDeleteRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 0 };

    async fn handle(self, context: &Context) -> OffsetDeleteResponse {
        let shared = &context.shared;
        let deleted = shared.groups.while_empty(&self.group_id, || {
            let group = self.group_id.as_str();
            if !shared.journal().metadata().offsets.contains_key(group) {
                return Err(codes::GROUP_ID_NOT_FOUND);
            }
            for topic in &self.topics {
                let partitions = topic.partitions.iter();
                let change = Change::OffsetsDeleted {
                    group: group.to_owned(),
                    topic: topic.name.to_string(),
                    partitions: partitions.map(|entry| entry.partition_index).collect(),
                };
                shared.commit(change).map_err(|refusal| refusal.code)?;
            }
            Ok(())
        });
        if let Err(code) = deleted {
            return self.refuse(context, code);
        }
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|entry| {
                OffsetDeleteResponsePartition::default().with_partition_index(entry.partition_index)
            });
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        OffsetDeleteResponse::default().with_topics(topics.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> OffsetDeleteResponse {
        OffsetDeleteResponse::default().with_error_code(code)
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }
}
