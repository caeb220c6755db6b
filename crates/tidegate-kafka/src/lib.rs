//! A native, blocking Kafka client: producer, consumer, groups and admin, for brokers from 3.3 on.
//!
//! A [`Client`] is the shared view of a cluster: its brokers, its topics, who leads what. [`Admin`], [`producer`] and [`consumer`] are opened
//! from it. What an error code means, and whether to try again, is decided in [`retry`] alone.
//!
//! Nothing waits without a deadline: every frame has one, and so has every operation that repeats a request.

pub mod admin;
mod answer;
mod client;
mod clock;
mod cluster;
mod config;
mod connection;
pub mod consumer;
mod dial;
mod error;
pub mod producer;
pub mod retry;
mod rights;
mod sasl;
mod tls;
mod transport;
mod versions;

pub use admin::{Admin, GroupDescription, GroupKind, Isolation, NewTopic, OffsetSpec};
pub use client::{Client, CoordinatorKind};
pub use clock::ClockSkew;
pub use cluster::{BrokerAddress, ClusterView, PartitionView, TopicView};
pub use config::{ClientConfig, Security};
pub use connection::{Connection, MAX_IN_FLIGHT};
pub use consumer::{
    Assignor, ConsumedRecord, Consumer, ConsumerConfig, FetchedBatches, GroupConfig, GroupProtocol,
    Jump, Outcomes, Reset, TopicPartition, outcomes_behind, read_committed,
};
pub use dial::resolve;
pub use error::{Error, ErrorKind};
pub use rights::{Operation, Rights};
pub use sasl::{Sasl, ScramHash, TokenSource};
pub use tls::{Identity, Pem, Tls, TlsOptions};
pub use versions::Versions;
