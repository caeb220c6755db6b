//! CreateTopics (19): makes topics, or says whether they could be made.

use std::collections::HashMap;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::codes;
use crate::journal::Configs;
use crate::shared::{Refusal, Shared};
use crate::topic_config::TOPIC_CONFIGS;

/// How DescribeConfigs and CreateTopics say where a value comes from.
pub(super) const SOURCE_TOPIC: i8 = 1;
pub(super) const SOURCE_DEFAULT: i8 = 5;

impl Api for CreateTopicsRequest {
    const SERVED: VersionRange = VersionRange { min: 2, max: 7 };

    async fn handle(self, context: &Context) -> CreateTopicsResponse {
        let mut named: HashMap<&str, usize> = HashMap::new();
        for topic in &self.topics {
            *named.entry(&topic.name).or_default() += 1;
        }
        let results = self.topics.iter().map(|topic| {
            let created = if named.get(topic.name.as_str()) == Some(&1) {
                create(topic, self.validate_only, context)
            } else {
                let message = "Duplicate topic name.";
                Err(Refusal::new(codes::INVALID_REQUEST, message))
            };
            created.unwrap_or_else(|refusal| refused(topic, refusal.code, Some(refusal.message)))
        });
        CreateTopicsResponse::default().with_topics(results.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> CreateTopicsResponse {
        let results = self.topics.iter().map(|topic| refused(topic, code, None));
        CreateTopicsResponse::default().with_topics(results.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        let topics = self.topics.iter();
        topics.map(|topic| (topic.name.to_string(), -1)).collect()
    }
}

fn refused(topic: &CreatableTopic, code: i16, message: Option<String>) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(code)
        .with_error_message(message.map(text))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}

fn create(
    topic: &CreatableTopic,
    validate_only: bool,
    context: &Context,
) -> Result<CreatableTopicResult, Refusal> {
    let partitions = partition_count(topic)?;
    let mut configs = Configs::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!(
                "Null value not supported for topic configs: {}",
                &*config.name
            );
            return Err(Refusal::new(codes::INVALID_CONFIG, message));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    let shared = &context.shared;
    let (id, partitions) =
        shared.create_topic(&topic.name, partitions, configs.clone(), validate_only)?;
    let result = CreatableTopicResult::default().with_name(topic.name.clone());
    Ok(if context.version >= 5 {
        result
            .with_topic_id(id)
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(Some(describe(&configs, shared)))
    } else {
        result
    })
}

/// Checks what is said of partitions and replicas; -1 where the number is left to the broker.
fn partition_count(topic: &CreatableTopic) -> Result<i32, Refusal> {
    if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, -1 | 1) {
            let message = format!(
                "Replication factor {} is not possible: there is one broker.",
                topic.replication_factor
            );
            return Err(Refusal::new(codes::INVALID_REPLICATION_FACTOR, message));
        }
        return Ok(topic.num_partitions);
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "A manual assignment excludes numbers of partitions and replicas.";
        return Err(Refusal::new(codes::INVALID_REQUEST, message));
    }
    let mut indexes: Vec<i32> = Vec::new();
    for assignment in &topic.assignments {
        if assignment.broker_ids != [Shared::NODE_ID] {
            let message = format!("The only broker is {}.", Shared::NODE_ID);
            return Err(Refusal::new(codes::INVALID_REPLICA_ASSIGNMENT, message));
        }
        indexes.push(assignment.partition_index);
    }
    indexes.sort_unstable();
    if !indexes.iter().copied().eq((0..).take(indexes.len())) {
        let message = "Partitions must be numbered from 0 without gaps.";
        return Err(Refusal::new(codes::INVALID_REPLICA_ASSIGNMENT, message));
    }
    i32::try_from(indexes.len())
        .map_err(|_| Refusal::new(codes::INVALID_PARTITIONS, "Too many partitions."))
}

fn describe(configs: &Configs, shared: &Shared) -> Vec<CreatableTopicConfigs> {
    TOPIC_CONFIGS
        .iter()
        .map(|config| {
            let (value, source) = match configs.get(config.name) {
                Some(value) => (value.clone(), SOURCE_TOPIC),
                None => (
                    shared.topics.defaults().default_value(config),
                    SOURCE_DEFAULT,
                ),
            };
            CreatableTopicConfigs::default()
                .with_name(text(config.name))
                .with_value(Some(text(value)))
                .with_config_source(source)
        })
        .collect()
}
