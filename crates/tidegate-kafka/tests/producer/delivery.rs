//! Without faults: everything arrives, in the batches it should be in.

use std::time::{Duration, Instant};

use tidegate_kafka::ErrorKind;
use tidegate_kafka::producer::{Producer, ProducerConfig, ProducerRecord};
use tidegate_testkit::{for_each_kafka, unique_name};
use tidegate_wire::{Compression, RecordHeader};

use crate::common::{Load, SOON, create, patient, small_batches};

#[test]
fn everything_arrives_once_in_order_in_every_compression() {
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for_each_kafka(|_, bootstrap| {
        let client = patient(bootstrap);
        for compression in codecs {
            for partitions in [1, 4] {
                let topic = unique_name("delivery");
                create(&client, &topic, partitions, &[]);
                let config = ProducerConfig {
                    compression,
                    compression_threads: 3,
                    ..small_batches()
                };
                let mut load = Load::open(&client, &topic, config);
                load.append(3_000).unwrap();
                load.flush().unwrap();
                load.append(500).unwrap();
                load.flush().unwrap();
                load.check(&client, &topic);
            }
        }
    });
}

#[test]
fn two_topics_of_many_partitions_share_a_producer() {
    for_each_kafka(|_, bootstrap| {
        let client = patient(bootstrap);
        let (many, one) = (unique_name("many"), unique_name("one"));
        create(&client, &many, 60, &[]);
        create(&client, &one, 1, &[]);
        let mut load = Load::open(&client, &many, small_batches());
        let other = load.producer.topic(&one).unwrap();
        assert_eq!((load.topic.partitions(), other.partitions()), (60, 1));
        load.append(6_000).unwrap();
        let record = ProducerRecord {
            value: Some(b"7"),
            ..ProducerRecord::default()
        };
        load.producer.append(other, 0, record).unwrap();
        load.flush().unwrap();
        let (of_other, of_many): (Vec<_>, Vec<_>) = load
            .settled
            .drain(..)
            .partition(|batch| batch.topic == other);
        assert_eq!((of_other.len(), of_other[0].base_offset), (1, Some(0)));
        load.settled = of_many;
        load.check(&client, &many);
    });
}

#[test]
fn a_record_that_lingers_is_sealed_by_whoever_waits() {
    for_each_kafka(|_, bootstrap| {
        let client = patient(bootstrap);
        let topic = unique_name("linger");
        create(&client, &topic, 2, &[]);
        let config = ProducerConfig {
            linger: Duration::from_millis(50),
            ..ProducerConfig::default()
        };
        let mut load = Load::open(&client, &topic, config);
        load.append(1).unwrap();
        let started = Instant::now();
        assert!(load.producer.wait(SOON, &mut load.settled).unwrap());
        assert!(started.elapsed() >= Duration::from_millis(40));
        assert!(started.elapsed() < SOON / 2, "{:?}", started.elapsed());
        let nap = Duration::from_millis(20);
        assert!(!load.producer.wait(nap, &mut load.settled).unwrap());
        load.check(&client, &topic);
    });
}

#[test]
fn a_batch_is_no_larger_than_the_topic_takes() {
    for_each_kafka(|_, bootstrap| {
        let client = patient(bootstrap);
        let topic = unique_name("small");
        create(&client, &topic, 1, &[("max.message.bytes", "5000")]);
        let config = ProducerConfig {
            compression: Compression::None,
            ..ProducerConfig::default()
        };
        let mut load = Load::open(&client, &topic, config);
        assert!((4_900..5_000).contains(&load.producer.batch_size()));
        load.append(2_000).unwrap();
        load.flush().unwrap();
        load.check(&client, &topic);
    });
}

#[test]
fn a_record_that_the_topic_does_not_take_fails_at_once_naming_its_row() {
    for_each_kafka(|_, bootstrap| {
        let client = patient(bootstrap);
        let topic = unique_name("large");
        create(&client, &topic, 2, &[("max.message.bytes", "5000")]);
        let config = ProducerConfig {
            compression: Compression::None,
            ..ProducerConfig::default()
        };
        let mut load = Load::open(&client, &topic, config);
        load.append(10).unwrap();
        load.flush().unwrap();
        let record = ProducerRecord {
            value: Some(&[7; 20_000]),
            tag: 4711,
            ..ProducerRecord::default()
        };
        load.producer.append(load.topic, 1, record).unwrap();
        let started = Instant::now();
        let error = load.flush().unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        let message = error.to_string();
        let place =
            format!("topic {topic}, partition 1, rows 4711 to 4711: MESSAGE_TOO_LARGE (10)");
        assert!(message.starts_with(&place), "{message}");
        let failed = load.settled.last().unwrap();
        assert_eq!(failed.first_tag, 4711);
        let failure = failed.result.as_ref().unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::TooLarge);
        // It stays failed.
        assert!(load.append(100_000).is_err());
        assert!(load.flush().is_err());
    });
}

#[test]
fn keys_values_headers_and_timestamps_arrive_as_they_were() {
    for_each_kafka(|_, bootstrap| {
        let client = patient(bootstrap);
        let topic = unique_name("content");
        create(&client, &topic, 1, &[]);
        let mut producer = Producer::open(client.clone(), ProducerConfig::default()).unwrap();
        let handle = producer.topic(&topic).unwrap();
        let headers = [
            RecordHeader {
                name: "a",
                value: Some(b"1"),
            },
            RecordHeader {
                name: "a",
                value: None,
            },
        ];
        let full = ProducerRecord {
            key: Some(b"k"),
            value: Some(b"v"),
            headers: &headers,
            timestamp: Some(1_600_000_000_000),
            tag: 1,
        };
        producer.append(handle, 0, full).unwrap();
        producer
            .append(handle, 0, ProducerRecord::default())
            .unwrap();
        let wrong = producer.append(handle, 1, full).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Configuration);
        let mut settled = Vec::new();
        producer.close(&mut settled).unwrap();
        assert_eq!(settled.len(), 1);
        let mut consumer =
            tidegate_kafka::Consumer::open(client, tidegate_kafka::ConsumerConfig::default())
                .unwrap();
        consumer.assign(&topic, &[(0, 0)]).unwrap();
        let mut seen = Vec::new();
        let started = Instant::now();
        while seen.len() < 2 && started.elapsed() < SOON {
            for fetched in consumer.poll(Duration::from_millis(100)).unwrap() {
                let read = fetched.for_each_record(|record| {
                    let key = record.key.map(<[u8]>::to_vec);
                    let value = record.value.map(<[u8]>::to_vec);
                    seen.push((key, value, record.timestamp));
                    Ok(())
                });
                read.unwrap();
            }
        }
        let (k, v) = (Some(b"k".to_vec()), Some(b"v".to_vec()));
        assert_eq!(seen[0], (k, v, 1_600_000_000_000));
        assert_eq!((&seen[1].0, &seen[1].1), (&None, &None));
        assert!(seen[1].2 > 1_700_000_000_000);
    });
}

#[test]
fn a_missing_topic_is_said_to_be_missing() {
    for_each_kafka(|_, bootstrap| {
        let mut producer = Producer::open(patient(bootstrap), ProducerConfig::default()).unwrap();
        let started = Instant::now();
        let error = producer.topic(&unique_name("nowhere")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopicMissing, "{error}");
        assert!(started.elapsed() < Duration::from_secs(15));
    });
}
