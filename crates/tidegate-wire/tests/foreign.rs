//! Batches made by librdkafka and by Kafka's Java client, as a real broker stored them, read with this crate.
//!
//! `tests/fixtures/README.md` says how they were made; [`librdkafka_record`] and [`java_record`] hold the same
//! rules for their content as `make.py` there.

#![expect(
    clippy::unwrap_used,
    reason = "a test or a measurement that cannot go on fails"
)]

use std::fs;
use std::path::Path;

use tidegate_wire::{Batch, Batches, Compression, Marker, Record, assign_offsets, encode_marker};

const LIMIT: usize = 1 << 20;

#[derive(Debug, PartialEq)]
struct Content {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn librdkafka_record(i: u8) -> Content {
    let value = format!(
        "value {i} {}{}",
        "é✓".repeat(usize::from(i % 4)),
        "tail ".repeat(20)
    );
    let headers = [
        ("trace", Some(vec![i, 255])),
        ("empty", None),
        ("trace", Some(b"again".to_vec())),
    ];
    Content {
        key: (!i.is_multiple_of(5)).then(|| format!("key-{}", i % 7).into_bytes()),
        value: (!i.is_multiple_of(11)).then(|| value.into_bytes()),
        headers: if i.is_multiple_of(3) {
            headers.map(|(name, value)| (name.to_owned(), value)).into()
        } else {
            Vec::new()
        },
    }
}

fn librdkafka_timestamp(i: u8) -> i64 {
    1_700_000_000_000 + i64::from(i) * 1000 - i64::from(i % 3) * 5000
}

fn java_record(i: u8) -> Content {
    let value = format!(
        "line {i} {}{}",
        "é✓".repeat(usize::from(i % 4)),
        "tail ".repeat(20)
    );
    Content {
        key: Some(format!("key-{}", i % 7).into_bytes()),
        value: Some(value.into_bytes()),
        headers: Vec::new(),
    }
}

fn content(record: &Record<'_>) -> Content {
    let headers = record.headers().map(|header| {
        let header = header.unwrap();
        (header.name.to_owned(), header.value.map(<[u8]>::to_vec))
    });
    Content {
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: headers.collect(),
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Offset, timestamp and content of every record, from every batch that `wanted` lets through.
fn read_all(bytes: &[u8], mut wanted: impl FnMut(&Batch<'_>) -> bool) -> Vec<(i64, i64, Content)> {
    let mut found = Vec::new();
    let mut scratch = Vec::new();
    let mut batches = Batches::new(bytes);
    let mut next_offset = 0;
    for batch in &mut batches {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        assert_eq!(batch.header().base_offset, next_offset);
        next_offset = batch.header().next_offset();
        if wanted(&batch) {
            let records = batch
                .records(&mut scratch, LIMIT)
                .unwrap()
                .map(Result::unwrap);
            found.extend(records.map(|record| (record.offset, record.timestamp, content(&record))));
        }
    }
    assert_eq!(batches.remaining(), 0);
    found
}

fn with_codec(codec: Compression) -> impl FnMut(&Batch<'_>) -> bool {
    move |batch| {
        assert_eq!(
            batch.header().compression().unwrap(),
            codec,
            "the fixture is of another codec"
        );
        assert!(
            batch.header().producer_id >= 0,
            "both clients are idempotent by default"
        );
        assert!(!batch.header().is_control() && !batch.header().is_transactional());
        true
    }
}

#[test]
fn librdkafka_in_every_codec() {
    for codec in Compression::ALL {
        let found = read_all(
            &fixture(&format!("librdkafka-{codec}.bin")),
            with_codec(codec),
        );
        let expected: Vec<_> = (0..100)
            .map(|i| (i64::from(i), librdkafka_timestamp(i), librdkafka_record(i)))
            .collect();
        assert_eq!(found, expected, "{codec}");
    }
}

#[test]
fn java_in_every_codec() {
    for codec in Compression::ALL {
        let found = read_all(&fixture(&format!("java-{codec}.bin")), with_codec(codec));
        let offsets: Vec<_> = found.iter().map(|(offset, ..)| *offset).collect();
        assert_eq!(offsets, (0..100).collect::<Vec<_>>(), "{codec}");
        let contents: Vec<_> = found.into_iter().map(|(.., content)| content).collect();
        assert_eq!(
            contents,
            (0..100).map(java_record).collect::<Vec<_>>(),
            "{codec}"
        );
    }
}

#[test]
fn transaction_markers_stand_behind_their_records() {
    let mut markers = Vec::new();
    let mut transactional = 0;
    let bytes = fixture("librdkafka-transactions.bin");
    let found = read_all(&bytes, |batch| {
        markers.extend(
            batch
                .control_marker()
                .map(|marker| (batch.header().base_offset, marker)),
        );
        transactional += usize::from(batch.header().is_transactional());
        !batch.header().is_control()
    });
    assert_eq!(
        markers,
        [
            (10, Marker::Commit),
            (21, Marker::Abort),
            (32, Marker::Commit)
        ]
    );
    assert!(
        transactional >= 6,
        "three batches of data and their markers, all transactional: {transactional}"
    );
    let expected: Vec<_> = (0..30)
        .map(|i| (i64::from(i) + i64::from(i) / 10, librdkafka_record(i)))
        .collect();
    let found: Vec<_> = found
        .into_iter()
        .map(|(offset, _, content)| (offset, content))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn markers_are_written_as_kafka_writes_them() {
    let bytes = fixture("librdkafka-transactions.bin");
    let mut compared = 0;
    for batch in Batches::new(&bytes) {
        let batch = batch.unwrap();
        let Some(marker) = batch.control_marker() else {
            continue;
        };
        let header = batch.header();
        let mut ours = encode_marker(
            marker,
            header.producer_id,
            header.producer_epoch,
            batch.coordinator_epoch().unwrap(),
            header.base_timestamp,
        );
        assign_offsets(&mut ours, header.base_offset, header.partition_leader_epoch).unwrap();
        assert_eq!(ours, batch.raw(), "{marker:?}");
        compared += 1;
    }
    assert_eq!(compared, 3);
}

#[test]
fn a_batch_cut_off_at_the_end_ends_quietly() {
    let bytes = fixture("librdkafka-transactions.bin");
    let lengths: Vec<_> = Batches::new(&bytes)
        .map(|batch| batch.unwrap().raw().len())
        .collect();
    for cut in 0..bytes.len() {
        let mut batches = Batches::new(&bytes[..cut]);
        let whole: usize = batches
            .by_ref()
            .map(|batch| batch.unwrap().raw().len())
            .sum();
        assert_eq!(batches.remaining(), cut - whole);
        let next = lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end)
            })
            .find(|&end| end > whole);
        assert!(
            next.unwrap() > cut,
            "a whole batch was left unread at {cut}"
        );
    }
}
