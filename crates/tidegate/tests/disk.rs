//! Local files when the disk is full (T21, T22), and local state that is damaged, older or missing (T23): exit code 11 with the file's name, the old state
//! intact, and never a silent start from the first row.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::load::{Load, PATIENCE};
use common::{Exits, Folder, Privilege, count, on, tidegate, usage};
use serde_json::Value;
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::{Kind, Tidegate, for_each_cluster};

const SCHEMA: &str = r#"{"type": "record", "name": "s", "fields": [
    {"name": "timestamp", "type": "long"}, {"name": "cpu", "type": "double"}]}"#;

/// A disk of so many kibibytes.
struct SmallDisk {
    folder: Folder,
}

impl SmallDisk {
    /// None where this user may not mount one.
    fn new(kibibytes: u32) -> Option<Self> {
        Privilege::root()?;
        let disk = Self {
            folder: Folder::new(),
        };
        let size = format!("size={kibibytes}k");
        let path = disk.folder.name(".");
        let arguments = ["-t", "tmpfs", "-o", &size, "tidegate-test", &path];
        let mounted = Command::new("mount").args(arguments).status().unwrap();
        if mounted.success() {
            return Some(disk);
        }
        Privilege::missing("the right to mount a tmpfs");
        std::mem::forget(disk);
        None
    }

    /// The same disk, larger.
    fn grow(&self) {
        let path = self.folder.name(".");
        let arguments = ["-o", "remount,size=256m", &path];
        let grown = Command::new("mount").args(arguments).status().unwrap();
        assert!(grown.success());
    }

    fn name(&self, name: &str) -> String {
        self.folder.name(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.folder.path(".");
        Command::new("umount").arg(path).status().ok();
    }
}

/// Rows of which every second one is bad, and long.
fn half_bad(rows: u32) -> String {
    let mut text = String::from("timestamp,cpu\n");
    for row in 0..rows {
        if row % 2 == 1 {
            text.push_str(&format!("{row},{}\n", "x".repeat(200)));
        } else {
            text.push_str(&format!("{row},1.5\n"));
        }
    }
    text
}

#[test]
fn t21_a_full_disk_for_rejected_rows_stops_the_load_which_goes_on_when_there_is_room() {
    const ROWS: u32 = 4_000;
    for_each_cluster(|cluster| {
        let Some(disk) = SmallDisk::new(256) else {
            return;
        };
        let load = Load::of(cluster, half_bad(ROWS));
        let schema = load.folder.file("s.avsc", SCHEMA);
        let rejects = disk.name("rejects.jsonl");
        let publish = || {
            let flags = ["--schema", &schema, "--rejects", &rejects];
            load.publish().args(flags)
        };
        let full = publish().exits(11);
        assert!(full.stderr.contains(&rejects), "{full}");
        assert!(full.stderr.contains("space"), "{full}");
        let kept = full.json()["records"]["delivered"].as_i64().unwrap();
        assert!(kept > 0, "what was committed before counts\n{full}");
        assert_eq!(count(cluster, &load.topic), kept, "{full}");
        // Still full: it neither begins again nor goes on.
        publish().exits(11);
        disk.grow();
        let summary = publish().arg("--verify").exits(0).json();
        assert!(summary["resumed_at_row"].as_i64().unwrap() > 0, "{summary}");
        assert_eq!(summary["verify"]["status"], "same", "{summary}");
        let rows = std::fs::read_to_string(&rejects).unwrap();
        let rows: Vec<Value> = rows
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let rows: Vec<u64> = rows
            .iter()
            .map(|row| row["row"].as_u64().unwrap())
            .collect();
        let expected: Vec<u64> = (1..=u64::from(ROWS)).filter(|row| row % 2 == 0).collect();
        assert_eq!(rows, expected, "each once, in order");
        let accepted = (0..u64::from(ROWS)).filter(|tick| tick % 2 == 0);
        let counts = Counts::of_keys(cluster.bootstrap(), &load.topic, accepted);
        load.cell(21, "the disk for rejected rows is full, then not")
            .fired(2)
            .counts(counts)
            .code(full.code)
            .code(Some(0))
            .record();
    });
}

#[test]
fn t21_a_full_disk_for_the_receipt_leaves_the_old_one_as_it_was() {
    for_each_cluster(|cluster| {
        let Some(disk) = SmallDisk::new(16) else {
            return;
        };
        let load = Load::of(cluster, usage(50, 1));
        let receipt = disk.name("receipt.json");
        let publish = || load.publish().args(["--receipt", &receipt]);
        publish().exits(0);
        let old = std::fs::read(&receipt).unwrap();
        // What is left of the disk, to the last byte.
        let filler = disk.name("filler");
        let copied = std::io::copy(
            &mut std::io::repeat(0),
            &mut std::fs::File::create(&filler).unwrap(),
        );
        assert_eq!(copied.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        std::fs::write(&load.file, usage(60, 1)).unwrap();
        let full = publish().exits(11);
        assert!(full.stderr.contains("receipt.json"), "{full}");
        assert_eq!(std::fs::read(&receipt).unwrap(), old, "{full}");
        // The load itself is complete.
        assert_eq!(full.json()["records"]["delivered"], 60, "{full}");
        let counts = load.counts(60);
        std::fs::remove_file(filler).unwrap();
        let again = publish().exits(0).json();
        assert_eq!(again["status"], "already-published");
        assert_ne!(std::fs::read(&receipt).unwrap(), old);
        load.cell(21, "the disk for the receipt is full, then not")
            .fired(1)
            .counts(counts)
            .code(full.code)
            .code(Some(0))
            .record();
    });
}

/// A load into the embedded broker of this data directory.
fn publish_into(data: &str, file: &str) -> Tidegate {
    tidegate(["publish", file, "-t", "usage", "--data-dir", data]).args([
        "--format",
        "json",
        "--commit-interval",
        "0ms",
        "-o",
        "json",
    ])
}

/// What is committed in the data directory, as a client finds it that shares no code with the program's.
fn counts_in(data: &str, rows: u64) -> Counts {
    let broker = tidegate_broker::Broker::start(tidegate_broker::BrokerConfig::new(data)).unwrap();
    let counts = Counts::of_keys(&broker.address().to_string(), "usage", 0..rows);
    broker.stop().unwrap();
    counts
}

#[test]
fn t22_a_full_disk_for_the_data_directory_stops_the_load_which_goes_on_when_there_is_room() {
    const ROWS: u32 = 60_000;
    let Some(disk) = SmallDisk::new(1_024) else {
        return;
    };
    let (folder, data) = (Folder::new(), disk.name("data"));
    let file = folder.file("usage.csv", usage(ROWS, 1));
    let publish = || publish_into(&data, &file).args(["--compression", "none"]);
    let full = publish().exits(11);
    assert!(full.stderr.contains(&data), "{full}");
    disk.grow();
    let summary = publish().exits(0).json();
    assert_eq!(summary["records"]["delivered"], ROWS, "{summary}");
    assert!(summary["resumed_at_row"].as_u64().unwrap() > 0, "{summary}");
    Cell::new(22, "the disk for the data directory is full, then not")
        .on(Kind::Embedded)
        .fired(1)
        .counts(counts_in(&data, ROWS.into()))
        .code(full.code)
        .code(Some(0))
        .record();
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// One bit is wrong in any file of the data directory: it is named and left alone, or made anew of the others.
#[test]
fn t23_damage_in_any_file_of_the_data_directory_is_no_silent_restart() {
    const ROWS: u32 = 9_000;
    let folder = Folder::new();
    let (data, file) = (
        folder.name("data"),
        folder.file("usage.csv", usage(ROWS, 1)),
    );
    publish_into(&data, &file).exits(0);
    let (mut refused, mut survived) = (0, 0);
    for path in files_below(Path::new(&data)) {
        let whole = std::fs::read(&path).unwrap();
        if whole.is_empty() {
            continue;
        }
        let mut damaged = whole.clone();
        damaged[whole.len() / 3] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let run = publish_into(&data, &file).run();
        match run.code {
            Some(11) => {
                let name = path.file_name().unwrap().to_string_lossy();
                assert!(run.stderr.contains(&*name), "{}\n{run}", path.display());
                assert_eq!(std::fs::read(&path).unwrap(), damaged, "{run}");
                refused += 1;
                std::fs::write(&path, &whole).unwrap();
            }
            Some(0) => {
                let status = &run.json()["status"];
                assert_eq!(*status, "already-published", "{}\n{run}", path.display());
                survived += 1;
            }
            _ => panic!("{}\n{run}", path.display()),
        }
        let again = publish_into(&data, &file).exits(0).json();
        assert_eq!(again["status"], "already-published", "{}", path.display());
    }
    assert!(refused > 0);
    Cell::new(23, "a bit is wrong in any file of the data directory")
        .on(Kind::Embedded)
        .fired(refused + survived)
        .counts(counts_in(&data, ROWS.into()))
        .code(Some(0))
        .code(Some(11))
        .record();
}

/// A data directory as it was earlier, from a backup say: the load goes on where it was then.
#[test]
fn t23_an_older_data_directory_is_gone_on_with_where_it_was() {
    let folder = Folder::new();
    let data = folder.name("data");
    let file = folder.file("usage.csv", usage(100, 1));
    publish_into(&data, &file).exits(0);
    let backup = folder.name("backup");
    copy(&data, &backup);
    std::fs::write(&file, usage(200, 1)).unwrap();
    publish_into(&data, &file).exits(0);
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let summary = publish_into(&data, &file).exits(0).json();
    assert_eq!(summary["resumed_at_row"], 100, "{summary}");
    assert_eq!(summary["this_run"]["rows"], 100, "{summary}");
    Cell::new(23, "the data directory is an older one")
        .on(Kind::Embedded)
        .fired(1)
        .counts(counts_in(&data, 200))
        .code(Some(0))
        .record();
}

fn copy(from: &str, to: &str) {
    let copied = Command::new("cp").args(["-a", from, to]).status();
    assert!(copied.unwrap().success());
}

/// The rejects file that belongs to the position was cut short, removed or replaced: nothing is sent, and nothing is made up.
#[test]
fn t23_a_rejects_file_that_is_not_as_it_was_left_is_named() {
    const ROWS: u32 = 400;
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, half_bad(ROWS));
        let schema = load.folder.file("s.avsc", SCHEMA);
        let rejects = load.folder.name("rejects.jsonl");
        let flags = ["--schema", &schema, "--rejects", &rejects];
        load.kill_after(50, &flags);
        let there = count(cluster, &load.topic);
        let whole = std::fs::read(&rejects).unwrap();
        assert!(whole.len() > 100);
        let publish = || load.publish().args(flags);
        std::fs::write(&rejects, &whole[..whole.len() / 2]).unwrap();
        for is_missing in [false, true] {
            if is_missing {
                std::fs::remove_file(&rejects).unwrap();
            }
            let refused = publish().exits(11);
            assert!(refused.stderr.contains("rejects.jsonl"), "{refused}");
            assert_eq!(count(cluster, &load.topic), there, "nothing was sent");
        }
        std::fs::write(&rejects, &whole).unwrap();
        publish().arg("--verify").exits(0);
        let accepted = (0..u64::from(ROWS)).filter(|tick| tick % 2 == 0);
        load.cell(23, "the rejects file is cut short, or missing")
            .fired(2)
            .counts(Counts::of_keys(cluster.bootstrap(), &load.topic, accepted))
            .code(Some(11))
            .code(Some(0))
            .record();
    });
}

/// A receipt that is no receipt, or another load's, proves nothing.
#[test]
fn t23_a_damaged_receipt_is_named() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(20, 1));
        let receipt = load.folder.name("receipt.json");
        load.publish().args(["--receipt", &receipt]).exits(0);
        let whole = std::fs::read(&receipt).unwrap();
        let verify = || on(cluster, ["verify", "--receipt", &receipt]).run();
        verify().exits(0);
        let mut fired = 0;
        for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"\xff\xfe"] {
            std::fs::write(&receipt, damaged).unwrap();
            let refused = verify().exits(11);
            assert!(refused.stderr.contains("receipt.json"), "{refused}");
            assert_eq!(std::fs::read(&receipt).unwrap(), damaged);
            fired += 1;
        }
        let wait = || wait_until(PATIENCE, || count(cluster, &load.topic) == 20);
        wait().unwrap();
        load.cell(23, "the receipt is damaged")
            .fired(fired)
            .counts(load.counts(20))
            .code(Some(11))
            .record();
    });
}
