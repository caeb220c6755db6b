//! `tidegate consume`: where it starts, where it ends, what it prints, and what it commits.

mod common;

use std::io::Read;
use std::process::{Command, Stdio};

use common::{Exits, Folder, on, usage};
use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate::kafka::{Client, ClientConfig};
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::{Cluster, for_each_cluster};

fn topic_of(cluster: &Cluster, rows: u32) -> String {
    let folder = Folder::new();
    let file = folder.file("usage.csv", usage(rows, 1));
    let topic = cluster.unique("consume");
    on(cluster, ["publish", &file, "-t", &topic, "--create-topic"]).exits(0);
    topic
}

#[test]
fn each_format_prints_each_record() {
    for_each_cluster(|cluster| {
        let topic = topic_of(cluster, 2);
        let consume = |format: &str| {
            let consumed = on(
                cluster,
                ["consume", "-t", &topic, "--until-end", "--format", format],
            )
            .exits(0);
            consumed
                .stdout
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let record: Value = serde_json::from_str(&consume("json")[1]).unwrap();
        assert_eq!(
            (&record["topic"], &record["partition"], &record["offset"]),
            (&json!(topic), &json!(0), &json!(1))
        );
        assert_eq!(
            (&record["key"], &record["headers"]),
            (&json!("1"), &json!([]))
        );
        assert!(
            record["timestamp"].as_i64().unwrap() > 1_600_000_000_000,
            "{record}"
        );
        assert_eq!(
            consume("value")[0],
            r#"{"timestamp":0,"container_id":"c_1","machine_id":"n_1","cpu":1.5}"#
        );
        assert_eq!(
            consume("csv"),
            [
                "timestamp,container_id,machine_id,cpu",
                "0,c_1,n_1,1.5",
                "1,c_1,n_1,1.5"
            ]
        );
    });
}

#[test]
fn it_starts_and_ends_where_it_is_told() {
    for_each_cluster(|cluster| {
        let topic = topic_of(cluster, 10);
        let count = |arguments: &[&str]| {
            let consumed = on(cluster, ["consume", "-t", &topic, "--format", "value"])
                .args(arguments)
                .exits(0);
            consumed.stdout.lines().count()
        };
        assert_eq!(count(&["--until-end"]), 10);
        assert_eq!(count(&["--until-end", "--from", "7"]), 3);
        assert_eq!(count(&["--until-end", "--from", "end"]), 0);
        assert_eq!(
            count(&["--until-end", "--from", "2020-01-01T00:00:00Z"]),
            10
        );
        assert_eq!(count(&["--until-end", "--from", "2120-01-01T00:00:00Z"]), 0);
        assert_eq!(count(&["--max", "4"]), 4);
        on(
            cluster,
            ["consume", "-t", &cluster.unique("missing"), "--until-end"],
        )
        .exits(6);
    });
}

#[test]
fn a_group_goes_on_where_it_has_committed() {
    for_each_cluster(|cluster| {
        let topic = topic_of(cluster, 10);
        let group = cluster.unique("group");
        let offsets = |arguments: &[&str]| {
            let consumed = on(cluster, ["consume", "-t", &topic, "-g", &group])
                .args(arguments)
                .exits(0);
            let lines = consumed.stdout.lines();
            lines
                .map(|line| {
                    serde_json::from_str::<Value>(line).unwrap()["offset"]
                        .as_i64()
                        .unwrap()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(offsets(&["--max", "4"]), [0, 1, 2, 3]);
        assert_eq!(offsets(&["--until-end"]), [4, 5, 6, 7, 8, 9]);
        assert_eq!(offsets(&["--until-end"]), [0_i64; 0]);
        on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--from", "3"],
        )
        .exits(2);
    });
}

/// Its records were deleted before it came to read them, say.
#[test]
fn a_group_whose_offset_is_not_in_the_log_is_told_where_it_goes_on() {
    for_each_cluster(|cluster| {
        let topic = topic_of(cluster, 10);
        let group = cluster.unique("group");
        let client = ClientConfig::new(cluster.bootstrap()).unwrap();
        let admin = Client::connect(client).unwrap().admin();
        admin.commit_offsets(&group, &topic, &[(0, 77)]).unwrap();
        let consumed = on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--max", "10"],
        );
        let consumed = consumed.exits(0);
        assert_eq!(consumed.stdout.lines().count(), 10, "{consumed}");
        let said = format!(
            "warning: topic {topic}, partition 0: the log does not hold offset 77, where the group had come to; reading goes on at 0\n"
        );
        assert!(consumed.stderr.contains(&said), "{consumed}");
    });
}

/// One partition and three members: those without it end with the group, not never.
#[test]
fn members_without_partitions_end_when_their_group_is_done() {
    for_each_cluster(|cluster| {
        let topic = topic_of(cluster, 10);
        let group = cluster.unique("group");
        let mut owner = on(cluster, ["consume", "-t", &topic, "-g", &group]).start();
        on(
            cluster,
            ["balance", "-g", &group, "-t", &topic, "--timeout", "60s"],
        )
        .exits(0);
        let member = on(
            cluster,
            ["consume", "-t", &topic, "-g", &group, "--until-end"],
        );
        let members = [member.start(), member.start()];
        for member in members {
            assert_eq!(member.finish().exits(0).stdout, "");
        }
        owner.signal(Signal::TERM);
        assert_eq!(owner.finish().exits(143).stdout.lines().count(), 10);
    });
}

/// A reader that closes the pipe has seen enough: that is no failure, and what it did not see is not committed.
#[test]
fn t04_a_closed_stdout_ends_it_without_committing_what_was_not_written() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(60_000, 1));
        let (topic, group) = (cluster.unique("closed"), cluster.unique("group"));
        on(cluster, ["publish", &file, "-t", &topic, "--create-topic"]).exits(0);
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args([
                "consume",
                "-t",
                &topic,
                "-g",
                &group,
                "-b",
                cluster.bootstrap(),
                "--registry",
                cluster.registry_url(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 100]).unwrap();
        drop(stdout);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let behind = on(
            cluster,
            [
                "balance",
                "-g",
                &group,
                "-t",
                &topic,
                "--timeout",
                "0s",
                "-o",
                "json",
            ],
        )
        .exits(8)
        .json();
        assert!(
            behind["partitions"][0]["behind"].as_u64().unwrap() > 0,
            "{behind}"
        );
        Cell::new(4, "the reader of what is consumed closes the pipe")
            .on(cluster.kind())
            .fired(1)
            .code(Some(0))
            .record();
    });
}
