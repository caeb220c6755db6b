//! With faults: what the broker loses, refuses, forgets or delays changes nothing about what stands in the topic at the end. Each test asks
//! its faults whether they fired.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_broker::{Action, ApiKey, Rule};
use tidegate_kafka::producer::ProducerConfig;
use tidegate_kafka::{Client, ClientConfig, ErrorKind};
use tidegate_testkit::Kind;
use tidegate_testkit::matrix::Cell;

use crate::common::{Embedded, Load, SOON, create, impatient, patient, small_batches};

const REQUEST_TIMED_OUT: i16 = 7;
const NOT_LEADER: i16 = 6;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
const UNKNOWN_PRODUCER_ID: i16 = 59;

/// Loads while every few Produce requests meet `action`, and checks the topic.
fn survives(cell: Option<Cell>, action: Action, every: u64, client: fn(&str) -> Client) {
    let embedded = Embedded::start();
    let client = client(&embedded.bootstrap());
    create(&client, "faults", 3, &[]);
    let mut load = Load::open(&client, "faults", small_batches());
    let count = AtomicU64::new(0);
    let rule = Rule::new(ApiKey::Produce, action)
        .when(move |_| count.fetch_add(1, Ordering::Relaxed) % every == every - 1)
        .times(4);
    let fault = embedded.broker().faults().inject(rule);
    load.append(12_000).unwrap();
    load.flush().unwrap();
    load.check(&client, "faults");
    assert!(fault.fired() >= 3, "{action:?} fired {}", fault.fired());
    if let Some(cell) = cell {
        let cell = cell.on(Kind::Embedded).fired(fault.fired());
        cell.counts(load.counts(&embedded.bootstrap(), "faults"))
            .record();
    }
}

#[test]
fn t14_connections_that_break_before_the_append() {
    let cell = Cell::new(
        14,
        "connections break before the append, the producer alone",
    );
    survives(Some(cell), Action::Disconnect, 7, patient);
}

#[test]
fn t13_connections_that_break_instead_of_an_answer() {
    let cell = Cell::new(
        13,
        "connections break instead of an answer, the producer alone",
    );
    survives(Some(cell), Action::DisconnectAfter, 7, patient);
}

#[test]
fn t13_answers_that_are_lost_while_the_connection_stays() {
    let cell = Cell::new(13, "answers are lost, the producer alone");
    survives(Some(cell), Action::DropAnswer, 20, impatient);
}

#[test]
fn t14_requests_that_are_lost_while_the_connection_stays() {
    let cell = Cell::new(14, "requests are lost, the producer alone");
    survives(Some(cell), Action::DropRequest, 20, impatient);
}

#[test]
fn t14_requests_that_come_so_late_that_they_were_sent_again() {
    let cell = Cell::new(
        14,
        "requests come so late that they were sent again, the producer alone",
    );
    survives(
        Some(cell),
        Action::Delay(Duration::from_millis(1_800)),
        20,
        impatient,
    );
}

#[test]
fn errors_that_pass() {
    for code in [
        NOT_LEADER,
        REQUEST_TIMED_OUT,
        NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ] {
        survives(None, Action::AnswerError(code), 9, patient);
    }
}

#[test]
fn t12_metadata_that_fails_during_a_repair() {
    let embedded = Embedded::start();
    let client = patient(&embedded.bootstrap());
    create(&client, "faults", 1, &[]);
    let mut load = Load::open(&client, "faults", small_batches());
    load.append(1_000).unwrap();
    load.flush().unwrap();
    let faults = embedded.broker().faults();
    let missing = faults.inject(Rule::new(ApiKey::Metadata, Action::AnswerError(3)).times(3));
    let broken = faults.inject(Rule::new(ApiKey::Produce, Action::Disconnect).times(1));
    load.append(1_000).unwrap();
    load.flush().unwrap();
    load.check(&client, "faults");
    assert_eq!((missing.fired(), broken.fired()), (3, 1));
    Cell::new(
        12,
        "metadata says that the topic is missing, the producer alone",
    )
    .on(Kind::Embedded)
    .fired(missing.fired())
    .counts(load.counts(&embedded.bootstrap(), "faults"))
    .record();
}

#[test]
fn a_forgotten_producer_goes_on_under_a_new_id() {
    let embedded = Embedded::start();
    let client = patient(&embedded.bootstrap());
    create(&client, "faults", 2, &[]);
    let mut load = Load::open(&client, "faults", small_batches());
    let first = load.producer.producer_id();
    let rule = Rule::new(ApiKey::Produce, Action::AnswerError(UNKNOWN_PRODUCER_ID)).times(1);
    let forgotten = embedded.broker().faults().inject(rule);
    load.append(4_000).unwrap();
    load.flush().unwrap();
    assert_eq!(forgotten.fired(), 1);
    let second = load.producer.producer_id();
    assert_ne!(first, second);
    let of_second = load
        .settled
        .iter()
        .filter(|batch| batch.producer_id == second);
    assert!(of_second.count() > 0);
    // Which id a batch carries depends on when the other partition's head was through; the check asks for the last one.
    for batch in &mut load.settled {
        batch.producer_id = second;
    }
    load.check(&client, "faults");
}

#[test]
fn t08_a_broker_that_is_killed_and_comes_back() {
    let mut embedded = Embedded::start();
    let client = patient(&embedded.bootstrap());
    create(&client, "faults", 3, &[]);
    let mut load = Load::open(&client, "faults", small_batches());
    let mut recoveries = Vec::new();
    for _ in 0..3 {
        load.append(3_000).unwrap();
        embedded.crash();
        load.append(50).unwrap();
        embedded.restart();
        let started = Instant::now();
        load.flush().unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
        recoveries.push(started.elapsed());
    }
    load.check(&client, "faults");
    Cell::new(8, "the broker is killed and comes back, the producer alone")
        .on(Kind::Embedded)
        .fired(3)
        .counts(load.counts(&embedded.bootstrap(), "faults"))
        .recovered(recoveries)
        .record();
}

#[test]
fn t15_a_broker_that_stays_away_ends_the_load_at_the_deadline() {
    let mut embedded = Embedded::start();
    let config = ClientConfig {
        delivery_timeout: Duration::from_secs(2),
        ..ClientConfig::new(&embedded.bootstrap()).unwrap()
    };
    let client = Client::connect(config).unwrap();
    create(&client, "faults", 3, &[]);
    let mut load = Load::open(&client, "faults", small_batches());
    load.append(1_000).unwrap();
    load.flush().unwrap();
    let delivered = load.settled.len();
    embedded.crash();
    let started = Instant::now();
    load.append(900).unwrap();
    let error = load.flush().unwrap_err();
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains(&embedded.bootstrap()), "{error}");
    // Every batch has its outcome.
    let records: u64 = load
        .settled
        .iter()
        .map(|batch| u64::from(batch.records))
        .sum();
    assert_eq!(records, load.appended);
    assert!(
        load.settled[delivered..]
            .iter()
            .all(|batch| batch.result.is_err())
    );
    Cell::new(15, "the broker stays away, the producer alone")
        .on(Kind::Embedded)
        .fired(1)
        .record();
}

#[test]
fn t30_a_right_that_is_missing_ends_the_load_at_once() {
    let embedded = Embedded::start();
    let client = patient(&embedded.bootstrap());
    create(&client, "faults", 1, &[]);
    let mut load = Load::open(&client, "faults", small_batches());
    let action = Action::AnswerError(CLUSTER_AUTHORIZATION_FAILED);
    let refused = embedded
        .broker()
        .faults()
        .inject(Rule::new(ApiKey::Produce, action));
    let started = Instant::now();
    load.append(10).unwrap();
    let error = load.flush().unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    let place = "topic faults, partition 0, rows 0 to 9: CLUSTER_AUTHORIZATION_FAILED (31)";
    assert!(error.to_string().starts_with(place), "{error}");
    assert_eq!(refused.fired(), 1);
    Cell::new(30, "a right is missing, the producer alone")
        .on(Kind::Embedded)
        .fired(1)
        .record();
}

#[test]
fn t29_a_topic_that_is_deleted_or_created_again_ends_the_load() {
    for again in [false, true] {
        let embedded = Embedded::start();
        let client = patient(&embedded.bootstrap());
        create(&client, "faults", 1, &[]);
        let mut load = Load::open(&client, "faults", small_batches());
        load.append(100).unwrap();
        load.flush().unwrap();
        client.admin().delete_topic("faults").unwrap();
        if again {
            create(&client, "faults", 1, &[]);
        }
        load.append(100).unwrap();
        let started = Instant::now();
        let error = load.flush().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopicMissing, "{error}");
        assert!(
            error.to_string().starts_with("topic faults, partition 0"),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(15));
    }
    Cell::new(29, "the topic is deleted, or made anew, the producer alone")
        .on(Kind::Embedded)
        .fired(2)
        .record();
}

#[test]
fn a_broker_that_does_not_answer_holds_back_whoever_appends() {
    let embedded = Embedded::start();
    let client = patient(&embedded.bootstrap());
    create(&client, "faults", 2, &[]);
    let config = ProducerConfig {
        batch_size: 100_000,
        ..ProducerConfig::default()
    };
    let held = embedded
        .broker()
        .faults()
        .inject(Rule::new(ApiKey::Produce, Action::Hold));
    // Sealed: 16 MiB and a batch for each partition; open: a batch for each partition; and what the threads hold between them.
    let bound = (16 << 20) + 4 * 100_000 + 4 * 100_000;
    let appended_bytes = AtomicU64::new(0);
    let mut load = Load::open(&client, "faults", config);
    thread::scope(|scope| {
        let appending = scope.spawn(|| {
            for _ in 0..300 {
                load.append(10_000).unwrap();
                // At least the length, attributes, two deltas, key, a digit and the header count.
                appended_bytes.fetch_add(10_000 * 12, Ordering::Relaxed);
            }
            load.flush().unwrap();
            load
        });
        assert!(held.wait_fired(1, SOON));
        let mut last = (0, Instant::now());
        while last.1.elapsed() < Duration::from_millis(500) {
            let now = appended_bytes.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
            thread::yield_now();
        }
        assert!(last.0 > 0 && last.0 < bound, "{}", last.0);
        assert!(!appending.is_finished());
        held.remove();
        let load = appending.join().unwrap();
        load.check(&client, "faults");
    });
}
