//! Transactions through the broker's sockets, in both protocols: what readers see, who is fenced, what a
//! crash leaves.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, ApiVersionsRequest, DescribeProducersRequest,
    DescribeTransactionsRequest, ListTransactionsRequest,
};
use kafka_protocol::protocol::Encodable as _;
use support::transactional::{
    Protocol, READ_COMMITTED, READ_UNCOMMITTED, TxnProducer, end_offset, read, transactional_id,
    values,
};
use support::{Client, batch, fetch};
use tidegate_broker::{Action, ApiKey, Broker, BrokerConfig, Rule};
use tidegate_wire::{Marker, encode_marker};

const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const PRODUCER_FENCED: i16 = 90;
const TRANSACTION_ABORTABLE: i16 = 120;

const PATIENCE: Duration = Duration::from_secs(10);

fn start(dir: &tempfile::TempDir) -> Broker {
    Broker::start(BrokerConfig::new(dir.path())).unwrap()
}

/// A broker whose topic `usage` is there, and a client of it.
fn with_topic(dir: &tempfile::TempDir) -> (Broker, Client) {
    let broker = start(dir);
    let mut client = Client::connect(broker.address());
    client.create("usage");
    (broker, client)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn committed_is_seen_aborted_is_not() {
    for protocol in Protocol::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (broker, mut client) = with_topic(&dir);
        let mut producer = TxnProducer::new(broker.address(), "job", protocol);
        for (number, committed) in [true, false, true].into_iter().enumerate() {
            for part in ["a", "b"] {
                let (code, _) = producer.send("usage", &format!("{number}{part}"));
                assert_eq!(code, 0, "{protocol:?}");
            }
            assert_eq!(producer.end(committed), 0);
        }
        // Each marker takes an offset: 2, 5, 8.
        let committed = [(0, "0a"), (1, "0b"), (6, "2a"), (7, "2b")]
            .map(|(offset, value)| (offset, value.to_owned()));
        assert_eq!(read(&mut client, "usage", READ_COMMITTED), committed);
        let all = values(&mut client, "usage", READ_UNCOMMITTED);
        assert_eq!(all, ["0a", "0b", "1a", "1b", "2a", "2b"]);
        for isolation in [READ_COMMITTED, READ_UNCOMMITTED] {
            assert_eq!(end_offset(&mut client, "usage", isolation), 9);
        }
    }
}

#[test]
fn readers_of_committed_records_stop_before_the_first_open_transaction() {
    for protocol in Protocol::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (broker, mut client) = with_topic(&dir);
        let mut first = TxnProducer::new(broker.address(), "first", protocol);
        let mut second = TxnProducer::new(broker.address(), "second", protocol);
        assert_eq!(client.produce("usage", batch(b"plain", -1, -1)), (0, 0));
        assert_eq!(second.send("usage", "second"), (0, 1));
        assert_eq!(first.send("usage", "first"), (0, 2));
        assert_eq!(first.end(true), 0);
        // The second one is open: what was committed behind its first record is not to be had yet.
        assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), 1);
        assert_eq!(end_offset(&mut client, "usage", READ_UNCOMMITTED), 4);
        assert_eq!(values(&mut client, "usage", READ_COMMITTED), ["plain"]);
        let all = values(&mut client, "usage", READ_UNCOMMITTED);
        assert_eq!(all, ["plain", "second", "first"]);

        assert_eq!(second.end(false), 0);
        assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), 5);
        let committed = values(&mut client, "usage", READ_COMMITTED);
        assert_eq!(committed, ["plain", "first"]);
    }
}

#[test]
fn a_reader_that_waits_is_woken_by_the_marker() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = with_topic(&dir);
    let address = broker.address();
    let mut producer = TxnProducer::new(address, "job", Protocol::Second);
    assert_eq!(producer.send("usage", "v"), (0, 0));
    let waiting = thread::spawn(move || {
        let request = fetch("usage", 0, 15_000).with_isolation_level(READ_COMMITTED);
        let begun = Instant::now();
        let response = Client::connect(address).call(12, &request);
        let data = &response.responses[0].partitions[0];
        assert!(!data.records.as_ref().unwrap().is_empty());
        (data.last_stable_offset, begun.elapsed())
    });
    // Not before: a record that nobody may read yet is not worth an answer.
    thread::sleep(Duration::from_millis(200));
    assert!(!waiting.is_finished());
    assert_eq!(producer.end(true), 0);
    let (stable, elapsed) = waiting.join().unwrap();
    assert_eq!(stable, 2);
    assert!(elapsed < PATIENCE, "{elapsed:?}");
}

#[test]
fn the_second_protocol_brings_an_epoch_with_each_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    for round in 0..4 {
        assert_eq!(producer.epoch, round);
        let (code, _) = producer.send("usage", &round.to_string());
        assert_eq!(code, 0);
        assert_eq!(producer.end(true), 0);
    }
    // The answer was lost and EndTxn is sent again: the same answer, and nothing ends twice.
    producer.epoch = 3;
    assert_eq!((producer.end(true), producer.epoch), (0, 4));
    assert_eq!(end_offset(&mut client, "usage", READ_UNCOMMITTED), 8);
    // A delayed EndTxn of a transaction before that ends nothing either.
    assert_eq!(producer.send("usage", "open"), (0, 8));
    let current = producer.epoch;
    for stale in [0, 2] {
        producer.epoch = stale;
        assert_eq!(producer.end(true), PRODUCER_FENCED);
    }
    producer.epoch = current - 1;
    assert_eq!(producer.end(true), PRODUCER_FENCED);
    producer.epoch = current;
    assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), 8);
    assert_eq!(producer.end(false), 0);
    // An abort of nothing is allowed, a commit is not.
    assert_eq!(producer.end(true), INVALID_TXN_STATE);
    assert_eq!((producer.end(false), producer.epoch), (0, 6));
}

#[test]
fn a_late_batch_of_an_ended_transaction_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    assert_eq!(producer.send("usage", "a"), (0, 0));
    assert_eq!(producer.end(true), 0);
    producer.epoch -= 1;
    let (code, _) = producer.send_only("usage", "late");
    assert_eq!(code, INVALID_PRODUCER_EPOCH);
    producer.epoch += 1;
    // A partition that the transaction before did not know is no way in.
    client.create("other");
    producer.epoch -= 1;
    let (code, _) = producer.send_only("other", "late");
    assert_eq!(code, INVALID_PRODUCER_EPOCH);
    assert_eq!(values(&mut client, "usage", READ_UNCOMMITTED), ["a"]);
    assert_eq!(end_offset(&mut client, "other", READ_UNCOMMITTED), 0);
}

#[test]
fn a_second_producer_fences_the_first_and_aborts_what_it_left() {
    for protocol in Protocol::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (broker, mut client) = with_topic(&dir);
        let mut first = TxnProducer::new(broker.address(), "job", protocol);
        assert_eq!(first.send("usage", "lost"), (0, 0));
        let mut second = TxnProducer::connect(broker.address(), "job", protocol);
        assert_eq!(second.init_as(-1, -1), CONCURRENT_TRANSACTIONS);
        assert_eq!(second.init_as(-1, -1), 0);
        assert_eq!(second.producer_id, first.producer_id);
        assert_eq!(second.epoch, first.epoch + 2, "{protocol:?}");

        let (code, _) = first.send_only("usage", "late");
        assert_eq!(code, INVALID_PRODUCER_EPOCH, "{protocol:?}");
        assert_eq!(first.add("usage"), PRODUCER_FENCED);
        assert_eq!(first.end(true), PRODUCER_FENCED);
        assert_eq!(first.end(false), PRODUCER_FENCED);
        let (producer_id, epoch) = (first.producer_id, first.epoch);
        assert_eq!(first.init_as(producer_id, epoch), PRODUCER_FENCED);

        let (code, _) = second.send("usage", "kept");
        assert_eq!(code, 0);
        assert_eq!(second.end(true), 0);
        assert_eq!(values(&mut client, "usage", READ_COMMITTED), ["kept"]);
    }
}

#[test]
fn a_producer_that_goes_on_after_an_error_keeps_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::First);
    let (producer_id, epoch) = (producer.producer_id, producer.epoch);
    assert_eq!(producer.init_as(producer_id, epoch), 0);
    assert_eq!((producer.producer_id, producer.epoch), (producer_id, 1));
    // A resend of the same request, then one that has a hole in it.
    assert_eq!(producer.init_as(producer_id, epoch), 0);
    assert_eq!(producer.epoch, 1);
    assert_eq!(producer.init_as(producer_id, -1), 42);
    assert_eq!(producer.init_as(producer_id + 1, 1), PRODUCER_FENCED);
}

#[test]
fn what_a_producer_gets_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::connect(broker.address(), "job", Protocol::First);
    producer.timeout_ms = 15 * 60 * 1000 + 1;
    assert_eq!(producer.init(), INVALID_TRANSACTION_TIMEOUT);
    producer.timeout_ms = 0;
    assert_eq!(producer.init(), INVALID_TRANSACTION_TIMEOUT);
    producer.timeout_ms = 15 * 60 * 1000;
    (producer.producer_id, producer.epoch) = (5, 0);
    assert_eq!(producer.end(true), INVALID_PRODUCER_ID_MAPPING);
    assert_eq!(producer.add("usage"), INVALID_PRODUCER_ID_MAPPING);
    let (code, _) = producer.send_only("usage", "v");
    assert_eq!(code, INVALID_PRODUCER_ID_MAPPING);

    assert_eq!(producer.init(), 0);
    assert_eq!(producer.end(true), INVALID_TXN_STATE);
    assert_eq!(producer.add("missing"), 3);
    // In the first protocol a partition is added before it is written to.
    let (code, _) = producer.send_only("usage", "v");
    assert_eq!(code, TRANSACTION_ABORTABLE);
    assert_eq!(producer.add("usage"), 0);
    assert_eq!(producer.send_only("usage", "v"), (0, 0));
    producer.epoch += 1;
    assert_eq!(producer.end(true), PRODUCER_FENCED);
    producer.epoch -= 1;
    // Without a transaction of its own a batch of this producer would be lost in it.
    let plain = batch(b"plain", producer.producer_id, 1);
    assert_eq!(client.produce("usage", plain), (INVALID_TXN_STATE, -1));
    assert_eq!(producer.end(false), 0);
    assert_eq!(producer.end(true), INVALID_TXN_STATE);
    producer.id = String::new();
    assert_eq!(producer.init(), 42);
    assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), 2);
}

#[test]
fn nobody_writes_into_the_transaction_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    assert_eq!(producer.send("usage", "a"), (0, 0));
    TxnProducer::new(broker.address(), "other", Protocol::Second);
    let mut code = |id: &str, batch: Vec<u8>| {
        let request = support::produce("usage", batch);
        let request = request.with_transactional_id(Some(transactional_id(id)));
        let response = client.call(12, &request);
        response.responses[0].partition_responses[0].error_code
    };
    let next = producer.batch("foreign", 1);
    assert_eq!(code("other", next.clone()), INVALID_PRODUCER_ID_MAPPING);
    assert_eq!(code("unknown", next), INVALID_PRODUCER_ID_MAPPING);
    // Epochs that were never handed out.
    for ahead in [1, 5] {
        producer.epoch += ahead;
        let batch = producer.batch("ahead", 0);
        assert_eq!(code("job", batch), INVALID_PRODUCER_EPOCH);
        producer.epoch -= ahead;
    }
    // Markers are the broker's to write.
    let marker = encode_marker(Marker::Commit, producer.producer_id, 0, 0, 1_000_000);
    assert_eq!(code("job", marker), 87);
    let mut nobody = TxnProducer::connect(broker.address(), "job", Protocol::Second);
    nobody.epoch = 0;
    assert_eq!(code("job", nobody.batch("nobody", 0)), 87);
    assert_eq!(producer.end(true), 0);
    let mut client = Client::connect(broker.address());
    assert_eq!(values(&mut client, "usage", READ_COMMITTED), ["a"]);
}

#[test]
fn brokers_may_ask_for_several_transactions_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let first = TxnProducer::new(broker.address(), "first", Protocol::First);
    let mut second = TxnProducer::new(broker.address(), "second", Protocol::First);
    assert_eq!(second.add("usage"), 0);
    let asked = |producer: &TxnProducer, partitions: &[i32], verify_only: bool| {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(support::name("usage"))
            .with_partitions(partitions.to_vec());
        AddPartitionsToTxnTransaction::default()
            .with_transactional_id(transactional_id(&producer.id))
            .with_producer_id(producer.producer_id.into())
            .with_producer_epoch(producer.epoch)
            .with_verify_only(verify_only)
            .with_topics(vec![topic])
    };
    let mut ask = |transactions: Vec<AddPartitionsToTxnTransaction>| -> Vec<Vec<i16>> {
        let request = AddPartitionsToTxnRequest::default().with_transactions(transactions);
        let response = client.call(5, &request);
        let results = response.results_by_transaction.iter();
        let codes = results.map(|result| {
            let partitions = &result.topic_results[0].results_by_partition;
            let codes = partitions.iter().map(|one| one.partition_error_code);
            codes.collect()
        });
        codes.collect()
    };
    let verified = ask(vec![asked(&first, &[0], true), asked(&second, &[0], true)]);
    assert_eq!(verified, [[TRANSACTION_ABORTABLE], [0]]);
    // One partition that is not there keeps the others out.
    let added = ask(vec![asked(&first, &[0, 7], false)]);
    assert_eq!(added, [[55, 3]]);
    let added = ask(vec![
        asked(&first, &[0], false),
        asked(&second, &[0], false),
    ]);
    assert_eq!(added, [[0], [0]]);
    let verified = ask(vec![asked(&first, &[0], true)]);
    assert_eq!(verified, [[0]]);
}

#[test]
fn requests_that_are_cut_off_end_their_connection_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    let mut body = bytes::BytesMut::new();
    let request = producer.offset_request("g", "usage", 1);
    request.encode(&mut body, 3).unwrap();
    for cut in 0..body.len() {
        let mut frame = vec![0, 28, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0];
        frame.extend_from_slice(&body[..cut]);
        let mut stream = std::net::TcpStream::connect(broker.address()).unwrap();
        let length = i32::try_from(frame.len()).unwrap().to_be_bytes();
        stream.write_all(&length).unwrap();
        stream.write_all(&frame).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "cut at {cut}: {ended:?}");
    }
    client.create("still-there");
}

#[test]
fn the_second_protocol_begins_each_transaction_at_sequence_zero() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    // The second batch overtook a first one that never came.
    let request = support::produce("usage", producer.batch("second", 1))
        .with_transactional_id(Some(support::transactional::transactional_id("job")));
    let response = producer.client.call(12, &request);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 45);
    assert_eq!(producer.send("usage", "first"), (0, 0));
    assert_eq!(producer.end(true), 0);
}

#[test]
fn the_finalised_version_is_as_configured() {
    for level in 0..=2 {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig {
            transaction_version: level,
            ..BrokerConfig::new(dir.path())
        };
        let broker = Broker::start(config).unwrap();
        let request = ApiVersionsRequest::default()
            .with_client_software_name("test".into())
            .with_client_software_version("1".into());
        let response = Client::connect(broker.address()).call(4, &request);
        assert!(response.finalized_features_epoch >= 0);
        let found: Vec<(&str, i16)> = response
            .finalized_features
            .iter()
            .map(|feature| (&*feature.name, feature.max_version_level))
            .collect();
        match level {
            0 => assert_eq!(found, []),
            _ => assert_eq!(found, [("transaction.version", level)]),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        transaction_version: 3,
        ..BrokerConfig::new(dir.path())
    };
    assert!(Broker::start(config).is_err());
}

// For administrators.

#[test]
fn transactions_and_producers_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut open = TxnProducer::new(broker.address(), "open", Protocol::Second);
    let mut done = TxnProducer::new(broker.address(), "done", Protocol::Second);
    assert_eq!(done.send("usage", "a"), (0, 0));
    assert_eq!(done.end(true), 0);
    assert_eq!(open.send("usage", "b"), (0, 2));

    let ids = ["open", "done", "unknown", ""].map(transactional_id);
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids.to_vec());
    let response = client.call(0, &request);
    let found: Vec<(i16, &str, i64, i16)> = response
        .transaction_states
        .iter()
        .map(|state| {
            let (producer, epoch) = (state.producer_id.0, state.producer_epoch);
            (state.error_code, &*state.transaction_state, producer, epoch)
        })
        .collect();
    assert_eq!(found[0], (0, "Ongoing", open.producer_id, 0));
    assert_eq!(found[1], (0, "CompleteCommit", done.producer_id, 1));
    assert_eq!((found[2].0, found[3].0), (105, 42));
    let described = &response.transaction_states[0];
    assert_eq!(described.topics[0].partitions, [0]);
    assert_eq!(described.transaction_timeout_ms, 60_000);
    assert!(described.transaction_start_time_ms > 0);

    let list = |client: &mut Client, states: &[&'static str], duration: i64| {
        let states = states.iter().map(|state| (*state).into()).collect();
        let request = ListTransactionsRequest::default()
            .with_state_filters(states)
            .with_duration_filter(duration);
        let response = client.call(1, &request);
        let found = response.transaction_states.iter();
        let found: Vec<String> = found
            .map(|state| state.transactional_id.to_string())
            .collect();
        (found, response.unknown_state_filters.len())
    };
    let ids = |ids: &[&str]| -> Vec<String> { ids.iter().map(|&id| id.to_owned()).collect() };
    assert_eq!(list(&mut client, &[], -1), (ids(&["done", "open"]), 0));
    let ongoing = list(&mut client, &["Ongoing", "Asleep"], -1);
    assert_eq!(ongoing, (ids(&["open"]), 1));
    assert_eq!(list(&mut client, &[], 3_600_000), (ids(&[]), 0));

    let topic = TopicRequest::default()
        .with_name(support::name("usage"))
        .with_partition_indexes(vec![0, 1]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let response = client.call(0, &request);
    let partitions = &response.topics[0].partitions;
    assert_eq!(partitions[1].error_code, 3);
    let found: Vec<(i64, i32, i32, i64)> = partitions[0]
        .active_producers
        .iter()
        .map(|producer| {
            let (id, epoch) = (producer.producer_id.0, producer.producer_epoch);
            let open = producer.current_txn_start_offset;
            (id, epoch, producer.last_sequence, open)
        })
        .collect();
    let expected = [(open.producer_id, 0, 0, 2), (done.producer_id, 1, -1, -1)];
    assert_eq!(found, expected);
}

// Over crashes.

/// The same directory again, after a crash.
fn crash_and_start(broker: Broker, dir: &tempfile::TempDir) -> (Broker, Client) {
    broker.crash();
    let broker = start(dir);
    let client = Client::connect(broker.address());
    (broker, client)
}

/// Sends with whatever connection there is now.
fn reconnect(producer: &mut TxnProducer, address: SocketAddr) {
    producer.client = Client::connect(address);
}

#[test]
fn an_open_transaction_goes_on_after_a_crash() {
    for protocol in Protocol::BOTH {
        for committed in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (broker, _) = with_topic(&dir);
            let mut producer = TxnProducer::new(broker.address(), "job", protocol);
            assert_eq!(producer.send("usage", "before"), (0, 0));
            let (broker, mut client) = crash_and_start(broker, &dir);
            assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), 0);
            reconnect(&mut producer, broker.address());
            assert_eq!(producer.send("usage", "after"), (0, 1));
            assert_eq!(producer.end(committed), 0);
            let (_broker, mut client) = crash_and_start(broker, &dir);
            let expected: &[&str] = if committed { &["before", "after"] } else { &[] };
            assert_eq!(values(&mut client, "usage", READ_COMMITTED), expected);
            assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), 3);
        }
    }
}

#[test]
fn what_was_decided_is_carried_out_after_a_crash() {
    for protocol in Protocol::BOTH {
        for committed in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (broker, mut client) = with_topic(&dir);
            client.create("other");
            let mut producer = TxnProducer::new(broker.address(), "job", protocol);
            assert_eq!(producer.send("usage", "a"), (0, 0));
            assert_eq!(producer.send("other", "b"), (0, 0));
            // One marker is written, the other one is not when the broker dies.
            let marker = Rule::new(ApiKey::WriteTxnMarkers, Action::Hold).topic("usage");
            let held = broker.faults().inject(marker);
            assert_eq!(producer.end(committed), 0);
            assert_eq!(held.fired(), 1);
            assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), 0);
            assert_eq!(end_offset(&mut client, "other", READ_COMMITTED), 2);

            let (broker, mut client) = crash_and_start(broker, &dir);
            let [a, b]: [&[&str]; 2] = if committed {
                [&["a"], &["b"]]
            } else {
                [&[], &[]]
            };
            assert_eq!(values(&mut client, "usage", READ_COMMITTED), a);
            assert_eq!(values(&mut client, "other", READ_COMMITTED), b);
            // The marker that was there is not there twice.
            for topic in ["usage", "other"] {
                assert_eq!(end_offset(&mut client, topic, READ_UNCOMMITTED), 2);
            }
            reconnect(&mut producer, broker.address());
            assert_eq!(producer.send("usage", "next").0, 0);
            assert_eq!(producer.end(true), 0);
        }
    }
}

#[test]
fn a_marker_held_back_leaves_the_transaction_undecided_to_readers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    let marker = Rule::new(ApiKey::WriteTxnMarkers, Action::Hold)
        .when(|seen| seen.transactional_id.as_deref() == Some("job"));
    let held = broker.faults().inject(marker);
    assert_eq!(producer.send("usage", "a"), (0, 0));
    assert_eq!(producer.end(true), 0);
    assert_eq!(values(&mut client, "usage", READ_COMMITTED), [""; 0]);
    // The next transaction has to wait, and so has a new producer.
    let (code, _) = producer.send_only("other", "b");
    assert_eq!(code, 3);
    client.create("other");
    let (code, _) = producer.send_only("other", "b");
    assert_eq!(code, CONCURRENT_TRANSACTIONS);
    let mut second = TxnProducer::connect(broker.address(), "job", Protocol::Second);
    assert_eq!(second.init_as(-1, -1), CONCURRENT_TRANSACTIONS);
    held.remove();
    eventually("the marker is written", || {
        end_offset(&mut client, "usage", READ_COMMITTED) == 2
    });
    assert_eq!(producer.send("other", "b").0, 0);
    assert_eq!(producer.end(true), 0);
}

#[test]
fn a_marker_that_gets_lost_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = with_topic(&dir);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    let marker = Rule::new(ApiKey::WriteTxnMarkers, Action::DropRequest).times(2);
    let lost = broker.faults().inject(marker);
    assert_eq!(producer.send("usage", "a"), (0, 0));
    assert_eq!(producer.end(true), 0);
    eventually("the marker is written", || {
        end_offset(&mut client, "usage", READ_COMMITTED) == 2
    });
    assert_eq!(lost.fired(), 2);
}

#[test]
fn aborted_transactions_are_known_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let config = |dir: &tempfile::TempDir| BrokerConfig {
        segment_bytes: 1024,
        ..BrokerConfig::new(dir.path())
    };
    let broker = Broker::start(config(&dir)).unwrap();
    let mut client = Client::connect(broker.address());
    client.create("usage");
    let mut producers = [0, 1, 2].map(|number| {
        TxnProducer::new(broker.address(), &format!("job {number}"), Protocol::Second)
    });
    let mut expected = Vec::new();
    for round in 0..60_usize {
        let committed = round % 3 != 1;
        let producer = &mut producers[round % 2];
        for part in 0..round % 4 + 1 {
            let value = format!("{round}.{part}");
            let (code, offset) = producer.send("usage", &value);
            assert_eq!(code, 0);
            if committed {
                expected.push((offset, value));
            }
        }
        assert_eq!(producer.end(committed), 0);
    }
    // One stays open, behind all that counts.
    let (code, open_at) = producers[2].send("usage", "open");
    assert_eq!(code, 0);
    assert_eq!(read(&mut client, "usage", READ_COMMITTED), expected);
    broker.crash();
    let broker = Broker::start(config(&dir)).unwrap();
    let mut client = Client::connect(broker.address());
    assert_eq!(read(&mut client, "usage", READ_COMMITTED), expected);
    assert_eq!(end_offset(&mut client, "usage", READ_COMMITTED), open_at);
}

// Time.

/// A broker of that finalised version, with the topic `usage`, and a producer whose transactions may take
/// 300 ms.
fn with_short_transactions(
    dir: &tempfile::TempDir,
    protocol: Protocol,
) -> (Broker, Client, TxnProducer) {
    let config = BrokerConfig {
        transaction_version: match protocol {
            Protocol::First => 1,
            Protocol::Second => 2,
        },
        ..BrokerConfig::new(dir.path())
    };
    let broker = Broker::start(config).unwrap();
    let mut client = Client::connect(broker.address());
    client.create("usage");
    let mut producer = TxnProducer::connect(broker.address(), "job", protocol);
    producer.timeout_ms = 300;
    assert_eq!(producer.init(), 0);
    (broker, client, producer)
}

#[test]
fn a_transaction_out_of_time_is_aborted() {
    for protocol in Protocol::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let (_broker, mut client, mut producer) = with_short_transactions(&dir, protocol);
        let begun = Instant::now();
        assert_eq!(producer.send("usage", "slow"), (0, 0));
        eventually("the transaction is aborted", || {
            end_offset(&mut client, "usage", READ_COMMITTED) == 2
        });
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert_eq!(values(&mut client, "usage", READ_COMMITTED), [""; 0]);
        let (code, _) = producer.send_only("usage", "late");
        assert_eq!(code, INVALID_PRODUCER_EPOCH, "{protocol:?}");
        let (commit, abort) = match protocol {
            Protocol::First => (PRODUCER_FENCED, PRODUCER_FENCED),
            Protocol::Second => (INVALID_TXN_STATE, 0),
        };
        assert_eq!(producer.end(true), commit, "{protocol:?}");
        assert_eq!(producer.end(false), abort, "{protocol:?}");
        if protocol == Protocol::First {
            assert_eq!(producer.init(), 0);
        }
        assert_eq!(producer.send("usage", "quick").0, 0);
        assert_eq!(producer.end(true), 0);
        assert_eq!(values(&mut client, "usage", READ_COMMITTED), ["quick"]);
    }
}

#[test]
fn time_runs_on_while_the_broker_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _, mut producer) = with_short_transactions(&dir, Protocol::Second);
    assert_eq!(producer.send("usage", "slow"), (0, 0));
    broker.crash();
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let (_broker, mut client) = with_topic(&dir);
    eventually("the transaction is aborted", || {
        end_offset(&mut client, "usage", READ_COMMITTED) == 2
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
}
