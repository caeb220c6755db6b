//! Reading a batch header where the rest of the batch is not at hand.

use tidegate_wire::{BatchHeader, HEADER_LEN};

/// Where the crc's coverage, and the attributes, begin.
const ATTRIBUTES_AT: usize = 21;
const CRC_AT: usize = 17;
const MAX_TIMESTAMP_AT: usize = 35;
const LOG_APPEND_TIME_BIT: i16 = 0b1000;

/// The header at the start of `bytes`, unjudged; `None` if there are too few of them.
pub(crate) fn parse_header(bytes: &[u8]) -> Option<BatchHeader> {
    let bytes = bytes.first_chunk::<HEADER_LEN>()?;
    Some(BatchHeader {
        base_offset: i64::from_be_bytes(field(bytes, 0)),
        batch_length: i32::from_be_bytes(field(bytes, 8)),
        partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
        magic: i8::from_be_bytes(field(bytes, 16)),
        crc: u32::from_be_bytes(field(bytes, CRC_AT)),
        attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
        last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
        base_timestamp: i64::from_be_bytes(field(bytes, 27)),
        max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
        producer_id: i64::from_be_bytes(field(bytes, 43)),
        producer_epoch: i16::from_be_bytes(field(bytes, 51)),
        base_sequence: i32::from_be_bytes(field(bytes, 53)),
        record_count: i32::from_be_bytes(field(bytes, 57)),
    })
}

/// The header as the log keeps it: with its offset and leader epoch and, where the topic wants the time of
/// the append as every record's timestamp, with that time and a new checksum.
pub(crate) fn stamped(
    batch: &[u8],
    base_offset: i64,
    leader_epoch: i32,
    append_time: Option<i64>,
) -> Option<[u8; HEADER_LEN]> {
    let mut header = *batch.first_chunk::<HEADER_LEN>()?;
    header[..8].copy_from_slice(&base_offset.to_be_bytes());
    header[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    if let Some(time) = append_time {
        let attributes = i16::from_be_bytes(field(&header, ATTRIBUTES_AT)) | LOG_APPEND_TIME_BIT;
        header[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
        header[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&time.to_be_bytes());
        let crc = crc32c::crc32c_append(
            crc32c::crc32c(&header[ATTRIBUTES_AT..]),
            &batch[HEADER_LEN..],
        );
        header[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    }
    Some(header)
}

fn field<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::{BatchBuilder, Batches, ProducerStamp, encode_header};

    fn batch() -> Vec<u8> {
        let mut builder = BatchBuilder::with_buffer(Vec::new(), 1000);
        builder.append(Some(1234), Some(b"k"), Some(b"v"), &[]);
        builder.append(None, None, Some(b"w"), &[]);
        let body = builder.finish();
        let stamp = ProducerStamp {
            producer_id: 4,
            epoch: 5,
            base_sequence: 6,
            transactional: true,
        };
        let mut bytes = encode_header(&body, stamp).to_vec();
        bytes.extend_from_slice(&body.records);
        bytes
    }

    #[test]
    fn headers_read_as_the_wire_crate_reads_them() {
        let bytes = batch();
        let expected = *Batches::new(&bytes).next().unwrap().unwrap().header();
        assert_eq!(parse_header(&bytes), Some(expected));
        assert_eq!(parse_header(&bytes[..HEADER_LEN - 1]), None);
    }

    #[test]
    fn a_stamped_header_keeps_a_right_checksum() {
        for append_time in [None, Some(99_000)] {
            let mut bytes = batch();
            let header = stamped(&bytes, 42, 3, append_time).unwrap();
            bytes[..HEADER_LEN].copy_from_slice(&header);
            let found = Batches::new(&bytes).next().unwrap().unwrap();
            found.check_crc().unwrap();
            assert_eq!(found.header().base_offset, 42);
            assert_eq!(found.header().partition_leader_epoch, 3);
            assert_eq!(found.header().log_append_time(), append_time);
        }
    }
}
