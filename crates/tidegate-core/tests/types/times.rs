//! Days, times of day and points in time: in their usual form, by patterns, as counts, in time zones.

use serde_json::json;
use tidegate_core::encode::CellFormat;

use super::{NO, RANGE, check, check_all};

#[test]
fn times() {
    let logical = |plain: &str, name: &str| {
        format!(r#""type": {{"type": "{plain}", "logicalType": "{name}"}}"#)
    };
    check_all(
        &logical("int", "date"),
        &[
            ("2024-02-29", Ok(json!(19_782))),
            ("2023-02-29", Err(RANGE)),
            ("19782", Ok(json!(19_782))),
            ("29.02.2024", Err("a date (such as 2024-01-31")),
            ("2024-02-29T00:00", Err(NO)),
        ],
    );
    check_all(
        &logical("int", "time-millis"),
        &[
            ("12:30:15.25", Ok(json!(45_015_250))),
            ("23:59", Ok(json!(86_340_000))),
            ("24:00", Err(RANGE)),
            ("12:30:15.2505", Err("more precise")),
            ("86400000", Err(RANGE)),
            ("1", Ok(json!(1))),
        ],
    );
    check_all(
        &logical("long", "time-micros"),
        &[("00:00:00.000001", Ok(json!(1)))],
    );
    check_all(
        &logical("long", "timestamp-millis"),
        &[
            (
                "2024-02-29T12:30:15.250+02:00",
                Ok(json!(1_709_202_615_250_i64)),
            ),
            ("2024-02-29 10:30:15,25", Ok(json!(1_709_202_615_250_i64))),
            ("20240229T103015Z", Ok(json!(1_709_202_615_000_i64))),
            ("20240229T1030", Ok(json!(1_709_202_600_000_i64))),
            ("2024-02-29", Ok(json!(1_709_164_800_000_i64))),
            ("1709202615250", Ok(json!(1_709_202_615_250_i64))),
            ("2024-02-29T10:30:15.0001Z", Err("more precise")),
            ("2024-02-29T24:00Z", Err(RANGE)),
            ("2024-02-29T23:59:60Z", Err(RANGE)),
            ("yesterday", Err(NO)),
        ],
    );
    check_all(
        &logical("long", "timestamp-nanos"),
        &[
            ("1970-01-01T00:00:00.000000001Z", Ok(json!(1))),
            ("2262-04-11T23:47:16.854775807Z", Ok(json!(i64::MAX))),
            ("2262-04-11T23:47:16.854775808Z", Err(RANGE)),
            ("1600-01-01T00:00Z", Err(RANGE)),
        ],
    );
    check_all(
        &logical("long", "local-timestamp-micros"),
        &[
            ("1970-01-01T00:00:01.5", Ok(json!(1_500_000))),
            (
                "1970-01-01T00:00:01Z",
                Err("whose offset from UTC would be lost"),
            ),
            ("-5", Ok(json!(-5))),
        ],
    );
    check_all(
        r#""type": {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}"#,
        &[
            ("P1Y2M3DT4.5S", Ok(json!("P14M3DT4.500S"))),
            ("P", Err("a duration (such as P1M2DT3.5S)")),
            ("PT4294967.296S", Err(RANGE)),
        ],
    );
}

#[test]
fn times_in_other_forms_and_zones() {
    let field = |name: &str, more: &str| {
        let plain = if name == "date" { "int" } else { "long" };
        format!(r#""type": {{"type": "{plain}", "logicalType": "{name}"}}, {more}"#)
    };
    let millis = |more: &str| field("timestamp-millis", more);
    check_all(
        &millis(r#""tidegate.format": "epoch-seconds""#),
        &[
            ("1709202615", Ok(json!(1_709_202_615_000_i64))),
            ("1709202615.25", Ok(json!(1_709_202_615_250_i64))),
            ("-0.5", Ok(json!(-500))),
            ("0.0001", Err("more precise")),
            ("1111111111111111111", Err(RANGE)),
            ("-9223372036854775808", Err(RANGE)),
            (
                "2024-02-29",
                Err("a timestamp-millis as seconds since 1970"),
            ),
        ],
    );
    check_all(
        &millis(r#""tidegate.format": "epoch-nanos""#),
        &[
            ("1709202615250000000", Ok(json!(1_709_202_615_250_i64))),
            ("1", Err("more precise")),
        ],
    );
    check_all(
        &millis(
            r#""tidegate.format": ["%d.%m.%Y %H:%M:%S", "%d.%m.%Y"], "tidegate.time-zone": "Europe/Zurich""#,
        ),
        &[
            ("29.02.2024 12:30:15", Ok(json!(1_709_206_215_000_i64))),
            ("29.02.2024", Ok(json!(1_709_161_200_000_i64))),
            ("31.03.2024 02:30:00", Err("no clock there shows")),
            ("27.10.2024 02:30:00", Err("show twice")),
            ("30.02.2024", Err(RANGE)),
            ("29.02.2024 12:30:60", Err(RANGE)),
            ("29.02.2024 23:59:60", Err(RANGE)),
            ("29.02.2060 23:59:59", Ok(json!(2_845_321_199_000_i64))),
            (
                "2024-02-29",
                Err("written as %d.%m.%Y %H:%M:%S or %d.%m.%Y, in Europe/Zurich"),
            ),
        ],
    );
    let fold = r#""tidegate.time-zone": "Europe/Zurich", "tidegate.time-ambiguity": "#;
    for (ambiguity, gap, fold_time) in [
        (
            "earlier",
            "2024-03-31T01:30:00+01:00",
            "2024-10-27T02:30:00+02:00",
        ),
        (
            "later",
            "2024-03-31T03:30:00+02:00",
            "2024-10-27T02:30:00+01:00",
        ),
    ] {
        let at = |text: &str| json!(text.parse::<jiff::Timestamp>().unwrap().as_millisecond());
        check_all(
            &millis(&format!("{fold}\"{ambiguity}\"")),
            &[
                ("2024-03-31T02:30", Ok(at(gap))),
                ("2024-10-27T02:30", Ok(at(fold_time))),
                (
                    "2024-10-27T02:30+02:00",
                    Ok(at("2024-10-27T02:30:00+02:00")),
                ),
            ],
        );
    }
    check_all(
        &field(
            "local-timestamp-millis",
            r#""tidegate.time-zone": "Asia/Tokyo""#,
        ),
        &[
            ("1970-01-01T00:00Z", Ok(json!(32_400_000))),
            ("1970-01-01T00:00", Ok(json!(0))),
        ],
    );
    check_all(
        &field("date", r#""tidegate.format": "%m/%d/%Y""#),
        &[
            ("01/31/1970", Ok(json!(30))),
            ("31/01/1970", Err("a date written as %m/%d/%Y")),
        ],
    );
    check_all(
        &field(
            "date",
            r#""tidegate.format": "epoch-millis", "tidegate.time-zone": "Asia/Tokyo""#,
        ),
        &[
            ("54000000", Ok(json!(1))),
            ("53999999", Err("more precise")),
        ],
    );
    check_all(
        &millis(r#""tidegate.format": "%Y-%m-%dT%H:%M:%S%z""#),
        &[("2024-02-29T12:30:15+0200", Ok(json!(1_709_202_615_000_i64)))],
    );
    check_all(
        r#""type": {"type": "int", "logicalType": "time-millis"}, "tidegate.format": "%I:%M %p""#,
        &[("01:30 PM", Ok(json!(48_600_000))), ("13:30", Err(NO))],
    );
    let options = CellFormat {
        time_formats: vec!["%d.%m.%Y %H:%M".into()],
        time_zone: Some("Europe/Zurich".into()),
        ..CellFormat::default()
    };
    check(
        &millis(r#""doc": """#),
        &options,
        "29.02.2024 13:30",
        &Ok(json!(1_709_209_800_000_i64)),
    );
}
