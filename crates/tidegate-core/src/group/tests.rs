//! Where groups begin and end, and whom a bad row takes with it.

use crate::limits::MAX_GROUP_SIZE;
use crate::read::BadRowKind;
use crate::records::fixture::{Owned, Setup};

fn setup() -> Setup {
    Setup::fields(
        r#"{"name": "ts", "type": "long"},
        {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "I", "fields": [{"name": "v", "type": "long"}]}}},
        {"name": "last", "type": "boolean", "default": false}"#,
    )
    .group_by(&["ts"])
    .json()
}

/// Records as `key: rows`, bad rows as `row kind`, in the order they come.
fn outline(setup: &Setup, input: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for step in setup.run(input) {
        match step {
            Owned::Record {
                key,
                rows,
                first_row,
                last_row,
                ..
            } => {
                assert_eq!(last_row - first_row + 1, u64::from(rows));
                lines.push(format!("{}: {rows}", key.unwrap_or_default()));
            }
            Owned::Bad(bad) => {
                lines.extend(bad.iter().map(|row| format!("{} {:?}", row.row, row.kind)));
            }
        }
    }
    lines
}

#[test]
fn consecutive_rows_of_the_same_values_make_one_record() {
    assert_eq!(
        setup().values("ts,v\n1,10\n1,11\n2,20\n1,12\n"),
        [
            r#"{"ts":1,"items":[{"v":10},{"v":11}],"last":false}"#,
            r#"{"ts":2,"items":[{"v":20}],"last":false}"#,
            r#"{"ts":1,"items":[{"v":12}],"last":false}"#
        ]
    );
    // By text: the same number written otherwise is another group.
    assert_eq!(outline(&setup(), "ts,v\n1,10\n01,11\n"), ["1: 1", "01: 1"]);
    assert_eq!(outline(&setup(), "ts,v\n"), Vec::<String>::new());
}

#[test]
fn several_columns_group_by_each_of_their_texts() {
    let setup = setup().group_by(&["ts", "v"]);
    assert_eq!(
        outline(&setup, "ts,v\n1,12\n1,12\n11,2\n"),
        [r#"["1","12"]: 2"#, r#"["11","2"]: 1"#]
    );
}

#[test]
fn a_bad_value_rejects_its_whole_group() {
    let input = "ts,v\n1,10\n2,20\n2,x\n2,22\n3,30\n";
    assert_eq!(
        outline(&setup(), input),
        ["1: 1", "2 Group", "3 Value", "4 Group", "3: 1"]
    );
    assert_eq!(
        setup().complaints(input),
        [
            "row 2 (line 3): rejected with its group (ts = `2`): row 3 (line 4), column `v`: expected a long (a whole number of 64 bits), found `x`",
            "row 3 (line 4), column `v`: expected a long (a whole number of 64 bits), found `x`; its group is rejected with it",
            "row 4 (line 5): rejected with its group (ts = `2`): row 3 (line 4), column `v`: expected a long (a whole number of 64 bits), found `x`",
        ]
    );
    // A group-by cell that is no value.
    assert_eq!(
        outline(&setup(), "ts,v\n1,10\nx,20\nx,21\n"),
        ["1: 1", "2 Value", "3 Group"]
    );
}

#[test]
fn a_bad_row_whose_group_can_be_read_rejects_that_group() {
    // In the middle, at the end, at the beginning of group 2.
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n2,1\n2\n2,3\n3,1\n"),
        ["1: 1", "2 Group", "3 Ragged", "4 Group", "3: 1"]
    );
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n2,1\n2\n3,1\n"),
        ["1: 1", "2 Group", "3 Ragged", "3: 1"]
    );
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n2\n2,1\n3,1\n"),
        ["1: 1", "2 Ragged", "3 Group", "3: 1"]
    );
    assert_eq!(
        outline(&setup(), "ts,v\n2\n2,1\n3,1\n"),
        ["1 Ragged", "2 Group", "3: 1"]
    );
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n2,\"o\n2,1\n"),
        ["1: 1", "2 Quotes", "3 Group"]
    );
    // A group of its own, in the middle and at the end.
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n2\n3,1\n"),
        ["1: 1", "2 Ragged", "3: 1"]
    );
    assert_eq!(outline(&setup(), "ts,v\n1,1\n2\n"), ["1: 1", "2 Ragged"]);
}

#[test]
fn a_bad_row_between_two_rows_of_a_group_belongs_to_it_whatever_it_says() {
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n7\n1,3\n2,1\n"),
        ["1 Group", "2 Ragged", "3 Group", "2: 1"]
    );
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n7\n\"8,\n1,3\n2,1\n"),
        ["1 Group", "2 Ragged", "3 Quotes", "4 Group", "2: 1"]
    );
    // Also where one of the two rows is bad itself.
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n\"8,\n1\n2,1\n"),
        ["1 Group", "2 Quotes", "3 Ragged", "2: 1"]
    );
}

#[test]
fn a_bad_row_whose_group_cannot_be_read_rejects_both_neighbours() {
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n2,1\n\"2,2\n3,1\n4,1\n"),
        ["1: 1", "2 Group", "3 Quotes", "4 Group", "4: 1"]
    );
    // At the ends of the file there is one neighbour.
    assert_eq!(
        outline(&setup(), "ts,v\n\"1,1\n1,2\n2,1\n"),
        ["1 Quotes", "2 Group", "2: 1"]
    );
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n2,1\n\"2,2\n"),
        ["1: 1", "2 Group", "3 Quotes"]
    );
    assert_eq!(outline(&setup(), "ts,v\n\"1,1\n"), ["1 Quotes"]);
}

#[test]
fn a_group_over_the_size_limit_is_rejected_without_holding_it() {
    let cell = "9".repeat(18);
    let rows = MAX_GROUP_SIZE / 20 + 1_000;
    let mut input = "ts,v\n0,1\n".to_owned();
    for _ in 0..rows {
        input.push_str(&format!("1,{cell}\n"));
    }
    input.push_str("2,1\n");
    let steps = setup().run(&input);
    let (mut bad, mut records) = (0, 0);
    for step in &steps {
        match step {
            Owned::Record { .. } => records += 1,
            Owned::Bad(rows) => {
                assert!(rows.iter().all(|row| row.kind == BadRowKind::Group
                    && row.reason.contains("it is larger than 8 MiB")));
                bad += rows.len();
            }
        }
    }
    assert_eq!((records, bad), (2, rows));
}

#[test]
fn blank_lines_inside_a_group_do_not_end_it() {
    assert_eq!(
        outline(&setup(), "ts,v\n1,1\n\n1,2\n\n2,1\n"),
        ["1: 2", "2: 1"]
    );
}

#[test]
fn a_nullable_array_is_filled_too() {
    let schema = setup()
        .schema
        .replace(r#"{"type": "array""#, r#"["null", {"type": "array""#)
        .replace("}]}}", "}]}}]");
    let mut nullable = Setup::new(schema).group_by(&["ts"]);
    let steps = nullable.run("ts,v\n1,10\n1,11\n");
    let Owned::Record { value, .. } = &steps[0] else {
        panic!("{steps:?}");
    };
    // ts 1, branch 1, a block of two items, its end, false.
    assert_eq!(value, &[2, 2, 4, 20, 22, 0, 0]);
    nullable = nullable.json();
    assert_eq!(
        nullable.values("ts,v\n1,10\n"),
        [r#"{"ts":1,"items":[{"v":10}],"last":false}"#]
    );
}
