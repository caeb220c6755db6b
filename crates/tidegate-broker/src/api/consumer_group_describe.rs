//! ConsumerGroupDescribe (69): groups of the new protocol (KIP-848) with their members.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName,
};
use kafka_protocol::protocol::VersionRange;
use uuid::Uuid;

use super::{Api, Context, text};
use crate::codes;
use crate::group::modern::{ModernGroup, Place};

/// The first version that says by which protocol each member works.
const MEMBER_TYPES: i16 = 1;
/// Such a member, and nobody in particular's rights.
const MODERN_MEMBER: i8 = 1;
const RIGHTS_NOT_TOLD: i32 = i32::MIN;

impl Api for ConsumerGroupDescribeRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 1 };

    async fn handle(self, context: &Context) -> ConsumerGroupDescribeResponse {
        let groups = self.group_ids.iter().map(|id| {
            let describe = |group: &ModernGroup| described(id, group, context.version);
            let found = context.shared.groups.describe_modern(id, describe);
            found.unwrap_or_else(|| {
                let why = format!("Group {} is not a consumer group.", id.as_str());
                refused(id, codes::GROUP_ID_NOT_FOUND).with_error_message(Some(text(why)))
            })
        });
        ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> ConsumerGroupDescribeResponse {
        let groups = self.group_ids.iter().map(|id| refused(id, code));
        ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
    }

    fn group(&self) -> Option<String> {
        self.group_ids.first().map(|id| id.to_string())
    }
}

fn refused(id: &GroupId, code: i16) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_error_code(code)
        .with_authorized_operations(RIGHTS_NOT_TOLD)
}

fn described(id: &GroupId, group: &ModernGroup, version: i16) -> DescribedGroup {
    let members = group.members.iter().map(|(member_id, member)| {
        let target = group.target.get(member_id).cloned().unwrap_or_default();
        let topics = member.topics.iter();
        let described = Member::default()
            .with_member_id(text(member_id.clone()))
            .with_instance_id(member.instance_id.clone().map(text))
            .with_member_epoch(member.epoch)
            .with_client_id(text(member.client_id.clone()))
            .with_client_host(text(member.client_host.clone()))
            .with_subscribed_topic_names(topics.map(|name| TopicName(text(name.clone()))).collect())
            .with_assignment(assignment(group, &member.assigned))
            .with_target_assignment(assignment(group, &target));
        match version >= MEMBER_TYPES {
            true => described.with_member_type(MODERN_MEMBER),
            false => described,
        }
    });
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_group_state(text(group.state()))
        .with_group_epoch(group.epoch())
        .with_assignment_epoch(group.epoch())
        .with_assignor_name(text(group.assignor.name()))
        .with_members(members.collect())
        .with_authorized_operations(RIGHTS_NOT_TOLD)
}

fn assignment(group: &ModernGroup, places: &BTreeSet<Place>) -> Assignment {
    let mut by_topic: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (id, number) in places {
        by_topic.entry(*id).or_default().push(*number);
    }
    let topics = by_topic.into_iter().map(|(id, numbers)| {
        TopicPartitions::default()
            .with_topic_id(id)
            .with_topic_name(TopicName(text(group.topic_name(id).to_owned())))
            .with_partitions(numbers)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
