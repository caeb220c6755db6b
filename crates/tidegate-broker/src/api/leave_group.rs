//! LeaveGroup (13): members leave, or are made to leave.

use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context};
use crate::codes;

/// The first version in which several members can leave at once. (KIP-345)
const SEVERAL_MEMBERS: i16 = 3;

impl Api for LeaveGroupRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> LeaveGroupResponse {
        let groups = &context.shared.groups;
        if context.version < SEVERAL_MEMBERS {
            let code = groups.leave(&self.group_id, &self.member_id, None);
            return LeaveGroupResponse::default().with_error_code(code);
        }
        if self.group_id.is_empty() {
            return self.refuse(context, codes::INVALID_GROUP_ID);
        }
        let members = self.members.iter().map(|member| {
            let instance = member.group_instance_id.as_deref();
            answer(
                member,
                groups.leave(&self.group_id, &member.member_id, instance),
            )
        });
        LeaveGroupResponse::default().with_members(members.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> LeaveGroupResponse {
        LeaveGroupResponse::default().with_error_code(code)
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }
}

fn answer(member: &MemberIdentity, code: i16) -> MemberResponse {
    MemberResponse::default()
        .with_member_id(member.member_id.clone())
        .with_group_instance_id(member.group_instance_id.clone())
        .with_error_code(code)
}
