//! Bad rows: where they stop a load, and where they are kept.

use tidegate_core::ErrorKind;
use tidegate_core::balance::HoldOptions;
use tidegate_core::event::Event;
use tidegate_core::position::LoadPosition;
use tidegate_core::publish::HoldOn;
use tidegate_core::receipt::Status;
use tidegate_core::rejects::{MaxRejects, RejectLine};

use crate::support::{Commits, Fault, Group, MemorySink, Setup, Text, receipt, rows};

#[test]
fn a_bad_row_stops_the_load_and_everything_before_it_is_delivered() {
    let mut sink = MemorySink::new(1);
    let outcome = Setup::rows()
        .publish(&rows(10, |row| row == 6), &mut sink)
        .unwrap();
    let error = outcome.error.as_ref().unwrap();
    assert_eq!(
        (outcome.status, error.kind()),
        (Status::Failed, ErrorKind::BadRow)
    );
    let place = error.position().unwrap();
    assert_eq!(
        (place.row, place.line, place.column.as_deref()),
        (6, 7, Some("cpu")),
        "{error}"
    );
    assert_eq!(sink.topic.borrow().records(), 5);
    let told = receipt(&outcome);
    assert_eq!(
        (
            told.rows.read,
            told.rows.accepted,
            told.rows.rejected,
            told.rows.failed
        ),
        (5, 5, 0, 0)
    );
    assert!(outcome.position.is_none());
}

/// The rows of a group are given before the bad one that spoils them; the message is about the bad one.
#[test]
fn a_group_that_stops_the_load_names_the_row_to_blame() {
    for (bad, delivered) in [(4, 1), (5, 1), (6, 1), (1, 0)] {
        let mut sink = MemorySink::new(1);
        let outcome = Setup::groups()
            .publish(&rows(9, |row| row == bad), &mut sink)
            .unwrap();
        let error = outcome.error.as_ref().unwrap();
        assert_eq!(
            error.position().map(|place| place.row),
            Some(bad),
            "{error}"
        );
        assert_eq!(sink.topic.borrow().records(), delivered);
        let told = receipt(&outcome);
        assert_eq!(
            (told.rows.read, told.rows.accepted),
            (3 * delivered, 3 * delivered)
        );
    }
    // A row that cannot be cut into cells may belong to the group before it, which is then not sent.
    let text = "ts,id,cpu\n0,c1,1.5\n0,c2,2.5\n0,\"c3\"x,3.5\n1,c4,4.5\n";
    let outcome = Setup::groups()
        .publish(&Text(text.into()), &mut MemorySink::new(1))
        .unwrap();
    let error = outcome.error.as_ref().unwrap();
    assert_eq!(
        error.position().map(|place| (place.row, place.line)),
        Some((3, 4)),
        "{error}"
    );
    assert_eq!(receipt(&outcome).rows.read, 0);
}

#[test]
fn rejects_are_kept_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rejects.jsonl");
    let mut setup = Setup::groups().skipping();
    setup.rejects.file = Some(path.clone());
    let outcome = setup
        .publish(&rows(9, |row| row == 5), &mut MemorySink::new(1))
        .unwrap();
    assert_eq!(
        (
            outcome.rows.read,
            outcome.rows.accepted,
            outcome.rows.rejected
        ),
        (9, 6, 3)
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(outcome.rejects_length, text.len() as u64);
    let lines: Vec<RejectLine> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut places: Vec<(u64, u64)> = lines.iter().map(|line| (line.row, line.line)).collect();
    places.sort_unstable();
    assert_eq!(places, [(4, 5), (5, 6), (6, 7)]);
    assert!(
        lines
            .iter()
            .any(|line| line.raw.as_deref() == Some("1,c5,broken"))
    );
}

#[test]
fn too_many_bad_rows_stop_the_load() {
    for (most, stops) in [
        (MaxRejects::Rows(2), true),
        (MaxRejects::Rows(3), false),
        (MaxRejects::Percent(29.0), true),
        (MaxRejects::Percent(30.0), false),
    ] {
        let mut setup = Setup::rows().skipping();
        setup.rejects.max_rejects = most;
        let outcome = setup
            .publish(&rows(10, |row| row % 3 == 0), &mut MemorySink::new(2))
            .unwrap();
        let kind = outcome.error.as_ref().map(tidegate_core::Error::kind);
        assert_eq!(kind, stops.then_some(ErrorKind::TooManyRejects), "{most}");
        receipt(&outcome);
    }
}

#[test]
fn a_rejects_file_that_cannot_be_written_keeps_the_load_from_beginning() {
    let mut setup = Setup::rows().skipping();
    setup.rejects.file = Some("/nowhere/rejects.jsonl".into());
    let mut sink = MemorySink::new(1);
    let error = setup.publish(&rows(3, |_| false), &mut sink).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LocalFile);
    assert_eq!(sink.appended, 0);
}

/// A sink that takes rejected rows has each once, whatever is rolled back and however often the load is gone on with; also while a group holds it back
/// in the middle of a rejected group.
#[test]
fn rejected_rows_are_in_their_topic_once() {
    for (grouped, limit) in [
        (false, None),
        (true, None),
        (true, Some(2)),
        (false, Some(1)),
    ] {
        let setup = if grouped {
            Setup::groups()
        } else {
            Setup::rows()
        };
        let mut setup = setup.skipping();
        setup.rejects.to_sink = true;
        setup.commits.bytes = 50;
        let input = rows(120, |row| row % 7 == 0);
        let commits = Commits::new(1);
        let mut fired = 0;
        let mut outcome = None;
        for faults in [
            vec![(2, Fault::RollsBack), (5, Fault::Dies)],
            vec![(1, Fault::RollsBack), (4, Fault::Dies)],
            vec![(3, Fault::RollsBack)],
        ] {
            let mut sink = MemorySink::transactional(&commits);
            (sink.faults, sink.batch_records) = (faults, 2);
            let mut group = Group::new(&sink.topic, vec![Some(0), Some(1)]);
            let hold = limit.map(|limit| HoldOn {
                options: HoldOptions::new(limit),
                committed: &mut group,
            });
            let position = Commits::position(&commits);
            let done = setup.publish_from(&position, &input, &mut sink, hold, &mut |_| {});
            fired += sink.fired;
            outcome = Some(done.unwrap());
        }
        let outcome = outcome.unwrap();
        assert!(fired >= 3, "{fired}");
        assert_eq!(outcome.status, Status::Complete, "{:?}", outcome.error);
        let topic = commits.borrow().topic.clone();
        let mut rows: Vec<u64> = topic.rejects.iter().map(|(_, row, _)| *row).collect();
        let numbers: Vec<u64> = topic.rejects.iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, (0..outcome.rows.rejected).collect::<Vec<_>>());
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(
            rows.len() as u64,
            outcome.rows.rejected,
            "grouped: {grouped}, {limit:?}"
        );
        assert_eq!(outcome.rows.accepted + outcome.rows.rejected, 120);
    }
}

/// With a file, too, a hold in the middle of a rejected group loses and doubles nothing.
#[test]
fn a_position_inside_a_rejected_group_knows_the_rows_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::groups().skipping();
    setup.rejects.file = Some(folder.path().join("rejects.jsonl"));
    setup.commits.bytes = 1;
    // The second group is rejected, and the load is held before the third.
    let input = rows(12, |row| row == 4);
    let commits = Commits::new(1);
    let mut sink = MemorySink::transactional(&commits);
    let mut group = Group::new(&sink.topic, vec![Some(0); 3]);
    let interrupt = std::rc::Rc::clone(&sink.interrupt);
    let hold = HoldOn {
        options: HoldOptions::new(1),
        committed: &mut group,
    };
    let held = setup.publish_from(
        &LoadPosition::start(),
        &input,
        &mut sink,
        Some(hold),
        &mut |event| {
            if let Event::Held { .. } = event {
                interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        },
    );
    assert_eq!(held.unwrap().status, Status::Interrupted);
    let position = Commits::position(&commits);
    assert_eq!(position.records, 1);
    let mut sink = MemorySink::transactional(&commits);
    let outcome = setup
        .publish_from(&position, &input, &mut sink, None, &mut |_| {})
        .unwrap();
    assert_eq!(
        (
            outcome.rows.read,
            outcome.rows.accepted,
            outcome.rows.rejected
        ),
        (12, 9, 3)
    );
    let text = std::fs::read_to_string(setup.rejects.file.unwrap()).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn rejected_rows_are_summed_up_by_kind_and_column() {
    let text = "ts,id,cpu\n1,a,x\n2,b\n3,c,1\ny,d,4\n5,e,z\n";
    let mut setup = Setup::rows().skipping();
    setup.commits.bytes = 1;
    let commits = Commits::new(1);
    let mut sink = MemorySink::transactional(&commits);
    // What is rolled back is not counted twice.
    sink.faults = vec![(0, Fault::RollsBack)];
    let outcome = setup.publish(&Text(text.into()), &mut sink).unwrap();
    assert_eq!((sink.fired, outcome.rows.rejected), (1, 4));
    let groups: Vec<_> = outcome
        .rejects
        .iter()
        .map(|group| (group.column.as_deref(), group.count, group.first.row))
        .collect();
    assert_eq!(
        groups,
        [(Some("cpu"), 2, 1), (Some("cpu"), 1, 2), (Some("ts"), 1, 4)]
    );
    assert!(
        outcome.rejects[0]
            .first
            .reason
            .contains("expected a double")
    );
}
