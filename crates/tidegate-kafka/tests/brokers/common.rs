//! What the tests against brokers share.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidegate_kafka::{Client, ClientConfig, Consumer, FetchedBatches, NewTopic};
use tidegate_wire::produce::{self, ProduceRequest, TopicRef};
use tidegate_wire::{BatchBuilder, Compression, Compressor, ProducerStamp, encode_header};

/// How long anything may take that ends by itself.
pub(crate) const SOON: Duration = Duration::from_secs(120);

pub(crate) fn connect(bootstrap: &str) -> Client {
    Client::connect(ClientConfig::new(bootstrap).unwrap()).unwrap()
}

/// A client that does not wait long: for tests in which something never comes.
pub(crate) fn connect_impatient(bootstrap: &str) -> Client {
    let config = ClientConfig {
        request_timeout: Duration::from_secs(2),
        delivery_timeout: Duration::from_secs(4),
        ..ClientConfig::new(bootstrap).unwrap()
    };
    Client::connect(config).unwrap()
}

pub(crate) fn create(client: &Client, topic: &str, partitions: i32) {
    let new = NewTopic {
        name: topic.to_owned(),
        partitions: Some(partitions),
        ..NewTopic::default()
    };
    client.admin().create_topic(&new).unwrap();
}

/// A transaction that batches belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction<'a> {
    pub(crate) id: &'a str,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

/// Appends one batch of these values and returns its base offset. Goes past the producer: what is tested here is reading.
pub(crate) fn append(client: &Client, topic: &str, partition: i32, values: &[Vec<u8>]) -> i64 {
    append_in(client, topic, partition, values, Compression::Lz4, None)
}

pub(crate) fn append_in(
    client: &Client,
    topic: &str,
    partition: i32,
    values: &[Vec<u8>],
    compression: Compression,
    transaction: Option<Transaction<'_>>,
) -> i64 {
    // The newest that Kafka 3.3 knows; it names topics by name, and starts no transaction by itself.
    const VERSION: i16 = 9;
    let mut builder = BatchBuilder::with_buffer(Vec::new(), 1_700_000_000_000);
    for value in values {
        builder.append(None, None, Some(value), &[]);
    }
    let mut body = builder.finish();
    body.compress(&mut Compressor::new(), compression, Vec::new());
    let stamp = transaction.map_or(ProducerStamp::NONE, |transaction| ProducerStamp {
        producer_id: transaction.producer_id,
        epoch: transaction.epoch,
        base_sequence: transaction.sequence,
        transactional: true,
    });
    let header = encode_header(&body, stamp);
    let request = ProduceRequest {
        client_id: Some("test"),
        transactional_id: transaction.map(|transaction| transaction.id),
        acks: -1,
        timeout_ms: 10_000,
        topic: TopicRef {
            name: topic,
            id: [0; 16],
        },
        partition,
        batch_header: &header,
        body_len: body.records.len(),
    };
    let started = Instant::now();
    loop {
        let view = client.refresh(&[topic]).unwrap();
        let leader = view.leader(topic, partition).unwrap();
        let mut connection = client.open(leader).unwrap();
        let correlation = connection.next_correlation_id();
        let prefix = produce::prefix(VERSION, correlation, &request).unwrap();
        let parts = [&prefix[..], &body.records, produce::trailer(VERSION)];
        connection.send_raw(correlation, &parts).unwrap();
        let mut frame = Vec::new();
        connection.receive_frame(&mut frame).unwrap();
        let (_, answer) = produce::parse_answer(VERSION, &frame).unwrap();
        match answer.error_code {
            0 => return answer.base_offset,
            // Metadata says who will lead a new topic a moment before the broker does.
            3 | 6 if started.elapsed() < SOON => {}
            code => panic!("produce to {topic}-{partition}: {code}"),
        }
    }
}

pub(crate) fn numbered(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range
        .map(|number| number.to_string().into_bytes())
        .collect()
}

/// A record as tests compare it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) value: Vec<u8>,
}

pub(crate) fn records_of(fetched: &FetchedBatches) -> Vec<Seen> {
    let mut seen = Vec::new();
    let read = fetched.for_each_record(|record| {
        let value = record.value.unwrap_or_default().to_vec();
        seen.push(Seen {
            partition: fetched.partition,
            offset: record.offset,
            value,
        });
        Ok(())
    });
    read.unwrap();
    seen
}

/// Polls until `enough` of all records, or panics.
pub(crate) fn poll_until(consumer: &mut Consumer, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let started = Instant::now();
    let mut seen = Vec::new();
    while !enough(&seen) {
        assert!(
            started.elapsed() < SOON,
            "{} records, and no more",
            seen.len()
        );
        for fetched in consumer.poll(Duration::from_millis(200)).unwrap() {
            seen.extend(records_of(&fetched));
        }
    }
    seen
}

/// Polls all of them in turn until `done`, or panics.
pub(crate) fn poll_all_until(
    consumers: &mut [Consumer],
    mut done: impl FnMut(&[Consumer]) -> bool,
) {
    let started = Instant::now();
    while !done(consumers) {
        let owned: Vec<_> = consumers.iter().map(Consumer::assignment).collect();
        assert!(started.elapsed() < SOON, "{owned:?}");
        for consumer in &mut *consumers {
            consumer.poll(Duration::from_millis(20)).unwrap();
        }
    }
}

/// How far each partition was read, and who holds it.
pub(crate) fn stalled(
    seen: &BTreeMap<(i32, i64), u32>,
    members: &[Consumer],
    topic: &str,
) -> String {
    let mut read: BTreeMap<i32, u32> = BTreeMap::new();
    for (partition, _) in seen.keys() {
        *read.entry(*partition).or_insert(0) += 1;
    }
    let held: Vec<Vec<(i32, Option<i64>)>> = members
        .iter()
        .map(|member| {
            let held = member.assignment().into_iter();
            held.map(|(_, number)| (number, member.position(topic, number)))
                .collect()
        })
        .collect();
    format!("read {read:?}, held from {held:?}\n{members:#?}")
}
