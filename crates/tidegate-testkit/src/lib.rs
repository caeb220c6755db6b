//! What tidegate's own tests share; no part of what users get.
//!
//! - [`cluster`]: one test body on the embedded broker and on real Kafka; [`services`] says which real services the environment asks for.
//! - [`kafka`] and [`apicurio`] start the real ones, [`server`] keeps a process from outliving the tests, [`cache`] keeps the downloads, [`java`]
//!   finds a Java.
//! - [`token_endpoint`] is an identity provider's.
//! - [`usage`] makes input files, [`program`] runs the binary, [`raw`] reads a topic past the client under test, [`log`] checks what
//!   is in it.
//! - [`proxy`] stands between a client and a broker, and makes faults there; [`matrix`] keeps what came of each fault.

pub mod apicurio;
pub mod cache;
pub mod cluster;
pub mod java;
pub mod kafka;
pub mod log;
pub mod matrix;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod server;
pub mod services;
pub mod token_endpoint;
pub mod usage;

pub use cluster::{
    Cluster, Kind, for_each_cluster, for_each_kafka, for_each_registry, unique_name,
};
pub use program::{Finished, Running, Tidegate};
pub use usage::UsageFile;
