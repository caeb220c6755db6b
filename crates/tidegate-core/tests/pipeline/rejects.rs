//! Bad rows: where they stop a load, and where they are kept.

use tidegate_core::ErrorKind;
use tidegate_core::receipt::Status;
use tidegate_core::rejects::{MaxRejects, RejectLine};

use crate::support::{MemorySink, Setup, Text, receipt, rows};

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
