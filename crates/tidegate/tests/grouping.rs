//! Groups through the program: fields around the array, constants, the last record, groups without their bad rows, and groups that come again.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use common::load::Load;
use common::{Exits, count, records};
use serde_json::{Value, json};
use tidegate_testkit::for_each_cluster;

const SCHEMA: &str = r#"{"type": "record", "name": "tick", "fields": [
    {"name": "time", "type": "long"}, {"name": "site", "type": "string"}, {"name": "file", "type": "string"},
    {"name": "last", "type": "boolean"},
    {"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "row", "fields": [
        {"name": "host", "type": "string"}, {"name": "cpu", "type": "double"}]}}}]}"#;

const FLAGS: [&str; 6] = [
    "--group-by",
    "time",
    "--set",
    "file=usage",
    "--mark-last",
    "last",
];

fn values(load: &Load<'_>) -> Vec<Value> {
    let found = records(load.cluster, &load.topic);
    found.iter().map(|record| record["value"].clone()).collect()
}

#[test]
fn fields_around_the_array_are_filled_and_the_last_record_is_marked() {
    for_each_cluster(|cluster| {
        let text =
            "time,site,host,cpu\n1,n,a,1\n1,n,b,2\n2,s,a,3\n2,s,b,x\n3,n,a,4\n4,n,a,5\n4,s,a,6\n";
        let load = Load::of(cluster, text);
        let schema = load.folder.file("tick.avsc", SCHEMA);
        let (rejects, receipt) = (load.folder.name("rejects"), load.folder.name("receipt"));
        let publish = || {
            let command = load.publish().args(FLAGS).args(["--schema", &schema]);
            command.args(["--rejects", &rejects, "--receipt", &receipt])
        };
        let summary = publish().arg("--verify").exits(0).json();
        assert_eq!(summary["verify"]["status"], "same", "{summary}");
        let row = |host: &str, cpu: f64| json!({"host": host, "cpu": cpu});
        let tick = |time: u32, last: bool, rows: Value| json!({"time": time, "site": "n", "file": "usage", "last": last, "rows": rows});
        // The group of 2 has a bad row, that of 4 two sites.
        assert_eq!(
            values(&load),
            [
                tick(1, false, json!([row("a", 1.0), row("b", 2.0)])),
                tick(3, true, json!([row("a", 4.0)])),
            ]
        );
        assert_eq!(
            summary["rows"],
            json!({"read": 7, "accepted": 3, "rejected": 4, "failed": 0})
        );
        let groups = summary["rejects"].as_array().unwrap();
        let blamed = groups
            .iter()
            .find(|group| group["column"] == "site")
            .unwrap();
        assert_eq!(
            (&blamed["count"], &blamed["first"]["row"]),
            (&json!(1), &json!(7))
        );
        let reason = blamed["first"]["reason"].as_str().unwrap();
        assert!(reason.contains("`n` in row 6 and `s` in row 7"), "{reason}");
        // A record more would be the last one, and the one before was published as that.
        std::fs::write(&load.file, format!("{text}5,n,a,7\n")).unwrap();
        let refused = publish().exits(3);
        assert!(refused.stdout.contains("last of the input"), "{refused}");
        let refused = publish().args(["--hold-last"]).exits(2);
        assert!(refused.stdout.contains("--mark-last"), "{refused}");
    });
}

#[test]
fn a_partial_group_is_sent_without_its_bad_rows() {
    for_each_cluster(|cluster| {
        let load = Load::of(
            cluster,
            "time,site,host,cpu\n1,n,a,1\n1,n,b,x\n1,n,c,3\n1,s,d,4\n",
        );
        let schema = load.folder.file("tick.avsc", SCHEMA);
        let rejects = load.folder.name("rejects");
        let flags = [
            "--schema",
            &schema,
            "--rejects",
            &rejects,
            "--partial-groups",
            "--verify",
        ];
        let summary = load.publish().args(FLAGS).args(flags).exits(0).json();
        assert_eq!(summary["rows"]["rejected"], 2, "{summary}");
        assert_eq!(summary["verify"]["status"], "same");
        let found = values(&load);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0]["rows"][1]["host"], &found[0]["rows"][2]),
            (&json!("c"), &Value::Null)
        );
    });
}

#[test]
fn a_schema_that_is_made_of_the_data_has_the_fields_that_flags_fill() {
    for_each_cluster(|cluster| {
        let text = "time,host,cpu\n1,a,1\n1,b,2\n2,a,3\n";
        let flags = ["--set", "site=n°1", "--mark-last", "last", "--verify"];
        let row = |time: u32, host: &str, cpu: u32| json!({"time": time, "host": host, "cpu": cpu});
        let load = Load::of(cluster, text);
        let planned = load.publish().args(&flags[..4]).arg("--dry-run").exits(0);
        let said = "inferred from 3 rows, with the boolean field last and the string field site";
        assert!(planned.stderr.contains(said), "{planned}");
        let published = || load.publish().args(flags).exits(0).json();
        assert_eq!(published()["verify"]["status"], "same");
        let with = |mut row: Value, last: bool| {
            row["last"] = json!(last);
            row["site"] = json!("n°1");
            row
        };
        assert_eq!(
            values(&load),
            [
                with(row(1, "a", 1), false),
                with(row(1, "b", 2), false),
                with(row(2, "a", 3), true)
            ]
        );
        // Run again there is nothing to do, and the flags are those of the job.
        assert_eq!(published()["verify"]["status"], "same");
        assert_eq!(count(cluster, &load.topic), 3);

        let load = Load::of(cluster, text);
        let published = load
            .publish()
            .args(["--group-by", "time"])
            .args(flags)
            .exits(0)
            .json();
        assert_eq!(published["verify"]["status"], "same", "{published}");
        let group = |time: u32, last: bool, rows: Value| json!({"time": time, "last": last, "site": "n°1", "rows": rows});
        assert_eq!(
            values(&load),
            [
                group(1, false, json!([row(1, "a", 1), row(1, "b", 2)])),
                group(2, true, json!([row(2, "a", 3)]))
            ]
        );

        // A column keeps its type, and JSON has the fields too.
        let load = Load::of(cluster, text);
        let flags = ["--format", "json", "--set", "cpu=5", "--set", "site=s"];
        load.publish().args(flags).arg("--verify").exits(0);
        let mut first = row(1, "a", 5);
        first["site"] = json!("s");
        assert_eq!(values(&load)[0], first);
        let refused = load
            .publish()
            .args(["--restart", "--set", "my site=s"])
            .exits(2);
        assert!(
            refused.stdout.contains("cannot be called `my site`"),
            "{refused}"
        );
    });
}

#[test]
fn a_group_that_comes_again_is_a_warning_or_an_error() {
    for_each_cluster(|cluster| {
        let text = "time,host\n1,a\n2,a\n1,b\n3,a\n2,b\n";
        let load = Load::of(cluster, text);
        let loose = load.publish().args(["--group-by", "time"]).exits(0);
        let warnings = loose.json()["warnings"].to_string();
        for part in [
            "2 groups came again",
            "time = `1`",
            "row 1",
            "row 3",
            "--strict-groups",
        ] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
        assert_eq!(count(cluster, &load.topic), 5);
        let load = Load::of(cluster, text);
        let strict = || {
            load.publish()
                .args(["--group-by", "time", "--strict-groups"])
        };
        for _ in 0..2 {
            let refused = strict().exits(3);
            let error = refused.json()["error"].to_string();
            for part in ["row 3 (line 4)", "began with row 1", "sort the input"] {
                assert!(error.contains(part), "{part}: {refused}");
            }
            assert_eq!(count(cluster, &load.topic), 2);
        }
    });
}

#[test]
fn what_grouping_needs_is_said() {
    let load = ["publish", "a.csv", "-t", "t"];
    for flag in ["--strict-groups", "--partial-groups"] {
        let refused = common::tidegate(load).arg(flag).exits(2);
        assert!(refused.stderr.contains("--group-by"), "{refused}");
    }
    let refused = common::tidegate(load).args(["--set", "novalue"]).exits(2);
    assert!(refused.stderr.contains("NAME=VALUE"), "{refused}");
}
