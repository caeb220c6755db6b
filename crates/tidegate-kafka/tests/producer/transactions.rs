//! Transactions: what is committed is there once, what is not is not, and of two producers with one id the later one wins.

use std::thread;
use std::time::{Duration, Instant};

use tidegate_kafka::producer::{Producer, ProducerConfig, ProducerRecord, Topic, Transactional};
use tidegate_kafka::{Client, Error, ErrorKind, Isolation, OffsetSpec, read_committed};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::{Cluster, services, unique_name};

use crate::common::{SOON, create, patient, small_batches};

/// Runs `test` on an embedded broker of each transaction version, and on the real Kafka that is asked for, if one is.
fn with_kafka(test: impl Fn(&Client, &Place)) {
    for version in [2, 1, 0] {
        eprintln!("on the embedded broker, transaction.version {version}");
        let cluster = Cluster::embedded_with(|config| config.transaction_version = version);
        let broker = format!("embedded, transaction.version {version}");
        let bootstrap = cluster.bootstrap().to_owned();
        test(&patient(&bootstrap), &Place { broker, bootstrap });
    }
    if let Some(bootstrap) = services::kafka() {
        eprintln!("on real Kafka at {bootstrap}");
        let broker = services::kafka_name();
        test(&patient(&bootstrap), &Place { broker, bootstrap });
    }
}

/// Where a test runs.
struct Place {
    broker: String,
    bootstrap: String,
}

impl Place {
    /// Notes a fault after which the topic must hold these numbers.
    #[track_caller]
    fn record(&self, id: u8, fault: &str, topic: &str, numbers: std::ops::Range<u64>) {
        Cell::new(id, fault)
            .on_broker(&self.broker)
            .fired(1)
            .counts(Counts::of_values(&self.bootstrap, topic, numbers))
            .record();
    }
}

/// A producer on a topic, which counts its records on through all transactions.
struct Writer {
    producer: Producer,
    topic: Topic,
    name: String,
}

impl Writer {
    fn open(client: &Client, name: &str, id: &str) -> Self {
        Self::with_timeout(client, name, id, Duration::from_secs(60))
    }

    fn with_timeout(client: &Client, name: &str, id: &str, timeout: Duration) -> Self {
        let transactional = Transactional {
            timeout,
            ..Transactional::new(id)
        };
        let config = ProducerConfig {
            transactional: Some(transactional),
            ..small_batches()
        };
        let mut producer = Producer::open(client.clone(), config).unwrap();
        let topic = producer.topic(name).unwrap();
        Self {
            producer,
            topic,
            name: name.to_owned(),
        }
    }

    /// Appends these numbers, in turn to each partition.
    fn append(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Error> {
        for number in numbers {
            let text = number.to_string();
            let record = ProducerRecord {
                value: Some(text.as_bytes()),
                tag: number,
                ..ProducerRecord::default()
            };
            let partitions = u64::try_from(self.topic.partitions()).unwrap();
            let partition = i32::try_from(number % partitions).unwrap();
            self.producer.append(self.topic, partition, record)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.producer.commit(&mut Vec::new())
    }

    /// The topic holds these numbers, each once and in order within its partition.
    fn expect(&self, client: &Client, numbers: impl Iterator<Item = u64> + Clone) {
        let partitions = u64::try_from(self.topic.partitions()).unwrap();
        for partition in 0..partitions {
            let of_partition = |number: &u64| number % partitions == partition;
            let expected: Vec<u64> = numbers.clone().filter(of_partition).collect();
            let partition = i32::try_from(partition).unwrap();
            assert_eq!(committed(client, &self.name, partition), expected);
        }
    }
}

fn committed(client: &Client, topic: &str, partition: i32) -> Vec<u64> {
    let mut found = Vec::new();
    let end = read_committed(client, topic, partition, |record| {
        let text = std::str::from_utf8(record.value.unwrap()).unwrap();
        found.push(text.parse().unwrap());
        Ok(())
    });
    // More may have been written since, markers too.
    let latest = client.admin().list_offsets(
        topic,
        &[partition],
        OffsetSpec::Latest,
        Isolation::ReadUncommitted,
    );
    assert!((1..=latest.unwrap()[0].1).contains(&end.unwrap()));
    found
}

#[test]
fn what_is_committed_is_there_and_nothing_else() {
    with_kafka(|client, _| {
        let (topic, id) = (unique_name("committed"), unique_name("job"));
        create(client, &topic, 3, &[]);
        let mut writer = Writer::open(client, &topic, &id);
        let outside = writer.append(0..1).unwrap_err();
        assert_eq!(outside.kind(), ErrorKind::Configuration);
        writer.producer.begin().unwrap();
        writer.commit().unwrap();
        writer.producer.begin().unwrap();
        writer.append(0..3_000).unwrap();
        writer.commit().unwrap();
        writer.producer.begin().unwrap();
        writer.append(3_000..5_000).unwrap();
        let mut settled = Vec::new();
        writer.producer.abort(&mut settled).unwrap();
        assert!(!writer.producer.in_transaction());
        for batch in settled {
            if let Err(error) = batch.result {
                assert_eq!(error.kind(), ErrorKind::RolledBack);
            }
        }
        writer.expect(client, 0..3_000);
        writer.producer.begin().unwrap();
        writer.append(5_000..6_000).unwrap();
        writer.producer.flush(&mut Vec::new()).unwrap();
        writer.expect(client, 0..3_000);
        writer.append(6_000..6_001).unwrap();
        writer.commit().unwrap();
        drop(writer);
        // The answer to EndTxn comes before the markers; whoever opens the id waits for them.
        let writer = Writer::open(client, &topic, &id);
        writer.expect(client, (0..3_000).chain(5_000..6_001));
    });
}

#[test]
fn one_transaction_follows_the_other() {
    with_kafka(|client, _| {
        let (topic, id) = (unique_name("following"), unique_name("job"));
        create(client, &topic, 2, &[]);
        let mut writer = Writer::open(client, &topic, &id);
        let started = Instant::now();
        for step in 0..200 {
            writer.producer.begin().unwrap();
            writer.append(step * 50..(step + 1) * 50).unwrap();
            writer.commit().unwrap();
        }
        eprintln!("200 transactions in {:?}", started.elapsed());
        drop(writer);
        let writer = Writer::open(client, &topic, &id);
        writer.expect(client, 0..10_000);
    });
}

#[test]
fn t06_the_later_of_two_producers_wins() {
    with_kafka(|client, place| {
        let (topic, id) = (unique_name("fenced"), unique_name("job"));
        create(client, &topic, 1, &[]);
        let mut idle = Writer::open(client, &topic, &id);
        idle.producer.begin().unwrap();
        idle.append(0..10).unwrap();
        idle.commit().unwrap();
        idle.producer.prove_ownership().unwrap();
        let mut busy = Writer::open(client, &topic, &id);
        let replaced = idle.producer.prove_ownership().unwrap_err();
        assert_eq!(replaced.kind(), ErrorKind::Fenced, "{replaced}");
        busy.producer.begin().unwrap();
        busy.append(10..20).unwrap();
        busy.producer.flush(&mut Vec::new()).unwrap();
        let mut last = Writer::open(client, &topic, &id);
        last.expect(client, 0..10);
        let started = Instant::now();
        let replaced = busy.commit().unwrap_err();
        assert_eq!(replaced.kind(), ErrorKind::Fenced, "{replaced}");
        assert!(started.elapsed() < Duration::from_secs(5));
        last.producer.begin().unwrap();
        last.append(10..20).unwrap();
        last.commit().unwrap();
        drop(last);
        let reader = Writer::open(client, &topic, &id);
        reader.expect(client, 0..20);
        let fault = "a second producer of the same id, the producer alone";
        place.record(6, fault, &topic, 0..20);
    });
}

#[test]
fn an_open_transaction_of_another_producer_hides_nothing() {
    with_kafka(|client, _| {
        let topic = unique_name("stranger");
        create(client, &topic, 1, &[]);
        let mut stranger = Writer::open(client, &topic, &unique_name("stranger"));
        stranger.producer.begin().unwrap();
        stranger.append(1_000..1_010).unwrap();
        stranger.producer.flush(&mut Vec::new()).unwrap();
        let id = unique_name("job");
        let mut writer = Writer::open(client, &topic, &id);
        writer.producer.begin().unwrap();
        writer.append(0..10).unwrap();
        writer.commit().unwrap();
        // The answer to EndTxn comes before the markers: opening again waits for them, as after a crash.
        let stable =
            client
                .admin()
                .list_offsets(&topic, &[0], OffsetSpec::Latest, Isolation::ReadCommitted);
        assert_eq!(stable.unwrap()[0].1, 0);
        let writer = Writer::open(client, &topic, &id);
        writer.expect(client, 0..10);
        stranger.producer.abort(&mut Vec::new()).unwrap();
        writer.expect(client, 0..10);
    });
}

/// A transaction that its coordinator ended is rolled back; before `transaction.version` 2 it looks as if another instance had taken over.
#[test]
fn t05_a_transaction_that_takes_too_long_is_rolled_back() {
    with_kafka(|client, place| {
        let (topic, id) = (unique_name("slow"), unique_name("job"));
        create(client, &topic, 1, &[]);
        let timeout = Duration::from_secs(1);
        let mut writer = Writer::with_timeout(client, &topic, &id, timeout);
        writer.producer.begin().unwrap();
        writer.append(0..10).unwrap();
        writer.producer.flush(&mut Vec::new()).unwrap();
        // Kafka's coordinators look for such transactions every 10 s by default; they leave a marker.
        let started = Instant::now();
        let end = || {
            let latest = OffsetSpec::Latest;
            let uncommitted = Isolation::ReadUncommitted;
            let found = client
                .admin()
                .list_offsets(&topic, &[0], latest, uncommitted);
            found.unwrap()[0].1
        };
        while end() == 10 {
            assert!(started.elapsed() < SOON, "no marker");
            thread::sleep(Duration::from_millis(200));
        }
        let error = writer.commit().unwrap_err();
        if error.kind() == ErrorKind::Fenced {
            writer = Writer::open(client, &topic, &id);
        } else {
            assert_eq!(error.kind(), ErrorKind::RolledBack, "{error}");
        }
        eprintln!("{error}");
        writer.expect(client, 0..0);
        writer.producer.begin().unwrap();
        writer.append(0..10).unwrap();
        writer.commit().unwrap();
        drop(writer);
        let writer = Writer::open(client, &topic, &id);
        writer.expect(client, 0..10);
        let fault = "a transaction takes longer than it may, the producer alone";
        place.record(5, fault, &topic, 0..10);
    });
}
