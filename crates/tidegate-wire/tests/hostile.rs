//! Bytes that lie: arbitrary ones, and good batches with some bytes changed. Nothing may panic, run long, or
//! take memory beyond the limit; damage must be noticed by the checksum or by the reader.

#![expect(
    clippy::unwrap_used,
    reason = "a test or a measurement that cannot go on fails"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_wire::{
    BatchBuilder, Batches, Compression, Compressor, Error, HEADER_LEN, Kind, ProducerStamp,
    RecordHeader, decompress, encode_header, produce,
};

const LIMIT: usize = 1 << 20;

fn batch(records: usize, codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::with_buffer(Vec::new(), 1_700_000_000_000);
    for i in 0..records {
        let value = format!("record {i} of a batch with some repetition, some repetition");
        let headers = [
            RecordHeader {
                name: "trace",
                value: Some(&[1, 2]),
            },
            RecordHeader {
                name: "empty",
                value: None,
            },
        ];
        builder.append(
            None,
            Some(b"key"),
            Some(value.as_bytes()),
            if i % 2 == 0 { &headers } else { &[] },
        );
    }
    let mut body = builder.finish();
    drop(body.compress(&mut Compressor::new(), codec, Vec::new()));
    let mut bytes = encode_header(&body, ProducerStamp::NONE).to_vec();
    bytes.extend_from_slice(&body.records);
    bytes
}

/// Makes the checksum right again, so that the reader behind it meets the damage.
fn mend_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Reads everything there is; returns the number of records and the first error.
fn read_all(bytes: &[u8]) -> (usize, Result<(), Error>) {
    let mut count = 0;
    let mut scratch = Vec::new();
    let result = Batches::new(bytes).try_for_each(|batch| {
        let batch = batch?;
        std::hint::black_box(batch.control_marker());
        for record in batch.records(&mut scratch, LIMIT)? {
            record?.headers().try_for_each(|header| header.map(drop))?;
            count += 1;
        }
        Ok(())
    });
    assert!(
        scratch.capacity() <= LIMIT,
        "{} bytes for scratch",
        scratch.capacity()
    );
    (count, result)
}

fn codecs() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_as_batches(bytes in vec(any::<u8>(), 0..400)) {
        let (_, _) = read_all(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_good_header(bytes in vec(any::<u8>(), 0..400), codec in codecs(), count: i32) {
        let mut batch = batch(1, Compression::None);
        batch.truncate(HEADER_LEN);
        batch.extend_from_slice(&bytes);
        let length = i32::try_from(batch.len() - 12).unwrap();
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[21..23].copy_from_slice(&codec.attribute_bits().to_be_bytes());
        batch[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        let (records, _) = read_all(&batch);
        prop_assert!(records <= LIMIT / 7);
    }

    #[test]
    fn arbitrary_bytes_as_compressed_data(mut bytes in vec(any::<u8>(), 0..400), codec in codecs(), with_magic: bool) {
        // Past the magic numbers that arbitrary bytes would never hit.
        let magic: &[u8] = match codec {
            Compression::None => &[],
            Compression::Gzip => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff],
            Compression::Snappy => b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x20",
            Compression::Lz4 => &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0, 0x20, 0, 0, 0],
            Compression::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        };
        if with_magic {
            bytes.splice(0..0, magic.iter().copied());
        }
        let mut output = Vec::new();
        drop(decompress(codec, &bytes, LIMIT, &mut output));
        prop_assert!(output.capacity() <= LIMIT);
    }

    #[test]
    fn arbitrary_bytes_as_a_produce_answer(bytes in vec(any::<u8>(), 0..200), version in 0..20_i16) {
        drop(produce::parse_answer(version, &bytes));
    }

    #[test]
    fn changed_bytes_are_noticed_or_harmless(
        codec in codecs(),
        changes in vec((any::<prop::sample::Index>(), 1..=255_u8), 1..6),
        mend: bool,
    ) {
        let good = batch(40, codec);
        let mut bad = good.clone();
        for (at, flip) in changes {
            let at = at.index(bad.len());
            bad[at] ^= flip;
        }
        prop_assume!(bad != good);
        if mend {
            mend_crc(&mut bad);
        } else if bad[21..] != good[21..]
            && let Some(Ok(batch)) = Batches::new(&bad).next()
            && batch.raw().len() == bad.len()
        {
            prop_assert_eq!(batch.check_crc().unwrap_err().kind(), Kind::Corrupt);
        }
        let (count, _) = read_all(&bad);
        prop_assert!(count <= LIMIT / 7);
    }

    #[test]
    fn a_cut_batch_is_no_batch(codec in codecs(), cut: prop::sample::Index) {
        let good = batch(40, codec);
        let cut = cut.index(good.len());
        let mut batches = Batches::new(&good[..cut]);
        prop_assert!(batches.next().is_none());
        prop_assert_eq!(batches.remaining(), cut);
    }
}

fn first_error(bytes: &[u8]) -> String {
    read_all(bytes).1.unwrap_err().to_string()
}

#[test]
fn a_record_count_is_not_believed() {
    let good = batch(3, Compression::None);
    for (count, complaint) in [
        (i32::MAX, "2147483647 records cannot be in"),
        (-1, "-1 records cannot be in"),
        (2, "bytes are left after the last record"),
        (4, "the bytes end inside a record's length"),
    ] {
        let mut bad = good.clone();
        bad[57..61].copy_from_slice(&count.to_be_bytes());
        let message = first_error(&bad);
        assert!(
            message.starts_with("record batch at offset 0: ") && message.contains(complaint),
            "{message}"
        );
    }
}

#[test]
fn a_batch_length_is_not_believed() {
    for (length, kind) in [
        (-1, Some(Kind::Corrupt)),
        (48, Some(Kind::Corrupt)),
        (0, Some(Kind::Corrupt)),
        (i32::MAX, None),
    ] {
        let mut bad = batch(3, Compression::None);
        bad[8..12].copy_from_slice(&length.to_be_bytes());
        let mut batches = Batches::new(&bad);
        assert_eq!(
            batches.next().map(|batch| batch.unwrap_err().kind()),
            kind,
            "{length}"
        );
        assert!(batches.next().is_none(), "iteration goes on after an error");
    }
}

#[test]
fn older_formats_are_named() {
    let mut old = batch(3, Compression::None);
    old[16] = 1;
    assert_eq!(
        first_error(&old),
        "record batch at offset 0: format 1, and only 2 is known"
    );
}

#[test]
fn lengths_inside_a_record_are_not_believed() {
    // One record: length, attributes, timestamp, offset, key length, key, value length, value, header count.
    let record = |bytes: &[u8]| {
        let mut bad = batch(1, Compression::None);
        bad.truncate(HEADER_LEN);
        bad.extend_from_slice(bytes);
        let length = i32::try_from(bad.len() - 12).unwrap();
        bad[8..12].copy_from_slice(&length.to_be_bytes());
        bad
    };
    assert_eq!(
        read_all(&record(&[14, 0, 0, 0, 1, 2, b'v', 0])).0,
        1,
        "the record is right as it is"
    );
    let cases: [(&[u8], &str); 9] = [
        (
            &[16, 0, 0, 0, 1, 2, b'v', 0],
            "the bytes end inside a record",
        ),
        (
            &[14, 0, 0, 0, 3, 2, b'v', 0],
            "a record's key has the length -2",
        ),
        (
            &[14, 0, 0, 0, 1, 20, b'v', 0],
            "the bytes end inside a record's value",
        ),
        (
            &[14, 0, 0, 2, 1, 2, b'v', 0],
            "a record's offset delta is 1 after -1, and the last is 0",
        ),
        (
            &[14, 0, 0, 0, 1, 2, b'v', 2],
            "1 record headers cannot be in 0 bytes",
        ),
        (
            &[14, 0, 0, 0, 1, 2, b'v', 1],
            "a record's header count is -1",
        ),
        (
            &[16, 0, 0, 0, 1, 2, b'v', 0, 0],
            "0 record headers cannot be in 1 bytes",
        ),
        (
            &[18, 0, 0, 0, 1, 2, b'v', 2, 1, 1],
            "a record header's name is null",
        ),
        (
            &[
                22, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
            ],
            "an integer of more than 64 bits",
        ),
    ];
    for (bytes, complaint) in cases {
        let message = first_error(&record(bytes));
        assert!(message.contains(complaint), "{bytes:?}: {message}");
    }
}

#[test]
fn a_compacted_batch_keeps_its_offsets() {
    // Two records of a batch that once held ten: offset deltas 3 and 7.
    let mut bytes = batch(1, Compression::None);
    bytes.truncate(HEADER_LEN);
    bytes.extend_from_slice(&[14, 0, 0, 6, 1, 2, b'a', 0, 14, 0, 0, 14, 1, 2, b'b', 0]);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[23..27].copy_from_slice(&9_i32.to_be_bytes());
    bytes[57..61].copy_from_slice(&2_i32.to_be_bytes());
    tidegate_wire::assign_offsets(&mut bytes, 100, 5).unwrap();
    mend_crc(&mut bytes);

    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    batch.check_crc().unwrap();
    let mut scratch = Vec::new();
    let offsets: Vec<_> = batch
        .records(&mut scratch, LIMIT)
        .unwrap()
        .map(|record| record.unwrap().offset)
        .collect();
    assert_eq!(offsets, [103, 107]);
    assert_eq!(
        (batch.header().last_offset(), batch.header().next_offset()),
        (109, 110)
    );
    assert_eq!(batch.header().partition_leader_epoch, 5);
}

#[test]
fn log_append_time_is_every_record_s_timestamp() {
    let mut bytes = batch(3, Compression::None);
    bytes[21..23].copy_from_slice(&0b1000_i16.to_be_bytes());
    bytes[35..43].copy_from_slice(&42_i64.to_be_bytes());
    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    let mut scratch = Vec::new();
    assert!(
        batch
            .records(&mut scratch, LIMIT)
            .unwrap()
            .all(|record| record.unwrap().timestamp == 42)
    );
}
