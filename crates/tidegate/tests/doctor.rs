//! `tidegate doctor`: what it finds of clusters that are well, and of those that are not.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::TcpListener;

use common::{Exits, Folder, on, records, tidegate};
use serde_json::Value;
use tidegate_testkit::{Kind, for_each_cluster};

/// The levels and messages of one check.
fn found(said: &Value, check: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = said["checks"].as_array().unwrap().iter();
    let found = checks.filter(|found| found["check"] == check);
    found
        .map(|found| (text(&found["level"]), text(&found["message"])))
        .collect()
}

#[test]
fn a_cluster_that_is_well_passes_and_is_left_as_it_was() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("well"));
        let group = cluster.unique("group");
        let file = folder.file("a.csv", "a\n1\n");
        on(cluster, ["publish", &file, "-t", &topic, "--create-topic"]).exits(0);
        let asked = ["doctor", "-t", &topic, "-g", &group, "-o", "json"];
        let said = on(cluster, asked).args(["--job", "a", "--round-trip"]);
        let said = said.exits(0).json();
        // One broker has one replica, and nobody has ever been in the group.
        assert_eq!(said["status"], "warn", "{said}");
        for check in [
            "connect",
            "cluster",
            "broker",
            "versions",
            "rights",
            "registry",
            "round trip",
        ] {
            let found = found(&said, check);
            assert!(!found.is_empty(), "{check}: {said}");
            assert!(
                found.iter().all(|(level, _)| level == "ok"),
                "{check}: {said}"
            );
        }
        assert!(
            found(&said, "topic")
                .iter()
                .any(|(level, message)| level == "warn" && message.contains("one replica")),
            "{said}"
        );
        let clock = &found(&said, "clock")[0];
        assert_eq!(clock.0, "ok", "{said}");
        assert_eq!(
            clock.1.contains(" ours"),
            cluster.kind() == Kind::Real,
            "{said}"
        );
        if cluster.kind() == Kind::Real {
            let rights = &found(&said, "rights")[0].1;
            assert!(
                rights.contains(&format!("WRITE on topic {topic}")),
                "{rights}"
            );
        }
        assert!(
            found(&said, "registry")[0].1.contains("version 1"),
            "{said}"
        );
        assert_eq!(records(cluster, &topic).len(), 1);
    });
}

#[test]
fn what_is_missing_fails_with_its_exit_code_and_a_hint() {
    for_each_cluster(|cluster| {
        let topic = cluster.unique("missing");
        let said = on(cluster, ["doctor", "-t", &topic, "-o", "json"])
            .exits(6)
            .json();
        assert_eq!(said["status"], "fail", "{said}");
        assert_eq!(said["error"]["kind"], "topic", "{said}");
        let topics = found(&said, "topic");
        assert!(topics[0].1.contains("does not exist"), "{said}");
        let said = on(cluster, ["doctor", "-t", &topic, "--create-topic"]).exits(0);
        assert!(said.stdout.contains("could be created"), "{said}");
    });
}

#[test]
fn brokers_that_cannot_be_reached_are_named_with_the_reason() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap().to_string();
    drop(dead);
    let servers = format!("{address},no-such-host.invalid:9092");
    let said = tidegate(["doctor", "-b", &servers]).exits(4);
    for part in [
        "fail  connect",
        &address,
        "refused",
        "no-such-host.invalid:9092: cannot be resolved",
        "hint: ",
    ] {
        assert!(said.stdout.contains(part), "{part}: {said}");
    }
    for_each_cluster(|cluster| {
        let servers = format!("{address},{}", cluster.bootstrap());
        let said = tidegate(["doctor", "-b", &servers, "-o", "json"]).exits(0);
        let connects = found(&said.json(), "connect");
        let levels: Vec<&str> = connects.iter().map(|(level, _)| level.as_str()).collect();
        assert_eq!(levels, ["warn", "ok"], "{said}");
    });
}

#[test]
fn a_registry_that_is_not_there_fails() {
    for_each_cluster(|cluster| {
        let said = tidegate(["doctor", "-b", cluster.bootstrap(), "-o", "json"])
            .args(["--registry", "http://127.0.0.1:1"])
            .exits(6)
            .json();
        assert_eq!(found(&said, "registry")[0].0, "fail", "{said}");
    });
}
