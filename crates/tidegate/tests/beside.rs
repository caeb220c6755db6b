//! What goes on beside a load: another run of the same job, a group that is slow, time that passes while it is stopped, and others who write to
//! the same topic.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use common::load::{Load, PATIENCE, ROWS};
use common::{count, on};
use rustix::process::Signal;
use serde_json::Value;
use tidegate::kafka::producer::{Producer, ProducerConfig, ProducerRecord, Transactional};
use tidegate::kafka::{Client, ClientConfig};
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::program::wait_until;
use tidegate_testkit::proxy::messages::{DescribeTransactionsRequest, TransactionalId};
use tidegate_testkit::proxy::{ApiKey, Rule, Verb};
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::{Cluster, Finished, Running, for_each_cluster};

/// How soon a run that was replaced must have noticed.
const TAKEOVER: Duration = Duration::from_secs(5);

/// Runs `test` on an embedded broker of the older protocol of transactions, and then as [`for_each_cluster`].
fn for_each_protocol(test: impl Fn(&Cluster)) {
    test(&Cluster::embedded_with(|config| {
        config.transaction_version = 1;
    }));
    for_each_cluster(test);
}

/// How a load ended whose transaction took too long: with `code` where epochs tell that from a job that was taken over (KIP-890). Before that it ends
/// with 10 and says how to go on, and is gone on with here. Whether it was the former.
#[track_caller]
fn noticed_a_rollback(load: &Load<'_>, finished: &Finished, code: i32) -> bool {
    let client = Client::connect(ClientConfig::new(load.cluster.bootstrap()).unwrap()).unwrap();
    let connection = client.open_any().unwrap();
    let version = connection
        .versions()
        .finalised_feature("transaction.version");
    let is_told = version.is_some_and(|version| version >= 2);
    assert_eq!(
        finished.code,
        Some(if is_told { code } else { 10 }),
        "{finished}"
    );
    if !is_told {
        let hint = "the same command goes on behind what was committed";
        assert!(finished.stderr.contains(hint), "{finished}");
        let again = load.publish().run();
        assert_eq!(again.code, Some(0), "{again}");
    }
    is_told
}

/// How the coordinator calls what the job of a load is doing.
fn transaction_state(load: &Load<'_>) -> String {
    let id = TransactionalId(load.job().into());
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
    let mut client = RawClient::connect(load.cluster.bootstrap()).unwrap();
    let answer = client.call(&request, 0).unwrap();
    let state = &answer.transaction_states[0];
    assert_eq!(state.error_code, 0);
    state.transaction_state.to_string()
}

/// Takes the job of `first` over by a second run of it, and sees what becomes of both; how soon the first one noticed.
fn take_over(load: &Load<'_>, first: Running) -> Duration {
    let started = Instant::now();
    let second = load.publish().start();
    let first = first.finish();
    let noticed = started.elapsed();
    assert!(noticed < TAKEOVER, "after {noticed:?}\n{first}");
    let first = first.expect_code(10);
    assert!(
        first.json()["error"]["kind"] == "already-running",
        "{first}"
    );
    assert_eq!(second.finish().code, Some(0));
    load.check();
    noticed
}

#[test]
fn t06_of_two_runs_of_a_job_one_ends_soon() {
    for_each_cluster(|cluster| {
        // One that is at work.
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let slow = proxy.inject(load.rows(Verb::Delay(Duration::from_secs(1))));
        let busy = load.through(proxy.bootstrap()).start();
        assert!(slow.wait_fired(2, PATIENCE));
        let of_busy = take_over(&load, busy);
        let cell = Cell::new(6, "a second run of the same job").counts(load.counts(ROWS));

        // One that a group holds back: it has asked once who owns the job, which it does only while it is idle.
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let asked = proxy.inject(Rule::new(ApiKey::DescribeTransactions, Verb::Pass));
        let group = cluster.unique("group");
        let idle = load
            .through(proxy.bootstrap())
            .args(["--hold-group", &group, "--hold-limit", "10"])
            .start();
        assert!(asked.wait_fired(1, PATIENCE));
        let of_idle = take_over(&load, idle);
        cell.on(cluster.kind())
            .fired(2)
            .counts(load.counts(ROWS))
            .recovered([of_busy, of_idle])
            .code(Some(0))
            .code(Some(10))
            .record();
    });
}

#[test]
fn t17_a_load_that_is_held_back_has_no_transaction_open() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let asked = proxy.inject(Rule::new(ApiKey::DescribeTransactions, Verb::Pass));
        let group = cluster.unique("group");
        let held = load
            .through(proxy.bootstrap())
            .args(["--hold-group", &group, "--hold-limit", "9000"])
            .args(["--transaction-timeout", "1s"])
            .start();
        // The first question comes 3 s after it was held: a transaction would be out of time by then.
        assert!(asked.wait_fired(1, PATIENCE));
        let (end, stable) = load.ends_of(&load.topic);
        assert_eq!(stable, end);
        assert_eq!(transaction_state(&load), "CompleteCommit");
        assert_eq!(count(cluster, &load.topic), 9_000);
        let rows = ROWS.to_string();
        let consumer = on(cluster, ["consume", "-t", &load.topic, "-g", &group])
            .args(["--max", &rows])
            .start();
        let summary = held.finish().expect_code(0).json();
        assert_eq!(summary["warnings"], Value::Null, "{summary}");
        assert_eq!(consumer.finish().code, Some(0));
        load.check();
        load.cell(17, "held back for longer than a transaction may take")
            .fired(1)
            .counts(load.counts(ROWS))
            .code(Some(0))
            .record();
    });
}

/// Suspended in the middle of a transaction, until the cluster has rolled it back.
#[test]
fn t05_a_load_that_was_stopped_for_longer_than_its_transaction_sends_it_again() {
    for_each_protocol(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let position = proxy.inject(load.positions(Verb::Hold).nth(2));
        let mut running = load
            .through(proxy.bootstrap())
            .args(["--transaction-timeout", "1s"])
            .start();
        assert!(position.wait_fired(1, PATIENCE));
        running.signal(Signal::STOP);
        position.release();
        assert!(position.wait_answered(1, PATIENCE));
        let (end, stable) = load.ends_of(&load.topic);
        assert!(stable < end, "a transaction is open: {stable} of {end}");
        wait_until(PATIENCE, || {
            let (end, stable) = load.ends_of(&load.topic);
            stable == end
        })
        .unwrap();
        running.signal(Signal::CONT);
        let finished = running.finish();
        let mut fault = "stopped until its transaction was rolled back".to_owned();
        if noticed_a_rollback(&load, &finished, 0) {
            let warnings = finished.json()["warnings"].to_string();
            assert!(warnings.contains("going on again after row"), "{finished}");
        } else {
            fault.push_str(", below transaction.version 2; and run again");
        }
        load.check();
        load.cell(5, &fault)
            .fired(1)
            .counts(load.counts(ROWS))
            .code(finished.code)
            .record();
    });
}

/// Asked to end while it is suspended: it finds its transaction rolled back, and has nothing to do but to end.
#[test]
fn a_load_that_is_interrupted_when_it_was_rolled_back_ends_in_order() {
    for_each_protocol(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let position = proxy.inject(load.positions(Verb::Hold).nth(2));
        let mut running = load
            .through(proxy.bootstrap())
            .args(["--transaction-timeout", "1s"])
            .start();
        assert!(position.wait_fired(1, PATIENCE));
        running.signal(Signal::STOP);
        wait_until(PATIENCE, || transaction_state(&load) == "CompleteAbort").unwrap();
        position.release();
        running.signal(Signal::TERM);
        running.signal(Signal::CONT);
        let finished = running.finish();
        if noticed_a_rollback(&load, &finished, 143) {
            assert_eq!(finished.json()["status"], "interrupted", "{finished}");
            load.complete();
        }
        load.check();
    });
}

/// Rows are still on their way when the cluster rolls their transaction back: they fail with it, and are sent again.
#[test]
fn rows_that_arrive_behind_their_transaction_are_sent_again() {
    for_each_protocol(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        // Each transaction writes to both partitions: the first request opens it, and the second is late.
        let late = proxy.inject(load.rows(Verb::Hold).nth(4));
        let running = load
            .through(proxy.bootstrap())
            .args(["--transaction-timeout", "1s", "--partitions", "2"])
            .start();
        assert!(late.wait_fired(1, PATIENCE));
        wait_until(PATIENCE, || transaction_state(&load) == "CompleteAbort").unwrap();
        late.release();
        let finished = running.finish();
        if noticed_a_rollback(&load, &finished, 0) {
            let warnings = finished.json()["warnings"].to_string();
            assert!(warnings.contains("going on again after row"), "{finished}");
        }
        let mut ticks = load.ticks();
        ticks.sort_unstable();
        assert!(ticks.into_iter().eq(0..u64::from(ROWS)));
    });
}

/// Strangers write to the same topic, one of them in a transaction that stays open: neither the load nor a verification of it minds.
#[test]
fn a_load_beside_other_writers_is_verified() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let client = Client::connect(ClientConfig::new(cluster.bootstrap()).unwrap()).unwrap();
        RawClient::connect(cluster.bootstrap())
            .unwrap()
            .create_topic(&load.topic, 1, &[])
            .unwrap();
        let transactional = Transactional::new(&cluster.unique("stranger"));
        let mut open = stranger(&client, Some(transactional), &load.topic);
        let mut plain = stranger(&client, None, &load.topic);
        // Once in the midst of the load.
        let proxy = load.proxy();
        let position = proxy.inject(load.positions(Verb::Hold).nth(2));
        let receipt = load.folder.name("receipt.json");
        let running = load
            .through(proxy.bootstrap())
            .args(["--receipt", &receipt, "--verify"])
            .start();
        assert!(position.wait_fired(1, PATIENCE));
        for writer in [&mut open, &mut plain] {
            write(writer, &load.topic);
        }
        position.release();
        let finished = running.finish().expect_code(0);
        assert_eq!(finished.json()["verify"]["status"], "same", "{finished}");
        // Once behind it.
        write(&mut plain, &load.topic);
        let (end, stable) = load.ends_of(&load.topic);
        assert!(stable < end, "a transaction is open: {stable} of {end}");
        for more in [&["-t", load.topic.as_str()][..], &["--receipt", &receipt]] {
            let verified = on(cluster, ["verify", &load.file, "-o", "json"]).args(more);
            let verified = verified.run().expect_code(0);
            assert_eq!(verified.json()["records"], ROWS, "{verified}");
        }
    });
}

/// Somebody else who writes to the topic; in a transaction, it is open from now on.
fn stranger(client: &Client, transactional: Option<Transactional>, topic: &str) -> Producer {
    let config = ProducerConfig {
        transactional,
        ..ProducerConfig::default()
    };
    let mut producer = Producer::open(client.clone(), config).unwrap();
    if producer.is_transactional() {
        producer.begin().unwrap();
    }
    write(&mut producer, topic);
    producer
}

fn write(producer: &mut Producer, topic: &str) {
    let topic = producer.topic(topic).unwrap();
    let record = ProducerRecord {
        key: Some(b"0"),
        value: Some(b"somebody else's"),
        ..ProducerRecord::default()
    };
    producer.append(topic, 0, record).unwrap();
    producer.flush(&mut Vec::new()).unwrap();
}
