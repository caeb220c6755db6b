//! Keys with a schema: what is derived, what is taken, what is refused, and the bytes that come of it.

use crate::encode::{SchemaIds, ValueFormat};
use crate::key::{KeyChoice, KeyFormat, KeyReason};
use crate::read::{CsvFormat, Header, RowReader};
use crate::records::{RecordStream, Step};
use crate::schema::{PlanRequest, RecordPlan};
use crate::{Error, ErrorKind};

const VALUE: &str = r#"{"type": "record", "name": "Usage", "namespace": "org.example", "fields": [
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}, "tidegate.format": "epoch-seconds"},
    {"name": "id", "type": ["null", "int"], "default": null},
    {"name": "level", "type": {"type": "enum", "name": "Level", "symbols": ["low", "high"]}},
    {"name": "host_name", "type": "string", "tidegate.column": "host name"}]}"#;
const GROUPED: &str = r#"{"type": "record", "name": "G", "fields": [{"name": "ts", "type": "long"},
    {"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "I", "fields": [{"name": "id", "type": "int"}]}}}]}"#;
const TWICE: &str = r#"{"type": "record", "name": "R", "fields": [
        {"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["x"]}}, {"name": "b", "type": "E"}]}"#;
const HEADER: &str = "ts,id,level,host name,other";

/// What a key is made of.
#[derive(Clone, Copy)]
struct Case<'a> {
    value: &'a str,
    header: &'a str,
    key: &'a [&'a str],
    group_by: &'a [&'a str],
    format: KeyFormat,
    schema: Option<&'a str>,
}

const CASE: Case<'_> = Case {
    value: VALUE,
    header: HEADER,
    key: &[],
    group_by: &[],
    format: KeyFormat::Avro,
    schema: None,
};

impl Case<'_> {
    fn plan(&self) -> Result<RecordPlan, Error> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let key = match self.key {
            [] => KeyChoice::Default,
            columns => KeyChoice::Columns(owned(columns)),
        };
        RecordPlan::compile(&PlanRequest {
            key: &key,
            key_format: self.format,
            key_schema: self.schema,
            group_by: &owned(self.group_by),
            format: ValueFormat::Json,
            ..PlanRequest::new(self.value, &Header::new(self.header.split(','))?)
        })
    }

    fn schema_json(&self) -> serde_json::Value {
        let plan = self.plan().unwrap();
        serde_json::from_str(plan.key_schema_json().unwrap()).unwrap()
    }

    /// The key of the only row, or why the row is bad.
    fn key_of(&self, row: &str, id: Option<u32>) -> Result<Option<Vec<u8>>, String> {
        let text = format!("{}\n{row}\n", self.header);
        let plan = self.plan().unwrap();
        let reader = RowReader::open(text.as_bytes(), CsvFormat::default()).unwrap();
        let ids = SchemaIds {
            key: id,
            value: None,
        };
        let mut records = RecordStream::new(reader, &plan, ids).unwrap();
        match records.next().unwrap() {
            Step::Record(record) => Ok(record.key.map(<[u8]>::to_vec)),
            Step::Bad(rows) => Err(format!(
                "{}: {}",
                rows[0].column.clone().unwrap(),
                rows[0].reason
            )),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_key_of_one_column_has_the_type_of_its_field_and_is_never_null() {
    let time = serde_json::json!({
        "type": "long", "logicalType": "timestamp-millis", "tidegate.format": "epoch-seconds"});
    assert_eq!(CASE.schema_json(), time);
    let id = Case {
        key: &["id"],
        ..CASE
    };
    assert_eq!(id.schema_json(), "int");
    assert_eq!(
        id.key_of("1,-3,low,a,", Some(258)).unwrap().unwrap(),
        [0, 0, 0, 1, 2, 5]
    );
    assert_eq!(id.key_of("1,-3,low,a,", None).unwrap().unwrap(), [5]);
    assert_eq!(id.key_of("1,,low,a,", Some(258)).unwrap(), None);
    let level = Case {
        key: &["level"],
        ..CASE
    };
    assert_eq!(level.schema_json()["namespace"], "org.example");
    assert_eq!(level.key_of("1,,high,a,", None).unwrap().unwrap(), [2]);
    let other = Case {
        key: &["other"],
        ..CASE
    };
    assert_eq!(other.schema_json(), "string");
    assert_eq!(
        other.key_of("1,,low,a,xy", None).unwrap().unwrap(),
        b"\x04xy"
    );
}

#[test]
fn what_a_field_says_of_its_cells_holds_in_the_key_too() {
    // 2 seconds are 2,000 milliseconds, in zigzag 4,000.
    assert_eq!(
        CASE.key_of("2,,low,a,", None).unwrap().unwrap(),
        [0xa0, 0x1f]
    );
    let json = Case {
        format: KeyFormat::Json,
        ..CASE
    };
    assert_eq!(json.key_of("2,,low,a,", None).unwrap().unwrap(), b"2000");
}

#[test]
fn a_key_of_several_columns_is_a_record() {
    let several = Case {
        key: &["id", "host name", "other"],
        ..CASE
    };
    let expected = serde_json::json!({"type": "record", "name": "UsageKey", "fields": [
        {"name": "id", "type": ["null", "int"]},
        {"tidegate.column": "host name", "name": "host_name", "type": "string"},
        {"name": "other", "type": "string"}], "namespace": "org.example"});
    assert_eq!(several.schema_json(), expected);
    assert_eq!(
        several.key_of("1,7,low,a,b", Some(1)).unwrap().unwrap(),
        b"\0\0\0\0\x01\x02\x0e\x02a\x02b"
    );
    assert_eq!(
        several.key_of("1,,low,a,b", None).unwrap().unwrap(),
        b"\0\x02a\x02b"
    );
    assert_eq!(
        Case {
            key: &["id", "other"],
            ..CASE
        }
        .key_of("1,,low,a,", None)
        .unwrap(),
        None
    );
    let json = Case {
        format: KeyFormat::Json,
        ..several
    };
    let key = json.key_of("1,7,low,\"a\"\"\",b", None).unwrap().unwrap();
    assert_eq!(
        String::from_utf8(key).unwrap(),
        r#"{"id":7,"host_name":"a\"","other":"b"}"#
    );
}

#[test]
fn a_derived_schema_makes_the_same_keys_when_it_is_given_back() {
    for key in [
        &["ts"][..],
        &["level"],
        &["host name", "ts"],
        &["other", "level", "id"],
    ] {
        for format in [KeyFormat::Avro, KeyFormat::Json] {
            let derived = Case {
                key,
                format,
                ..CASE
            };
            let schema = derived.schema_json().to_string();
            let given = Case {
                schema: Some(&schema),
                ..derived
            };
            let row = "7,12,high,a,b";
            assert_eq!(
                given.key_of(row, None),
                derived.key_of(row, None),
                "{schema}"
            );
            assert_eq!(given.plan().unwrap().key_columns(), key);
        }
    }
}

#[test]
fn the_fields_of_a_schema_say_the_columns_where_nothing_else_does() {
    let schema = r#"{"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"},
        {"name": "place", "type": "string", "default": "here"}]}"#;
    let case = Case {
        schema: Some(schema),
        ..CASE
    };
    let plan = case.plan().unwrap();
    assert_eq!(plan.key_columns(), ["id"]);
    assert_eq!(plan.key_reason(), KeyReason::KeySchema);
    assert_eq!(plan.key_format(), KeyFormat::Avro);
    assert_eq!(
        case.key_of("1,2,low,a,b", None).unwrap().unwrap(),
        b"\x04\x08here"
    );
    let named = Case {
        key: &["id"],
        ..case
    };
    assert_eq!(named.plan().unwrap().key_reason(), KeyReason::Asked);
}

#[test]
fn what_cannot_be_a_key_is_refused_before_the_first_row() {
    let record = r#"{"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}]}"#;
    let cases = [
        (
            Case {
                format: KeyFormat::Text,
                schema: Some(record),
                ..CASE
            },
            "--key-format",
        ),
        (
            Case {
                value: TWICE,
                header: "a,b",
                ..CASE
            },
            "--key names its columns",
        ),
        (
            Case {
                value: TWICE,
                header: "a,b",
                key: &["b"],
                ..CASE
            },
            "defined elsewhere",
        ),
        (
            Case {
                key: &["id", "ts"],
                schema: Some("\"long\""),
                ..CASE
            },
            "only a record holds several",
        ),
        (
            Case {
                key: &["ts"],
                schema: Some(record),
                ..CASE
            },
            "take the columns id, and the key is ts",
        ),
        (
            Case {
                schema: Some("\"nothing\""),
                ..CASE
            },
            "the schema of the key: ",
        ),
        (
            Case {
                value: GROUPED,
                header: "ts,id",
                group_by: &["ts"],
                schema: Some(record),
                ..CASE
            },
            "none of --group-by",
        ),
    ];
    for (case, expected) in cases {
        let error = case.plan().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Option | ErrorKind::Schema),
            "{error}"
        );
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_cell_that_is_no_value_of_the_keys_type_makes_its_row_bad() {
    let case = Case {
        key: &["other"],
        schema: Some("\"int\""),
        ..CASE
    };
    let error = case.key_of("1,,low,a,x", None).unwrap_err();
    assert!(
        error.starts_with("other: in the key: ") && error.contains("int"),
        "{error}"
    );
    assert_eq!(case.key_of("1,,low,a,1", None).unwrap().unwrap(), [2]);
}

#[test]
fn a_column_that_is_only_in_the_key_is_not_called_left_out() {
    let warned = |key| Case { key, ..CASE }.plan().unwrap().warnings().len();
    assert_eq!(warned(&["other"]), 0);
    assert_eq!(warned(&["id"]), 1);
}

#[test]
fn groups_have_typed_keys_too() {
    let case = Case {
        value: GROUPED,
        header: "ts,id",
        group_by: &["ts"],
        ..CASE
    };
    assert_eq!(case.schema_json(), "long");
    assert_eq!(
        case.key_of("5,1\n5,2", Some(3)).unwrap().unwrap(),
        [0, 0, 0, 0, 3, 10]
    );
}
