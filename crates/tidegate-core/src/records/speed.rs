//! How long a row takes, in nanoseconds: the best of some rounds, so that other work on the machine weighs little. Not a test: it
//! asserts nothing about time.
//!
//! ```console
//! $ cargo test --release -p tidegate-core --lib -- --ignored --nocapture nanoseconds_per_row
//! ```

use std::hint::black_box;
use std::time::Instant;

use super::fixture::Setup;
use super::*;
use crate::encode::CellFormat;
use crate::infer::{InferOptions, infer};
use crate::read::{CsvFormat, ReadRow};

/// A round is short, so that some of them are left alone by whatever else runs.
const ROWS: u32 = 20_000;
const ROUNDS: usize = 500;

const FIELDS: &str = r#"{"name": "timestamp", "type": "long"}, {"name": "container_id", "type": "string"},
    {"name": "machine_id", "type": "string"}, {"name": "cpu", "type": "double"}, {"name": "mem", "type": "double"}"#;

/// As many columns of logical and nullable types.
const LOGICAL: &str = r#"{"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "container_id", "type": ["null", "string"]}, {"name": "machine_id", "type": ["string", "null"]},
    {"name": "cpu", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
    {"name": "mem", "type": ["null", {"type": "int", "logicalType": "date"}]}"#;

const GROUPED: &str = r#"{"name": "timestamp", "type": "long"}, {"name": "rows", "type": {"type": "array", "items": {
    "type": "record", "name": "I", "fields": [{"name": "container_id", "type": "string"},
    {"name": "machine_id", "type": "string"}, {"name": "cpu", "type": "double"}, {"name": "mem", "type": "double"}]}}}"#;

fn input(quote: &str) -> Vec<u8> {
    let mut text = String::from("timestamp,container_id,machine_id,cpu,mem\n");
    for row in 0..ROWS {
        let (time, container, machine) = (1_699_999_999 + row / 100, row % 1000, row % 50);
        let (cpu, mem) = (row % 100, row % 4096);
        text.push_str(&format!(
            "{time},{quote}c_{container}{quote},{quote}n_{machine}{quote},0.{cpu:02},{mem}.5\n"
        ));
    }
    text.into_bytes()
}

/// Rows for [`LOGICAL`]: times in ISO 8601, some cells empty.
fn logical_input() -> Vec<u8> {
    let mut text = String::from("timestamp,container_id,machine_id,cpu,mem\n");
    for row in 0..ROWS {
        let (second, milli) = (row / 100 % 60, row % 1000);
        let (container, machine) = (row % 1000, row % 50);
        let (cpu, day) = (row % 100, 1 + row % 28);
        let date = if row % 10 == 0 {
            String::new()
        } else {
            format!("2024-02-{day:02}")
        };
        text.push_str(&format!(
            "2024-01-31T12:30:{second:02}.{milli:03}Z,c_{container},n_{machine},0.{cpu:02},{date}\n"
        ));
    }
    text.into_bytes()
}

/// All rows of an input looked at for the types of its columns.
fn inference(input: &[u8]) -> f64 {
    let options = InferOptions {
        record_name: "usage",
        group_by: &[],
        cells: &CellFormat::default(),
        looks_for_nulls: true,
        sample: None,
        format: ValueFormat::Avro,
        set: &[],
        mark_last: None,
    };
    nanoseconds(|| {
        let reader = RowReader::open(input, CsvFormat::default()).unwrap();
        infer(reader, &options).unwrap().rows
    })
}

/// The best of some rounds.
fn nanoseconds(mut round: impl FnMut() -> u64) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        assert_eq!(round(), u64::from(ROWS));
        start.elapsed().as_secs_f64() * 1e9 / f64::from(ROWS)
    });
    times.fold(f64::INFINITY, f64::min)
}

fn parse(input: &[u8]) -> f64 {
    nanoseconds(|| {
        let mut reader = RowReader::open(input, CsvFormat::default()).unwrap();
        let mut rows = 0;
        while let ReadRow::Row(row) = reader.next().unwrap() {
            black_box(row.field(4));
            rows += 1;
        }
        rows
    })
}

fn records(input: &[u8], setup: &Setup) -> f64 {
    let plan = setup
        .plan_for("timestamp,container_id,machine_id,cpu,mem")
        .unwrap();
    nanoseconds(|| {
        let reader = RowReader::open(input, CsvFormat::default()).unwrap();
        let mut records = RecordStream::new(reader, &plan, None).unwrap();
        let mut rows = 0;
        while let Step::Record(record) = records.next().unwrap() {
            black_box((record.key, record.value));
            rows += u64::from(record.rows);
        }
        rows
    })
}

/// The plan alone, over one row again and again.
fn encode_only(setup: &Setup) -> f64 {
    let plan = setup
        .plan_for("timestamp,container_id,machine_id,cpu,mem")
        .unwrap();
    let Shape::Row { ops } = &plan.shape else {
        panic!("a record of one row");
    };
    let text = "timestamp,container_id,machine_id,cpu,mem\n1699999999,c_123,n_45,0.52,123.5\n";
    let mut reader = RowReader::open(text.as_bytes(), CsvFormat::default()).unwrap();
    let ReadRow::Row(row) = reader.next().unwrap() else {
        panic!("a good row");
    };
    let mut out = Vec::new();
    nanoseconds(|| {
        for _ in 0..ROWS {
            out.clear();
            plan.encode(ops, black_box(&row), &mut out).unwrap();
            black_box(&out);
        }
        u64::from(ROWS)
    })
}

#[test]
#[ignore = "prints a measurement; run it alone, with --release"]
fn nanoseconds_per_row() {
    let show = |what: &str, time: f64| {
        println!("{what:<36} {time:6.1} ns/row  {:5.1} M rows/s", 1e3 / time);
    };
    let plain = input("");
    let quoted = input("\"");
    let setup = Setup::fields(FIELDS);
    show("read", parse(&plain));
    show("read, two fields quoted", parse(&quoted));
    show("encode Avro", encode_only(&setup));
    show("encode JSON", encode_only(&setup.clone().json()));
    show("read + encode Avro + key", records(&plain, &setup));
    let logical = logical_input();
    show(
        "the same, nullable and logical types",
        records(&logical, &Setup::fields(LOGICAL)),
    );
    show("infer a schema", inference(&plain));
    show("infer a schema, dates and times", inference(&logical));
    show("the same, two fields quoted", records(&quoted, &setup));
    show("read + encode JSON + key", records(&plain, &setup.json()));
    show(
        "read + group by 100 + Avro + key",
        records(&plain, &Setup::fields(GROUPED).group_by(&["timestamp"])),
    );
}
