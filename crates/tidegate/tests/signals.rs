//! SIGINT and SIGTERM: a load ends in order, says what was delivered, and exits as a shell expects.

mod common;

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use common::{Exits, Folder, count, on, usage};
use rustix::process::Signal;
use serde_json::json;
use tidegate_testkit::for_each_cluster;
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;

/// The load is held by a group that never comes, so it is certain to run when the signal comes.
#[test]
fn t04_an_interrupted_load_says_what_was_delivered() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(100, 1));
        let mut cell = Cell::new(4, "a signal while a load is held back").on(cluster.kind());
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
            let counts = Counts::of_keys(cluster.bootstrap(), &topic, 0..10);
            cell = cell.fired(1).counts(counts).code(finished.code);
        }
        cell.record();
    });
}

/// A stream that gives nothing keeps neither its last rows from being sent nor a signal from being seen.
#[test]
fn t04_a_load_that_waits_for_its_input_sends_what_it_has_and_sees_signals() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let pipe = folder.name("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let schema = folder.file(
            "a.avsc",
            r#"{"type": "record", "name": "a", "fields": [{"name": "a", "type": "long"}]}"#,
        );
        let topic = cluster.unique("quiet");
        let arguments = [
            "publish",
            &pipe,
            "-t",
            &topic,
            "--create-topic",
            "--schema",
            &schema,
            "-o",
            "json",
        ];
        let mut load = on(cluster, arguments).start();
        // Opening waits for the reader; the writer stays open and silent after the first rows.
        let mut writer = OpenOptions::new().write(true).open(&pipe).unwrap();
        writer.write_all(b"a\n1\n2\n3").unwrap();
        wait_until(Duration::from_secs(30), || count(cluster, &topic) == 2).unwrap();
        writer.write_all(b"4\n5\n").unwrap();
        wait_until(Duration::from_secs(30), || count(cluster, &topic) == 4).unwrap();
        load.signal(Signal::TERM);
        let summary = load.finish().exits(143).json();
        assert_eq!(
            (&summary["status"], &summary["records"]["delivered"]),
            (&json!("interrupted"), &json!(4))
        );
        drop(writer);
        Cell::new(4, "a signal while a stream is silent")
            .on(cluster.kind())
            .fired(1)
            .code(Some(143))
            .record();
    });
}
