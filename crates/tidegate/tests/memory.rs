//! What a load may take at most: 48 MiB and three batches for each partition, and batches shrink where there are many partitions.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::time::Duration;

use common::{Exits, Folder, on};
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::program::wait_until;
use tidegate_testkit::usage::UsageFile;
use tidegate_testkit::{Cluster, for_each_cluster};

const MIB: u64 = 1 << 20;

/// The most memory that process has had, in bytes, as Linux counts it (`VmHWM`); `None` once it has ended.
fn peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// How long a load may take, where a thousand partitions have to be made first.
const PATIENCE: Duration = Duration::from_secs(400);

/// The peak of a load of `file` into a new topic.
fn peak_of_a_load(cluster: &Cluster, file: &str, partitions: u32) -> u64 {
    let topic = cluster.unique("memory");
    let partitions = partitions.to_string();
    let arguments = [
        "publish",
        file,
        "-t",
        &topic,
        "--create-topic",
        "--partitions",
        &partitions,
        "--format",
        "json",
    ];
    let mut load = on(cluster, arguments).timeout(PATIENCE).start();
    let mut highest = 0;
    wait_until(PATIENCE, || {
        highest = highest.max(peak(load.id()).unwrap_or(0));
        !load.is_running()
    })
    .unwrap();
    load.finish().exits(0);
    highest
}

#[test]
fn t33_a_load_stays_within_its_memory() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.name("usage.csv");
        UsageFile::new(3_000_000).write(file.as_ref()).unwrap();
        // Whatever grew with the input would be over the lowest bound.
        assert!(std::fs::metadata(&file).unwrap().len() > 60 * MIB);
        for (partitions, bound) in [(1, 51 * MIB), (4, 60 * MIB), (1000, 512 * MIB)] {
            let peak = peak_of_a_load(cluster, &file, partitions);
            assert!(peak > 4 * MIB, "{peak} bytes: it was not seen at work");
            assert!(
                peak <= bound,
                "{partitions} partitions: {} MiB at the peak, {} allowed",
                peak / MIB,
                bound / MIB
            );
            println!("{partitions} partitions: {} MiB at the peak", peak / MIB);
        }
        Cell::new(33, "1, 4 and 1,000 partitions, within their memory")
            .on(cluster.kind())
            .fired(3)
            .code(Some(0))
            .record();
    });
}
