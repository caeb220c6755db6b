//! Quotas (T31), a wall clock that jumps (T32), few file descriptors and files of no, one and very many rows (T33).

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use common::load::{Load, PATIENCE, ROWS};
use common::{Exits, Folder, behind, is_installed, on, tidegate, usage};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::proxy::messages::AlterClientQuotasRequest;
use tidegate_testkit::proxy::messages::alter_client_quotas_request::{
    EntityData, EntryData, OpData,
};
use tidegate_testkit::proxy::{ApiKey, Rule, Verb};
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::usage::UsageFile;
use tidegate_testkit::{Cluster, Kind, for_each_cluster, services};

/// Has a client of this name send at most so many bytes a second; none takes that back.
fn set_quota(cluster: &Cluster, client_id: &str, bytes_a_second: Option<f64>) {
    let entity = EntityData::default()
        .with_entity_type("client-id".into())
        .with_entity_name(Some(client_id.to_owned().into()));
    let op = OpData::default()
        .with_key("producer_byte_rate".into())
        .with_value(bytes_a_second.unwrap_or(0.0))
        .with_remove(bytes_a_second.is_none());
    let entry = EntryData::default()
        .with_entity(vec![entity])
        .with_ops(vec![op]);
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let mut client = RawClient::connect(cluster.bootstrap()).unwrap();
    let answer = client.call(&request, 1).unwrap();
    assert_eq!(answer.entries[0].error_code, 0);
}

/// The embedded broker has no quotas; what the client makes of them is shown by tests of its machine.
#[test]
fn t31_a_quota_slows_a_load_down_and_nothing_is_lost() {
    const BYTES_A_SECOND: f64 = 4_000.0;
    let Some(cluster) = Cluster::real() else {
        return;
    };
    let load = Load::new(&cluster);
    let client_id = cluster.unique("throttled");
    set_quota(&cluster, &client_id, Some(BYTES_A_SECOND));
    let proxy = load.proxy();
    let rows = proxy.inject(load.rows(Verb::Pass));
    let setting = format!("client.id={client_id}");
    let ended = load
        .through(proxy.bootstrap())
        .args(["-X", &setting, "--compression", "none"])
        .exits(0);
    set_quota(&cluster, &client_id, None);
    use tidegate_testkit::proxy::messages::ProduceRequest;
    let answers = rows.answers::<ProduceRequest>();
    let throttled = answers.iter().filter(|answer| answer.throttle_time_ms > 0);
    let throttled = throttled.count() as u64;
    assert!(throttled > 0, "no answer told it to wait");
    // Nearly half a megabyte at that rate, were it not for the quota's window of some seconds.
    assert!(ended.elapsed > Duration::from_secs(5), "{ended}");
    load.check();
    load.cell(31, "a quota throttles the load")
        .fired(throttled)
        .counts(load.counts(ROWS))
        .code(ended.code)
        .record();
}

/// A program whose wall clock can be set while it runs, by the library of `faketime`. Its monotonic clock stays right.
struct FalseClock {
    folder: Folder,
}

impl FalseClock {
    fn new() -> Option<Self> {
        if !is_installed("faketime") {
            services::skip("faketime");
            return None;
        }
        let clock = Self {
            folder: Folder::new(),
        };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it off by this.
    fn set(&self, offset: &str) {
        self.folder.file("offset", format!("{offset}\n"));
    }

    /// The command, on this clock.
    fn on(&self, arguments: &[&str]) -> tidegate_testkit::Tidegate {
        let file = self.folder.name("offset");
        let environment = [
            format!("export FAKETIME_TIMESTAMP_FILE={file}"),
            "export FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "export LD_PRELOAD=$(faketime -f +0s printenv LD_PRELOAD)".to_owned(),
        ];
        behind(&environment.join("; ")).args(arguments)
    }
}

/// How many records of a load have a time that is at least half a day off, before (-1) or behind (1) now.
fn records_off(load: &Load<'_>, side: i64) -> u64 {
    const HALF_A_DAY: i64 = 12 * 60 * 60 * 1_000;
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let found = common::records(load.cluster, &load.topic);
    let times = found
        .iter()
        .map(|record| record["timestamp"].as_i64().unwrap());
    times
        .filter(|time| (time - now) * side > HALF_A_DAY)
        .count() as u64
}

/// The wall clock goes a day back, in mid-run and while the load is held, and then forth.
#[test]
fn t32_a_wall_clock_that_jumps_a_day_changes_no_deadline() {
    let Some(clock) = FalseClock::new() else {
        return;
    };
    for_each_cluster(|cluster| {
        clock.set("+0");
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let asked = proxy.inject(Rule::new(ApiKey::DescribeTransactions, Verb::Pass));
        let rows = proxy.inject(load.rows(Verb::Delay(Duration::from_millis(100))));
        let group = cluster.unique("group");
        let held = ["--hold-group", &group, "--hold-limit", "9000"];
        let arguments = ["publish", &load.file, "-t", &load.topic, "--create-topic"];
        let running = clock
            .on(&arguments)
            .args([
                "-b",
                proxy.bootstrap(),
                "--registry",
                cluster.registry_url(),
            ])
            .args(["--commit-interval", "0ms", "-o", "json"])
            .args(held)
            .start();
        assert!(rows.wait_fired(1, PATIENCE));
        clock.set("-1d");
        // It is held, and asks who owns the job every 3 s, by a clock that goes on.
        assert!(asked.wait_fired(1, PATIENCE));
        clock.set("+0");
        let before = asked.fired();
        let since = Instant::now();
        assert!(asked.wait_fired(before + 2, PATIENCE), "it hangs");
        assert!(since.elapsed() > Duration::from_secs(2), "it does not wait");
        let rows = ROWS.to_string();
        let consumer = on(cluster, ["consume", "-t", &load.topic, "-g", &group]);
        consumer.args(["--max", &rows]).exits(0);
        let ended = running.finish().exits(0);
        load.check();
        // What was sent meanwhile has the time of the day before, and what was sent later has not.
        let off = records_off(&load, -1);
        assert!(0 < off && off < u64::from(ROWS), "{off} records");
        load.cell(32, "the wall clock jumps a day back, and forth again")
            .fired(2)
            .counts(load.counts(ROWS))
            .code(ended.code)
            .record();
    });
}

/// A day ahead: Kafka takes no record that is more than an hour ahead of it, which is told; with the right time the load goes on.
#[test]
fn t32_a_wall_clock_that_is_a_day_ahead_is_told_by_a_broker_that_minds() {
    let Some(clock) = FalseClock::new() else {
        return;
    };
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        clock.set("+1d");
        let arguments = ["publish", &load.file, "-t", &load.topic, "--create-topic"];
        let ended = clock
            .on(&arguments)
            .args([
                "-b",
                cluster.bootstrap(),
                "--registry",
                cluster.registry_url(),
            ])
            .args(["--commit-interval", "0ms", "-o", "json"])
            .run();
        assert!(matches!(ended.code, Some(0 | 7)), "{ended}");
        if ended.code == Some(7) {
            assert!(ended.stderr.contains("INVALID_TIMESTAMP"), "{ended}");
        } else {
            assert_eq!(records_off(&load, 1), u64::from(ROWS), "{ended}");
        }
        load.complete_whatever_is_there();
        load.cell(32, "the wall clock is a day ahead")
            .fired(1)
            .counts(load.counts(ROWS))
            .code(ended.code)
            .record();
    });
}

/// With few file descriptors a load succeeds, or says what is wrong; it never hangs.
#[test]
fn t33_few_file_descriptors() {
    for_each_cluster(|cluster| {
        let (mut ran, mut refused) = (0, 0);
        let mut cell = Cell::new(33, "8 to 64 file descriptors");
        for limit in [8, 10, 16, 31, 32, 64] {
            let load = Load::of(cluster, usage(50, 1));
            let arguments = ["publish", &load.file, "-t", &load.topic, "--create-topic"];
            let ended = behind(&format!("ulimit -n {limit}"))
                .args(arguments)
                .args([
                    "-b",
                    cluster.bootstrap(),
                    "--registry",
                    cluster.registry_url(),
                ])
                .args(["-o", "json"])
                .timeout(Duration::from_secs(60))
                .run();
            if ended.code == Some(0) {
                ran += 1;
            } else {
                let code = ended.code.unwrap();
                assert!([1, 11].contains(&code), "{limit}\n{ended}");
                let said = ended.stderr.contains("open files");
                assert!(said, "{limit}\n{ended}");
                refused += 1;
            }
            cell = cell.code(ended.code);
            load.complete_whatever_is_there_of(50);
            cell = cell.counts(load.counts(50));
        }
        assert!(ran > 0, "none was enough");
        cell.on(cluster.kind()).fired(ran + refused).record();
    });
}

/// The embedded broker needs some more.
#[test]
fn t33_few_file_descriptors_with_the_embedded_broker() {
    let (mut fired, mut cell) = (
        0,
        Cell::new(33, "8 to 128 file descriptors, broker included"),
    );
    for limit in [8, 16, 64, 127, 128] {
        let folder = Folder::new();
        let (file, data) = (folder.file("usage.csv", usage(50, 1)), folder.name("data"));
        let arguments = ["publish", &file, "-t", "usage", "--data-dir", &data];
        let ended = behind(&format!("ulimit -n {limit}"))
            .args(arguments)
            .timeout(Duration::from_secs(60))
            .run();
        if ended.code != Some(0) {
            assert!(ended.stderr.contains("open files"), "{limit}\n{ended}");
        }
        assert!(limit < 128 || ended.code == Some(0), "{ended}");
        fired += 1;
        cell = cell.code(ended.code);
        tidegate(arguments).arg("--verify").exits(0);
    }
    cell.on(Kind::Embedded).fired(fired).record();
}

#[test]
fn t33_no_row_and_one_row() {
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(33, "0 and 1 rows");
        for rows in [0, 1] {
            let load = Load::of(cluster, usage(rows, 1));
            let ended = load.publish().arg("--verify").exits(0);
            assert_eq!(ended.json()["rows"]["read"], rows, "{ended}");
            if rows > 0 {
                cell = cell.counts(load.counts(rows));
            }
            cell = cell.fired(1).code(ended.code);
        }
        cell.on(cluster.kind()).record();
    });
}

/// Fifty million rows within the same memory as three million.
#[test]
#[ignore = "takes minutes, in a release build"]
fn t33_fifty_million_rows() {
    const ROWS: u64 = 50_000_000;
    const BOUND: u64 = 51 << 10;
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("many"));
        let file = folder.name("usage.csv");
        UsageFile::new(ROWS).write(file.as_ref()).unwrap();
        let arguments = ["publish", &file, "-t", &topic, "--create-topic"];
        let mut load = on(cluster, arguments)
            .args(["--partitions", "1", "--format", "json", "-o", "json"])
            .timeout(Duration::from_secs(1_800))
            .start();
        let mut highest = 0;
        wait_until(Duration::from_secs(1_800), || {
            highest = highest.max(peak(load.id()));
            !load.is_running()
        })
        .unwrap();
        let ended = load.finish().exits(0);
        assert_eq!(ended.json()["records"]["delivered"], ROWS, "{ended}");
        assert!(highest > 4 << 10 && highest <= BOUND, "{highest} KiB");
        Cell::new(33, "50 million rows, within their memory")
            .on(cluster.kind())
            .fired(1)
            .code(ended.code)
            .record();
    });
}

/// The most memory a process has had so far, in kibibytes; 0 once it has ended.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// What is left to do of a load that may be complete.
trait Complete {
    fn complete_whatever_is_there(&self);
    fn complete_whatever_is_there_of(&self, rows: u32);
}

impl Complete for Load<'_> {
    fn complete_whatever_is_there(&self) {
        self.complete_whatever_is_there_of(ROWS);
    }

    fn complete_whatever_is_there_of(&self, rows: u32) {
        self.publish().exits(0);
        self.check_rows(rows);
        let counts = self.counts(rows);
        assert_eq!(counts, Counts::whole(rows.into()));
    }
}
