//! DescribeGroups (15): groups with their members.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::codes;
use crate::group::{Described, DescribedMember};
use crate::shared::Shared;

/// The first version that tells a missing group by an error; before it, it is in the state "Dead". (KIP-1043)
const MISSING_IS_AN_ERROR: i16 = 6;

impl Api for DescribeGroupsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 6 };

    async fn handle(self, context: &Context) -> DescribeGroupsResponse {
        let groups = self
            .groups
            .iter()
            .map(|id| match find(&context.shared, id) {
                Some(found) => describe(id, found, context.version),
                None if context.version >= MISSING_IS_AN_ERROR => DescribedGroup::default()
                    .with_group_id(id.clone())
                    .with_error_code(codes::GROUP_ID_NOT_FOUND)
                    .with_error_message(Some(text(format!("Group {} not found.", id.as_str()))))
                    .with_group_state(text("Dead")),
                None => DescribedGroup::default()
                    .with_group_id(id.clone())
                    .with_group_state(text("Dead")),
            });
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> DescribeGroupsResponse {
        let groups = self.groups.iter().map(|id| {
            DescribedGroup::default()
                .with_group_id(id.clone())
                .with_error_code(code)
        });
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }

    fn group(&self) -> Option<String> {
        self.groups.first().map(|id| id.to_string())
    }
}

/// A group with members, or one that has committed offsets only. One of the new protocol is another API's to tell of.
fn find(shared: &Shared, id: &str) -> Option<Described> {
    if shared.groups.describe_modern(id, |_| ()).is_some() {
        return None;
    }
    shared.groups.describe(id).or_else(|| {
        let journal = shared.journal();
        let known = journal.metadata().offsets.contains_key(id);
        known.then(Described::empty)
    })
}

fn describe(id: &GroupId, group: Described, version: i16) -> DescribedGroup {
    let members = group.members.into_iter();
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(group.protocol_type))
        .with_protocol_data(text(group.protocol))
        .with_members(
            members
                .map(|member| describe_member(member, version))
                .collect(),
        )
}

fn describe_member(member: DescribedMember, version: i16) -> DescribedGroupMember {
    let described = DescribedGroupMember::default()
        .with_member_id(text(member.member_id))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment);
    if version >= 4 {
        described.with_group_instance_id(member.instance_id.map(text))
    } else {
        described
    }
}
