//! DescribeCluster (60): the brokers and their cluster, without topics. (KIP-700)

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::codes;
use crate::shared::Shared;

/// The kind of endpoint asked for: brokers, as against controllers.
const BROKERS: i8 = 1;

impl Api for DescribeClusterRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 2 };

    async fn handle(self, context: &Context) -> DescribeClusterResponse {
        if context.version >= 1 && self.endpoint_type != BROKERS {
            return self.refuse(context, codes::INVALID_REQUEST);
        }
        let node = BrokerId(Shared::NODE_ID);
        let broker = DescribeClusterBroker::default()
            .with_broker_id(node)
            .with_host(context.host.clone())
            .with_port(context.port);
        DescribeClusterResponse::default()
            .with_cluster_id(text(context.shared.cluster_id.clone()))
            .with_controller_id(node)
            .with_brokers(vec![broker])
    }

    fn refuse(&self, _: &Context, code: i16) -> DescribeClusterResponse {
        DescribeClusterResponse::default().with_error_code(code)
    }
}
