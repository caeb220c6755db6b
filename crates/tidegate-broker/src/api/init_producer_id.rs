//! InitProducerId (22): hands out an id for an idempotent producer, or an epoch to a transactional one.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, code_for};
use crate::codes;
use crate::transaction::{Caller, NO_EPOCH, NO_PRODUCER_ID};

/// The first version whose clients know PRODUCER_FENCED. (KIP-588)
const PRODUCER_FENCED_KNOWN: i16 = 4;

impl Api for InitProducerIdRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> InitProducerIdResponse {
        if let Some(id) = &self.transactional_id {
            let caller = transactional(&self, context, id);
            return match caller {
                Ok(caller) => InitProducerIdResponse::default()
                    .with_producer_id(ProducerId(caller.producer_id))
                    .with_producer_epoch(caller.epoch),
                Err(code) => self.refuse(context, code),
            };
        }
        // A producer without transactions that asks again gets a fresh id, whatever it had. (KIP-360)
        match context.shared.new_producer_id() {
            Ok(id) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
            Err(_) => self.refuse(context, codes::KAFKA_STORAGE_ERROR),
        }
    }

    fn refuse(&self, _: &Context, code: i16) -> InitProducerIdResponse {
        InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    }

    fn transactional_id(&self) -> Option<String> {
        self.transactional_id.as_ref().map(|id| id.to_string())
    }
}

/// The producer id and epoch for a transactional producer.
fn transactional(
    request: &InitProducerIdRequest,
    context: &Context,
    id: &str,
) -> Result<Caller, i16> {
    let ProducerId(producer_id) = request.producer_id;
    let expected = match (producer_id, request.producer_epoch) {
        (NO_PRODUCER_ID, NO_EPOCH) => None,
        (NO_PRODUCER_ID, _) | (_, NO_EPOCH) => return Err(codes::INVALID_REQUEST),
        (producer_id, epoch) => Some(Caller { producer_id, epoch }),
    };
    let shared = &context.shared;
    let timeout_ms = request.transaction_timeout_ms;
    let caller = shared.transactions.init(shared, id, expected, timeout_ms);
    caller.map_err(|code| code_for(context.version, PRODUCER_FENCED_KNOWN, code))
}
