//! Heartbeat (12): a group member shows that it is alive, and learns of rebalances.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context};
use crate::group::Sender;

impl Api for HeartbeatRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 4 };

    async fn handle(self, context: &Context) -> HeartbeatResponse {
        let sender = Sender {
            member_id: &self.member_id,
            instance_id: self.group_instance_id.as_deref(),
            generation: self.generation_id,
        };
        let code = context.shared.groups.heartbeat(&self.group_id, sender);
        self.refuse(context, code)
    }

    fn refuse(&self, _: &Context, code: i16) -> HeartbeatResponse {
        HeartbeatResponse::default().with_error_code(code)
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }
}
