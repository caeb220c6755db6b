//! AddOffsetsToTxn (25): makes a group's offsets part of a transaction.
//!
//! Kafka adds the partition of its internal topic that the group's offsets are kept in. Here they are kept
//! in the journal, so the group itself is added.

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, ProducerId};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, code_for};
use crate::transaction::{Caller, Touched};

/// The first version whose clients know PRODUCER_FENCED. (KIP-588)
const PRODUCER_FENCED_KNOWN: i16 = 2;

impl Api for AddOffsetsToTxnRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 4 };

    async fn handle(self, context: &Context) -> AddOffsetsToTxnResponse {
        let ProducerId(producer_id) = self.producer_id;
        let caller = Caller {
            producer_id,
            epoch: self.producer_epoch,
        };
        let shared = &context.shared;
        let group = Touched::group(&self.group_id);
        let id = &self.transactional_id;
        match shared.transactions.add(shared, id, caller, &group) {
            Ok(()) => AddOffsetsToTxnResponse::default(),
            Err(code) => self.refuse(
                context,
                code_for(context.version, PRODUCER_FENCED_KNOWN, code),
            ),
        }
    }

    fn refuse(&self, _: &Context, code: i16) -> AddOffsetsToTxnResponse {
        AddOffsetsToTxnResponse::default().with_error_code(code)
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }

    fn transactional_id(&self) -> Option<String> {
        Some(self.transactional_id.to_string())
    }
}
