//! Input, flags and services that are not as they should be: each a clear message, the right exit code, nothing half written.

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::{Exits, Folder, count, on, records, tidegate, usage};
use serde_json::{Value, json};
use tidegate_testkit::for_each_cluster;
use tidegate_testkit::matrix::{Cell, Counts};

#[test]
fn a_missing_file_exits_with_11() {
    let missing = tidegate([
        "publish",
        "nowhere.csv",
        "-t",
        "t",
        "-b",
        "127.0.0.1:1",
        "--format",
        "json",
    ])
    .exits(11);
    assert!(missing.stderr.contains("nowhere.csv"), "{missing}");
    let folder = Folder::new();
    let of_a_folder = tidegate([
        "publish",
        &folder.name("."),
        "-t",
        "t",
        "-b",
        "127.0.0.1:1",
        "--format",
        "json",
    ]);
    of_a_folder.exits(11);
}

#[test]
fn t26_an_empty_file_exits_with_3_and_a_header_alone_with_0() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let topic = cluster.unique("empty");
        let empty = folder.file("empty.csv", "");
        let refused = on(cluster, ["publish", &empty, "-t", &topic, "--create-topic"]).exits(3);
        assert!(
            refused.stderr.contains("empty.csv") && refused.stderr.contains("empty"),
            "{refused}"
        );
        assert_eq!(
            count(cluster, &topic),
            -1,
            "the topic was created for nothing"
        );
        let header = folder.file("header.csv", "a,b\n");
        let published = on(
            cluster,
            [
                "publish",
                &header,
                "-t",
                &topic,
                "--create-topic",
                "-o",
                "json",
            ],
        )
        .exits(0);
        assert_eq!(published.json()["rows"]["read"], 0);
        assert!(published.stderr.contains("no rows"), "{published}");
        assert_eq!(
            count(cluster, &topic),
            -1,
            "the topic was created for nothing"
        );
        Cell::new(26, "an empty file, a header alone")
            .on(cluster.kind())
            .fired(2)
            .code(refused.code)
            .code(published.code)
            .record();
    });
}

#[test]
fn a_key_column_that_is_not_there_exits_with_2() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(1, 1));
        let topic = cluster.unique("key");
        for flag in ["--key", "--group-by"] {
            let refused = on(
                cluster,
                [
                    "publish",
                    &file,
                    "-t",
                    &topic,
                    "--create-topic",
                    flag,
                    "tiemstamp",
                ],
            )
            .exits(2);
            assert!(refused.stderr.contains("tiemstamp"), "{refused}");
            assert_eq!(count(cluster, &topic), -1);
        }
    });
}

#[test]
fn fields_and_columns_that_do_not_meet() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("a.csv", "a,extra\n1,2\n");
        let topic = cluster.unique("fields");
        let schema = r#"{"type": "record", "name": "r", "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "long"}]}"#;
        let schema = folder.file("b.avsc", schema);
        let refused = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--schema",
                &schema,
            ],
        )
        .exits(6);
        assert!(refused.stderr.contains('b'), "{refused}");
        on(cluster, ["schema", "show", "-t", &topic]).exits(6);
        let fitting =
            r#"{"type": "record", "name": "r", "fields": [{"name": "a", "type": "long"}]}"#;
        let fitting = folder.file("a.avsc", fitting);
        let warned = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--schema",
                &fitting,
            ],
        )
        .exits(0);
        assert!(
            warned.stderr.contains("warning:") && warned.stderr.contains("extra"),
            "{warned}"
        );
    });
}

#[test]
fn t15_an_unreachable_broker_exits_with_4_within_15_s_and_is_named() {
    let folder = Folder::new();
    let file = folder.file("usage.csv", usage(1, 1));
    // Nothing listens on port 1, which refuses; a listener that never answers stalls.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for address in ["127.0.0.1:1", silent.as_str()] {
        let refused = tidegate([
            "publish", &file, "-t", "t", "--format", "json", "-b", address, "-o", "json",
        ])
        .timeout(Duration::from_secs(15))
        .exits(4);
        assert!(refused.stderr.contains(address), "{refused}");
        let error = &refused.json()["error"];
        assert_eq!(error["kind"], "unreachable");
        assert!(!error["hints"].as_array().unwrap().is_empty());
    }
    Cell::new(
        15,
        "nobody listens at the broker's address, or nobody answers",
    )
    .fired(2)
    .code(Some(4))
    .record();
}

#[test]
fn t20_an_unreachable_registry_exits_with_6() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(1, 1));
        let topic = cluster.unique("registry");
        let arguments = [
            "publish",
            &file,
            "-t",
            &topic,
            "--create-topic",
            "-b",
            cluster.bootstrap(),
            "--registry",
            "http://127.0.0.1:1",
        ];
        let refused = tidegate(arguments)
            .timeout(Duration::from_secs(15))
            .exits(6);
        assert!(refused.stderr.contains("127.0.0.1:1"), "{refused}");
        assert_eq!(count(cluster, &topic), -1);
        Cell::new(20, "nobody listens at the registry's address")
            .on(cluster.kind())
            .fired(1)
            .code(refused.code)
            .record();
    });
}

#[test]
fn avro_on_a_cluster_without_a_registry_exits_with_2() {
    let folder = Folder::new();
    let file = folder.file("usage.csv", usage(1, 1));
    let refused = tidegate(["publish", &file, "-t", "t", "-b", "127.0.0.1:1"]).exits(2);
    assert!(
        refused.stderr.contains("--registry") && refused.stderr.contains("--format json"),
        "{refused}"
    );
}

#[test]
fn t26_a_bad_row_stops_the_load_and_is_named() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let schema = folder.file(
            "s.avsc",
            r#"{"type": "record", "name": "s", "fields": [{"name": "time", "type": "long"}, {"name": "cpu", "type": "double"}]}"#,
        );
        let file = folder.file("bad.csv", "time,cpu\n1,0.5\n2,\"1.\n5\"\n3,1.5\n");
        let topic = cluster.unique("stop");
        let arguments = [
            "publish",
            &file,
            "-t",
            &topic,
            "--create-topic",
            "--schema",
            &schema,
            "-o",
            "json",
        ];
        let stopped = on(cluster, arguments).exits(3);
        for part in ["row 2", "line 3", "cpu"] {
            assert!(
                stopped.stderr.contains(part),
                "{part} is missing\n{stopped}"
            );
        }
        let summary = stopped.json();
        assert_eq!(summary["status"], "failed");
        assert_eq!(summary["exit_code"], 3);
        assert_eq!(summary["error"]["kind"], "input");
        Cell::new(26, "a number that does not parse stops the load")
            .on(cluster.kind())
            .fired(1)
            .code(stopped.code)
            .record();
    });
}

#[test]
fn t26_bad_rows_are_skipped_into_the_rejects_file() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let schema = folder.file(
            "s.avsc",
            r#"{"type": "record", "name": "s", "fields": [{"name": "time", "type": "long"}, {"name": "cpu", "type": "double"}]}"#,
        );
        let file = folder.file("bad.csv", "time,cpu\n1,0.5\n2,much\n3\n4,1.5\n");
        let rejects = folder.name("rejects.jsonl");
        let topic = cluster.unique("skip");
        let arguments = [
            "publish",
            &file,
            "-t",
            &topic,
            "--create-topic",
            "--schema",
            &schema,
            "--rejects",
            &rejects,
            "--verify",
            "-o",
            "json",
        ];
        let summary = on(cluster, arguments).exits(0).json();
        assert_eq!(summary["rows"]["read"], 4);
        assert_eq!(summary["rows"]["accepted"], 2);
        assert_eq!(summary["rows"]["rejected"], 2);
        let lines: Vec<Value> = std::fs::read_to_string(&rejects)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["row"], &lines[0]["line"], &lines[0]["column"]),
            (&json!(2), &json!(3), &json!("cpu"))
        );
        assert_eq!(lines[0]["raw"], "2,much");
        assert!(lines[0]["reason"].is_string());
        assert_eq!(lines[1]["row"], 3);
        let keys: Vec<Value> = records(cluster, &topic)
            .iter()
            .map(|record| record["key"].clone())
            .collect();
        assert_eq!(keys, [json!("1"), json!("4")]);
        Cell::new(26, "rows that are no rows are skipped")
            .on(cluster.kind())
            .fired(2)
            .counts(Counts::of_keys(cluster.bootstrap(), &topic, [1, 4]))
            .code(Some(0))
            .record();
    });
}

#[test]
fn t26_too_many_rejects_stop_the_load() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let schema = folder.file(
            "s.avsc",
            r#"{"type": "record", "name": "s", "fields": [{"name": "a", "type": "long"}]}"#,
        );
        let file = folder.file("bad.csv", "a\n1\nx\ny\nz\n");
        let topic = cluster.unique("many");
        let arguments = [
            "publish",
            &file,
            "-t",
            &topic,
            "--create-topic",
            "--schema",
            &schema,
            "--rejects",
            &folder.name("r"),
            "--max-rejects",
            "2",
        ];
        on(cluster, arguments).exits(3);
        Cell::new(26, "more rows are rejected than may be")
            .on(cluster.kind())
            .fired(3)
            .code(Some(3))
            .record();
    });
}

#[test]
fn skipping_needs_a_place() {
    let refused = tidegate(["publish", "a.csv", "-t", "t", "--on-bad-row", "skip"]).exits(2);
    assert!(refused.stderr.contains("--rejects"), "{refused}");
}

#[test]
fn t21_a_rejects_file_that_cannot_be_written_exits_with_11_before_anything_is_sent() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(1, 1));
        let topic = cluster.unique("rejects");
        let nowhere = folder.name("no/such/folder/rejects");
        let refused = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--rejects",
                &nowhere,
            ],
        )
        .exits(11);
        assert!(refused.stderr.contains("no/such/folder"), "{refused}");
        assert_ne!(count(cluster, &topic), 1);
        Cell::new(21, "the folder of the rejects file is missing")
            .on(cluster.kind())
            .fired(1)
            .code(refused.code)
            .record();
    });
}

#[test]
fn one_file_for_rejects_and_receipt_exits_with_2() {
    let folder = Folder::new();
    folder.file("usage.csv", usage(2, 1));
    let arguments = [
        "publish",
        "usage.csv",
        "-t",
        "t",
        "--rejects",
        "out.json",
        "--receipt",
        "out.json",
    ];
    let refused = tidegate(arguments).dir(folder.path(".")).exits(2);
    assert!(refused.stderr.contains("out.json"), "{refused}");
}

#[test]
fn a_wrong_topic_name_exits_with_2() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(1, 1));
        on(
            cluster,
            ["publish", &file, "-t", "no/slash", "--create-topic"],
        )
        .exits(2);
    });
}

#[test]
fn a_format_that_is_not_read_is_named_with_the_command_that_decompresses_it() {
    let folder = Folder::new();
    let file = folder.file("a.csv", b"PK\x03\x04\x00\x00\x00");
    let refused = tidegate(["publish", &file, "-t", "t"])
        .dir(folder.path("."))
        .exits(3);
    let said = format!("{file} is compressed with zip, which is not supported");
    assert!(refused.stderr.contains(&said), "{refused}");
    let said = format!("`unzip -p {file}`");
    assert!(refused.stderr.contains(&said), "{refused}");
}
