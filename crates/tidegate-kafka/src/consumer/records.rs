//! What a Fetch answer holds of one partition, and the records in it.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidegate_wire::{Batch, BatchHeader, Batches, Headers, Marker};

use crate::error::{Error, ErrorKind};

/// What one batch may decompress to, in bytes. Brokers take batches of about 1 MiB, compressed; this bounds what a hostile one can do.
const DECOMPRESSED_LIMIT: usize = 256 << 20;

/// Record batches of one partition, as they were fetched.
#[derive(Clone, Debug)]
pub struct FetchedBatches {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset that was asked for. The first batch may begin below it: records below are not meant.
    pub fetch_offset: i64,
    /// The offset after the last whole batch: where reading goes on. It may be more than one beyond the last record, for markers of
    /// transactions take offsets, and compaction leaves gaps.
    pub next_offset: i64,
    /// One past the last offset that all in-sync replicas have.
    pub high_watermark: i64,
    /// The first offset of the oldest open transaction, or the high watermark if there is none. Read-committed readers get no further.
    pub last_stable_offset: i64,
    /// The batches, to be read with [`tidegate_wire::Batches`]. The last one may be cut off.
    pub bytes: Bytes,
    /// With read-committed isolation, the aborted transactions in here: producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
}

/// A record, borrowed from its batch.
#[derive(Clone, Debug)]
pub struct ConsumedRecord<'a> {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Whether that is when the broker appended it, whatever its producer had said.
    pub is_append_time: bool,
    /// The id of the producer that wrote it; -1 if that was not idempotent.
    pub producer_id: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> ConsumedRecord<'a> {
    /// The headers, in order, read as they are asked for.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }
}

impl FetchedBatches {
    /// Gives each data record from [`fetch_offset`](Self::fetch_offset) on to `take`, in offset order: markers of transactions are left
    /// out and, with read-committed isolation, records of aborted transactions too. Checksums are checked.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the bytes are damaged; whatever `take` returns.
    pub fn for_each_record(
        &self,
        mut take: impl FnMut(ConsumedRecord<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.for_each_batch_record(|_, record| take(record))
    }

    /// As [`for_each_record`](Self::for_each_record), with the header of the record's batch.
    pub(super) fn for_each_batch_record(
        &self,
        mut take: impl FnMut(&BatchHeader, ConsumedRecord<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut scratch = Vec::new();
        let mut aborted = AbortedFilter::new(&self.aborted);
        for batch in Batches::new(&self.bytes) {
            let batch = batch.map_err(|error| self.damaged(error))?;
            let header = batch.header();
            let hidden = aborted.hides(&batch);
            if hidden || header.is_control() || header.last_offset() < self.fetch_offset {
                continue;
            }
            batch.check_crc().map_err(|error| self.damaged(error))?;
            let producer_id = header.producer_id;
            let is_append_time = header.log_append_time().is_some();
            let records = batch
                .records(&mut scratch, DECOMPRESSED_LIMIT)
                .map_err(|error| self.damaged(error))?;
            for record in records {
                let record = record.map_err(|error| self.damaged(error))?;
                if record.offset < self.fetch_offset {
                    continue;
                }
                let record = ConsumedRecord {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    is_append_time,
                    producer_id,
                    key: record.key,
                    value: record.value,
                    headers: record.headers(),
                };
                take(header, record)?;
            }
        }
        Ok(())
    }

    fn damaged(&self, error: tidegate_wire::Error) -> Error {
        damaged(&self.topic, self.partition, error)
    }
}

/// Bytes of a partition that cannot be read.
pub(super) fn damaged(topic: &str, partition: i32, error: tidegate_wire::Error) -> Error {
    let message = format!("{topic}-{partition}: {error}");
    Error::new(ErrorKind::Protocol, message).with_source(error)
}

/// The offset after the last whole batch in `bytes`, from `offset` if there is none. Only headers are read.
pub(super) fn offset_after(bytes: &[u8], offset: i64) -> Result<i64, tidegate_wire::Error> {
    let mut next = offset;
    for batch in Batches::new(bytes) {
        next = next.max(batch?.header().next_offset());
    }
    Ok(next)
}

/// Follows the aborted transactions through the batches of one answer.
///
/// The answer lists them by producer and first offset; each lasts until that producer's abort marker, or to the end of the answer. As in
/// Kafka's own consumer.
struct AbortedFilter {
    /// By first offset, the next one last.
    upcoming: Vec<(i64, i64)>,
    /// Producers within an aborted transaction.
    open: BTreeSet<i64>,
}

impl AbortedFilter {
    fn new(aborted: &[(i64, i64)]) -> Self {
        let mut upcoming = aborted.to_vec();
        upcoming.sort_by_key(|(_, first_offset)| std::cmp::Reverse(*first_offset));
        Self {
            upcoming,
            open: BTreeSet::new(),
        }
    }

    /// Whether the records of `batch` do not count. Batches must come in order.
    fn hides(&mut self, batch: &Batch<'_>) -> bool {
        let header = batch.header();
        while let Some((producer_id, _)) = self
            .upcoming
            .pop_if(|(_, first_offset)| *first_offset <= header.last_offset())
        {
            self.open.insert(producer_id);
        }
        if header.is_control() {
            if batch.control_marker() == Some(Marker::Abort) {
                self.open.remove(&header.producer_id);
            }
            return true;
        }
        header.is_transactional() && self.open.contains(&header.producer_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::{
        BatchBuilder, Compression, Compressor, ProducerStamp, assign_offsets, encode_header,
    };

    fn batch(base_offset: i64, producer_id: i64, transactional: bool, values: &[&str]) -> Vec<u8> {
        let mut builder = BatchBuilder::with_buffer(Vec::new(), 1000);
        for value in values {
            builder.append(None, None, Some(value.as_bytes()), &[]);
        }
        let mut body = builder.finish();
        body.compress(&mut Compressor::new(), Compression::Lz4, Vec::new());
        let stamp = ProducerStamp {
            producer_id,
            epoch: 0,
            base_sequence: 0,
            transactional,
        };
        let mut bytes = encode_header(&body, stamp).to_vec();
        bytes.extend_from_slice(&body.records);
        assign_offsets(&mut bytes, base_offset, 0).unwrap();
        bytes
    }

    /// A marker, as a broker writes it: control bit, and a key of version 0 and type 0 (abort) or 1 (commit).
    fn marker(base_offset: i64, producer_id: i64, kind: u8) -> Vec<u8> {
        const ATTRIBUTES_AT: usize = 21;
        const CRC_AT: usize = 17;
        let mut builder = BatchBuilder::with_buffer(Vec::new(), 1000);
        builder.append(None, Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[]);
        let body = builder.finish();
        let stamp = ProducerStamp {
            producer_id,
            epoch: 0,
            base_sequence: -1,
            transactional: true,
        };
        let mut bytes = encode_header(&body, stamp).to_vec();
        bytes.extend_from_slice(&body.records);
        bytes[ATTRIBUTES_AT + 1] |= 0x20;
        let crc = crc_of(&bytes[ATTRIBUTES_AT..]);
        bytes[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
        assign_offsets(&mut bytes, base_offset, 0).unwrap();
        bytes
    }

    /// CRC-32C, bit by bit: enough for a test.
    fn crc_of(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            }
        }
        !crc
    }

    fn fetched(bytes: Vec<u8>, fetch_offset: i64, aborted: &[(i64, i64)]) -> FetchedBatches {
        FetchedBatches {
            topic: "t".to_owned(),
            partition: 0,
            fetch_offset,
            next_offset: offset_after(&bytes, fetch_offset).unwrap(),
            high_watermark: 100,
            last_stable_offset: 100,
            bytes: Bytes::from(bytes),
            aborted: aborted.to_vec(),
        }
    }

    fn values(fetched: &FetchedBatches) -> Vec<(i64, String)> {
        let mut found = Vec::new();
        let read = fetched.for_each_record(|record| {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            found.push((record.offset, value));
            Ok(())
        });
        read.unwrap();
        found
    }

    fn expect(fetched: &FetchedBatches, expected: &[(i64, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(offset, value)| (*offset, (*value).to_owned()))
            .collect();
        assert_eq!(values(fetched), expected);
    }

    #[test]
    fn records_below_the_offset_asked_for_are_left_out() {
        let found = fetched(batch(10, -1, false, &["a", "b", "c"]), 11, &[]);
        assert_eq!(found.next_offset, 13);
        expect(&found, &[(11, "b"), (12, "c")]);
    }

    #[test]
    fn a_cut_off_last_batch_is_fetched_again() {
        let mut bytes = batch(10, -1, false, &["a"]);
        let whole = bytes.len();
        bytes.extend(batch(11, -1, false, &["b"]));
        for cut in whole..bytes.len() {
            let found = fetched(bytes[..cut].to_vec(), 10, &[]);
            assert_eq!(found.next_offset, 11);
            expect(&found, &[(10, "a")]);
        }
    }

    #[test]
    fn the_end_of_a_compacted_batch_is_passed() {
        const LAST_OFFSET_DELTA_AT: usize = 23;
        let mut bytes = batch(10, -1, false, &["a"]);
        bytes[LAST_OFFSET_DELTA_AT..][..4].copy_from_slice(&9_i32.to_be_bytes());
        assert_eq!(offset_after(&bytes, 10).unwrap(), 20);
    }

    #[test]
    fn aborted_transactions_and_markers_are_left_out() {
        let mut bytes = Vec::new();
        bytes.extend(batch(0, 7, true, &["aborted"]));
        bytes.extend(batch(1, 8, true, &["committed"]));
        bytes.extend(batch(2, -1, false, &["plain"]));
        bytes.extend(marker(3, 7, 0));
        bytes.extend(batch(4, 7, true, &["second try"]));
        bytes.extend(marker(5, 7, 1));
        bytes.extend(batch(6, 7, true, &["aborted again"]));
        bytes.extend(marker(7, 8, 1));
        let found = fetched(bytes.clone(), 0, &[(7, 0), (7, 6)]);
        assert_eq!(found.next_offset, 8);
        expect(&found, &[(1, "committed"), (2, "plain"), (4, "second try")]);
        // Read uncommitted: all but the markers.
        assert_eq!(values(&fetched(bytes, 0, &[])).len(), 5);
    }

    #[test]
    fn an_aborted_transaction_may_begin_before_the_answer() {
        let mut bytes = batch(20, 7, true, &["aborted"]);
        bytes.extend(marker(21, 7, 0));
        bytes.extend(batch(22, 7, true, &["committed"]));
        expect(&fetched(bytes, 20, &[(7, 3)]), &[(22, "committed")]);
    }

    #[test]
    fn damage_is_reported_with_its_place() {
        let mut bytes = batch(10, -1, false, &["a"]);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let error = fetched(bytes, 10, &[])
            .for_each_record(|_| Ok(()))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(
            error
                .to_string()
                .starts_with("t-0: record batch at offset 10"),
            "{error}"
        );
    }
}
