//! A broker process that is killed in the middle of appends and transactions: what it acknowledged is there
//! again, and what belongs together is there together.
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

use support::transactional::{
    Protocol, READ_COMMITTED, TxnProducer, UNREACHABLE, end_offset, values,
};
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

/// One transaction: some rows, and how many there are with them. The first code that is not 0.
fn load(producer: &mut TxnProducer, rows: usize, committed: bool) -> Result<usize, i16> {
    let code_of = |code: i16| if code == 0 { Ok(()) } else { Err(code) };
    let more = rows % 5 + 1;
    for row in rows..rows + more {
        code_of(producer.send("rows", &row.to_string()).0)?;
    }
    let total = (rows + more).to_string();
    code_of(producer.send("positions", &total).0)?;
    code_of(producer.end(committed))?;
    Ok(rows + more)
}

#[test]
fn transactions_are_whole_after_a_kill() {
    for protocol in Protocol::BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged = 0;
        let mut kills_in_a_transaction = 0;
        for round in 0..8 {
            let mut child = start_victim(dir.path());
            let address = Addresses::read(dir.path()).unwrap().unwrap().kafka;
            let mut client = Client::connect(address);
            client.create("rows");
            client.create_compacted("positions", 4096);
            let mut producer = TxnProducer::new(address, "job", protocol);
            // Nothing is open any more: what is committed is all there is to know.
            let rows = values(&mut client, "rows", READ_COMMITTED);
            let positions = values(&mut client, "positions", READ_COMMITTED);
            let position = positions.last().map_or(0, |last| last.parse().unwrap());
            let expected: Vec<_> = (0..position).map(|row: usize| row.to_string()).collect();
            assert_eq!(rows, expected);
            assert!(position >= acknowledged, "{position} {acknowledged}");
            acknowledged = position;

            let killer = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20 + round * 17));
                child.kill().unwrap();
                child.wait().unwrap();
            });
            for number in 0.. {
                let committed = number % 4 != 3;
                match load(&mut producer, acknowledged, committed) {
                    Ok(rows) if committed => acknowledged = rows,
                    Ok(_) => {}
                    Err(code) => {
                        assert_eq!(code, UNREACHABLE, "{protocol:?}");
                        break;
                    }
                }
            }
            killer.join().unwrap();
            let broker = Broker::start(BrokerConfig::new(dir.path())).unwrap();
            let mut client = Client::connect(broker.address());
            let [open, all] = [READ_COMMITTED, 0].map(|to| end_offset(&mut client, "rows", to));
            kills_in_a_transaction += usize::from(open < all);
            broker.crash();
        }
        assert!(acknowledged > 0);
        assert!(
            kills_in_a_transaction > 0,
            "no kill hit an open transaction"
        );
    }
}
