//! Holding back for a consumer group, waiting for it, and what `balance` says of it.

mod common;

use std::time::Duration;

use common::{Exits, Folder, on, usage};
use serde_json::{Value, json};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::{Cluster, for_each_cluster};

/// Publishes 12 records and gives the receipt's path.
fn published(cluster: &Cluster, folder: &Folder, topic: &str) -> String {
    let file = folder.file("usage.csv", usage(12, 10));
    let receipt = folder.name("receipt.json");
    let arguments = [
        "publish",
        &file,
        "-t",
        topic,
        "--create-topic",
        "--group-by",
        "timestamp",
        "--receipt",
        &receipt,
    ];
    on(cluster, arguments).exits(0);
    receipt
}

#[test]
fn balance_is_done_only_when_everything_is_committed() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let (topic, group) = (cluster.unique("balance"), cluster.unique("group"));
        let receipt = published(cluster, &folder, &topic);
        let balance = |timeout: &str| {
            on(
                cluster,
                [
                    "balance",
                    "-g",
                    &group,
                    "--receipt",
                    &receipt,
                    "--timeout",
                    timeout,
                    "-o",
                    "json",
                ],
            )
            .run()
        };
        let before = balance("300ms").exits(8).json();
        assert_eq!(
            (&before["status"], &before["exit_code"], &before["group"]),
            (&json!("behind"), &json!(8), &json!(group))
        );
        let expected =
            json!({ "partition": 0, "target": 12, "committed": null, "behind": 12, "exact": true });
        assert_eq!(before["partitions"], json!([expected]));
        on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--max", "11"],
        )
        .exits(0);
        let behind = balance("300ms").exits(8).json();
        assert_eq!(
            (
                &behind["partitions"][0]["committed"],
                &behind["partitions"][0]["behind"]
            ),
            (&json!(11), &json!(1))
        );
        on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--max", "1"],
        )
        .exits(0);
        let after = balance("10s").exits(0).json();
        assert_eq!(
            (&after["status"], &after["partitions"][0]["behind"]),
            (&json!("balanced"), &json!(0))
        );
    });
}

#[test]
fn a_group_that_is_behind_is_shown_as_a_table() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let (topic, group) = (cluster.unique("table"), cluster.unique("group"));
        published(cluster, &folder, &topic);
        let behind = on(
            cluster,
            ["balance", "-g", &group, "-t", &topic, "--timeout", "0s"],
        )
        .exits(8);
        assert!(
            behind.stdout.contains("partition") && behind.stdout.contains("committed"),
            "{behind}"
        );
        assert!(behind.stdout.contains("12"), "{behind}");
        assert!(behind.stderr.contains("has committed nothing"), "{behind}");
        on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--until-end"],
        )
        .exits(0);
        let done = on(cluster, ["balance", "-g", &group, "-t", &topic]).exits(0);
        assert!(done.stdout.contains("has committed everything"), "{done}");
    });
}

#[test]
fn a_load_waits_for_its_group() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let (topic, group) = (cluster.unique("wait"), cluster.unique("group"));
        published(cluster, &folder, &topic);
        let consumer = on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--max", "24"],
        )
        .start();
        let file = folder.name("usage.csv");
        let arguments = [
            "publish",
            &file,
            "-t",
            &topic,
            "--group-by",
            "timestamp",
            "--wait-group",
            &group,
            "--wait-timeout",
            "60s",
            "--restart",
            "-o",
            "json",
        ];
        let summary = on(cluster, arguments).exits(0).json();
        assert_eq!(
            (&summary["status"], &summary["wait"]["status"]),
            (&json!("complete"), &json!("balanced"))
        );
        let waited = &summary["wait"]["partitions"][0];
        assert_eq!(waited["behind"], 0, "{waited}");
        assert!(waited["committed"].as_i64() >= waited["target"].as_i64());
        let consumed = consumer.finish().exits(0);
        assert_eq!(consumed.stdout.lines().count(), 24);
    });
}

#[test]
fn t31_a_load_whose_group_does_not_come_exits_with_8_and_says_that_it_is_complete() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(2, 1));
        let (topic, group) = (cluster.unique("alone"), cluster.unique("group"));
        let arguments = [
            "publish",
            &file,
            "-t",
            &topic,
            "--create-topic",
            "--wait-group",
            &group,
            "--wait-timeout",
            "300ms",
            "-o",
            "json",
        ];
        let summary = on(cluster, arguments).exits(8).json();
        assert_eq!(
            (&summary["status"], &summary["exit_code"]),
            (&json!("complete"), &json!(8))
        );
        assert_eq!(
            (&summary["wait"]["status"], &summary["wait"]["exit_code"]),
            (&json!("behind"), &json!(8))
        );
        assert_eq!(summary["error"]["kind"], "behind");
        Cell::new(31, "a group that never comes is waited for")
            .on(cluster.kind())
            .fired(1)
            .counts(Counts::of_keys(cluster.bootstrap(), &topic, 0..2))
            .code(Some(8))
            .record();
    });
}

#[test]
fn t31_a_held_load_never_runs_ahead_of_its_group() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(200, 1));
        let (topic, group) = (cluster.unique("hold"), cluster.unique("group"));
        let held = on(
            cluster,
            [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--hold-group",
                &group,
                "--hold-limit",
                "20",
            ],
        )
        .args(["--hold-timeout", "500ms", "-o", "json"])
        .exits(8);
        let summary = held.json();
        assert_eq!(summary["status"], "failed");
        assert_eq!(
            summary["records"]["delivered"], 20,
            "a hard bound, and used to the full\n{held}"
        );
        let consumer = on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--max", "200"],
        )
        .start();
        let arguments = [
            "publish",
            &file,
            "-t",
            &topic,
            "--hold-group",
            &group,
            "--hold-limit",
            "20",
            "-o",
            "json",
        ];
        let summary = on(cluster, arguments)
            .timeout(Duration::from_secs(60))
            .exits(0)
            .json();
        assert_eq!(summary["records"]["delivered"], 200);
        assert_eq!(consumer.finish().exits(0).stdout.lines().count(), 200);
        Cell::new(
            31,
            "a group that never comes holds a load back, then one that is slow",
        )
        .on(cluster.kind())
        .fired(2)
        .counts(Counts::of_keys(cluster.bootstrap(), &topic, 0..200))
        .code(Some(0))
        .code(Some(8))
        .record();
    });
}

#[test]
fn a_receipt_goes_round() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let topic = cluster.unique("receipt");
        let receipt = published(cluster, &folder, &topic);
        let json: Value =
            serde_json::from_str(&std::fs::read_to_string(&receipt).unwrap()).unwrap();
        assert_eq!(
            (
                &json["topic"],
                &json["rows"]["read"],
                &json["records"]["delivered"]
            ),
            (&json!(topic), &json!(120), &json!(12))
        );
        let verified = on(cluster, ["verify", "--receipt", &receipt, "-o", "json"])
            .exits(0)
            .json();
        assert_eq!(
            (&verified["status"], &verified["records"], &verified["rows"]),
            (&json!("same"), &json!(12), &json!(120))
        );
        std::fs::write(folder.path("broken.json"), "{}").unwrap();
        on(
            cluster,
            ["verify", "--receipt", &folder.name("broken.json")],
        )
        .exits(11);
        on(
            cluster,
            [
                "balance",
                "-g",
                "g",
                "--receipt",
                &folder.name("missing.json"),
            ],
        )
        .exits(11);
    });
}
