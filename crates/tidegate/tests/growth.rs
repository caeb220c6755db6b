//! Files that grow between two runs of a load: what was added is published, or the run says why it cannot be.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use common::{Exits, Folder, on, records, tidegate, usage};
use serde_json::{Value, json};
use tidegate_testkit::{Cluster, Tidegate, for_each_cluster};

const HEADER: &str = "timestamp,container_id,cpu\n";

/// One file that goes to one topic, again and again.
struct Load<'a> {
    cluster: &'a Cluster,
    folder: Folder,
    topic: String,
}

impl<'a> Load<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            folder: Folder::new(),
            topic: cluster.unique("growing"),
        }
    }

    /// A run, with the file as it is by then.
    fn publish(&self, content: &str, flags: &[&str]) -> Tidegate {
        let file = self.folder.file("growing.csv", content);
        let topic = ["publish", &file, "-t", &self.topic, "--create-topic"];
        on(self.cluster, topic).args(["-o", "json"]).args(flags)
    }

    fn values(&self) -> Vec<Value> {
        let value = |record: Value| record["value"].clone();
        records(self.cluster, &self.topic)
            .into_iter()
            .map(value)
            .collect()
    }
}

#[test]
fn growth_that_continues_the_last_row_is_refused() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let first = format!("{HEADER}1,a,1\n2,b,2");
        load.publish(&first, &[]).exits(0);
        let refused = load.publish(&format!("{first}5\n3,c,3\n"), &[]).exits(3);
        let error = refused.json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("growing.csv"), "{refused}");
        assert!(message.contains("row 2 (line 3)"), "{refused}");
        let hints = error["hints"].to_string();
        assert!(
            hints.contains("--hold-last") && hints.contains("--restart"),
            "{refused}"
        );
        let again = load
            .publish(&format!("{first}\n3,c,3\n"), &["--verify"])
            .exits(0)
            .json();
        assert_eq!(
            (
                &again["resumed_at_row"],
                &again["rows"]["read"],
                &again["verify"]["status"]
            ),
            (&json!(2), &json!(3), &json!("same"))
        );
    });
}

#[test]
fn growth_that_continues_the_last_group_is_refused() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let flags = ["--group-by", "timestamp"];
        let first = format!("{HEADER}1,a,1\n2,b,2\n");
        load.publish(&first, &flags).exits(0);
        let refused = load.publish(&format!("{first}2,c,3\n"), &flags).exits(3);
        let error = refused.json()["error"].to_string();
        assert!(error.contains("row 3 (line 4)"), "{refused}");
        assert!(error.contains("timestamp = `2`"), "{refused}");
        assert!(error.contains("--hold-last"), "{refused}");
        assert!(!error.contains("the same command"), "{refused}");
        load.publish(&format!("{first}3,c,3\n3,d,4\n"), &flags)
            .exits(0);
        assert_eq!(load.values().len(), 3);
    });
}

#[test]
fn the_end_of_a_growing_file_is_held() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let receipt = load.folder.name("receipt.json");
        let flags = [
            "--group-by",
            "timestamp",
            "--hold-last",
            "--verify",
            "--receipt",
            &receipt,
        ];
        let mut content = format!("{HEADER}1,a,1\n2,b,2\n2,c");
        let first = load.publish(&content, &flags).exits(0);
        let summary = first.json();
        assert_eq!(
            (
                &summary["status"],
                &summary["rows"]["read"],
                &summary["verify"]["status"]
            ),
            (&json!("complete"), &json!(1), &json!("same")),
            "{first}"
        );
        assert!(first.stderr.contains("left for a later run"), "{first}");
        let written: Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
        assert_eq!(
            (&written["held"], &written["sources"][0]["length"]),
            (&json!(true), &json!(HEADER.len() + 6))
        );
        let file = load.folder.name("growing.csv");
        let verified = tidegate(["verify", "--receipt", &receipt, "-b", cluster.bootstrap()]);
        verified.exits(0);
        on(cluster, ["verify", &file, "-t", &load.topic]).exits(0);
        content.push_str(",3\n3,d,4\n");
        let second = load.publish(&content, &flags[..3]).exits(0).json();
        assert_eq!(
            (&second["rows"]["read"], &second["this_run"]["rows"]),
            (&json!(3), &json!(2))
        );
        let last = load.publish(&content, &["--verify"]).exits(0).json();
        assert_eq!(
            (&last["rows"]["read"], &last["verify"]["status"]),
            (&json!(4), &json!("same"))
        );
        let sizes: Vec<usize> = load
            .values()
            .iter()
            .map(|value| value["rows"].as_array().unwrap().len())
            .collect();
        assert_eq!(sizes, [1, 2, 1]);
        let stdin = ["publish", "-", "-t", &load.topic, "--hold-last"];
        let refused = on(cluster, stdin).input(usage(1, 1)).exits(2);
        assert!(refused.stderr.contains("--hold-last"), "{refused}");
    });
}

/// The row that stopped a load, and what stands behind it, was not loaded: it may be corrected.
#[test]
fn a_bad_row_can_be_corrected_where_it_is() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let broken = format!("{HEADER}1,a,1\n2,b,\"2\n3,c,3\n");
        load.publish(&broken, &[]).exits(3);
        let summary = load
            .publish(&broken.replace('"', ""), &["--verify"])
            .exits(0)
            .json();
        assert_eq!(
            (
                &summary["resumed_at_row"],
                &summary["rows"]["read"],
                &summary["verify"]["status"]
            ),
            (&json!(1), &json!(3), &json!("same"))
        );
        assert_eq!(load.values().len(), 3);
    });
}
