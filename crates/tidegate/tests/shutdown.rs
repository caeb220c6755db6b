//! Signals and a closed stdout in every phase of a load (T4): it ends in time, leaves no transaction open, and the next run goes on.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::load::{Load, PATIENCE, ROWS};
use common::{Exits, on, usage};
use rustix::process::Signal;
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::proxy::messages::{
    DescribeTransactionsRequest, ListTransactionsRequest, TransactionalId,
};
use tidegate_testkit::proxy::{ActiveRule, ApiKey, Proxy, Rule, Verb};
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::{Cluster, Finished, Running, Tidegate, for_each_cluster};

/// How soon a load must have ended after a signal.
const BOUND: Duration = Duration::from_secs(30);
/// The signals, and the exit codes they give.
const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// What a load is doing when the signal comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Connecting,
    Inferring,
    FirstCommit,
    Sending,
    Held,
    WaitingForGroup,
    Verifying,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Connecting,
        Self::Inferring,
        Self::FirstCommit,
        Self::Sending,
        Self::Held,
        Self::WaitingForGroup,
        Self::Verifying,
    ];

    /// Whether all rows are committed by then.
    fn is_behind_the_load(self) -> bool {
        matches!(self, Self::WaitingForGroup | Self::Verifying)
    }
}

/// A load in some phase, and what to let go of once the signal was sent, for the cluster itself is well.
struct Caught {
    running: Running,
    held: Vec<ActiveRule>,
}

/// Starts a load and waits until it is in that phase.
fn catch(load: &Load<'_>, proxy: &Proxy, phase: Phase) -> Caught {
    let command = load.through(proxy.bootstrap());
    let group = load.cluster.unique("group");
    let inject = |rule: Rule| proxy.inject(rule);
    let fired = |rule: ActiveRule, count: u64, running: Running| {
        assert!(rule.wait_fired(count, PATIENCE), "{phase:?}");
        let held = vec![rule];
        Caught { running, held }
    };
    match phase {
        Phase::Connecting => {
            let rule = inject(Rule::new(ApiKey::ApiVersions, Verb::Hold));
            fired(rule, 1, command.start())
        }
        Phase::Inferring => {
            let running = command.start();
            // Nothing before it takes so much of a processor.
            wait_until(PATIENCE, || processor_time(running.id()) > 20).unwrap();
            let held = Vec::new();
            Caught { running, held }
        }
        Phase::FirstCommit => fired(inject(load.ends(Verb::Hold).nth(1)), 1, command.start()),
        Phase::Sending => {
            let slow = load.rows(Verb::Delay(Duration::from_millis(200)));
            fired(inject(slow), 3, command.start())
        }
        Phase::Held => {
            // It asks who owns the job only while it is held.
            let rule = inject(Rule::new(ApiKey::DescribeTransactions, Verb::Pass));
            let flags = ["--hold-group", &group, "--hold-limit", "5000"];
            fired(rule, 1, command.args(flags).start())
        }
        Phase::WaitingForGroup => {
            let rule = inject(Rule::new(ApiKey::OffsetFetch, Verb::Pass));
            fired(rule, 2, command.args(["--wait-group", &group]).start())
        }
        Phase::Verifying => {
            // The position of a complete load is its last.
            let running = command.arg("--verify").start();
            let complete = || load.ends_of(&load.topic).1 > i64::from(ROWS);
            let early = inject(Rule::new(
                ApiKey::Fetch,
                Verb::Delay(Duration::from_millis(300)),
            ));
            wait_until(PATIENCE, complete).unwrap();
            let before = early.fired();
            assert!(early.wait_fired(before + 1, PATIENCE), "{phase:?}");
            let held = vec![early];
            Caught { running, held }
        }
    }
}

/// How long a process has used a processor, in hundredths of a second; 0 once it has ended.
fn processor_time(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let behind_the_name = stat.rsplit(") ").next().unwrap_or_default();
    let field = behind_the_name.split(' ').nth(11);
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// A file of which some hundred million rows would have to be read to infer a schema.
fn endless() -> Vec<u8> {
    let frame = zstd::encode_all("1,c_1,n_1,1.5\n".repeat(1 << 20).as_bytes(), 3).unwrap();
    let header = zstd::encode_all(&b"timestamp,container_id,machine_id,cpu\n"[..], 3).unwrap();
    [header, frame.repeat(2_000)].concat()
}

/// The transactions of this load that the cluster has open, as it tells administrators.
fn open_transactions(load: &Load<'_>) -> usize {
    let mut client = RawClient::connect(load.cluster.bootstrap()).unwrap();
    let list = ListTransactionsRequest::default();
    let states = ["Ongoing", "PrepareCommit", "PrepareAbort"];
    let is_open = |state: &str| states.contains(&state);
    let listed = client.call(&list, 0).unwrap();
    assert_eq!(listed.error_code, 0);
    let of_job = listed
        .transaction_states
        .iter()
        .filter(|found| found.transactional_id.as_str() == load.job());
    let of_job = of_job.filter(|found| is_open(found.transaction_state.as_str()));
    let id = TransactionalId(load.job().into());
    let describe = DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
    let described = client.call(&describe, 0).unwrap();
    let described = &described.transaction_states;
    let described = described
        .iter()
        .filter(|found| is_open(found.transaction_state.as_str()));
    of_job.count() + described.count()
}

/// Waits until no transaction of the load is open: a commit is decided before its markers are written.
#[track_caller]
fn check_no_transaction_is_open(load: &Load<'_>) {
    let none_is_open = || open_transactions(load) == 0;
    wait_until(Duration::from_secs(10), none_is_open).unwrap();
}

#[test]
fn t04_a_signal_in_any_phase_ends_a_load_in_order() {
    for_each_cluster(|cluster| {
        for phase in Phase::ALL {
            let mut cell = Cell::new(4, &format!("a signal while {}", told(phase)));
            for (signal, code) in SIGNALS {
                let load = Load::new(cluster);
                if phase == Phase::Inferring {
                    std::fs::write(&load.file, endless()).unwrap();
                }
                let proxy = load.proxy();
                let mut caught = catch(&load, &proxy, phase);
                assert!(caught.running.is_running(), "{phase:?}");
                let sent = Instant::now();
                caught.running.signal(signal);
                for rule in &caught.held {
                    rule.release();
                    rule.remove();
                }
                let ended = caught.running.finish();
                let took = sent.elapsed();
                assert_eq!(ended.code, Some(code), "{phase:?}\n{ended}");
                assert!(took < BOUND, "{phase:?} {took:?}\n{ended}");
                check_no_transaction_is_open(&load);
                if phase == Phase::Inferring {
                    std::fs::write(&load.file, usage(ROWS, 1)).unwrap();
                }
                let next = load.publish().exits(0).json();
                if phase.is_behind_the_load() {
                    assert_eq!(next["status"], "already-published", "{phase:?}");
                }
                load.check();
                cell = cell.fired(1).counts(load.counts(ROWS)).code(ended.code);
                cell = cell.recovered([took]);
            }
            cell.on(cluster.kind()).record();
        }
    });
}

/// A phase as the table tells it.
fn told(phase: Phase) -> &'static str {
    match phase {
        Phase::Connecting => "the load connects",
        Phase::Inferring => "the load infers a schema",
        Phase::FirstCommit => "the load commits for the first time",
        Phase::Sending => "the load sends",
        Phase::Held => "the load is held back",
        Phase::WaitingForGroup => "the load waits for a group",
        Phase::Verifying => "the load is verified",
    }
}

/// The second signal does not wait for anything. What it leaves open, the next run ends.
#[test]
fn t04_a_second_signal_in_mid_run_ends_a_load_at_once_and_the_next_run_goes_on() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let end = proxy.inject(load.ends(Verb::Hold).nth(2));
        let mut running = load.through(proxy.bootstrap()).start();
        assert!(end.wait_fired(1, PATIENCE));
        running.signal(Signal::INT);
        assert!(wait_until(Duration::from_millis(300), || !running.is_running()).is_err());
        let sent = Instant::now();
        running.signal(Signal::INT);
        let ended = running.finish().expect_code(130);
        let took = sent.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}\n{ended}");
        drop(proxy);
        load.complete();
        check_no_transaction_is_open(&load);
        load.cell(4, "SIGINT twice during a commit")
            .fired(2)
            .counts(load.counts(ROWS))
            .code(ended.code)
            .record();
    });
}

/// The first signal does not wait without end for a cluster that says nothing either, be it of the rows or of their commit.
#[test]
fn t04_a_signal_ends_a_load_in_time_whose_cluster_says_nothing() {
    for_each_cluster(|cluster| {
        thread::scope(|scope| {
            scope.spawn(|| interrupt_in_silence(cluster, |load, verb| load.rows(verb)));
            scope.spawn(|| interrupt_in_silence(cluster, |load, verb| load.positions(verb)));
            scope.spawn(|| interrupt_in_silence(cluster, |load, verb| load.ends(verb)));
        });
        let cell = Cell::new(4, "a signal while the cluster says nothing");
        cell.on(cluster.kind()).fired(3).code(Some(143)).record();
    });
}

/// Interrupts a load whose cluster says nothing from the second request of this sort on.
fn interrupt_in_silence(cluster: &Cluster, rule: fn(&Load<'_>, Verb) -> Rule) {
    let load = Load::new(cluster);
    let proxy = load.proxy();
    let held = proxy.inject(rule(&load, Verb::Hold).after(1));
    let mut running = load.through(proxy.bootstrap()).start();
    assert!(held.wait_fired(1, PATIENCE));
    let all = proxy.inject(Rule::any(Verb::Drop));
    let sent = Instant::now();
    running.signal(Signal::TERM);
    let ended = running.finish();
    let took = sent.elapsed();
    assert!(took < BOUND, "{took:?}\n{ended}");
    assert_eq!(ended.code, Some(143), "{held:?} {ended}");
    assert!(ended.stderr.contains("interrupted by SIGTERM"), "{ended}");
    drop((all, proxy));
    load.complete();
    check_no_transaction_is_open(&load);
    let counts = load.counts(ROWS);
    assert_eq!(counts, Counts::whole(ROWS.into()));
}

/// The summary has nowhere to go, which is no failure of the load.
#[test]
fn t04_a_load_with_a_closed_stdout_is_complete() {
    for_each_cluster(|cluster| {
        let closed_before = Load::new(cluster);
        let ended = without_stdout(&closed_before);
        assert_eq!(ended.code, Some(0), "{ended}");
        closed_before.check();

        let closed_meanwhile = Load::new(cluster);
        let arguments = ["publish", &closed_meanwhile.file, "--create-topic"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .args(["-t", &closed_meanwhile.topic, "-b", cluster.bootstrap()])
            .args(["--registry", cluster.registry_url()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
        closed_meanwhile.check();
        check_no_transaction_is_open(&closed_meanwhile);
        Cell::new(4, "stdout is closed")
            .on(cluster.kind())
            .fired(2)
            .counts(closed_before.counts(ROWS))
            .counts(closed_meanwhile.counts(ROWS))
            .code(Some(0))
            .record();
        let verified = on(cluster, ["verify", &closed_meanwhile.file]);
        let verified = verified.args(["-t", &closed_meanwhile.topic]).run();
        assert_eq!(verified.code, Some(0), "{verified}");
    });
}

/// A load whose stdout is closed when it begins.
fn without_stdout(load: &Load<'_>) -> Finished {
    let bin = env!("CARGO_BIN_EXE_tidegate");
    Tidegate::new("sh")
        .args(["-c", "exec \"$0\" \"$@\" >&-", bin])
        .args(["publish", &load.file, "--create-topic", "-t", &load.topic])
        .args(["-b", load.cluster.bootstrap()])
        .args(["--registry", load.cluster.registry_url()])
        .run()
}
