//! ListGroups (16): all groups with members or committed offsets.

use std::collections::BTreeMap;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::{StrBytes, VersionRange};

use super::{Api, Context, text};
use crate::group::Described;

/// All groups here are of one type, by the name Kafka gives it. (KIP-848)
const GROUP_TYPE: &str = "classic";

impl Api for ListGroupsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> ListGroupsResponse {
        let mut groups: BTreeMap<String, Described> = BTreeMap::new();
        for group in context.shared.journal().metadata().offsets.keys() {
            groups.insert(group.clone(), Described::empty());
        }
        groups.extend(context.shared.groups.list());
        let wanted = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|entry| entry.eq_ignore_ascii_case(value))
        };
        let listed = groups
            .into_iter()
            .filter(|(_, group)| wanted(&self.states_filter, group.state.name()))
            .filter(|_| wanted(&self.types_filter, GROUP_TYPE))
            .map(|(id, group)| list(id, group, context.version));
        ListGroupsResponse::default().with_groups(listed.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> ListGroupsResponse {
        ListGroupsResponse::default().with_error_code(code)
    }
}

fn list(id: String, group: Described, version: i16) -> ListedGroup {
    let mut listed = ListedGroup::default()
        .with_group_id(GroupId(text(id)))
        .with_protocol_type(text(group.protocol_type));
    if version >= 4 {
        listed.group_state = text(group.state.name());
    }
    if version >= 5 {
        listed.group_type = text(GROUP_TYPE);
    }
    listed
}
