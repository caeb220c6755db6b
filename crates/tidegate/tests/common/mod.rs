//! What the end-to-end tests share: the binary on a cluster, files in a folder of the test's own, records as `consume` prints them.

#![allow(dead_code, reason = "each test file uses its own part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests, which fail by panicking"
)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tidegate_testkit::{Cluster, Finished, Tidegate};

pub(crate) mod load;

/// Says which exit code must come.
pub(crate) trait Exits {
    /// Runs to the end; panics with all output when the exit code is another one.
    #[track_caller]
    fn exits(self, code: i32) -> Finished;
}

impl Exits for Tidegate {
    fn exits(self, code: i32) -> Finished {
        self.run().expect_code(code)
    }
}

impl Exits for Finished {
    fn exits(self, code: i32) -> Finished {
        self.expect_code(code)
    }
}

/// The binary with a command and its arguments, anywhere.
pub(crate) fn tidegate<const N: usize>(arguments: [&str; N]) -> Tidegate {
    Tidegate::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments)
}

/// The binary with a command and its arguments, on a cluster and its registry.
pub(crate) fn on<const N: usize>(cluster: &Cluster, arguments: [&str; N]) -> Tidegate {
    let command = tidegate(arguments).args(["-b", cluster.bootstrap()]);
    if arguments[0] == "balance" {
        command
    } else {
        command.args(["--registry", cluster.registry_url()])
    }
}

/// A folder with files in it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and gives its path as text.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.name(name)
    }

    /// The path of a file as text.
    pub(crate) fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// The records of a topic, by partition and offset, as `consume` prints them.
pub(crate) fn records(cluster: &Cluster, topic: &str) -> Vec<Value> {
    let consumed = on(cluster, ["consume", "-t", topic, "--until-end"]).exits(0);
    let mut records: Vec<Value> = consumed
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    records.sort_by_key(|record| (record["partition"].as_i64(), record["offset"].as_i64()));
    records
}

/// How many records a topic has; -1 where there is no such topic.
pub(crate) fn count(cluster: &Cluster, topic: &str) -> i64 {
    let consumed = on(
        cluster,
        ["consume", "-t", topic, "--until-end", "--format", "value"],
    )
    .run();
    match consumed.code {
        Some(0) => i64::try_from(consumed.stdout.lines().count()).unwrap(),
        Some(6) => -1,
        _ => panic!("{consumed}"),
    }
}

/// A small file of the usage shape: `ticks` x `containers` rows.
pub(crate) fn usage(ticks: u32, containers: u32) -> String {
    let mut text = String::from("timestamp,container_id,machine_id,cpu\n");
    for tick in 0..ticks {
        for container in 1..=containers {
            text.push_str(&format!(
                "{tick},c_{container},n_{},{}.5\n",
                container % 3,
                container
            ));
        }
    }
    text
}

/// Whether there is a program of this name.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    { folders }.any(|folder| folder.join(program).is_file())
}

/// What only root may do: mount, and make network namespaces.
pub(crate) struct Privilege;

impl Privilege {
    /// None for whoever may not, who is told so. That is no failure even where nothing may be skipped: tests need not run as root.
    pub(crate) fn root() -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            return Some(Self);
        }
        Self::missing("root");
        None
    }

    /// Says that a test is skipped for want of a right.
    pub(crate) fn missing(right: &str) {
        eprintln!("skipped: needs {right}");
    }
}

/// The binary, run by a shell that does this before.
pub(crate) fn behind(preparation: &str) -> Tidegate {
    let script = format!("{preparation}; exec \"$0\" \"$@\"");
    Tidegate::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_tidegate")])
}

/// The file this all began with, where it lies beside the checkout.
pub(crate) fn hots() -> Option<(PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hots");
    let (csv, schema) = (
        folder.join("container_usage.csv"),
        folder.join("usage.avsc"),
    );
    if csv.exists() && schema.exists() {
        return Some((csv, schema));
    }
    eprintln!("skipped: needs {}", csv.display());
    None
}
