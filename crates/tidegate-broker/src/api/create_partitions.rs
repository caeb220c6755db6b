//! CreatePartitions (37): adds partitions to topics.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::codes;
use crate::shared::{Refusal, Shared};

impl Api for CreatePartitionsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 3 };

    async fn handle(self, context: &Context) -> CreatePartitionsResponse {
        let results = self.topics.iter().map(|topic| {
            match create(topic, self.validate_only, &context.shared) {
                Ok(()) => answer(topic, codes::NONE),
                Err(refusal) => {
                    answer(topic, refusal.code).with_error_message(Some(text(refusal.message)))
                }
            }
        });
        CreatePartitionsResponse::default().with_results(results.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> CreatePartitionsResponse {
        let results = self.topics.iter().map(|topic| answer(topic, code));
        CreatePartitionsResponse::default().with_results(results.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        let topics = self.topics.iter();
        topics.map(|topic| (topic.name.to_string(), -1)).collect()
    }
}

fn answer(topic: &CreatePartitionsTopic, code: i16) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(code)
}

fn create(
    asked: &CreatePartitionsTopic,
    validate_only: bool,
    shared: &Shared,
) -> Result<(), Refusal> {
    let topic = shared.topics.by_name(&asked.name).ok_or_else(|| {
        Refusal::new(
            codes::UNKNOWN_TOPIC_OR_PARTITION,
            "This topic does not exist.",
        )
    })?;
    let assignments = asked.assignments.iter().flatten();
    for assignment in assignments {
        if assignment.broker_ids != [Shared::NODE_ID] {
            let message = format!("The only broker is {}.", Shared::NODE_ID);
            return Err(Refusal::new(codes::INVALID_REPLICA_ASSIGNMENT, message));
        }
    }
    shared.create_partitions(&topic, asked.count, validate_only)
}
