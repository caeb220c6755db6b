//! A compacted topic through the broker's sockets: it stays small, and nobody misses anything.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod support;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use support::Client;
use support::transactional::{
    Protocol, READ_COMMITTED, READ_UNCOMMITTED, TxnProducer, end_offset, read,
};
use tidegate_broker::{Broker, BrokerConfig};

const SEGMENT_BYTES: u64 = 16 * 1024;

/// Bytes of log files under `dir`.
fn log_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => log_bytes(&entry.path()),
        Ok(metadata) if entry.path().extension().is_some_and(|end| end == "log") => metadata.len(),
        // Compaction may just have removed it.
        _ => 0,
    });
    sizes.sum()
}

#[test]
fn positions_of_many_transactions_stay_small() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let broker = Broker::start(BrokerConfig::new(dir.path())).unwrap();
        let client = Client::connect(broker.address());
        (broker, client)
    };
    let (broker, mut client) = start();
    client.create_compacted("positions", SEGMENT_BYTES);
    let mut producer = TxnProducer::new(broker.address(), "job", Protocol::Second);
    let mut last_committed = (0, String::new());
    let rounds = 1000;
    for round in 0..rounds {
        let value = format!("{round:0200}");
        let (code, offset) = producer.send("positions", &value);
        assert_eq!(code, 0);
        let committed = round % 10 != 9;
        assert_eq!(producer.end(committed), 0);
        if committed {
            last_committed = (offset, value);
        }
    }
    let logs = dir.path().join("topics");
    let begun = Instant::now();
    // What is left: the file being written, and one that has just become complete.
    while log_bytes(&logs) > 3 * SEGMENT_BYTES {
        assert!(begun.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(10));
    }
    let check = |client: &mut Client| {
        assert_eq!(end_offset(client, "positions", READ_COMMITTED), 2 * rounds);
        let found = read(client, "positions", READ_COMMITTED);
        assert_eq!(found.last(), Some(&last_committed));
        assert!(found.is_sorted());
        read(client, "positions", READ_UNCOMMITTED);
    };
    check(&mut client);
    broker.crash();
    let (broker, mut client) = start();
    check(&mut client);
    // The producer goes on where it was.
    producer.client = Client::connect(broker.address());
    let (code, offset) = producer.send("positions", "after");
    assert_eq!((code, offset), (0, 2 * rounds));
    assert_eq!(producer.end(true), 0);
}
