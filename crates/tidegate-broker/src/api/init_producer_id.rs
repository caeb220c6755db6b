//! InitProducerId (22): hands out an id for an idempotent producer.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context};
use crate::codes;

impl Api for InitProducerIdRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> InitProducerIdResponse {
        // There are no transactions here. Clients take this code as final, not as worth a retry.
        if self.transactional_id.is_some() {
            return self.refuse(context, codes::UNSUPPORTED_VERSION);
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
}
