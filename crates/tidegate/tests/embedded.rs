//! The embedded broker: one holder of a data directory, others as its guests, and `tidegate broker`.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Exits, Folder, tidegate, usage};
use rustix::process::Signal;
use serde_json::json;
use tidegate_testkit::Tidegate;
use tidegate_testkit::program::{Finished, wait_until};

/// `tidegate broker` on free ports, and the address it prints.
struct Served {
    child: Child,
    address: String,
    registry: String,
}

impl Served {
    fn start(folder: &Folder) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args([
                "broker",
                "--listen",
                "127.0.0.1:0",
                "--registry-listen",
                "127.0.0.1:0",
            ])
            .current_dir(folder.path("."))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut word = || {
            lines
                .next()
                .unwrap()
                .unwrap()
                .split_whitespace()
                .nth(1)
                .unwrap()
                .to_owned()
        };
        let (address, registry) = (word(), word());
        Self {
            child,
            address,
            registry,
        }
    }

    fn terminate(mut self) -> Option<i32> {
        Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_running_broker_is_used_as_it_is() {
    let folder = Folder::new();
    folder.file("usage.csv", usage(3, 1));
    let served = Served::start(&folder);
    let guest = tidegate(["publish", "usage.csv", "-t", "usage", "--verify"])
        .dir(folder.path("."))
        .exits(0);
    assert!(
        guest.elapsed < Duration::from_secs(10),
        "a guest waits for nobody\n{guest}"
    );
    let arguments = [
        "consume",
        "-t",
        "usage",
        "--until-end",
        "-b",
        &served.address,
        "--registry",
        &served.registry,
    ];
    assert_eq!(tidegate(arguments).exits(0).stdout.lines().count(), 3);
    let second = tidegate([
        "broker",
        "--listen",
        "127.0.0.1:0",
        "--registry-listen",
        "127.0.0.1:0",
    ])
    .dir(folder.path("."))
    .run();
    assert_eq!(second.code, Some(10), "{second}");
    assert_eq!(
        served.terminate(),
        Some(0),
        "a signal is how it is meant to end"
    );
    tidegate(["consume", "-t", "usage", "--until-end"])
        .dir(folder.path("."))
        .exits(0);
}

#[test]
fn what_a_killed_broker_left_is_taken_over() {
    let folder = Folder::new();
    folder.file("usage.csv", usage(3, 1));
    let mut served = Served::start(&folder);
    tidegate(["publish", "usage.csv", "-t", "usage"])
        .dir(folder.path("."))
        .exits(0);
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    let consumed = tidegate(["consume", "-t", "usage", "--until-end"])
        .dir(folder.path("."))
        .exits(0);
    assert_eq!(
        consumed.stdout.lines().count(),
        3,
        "acknowledged is durable\n{consumed}"
    );
}

/// Several processes at once on one folder: one holds it, the others are its guests, and it stays until they have left.
#[test]
fn many_at_once_share_one_holder() {
    let folder = Folder::new();
    folder.file("usage.csv", usage(500, 10));
    let started = Instant::now();
    let loads: Vec<_> = (0..4)
        .map(|number| {
            let topic = format!("usage-{number}");
            tidegate(["publish", "usage.csv", "-t", &topic, "--verify"])
                .dir(folder.path("."))
                .start()
        })
        .collect();
    for load in loads {
        load.finish().exits(0);
    }
    assert!(started.elapsed() < Duration::from_secs(60));
    for number in 0..4 {
        let topic = format!("usage-{number}");
        let consumed = tidegate(["consume", "-t", &topic, "--until-end", "--format", "value"])
            .dir(folder.path("."))
            .exits(0);
        assert!(consumed.stdout.lines().count() == 5_000, "{topic}");
    }
}

/// A holder that is done does not take its guests' broker away.
#[test]
fn a_holder_serves_its_guests_until_they_leave() {
    let folder = Folder::new();
    folder.file("usage.csv", usage(3, 1));
    let here = |command: Tidegate| command.dir(folder.path("."));
    let gate = ["publish", "usage.csv", "-t", "usage", "--wait-group", "app"];
    let mut holder = here(tidegate(gate)).start();
    let address = folder.path(".tidegate/broker.json");
    wait_until(Duration::from_secs(30), || address.exists()).unwrap();
    // The topic may not be there yet: then the guest is told so, and comes again.
    let mut guest = here(tidegate(["consume", "-t", "usage", "-g", "app"])).start();
    wait_until(Duration::from_secs(30), || {
        if !guest.is_running() {
            guest = here(tidegate(["consume", "-t", "usage", "-g", "app"])).start();
        }
        let asked = here(tidegate([
            "balance",
            "-g",
            "app",
            "-t",
            "usage",
            "--timeout",
            "0s",
            "-o",
            "json",
        ]))
        .run();
        // A topic without records is balanced too.
        let has_records = |asked: &Finished| asked.json()["partitions"] != json!([]);
        asked.code == Some(0) && has_records(&asked)
    })
    .unwrap();
    thread::sleep(Duration::from_millis(500));
    assert!(holder.is_running(), "the guest still reads");
    guest.signal(Signal::INT);
    guest.finish().exits(130);
    let holder = holder.finish().exits(0);
    assert!(
        holder.stderr.contains("serving them until they leave"),
        "{holder}"
    );
}
