//! A Kafka of three nodes whose leaders die, freeze and move, and whose replicas fall out of sync, in the middle of a load: every row is there once, in order.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Folder, tidegate, usage};
use serde_json::Value;
use tidegate::kafka::admin::NewTopic;
use tidegate::kafka::{Client, ClientConfig, CoordinatorKind};
use tidegate_testkit::kafka::replicated::ReplicatedKafka;
use tidegate_testkit::log::LogRecord;
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::proxy::{Proxy, Rule, Verb};
use tidegate_testkit::{Running, Tidegate, services, unique_name};

/// Rows of a load; a commit is due every 64 KiB.
const ROWS: u32 = 400_000;
const PARTITIONS: i32 = 3;
/// Commits as often as it can be done.
const OFTEN: [&str; 2] = ["--commit-interval", "0ms"];
/// How long the cluster and the load may take to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster, which one test at a time disturbs; none where real Kafka is not asked for.
fn cluster() -> Option<MutexGuard<'static, ReplicatedKafka>> {
    static STARTED: OnceLock<Option<Mutex<ReplicatedKafka>>> = OnceLock::new();
    let started = STARTED.get_or_init(|| services::replicated_kafka("").map(Mutex::new));
    let guard = started.as_ref()?.lock();
    Some(guard.unwrap_or_else(PoisonError::into_inner))
}

/// A load into a topic of its own.
struct Load {
    kafka: MutexGuard<'static, ReplicatedKafka>,
    _folder: Folder,
    file: String,
    topic: String,
    rows: u32,
}

impl Load {
    /// One of [`ROWS`] rows. The topic has these settings.
    fn new(configs: &[(&str, &str)]) -> Option<Self> {
        Self::of(ROWS, configs)
    }

    fn of(rows: u32, configs: &[(&str, &str)]) -> Option<Self> {
        let mut kafka = cluster()?;
        // What a test that failed has left behind.
        kafka.recover().unwrap();
        let (folder, topic) = (Folder::new(), unique_name("failover"));
        let client = Client::connect(ClientConfig::new(&kafka.bootstrap()).unwrap()).unwrap();
        let configs = configs.iter();
        let new = NewTopic {
            name: topic.clone(),
            partitions: Some(PARTITIONS),
            replication_factor: None,
            configs: configs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        client.admin().create_topic(&new).unwrap();
        Some(Self {
            kafka,
            file: folder.file("usage.csv", usage(rows, 1)),
            _folder: folder,
            topic,
            rows,
        })
    }

    fn publish(&self) -> Tidegate {
        self.through(&self.kafka.bootstrap())
    }

    fn through(&self, bootstrap: &str) -> Tidegate {
        tidegate(["publish", &self.file, "-t", &self.topic, "--format", "json"])
            .args(["-b", bootstrap, "-o", "json"])
            .timeout(Duration::from_secs(600))
    }

    /// A load that commits as often as it can, and so takes its time.
    fn publish_slowly(&self) -> Tidegate {
        self.publish().args(OFTEN)
    }

    /// Waits until the partition has records behind `offset`; how long that took.
    #[track_caller]
    fn progress(&mut self, partition: i32, offset: i64) -> Duration {
        let started = Instant::now();
        while !self
            .kafka
            .end_offset(&self.topic, partition)
            .is_ok_and(|end| end > offset)
        {
            assert!(started.elapsed() < PATIENCE, "no progress behind {offset}");
            thread::sleep(Duration::from_millis(20));
        }
        started.elapsed()
    }

    fn end(&mut self, partition: i32) -> i64 {
        self.kafka.end_offset(&self.topic, partition).unwrap_or(0)
    }

    fn leader(&mut self, partition: i32) -> i32 {
        self.kafka.leader(&self.topic, partition).unwrap().unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(ClientConfig::new(&self.kafka.bootstrap()).unwrap()).unwrap()
    }

    /// Starts these nodes again, and waits until all replicas are in sync.
    fn heal(&mut self, nodes: &[i32]) {
        let topic = self.topic.clone();
        self.kafka.restart(nodes).unwrap();
        self.kafka.wait_until_in_sync(&topic).unwrap();
    }

    /// Waits until nothing was added to any partition for a while.
    fn wait_until_blocked(&mut self) {
        const STILL: Duration = Duration::from_secs(4);
        let mut ends = Vec::new();
        let (started, mut since) = (Instant::now(), Instant::now());
        while since.elapsed() < STILL {
            assert!(started.elapsed() < PATIENCE, "the load goes on");
            let now: Vec<i64> = (0..PARTITIONS)
                .map(|partition| self.end(partition))
                .collect();
            if now != ends {
                (ends, since) = (now, Instant::now());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The load ended well, and every row is there once, in order; notes what these faults cost.
    #[track_caller]
    fn check(&mut self, loading: Running, cell: Cell, recoveries: &[Duration]) {
        let ended = loading.finish().expect_code(0);
        assert_eq!(ended.json()["records"]["delivered"], self.rows, "{ended}");
        cell.on_broker(&format!("{}, three nodes", services::kafka_name()))
            .recovered(recoveries.iter().copied())
            .counts(self.counts())
            .code(ended.code)
            .record();
    }

    /// What is committed of the rows, as a client reads it that shares no code with the program's.
    fn counts(&mut self) -> Counts {
        let mut last: BTreeMap<i32, u64> = BTreeMap::new();
        let mut seen = vec![0_u8; self.rows as usize];
        let mut disordered = 0;
        let look = |record: LogRecord| {
            let value: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            let tick = value["timestamp"].as_u64().unwrap();
            let before = last.insert(record.partition, tick);
            disordered += u64::from(before.is_some_and(|before| before >= tick));
            seen[usize::try_from(tick).unwrap()] += 1;
        };
        self.kafka.read_committed(&self.topic, look).unwrap();
        Counts {
            rows: u64::from(self.rows),
            lost: seen.iter().filter(|count| **count == 0).count() as u64,
            doubled: seen.iter().filter(|count| **count > 1).count() as u64,
            disordered,
        }
    }
}

#[test]
fn t09_leaders_are_killed_again_and_again() {
    let Some(mut load) = Load::new(&[]) else {
        return;
    };
    let loading = load.publish_slowly().start();
    let mut recoveries = Vec::new();
    for partition in 0..PARTITIONS {
        let there = load.end(partition);
        load.progress(partition, there);
        let (leader, there) = (load.leader(partition), load.end(partition));
        load.kafka.kill(leader);
        recoveries.push(load.progress(partition, there));
        load.heal(&[leader]);
    }
    let cell =
        Cell::new(9, "the leader of each partition is killed").fired(recoveries.len() as u64);
    load.check(loading, cell, &recoveries);
}

#[test]
fn t10_leaders_are_moved_in_a_loop() {
    let Some(mut load) = Load::new(&[]) else {
        return;
    };
    let loading = load.publish_slowly().start();
    let mut recoveries = Vec::new();
    for partition in (0..PARTITIONS).cycle().take(6) {
        let there = load.end(partition);
        load.progress(partition, there);
        let topic = load.topic.clone();
        load.kafka.move_leader(&topic, partition).unwrap();
        let there = load.end(partition);
        recoveries.push(load.progress(partition, there));
    }
    let cell = Cell::new(10, "leadership is moved in a loop").fired(recoveries.len() as u64);
    load.check(loading, cell, &recoveries);
}

#[test]
fn t11_too_few_replicas_in_sync_block_the_load_until_they_are_back() {
    let Some(mut load) = Load::new(&[("min.insync.replicas", "3")]) else {
        return;
    };
    let loading = load.publish_slowly().start();
    load.progress(0, 0);
    let follower = load.leader(0) % 3 + 1;
    load.kafka.kill(follower);
    load.wait_until_blocked();
    load.heal(&[follower]);
    let there = load.end(0);
    let recoveries = [load.progress(0, there)];
    let cell = Cell::new(11, "too few replicas in sync, until they are back").fired(1);
    load.check(loading, cell, &recoveries);
}

#[test]
fn t11_too_few_replicas_in_sync_end_the_load_at_its_deadline_and_nothing_is_claimed() {
    let Some(mut load) = Load::new(&[("min.insync.replicas", "3")]) else {
        return;
    };
    let loading = load
        .publish_slowly()
        .args(["--delivery-timeout", "5s"])
        .start();
    load.progress(0, 0);
    let follower = load.leader(0) % 3 + 1;
    load.kafka.kill(follower);
    let ended = loading.finish().expect_code(4);
    let claimed = ended.json()["records"]["delivered"].as_u64().unwrap();
    let topic = load.topic.clone();
    load.heal(&[follower]);
    let mut committed = 0_u64;
    let count = |_| committed += 1;
    load.kafka.read_committed(&topic, count).unwrap();
    assert!(claimed <= committed, "{claimed} of {committed}: {ended}");
    assert!(claimed < u64::from(ROWS), "{ended}");
    let again = load.publish_slowly().start();
    let cell = Cell::new(
        11,
        "too few replicas in sync, beyond the deadline, and a second run",
    )
    .fired(1)
    .code(ended.code);
    load.check(again, cell, &[]);
}

#[test]
fn t12_all_brokers_are_killed_and_come_back() {
    let Some(mut load) = Load::new(&[]) else {
        return;
    };
    let loading = load.publish_slowly().start();
    load.progress(0, 0);
    for id in 1..=3 {
        load.kafka.kill(id);
    }
    // The first to come back knows neither the others nor, for a while, the topic.
    load.heal(&[1, 2, 3]);
    let there = load.end(0);
    let recoveries = [load.progress(0, there)];
    let cell = Cell::new(12, "all brokers are killed and come back").fired(3);
    load.check(loading, cell, &recoveries);
}

#[test]
fn t15_a_leader_that_says_nothing_any_more_is_given_up() {
    let Some(mut load) = Load::new(&[]) else {
        return;
    };
    let loading = load.publish_slowly().start();
    load.progress(0, 0);
    let (leader, there) = (load.leader(0), load.end(0));
    load.kafka.freeze(leader);
    // Asked of the others, who elect another leader meanwhile.
    let recoveries = [load.progress(0, there)];
    load.kafka.thaw(leader);
    let topic = load.topic.clone();
    load.kafka.wait_until_in_sync(&topic).unwrap();
    let cell = Cell::new(15, "the leader says nothing any more").fired(1);
    load.check(loading, cell, &recoveries);
}

/// The cluster is well, and so is the leader: only the load does not reach it, on no connection.
#[test]
fn t15_a_load_that_is_cut_off_from_one_of_three_brokers_waits_for_it() {
    let Some(mut load) = Load::new(&[]) else {
        return;
    };
    let proxy = Proxy::start(&load.kafka.bootstrap()).unwrap();
    let quick = ["--request-timeout", "2s"];
    let loading = load.through(proxy.bootstrap()).args(OFTEN).args(quick);
    let loading = loading.start();
    load.progress(0, 0);
    let leader = load.leader(0);
    let broker = load.kafka.address(leader).to_string();
    let cut = Rule::any(Verb::HalfOpen).when(move |seen| *seen.broker == *broker);
    let cut = proxy.inject(cut);
    // More than it had: it has tried again.
    assert!(cut.wait_fired(8, PATIENCE), "{} connections", cut.fired());
    let there = load.end(0);
    cut.remove();
    let recoveries = [load.progress(0, there)];
    let cell = Cell::new(15, "cut off from one of three brokers").fired(cut.fired());
    load.check(loading, cell, &recoveries);
}

#[test]
fn t18_the_coordinator_of_the_transactions_is_killed_again_and_again() {
    let Some(mut load) = Load::new(&[]) else {
        return;
    };
    let job = unique_name("coordinated");
    let loading = load.publish_slowly().args(["--job", &job]).start();
    let mut recoveries = Vec::new();
    for _ in 0..2 {
        let there = load.end(0);
        load.progress(0, there);
        let client = load.client();
        let coordinator = client.coordinator(CoordinatorKind::Transaction, &job);
        let coordinator = coordinator.unwrap();
        load.kafka.kill(coordinator);
        let there = load.end(0);
        recoveries.push(load.progress(0, there));
        load.heal(&[coordinator]);
    }
    let cell = Cell::new(18, "the coordinator of the transactions is killed").fired(2);
    load.check(loading, cell, &recoveries);
}

#[test]
fn t18_the_coordinator_of_the_group_is_killed_while_it_holds_the_load_back() {
    let Some(mut load) = Load::new(&[]) else {
        return;
    };
    let group = unique_name("holding");
    let limit = (ROWS / 4).to_string();
    let client = load.client();
    let held = ["--hold-group", &group, "--hold-limit", &limit];
    let loading = load.publish_slowly().args(held).start();
    load.progress(0, 0);
    let coordinator = client.coordinator(CoordinatorKind::Group, &group).unwrap();
    load.kafka.kill(coordinator);
    let work = || {
        let ends: Vec<(i32, i64)> = (0..PARTITIONS)
            .filter_map(|partition| {
                Some((
                    partition,
                    load.kafka.end_offset(&load.topic, partition).ok()?,
                ))
            })
            .collect();
        // While there is no coordinator nothing is committed; the next round does it.
        client
            .admin()
            .commit_offsets(&group, &load.topic, &ends)
            .ok();
    };
    let (mut loading, mut work) = (loading, work);
    while loading.is_running() {
        work();
        thread::sleep(Duration::from_millis(100));
    }
    load.heal(&[coordinator]);
    let cell = Cell::new(18, "the coordinator of the holding group is killed").fired(1);
    load.check(loading, cell, &[]);
}

/// Takes minutes. Run it alone, in a release build, with `--ignored --nocapture`.
#[test]
#[ignore = "ten million rows, to be run by hand"]
fn t09_ten_million_rows_while_a_leader_is_killed_every_15_seconds() {
    const EVERY: Duration = Duration::from_secs(15);
    let Some(mut load) = Load::of(10_000_000, &[]) else {
        return;
    };
    // Commits between, so that it takes its time.
    let mut loading = load.publish().args(["--commit-interval", "10ms"]).start();
    let (mut recoveries, mut due) = (Vec::new(), Instant::now() + Duration::from_secs(3));
    let mut partitions = (0..PARTITIONS).cycle();
    while loading.is_running() {
        if Instant::now() < due {
            thread::sleep(Duration::from_millis(50));
            continue;
        }
        due = Instant::now() + EVERY;
        let partition = partitions.next().unwrap();
        let (leader, there) = (load.leader(partition), load.end(partition));
        load.kafka.kill(leader);
        recoveries.push(load.progress(partition, there));
        load.heal(&[leader]);
    }
    let cell = Cell::new(9, "a leader is killed every 15 s").fired(recoveries.len() as u64);
    load.check(loading, cell, &recoveries);
}
