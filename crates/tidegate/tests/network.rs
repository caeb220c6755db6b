//! The network between the program and its brokers loses, breaks, slows down and goes away (T14, T15).

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::load::{Load, PATIENCE, ROWS};
use common::{Exits, Privilege, tidegate, usage};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::proxy::{ActiveRule, Proxy, Rule, Verb};
use tidegate_testkit::usage::Random;
use tidegate_testkit::{Cluster, Kind, for_each_cluster, services};

/// Rows of a load over a bad line.
const FEW: u32 = 4_000;
/// How soon a load must go on when the network is there again (G7).
const RECOVERY: Duration = Duration::from_secs(30);

#[test]
fn t14_lost_requests_half_frames_and_half_open_sockets() {
    for_each_cluster(|cluster| {
        for (verb, fault) in [
            (Verb::Drop, "requests are lost"),
            (Verb::Reset, "connections are reset in mid-frame"),
            (Verb::HalfOpen, "sockets are half open"),
        ] {
            let load = Load::new(cluster);
            let proxy = load.proxy();
            let rules = [
                load.rows(verb).nth(2),
                load.positions(verb).nth(2),
                load.ends(verb).nth(3),
                load.rows(verb).on_answer().nth(5),
            ];
            let rules = rules.map(|rule| proxy.inject(rule));
            let run = load
                .through(proxy.bootstrap())
                .args(["--request-timeout", "500ms"])
                .exits(0);
            let fired = rules.iter().map(ActiveRule::fired);
            let fired: Vec<u64> = fired.collect();
            assert!(fired.iter().all(|fired| *fired == 1), "{verb:?}: {fired:?}");
            load.check();
            load.cell(14, fault)
                .fired(fired.iter().sum())
                .counts(load.counts(ROWS))
                .code(run.code)
                .record();
        }
    });
}

/// 64 kbit/s each way.
#[test]
fn t14_a_line_of_64_kbit() {
    const BYTES_A_SECOND: u64 = 8_000;
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(FEW, 1));
        let proxy = load.proxy();
        let there = proxy.inject(Rule::any(Verb::Slow(BYTES_A_SECOND)));
        let back = proxy.inject(Rule::any(Verb::Slow(BYTES_A_SECOND)).on_answer());
        // The positions of all others would take their time on this line.
        let positions = cluster.unique("positions");
        let run = load
            .through(proxy.bootstrap())
            .args(["--positions-topic", &positions])
            .exits(0);
        // What is compressed in the batches alone takes that.
        assert!(run.elapsed > Duration::from_secs(2), "{run}");
        load.cell(14, "a line of 64 kbit/s")
            .fired(there.fired() + back.fired())
            .counts(load.counts(FEW))
            .code(run.code)
            .record();
    });
}

/// Of all requests and answers, one in ten is lost, with its connection or without.
#[test]
fn t14_any_request_or_answer_is_lost() {
    for_each_cluster(|cluster| {
        let seed = 14;
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let mut rules = Vec::new();
        for verb in [Verb::Drop, Verb::Reset] {
            for is_answer in [false, true] {
                let chance = Chance::new(seed + rules.len() as u64);
                let rule = Rule::any(verb).when(move |_| chance.strikes());
                let rule = if is_answer { rule.on_answer() } else { rule };
                rules.push(proxy.inject(rule));
            }
        }
        let run = load
            .through(proxy.bootstrap())
            .args(["--request-timeout", "500ms"])
            .exits(0);
        load.check();
        let fired = rules.iter().map(ActiveRule::fired);
        load.cell(14, "one in ten requests and answers is lost")
            .seed(seed)
            .fired(fired.sum())
            .counts(load.counts(ROWS))
            .code(run.code)
            .record();
    });
}

/// One in twenty, but for the first few: who is there at all is asked first, with a deadline of its own.
struct Chance(Mutex<(Random, u32)>);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(Mutex::new((Random::new(seed), 4)))
    }

    fn strikes(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        let (random, spared) = &mut *state;
        if *spared > 0 {
            *spared -= 1;
            return false;
        }
        random.below(20) == 0
    }
}

/// Set for a test that runs in a network namespace of its own.
const INSIDE: &str = "TIDEGATE_LOSSY_NETWORK";

/// A network namespace, which takes its end with it.
struct Namespace(String);

impl Namespace {
    /// None where this user may not make one, or a tool is missing.
    fn new() -> Option<Self> {
        for tool in ["ip", "nft"] {
            if !common::is_installed(tool) {
                services::skip(&format!("{tool} (iproute2, nftables)"));
                return None;
            }
        }
        Privilege::root()?;
        let name = tidegate_testkit::unique_name("tidegate");
        run("ip", &["netns", "add", &name]);
        Some(Self(name))
    }

    /// Runs a test of this file again, in here.
    fn test(&self, name: &str) {
        let test = std::env::current_exe().unwrap();
        let tested = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .arg(test)
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(tested.unwrap().success(), "see above");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
        assert!(removed.is_ok_and(|status| status.success()) || thread::panicking());
    }
}

/// From now on three of ten packets of this namespace are lost.
fn lose_packets() {
    run("nft", &["add", "table", "inet", "lossy"]);
    let chain = "{ type filter hook input priority 0; }";
    run("nft", &["add", "chain", "inet", "lossy", "input", chain]);
    let rule = "add rule inet lossy input meta l4proto tcp numgen random mod 10 < 3 counter drop";
    run("nft", &rule.split(' ').collect::<Vec<_>>());
}

/// Loses none any more; how many were lost.
fn lost_packets() -> u64 {
    let rules = run("nft", &["list", "table", "inet", "lossy"]);
    run("nft", &["delete", "table", "inet", "lossy"]);
    let (_, behind) = rules.split_once("counter packets ").unwrap();
    behind.split(' ').next().unwrap().parse().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Three of ten packets are lost, both ways: whatever the client and TCP make of that.
#[test]
fn t14_three_of_ten_packets_are_lost() {
    if std::env::var_os(INSIDE).is_none() {
        if let Some(namespace) = Namespace::new() {
            namespace.test("t14_three_of_ten_packets_are_lost");
        }
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let embedded = Cluster::embedded();
    load_over_lossy_network(Kind::Embedded, embedded.bootstrap());
    if let Some(kafka) = services::own_kafka("") {
        load_over_lossy_network(Kind::Real, &kafka.address().to_string());
    }
}

fn load_over_lossy_network(kind: Kind, bootstrap: &str) {
    let folder = common::Folder::new();
    let file = folder.file("usage.csv", usage(FEW, 1));
    let topic = tidegate_testkit::unique_name("lossy");
    let publish = tidegate(["publish", &file, "-t", &topic, "--create-topic"])
        .args(["-b", bootstrap, "--format", "json", "-o", "json"])
        .args(["--partitions", "1", "--request-timeout", "20s"])
        .args(["--connect-timeout", "60s"]);
    let mut cell = Cell::new(14, "three of ten packets are lost").on(kind);
    lose_packets();
    // Half of all attempts to connect are lost, so that the beginning may take longer than it may: then it is told, and run again.
    for attempt in 1.. {
        let ended = publish.run();
        assert!(matches!(ended.code, Some(0 | 4)), "{ended}");
        cell = cell.code(ended.code);
        if ended.code == Some(0) {
            break;
        }
        assert!(attempt < 10, "{ended}");
    }
    let lost = lost_packets();
    let counts = Counts::of_keys(bootstrap, &topic, 0..u64::from(FEW));
    cell.fired(lost).counts(counts).record();
}

/// Cuts a load off from all brokers for this time.
fn cut_off(cluster: &Cluster, duration: Duration, cell: Cell) {
    let load = Load::new(cluster);
    let proxy = load.proxy();
    let slow = proxy.inject(load.rows(Verb::Delay(Duration::from_millis(50))));
    let running = load
        .through(proxy.bootstrap())
        .timeout(duration + Duration::from_secs(120))
        .start();
    assert!(slow.wait_fired(2, PATIENCE));
    proxy.refuse();
    let broken = proxy.reset_connections();
    assert!(broken > 0);
    thread::sleep(duration);
    // It has tried.
    assert!(proxy.wait_refused(1, PATIENCE));
    let (before, since) = (slow.fired(), Instant::now());
    proxy.accept();
    assert!(slow.wait_fired(before + 1, RECOVERY), "it does not go on");
    let recovery = since.elapsed();
    let ended = running.finish().expect_code(0);
    load.check();
    cell.on(cluster.kind())
        .fired(broken as u64 + proxy.refused())
        .counts(load.counts(ROWS))
        .recovered([recovery])
        .code(ended.code)
        .record();
}

#[test]
fn t15_cut_off_from_all_brokers_for_5_s() {
    for_each_cluster(|cluster| {
        let cell = Cell::new(15, "cut off from all brokers for 5 s");
        cut_off(cluster, Duration::from_secs(5), cell);
    });
}

#[test]
#[ignore = "takes minutes"]
fn t15_cut_off_from_all_brokers_for_60_s() {
    for_each_cluster(|cluster| {
        let cell = Cell::new(15, "cut off from all brokers for 60 s");
        cut_off(cluster, Duration::from_secs(60), cell);
    });
}

/// Nobody comes back: the deadline ends the load, and the next run goes on.
#[test]
fn t15_cut_off_from_all_brokers_for_good() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let slow = proxy.inject(load.rows(Verb::Delay(Duration::from_millis(50))));
        let running = load
            .through(proxy.bootstrap())
            .args(["--delivery-timeout", "5s", "--request-timeout", "1s"])
            .start();
        assert!(slow.wait_fired(2, PATIENCE));
        proxy.refuse();
        let broken = proxy.reset_connections();
        let since = Instant::now();
        let ended = running.finish().expect_code(4);
        let took = since.elapsed();
        assert!(took >= Duration::from_secs(4), "{took:?}\n{ended}");
        assert!(took < Duration::from_secs(20), "{took:?}\n{ended}");
        let claimed = ended.json()["records"]["delivered"].as_u64().unwrap();
        assert!(claimed < u64::from(ROWS), "{ended}");
        let fired = broken as u64 + proxy.refused();
        drop::<Proxy>(proxy);
        let summary = load.complete();
        assert!(
            summary["resumed_at_row"].as_u64().unwrap_or(0) >= claimed,
            "{summary}"
        );
        load.cell(15, "cut off from all brokers for good")
            .fired(fired)
            .counts(load.counts(ROWS))
            .code(ended.code)
            .record();
    });
}
