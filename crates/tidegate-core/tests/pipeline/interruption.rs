//! Loads that are told to stop, and go on later: both together come to what one would.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tidegate_core::ErrorKind;
use tidegate_core::event::Event;
use tidegate_core::position::LoadPosition;
use tidegate_core::receipt::Status;

use crate::support::{MemorySink, Setup, rows};

#[test]
fn an_interrupted_load_settles_what_it_has_sent() {
    let mut sink = MemorySink::new(1);
    sink.interrupt_after = Some(5);
    let outcome = Setup::rows()
        .publish(&rows(9, |_| false), &mut sink)
        .unwrap();
    assert_eq!(outcome.status, Status::Interrupted);
    assert_eq!(
        (
            outcome.rows.read,
            outcome.rows.accepted,
            outcome.rows.failed
        ),
        (5, 5, 0)
    );
    assert_eq!(sink.topic.borrow().records(), 5);
    assert_eq!(outcome.position.unwrap().input.row, 5);
}

#[test]
fn a_position_of_another_input_is_refused() {
    let mut sink = MemorySink::new(1);
    sink.interrupt_after = Some(5);
    let setup = Setup::rows();
    let input = rows(9, |_| false);
    let position = setup.publish(&input, &mut sink).unwrap().position.unwrap();
    let mut changed = rows(9, |_| false);
    changed.0[12] = b'8';
    let mut cut = rows(9, |_| false);
    cut.0.truncate(20);
    for other in [changed, cut] {
        let mut sink = MemorySink::new(1);
        let error = setup
            .publish_from(&position, &other, &mut sink, None, &mut |_| {})
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
        assert_eq!(sink.appended, 0);
    }
    let error = setup
        .publish_from(
            &position,
            &input,
            &mut MemorySink::new(2),
            None,
            &mut |_| {},
        )
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::InputChanged,
        "another number of partitions: {error}"
    );
}

#[test]
fn what_is_read_again_is_told_and_may_be_interrupted() {
    let mut sink = MemorySink::new(1);
    sink.interrupt_after = Some(40);
    let setup = Setup::rows();
    let input = rows(60, |_| false);
    let position = setup.publish(&input, &mut sink).unwrap().position.unwrap();
    let mut reread = Vec::new();
    let mut sink = MemorySink::on(sink.topic);
    let mut note = |event: Event<'_>| {
        if let Event::Rereading { bytes } = event {
            reread.push(bytes);
        }
    };
    let outcome = setup.publish_from(&position, &input, &mut sink, None, &mut note);
    assert_eq!(outcome.unwrap().status, Status::Complete);
    assert!(reread.is_sorted() && reread.len() > 1, "{reread:?}");
    assert_eq!(reread.last(), Some(&position.input.byte));

    let mut sink = MemorySink::new(1);
    let interrupt = Rc::clone(&sink.interrupt);
    let mut stop = |event: Event<'_>| match event {
        Event::Rereading { .. } => interrupt.store(true, Ordering::Relaxed),
        other => panic!("{other:?}"),
    };
    let stopped = setup.publish_from(&position, &input, &mut sink, None, &mut stop);
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(sink.appended, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Reader, groups, ledger, digests and rejects are built from the position: a load in two parts is the same load.
    #[test]
    fn a_load_in_parts_is_the_same_load(
        count in 1u64..80,
        bad in proptest::collection::btree_set(1u64..80, 0..8),
        grouped: bool,
        partitions in 1usize..4,
        stops in proptest::collection::vec(1u64..30, 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let setup_with = |name: &str| {
            let mut setup = if grouped { Setup::groups() } else { Setup::rows() }.skipping();
            setup.rejects.file = Some(folder.path().join(name));
            setup
        };
        let input = rows(count, |row| bad.contains(&row));
        let (whole, parts) = (setup_with("whole"), setup_with("parts"));
        let mut once = MemorySink::new(partitions);
        let expected = whole.publish(&input, &mut once).unwrap();

        let topic = MemorySink::new(partitions).topic;
        let mut position = LoadPosition::start();
        let mut stops = stops.into_iter();
        let outcome = loop {
            let mut sink = MemorySink::on(std::rc::Rc::clone(&topic));
            sink.interrupt_after = stops.next();
            // As it is kept between two runs.
            let stored = serde_json::to_string(&position).unwrap();
            let outcome = parts.publish_from(&serde_json::from_str(&stored).unwrap(), &input, &mut sink, None, &mut |_| {}).unwrap();
            prop_assert!(outcome.error.is_none(), "{:?}", outcome.error);
            position = outcome.position.clone().unwrap();
            prop_assert_eq!(outcome.rows.read, position.input.row);
            prop_assert_eq!(outcome.rows.accepted + outcome.rows.rejected, outcome.rows.read);
            if outcome.status == Status::Complete {
                break outcome;
            }
        };
        prop_assert_eq!(&*topic.borrow(), &*once.topic.borrow());
        prop_assert_eq!((outcome.rows, outcome.records, outcome.source), (expected.rows, expected.records, expected.source));
        prop_assert_eq!(outcome.partitions, expected.partitions);
        let rejects = |setup: &Setup| std::fs::read(setup.rejects.file.as_ref().unwrap()).unwrap();
        prop_assert_eq!(rejects(&parts), rejects(&whole));
    }
}
