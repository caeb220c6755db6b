//! A load of a file is a job: killed and run again it goes on, and what does not fit it is refused.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use common::load::{Load, PATIENCE, POSITIONS};
use common::{Exits, Folder, count, on, tidegate, usage};
use serde_json::{Value, json};
use tidegate_broker::{Action, ApiKey, Rule};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::{Cluster, for_each_cluster};

#[test]
fn t01_a_killed_load_goes_on_where_it_was_committed() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(100, 1));
        load.kill_after(10, &[]);
        load.kill_after(15, &[]);
        let receipt = load.folder.name("receipt.json");
        let again = load
            .publish()
            .args(["--receipt", &receipt, "--verify"])
            .exits(0);
        let summary = again.json();
        assert_eq!(summary["status"], "complete", "{again}");
        assert_eq!(summary["resumed_at_row"], 15);
        assert_eq!(summary["rows"]["read"], 100);
        assert_eq!(summary["this_run"]["rows"], 85);
        assert_eq!(summary["records"]["delivered"], 100);
        assert_eq!(summary["verify"]["status"], "same");
        assert!(again.stderr.contains("goes on after row 15"), "{again}");
        assert_eq!(load.ticks(), (0..100).collect::<Vec<_>>());
        let receipt: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
        assert_eq!(
            (&receipt["delivery"], &receipt["status"]),
            (&json!("exactly-once"), &json!("complete"))
        );
        assert_eq!(receipt["records"]["delivered"], 100);
        let verified = on(
            cluster,
            ["verify", &load.file, "-t", &load.topic, "-o", "json"],
        );
        assert_eq!(verified.exits(0).json()["records"], 100);
        load.cell(1, "killed twice at a known row")
            .fired(2)
            .counts(load.counts(100))
            .code(again.code)
            .record();
    });
}

/// A commit is decided before its markers are written, and readers see it behind them.
#[test]
fn a_complete_load_can_be_read_at_once() {
    let cluster = Cluster::embedded();
    let load = Load::of(&cluster, usage(10, 1));
    // The first commit is behind the first row, the second behind the last.
    let marker = Rule::new(ApiKey::WriteTxnMarkers, Action::Hold).topic(&load.topic);
    let faults = cluster.broker().unwrap().faults();
    let held = faults.inject(marker.nth(2));
    let running = load.publish().start();
    assert!(held.wait_fired(1, PATIENCE));
    // It looks again and again whether its rows can be read, which they cannot yet.
    let look = Rule::new(ApiKey::ListOffsets, Action::Pass).topic(&load.topic);
    assert!(faults.inject(look).wait_fired(4, PATIENCE));
    assert_eq!(count(&cluster, &load.topic), 1);
    held.release();
    running.finish().exits(0);
    assert_eq!(load.ticks(), (0..10).collect::<Vec<_>>());
}

#[test]
fn t24_a_complete_load_is_not_sent_again() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(20, 1));
        let first = load.publish().exits(0).json();
        let again = load.publish().arg("--verify").exits(0).json();
        assert_eq!(again["status"], "already-published");
        for same in ["rows", "records", "partitions", "schema_id"] {
            assert_eq!(again[same], first[same], "{same}");
        }
        assert_eq!(again["this_run"]["rows"], 0);
        assert_eq!(again["verify"]["status"], "same");
        // The file has grown: only what is new is sent.
        std::fs::write(&load.file, usage(30, 1)).unwrap();
        let grown = load.publish().arg("--verify").exits(0).json();
        assert_eq!(
            (&grown["status"], &grown["resumed_at_row"]),
            (&json!("complete"), &json!(20))
        );
        assert_eq!(load.ticks(), (0..30).collect::<Vec<_>>());
        load.cell(24, "the file has grown")
            .fired(1)
            .counts(load.counts(30))
            .code(Some(0))
            .record();
        let restarted = load.publish().arg("--restart").exits(0).json();
        assert_eq!(
            (
                &restarted["resumed_at_row"],
                &restarted["records"]["delivered"]
            ),
            (&Value::Null, &json!(30))
        );
        assert_eq!(count(cluster, &load.topic), 60);
    });
}

/// Everything that would make the records of two runs those of two loads.
#[test]
fn t24_what_does_not_fit_the_job_is_refused() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(100, 1));
        load.kill_after(10, &[]);
        let schema = load.folder.file(
            "other.avsc",
            r#"{"type": "record", "name": "other", "fields": [{"name": "timestamp", "type": "long"}]}"#,
        );
        for (flags, code, said) in [
            (&["--key", "cpu"][..], 2, "--key"),
            (&["--no-key"], 2, "--no-key"),
            (&["--group-by", "timestamp"], 2, "--group-by"),
            (&["--format", "json"], 2, "--format"),
            (&["--null", "NA"], 2, "--null"),
            (&["--delimiter", ";"], 2, "--delimiter"),
            (&["--max-row-size", "1MiB"], 2, "--max-row-size"),
            (&["--schema", &schema], 2, "--schema"),
            (&["--delivery", "at-least-once"], 2, "--delivery"),
            (&["--quote", "'"], 2, "--quote"),
            (&["--ragged", "pad"], 2, "--ragged"),
            (&["--encoding", "latin1"], 2, "--encoding"),
            (&["--time-zone", "Europe/Zurich"], 2, "--time-zone"),
            (&["--partitioner", "crc32"], 2, "--partitioner"),
            (&["--partitions", "3"], 6, "1 partition"),
        ] {
            let refused = load.publish().args(flags).exits(code);
            let error = refused.json()["error"]["message"].to_string();
            assert!(error.contains(said), "{flags:?}\n{refused}");
        }
        // Another topic under the same name of a job.
        let named = cluster.unique("named");
        load.kill_at(10, 20, &["--job", &named]);
        let other = cluster.unique("other");
        let arguments = [
            "publish",
            &load.file,
            "-t",
            &other,
            "--create-topic",
            "--job",
            &named,
        ];
        let refused = on(cluster, arguments).exits(2);
        assert!(refused.stderr.contains("--topic"), "{refused}");
        assert_eq!(count(cluster, &other), -1, "nothing was created");
        // Another file at the same place.
        std::fs::write(&load.file, usage(100, 1).replace("3,c_1", "3,c_9")).unwrap();
        let refused = load.publish().exits(3);
        assert!(refused.stderr.contains("--job NAME"), "{refused}");
        std::fs::write(&load.file, usage(2, 1)).unwrap();
        load.publish().exits(3);
        assert_eq!(count(cluster, &load.topic), 20, "nothing was sent");
        load.cell(24, "another file at the same place, a shorter one")
            .fired(2)
            .code(Some(3))
            .record();
    });
}

#[test]
fn a_default_that_is_typed_out_later_is_none_that_changed() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(100, 1));
        load.kill_after(10, &[]);
        for flags in [
            ["--delimiter", ","],
            ["--quote", "\""],
            ["--ragged", "error"],
            ["--encoding", "utf-8"],
            ["--encoding", "UTF8"],
            ["--delimiter", "auto"],
            ["--time-format", "iso"],
            ["--time-zone", "UTC"],
            ["--time-ambiguity", "error"],
            ["--max-row-size", "8MiB"],
            ["--format", "avro"],
            ["--key", "timestamp"],
            ["--key-format", "string"],
            ["--json-times", "number"],
            ["--record-timestamp", "now"],
            ["--partitioner", "murmur2"],
        ] {
            load.publish().args(["--dry-run"]).args(flags).exits(0);
        }
        let went_on = load
            .publish()
            .args(["--quote", "\"", "--verify"])
            .exits(0)
            .json();
        assert_eq!(went_on["verify"]["status"], "same");
    });
}

#[test]
fn t29_a_topic_that_was_made_again_or_has_grown_is_refused() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(20, 1));
        load.kill_after(10, &[]);
        let client = tidegate::kafka::ClientConfig::new(cluster.bootstrap()).unwrap();
        let admin = tidegate::kafka::Client::connect(client).unwrap();
        admin.admin().delete_topic(&load.topic).unwrap();
        wait_until(PATIENCE, || count(cluster, &load.topic) == -1).unwrap();
        let refused = load.publish().exits(6);
        assert!(refused.stderr.contains("was deleted"), "{refused}");
        let arguments = ["publish", &load.file, "-t", &load.topic, "--create-topic"];
        on(cluster, arguments).args(["--job", &load.topic]).exits(0);
        let refused = load.publish().exits(6);
        assert!(refused.stderr.contains("created again"), "{refused}");
        load.cell(
            29,
            "the topic was deleted, then made anew, since the last run",
        )
        .fired(2)
        .code(refused.code)
        .record();
    });
}

#[test]
fn t01_rejected_rows_stand_in_the_file_once() {
    for_each_cluster(|cluster| {
        let content = usage(60, 1).replace("c_1,n_1,1.5\n30,", "c_1,n_1,no\n30,");
        let content = content.replace("4,c_1,n_1,1.5\n", "4,c_1,n_1,no\n");
        let load = Load::of(cluster, content);
        let rejects = load.folder.name("rejects.jsonl");
        let schema = load.folder.file(
            "usage.avsc",
            r#"{"type": "record", "name": "usage", "fields": [
                {"name": "timestamp", "type": "long"}, {"name": "container_id", "type": "string"},
                {"name": "machine_id", "type": "string"}, {"name": "cpu", "type": "double"}]}"#,
        );
        let flags = ["--rejects", &rejects, "--schema", &schema];
        load.kill_after(20, &flags);
        let before = std::fs::read_to_string(&rejects).unwrap();
        assert!(before.lines().count() > 0);
        // Another place for them, or none, would lose some.
        let other = load.folder.name("other.jsonl");
        for flags in [&["--rejects", other.as_str()][..], &[]] {
            let refused = load.publish().args(flags).exits(11);
            assert!(refused.stderr.contains("rejects.jsonl"), "{refused}");
        }
        // One that is missing is not made anew.
        std::fs::remove_file(&rejects).unwrap();
        let refused = load.publish().args(flags).exits(11);
        assert!(refused.stderr.contains("rejects.jsonl"), "{refused}");
        for file in [&rejects, &other] {
            assert!(!std::path::Path::new(file).exists(), "{file}");
        }
        // What a run wrote behind its last commit is written again.
        std::fs::write(&rejects, format!("{before}{before}")).unwrap();
        let summary = load.publish().args(flags).arg("--verify").exits(0).json();
        let rejected = summary["rows"]["rejected"].as_u64().unwrap();
        let read = summary["rows"]["read"].as_u64().unwrap();
        assert_eq!(
            (read, summary["rows"]["accepted"].as_u64().unwrap()),
            (60, 60 - rejected)
        );
        let rows: Vec<Value> = std::fs::read_to_string(&rejects)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let rows: Vec<u64> = rows
            .iter()
            .map(|row| row["row"].as_u64().unwrap())
            .collect();
        assert_eq!(rows.len() as u64, rejected);
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "{rows:?}");
        // Ticks begin at 0, rows at 1.
        let bad: Vec<u64> = rows.iter().map(|row| row - 1).collect();
        load.cell(1, "killed while rows are rejected")
            .fired(1)
            .counts(Counts::of_keys(
                cluster.bootstrap(),
                &load.topic,
                (0..60).filter(|tick| !bad.contains(tick)),
            ))
            .code(Some(0))
            .record();
    });
}

#[test]
fn jobs_are_listed_shown_and_forgotten() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(20, 1));
        load.publish().exits(0);
        let positions = ["--positions-topic", POSITIONS];
        let job = |arguments: &[&str]| {
            let command = tidegate(["job"]).args(arguments).args(positions);
            command.args(["-b", cluster.bootstrap(), "-o", "json"])
        };
        let listed = job(&["list"]).exits(0).json();
        let listed = listed["jobs"].as_array().unwrap().clone();
        let own = |listed: &Value| listed["job"] == json!(load.job());
        assert_eq!(
            listed.iter().filter(|job| own(job)).count(),
            1,
            "{listed:?}"
        );
        let shown = job(&["show", &load.job()]).exits(0).json();
        assert_eq!(
            (
                &shown["status"],
                &shown["rows"],
                &shown["receipt"]["records"]["delivered"]
            ),
            (&json!("complete"), &json!(20), &json!(20))
        );
        assert_eq!(
            job(&["forget", &load.job()]).exits(0).json()["status"],
            "forgotten"
        );
        for command in ["show", "forget"] {
            let unknown = job(&[command, &load.job()]).exits(2);
            assert!(unknown.stderr.contains("there is no job"), "{unknown}");
        }
        let again = load.publish().exits(0).json();
        assert_eq!(
            (&again["status"], &again["resumed_at_row"]),
            (&json!("complete"), &Value::Null)
        );
        assert_eq!(count(cluster, &load.topic), 40);
    });
}

/// The same content under another name is what a forgotten `--job`, or a moved file, looks like.
#[test]
fn the_same_content_on_the_same_topic_is_warned_about() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(20, 1));
        load.publish().exits(0);
        let copy = load.folder.file("copy.csv", usage(20, 1));
        let published = on(cluster, ["publish", &copy, "-t", &load.topic, "-o", "json"]).exits(0);
        let warnings = published.json()["warnings"].to_string();
        assert!(warnings.contains(&load.job()), "{published}");
    });
}

#[test]
fn a_topic_with_records_and_without_positions_is_warned_about() {
    let cluster = Cluster::embedded();
    let load = Load::of(&cluster, usage(20, 1));
    load.publish()
        .args(["--delivery", "at-least-once"])
        .exits(0);
    let published = load.publish().exits(0);
    let warnings = published.json()["warnings"].to_string();
    assert!(warnings.contains(POSITIONS), "{published}");
}

#[test]
fn t01_at_least_once_goes_on_where_there_is_a_topic_for_positions() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(100, 1));
        let (positions, other) = (cluster.unique("positions"), cluster.unique("other"));
        let at_least_once = [
            "--delivery",
            "at-least-once",
            "--positions-topic",
            &positions,
        ];
        let without = load.publish().args(at_least_once).exits(0);
        assert!(
            without.stderr.contains("cannot be gone on with"),
            "{without}"
        );
        assert_eq!(without.json()["job"], Value::Null);
        // Another load creates the topic for positions.
        let file = load.folder.file("other.csv", usage(1, 1));
        let arguments = ["publish", &file, "-t", &other, "--create-topic"];
        on(cluster, arguments)
            .args(["--positions-topic", &positions])
            .exits(0);

        let held = Load::of(cluster, usage(100, 1));
        held.kill_after(10, &at_least_once);
        let receipt = held.folder.name("receipt.json");
        let flags = [
            "--positions-topic",
            &positions,
            "--receipt",
            &receipt,
            "--verify",
        ];
        let again = held.publish().args(flags).exits(0).json();
        assert_eq!(again["delivery"], "at-least-once", "as it was begun");
        assert_eq!(again["rows"]["read"], 100);
        assert_eq!(again["verify"]["status"], "same", "{again}");
        let receipt: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
        assert_eq!(receipt["may_contain_duplicates"], true);
        let repeated = again["verify"]["repeated_records"].as_i64().unwrap();
        assert_eq!(count(cluster, &held.topic), 100 + repeated);
        Cell::new(1, "killed, at least once: repeated rows are counted")
            .on(cluster.kind())
            .fired(1)
            .code(Some(0))
            .record();
    });
}

#[test]
fn a_stream_is_sent_at_least_once_and_says_so() {
    let cluster = Cluster::embedded();
    let folder = Folder::new();
    let schema = folder.file(
        "a.avsc",
        r#"{"type": "record", "name": "a", "fields": [{"name": "a", "type": "long"}]}"#,
    );
    let arguments = [
        "publish",
        "-",
        "-t",
        "stream",
        "--create-topic",
        "--schema",
        &schema,
    ];
    let published = on(&cluster, arguments).input("a\n1\n").exits(0);
    assert!(published.stderr.contains("at-least-once"), "{published}");
    assert!(published.stderr.contains("a stream"), "{published}");
    for flags in [
        &["--delivery", "exactly-once"][..],
        &["--job", "j"],
        &["--restart"],
    ] {
        let refused = on(&cluster, arguments).input("a\n1\n").args(flags).exits(2);
        assert!(refused.stderr.contains("needs a file"), "{refused}");
    }
}

/// A bad row stops the load; run again with a place for bad rows it goes on.
#[test]
fn a_load_that_a_bad_row_stopped_goes_on_with_a_place_for_it() {
    for_each_cluster(|cluster| {
        let content = usage(40, 1).replace("20,c_1,n_1,1.5", "20,c_1");
        let load = Load::of(cluster, content);
        let stopped = load.publish().exits(3);
        assert!(stopped.stderr.contains("goes on after row 20"), "{stopped}");
        let rejects = load.folder.name("rejects.jsonl");
        let summary = load.publish().args(["--rejects", &rejects]).exits(0).json();
        assert_eq!(
            (&summary["resumed_at_row"], &summary["rows"]["rejected"]),
            (&json!(20), &json!(1))
        );
        assert_eq!(count(cluster, &load.topic), 39);
    });
}

#[test]
fn a_dry_run_of_a_job_goes_on_too_and_changes_nothing() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(40, 1));
        load.kill_after(10, &[]);
        for _ in 0..2 {
            let planned = load.publish().arg("--dry-run").exits(0).json();
            assert_eq!(
                (
                    &planned["status"],
                    &planned["resumed_at_row"],
                    &planned["this_run"]["records"]
                ),
                (&json!("planned"), &json!(10), &json!(30))
            );
        }
        load.publish().exits(0);
        let planned = load.publish().arg("--dry-run").exits(0).json();
        assert_eq!(planned["status"], "already-published");
    });
}

#[test]
fn a_job_keeps_its_schema_when_the_subject_goes_on() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(40, 1));
        load.kill_after(10, &[]);
        let latest = || {
            let shown = on(cluster, ["schema", "show", "-t", &load.topic, "-o", "json"]);
            shown.exits(0).json()["schema_id"].as_u64()
        };
        let began_with = latest();
        let newer = r#"{"type": "record", "name": "NAME", "fields": [
            {"name": "timestamp", "type": "long"}, {"name": "container_id", "type": "string"}, {"name": "machine_id", "type": "string"},
            {"name": "cpu", "type": "double"}, {"name": "added", "type": "string", "default": "new"}]}"#;
        let name = load.topic.replace('-', "_");
        let newer = load.folder.file("newer.avsc", newer.replace("NAME", &name));
        on(cluster, ["schema", "register", &newer, "-t", &load.topic]).exits(0);
        let now = latest();
        assert_ne!(now, began_with);
        for flags in [
            ["--schema", newer.as_str()],
            ["--schema-id", &now.unwrap().to_string()],
        ] {
            let refused = load.publish().args(flags).exits(2);
            assert!(
                refused.stdout.contains("the load was begun with"),
                "{refused}"
            );
        }
        let went_on = load.publish().arg("--verify").exits(0).json();
        assert_eq!(
            (&went_on["resumed_at_row"], went_on["schema_id"].as_u64()),
            (&json!(10), began_with)
        );
        // The next load is of the newer one.
        let restarted = load.publish().arg("--restart").exits(0).json();
        assert_eq!(restarted["schema_id"].as_u64(), now);
    });
}
