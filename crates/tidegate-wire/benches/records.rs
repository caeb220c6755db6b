//! Nanoseconds a record: appended to a batch, compressed, and read back. `cargo bench -p tidegate-wire`.
//!
//! The records are those of a load: no key or a timestamp of 13 digits, and 34 bytes of Avro.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement fails where it cannot go on, and prints"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidegate_wire::{
    BatchBody, BatchBuilder, Batches, Compression, Compressor, ProducerStamp, encode_header,
};

/// A batch of some 500 kB, as sealed by default.
const RECORDS: u32 = 10_000;
const ROUNDS: usize = 400;

/// Values that differ from record to record as a measurement's do.
fn values() -> Vec<[u8; 34]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = |i: u32| {
        let mut bytes = *b"\0\0\0\0\x07..........container_0000:..01";
        for byte in &mut bytes[5..15] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_be_bytes()[0];
        }
        bytes[25..29].copy_from_slice(format!("{:04}", i % 500).as_bytes());
        bytes
    };
    (0..RECORDS).map(&mut value).collect()
}

fn build(buffer: Vec<u8>, key: Option<&[u8]>, values: &[[u8; 34]]) -> BatchBody {
    let mut builder = BatchBuilder::with_buffer(buffer, 1_700_000_000_000);
    for value in values {
        builder.append(None, key, Some(value), &[]);
    }
    builder.finish()
}

fn report(what: &str, mut round: impl FnMut()) {
    let mut times: Vec<Duration> = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(RECORDS);
    println!(
        "{what:28} {:6.1} ns a record (best {:.1})",
        each(times[ROUNDS / 2]),
        each(times[0])
    );
}

fn main() {
    let values = values();
    for (name, key) in [
        ("append without key", None),
        ("append with key", Some(&b"1700000000000"[..])),
    ] {
        let mut buffer = Vec::with_capacity(1 << 20);
        report(name, || {
            buffer = black_box(build(std::mem::take(&mut buffer), key, &values)).records;
        });
    }

    let body = build(Vec::new(), Some(b"1700000000000"), &values);
    report("checksum and header", || {
        black_box(encode_header(&body, ProducerStamp::NONE));
    });
    let mut compressor = Compressor::new();
    for codec in Compression::ALL {
        let mut output = Vec::new();
        report(&format!("compress {codec}"), || {
            compressor
                .compress(codec, &body.records, &mut output)
                .unwrap();
        });
        let ratio = body.records.len() as f64 / output.len() as f64;
        println!("{:28} {ratio:6.2} times smaller", "");

        let mut compressed = body.clone();
        drop(compressed.compress(&mut compressor, codec, Vec::new()));
        let mut bytes = encode_header(&compressed, ProducerStamp::NONE).to_vec();
        bytes.extend_from_slice(&compressed.records);
        let mut scratch = Vec::new();
        report(&format!("read {codec}"), || {
            let batch = Batches::new(&bytes).next().unwrap().unwrap();
            let records = batch.records(&mut scratch, 1 << 24).unwrap();
            let len: usize = records
                .map(|record| record.unwrap().value.unwrap().len())
                .sum();
            assert_eq!(black_box(len), 34 * RECORDS as usize);
        });
    }
}
