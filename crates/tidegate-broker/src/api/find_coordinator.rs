//! FindCoordinator (10): who coordinates a group or a transaction. Here it is always this broker.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::{StrBytes, VersionRange};

use super::{Api, Context};
use crate::codes;
use crate::shared::Shared;

/// The first version that asks for several keys at once.
const SEVERAL_KEYS: i16 = 4;

/// Kinds of keys: groups and transactional ids. Share groups (2) are not served.
const KEY_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

impl Api for FindCoordinatorRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 6 };

    async fn handle(self, context: &Context) -> FindCoordinatorResponse {
        if !KEY_TYPES.contains(&self.key_type) {
            return self.refuse(context, codes::INVALID_REQUEST);
        }
        let node = BrokerId(Shared::NODE_ID);
        if context.version < SEVERAL_KEYS {
            return FindCoordinatorResponse::default()
                .with_node_id(node)
                .with_host(context.host.clone())
                .with_port(context.port);
        }
        let coordinators = self.coordinator_keys.iter().map(|key| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(node)
                .with_host(context.host.clone())
                .with_port(context.port)
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    }

    fn refuse(&self, context: &Context, code: i16) -> FindCoordinatorResponse {
        if context.version < SEVERAL_KEYS {
            return FindCoordinatorResponse::default()
                .with_error_code(code)
                .with_node_id(BrokerId(-1))
                .with_port(-1);
        }
        let coordinators = self.coordinator_keys.iter().map(|key| {
            Coordinator::default()
                .with_key(key.clone())
                .with_error_code(code)
                .with_node_id(BrokerId(-1))
                .with_port(-1)
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    }

    fn group(&self) -> Option<String> {
        let key: Option<&StrBytes> = self.coordinator_keys.first();
        Some(key.unwrap_or(&self.key).to_string())
    }
}
