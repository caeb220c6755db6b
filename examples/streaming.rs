//! The described flow with the public API: messages are published one by one as they come up, with their timestamp as key; delivery reports keep
//! the last offset; a consumer works the messages off and commits; and the publisher waits until it has.
//!
//! ```console
//! $ cargo run --example streaming
//! ```
//!
//! It needs nothing: an embedded broker and registry serve it from a temporary folder. With a cluster, `bootstrap` and the registry's URL are
//! all that changes.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to whoever runs it"
)]

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tidegate::broker::{Broker, BrokerConfig};
use tidegate::kafka::{Client, ClientConfig, NewTopic};
use tidegate::registry::{Registry, RegistryConfig};
use tidegate::{AvroSerializer, Consumer, LastOffsets, Producer, balance_offset, publish};

const TOPIC: &str = "usage";
const TICKS: i64 = 50;

/// One message: what each container used at one time. Any type that serde can serialize will do.
#[derive(Serialize)]
struct Tick {
    timestamp: i64,
    containers: Vec<Container>,
}

#[derive(Serialize)]
struct Container {
    container_id: String,
    cpu: f64,
}

const SCHEMA: &str = r#"{
  "type": "record", "name": "Tick", "namespace": "tidegate.example",
  "fields": [
    {"name": "timestamp", "type": "long"},
    {"name": "containers", "type": {"type": "array", "items": {
      "type": "record", "name": "Container",
      "fields": [{"name": "container_id", "type": "string"}, {"name": "cpu", "type": "double"}]}}}
  ]
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("tidegate-streaming-{}", std::process::id()));
    let config = BrokerConfig {
        registry_listen: Some(([127, 0, 0, 1], 0).into()),
        ..BrokerConfig::new(&folder)
    };
    let broker = Broker::start(config)?;
    let result = stream(
        &broker.address().to_string(),
        &broker.registry_url().unwrap_or_default(),
    );
    broker.stop()?;
    std::fs::remove_dir_all(&folder)?;
    result
}

/// The flow itself.
fn stream(bootstrap: &str, registry_url: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::new(bootstrap)?)?;
    client.admin().create_topic(&NewTopic {
        name: TOPIC.to_owned(),
        partitions: Some(2),
        ..NewTopic::default()
    })?;

    // 1. The serializer: one schema, registered, so that any consumer can decode what it makes.
    let registry = Registry::new(RegistryConfig::new(registry_url))?;
    let serializer = AvroSerializer::register(&registry, &format!("{TOPIC}-value"), SCHEMA)?;

    // 2. The producer, whose delivery reports keep the last offset of each partition.
    let producer = Producer::connect(bootstrap)?;
    let last_offsets = LastOffsets::new();
    let seen = last_offsets.clone();
    producer.on_delivery(move |report| match &report.result {
        Ok(()) => seen.keep(report),
        Err(error) => eprintln!("not delivered: {error}"),
    });

    // 3. The consumer: works messages off in a thread of its own, and commits when it has.
    let consumer = Consumer::connect(bootstrap, "streaming", &[TOPIC])?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let worker = scope.spawn(|| work_off(&consumer, &done));

        // 4. Messages are published as they come up; the key is the message's timestamp.
        let published = (0..TICKS)
            .try_for_each(|timestamp| publish(&producer, &tick(timestamp), TOPIC, &serializer));
        // 5. Everything is delivered, then everything is worked off.
        let balanced = published
            .and_then(|()| producer.flush())
            .and_then(|()| balance_offset(&consumer, &last_offsets));

        done.store(true, Ordering::Relaxed);
        let worked_off = worker.join().map_err(|_| "the consumer panicked")??;
        balanced?;
        for (topic, partition, offset) in last_offsets.to_vec() {
            println!("{topic}-{partition}: last offset {offset}, committed");
        }
        println!("published {TICKS} messages, worked off {worked_off}");
        Ok(())
    })?;
    consumer.leave()?;
    Ok(())
}

/// Works messages off until told that it is enough; returns how many they were.
fn work_off(consumer: &Consumer, done: &AtomicBool) -> Result<usize, tidegate::Error> {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let messages = consumer.poll(Duration::from_millis(100))?;
        count += messages.len();
        // The work would be done here, before the commit.
        consumer.commit()?;
    }
    Ok(count)
}

/// What a sensor, a queue or a simulation would hand over.
fn tick(timestamp: i64) -> Tick {
    let containers = (1..=10_u32)
        .map(|number| Container {
            container_id: format!("c_{number}"),
            cpu: f64::from(number) / 10.0,
        })
        .collect();
    Tick {
        timestamp,
        containers,
    }
}
