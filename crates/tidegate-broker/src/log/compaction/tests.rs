//! What compaction keeps, what it drops, and what a crash in its midst leaves.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_wire::{BatchBuilder, Batches, Marker, ProducerStamp, encode_header};

use super::super::{AppendRules, End, FilePool, parse_header};
use super::*;

const HOUR_MS: i64 = 3_600_000;

fn now() -> i64 {
    crate::shared::now_ms()
}

fn rules() -> CompactionRules {
    CompactionRules {
        min_dirty_ratio: 0.0,
        min_lag_ms: 0,
        delete_retention_ms: 24 * HOUR_MS,
        segment_bytes: 700,
        now_ms: now(),
    }
}

fn open(dir: &Path) -> PartitionLog {
    PartitionLog::open(dir, Arc::new(FilePool::new(8)), 100).unwrap()
}

const fn append_rules() -> AppendRules {
    AppendRules {
        leader_epoch: 0,
        segment_bytes: 700,
        segment_ms: i64::MAX,
        now_ms: 0,
        append_time: None,
        from_zero: false,
    }
}

/// Key and value of a record; without a value it is a tombstone.
type Entry<'a> = (&'a str, Option<&'a str>);

fn batch(entries: &[Entry<'_>], stamp: ProducerStamp) -> Vec<u8> {
    let mut builder = BatchBuilder::with_buffer(Vec::new(), now());
    for (key, value) in entries {
        let value = value.map(str::as_bytes);
        builder.append(None, Some(key.as_bytes()), value, &[]);
    }
    let body = builder.finish();
    let mut bytes = encode_header(&body, stamp).to_vec();
    bytes.extend_from_slice(&body.records);
    bytes
}

fn put(log: &mut PartitionLog, entries: &[Entry<'_>], stamp: ProducerStamp) -> i64 {
    let batch = batch(entries, stamp);
    let header = parse_header(&batch).unwrap();
    let appended = log.append(&batch, &header, append_rules()).unwrap();
    appended.base_offset
}

fn plain(log: &mut PartitionLog, key: &str, value: &str) {
    put(log, &[(key, Some(value))], ProducerStamp::NONE);
}

fn stamp(producer_id: i64, epoch: i16, base_sequence: i32) -> ProducerStamp {
    ProducerStamp {
        producer_id,
        epoch,
        base_sequence,
        transactional: true,
    }
}

fn end(log: &mut PartitionLog, producer_id: i64, epoch: i16, marker: Marker) {
    let end = End {
        marker,
        producer_id,
        epoch,
        coordinator_epoch: 0,
        timestamp: now(),
    };
    log.append_marker(&end, append_rules()).unwrap();
}

/// Compacts if there is anything to do.
fn compact(log: &mut PartitionLog, rules: CompactionRules) {
    if let Some(plan) = log.plan_compaction(rules) {
        let compacted = plan.run();
        log.install(compacted).unwrap();
    }
}

/// Begins a new file, so that all before it may be compacted.
fn roll(log: &mut PartitionLog) {
    let large = "x".repeat(900);
    plain(log, "roll", &large);
    plain(log, "roll", &large);
}

/// Offset, key and value of all records, read as a consumer reads them; `(offset, marker)` of all markers.
type Content = (Vec<(i64, String, Option<String>)>, Vec<(i64, Marker)>);

fn content(log: &PartitionLog) -> Content {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut records, mut markers) = (Vec::new(), Vec::new());
    let mut offset = log.start_offset();
    while let Some(slice) = log.slice(offset).unwrap() {
        let bytes = slice.read(offset, 2000, true).unwrap();
        assert!(!bytes.is_empty(), "nothing at {offset}");
        for found in Batches::new(&bytes) {
            let found = found.unwrap();
            found.check_crc().unwrap();
            if let Some(marker) = found.control_marker() {
                markers.push((found.header().base_offset, marker));
            } else {
                let mut scratch = Vec::new();
                for record in found.records(&mut scratch, 1 << 20).unwrap() {
                    let record = record.unwrap();
                    let key = text(record.key.unwrap());
                    records.push((record.offset, key, record.value.map(text)));
                }
            }
            assert!(found.header().next_offset() > offset);
            offset = found.header().next_offset();
        }
    }
    assert_eq!(offset.max(log.next_offset()), log.next_offset());
    (records, markers)
}

fn keys_of(log: &PartitionLog, key: &str) -> Vec<(i64, Option<String>)> {
    let (records, _) = content(log);
    let of_key = records.into_iter().filter(|(_, found, _)| found == key);
    of_key.map(|(offset, _, value)| (offset, value)).collect()
}

fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn of_each_key_the_last_record_stays_at_its_offset() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    for round in 0..60 {
        let value = format!("{round}");
        let entries = [("a", Some(&*value)), ("b", Some(&*value))];
        put(&mut log, &entries, ProducerStamp::NONE);
        if round == 20 {
            plain(&mut log, "once", "kept");
        }
    }
    roll(&mut log);
    let next_offset = log.next_offset();
    let (before, _) = content(&log);
    let files = file_names(dir.path()).len();
    assert!(files > 5, "{files}");
    compact(&mut log, rules());
    let expected: Vec<_> = before
        .iter()
        .filter(|(offset, ..)| [42, 119, 120].contains(offset) || *offset > 120)
        .cloned()
        .collect();
    assert_eq!(content(&log).0, expected);
    // Files that have become small become one with the next compaction.
    plain(&mut log, "a", "newest");
    roll(&mut log);
    compact(&mut log, rules());
    let fewer = file_names(dir.path()).len();
    assert!(fewer < files, "{files} files, then {fewer}");
    for log in [log, open(dir.path())] {
        assert_eq!(log.start_offset(), 0);
        assert_eq!(log.next_offset(), next_offset + 3);
        assert_eq!(keys_of(&log, "once"), [(42, Some("kept".to_owned()))]);
        assert_eq!(
            keys_of(&log, "a"),
            [(next_offset, Some("newest".to_owned()))]
        );
        // From anywhere, also from within a gap, reading goes on with what follows.
        for offset in 0..log.next_offset() {
            let slice = log.slice(offset).unwrap().unwrap();
            let bytes = slice.read(offset, 100, true).unwrap();
            let first = parse_header(&bytes).unwrap();
            assert!(first.last_offset() >= offset);
        }
    }
}

#[test]
fn it_waits_until_there_is_enough_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let half = CompactionRules {
        min_dirty_ratio: 0.5,
        ..rules()
    };
    assert!(log.plan_compaction(half).is_none());
    for number in 0..100 {
        plain(&mut log, &format!("key {number}"), "value");
    }
    // Records ahead of the broker's clock are compacted as well.
    let behind = CompactionRules {
        now_ms: half.now_ms - HOUR_MS,
        ..half
    };
    let plan = log.plan_compaction(behind).unwrap();
    assert!(log.plan_compaction(half).is_none(), "one at a time");
    let compacted = plan.run();
    log.install(compacted).unwrap();
    // Every key is there once: all of it stays, and what is new is little.
    roll(&mut log);
    assert!(log.plan_compaction(half).is_none());
    let young = CompactionRules {
        min_lag_ms: HOUR_MS,
        ..rules()
    };
    assert!(log.plan_compaction(young).is_none());
    assert!(log.plan_compaction(rules()).is_some());
}

#[test]
fn aborted_records_go_and_hide_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    put(&mut log, &[("a", Some("committed"))], stamp(1, 0, 0));
    put(&mut log, &[("b", Some("committed"))], stamp(1, 0, 1));
    end(&mut log, 1, 1, Marker::Commit);
    put(&mut log, &[("a", Some("aborted"))], stamp(1, 1, 0));
    // Another one in between, interleaved.
    put(&mut log, &[("b", Some("newer"))], stamp(2, 0, 0));
    put(&mut log, &[("c", Some("aborted"))], stamp(1, 1, 1));
    end(&mut log, 1, 2, Marker::Abort);
    end(&mut log, 2, 1, Marker::Commit);
    roll(&mut log);
    compact(&mut log, rules());
    for log in [log, open(dir.path())] {
        assert_eq!(keys_of(&log, "a"), [(0, Some("committed".to_owned()))]);
        assert_eq!(keys_of(&log, "b"), [(4, Some("newer".to_owned()))]);
        assert_eq!(keys_of(&log, "c"), []);
        assert_eq!(log.last_stable_offset(), log.next_offset());
        // Markers stay for their time, so that who is reading can tell.
        let markers = [(2, Marker::Commit), (6, Marker::Abort), (7, Marker::Commit)];
        assert_eq!(content(&log).1, markers);
    }
}

#[test]
fn what_an_open_transaction_may_still_change_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    plain(&mut log, "a", "old");
    plain(&mut log, "a", "new");
    roll(&mut log);
    put(&mut log, &[("a", Some("open"))], stamp(1, 0, 0));
    roll(&mut log);
    roll(&mut log);
    compact(&mut log, rules());
    let found: Vec<_> = keys_of(&log, "a");
    let values: Vec<_> = found
        .iter()
        .map(|(_, value)| value.as_deref().unwrap())
        .collect();
    assert_eq!(values, ["new", "open"]);
    let mut log = open(dir.path());
    assert_eq!(log.last_stable_offset(), found[1].0);
    end(&mut log, 1, 1, Marker::Commit);
    roll(&mut log);
    compact(&mut log, rules());
    assert_eq!(keys_of(&log, "a"), found[1..]);
}

#[test]
fn tombstones_and_markers_go_when_their_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    put(&mut log, &[("gone", Some("v"))], stamp(1, 0, 0));
    end(&mut log, 1, 1, Marker::Commit);
    put(&mut log, &[("kept", Some("v"))], stamp(1, 1, 0));
    end(&mut log, 1, 2, Marker::Commit);
    put(&mut log, &[("gone", None)], ProducerStamp::NONE);
    roll(&mut log);
    compact(&mut log, rules());
    assert_eq!(keys_of(&log, "gone"), [(4, None)]);
    let markers = [(1, Marker::Commit), (3, Marker::Commit)];
    assert_eq!(content(&log).1, markers);

    let later = CompactionRules {
        now_ms: now() + 25 * HOUR_MS,
        ..rules()
    };
    roll(&mut log);
    compact(&mut log, later);
    for log in [log, open(dir.path())] {
        assert_eq!(keys_of(&log, "gone"), []);
        assert_eq!(keys_of(&log, "kept"), [(2, Some("v".to_owned()))]);
        // The one that says that something counts stays with it.
        assert_eq!(content(&log).1, [(3, Marker::Commit)]);
        assert_eq!(log.last_stable_offset(), log.next_offset());
    }
}

#[test]
fn producers_are_known_when_their_records_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let idempotent = ProducerStamp {
        transactional: false,
        ..stamp(1, 0, 5)
    };
    put(&mut log, &[("a", Some("old"))], idempotent);
    put(&mut log, &[("b", Some("old"))], stamp(2, 3, 0));
    end(&mut log, 2, 4, Marker::Abort);
    // By the first protocol the epoch stays, and the sequence goes on.
    put(&mut log, &[("b", Some("old"))], stamp(3, 7, 0));
    end(&mut log, 3, 7, Marker::Commit);
    plain(&mut log, "a", "new");
    plain(&mut log, "b", "new");
    roll(&mut log);
    let resent = batch(&[("a", Some("old"))], idempotent);
    let before = log.producers().describe();
    compact(&mut log, rules());
    assert_eq!(keys_of(&log, "a").len(), 1);
    for mut log in [log, open(dir.path())] {
        assert_eq!(log.producers().describe(), before);
        assert_eq!(log.last_stable_offset(), log.next_offset());
        let header = parse_header(&resent).unwrap();
        let again = log.append(&resent, &header, append_rules()).unwrap();
        assert_eq!((again.base_offset, again.duplicate), (0, true));
    }
}

#[test]
fn a_crash_at_any_step_leaves_a_whole_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    for number in 0..100 {
        let key = format!("key {}", number % 7);
        let transactional = stamp(1, number, 0);
        put(
            &mut log,
            &[(&key, Some(&number.to_string()))],
            transactional,
        );
        let marker = match number % 3 {
            0 => Marker::Abort,
            _ => Marker::Commit,
        };
        end(&mut log, 1, number + 1, marker);
    }
    roll(&mut log);
    let latest = |log: &PartitionLog| -> BTreeMap<String, (i64, Option<String>)> {
        let (records, _) = content(log);
        let aborted = log.aborted.between(0, i64::MAX);
        let counts = |offset: i64| {
            let within =
                |one: &AbortedTransaction| (one.first_offset..=one.last_offset).contains(&offset);
            !aborted.iter().any(within)
        };
        let counted = records.into_iter().filter(|(offset, ..)| counts(*offset));
        counted
            .map(|(offset, key, value)| (key, (offset, value)))
            .collect()
    };
    let expected = latest(&log);
    assert_eq!(expected.len(), 8);
    let saved: Vec<_> = file_names(dir.path())
        .into_iter()
        .map(|name| (name.clone(), fs::read(dir.path().join(name)).unwrap()))
        .collect();
    // Compacted twice, so that files become one, and so that some are removed.
    compact(&mut log, rules());
    plain(&mut log, "more", "v");
    roll(&mut log);
    let last = file_names(dir.path());
    let larger = CompactionRules {
        segment_bytes: 5000,
        ..rules()
    };
    compact(&mut log, larger);
    let after = file_names(dir.path());
    drop(log);
    assert!(after.len() + 3 < last.len(), "{last:?} {after:?}");
    let removed = saved.iter().filter(|(name, _)| !after.contains(name));
    // Some of the files that were to be removed are still there, and one is half written.
    for (name, bytes) in removed.rev() {
        fs::write(dir.path().join(name), bytes).unwrap();
        let unfinished = dir.path().join(format!("{name}{UNFINISHED}"));
        fs::write(unfinished, &bytes[..bytes.len() / 2]).unwrap();
        let log = open(dir.path());
        let mut found = latest(&log);
        assert!(found.remove("more").is_some());
        found.insert("roll".to_owned(), expected["roll"].clone());
        assert_eq!(found, expected, "{name}");
        let names = file_names(dir.path());
        assert!(names.iter().all(|name| !name.ends_with(UNFINISHED)));
    }
}

#[test]
fn a_closed_log_s_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    for number in 0..50 {
        plain(&mut log, "a", &number.to_string());
    }
    let plan = log.plan_compaction(rules()).unwrap();
    let compacted = plan.run();
    log.close();
    log.install(compacted).unwrap();
    assert_eq!(keys_of(&log, "a").len(), 50);
    assert_eq!(keys_of(&open(dir.path()), "a").len(), 50);
    assert!(log.plan_compaction(rules()).is_none());
}

#[test]
fn gaps_are_damage_where_compaction_has_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    for number in 0..100 {
        plain(&mut log, "a", &number.to_string());
    }
    compact(&mut log, rules());
    for number in 0..100 {
        plain(&mut log, "b", &number.to_string());
    }
    drop(log);
    open(dir.path());
    let names: Vec<_> = file_names(dir.path());
    let logs: Vec<_> = names.iter().filter(|name| name.ends_with(".log")).collect();
    fs::remove_file(dir.path().join(logs[logs.len() - 2])).unwrap();
    let damaged = PartitionLog::open(dir.path(), Arc::new(FilePool::new(8)), 100);
    assert_eq!(
        damaged.unwrap_err().kind(),
        crate::error::ErrorKind::Corrupt
    );
}

/// A step of the property below: a transaction of one of three producers, or a compaction, or a restart.
#[derive(Debug, Clone)]
enum Step {
    Write {
        producer: u8,
        keys: Vec<u8>,
        tombstone: bool,
    },
    End {
        producer: u8,
        committed: bool,
    },
    Compact {
        later: bool,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop::collection::vec(0..6_u8, 1..4);
    prop_oneof![
        8 => (0..3_u8, keys, prop::bool::weighted(0.2)).prop_map(|(producer, keys, tombstone)| {
            Step::Write { producer, keys, tombstone }
        }),
        5 => (0..3_u8, any::<bool>())
            .prop_map(|(producer, committed)| Step::End { producer, committed }),
        2 => any::<bool>().prop_map(|later| Step::Compact { later }),
        1 => Just(Step::Restart),
    ]
}

/// What a reader of committed records that starts at the beginning knows of each key in the end.
fn committed_view(log: &PartitionLog) -> BTreeMap<String, String> {
    let stable = log.last_stable_offset();
    let (records, _) = content(log);
    let aborted = log.aborted.between(0, i64::MAX);
    let mut owners = Vec::new();
    let mut offset = log.start_offset();
    while let Some(slice) = log.slice(offset).unwrap() {
        for batch in Batches::new(&slice.read(offset, 2000, true).unwrap()) {
            let header = *batch.unwrap().header();
            owners.push((header.base_offset, header.producer_id));
            offset = header.next_offset();
        }
    }
    let mut view = BTreeMap::new();
    for (offset, key, value) in records {
        let at = owners.partition_point(|(base, _)| *base <= offset) - 1;
        let is_aborted = aborted.iter().any(|one| {
            one.producer_id == owners[at].1
                && (one.first_offset..=one.last_offset).contains(&offset)
        });
        if is_aborted || offset >= stable {
            continue;
        }
        match value {
            Some(value) => drop(view.insert(key, value)),
            None => drop(view.remove(&key)),
        }
    }
    view
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn readers_of_committed_records_never_notice(steps in prop::collection::vec(step(), 1..120)) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let mut epochs = [0_i16; 3];
        let mut sequences = [0_i32; 3];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { producer, keys, tombstone } => {
                    let id = usize::from(producer);
                    let value = number.to_string();
                    let keys: Vec<String> = keys.iter().map(u8::to_string).collect();
                    let value = (!tombstone).then_some(&*value);
                    let entries: Vec<_> = keys.iter().map(|key| (&**key, value)).collect();
                    let stamp = stamp(i64::from(producer), epochs[id], sequences[id]);
                    put(&mut log, &entries, stamp);
                    sequences[id] += i32::try_from(entries.len()).unwrap();
                }
                Step::End { producer, committed } => {
                    let id = usize::from(producer);
                    epochs[id] += 1;
                    sequences[id] = 0;
                    let marker = if committed { Marker::Commit } else { Marker::Abort };
                    end(&mut log, i64::from(producer), epochs[id], marker);
                }
                Step::Compact { later } => {
                    let before = committed_view(&log);
                    let (stable, producers) = (log.last_stable_offset(), log.producers().describe());
                    let after = if later { 25 * HOUR_MS } else { 0 };
                    compact(&mut log, CompactionRules { now_ms: now() + after, ..rules() });
                    prop_assert_eq!(committed_view(&log), before);
                    prop_assert_eq!(log.last_stable_offset(), stable);
                    prop_assert_eq!(log.producers().describe(), producers);
                }
                Step::Restart => {
                    let (view, stable) = (committed_view(&log), log.last_stable_offset());
                    let next = log.next_offset();
                    log = open(dir.path());
                    prop_assert_eq!(committed_view(&log), view);
                    prop_assert_eq!((log.last_stable_offset(), log.next_offset()), (stable, next));
                }
            }
        }
    }
}
