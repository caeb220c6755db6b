//! A native, blocking Kafka client: producer, consumer, groups and admin, for brokers from 3.3 on.
//!
//! A [`Client`] is the shared view of a cluster; [`Admin`](admin::Admin), [`Producer`](producer::Producer) and the consumer are opened from it. What an error
//! code means and whether to try again is decided in [`retry`] alone.

pub mod admin;
mod client;
mod cluster;
mod config;
mod connection;
mod error;
pub mod producer;
pub mod retry;
mod versions;

pub use client::{Client, CoordinatorKind};
pub use cluster::{BrokerAddress, ClusterView, PartitionView, TopicView};
pub use config::ClientConfig;
pub use connection::{Connection, MAX_IN_FLIGHT};
pub use error::{Error, ErrorKind};
pub use versions::Versions;
