//! DeleteGroups (42): forgets groups without members, and their committed offsets.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context};
use crate::codes;
use crate::journal::Change;
use crate::shared::Shared;

impl Api for DeleteGroupsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 2 };

    async fn handle(self, context: &Context) -> DeleteGroupsResponse {
        let results = self.groups_names.iter().map(|group| {
            let deleted = delete(&context.shared, group);
            answer(group, deleted.err().unwrap_or(codes::NONE))
        });
        DeleteGroupsResponse::default().with_results(results.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> DeleteGroupsResponse {
        let results = self.groups_names.iter().map(|group| answer(group, code));
        DeleteGroupsResponse::default().with_results(results.collect())
    }

    fn group(&self) -> Option<String> {
        self.groups_names.first().map(|group| group.to_string())
    }
}

fn answer(group: &GroupId, code: i16) -> DeletableGroupResult {
    DeletableGroupResult::default()
        .with_group_id(group.clone())
        .with_error_code(code)
}

fn delete(shared: &Shared, group: &str) -> Result<(), i16> {
    shared.groups.while_empty(group, || {
        if !shared.journal().metadata().offsets.contains_key(group) {
            return Err(codes::GROUP_ID_NOT_FOUND);
        }
        let group = group.to_owned();
        let change = Change::GroupDeleted { group };
        shared.commit(change).map_err(|refusal| refusal.code)
    })
}
