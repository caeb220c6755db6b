//! JoinGroup (11): a client becomes a member, or joins the next generation.

use std::time::Duration;

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::group::{Join, Joined};

/// The first version with a timeout for rebalances; before it the session's serves for both.
const REBALANCE_TIMEOUT: i16 = 1;

/// The first version that makes a client join again with its id. (KIP-394)
const ID_REQUIRED: i16 = 4;

/// The first version that names the protocol's type in the answer, where no protocol can be null. (KIP-559)
const PROTOCOL_TYPE: i16 = 7;

/// The first version in which a leader can be told to keep the assignment. (KIP-814)
const SKIP_ASSIGNMENT: i16 = 9;

impl Api for JoinGroupRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 9 };

    async fn handle(self, context: &Context) -> JoinGroupResponse {
        let session_timeout = millis(self.session_timeout_ms);
        let protocols = self.protocols.into_iter();
        let join = Join {
            member_id: self.member_id.to_string(),
            instance_id: self.group_instance_id.map(|id| id.to_string()),
            client_id: context.client_id.clone(),
            client_host: format!("/{}", context.client_host),
            session_timeout,
            rebalance_timeout: match context.version {
                ..REBALANCE_TIMEOUT => session_timeout,
                _ => millis(self.rebalance_timeout_ms),
            },
            protocol_type: self.protocol_type.to_string(),
            protocols: protocols
                .map(|protocol| (protocol.name.to_string(), protocol.metadata))
                .collect(),
            id_is_required: context.version >= ID_REQUIRED,
            may_skip_assignment: context.version >= SKIP_ASSIGNMENT,
        };
        let joined = context.shared.groups.join(&self.group_id, join).await;
        answer(joined, context.version)
    }

    fn refuse(&self, context: &Context, code: i16) -> JoinGroupResponse {
        answer(Joined::refused(code, &self.member_id), context.version)
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }
}

fn millis(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

fn answer(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_metadata(member.metadata)
    });
    let named = version >= PROTOCOL_TYPE;
    let protocol = match joined.protocol {
        None if !named => Some(String::new()),
        protocol => protocol,
    };
    JoinGroupResponse::default()
        .with_error_code(joined.code)
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| named).map(text))
        .with_protocol_name(protocol.map(text))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(members.collect())
}
