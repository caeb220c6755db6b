//! What is of JSON values alone: times as text, and numbers that it does not have.

use serde_json::{Value, json};
use tidegate_core::encode::{CellFormat, ValueFormat};
use tidegate_core::read::{CsvFormat, RowReader};
use tidegate_core::records::{RecordStream, Step};
use tidegate_core::schema::{PlanRequest, RecordPlan};

use super::{encode, for_apache, record};

/// The JSON value of the only row of a file, its times as text.
fn json_with_iso_times(schema: &str, csv: &str) -> String {
    let reader = RowReader::open(csv.as_bytes(), CsvFormat::default()).unwrap();
    let plan = RecordPlan::compile(&PlanRequest {
        format: ValueFormat::Json,
        iso_times: true,
        ..PlanRequest::new(schema, reader.header())
    });
    let plan = plan.unwrap();
    let mut records = RecordStream::new(reader, &plan, None).unwrap();
    let Step::Record(record) = records.next().unwrap() else {
        panic!("the row is good")
    };
    str::from_utf8(record.value).unwrap().to_owned()
}

#[test]
fn json_holds_times_as_text_if_asked_for() {
    let schema = record(
        r#"{"name": "a", "type": {"type": "int", "logicalType": "date"}}, {"name": "b", "type": {"type": "long", "logicalType": "timestamp-micros"}},
           {"name": "c", "type": {"type": "int", "logicalType": "time-millis"}}, {"name": "d", "type": {"type": "long", "logicalType": "local-timestamp-millis"}}"#,
    );
    let csv = "a,b,c,d\n2024-02-29,2024-02-29T10:30:15.25+01:00,10:30,1969-12-31T23:00\n";
    let expected = r#"{"a":"2024-02-29","b":"2024-02-29T09:30:15.25Z","c":"10:30:00","d":"1969-12-31T23:00:00"}"#;
    assert_eq!(json_with_iso_times(&schema, csv), expected);
}

#[test]
fn json_holds_times_of_defaults_as_those_of_cells() {
    let at = r#"{"type": "long", "logicalType": "timestamp-millis"}"#;
    let schema = record(&format!(
        r#"{{"name": "id", "type": "long"}},
           {{"name": "at", "type": {at}, "default": 1709199015250}},
           {{"name": "maybe", "type": [{at}, "null"], "default": 0}},
           {{"name": "none", "type": ["null", {at}], "default": null}},
           {{"name": "days", "type": {{"type": "array", "items": {{"type": "int", "logicalType": "date"}}}}, "default": [0, 19782]}},
           {{"name": "clock", "type": {{"type": "long", "logicalType": "time-micros"}}, "default": 1}},
           {{"name": "in", "type": {{"type": "record", "name": "In", "fields": [{{"name": "local", "type":
               {{"type": "long", "logicalType": "local-timestamp-nanos"}}, "default": -1}}]}}, "default": {{}}}},
           {{"name": "count", "type": "long", "default": 7}},
           {{"name": "far", "type": {at}, "default": 9007199254740991}}"#
    ));
    let expected = json!({"id": 1, "at": "2024-02-29T09:30:15.25Z", "maybe": "1970-01-01T00:00:00Z", "none": null,
        "days": ["1970-01-01", "2024-02-29"], "clock": "00:00:00.000001", "in": {"local": "1969-12-31T23:59:59.999999999"},
        "count": 7, "far": 9_007_199_254_740_991_i64});
    assert_eq!(
        json_with_iso_times(&schema, "id\n1\n"),
        expected.to_string()
    );
    // Without being asked for it, it holds the numbers.
    let plain = encode(
        &schema,
        &CellFormat::default(),
        "id\n1\n",
        ValueFormat::Json,
    );
    let plain: Value = serde_json::from_slice(&plain.unwrap()).unwrap();
    assert_eq!(
        (&plain["at"], &plain["days"]),
        (&json!(1_709_199_015_250_i64), &json!([0, 19_782]))
    );
}

/// JSON has no NaN: there a double does not take it, and the next branch is asked.
#[test]
fn words_that_are_no_numbers_in_json_go_to_the_next_branch_of_a_union() {
    let both = |of: &str, text: &str| {
        let schema = record(&format!(r#"{{"name": "f", "type": {of}}}"#));
        let csv = format!("f\n{text}\n");
        let cells = CellFormat::default();
        let avro = encode(&schema, &cells, &csv, ValueFormat::Avro).unwrap();
        let read = apache_avro::from_avro_datum(&for_apache(&schema), &mut &*avro, None).unwrap();
        let plain = encode(&schema, &cells, &csv, ValueFormat::Json);
        let plain =
            plain.map(|plain| serde_json::from_slice::<Value>(&plain).unwrap()["f"].clone());
        (format!("{read:?}"), plain)
    };
    for (text, avro) in [("NaN", "NaN"), ("-inf", "-inf"), ("infinity", "inf")] {
        for of in ["double", "float"] {
            let (found, plain) = both(&format!(r#"["null", "{of}", "string"]"#), text);
            let name = if of == "double" { "Double" } else { "Float" };
            assert!(found.contains(&format!("{name}({avro})")), "{found}");
            assert_eq!(plain, Ok(json!(text)));
            let (found, plain) = both(&format!(r#"["string", "{of}"]"#), text);
            assert!(found.contains(&format!("String({text:?})")), "{found}");
            assert_eq!(plain, Ok(json!(text)));
            for of in [
                format!(r#"["null", "{of}"]"#),
                format!(r#"["{of}", "boolean"]"#),
            ] {
                let (_, plain) = both(&of, text);
                assert!(plain.unwrap_err().contains("which JSON cannot hold"));
            }
        }
    }
}
