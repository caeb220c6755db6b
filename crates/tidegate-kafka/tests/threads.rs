//! A producer that is closed or dropped leaves no thread behind, whatever state it is in. Alone in its process, so that threads can be counted.
#![cfg(test)]
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use tidegate_broker::{Action, ApiKey, Broker, BrokerConfig, Rule};
use tidegate_kafka::producer::{Producer, ProducerConfig, ProducerRecord};
use tidegate_kafka::{Client, ClientConfig, NewTopic};

/// Names of this process's threads that belong to a producer. The kernel keeps 15 bytes of each.
fn producer_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let ours = [
        "tidegate-metada",
        "tidegate-produc",
        "tidegate-compre",
        "tidegate-link",
    ];
    names
        .map(|name| name.trim().to_owned())
        .filter(|name| ours.contains(&name.as_str()))
        .collect()
}

/// The threads once there are that many, or as they are after a while: one that was made names itself when it first runs, and one that has ended
/// is listed for a moment more.
fn producer_threads_once(enough: impl Fn(usize) -> bool) -> Vec<String> {
    let started = Instant::now();
    loop {
        let threads = producer_threads();
        if enough(threads.len()) || started.elapsed() > Duration::from_secs(10) {
            return threads;
        }
        std::thread::yield_now();
    }
}

fn open(client: &Client) -> Producer {
    let mut producer = Producer::open(client.clone(), ProducerConfig::default()).unwrap();
    let topic = producer.topic("threads").unwrap();
    for tag in 0..1_000 {
        let record = ProducerRecord {
            value: Some(b"value"),
            tag,
            ..ProducerRecord::default()
        };
        producer.append(topic, 0, record).unwrap();
    }
    producer
}

#[test]
fn no_thread_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(BrokerConfig::new(folder.path())).unwrap();
    let client =
        Client::connect(ClientConfig::new(&broker.address().to_string()).unwrap()).unwrap();
    let new = NewTopic {
        name: "threads".to_owned(),
        partitions: Some(1),
        ..NewTopic::default()
    };
    client.admin().create_topic(&new).unwrap();
    let mut settled = Vec::new();

    // Closed.
    let producer = open(&client);
    let threads = producer_threads_once(|count| count >= 3);
    assert!(threads.len() >= 3, "{threads:?}");
    producer.close(&mut settled).unwrap();
    assert_eq!(producer_threads_once(|count| count == 0), [""; 0]);

    // Dropped with an open batch.
    drop(open(&client));
    assert_eq!(producer_threads_once(|count| count == 0), [""; 0]);

    // Dropped while a broker does not answer.
    let held = broker
        .faults()
        .inject(Rule::new(ApiKey::Produce, Action::Hold));
    let mut producer = open(&client);
    producer.seal_all().unwrap();
    assert!(held.wait_fired(1, Duration::from_secs(10)));
    let started = Instant::now();
    drop(producer);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(producer_threads_once(|count| count == 0), [""; 0]);
    held.remove();

    // Dropped while there is no broker.
    let mut producer = open(&client);
    broker.stop().unwrap();
    producer.seal_all().unwrap();
    let started = Instant::now();
    drop(producer);
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(producer_threads_once(|count| count == 0), [""; 0]);
}
