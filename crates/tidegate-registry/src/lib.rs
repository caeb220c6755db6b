//! Client of a Confluent-compatible Schema Registry (Confluent, Apicurio, Karapace, Redpanda, and the embedded one).
//!
//! Blocking, over HTTP or HTTPS. A [`Registry`] is made of a [`RegistryConfig`] and shared by reference; what a registry never changes (the
//! schema behind an id, the id of a registered schema) it asks for once.
//!
//! ```no_run
//! use tidegate_registry::{Registry, RegistryConfig};
//!
//! let registry = Registry::new(RegistryConfig::new("http://localhost:8081"))?;
//! let id = registry.register("usage-value", r#"{"type": "record", "name": "usage", "fields": []}"#)?;
//! println!("{}", registry.by_id(id)?);
//! # Ok::<(), tidegate_registry::Error>(())
//! ```
//!
//! Every call ends within the configured time: connection errors, 429 and 5xx are tried again until then (on each of the
//! URLs in turn), other answers are final. No password and no token appears in an error or in the `Debug` text of anything here.

mod answer;
mod client;
mod config;
mod endpoint;
mod error;
mod references;
mod retry;

pub use client::{Compatibility, MAX_REFERENCES, NewSchema, Reference, RegisteredSchema, Registry};
pub use config::{Auth, RegistryConfig};
pub use error::{Error, ErrorKind};
