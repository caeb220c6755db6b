//! The only broker is stopped in order, or killed, and started again, in the middle of a load (T7, T8): the load goes on by itself.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use common::{Folder, tidegate, usage};
use rustix::process::Signal;
use tidegate_testkit::kafka::{RealKafka, answers_api_versions};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::server::free_ports;
use tidegate_testkit::{Kind, Running, services, unique_name};

/// Rows of a load; a commit is due every 64 KiB.
const ROWS: u32 = 200_000;
/// How soon a load must go on when the broker is there again (G7).
const RECOVERY: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the broker goes away.
const TIMES: u32 = 2;

/// The embedded broker as a process of its own.
struct Embedded {
    folder: Folder,
    address: String,
    process: Option<Running>,
}

impl Embedded {
    fn start() -> Self {
        let [port] = free_ports().unwrap();
        let mut broker = Self {
            folder: Folder::new(),
            address: format!("127.0.0.1:{port}"),
            process: None,
        };
        broker.restart();
        broker
    }

    fn restart(&mut self) {
        let data = self.folder.name("data");
        let arguments = ["broker", "--listen", &self.address, "--data-dir", &data];
        let running = tidegate(arguments).args(["--registry-listen", "127.0.0.1:0"]);
        self.process = Some(running.timeout(Duration::from_secs(600)).start());
        wait_until_it_answers(&self.address);
    }
}

fn wait_until_it_answers(bootstrap: &str) {
    let address = bootstrap.to_socket_addrs().unwrap().next().unwrap();
    wait_until(PATIENCE, || answers_api_versions(address).unwrap_or(false)).unwrap();
}

/// A broker that goes away and comes back.
enum Server {
    Embedded(Embedded),
    Real(Box<RealKafka>),
}

/// How it goes away.
#[derive(Clone, Copy, PartialEq)]
enum End {
    InOrder,
    Killed,
}

impl Server {
    fn bootstrap(&self) -> String {
        match self {
            Self::Embedded(broker) => broker.address.clone(),
            Self::Real(kafka) => kafka.address().to_string(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Embedded(_) => Kind::Embedded,
            Self::Real(_) => Kind::Real,
        }
    }

    fn end(&mut self, end: End) {
        match (self, end) {
            (Self::Embedded(broker), End::InOrder) => {
                let mut process = broker.process.take().unwrap();
                process.signal(Signal::TERM);
                let ended = process.finish();
                assert_eq!(ended.code, Some(0), "{ended}");
            }
            (Self::Embedded(broker), End::Killed) => {
                assert_eq!(broker.process.take().unwrap().kill().code, None);
            }
            (Self::Real(kafka), End::InOrder) => kafka.stop(),
            (Self::Real(kafka), End::Killed) => kafka.kill(),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Embedded(broker) => broker.restart(),
            Self::Real(kafka) => kafka.restart().unwrap(),
        }
    }
}

/// Where the topic ends, as far as anybody answers.
fn end_of(bootstrap: &str, topic: &str) -> i64 {
    let end = RawClient::connect(bootstrap).and_then(|mut client| client.end_offset(topic, 0));
    end.unwrap_or(0)
}

#[track_caller]
fn wait_for_progress(bootstrap: &str, topic: &str, behind: i64) -> Duration {
    let started = Instant::now();
    wait_until(PATIENCE, || end_of(bootstrap, topic) > behind).unwrap();
    started.elapsed()
}

/// Takes the broker away from a load, and gives it back, some times.
fn disturb(server: &mut Server, end: End, cell: Cell) {
    let (folder, topic) = (Folder::new(), unique_name("restarted"));
    let file = folder.file("usage.csv", usage(ROWS, 1));
    let bootstrap = server.bootstrap();
    let loading = tidegate(["publish", &file, "-t", &topic, "--create-topic"])
        .args(["-b", &bootstrap, "--format", "json", "-o", "json"])
        .args(["--partitions", "1", "--commit-interval", "0ms"])
        .timeout(Duration::from_secs(300))
        .start();
    let mut recoveries = Vec::new();
    for _ in 0..TIMES {
        let there = end_of(&bootstrap, &topic);
        wait_for_progress(&bootstrap, &topic, there);
        server.end(end);
        server.restart();
        let there = end_of(&bootstrap, &topic);
        recoveries.push(wait_for_progress(&bootstrap, &topic, there));
    }
    let ended = loading.finish().expect_code(0);
    assert_eq!(ended.json()["records"]["delivered"], ROWS, "{ended}");
    assert!(
        recoveries.iter().all(|took| *took < RECOVERY),
        "{recoveries:?}"
    );
    cell.on(server.kind())
        .fired(TIMES.into())
        .counts(Counts::of_keys(&bootstrap, &topic, 0..u64::from(ROWS)))
        .recovered(recoveries)
        .code(ended.code)
        .record();
}

fn for_each_server(mut test: impl FnMut(&mut Server)) {
    test(&mut Server::Embedded(Embedded::start()));
    if let Some(kafka) = services::own_kafka("") {
        test(&mut Server::Real(Box::new(kafka)));
    }
}

#[test]
fn t07_a_broker_that_is_stopped_and_started_again() {
    for_each_server(|server| {
        let cell = Cell::new(7, "the broker is stopped in order and started again");
        disturb(server, End::InOrder, cell);
    });
}

#[test]
fn t08_a_broker_that_is_killed_and_started_again() {
    for_each_server(|server| {
        let cell = Cell::new(8, "the broker is killed and started again");
        disturb(server, End::Killed, cell);
    });
}
