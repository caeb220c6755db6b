//! A small blocking client, and batches, for the tests of the broker through its sockets.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod transactional;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tidegate_wire::{BatchBuilder, Batches, ProducerStamp, encode_header};

/// No test waits longer than this for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a broker.
pub(crate) struct Client {
    stream: TcpStream,
    correlation_id: i32,
    client_id: &'static str,
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            correlation_id: 0,
            client_id: "test",
        }
    }

    pub(crate) fn named(mut self, client_id: &'static str) -> Self {
        self.client_id = client_id;
        self
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.try_send(version, request).unwrap()
    }

    /// As `send`, to a broker that may die meanwhile.
    fn try_send<R: Request>(&mut self, version: i16, request: &R) -> std::io::Result<i32> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.into()));
        let mut frame = BytesMut::new();
        let key = ApiKey::try_from(R::KEY).unwrap();
        header
            .encode(&mut frame, key.request_header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = i32::try_from(frame.len()).unwrap().to_be_bytes();
        self.stream.write_all(&length)?;
        self.stream.write_all(&frame)?;
        Ok(self.correlation_id)
    }

    /// The next answer; an error if the connection ends or nothing comes.
    pub(crate) fn receive<R: Request>(
        &mut self,
        version: i16,
    ) -> std::io::Result<(i32, R::Response)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        let header_version = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(!frame.has_remaining());
        Ok((header.correlation_id, response))
    }

    pub(crate) fn try_call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> std::io::Result<R::Response> {
        let sent = self.try_send(version, request)?;
        let (received, response) = self.receive::<R>(version)?;
        assert_eq!(received, sent);
        Ok(response)
    }

    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request).unwrap()
    }

    /// Makes the topic, with the broker's number of partitions, if it is missing.
    pub(crate) fn create(&mut self, topic: &str) {
        let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
        assert_eq!(self.call(9, &request).topics[0].error_code, 0);
    }

    /// Makes a topic that keeps the last record of each key, if it is missing, in files of that size.
    pub(crate) fn create_compacted(&mut self, topic: &str, segment_bytes: u64) {
        const TOPIC_ALREADY_EXISTS: i16 = 36;
        let configs = [
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", segment_bytes.to_string()),
            ("delete.retention.ms", "0".to_owned()),
        ];
        let configs = configs.map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(configs.to_vec());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let code = self.call(5, &request).topics[0].error_code;
        assert!(code == 0 || code == TOPIC_ALREADY_EXISTS, "{code}");
    }

    /// Code and base offset.
    pub(crate) fn try_produce(
        &mut self,
        topic: &str,
        batch: Vec<u8>,
    ) -> std::io::Result<(i16, i64)> {
        let response = self.try_call(9, &produce(topic, batch))?;
        let answer = &response.responses[0].partition_responses[0];
        Ok((answer.error_code, answer.base_offset))
    }

    pub(crate) fn produce(&mut self, topic: &str, batch: Vec<u8>) -> (i16, i64) {
        self.try_produce(topic, batch).unwrap()
    }

    /// All values in partition 0 of `topic`, with offsets that follow each other from 0.
    pub(crate) fn values(&mut self, topic: &str) -> Vec<Vec<u8>> {
        let mut values: Vec<Vec<u8>> = Vec::new();
        loop {
            let next = i64::try_from(values.len()).unwrap();
            let response = self.call(12, &fetch(topic, next, 0));
            let data = &response.responses[0].partitions[0];
            assert_eq!(data.error_code, 0);
            if data.high_watermark == next {
                return values;
            }
            let mut scratch = Vec::new();
            for batch in Batches::new(data.records.as_ref().unwrap()) {
                let batch = batch.unwrap();
                batch.check_crc().unwrap();
                for record in batch.records(&mut scratch, 1 << 20).unwrap() {
                    let record = record.unwrap();
                    assert_eq!(record.offset, i64::try_from(values.len()).unwrap());
                    values.push(record.value.unwrap().to_vec());
                }
            }
        }
    }
}

pub(crate) fn produce(topic: &str, batch: Vec<u8>) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
    let data = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![data])
}

pub(crate) fn fetch(topic: &str, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

/// A batch with one record, of an idempotent producer.
pub(crate) fn batch(value: &[u8], producer_id: i64, base_sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::with_buffer(Vec::new(), 1_000_000);
    builder.append(None, None, Some(value), &[]);
    let body = builder.finish();
    let stamp = ProducerStamp {
        producer_id,
        epoch: 0,
        base_sequence,
        transactional: false,
    };
    let mut bytes = encode_header(&body, stamp).to_vec();
    bytes.extend_from_slice(&body.records);
    bytes
}
