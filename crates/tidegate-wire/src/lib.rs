//! Kafka's bytes: frames, record batches of format 2 (build, read, compress) and the Produce request.
//!
//! Nothing here opens a socket or owns a thread. The client builds batches with [`BatchBuilder`] and frames
//! them with [`produce`]; the client and the embedded broker read them with [`Batches`].
//!
//! Building is split so that the costly part can be done early: [`BatchBuilder`] writes the records alone,
//! and [`encode_header`] makes the 61 bytes before them when the batch is sent, when producer id, epoch and
//! sequence are known. An epoch that changes in between costs nothing.
//!
//! Reading never trusts a length: record counts, variable-length integers, keys, headers and compressed
//! sizes are held against the bytes that are really there, and decompression stops at the caller's limit.
//!
//! The format is described under "Record Batch" in <https://kafka.apache.org/documentation/#recordbatch>.
//!
//! ```
//! use tidegate_wire::{BatchBuilder, Batches, Compression, Compressor, ProducerStamp, encode_header};
//!
//! let mut builder = BatchBuilder::with_buffer(Vec::new(), 1_700_000_000_000);
//! builder.append(None, Some(b"key"), Some(b"value"), &[]);
//! let mut body = builder.finish();
//! body.compress(&mut Compressor::new(), Compression::Lz4, Vec::new());
//!
//! let mut log = encode_header(&body, ProducerStamp::NONE).to_vec();
//! log.extend_from_slice(&body.records);
//!
//! let mut scratch = Vec::new();
//! for batch in Batches::new(&log) {
//!     let batch = batch?;
//!     batch.check_crc()?;
//!     for record in batch.records(&mut scratch, 1 << 20)? {
//!         assert_eq!(record?.value, Some(&b"value"[..]));
//!     }
//! }
//! # Ok::<(), tidegate_wire::Error>(())
//! ```

mod batch;
mod compression;
mod cursor;
mod error;
pub mod frame;
pub mod produce;
mod varint;

pub use batch::{
    Batch, BatchBody, BatchBuilder, BatchHeader, Batches, HEADER_LEN, Headers, MAX_BODY_LEN,
    Marker, ProducerStamp, Record, RecordHeader, Records, assign_offsets, encode_header,
    encode_marker, retain_records,
};
pub use compression::{Compression, Compressor, decompress};
pub use error::{Error, Kind};
