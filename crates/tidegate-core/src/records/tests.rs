//! From CSV to records: values against apache-avro, messages, keys, resuming, and the files of the described system.

use apache_avro::Schema;
use apache_avro::types::Value;
use proptest::prelude::*;

use super::fixture::{Owned, Setup, collect};
use super::*;
use crate::read::CsvFormat;

const ALL_TYPES: &str = r#"
    {"name": "flag", "type": "boolean"}, {"name": "small", "type": "int"}, {"name": "large", "type": "long"},
    {"name": "single", "type": "float"}, {"name": "double", "type": "double"}, {"name": "text", "type": "string"},
    {"name": "raw", "type": "bytes"}, {"name": "suit", "type": {"type": "enum", "name": "Suit", "symbols": ["SPADES", "HEARTS", "CLUBS"]}},
    {"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "us", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "maybe", "type": ["null", "long"]}, {"name": "perhaps", "type": ["string", "null"]},
    {"name": "only", "type": ["long"]}, {"name": "nothing", "type": "null"}"#;

const ALL_HEADER: &str =
    "flag,small,large,single,double,text,raw,suit,ms,us,day,maybe,perhaps,only,nothing";

fn decode(schema: &str, value: &[u8]) -> Vec<(String, Value)> {
    let schema = Schema::parse_str(schema).unwrap();
    let mut rest = value;
    let decoded = apache_avro::from_avro_datum(&schema, &mut rest, None).unwrap();
    assert!(rest.is_empty(), "{} bytes are left", rest.len());
    match decoded {
        Value::Record(fields) => fields,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_type_is_read_back_by_apache_avro() {
    let setup = Setup::fields(ALL_TYPES);
    let row = "TRUE,-5,9223372036854775807,0.5,-1e300,\"ä,b\",x,CLUBS,2024-02-29T10:30:15.25Z,7,1970-01-02,,p,3,";
    let steps = setup.run(&format!("{ALL_HEADER}\n{row}\n"));
    let [Owned::Record { value, .. }] = &steps[..] else {
        panic!("{steps:?}");
    };
    let values: Vec<Value> = decode(&setup.schema, value)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let union = |index, value| Value::Union(index, Box::new(value));
    assert_eq!(
        values,
        [
            Value::Boolean(true),
            Value::Int(-5),
            Value::Long(i64::MAX),
            Value::Float(0.5),
            Value::Double(-1e300),
            Value::String("ä,b".into()),
            Value::Bytes(b"x".to_vec()),
            Value::Enum(2, "CLUBS".into()),
            Value::TimestampMillis(1_709_202_615_250),
            Value::TimestampMicros(7),
            Value::Date(1),
            union(0, Value::Null),
            union(0, Value::String("p".into())),
            union(0, Value::Long(3)),
            Value::Null,
        ]
    );
    assert_eq!(
        setup.json().values(&format!("{ALL_HEADER}\n{row}\n")),
        [
            r#"{"flag":true,"small":-5,"large":9223372036854775807,"single":0.5,"double":-1e+300,"text":"ä,b","raw":"eA==","suit":"CLUBS","ms":1709202615250,"us":7,"day":1,"maybe":null,"perhaps":"p","only":3,"nothing":null}"#
        ]
    );
}

#[test]
fn cells_that_are_no_values_say_what_was_expected_and_found() {
    for (kind, cell, part) in [
        (
            r#""long""#,
            "abc",
            "column `a`: expected a long (a whole number of 64 bits), found `abc`",
        ),
        (r#""long""#, "", "found an empty field"),
        (
            r#""long""#,
            "9223372036854775808",
            "found `9223372036854775808`, which is out of range",
        ),
        (r#""int""#, "2147483648", "expected an int"),
        (
            r#""double""#,
            "1e999",
            "expected a double (a decimal number), found `1e999`, which is out of range",
        ),
        (
            r#""boolean""#,
            "yes",
            "expected a boolean (true or false), found `yes`",
        ),
        (
            r#"{"type": "long", "logicalType": "timestamp-millis"}"#,
            "2024-02-29T10:30:15.2501Z",
            "which is more precise than that",
        ),
        (
            r#"{"type": "int", "logicalType": "date"}"#,
            "2023-02-29",
            "found `2023-02-29`, which is out of range",
        ),
        (
            r#"{"type": "enum", "name": "E", "symbols": ["A", "B"]}"#,
            "C",
            "expected one of A, B, found `C`",
        ),
        (
            r#""null""#,
            "x",
            "expected nothing (the field's type is null), found `x`",
        ),
        (r#"["null", "long"]"#, "NA", "found `NA`"),
    ] {
        let setup = Setup::fields(&format!(r#"{{"name": "a", "type": {kind}}}"#));
        let complaints = setup.complaints(&format!("a,b\n{cell},\n"));
        assert!(
            complaints[0].starts_with("row 1 (line 2), column `a`: "),
            "{complaints:?}"
        );
        assert!(complaints[0].contains(part), "{complaints:?}");
    }
    let setup = Setup::fields(r#"{"name": "a", "type": "double"}"#).json();
    assert_eq!(
        setup.complaints("a\nNaN\n-inf\n"),
        [
            "row 1 (line 2), column `a`: expected a finite number, found `NaN`, which JSON cannot hold",
            "row 2 (line 3), column `a`: expected a finite number, found `-inf`, which JSON cannot hold"
        ]
    );
}

#[test]
fn text_that_is_not_utf_8_is_a_bad_row_but_not_as_bytes() {
    let input = b"a,b\n\xff,x\ny,\xff\n";
    let run = |setup: &Setup| {
        let reader = RowReader::open(&input[..], CsvFormat::default()).unwrap();
        let plan = setup.plan(reader.header()).unwrap();
        collect(RecordStream::new(reader, &plan, None).unwrap())
    };
    let steps = run(&Setup::fields(r#"{"name": "a", "type": "string"}"#));
    assert!(
        matches!(&steps[0], Owned::Bad(bad) if bad[0].reason == "expected a string in UTF-8, found `\\xff`: --encoding says what the text is in, such as latin1")
    );
    assert!(matches!(&steps[1], Owned::Record { .. }));
    let steps = run(&Setup::fields(r#"{"name": "a", "type": "bytes"}"#));
    assert!(matches!(&steps[0], Owned::Record { value, .. } if value == b"\x02\xff"));
    // A key is text in any case.
    let steps = run(&Setup::fields(r#"{"name": "a", "type": "bytes"}"#).key(&["b"]));
    assert!(matches!(&steps[0], Owned::Record { .. }));
    assert!(
        matches!(&steps[1], Owned::Bad(bad) if bad[0].reason.starts_with("expected a key in UTF-8, found `\\xff`: --encoding"))
    );
    assert!(
        matches!(&steps[1], Owned::Bad(bad) if bad[0].column.as_deref() == Some("b") && bad[0].raw == b"y,\xff")
    );
}

#[test]
fn the_empty_text_and_the_null_token_stand_for_null_where_null_is_possible() {
    let fields = r#"{"name": "n", "type": ["null", "long"]}, {"name": "s", "type": ["null", "string"]}, {"name": "t", "type": "string"}"#;
    let setup = Setup::fields(fields).json();
    assert_eq!(
        setup.values("n,s,t\n,,\n"),
        [r#"{"n":null,"s":null,"t":""}"#]
    );
    assert_eq!(
        setup.values("n,s,t\n1,\"\",NA\n"),
        [r#"{"n":1,"s":null,"t":"NA"}"#]
    );
    // With a token, an empty string is an empty string; an empty number still can only be null.
    let setup = setup.null_token("NA");
    assert_eq!(
        setup.values("n,s,t\n,,\nNA,NA,x\n"),
        [
            r#"{"n":null,"s":"","t":""}"#,
            r#"{"n":null,"s":null,"t":"x"}"#
        ]
    );
    assert_eq!(
        setup.complaints("n,s,t\n1,2,NA\n"),
        [
            "row 1 (line 2), column `t`: expected a string in UTF-8, found `NA`, which stands for null"
        ]
    );
}

#[test]
fn keys_are_the_texts_of_their_columns() {
    let keys = |setup: &Setup, input: &str| -> Vec<Option<String>> {
        let steps = setup.run(input).into_iter();
        steps
            .map(|step| match step {
                Owned::Record { key, .. } => key,
                Owned::Bad(bad) => panic!("{}", bad[0]),
            })
            .collect()
    };
    let key = |text: &str| Some(text.to_owned());
    let setup = Setup::fields(r#"{"name": "ts", "type": ["null", "long"]}"#).null_token("NA");
    assert_eq!(
        keys(&setup, "ts,b\n007,x\n,x\nNA,x\n"),
        [key("007"), None, None]
    );
    let setup = setup.key(&["b", "ts"]);
    assert_eq!(
        keys(&setup, "ts,b\n1,\"a\"\"b\"\n,x\n,\nNA,\n"),
        [key(r#"["a\"b","1"]"#), key(r#"["x",""]"#), None, None]
    );
}

#[test]
fn values_get_the_confluent_header_where_there_is_a_schema_id() {
    let setup = Setup::fields(r#"{"name": "a", "type": "long"}"#);
    let reader = || RowReader::open("a\n1\nx\n2\n".as_bytes(), CsvFormat::default()).unwrap();
    let plan = setup.plan_for("a").unwrap();
    let steps = collect(RecordStream::new(reader(), &plan, Some(258)).unwrap());
    let values: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Owned::Record { value, .. } => Some(value.as_slice()),
            Owned::Bad(_) => None,
        })
        .collect();
    assert_eq!(values, [[0, 0, 0, 1, 2, 2], [0, 0, 0, 1, 2, 4]]);

    let json = setup.json().plan_for("a").unwrap();
    assert_eq!(
        RecordStream::new(reader(), &json, Some(1))
            .unwrap_err()
            .kind(),
        ErrorKind::Internal
    );
    let other = Setup::fields(r#"{"name": "b", "type": "long"}"#)
        .plan_for("b")
        .unwrap();
    assert_eq!(
        RecordStream::new(reader(), &other, None)
            .unwrap_err()
            .kind(),
        ErrorKind::InputChanged
    );
}

/// Shared data, where it is at hand.
fn shared(name: &str) -> Option<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/hots/").to_owned() + name;
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        println!("skipped: needs {name} in ../shared/data/hots");
    }
    text
}

#[test]
fn the_hots_file_makes_twelve_records_of_ten_containers() {
    let (Some(schema), Some(input)) = (shared("usage.avsc"), shared("container_usage.csv")) else {
        return;
    };
    let setup = Setup::new(schema).group_by(&["timestamp"]);
    let steps = setup.run(&input);
    let keys: Vec<_> = steps
        .iter()
        .map(|step| match step {
            Owned::Record {
                key,
                rows: 10,
                value,
                ..
            } => {
                let fields = decode(&setup.schema, value);
                let Value::Array(containers) = &fields[1].1 else {
                    panic!("{fields:?}");
                };
                assert_eq!(containers.len(), 10);
                assert_eq!(
                    fields[0].1,
                    Value::Long(key.as_ref().unwrap().parse().unwrap())
                );
                assert_eq!(fields[2].1, Value::Boolean(false));
                key.clone().unwrap()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        keys,
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]
    );
    let first = &setup.json().values(&input)[0];
    assert!(
        first.starts_with(r#"{"timestamp":0,"containers":[{"timestamp":0,"container_id":"c_2","machine_id":"n_2","cpu":2.0},{"#)
            && first.ends_with(r#"}],"file":false}"#),
        "{first}"
    );
}

#[derive(Debug, Clone)]
struct Cells {
    flag: bool,
    long: i64,
    double: f64,
    text: String,
    maybe: Option<i32>,
}

fn cells() -> impl Strategy<Value = Cells> {
    (
        any::<bool>(),
        any::<i64>(),
        any::<f64>(),
        "[a-z,\"\r\n ä€]{0,12}",
        any::<Option<i32>>(),
    )
        .prop_map(|(flag, long, double, text, maybe)| Cells {
            flag,
            long,
            double,
            text,
            maybe,
        })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

const PROPERTY_FIELDS: &str = r#"{"name": "flag", "type": "boolean"}, {"name": "long", "type": "long"},
    {"name": "double", "type": "double"}, {"name": "text", "type": "string"}, {"name": "maybe", "type": ["int", "null"]}"#;

proptest! {
    #[test]
    fn decoded_records_equal_the_cells(rows in prop::collection::vec(cells(), 0..20)) {
        let setup = Setup::fields(PROPERTY_FIELDS);
        let mut input = "maybe,text,flag,long,double\n".to_owned();
        for row in &rows {
            let maybe = row.maybe.map_or(String::new(), |value| value.to_string());
            input.push_str(&format!("{maybe},{},{},{},{:e}\n", quoted(&row.text), row.flag, row.long, row.double));
        }
        let steps = setup.run(&input);
        prop_assert_eq!(steps.len(), rows.len());
        for (step, row) in steps.iter().zip(&rows) {
            let Owned::Record { value, .. } = step else {
                panic!("{step:?}");
            };
            let fields = decode(&setup.schema, value);
            prop_assert_eq!(&fields[0].1, &Value::Boolean(row.flag));
            prop_assert_eq!(&fields[1].1, &Value::Long(row.long));
            let Value::Double(double) = fields[2].1 else { panic!("{fields:?}") };
            prop_assert!(double.to_bits() == row.double.to_bits() || double.is_nan() && row.double.is_nan());
            prop_assert_eq!(&fields[3].1, &Value::String(row.text.clone()));
            let maybe = row.maybe.map_or(Value::Union(1, Box::new(Value::Null)), |value| Value::Union(0, Box::new(Value::Int(value))));
            prop_assert_eq!(&fields[4].1, &maybe);
        }
    }

    #[test]
    fn json_values_are_what_the_avro_values_decode_to(rows in prop::collection::vec(cells(), 0..20)) {
        let mut input = "maybe,text,flag,long,double\n".to_owned();
        for row in rows.iter().filter(|row| row.double.is_finite()) {
            input.push_str(&format!(",{},{},{},{:e}\n", quoted(&row.text), row.flag, row.long, row.double));
        }
        let setup = Setup::fields(PROPERTY_FIELDS);
        let decoder = crate::decode::Decoder::new(&setup.schema).unwrap();
        let avro: Vec<String> = setup.run(&input).iter().map(|step| match step {
            Owned::Record { value, .. } => decoder.to_json(value).unwrap().to_string(),
            Owned::Bad(bad) => panic!("{}", bad[0]),
        }).collect();
        prop_assert_eq!(avro, setup.json().values(&input));
    }

    /// Groups of a few rows, some rows bad in one of several ways, with and without grouping: from the end of any record on, a new stream
    /// gives what the first one gave after it.
    #[test]
    fn resuming_behind_any_record_gives_exactly_the_rest(
        rows in prop::collection::vec((0_u8..4, prop_oneof![8 => Just("1"), 1 => Just("x"), 1 => Just("1,2"), 1 => Just("\"o"), 1 => Just("o\"")]), 0..30),
        grouped: bool,
        unreadable_first: bool,
    ) {
        let mut input = "ts,v\n".to_owned();
        for (ts, cell) in &rows {
            if unreadable_first && *cell == "\"o" {
                input.push_str(&format!("\"{ts},1\n"));
            } else {
                input.push_str(&format!("{ts},{cell}\n"));
            }
        }
        let setup = if grouped {
            Setup::fields(r#"{"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "I", "fields": [
                {"name": "ts", "type": "long"}, {"name": "v", "type": "long"}]}}}"#).group_by(&["ts"])
        } else {
            Setup::fields(r#"{"name": "ts", "type": "long"}, {"name": "v", "type": "long"}"#)
        };
        let plan = setup.plan_for("ts,v").unwrap();
        let steps = setup.run(&input);
        let flat = |steps: &[Owned]| -> Vec<Owned> {
            // How bad rows are cut into steps is no promise.
            let single = |step: &Owned| match step {
                Owned::Bad(bad) => bad.iter().map(|row| Owned::Bad(vec![row.clone()])).collect(),
                record @ Owned::Record { .. } => vec![record.clone()],
            };
            steps.iter().flat_map(single).collect()
        };
        for (index, step) in steps.iter().enumerate() {
            if let Owned::Record { end, .. } = step {
                let bytes = &input.as_bytes()[usize::try_from(end.byte).unwrap()..];
                let reader = RowReader::resume(bytes, CsvFormat::default(), plan.header(), *end).unwrap();
                let mut records = RecordStream::new(reader, &plan, None).unwrap();
                let mut rest = Vec::new();
                loop {
                    rest.push(match records.next().unwrap() {
                    Step::Record(record) => Owned::Record {
                        key: record.key.map(|key| String::from_utf8(key.to_vec()).unwrap()),
                        value: record.value.to_vec(),
                        rows: record.rows,
                        first_row: record.first_row,
                        last_row: record.last_row,
                        end: record.end,
                    },
                    Step::Bad(bad) => Owned::Bad(bad.to_vec()),
                    Step::Idle => continue,
                    Step::End => break,
                    });
                }
                prop_assert_eq!(flat(&rest), flat(&steps[index + 1..]));
            }
        }
    }
}
