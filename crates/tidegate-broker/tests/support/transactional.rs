//! A transactional producer made of single requests, and a reader of committed records.

use std::collections::HashMap;
use std::net::SocketAddr;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, GroupId,
    InitProducerIdRequest, ListOffsetsRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;
use tidegate_wire::{BatchBuilder, Batches, ProducerStamp, encode_header};

use super::{Client, fetch, name, produce};

pub(crate) const READ_COMMITTED: i8 = 1;
pub(crate) const READ_UNCOMMITTED: i8 = 0;

pub(crate) const CONCURRENT_TRANSACTIONS: i16 = 51;

/// What stands for a code where the broker has died.
pub(crate) const UNREACHABLE: i16 = i16::MIN;

/// The two protocols, by the versions of their requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    First,
    Second,
}

impl Protocol {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];
}

pub(crate) fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

pub(crate) fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(StrBytes::from_string(id.to_owned()))
}

/// A producer that does what it is told, right or wrong.
pub(crate) struct TxnProducer {
    pub(crate) client: Client,
    pub(crate) id: String,
    pub(crate) protocol: Protocol,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) timeout_ms: i32,
    sequences: HashMap<String, i32>,
}

impl TxnProducer {
    /// Connects and initialises.
    pub(crate) fn new(address: SocketAddr, id: &str, protocol: Protocol) -> Self {
        let mut producer = Self::connect(address, id, protocol);
        assert_eq!(producer.init(), 0);
        producer
    }

    /// Connects.
    pub(crate) fn connect(address: SocketAddr, id: &str, protocol: Protocol) -> Self {
        Self {
            client: Client::connect(address),
            id: id.to_owned(),
            protocol,
            producer_id: -1,
            epoch: -1,
            timeout_ms: 60_000,
            sequences: HashMap::new(),
        }
    }

    /// InitProducerId as a new producer sends it, until no transaction stands in the way; the code.
    pub(crate) fn init(&mut self) -> i16 {
        loop {
            match self.init_as(-1, -1) {
                CONCURRENT_TRANSACTIONS => {}
                code => return code,
            }
        }
    }

    pub(crate) fn init_as(&mut self, producer_id: i64, epoch: i16) -> i16 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&self.id)))
            .with_transaction_timeout_ms(self.timeout_ms)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch);
        let Ok(response) = self.client.try_call(4, &request) else {
            return UNREACHABLE;
        };
        if response.error_code == 0 {
            self.take_over(response.producer_id, response.producer_epoch);
        }
        response.error_code
    }

    fn take_over(&mut self, ProducerId(producer_id): ProducerId, epoch: i16) {
        if (producer_id, epoch) != (self.producer_id, self.epoch) {
            self.sequences.clear();
        }
        (self.producer_id, self.epoch) = (producer_id, epoch);
    }

    /// Adds partition 0 of `topic`, as the first protocol wants it; the code.
    pub(crate) fn add(&mut self, topic: &str) -> i16 {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(&self.id))
            .with_v3_and_below_producer_id(ProducerId(self.producer_id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let Ok(response) = self.client.try_call(3, &request) else {
            return UNREACHABLE;
        };
        let topic = &response.results_by_topic_v3_and_below[0];
        topic.results_by_partition[0].partition_error_code
    }

    /// Sends one record to partition 0 of `topic`, which is added before where that is needed; code and
    /// offset.
    pub(crate) fn send(&mut self, topic: &str, value: &str) -> (i16, i64) {
        if self.protocol == Protocol::First {
            let code = self.add(topic);
            if code != 0 {
                return (code, -1);
            }
        }
        self.send_only(topic, value)
    }

    /// As `send`, without adding.
    pub(crate) fn send_only(&mut self, topic: &str, value: &str) -> (i16, i64) {
        let version = match self.protocol {
            Protocol::First => 11,
            Protocol::Second => 12,
        };
        let sequence = self.sequences.get(topic).copied().unwrap_or(0);
        let batch = self.batch(value, sequence);
        let request = produce(topic, batch).with_transactional_id(Some(transactional_id(&self.id)));
        let Ok(response) = self.client.try_call(version, &request) else {
            return (UNREACHABLE, -1);
        };
        let answer = &response.responses[0].partition_responses[0];
        if answer.error_code == 0 {
            self.sequences.insert(topic.to_owned(), sequence + 1);
        }
        (answer.error_code, answer.base_offset)
    }

    pub(crate) fn batch(&self, value: &str, base_sequence: i32) -> Vec<u8> {
        let mut builder = BatchBuilder::with_buffer(Vec::new(), 1_000_000);
        builder.append(None, Some(b"key"), Some(value.as_bytes()), &[]);
        let body = builder.finish();
        let stamp = ProducerStamp {
            producer_id: self.producer_id,
            epoch: self.epoch,
            base_sequence,
            transactional: true,
        };
        let mut bytes = encode_header(&body, stamp).to_vec();
        bytes.extend_from_slice(&body.records);
        bytes
    }

    /// AddOffsetsToTxn, as the first protocol wants it; the code.
    pub(crate) fn add_group(&mut self, group: &str) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_group_id(group_id(group));
        self.client.call(3, &request).error_code
    }

    /// TxnOffsetCommit for partition 0 of `topic`, in the newest version of the protocol; the code.
    pub(crate) fn commit_offset(&mut self, group: &str, topic: &str, offset: i64) -> i16 {
        let version = match self.protocol {
            Protocol::First => 4,
            Protocol::Second => 5,
        };
        let request = self.offset_request(group, topic, offset);
        let response = self.client.call(version, &request);
        response.topics[0].partitions[0].error_code
    }

    pub(crate) fn offset_request(
        &self,
        group: &str,
        topic: &str,
        offset: i64,
    ) -> TxnOffsetCommitRequest {
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_group_id(group_id(group))
            .with_topics(vec![topic])
    }

    /// EndTxn; the code. What the answer brings is taken over.
    pub(crate) fn end(&mut self, committed: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_committed(committed);
        let version = match self.protocol {
            Protocol::First => 4,
            Protocol::Second => 5,
        };
        let Ok(response) = self.client.try_call(version, &request) else {
            return UNREACHABLE;
        };
        if response.error_code == 0 && self.protocol == Protocol::Second {
            self.take_over(response.producer_id, response.producer_epoch);
        }
        response.error_code
    }
}

/// The end of partition 0 of `topic` for readers of that isolation.
pub(crate) fn end_offset(client: &mut Client, topic: &str, isolation: i8) -> i64 {
    let partition = ListOffsetsPartition::default()
        .with_current_leader_epoch(-1)
        .with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let response = client.call(7, &request);
    let found = &response.topics[0].partitions[0];
    assert_eq!(found.error_code, 0);
    found.offset
}

/// Offset and value of all records of partition 0 of `topic`, as a consumer of that isolation sees them.
pub(crate) fn read(client: &mut Client, topic: &str, isolation: i8) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    let mut next = 0;
    loop {
        let request = fetch(topic, next, 0).with_isolation_level(isolation);
        let response = client.call(12, &request);
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        assert!(data.last_stable_offset <= data.high_watermark);
        let end = match isolation {
            READ_COMMITTED => data.last_stable_offset,
            _ => data.high_watermark,
        };
        if next >= end {
            return found;
        }
        let mut aborted: Vec<(i64, i64)> = data
            .aborted_transactions
            .iter()
            .flatten()
            .map(|aborted| (aborted.producer_id.0, aborted.first_offset))
            .collect();
        let before = next;
        for batch in Batches::new(data.records.as_ref().unwrap()) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            let header = *batch.header();
            assert!(header.base_offset < end, "records beyond the end");
            next = header.next_offset();
            let of_it = |(id, first): &(i64, i64)| {
                *id == header.producer_id && *first <= header.base_offset
            };
            let is_aborted = header.is_transactional() && aborted.iter().any(of_it);
            if header.is_control() {
                aborted.retain(|entry| !of_it(entry));
            } else if !is_aborted {
                let mut scratch = Vec::new();
                for record in batch.records(&mut scratch, 1 << 20).unwrap() {
                    let record = record.unwrap();
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    found.push((record.offset, value));
                }
            }
        }
        assert!(next > before, "nothing at {next} of {end}");
    }
}

/// The values alone.
pub(crate) fn values(client: &mut Client, topic: &str, isolation: i8) -> Vec<String> {
    let read = read(client, topic, isolation);
    read.into_iter().map(|(_, value)| value).collect()
}
