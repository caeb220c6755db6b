//! The pure pipeline from CSV rows to Avro records and their proof.
//!
//! No module of this crate knows a socket, a terminal, the environment or a clock of its own; what it needs of them it is handed through the
//! traits in [`produce`] and [`clock`]. The stages of the path carry its words:
//!
//! ```text
//! bytes -> read -> Row -> group -> encode -> batch -> produce -> ledger -> receipt
//!                                                                  \-> balance (hold, wait)      verify <- consume
//! ```
//!
//! - [`read`] cuts bytes into rows and never loses or merges one; [`schema`] compiles an Avro schema and a header into a flat plan;
//!   [`encode`] and [`json`] run that plan over a row; [`group`] makes one record of consecutive rows; [`key`] and
//!   [`partition`] say where a record goes; [`records`] is the one place where these meet.
//! - [`infer`] finds a schema for a file that has none; [`decode`] reads Avro back, to show records and to name differences.
//! - [`publish`] runs the path into a sink, [`ledger`] gives every record exactly one outcome, [`receipt`] states the result, [`balance`] waits for
//!   a consumer group, and [`verify`] compares a topic with the file.

pub mod around;
pub mod balance;
pub mod clock;
pub mod decode;
pub mod digest;
pub mod encode;
pub mod error;
pub mod event;
pub mod group;
pub mod infer;
pub mod job;
pub mod json;
pub mod key;
pub mod ledger;
pub mod limits;
pub mod partition;
pub mod position;
pub mod produce;
pub mod publish;
pub mod read;
pub mod receipt;
pub mod records;
pub mod rejects;
pub mod schema;
pub mod seen;
pub mod verify;

pub use error::{Error, ErrorKind, Result};
