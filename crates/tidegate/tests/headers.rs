//! What records have around their values: headers, timestamps from a column, and the partition they go to.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use common::load::Load;
use common::{Exits, on, records};
use serde_json::{Value, json};
use tidegate_testkit::for_each_cluster;

/// A time of 2024, one of 1970, and a row without a host.
const ROWS: &str = "time,host,cpu\n1706704215000,a,1\n1000,b,2\n2024-01-31T12:30:16Z,,3\n";

fn schema(load: &Load<'_>) -> String {
    load.folder.file(
        "around.avsc",
        r#"{"type": "record", "name": "around", "fields": [
            {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}}, {"name": "cpu", "type": "double"}]}"#,
    )
}

#[test]
fn headers_and_timestamps_are_published_and_verified() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, ROWS);
        let schema = schema(&load);
        let receipt = load.folder.name("receipt.json");
        let flags = [
            "--schema",
            &schema,
            "--header",
            "source=a=b",
            "--header-column",
            "host",
            "--header-column",
            "load=cpu",
            "--record-timestamp",
            "time",
            "--receipt",
            &receipt,
            "--verify",
        ];
        let summary = load.publish().args(flags).exits(0).json();
        assert_eq!(summary["verify"]["status"], "same", "{summary}");
        let found: Vec<(Value, Value)> = records(cluster, &load.topic)
            .iter()
            .map(|record| (record["timestamp"].clone(), record["headers"].clone()))
            .collect();
        let header = |name: &str, value: &str| json!([name, value]);
        let flat = |headers: &Value| -> Vec<Value> {
            let all = headers.as_array().unwrap().iter();
            all.map(|header| json!([header["name"], header["value"]]))
                .collect()
        };
        let headers: Vec<Vec<Value>> = found.iter().map(|(_, headers)| flat(headers)).collect();
        let source = header("source", "a=b");
        assert_eq!(
            headers,
            [
                vec![source.clone(), header("host", "a"), header("load", "1")],
                vec![source.clone(), header("host", "b"), header("load", "2")],
                vec![source, header("load", "3")],
            ]
        );
        let times: Vec<&Value> = found.iter().map(|(time, _)| time).collect();
        assert_eq!(
            times,
            [
                &json!(1_706_704_215_000_i64),
                &json!(1_000),
                &json!(1_706_704_216_000_i64)
            ]
        );
        on(cluster, ["verify", "--receipt", &receipt]).exits(0);
        // The topic is there now, and does not keep for ever what is as old as that.
        let again = load.publish().args(["--restart"]).args(flags).exits(0);
        let warnings = again.json()["warnings"].to_string();
        assert!(!warnings.contains("`host`"), "{again}");
        // The embedded broker keeps everything.
        if cluster.broker().is_some() {
            return;
        }
        assert!(warnings.contains("retention.ms"), "{again}");
        assert!(warnings.contains("1970-01-01T00:00:01Z"), "{again}");
    });
}

/// The plan of a job says how its records are made, and nothing else goes on with it.
#[test]
fn a_job_keeps_to_its_headers_and_partitions() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, ROWS);
        let schema = schema(&load);
        let flags = ["--schema", schema.as_str(), "--header", "a=1"];
        load.publish().args(flags).exits(0);
        std::fs::write(&load.file, format!("{ROWS}5,c,4\n")).unwrap();
        for (other, said) in [
            (["--header", "a=2"], "--header"),
            (["--header-column", "host"], "--header-column"),
            (["--record-timestamp", "time"], "--record-timestamp"),
            (["--partitioner", "crc32"], "--partitioner"),
            (["--partition", "0"], "--partition"),
            (["--set", "cpu=1"], "--set"),
        ] {
            let refused = load.publish().args(other).exits(2);
            let message = refused.json()["error"]["message"].to_string();
            assert!(message.contains(said), "{refused}");
        }
        // As it was begun, whether that is typed again or not.
        let summary = load.publish().arg("--verify").exits(0).json();
        assert_eq!(summary["verify"]["status"], "same", "{summary}");
        load.publish().args(flags).exits(0);
        let found = records(cluster, &load.topic);
        assert_eq!(found.len(), 4);
        assert!(
            found
                .iter()
                .all(|record| record["headers"][0]["value"] == "1")
        );
    });
}

#[test]
fn partitions_are_chosen_as_asked() {
    for_each_cluster(|cluster| {
        let of_keys = |flags: &[&str]| -> Vec<i64> {
            let load = Load::of(cluster, ROWS);
            let schema = schema(&load);
            let key = ["--schema", &schema, "--key", "cpu", "--partitions", "3"];
            let receipt = load.folder.name("receipt.json");
            let proof = ["--verify", "--receipt", &receipt];
            let published = load.publish().args(key).args(proof).args(flags).exits(0);
            assert_eq!(published.json()["verify"]["status"], "same");
            on(cluster, ["verify", "--receipt", &receipt]).exits(0);
            let partition = |key: &str| {
                let found = records(cluster, &load.topic);
                let own = found.iter().find(|record| record["key"] == key);
                own.unwrap()["partition"].as_i64().unwrap()
            };
            ["1", "2", "3"].map(partition).into()
        };
        // CRC-32 of "1", "2" and "3": 83DCEFB7, 1AD5BE0D, 6DD28E9B.
        let crc32 = [0x83dc_efb7_u32, 0x1ad5_be0d, 0x6dd2_8e9b].map(|hash| i64::from(hash % 3));
        assert_eq!(of_keys(&["--partitioner", "crc32"]), crc32);
        assert_ne!(of_keys(&[]), crc32);
        assert_eq!(of_keys(&["--partition", "2"]), [2, 2, 2]);
        let load = Load::of(cluster, ROWS);
        let flags = ["--partition", "3", "--partitions", "3"];
        let refused = load.publish().args(flags).exits(2);
        assert!(refused.stdout.contains("counted from 0"), "{refused}");
    });
}
