//! Loads on which nothing goes wrong but the rows.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tidegate_core::clock::ManualClock;
use tidegate_core::digest::{KeyTerm, RecordHasher, RecordsDigest};
use tidegate_core::event::Event;
use tidegate_core::position::LoadPosition;
use tidegate_core::produce::Headers;
use tidegate_core::publish::{Counter, publish};
use tidegate_core::receipt::Status;

use crate::support::{Fault, MemorySink, Setup, Stored, Topic, receipt, rows};

/// The digest of a partition, computed anew from what is in the topic.
fn digest(records: &[Stored]) -> RecordsDigest {
    let mut digest = RecordsDigest::EMPTY;
    for record in records {
        let value = record.value.as_deref().unwrap();
        digest.push(RecordHasher::new().hash(
            KeyTerm::of(record.key.as_deref()),
            value,
            Headers::default(),
        ));
    }
    digest
}

#[test]
fn every_row_is_in_the_topic_once_and_in_order() {
    let mut sink = MemorySink::new(1);
    let outcome = Setup::rows()
        .publish(&rows(10, |_| false), &mut sink)
        .unwrap();
    assert_eq!(outcome.status, Status::Complete, "{outcome:?}");
    let expected: Vec<String> = (1..=10u64)
        .map(|row| format!(r#"{{"ts":{},"id":"c{row}","cpu":{row}.5}}"#, (row - 1) / 3))
        .collect();
    assert_eq!(sink.topic.borrow().values(), expected);
    assert_eq!((outcome.rows.read, outcome.rows.accepted), (10, 10));
    let partition = &outcome.partitions[0];
    assert_eq!(
        (partition.first_offset, partition.last_offset),
        (Some(0), Some(9))
    );
}

#[test]
fn an_input_without_rows_is_complete_and_empty() {
    let outcome = Setup::groups()
        .publish(&rows(0, |_| false), &mut MemorySink::new(2))
        .unwrap();
    assert_eq!((outcome.status, outcome.rows.read), (Status::Complete, 0));
    assert!(
        outcome
            .partitions
            .iter()
            .all(|partition| partition.first_offset.is_none())
    );
    receipt(&outcome);
}

#[test]
fn events_tell_the_story() {
    let mut sink = MemorySink::new(1);
    let mut told = Vec::new();
    let mut settled = 0;
    Setup::rows()
        .publish_from(
            &LoadPosition::start(),
            &rows(7, |_| false),
            &mut sink,
            None,
            &mut |event| match event {
                Event::Started { after_row } => told.push(format!("started after {after_row}")),
                Event::BatchSettled(batch) => settled += batch.records,
                Event::Flushing { outstanding } => {
                    told.push(format!("flushing, {outstanding} or fewer open"));
                }
                Event::Progress(progress) => told.push(format!(
                    "{} rows, {} delivered",
                    progress.rows, progress.delivered
                )),
                _ => {}
            },
        )
        .unwrap();
    assert_eq!(settled, 7);
    assert_eq!(told.first().map(String::as_str), Some("started after 0"));
    assert_eq!(told.last().map(String::as_str), Some("7 rows, 7 delivered"));
}

#[test]
fn a_partition_with_most_of_the_records_is_told() {
    let mut text = String::from("ts,id,cpu\n");
    for _ in 0..110_000 {
        text.push_str("1,c,0.5\n");
    }
    let mut skewed = Vec::new();
    let mut sink = MemorySink::new(4);
    sink.batch_records = 5_000;
    Setup::rows()
        .publish_from(
            &LoadPosition::start(),
            &crate::support::Text(text.into_bytes()),
            &mut sink,
            None,
            &mut |event| {
                if let Event::Skewed {
                    partition,
                    records,
                    of,
                } = event
                {
                    skewed.push((partition, records == of));
                }
            },
        )
        .unwrap();
    assert_eq!(skewed.len(), 1);
    assert!(skewed[0].1);
}

/// A dry run goes the same way and comes to the same counts and digests.
#[test]
fn a_counter_counts_what_a_topic_would_get() {
    let (setup, input) = (Setup::groups().skipping(), rows(100, |row| row % 17 == 0));
    let sent = setup.publish(&input, &mut MemorySink::new(3)).unwrap();
    let interrupt = false.into();
    let options = setup.options(&interrupt);
    let start = LoadPosition::start();
    let counted = publish(
        std::slice::from_ref(&input),
        &start,
        &options,
        None,
        &mut Counter::new(3, &LoadPosition::start()),
        &ManualClock::new(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!((counted.rows, counted.records), (sent.rows, sent.records));
    let digests = |partitions: &[tidegate_core::receipt::PartitionReceipt]| {
        partitions
            .iter()
            .map(|p| (p.records, p.rows, p.digest))
            .collect::<Vec<_>>()
    };
    assert_eq!(digests(&counted.partitions), digests(&sent.partitions));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever rows are bad, however they are grouped, and however late and vaguely the sink answers: each row is in the topic once or rejected once, and
    /// the receipt says what is in the topic.
    #[test]
    fn accepted_and_rejected_are_what_was_read(
        count in 0u64..120,
        bad in proptest::collection::btree_set(1u64..120, 0..12),
        grouped: bool,
        partitions in 1usize..4,
        batch_records in 1usize..9,
        markers in 0i64..3,
        polls_late in 0u32..4,
        unknown in proptest::collection::vec(0usize..40, 0..6),
    ) {
        let setup = if grouped { Setup::groups() } else { Setup::rows() }.skipping();
        let mut sink = MemorySink::new(partitions);
        (sink.batch_records, sink.markers, sink.polls_late) = (batch_records, markers, polls_late);
        sink.faults = unknown.iter().map(|batch| (*batch, Fault::UnknownOffset)).collect();
        let mut rejected = BTreeSet::new();
        let outcome = setup.publish_from(&LoadPosition::start(), &rows(count, |row| bad.contains(&row)), &mut sink, None, &mut |event| {
            if let Event::RowRejected(row) = event {
                assert!(rejected.insert(row.row), "row {} was rejected twice", row.row);
            }
        }).unwrap();
        prop_assert_eq!(outcome.status, Status::Complete);
        let receipt = receipt(&outcome);
        prop_assert_eq!(receipt.rows.read, count);
        prop_assert_eq!(receipt.rows.rejected, rejected.len() as u64);

        // A bad row takes its group with it, and nothing else is rejected.
        let spoiled = |row: u64| if grouped { bad.iter().any(|bad| *bad <= count && (bad - 1) / 3 == (row - 1) / 3) } else { bad.contains(&row) };
        prop_assert_eq!(&rejected, &(1..=count).filter(|row| spoiled(*row)).collect::<BTreeSet<_>>());
        let topic = sink.topic.borrow();
        let text = topic.values().concat();
        for row in 1..=count {
            let times = text.matches(&format!("\"c{row}\"")).count();
            prop_assert_eq!(times, usize::from(!spoiled(row)), "row {}", row);
        }
        is_told_truly(&topic, &outcome);
    }
}

/// The partitions of a receipt are those of the topic.
fn is_told_truly(topic: &Topic, outcome: &tidegate_core::publish::Outcome) {
    for (records, told) in topic.partitions.iter().zip(&outcome.partitions) {
        assert_eq!(told.records, records.len() as u64);
        assert_eq!(
            told.first_offset,
            records.first().map(|record| record.offset)
        );
        assert_eq!(told.last_offset, records.last().map(|record| record.offset));
        assert_eq!(told.digest, Some(digest(records).value));
        let timestamps: Vec<i64> = records
            .iter()
            .map(|record| {
                String::from_utf8(record.key.clone().unwrap())
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert!(timestamps.is_sorted(), "rows overtook each other");
    }
}
