//! Metadata (3): the broker and its topics. May create topics on the way.

use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::VersionRange;
use uuid::Uuid;

use super::{Api, Context, text, topic_name};
use crate::codes;
use crate::shared::Shared;
use crate::topics::Topic;

const SELF: BrokerId = BrokerId(Shared::NODE_ID);

impl Api for MetadataRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 13 };

    async fn handle(self, context: &Context) -> MetadataResponse {
        let shared = &context.shared;
        let topics = match &self.topics {
            // Version 0 has no null: there an empty list asks for all topics.
            Some(topics) if context.version > 0 || !topics.is_empty() => topics
                .iter()
                .map(|topic| describe(topic, self.allow_auto_topic_creation, shared))
                .collect(),
            _ => shared.topics.all().iter().map(found).collect(),
        };
        cluster(context).with_topics(topics)
    }

    fn refuse(&self, context: &Context, code: i16) -> MetadataResponse {
        let topics = self.topics.iter().flatten().map(|topic| {
            MetadataResponseTopic::default()
                .with_error_code(code)
                .with_name(topic.name.clone().or_else(|| Some(TopicName::default())))
                .with_topic_id(topic.topic_id)
        });
        let refusal = cluster(context).with_topics(topics.collect());
        if context.version >= 13 {
            refusal.with_error_code(code)
        } else {
            refusal
        }
    }

    fn partitions(&self, shared: &Shared) -> Vec<(String, i32)> {
        let topics = self.topics.iter().flatten();
        topics
            .map(|topic| {
                let name = topic.name.as_deref().map_or("", |name| name.as_str());
                (topic_name(shared, name, topic.topic_id), -1)
            })
            .collect()
    }
}

fn cluster(context: &Context) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(SELF)
        .with_host(context.host.clone())
        .with_port(context.port);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(context.shared.cluster_id.clone())))
        .with_controller_id(SELF)
}

/// Finds one topic of the request, by name or by id, and makes it if it is missing and may be made.
fn describe(
    topic: &MetadataRequestTopic,
    may_create: bool,
    shared: &Shared,
) -> MetadataResponseTopic {
    let Some(name) = &topic.name else {
        return shared.topics.by_id(topic.topic_id).map_or_else(
            || {
                missing(
                    TopicName::default(),
                    topic.topic_id,
                    codes::UNKNOWN_TOPIC_ID,
                )
            },
            |topic| found(&topic),
        );
    };
    match shared.topic_or_create(name, may_create) {
        Ok(topic) => found(&topic),
        Err(refusal) => missing(name.clone(), Uuid::nil(), refusal.code),
    }
}

fn missing(name: TopicName, id: Uuid, code: i16) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code)
        .with_name(Some(name))
        .with_topic_id(id)
}

fn found(topic: &Arc<Topic>) -> MetadataResponseTopic {
    let partitions = topic
        .partitions()
        .iter()
        .zip(0..)
        .map(|(partition, index)| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(SELF)
                .with_leader_epoch(partition.leader_epoch())
                .with_replica_nodes(vec![SELF])
                .with_isr_nodes(vec![SELF])
        })
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_partitions(partitions)
}
