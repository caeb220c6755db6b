//! Verification: it agrees with a topic that is right, and finds and names whatever is wrong with one.

use proptest::prelude::*;
use tidegate_core::ErrorKind;
use tidegate_core::Result;
use tidegate_core::clock::ManualClock;
use tidegate_core::receipt::Receipt;
use tidegate_core::verify::{
    Compared, Difference, DifferenceKind, VerifyReport, VerifyStatus, verify,
};

use crate::support::{MemoryReader, MemorySink, OURS, Setup, Stored, Text, Topic, receipt, rows};

fn published(setup: &Setup, input: &Text, partitions: usize) -> (Topic, Receipt) {
    let mut sink = MemorySink::new(partitions);
    let outcome = setup.publish(input, &mut sink).unwrap();
    (sink.topic.take(), receipt(&outcome))
}

fn check(
    setup: &Setup,
    input: &Text,
    topic: &Topic,
    receipt: Option<&Receipt>,
) -> Result<VerifyReport> {
    let interrupt = false.into();
    let compared = Compared {
        partitions: i32::try_from(topic.partitions.len()).unwrap(),
        producer_ids: receipt.map(|receipt| receipt.producer_ids.as_slice()),
        receipt,
    };
    let mut reader = MemoryReader::new(topic.clone());
    verify(
        std::slice::from_ref(input),
        &setup.options(&interrupt),
        &compared,
        &mut reader,
        &ManualClock::new(),
        &mut |_| {},
    )
}

/// The difference that a change to the topic makes.
fn difference(setup: &Setup, partitions: usize, change: impl FnOnce(&mut Topic)) -> Difference {
    let input = rows(30, |_| false);
    let (mut topic, receipt) = published(setup, &input, partitions);
    change(&mut topic);
    let report = check(setup, &input, &topic, Some(&receipt)).unwrap();
    assert_eq!(report.status, VerifyStatus::Differs);
    report.first_difference.unwrap()
}

/// Where a difference is: kind, offset, row, line, column.
fn place(
    difference: &Difference,
) -> (
    DifferenceKind,
    Option<i64>,
    Option<u64>,
    Option<u64>,
    Option<&str>,
) {
    (
        difference.what,
        difference.offset,
        difference.row,
        difference.line,
        difference.column.as_deref(),
    )
}

#[test]
fn a_topic_that_is_right_is_the_same() {
    for setup in [
        Setup::rows().skipping(),
        Setup::avro().skipping(),
        Setup::groups().skipping(),
    ] {
        let input = rows(50, |row| row % 11 == 0);
        let (topic, receipt) = published(&setup, &input, 3);
        for receipt in [None, Some(&receipt)] {
            let report = check(&setup, &input, &topic, receipt).unwrap();
            assert_eq!(
                (report.status, report.first_difference),
                (VerifyStatus::Same, None)
            );
            assert_eq!(report.records, topic.records());
        }
        assert_eq!(
            check(&setup, &input, &topic, None).unwrap().rows,
            receipt.rows.accepted
        );
    }
}

#[test]
fn a_missing_record_is_named() {
    let found = difference(&Setup::rows(), 1, |topic| {
        drop(topic.partitions[0].remove(6));
    });
    assert_eq!(
        place(&found),
        (DifferenceKind::Missing, None, Some(7), Some(8), None)
    );
    let found = difference(&Setup::rows(), 1, |topic| drop(topic.partitions[0].pop()));
    assert_eq!(
        place(&found),
        (DifferenceKind::Missing, None, Some(30), Some(31), None),
        "the last one"
    );
    let found = difference(&Setup::rows(), 1, |topic| topic.partitions[0].clear());
    assert_eq!(
        place(&found),
        (DifferenceKind::Missing, None, Some(1), Some(2), None),
        "all of them"
    );
}

#[test]
fn a_doubled_record_is_named() {
    let found = difference(&Setup::rows(), 1, |topic| {
        let again = topic.partitions[0][6].clone();
        topic.partitions[0].insert(7, again);
    });
    assert_eq!(
        place(&found),
        (DifferenceKind::Duplicate, Some(6), Some(8), Some(9), None)
    );
    let found = difference(&Setup::rows(), 1, |topic| {
        let again = topic.partitions[0][29].clone();
        topic.partitions[0].push(again);
    });
    assert_eq!(
        place(&found),
        (DifferenceKind::Duplicate, Some(29), None, None, None),
        "at the end"
    );
}

#[test]
fn swapped_records_are_named() {
    let found = difference(&Setup::rows(), 1, |topic| topic.partitions[0].swap(6, 9));
    assert_eq!(
        place(&found),
        (DifferenceKind::Order, Some(9), Some(7), Some(8), None)
    );
}

#[test]
fn a_changed_byte_of_a_value_is_named_with_its_column() {
    let change = |from: &'static str, to: &'static str| {
        move |topic: &mut Topic| {
            let value = &mut topic.partitions[0][6];
            value.value = Some(value.text().replace(from, to).into_bytes());
        }
    };
    let found = difference(&Setup::rows(), 1, change("7.5", "7.6"));
    assert_eq!(
        place(&found),
        (
            DifferenceKind::Value,
            Some(6),
            Some(7),
            Some(8),
            Some("cpu")
        )
    );
    assert_eq!(
        (found.expected.as_deref(), found.found.as_deref()),
        (Some("7.5"), Some("7.6"))
    );
    // Of a group the row itself is named: timestamp 6 is rows 19 to 21.
    let found = difference(&Setup::groups(), 1, change("c21", "x21"));
    assert_eq!(
        place(&found),
        (
            DifferenceKind::Value,
            Some(6),
            Some(21),
            Some(22),
            Some("id")
        )
    );
    let found = difference(&Setup::avro(), 1, |topic| {
        *topic.partitions[0][6]
            .value
            .as_mut()
            .unwrap()
            .last_mut()
            .unwrap() ^= 1;
    });
    assert_eq!(
        place(&found),
        (
            DifferenceKind::Value,
            Some(6),
            Some(7),
            Some(8),
            Some("cpu")
        )
    );
}

#[test]
fn a_changed_key_a_lost_key_and_a_tombstone_are_named() {
    let found = difference(&Setup::rows(), 1, |topic| {
        topic.partitions[0][6].key = Some(b"3".to_vec());
    });
    assert_eq!(
        place(&found),
        (DifferenceKind::Key, Some(6), Some(7), Some(8), None)
    );
    assert_eq!(
        (found.expected.as_deref(), found.found.as_deref()),
        (Some("\"2\""), Some("\"3\""))
    );
    let found = difference(&Setup::rows(), 1, |topic| topic.partitions[0][6].key = None);
    assert_eq!(
        (found.what, found.found.as_deref()),
        (DifferenceKind::Key, Some("null"))
    );
    let found = difference(&Setup::rows(), 1, |topic| {
        topic.partitions[0][6].value = None;
    });
    assert_eq!(
        (found.what, found.found.as_deref()),
        (DifferenceKind::Value, Some("null"))
    );
}

#[test]
fn a_record_too_many_is_named() {
    let strange = |offset| Stored {
        offset,
        producer_id: OURS,
        key: Some(b"2".to_vec()),
        value: Some(b"{}".to_vec()),
        ..Stored::default()
    };
    let found = difference(&Setup::rows(), 1, |topic| {
        topic.partitions[0].insert(6, strange(100));
    });
    assert_eq!(
        place(&found),
        (DifferenceKind::Extra, Some(100), Some(7), Some(8), None)
    );
    let found = difference(&Setup::rows(), 1, |topic| {
        topic.partitions[0].push(strange(30));
    });
    assert_eq!(
        place(&found),
        (DifferenceKind::Extra, Some(30), None, None, None),
        "at the end"
    );
}

/// Row 7 is moved from its partition to another one, before and behind the place where its own partition is looked at.
#[test]
fn a_record_in_another_partition_is_named() {
    let row = |topic: &Topic, id: &str| {
        let at =
            |records: &Vec<Stored>| records.iter().position(|record| record.text().contains(id));
        (0..3)
            .find_map(|partition| at(&topic.partitions[partition]).map(|index| (partition, index)))
            .unwrap()
    };
    for shift in [1, 2] {
        let mut to = 0;
        let found = difference(&Setup::rows(), 3, |topic| {
            let (from, index) = row(topic, "\"c7\"");
            let moved = topic.partitions[from].remove(index);
            to = (from + shift) % 3;
            topic.partitions[to].insert(0, moved);
        });
        assert_eq!(
            (found.what, found.row, found.line),
            (DifferenceKind::Partition, Some(7), Some(8)),
            "{found}"
        );
        assert_eq!(found.partition, i32::try_from(to).ok());
    }
}

#[test]
fn records_of_others_are_passed_over() {
    let (setup, input) = (Setup::rows(), rows(30, |_| false));
    let (mut topic, receipt) = published(&setup, &input, 1);
    let foreign = Stored {
        offset: 50,
        producer_id: 17,
        key: None,
        value: Some(b"else".to_vec()),
        ..Stored::default()
    };
    topic.partitions[0].insert(3, foreign.clone());
    topic.partitions[0].push(foreign);
    let report = check(&setup, &input, &topic, Some(&receipt)).unwrap();
    assert_eq!(
        (report.status, report.foreign_records),
        (VerifyStatus::Same, 2)
    );
    let without = check(&setup, &input, &topic, None).unwrap();
    assert_eq!(
        without.status,
        VerifyStatus::Differs,
        "without a receipt every record counts"
    );
}

#[test]
fn a_receipt_that_says_otherwise_is_told() {
    let (setup, input) = (Setup::rows().skipping(), rows(30, |row| row == 9));
    let (topic, receipt) = published(&setup, &input, 2);
    let altered: [&dyn Fn(&mut Receipt); 5] = [
        &|receipt| receipt.rows.rejected = 0,
        &|receipt| receipt.partitions[1].records += 1,
        &|receipt| receipt.partitions[1].digest = Some(tidegate_core::digest::Hash128(1)),
        &|receipt| receipt.partitions[1].last_offset = Some(99),
        &|receipt| receipt.partitions[1].first_offset = Some(99),
    ];
    for alter in altered {
        let mut receipt = receipt.clone();
        alter(&mut receipt);
        let mut topic = topic.clone();
        topic.log_start = 0;
        let report = check(&setup, &input, &topic, Some(&receipt)).unwrap();
        let found = report.first_difference.unwrap();
        assert_eq!(found.what, DifferenceKind::Receipt, "{found}");
    }
    let mut vague = receipt;
    (vague.partitions[0].last_offset, vague.partitions[0].digest) = (None, None);
    let report = check(&setup, &input, &topic, Some(&vague)).unwrap();
    assert_eq!(
        report.status,
        VerifyStatus::Same,
        "what a receipt does not know it does not contradict"
    );
}

#[test]
fn an_input_that_has_changed_is_refused() {
    let (setup, input) = (Setup::rows(), rows(30, |_| false));
    let (topic, receipt) = published(&setup, &input, 1);
    // The same rows in other bytes.
    let text = String::from_utf8(input.0)
        .unwrap()
        .replace("c5,5.5", "c5,5.50");
    let error = check(&setup, &Text(text.into_bytes()), &topic, Some(&receipt)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InputChanged);
}

#[test]
fn records_that_were_deleted_cannot_be_verified() {
    let (setup, input) = (Setup::rows(), rows(30, |_| false));
    let (mut topic, receipt) = published(&setup, &input, 1);
    topic.partitions[0].drain(..5);
    topic.log_start = 5;
    let report = check(&setup, &input, &topic, Some(&receipt)).unwrap();
    assert_eq!(
        (report.status, report.first_difference),
        (VerifyStatus::CannotVerify, None)
    );
    assert!(report.reason.unwrap().contains("begins at offset 5"));
}

#[test]
fn an_interrupted_comparison_claims_nothing() {
    let (setup, input) = (Setup::rows(), rows(30, |_| false));
    let (topic, _) = published(&setup, &input, 1);
    let interrupt = true.into();
    let compared = Compared {
        partitions: 1,
        producer_ids: None,
        receipt: None,
    };
    let report = verify(
        std::slice::from_ref(&input),
        &setup.options(&interrupt),
        &compared,
        &mut MemoryReader::new(topic),
        &ManualClock::new(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(
        (report.status, report.records),
        (VerifyStatus::CannotVerify, 0)
    );
}

/// A way to tamper with a topic, with the places it is done at.
#[derive(Debug, Clone)]
enum Tampering {
    Drop,
    Double,
    Swap,
    Value,
    Key,
    Move,
    Append,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is done to one record, it is found, with and without a receipt.
    #[test]
    fn every_tampering_is_found(
        how in prop_oneof![Just(Tampering::Drop), Just(Tampering::Double), Just(Tampering::Swap), Just(Tampering::Value), Just(Tampering::Key), Just(Tampering::Move), Just(Tampering::Append)],
        at: prop::sample::Index,
        byte: prop::sample::Index,
        grouped: bool,
    ) {
        let setup = if grouped { Setup::groups() } else { Setup::avro() };
        let input = rows(60, |_| false);
        let (topic, receipt) = published(&setup, &input, 3);
        let mut changed = topic.clone();
        let partition = at.index(3);
        prop_assume!(changed.partitions[partition].len() > 1);
        let index = at.index(changed.partitions[partition].len() - 1);
        let records = &mut changed.partitions[partition];
        match how {
            Tampering::Drop => drop(records.remove(index)),
            Tampering::Double => records.insert(index, records[index].clone()),
            Tampering::Swap => records.swap(index, index + 1),
            Tampering::Value => {
                let value = records[index].value.as_mut().unwrap();
                let byte = byte.index(value.len());
                value[byte] ^= 1;
            }
            Tampering::Key => records[index].key.as_mut().unwrap()[0] ^= 1,
            Tampering::Move => {
                let moved = records.remove(index);
                changed.partitions[(partition + 1) % 3].push(moved);
            }
            Tampering::Append => records.push(records[index].clone()),
        }
        for receipt in [None, Some(&receipt)] {
            let report = check(&setup, &input, &changed, receipt).unwrap();
            prop_assert_eq!(report.status, VerifyStatus::Differs, "{:?}", how);
            prop_assert!(report.records < topic.records() || matches!(how, Tampering::Append | Tampering::Move | Tampering::Double));
        }
    }
}
