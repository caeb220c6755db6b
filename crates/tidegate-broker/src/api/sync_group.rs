//! SyncGroup (14): members get their assignment, which the leader brings.

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::group::{Sender, Synced};

impl Api for SyncGroupRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> SyncGroupResponse {
        let sender = Sender {
            member_id: &self.member_id,
            instance_id: self.group_instance_id.as_deref(),
            generation: self.generation_id,
        };
        let protocol = (self.protocol_type.as_deref(), self.protocol_name.as_deref());
        let assignments = self.assignments.iter();
        let assignments = assignments
            .map(|entry| (entry.member_id.to_string(), entry.assignment.clone()))
            .collect();
        let groups = &context.shared.groups;
        answer(
            groups
                .sync(&self.group_id, sender, protocol, assignments)
                .await,
        )
    }

    fn refuse(&self, _: &Context, code: i16) -> SyncGroupResponse {
        answer(Synced::refused(code))
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }
}

fn answer(synced: Synced) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(synced.code)
        .with_protocol_type(synced.protocol_type.map(text))
        .with_protocol_name(synced.protocol.map(text))
        .with_assignment(synced.assignment)
}
