//! DescribeProducers (61): the producers that partitions remember. (KIP-664)

use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context};
use crate::codes;
use crate::log::DescribedProducer;
use crate::shared::Shared;
use crate::topics::Topic;

/// What stands for "no transaction is open".
const NOT_OPEN: i64 = -1;

impl Api for DescribeProducersRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 0 };

    async fn handle(self, context: &Context) -> DescribeProducersResponse {
        let topics = self.topics.iter().map(|asked| {
            let topic = context.shared.topics.by_name(&asked.name);
            let partitions = asked.partition_indexes.iter();
            let partitions = partitions.map(|index| describe(topic.as_deref(), *index));
            TopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions.collect())
        });
        DescribeProducersResponse::default().with_topics(topics.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> DescribeProducersResponse {
        let topics = self.topics.iter().map(|asked| {
            let partitions = asked.partition_indexes.iter();
            let partitions = partitions.map(|index| refused(*index, code));
            TopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions.collect())
        });
        DescribeProducersResponse::default().with_topics(topics.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        self.topics
            .iter()
            .flat_map(|topic| {
                let partitions = topic.partition_indexes.iter();
                partitions.map(|partition| (topic.name.to_string(), *partition))
            })
            .collect()
    }
}

fn refused(index: i32, code: i16) -> PartitionResponse {
    PartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code)
}

fn describe(topic: Option<&Topic>, index: i32) -> PartitionResponse {
    let Some(partition) = topic.and_then(|topic| topic.partition(index)) else {
        return refused(index, codes::UNKNOWN_TOPIC_OR_PARTITION);
    };
    let producers = partition.log().producers().describe();
    PartitionResponse::default()
        .with_partition_index(index)
        .with_active_producers(producers.iter().map(state).collect())
}

fn state(producer: &DescribedProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.open.unwrap_or(NOT_OPEN))
}
