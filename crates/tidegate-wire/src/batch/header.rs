//! The 61 bytes before the records of a batch.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | base offset |
//! | 8 | 4 | length of all that follows this field |
//! | 12 | 4 | partition leader epoch |
//! | 16 | 1 | magic, 2 |
//! | 17 | 4 | CRC-32C of everything from the attributes on |
//! | 21 | 2 | attributes |
//! | 23 | 4 | last offset delta |
//! | 27 | 8 | base timestamp |
//! | 35 | 8 | max timestamp |
//! | 43 | 8 | producer id |
//! | 51 | 2 | producer epoch |
//! | 53 | 4 | base sequence |
//! | 57 | 4 | record count |
//!
//! Base offset and leader epoch are outside the checksum, so that a broker can fill them in.

use crate::compression::Compression;
use crate::cursor::Cursor;
use crate::error::Error;

use super::builder::{BatchBody, MAX_BODY_LEN};

/// Bytes of the header of a record batch.
pub const HEADER_LEN: usize = 61;

/// Bytes up to and including the length field, which it does not count.
pub(super) const PREFIX_LEN: usize = 12;

/// What the length field counts besides the records.
pub(super) const LENGTH_AFTER_PREFIX: usize = HEADER_LEN - PREFIX_LEN;

/// Where the format version stands.
pub(super) const MAGIC_AT: usize = 16;

const CRC_AT: usize = 17;

/// Where the bytes begin that the checksum covers.
pub(super) const CHECKED_AT: usize = 21;

/// The format version written and read here.
pub(super) const MAGIC: i8 = 2;

const COMPRESSION_BITS: i16 = 0b0000_0111;
const LOG_APPEND_TIME_BIT: i16 = 0b0000_1000;
const TRANSACTIONAL_BIT: i16 = 0b0001_0000;
const CONTROL_BIT: i16 = 0b0010_0000;

/// Who sends a batch, and as which of its batches: what makes a resend recognisable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer id, or -1.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub epoch: i16,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Whether the batch belongs to a transaction.
    pub transactional: bool,
}

impl ProducerStamp {
    /// A producer that is not idempotent.
    pub const NONE: Self = Self {
        producer_id: -1,
        epoch: -1,
        base_sequence: -1,
        transactional: false,
    };
}

/// Makes the header of `body`, with base offset 0 and leader epoch -1 as producers send them.
///
/// # Panics
/// If the records take more than [`MAX_BODY_LEN`] bytes: no batch can hold them.
#[must_use]
pub fn encode_header(body: &BatchBody, stamp: ProducerStamp) -> [u8; HEADER_LEN] {
    encode_with(body, stamp, 0)
}

/// As [`encode_header`], for a batch that only brokers write.
pub(super) fn encode_control_header(body: &BatchBody, stamp: ProducerStamp) -> [u8; HEADER_LEN] {
    encode_with(body, stamp, CONTROL_BIT)
}

fn encode_with(body: &BatchBody, stamp: ProducerStamp, attributes: i16) -> [u8; HEADER_LEN] {
    assert!(
        body.records.len() <= MAX_BODY_LEN,
        "a batch of {} bytes: over 2 GiB",
        body.records.len()
    );
    let batch_length =
        i32::try_from(body.records.len() + LENGTH_AFTER_PREFIX).expect("checked just above");
    let record_count =
        i32::try_from(body.record_count).expect("a record takes at least 7 bytes of the 2 GiB");
    let mut attributes = attributes | body.compression.attribute_bits();
    if stamp.transactional {
        attributes |= TRANSACTIONAL_BIT;
    }

    let mut header = [0; HEADER_LEN];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &batch_length.to_be_bytes());
    put(12, &(-1_i32).to_be_bytes());
    put(MAGIC_AT, &MAGIC.to_be_bytes());
    put(CHECKED_AT, &attributes.to_be_bytes());
    put(23, &(record_count - 1).to_be_bytes());
    put(27, &body.base_timestamp.to_be_bytes());
    put(35, &body.max_timestamp.to_be_bytes());
    put(43, &stamp.producer_id.to_be_bytes());
    put(51, &stamp.epoch.to_be_bytes());
    put(53, &stamp.base_sequence.to_be_bytes());
    put(57, &record_count.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[CHECKED_AT..]), &body.records);
    header[CRC_AT..CHECKED_AT].copy_from_slice(&crc.to_be_bytes());
    header
}

/// The header of `batch` for other records: what of it follows from `body` is replaced, the rest stays.
pub(super) fn patch_header(batch: &[u8], body: &BatchBody) -> Result<[u8; HEADER_LEN], Error> {
    const WHAT: &str = "a record batch header";
    let mut header = *batch
        .first_chunk::<HEADER_LEN>()
        .ok_or_else(|| Error::truncated(WHAT))?;
    let attributes = BatchHeader::parse(&header)?.attributes & !COMPRESSION_BITS;
    let attributes = attributes | body.compression.attribute_bits();
    let too_long = |_| Error::corrupt("more records than a batch can hold");
    let length = i32::try_from(body.records.len() + LENGTH_AFTER_PREFIX).map_err(too_long)?;
    let record_count = i32::try_from(body.record_count).map_err(too_long)?;
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &length.to_be_bytes());
    put(CHECKED_AT, &attributes.to_be_bytes());
    put(35, &body.max_timestamp.to_be_bytes());
    put(57, &record_count.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[CHECKED_AT..]), &body.records);
    header[CRC_AT..CHECKED_AT].copy_from_slice(&crc.to_be_bytes());
    Ok(header)
}

/// Writes the offset of a batch's first record and the leader epoch into its bytes, as a broker does when
/// it appends the batch to its log. The checksum does not cover them and stays right.
///
/// # Errors
/// [`Kind::Truncated`](crate::Kind::Truncated) if `batch` is shorter than a header.
pub fn assign_offsets(batch: &mut [u8], base_offset: i64, leader_epoch: i32) -> Result<(), Error> {
    if batch.len() < HEADER_LEN {
        return Err(Error::truncated("a record batch header"));
    }
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[PREFIX_LEN..MAGIC_AT].copy_from_slice(&leader_epoch.to_be_bytes());
    Ok(())
}

/// The header of a record batch, as read.
///
/// The fields hold what the bytes say; nothing but magic and length has been judged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record as first written.
    pub base_offset: i64,
    /// Bytes of the batch after this field.
    pub batch_length: i32,
    /// The leader epoch in which the broker appended the batch, or -1.
    pub partition_leader_epoch: i32,
    /// The format version: 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// The last record's offset less the base offset. Compaction removes records and leaves it as it is.
    pub last_offset_delta: i32,
    /// What record timestamps are counted from, in milliseconds since 1970.
    pub base_timestamp: i64,
    /// The largest timestamp, in milliseconds since 1970; with log append time, that of every record.
    pub max_timestamp: i64,
    /// The producer's id, or -1.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// How many records follow.
    pub record_count: i32,
}

impl BatchHeader {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        const WHAT: &str = "a record batch header";
        let mut cursor = Cursor::new(bytes);
        Ok(Self {
            base_offset: cursor.i64(WHAT)?,
            batch_length: cursor.i32(WHAT)?,
            partition_leader_epoch: cursor.i32(WHAT)?,
            magic: cursor.byte(WHAT)?.cast_signed(),
            crc: cursor.u32(WHAT)?,
            attributes: cursor.i16(WHAT)?,
            last_offset_delta: cursor.i32(WHAT)?,
            base_timestamp: cursor.i64(WHAT)?,
            max_timestamp: cursor.i64(WHAT)?,
            producer_id: cursor.i64(WHAT)?,
            producer_epoch: cursor.i16(WHAT)?,
            base_sequence: cursor.i32(WHAT)?,
            record_count: cursor.i32(WHAT)?,
        })
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a codec number that is not known.
    pub fn compression(&self) -> Result<Compression, Error> {
        Compression::from_attribute_bits(self.attributes & COMPRESSION_BITS)
            .map_err(|error| error.in_batch(self.base_offset))
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch is written by the broker itself (the end of a transaction, say) and holds no data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// The time the broker appended the batch, where the topic is configured to use it as the timestamp of
    /// every record; in milliseconds since 1970.
    #[must_use]
    pub fn log_append_time(&self) -> Option<i64> {
        (self.attributes & LOG_APPEND_TIME_BIT != 0).then_some(self.max_timestamp)
    }

    /// The offset of the last record as first written; the record itself may have been compacted away.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// Where reading goes on after this batch. Kafka's own count, whatever records are left in the batch.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Bytes of the whole batch; 0 for a length that cannot be.
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::try_from(self.batch_length).map_or(0, |length| length + PREFIX_LEN)
    }

    /// Who sent the batch.
    #[must_use]
    pub fn stamp(&self) -> ProducerStamp {
        ProducerStamp {
            producer_id: self.producer_id,
            epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            transactional: self.is_transactional(),
        }
    }
}
