//! Loads into a transactional sink: whatever is rolled back or killed, and however often, all of it is committed once, with its position.

use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::balance::HoldOptions;
use tidegate_core::event::Event;
use tidegate_core::position::LoadPosition;
use tidegate_core::publish::{CommitCadence, HoldOn};
use tidegate_core::receipt::Status;

use crate::support::{Commits, Fault, Group, MemorySink, Setup, receipt, rows};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each run ends where its sink dies, at a batch, or before or after a commit of which it learns nothing; the next one goes on.
    #[test]
    fn every_record_is_committed_once_whatever_dies_or_is_rolled_back(
        count in 1u64..120,
        bad in proptest::collection::btree_set(1u64..120, 0..8),
        grouped: bool,
        partitions in 1usize..4,
        batch_records in 1usize..5,
        commit_bytes in 1u64..400,
        runs in proptest::collection::vec(proptest::collection::vec((0usize..25, prop_oneof![Just(Fault::RollsBack), Just(Fault::Dies), Just(Fault::Fails), Just(Fault::UnknownOffset)]), 0..4), 0..5),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let setup_with = |name: &str| {
            let mut setup = if grouped { Setup::groups() } else { Setup::rows() }.skipping();
            setup.rejects.file = Some(folder.path().join(name));
            setup.commits = CommitCadence { bytes: commit_bytes, ..CommitCadence::default() };
            setup
        };
        let input = rows(count, |row| bad.contains(&row));
        let (plain, resumed) = (setup_with("plain"), setup_with("resumed"));
        let mut once = MemorySink::new(partitions);
        once.batch_records = batch_records;
        let expected = plain.publish(&input, &mut once).unwrap();

        let commits = Commits::new(partitions);
        // The last run meets no fault.
        let mut last = None;
        for faults in runs.into_iter().chain([Vec::new()]) {
            let mut sink = MemorySink::transactional(&commits);
            (sink.batch_records, sink.faults) = (batch_records, faults);
            let outcome = resumed.publish_from(&Commits::position(&commits), &input, &mut sink, None, &mut |_| {}).unwrap();
            let committed = Commits::position(&commits);
            if outcome.status == Status::Complete {
                assert!(commits.borrow().is_complete);
            }
            // What is told is what is committed, or less, where nobody knows.
            assert!(outcome.rows.read <= committed.input.row, "{} told, {} committed", outcome.rows.read, committed.input.row);
            assert_eq!(outcome.rows.accepted + outcome.rows.rejected, outcome.rows.read);
            receipt(&outcome);
            last = Some(outcome);
        }
        let outcome = last.unwrap();

        prop_assert_eq!(outcome.status, Status::Complete, "{:?}", outcome.error);
        prop_assert_eq!(commits.borrow().topic.values(), once.topic.borrow().values());
        prop_assert_eq!((outcome.rows, outcome.records, outcome.source), (expected.rows, expected.records, expected.source));
        let digests = |partitions: &[tidegate_core::receipt::PartitionReceipt]| partitions.iter().map(|one| (one.records, one.rows, one.digest)).collect::<Vec<_>>();
        prop_assert_eq!(digests(&outcome.partitions), digests(&expected.partitions));
        let rejects = |setup: &Setup| std::fs::read(setup.rejects.file.as_ref().unwrap()).unwrap();
        prop_assert_eq!(rejects(&resumed), rejects(&plain));
    }
}

/// The faults of the property above do fire: rolled back, the load goes on from its last commit; dead, the next run does.
#[test]
fn a_rollback_costs_what_was_not_committed_and_nothing_else() {
    let commits = Commits::new(1);
    let mut setup = Setup::rows();
    setup.commits.bytes = 60;
    let input = rows(60, |_| false);
    let mut sink = MemorySink::transactional(&commits);
    sink.faults = vec![(7, Fault::RollsBack), (12, Fault::Dies)];
    let mut replays = Vec::new();
    let mut commit_count = 0;
    let outcome = setup
        .publish_from(
            &LoadPosition::start(),
            &input,
            &mut sink,
            None,
            &mut |event| match event {
                Event::Replaying { after_row, .. } => replays.push(after_row),
                Event::Committed { .. } => commit_count += 1,
                _ => {}
            },
        )
        .unwrap();
    assert_eq!((sink.fired, outcome.status), (2, Status::Failed));
    assert!(replays.len() == 1 && replays[0] > 0, "{replays:?}");
    assert!(commit_count > 3, "{commit_count}");
    let at = Commits::position(&commits);
    assert!(at.input.row > replays[0] && at.input.row < 60);
    let mut sink = MemorySink::transactional(&commits);
    let outcome = setup
        .publish_from(&at, &input, &mut sink, None, &mut |_| {})
        .unwrap();
    assert_eq!(
        (outcome.status, outcome.rows.read, sink.appended),
        (Status::Complete, 60, 60 - at.input.row)
    );
    assert_eq!(commits.borrow().topic.records(), 60);
}

/// A row that stops the load keeps nothing before it from being committed, and the load goes on at that row.
#[test]
fn what_stands_before_a_bad_row_is_committed() {
    let commits = Commits::new(1);
    let mut sink = MemorySink::transactional(&commits);
    let broken = rows(9, |row| row == 7);
    let outcome = Setup::rows().publish(&broken, &mut sink).unwrap();
    assert_eq!((outcome.status, outcome.rows.read), (Status::Failed, 6));
    assert_eq!(commits.borrow().topic.records(), 6);
    let position = Commits::position(&commits);
    assert_eq!(
        (position.input.row, commits.borrow().is_complete),
        (6, false)
    );
    // Rows 1 to 6 are as they were; skipped now, row 7 is no obstacle.
    let mut sink = MemorySink::transactional(&commits);
    let outcome = Setup::rows()
        .skipping()
        .publish_from(&position, &broken, &mut sink, None, &mut |_| {})
        .unwrap();
    assert_eq!(
        (outcome.status, outcome.rows.read, outcome.rows.rejected),
        (Status::Complete, 9, 1)
    );
    assert_eq!(commits.borrow().topic.records(), 8);
}

/// The group reads what is committed only: a load that waited for it with an open transaction would wait for ever.
#[test]
fn nothing_is_uncommitted_while_the_load_is_held() {
    let commits = Commits::new(2);
    let mut sink = MemorySink::transactional(&commits);
    let mut group = Group::new(&sink.topic, [Some(0), Some(3)].repeat(100));
    let hold = HoldOn {
        options: HoldOptions {
            limit: 5,
            timeout: Duration::from_secs(60),
        },
        committed: &mut group,
    };
    let (seen, mut held) = (Rc::clone(&commits), 0);
    let outcome = Setup::rows()
        .publish_from(
            &LoadPosition::start(),
            &rows(40, |_| false),
            &mut sink,
            Some(hold),
            &mut |event| {
                if let Event::Held { .. } = event {
                    held += 1;
                    assert!(seen.borrow().topic.records() >= 5);
                }
            },
        )
        .unwrap();
    assert!(held > 3, "{held}");
    assert_eq!(
        (outcome.status, outcome.records.delivered),
        (Status::Complete, 40)
    );
}
