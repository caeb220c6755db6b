//! The library as its users see it: a producer shared by threads, reports once per batch, and the wait for a group.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tidegate::kafka::{Client, ClientConfig, NewTopic};
use tidegate::registry::{Registry, RegistryConfig};
use tidegate::{
    AvroSerializer, Consumer, ErrorKind, LastOffsets, Producer, balance_offset,
    balance_offset_within, publish,
};
use tidegate_testkit::{Cluster, for_each_cluster};

const SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
    {"name": "timestamp", "type": "long"}, {"name": "cpu", "type": "double"}]}"#;

#[derive(Serialize)]
struct Usage {
    cpu: f64,
    timestamp: i64,
}

/// A topic of two partitions and a serializer for it.
fn prepare(cluster: &Cluster, topic: &str) -> Result<AvroSerializer, Box<dyn std::error::Error>> {
    let client = Client::connect(ClientConfig::new(cluster.bootstrap())?)?;
    client.admin().create_topic(&NewTopic {
        name: topic.to_owned(),
        partitions: Some(2),
        ..NewTopic::default()
    })?;
    let registry = Registry::new(RegistryConfig::new(cluster.registry_url()))?;
    Ok(AvroSerializer::register(
        &registry,
        &format!("{topic}-value"),
        SCHEMA,
    )?)
}

#[test]
fn threads_share_a_producer_and_each_record_is_reported_once() {
    for_each_cluster(|cluster| {
        let topic = cluster.unique("library");
        let serializer = prepare(cluster, &topic).unwrap();
        let producer = Producer::connect(cluster.bootstrap()).unwrap();
        let (last_offsets, reported) = (LastOffsets::new(), Arc::new(AtomicU64::new(0)));
        let next = Arc::new(Mutex::new([0_i64; 2]));
        let (keep, count, expected) = (
            last_offsets.clone(),
            Arc::clone(&reported),
            Arc::clone(&next),
        );
        producer.on_delivery(move |report| {
            assert!(report.result.is_ok(), "{report:?}");
            let mut expected = expected.lock().unwrap();
            let next = &mut expected[report.partition as usize];
            assert_eq!(
                report.base_offset,
                Some(*next),
                "batches of a partition are reported in order"
            );
            *next += i64::from(report.records);
            count.fetch_add(u64::from(report.records), Ordering::Relaxed);
            keep.keep(report);
        });
        thread::scope(|scope| {
            for thread in 0..4 {
                let (producer, serializer, topic) = (&producer, &serializer, &topic);
                scope.spawn(move || {
                    for number in 0..500 {
                        let message = Usage {
                            cpu: 0.5,
                            timestamp: thread * 500 + number,
                        };
                        publish(producer, &message, topic, serializer).unwrap();
                    }
                });
            }
        });
        producer.flush().unwrap();
        assert_eq!(reported.load(Ordering::Relaxed), 2_000);
        let last: i64 = last_offsets
            .to_vec()
            .iter()
            .map(|(_, _, offset)| offset + 1)
            .sum();
        assert_eq!(last, 2_000);
    });
}

#[test]
fn balance_is_reached_only_when_the_group_has_committed() {
    for_each_cluster(|cluster| {
        let (topic, group) = (cluster.unique("library"), cluster.unique("group"));
        let serializer = prepare(cluster, &topic).unwrap();
        let producer = Producer::connect(cluster.bootstrap()).unwrap();
        let last_offsets = LastOffsets::new();
        let keep = last_offsets.clone();
        producer.on_delivery(move |report| keep.keep(report));
        for timestamp in 0..20 {
            publish(
                &producer,
                &Usage {
                    cpu: 1.0,
                    timestamp,
                },
                &topic,
                &serializer,
            )
            .unwrap();
        }
        producer.flush().unwrap();
        let consumer = Consumer::connect(cluster.bootstrap(), &group, &[&topic]).unwrap();
        let behind = balance_offset_within(&consumer, &last_offsets, Duration::ZERO).unwrap_err();
        assert_eq!(behind.kind(), ErrorKind::Behind);
        let mut keys = Vec::new();
        while keys.len() < 20 {
            let messages = consumer.poll(Duration::from_millis(200)).unwrap();
            keys.extend(
                messages
                    .into_iter()
                    .map(|message| String::from_utf8(message.key.unwrap()).unwrap()),
            );
        }
        let behind = balance_offset_within(&consumer, &last_offsets, Duration::ZERO).unwrap_err();
        assert_eq!(behind.kind(), ErrorKind::Behind, "read is not committed");
        consumer.commit().unwrap();
        balance_offset(&consumer, &last_offsets).unwrap();
        keys.sort_by_key(|key| key.parse::<u32>().unwrap());
        assert_eq!(
            keys,
            (0..20)
                .map(|timestamp| timestamp.to_string())
                .collect::<Vec<_>>()
        );
        consumer.leave().unwrap();
    });
}

#[test]
fn a_missing_topic_is_an_error_that_names_it() {
    for_each_cluster(|cluster| {
        let producer = Producer::connect(cluster.bootstrap()).unwrap();
        let topic = cluster.unique("missing");
        let error = producer.send(&topic, None, Some(b"x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Kafka);
        assert!(error.to_string().contains(&topic), "{error}");
    });
}
