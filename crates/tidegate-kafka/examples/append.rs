//! Appends small records to a topic as fast as the producer takes them, and says how fast that was.
//!
//! `append HOST:PORT TOPIC PARTITIONS RECORDS [COMPRESSION]`; the topic is created if it is missing.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use tidegate_kafka::admin::NewTopic;
use tidegate_kafka::producer::{Producer, ProducerConfig, ProducerRecord};
use tidegate_kafka::{Client, ClientConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, partitions, records, rest @ ..] = &arguments[..] else {
        return Err("usage: append HOST:PORT TOPIC PARTITIONS RECORDS [COMPRESSION]".into());
    };
    let (partitions, records): (i32, u64) = (partitions.parse()?, records.parse()?);
    let compression = rest.first().map_or("lz4", String::as_str).parse()?;

    let client = Client::connect(ClientConfig::new(bootstrap)?)?;
    if client.admin().describe_topic(topic)?.is_none() {
        let new = NewTopic {
            name: topic.clone(),
            partitions: Some(partitions),
            ..NewTopic::default()
        };
        client.admin().create_topic(&new)?;
    }
    let mut producer = Producer::open(
        client,
        ProducerConfig {
            compression,
            ..ProducerConfig::default()
        },
    )?;
    let topic = producer.topic(topic)?;

    let started = Instant::now();
    let mut settled = Vec::new();
    let mut key = *b"0000000000";
    for number in 0..records {
        count_up(&mut key);
        let value = *b"\x00\x00\x00\x00\x01 thirty-four bytes of a value";
        let partition = i32::try_from(number / 4096)? % topic.partitions();
        let record = ProducerRecord {
            key: Some(&key),
            value: Some(&value),
            tag: number,
            ..ProducerRecord::default()
        };
        producer.append(topic, partition, record)?;
        if number % 100_000 == 0 {
            producer.poll(&mut settled)?;
        }
    }
    producer.flush(&mut settled)?;
    let seconds = started.elapsed().as_secs_f64();
    let delivered: u64 = settled
        .iter()
        .filter(|batch| batch.result.is_ok())
        .map(|batch| u64::from(batch.records))
        .sum();
    let rate = records as f64 / seconds / 1e6;
    println!(
        "{delivered} of {records} records in {} batches, {seconds:.2} s, {rate:.2} M/s",
        settled.len()
    );
    Ok(())
}

/// Adds one to a number in decimal digits: cheaper than writing it anew, so that what is measured is the producer.
fn count_up(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}
