//! EndTxn (26): commits or aborts a transaction.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};
use kafka_protocol::protocol::VersionRange;
use tidegate_wire::Marker;

use super::{Api, Context, code_for};
use crate::transaction::{Caller, Protocol};

/// The first version of the second protocol: the answer brings a new epoch. (KIP-890)
const SECOND_PROTOCOL: i16 = 5;

/// The first version whose clients know PRODUCER_FENCED. (KIP-588)
const PRODUCER_FENCED_KNOWN: i16 = 2;

impl Api for EndTxnRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> EndTxnResponse {
        let shared = &context.shared;
        let ProducerId(producer_id) = self.producer_id;
        let caller = Caller {
            producer_id,
            epoch: self.producer_epoch,
        };
        let marker = match self.committed {
            true => Marker::Commit,
            false => Marker::Abort,
        };
        let protocol = match context.version {
            SECOND_PROTOCOL.. => Protocol::Second,
            _ => Protocol::First,
        };
        let id = &self.transactional_id;
        let ended = shared
            .transactions
            .end(shared, id, caller, marker, protocol);
        match ended {
            Ok(next) if protocol == Protocol::Second => EndTxnResponse::default()
                .with_producer_id(ProducerId(next.producer_id))
                .with_producer_epoch(next.epoch),
            Ok(_) => EndTxnResponse::default(),
            Err(code) => self.refuse(
                context,
                code_for(context.version, PRODUCER_FENCED_KNOWN, code),
            ),
        }
    }

    fn refuse(&self, _: &Context, code: i16) -> EndTxnResponse {
        EndTxnResponse::default().with_error_code(code)
    }

    fn transactional_id(&self) -> Option<String> {
        Some(self.transactional_id.to_string())
    }
}
