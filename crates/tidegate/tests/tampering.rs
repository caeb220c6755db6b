//! A log that was changed behind everybody's back, on the disk of the embedded broker: `verify` says so, with exit 9 and the place.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{Exits, Folder, tidegate, usage};
use serde_json::Value;
use tidegate_wire::{
    BatchBuilder, Batches, Compressor, Record, assign_offsets, encode_header, retain_records,
};

/// Key and value of a record.
type Content = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What is done to the records of a batch, by their offsets. One that is taken away leaves its offset unused, as compaction does.
enum Change {
    Content(fn(&mut [Content])),
    Drop(i64),
}

/// The one file of the topic's one partition.
fn log_of(folder: &Folder, topic: &str) -> PathBuf {
    let mut topics = std::fs::read_dir(folder.path(".tidegate/topics")).unwrap();
    let topic = topics
        .find_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&format!("{topic}-")).then(|| entry.path())
        })
        .unwrap();
    let files = std::fs::read_dir(topic.join("0")).unwrap();
    let mut logs = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let log = logs.next().unwrap();
    assert_eq!(logs.next(), None);
    log
}

/// Writes the log anew with the first batch changed; it keeps its producer, and is sound.
fn rewrite(log: &Path, change: &Change) {
    const LIMIT: usize = 1 << 20;
    let bytes = std::fs::read(log).unwrap();
    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    let changed = match change {
        Change::Drop(offset) => {
            let keep = |record: &Record<'_>| record.offset != *offset;
            let kept = retain_records(&batch, LIMIT, &mut Compressor::new(), keep);
            kept.unwrap().unwrap()
        }
        Change::Content(change) => {
            let mut scratch = Vec::new();
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let records = batch.records(&mut scratch, LIMIT).unwrap();
            let mut records: Vec<Content> = records
                .map(|record| record.unwrap())
                .map(|record| (owned(record.key), owned(record.value)))
                .collect();
            change(&mut records);
            let mut builder = BatchBuilder::with_buffer(Vec::new(), batch.header().base_timestamp);
            for (key, value) in &records {
                builder.append(None, key.as_deref(), value.as_deref(), &[]);
            }
            let body = builder.finish();
            let mut changed = encode_header(&body, batch.header().stamp()).to_vec();
            changed.extend_from_slice(&body.records);
            assign_offsets(&mut changed, batch.header().base_offset, 0).unwrap();
            changed
        }
    };
    let rest = &bytes[batch.raw().len()..];
    std::fs::write(log, [&changed, rest].concat()).unwrap();
}

/// Publishes, changes the log, and verifies by the position and by the receipt.
fn verified_after(change: &Change) -> [Value; 2] {
    let folder = Folder::new();
    folder.file("usage.csv", usage(20, 1));
    let here = folder.path(".");
    let publish = [
        "publish",
        "usage.csv",
        "-t",
        "usage",
        "--receipt",
        "r.json",
        "--format",
        "json",
    ];
    tidegate(publish).dir(&here).exits(0);
    let by_position = ["verify", "usage.csv", "-t", "usage", "-o", "json"];
    tidegate(by_position).dir(&here).exits(0);
    rewrite(&log_of(&folder, "usage"), change);
    let by_receipt = [
        "verify",
        "--receipt",
        "r.json",
        "--format",
        "json",
        "-o",
        "json",
    ];
    let differs = [
        tidegate(by_position).dir(&here).exits(9),
        tidegate(by_receipt).dir(&here).exits(9),
    ];
    differs.map(|differs| {
        let json = differs.json();
        assert_eq!(json["status"], "differs", "{differs}");
        json["first_difference"].clone()
    })
}

/// What is different, where in the topic, and where in the file.
fn place(difference: &Value) -> (&str, Option<i64>, Option<u64>) {
    (
        difference["what"].as_str().unwrap(),
        difference["offset"].as_i64(),
        difference["line"].as_u64(),
    )
}

#[test]
fn a_changed_byte_is_found() {
    let change = Change::Content(|records| {
        let value = records[7].1.as_mut().unwrap();
        let at = value.windows(3).position(|text| text == b"n_1").unwrap();
        value[at + 2] = b'2';
    });
    for difference in verified_after(&change) {
        assert_eq!(place(&difference), ("value", Some(7), Some(9)));
        assert_eq!(difference["column"], "machine_id");
    }
}

#[test]
fn a_record_that_is_gone_is_found() {
    for difference in verified_after(&Change::Drop(7)) {
        assert_eq!(place(&difference), ("missing", None, Some(9)));
    }
}

#[test]
fn a_record_that_is_there_twice_is_found() {
    let change = Change::Content(|records| records[8] = records[7].clone());
    for difference in verified_after(&change) {
        assert_eq!(place(&difference), ("duplicate", Some(8), Some(10)));
    }
}

#[test]
fn records_that_changed_places_are_found() {
    let change = Change::Content(|records| records.swap(7, 8));
    for difference in verified_after(&change) {
        assert_eq!(place(&difference), ("order", Some(7), Some(9)));
    }
}
