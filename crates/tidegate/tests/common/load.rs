//! A load of a file, by default one with many commits, for tests that disturb it; and what of it is in the topic.

use std::time::Duration;

use serde_json::Value;
use tidegate::kafka::{Client, ClientConfig, Isolation, OffsetSpec};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::proxy::{ApiKey, Proxy, Rule, Verb};
use tidegate_testkit::{Cluster, Tidegate};

use super::{Folder, count, on, records, tidegate, usage};

/// How long something may take that takes moments on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Rows of the file: enough for four commits, for a commit is due every 64 KiB.
pub(crate) const ROWS: u32 = 12_000;
/// Where positions are kept.
pub(crate) const POSITIONS: &str = "tidegate-positions";

/// One file that goes to one topic, in one partition.
pub(crate) struct Load<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) folder: Folder,
    pub(crate) file: String,
    pub(crate) topic: String,
}

impl<'a> Load<'a> {
    /// A load of [`ROWS`] rows.
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        Self::of(cluster, usage(ROWS, 1))
    }

    /// A load of this file.
    pub(crate) fn of(cluster: &'a Cluster, content: impl AsRef<[u8]>) -> Self {
        let folder = Folder::new();
        Self {
            cluster,
            file: folder.file("usage.csv", content),
            topic: cluster.unique("disturbed"),
            folder,
        }
    }

    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::start(self.cluster.bootstrap()).unwrap()
    }

    /// A load that a group holds back from the `rows`th record of the job on, killed when the topic has `there` records.
    pub(crate) fn kill_at(&self, rows: i64, there: i64, more: &[&str]) {
        let (group, limit) = (self.cluster.unique("group"), rows.to_string());
        let held = ["--hold-group", &group, "--hold-limit", &limit];
        let load = self.publish().args(held).args(more).start();
        wait_until(PATIENCE, || count(self.cluster, &self.topic) >= there).unwrap();
        assert_eq!(load.kill().code, None);
    }

    pub(crate) fn kill_after(&self, rows: i64, more: &[&str]) {
        self.kill_at(rows, rows, more);
    }

    /// The command, past every proxy, as often as it is wanted.
    pub(crate) fn publish(&self) -> Tidegate {
        self.through(self.cluster.bootstrap())
    }

    /// The command, by way of a proxy.
    pub(crate) fn through(&self, bootstrap: &str) -> Tidegate {
        let registry = self.cluster.registry_url();
        tidegate(["publish", &self.file, "-t", &self.topic, "--create-topic"])
            .args(["-b", bootstrap, "--registry", registry])
            .args(["--commit-interval", "0ms", "-o", "json"])
    }

    /// The job's id, which is its transactional id too.
    pub(crate) fn job(&self) -> String {
        let path = std::fs::canonicalize(&self.file).unwrap();
        format!("{}:{}", self.topic, path.display())
    }

    /// A rule about the rows of this load.
    pub(crate) fn rows(&self, verb: Verb) -> Rule {
        Rule::new(ApiKey::Produce, verb).topic(&self.topic)
    }

    /// A rule about the positions of this load.
    pub(crate) fn positions(&self, verb: Verb) -> Rule {
        let rule = Rule::new(ApiKey::Produce, verb).topic(POSITIONS);
        rule.transactional_id(self.job())
    }

    /// A rule about the ends of this load's transactions.
    pub(crate) fn ends(&self, verb: Verb) -> Rule {
        Rule::new(ApiKey::EndTxn, verb).transactional_id(self.job())
    }

    /// Runs it again to its end, and gives its summary. Every row must be there once then.
    #[track_caller]
    pub(crate) fn complete(&self) -> Value {
        let summary = self.publish().run().expect_code(0).json();
        assert_eq!(summary["status"], "complete", "{summary}");
        self.check();
        summary
    }

    /// The ticks of all records, in order.
    pub(crate) fn ticks(&self) -> Vec<u64> {
        records(self.cluster, &self.topic)
            .iter()
            .map(|record| record["value"]["timestamp"].as_u64().unwrap())
            .collect()
    }

    /// Every one of [`ROWS`] rows is committed once, in the order of the file.
    #[track_caller]
    pub(crate) fn check(&self) {
        self.check_rows(ROWS);
    }

    /// As [`check`](Self::check), for a file of so many rows.
    #[track_caller]
    pub(crate) fn check_rows(&self, rows: u32) {
        let found = self.ticks();
        let wrong = found
            .iter()
            .zip(0..)
            .find(|(tick, row): &(&u64, u64)| *tick != row);
        assert_eq!((found.len(), wrong), (rows as usize, None));
        let verified = ["verify", &self.file, "-t", &self.topic];
        let verified = on(self.cluster, verified).run();
        assert_eq!(verified.code, Some(0), "{verified}");
    }

    /// What is committed of the file's rows, the first of which is row 0, as somebody else's client finds it.
    pub(crate) fn counts(&self, rows: u32) -> Counts {
        Counts::of_keys(self.cluster.bootstrap(), &self.topic, 0..u64::from(rows))
    }

    /// A cell of the fault matrix, on this broker.
    pub(crate) fn cell(&self, id: u8, fault: &str) -> Cell {
        Cell::new(id, fault).on(self.cluster.kind())
    }

    /// Behind the last record of the topic, and behind the last that no open transaction hides.
    pub(crate) fn ends_of(&self, topic: &str) -> (i64, i64) {
        let client = ClientConfig::new(self.cluster.bootstrap()).unwrap();
        let admin = Client::connect(client).unwrap().admin();
        let end = |isolation| {
            let found = admin.list_offsets(topic, &[0], OffsetSpec::Latest, isolation);
            found.unwrap()[0].1
        };
        // The stable end first: asked in this order, it is never beyond the other.
        let stable = end(Isolation::ReadCommitted);
        (end(Isolation::ReadUncommitted), stable)
    }
}
