//! The control batches that end transactions: one record that no consumer is shown.
//!
//! | field | bytes |
//! |---|---|
//! | attributes of the batch | transactional and control |
//! | base sequence | -1 |
//! | key | version 0 and type (0 abort, 1 commit), 16 bits each |
//! | value | version 0, 16 bits, and the coordinator's epoch, 32 bits |
//!
//! KIP-98 introduced them. Like every record the marker takes an offset.

use super::builder::BatchBuilder;
use super::header::{HEADER_LEN, ProducerStamp, encode_control_header};
use super::reader::Marker;

/// What marker keys and values say their version is.
const VERSION: [u8; 2] = 0_i16.to_be_bytes();

/// Makes the batch that ends the transaction of the producer `producer_id` in one partition, as a broker
/// appends it.
///
/// `epoch` is the producer's after the end of the transaction: with transaction version 2 it is above that
/// of the records (KIP-890). `timestamp` is in milliseconds since 1970.
#[must_use]
pub fn encode_marker(
    marker: Marker,
    producer_id: i64,
    epoch: i16,
    coordinator_epoch: i32,
    timestamp: i64,
) -> Vec<u8> {
    let kind: i16 = match marker {
        Marker::Abort => 0,
        Marker::Commit => 1,
    };
    let mut key = [0; 4];
    key[..2].copy_from_slice(&VERSION);
    key[2..].copy_from_slice(&kind.to_be_bytes());
    let mut value = [0; 6];
    value[..2].copy_from_slice(&VERSION);
    value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
    let mut builder = BatchBuilder::with_buffer(Vec::with_capacity(32), timestamp);
    builder.append(None, Some(&key), Some(&value), &[]);
    let body = builder.finish();
    let stamp = ProducerStamp {
        producer_id,
        epoch,
        base_sequence: -1,
        transactional: true,
    };
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.records.len());
    bytes.extend_from_slice(&encode_control_header(&body, stamp));
    bytes.extend_from_slice(&body.records);
    bytes
}
