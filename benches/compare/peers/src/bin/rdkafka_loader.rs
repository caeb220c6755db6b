//! `rdkafka_loader FILE BOOTSTRAP TOPIC SCHEMA_ID`: the same load through the rdkafka crate.
//!
//! As small and as fast as such a program is usually written: the csv crate's byte records, Avro by hand, a
//! threaded producer, librdkafka set for throughput. Key and partitions as tidegate makes them.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use csv::{ByteRecord, ReaderBuilder};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tidegate_compare_peers::{Row, encode};

/// Counts what the broker said.
#[derive(Default)]
struct Outcomes {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Outcomes {}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() {
            &self.delivered
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn producer(bootstrap: &str) -> Result<ThreadedProducer<Outcomes>, KafkaError> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1048576")
        .create_with_context(Outcomes::default())
}

fn parse(record: &ByteRecord) -> Result<Row<'_>, Box<dyn Error>> {
    let text = |column: usize| std::str::from_utf8(&record[column]);
    Ok(Row {
        timestamp: text(0)?.parse()?,
        container_id: &record[1],
        machine_id: &record[2],
        cpu: text(3)?.parse()?,
        mem: text(4)?.parse()?,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, bootstrap, topic, schema_id] = &arguments[..] else {
        return Err("usage: rdkafka_loader FILE BOOTSTRAP TOPIC SCHEMA_ID".into());
    };
    let schema_id = schema_id.parse()?;
    let producer = producer(bootstrap)?;
    let mut reader = ReaderBuilder::new()
        .buffer_capacity(1 << 20)
        .from_path(file)?;
    let mut record = ByteRecord::new();
    let mut value = Vec::with_capacity(128);
    let mut rows = 0_u64;
    while reader.read_byte_record(&mut record)? {
        encode(&mut value, schema_id, &parse(&record)?);
        let mut next = BaseRecord::to(topic).key(&record[0]).payload(&value);
        while let Err((error, refused)) = producer.send(next) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(1));
            next = refused;
        }
        rows += 1;
    }
    producer.flush(Duration::from_secs(600))?;
    let outcomes = producer.context();
    let (delivered, failed) = (
        outcomes.delivered.load(Ordering::Relaxed),
        outcomes.failed.load(Ordering::Relaxed),
    );
    if delivered == rows && failed == 0 {
        return Ok(());
    }
    Err(format!("{rows} rows read, {delivered} delivered, {failed} failed").into())
}
