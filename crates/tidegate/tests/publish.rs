//! `tidegate publish` from the file to the topic and back, on the embedded broker and on real Kafka.

mod common;

use common::{Exits, Folder, count, on, records, tidegate, usage};
use serde_json::{Value, json};
use tidegate_testkit::for_each_cluster;

#[test]
fn rows_become_records_keyed_by_their_timestamp() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(3, 2));
        let topic = cluster.unique("rows");
        let published = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "-o",
                "json",
            ],
        )
        .exits(0);
        let summary = published.json();
        assert_eq!(summary["command"], "publish");
        assert_eq!(summary["status"], "complete");
        assert_eq!(summary["exit_code"], 0);
        assert_eq!(summary["rows"]["read"], 6);
        assert_eq!(summary["rows"]["accepted"], 6);
        assert_eq!(summary["rows"]["rejected"], 0);
        assert_eq!(summary["records"]["delivered"], 6);
        assert_eq!(summary["topic"], json!(topic));
        assert!(summary["schema_id"].is_u64(), "{published}");
        assert_eq!(summary["resumed_at_row"], Value::Null);
        assert_eq!(summary["this_run"]["rows"], 6);
        assert!(summary["this_run"]["seconds"].is_number(), "{published}");
        let found = records(cluster, &topic);
        assert_eq!(found.len(), 6);
        assert_eq!(found[2]["key"], "1");
        let expected =
            json!({ "timestamp": 1, "container_id": "c_1", "machine_id": "n_1", "cpu": 1.5 });
        assert_eq!(found[2]["value"], expected);
    });
}

#[test]
fn partitions_in_the_summary_are_those_of_the_topic() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(40, 1));
        let topic = cluster.unique("partitions");
        let published = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--partitions",
                "4",
                "-o",
                "json",
            ],
        )
        .exits(0);
        let summary = published.json();
        let partitions = summary["partitions"].as_array().unwrap();
        let total: u64 = partitions
            .iter()
            .map(|partition| partition["records"].as_u64().unwrap())
            .sum();
        assert_eq!(total, 40);
        let found = records(cluster, &topic);
        for partition in partitions
            .iter()
            .filter(|partition| partition["records"] != 0)
        {
            let offsets: Vec<&Value> = found
                .iter()
                .filter(|record| record["partition"] == partition["partition"])
                .map(|record| &record["offset"])
                .collect();
            assert_eq!(
                offsets.first(),
                Some(&&partition["first_offset"]),
                "{published}"
            );
            assert_eq!(
                offsets.last(),
                Some(&&partition["last_offset"]),
                "{published}"
            );
            assert_eq!(offsets.len() as u64, partition["records"].as_u64().unwrap());
        }
    });
}

#[test]
fn each_compression_arrives() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(50, 10));
        for codec in ["none", "lz4", "zstd", "gzip", "snappy"] {
            let topic = cluster.unique(codec);
            let arguments = [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--compression",
                codec,
                "--verify",
            ];
            on(cluster, arguments).exits(0);
            assert_eq!(count(cluster, &topic), 500, "{codec}");
        }
    });
}

#[test]
fn a_plan_line_and_a_summary_are_told() {
    let folder = Folder::new();
    folder.file("usage.csv", usage(3, 2));
    let published = tidegate([
        "publish",
        "usage.csv",
        "-t",
        "usage",
        "--group-by",
        "timestamp",
    ])
    .dir(folder.path("."))
    .exits(0);
    for part in [
        "usage.csv",
        "about 6 rows",
        "inferred from 6 rows",
        "key timestamp",
        "topic usage",
        "1 partition",
        "exactly-once",
    ] {
        assert!(
            published.stderr.contains(part),
            "{part} is missing\n{published}"
        );
    }
    assert!(
        published.stdout.contains("6 read, 6 accepted, 0 rejected"),
        "{published}"
    );
    assert!(published.stdout.contains("3 delivered"), "{published}");
    let quiet = tidegate(["publish", "usage.csv", "-t", "quiet", "-q"])
        .dir(folder.path("."))
        .exits(0);
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        ("", ""),
        "{quiet}"
    );
}

/// README's first command, in an empty folder.
#[test]
fn the_first_command_needs_nothing() {
    let folder = Folder::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/usage.csv");
    let arguments = [
        "publish",
        example,
        "-t",
        "usage",
        "--group-by",
        "timestamp",
        "--verify",
        "-o",
        "json",
    ];
    let published = tidegate(arguments).dir(folder.path(".")).exits(0);
    let summary = published.json();
    assert_eq!(
        (&summary["rows"]["read"], &summary["records"]["delivered"]),
        (&json!(240), &json!(24))
    );
    assert_eq!(summary["verify"]["status"], "same");
    let consumed = tidegate(["consume", "-t", "usage", "--until-end"])
        .dir(folder.path("."))
        .exits(0);
    assert_eq!(
        consumed.stdout.lines().count(),
        24,
        "what was published is there in the next process\n{consumed}"
    );
    let again = tidegate(arguments).dir(folder.path(".")).exits(0).json();
    assert_eq!(
        (&again["status"], &again["partitions"]),
        (&json!("already-published"), &summary["partitions"])
    );
    assert_eq!(again["verify"]["status"], "same");
}

#[test]
fn the_examples_schema_fits_the_examples_rows() {
    let folder = Folder::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let (csv, schema) = (
        format!("{examples}/usage.csv"),
        format!("{examples}/usage.avsc"),
    );
    let arguments = [
        "publish",
        &csv,
        "-t",
        "usage",
        "--group-by",
        "timestamp",
        "--schema",
        &schema,
        "--verify",
    ];
    tidegate(arguments).dir(folder.path(".")).exits(0);
    let shown = tidegate(["schema", "show", "-t", "usage"])
        .dir(folder.path("."))
        .exits(0);
    assert!(shown.stdout.contains("ContainerUsage"), "{shown}");
}

#[test]
fn json_needs_no_registry() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(2, 1));
        let topic = cluster.unique("json");
        let published = tidegate([
            "publish",
            &file,
            "-t",
            &topic,
            "--format",
            "json",
            "--create-topic",
            "-b",
            cluster.bootstrap(),
            "-o",
            "json",
        ])
        .exits(0);
        assert_eq!(published.json()["schema_id"], Value::Null);
        let consumed = on(
            cluster,
            ["consume", "-t", &topic, "--until-end", "--format", "raw"],
        )
        .exits(0);
        let value: Value = serde_json::from_str(consumed.stdout.lines().next().unwrap()).unwrap();
        assert_eq!(
            value,
            json!({ "timestamp": 0, "container_id": "c_1", "machine_id": "n_1", "cpu": 1.5 })
        );
    });
}

#[test]
fn the_subjects_latest_schema_is_used() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let topic = cluster.unique("latest");
        let schema = folder.file(
            "wide.avsc",
            r#"{"type": "record", "name": "wide", "fields": [
                {"name": "a", "type": "double"}, {"name": "b", "type": ["null", "string"], "default": null}]}"#,
        );
        on(cluster, ["schema", "register", &schema, "-t", &topic]).exits(0);
        let file = folder.file("a.csv", "a\n1\n2\n");
        let published = on(
            cluster,
            ["publish", &file, "-t", &topic, "--create-topic", "--verify"],
        )
        .exits(0);
        assert!(
            published.stderr.contains("version 1 of the registry"),
            "{published}"
        );
        let found = records(cluster, &topic);
        assert_eq!(found[0]["value"], json!({ "a": 1.0, "b": null }));
    });
}

#[test]
fn keys_are_chosen() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("k.csv", "id,name,time\n1,a,10\n2,b,20\n");
        for (flags, expected) in [
            (&["--key", "name"][..], json!("a")),
            (&["--key", "id,name"], json!("[\"1\",\"a\"]")),
            (&["--no-key"], Value::Null),
            (&[], json!("10")),
        ] {
            let topic = cluster.unique("keys");
            on(cluster, ["publish", &file, "-t", &topic, "--create-topic"])
                .args(flags)
                .exits(0);
            assert_eq!(records(cluster, &topic)[0]["key"], expected, "{flags:?}");
        }
    });
}

#[test]
fn stdin_is_read_with_a_schema() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let schema = folder.file(
            "a.avsc",
            r#"{"type": "record", "name": "a", "fields": [{"name": "a", "type": "long"}]}"#,
        );
        let topic = cluster.unique("stdin");
        let publish = on(
            cluster,
            [
                "publish",
                "-",
                "-t",
                &topic,
                "--create-topic",
                "--schema",
                &schema,
            ],
        );
        publish.input("a\n1\n2\n").exits(0);
        assert_eq!(count(cluster, &topic), 2);
        let guess = on(cluster, ["publish", "-", "-t", &cluster.unique("stdin")])
            .input("a\n1\n")
            .exits(2);
        assert!(guess.stderr.contains("--schema"), "{guess}");
    });
}

#[test]
fn a_dry_run_changes_nothing() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(3, 2));
        let topic = cluster.unique("dry");
        let planned = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--dry-run",
                "-o",
                "json",
            ],
        )
        .exits(0);
        let summary = planned.json();
        assert_eq!(summary["status"], "planned");
        assert_eq!(summary["rows"]["read"], 6);
        assert_eq!(summary["records"]["delivered"], 0);
        assert_eq!(count(cluster, &topic), -1, "the topic was created");
        on(cluster, ["schema", "show", "-t", &topic]).exits(6);
    });
}

#[test]
fn an_existing_topic_must_have_the_partitions_that_are_asked_for() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(1, 1));
        let topic = cluster.unique("count");
        let publish = |count: &str| {
            on(
                cluster,
                [
                    "publish",
                    &file,
                    "-t",
                    &topic,
                    "--create-topic",
                    "--partitions",
                    count,
                ],
            )
            .run()
        };
        publish("2").exits(0);
        let refused = publish("3").exits(6);
        assert!(
            refused.stderr.contains("has 2 partitions, not 3"),
            "{refused}"
        );
        publish("2").exits(0);
    });
}

#[test]
fn a_topic_is_created_on_a_cluster_only_when_asked() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(1, 1));
        let topic = cluster.unique("missing");
        let refused = on(cluster, ["publish", &file, "-t", &topic]).exits(6);
        assert!(
            refused.stderr.contains(&topic) && refused.stderr.contains("--create-topic"),
            "{refused}"
        );
        assert_eq!(count(cluster, &topic), -1);
        let wide = ["publish", &file, "-t", &topic, "--create-topic"];
        let refused = on(cluster, wide)
            .args(["--replication-factor", "3", "--format", "json"])
            .exits(6);
        assert!(
            refused.stderr.contains("all brokers run"),
            "one broker is no three: {refused}"
        );
        assert_eq!(count(cluster, &topic), -1);
        on(cluster, ["schema", "show", "-t", &topic]).exits(6);
    });
}
