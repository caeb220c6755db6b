//! DeleteTopics (20): deletes topics with all they hold.

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text, topic_name};
use crate::codes;
use crate::shared::{Refusal, Shared};

/// The first version that can name topics by id. (KIP-516)
const TOPIC_IDS: i16 = 6;

impl Api for DeleteTopicsRequest {
    const SERVED: VersionRange = VersionRange { min: 1, max: 6 };

    async fn handle(self, context: &Context) -> DeleteTopicsResponse {
        let responses = targets(&self).map(|target| match delete(&target, &context.shared) {
            Ok(name) => answer(&target, context.version).with_name(Some(TopicName(text(name)))),
            Err(refusal) => {
                let mut result = answer(&target, context.version).with_error_code(refusal.code);
                if context.version >= 5 {
                    result.error_message = Some(text(refusal.message));
                }
                result
            }
        });
        DeleteTopicsResponse::default().with_responses(responses.collect())
    }

    fn refuse(&self, context: &Context, code: i16) -> DeleteTopicsResponse {
        let responses =
            targets(self).map(|target| answer(&target, context.version).with_error_code(code));
        DeleteTopicsResponse::default().with_responses(responses.collect())
    }

    fn partitions(&self, shared: &Shared) -> Vec<(String, i32)> {
        targets(self)
            .map(|target| {
                let name = target.name.as_deref().map_or("", |name| name.as_str());
                (topic_name(shared, name, target.topic_id), -1)
            })
            .collect()
    }
}

/// The topics named, in the form of the later versions.
fn targets(request: &DeleteTopicsRequest) -> impl Iterator<Item = DeleteTopicState> {
    let names = request.topic_names.iter();
    let by_name = names.map(|name| DeleteTopicState::default().with_name(Some(name.clone())));
    by_name.chain(request.topics.iter().cloned())
}

fn answer(target: &DeleteTopicState, version: i16) -> DeletableTopicResult {
    let result = DeletableTopicResult::default().with_name(target.name.clone());
    if version >= TOPIC_IDS {
        result.with_topic_id(target.topic_id)
    } else {
        result
    }
}

fn delete(target: &DeleteTopicState, shared: &Shared) -> Result<String, Refusal> {
    let found = match &target.name {
        Some(name) => shared.topics.by_name(name).ok_or((
            codes::UNKNOWN_TOPIC_OR_PARTITION,
            "This topic does not exist.",
        )),
        None => shared
            .topics
            .by_id(target.topic_id)
            .ok_or((codes::UNKNOWN_TOPIC_ID, "No topic has this id.")),
    };
    let topic = found.map_err(|(code, message)| Refusal::new(code, message))?;
    shared.delete_topic(&topic)?;
    Ok(topic.name.clone())
}
