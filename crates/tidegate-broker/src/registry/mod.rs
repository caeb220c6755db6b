//! The embedded schema registry: Confluent's REST API (v1) over a durable store in the data directory.
//!
//! [`http`] turns requests into calls of the [`store`], which holds everything in memory and writes each change to a [`journal`] before it
//! takes effect. [`schema`] reads and normalises Avro schemas, [`compatibility`] decides who can read whom.
//! Only Avro is served, schema references are refused, and there are no rights: it listens on the local machine for development and tests.

mod compatibility;
mod http;
mod journal;
mod refusal;
mod schema;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use http::router;
pub(crate) use store::Store;
