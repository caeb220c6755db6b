//! Building the records of a batch: appended one by one into one buffer, without an allocation of their own.

use crate::compression::{Compression, Compressor};
use crate::varint::{self, Slot};

use super::header::LENGTH_AFTER_PREFIX;

/// The most bytes the records of one batch may take: the batch's length is a signed 32-bit number.
pub const MAX_BODY_LEN: usize = i32::MAX as usize - LENGTH_AFTER_PREFIX;

/// One header of a record: a name and a value, which may be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// The name; several headers of one record may share it.
    pub name: &'a str,
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// The records of one batch while they are gathered.
///
/// It knows nothing of producer id, epoch, sequence and checksum: [`crate::encode_header`] adds them when
/// the batch is sent.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Written up to `filled`; what is behind it means nothing.
    records: Vec<u8>,
    filled: usize,
    record_count: u32,
    base_timestamp: i64,
    max_timestamp: Option<i64>,
}

/// By how much the buffer's initialised part is extended at a time.
const STRETCH: usize = 4096;

impl BatchBuilder {
    /// Starts a batch in `buffer`, whose content is written over and whose capacity is used. The longer it is, the less is left to be
    /// cleared before it can be written.
    ///
    /// `base_timestamp` is in milliseconds since 1970; records without a timestamp of their own get it.
    #[must_use]
    pub fn with_buffer(buffer: Vec<u8>, base_timestamp: i64) -> Self {
        Self {
            records: buffer,
            filled: 0,
            record_count: 0,
            base_timestamp,
            max_timestamp: None,
        }
    }

    /// Adds one record. `timestamp` is in milliseconds since 1970; none means the base timestamp.
    ///
    /// The buffer grows when it is full, and nothing else is allocated. The caller seals the batch before
    /// [`body_len`](Self::body_len) exceeds [`MAX_BODY_LEN`].
    #[inline]
    pub fn append(
        &mut self,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) {
        let (base_timestamp, record_count) = (self.base_timestamp, i64::from(self.record_count));
        let timestamp = timestamp.unwrap_or(base_timestamp);
        let len = self.payload_len(timestamp, key, value, headers);
        let mut slot = self.slot(varint::signed_len(len as i64) + len);
        slot.put_signed(len as i64);
        slot.put_byte(0); // attributes: none are defined for a record
        slot.put_signed(timestamp.wrapping_sub(base_timestamp));
        slot.put_signed(record_count);
        slot.put_nullable(key);
        slot.put_nullable(value);
        if headers.is_empty() {
            slot.put_byte(0);
        } else {
            put_headers(&mut slot, headers);
        }
        self.record_count += 1;
        self.max_timestamp = self.max_timestamp.max(Some(timestamp));
    }

    /// Bytes that [`append`](Self::append) with the same arguments would add now.
    #[inline]
    #[must_use]
    pub fn encoded_len(
        &self,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) -> usize {
        let len = self.payload_len(
            timestamp.unwrap_or(self.base_timestamp),
            key,
            value,
            headers,
        );
        varint::signed_len(len as i64) + len
    }

    /// The next `len` bytes of the batch, to be written.
    #[inline]
    fn slot(&mut self, len: usize) -> Slot<'_> {
        let start = self.filled;
        self.filled += len;
        if self.records.len() < self.filled {
            self.extend();
        }
        Slot::new(&mut self.records[start..self.filled])
    }

    /// Makes room, a stretch at a time: writing into bytes that are there is faster than appending, and
    /// clearing them first costs little while they stay in the cache. The capacity that the buffer came
    /// with is used up before it grows.
    #[cold]
    fn extend(&mut self) {
        let capacity = self.records.capacity();
        let len = match self.filled + STRETCH {
            len if len > capacity && self.filled <= capacity => capacity,
            len => len,
        };
        self.records.resize(len, 0);
    }

    /// Bytes of the next record after its length.
    #[inline]
    fn payload_len(
        &self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) -> usize {
        let headers_len = if headers.is_empty() {
            1
        } else {
            headers_len(headers)
        };
        1 + varint::signed_len(timestamp.wrapping_sub(self.base_timestamp))
            + varint::signed_len(i64::from(self.record_count))
            + nullable_len(key)
            + nullable_len(value)
            + headers_len
    }

    /// Bytes of the records so far, uncompressed.
    #[inline]
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.filled
    }

    /// Records so far.
    #[inline]
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The timestamp of records without their own, in milliseconds since 1970.
    #[must_use]
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// Ends the batch. It is uncompressed until [`BatchBody::compress`].
    #[must_use]
    pub fn finish(mut self) -> BatchBody {
        self.records.truncate(self.filled);
        BatchBody {
            records: self.records,
            record_count: self.record_count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp.unwrap_or(self.base_timestamp),
            compression: Compression::None,
        }
    }
}

#[inline]
fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| {
        varint::signed_len(bytes.len() as i64) + bytes.len()
    })
}

/// Not part of [`append`](BatchBuilder::append), which is to stay small: most records have none.
#[inline(never)]
fn put_headers(slot: &mut Slot<'_>, headers: &[RecordHeader<'_>]) {
    slot.put_signed(headers.len() as i64);
    for header in headers {
        slot.put_nullable(Some(header.name.as_bytes()));
        slot.put_nullable(header.value);
    }
}

fn headers_len(headers: &[RecordHeader<'_>]) -> usize {
    let each = headers
        .iter()
        .map(|header| nullable_len(Some(header.name.as_bytes())) + nullable_len(header.value));
    varint::signed_len(headers.len() as i64) + each.sum::<usize>()
}

/// The records of a finished batch, ready for [`crate::encode_header`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchBody {
    /// The records, compressed as `compression` says.
    pub records: Vec<u8>,
    /// How many records there are.
    pub record_count: u32,
    /// What record timestamps are counted from, in milliseconds since 1970.
    pub base_timestamp: i64,
    /// The largest timestamp of a record, in milliseconds since 1970.
    pub max_timestamp: i64,
    /// How `records` is compressed.
    pub compression: Compression,
}

impl BatchBody {
    /// Compresses the records into `spare`, and returns the buffer that is free afterwards, for reuse, whatever is in it.
    ///
    /// The uncompressed form stays where compression does not make it smaller or fails; a body that is
    /// compressed already stays as it is. The record batch says what it is, so a reader never notices.
    pub fn compress(
        &mut self,
        compressor: &mut Compressor,
        codec: Compression,
        mut spare: Vec<u8>,
    ) -> Vec<u8> {
        if self.compression != Compression::None || codec == Compression::None {
            return spare;
        }
        let smaller = compressor
            .compress(codec, &self.records, &mut spare)
            .is_ok()
            && spare.len() < self.records.len();
        if smaller {
            std::mem::swap(&mut self.records, &mut spare);
            self.compression = codec;
        }
        spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_s_capacity_is_used_up_before_it_grows() {
        let buffer = Vec::with_capacity(10_000);
        let (capacity, address) = (buffer.capacity(), buffer.as_ptr());
        let mut builder = BatchBuilder::with_buffer(buffer, 0);
        let value = [7; 100];
        while builder.body_len() + builder.encoded_len(None, None, Some(&value), &[]) <= capacity {
            builder.append(None, None, Some(&value), &[]);
        }
        assert!(builder.body_len() > capacity - 200);
        assert_eq!(
            (builder.records.as_ptr(), builder.records.capacity()),
            (address, capacity)
        );
        builder.append(None, None, Some(&value), &[]);
        let records = builder.finish().records;
        assert!(records.len() > capacity && records.ends_with(&[7, 7, 0]));
    }
}
