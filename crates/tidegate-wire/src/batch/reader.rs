//! Reading record batches and their records, without trusting a single length in them.

use std::iter::FusedIterator;

use crate::compression::{Compression, decompress};
use crate::cursor::Cursor;
use crate::error::{Error, Kind};

use super::builder::RecordHeader;
use super::header::{
    BatchHeader, CHECKED_AT, HEADER_LEN, LENGTH_AFTER_PREFIX, MAGIC, MAGIC_AT, PREFIX_LEN,
};

/// The fewest bytes a record can take: length, attributes, timestamp, offset, key length, value length and
/// header count, one each.
const MIN_RECORD_LEN: usize = 7;

/// The batches in a stretch of a log, as a Fetch answer or a Produce request holds it.
///
/// A broker may cut the last batch of a Fetch answer off. Iteration ends quietly before such a batch, and
/// [`remaining`](Self::remaining) tells how much of it there was: when that is everything, the fetch size
/// was too small for even one batch. After an error, iteration ends.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Reads the batches in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            failed: false,
        }
    }

    /// Bytes not read as a batch so far; after the last batch, those of a batch that was cut off.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn parse(&mut self) -> Result<Option<Batch<'a>>, Error> {
        let Some(prefix) = self.rest.get(..PREFIX_LEN) else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(prefix);
        let base_offset = cursor.i64("a base offset")?;
        let length = cursor.i32("a batch length")?;
        let total = match usize::try_from(length) {
            // Older formats have shorter headers: judge the version, where it is there, before the length.
            Ok(length) if length >= MAGIC_AT + 1 - PREFIX_LEN => length + PREFIX_LEN,
            _ => {
                return Err(Error::corrupt(format!("the length is {length}")).in_batch(base_offset));
            }
        };
        if let Some(&magic) = self.rest.get(MAGIC_AT)
            && magic.cast_signed() != MAGIC
        {
            let magic = magic.cast_signed();
            return Err(
                Error::unsupported(format!("format {magic}, and only {MAGIC} is known"))
                    .in_batch(base_offset),
            );
        }
        if total < LENGTH_AFTER_PREFIX + PREFIX_LEN {
            return Err(
                Error::corrupt(format!("the length is {length}, less than a header"))
                    .in_batch(base_offset),
            );
        }
        let Some((raw, rest)) = self.rest.split_at_checked(total) else {
            return Ok(None);
        };
        self.rest = rest;
        Ok(Some(Batch {
            header: BatchHeader::parse(raw)?,
            raw,
        }))
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.parse().transpose();
        self.failed = matches!(next, Some(Err(_)) | None);
        next
    }
}

impl FusedIterator for Batches<'_> {}

/// How a transaction ended, as the broker writes it into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// The producer's records since its last marker count.
    Commit,
    /// The producer's records since its last marker do not count.
    Abort,
}

/// One record batch, borrowed from the bytes it was read from.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    header: BatchHeader,
    raw: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch, header included.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Computes the checksum and compares it with the header's.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if they differ.
    pub fn check_crc(&self) -> Result<(), Error> {
        let found = crc32c::crc32c(&self.raw[CHECKED_AT..]);
        let expected = self.header.crc;
        if found == expected {
            return Ok(());
        }
        let message =
            format!("the checksum is {found:#010x}, and the header says {expected:#010x}");
        Err(self.fail(Error::corrupt(message)))
    }

    /// The records, decompressed into `scratch` where they are compressed.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] if they decompress to more than `limit` bytes; [`Kind::Unsupported`] for a codec
    /// that is not known; [`Kind::Corrupt`] or [`Kind::Truncated`] if they do not decompress, or if there
    /// cannot be as many records as the header says.
    pub fn records<'s>(
        &'s self,
        scratch: &'s mut Vec<u8>,
        limit: usize,
    ) -> Result<Records<'s>, Error> {
        let compression = self.header.compression()?;
        let stored = &self.raw[HEADER_LEN..];
        let records = if compression == Compression::None {
            stored
        } else {
            decompress(compression, stored, limit, scratch).map_err(|error| self.fail(error))?;
            scratch
        };
        let count = self.header.record_count;
        let left = u32::try_from(count)
            .ok()
            .filter(|&left| left as usize <= records.len() / MIN_RECORD_LEN);
        let Some(left) = left else {
            let message = format!("{count} records cannot be in {} bytes", records.len());
            return Err(self.fail(Error::corrupt(message)));
        };
        Ok(Records {
            header: self.header,
            cursor: Cursor::new(records),
            left,
            previous_delta: -1,
        })
    }

    /// How a transaction ended, if this batch says so; none for data and for other control batches.
    ///
    /// A control batch is never compressed; its record's key is two 16-bit numbers, version and type.
    #[must_use]
    pub fn control_marker(&self) -> Option<Marker> {
        let mut scratch = Vec::new();
        match self.control_record(&mut scratch)?.key?.get(2..4)? {
            [0, 0] => Some(Marker::Abort),
            [0, 1] => Some(Marker::Commit),
            _ => None,
        }
    }

    /// The epoch of the coordinator that ended a transaction, if this batch says so.
    #[must_use]
    pub fn coordinator_epoch(&self) -> Option<i32> {
        let mut scratch = Vec::new();
        let value = self.control_record(&mut scratch)?.value?;
        value
            .get(2..)?
            .first_chunk()
            .copied()
            .map(i32::from_be_bytes)
    }

    fn control_record<'s>(&'s self, scratch: &'s mut Vec<u8>) -> Option<Record<'s>> {
        if !self.header.is_control() {
            return None;
        }
        let mut records = self.records(scratch, self.raw.len()).ok()?;
        records.next()?.ok()
    }

    fn fail(&self, error: Error) -> Error {
        error.in_batch(self.header.base_offset)
    }
}

/// The records of one batch, in offset order. After an error, iteration ends.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: BatchHeader,
    cursor: Cursor<'a>,
    left: u32,
    previous_delta: i32,
}

impl<'a> Records<'a> {
    /// The bytes of the records that have not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }

    #[inline]
    fn parse(&mut self) -> Result<Record<'a>, Error> {
        let len = self.cursor.count("a record's length")?;
        let mut cursor = Cursor::new(self.cursor.take(len, "a record")?);
        cursor.byte("a record's attributes")?;
        let timestamp_delta = cursor.varlong("a record's timestamp")?;
        let offset_delta = cursor.varint("a record's offset")?;
        // Compaction leaves gaps, but never disorder: a reader that goes on from a record's offset relies on it.
        if offset_delta <= self.previous_delta || offset_delta > self.header.last_offset_delta {
            return Err(self.wrong_offset(offset_delta));
        }
        self.previous_delta = offset_delta;
        let key = cursor.nullable_bytes("a record's key")?;
        let value = cursor.nullable_bytes("a record's value")?;
        let header_count = cursor.count("a record's header count")?;
        let headers = Headers {
            cursor,
            left: header_count,
        };
        headers.check_size()?;
        Ok(Record {
            offset: self
                .header
                .base_offset
                .wrapping_add(i64::from(offset_delta)),
            timestamp: self
                .header
                .log_append_time()
                .unwrap_or_else(|| self.header.base_timestamp.wrapping_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }

    #[cold]
    fn wrong_offset(&self, delta: i32) -> Error {
        let (previous, last) = (self.previous_delta, self.header.last_offset_delta);
        Error::corrupt(format!(
            "a record's offset delta is {delta} after {previous}, and the last is {last}"
        ))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.cursor.is_empty() {
                return None;
            }
            let surplus = self.cursor.len();
            self.cursor = Cursor::new(&[]);
            let error = Error::corrupt(format!("{surplus} bytes are left after the last record"));
            return Some(Err(error.in_batch(self.header.base_offset)));
        }
        self.left -= 1;
        let next = self
            .parse()
            .map_err(|error| error.in_batch(self.header.base_offset));
        if next.is_err() {
            self.left = 0;
            self.cursor = Cursor::new(&[]);
        }
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize + 1))
    }
}

impl FusedIterator for Records<'_> {}

/// One record, borrowed from its batch.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970: the producer's, or the broker's where the topic uses log append time.
    pub timestamp: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// The headers, in order, read as they are asked for.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }

    /// How many headers the record says it has.
    #[must_use]
    pub fn header_count(&self) -> usize {
        self.headers.left
    }
}

/// The headers of one record, in order. After an error, iteration ends.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Headers<'a> {
    /// Refuses a count that the bytes cannot hold: a header takes at least two, and none leave nothing.
    #[inline]
    fn check_size(&self) -> Result<(), Error> {
        let len = self.cursor.len();
        if self.left <= len / 2 && (self.left > 0 || len == 0) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "{} record headers cannot be in {len} bytes",
            self.left
        )))
    }

    fn parse(&mut self) -> Result<RecordHeader<'a>, Error> {
        let name = self.cursor.nullable_bytes("a record header's name")?;
        let name = name.ok_or_else(|| Error::corrupt("a record header's name is null"))?;
        let name = std::str::from_utf8(name).map_err(|error| {
            Error::new(
                Kind::Corrupt,
                format!("a record header's name is not UTF-8: {error}"),
            )
        })?;
        let value = self.cursor.nullable_bytes("a record header's value")?;
        if self.left == 0 && !self.cursor.is_empty() {
            return Err(Error::corrupt(format!(
                "{} bytes are left after a record's headers",
                self.cursor.len()
            )));
        }
        Ok(RecordHeader { name, value })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<RecordHeader<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let next = self.parse();
        if next.is_err() {
            self.left = 0;
        }
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl FusedIterator for Headers<'_> {}
