//! The topic for rejected rows: each of them is there once, with its place and the reason, whatever happens to the load.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::load::{Load, PATIENCE};
use common::{Exits, count, on, tidegate};
use serde_json::{Value, json};
use tidegate_testkit::matrix::Counts;
use tidegate_testkit::program::wait_until;
use tidegate_testkit::{Cluster, Tidegate, for_each_cluster};

const SCHEMA: &str = r#"{"type": "record", "name": "s", "fields": [
    {"name": "time", "type": "long"}, {"name": "cpu", "type": "double"}]}"#;

/// Rows of which every third is bad.
fn text(rows: u32) -> String {
    let mut text = String::from("time,cpu\n");
    for row in 1..=rows {
        let cpu = if row % 3 == 0 { "x" } else { "1" };
        text.push_str(&format!("{row},{cpu}\n"));
    }
    text
}

/// The headers of the records of a topic, as a reader of committed records has them.
fn rejected(cluster: &Cluster, topic: &str) -> Vec<BTreeMap<String, String>> {
    let consumed = on(cluster, ["consume", "-t", topic, "--until-end"]).exits(0);
    let headers = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["key"], Value::Null);
        let headers = record["headers"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pair = |header: &Value| (text(&header["name"]), text(&header["value"]));
        headers.iter().map(pair).collect()
    };
    consumed.stdout.lines().map(headers).collect()
}

fn rows_of(rejected: &[BTreeMap<String, String>]) -> Vec<u32> {
    let mut rows: Vec<u32> = rejected
        .iter()
        .map(|headers| headers["row"].parse().unwrap())
        .collect();
    rows.sort_unstable();
    rows
}

fn every_third(rows: u32) -> Vec<u32> {
    (1..=rows).filter(|row| row % 3 == 0).collect()
}

fn publish(load: &Load<'_>, dead: &str) -> Tidegate {
    let schema = load.folder.file("s.avsc", SCHEMA);
    load.publish()
        .args(["--schema", &schema, "--rejects-topic", dead])
}

#[test]
fn a_rejected_row_is_a_record_with_its_place_and_the_reason() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, "time,cpu\n1,1\n2,much\n3\n4,2\n");
        let dead = cluster.unique("dead");
        let both = load.folder.name("rejects.jsonl");
        // A dry run creates and writes nothing.
        let planned = publish(&load, &dead).arg("--dry-run").exits(0).json();
        assert_eq!(planned["rows"]["rejected"], 2);
        assert_eq!(count(cluster, &dead), -1);
        let flags = [
            "--rejects",
            &both,
            "--on-bad-row",
            "skip",
            "--max-rejects",
            "2",
            "--verify",
        ];
        let summary = publish(&load, &dead).args(flags).exits(0).json();
        assert_eq!(summary["verify"]["status"], "same", "{summary}");
        assert_eq!(
            (&summary["rows"]["accepted"], &summary["rows"]["rejected"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(summary["rejects"][0]["first"]["row"], 2);
        let found = rejected(cluster, &dead);
        let file = std::fs::read_to_string(&both).unwrap();
        assert_eq!((found.len(), file.lines().count()), (2, 2));
        let first: Value = serde_json::from_str(file.lines().next().unwrap()).unwrap();
        for name in ["row", "line", "byte", "column", "kind", "reason"] {
            let text = match &first[name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(found[0][name], text, "{name}");
        }
        assert_eq!(found[0]["topic"], load.topic);
        assert_eq!(found[0]["job"], load.job());
        assert!(found[0]["file"].ends_with("usage.csv"), "{found:?}");
        let raw = on(
            cluster,
            ["consume", "-t", &dead, "--until-end", "--format", "raw"],
        )
        .exits(0);
        assert_eq!(raw.stdout, "2,much\n3\n");
        // Going on with it, without any rows, adds none.
        publish(&load, &dead).args(["--rejects", &both]).exits(0);
        assert_eq!(count_of(cluster, &dead), 2);
    });
}

fn count_of(cluster: &Cluster, topic: &str) -> usize {
    rejected(cluster, topic).len()
}

#[test]
fn t01_a_killed_load_rejects_each_row_once() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, text(90));
        let dead = cluster.unique("dead");
        for limit in ["10", "30"] {
            let group = cluster.unique("group");
            let held = ["--hold-group", &group, "--hold-limit", limit];
            let running = publish(&load, &dead).args(held).start();
            let there: i64 = limit.parse().unwrap();
            wait_until(PATIENCE, || count(cluster, &load.topic) >= there).unwrap();
            assert_eq!(running.kill().code, None);
        }
        let found = rows_of(&rejected(cluster, &dead));
        assert!(!found.is_empty() && found.len() < 30, "{found:?}");
        assert_eq!(found, every_third(90)[..found.len()]);
        // Another place for them, or none, would part them.
        for flags in [
            &["--rejects-topic", "elsewhere"][..],
            &["--rejects", "r.jsonl"],
            &[],
        ] {
            let refused = load.publish().args(flags).exits(2);
            assert!(refused.stdout.contains(&dead), "{refused}");
        }
        let summary = publish(&load, &dead).arg("--verify").exits(0).json();
        assert_eq!(
            (&summary["rows"]["accepted"], &summary["rows"]["rejected"]),
            (&json!(60), &json!(30))
        );
        assert_eq!(summary["verify"]["status"], "same", "{summary}");
        assert_eq!(rows_of(&rejected(cluster, &dead)), every_third(90));
        assert_eq!(count(cluster, &load.topic), 60);
        let accepted = (1..=90).filter(|row| row % 3 != 0);
        let counts = Counts::of_keys(cluster.bootstrap(), &load.topic, accepted);
        load.cell(1, "killed twice while rejected rows go to a topic")
            .fired(2)
            .counts(counts)
            .code(Some(0))
            .record();
    });
}

/// A load of nothing but bad rows commits them, too, as it goes.
#[test]
fn a_load_of_bad_rows_alone_is_committed() {
    for_each_cluster(|cluster| {
        let rows: String = (0..20_000).map(|row| format!("{row},bad\n")).collect();
        let load = Load::of(cluster, format!("time,cpu\n{rows}"));
        let dead = cluster.unique("dead");
        let summary = publish(&load, &dead).exits(0).json();
        assert_eq!(summary["rows"]["rejected"], 20_000);
        assert_eq!(summary["rejects"][0]["count"], 20_000);
        assert_eq!(count_of(cluster, &dead), 20_000);
    });
}

#[test]
fn without_transactions_rejected_rows_are_sent_too() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, text(9));
        let dead = cluster.unique("dead");
        publish(&load, &dead)
            .args(["--delivery", "at-least-once"])
            .exits(0);
        assert_eq!(rows_of(&rejected(cluster, &dead)), every_third(9));
        let schema = load.folder.file("s.avsc", SCHEMA);
        let arguments = ["publish", "-", "-t", &load.topic, "--schema", &schema];
        let stream = on(cluster, arguments).args(["--rejects-topic", &dead]);
        stream.input(text(3)).exits(0);
        assert_eq!(count_of(cluster, &dead), 4);
    });
}

#[test]
fn a_topic_that_cannot_hold_them_is_refused() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, text(3));
        let refused = publish(&load, &load.topic).exits(2);
        assert!(refused.stdout.contains("--rejects-topic"), "{refused}");
        let refused = publish(&load, "tidegate-positions").exits(2);
        assert!(refused.stdout.contains("--rejects-topic"), "{refused}");
        assert_eq!(count(cluster, &load.topic), -1, "nothing was created");
        let budget = ["publish", "a.csv", "-t", "t", "--max-rejects", "3"];
        let refused = tidegate(budget).exits(2);
        assert!(refused.stderr.contains("--rejects-topic"), "{refused}");
    });
}

/// A file for rejected rows is written by one run at a time: another one does not touch it, whatever it would make of the job.
#[test]
fn a_file_for_rejects_belongs_to_one_run() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, text(300));
        let (group, file) = (cluster.unique("group"), load.folder.name("bad.jsonl"));
        let schema = load.folder.file("s.avsc", SCHEMA);
        let publish = || {
            load.publish()
                .args(["--schema", &schema, "--rejects", &file])
        };
        let held = ["--hold-group", &group, "--hold-limit", "100"];
        let first = publish().args(held).start();
        wait_until(PATIENCE, || count(cluster, &load.topic) == 100).unwrap();
        let before = std::fs::read_to_string(&file).unwrap();
        let second = publish().exits(10);
        assert!(second.stderr.contains("bad.jsonl"), "{second}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
        assert_eq!(first.kill().code, None);
        // The file is free with the death of who had it.
        publish().exits(0);
        let lines = std::fs::read_to_string(&file).unwrap();
        let row = |line: &str| serde_json::from_str::<Value>(line).unwrap()["row"].as_u64();
        let rows: Vec<u32> = lines
            .lines()
            .map(|line| u32::try_from(row(line).unwrap()).unwrap())
            .collect();
        assert_eq!(rows, every_third(300));
    });
}
