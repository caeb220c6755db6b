//! Fetching.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::common::{
    SOON, Seen, append, append_in, connect, connect_impatient, create, numbered, poll_until,
    records_of,
};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use tidegate_broker::{Action, ApiKey, Rule};
use tidegate_kafka::{
    Client, Consumer, ConsumerConfig, CoordinatorKind, ErrorKind, GroupConfig, Isolation, Reset,
};
use tidegate_testkit::{Cluster, for_each_kafka, unique_name};
use tidegate_wire::Compression;

fn reader(client: &Client, topic: &str, starts: &[(i32, i64)]) -> Consumer {
    let mut consumer = Consumer::open(client.clone(), ConsumerConfig::default()).unwrap();
    consumer.assign(topic, starts).unwrap();
    consumer
}

fn in_order(seen: &[Seen], partition: i32, first: i64) {
    let offsets: Vec<i64> = seen
        .iter()
        .filter(|record| record.partition == partition)
        .map(|record| record.offset)
        .collect();
    let expected: Vec<i64> = (first..).take(offsets.len()).collect();
    assert_eq!(offsets, expected, "partition {partition}");
}

#[test]
fn every_record_of_every_partition_is_read_in_order() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let topic = unique_name("all");
        create(&client, &topic, 3);
        for round in 0..20 {
            for partition in 0..3 {
                append(
                    &client,
                    &topic,
                    partition,
                    &numbered(round * 50..round * 50 + 50),
                );
            }
        }
        let mut consumer = reader(&client, &topic, &[(0, 0), (1, 10), (2, 999)]);
        let seen = poll_until(&mut consumer, |seen| seen.len() > 1000 + 990);
        for (partition, first) in [(0, 0), (1, 10), (2, 999)] {
            in_order(&seen, partition, first);
            assert_eq!(consumer.position(&topic, partition), Some(1000));
            assert_eq!(consumer.high_watermark(&topic, partition), Some(1000));
            assert_eq!(consumer.lag(&topic, partition), Some(0));
        }
        assert!(
            seen.iter()
                .all(|record| record.value == record.offset.to_string().into_bytes())
        );
        // New data is seen by a reader that waits at the end.
        append(&client, &topic, 0, &numbered(1000..1001));
        let more = poll_until(&mut consumer, |seen| !seen.is_empty());
        assert_eq!((more.len(), more[0].offset), (1, 1000));
    });
}

#[test]
fn each_compression_is_read() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let topic = unique_name("codecs");
        create(&client, &topic, 1);
        let codecs = [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ];
        let values = vec![vec![b'x'; 3000]; 100];
        for codec in codecs {
            append_in(&client, &topic, 0, &values, codec, None);
        }
        let mut consumer = reader(&client, &topic, &[(0, 0)]);
        let seen = poll_until(&mut consumer, |seen| seen.len() >= 500);
        in_order(&seen, 0, 0);
        assert!(seen.iter().all(|record| record.value == values[0]));
    });
}

#[test]
fn a_batch_larger_than_every_limit_is_still_read() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let topic = unique_name("large");
        create(&client, &topic, 2);
        let large = vec![vec![7; 700_000]];
        for partition in 0..2 {
            append_in(
                &client,
                &topic,
                partition,
                &numbered(0..1),
                Compression::None,
                None,
            );
            append_in(&client, &topic, partition, &large, Compression::None, None);
            append_in(
                &client,
                &topic,
                partition,
                &numbered(2..3),
                Compression::None,
                None,
            );
        }
        let config = ConsumerConfig {
            fetch_max_bytes: 1000,
            partition_max_bytes: 1000,
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(client, config).unwrap();
        consumer.assign(&topic, &[(0, 0), (1, 0)]).unwrap();
        let seen = poll_until(&mut consumer, |seen| seen.len() >= 6);
        in_order(&seen, 0, 0);
        in_order(&seen, 1, 0);
    });
}

#[test]
fn a_paused_partition_is_silent_and_loses_nothing() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let topic = unique_name("paused");
        create(&client, &topic, 2);
        let config = ConsumerConfig {
            partition_max_bytes: 200,
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(client.clone(), config).unwrap();
        for _ in 0..20 {
            append(&client, &topic, 0, &numbered(0..10));
            append(&client, &topic, 1, &numbered(0..10));
        }
        consumer.assign(&topic, &[(0, 0), (1, 0)]).unwrap();
        let mut seen = poll_until(&mut consumer, |seen| {
            seen.iter().any(|record| record.partition == 0)
        });
        // The next answer is on its way by now.
        consumer.pause(&topic, 0);
        let stopped_at = consumer.position(&topic, 0).unwrap();
        let other = poll_until(&mut consumer, |new| {
            new.iter().filter(|record| record.partition == 1).count()
                + seen.iter().filter(|record| record.partition == 1).count()
                >= 200
        });
        assert!(other.iter().all(|record| record.partition == 1));
        assert_eq!(consumer.position(&topic, 0), Some(stopped_at));
        seen.extend(other);
        consumer.resume(&topic, 0);
        let already = seen.len();
        seen.extend(poll_until(&mut consumer, |new| new.len() + already >= 400));
        in_order(&seen, 0, 0);
        in_order(&seen, 1, 0);
    });
}

#[test]
fn an_offset_outside_of_the_log_is_an_error_or_a_reset() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = (unique_name("range"), unique_name("range"));
        create(&client, &topic, 1);
        append(&client, &topic, 0, &numbered(0..3));
        let mut consumer = reader(&client, &topic, &[(0, 77)]);
        let error = loop {
            match consumer.poll(Duration::from_millis(200)) {
                Ok(fetched) => assert!(fetched.is_empty()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
        assert!(error.to_string().contains("offset 77"), "{error}");

        client
            .admin()
            .commit_offsets(&group, &topic, &[(0, 77)])
            .unwrap();
        let group = GroupConfig {
            reset: Reset::Earliest,
            ..GroupConfig::new(&group)
        };
        let config = ConsumerConfig {
            group: Some(group),
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(client.clone(), config).unwrap();
        consumer.subscribe(&[&topic]).unwrap();
        let seen = poll_until(&mut consumer, |seen| seen.len() >= 3);
        in_order(&seen, 0, 0);
        let jumps: Vec<(i32, i64, i64)> = consumer
            .take_jumps()
            .iter()
            .map(|jump| (jump.partition, jump.from, jump.to))
            .collect();
        assert_eq!(jumps, [(0, 77, 0)]);
        assert_eq!(consumer.take_jumps(), []);
        consumer.leave().unwrap();
    });
}

#[test]
fn a_missing_topic_is_said_to_be_missing_in_time() {
    for_each_kafka(|_, bootstrap| {
        let client = connect_impatient(bootstrap);
        let mut consumer = reader(&client, &unique_name("missing"), &[(0, 0)]);
        let started = Instant::now();
        let error = loop {
            assert!(started.elapsed() < SOON);
            match consumer.poll(Duration::from_millis(100)) {
                Ok(fetched) => assert!(fetched.is_empty()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TopicMissing, "{error}");
    });
}

#[test]
fn a_topic_made_again_under_its_name_is_noticed() {
    for_each_kafka(|_, bootstrap| {
        let client = connect_impatient(bootstrap);
        let topic = unique_name("again");
        create(&client, &topic, 1);
        append(&client, &topic, 0, &numbered(0..3));
        let mut consumer = reader(&client, &topic, &[(0, 0)]);
        poll_until(&mut consumer, |seen| seen.len() >= 3);
        client.admin().delete_topic(&topic).unwrap();
        let started = Instant::now();
        while client.admin().describe_topic(&topic).unwrap().is_some() {
            assert!(started.elapsed() < SOON, "the topic is not deleted");
        }
        create(&client, &topic, 1);
        for _ in 0..5 {
            append(&client, &topic, 0, &numbered(0..3));
        }
        let error = loop {
            assert!(started.elapsed() < SOON);
            match consumer.poll(Duration::from_millis(100)) {
                Ok(fetched) => assert!(fetched.is_empty(), "read on in another topic"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Topic, "{error}");
    });
}

#[test]
fn reading_survives_whatever_happens_to_its_requests() {
    let actions = [
        Action::DropAnswer,
        Action::DropRequest,
        Action::Disconnect,
        // UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH.
        Action::AnswerError(3),
        Action::AnswerError(6),
        Action::AnswerError(56),
        Action::AnswerError(74),
    ];
    for action in actions {
        let cluster = Cluster::embedded();
        let client = connect_impatient(cluster.bootstrap());
        create(&client, "t", 2);
        for partition in 0..2 {
            for _ in 0..10 {
                append(&client, "t", partition, &numbered(0..10));
            }
        }
        let config = ConsumerConfig {
            partition_max_bytes: 300,
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(client, config).unwrap();
        consumer.assign("t", &[(0, 0), (1, 0)]).unwrap();
        let faults = cluster.broker().unwrap().faults();
        let fault = faults.inject(Rule::new(ApiKey::Fetch, action).after(1).times(2));
        let seen = poll_until(&mut consumer, |seen| seen.len() >= 200);
        in_order(&seen, 0, 0);
        in_order(&seen, 1, 0);
        assert_eq!(fault.fired(), 2, "{action:?}");
    }
}

#[test]
fn a_broker_that_never_answers_again_is_an_error_in_the_end() {
    let cluster = Cluster::embedded();
    let client = connect_impatient(cluster.bootstrap());
    create(&client, "t", 1);
    let mut consumer = reader(&client, "t", &[(0, 0)]);
    let silent = cluster
        .broker()
        .unwrap()
        .faults()
        .inject(Rule::new(ApiKey::Fetch, Action::DropRequest));
    let started = Instant::now();
    let error = loop {
        assert!(started.elapsed() < SOON);
        match consumer.poll(Duration::from_millis(100)) {
            Ok(fetched) => assert!(fetched.is_empty()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(silent.fired() > 0);
}

/// Runs a transaction of one batch by hand.
fn transact(client: &Client, topic: &str, name: &str, values: &[Vec<u8>], commit: bool) {
    let started = Instant::now();
    let id = TransactionalId(StrBytes::from_string(name.to_owned()));
    let node = client
        .coordinator(CoordinatorKind::Transaction, name)
        .unwrap();
    let mut connection = client.open(node).unwrap();
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id.clone()))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    // The coordinator does not know yet that it is one, loads for a moment, or still completes the transaction before.
    let producer = loop {
        let answer = connection.call(&request).unwrap();
        match answer.error_code {
            0 => break answer,
            14 | 16 | 51 if started.elapsed() < SOON => {}
            code => panic!("InitProducerId: {code}"),
        }
    };
    let topics = AddPartitionsToTxnTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![0]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id.clone())
        .with_v3_and_below_producer_id(producer.producer_id)
        .with_v3_and_below_producer_epoch(producer.producer_epoch)
        .with_v3_and_below_topics(vec![topics]);
    loop {
        let answer = connection.call_version(&request, 3).unwrap();
        let result = &answer.results_by_topic_v3_and_below[0].results_by_partition[0];
        match result.partition_error_code {
            0 => break,
            51 if started.elapsed() < SOON => {}
            code => panic!("AddPartitionsToTxn: {code}"),
        }
    }
    let transaction = crate::common::Transaction {
        id: name,
        producer_id: producer.producer_id.0,
        epoch: producer.producer_epoch,
        sequence: 0,
    };
    append_in(
        client,
        topic,
        0,
        values,
        Compression::None,
        Some(transaction),
    );
    let request = EndTxnRequest::default()
        .with_transactional_id(id)
        .with_producer_id(producer.producer_id)
        .with_producer_epoch(producer.producer_epoch)
        .with_committed(commit);
    // The newest that Kafka 3.3 knows.
    assert_eq!(connection.call_version(&request, 3).unwrap().error_code, 0);
}

#[test]
fn aborted_transactions_are_not_seen() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let (topic, name) = (unique_name("transactions"), unique_name("transactional"));
        create(&client, &topic, 1);
        transact(&client, &topic, &name, &numbered(0..2), true);
        transact(&client, &topic, &name, &numbered(10..12), false);
        append(&client, &topic, 0, &numbered(20..21));
        transact(&client, &topic, &name, &numbered(30..32), true);

        let mut consumer = reader(&client, &topic, &[(0, 0)]);
        let seen = poll_until(&mut consumer, |seen| seen.len() >= 5);
        let values: BTreeSet<String> = seen
            .iter()
            .map(|record| String::from_utf8(record.value.clone()).unwrap())
            .collect();
        assert_eq!(
            values,
            ["0", "1", "20", "30", "31"].map(str::to_owned).into()
        );

        let config = ConsumerConfig {
            isolation: Isolation::ReadUncommitted,
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(client.clone(), config).unwrap();
        consumer.assign(&topic, &[(0, 0)]).unwrap();
        let seen = poll_until(&mut consumer, |seen| seen.len() >= 7);
        assert_eq!(seen.len(), 7);
        // Three markers: the position is past the last of them once it has been read.
        let started = Instant::now();
        while consumer.position(&topic, 0) != Some(10) {
            assert!(started.elapsed() < SOON);
            for fetched in consumer.poll(Duration::from_millis(100)).unwrap() {
                assert!(records_of(&fetched).is_empty());
            }
        }
    });
}
