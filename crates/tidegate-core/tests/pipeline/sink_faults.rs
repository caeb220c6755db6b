//! Sinks that fail: what is told must be what is in the topic, or not known to be.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::ErrorKind;
use tidegate_core::event::Event;
use tidegate_core::limits::{INTERRUPT_PATIENCE, MAX_REPLAYS, SETTLE_PATIENCE, SETTLE_WAIT};
use tidegate_core::position::LoadPosition;
use tidegate_core::produce::{OutRecord, Produce, Settled, SinkError};
use tidegate_core::publish::publish;
use tidegate_core::receipt::Status;

use crate::support::{Fault, MemorySink, Setup, receipt, rows};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// A failed batch fails the load, whichever it is; the others are counted as what they came to.
    #[test]
    fn a_failed_batch_fails_the_load(at in 0usize..12, partitions in 1usize..4, grouped: bool, polls_late in 0u32..3) {
        let setup = if grouped { Setup::groups() } else { Setup::rows() };
        let mut sink = MemorySink::new(partitions);
        (sink.faults, sink.polls_late) = (vec![(at, Fault::Fails)], polls_late);
        let outcome = setup.publish(&rows(90, |_| false), &mut sink).unwrap();
        let told = receipt(&outcome);
        prop_assert_eq!(told.rows.read, told.rows.accepted + told.rows.rejected);
        prop_assert_eq!(told.records.delivered, sink.topic.borrow().records());
        if sink.fired == 0 {
            prop_assert!(grouped, "no such batch");
            prop_assert_eq!(outcome.status, Status::Complete);
            return Ok(());
        }
        prop_assert_eq!(outcome.status, Status::Failed);
        let error = outcome.error.as_ref().unwrap();
        prop_assert_eq!(error.kind(), ErrorKind::Sink);
        prop_assert!(error.to_string().contains("were not delivered"), "{}", error);
        prop_assert!(told.records.failed > 0);
        prop_assert!(outcome.position.is_none());
        for (partition, records) in outcome.partitions.iter().zip(&sink.topic.borrow().partitions) {
            prop_assert_eq!(partition.last_offset, records.last().map(|record| record.offset));
        }
        prop_assert!(outcome.partitions.iter().any(|partition| partition.digest.is_none()), "a digest of records that did not arrive");
    }
}

#[test]
fn the_failure_names_its_rows_and_keeps_its_cause() {
    let mut sink = MemorySink::new(1);
    sink.faults = vec![(1, Fault::Fails)];
    let outcome = Setup::rows()
        .publish(&rows(9, |_| false), &mut sink)
        .unwrap();
    let error = outcome.error.unwrap();
    assert_eq!(
        error.to_string(),
        "partition 0: the records of rows 4 to 6 were not delivered"
    );
    assert_eq!(
        error.into_source().unwrap().to_string(),
        "the disk of the broker is full"
    );
    assert_eq!((outcome.records.delivered, outcome.records.failed), (3, 6));
}

#[test]
fn a_sink_that_hangs_runs_into_the_deadline() {
    let mut sink = MemorySink::new(1);
    sink.faults = vec![(0, Fault::Hangs)];
    let clock = std::rc::Rc::clone(&sink.clock);
    let outcome = Setup::rows()
        .publish(&rows(9, |_| false), &mut sink)
        .unwrap();
    let error = outcome.error.as_ref().unwrap();
    assert_eq!(
        (error.kind(), error.is_retriable()),
        (ErrorKind::Sink, true),
        "{error}"
    );
    assert_eq!(
        (outcome.records.delivered, outcome.records.failed),
        (0, 9),
        "nothing is claimed that was not told"
    );
    assert!(elapsed(&clock) <= SETTLE_PATIENCE + 2 * SETTLE_WAIT);
    receipt(&outcome);
}

#[test]
fn an_interrupted_load_does_not_wait_long_for_a_sink_that_hangs() {
    let mut sink = MemorySink::new(1);
    (sink.faults, sink.interrupt_after) = (vec![(0, Fault::Hangs)], Some(5));
    let clock = std::rc::Rc::clone(&sink.clock);
    let outcome = Setup::rows()
        .publish(&rows(9, |_| false), &mut sink)
        .unwrap();
    assert_eq!(
        (outcome.status, outcome.records.failed),
        (Status::Interrupted, 5)
    );
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::Interrupted);
    assert!(elapsed(&clock) <= INTERRUPT_PATIENCE + 2 * SETTLE_WAIT);
}

fn elapsed(clock: &tidegate_core::clock::ManualClock) -> Duration {
    tidegate_core::clock::Clock::monotonic(clock)
}

#[test]
fn an_offset_that_nobody_tells_is_not_made_up() {
    let mut sink = MemorySink::new(1);
    (sink.faults, sink.can_locate) = (vec![(2, Fault::UnknownOffset)], false);
    let outcome = Setup::rows()
        .publish(&rows(9, |_| false), &mut sink)
        .unwrap();
    assert_eq!(outcome.status, Status::Complete);
    let partition = &outcome.partitions[0];
    assert_eq!(
        (
            partition.first_offset,
            partition.last_offset,
            partition.records
        ),
        (Some(0), None, 9)
    );
    assert!(
        receipt(&outcome).targets().is_err(),
        "a balance must not wait for too little"
    );
}

#[test]
fn a_rolled_back_load_is_sent_again_from_its_position() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::groups().skipping();
    setup.rejects.file = Some(folder.path().join("rejects.jsonl"));
    let input = rows(60, |row| row % 10 == 0);
    let mut once = MemorySink::new(2);
    let expected = setup.publish(&input, &mut once).unwrap();
    let rejects = std::fs::read(setup.rejects.file.as_ref().unwrap()).unwrap();

    let mut sink = MemorySink::new(2);
    sink.faults = vec![(2, Fault::RollsBack), (5, Fault::RollsBack)];
    let mut replays = Vec::new();
    let outcome = setup
        .publish_from(
            &LoadPosition::start(),
            &input,
            &mut sink,
            None,
            &mut |event| {
                if let Event::Replaying { after_row, reason } = event {
                    replays.push((after_row, reason.to_owned()));
                }
            },
        )
        .unwrap();
    assert_eq!(sink.fired, 2);
    assert_eq!(replays.len(), 2, "{replays:?}");
    assert!(replays[0].1.contains("timed out"));
    assert_eq!(
        (outcome.status, outcome.rows),
        (Status::Complete, expected.rows)
    );
    assert_eq!(*sink.topic.borrow(), *once.topic.borrow());
    assert_eq!(outcome.partitions, expected.partitions);
    assert_eq!(
        std::fs::read(setup.rejects.file.as_ref().unwrap()).unwrap(),
        rejects,
        "each rejected row stands there once"
    );
}

#[test]
fn a_sink_that_is_always_rolled_back_is_given_up() {
    let mut sink = MemorySink::new(1);
    sink.faults = (0..100).map(|batch| (batch, Fault::RollsBack)).collect();
    let outcome = Setup::rows()
        .publish(&rows(9, |_| false), &mut sink)
        .unwrap();
    assert_eq!(outcome.status, Status::Failed);
    assert!(
        sink.fired > MAX_REPLAYS as usize && sink.fired <= 2 * MAX_REPLAYS as usize + 2,
        "{}",
        sink.fired
    );
    // Waits for settlements take 55 s of this clock; the rest are pauses for whoever may be about to take the job over.
    assert_eq!(outcome.seconds, 55.0 + 13.0, "{outcome:?}");
}

/// A sink that says it has settled what it was never given.
struct Liar;

impl Produce for Liar {
    fn partitions(&self) -> i32 {
        1
    }

    fn append(&mut self, _: OutRecord<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    fn poll(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        settled.push(Settled {
            partition: 0,
            records: 100,
            base_offset: Some(0),
            first_tag: 1,
            last_tag: 100,
            outcome: Ok(()),
        });
        Ok(())
    }

    fn wait(&mut self, _: Duration, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.poll(settled)
    }

    fn seal(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.poll(settled)
    }
}

#[test]
fn a_sink_that_settles_more_than_it_was_given_is_found_out() {
    let (setup, interrupt) = (Setup::rows(), false.into());
    let clock = tidegate_core::clock::ManualClock::new();
    let outcome = publish(
        &[rows(9, |_| false)],
        &LoadPosition::start(),
        &setup.options(&interrupt),
        None,
        &mut Liar,
        &clock,
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::Internal);
    assert_eq!(outcome.records.delivered, 0);
}
