//! Any row of any types.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_core::decode::Decoder;
use tidegate_core::encode::{CellFormat, ValueFormat};

use super::{encode, for_apache, quoted, record};

/// A field of some type: its schema, a text it takes, and what that is.
fn any_field() -> impl Strategy<Value = (String, String, Value)> {
    let plain = |name: &str| format!(r#""{name}""#);
    let logical = |of: &str, name: &str| format!(r#"{{"type": "{of}", "logicalType": "{name}"}}"#);
    let field = move |schema: String, text: String, value: Value| (schema, text, value);
    let millis = (0..253_402_300_800_000_i64)
        .prop_map(|count| (count, jiff::Timestamp::from_millisecond(count).unwrap()));
    prop_oneof![
        any::<bool>().prop_map(move |value| field(plain("boolean"), value.to_string(), json!(value))),
        any::<i32>().prop_map(move |value| field(plain("int"), value.to_string(), json!(value))),
        any::<i64>().prop_map(move |value| field(plain("long"), value.to_string(), json!(value))),
        (-1e300..1e300_f64).prop_map(move |value| field(plain("double"), value.to_string(), json!(value))),
        "[ -~é\n]{0,70}".prop_map(move |text| field(plain("string"), text.clone(), json!(text))),
        (-10_i64.pow(15)..10_i64.pow(15), 0_usize..6).prop_map(|(number, scale)| {
            let schema = format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 15, "scale": {scale}}}"#);
            let digits = format!("{:0width$}", number.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let (sign, point) = (if number < 0 { "-" } else { "" }, if scale > 0 { "." } else { "" });
            let text = format!("{sign}{whole}{point}{fraction}");
            (schema, text.clone(), json!(text))
        }),
        (-719_528..2_932_896_i32).prop_map(move |days| {
            let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
            field(logical("int", "date"), date.to_string(), json!(days))
        }),
        millis.clone().prop_map(move |(count, at)| field(logical("long", "timestamp-millis"), at.to_string(), json!(count))),
        millis.prop_map(move |(count, at)| {
            let local = jiff::tz::TimeZone::UTC.to_datetime(at).to_string();
            field(logical("long", "local-timestamp-micros"), local, json!(count * 1_000))
        }),
        (0..86_400_000_i64).prop_map(move |count| {
            let (seconds, rest) = (count / 1_000, count % 1_000);
            let text = format!("{:02}:{:02}:{:02}.{rest:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
            field(logical("int", "time-millis"), text, json!(count))
        }),
        prop::collection::vec(any::<i64>(), 0..5).prop_map(move |items| {
            let schema = r#"{"type": "array", "items": "long"}"#.to_owned();
            field(schema, json!(items).to_string(), json!(items))
        }),
        prop::collection::btree_map("[a-z\"é]{0,5}", any::<i32>(), 0..5).prop_map(move |entries| {
            let schema = r#"{"type": "map", "values": "int"}"#.to_owned();
            field(schema, json!(entries).to_string(), json!(entries))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any record of any types: apache-avro finds what was written, and the JSON says the same.
    #[test]
    fn any_row_of_any_types_comes_back(fields in prop::collection::vec((any_field(), 0_u8..4), 1..8)) {
        let (mut schema, mut header, mut row, mut expected) = (Vec::new(), Vec::new(), Vec::new(), serde_json::Map::new());
        for (number, ((of, text, value), null)) in fields.iter().enumerate() {
            let name = format!("f{number}");
            let of = match null {
                0 => of.clone(),
                1 => format!(r#"[{of}, "null"]"#),
                _ => format!(r#"["null", {of}]"#),
            };
            // Without a token the empty text of a nullable string is null; so is the cell that is left empty.
            let is_null = *null == 3 || *null > 0 && text.is_empty();
            schema.push(format!(r#"{{"name": "{name}", "type": {of}}}"#));
            row.push(if is_null { String::new() } else { quoted(text) });
            expected.insert(name.clone(), if is_null { Value::Null } else { value.clone() });
            header.push(name);
        }
        let schema = record(&schema.join(", "));
        let csv = format!("{}\n{}\n", header.join(","), row.join(","));
        // A single empty cell is an empty line: a row with an empty field, in a file of one column.
        let avro = encode(&schema, &CellFormat::default(), &csv, ValueFormat::Avro).unwrap();
        let mut rest = avro.as_slice();
        let read = apache_avro::from_avro_datum(&for_apache(&schema), &mut rest, None).unwrap();
        prop_assert!(rest.is_empty());
        // Written again by apache-avro it is the same, byte by byte, but for maps, which have no order there.
        if !schema.contains("\"map\"") {
            prop_assert_eq!(apache_avro::to_avro_datum(&for_apache(&schema), read).unwrap(), avro.clone());
        }
        let expected = Value::Object(expected);
        prop_assert_eq!(&Decoder::new(&schema).unwrap().to_json(&avro).unwrap(), &expected);
        let plain = encode(&schema, &CellFormat::default(), &csv, ValueFormat::Json).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Value>(&plain).unwrap(), &expected);
    }
}
