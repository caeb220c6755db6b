//! Batches with some of their records taken out, read again.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use tidegate_wire::{
    BatchBuilder, BatchHeader, Batches, Compression, Compressor, ProducerStamp, RecordHeader,
    assign_offsets, encode_header, retain_records,
};

const LIMIT: usize = 1 << 20;

/// Ten records at offsets 50 to 59 and timestamps 1000 to 1009, of a transactional producer.
fn ten_records(codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::with_buffer(Vec::new(), 1000);
    for number in 0..10_u8 {
        let header = RecordHeader {
            name: "number",
            value: Some(&[number]),
        };
        let value = [number; 100];
        let value = (number != 7).then_some(&value[..]);
        builder.append(
            Some(1000 + i64::from(number)),
            Some(&[number]),
            value,
            &[header],
        );
    }
    let mut body = builder.finish();
    body.compress(&mut Compressor::new(), codec, Vec::new());
    let stamp = ProducerStamp {
        producer_id: 7,
        epoch: 3,
        base_sequence: 90,
        transactional: true,
    };
    let mut bytes = encode_header(&body, stamp).to_vec();
    bytes.extend_from_slice(&body.records);
    assign_offsets(&mut bytes, 50, 4).unwrap();
    bytes
}

type Read = (BatchHeader, Vec<(i64, i64, Vec<u8>, Option<Vec<u8>>)>);

fn read(bytes: &[u8]) -> Read {
    let mut batches = Batches::new(bytes);
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none() && batches.remaining() == 0);
    batch.check_crc().unwrap();
    let mut scratch = Vec::new();
    let records = batch.records(&mut scratch, LIMIT).unwrap();
    let records = records.map(|record| {
        let record = record.unwrap();
        let key = record.key.unwrap().to_vec();
        let header = record.headers().next().unwrap().unwrap();
        assert_eq!(header.value, Some(&key[..]));
        let value = record.value.map(<[u8]>::to_vec);
        (record.offset, record.timestamp, key, value)
    });
    let records = records.collect();
    (*batch.header(), records)
}

#[test]
fn what_is_kept_stays_as_it_was() {
    for codec in Compression::ALL {
        let bytes = ten_records(codec);
        let (before, all) = read(&bytes);
        let keeps: [&dyn Fn(i64) -> bool; 4] = [
            &|offset| offset % 3 == 0,
            &|offset| offset == 59,
            &|offset| offset == 50,
            &|_| false,
        ];
        for keep in keeps {
            let batch = Batches::new(&bytes).next().unwrap().unwrap();
            let kept = retain_records(&batch, LIMIT, &mut Compressor::new(), |record| {
                keep(record.offset)
            });
            let (after, found) = read(&kept.unwrap().unwrap());
            let expected: Vec<_> = all.iter().filter(|one| keep(one.0)).cloned().collect();
            assert_eq!(found, expected, "{codec}");
            let newest = expected.iter().map(|one| one.1).max();
            let expected = BatchHeader {
                batch_length: after.batch_length,
                crc: after.crc,
                attributes: after.attributes,
                record_count: i32::try_from(expected.len()).unwrap(),
                max_timestamp: newest.unwrap_or(before.max_timestamp),
                ..before
            };
            assert_eq!(after, expected);
            assert_eq!(after.next_offset(), 60);
            assert!(after.is_transactional() && !after.is_control());
        }
    }
}

#[test]
fn a_batch_that_keeps_all_is_left_alone() {
    let bytes = ten_records(Compression::Lz4);
    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    let kept = retain_records(&batch, LIMIT, &mut Compressor::new(), |_| true);
    assert_eq!(kept.unwrap(), None);
    let too_small = retain_records(&batch, 10, &mut Compressor::new(), |_| true);
    assert!(too_small.is_err());
}
