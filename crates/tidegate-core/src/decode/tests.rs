//! Showing records, refusing bytes that are none, and naming differences.

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use proptest::prelude::*;

use super::*;
use crate::records::fixture::{Owned, Setup};

fn show(schema: &str, bytes: &[u8]) -> String {
    Decoder::new(schema)
        .unwrap()
        .to_json(bytes)
        .map_or_else(|error| error.to_string(), |value| value.to_string())
}

#[test]
fn every_type_is_shown() {
    for (schema, bytes, expected) in [
        (r#""null""#, &b""[..], "null"),
        (r#""boolean""#, &[1], "true"),
        (r#""int""#, &[3], "-2"),
        (r#""float""#, &[0xcd, 0xcc, 0xcc, 0x3d], "0.1"),
        (r#""double""#, &[0, 0, 0, 0, 0, 0, 0xf8, 0x7f], "\"NaN\""),
        (
            r#""double""#,
            &[0, 0, 0, 0, 0, 0, 0xf0, 0xff],
            "\"-Infinity\"",
        ),
        (r#""bytes""#, &[4, 0xff, 0], "\"/wA=\""),
        (r#""string""#, b"\x04hi", "\"hi\""),
        (r#"["null", "long"]"#, &[2, 4], "2"),
        (
            r#"{"type": "map", "values": "long"}"#,
            b"\x02\x02k\x04\0",
            r#"{"k":2}"#,
        ),
        // Two blocks, one of them with its size.
        (
            r#"{"type": "array", "items": "long"}"#,
            &[2, 2, 3, 4, 4, 6, 0],
            "[1,2,3]",
        ),
        (
            r#"{"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}"#,
            &[4, 0x04, 0xd2],
            "\"12.34\"",
        ),
        (
            r#"{"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}"#,
            &[2, 0xff],
            "\"-0.01\"",
        ),
        (
            r#"{"type": "bytes", "logicalType": "decimal", "precision": 6}"#,
            &[0],
            "\"0\"",
        ),
        (
            r#"{"type": "long", "logicalType": "timestamp-millis"}"#,
            &[20],
            "10",
        ),
        (
            r#"{"type": "fixed", "name": "F", "size": 2}"#,
            &[1, 2],
            "\"AQI=\"",
        ),
    ] {
        assert_eq!(show(schema, bytes), expected, "{schema}");
    }
}

#[test]
fn bytes_that_are_no_record_are_errors_and_take_no_memory() {
    for (schema, bytes, part) in [
        (
            r#""string""#,
            &[4, b'a'][..],
            "at byte 1, 2 bytes are expected and 1 are left",
        ),
        (r#""boolean""#, &[], "1 bytes are expected and 0 are left"),
        (r#""boolean""#, &[2], "a boolean is 2"),
        (r#"["null", "long"]"#, &[], "1 bytes are expected"),
        (r#"["null", "long"]"#, &[4], "the union has no branch 2"),
        (r#""long""#, &[0xff; 11], "a number is longer than 64 bits"),
        (
            r#""int""#,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "does not fit into 32 bits",
        ),
        (
            r#""bytes""#,
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "bytes are expected and 0 are left",
        ),
        (r#""bytes""#, &[1], "a length is -1"),
        (r#""string""#, &[2, 0xff], "is not UTF-8"),
        (r#""null""#, &[0], "1 bytes are left behind the record"),
        (
            r#"{"type": "array", "items": "null"}"#,
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "items without content are announced",
        ),
        (
            r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#,
            &[2],
            "the enum has no symbol 1",
        ),
        (
            r#"{"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}"#,
            &[2; 500],
            "nested deeper than 128 levels",
        ),
    ] {
        let shown = show(schema, bytes);
        assert!(shown.contains(part), "{schema}: {shown}");
    }
}

#[test]
fn a_decimal_of_more_bytes_than_are_ever_written_is_an_error() {
    let schema = r#"{"type": "bytes", "logicalType": "decimal", "precision": 6}"#;
    let parsed = Schema::parse_str(schema).unwrap();
    let shown = |bytes: Vec<u8>| {
        let decimal = Avro::Decimal(apache_avro::Decimal::from(bytes));
        show(
            schema,
            &apache_avro::to_avro_datum(&parsed, decimal).unwrap(),
        )
    };
    let long = shown(vec![1; 40_000]);
    assert!(
        long.contains("a decimal number has 40000 bytes"),
        "{long:.200}"
    );
    // Bytes that only repeat the sign are not counted.
    let mut padded = vec![0xff; 40_000];
    padded.push(0xfe);
    assert_eq!(shown(padded), "\"-2\"");
}

proptest! {
    #[test]
    fn bytes_that_are_shown_are_a_record_for_apache_avro_too(bytes: Vec<u8>) {
        let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": ["null", "string", "R"]}},
            {"name": "m", "type": {"type": "map", "values": "bytes"}}]}"#;
        if Decoder::new(schema).unwrap().to_json(&bytes).is_ok() {
            let schema = Schema::parse_str(schema).unwrap();
            prop_assert!(apache_avro::from_avro_datum(&schema, &mut &bytes[..], None).is_ok());
        }
    }

    #[test]
    fn decimals_are_shown_as_written(value: i64, scale in 0_usize..8) {
        let schema = format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": {scale}}}"#);
        let decimal = apache_avro::Decimal::from(value.to_be_bytes());
        let parsed = Schema::parse_str(&schema).unwrap();
        let bytes = apache_avro::to_avro_datum(&parsed, Avro::Decimal(decimal)).unwrap();
        let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if scale > 0 { "." } else { "" };
        let sign = if value < 0 { "-" } else { "" };
        prop_assert_eq!(show(&schema, &bytes), format!("\"{sign}{whole}{point}{fraction}\""));
    }
}

fn grouped() -> Setup {
    Setup::fields(
        r#"{"name": "ts", "type": "long"},
        {"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "I", "fields": [
            {"name": "ts", "type": "long"}, {"name": "f", "type": "double", "aliases": ["cpu"]}]}}}"#,
    )
    .group_by(&["ts"])
}

fn value_of(setup: &Setup, input: &str) -> Vec<u8> {
    match setup.run(input).remove(0) {
        Owned::Record { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_difference_is_named_by_field_column_and_row() {
    for setup in [grouped(), grouped().json()] {
        let plan = setup.plan_for("ts,cpu").unwrap();
        let expected = value_of(&setup, "ts,cpu\n1,0\n1,0.5\n");
        let difference =
            |other: &str| first_difference(&plan, false, &expected, &value_of(&setup, other));
        assert_eq!(difference("ts,cpu\n1,0\n1,0.5\n"), None);
        assert_eq!(
            difference("ts,cpu\n1,0\n1,0.25\n"),
            Some(FieldDifference {
                field: "rows[1].f".into(),
                column: Some("cpu".into()),
                row_in_record: Some(1),
                expected: "0.5".into(),
                found: "0.25".into(),
            })
        );
        let negative_zero = difference("ts,cpu\n1,-0\n1,0.5\n").unwrap();
        assert_eq!(
            (
                negative_zero.expected.as_str(),
                negative_zero.found.as_str()
            ),
            ("0.0", "-0.0")
        );
        let shorter = difference("ts,cpu\n1,0\n").unwrap();
        assert_eq!(
            (
                shorter.field.as_str(),
                shorter.expected.as_str(),
                shorter.found.as_str()
            ),
            ("rows", "2 items", "1 items")
        );
        let other = difference("ts,cpu\n2,0\n").unwrap();
        assert_eq!(
            (other.field.as_str(), other.column.as_deref()),
            ("ts", Some("ts"))
        );
        let broken =
            first_difference(&plan, false, &expected, &expected[..expected.len() - 1]).unwrap();
        assert_eq!(broken.field, "");
        assert!(
            broken.found.contains("not a record") || broken.found.contains("not JSON"),
            "{}",
            broken.found
        );
    }
}

#[test]
fn another_schema_id_is_a_difference_of_the_whole() {
    let setup = Setup::fields(r#"{"name": "a", "type": "long"}"#);
    let plan = setup.plan_for("a").unwrap();
    let difference = |found: &[u8]| {
        let difference = first_difference(&plan, true, &[0, 0, 0, 0, 1, 2], found).unwrap();
        (difference.field, difference.expected, difference.found)
    };
    assert_eq!(
        difference(&[0, 0, 0, 0, 9, 2]),
        (String::new(), "schema id 1".into(), "schema id 9".into())
    );
    assert_eq!(
        difference(&[0, 0, 0, 0, 1, 4]),
        ("a".into(), "1".into(), "2".into())
    );
    assert!(
        difference(&[7, 0, 0, 0, 1, 2])
            .2
            .contains("no Confluent header")
    );
    assert!(difference(b"x").2.contains("1 bytes"));
    // The same array in other blocks is the same.
    let setup = grouped();
    let plan = setup.plan_for("ts,cpu").unwrap();
    let ours = value_of(&setup, "ts,cpu\n1,0\n1,0\n");
    let mut item = vec![2];
    item.extend_from_slice(&0.0_f64.to_le_bytes());
    let theirs = [&[2, 2][..], &item, &[2], &item, &[0]].concat();
    assert_ne!(ours, theirs);
    assert_eq!(first_difference(&plan, false, &ours, &theirs), None);
}
