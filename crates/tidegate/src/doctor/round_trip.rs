//! One record there and back, in a transaction that is rolled back: readers of committed records never see it.

use std::time::{Duration, Instant};

use tidegate::kafka::producer::{Producer, ProducerConfig, ProducerRecord, Transactional};
use tidegate::kafka::{Client, Consumer, ConsumerConfig, Isolation};
use tidegate_wire::Batches;

use crate::failure::{Failure, Kind};

/// How long the record may take to come back.
const PATIENCE: Duration = Duration::from_secs(10);
/// The record's value, which says whose it is.
const VALUE: &[u8] = b"tidegate doctor";
/// Bytes that a batch may have once it is decompressed.
const LIMIT: usize = 1 << 20;

/// Makes the trip; what there is to say of it.
pub(crate) fn make(client: &Client, topic: &str) -> Result<String, Failure> {
    let started = Instant::now();
    // Of the form that a load's own id has, so that it falls under the same rights.
    let config = ProducerConfig {
        transactional: Some(Transactional::new(&format!("{topic}:tidegate-doctor"))),
        ..ProducerConfig::default()
    };
    let mut producer = Producer::open(client.clone(), config)?;
    let opened = producer.topic(topic)?;
    let mut settled = Vec::new();
    producer.begin()?;
    let record = ProducerRecord {
        key: Some(VALUE),
        value: Some(VALUE),
        headers: &[],
        timestamp: None,
        tag: 0,
    };
    producer.append(opened, 0, record)?;
    let written = producer.flush(&mut settled).map_err(Failure::from);
    let found = written.and_then(|()| {
        let offset = settled.iter().find_map(|batch| batch.base_offset);
        let offset = offset.ok_or_else(|| failed("the broker does not say where the record is"))?;
        read_back(client, topic, offset).map(|()| offset)
    });
    let ended = producer.abort(&mut settled);
    let offset = found?;
    ended?;
    Ok(format!(
        "{topic}, partition 0, offset {offset}: written, read back and rolled back in {} ms",
        started.elapsed().as_millis()
    ))
}

fn read_back(client: &Client, topic: &str, offset: i64) -> Result<(), Failure> {
    let config = ConsumerConfig {
        isolation: Isolation::ReadUncommitted,
        ..ConsumerConfig::default()
    };
    let mut consumer = Consumer::open(client.clone(), config)?;
    consumer.assign(topic, &[(0, offset)])?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for fetched in consumer.poll(Duration::from_millis(200))? {
            if holds(&fetched.bytes, offset)? {
                return Ok(());
            }
        }
    }
    Err(failed("the record that was written does not come back"))
}

/// Whether the record at `offset` is ours.
fn holds(bytes: &[u8], offset: i64) -> Result<bool, Failure> {
    let unreadable = |error| failed("the record came back damaged").because(error);
    let mut scratch = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(unreadable)?;
        if batch.header().is_control() {
            continue;
        }
        batch.check_crc().map_err(unreadable)?;
        for record in batch.records(&mut scratch, LIMIT).map_err(unreadable)? {
            let record = record.map_err(unreadable)?;
            if record.offset == offset {
                return if record.value == Some(VALUE) {
                    Ok(true)
                } else {
                    Err(failed("another record stands where ours was written"))
                };
            }
        }
    }
    Ok(false)
}

fn failed(why: &str) -> Failure {
    Failure::new(Kind::Delivery, why)
}
