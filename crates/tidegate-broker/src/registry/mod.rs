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

use apache_avro::Schema;

use compatibility::Level;
pub(crate) use http::router;
use schema::parse_avro;
pub(crate) use store::Store;

/// What keeps `candidate` from following `earlier` under a compatibility level, by the rules that the embedded registry goes by, for people: other
/// registries refuse a schema without a word about the reason. Empty where nothing does, or where one of the three cannot be read.
#[must_use]
pub fn incompatibilities(level: &str, candidate: &str, earlier: &str) -> Vec<String> {
    let parse = |text: &str| match serde_json::from_str(text) {
        Ok(value) => parse_avro(value).ok(),
        Err(_) => Schema::parse_str(text).ok(),
    };
    match (Level::parse(level), parse(candidate), parse(earlier)) {
        (Some(level), Some(candidate), Some(earlier)) => level.check(&candidate, &earlier),
        _ => Vec::new(),
    }
}
