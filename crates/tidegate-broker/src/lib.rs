//! Embedded, durable, single-node Kafka broker and schema registry for development and tests.
//!
//! [`Broker::start`] serves Kafka's protocol, and the registry's REST API if asked to, from a data
//! directory, on threads of its own. Clients of any make connect to it; what they produce is there again
//! after a crash of the process. It is one node: nothing is replicated, and a power failure may cost the
//! last moments, so it is not a place for data that exists nowhere else.
//!
//! ```
//! use tidegate_broker::{Broker, BrokerConfig};
//!
//! # fn main() -> Result<(), tidegate_broker::Error> {
//! # let dir = tempfile::tempdir().expect("a temporary folder");
//! let broker = Broker::start(BrokerConfig::new(dir.path()))?;
//! println!("kcat -L -b {}", broker.address());
//! broker.stop()
//! # }
//! ```
//!
//! | part | where |
//! |---|---|
//! | one file per API, and the table of those served | `api` |
//! | connections: frames in, answers out, in order | `server` |
//! | partitions: files of batches, recovery, idempotence, compaction | `log` |
//! | topics, committed offsets, producer ids, the state of transactions | `journal`, `topics` |
//! | group membership | `group` |
//! | transactions | `transaction` |
//! | faults for tests | [`Faults`] |
//! | the schema registry | `registry` |

mod address;
mod api;
mod broker;
mod codes;
mod config;
mod error;
mod faults;
mod group;
mod journal;
mod log;
mod registry;
mod server;
mod shared;
mod sync;
#[cfg(test)]
mod testing;
mod topic_config;
mod topics;
mod transaction;

pub use address::Addresses;
pub use broker::Broker;
pub use config::BrokerConfig;
pub use error::{Error, ErrorKind};
pub use faults::{Action, Faults, InjectedFault, Rule, Seen};
pub use kafka_protocol::messages::ApiKey;
pub use log::Truncation;
pub use registry::incompatibilities;
