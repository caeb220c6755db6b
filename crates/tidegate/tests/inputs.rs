//! Several files are one load: published once and in order, gone on with, and refused where the list is not the one the load began with.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use common::load::{PATIENCE, POSITIONS};
use common::{Exits, Folder, count, on, records};
use serde_json::{Value, json};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::{Cluster, Tidegate, for_each_cluster};

/// Files of a few rows each, numbered through all of them, and a topic they go to.
struct Files<'a> {
    cluster: &'a Cluster,
    folder: Folder,
    topic: String,
    written: Vec<String>,
}

/// A file of these rows.
fn rows(from: u32, to: u32) -> String {
    let rows = (from..to).map(|row| format!("{row},c_{row}\n"));
    format!("tick,name\n{}", rows.collect::<String>())
}

impl<'a> Files<'a> {
    /// As many files as asked for, of ten rows each.
    fn new(cluster: &'a Cluster, count: u32) -> Self {
        let mut files = Self {
            cluster,
            folder: Folder::new(),
            topic: cluster.unique("several"),
            written: Vec::new(),
        };
        for number in 0..count {
            files.add(
                &format!("{number}.csv"),
                &rows(number * 10, number * 10 + 10),
            );
        }
        files
    }

    fn add(&mut self, name: &str, content: &str) -> String {
        let path = self.folder.file(name, content);
        self.written.push(path.clone());
        path
    }

    fn publish(&self, files: &[String]) -> Tidegate {
        on(self.cluster, ["publish"])
            .args(files)
            .args(["-t", &self.topic, "--create-topic", "--key", "tick"])
            .args(["--commit-interval", "0ms", "-o", "json"])
    }

    /// The ticks of all records, in order.
    fn ticks(&self) -> Vec<u64> {
        records(self.cluster, &self.topic)
            .iter()
            .map(|record| record["value"]["tick"].as_u64().unwrap())
            .collect()
    }

    fn kill_at(&self, rows: i64) {
        let (group, limit) = (self.cluster.unique("group"), rows.to_string());
        let held = ["--hold-group", &group, "--hold-limit", &limit];
        let load = self.publish(&self.written).args(held).start();
        wait_until(PATIENCE, || count(self.cluster, &self.topic) >= rows).unwrap();
        assert_eq!(load.kill().code, None);
    }
}

#[test]
fn t01_files_are_one_load_that_goes_on_in_any_of_them() {
    for_each_cluster(|cluster| {
        let mut files = Files::new(cluster, 3);
        files.kill_at(7);
        files.kill_at(15);
        let receipt = files.folder.name("receipt.json");
        let flags = ["--verify", "--receipt", &receipt];
        let again = files.publish(&files.written).args(flags).exits(0);
        let summary = again.json();
        assert_eq!(summary["resumed_at_row"], 15, "{again}");
        assert_eq!(summary["rows"]["read"], 30);
        assert_eq!(summary["verify"]["status"], "same");
        assert!(again.stderr.contains("3 files, "), "{again}");
        assert_eq!(files.ticks(), (0..30).collect::<Vec<_>>());
        let receipt_json: Value =
            serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
        let sources = receipt_json["sources"].as_array().unwrap();
        assert_eq!(sources.len(), 3);
        for (source, path) in sources.iter().zip(&files.written) {
            let path = std::fs::canonicalize(path).unwrap();
            assert_eq!(source["path"], json!(path));
            assert_eq!(source["length"], json!(path.metadata().unwrap().len()));
        }

        let already = files.publish(&files.written).exits(0).json();
        assert_eq!(already["status"], "already-published");
        files.add("3.csv", &rows(30, 35));
        let grown = files
            .publish(&files.written)
            .arg("--verify")
            .exits(0)
            .json();
        assert_eq!(
            (&grown["resumed_at_row"], &grown["this_run"]["rows"]),
            (&json!(30), &json!(5))
        );
        assert_eq!(files.ticks(), (0..35).collect::<Vec<_>>());
        on(cluster, ["verify"])
            .args(&files.written)
            .args(["-t", &files.topic])
            .exits(0);
        // The receipt speaks of the first three.
        on(cluster, ["verify", "--receipt", &receipt]).exits(0);
        Cell::new(1, "killed twice in a load of several files")
            .on(cluster.kind())
            .fired(2)
            .counts(Counts::of_keys(cluster.bootstrap(), &files.topic, 0..35))
            .code(again.code)
            .record();
    });
}

#[test]
fn t24_a_list_that_is_another_one_is_refused() {
    for_each_cluster(|cluster| {
        let mut files = Files::new(cluster, 3);
        files.publish(&files.written).exits(0);
        let new = files.add("new.csv", &rows(50, 60));
        let [a, b, c, _] = files.written.as_slice() else {
            panic!("there are four")
        };
        let list = |names: &[&String]| names.iter().copied().cloned().collect::<Vec<_>>();
        for (what, names, said) in [
            ("the last one removed", list(&[a, b]), "there are 2"),
            (
                "one inserted",
                list(&[a, &new, b, c]),
                "new.csv: the input is not the one",
            ),
            (
                "two exchanged",
                list(&[a, c, b]),
                "2.csv: the input is not the one",
            ),
            (
                "one put in front",
                list(&[&new, a, b, c]),
                "belongs to another load",
            ),
            (
                "the first one removed",
                list(&[b, c]),
                "belongs to another load",
            ),
            ("one of them alone", list(&[b]), "belongs to another load"),
        ] {
            let refused = files.publish(&names).exits(3);
            let message = refused.json()["error"]["message"].to_string();
            assert!(message.contains(said), "{what}: {refused}");
        }
        std::fs::write(a, rows(0, 11)).unwrap();
        let refused = files.publish(&list(&[a, b, c])).exits(3);
        assert!(
            refused.stderr.contains("0.csv: the input has grown since"),
            "{refused}"
        );
        assert_eq!(files.ticks(), (0..30).collect::<Vec<_>>());

        Cell::new(
            24,
            "one of several files is changed, removed, inserted, exchanged",
        )
        .on(cluster.kind())
        .fired(7)
        .counts(Counts::of_keys(cluster.bootstrap(), &files.topic, 0..30))
        .code(refused.code)
        .record();

        // Whoever names the job means it.
        let job = cluster.unique("job");
        files.publish(&list(&[b])).args(["--job", &job]).exits(0);
        assert_eq!(files.ticks().len(), 40);
    });
}

/// A file that was loaded alone may be the first of several, and only that.
#[test]
fn a_file_that_was_loaded_is_not_loaded_again_with_others() {
    for_each_cluster(|cluster| {
        let files = Files::new(cluster, 2);
        files.publish(&files.written[..1]).exits(0);
        let both = files.publish(&files.written).exits(0).json();
        assert_eq!(both["this_run"]["rows"], 10);

        let files = Files::new(cluster, 2);
        files.publish(&files.written[..1]).exits(0);
        files.publish(&files.written[1..]).exits(0);
        let refused = files.publish(&files.written).exits(3);
        assert!(
            refused.stderr.contains("1.csv belongs to another load"),
            "{refused}"
        );
        assert_eq!(files.ticks(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn inputs_that_do_not_fit_together_are_refused_before_anything_is_done() {
    let cluster = Cluster::embedded();
    let mut files = Files::new(&cluster, 2);
    let other = files.add("other.csv", "tick,label\n1,x\n");
    let [a, b, _] = files.written.as_slice() else {
        panic!("there are three")
    };
    for (names, code, said) in [
        (
            files.written.clone(),
            3,
            "other.csv: its columns are tick, label, and those of",
        ),
        (vec![a.clone(), b.clone(), a.clone()], 2, "named twice"),
        (vec![a.clone(), "-".into()], 2, "- can be read only once"),
        (vec![a.clone(), "/nowhere.csv".into()], 11, "/nowhere.csv"),
        (vec![a.clone(); 1_001], 2, "1,001 inputs"),
    ] {
        let refused = files.publish(&names).exits(code);
        assert!(refused.stderr.contains(said), "{refused}");
    }
    for topic in [files.topic.as_str(), POSITIONS] {
        assert_eq!(count(&cluster, topic), -1, "{topic} was created");
    }
    std::fs::write(&other, "tick,name\n").unwrap();
    let summary = files.publish(&files.written).exits(0).json();
    assert_eq!(summary["rows"]["read"], 20);
}

#[test]
fn what_is_wrong_is_told_by_file_and_line() {
    for_each_cluster(|cluster| {
        let mut files = Files::new(cluster, 2);
        let bad = rows(20, 30).replace("25,c_25", "25,c_25,too many");
        let third = files.add("third.csv", &bad);
        let stopped = files.publish(&files.written).exits(3);
        let message = stopped.json()["error"]["message"].to_string();
        assert!(message.contains("third.csv: row 26 (line 7)"), "{stopped}");
        assert_eq!(files.ticks(), (0..25).collect::<Vec<_>>());

        let rejects = files.folder.name("rejects.jsonl");
        let flags = ["--rejects", &rejects, "--verify"];
        let summary = files.publish(&files.written).args(flags).exits(0).json();
        assert_eq!(
            (
                &summary["rows"]["rejected"],
                &summary["records"]["delivered"]
            ),
            (&json!(1), &json!(29))
        );
        let line: Value = serde_json::from_slice(&std::fs::read(&rejects).unwrap()).unwrap();
        assert_eq!((&line["file"], &line["line"]), (&json!(third), &json!(7)));

        std::fs::write(&files.written[1], rows(10, 20).replace("c_13", "c_x")).unwrap();
        let verified = on(cluster, ["verify"])
            .args(&files.written)
            .args(["-t", &files.topic, "-o", "json"])
            .exits(9)
            .json();
        let difference = &verified["first_difference"];
        assert_eq!(
            (&difference["file"], &difference["line"]),
            (&json!(files.written[1]), &json!(5))
        );
    });
}
