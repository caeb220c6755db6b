//! Every type that a cell can become, through the program: published, verified, read back.

mod common;

use common::{Exits, Folder, on, records};
use serde_json::{Value, json};
use tidegate_testkit::for_each_cluster;

const SCHEMA: &str = r#"{"type": "record", "name": "Every", "namespace": "acme", "fields": [
    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "tidegate.rounding": "half-up"},
    {"name": "wei", "type": {"type": "fixed", "name": "Wei", "size": 32, "logicalType": "decimal", "precision": 76, "scale": 2}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}, "tidegate.format": "%d.%m.%Y"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}, "tidegate.format": "iso"},
    {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}, "tidegate.format": "iso"},
    {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-nanos"}, "tidegate.format": "epoch-seconds"},
    {"name": "for", "type": {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}},
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}, "tidegate.format": "hex"},
    {"name": "ok", "type": ["null", "boolean"]},
    {"name": "tags", "type": {"type": "array", "items": "string"}, "tidegate.delimiter": ";"},
    {"name": "counts", "type": {"type": "map", "values": "long"}},
    {"name": "any", "type": ["null", "long", "string"], "tidegate.null": "-"},
    {"name": "home", "type": ["null", {"type": "record", "name": "Address", "fields": [
        {"name": "city", "type": "string"}, {"name": "zip", "type": ["null", "int"]}]}]},
    {"name": "source", "type": "string", "default": "csv"},
    {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "default": "\u0001\u0000"}
]}"#;

const ROWS: &str = "id,price,wei,day,at,clock,local,seen,for,hash,ok,tags,counts,any,Home Town,home.zip
123E4567-E89B-12D3-A456-426614174000,1.005,-115792089237316195423570985008687907853269984665640564039457.5,29.02.2024,29.02.2024 13:30,12:30,2024-02-29T12:30,1709202615.5,P1DT2S,c3A9,ja,a;b,\"{\"\"x\"\": 1}\",7,Bern,3000
123E4567-E89B-12D3-A456-426614174001,-7,1e70,01.01.1970,01.01.1970 01:00,00:00:00.001,1970-01-01T00:00:00.000001,0,P0D,0000,,,{},-,,
";

#[test]
fn a_row_of_every_type_is_published_and_read_back() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("types"));
        let schema = folder.file("every.avsc", SCHEMA);
        let file = folder.file("every.csv", ROWS);
        let flags = [
            "--schema",
            &schema,
            "--time-format",
            "%d.%m.%Y %H:%M",
            "--time-zone",
            "Europe/Zurich",
        ];
        let more = [
            "--boolean",
            "ja/nein",
            "--map",
            "home.city=Home Town",
            "--no-key",
        ];
        let publish = || {
            let publish = on(cluster, ["publish", &file, "-t", &topic, "--create-topic"]);
            publish.args(flags).args(more).args(["-o", "json"])
        };
        let published = publish().arg("--verify").exits(0).json();
        assert_eq!(published["verify"]["status"], "same", "{published}");
        let found = records(cluster, &topic);
        let values: Vec<&Value> = found.iter().map(|record| &record["value"]).collect();
        let first = json!({
            "id": "123e4567-e89b-12d3-a456-426614174000", "price": "1.01", "wei": "-115792089237316195423570985008687907853269984665640564039457.50", "day": 19_782, "at": 1_709_209_800_000_i64, "clock": 45_000_000,
            "local": 1_709_209_800_000_000_i64, "seen": 1_709_202_615_500_000_000_i64, "for": "P0M1DT2.000S", "hash": "w6k=", "ok": true,
            "tags": ["a", "b"], "counts": {"x": 1}, "any": 7, "home": {"city": "Bern", "zip": 3000}, "source": "csv", "fee": "2.56",
        });
        let second = json!({
            "id": "123e4567-e89b-12d3-a456-426614174001", "price": "-7.00", "wei": format!("1{}.00", "0".repeat(70)), "day": 0, "at": 0, "clock": 1, "local": 1, "seen": 0,
            "for": "P0M0DT0.000S", "hash": "AAA=", "ok": null, "tags": [], "counts": {}, "any": null, "home": null, "source": "csv", "fee": "2.56",
        });
        assert_eq!(values, [&first, &second]);
        // The plan is kept with the job: what is typed otherwise is refused, and verify needs nothing of it.
        for (flag, value) in [
            ("--time-zone", "UTC"),
            ("--boolean", "si/no"),
            ("--map", "home.zip=price"),
        ] {
            let refused = on(cluster, ["publish", &file, "-t", &topic])
                .args([flag, value])
                .exits(2);
            assert!(refused.stderr.contains(flag), "{refused}");
        }
        on(cluster, ["verify", &file, "-t", &topic]).exits(0);
    });
}

#[test]
fn a_bad_text_is_told_with_all_that_was_expected() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("bad-types"));
        let schema = r#"{"type": "record", "name": "R", "fields": [
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
        let schema = folder.file("r.avsc", schema);
        let file = folder.file("r.csv", "at\n2024-03-31 01:30\n2024-03-31 02:30\n");
        let rejects = folder.name("rejects.jsonl");
        let publish = on(
            cluster,
            ["publish", &file, "-t", &topic, "--schema", &schema],
        );
        let flags = ["--time-zone", "Europe/Zurich", "--rejects", &rejects];
        let published = publish
            .args(flags)
            .args(["--create-topic", "-o", "json"])
            .exits(0)
            .json();
        assert_eq!(published["rows"]["rejected"], 1);
        let rejected: Value =
            serde_json::from_str(&std::fs::read_to_string(&rejects).unwrap()).unwrap();
        assert_eq!(
            (&rejected["row"], &rejected["column"]),
            (&json!(2), &json!("at"))
        );
        let reason = rejected["reason"].as_str().unwrap();
        assert!(
            reason.contains("in Europe/Zurich, found `2024-03-31 02:30`"),
            "{reason}"
        );
        assert!(
            reason.contains("skipped when the clocks are put forward"),
            "{reason}"
        );
        let unknown = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--schema",
                &schema,
                "--restart",
            ],
        );
        let unknown = unknown.args(["--time-zone", "Zurich"]).exits(2);
        assert!(
            unknown.stderr.contains("there is no time zone `Zurich`"),
            "{unknown}"
        );
    });
}

#[test]
fn json_values_hold_times_as_asked() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("json-times"));
        let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "day", "type": {"type": "int", "logicalType": "date"}}]}"#;
        let schema = folder.file("r.avsc", schema);
        let file = folder.file("r.csv", "day\n2024-02-29\n");
        for (flags, expected) in [
            (&["--json-times", "iso"][..], json!("2024-02-29")),
            (&[], json!(19_782)),
        ] {
            let publish = on(
                cluster,
                [
                    "publish",
                    &file,
                    "-t",
                    &topic,
                    "--schema",
                    &schema,
                    "--restart",
                ],
            );
            let publish = publish.args(["--format", "json", "--create-topic", "--verify"]);
            publish.args(flags).exits(0);
            let last = records(cluster, &topic).pop().unwrap();
            assert_eq!(last["value"]["day"], expected);
        }
    });
}
