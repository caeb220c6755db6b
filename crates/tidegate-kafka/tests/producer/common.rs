//! A load of numbered records, and the check that a topic holds each of them once, in order, where its settlement says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidegate_broker::{Broker, BrokerConfig};
use tidegate_kafka::producer::{Producer, ProducerConfig, ProducerRecord, SettledBatch, Topic};
use tidegate_kafka::{Client, ClientConfig, Consumer, ConsumerConfig, NewTopic};
use tidegate_testkit::matrix::Counts;

/// How long anything may take that ends by itself.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The largest partition of a record's number decides where it goes: in turn, so that all have their share.
fn partition_of(number: u64, partitions: i32) -> i32 {
    i32::try_from(number % u64::try_from(partitions).unwrap()).unwrap()
}

pub(crate) fn patient(bootstrap: &str) -> Client {
    Client::connect(ClientConfig::new(bootstrap).unwrap()).unwrap()
}

/// A client that takes little time for a request, for tests in which answers do not come.
pub(crate) fn impatient(bootstrap: &str) -> Client {
    let config = ClientConfig {
        request_timeout: Duration::from_millis(700),
        delivery_timeout: SOON,
        ..ClientConfig::new(bootstrap).unwrap()
    };
    Client::connect(config).unwrap()
}

pub(crate) fn create(client: &Client, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    let configs = configs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let new = NewTopic {
        name: topic.to_owned(),
        partitions: Some(partitions),
        configs: configs.collect(),
        ..NewTopic::default()
    };
    client.admin().create_topic(&new).unwrap();
}

/// Small batches, so that a few thousand records fill many of them.
pub(crate) fn small_batches() -> ProducerConfig {
    ProducerConfig {
        batch_size: 2_000,
        linger: Duration::from_millis(20),
        ..ProducerConfig::default()
    }
}

pub(crate) struct Load {
    pub(crate) producer: Producer,
    pub(crate) topic: Topic,
    pub(crate) appended: u64,
    pub(crate) settled: Vec<SettledBatch>,
}

impl Load {
    pub(crate) fn open(client: &Client, topic: &str, config: ProducerConfig) -> Self {
        let mut producer = Producer::open(client.clone(), config).unwrap();
        let topic = producer.topic(topic).unwrap();
        Self {
            producer,
            topic,
            appended: 0,
            settled: Vec::new(),
        }
    }

    pub(crate) fn append(&mut self, count: u64) -> Result<(), tidegate_kafka::Error> {
        for _ in 0..count {
            let text = self.appended.to_string();
            let record = ProducerRecord {
                key: Some(b"key"),
                value: Some(text.as_bytes()),
                tag: self.appended,
                ..ProducerRecord::default()
            };
            let partition = partition_of(self.appended, self.topic.partitions());
            self.producer.append(self.topic, partition, record)?;
            self.appended += 1;
            if self.appended.is_multiple_of(100) {
                self.producer.poll(&mut self.settled)?;
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), tidegate_kafka::Error> {
        self.producer.flush(&mut self.settled)
    }

    /// What is in the topic, as somebody else's client finds it.
    pub(crate) fn counts(&self, bootstrap: &str, topic: &str) -> Counts {
        Counts::of_values(bootstrap, topic, 0..self.appended)
    }

    /// The topic holds what was appended, once and in order; each batch settled once and stands where its settlement says.
    pub(crate) fn check(&self, client: &Client, topic: &str) {
        let found = read_all(client, topic, self.topic.partitions());
        for partition in 0..self.topic.partitions() {
            let expected = (0..self.appended)
                .filter(|number| partition_of(*number, self.topic.partitions()) == partition);
            let values = found[&partition].iter().map(|(_, number)| *number);
            assert!(
                values.clone().eq(expected.clone()),
                "partition {partition}: {:?} instead of {:?}",
                values.collect::<Vec<_>>(),
                expected.collect::<Vec<_>>()
            );
        }
        let records: u64 = self
            .settled
            .iter()
            .map(|batch| u64::from(batch.records))
            .sum();
        assert_eq!(records, self.appended);
        for batch in &self.settled {
            batch.result.as_ref().unwrap();
            assert_eq!(batch.producer_id, self.producer.producer_id());
            let in_partition = &found[&batch.partition];
            let place = in_partition
                .iter()
                .position(|(_, number)| *number == batch.first_tag)
                .unwrap();
            assert_eq!(batch.base_offset, Some(in_partition[place].0), "{batch:?}");
            let last = place + batch.records as usize - 1;
            assert_eq!(in_partition[last].1, batch.last_tag, "{batch:?}");
        }
    }
}

/// Offsets and numbers of every record, by partition.
fn read_all(client: &Client, topic: &str, partitions: i32) -> BTreeMap<i32, Vec<(i64, u64)>> {
    let all: Vec<i32> = (0..partitions).collect();
    let admin = client.admin();
    let latest = tidegate_kafka::OffsetSpec::Latest;
    let uncommitted = tidegate_kafka::Isolation::ReadUncommitted;
    let ends = admin
        .list_offsets(topic, &all, latest, uncommitted)
        .unwrap();
    let mut consumer = Consumer::open(client.clone(), ConsumerConfig::default()).unwrap();
    let starts: Vec<(i32, i64)> = all.iter().map(|partition| (*partition, 0)).collect();
    consumer.assign(topic, &starts).unwrap();
    let mut found: BTreeMap<i32, Vec<(i64, u64)>> = all
        .iter()
        .map(|partition| (*partition, Vec::new()))
        .collect();
    let started = Instant::now();
    let at_end = |consumer: &Consumer| {
        ends.iter()
            .all(|(partition, end)| consumer.position(topic, *partition).unwrap_or(0) >= *end)
    };
    while !at_end(&consumer) {
        assert!(started.elapsed() < SOON, "the topic cannot be read");
        for fetched in consumer.poll(Duration::from_millis(100)).unwrap() {
            let records = found.get_mut(&fetched.partition).unwrap();
            let read = fetched.for_each_record(|record| {
                let text = std::str::from_utf8(record.value.unwrap()).unwrap();
                records.push((record.offset, text.parse().unwrap()));
                Ok(())
            });
            read.unwrap();
        }
    }
    found
}

/// An embedded broker in a folder of its own.
pub(crate) struct Embedded {
    pub(crate) broker: Option<Broker>,
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
}

impl Embedded {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig::new(folder.path())).unwrap();
        Self {
            address: broker.address(),
            broker: Some(broker),
            folder,
        }
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// Ends it as a killed process does.
    pub(crate) fn crash(&mut self) {
        self.broker.take().unwrap().crash();
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        let config = BrokerConfig {
            listen: self.address,
            ..BrokerConfig::new(self.folder.path())
        };
        let started = Instant::now();
        let broker = loop {
            match Broker::start(config.clone()) {
                Ok(broker) => break broker,
                Err(error) => assert!(started.elapsed() < SOON, "{error}"),
            }
        };
        self.broker = Some(broker);
    }
}
