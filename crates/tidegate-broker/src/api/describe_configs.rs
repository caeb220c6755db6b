//! DescribeConfigs (32): the settings of topics and of the broker.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::VersionRange;

use super::create_topics::{SOURCE_DEFAULT, SOURCE_TOPIC};
use super::{Api, Context, text};
use crate::codes;
use crate::shared::{Refusal, Shared};
use crate::topic_config::{ConfigType, TOPIC_CONFIGS};

// Kinds of things with settings.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// The first version that tells the types of values.
const CONFIG_TYPES: i16 = 3;

impl Api for DescribeConfigsRequest {
    const SERVED: VersionRange = VersionRange { min: 1, max: 4 };

    async fn handle(self, context: &Context) -> DescribeConfigsResponse {
        let results = self.resources.iter().map(|resource| {
            let described = describe(resource, &context.shared);
            match described {
                Ok(settings) => {
                    let wanted = |setting: &Setting| {
                        let keys = resource.configuration_keys.as_ref();
                        keys.is_none_or(|keys| keys.iter().any(|key| **key == *setting.name))
                    };
                    let settings = settings.into_iter().filter(wanted);
                    let configs = settings
                        .map(|setting| setting.encode(context.version, self.include_synonyms));
                    answer(resource, codes::NONE).with_configs(configs.collect())
                }
                Err(refusal) => {
                    answer(resource, refusal.code).with_error_message(Some(text(refusal.message)))
                }
            }
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> DescribeConfigsResponse {
        let results = self.resources.iter().map(|resource| answer(resource, code));
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        let topics = self
            .resources
            .iter()
            .filter(|resource| resource.resource_type == TOPIC);
        topics
            .map(|resource| (resource.resource_name.to_string(), -1))
            .collect()
    }
}

fn answer(resource: &DescribeConfigsResource, code: i16) -> DescribeConfigsResult {
    DescribeConfigsResult::default()
        .with_error_code(code)
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

/// One setting with its value.
struct Setting {
    name: &'static str,
    value: String,
    source: i8,
    config_type: ConfigType,
    read_only: bool,
}

impl Setting {
    fn encode(self, version: i16, with_synonyms: bool) -> DescribeConfigsResourceResult {
        let (name, value) = (text(self.name), Some(text(self.value)));
        let mut result = DescribeConfigsResourceResult::default()
            .with_name(name.clone())
            .with_value(value.clone())
            .with_read_only(self.read_only)
            .with_config_source(self.source);
        if with_synonyms {
            let synonym = DescribeConfigsSynonym::default()
                .with_name(name)
                .with_value(value)
                .with_source(self.source);
            result.synonyms = vec![synonym];
        }
        if version >= CONFIG_TYPES {
            result.config_type = self.config_type as i8;
        }
        result
    }
}

fn describe(resource: &DescribeConfigsResource, shared: &Shared) -> Result<Vec<Setting>, Refusal> {
    match resource.resource_type {
        TOPIC => describe_topic(&resource.resource_name, shared),
        BROKER => {
            let own = Shared::NODE_ID.to_string();
            if !resource.resource_name.is_empty() && *resource.resource_name != own {
                let message = format!("The only broker is {own}.");
                return Err(Refusal::new(codes::INVALID_REQUEST, message));
            }
            Ok(describe_broker(shared))
        }
        other => {
            let message = format!("Resources of type {other} have no settings here.");
            Err(Refusal::new(codes::INVALID_REQUEST, message))
        }
    }
}

fn describe_topic(name: &str, shared: &Shared) -> Result<Vec<Setting>, Refusal> {
    let topic = shared.topics.by_name(name).ok_or_else(|| {
        Refusal::new(
            codes::UNKNOWN_TOPIC_OR_PARTITION,
            "This topic does not exist.",
        )
    })?;
    let configs = topic.configs();
    let settings = TOPIC_CONFIGS.iter().map(|config| {
        let (value, source) = match configs.get(config.name) {
            Some(value) => (value.clone(), SOURCE_TOPIC),
            None => (
                shared.topics.defaults().default_value(config),
                SOURCE_DEFAULT,
            ),
        };
        Setting {
            name: config.name,
            value,
            source,
            config_type: config.config_type,
            read_only: false,
        }
    });
    Ok(settings.collect())
}

/// The settings of the broker that clients are known to ask for.
fn describe_broker(shared: &Shared) -> Vec<Setting> {
    let config = &shared.config;
    let settings = [
        (
            "auto.create.topics.enable",
            config.auto_create_topics.to_string(),
            ConfigType::Boolean,
        ),
        (
            "default.replication.factor",
            "1".to_owned(),
            ConfigType::Int,
        ),
        (
            "delete.topic.enable",
            "true".to_owned(),
            ConfigType::Boolean,
        ),
        (
            "group.initial.rebalance.delay.ms",
            config.initial_rebalance_delay.as_millis().to_string(),
            ConfigType::Int,
        ),
        (
            "group.max.session.timeout.ms",
            config.max_session_timeout.as_millis().to_string(),
            ConfigType::Int,
        ),
        (
            "group.min.session.timeout.ms",
            config.min_session_timeout.as_millis().to_string(),
            ConfigType::Int,
        ),
        ("log.cleanup.policy", "delete".to_owned(), ConfigType::List),
        (
            "log.segment.bytes",
            config.segment_bytes.to_string(),
            ConfigType::Int,
        ),
        (
            "message.max.bytes",
            config.max_message_bytes.to_string(),
            ConfigType::Int,
        ),
        ("min.insync.replicas", "1".to_owned(), ConfigType::Int),
        ("node.id", Shared::NODE_ID.to_string(), ConfigType::Int),
        (
            "num.partitions",
            config.default_partitions.to_string(),
            ConfigType::Int,
        ),
        (
            "socket.request.max.bytes",
            config.max_request_bytes.to_string(),
            ConfigType::Int,
        ),
    ];
    settings
        .into_iter()
        .map(|(name, value, config_type)| Setting {
            name,
            value,
            source: SOURCE_DEFAULT,
            config_type,
            read_only: true,
        })
        .collect()
}
