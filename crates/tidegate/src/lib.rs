//! tidegate as a library: publish any serializable message to Kafka as Avro, know what was delivered, and wait until the consumers have it.
//!
//! The described flow, with its names:
//!
//! ```no_run
//! use serde::Serialize;
//! use tidegate::{AvroSerializer, Consumer, LastOffsets, Producer, balance_offset, publish};
//!
//! #[derive(Serialize)]
//! struct Usage { timestamp: i64, cpu: f64 }
//!
//! const SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
//!     {"name": "timestamp", "type": "long"}, {"name": "cpu", "type": "double"}]}"#;
//!
//! # fn main() -> Result<(), tidegate::Error> {
//! let registry = tidegate::registry::Registry::new(tidegate::registry::RegistryConfig::new("http://localhost:8081"))?;
//! let serializer = AvroSerializer::register(&registry, "usage-value", SCHEMA)?;
//! let producer = Producer::connect("localhost:9092")?;
//! let consumer = Consumer::connect("localhost:9092", "app", &["usage"])?;
//!
//! let last_offsets = LastOffsets::new();
//! let seen = last_offsets.clone();
//! producer.on_delivery(move |report| seen.keep(report));
//! publish(&producer, &Usage { timestamp: 1, cpu: 0.5 }, "usage", &serializer)?; // the key is "1"
//! producer.flush()?;
//! balance_offset(&consumer, &last_offsets)?; // returns when the group `app` has committed it
//! # Ok(())
//! # }
//! ```
//!
//! `examples/streaming.rs` runs it whole on the embedded broker. The parts underneath are here too: [`core`] (rows, records, receipts, and the traits
//! the pipeline asks of Kafka), [`kafka`] (the client), [`registry`], [`broker`] (the embedded one), and [`bridge`], which puts core's traits on
//! the client. The program `tidegate` is a thin shell over the same parts.

pub mod bridge;
mod consumer;
mod error;
mod producer;
mod serializer;

pub use consumer::{Consumer, Message, balance_offset, balance_offset_within};
pub use error::{Error, ErrorKind};
pub use producer::{DeliveryReport, LastOffsets, Producer, publish};
pub use serializer::{AvroSerializer, Encoded};

pub use tidegate_broker as broker;
pub use tidegate_core as core;
pub use tidegate_kafka as kafka;
pub use tidegate_registry as registry;
