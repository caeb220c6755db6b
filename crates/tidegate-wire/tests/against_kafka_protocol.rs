//! Record batches and Produce frames held against the `kafka-protocol` crate, both ways.
//!
//! Batches are compared uncompressed: that crate's codecs would pull in another C library. The codecs are
//! held against foreign clients' bytes in `foreign.rs` and against other decoders in `compression.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "a test or a measurement that cannot go on fails"
)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ProduceRequest as TheirRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{
    Compression as TheirCompression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tidegate_wire::produce::{self, ProduceAnswer, ProduceRequest, RecordError, TopicRef};
use tidegate_wire::{
    BatchBuilder, Batches, HEADER_LEN, ProducerStamp, RecordHeader, encode_header,
};

const LIMIT: usize = 1 << 24;

#[derive(Debug, Clone)]
struct Input {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// By name, for the other crate keeps one header of a name.
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn nullable_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    // Around the borders where a length takes one byte more.
    let len = prop_oneof![0..4_usize, 62..66_usize, 8190..8194_usize];
    option::of(len.prop_flat_map(|len| vec(any::<u8>(), len)))
}

fn input() -> impl Strategy<Value = Input> {
    let timestamp = prop_oneof![0..4_000_000_000_000_i64, Just(0), Just(1_700_000_000_000)];
    let headers =
        btree_map(".{0,70}", nullable_bytes(), 0..4).prop_map(|map| map.into_iter().collect());
    (timestamp, nullable_bytes(), nullable_bytes(), headers).prop_map(
        |(timestamp, key, value, headers)| Input {
            timestamp,
            key,
            value,
            headers,
        },
    )
}

fn stamp() -> impl Strategy<Value = ProducerStamp> {
    let some = (0..i64::MAX, 0..i16::MAX, 0..i32::MAX - 1000, any::<bool>()).prop_map(
        |(producer_id, epoch, base_sequence, transactional)| ProducerStamp {
            producer_id,
            epoch,
            base_sequence,
            transactional,
        },
    );
    prop_oneof![Just(ProducerStamp::NONE), some]
}

fn append(builder: &mut BatchBuilder, input: &Input) {
    let headers: Vec<_> = input
        .headers
        .iter()
        .map(|(name, value)| RecordHeader {
            name,
            value: value.as_deref(),
        })
        .collect();
    let (key, value) = (input.key.as_deref(), input.value.as_deref());
    let announced = builder.encoded_len(Some(input.timestamp), key, value, &headers);
    let before = builder.body_len();
    builder.append(Some(input.timestamp), key, value, &headers);
    assert_eq!(builder.body_len() - before, announced);
}

fn their_record(input: &Input, index: i64, base_offset: i64, stamp: ProducerStamp) -> TheirRecord {
    let to_bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map(Bytes::from);
    TheirRecord {
        transactional: stamp.transactional,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: stamp.producer_id,
        producer_epoch: stamp.epoch,
        timestamp_type: TimestampType::Creation,
        offset: base_offset + index,
        sequence: stamp
            .base_sequence
            .wrapping_add(i32::try_from(index).unwrap()),
        timestamp: input.timestamp,
        key: to_bytes(&input.key),
        value: to_bytes(&input.value),
        headers: input
            .headers
            .iter()
            .map(|(name, value)| (StrBytes::from_string(name.clone()), to_bytes(value)))
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn they_read_what_we_build(inputs in vec(input(), 1..70), base_timestamp in 0..4_000_000_000_000_i64, stamp in stamp()) {
        let mut builder = BatchBuilder::with_buffer(vec![1, 2, 3], base_timestamp);
        for input in &inputs {
            append(&mut builder, input);
        }
        prop_assert_eq!(builder.record_count() as usize, inputs.len());
        let body = builder.finish();
        prop_assert_eq!(Some(body.max_timestamp), inputs.iter().map(|input| input.timestamp).max());
        let mut batch = BytesMut::from(&encode_header(&body, stamp)[..]);
        batch.extend_from_slice(&body.records);

        let found = RecordBatchDecoder::decode(&mut batch.freeze()).unwrap();
        let expected: Vec<_> = inputs.iter().zip(0..).map(|(input, i)| their_record(input, i, 0, stamp)).collect();
        prop_assert_eq!(found.records, expected);
    }

    #[test]
    fn we_read_what_they_build(inputs in vec(input(), 1..70), base_offset in 0..1_i64 << 60, stamp in stamp()) {
        let theirs: Vec<_> = inputs.iter().zip(0..).map(|(input, i)| their_record(input, i, base_offset, stamp)).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: TheirCompression::None };
        RecordBatchEncoder::encode(&mut bytes, &theirs, &options).unwrap();

        let mut batches = Batches::new(&bytes);
        let mut count = 0;
        let mut scratch = Vec::new();
        for batch in &mut batches {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            prop_assert_eq!(batch.header().is_transactional(), stamp.transactional);
            prop_assert_eq!(batch.header().producer_id, stamp.producer_id);
            for record in batch.records(&mut scratch, LIMIT).unwrap() {
                let record = record.unwrap();
                let input = &inputs[count];
                prop_assert_eq!(record.offset, base_offset + i64::try_from(count).unwrap());
                prop_assert_eq!(record.timestamp, input.timestamp);
                prop_assert_eq!(record.key, input.key.as_deref());
                prop_assert_eq!(record.value, input.value.as_deref());
                prop_assert_eq!(record.header_count(), input.headers.len());
                for (header, (name, value)) in record.headers().zip(&input.headers) {
                    prop_assert_eq!(header.unwrap(), RecordHeader { name, value: value.as_deref() });
                }
                count += 1;
            }
            prop_assert_eq!(batch.header().next_offset(), base_offset + i64::try_from(count).unwrap());
        }
        prop_assert_eq!(batches.remaining(), 0);
        prop_assert_eq!(count, inputs.len());
    }

    #[test]
    fn they_read_our_produce_request(
        client_id in option::of(".{0,20}"),
        transactional_id in option::of("[a-z:/]{1,200}"),
        topic in "[a-z]{1,249}",
        id: [u8; 16],
        correlation_id: i32,
        partition: i32,
        timeout_ms: i32,
        records in vec(any::<u8>(), 0..300),
    ) {
        for version in produce::MIN_VERSION..=produce::MAX_VERSION {
            let request = ProduceRequest {
                client_id: client_id.as_deref(),
                transactional_id: transactional_id.as_deref(),
                acks: -1,
                timeout_ms,
                topic: TopicRef { name: &topic, id },
                partition,
                batch_header: &[7; HEADER_LEN],
                body_len: records.len(),
            };
            let mut frame = produce::prefix(version, correlation_id, &request).unwrap();
            frame.extend_from_slice(&records);
            frame.extend_from_slice(produce::trailer(version));
            let mut rest = Bytes::from(frame).split_off(4);

            let header_version = TheirRequest::header_version(version);
            let header = RequestHeader::decode(&mut rest, header_version).unwrap();
            prop_assert_eq!((header.request_api_key, header.request_api_version), (0, version));
            prop_assert_eq!(header.correlation_id, correlation_id);
            prop_assert_eq!(header.client_id.as_ref().map(StrBytes::as_str), client_id.as_deref());
            let theirs = TheirRequest::decode(&mut rest, version).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(theirs.transactional_id.as_ref().map(|id| id.as_str()), transactional_id.as_deref());
            prop_assert_eq!((theirs.acks, theirs.timeout_ms), (-1, timeout_ms));
            prop_assert_eq!(theirs.topic_data.len(), 1);
            let data = &theirs.topic_data[0];
            if version >= 13 {
                prop_assert_eq!(data.topic_id.as_bytes(), &id);
            } else {
                prop_assert_eq!(data.name.as_str(), &topic);
            }
            prop_assert_eq!(data.partition_data.len(), 1);
            prop_assert_eq!(data.partition_data[0].index, partition);
            let sent = data.partition_data[0].records.as_ref().unwrap();
            prop_assert_eq!(&sent[..HEADER_LEN], &[7; HEADER_LEN]);
            prop_assert_eq!(&sent[HEADER_LEN..], &records);
        }
    }
}

#[test]
fn the_length_of_a_produce_frame_counts_all_that_follows() {
    for version in produce::MIN_VERSION..=produce::MAX_VERSION {
        let request = ProduceRequest {
            client_id: Some("tidegate"),
            transactional_id: None,
            acks: -1,
            timeout_ms: 10_000,
            topic: TopicRef {
                name: "usage",
                id: [0; 16],
            },
            partition: 0,
            batch_header: &[0; HEADER_LEN],
            body_len: 1000,
        };
        let prefix = produce::prefix(version, 1, &request).unwrap();
        let length = u32::from_be_bytes(prefix[..4].try_into().unwrap());
        assert_eq!(
            length as usize,
            prefix.len() - 4 + 1000 + produce::trailer(version).len()
        );
    }
}

fn their_answer(version: i16) -> ProduceResponse {
    let text = |text: &'static str| Some(StrBytes::from_static_str(text));
    let mut partition = PartitionProduceResponse::default()
        .with_index(3)
        .with_error_code(6)
        .with_base_offset(1 << 40)
        .with_log_append_time_ms(1_700_000_000_000);
    if version >= 5 {
        partition.log_start_offset = 17;
    }
    if version >= 8 {
        let error = BatchIndexAndErrorMessage::default()
            .with_batch_index(9)
            .with_batch_index_error_message(text("no"));
        partition.record_errors = vec![error];
        partition.error_message = text("not the leader");
    }
    if version >= 10 {
        partition.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(2.into())
            .with_leader_epoch(8);
    }
    let mut topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
    if version < 13 {
        topic.name = TopicName(StrBytes::from_static_str("usage"));
    }
    ProduceResponse::default()
        .with_responses(vec![topic])
        .with_throttle_time_ms(250)
}

#[test]
fn we_read_their_produce_answer() {
    for version in produce::MIN_VERSION..=produce::MAX_VERSION {
        let mut frame = BytesMut::new();
        let header_version = ProduceResponse::header_version(version);
        ResponseHeader::default()
            .with_correlation_id(77)
            .encode(&mut frame, header_version)
            .unwrap();
        their_answer(version).encode(&mut frame, version).unwrap();
        let (correlation_id, answer) = produce::parse_answer(version, &frame).unwrap();
        let expected = ProduceAnswer {
            partition: 3,
            error_code: 6,
            base_offset: 1 << 40,
            log_append_time: 1_700_000_000_000,
            log_start_offset: if version >= 5 { 17 } else { -1 },
            record_errors: if version >= 8 {
                vec![RecordError {
                    batch_index: 9,
                    message: Some("no".into()),
                }]
            } else {
                Vec::new()
            },
            error_message: (version >= 8).then(|| "not the leader".into()),
            current_leader: (version >= 10).then_some((2, 8)),
            throttle_ms: 250,
        };
        assert_eq!(
            (correlation_id, answer),
            (77, expected),
            "version {version}"
        );
        for cut in 0..frame.len() {
            produce::parse_answer(version, &frame[..cut]).unwrap_err();
        }
    }
}

#[test]
fn other_versions_are_refused() {
    for version in [produce::MIN_VERSION - 1, produce::MAX_VERSION + 1] {
        let error = produce::parse_answer(version, &[0; 64]).unwrap_err();
        assert_eq!(error.kind(), tidegate_wire::Kind::Unsupported);
    }
}
