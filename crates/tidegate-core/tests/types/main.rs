//! Every type from every kind of text: what becomes of it in Avro, as apache-avro reads it, and in JSON; or what is said of it.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

mod field;
mod json;
mod property;
mod scalar;
mod times;

use apache_avro::Schema;
use serde_json::{Value, json};
use tidegate_core::decode::Decoder;
use tidegate_core::encode::{CellFormat, ValueFormat};
use tidegate_core::read::{CsvFormat, RowReader};
use tidegate_core::records::{RecordStream, Step};
use tidegate_core::schema::{PlanRequest, RecordPlan};

/// What comes of one row: the value of its only field, or what is said of it.
fn encode(
    schema: &str,
    cells: &CellFormat,
    csv: &(impl AsRef<[u8]> + ?Sized),
    format: ValueFormat,
) -> Result<Vec<u8>, String> {
    let reader = RowReader::open(csv.as_ref(), CsvFormat::default()).unwrap();
    let plan = RecordPlan::compile(&PlanRequest {
        format,
        cells,
        ..PlanRequest::new(schema, reader.header())
    });
    let plan = plan.unwrap_or_else(|error| panic!("{error}\n{schema}"));
    let mut records = RecordStream::new(reader, &plan, None).unwrap();
    match records.next().unwrap() {
        Step::Record(record) => Ok(record.value.to_vec()),
        Step::Bad(rows) => Err(rows[0].reason.clone()),
        other => panic!("{other:?}"),
    }
}

fn record(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// apache-avro knows no fixed type for a uuid, and keeps no duration that it can be asked for.
fn for_apache(schema: &str) -> Schema {
    let schema = schema.replace(r#""size": 16, "logicalType": "uuid""#, r#""size": 16"#);
    Schema::parse_str(&schema).unwrap()
}

/// Checks one text for a field with this type and these attributes.
fn check(field: &str, cells: &CellFormat, text: &str, expected: &Result<Value, &str>) {
    let schema = record(&format!(r#"{{"name": "f", {field}}}"#));
    let csv = format!("f\n{}\n", quoted(text));
    let avro = encode(&schema, cells, &csv, ValueFormat::Avro);
    let plain = encode(&schema, cells, &csv, ValueFormat::Json);
    match expected {
        Ok(expected) => {
            let avro = avro.unwrap_or_else(|reason| panic!("{field} of {text:?}: {reason}"));
            let mut rest = avro.as_slice();
            apache_avro::from_avro_datum(&for_apache(&schema), &mut rest, None)
                .unwrap_or_else(|error| panic!("{field} of {text:?}: {error}"));
            assert!(rest.is_empty(), "{field} of {text:?} leaves {rest:?}");
            let found = Decoder::new(&schema).unwrap().to_json(&avro).unwrap();
            assert_eq!(found["f"], *expected, "{field} of {text:?}");
            // JSON has neither NaN nor infinities, which the decoder shows as words.
            if !matches!(expected.as_str(), Some("NaN" | "Infinity" | "-Infinity")) {
                let plain = plain.unwrap_or_else(|reason| panic!("{field} of {text:?}: {reason}"));
                let plain: Value = serde_json::from_slice(&plain).unwrap();
                assert_eq!(plain["f"], *expected, "{field} of {text:?} in JSON");
            }
        }
        Err(part) => {
            for reason in [avro.unwrap_err(), plain.unwrap_err()] {
                assert!(reason.contains(part), "{field} of {text:?}: {reason}");
            }
        }
    }
}

fn check_all(field: &str, cases: &[(&str, Result<Value, &str>)]) {
    for (text, expected) in cases {
        check(field, &CellFormat::default(), text, expected);
    }
}

const NO: &str = "expected";
const RANGE: &str = "out of range";

#[test]
fn numbers() {
    check_all(
        r#""type": "int""#,
        &[
            ("0", Ok(json!(0))),
            ("-2147483648", Ok(json!(i32::MIN))),
            ("2147483648", Err(RANGE)),
            ("1.0", Err(NO)),
            ("", Err("an empty field")),
            ("NaN", Err(NO)),
        ],
    );
    check_all(
        r#""type": "long""#,
        &[
            ("9223372036854775807", Ok(json!(i64::MAX))),
            ("9223372036854775808", Err(RANGE)),
            ("007", Ok(json!(7))),
            ("1_000", Err(NO)),
            ("1,000", Err(NO)),
            (" 1", Err(NO)),
        ],
    );
    check_all(
        r#""type": "float""#,
        &[
            ("0.1", Ok(json!(0.1))),
            ("1e39", Err(RANGE)),
            ("NaN", Ok(json!("NaN"))),
            ("-inf", Ok(json!("-Infinity"))),
            ("1,5", Err(NO)),
        ],
    );
    check_all(
        r#""type": "double""#,
        &[
            ("-0", Ok(json!(-0.0))),
            ("1e308", Ok(json!(1e308))),
            ("1e309", Err(RANGE)),
            ("inf", Ok(json!("Infinity"))),
            ("0x10", Err(NO)),
        ],
    );
}

/// Two texts of eight digits are as near to this float; what is published as JSON and what is shown of Avro have the same.
#[test]
fn a_float_between_two_texts_has_the_same_one_in_both_formats() {
    check_all(
        r#""type": "float""#,
        &[
            ("2624815.25", Ok(json!(2_624_815.2))),
            ("-2624815.25", Ok(json!(-2_624_815.2))),
        ],
    );
}

#[test]
fn texts_and_bytes() {
    check_all(
        r#""type": "string""#,
        &[
            ("", Ok(json!(""))),
            ("a\"b\n", Ok(json!("a\"b\n"))),
            ("é", Ok(json!("é"))),
        ],
    );
    check_all(
        r#""type": "bytes""#,
        &[("", Ok(json!(""))), ("é", Ok(json!("w6k=")))],
    );
    check_all(
        r#""type": "bytes", "tidegate.format": "hex""#,
        &[
            ("c3a9", Ok(json!("w6k="))),
            ("C3A9", Ok(json!("w6k="))),
            ("c3a", Err("bytes in hexadecimal digits")),
            ("0xc3", Err(NO)),
        ],
    );
    check_all(
        r#""type": "bytes", "tidegate.format": "base64""#,
        &[
            ("w6k=", Ok(json!("w6k="))),
            ("w6k", Err("in base64")),
            ("w6k?", Err(NO)),
        ],
    );
    check_all(
        r#""type": {"type": "fixed", "name": "F", "size": 2}, "tidegate.format": "hex""#,
        &[
            ("c3a9", Ok(json!("w6k="))),
            (
                "c3",
                Err("expected 2 bytes in hexadecimal digits, found `c3`, which is out of range"),
            ),
            ("", Err(NO)),
        ],
    );
    check_all(
        r#""type": {"type": "enum", "name": "E", "symbols": ["RED", "BLUE"]}"#,
        &[
            ("BLUE", Ok(json!("BLUE"))),
            ("blue", Err("one of RED, BLUE")),
            ("", Err(NO)),
        ],
    );
    let id = "123e4567-e89b-12d3-a456-426614174000";
    let cases = [
        (id, Ok(json!(id))),
        ("123E4567E89B12D3A456426614174000", Ok(json!(id))),
        ("{123e4567-e89b-12d3-a456-426614174000}", Err("a uuid")),
        ("123e4567", Err(NO)),
        ("", Err(NO)),
    ];
    check_all(
        r#""type": {"type": "string", "logicalType": "uuid"}"#,
        &cases,
    );
    let bytes = json!("Ej5FZ+ibEtOkVkJmFBdAAA==");
    check_all(
        r#""type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}"#,
        &[(id, Ok(bytes)), ("x", Err("a uuid"))],
    );
}

#[test]
fn booleans_and_nulls() {
    check_all(
        r#""type": "boolean""#,
        &[
            ("TRUE", Ok(json!(true))),
            ("0", Ok(json!(false))),
            ("yes", Err("a boolean (true or false)")),
            ("", Err(NO)),
        ],
    );
    check_all(
        r#""type": "boolean", "tidegate.true": ["yes", "y"], "tidegate.false": "no""#,
        &[
            ("Yes", Ok(json!(true))),
            ("y", Ok(json!(true))),
            ("NO", Ok(json!(false))),
            ("true", Err("a boolean (yes, y or no)")),
        ],
    );
    let words = CellFormat {
        booleans: vec![("oui".into(), "non".into()), ("ja".into(), "nein".into())],
        ..CellFormat::default()
    };
    check(r#""type": "boolean""#, &words, "nein", &Ok(json!(false)));
    check(
        r#""type": "boolean""#,
        &words,
        "1",
        &Err("oui, ja or non, nein"),
    );
    check_all(
        r#""type": "null""#,
        &[("", Ok(Value::Null)), ("x", Err("nothing"))],
    );
    check_all(
        r#""type": ["long", "null"]"#,
        &[("", Ok(Value::Null)), ("7", Ok(json!(7))), ("NA", Err(NO))],
    );
    check_all(
        r#""type": ["null", "string"], "tidegate.null": ["NA", "-"]"#,
        &[
            ("NA", Ok(Value::Null)),
            ("-", Ok(Value::Null)),
            ("", Ok(json!(""))),
            ("na", Ok(json!("na"))),
        ],
    );
    let tokens = CellFormat {
        null_tokens: vec!["NA".into(), "\\N".into()],
        ..CellFormat::default()
    };
    check(
        r#""type": ["null", "long"]"#,
        &tokens,
        "\\N",
        &Ok(Value::Null),
    );
    check(r#""type": ["null", "long"]"#, &tokens, "", &Ok(Value::Null));
    check(r#""type": ["null", "string"]"#, &tokens, "", &Ok(json!("")));
    check(
        r#""type": "string""#,
        &tokens,
        "NA",
        &Err("stands for null"),
    );
    check(
        r#""type": ["null", "long"], "tidegate.null": "?""#,
        &tokens,
        "NA",
        &Err(NO),
    );
}

#[test]
fn unions_take_the_first_that_fits() {
    let field = r#""type": ["null", "long", "double", {"type": "long", "logicalType": "timestamp-millis"}, "string"]"#;
    // A union holds no two longs: the timestamp is one.
    let field = field.replace(
        r#", {"type": "long", "logicalType": "timestamp-millis"}"#,
        "",
    );
    check_all(
        &field,
        &[
            ("7", Ok(json!(7))),
            ("7.5", Ok(json!(7.5))),
            ("99999999999999999999", Ok(json!(1e20))),
            ("seven", Ok(json!("seven"))),
            ("", Ok(Value::Null)),
        ],
    );
    check_all(
        r#""type": ["boolean", {"type": "int", "logicalType": "date"}]"#,
        &[
            ("true", Ok(json!(true))),
            ("1970-01-03", Ok(json!(2))),
            ("never", Err("a boolean (true or false), or a date")),
            // Said is what is wrong with the branch that it is nearly a value of.
            ("2023-02-29", Err("which is out of range")),
        ],
    );
}

#[test]
fn decimals() {
    check_all(
        r#""type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}"#,
        &[
            ("1.5", Ok(json!("1.50"))),
            ("-999.99", Ok(json!("-999.99"))),
            ("1000", Err(RANGE)),
            ("1.005", Err("would have to be rounded")),
            ("1.50000", Ok(json!("1.50"))),
            ("1e2", Ok(json!("100.00"))),
            (
                "NaN",
                Err("a decimal of 5 digits, 2 of them behind the point"),
            ),
            ("$5", Err(NO)),
        ],
    );
    check_all(
        r#""type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, "tidegate.rounding": "half-even""#,
        &[
            ("1.005", Ok(json!("1.00"))),
            ("1.015", Ok(json!("1.02"))),
            ("999.995", Err(RANGE)),
        ],
    );
    check_all(
        r#""type": {"type": {"type": "fixed", "name": "D", "size": 8}, "name": "D", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 0}"#,
        &[("0", Ok(json!("0")))],
    );
    check_all(
        r#""type": {"type": "fixed", "name": "D", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 3}"#,
        &[
            ("-1", Ok(json!("-1.000"))),
            ("123456789012345.678", Ok(json!("123456789012345.678"))),
            ("1234567890123456", Err(RANGE)),
        ],
    );
    check_all(
        r#""type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0}]"#,
        &[
            (
                "99999999999999999999999999999999999999",
                Ok(json!("99999999999999999999999999999999999999")),
            ),
            (
                "-99999999999999999999999999999999999999",
                Ok(json!("-99999999999999999999999999999999999999")),
            ),
            ("100000000000000000000000000000000000000", Err(RANGE)),
            ("", Ok(Value::Null)),
        ],
    );
}

#[test]
fn decimals_of_more_digits_than_128_bits_hold() {
    let nines = "9".repeat(76);
    let negative = format!("-{nines}");
    let whole = format!("1{}", "0".repeat(38));
    let bytes =
        r#""type": {"type": "bytes", "logicalType": "decimal", "precision": 76, "scale": 0}"#;
    check_all(
        bytes,
        &[
            (&nines, Ok(json!(nines))),
            (&negative, Ok(json!(negative))),
            ("-0", Ok(json!("0"))),
            (
                "-170141183460469231731687303715884105728",
                Ok(json!("-170141183460469231731687303715884105728")),
            ),
            ("1e38", Ok(json!(whole))),
            (
                "1e76",
                Err(
                    "expected a decimal of 76 digits, 0 of them behind the point, found `1e76`, which is out of range",
                ),
            ),
            ("0.5", Err("would have to be rounded")),
            ("12a", Err(NO)),
        ],
    );
    check_all(
        &format!(r#"{bytes}, "tidegate.rounding": "half-even""#),
        &[
            ("0.5", Ok(json!("0"))),
            ("1.5", Ok(json!("2"))),
            (&format!("{nines}.5"), Err(RANGE)),
        ],
    );
    // 255 bits hold 76 digits, and 247 do not.
    let fixed = |size: usize| {
        format!(
            r#""type": ["null", {{"type": "fixed", "name": "D", "size": {size}, "logicalType": "decimal", "precision": 76, "scale": 70}}]"#
        )
    };
    let text = format!("-{}.{}", &nines[..6], &nines[6..]);
    check_all(
        &fixed(32),
        &[
            (&text, Ok(json!(text))),
            ("-1", Ok(json!(format!("-1.{}", "0".repeat(70))))),
            ("", Ok(Value::Null)),
        ],
    );
    let header = tidegate_core::read::Header::new(["f"]).unwrap();
    let longest = r#""type": {"type": "bytes", "logicalType": "decimal", "precision": 65537}"#;
    for (field, part) in [
        (&*fixed(31), "which do not hold so many"),
        (longest, "at most 65536 can be written"),
    ] {
        let schema = record(&format!(r#"{{"name": "f", {field}}}"#));
        let error = RecordPlan::compile(&PlanRequest::new(&schema, &header)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// The longest there are, of which a fixed type has some bytes to spare.
#[test]
fn the_longest_decimals_are_read_and_shown() {
    let text = format!("-{}.5", "7".repeat(65_535));
    for of in [r#""bytes""#, r#""fixed", "name": "D", "size": 40000"#] {
        check_all(
            &format!(
                r#""type": {{"type": {of}, "logicalType": "decimal", "precision": 65536, "scale": 1}}"#
            ),
            &[(&text, Ok(json!(text))), ("-1", Ok(json!("-1.0")))],
        );
    }
}

#[test]
fn arrays_and_maps_in_a_cell() {
    check_all(
        r#""type": {"type": "array", "items": "long"}"#,
        &[
            ("[]", Ok(json!([]))),
            ("[1, 2,3]", Ok(json!([1, 2, 3]))),
            ("[\"4\"]", Ok(json!([4]))),
            ("[1, null]", Err("stands for null")),
            ("[1.5]", Err("an array (in JSON, each item a long")),
            ("1,2", Err(NO)),
            ("", Err(NO)),
        ],
    );
    check_all(
        r#""type": ["null", {"type": "array", "items": ["null", "string"]}], "tidegate.delimiter": ";""#,
        &[
            ("a;;b", Ok(json!(["a", null, "b"]))),
            ("a", Ok(json!(["a"]))),
            ("", Ok(Value::Null)),
        ],
    );
    check_all(
        r#""type": {"type": "array", "items": {"type": "int", "logicalType": "date"}}, "tidegate.delimiter": "||""#,
        &[
            ("1970-01-02||1970-01-03", Ok(json!([1, 2]))),
            ("", Ok(json!([]))),
            ("1970-01-02||x", Err("with `||` between its items")),
        ],
    );
    check_all(
        r#""type": {"type": "map", "values": "double"}"#,
        &[
            (
                r#"{"a": 1, "ü\n": -2.5}"#,
                Ok(json!({"a": 1.0, "ü\n": -2.5})),
            ),
            ("{}", Ok(json!({}))),
            (r#"{"a": 1, "a": 2}"#, Err(NO)),
            (r#"{"a": {}}"#, Err("a map (in JSON, each item a double")),
        ],
    );
    check_all(
        r#""type": {"type": "map", "values": "string"}, "tidegate.delimiter": ",""#,
        &[
            ("a=1,b=x=y", Ok(json!({"a": "1", "b": "x=y"}))),
            ("a=1,a=2", Err("in which a name stands twice")),
            ("a", Err(NO)),
        ],
    );
}

#[test]
fn null_tokens_of_a_field_hold_for_items_that_take_null() {
    let items = |null: &str, more: &str| {
        format!(
            r#""type": {{"type": "array", "items": [{null}"long"]}}, "tidegate.null": ["NA", "-999"]{more}"#
        )
    };
    let delimited = r#", "tidegate.delimiter": ";""#;
    check_all(
        &items(r#""null", "#, delimited),
        &[
            ("1;NA;-999", Ok(json!([1, null, null]))),
            ("NA", Ok(json!([null]))),
            ("", Ok(json!([]))),
            // They stand for null instead of the empty text.
            ("1;;2", Err(NO)),
            ("1;na", Err(NO)),
        ],
    );
    check_all(
        &items(r#""null", "#, ""),
        &[(
            r#"[1, null, "NA", -999, "-999", "7"]"#,
            Ok(json!([1, null, null, null, null, 7])),
        )],
    );
    // Items that take none leave them to the cell.
    check_all(
        &items("", delimited),
        &[
            ("1;2", Ok(json!([1, 2]))),
            ("NA", Err("stands for null")),
            ("1;NA", Err(NO)),
        ],
    );
    check_all(
        r#""type": ["null", {"type": "map", "values": ["string", "null"]}], "tidegate.null": "NA", "tidegate.delimiter": ",""#,
        &[
            ("NA", Ok(Value::Null)),
            ("a=NA,b=", Ok(json!({"a": null, "b": ""}))),
        ],
    );
}

#[test]
fn attributes_in_a_type_hold_as_those_of_its_field() {
    let day = r#"{"type": "int", "logicalType": "date", "tidegate.format": "%d/%m/%Y"}"#;
    for of in [
        day.to_owned(),
        format!(r#"["null", {day}]"#),
        format!(r#"{{"type": {day}}}"#),
    ] {
        check_all(
            &format!(r#""type": {of}"#),
            &[
                ("31/01/1970", Ok(json!(30))),
                ("1970-01-31", Err("written as %d/%m/%Y")),
            ],
        );
        // Said twice, the same is no contradiction.
        check_all(
            &format!(r#""type": {of}, "tidegate.format": "%d/%m/%Y""#),
            &[("31/01/1970", Ok(json!(30)))],
        );
    }
    check_all(
        r#""type": {"type": "array", "items": {"type": "boolean", "tidegate.true": "yes", "tidegate.false": "no"}, "tidegate.delimiter": "+"}"#,
        &[("yes+no", Ok(json!([true, false])))],
    );
    check_all(
        r#""type": {"type": "string", "tidegate.null": "NA"}"#,
        &[("NA", Err("stands for null"))],
    );
    // A type that is used by its name says what it says there too, in whatever namespace.
    let schema = r#"{"type": "record", "name": "R", "namespace": "acme", "fields": [
        {"name": "in", "type": {"type": "record", "name": "other.In", "fields": [
            {"name": "a", "type": {"type": "fixed", "name": "Hash", "size": 2, "tidegate.format": "hex"}}]}},
        {"name": "b", "type": ["null", "other.Hash"]}, {"name": "c", "type": {"type": "fixed", "name": "Hash", "size": 2}},
        {"name": "d", "type": "Hash", "tidegate.column": "e"}]}"#;
    let csv = "in.a,b,c,e\n0001,00ff,ab,cd\n";
    let avro = encode(schema, &CellFormat::default(), csv, ValueFormat::Avro).unwrap();
    assert_eq!(avro, b"\x00\x01\x02\x00\xffabcd");
}

#[test]
fn records_inside_are_filled_by_path() {
    let address = r#"{"type": "record", "name": "Address", "fields": [
        {"name": "city", "type": "string"}, {"name": "zip", "type": ["null", "string"]}, {"name": "floor", "type": "int", "default": 0}]}"#;
    let run = |field: &str, csv: &str| {
        let schema = record(&format!(
            r#"{{"name": "id", "type": "long"}}, {field}, {{"name": "end", "type": "long"}}"#
        ));
        let cells = CellFormat::default();
        let avro = encode(&schema, &cells, csv, ValueFormat::Avro)?;
        let found = Decoder::new(&schema).unwrap().to_json(&avro).unwrap();
        let plain = encode(&schema, &cells, csv, ValueFormat::Json)?;
        assert_eq!(serde_json::from_slice::<Value>(&plain).unwrap(), found);
        Ok(found)
    };
    let header = "id,address.city,address.zip,end\n";
    let plain = format!(r#"{{"name": "address", "type": {address}}}"#);
    let filled = json!({"id": 1, "address": {"city": "Bern", "zip": "3000", "floor": 0}, "end": 9});
    assert_eq!(
        run(&plain, &format!("{header}1,Bern,3000,9\n")),
        Ok(filled.clone())
    );
    let nullable = format!(r#"{{"name": "address", "type": ["null", {address}]}}"#);
    assert_eq!(
        run(&nullable, &format!("{header}1,Bern,3000,9\n")),
        Ok(filled)
    );
    let empty = json!({"id": 1, "address": null, "end": 9});
    assert_eq!(run(&nullable, &format!("{header}1,,,9\n")), Ok(empty));
    let bad: Result<Value, String> = run(&nullable, &format!("{header}x,,,9\n"));
    assert!(bad.unwrap_err().contains("a long"));
    // The second long of the row is the one that is wrong, not the first.
    let bad = run(&nullable, &format!("{header}1,,,x\n"));
    assert_eq!(
        bad,
        Err("expected a long (a whole number of 64 bits), found `x`".to_owned())
    );
    // Without any column it has its default.
    let default = format!(r#"{{"name": "address", "type": ["null", {address}], "default": null}}"#);
    assert_eq!(
        run(&default, "id,end\n1,9\n"),
        Ok(json!({"id": 1, "address": null, "end": 9}))
    );
}

#[test]
fn several_columns_make_one_time() {
    let schema = record(
        r#"{"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
            "tidegate.column": ["day", "hour"], "tidegate.format": "%d.%m.%Y %H:%M"}"#,
    );
    let run = |row: &str| {
        let csv = format!("day,hour\n{row}\n");
        let avro = encode(&schema, &CellFormat::default(), &csv, ValueFormat::Avro)?;
        Ok(Decoder::new(&schema).unwrap().to_json(&avro).unwrap()["at"].clone())
    };
    assert_eq!(run("02.01.1970,00:01"), Ok(json!(86_460_000)));
    assert_eq!(run(","), Ok(Value::Null));
    let reason: Result<Value, String> = run("02.01.1970,");
    assert!(
        reason
            .unwrap_err()
            .ends_with("found `02.01.1970` and an empty field, of which only a part is there")
    );
    assert!(
        run("02.01.1970,late")
            .unwrap_err()
            .contains("found `02.01.1970` and `late`")
    );
}

#[test]
fn nothing_is_cut_off_silently() {
    let date = |more: &str| format!(r#""type": {{"type": "int", "logicalType": "date"}}, {more}"#);
    let clock =
        |more: &str| format!(r#""type": {{"type": "int", "logicalType": "time-millis"}}, {more}"#);
    check_all(
        &date(r#""tidegate.time-zone": "Europe/Zurich""#),
        &[
            ("2024-02-29", Ok(json!(19_782))),
            ("2024-02-29T23:59:59", Err("more precise")),
        ],
    );
    check_all(
        &date(r#""tidegate.format": "%d.%m.%Y %H:%M""#),
        &[
            ("29.02.2024 00:00", Ok(json!(19_782))),
            ("29.02.2024 23:59", Err("more precise")),
        ],
    );
    check_all(
        &clock(r#""tidegate.format": "%d.%m.%Y""#),
        &[("29.02.2024", Err(NO))],
    );
    check_all(
        &clock(r#""tidegate.format": "%H:%M%z""#),
        &[("12:30+0200", Err("offset"))],
    );
    check_all(
        r#""type": {"type": "long", "logicalType": "timestamp-millis"}, "tidegate.format": "%s""#,
        &[("1709202615", Ok(json!(1_709_202_615_000_i64)))],
    );
    check_all(
        r#""type": ["null", "string"], "tidegate.null": []"#,
        &[("", Ok(json!(""))), ("NA", Ok(json!("NA")))],
    );
}

#[test]
fn what_could_not_be_kept_or_means_nothing_is_refused_before_any_row() {
    let header = tidegate_core::read::Header::new(["f"]).unwrap();
    let timestamp = r#""type": {"type": "long", "logicalType": "timestamp-millis"}"#;
    for (field, part) in [
        (
            r#""type": {"type": "fixed", "name": "D", "size": 1, "logicalType": "decimal", "precision": 2}"#.to_owned(),
            "",
        ),
        (
            r#""type": {"type": "fixed", "name": "D", "size": 1, "logicalType": "decimal", "precision": 18}"#.to_owned(),
            "",
        ),
        (r#""type": "long", "tidegate.format": "iso""#.to_owned(), "tidegate.format, which says nothing"),
        (r#""type": "string", "tidegate.rounding": "down""#.to_owned(), "tidegate.rounding, which says nothing"),
        (r#""type": "long", "tidegate.time-zone": "UTC""#.to_owned(), "tidegate.time-zone, which says nothing"),
        (r#""type": "long", "tidegate.delimiter": ";""#.to_owned(), "tidegate.delimiter, which says nothing"),
        (
            r#""type": "boolean", "tidegate.true": "a", "tidegate.false": ["b", "A"]"#.to_owned(),
            "both true and false",
        ),
        (format!(r#"{timestamp}, "tidegate.format": ["iso", "%Y"]"#), "stands alone"),
        (format!(r#"{timestamp}, "tidegate.format": "%Y-%m-%d %I:%M""#), "no %p"),
    ] {
        let schema = record(&format!(r#"{{"name": "f", {field}}}"#));
        match RecordPlan::compile(&PlanRequest::new(&schema, &header)) {
            Err(error) => assert!(error.to_string().contains(part), "{error}"),
            // The crate takes such a type for the bytes it stands in.
            Ok(_) if part.is_empty() => check(&field, &CellFormat::default(), "1000", &Err(NO)),
            Ok(_) => panic!("{field} is taken"),
        }
    }
    let words = CellFormat {
        booleans: vec![("a".into(), "a".into())],
        ..CellFormat::default()
    };
    let zone = CellFormat {
        time_zone: Some("No/Where".into()),
        ..CellFormat::default()
    };
    for (cells, part) in [(words, "`a` is both"), (zone, "no time zone `No/Where`")] {
        let schema = record(r#"{"name": "f", "type": "long"}"#);
        let plan = RecordPlan::compile(&PlanRequest {
            cells: &cells,
            ..PlanRequest::new(&schema, &header)
        });
        assert!(plan.unwrap_err().to_string().contains(part));
    }
}
