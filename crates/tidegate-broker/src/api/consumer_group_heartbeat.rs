//! ConsumerGroupHeartbeat (68): a member of the new group protocol (KIP-848) joins, shows that it is alive, learns what it is to hold, and leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::VersionRange;
use uuid::Uuid;

use super::{Api, Context, text};
use crate::codes;
use crate::group::modern::{Assignor, Beat, Beaten, Place};

/// The first version in which the client makes the member id. (KIP-1082)
const ID_IS_OF_THE_CLIENT: i16 = 1;

impl Api for ConsumerGroupHeartbeatRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 1 };

    async fn handle(self, context: &Context) -> ConsumerGroupHeartbeatResponse {
        let beat = match beat(&self, context) {
            Ok(beat) => beat,
            Err((code, why)) => {
                return self
                    .refuse(context, code)
                    .with_error_message(Some(text(why)));
            }
        };
        let shared = &context.shared;
        let look_up = |name: &str| {
            let topic = shared.topics.by_name(name)?;
            Some((topic.id, topic.partition_count()))
        };
        match shared.groups.beat(&self.group_id, &beat, look_up) {
            Ok(beaten) => answer(context, beat.member_id, beaten),
            Err(code) => self.refuse(context, code),
        }
    }

    fn refuse(&self, _: &Context, code: i16) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse::default().with_error_code(code)
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }
}

fn answer(context: &Context, member_id: String, beaten: Beaten) -> ConsumerGroupHeartbeatResponse {
    let interval = context.shared.groups.modern_heartbeat_interval();
    let interval = i32::try_from(interval.as_millis()).unwrap_or(i32::MAX);
    let assignment = beaten.assignment.map(|places| {
        let mut by_topic: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (id, number) in places {
            by_topic.entry(id).or_default().push(number);
        }
        let topics = by_topic.into_iter().map(|(id, numbers)| {
            TopicPartitions::default()
                .with_topic_id(id)
                .with_partitions(numbers)
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(member_id)))
        .with_member_epoch(beaten.epoch)
        .with_heartbeat_interval_ms(interval)
        .with_assignment(assignment)
}

/// What the request says, or why it cannot be taken.
fn beat(
    request: &ConsumerGroupHeartbeatRequest,
    context: &Context,
) -> Result<Beat, (i16, &'static str)> {
    let invalid = |why| Err((codes::INVALID_REQUEST, why));
    if request.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request
        .subscribed_topic_regex
        .as_deref()
        .is_some_and(|regex| !regex.is_empty())
    {
        return invalid("SubscribedTopicRegex is not supported by this broker.");
    }
    let epoch = request.member_epoch;
    let may_be_nameless = epoch == 0 && context.version < ID_IS_OF_THE_CLIENT;
    if request.member_id.is_empty() && !may_be_nameless {
        return invalid("MemberId can't be empty.");
    }
    if epoch < -2 || (epoch == -2 && request.instance_id.is_none()) {
        return invalid("MemberEpoch is invalid.");
    }
    let held = request.topic_partitions.as_ref();
    if epoch == 0 {
        let reads = request.subscribed_topic_names.as_ref();
        if request.rebalance_timeout_ms < 0 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if held.is_none_or(|held| !held.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if reads.is_none_or(Vec::is_empty) {
            return invalid("SubscribedTopicNames must be set in first request.");
        }
    }
    let assignor = match request.server_assignor.as_deref().map(Assignor::by_name) {
        Some(None) => {
            let why = "ServerAssignor is not supported. Supported assignors: uniform, range.";
            return Err((codes::UNSUPPORTED_ASSIGNOR, why));
        }
        known => known.flatten(),
    };
    let member_id = match request.member_id.is_empty() {
        true => Uuid::new_v4().to_string(),
        false => request.member_id.to_string(),
    };
    let timeout = u64::try_from(request.rebalance_timeout_ms).ok();
    Ok(Beat {
        member_id,
        epoch,
        instance_id: request.instance_id.as_ref().map(ToString::to_string),
        client_id: context.client_id.clone(),
        client_host: format!("/{}", context.client_host),
        rebalance_timeout: timeout.map(Duration::from_millis),
        topics: request
            .subscribed_topic_names
            .as_ref()
            .map(|names| names.iter().map(|name| name.to_string()).collect()),
        assignor,
        held: held.map(|topics| {
            let topics = topics.iter();
            topics
                .flat_map(|topic| {
                    let numbers = topic.partitions.iter();
                    numbers.map(|number| -> Place { (topic.topic_id, *number) })
                })
                .collect()
        }),
    })
}
