//! SIGINT and SIGTERM: a load ends in order, says what was delivered, and exits as a shell expects.

mod common;

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use common::{Exits, Folder, count, on, tidegate, usage};
use rustix::process::Signal;
use serde_json::json;
use tidegate_testkit::for_each_cluster;
use tidegate_testkit::program::wait_until;

/// The load is held by a group that never comes, so it is certain to run when the signal comes.
#[test]
fn an_interrupted_load_says_what_was_delivered() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(100, 1));
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let (topic, group) = (cluster.unique("signal"), cluster.unique("group"));
            let arguments = [
                "publish",
                &file,
                "-t",
                &topic,
                "--create-topic",
                "--hold-group",
                &group,
                "--hold-limit",
                "10",
                "-o",
                "json",
            ];
            let mut load = on(cluster, arguments).start();
            wait_until(Duration::from_secs(30), || count(cluster, &topic) == 10).unwrap();
            load.signal(signal);
            let finished = load.finish().exits(code);
            assert!(finished.elapsed < Duration::from_secs(60), "{finished}");
            let summary = finished.json();
            assert_eq!(
                (&summary["status"], &summary["records"]["delivered"]),
                (&json!("interrupted"), &json!(10))
            );
            assert_eq!(summary["error"]["kind"], "signal");
        }
    });
}

/// A stream that gives nothing must not keep a signal from being seen.
#[test]
fn a_signal_ends_a_load_that_waits_for_its_input() {
    let folder = Folder::new();
    let pipe = folder.name("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let schema = folder.file(
        "a.avsc",
        r#"{"type": "record", "name": "a", "fields": [{"name": "a", "type": "long"}]}"#,
    );
    let mut load = tidegate([
        "publish", &pipe, "-t", "a", "--schema", &schema, "-o", "json",
    ])
    .dir(folder.path("."))
    .start();
    // Opening waits for the reader; the writer stays open and silent after the first rows.
    let mut writer = OpenOptions::new().write(true).open(&pipe).unwrap();
    writer.write_all(b"a\n1\n2\n").unwrap();
    let topics = folder.path(".tidegate/topics");
    wait_until(Duration::from_secs(30), || topics.exists()).unwrap();
    load.signal(Signal::TERM);
    let finished = load.finish().exits(143);
    assert_eq!(finished.json()["status"], "interrupted", "{finished}");
    drop(writer);
}
