//! IncrementalAlterConfigs (44): changes settings of topics. (KIP-339)

use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::VersionRange;

use super::describe_configs::TOPIC;
use super::{Api, Context, text};
use crate::codes;
use crate::journal::Configs;
use crate::shared::{Refusal, Shared};
use crate::topic_config::{ConfigType, find};

// What to do with a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl Api for IncrementalAlterConfigsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 1 };

    async fn handle(self, context: &Context) -> IncrementalAlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| {
            match alter(resource, self.validate_only, &context.shared) {
                Ok(()) => answer(resource, codes::NONE),
                Err(refusal) => {
                    answer(resource, refusal.code).with_error_message(Some(text(refusal.message)))
                }
            }
        });
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> IncrementalAlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| answer(resource, code));
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    }
}

fn answer(resource: &AlterConfigsResource, code: i16) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse::default()
        .with_error_code(code)
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

fn alter(
    resource: &AlterConfigsResource,
    validate_only: bool,
    shared: &Shared,
) -> Result<(), Refusal> {
    if resource.resource_type != TOPIC {
        let message = "Only topics have settings that can be changed here.";
        return Err(Refusal::new(codes::INVALID_REQUEST, message));
    }
    let topic = shared
        .topics
        .by_name(&resource.resource_name)
        .ok_or_else(|| {
            Refusal::new(
                codes::UNKNOWN_TOPIC_OR_PARTITION,
                "This topic does not exist.",
            )
        })?;
    let mut configs = topic.configs();
    for change in &resource.configs {
        let value = change.value.as_deref();
        apply(&mut configs, &change.name, change.config_operation, value)?;
    }
    shared.configure_topic(&topic, configs, validate_only)
}

fn apply(
    configs: &mut Configs,
    name: &str,
    operation: i8,
    value: Option<&str>,
) -> Result<(), Refusal> {
    let invalid = |message: String| Refusal::new(codes::INVALID_CONFIG, message);
    if operation == DELETE {
        configs.remove(name);
        return Ok(());
    }
    let value = value.ok_or_else(|| invalid(format!("Null value for {name}.")))?;
    if operation == SET {
        configs.insert(name.to_owned(), value.to_owned());
        return Ok(());
    }
    let known = find(name).ok_or_else(|| invalid(format!("unknown topic config name: {name}")))?;
    if known.config_type != ConfigType::List {
        return Err(invalid(format!("{name} is not a list.")));
    }
    let present = configs.get(name).map_or(known.default, String::as_str);
    let mut entries: Vec<&str> = present.split(',').map(str::trim).collect();
    let changed: Vec<&str> = value.split(',').map(str::trim).collect();
    entries.retain(|entry| !entry.is_empty() && !changed.contains(entry));
    match operation {
        APPEND => entries.extend(changed),
        SUBTRACT => {}
        _ => {
            let message = format!("Unknown operation {operation}.");
            return Err(Refusal::new(codes::INVALID_REQUEST, message));
        }
    }
    configs.insert(name.to_owned(), entries.join(","));
    Ok(())
}
