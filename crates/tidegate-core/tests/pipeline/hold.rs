//! Loads that are held back by a group.

use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::ErrorKind;
use tidegate_core::balance::HoldOptions;
use tidegate_core::event::Event;
use tidegate_core::limits::{COMMITTED_INTERVAL, GROUP_PATIENCE, IDLE_TICK};
use tidegate_core::position::LoadPosition;
use tidegate_core::publish::{HoldOn, Outcome};
use tidegate_core::receipt::Status;

use crate::support::{Fault, Group, MemorySink, Setup, receipt, rows};

/// A load of `count` rows held at `limit`.
fn held(
    count: u64,
    limit: u64,
    sink: &mut MemorySink,
    group: &mut Group,
    events: &mut dyn FnMut(Event<'_>),
) -> Outcome {
    let options = HoldOptions {
        limit,
        timeout: Duration::from_secs(60),
    };
    let hold = HoldOn {
        options,
        committed: group,
    };
    Setup::rows()
        .publish_from(
            &LoadPosition::start(),
            &rows(count, |_| false),
            sink,
            Some(hold),
            events,
        )
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the group commits, and whenever it cannot be asked: no record is sent while `limit` of those sent before are not committed.
    #[test]
    fn never_more_than_the_limit_is_outstanding(
        count in 1u64..150,
        limit in 1u64..20,
        partitions in 1usize..4,
        batch_records in 1usize..9,
        markers in 0i64..2,
        polls_late in 0u32..3,
        schedule in proptest::collection::vec(proptest::option::weighted(0.8, 0i64..12), 0..40),
        unknown in proptest::collection::vec(0usize..40, 0..5),
    ) {
        let mut sink = MemorySink::new(partitions);
        (sink.batch_records, sink.markers, sink.polls_late) = (batch_records, markers, polls_late);
        sink.faults = unknown.iter().map(|batch| (*batch, Fault::UnknownOffset)).collect();
        let mut group = Group::new(&sink.topic, schedule);
        let (topic, commits) = (Rc::clone(&sink.topic), Rc::clone(&group.commits));
        sink.before_append = Some(Box::new(move |appended| {
            let (topic, commits) = (topic.borrow(), commits.borrow());
            let is_committed = |offset: i64, commit: Option<i64>| commit.is_some_and(|commit| offset < commit);
            let committed: usize = topic.partitions.iter().zip(commits.iter()).map(|(records, commit)| records.iter().filter(|record| is_committed(record.offset, *commit)).count()).sum();
            assert!(appended - (committed as u64) < limit, "{appended} sent, {committed} committed, and one more is sent");
        }));
        let outcome = held(count, limit, &mut sink, &mut group, &mut |_| {});
        prop_assert_eq!(outcome.status, Status::Complete, "{:?}", outcome.error);
        prop_assert_eq!(outcome.records.delivered, count);
        // A load below the limit does not need the group at all.
        prop_assert_eq!(group.asked.get() > 0, count > limit);
    }
}

/// A group that never commits holds the load at the limit until the time is over; what was sent is delivered.
#[test]
fn a_group_that_does_not_start_ends_in_a_timeout() {
    let mut sink = MemorySink::new(2);
    let mut group = Group::new(&sink.topic, vec![Some(0); 10_000]);
    let clock = Rc::clone(&sink.clock);
    let mut longest = Duration::ZERO;
    let outcome = held(50, 10, &mut sink, &mut group, &mut |event| {
        if let Event::Held {
            outstanding,
            limit,
            waited,
        } = event
        {
            assert_eq!((outstanding, limit), (10, 10));
            longest = waited;
        }
    });
    let error = outcome.error.as_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::HoldTimeout);
    assert!(error.to_string().contains("partition 1: none"), "{error}");
    assert_eq!((outcome.records.delivered, outcome.rows.read), (10, 10));
    receipt(&outcome);
    let elapsed = tidegate_core::clock::Clock::monotonic(&*clock);
    assert!(
        elapsed >= Duration::from_secs(60)
            && longest + COMMITTED_INTERVAL >= Duration::from_secs(60)
    );
    let ticks = elapsed.as_secs() / (IDLE_TICK + COMMITTED_INTERVAL).as_secs();
    assert!(
        u64::from(sink.idles) + 1 >= ticks,
        "{} signs of life in {elapsed:?}",
        sink.idles
    );
}

#[test]
fn a_held_load_can_be_interrupted() {
    let mut sink = MemorySink::new(1);
    let mut group = Group::new(&sink.topic, vec![Some(0); 10_000]);
    let interrupt = Rc::clone(&sink.interrupt);
    let outcome = held(50, 4, &mut sink, &mut group, &mut |event| {
        if let Event::Held { .. } = event {
            interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert_eq!(
        (outcome.status, outcome.rows.read, outcome.records.delivered),
        (Status::Interrupted, 4, 4)
    );
    assert_eq!(outcome.position.unwrap().input.row, 4);
}

#[test]
fn a_group_that_is_moved_back_is_told_and_waited_for() {
    let mut sink = MemorySink::new(1);
    let mut group = Group::new(&sink.topic, vec![Some(4), Some(-3), Some(0), Some(3)]);
    let mut moved = Vec::new();
    let outcome = held(8, 4, &mut sink, &mut group, &mut |event| {
        if let Event::GroupMovedBack {
            partition,
            from,
            to,
        } = event
        {
            moved.push((partition, from, to));
        }
    });
    assert_eq!(outcome.status, Status::Complete);
    assert_eq!(moved, [(0, 3, Some(0))]);
}

#[test]
fn a_group_that_cannot_be_asked_is_given_up_after_a_while() {
    let mut sink = MemorySink::new(1);
    let mut group = Group::new(&sink.topic, vec![None; 100_000]);
    let clock = Rc::clone(&sink.clock);
    let options = HoldOptions {
        limit: 4,
        timeout: GROUP_PATIENCE * 5,
    };
    let hold = HoldOn {
        options,
        committed: &mut group,
    };
    let mut unanswered = 0;
    let outcome = Setup::rows()
        .publish_from(
            &LoadPosition::start(),
            &rows(9, |_| false),
            &mut sink,
            Some(hold),
            &mut |event| {
                unanswered += u32::from(matches!(event, Event::GroupUnanswered { .. }));
            },
        )
        .unwrap();
    let error = outcome.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Group);
    assert_eq!(
        error.into_source().unwrap().to_string(),
        "the coordinator moves"
    );
    assert!(unanswered > 1);
    assert!(
        tidegate_core::clock::Clock::monotonic(&*clock) < GROUP_PATIENCE + Duration::from_secs(1)
    );
}
