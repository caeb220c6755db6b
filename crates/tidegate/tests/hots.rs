//! The file this all began with: 12 ticks of 10 containers, whose readers expect one message per tick, keyed by it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::collections::BTreeSet;

use common::{Exits, hots, on, records};
use serde_json::{Value, json};
use tidegate_testkit::for_each_cluster;

#[test]
fn ungrouped_it_is_120_records_keyed_by_their_timestamp() {
    let Some((csv, _)) = hots() else { return };
    let csv = csv.to_str().unwrap();
    for_each_cluster(|cluster| {
        for format in ["avro", "json"] {
            let topic = cluster.unique("hots-rows");
            let arguments = [
                "publish",
                csv,
                "-t",
                &topic,
                "--create-topic",
                "--format",
                format,
                "--verify",
                "-o",
                "json",
            ];
            let summary = on(cluster, arguments).exits(0).json();
            assert_eq!(
                (&summary["rows"]["read"], &summary["records"]["delivered"]),
                (&json!(120), &json!(120))
            );
            let found = records(cluster, &topic);
            assert_eq!(found.len(), 120);
            for record in &found {
                assert_eq!(
                    record["key"].as_str().unwrap(),
                    record["value"]["timestamp"].to_string()
                );
            }
        }
    });
}

#[test]
fn grouped_it_is_one_record_per_tick_with_ten_containers() {
    let Some((csv, schema)) = hots() else { return };
    let (csv, schema) = (csv.to_str().unwrap(), schema.to_str().unwrap());
    let rows = rows_by_tick(&std::fs::read_to_string(csv).unwrap());
    for_each_cluster(|cluster| {
        for (partitions, format) in [("1", "avro"), ("4", "avro"), ("1", "json"), ("4", "json")] {
            let topic = cluster.unique("hots-ticks");
            let arguments = [
                "publish",
                csv,
                "-t",
                &topic,
                "--create-topic",
                "--partitions",
                partitions,
                "--format",
                format,
                "--schema",
                schema,
                "--group-by",
                "timestamp",
                "--verify",
                "-o",
                "json",
            ];
            let summary = on(cluster, arguments).exits(0).json();
            assert_eq!(
                (&summary["rows"]["read"], &summary["records"]["delivered"]),
                (&json!(120), &json!(12))
            );
            assert_eq!(
                (&summary["verify"]["status"], &summary["verify"]["rows"]),
                (&json!("same"), &json!(120))
            );
            let found = records(cluster, &topic);
            let keys: BTreeSet<String> = found
                .iter()
                .map(|record| record["key"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(
                (found.len(), keys),
                (12, (0..12).map(|tick| tick.to_string()).collect())
            );
            for record in &found {
                let tick: usize = record["key"].as_str().unwrap().parse().unwrap();
                assert_eq!(record["value"]["timestamp"], json!(tick));
                assert_eq!(
                    record["value"]["containers"], rows[tick],
                    "{format} on {partitions}"
                );
            }
        }
    });
}

/// The file's rows as the messages must hold them, by code that shares nothing with the loader.
fn rows_by_tick(text: &str) -> Vec<Value> {
    let mut ticks: Vec<Vec<Value>> = Vec::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let tick: usize = cells[0].parse().unwrap();
        ticks.resize_with(ticks.len().max(tick + 1), Vec::new);
        let cpu: f64 = cells[3].parse().unwrap();
        ticks[tick].push(json!({ "timestamp": tick, "container_id": cells[1], "machine_id": cells[2], "cpu": cpu }));
    }
    assert!(ticks.iter().all(|rows| rows.len() == 10));
    ticks.into_iter().map(Value::Array).collect()
}
