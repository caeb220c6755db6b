//! Inputs that change while they are read (T24): cut short, rotated, a pipe that closes early. What is read is what is sent, and a changed beginning is exit
//! code 3.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;

use common::load::{Load, PATIENCE, ROWS};
use common::{Exits, usage};
use tidegate_testkit::matrix::Counts;
use tidegate_testkit::proxy::Verb;
use tidegate_testkit::{Cluster, Finished, for_each_cluster};

const SCHEMA: &str = r#"{"type": "record", "name": "usage", "fields": [
    {"name": "timestamp", "type": "long"}, {"name": "container_id", "type": "string"},
    {"name": "machine_id", "type": "string"}, {"name": "cpu", "type": "double"}]}"#;

/// So many rows that the program cannot have read all of them when it is held back.
const MANY: u32 = 400_000;

/// Runs a load of the file and changes it when the second commit is about to be made.
fn change_in_mid_run(load: &Load<'_>, change: impl FnOnce()) -> Finished {
    let schema = load.folder.file("usage.avsc", SCHEMA);
    let proxy = load.proxy();
    let end = proxy.inject(load.ends(Verb::Hold).nth(2));
    let running = load.through(proxy.bootstrap());
    let running = running.args(["--schema", &schema]).start();
    assert!(end.wait_fired(1, PATIENCE));
    change();
    end.release();
    running.finish()
}

/// The first `rows` rows are there, once and in order, and nothing else.
#[track_caller]
fn check_first(load: &Load<'_>, rows: u64) -> Counts {
    let counts = Counts::of_keys(load.cluster.bootstrap(), &load.topic, 0..rows);
    assert_eq!(counts, Counts::whole(rows));
    counts
}

#[test]
fn t24_a_file_that_is_cut_short_while_it_is_read() {
    for_each_cluster(|cluster| {
        let content = usage(MANY, 1);
        let load = Load::of(cluster, &content);
        // In the middle of a row that was not read yet.
        let middle = content.len() / 2 + 3;
        let cut = OpenOptions::new().write(true).open(&load.file).unwrap();
        let ended = change_in_mid_run(&load, || cut.set_len(middle as u64).unwrap());
        assert_eq!(ended.code, Some(3), "{ended}");
        assert!(ended.stderr.contains("usage.csv"), "{ended}");
        let summary = ended.json();
        let sent = summary["records"]["delivered"].as_u64().unwrap();
        assert!(0 < sent && sent < u64::from(MANY), "{ended}");
        check_first(&load, sent);
        // It is whole again, and so is the load.
        fs::write(&load.file, &content).unwrap();
        let summary = load.publish().exits(0).json();
        assert_eq!(summary["resumed_at_row"], sent, "{summary}");
        load.cell(24, "the file is cut short while it is read")
            .fired(1)
            .counts(check_first(&load, MANY.into()))
            .code(ended.code)
            .record();
    });
}

/// As logs are: the file is renamed and another one takes its place.
#[test]
fn t24_a_file_that_is_rotated_while_it_is_read() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(MANY, 1));
        let old = load.folder.name("usage.csv.1");
        let ended = change_in_mid_run(&load, || {
            fs::rename(&load.file, &old).unwrap();
            fs::write(&load.file, usage(10, 1).replace("c_1", "c_2")).unwrap();
        });
        let ended = ended.expect_code(0);
        assert_eq!(ended.json()["rows"]["read"], MANY, "{ended}");
        let counts = check_first(&load, MANY.into());
        // The new one is another load.
        let refused = load.publish().exits(3);
        assert!(refused.stderr.contains("--job NAME"), "{refused}");
        check_first(&load, MANY.into());
        load.cell(24, "the file is rotated while it is read")
            .fired(1)
            .counts(counts)
            .code(ended.code)
            .code(refused.code)
            .record();
    });
}

/// What is written behind the end that a load has seen is the next run's.
#[test]
fn t24_a_file_that_grows_while_it_is_read() {
    for_each_cluster(|cluster| {
        let (content, more) = (usage(ROWS, 1), usage(ROWS + 500, 1));
        let load = Load::of(cluster, &content);
        let ended = change_in_mid_run(&load, || {
            let mut file = OpenOptions::new().append(true).open(&load.file).unwrap();
            file.write_all(&more.as_bytes()[content.len()..]).unwrap();
        });
        let ended = ended.expect_code(0);
        let read = ended.json()["rows"]["read"].as_u64().unwrap();
        check_first(&load, read);
        load.publish().exits(0);
        load.cell(24, "the file grows while it is read")
            .fired(1)
            .counts(check_first(&load, u64::from(ROWS) + 500))
            .code(ended.code)
            .record();
    });
}

/// A pipe whose writer ends early: in the middle of a row, or of a quoted field.
#[test]
fn t24_a_pipe_that_closes_early() {
    for_each_cluster(|cluster| {
        let rows = usage(50, 1);
        for (end, code, what) in [
            ("", 0, "behind a row"),
            ("50,c_1,n", 3, "within a row"),
            ("50,\"c_1,n_1,1.5\n", 3, "within a quoted field"),
        ] {
            let load = Load::of(cluster, "");
            let ended = publish_pipe(cluster, &load, &format!("{rows}{end}"));
            assert_eq!(ended.code, Some(code), "{what}\n{ended}");
            let summary = ended.json();
            assert_eq!(summary["records"]["delivered"], 50, "{what}\n{ended}");
            load.cell(24, &format!("a pipe closes early, {what}"))
                .fired(1)
                .counts(check_first(&load, 50))
                .code(ended.code)
                .record();
        }
    });
}

fn publish_pipe(cluster: &Cluster, load: &Load<'_>, content: &str) -> Finished {
    let schema = load.folder.file("usage.avsc", SCHEMA);
    let pipe = load.folder.name("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let arguments = ["publish", &pipe, "-t", &load.topic, "--create-topic"];
    let running = common::on(cluster, arguments)
        .args(["--schema", &schema, "-o", "json"])
        .start();
    let mut writer = OpenOptions::new().write(true).open(&pipe).unwrap();
    writer.write_all(content.as_bytes()).unwrap();
    drop(writer);
    running.finish()
}
