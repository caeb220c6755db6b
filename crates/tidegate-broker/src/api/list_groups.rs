//! ListGroups (16): all groups with members or committed offsets.

use std::collections::BTreeMap;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::{StrBytes, VersionRange};

use super::{Api, Context, text};
use crate::group::Described;

/// What a group is, by the names Kafka gives it. (KIP-848)
const CLASSIC: &str = "classic";
const MODERN: &str = "consumer";

impl Api for ListGroupsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> ListGroupsResponse {
        let mut groups: BTreeMap<String, Listed> = BTreeMap::new();
        for group in context.shared.journal().metadata().offsets.keys() {
            groups.insert(group.clone(), Listed::classic(&Described::empty()));
        }
        let classic = context.shared.groups.list().into_iter();
        groups.extend(classic.map(|(id, group)| (id, Listed::classic(&group))));
        let modern = context.shared.groups.list_modern().into_iter();
        groups.extend(modern.map(|(id, state)| (id, Listed::modern(state))));
        let wanted = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|entry| entry.eq_ignore_ascii_case(value))
        };
        let listed = groups
            .into_iter()
            .filter(|(_, group)| wanted(&self.states_filter, group.state))
            .filter(|(_, group)| wanted(&self.types_filter, group.kind))
            .map(|(id, group)| list(id, group, context.version));
        ListGroupsResponse::default().with_groups(listed.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> ListGroupsResponse {
        ListGroupsResponse::default().with_error_code(code)
    }
}

/// A group as it is listed.
struct Listed {
    protocol_type: String,
    state: &'static str,
    kind: &'static str,
}

impl Listed {
    fn classic(group: &Described) -> Self {
        Self {
            protocol_type: group.protocol_type.clone(),
            state: group.state.name(),
            kind: CLASSIC,
        }
    }

    fn modern(state: &'static str) -> Self {
        Self {
            protocol_type: "consumer".to_owned(),
            state,
            kind: MODERN,
        }
    }
}

fn list(id: String, group: Listed, version: i16) -> ListedGroup {
    let mut listed = ListedGroup::default()
        .with_group_id(GroupId(text(id)))
        .with_protocol_type(text(group.protocol_type));
    if version >= 4 {
        listed.group_state = text(group.state);
    }
    if version >= 5 {
        listed.group_type = text(group.kind);
    }
    listed
}
