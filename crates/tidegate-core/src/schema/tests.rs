//! What compiles, what does not and why, and what a plan decides.

use crate::ErrorKind;
use crate::key::{KeyChoice, KeyReason};
use crate::records::fixture::Setup;

const GROUPED: &str = r#"{"type": "record", "name": "Tick", "namespace": "a.b", "fields": [
    {"name": "ts", "type": "long"},
    {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
        {"name": "id", "type": "string"}, {"name": "cpu", "type": "double"}]}}},
    {"name": "last", "type": "boolean", "default": false}]}"#;

#[test]
fn schemas_that_rows_cannot_fill_are_refused_with_the_reason() {
    for (schema, header, part) in [
        ("nonsense", "a", "the schema is not valid Avro"),
        (
            r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "missing.Type"}]}"#,
            "a",
            "not valid Avro",
        ),
        (
            r#""string""#,
            "a",
            "the schema is a string: rows can only fill a record",
        ),
        (
            r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": {"type": "map", "values": "long"}}}]}"#,
            "a",
            "the field `a` is an array of map of long: in a cell, items have no parts of their own",
        ),
        (
            r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "bytes", "logicalType": "decimal", "precision": 65537}}]}"#,
            "a",
            "the field `a` is a decimal of 65537 digits: at most 65536",
        ),
        (
            r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "record", "name": "S", "fields": []}}]}"#,
            "a",
            "the field `a` is a record S",
        ),
        (
            GROUPED,
            "ts,items,id,cpu",
            "the field `items` is an array of record Item: one row has one cell for it; rows are collected into an array with --group-by",
        ),
        (
            r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "long"}, {"name": "c", "type": "long"}]}"#,
            "x,b",
            "the fields `a`, `c` of the schema have neither a column in the header (x, b) nor a default",
        ),
    ] {
        let error = Setup::new(schema).error_for(header);
        assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn attributes_that_cannot_be_are_refused_with_the_reason() {
    for (field, part) in [
        (
            r#""type": "long", "tidegate.colour": "b""#,
            "has an attribute tidegate.colour, which is not known: known are tidegate.column",
        ),
        (
            r#""type": "long", "tidegate.null": 7"#,
            "the attribute tidegate.null of the field `a` is 7: expected a string or an array",
        ),
        (
            r#""type": "boolean", "tidegate.true": "y""#,
            "has only one of tidegate.true and tidegate.false",
        ),
        (
            r#""type": "bytes", "tidegate.format": "octal""#,
            "bytes are written as utf-8, hex or base64",
        ),
        (
            r#""type": {"type": "long", "logicalType": "timestamp-millis"}, "tidegate.format": "day""#,
            "`day` is no format of times",
        ),
        (
            r#""type": {"type": "long", "logicalType": "timestamp-millis"}, "tidegate.format": "%Y-%!""#,
            "the time format `%Y-%!`",
        ),
        (
            r#""type": {"type": "long", "logicalType": "timestamp-millis"}, "tidegate.time-zone": "Mars/Base""#,
            "there is no time zone `Mars/Base`",
        ),
        (
            r#""type": {"type": "long", "logicalType": "timestamp-millis"}, "tidegate.column": ["a", "b"]"#,
            "put together from columns of which the header has no `b`",
        ),
        (
            r#""type": {"type": "bytes", "logicalType": "decimal", "precision": 4}, "tidegate.rounding": "up""#,
            "expected one of half-even, half-up and down",
        ),
        (
            r#""type": {"type": "bytes", "tidegate.format": "hex"}, "tidegate.format": "base64""#,
            "the field `a` has the attribute tidegate.format twice: \"base64\" and, in its type, \"hex\"",
        ),
        (
            r#""type": [{"type": "bytes", "tidegate.format": "hex"}, {"type": "int", "logicalType": "date", "tidegate.format": "iso"}]"#,
            "the field `a` has the attribute tidegate.format twice: \"hex\" and, in its type, \"iso\"",
        ),
        (
            r#""type": {"type": "record", "name": "In", "fields": [{"name": "b", "type": {"type": "long", "tidegate.column": "c"}, "tidegate.column": "d"}]}"#,
            "the field `b` has the attribute tidegate.column twice",
        ),
        (
            r#""type": {"type": "long", "tidegate.format": "iso"}"#,
            "tidegate.format, which says nothing of its type",
        ),
    ] {
        let error = Setup::fields(&format!(r#"{{"name": "a", {field}}}"#)).error_for("a");
        assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn records_of_a_schema_that_contradicts_itself_can_still_be_shown() {
    let schema = r#"{"type": "record", "name": "R", "fields": [
        {"name": "a", "type": {"type": "bytes", "tidegate.format": "hex"}, "tidegate.format": "base64"}]}"#;
    let decoder = crate::decode::Decoder::new(schema).unwrap();
    let shown = decoder.to_json(b"\x02x").unwrap();
    assert_eq!(shown.to_string(), r#"{"a":"eA=="}"#);
}

#[test]
fn a_column_without_a_field_is_a_warning() {
    let plan = Setup::fields(r#"{"name": "b", "type": "long"}"#)
        .plan_for("a,b,c")
        .unwrap();
    assert_eq!(
        plan.warnings(),
        [
            "the column `a` is in no field of the schema and is left out",
            "the column `c` is in no field of the schema and is left out"
        ]
    );
}

#[test]
fn a_field_finds_its_column_by_map_attribute_name_and_alias_in_that_order() {
    let json = |fields: &str, map: &[(&str, &str)], header: &str| {
        let mut setup = Setup::fields(fields).json();
        setup.map = map
            .iter()
            .map(|(field, column)| (field.to_string(), column.to_string()))
            .collect();
        setup.values(&format!("{header}\n1,2,3\n"))[0].clone()
    };
    let field = r#"{"name": "f", "type": "long", "aliases": ["x", "b"], "tidegate.column": "c"}"#;
    assert_eq!(json(field, &[("f", "a")], "a,f,c"), r#"{"f":1}"#);
    assert_eq!(json(field, &[], "a,f,c"), r#"{"f":3}"#);
    assert_eq!(json(field, &[], "a,f,d"), r#"{"f":2}"#);
    assert_eq!(json(field, &[], "a,b,d"), r#"{"f":2}"#);

    let mut setup = Setup::fields(r#"{"name": "f", "type": "long"}"#);
    setup.map = vec![("f".into(), "z".into())];
    let error = setup.error_for("a,b");
    assert_eq!(error.kind(), ErrorKind::Option);
    assert_eq!(
        error.to_string(),
        "the input has no column `z`, mapped to the field `f`: the columns are a, b"
    );
    setup.map = vec![("g".into(), "a".into())];
    assert_eq!(
        setup.error_for("a,f").to_string(),
        "the schema has no field `g`, to which the column `a` is mapped"
    );
}

#[test]
fn the_default_key_is_the_timestamp_by_type_then_by_name() {
    let long = |name: &str| format!(r#"{{"name": "{name}", "type": "long"}}"#);
    let key = |fields: String, header: &str| {
        let plan = Setup::fields(&fields).plan_for(header).unwrap();
        (plan.key_columns().join("+"), plan.key_reason())
    };
    let millis =
        r#"{"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]}"#;
    assert_eq!(
        key(format!("{}, {millis}", long("timestamp")), "timestamp,at"),
        ("at".into(), KeyReason::TimestampType)
    );
    assert_eq!(
        key(long("a"), "a,Time,TS"),
        ("TS".into(), KeyReason::TimestampName)
    );
    assert_eq!(
        key(long("a"), "a,time,ts,TimeStamp"),
        ("TimeStamp".into(), KeyReason::TimestampName)
    );
    assert_eq!(
        key(long("a"), "a,timestamps"),
        (String::new(), KeyReason::NothingFits)
    );
}

#[test]
fn keys_are_chosen_from_the_header() {
    let setup = Setup::fields(r#"{"name": "ts", "type": "long"}"#);
    let plan = setup.clone().key(&["b", "ts"]).plan_for("ts,b").unwrap();
    assert_eq!(
        (plan.key_columns(), plan.key_reason()),
        (vec!["b", "ts"], KeyReason::Asked)
    );
    let mut none = setup.clone();
    none.key = KeyChoice::None;
    assert_eq!(
        none.plan_for("ts").unwrap().key_reason(),
        KeyReason::AskedForNone
    );
    for (keys, part) in [
        (
            &["c"][..],
            "the input has no column `c`, named by --key: the columns are ts, b",
        ),
        (&["TS"], "did you mean `ts`?"),
        (&["b", "b"], "--key names the column `b` twice"),
    ] {
        let error = setup.clone().key(keys).error_for("ts,b");
        assert_eq!(error.kind(), ErrorKind::Option);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn groups_need_exactly_one_array_of_records() {
    let setup = Setup::new(GROUPED).group_by(&["ts"]);
    let plan = setup.plan_for("ts,id,cpu").unwrap();
    assert!(plan.is_grouped());
    assert_eq!(
        (plan.key_columns(), plan.key_reason()),
        (vec!["ts"], KeyReason::GroupBy)
    );
    assert_eq!(plan.group_columns(), ["ts"]);

    let error = Setup::fields(r#"{"name": "ts", "type": "long"}"#)
        .group_by(&["ts"])
        .error_for("ts");
    assert!(error.to_string().contains("exactly one field that is an array of records, for the rows of a group; record R has none"), "{error}");
    let two = GROUPED.replace(
        r#""type": "boolean", "default": false"#,
        r#""type": {"type": "array", "items": "Item"}, "default": []"#,
    );
    let error = Setup::new(two).group_by(&["ts"]).error_for("ts,id,cpu");
    assert!(
        error
            .to_string()
            .contains("record Tick has `items`, `last`"),
        "{error}"
    );
    let error = setup.error_for("ts,id");
    assert!(
        error
            .to_string()
            .contains("the field `items[].cpu` of the schema has neither a column"),
        "{error}"
    );
    let error = setup.clone().key(&["id"]).error_for("ts,id,cpu");
    assert_eq!(error.kind(), ErrorKind::Option);
    assert!(
        error
            .to_string()
            .contains("--key names the column `id`, which is none of --group-by"),
        "{error}"
    );
    let error = Setup::new(GROUPED).group_by(&["x"]).error_for("ts,id,cpu");
    assert!(
        error
            .to_string()
            .contains("no column `x`, named by --group-by"),
        "{error}"
    );
}

#[test]
fn defaults_of_any_type_fill_fields_without_a_column() {
    let fields = r#"
        {"name": "a", "type": "long"},
        {"name": "null", "type": ["null", "string"], "default": null},
        {"name": "text", "type": ["string", "null"], "default": "x\"y"},
        {"name": "late", "type": ["null", "long"], "default": 7},
        {"name": "flag", "type": "boolean", "default": true},
        {"name": "ratio", "type": "float", "default": 0.5},
        {"name": "raw", "type": "bytes", "default": "\u00ff\u0000"},
        {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 2}, "default": "\u0001\u0002"},
        {"name": "suit", "type": {"type": "enum", "name": "S", "symbols": ["X", "Y"]}, "default": "Y"},
        {"name": "list", "type": {"type": "array", "items": "int"}, "default": [1, -1]},
        {"name": "none", "type": {"type": "array", "items": "int"}, "default": []},
        {"name": "map", "type": {"type": "map", "values": "double"}, "default": {"k": 1.5}},
        {"name": "sub", "type": {"type": "record", "name": "Sub", "fields": [{"name": "n", "type": "S", "default": "X"}]}, "default": {}}"#;
    let expected = r#"{"a":1,"null":null,"text":"x\"y","late":7,"flag":true,"ratio":0.5,"raw":"/wA=","fixed":"AQI=","suit":"Y","list":[1,-1],"none":[],"map":{"k":1.5},"sub":{"n":"X"}}"#;
    let setup = Setup::fields(fields);
    assert_eq!(setup.clone().json().values("a\n1\n"), [expected]);
    // The Avro form, read back, says the same.
    let avro = setup.run("a\n1\n");
    let crate::records::fixture::Owned::Record { value, .. } = &avro[0] else {
        panic!("{avro:?}");
    };
    let decoder = crate::decode::Decoder::new(&setup.schema).unwrap();
    assert_eq!(decoder.to_json(value).unwrap().to_string(), expected);
    let schema = apache_avro::Schema::parse_str(&setup.schema).unwrap();
    apache_avro::from_avro_datum(&schema, &mut &value[..], None).unwrap();
}

#[test]
fn decimals_have_defaults_too() {
    let fields = r#"
        {"name": "a", "type": "long"},
        {"name": "cents", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "default": "\u00ff\u0000"},
        {"name": "fee", "type": [{"type": "fixed", "name": "Money", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 2}, "null"], "default": "\u0001\u0002"},
        {"name": "tip", "type": "Money", "default": "\u0000\u0001"},
        {"name": "none", "type": ["null", "Money"], "default": null},
        {"name": "all", "type": {"type": "array", "items": "Money"}, "default": ["\u0000\u0002"]},
        {"name": "sub", "type": {"type": "record", "name": "Sub", "fields": [{"name": "n", "type": "Money", "default": "\u0000\u0003"}, {"name": "m", "type": "Money"}]},
            "default": {"m": "\u0000\u0004"}}"#;
    let expected = r#"{"a":1,"cents":"-2.56","fee":"2.58","tip":"0.01","none":null,"all":["0.02"],"sub":{"n":"0.03","m":"0.04"}}"#;
    let setup = Setup::fields(fields);
    assert_eq!(setup.clone().json().values("a\n1\n"), [expected]);
    let avro = setup.run("a\n1\n");
    let crate::records::fixture::Owned::Record { value, .. } = &avro[0] else {
        panic!("{avro:?}");
    };
    let decoder = crate::decode::Decoder::new(&setup.schema).unwrap();
    assert_eq!(decoder.to_json(value).unwrap().to_string(), expected);
    for default in [r#""\u0100""#, "1.5", r#""\u0000\u0000\u0000""#] {
        let fields = format!(
            r#"{{"name": "a", "type": "long"}}, {{"name": "d", "type": {{"type": "fixed", "name": "M", "size": 2, "logicalType": "decimal", "precision": 4}}, "default": {default}}}"#
        );
        let error = Setup::fields(&fields).error_for("a");
        assert!(
            error
                .to_string()
                .contains("the default of the field `d` does not fit it"),
            "{error}"
        );
    }
}

#[test]
fn named_types_are_found_in_their_namespaces() {
    let schema = r#"{"type": "record", "name": "R", "namespace": "one", "fields": [
        {"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}},
        {"name": "b", "type": "E"},
        {"name": "c", "type": ["null", "one.E"]},
        {"name": "d", "type": {"type": "enum", "name": "two.E", "symbols": ["P", "Q"]}},
        {"name": "e", "type": "two.E"}]}"#;
    let setup = Setup::new(schema);
    assert_eq!(
        setup.clone().json().values("a,b,c,d,e\nX,Y,,P,Q\n"),
        [r#"{"a":"X","b":"Y","c":null,"d":"P","e":"Q"}"#]
    );
    assert_eq!(
        setup.complaints("a,b,c,d,e\nX,Y,,X,Q\n"),
        ["row 1 (line 2), column `d`: expected one of P, Q, found `X`"]
    );
}
