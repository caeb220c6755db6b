//! Recovery, reading and searching of a partition's log.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::testing::{base_offsets, batch, batch_at, stamp};
use tidegate_wire::ProducerStamp;

const RULES: AppendRules = AppendRules {
    leader_epoch: 0,
    segment_bytes: 1 << 30,
    segment_ms: i64::MAX,
    now_ms: 0,
    append_time: None,
    from_zero: false,
};

fn open(dir: &Path) -> Result<PartitionLog, Error> {
    PartitionLog::open(dir, Arc::new(FilePool::new(4)), 100)
}

fn append(log: &mut PartitionLog, batch: &[u8], rules: AppendRules) -> Appended {
    log.append(batch, &parse_header(batch).unwrap(), rules)
        .unwrap()
}

/// Reads everything from `offset` on, file by file.
fn read_all(log: &PartitionLog, mut offset: i64, max_bytes: usize) -> Vec<i64> {
    let mut found = Vec::new();
    while let Some(slice) = log.slice(offset).unwrap() {
        let bytes = slice.read(offset, max_bytes, true).unwrap();
        let offsets = base_offsets(&bytes);
        assert!(!offsets.is_empty());
        let last = Batches::new(&bytes).map(Result::unwrap).last().unwrap();
        offset = last.header().next_offset();
        found.extend(offsets);
    }
    found
}

fn segment_path(dir: &Path, base_offset: i64) -> PathBuf {
    dir.join(file_name(base_offset))
}

#[test]
fn what_was_appended_is_read_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let rules = AppendRules {
        segment_bytes: 2000,
        ..RULES
    };
    let mut log = open(dir.path()).unwrap();
    for number in 0..100_u8 {
        let appended = append(&mut log, &batch(&[&[number; 30], b"second"]), rules);
        assert_eq!(appended.base_offset, i64::from(number) * 2);
    }
    assert!(log.segments.len() > 3, "{}", log.segments.len());
    for log in [log, open(dir.path()).unwrap()] {
        assert_eq!((log.start_offset(), log.next_offset()), (0, 200));
        for offset in 0..200 {
            let expected: Vec<i64> = (offset / 2..100).map(|number| number * 2).collect();
            assert_eq!(read_all(&log, offset, 500), expected, "from {offset}");
        }
        assert!(log.slice(200).unwrap().is_none());
        assert_eq!(log.bytes_after(200), 0);
        let total: u64 = log.segments.iter().map(|segment| segment.len).sum();
        assert_eq!(log.bytes_after(0), total);
        assert!(log.bytes_after(199) > 0);
    }
}

#[test]
fn a_batch_larger_than_asked_for_comes_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    for _ in 0..3 {
        append(&mut log, &batch(&[&[7; 200]]), RULES);
    }
    let slice = log.slice(1).unwrap().unwrap();
    assert_eq!(base_offsets(&slice.read(1, 10, true).unwrap()), [1]);
    assert!(slice.read(1, 10, false).unwrap().is_empty());
    assert_eq!(
        base_offsets(&slice.read(1, 1 << 20, false).unwrap()),
        [1, 2]
    );
}

#[test]
fn records_are_found_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    let rules = AppendRules {
        segment_bytes: 3000,
        ..RULES
    };
    // Ten records a batch, a millisecond each; the largest timestamp stands in the middle of the log.
    for number in 0..100 {
        let start = match number {
            50 => 1_000_000,
            number => number * 10,
        };
        let values: [&[u8]; 10] = [b"value"; 10];
        append(
            &mut log,
            &batch_at(start, &values, ProducerStamp::NONE),
            rules,
        );
    }
    let find = |log: &PartitionLog, time: i64| {
        let slice = log.slice_by_time(time).unwrap()?;
        let batch = slice.find(|header| header.max_timestamp >= time).unwrap()?;
        first_record_at(&batch, time).unwrap()
    };
    for log in [log, open(dir.path()).unwrap()] {
        for time in 0..500 {
            assert_eq!(find(&log, time), Some((time, time)));
        }
        assert_eq!(find(&log, 600), Some((500, 1_000_000)));
        assert_eq!(find(&log, 1_000_009), Some((509, 1_000_009)));
        assert_eq!(find(&log, 1_000_010), None);
        let (time, slice) = log.slice_of_max_timestamp().unwrap().unwrap();
        assert_eq!(time, 1_000_009);
        let batch = slice.find(|header| header.max_timestamp >= time).unwrap();
        let found = first_record_at(&batch.unwrap(), time).unwrap();
        assert_eq!(found, Some((509, time)));
    }
}

#[test]
fn a_log_cut_at_any_byte_keeps_its_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    let mut ends = vec![0];
    for number in 0..5 {
        let values: [&[u8]; 2] = [b"some value", b"another value"];
        append(
            &mut log,
            &batch_at(0, &values, stamp(9, 0, number * 2)),
            RULES,
        );
        ends.push(log.segments[0].len);
    }
    drop(log);
    let path = segment_path(dir.path(), 0);
    let whole = fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut log = open(dir.path()).unwrap();
        let kept = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
        let kept_offsets = i64::try_from(kept).unwrap() * 2;
        assert_eq!(log.next_offset(), kept_offsets, "cut at {cut}");
        assert_eq!(fs::metadata(&path).unwrap().len(), ends[kept]);
        let dropped = log.truncation().map_or(0, |cut| cut.dropped_bytes);
        assert_eq!(dropped, cut as u64 - ends[kept]);

        // The producer goes on where the log ends, and nowhere else; the last batch is still recognised.
        let next = i32::try_from(kept_offsets).unwrap();
        let gap = batch_at(0, &[b"x"], stamp(9, 0, next + 1));
        let refused = log.append(&gap, &parse_header(&gap).unwrap(), RULES);
        assert_eq!(refused.is_err(), kept > 0, "cut at {cut}");
        if kept > 0 {
            let values: [&[u8]; 2] = [b"some value", b"another value"];
            let again = batch_at(0, &values, stamp(9, 0, next - 2));
            let appended = append(&mut log, &again, RULES);
            assert_eq!(
                (appended.duplicate, appended.base_offset),
                (true, kept_offsets - 2)
            );
            let following = batch_at(0, &[b"x"], stamp(9, 0, next));
            assert_eq!(
                append(&mut log, &following, RULES).base_offset,
                kept_offsets
            );
        }
    }
}

#[test]
fn damage_that_no_crash_explains_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let rules = AppendRules {
        segment_bytes: 300,
        ..RULES
    };
    let mut log = open(dir.path()).unwrap();
    for number in 0..9_u8 {
        append(&mut log, &batch(&[&[number; 40]]), rules);
    }
    let last = log.segments.last().unwrap();
    let (last_base, second_last_base) = (last.base_offset, log.segments[1].base_offset);
    assert!(log.segments.len() > 2);
    drop(log);

    // In an older file even its end counts.
    let path = segment_path(dir.path(), second_last_base);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&file_name(second_last_base)));
    fs::write(&path, &whole).unwrap();

    // In the last file, a batch with a valid one behind it.
    let path = segment_path(dir.path(), last_base);
    let whole = fs::read(&path).unwrap();
    let first_len = parse_header(&whole).unwrap().total_len();
    assert!(first_len < whole.len(), "one batch only");
    for at in [3, 9, 16, 18, 30, HEADER_LEN + 5] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&file_name(last_base)), "{at}: {error}");
        assert!(error.contains("byte 0"), "{at}: {error}");
    }

    // A file missing in between.
    fs::write(&path, &whole).unwrap();
    fs::remove_file(segment_path(dir.path(), second_last_base)).unwrap();
    assert_eq!(open(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn zeros_at_the_end_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append(&mut log, &batch(&[b"kept"]), RULES);
    drop(log);
    let path = segment_path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes.resize(bytes.len() + 100_000, 0);
    fs::write(&path, bytes).unwrap();
    let log = open(dir.path()).unwrap();
    assert_eq!(log.next_offset(), 1);
    assert_eq!(log.truncation().unwrap().dropped_bytes, 100_000);
}

#[test]
fn leader_epochs_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    for epoch in [0, 0, 2, 5, 5] {
        let rules = AppendRules {
            leader_epoch: epoch,
            ..RULES
        };
        append(&mut log, &batch(&[b"v"]), rules);
    }
    for log in [log, open(dir.path()).unwrap()] {
        let found: Vec<_> = (-1..=6).map(|epoch| log.end_of_epoch(epoch)).collect();
        let (zero, two, five) = (Some((0, 2)), Some((2, 3)), Some((5, 5)));
        assert_eq!(found, [None, zero, zero, two, two, two, five, five]);
    }
}

#[test]
fn the_time_of_the_append_is_written_over_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    let rules = AppendRules {
        append_time: Some(77_000),
        ..RULES
    };
    append(&mut log, &batch(&[b"a", b"b"]), rules);
    let log = open(dir.path()).unwrap();
    let bytes = log.slice(0).unwrap().unwrap().read(0, 1000, true).unwrap();
    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    batch.check_crc().unwrap();
    let mut scratch = Vec::new();
    for record in batch.records(&mut scratch, 1000).unwrap() {
        assert_eq!(record.unwrap().timestamp, 77_000);
    }
}

proptest! {
    /// Whatever is appended, in files of whatever size, and however the last file is cut: what is read again
    /// is a beginning of what was appended, with nothing whole missing.
    #[test]
    fn recovery_keeps_a_beginning(
        sizes in prop::collection::vec((1_usize..4, 0_usize..300), 1..30),
        segment_bytes in 100_u64..2000,
        cut in 0.0_f64..=1.0,
        max_bytes in 1_usize..3000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let rules = AppendRules { segment_bytes, ..RULES };
        let mut log = open(dir.path()).unwrap();
        let mut offsets = Vec::new();
        for (count, size) in &sizes {
            let value = vec![b'v'; *size];
            let values = vec![value.as_slice(); *count];
            offsets.push(append(&mut log, &batch(&values), rules).base_offset);
        }
        prop_assert_eq!(&read_all(&log, 0, max_bytes), &offsets);
        let last = log.segments.last().unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small file")]
        let cut = (last.len as f64 * cut) as u64;
        let file = fs::File::options().write(true).open(&last.path).unwrap();
        file.set_len(cut).unwrap();
        let last_base = last.base_offset;
        drop(log);
        let log = open(dir.path()).unwrap();
        let kept = read_all(&log, 0, max_bytes);
        prop_assert_eq!(&kept[..], &offsets[..kept.len()]);
        prop_assert!(log.next_offset() >= last_base);
        let dropped = log.truncation().map_or(0, |truncation| truncation.dropped_bytes);
        prop_assert!(log.segments.last().unwrap().len + dropped == cut);
    }
}
