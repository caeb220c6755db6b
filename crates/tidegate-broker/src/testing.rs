//! Batches and requests for the tests in this crate.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use tidegate_wire::{BatchBuilder, Compression, Compressor, ProducerStamp, encode_header};

use crate::api::{self, Answer};
use crate::config::BrokerConfig;
use crate::log::parse_header;
use crate::server::Connection;
use crate::shared::Shared;

/// A batch with these values, each record's timestamp one after the other's.
pub(crate) fn batch_at(timestamp: i64, values: &[&[u8]], stamp: ProducerStamp) -> Vec<u8> {
    let mut builder = BatchBuilder::with_buffer(Vec::new(), timestamp);
    for (value, nth) in values.iter().zip(0..) {
        builder.append(Some(timestamp + nth), Some(b"key"), Some(value), &[]);
    }
    let mut body = builder.finish();
    body.compress(&mut Compressor::new(), Compression::Lz4, Vec::new());
    let mut bytes = encode_header(&body, stamp).to_vec();
    bytes.extend_from_slice(&body.records);
    bytes
}

/// A batch of a producer that is not idempotent.
pub(crate) fn batch(values: &[&[u8]]) -> Vec<u8> {
    batch_at(1_000_000, values, ProducerStamp::NONE)
}

pub(crate) fn stamp(producer_id: i64, epoch: i16, base_sequence: i32) -> ProducerStamp {
    ProducerStamp {
        producer_id,
        epoch,
        base_sequence,
        transactional: false,
    }
}

/// The offsets of the batches in what a Fetch returned.
pub(crate) fn base_offsets(records: &[u8]) -> Vec<i64> {
    let batches = tidegate_wire::Batches::new(records);
    batches
        .map(|batch| {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            assert_eq!(parse_header(batch.raw()), Some(*batch.header()));
            batch.header().base_offset
        })
        .collect()
}

pub(crate) fn shared(dir: &Path) -> Arc<Shared> {
    Arc::new(Shared::open(BrokerConfig::new(dir)).unwrap())
}

/// Sends `request` through all of the broker but its sockets; `None` where there is no answer.
pub(crate) async fn try_call<R: Request>(
    shared: &Arc<Shared>,
    version: i16,
    request: &R,
) -> Option<R::Response> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
    let connection = Connection {
        number: 1,
        peer: address,
        local: address,
    };
    let key = ApiKey::try_from(R::KEY).unwrap();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some("test".into()));
    let mut frame = BytesMut::new();
    let header_version = key.request_header_version(version);
    header.encode(&mut frame, header_version).unwrap();
    request.encode(&mut frame, version).unwrap();
    let late = AtomicBool::new(false);
    let answer = api::answer(shared, &connection, frame.freeze(), &late).await;
    let Answer::Send(bytes) = answer else {
        return None;
    };
    let mut bytes: Bytes = bytes.freeze();
    assert_eq!(usize::try_from(bytes.get_i32()), Ok(bytes.len()));
    let header_version = R::Response::header_version(version);
    let header = ResponseHeader::decode(&mut bytes, header_version).unwrap();
    assert_eq!(header.correlation_id, 77);
    let response = R::Response::decode(&mut bytes, version).unwrap();
    assert!(
        bytes.is_empty(),
        "{key:?} {version}: {} bytes left",
        bytes.len()
    );
    Some(response)
}

/// As [`try_call`], where an answer is a must.
pub(crate) async fn call<R: Request>(
    shared: &Arc<Shared>,
    version: i16,
    request: &R,
) -> R::Response {
    let response = try_call(shared, version, request).await;
    response.unwrap_or_else(|| panic!("no answer to API {} version {version}", R::KEY))
}
