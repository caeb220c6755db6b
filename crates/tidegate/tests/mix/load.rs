//! A load of the mix: its files, its command line, whoever works it off, and what must be found when it is done.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate::kafka::{Client, ClientConfig};
use tidegate_testkit::log::LogRecord;
use tidegate_testkit::matrix::Counts;
use tidegate_testkit::usage::Random;
use tidegate_testkit::{Tidegate, raw, unique_name};

use crate::book::Shared;
use crate::common::{Folder, tidegate};
use crate::plan::{LoadPlan, Packing, Worker};

const SCHEMA: &str = r#"{"type": "record", "name": "mix", "fields": [{"name": "sequence", "type": "long"},
    {"name": "device", "type": "string"}, {"name": "amount", "type": "double"}]}"#;
/// Longer than anything takes that ends at all; whoever waits for a program here has a shorter deadline of its own.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(900);
const WORK_PAUSE: Duration = Duration::from_millis(50);

/// A load, and all that it needs.
pub(crate) struct Load {
    pub(crate) plan: LoadPlan,
    pub(crate) topic: String,
    folder: Folder,
    files: Vec<String>,
    schema: String,
    rejects: String,
    group: String,
    positions: String,
}

/// What stands in a row.
struct Row {
    device: String,
    amount: String,
}

impl LoadPlan {
    fn row(&self, sequence: u32) -> Row {
        let place = u64::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = Random::new(self.seed ^ place);
        let device = random.below(self.keys);
        let cents = random.below(10_000_000);
        Row {
            device: format!("d{device}"),
            amount: format!("{}.{:02}", cents / 100, cents % 100),
        }
    }

    fn is_bad(&self, sequence: u32) -> bool {
        self.bad_every > 0 && sequence % self.bad_every == self.bad_every - 1
    }

    /// The row as it stands in the file.
    fn line(&self, sequence: u32) -> String {
        let Row { device, amount } = self.row(sequence);
        let sign = if self.is_bad(sequence) { "?" } else { "" };
        format!("{sequence},{device},{sign}{amount}")
    }
}

fn pack(packing: Packing, content: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Plain => content.to_owned(),
        Packing::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(content, 1).unwrap(),
    }
}

impl Load {
    /// Writes the files; the topic is made by the program.
    pub(crate) fn new(plan: LoadPlan, positions: &str) -> Self {
        let folder = Folder::new();
        let files = u32::try_from(plan.files.len()).unwrap();
        let written = (0..).zip(&plan.files).map(|(index, packing)| {
            let mut text = String::from("sequence,device,amount\n");
            let ends = [index, index + 1].map(|part| part * plan.rows / files);
            for sequence in ends[0]..ends[1] {
                text.push_str(&plan.line(sequence));
                text.push('\n');
            }
            let extension = match packing {
                Packing::Plain => "",
                Packing::Gzip => ".gz",
                Packing::Zstd => ".zst",
            };
            let content = pack(*packing, text.as_bytes());
            folder.file(&format!("part-{index}.csv{extension}"), content)
        });
        Self {
            files: written.collect(),
            schema: folder.file("schema.avsc", SCHEMA),
            rejects: folder.name("rejects.jsonl"),
            folder,
            topic: unique_name("mix"),
            group: unique_name("mix-group"),
            positions: positions.to_owned(),
            plan,
        }
    }

    fn command(&self, what: &str, bootstrap: &str) -> Tidegate {
        tidegate([what])
            .args(&self.files)
            .args(["-t", &self.topic, "-b", bootstrap])
            .args(["--format", "json", "--key", "device"])
            .args(["--schema", &self.schema])
            .args(["--positions-topic", &self.positions, "-o", "json"])
            .dir(self.folder.path("."))
            .timeout(PROGRAM_PATIENCE)
    }

    /// The command of the load, the same however often it is run.
    pub(crate) fn publish(&self, bootstrap: &str) -> Tidegate {
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        let plan = &self.plan;
        let mut command = self
            .command("publish", bootstrap)
            .args(["--create-topic", "--no-progress"])
            .args(["--partitions", &plan.partitions.to_string()])
            .args(["--commit-interval", &milliseconds(plan.commit_interval)])
            .args(["--request-timeout", &milliseconds(plan.request_timeout)])
            .args(["--delivery-timeout", &milliseconds(plan.delivery_timeout)])
            .args([
                "--transaction-timeout",
                &milliseconds(plan.transaction_timeout),
            ]);
        if plan.bad_every > 0 {
            command = command.args(["--rejects", &self.rejects]);
        }
        if let Some((_, limit)) = plan.held {
            command = command.args(["--hold-group", &self.group]);
            command = command.args(["--hold-limit", &limit.to_string()]);
        }
        command
    }

    /// Works the load off until it is told that it is done, past the proxy.
    pub(crate) fn work_off(&self, bootstrap: &str, shared: &Shared, done: &AtomicBool) {
        match self.plan.held {
            None => {}
            Some((Worker::Program, _)) => self.consume(bootstrap, shared, done),
            Some((Worker::Reader, limit)) => self.read(bootstrap, limit, shared, done),
        }
    }

    /// Runs the program's own consumer, again and again where it ends before its time.
    fn consume(&self, bootstrap: &str, shared: &Shared, done: &AtomicBool) {
        let command = tidegate(["consume", "-t", &self.topic, "-g", &self.group])
            .args(["-b", bootstrap, "--format", "raw"])
            .timeout(PROGRAM_PATIENCE);
        while !done.load(Ordering::SeqCst) {
            let mut consumer = command.start();
            while consumer.is_running() && !done.load(Ordering::SeqCst) {
                std::thread::sleep(WORK_PAUSE);
            }
            if !consumer.is_running() {
                let ended = consumer.finish();
                // Killed nodes, or a topic that is not there yet.
                let allowed = matches!(ended.code, Some(4 | 6));
                assert!(allowed, "the consumer of a held load: {ended}");
                shared.count("consumer runs that ended early", 1);
                std::thread::sleep(WORK_PAUSE);
            }
        }
    }

    /// Reads what is committed and commits behind it. What is found at once was outstanding, and never exceeds the limit.
    fn read(&self, bootstrap: &str, limit: u32, shared: &Shared, done: &AtomicBool) {
        let mut client = None;
        // Behind the last records that the group may have committed: what is behind that was not committed by the group.
        let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
        while !done.load(Ordering::SeqCst) {
            std::thread::sleep(WORK_PAUSE);
            let (mut outstanding, mut next) = (0_u32, offsets.clone());
            let count = |_| outstanding += 1;
            let read = raw::read_committed_from(&shared.answering(), &self.topic, &mut next, count);
            if read.is_err() {
                continue;
            }
            assert!(outstanding <= limit, "{outstanding} beyond the group");
            shared.count("looks at a held load", 1);
            offsets = next;
            let ends: Vec<(i32, i64)> = offsets.iter().map(|(at, end)| (*at, *end)).collect();
            let config = || ClientConfig::new(bootstrap).unwrap();
            if client.is_none() {
                client = Client::connect(config()).ok();
            }
            // Again in the next round, also if there is nothing new: a commit that arrives late may have moved the group back.
            if let Some(client) = &client {
                client
                    .admin()
                    .commit_offsets(&self.group, &self.topic, &ends)
                    .ok();
            }
        }
    }

    /// Holds what is committed against the files, by a reader that shares no code with the client, and by `verify`.
    pub(crate) fn check(&self, shared: &Shared, bootstrap: &str) -> Counts {
        let mut found = Found::new(&self.plan);
        raw::read_committed(&shared.answering(), &self.topic, |record| {
            found.enter(&record);
        })
        .unwrap();
        let counts = found.counts();
        if counts == Counts::whole(counts.rows) {
            self.check_rejects();
            let verified = self.command("verify", bootstrap).run().expect_code(0);
            let same = u64::from(self.good_rows());
            assert_eq!(verified.json()["records"], same, "{verified}");
        }
        counts
    }

    fn good_rows(&self) -> u32 {
        let bad = (0..self.plan.rows).filter(|row| self.plan.is_bad(*row));
        self.plan.rows - u32::try_from(bad.count()).unwrap()
    }

    /// Each bad row is in the rejects file once, in order, as it stands in the input.
    fn check_rejects(&self) {
        if self.plan.bad_every == 0 {
            return;
        }
        let text = fs::read_to_string(&self.rejects).unwrap();
        let rejected = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let raw = line["raw"].as_str().unwrap().trim_end().to_owned();
            (line["row"].as_u64().unwrap(), raw)
        });
        let rejected: Vec<(u64, String)> = rejected.collect();
        let expected = (0..self.plan.rows).filter(|row| self.plan.is_bad(*row));
        let expected = expected.map(|row| (u64::from(row) + 1, self.plan.line(row)));
        let expected: Vec<(u64, String)> = expected.collect();
        if rejected != expected {
            let place = rejected.iter().zip(&expected).position(|(a, b)| a != b);
            panic!(
                "rejects: {} of {}, the first other one: {place:?}, in {}",
                rejected.len(),
                expected.len(),
                self.rejects
            );
        }
    }
}

/// What is found in a topic.
struct Found<'a> {
    plan: &'a LoadPlan,
    seen: Vec<u8>,
    /// The last row of each partition.
    last: BTreeMap<i32, u32>,
    partition_of: BTreeMap<String, i32>,
    disordered: u64,
    /// What is wrong, and where; the first of each kind.
    told: BTreeMap<&'static str, String>,
}

impl<'a> Found<'a> {
    fn new(plan: &'a LoadPlan) -> Self {
        Self {
            plan,
            seen: vec![0; plan.rows as usize],
            last: BTreeMap::new(),
            partition_of: BTreeMap::new(),
            disordered: 0,
            told: BTreeMap::new(),
        }
    }

    fn enter(&mut self, record: &LogRecord) {
        let value: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        let sequence = u32::try_from(value["sequence"].as_u64().unwrap()).unwrap();
        let place = || format!("row {sequence} at {}-{}", record.partition, record.offset);
        let Row { device, amount } = self.plan.row(sequence);
        let amount: f64 = amount.parse().unwrap();
        let is_right = value.as_object().unwrap().len() == 3
            && record.key.as_deref() == Some(device.as_bytes())
            && value["device"] == device.as_str()
            && value["amount"].as_f64() == Some(amount)
            && !self.plan.is_bad(sequence);
        assert!(is_right, "{}: {value}", place());
        let home = *self.partition_of.entry(device).or_insert(record.partition);
        let before = self.last.insert(record.partition, sequence);
        if home != record.partition || before.is_some_and(|before| before >= sequence) {
            self.disordered += 1;
            self.told.entry("disordered").or_insert_with(place);
        }
        let seen = &mut self.seen[sequence as usize];
        *seen = seen.saturating_add(1);
        if *seen == 2 {
            self.told.entry("doubled").or_insert_with(place);
        }
    }

    fn counts(&mut self) -> Counts {
        let good = (0..self.plan.rows).filter(|row| !self.plan.is_bad(*row));
        let mut counts = Counts {
            disordered: self.disordered,
            ..Counts::default()
        };
        for row in good {
            counts.rows += 1;
            match self.seen[row as usize] {
                0 => {
                    counts.lost += 1;
                    let told = self.told.entry("lost");
                    told.or_insert_with(|| format!("row {row}"));
                }
                1 => {}
                _ => counts.doubled += 1,
            }
        }
        if !self.told.is_empty() {
            eprintln!("the first that are wrong: {:?}", self.told);
        }
        counts
    }
}
