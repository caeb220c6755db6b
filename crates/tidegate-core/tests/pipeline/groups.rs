//! Groups: what stands around their array, groups without their bad rows, groups that come again, and the last record of an input.

use proptest::prelude::*;
use tidegate_core::position::LoadPosition;
use tidegate_core::publish::CommitCadence;
use tidegate_core::receipt::Status;
use tidegate_core::{Error, ErrorKind};

use crate::support::{
    Commits, Fault, GROUP_SCHEMA, MemorySink, ROW_SCHEMA, Setup, Text, receipt, rows,
};

const TS: &str = "ts";

/// A group with the container outside the array, a constant there and another in the rows.
const AROUND: &str = r#"{"type": "record", "name": "Usage", "fields": [
    {"name": "ts", "type": "long"}, {"name": "id", "type": "string"}, {"name": "site", "type": ["null", "string"]},
    {"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "Row", "fields": [
        {"name": "cpu", "type": "double"}, {"name": "weight", "type": "int"}]}}},
    {"name": "is_last", "type": "boolean"}]}"#;

fn by_ts() -> [String; 1] {
    [TS.to_owned()]
}

fn constants(pairs: &[(&str, &str)]) -> &'static [(String, String)] {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Vec::leak(pairs.iter().map(owned).collect())
}

fn around() -> Setup {
    Setup::with(AROUND, &by_ts(), |request| {
        request.set = constants(&[("site", "north"), ("rows[].weight", "7")]);
        request.mark_last = Some("is_last");
    })
    .unwrap()
    .skipping()
}

fn values(setup: &Setup, text: &str) -> Vec<String> {
    let mut sink = MemorySink::new(1);
    let outcome = setup.publish(&Text(text.into()), &mut sink).unwrap();
    assert_eq!(outcome.status, Status::Complete, "{:?}", outcome.error);
    receipt(&outcome);
    sink.topic.take().values()
}

fn refused(result: Result<Setup, Error>) -> String {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Option, "{error}");
    error.to_string()
}

#[test]
fn what_stands_outside_the_array_is_the_same_in_all_rows() {
    let found = values(&around(), "ts,id,cpu\n1,a,1\n1,a,2\n2,b,3\n2,c,4\n3,c,5\n");
    assert_eq!(
        found,
        [
            r#"{"ts":1,"id":"a","site":"north","rows":[{"cpu":1.0,"weight":7},{"cpu":2.0,"weight":7}],"is_last":false}"#,
            r#"{"ts":3,"id":"c","site":"north","rows":[{"cpu":5.0,"weight":7}],"is_last":true}"#,
        ]
    );
    let mut sink = MemorySink::new(1);
    let text = "ts,id,cpu\n2,b,3\n2,b,4\n2,c,4\n";
    let outcome = around().publish(&Text(text.into()), &mut sink).unwrap();
    let group = &outcome.rejects[..];
    let blamed = group.iter().find(|group| group.column.is_some()).unwrap();
    assert_eq!(
        (blamed.column.as_deref(), blamed.first.row),
        (Some("id"), 3)
    );
    let reason = &blamed.first.reason;
    for part in ["the field `id`", "`b` in row 1", "`c` in row 3"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn constants_are_read_as_cells_are() {
    let set = |pairs: &'static [(String, String)]| {
        Setup::with(AROUND, &by_ts(), |request| {
            (request.set, request.mark_last) = (pairs, Some("is_last"));
        })
    };
    let unknown = refused(set(constants(&[("weight", "1"), ("nowhere", "1")])));
    assert!(unknown.contains("`nowhere`"), "{unknown}");
    let wrong = refused(set(constants(&[("weight", "heavy")])));
    assert!(wrong.contains("expected an int"), "{wrong}");
    assert!(wrong.contains("heavy"), "{wrong}");
    let marked = refused(Setup::with(AROUND, &by_ts(), |request| {
        request.set = constants(&[("weight", "1")]);
        request.mark_last = Some("site");
    }));
    assert!(marked.contains("must be a boolean"), "{marked}");
    // The empty text is null where null can be, as in a cell; and a constant goes before a column.
    let setup = set(constants(&[("weight", "1"), ("site", ""), ("cpu", "9")])).unwrap();
    assert_eq!(
        values(&setup, "ts,id,cpu\n1,a,broken\n"),
        [r#"{"ts":1,"id":"a","site":null,"rows":[{"cpu":9.0,"weight":1}],"is_last":true}"#]
    );
}

#[test]
fn the_last_record_of_each_input_is_marked() {
    const SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
        {"name": "ts", "type": "long"}, {"name": "cpu", "type": "double"}, {"name": "end", "type": ["null", "boolean"]}]}"#;
    let setup = Setup::with(SCHEMA, &[], |request| request.mark_last = Some("end"));
    let mut setup = setup.unwrap().skipping();
    setup.commits.bytes = 1;
    let input = |text: &str| Text(format!("ts,id,cpu\n{text}").into_bytes());
    // Bad rows behind the last record change nothing.
    let inputs = [
        input("1,a,1\n2,a,1\n"),
        input("3,a,x\n"),
        input("4,a,1\n5,a,1\n6,a,x\n7,a\n"),
    ];
    let commits = Commits::new(1);
    let mut position = LoadPosition::start();
    // Wherever it is interrupted, it goes on to the same.
    for interrupt in [Some(1), Some(1), None] {
        let mut sink = MemorySink::transactional(&commits);
        sink.interrupt_after = interrupt;
        setup
            .publish_all(&position, &inputs, &mut sink, None, &mut |_| {})
            .unwrap();
        position = Commits::position(&commits);
    }
    assert!(commits.borrow().is_complete);
    assert_eq!(
        commits.borrow().topic.values(),
        [(1, false), (2, true), (4, false), (5, true)]
            .map(|(ts, end)| format!(r#"{{"ts":{ts},"cpu":1.0,"end":{end}}}"#))
    );
    // A record more would make another one the last; a bad row would not.
    let grown = |text: &str| {
        let inputs = [
            input("1,a,1\n2,a,1\n"),
            input("3,a,x\n"),
            input(&format!("4,a,1\n5,a,1\n6,a,x\n7,a\n{text}")),
        ];
        let mut sink = MemorySink::transactional(&commits);
        setup
            .publish_all(&position, &inputs, &mut sink, None, &mut |_| {})
            .unwrap()
    };
    let error = grown("8,a,1\n").error.unwrap();
    assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
    assert_eq!(error.position().map(|place| place.row), Some(8));
    assert_eq!(grown("8,a,x\n").status, Status::Complete);
}

#[test]
fn an_input_that_now_ends_before_is_refused() {
    let setup = around();
    let commits = Commits::new(1);
    let mut sink = MemorySink::transactional(&commits);
    sink.interrupt_after = Some(1);
    let text = |rows: &str| Text(format!("ts,id,cpu\n1,a,1\n{rows}").into_bytes());
    setup.publish(&text("2,b,1\n"), &mut sink).unwrap();
    let position = Commits::position(&commits);
    assert_eq!(position.input.row, 1);
    let mut sink = MemorySink::transactional(&commits);
    let refused = setup.publish_from(&position, &text("2,b,x\n"), &mut sink, None, &mut |_| {});
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InputChanged);
}

fn partial() -> Setup {
    let setup = Setup::with(GROUP_SCHEMA, &by_ts(), |request| {
        request.partial_groups = true;
    });
    setup.unwrap().skipping()
}

#[test]
fn a_partial_group_goes_on_without_its_bad_rows() {
    let text =
        "ts,id,cpu\n0,a,x\n0,b,1\n0,c\n0,d,2\n\"0\"x,e,3\n0,f,4\n1,g,x\n1,h,x\n2,i,1\n\"2\"x,j,3\n";
    assert_eq!(
        values(&partial(), text),
        [
            r#"{"ts":0,"rows":[{"id":"b","cpu":1.0},{"id":"d","cpu":2.0},{"id":"f","cpu":4.0}]}"#,
            r#"{"ts":2,"rows":[{"id":"i","cpu":1.0}]}"#,
        ]
    );
    let mut sink = MemorySink::new(1);
    let outcome = partial().publish(&Text(text.into()), &mut sink).unwrap();
    assert_eq!(
        (
            outcome.rows.read,
            outcome.rows.accepted,
            outcome.rows.rejected
        ),
        (10, 4, 6)
    );
    // Each for a fault of its own.
    assert!(
        outcome
            .rejects
            .iter()
            .all(|group| { group.kind != Some(tidegate_core::read::BadRowKind::Group) })
    );
}

#[test]
fn a_group_that_comes_again_is_told_or_an_error() {
    let text = "ts,id,cpu\n0,a,1\n0,a,1\n1,b,1\n0,c,1\n2,d,1\n1,e,1\n1,e,2\n";
    let mut sink = MemorySink::new(1);
    let outcome = Setup::groups()
        .publish(&Text(text.into()), &mut sink)
        .unwrap();
    assert_eq!(sink.topic.borrow().records(), 5);
    let groups = outcome.returned_groups.unwrap();
    let first = groups.first.unwrap();
    assert_eq!((groups.count, first.first_row, first.row), (2, 1, 4));
    assert!(first.group.contains("ts"), "{}", first.group);
    assert!(!groups.has_stopped);

    let strict = || {
        let setup = Setup::with(GROUP_SCHEMA, &by_ts(), |request| {
            request.strict_groups = true;
        });
        setup.unwrap()
    };
    let commits = Commits::new(1);
    let mut sink = MemorySink::transactional(&commits);
    let outcome = strict().publish(&Text(text.into()), &mut sink).unwrap();
    let error = outcome.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::UnsortedGroups);
    assert_eq!(
        error.position().map(|place| (place.row, place.line)),
        Some((4, 5))
    );
    assert!(error.to_string().contains("began with row 1"), "{error}");
    // What stands before it is committed, and who goes on there knows the groups before.
    let position = Commits::position(&commits);
    assert_eq!(
        (position.input.row, commits.borrow().topic.records()),
        (3, 2)
    );
    let mut sink = MemorySink::transactional(&commits);
    let again = strict()
        .publish_from(&position, &Text(text.into()), &mut sink, None, &mut |_| {})
        .unwrap();
    assert_eq!(again.error.unwrap().kind(), ErrorKind::UnsortedGroups);
    // The same group in the next input is another one, too.
    let mut sink = MemorySink::new(1);
    let inputs = [rows(3, |_| false), rows(3, |_| false)];
    let outcome = Setup::groups()
        .publish_all(
            &LoadPosition::start(),
            &inputs,
            &mut sink,
            None,
            &mut |_| {},
        )
        .unwrap();
    assert_eq!(outcome.returned_groups.unwrap().count, 1);
}

/// A load that comes to the same groups again after a rollback does not take them for others.
#[test]
fn a_replay_meets_its_own_groups() {
    let commits = Commits::new(1);
    let mut setup = Setup::groups();
    setup.commits.bytes = 40;
    let mut sink = MemorySink::transactional(&commits);
    sink.faults = vec![(3, Fault::RollsBack)];
    let outcome = setup.publish(&rows(60, |_| false), &mut sink).unwrap();
    assert_eq!((sink.fired, outcome.status), (1, Status::Complete));
    assert_eq!(outcome.returned_groups.unwrap().count, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// In parts, with rollbacks and deaths, rejected rows and the marked end come to what one run comes to.
    #[test]
    fn loads_in_parts_come_to_the_same(
        count in 1u64..60,
        bad in proptest::collection::btree_set(1u64..60, 0..20),
        is_partial: bool,
        is_marked: bool,
        commit_bytes in 1u64..200,
        runs in proptest::collection::vec(proptest::collection::vec((0usize..15, prop_oneof![Just(Fault::RollsBack), Just(Fault::Dies)]), 0..3), 0..4),
    ) {
        const SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
            {"name": "ts", "type": "long"}, {"name": "end", "type": "boolean", "default": false},
            {"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "Row", "fields": [
                {"name": "id", "type": "string"}, {"name": "cpu", "type": "double"}]}}}]}"#;
        let mut setup = Setup::with(SCHEMA, &by_ts(), |request| {
            request.partial_groups = is_partial;
            request.strict_groups = true;
            request.mark_last = is_marked.then_some("end");
        }).unwrap().skipping();
        setup.rejects.to_sink = true;
        let input = rows(count, |row| bad.contains(&row));
        let mut once = MemorySink::new(2);
        let expected = setup.publish(&input, &mut once).unwrap();
        prop_assert_eq!(expected.rows.accepted + expected.rows.rejected, count);

        setup.commits = CommitCadence { bytes: commit_bytes, ..CommitCadence::default() };
        let commits = Commits::new(2);
        let mut last = None;
        for faults in runs.into_iter().chain([Vec::new()]) {
            let mut sink = MemorySink::transactional(&commits);
            sink.faults = faults;
            last = Some(setup.publish_from(&Commits::position(&commits), &input, &mut sink, None, &mut |_| {}).unwrap());
        }
        let last = last.unwrap();
        prop_assert_eq!(last.status, Status::Complete, "{:?}", last.error);
        prop_assert_eq!(commits.borrow().topic.values(), once.topic.borrow().values());
        prop_assert_eq!(&commits.borrow().topic.rejects, &once.topic.borrow().rejects);
        prop_assert_eq!(once.topic.borrow().rejects.len() as u64, expected.rows.rejected);
        prop_assert_eq!((last.rows, last.records), (expected.rows, expected.records));
        let sum: u64 = expected.rejects.iter().map(|group| group.count).sum();
        prop_assert_eq!(sum, expected.rows.rejected);
    }
}

#[test]
fn a_row_schema_can_have_constants_too() {
    let setup = Setup::with(ROW_SCHEMA, &[], |request| {
        request.set = constants(&[("id", "always")]);
    });
    assert_eq!(
        values(&setup.unwrap(), "ts,id,cpu\n1,a,2\n"),
        [r#"{"ts":1,"id":"always","cpu":2.0}"#]
    );
}
