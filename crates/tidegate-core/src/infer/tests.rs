//! Types with their reasons, names, shapes, and the promise that a file fits its own schema.

use proptest::prelude::*;

use super::candidate::Candidate;
use super::*;
use crate::ErrorKind;
use crate::encode::{PLAIN_CELLS, TimeAmbiguity};
use crate::read::CsvFormat;
use crate::records::fixture::{Owned, Setup};

fn options(group_by: &[String]) -> InferOptions<'_> {
    InferOptions {
        record_name: "usage",
        group_by,
        cells: &PLAIN_CELLS,
        format: ValueFormat::Avro,
        looks_for_nulls: true,
        sample: None,
        set: &[],
        mark_last: None,
    }
}

fn infer_text(input: &str) -> Inferred {
    infer(
        RowReader::open(input.as_bytes(), CsvFormat::default()).unwrap(),
        &options(&[]),
    )
    .unwrap()
}

/// The type and the reason of one column with these cells.
fn column(cells: &[&str]) -> (String, String) {
    let report = infer_text(&format!(
        "c,x\n{}",
        cells
            .iter()
            .map(|cell| format!("{cell},\n"))
            .collect::<String>()
    ))
    .columns
    .remove(0);
    let null = if report.nullable { "null or " } else { "" };
    (format!("{null}{}", report.avro_type), report.why)
}

/// Cells of a column, its type, and why.
const COLUMNS: &[(&[&str], &str, &str)] = &[
    (
        &["true", "False"],
        "boolean",
        "all 2 values are true or false",
    ),
    (&["1", "0"], "long", "all 2 values are whole numbers"),
    (&["-5"], "long", "its one value is a long"),
    (
        &["1", "0.5", "1e3"],
        "double",
        "all 3 values are decimal numbers; `0.5` in row 2 is no long",
    ),
    (
        &["1", "", "2"],
        "null or long",
        "all 2 values are whole numbers; 1 cell is null, the first in row 2",
    ),
    (
        &["007", "8"],
        "string",
        "`007` in row 1 has a leading zero, as codes have",
    ),
    (
        &["+49301"],
        "string",
        "`+49301` in row 1 has a plus sign, as telephone numbers have",
    ),
    (
        &["1", "9223372036854775808"],
        "decimal(19, 0)",
        "all 2 values are decimal numbers, kept exactly; `9223372036854775808` in row 2 has more digits than a double holds",
    ),
    (
        &["0.5", "9007199254740993"],
        "decimal(17, 1)",
        "all 2 values are decimal numbers, kept exactly; `9007199254740993` in row 2 has more digits than a double holds",
    ),
    (
        &["0.123456789012345678", ""],
        "null or decimal(19, 18)",
        "its one value is a decimal; `0.123456789012345678` in row 1 has more digits than a double holds; 1 cell is null, the first in row 2",
    ),
    (
        &["1", "1e999"],
        "string",
        "`1e999` in row 2 is out of the range of a double",
    ),
    (&["1", "abc"], "string", "`abc` in row 2 is no double"),
    (&["abc", "1"], "string", "`abc` in row 1 is text"),
    (
        &["-0", "1"],
        "double",
        "all 2 values are decimal numbers; `-0` in row 1 is no long",
    ),
    (
        &["NaN", "1"],
        "double",
        "all 2 values are decimal numbers; `NaN` in row 1 is no long",
    ),
    (
        &["Nan", "inf"],
        "string",
        "no cell holds a number, only words such as NaN",
    ),
    (
        &["2024-01-31T12:30:15Z", "2024-01-31 12:30+01:00"],
        "timestamp-millis",
        "all 2 values are points in time, to the millisecond",
    ),
    (
        &["2024-01-31T12:30:15.000001Z"],
        "timestamp-micros",
        "its one value is a timestamp-micros; `2024-01-31T12:30:15.000001Z` in row 1 is more precise than a timestamp-millis",
    ),
    (
        &["2024-01-31T12:30:15.000000001Z"],
        "timestamp-nanos",
        "its one value is a timestamp-nanos; `2024-01-31T12:30:15.000000001Z` in row 1 is more precise than a timestamp-micros",
    ),
    (
        &["2024-01-31T12:30:15Z", "2024-01-31 12:30"],
        "string",
        "`2024-01-31 12:30` in row 2 has no offset from UTC",
    ),
    (
        &["2024-01-31 12:30", "2024-01-31 12:30:00.5"],
        "local-timestamp-millis",
        "all 2 values are times without an offset from UTC, to the millisecond",
    ),
    (
        &["2024-01-31", "2024-02-29"],
        "date",
        "all 2 values are days",
    ),
    (
        &["2024-01-31", "2024-02-30"],
        "string",
        "`2024-02-30` in row 2 is out of the range of a date",
    ),
    (
        &["20240131", "20240229"],
        "long",
        "all 2 values are whole numbers",
    ),
    (
        &["01/02/2024", "31/12/2024"],
        "date",
        "all 2 values are days, written with the day before the month; `31/12/2024` in row 2 is out of the range of a date",
    ),
    (
        &["01/02/2024", "12/31/2024"],
        "date",
        "all 2 values are days, written with the month before the day; `12/31/2024` in row 2 is out of the range of a date",
    ),
    (
        &["01/02/2024", "03/04/2024"],
        "string",
        "day and month cannot be told apart in `01/02/2024` and all others: --time-format says which comes first",
    ),
    (
        &["01/02/2024", "01.02.2024"],
        "string",
        "`01.02.2024` in row 2 is no date",
    ),
    (&["01.02.2024"], "date", "its one value is a date"),
    (&["1/2/24"], "string", "`1/2/24` in row 1 is text"),
    (
        &["1/2/2024", "31/12/2024"],
        "date",
        "all 2 values are days, written with the day before the month; `31/12/2024` in row 2 is out of the range of a date",
    ),
    (
        &["1.2.2024 9:05", "31.12.2024 14:30"],
        "local-timestamp-millis",
        "all 2 values are times, written with the day before the month",
    ),
    (
        &["12/31/2024 2:30:00 PM", "1/1/2025 12:00:00 am"],
        "local-timestamp-millis",
        "all 2 values are times, written with the month before the day; `12/31/2024 2:30:00 PM` in row 1 is out of the range of a time behind a day",
    ),
    (
        &["31/12/2024 14:30:00.123456"],
        "local-timestamp-micros",
        "its one value is a time behind a day; `31/12/2024 14:30:00.123456` in row 1 is out of the range of a time behind a day",
    ),
    (
        &["1/2/2024 14:30", "3/4/2024 14:30"],
        "string",
        "day and month cannot be told apart in `1/2/2024 14:30` and all others: --time-format says which comes first",
    ),
    (
        &["31/12/2024 14:30", "31/12/2024"],
        "string",
        "`31/12/2024` in row 2 is no time behind a day",
    ),
    (
        &["12:30", "23:59:59.5"],
        "time-millis",
        "all 2 values are times of day, to the millisecond",
    ),
    (
        &["12:30", "24:00"],
        "string",
        "`24:00` in row 2 is out of the range of a time-micros",
    ),
    (
        &["123e4567-e89b-12d3-a456-426614174000"],
        "uuid",
        "its one value is a uuid",
    ),
    (
        &["123E4567-E89B-12D3-A456-426614174000"],
        "string",
        "`123E4567-E89B-12D3-A456-426614174000` in row 1 is text",
    ),
    (
        &["Yes", "no", "yes"],
        "boolean",
        "all 3 values are yes or no",
    ),
    (&["yes", "yes"], "string", "`yes` in row 1 is text"),
    (&["yes", "no", "maybe"], "string", "`yes` in row 1 is text"),
    (
        &["1", "NA", "2", "", "-"],
        "null or long",
        "all 2 values are whole numbers; NA, - stand for null; 3 cells are null, the first in row 2",
    ),
    (
        &["NA", "EU"],
        "string",
        "`EU` in row 2 is text; NA is text as well",
    ),
    (
        &["NA", "NA"],
        "string",
        "no cell holds a value; NA is text as well",
    ),
    (&["", ""], "null or string", "no cell holds a value"),
    (&[], "null or string", "no cell holds a value"),
    (&[" 1"], "string", "` 1` in row 1 is text"),
    (
        &["x", ""],
        "null or string",
        "`x` in row 1 is text; 1 cell is null, the first in row 2",
    ),
];

#[test]
fn each_column_gets_the_narrowest_type_and_a_reason() {
    for (cells, avro_type, why) in COLUMNS {
        assert_eq!(
            column(cells),
            ((*avro_type).to_owned(), (*why).to_owned()),
            "{cells:?}"
        );
    }
}

#[test]
fn names_become_legal_and_unique_and_keep_their_column() {
    let inferred = infer_text("cpu (%),cpu[%],1st,,ok,größe,___,%\n1,2,3,4,5,6,7,8\n");
    let names: Vec<_> = inferred
        .columns
        .iter()
        .map(|column| column.field.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "cpu____",
            "cpu_%_".replace('%', "_").as_str(),
            "_1st",
            "column_4",
            "ok",
            "gr__e",
            "___",
            "column_8"
        ]
    );
    let schema: Value = serde_json::from_str(&inferred.schema_json).unwrap();
    assert_eq!(schema["fields"][0]["tidegate.column"], "cpu (%)");
    assert_eq!(schema["fields"][4].get("tidegate.column"), None);
    let unique = infer_text("a b,a_b,a-b\n1,2,3\n");
    let names: Vec<_> = unique
        .columns
        .iter()
        .map(|column| column.field.as_str())
        .collect();
    assert_eq!(names, ["a_b", "a_b_2", "a_b_3"]);
    let values = Setup::new(unique.schema_json)
        .json()
        .values("a b,a_b,a-b\n1,2,3\n");
    assert_eq!(values, [r#"{"a_b":1,"a_b_2":2,"a_b_3":3}"#]);
}

#[test]
fn groups_get_their_columns_and_an_array_of_rows() {
    let group_by = ["ts".to_owned()];
    let input = "ts,rows,cpu\n1,a,0.5\n1,b,1\n2,c,\n";
    let reader = || RowReader::open(input.as_bytes(), CsvFormat::default()).unwrap();
    let inferred = infer(
        reader(),
        &InferOptions {
            record_name: "my-topic",
            ..options(&group_by)
        },
    )
    .unwrap();
    let schema: Value = serde_json::from_str(&inferred.schema_json).unwrap();
    assert_eq!(schema["name"], "my_topic");
    assert_eq!(
        schema["fields"][0],
        serde_json::json!({"name": "ts", "type": "long"})
    );
    assert_eq!(schema["fields"][1]["name"], "rows");
    assert_eq!(schema["fields"][1]["type"]["items"]["name"], "my_topicRow");
    let setup = Setup::new(inferred.schema_json).group_by(&["ts"]).json();
    assert_eq!(
        setup.values(input),
        [
            r#"{"ts":1,"rows":[{"ts":1,"rows":"a","cpu":0.5},{"ts":1,"rows":"b","cpu":1.0}]}"#,
            r#"{"ts":2,"rows":[{"ts":2,"rows":"c","cpu":null}]}"#
        ]
    );
    let rows_too = ["rows".to_owned()];
    let inferred = infer(reader(), &options(&rows_too)).unwrap();
    assert!(
        inferred.schema_json.contains("\"rows_2\""),
        "{}",
        inferred.schema_json
    );
    assert_eq!(
        Setup::new(inferred.schema_json)
            .group_by(&["rows"])
            .run(input)
            .len(),
        3
    );

    let unknown = ["x".to_owned()];
    assert_eq!(
        infer(reader(), &options(&unknown)).unwrap_err().kind(),
        ErrorKind::Option
    );
}

#[test]
fn bad_rows_have_no_say_and_are_counted() {
    let inferred = infer_text("a,b\n1,2\nx\n3,4\n");
    assert_eq!((inferred.rows, inferred.bad_rows), (2, 1));
    assert_eq!(inferred.columns[0].avro_type, "long");
}

/// The schema's fields for a file with the columns `ts`, `n` and `s`.
fn fields_with(
    group_by: &[&str],
    set: &[&str],
    mark_last: Option<&str>,
) -> crate::Result<(Value, Inferred)> {
    let group_by: Vec<String> = group_by.iter().map(|name| (*name).to_owned()).collect();
    let set: Vec<_> = set
        .iter()
        .map(|name| ((*name).to_owned(), "x".to_owned()))
        .collect();
    let reader = RowReader::open(&b"ts,n,s\n1,7,x\n"[..], CsvFormat::default()).unwrap();
    let inferred = infer(
        reader,
        &InferOptions {
            set: &set,
            mark_last,
            ..options(&group_by)
        },
    )?;
    let schema: Value = serde_json::from_str(&inferred.schema_json).unwrap();
    Ok((schema["fields"].clone(), inferred))
}

#[test]
fn fields_that_no_column_has_are_added() {
    let row = json!([{"name": "ts", "type": "long"}, {"name": "n", "type": "long"}, {"name": "s", "type": "string"}]);
    let [site, last] = [
        json!({"name": "site", "type": "string"}),
        json!({"name": "last", "type": "boolean"}),
    ];
    let (fields, inferred) =
        fields_with(&[], &["site", "n", "site", "last"], Some("last")).unwrap();
    assert_eq!(fields, json!([row[0], row[1], row[2], last, site]));
    let added = |field: &str, avro_type| AddedField {
        field: field.to_owned(),
        avro_type,
    };
    assert_eq!(
        inferred.added,
        [added("last", "boolean"), added("site", "string")]
    );
    assert_eq!(inferred.columns.len(), 3);
    // Groups have them outside, where a column of the rows is none of theirs to mark, and take the array out of their way.
    let (fields, _) = fields_with(&["ts"], &["rows", "n"], Some("s")).unwrap();
    let mark = json!({"name": "s", "type": "boolean"});
    assert_eq!(
        (&fields[0], &fields[1], &fields[2]),
        (&row[0], &mark, &json!({"name": "rows", "type": "string"}))
    );
    assert_eq!(
        (&fields[3]["name"], &fields[3]["type"]["items"]["fields"]),
        (&json!("rows_2"), &row)
    );
    // A column that has the name keeps its type.
    let (fields, inferred) = fields_with(&["ts"], &["s"], Some("ts")).unwrap();
    assert_eq!(
        (&fields[0], fields[1]["name"].as_str(), inferred.added),
        (&row[0], Some("rows"), Vec::new())
    );
    for name in ["my site", "a.b", "1st", ""] {
        let error = fields_with(&[], &[name], None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Option);
        assert!(
            error
                .to_string()
                .contains(&format!("cannot be called `{name}`")),
            "{error}"
        );
    }
}

#[test]
fn days_with_times_behind_them_are_read_as_they_are_meant() {
    let input = "at\n12/31/2024 2:30:00 PM\n1/1/2025 12:00:00 am\n12/31/2024 12:00:00 PM\n";
    let values = Setup::new(infer_text(input).schema_json)
        .json()
        .values(input);
    let expected = [1_735_655_400_000_i64, 1_735_689_600_000, 1_735_646_400_000];
    assert_eq!(values, expected.map(|count| format!("{{\"at\":{count}}}")));
}

#[test]
fn a_schema_says_what_options_say_of_its_columns() {
    let cells = CellFormat {
        null_tokens: vec!["NA".into()],
        time_formats: vec!["%d.%m.%Y %H:%M".into()],
        time_zone: Some("Europe/Zurich".into()),
        time_ambiguity: TimeAmbiguity::Later,
        booleans: vec![("ja".into(), "nein".into())],
    };
    let input = "at,ok,n,s,word\n31.12.2024 14:30,ja,NA,NA,true\n01.01.2025 00:00,Nein,,,false\n";
    let reader = RowReader::open(input.as_bytes(), CsvFormat::default()).unwrap();
    let options = InferOptions {
        cells: &cells,
        ..options(&[])
    };
    let schema: Value =
        serde_json::from_str(&infer(reader, &options).unwrap().schema_json).unwrap();
    let expected = json!([
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "tidegate.format": "%d.%m.%Y %H:%M",
            "tidegate.time-zone": "Europe/Zurich", "tidegate.time-ambiguity": "later"},
        {"name": "ok", "type": "boolean", "tidegate.true": ["ja"], "tidegate.false": ["nein"]},
        {"name": "n", "type": ["null", "string"], "default": null, "tidegate.null": ["", "NA"]},
        {"name": "s", "type": ["null", "string"], "default": null, "tidegate.null": ["", "NA"]},
        {"name": "word", "type": "boolean", "tidegate.true": ["true"], "tidegate.false": ["false"]},
    ]);
    assert_eq!(schema["fields"], expected);
}

#[test]
fn a_null_token_is_null_and_leaves_empty_strings_alone() {
    let input = "n,s\n1,x\nNA,\n,NA\n";
    let reader = RowReader::open(input.as_bytes(), CsvFormat::default()).unwrap();
    let inferred = infer(
        reader,
        &InferOptions {
            cells: &CellFormat {
                null_tokens: vec!["NA".into()],
                ..CellFormat::default()
            },
            ..options(&[])
        },
    )
    .unwrap();
    let reports: Vec<_> = inferred
        .columns
        .iter()
        .map(|column| (column.avro_type.as_str(), column.nullable))
        .collect();
    assert_eq!(reports, [("long", true), ("string", true)]);
    let values = Setup::new(inferred.schema_json)
        .json()
        .null_token("NA")
        .values(input);
    assert_eq!(
        values,
        [
            r#"{"n":1,"s":"x"}"#,
            r#"{"n":null,"s":""}"#,
            r#"{"n":null,"s":null}"#
        ]
    );
}

fn cell() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        2 => any::<i64>().prop_map(|value| value.to_string()),
        2 => any::<f64>().prop_map(|value| value.to_string()),
        1 => any::<f64>().prop_map(|value| format!("{value:e}")),
        1 => any::<bool>().prop_map(|value| value.to_string()),
        1 => "[0-9+.eE-]{1,22}",
        1 => "(NaN|nan|inf|-Infinity|NA|0|-0|00|1\\.|\\.5)",
        1 => "(NA|N/A|n/a|NULL|null|-|yes|No|y|n|T|f)",
        1 => "[0-3][0-9][/.-][0-3][0-9][/.-](19|20)[0-9]{2}",
        1 => "[0-2][0-9]:[0-6][0-9](:[0-5][0-9]([.][0-9]{1,7})?)?",
        1 => "-?[0-9]{1,30}([.][0-9]{1,20})?",
        1 => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        1 => "20[0-9]{2}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?)?(Z|[+-][01][0-9]:?[03]0)?)?",
        1 => "(ja|nein|JA)",
        3 => "[0-3]?[0-9][/.-][01]?[0-9][/.-](0999|1600|2024)([ T][0-2]?[0-9]:[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?)?( [AaPp][Mm])?)?",
        1 => "(31/10/2024 01:30|31/03/2024 02:30|31/03/2024 03:30)",
        1 => ".{0,8}",
    ]
}

/// How cells are written, by options.
fn cell_format() -> impl Strategy<Value = CellFormat> {
    let times = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec!["iso".to_owned()]),
        1 => Just(vec!["%d.%m.%Y %H:%M".to_owned()]),
        1 => Just(vec!["%Y-%m-%dT%H:%M:%S%.f%:z".to_owned(), "%H:%M".to_owned()]),
        1 => Just(vec!["epoch-seconds".to_owned()]),
    ];
    let zone = prop_oneof![Just(None), Just(Some("Europe/Zurich".to_owned()))];
    let booleans = prop_oneof![
        Just(Vec::new()),
        Just(vec![("ja".to_owned(), "nein".to_owned())])
    ];
    let ambiguity = prop_oneof![Just(TimeAmbiguity::Error), Just(TimeAmbiguity::Later)];
    (any::<bool>(), times, zone, ambiguity, booleans).prop_map(
        |(token, time_formats, time_zone, time_ambiguity, booleans)| CellFormat {
            null_tokens: token.then(|| "NA".to_owned()).into_iter().collect(),
            time_formats,
            time_zone,
            time_ambiguity,
            booleans,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_a_type_implies_holds(
        number in "-?[0-9]{1,12}[.]?[0-9]{0,4}",
        time in "(0|1|2)[0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?(Z|[+-]01:00)?",
        clock in "[0-2][0-9]:[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?",
        said: bool,
    ) {
        let cells = CellFormat {
            time_formats: said.then(|| "%Y-%m-%dT%H:%M:%S%.fZ".to_owned()).into_iter().collect(),
            ..CellFormat::default()
        };
        let mut tests = Tests::new(ValueFormat::Avro, &cells).unwrap();
        for text in [number.as_bytes(), time.as_bytes(), clock.as_bytes()] {
            for candidate in Candidate::ALL {
                if candidate.test(text, &mut tests).is_ok() {
                    for wider in candidate.implies(text, &tests) {
                        prop_assert_eq!(wider.test(text, &mut tests), Ok(()), "{:?} in {:?}", candidate, wider);
                    }
                }
            }
        }
        // Numbers are short-cut in the column itself.
        let mut column = Column::new(&cells, true);
        let held = column.try_number(number.as_bytes());
        for candidate in Candidate::ALL.into_iter().filter(|candidate| held.has(*candidate)) {
            prop_assert_eq!(candidate.test(number.as_bytes(), &mut tests), Ok(()), "{:?}", candidate);
        }
    }

    #[test]
    fn any_header_becomes_legal_names_that_keep_their_columns(
        names in prop::collection::vec(prop_oneof![".{0,6}", "[a-c _]{0,2}", "rows|column_[1-3]|a_[23]|#|é"], 1..7),
        topic in ".{0,5}",
        grouped in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let cells: Vec<String> = (0..names.len()).map(|index| format!("x{index}")).collect();
        let input = format!("{}\n{}\n", quoted.join(","), cells.join(","));
        let Ok(reader) = RowReader::open(input.as_bytes(), CsvFormat::default()) else {
            return Ok(());
        };
        let header = reader.header().names().to_vec();
        let group_by: Vec<String> = grouped.iter().map(|index| index.get(&header).clone()).collect();
        let inferred = infer(reader, &InferOptions { record_name: &topic, ..options(&group_by) }).unwrap();
        // Another parser than ours takes the names for legal and different ones.
        let parsed = apache_avro::Schema::parse_str(&inferred.schema_json);
        prop_assert!(parsed.is_ok(), "{parsed:?}\n{}", inferred.schema_json);
        for (report, column) in inferred.columns.iter().zip(&header) {
            prop_assert_eq!(&report.column, column);
        }
        let mut setup = Setup::new(inferred.schema_json.clone()).json();
        setup.group_by = group_by;
        let values = setup.values(&input);
        let value: Value = serde_json::from_str(&values[0]).unwrap();
        let row = match &setup.group_by[..] {
            [] => &value,
            _ => value.as_object().unwrap().values().next_back().unwrap().get(0).unwrap(),
        };
        for (report, cell) in inferred.columns.iter().zip(&cells) {
            prop_assert_eq!(&row[&report.field], cell, "{}", inferred.schema_json);
        }
    }

    #[test]
    fn a_file_fits_its_own_schema(
        columns in prop::collection::vec(prop::collection::vec(cell(), 6), 1..5),
        rows in 0_usize..6,
        same_kind: bool,
        cells in cell_format(),
        format in prop_oneof![Just(ValueFormat::Avro), Just(ValueFormat::Json)],
        grouped: bool,
    ) {
        let names: Vec<String> = (0..columns.len()).map(|index| format!("c {index}")).collect();
        let mut input = names.join(",") + "\n";
        for row in 0..rows {
            // A column of like cells has a chance of a narrow type.
            let cell = |cells: &[String]| cells[if same_kind { row % 2 } else { row }].replace('"', "\"\"");
            let fields: Vec<String> = columns.iter().map(|cells| format!("\"{}\"", cell(cells))).collect();
            input.push_str(&(fields.join(",") + "\n"));
        }
        let group_by = if grouped { vec![names[0].clone()] } else { Vec::new() };
        let reader = RowReader::open(input.as_bytes(), CsvFormat::default()).unwrap();
        let inferred = infer(reader, &InferOptions { record_name: "t", group_by: &group_by, cells: &cells, format, looks_for_nulls: true, sample: None, set: &[], mark_last: None }).unwrap();
        let mut setup = Setup::new(inferred.schema_json);
        setup.group_by = group_by;
        setup.format = format;
        setup.cells = cells;
        let steps = setup.run(&input);
        for step in &steps {
            prop_assert!(matches!(step, Owned::Record { .. }), "{step:?}\n{}", setup.schema);
        }
        // The schema says all that the options say of values; keys are made of texts.
        setup.cells = CellFormat::default();
        let value = |step: &Owned| match step {
            Owned::Record { value, .. } => Some(value.clone()),
            Owned::Bad(_) => None,
        };
        let [alone, together] = [setup.run(&input), steps].map(|steps| steps.iter().map(value).collect::<Vec<_>>());
        prop_assert_eq!(alone, together, "{}", setup.schema);
    }
}
