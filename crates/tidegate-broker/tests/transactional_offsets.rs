//! Positions of groups that are committed by a transaction, in both protocols.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod support;

use kafka_protocol::messages::OffsetCommitRequest;
use kafka_protocol::messages::OffsetFetchRequest;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use support::transactional::{Protocol, TxnProducer, group_id};
use support::{Client, name};
use tidegate_broker::{Action, ApiKey, Broker, BrokerConfig, Rule};

const UNSTABLE_OFFSET_COMMIT: i16 = 88;

fn with_topic(dir: &tempfile::TempDir) -> (Broker, Client) {
    let broker = Broker::start(BrokerConfig::new(dir.path())).unwrap();
    let mut client = Client::connect(broker.address());
    client.create("usage");
    (broker, client)
}

/// Code and position of group `g` in partition 0 of `usage`.
fn position(client: &mut Client, require_stable: bool) -> (i16, i64) {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(name("usage"))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group_id("g"))
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default()
        .with_groups(vec![group])
        .with_require_stable(require_stable);
    let response = client.call(8, &request);
    let found = &response.groups[0].topics[0].partitions[0];
    (found.error_code, found.committed_offset)
}

fn commit_plainly(client: &mut Client, offset: i64) {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("usage"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id("g"))
        .with_topics(vec![topic]);
    let response = client.call(7, &request);
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

/// Begins a transaction that commits `offset` for group `g`.
fn begin(producer: &mut TxnProducer, offset: i64) {
    if producer.protocol == Protocol::First {
        assert_eq!(producer.add_group("g"), 0);
    }
    assert_eq!(producer.commit_offset("g", "usage", offset), 0);
}

#[test]
fn positions_wait_for_the_end_of_the_transaction() {
    for protocol in Protocol::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (broker, mut client) = with_topic(&dir);
        let mut producer = TxnProducer::new(broker.address(), "job", protocol);
        let mut before = -1;
        for (offset, committed) in [(10, true), (20, false), (30, true)] {
            begin(&mut producer, offset);
            assert_eq!(position(&mut client, false), (0, before), "{protocol:?}");
            assert_eq!(
                position(&mut client, true),
                (UNSTABLE_OFFSET_COMMIT, -1),
                "{protocol:?}"
            );
            assert_eq!(producer.end(committed), 0);
            before = if committed { offset } else { before };
            for require_stable in [true, false] {
                assert_eq!(position(&mut client, require_stable), (0, before));
            }
        }
    }
}

#[test]
fn positions_of_a_transaction_survive_a_crash() {
    for protocol in Protocol::BOTH {
        for committed in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (broker, mut client) = with_topic(&dir);
            commit_plainly(&mut client, 5);
            let mut producer = TxnProducer::new(broker.address(), "job", protocol);
            begin(&mut producer, 10);
            broker.crash();
            let (broker, mut client) = with_topic(&dir);
            assert_eq!(position(&mut client, true), (UNSTABLE_OFFSET_COMMIT, -1));
            assert_eq!(position(&mut client, false), (0, 5));

            // Decided, and the broker dies before the marker in the other partition.
            producer.client = Client::connect(broker.address());
            assert_eq!(producer.send("usage", "v").0, 0);
            let marker = Rule::new(ApiKey::WriteTxnMarkers, Action::Hold);
            let held = broker.faults().inject(marker);
            assert_eq!(producer.end(committed), 0);
            assert_eq!(held.fired(), 1);
            assert_eq!(position(&mut client, true), (UNSTABLE_OFFSET_COMMIT, -1));
            broker.crash();
            let (_broker, mut client) = with_topic(&dir);
            let expected = if committed { 10 } else { 5 };
            assert_eq!(position(&mut client, true), (0, expected));
        }
    }
}

#[test]
fn what_a_producer_gets_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::First);
    // In the first protocol a group is added before; older versions do not know the newer code.
    assert_eq!(producer.commit_offset("g", "usage", 1), 120);
    let request = producer.offset_request("g", "usage", 1);
    let response = client.call(3, &request);
    assert_eq!(response.topics[0].partitions[0].error_code, 48);

    assert_eq!(producer.add_group("g"), 0);
    assert_eq!(producer.commit_offset("g", "missing", 1), 3);
    assert_eq!(producer.commit_offset("", "usage", 1), 24);
    // A generation of a group without members is one of the past.
    let request = producer.offset_request("g", "usage", 1);
    let response = client.call(3, &request.with_generation_id(4));
    assert_eq!(response.topics[0].partitions[0].error_code, 22);
    producer.epoch += 1;
    assert_eq!(producer.add_group("g"), 90);
    assert_eq!(producer.commit_offset("g", "usage", 1), 47);
    producer.epoch -= 1;
    producer.producer_id += 1;
    assert_eq!(producer.add_group("g"), 49);
    assert_eq!(producer.commit_offset("g", "usage", 1), 49);
    producer.producer_id -= 1;
    assert_eq!(producer.end(true), 0);
    assert_eq!(position(&mut client, true), (0, -1));
}

#[test]
fn a_second_producer_drops_the_positions_of_the_first() {
    for protocol in Protocol::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (broker, mut client) = with_topic(&dir);
        let mut first = TxnProducer::new(broker.address(), "job", protocol);
        begin(&mut first, 10);
        TxnProducer::new(broker.address(), "job", protocol);
        assert_eq!(position(&mut client, true), (0, -1));
        assert_eq!(first.commit_offset("g", "usage", 11), 47);
    }
}

#[test]
fn a_position_committed_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    begin(&mut producer, 10);
    commit_plainly(&mut client, 20);
    assert_eq!(producer.end(true), 0);
    assert_eq!(position(&mut client, true), (0, 20));
}
