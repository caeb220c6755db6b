//! Record batches of format 2 ("magic 2"), the only format Kafka has written since 0.11.
//!
//! A batch is a header of [`HEADER_LEN`] bytes and its records, compressed together or not at all.

mod builder;
mod control;
mod header;
mod reader;
mod retain;

pub use builder::{BatchBody, BatchBuilder, MAX_BODY_LEN, RecordHeader};
pub use control::encode_marker;
pub use header::{BatchHeader, HEADER_LEN, ProducerStamp, assign_offsets, encode_header};
pub use reader::{Batch, Batches, Headers, Marker, Record, Records};
pub use retain::retain_records;
