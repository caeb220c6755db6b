//! What a broker refuses or never answers ends in the failure's own exit code, with what was delivered told; and a second signal ends a load that
//! waits for such an answer.

mod common;

use std::time::Duration;

use common::{Exits, Folder, on, tidegate, usage};
use rustix::process::Signal;
use serde_json::json;
use tidegate_broker::{Action, ApiKey, Rule};
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::program::{Finished, wait_until};
use tidegate_testkit::usage::Random;
use tidegate_testkit::{Cluster, Kind, for_each_cluster};

/// Kafka's TOPIC_AUTHORIZATION_FAILED.
const NOT_ALLOWED: i16 = 29;

fn load(cluster: &Cluster, file: &str, topic: &str, more: &[&str]) -> Finished {
    on(
        cluster,
        ["publish", file, "-t", topic, "--create-topic", "-o", "json"],
    )
    .args(more)
    .run()
}

#[test]
fn t30_a_missing_right_exits_with_5_and_names_the_topic() {
    let (cluster, folder) = (Cluster::embedded(), Folder::new());
    let file = folder.file("usage.csv", usage(10, 1));
    let topic = cluster.unique("rights");
    let faults = cluster.broker().unwrap().faults();
    let refused =
        faults.inject(Rule::new(ApiKey::Produce, Action::AnswerError(NOT_ALLOWED)).topic(&topic));
    let failed = load(&cluster, &file, &topic, &[]).exits(5);
    assert!(refused.fired() > 0);
    let summary = failed.json();
    assert_eq!(
        (&summary["status"], &summary["records"]["delivered"]),
        (&json!("failed"), &json!(0))
    );
    let message = summary["error"]["message"].as_str().unwrap();
    assert!(
        message.contains(&topic) && message.contains("partition 0"),
        "{message}"
    );
    refused.remove();

    load(&cluster, &file, &topic, &[]).exits(0);
    let unread =
        faults.inject(Rule::new(ApiKey::Fetch, Action::AnswerError(NOT_ALLOWED)).topic(&topic));
    let failed = on(&cluster, ["consume", "-t", &topic, "--until-end"]).exits(5);
    assert!(
        unread.fired() > 0 && failed.stderr.contains(&topic),
        "{failed}"
    );
    Cell::new(30, "the rows may not be written, then not be read")
        .on(cluster.kind())
        .fired(refused.fired() + unread.fired())
        .code(Some(5))
        .record();
}

/// At least once, a load goes without positions where it may not use them; exactly once, it cannot.
#[test]
fn t30_a_topic_for_positions_that_may_not_be_used_stops_what_needs_it() {
    let (cluster, folder) = (Cluster::embedded(), Folder::new());
    let file = folder.file("usage.csv", usage(10, 1));
    let topic = cluster.unique("rights");
    load(&cluster, &file, &topic, &[]).exits(0);
    let faults = cluster.broker().unwrap().faults();
    let mut cell = Cell::new(30, "the topic for positions may not be read, or written");
    for (api_key, code) in [(ApiKey::Fetch, 5), (ApiKey::Produce, 5)] {
        let refused = Rule::new(api_key, Action::AnswerError(NOT_ALLOWED));
        let refused = faults.inject(refused.topic("tidegate-positions"));
        let other = cluster.unique("rights");
        let flags = ["--delivery", "at-least-once"];
        let summary = load(&cluster, &file, &other, &flags).exits(0).json();
        assert_eq!(summary["records"]["delivered"], 10);
        assert!(refused.fired() > 0);
        let failed = load(&cluster, &file, &other, &["--job", &other]).exits(code);
        assert!(failed.stderr.contains("tidegate-positions"), "{failed}");
        cell = cell.fired(refused.fired()).code(failed.code);
        refused.remove();
    }
    cell.on(cluster.kind()).record();
}

/// T28. A record over the topic's limit is refused for good: the load stops there, and nothing behind it is sent.
#[test]
fn t28_a_record_over_the_limit_of_the_topic_exits_with_7_and_nothing_overtakes_it() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        // Digits that compress to half their size at best.
        let mut numbers = Random::new(1);
        let cell: String = (0..200_000)
            .map(|_| format!("{:016x}", numbers.next_u64()))
            .collect();
        let file = folder.file(
            "usage.csv",
            format!("timestamp,text\n1,small\n2,{cell}\n3,small\n"),
        );
        let topic = cluster.unique("large");
        let failed = load(cluster, &file, &topic, &[]).exits(7);
        let summary = failed.json();
        assert_eq!(summary["error"]["kind"], "delivery");
        let message = summary["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("row") && message.contains('2'),
            "{message}"
        );
        let read = on(
            cluster,
            ["consume", "-t", &topic, "--until-end", "--format", "value"],
        )
        .exits(0);
        assert!(!read.stdout.contains("\"timestamp\":3"), "{message}");
        let delivered = read.stdout.lines().count();
        assert_eq!(
            summary["records"]["delivered"],
            json!(delivered),
            "{message}"
        );
        Cell::new(28, "a record over the limit of the topic")
            .on(cluster.kind())
            .fired(1)
            .code(failed.code)
            .record();
    });
}

/// T15. A broker that never answers: the deadline ends the load, and what it had acknowledged before counts.
#[test]
fn t15_a_broker_that_falls_silent_exits_with_4_at_the_deadline() {
    let (cluster, folder) = (Cluster::embedded(), Folder::new());
    let file = folder.file("usage.csv", usage(10, 1));
    let topic = cluster.unique("silent");
    let silent = cluster
        .broker()
        .unwrap()
        .faults()
        .inject(Rule::new(ApiKey::Produce, Action::DropRequest).topic(&topic));
    let more = ["--delivery-timeout", "3s", "--request-timeout", "1s"];
    let failed = load(&cluster, &file, &topic, &more).exits(4);
    assert!(
        silent.fired() > 1,
        "it is asked again before the load gives up"
    );
    assert!(failed.elapsed < Duration::from_secs(30), "{failed}");
    assert_eq!(failed.json()["records"]["delivered"], 0);
    Cell::new(15, "the broker says nothing until the deadline")
        .on(cluster.kind())
        .fired(silent.fired())
        .code(failed.code)
        .record();
}

/// The load is delivered; only reading it back fails, and that is no difference.
#[test]
fn t15_a_broker_lost_while_verifying_exits_with_4() {
    let (cluster, folder) = (Cluster::embedded(), Folder::new());
    let file = folder.file("usage.csv", usage(10, 1));
    let topic = cluster.unique("unread");
    let silent = cluster
        .broker()
        .unwrap()
        .faults()
        .inject(Rule::new(ApiKey::Fetch, Action::Disconnect).topic(&topic));
    let failed = load(
        &cluster,
        &file,
        &topic,
        &["--verify", "--delivery-timeout", "3s"],
    )
    .exits(4);
    assert!(silent.fired() > 0);
    let summary = failed.json();
    assert_eq!(
        (&summary["status"], &summary["records"]["delivered"]),
        (&json!("complete"), &json!(10))
    );
    Cell::new(15, "the broker goes away while the load is verified")
        .on(cluster.kind())
        .fired(silent.fired())
        .code(failed.code)
        .record();
}

/// The first signal lets the load wait for what it has sent; the second does not.
#[test]
fn t04_a_second_signal_ends_a_load_at_once() {
    let (cluster, folder) = (Cluster::embedded(), Folder::new());
    let file = folder.file("usage.csv", usage(10, 1));
    let topic = cluster.unique("twice");
    let held = cluster
        .broker()
        .unwrap()
        .faults()
        .inject(Rule::new(ApiKey::Produce, Action::Hold).topic(&topic));
    let mut load = on(&cluster, ["publish", &file, "-t", &topic, "--create-topic"]).start();
    assert!(held.wait_fired(1, Duration::from_secs(30)));
    load.signal(Signal::INT);
    // The first one is seen when it no longer changes anything: the load waits on.
    assert!(wait_until(Duration::from_millis(500), || !load.is_running()).is_err());
    load.signal(Signal::INT);
    let finished = load.finish().exits(130);
    assert!(finished.elapsed < Duration::from_secs(20), "{finished}");
    Cell::new(4, "SIGINT twice while the broker says nothing")
        .on(cluster.kind())
        .fired(2)
        .code(finished.code)
        .record();
}

/// T21 to T23. A data directory that is not as it was left is named and left alone.
#[test]
fn t23_a_damaged_data_directory_exits_with_11_and_is_named() {
    let folder = Folder::new();
    folder.file("usage.csv", usage(3, 1));
    let load = tidegate(["publish", "usage.csv", "-t", "usage"]).dir(folder.path("."));
    load.clone().exits(0);
    let meta = std::fs::read_dir(folder.path(".tidegate")).unwrap();
    let journal = meta
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "journal")
        })
        .unwrap();
    let whole = std::fs::read(&journal).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 3;
    damaged[middle] ^= 0xff;
    std::fs::write(&journal, &damaged).unwrap();
    let refused = load.clone().exits(11);
    let name = journal.file_name().unwrap().to_string_lossy();
    assert!(refused.stderr.contains(&*name), "{refused}");
    assert_eq!(
        std::fs::read(&journal).unwrap(),
        damaged,
        "nothing is repaired silently"
    );
    std::fs::write(&journal, &whole).unwrap();
    load.exits(0);
    Cell::new(23, "the journal of the data directory is damaged")
        .on(Kind::Embedded)
        .fired(1)
        .code(refused.code)
        .record();
}
