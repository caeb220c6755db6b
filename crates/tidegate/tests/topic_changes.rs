//! The topic is missing, or is deleted, made anew or given more partitions in the middle of a load (T29): exit code 6 within 15 s, and what is said of it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::load::{Load, PATIENCE};
use common::{Exits, count, on};
use tidegate_testkit::matrix::Counts;
use tidegate_testkit::program::wait_until;
use tidegate_testkit::proxy::messages::create_partitions_request::CreatePartitionsTopic;
use tidegate_testkit::proxy::messages::{
    CreatePartitionsRequest, DeleteTopicsRequest, ProduceRequest, TopicName,
};
use tidegate_testkit::proxy::{ApiKey, Seen, Verb};
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::{Cluster, for_each_cluster, unique_name};

/// The last version of Produce that names topics instead of giving their ids (KIP-516).
const LAST_PRODUCE_BY_NAME: i16 = 12;
/// How soon a load must have said that its topic is not what it was.
const BOUND: Duration = Duration::from_secs(15);

fn name(topic: &str) -> TopicName {
    TopicName(topic.to_owned().into())
}

fn admin(cluster: &Cluster) -> RawClient {
    RawClient::connect(cluster.bootstrap()).unwrap()
}

fn delete(cluster: &Cluster, topic: &str) {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name(topic)])
        .with_timeout_ms(10_000);
    let answer = admin(cluster).call(&request, 4).unwrap();
    assert_eq!(answer.responses[0].error_code, 0);
    wait_until(PATIENCE, || count(cluster, topic) == -1).unwrap();
}

fn add_partitions(cluster: &Cluster, topic: &str, partitions: i32) {
    let topic = CreatePartitionsTopic::default()
        .with_name(name(topic))
        .with_count(partitions)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    let answer = admin(cluster).call(&request, 2).unwrap();
    assert_eq!(answer.results[0].error_code, 0);
}

#[test]
fn t29_a_topic_that_is_missing() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        if cluster.broker().is_some() {
            // The embedded broker makes topics, as Kafka's own default is, where the client asks for that. This client does not.
            assert_eq!(count(cluster, &load.topic), -1);
        }
        let started = Instant::now();
        let arguments = ["publish", &load.file, "-t", &load.topic, "-o", "json"];
        let ended = on(cluster, arguments).exits(6);
        assert!(started.elapsed() < BOUND, "{ended}");
        assert!(ended.stderr.contains(&load.topic), "{ended}");
        assert!(ended.stderr.contains("--create-topic"), "{ended}");
        assert_eq!(count(cluster, &load.topic), -1, "it was not made");
        load.cell(29, "the topic is missing")
            .fired(1)
            .code(ended.code)
            .record();
    });
}

#[test]
fn t29_a_topic_that_is_deleted_or_made_anew_in_mid_run() {
    for_each_cluster(|cluster| {
        for (is_made_anew, is_old, fault) in [
            (false, false, "the topic is deleted in mid-run"),
            (true, false, "the topic is made anew in mid-run"),
            (
                true,
                true,
                "the topic is made anew, requests have its name alone",
            ),
        ] {
            let load = Load::new(cluster);
            let proxy = load.proxy();
            if is_old {
                proxy.limit(ApiKey::Produce, LAST_PRODUCE_BY_NAME);
            }
            let rows = proxy.inject(load.rows(Verb::Hold).nth(3));
            let running = load.through(proxy.bootstrap()).start();
            assert!(rows.wait_fired(1, PATIENCE));
            delete(cluster, &load.topic);
            if is_made_anew {
                admin(cluster).create_topic(&load.topic, 1, &[]).unwrap();
            }
            let since = Instant::now();
            rows.release();
            let ended = running.finish();
            let took = since.elapsed();
            assert_eq!(ended.code, Some(6), "{fault}\n{ended}");
            assert!(took < BOUND, "{fault}: {took:?}\n{ended}");
            assert!(ended.stderr.contains(&load.topic), "{fault}\n{ended}");
            // Nor does the next run begin anew by itself.
            let again = load.publish().exits(6);
            let there = count(cluster, &load.topic);
            assert!(there <= 0, "{fault}: {there} records\n{again}");
            load.cell(29, fault)
                .fired(1)
                .recovered([took])
                .code(ended.code)
                .record();
        }
    });
}

/// Nothing more goes to the partition whose records went with the old topic: no offset there begins anew. Whoever looks at the topic alone finds that out.
#[test]
fn t29_a_topic_that_is_made_anew_when_one_of_its_partitions_is_through() {
    const ROWS_OF_EACH: u32 = 6_000;
    let mut content = String::from("timestamp,host\n");
    // Their keys are of two partitions.
    for host in ["a", "d"] {
        (0..ROWS_OF_EACH).for_each(|row| content.push_str(&format!("{row},{host}\n")));
    }
    for_each_cluster(|cluster| {
        let none = unique_name("no-positions");
        let at_least_once = ["--delivery", "at-least-once", "--positions-topic", &none];
        for (delivery, fault) in [
            (&[][..], "the topic is made anew, one partition is through"),
            (
                &at_least_once[..],
                "the topic is made anew, one partition is through, at least once",
            ),
        ] {
            let load = Load::of(cluster, &content);
            admin(cluster).create_topic(&load.topic, 2, &[]).unwrap();
            let proxy = load.proxy();
            proxy.limit(ApiKey::Produce, LAST_PRODUCE_BY_NAME);
            let first = OnceLock::new();
            let other = move |seen: &Seen| {
                let partition = partition_of(seen);
                *first.get_or_init(|| partition) != partition
            };
            let rows = proxy.inject(load.rows(Verb::Hold).when(other).nth(1));
            let running = load.through(proxy.bootstrap()).args(["--key", "host"]);
            let running = running.args(delivery).start();
            assert!(rows.wait_fired(1, PATIENCE));
            delete(cluster, &load.topic);
            admin(cluster).create_topic(&load.topic, 2, &[]).unwrap();
            rows.release();
            let ended = running.finish();
            assert_eq!(ended.code, Some(6), "{fault}\n{ended}");
            let said = "deleted and created again";
            assert!(ended.stderr.contains(said), "{fault}\n{ended}");
            load.cell(29, fault).fired(1).code(ended.code).record();
        }
    });
}

fn partition_of(seen: &Seen) -> i32 {
    let request = seen.request::<ProduceRequest>().unwrap();
    request.topic_data[0].partition_data[0].index
}

/// Rows of one key would stand in two partitions from then on, if not the load's then others'.
#[test]
fn t29_a_topic_that_is_given_more_partitions_in_mid_run() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let rows = proxy.inject(load.rows(Verb::Hold).nth(3));
        let running = load.through(proxy.bootstrap()).start();
        assert!(rows.wait_fired(1, PATIENCE));
        add_partitions(cluster, &load.topic, 3);
        let three = || admin(cluster).partitions(&load.topic).unwrap().len() == 3;
        wait_until(PATIENCE, three).unwrap();
        let since = Instant::now();
        rows.release();
        let ended = running.finish().exits(6);
        let took = since.elapsed();
        assert!(took < BOUND, "{took:?}\n{ended}");
        assert!(ended.stderr.contains("has 3 partitions now"), "{ended}");
        // What is committed stands in the file's order, and no more of it comes.
        let claimed = ended.json()["records"]["delivered"].as_u64().unwrap();
        let counts = Counts::of_keys(cluster.bootstrap(), &load.topic, 0..claimed);
        let refused = load.publish().exits(6);
        assert!(refused.stderr.contains("has 3 partitions now"), "{refused}");
        load.cell(29, "the topic is given more partitions in mid-run")
            .fired(1)
            .counts(counts)
            .recovered([took])
            .code(ended.code)
            .record();
    });
}
