//! A broker process that is killed in the middle of appends: what it acknowledged is there again.
//!
//! The test binary runs itself once more as the victim, told so by an environment variable.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use support::{Client, batch};
use tidegate_broker::{Addresses, Broker, BrokerConfig, ErrorKind};

const VICTIM_DIR: &str = "TIDEGATE_TEST_VICTIM_DIR";

/// Not a test of its own: what the victim runs. It serves until it is killed.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else {
        return;
    };
    let config = BrokerConfig {
        segment_bytes: 20_000,
        ..BrokerConfig::new(dir)
    };
    let broker = Broker::start(config).unwrap();
    println!("\nserving {}", broker.address());
    // Whoever started this kills it; if that one has died, the input ends.
    std::io::stdin().lines().for_each(drop);
}

fn start_victim(dir: &std::path::Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM_DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let serving = lines.any(|line| line.unwrap().starts_with("serving "));
    assert!(serving, "the victim did not start");
    child
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for round in 0..6 {
        let mut child = start_victim(dir.path());
        let locked = Broker::start(BrokerConfig::new(dir.path())).unwrap_err();
        assert_eq!(locked.kind(), ErrorKind::Locked);
        let address = Addresses::read(dir.path()).unwrap().unwrap().kafka;
        let mut client = Client::connect(address);
        client.create("usage");

        // What was not acknowledged may be there all the same, but nothing else, and all in order.
        let found = client.values("usage");
        assert!(found.len() >= acknowledged && found.len() <= sent.len());
        assert_eq!(found, sent[..found.len()]);
        sent.truncate(found.len());

        let (tell, told) = mpsc::sync_channel(1);
        let killer = std::thread::spawn(move || {
            told.recv().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let kill_at = sent.len() + 50 * (round + 1);
        loop {
            if sent.len() == kill_at {
                tell.send(()).unwrap();
            }
            let number = sent.len();
            let value = format!("{number:0width$}", width = 10 + number % 300).into_bytes();
            let sequence = i32::try_from(number).unwrap();
            sent.push(value.clone());
            match client.try_produce("usage", batch(&value, 3, sequence)) {
                Ok((code, offset)) => {
                    assert_eq!((code, offset), (0, i64::from(sequence)));
                    acknowledged = sent.len();
                }
                Err(_) => break,
            }
        }
        killer.join().unwrap();
    }
    assert!(acknowledged > 0);
    let broker = Broker::start(BrokerConfig::new(dir.path())).unwrap();
    let found = Client::connect(broker.address()).values("usage");
    assert!(found.len() >= acknowledged);
    assert_eq!(found, sent[..found.len()]);
}
