//! docs/DESIGN.md and docs/guarantees.md are true of the code: what they name is there, and each source file is in the file map.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate_testkit::matrix::{Cell, IDS};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/DESIGN.md")).unwrap()
}

/// What stands between backticks, on one line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The Rust files below `folder`, as paths from the root of the repository.
fn sources(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(sources(&path));
        } else if path.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

/// What `text` names as `path` or `path::function` and the repository does not have.
fn not_there(text: &str) -> Vec<&str> {
    let is_there = |name: &&str| {
        let (path, function) = name.split_once("::").unwrap_or((name, ""));
        let path = root().join(path);
        if function.is_empty() {
            return path.exists();
        }
        let source = fs::read_to_string(path).unwrap_or_default();
        let starts = [format!("fn {function}("), format!("fn {function}<")];
        starts.iter().any(|start| source.contains(start.as_str()))
    };
    let paths = text
        .lines()
        .flat_map(quoted)
        .filter(|name| name.starts_with("crates/") || name.contains(".rs::"));
    paths.filter(|name| !is_there(name)).collect()
}

/// The entries of the page's file map: the first cells of its tables, below the folder that each heading names.
fn mapped(text: &str) -> Vec<String> {
    let (_, map) = text.split_once("\n## File map\n").unwrap();
    let (map, _) = map.split_once("\n## ").unwrap();
    let (mut folder, mut entries) = ("", Vec::new());
    for line in map.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            folder = quoted(heading).next().unwrap().trim_start_matches("./");
        } else if let Some(row) = line.strip_prefix('|') {
            let first = row.split('|').next().unwrap_or_default();
            entries.extend(quoted(first).map(|name| format!("{folder}{name}")));
        }
    }
    entries
}

/// The source files that no entry of the file map names, neither itself nor a folder it is in.
fn unmapped(text: &str) -> Vec<String> {
    let entries = mapped(text);
    let is_mapped = |file: &String| {
        let names = |entry: &String| {
            file == entry || entry.ends_with('/') && file.starts_with(entry.as_str())
        };
        entries.iter().any(names)
    };
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let files = crates.flat_map(|entry| {
        let name = entry.unwrap().file_name();
        sources(&format!("crates/{}/src", name.to_str().unwrap()))
    });
    files.filter(|file| !is_mapped(file)).collect()
}

#[test]
fn what_the_design_names_is_there() {
    let page = page();
    assert!(page.matches(".rs::").count() > 50);
    assert_eq!(not_there(&page), [""; 0]);
}

#[test]
fn the_tests_that_show_the_guarantees_are_there() {
    let page = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    assert!(page.matches(".rs::").count() > 30);
    assert_eq!(not_there(&page), [""; 0]);
}

#[test]
fn the_file_map_is_whole() {
    let page = page();
    assert_eq!(unmapped(&page), [""; 0]);
    let gone = mapped(&page)
        .into_iter()
        .filter(|entry| !root().join(entry).exists());
    assert_eq!(gone.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_page_that_is_wrong_is_noticed() {
    let wrong = "`crates/tidegate/src/main.rs::run`, `crates/tidegate/src/main.rs::ru`, `crates/none.rs::run`, `crates/none`";
    assert_eq!(
        not_there(wrong),
        [
            "crates/tidegate/src/main.rs::ru",
            "crates/none.rs::run",
            "crates/none"
        ]
    );
    let short = page()
        .replace("`ledger.rs`", "ledger")
        .replace("`balance/`", "balance");
    let mut missing = unmapped(&short);
    missing.sort();
    assert_eq!(
        missing,
        [
            "crates/tidegate-core/src/balance/hold.rs",
            "crates/tidegate-core/src/balance/wait.rs",
            "crates/tidegate-core/src/ledger.rs"
        ]
    );
}

/// Clocks, sockets, threads, the environment and the terminal are handed to core, or stay outside. Its tests may use them.
#[test]
fn core_is_handed_what_it_needs() {
    const OUTSIDE: [&str; 8] = [
        "Instant::now",
        "SystemTime",
        "std::net",
        "std::thread",
        "std::env",
        "stdin()",
        "stdout()",
        "stderr()",
    ];
    for file in sources("crates/tidegate-core/src") {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let is_test = file.ends_with("/tests.rs") || file.ends_with("/speed.rs");
        let code = text.split("\n#[cfg(test)]\n").next().unwrap();
        for name in OUTSIDE {
            assert!(is_test || !code.contains(name), "{file} uses {name}");
        }
    }
}

/// The wall clock dates records and receipts; every deadline and every pause is the monotonic clock's (T32).
#[test]
fn t32_the_wall_clock_decides_no_deadline() {
    // Each reads it in one function, for what it writes; the broker's deletes old files by the time they were changed.
    const MAY: [&str; 5] = [
        "crates/tidegate-broker/src/log/compaction/mod.rs",
        "crates/tidegate-broker/src/shared.rs",
        "crates/tidegate-kafka/src/clock.rs",
        "crates/tidegate-kafka/src/producer/mod.rs",
        "crates/tidegate/src/bridge/clock.rs",
    ];
    let crates = ["", "-broker", "-core", "-kafka", "-registry", "-wire"];
    let folders = crates.map(|name| format!("crates/tidegate{name}/src"));
    let mut looked_at = 0;
    for file in folders.iter().flat_map(|folder| sources(folder)) {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let code = text.split("\n#[cfg(test)]\n").next().unwrap();
        let reads = code.matches("SystemTime::now").count();
        let is_test = file.ends_with("/tests.rs");
        assert!(
            is_test || reads <= usize::from(MAY.contains(&file.as_str())),
            "{file}"
        );
        for name in ["Timestamp::now", "Zoned::now"] {
            assert!(is_test || !code.contains(name), "{file} uses {name}");
        }
        looked_at += 1;
    }
    Cell::new(32, "sources that were searched for the wall clock")
        .fired(looked_at)
        .record();
}

/// The ids with which tests of this file's text begin, `t09_...` for T9.
fn ids_of_tests(text: &str) -> impl Iterator<Item = u8> {
    text.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix("fn t")?;
        let (id, rest) = name.split_at_checked(2)?;
        rest.strip_prefix('_')?;
        id.parse().ok()
    })
}

/// Every fault of the matrix has a test, and every such test has a fault.
#[test]
fn each_fault_has_a_test_and_each_test_a_fault() {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        for folder in ["src", "tests"].map(|folder| format!("crates/{name}/{folder}")) {
            if !root().join(&folder).exists() {
                continue;
            }
            for file in sources(&folder) {
                let text = fs::read_to_string(root().join(file)).unwrap();
                found.extend(ids_of_tests(&text));
            }
        }
    }
    assert_eq!(found, BTreeSet::from(IDS));
    let text = "fn t09_a() {\n    fn t10_b() {\nfn to_text() {\nfn t1_c() {\nfn t99() {";
    assert_eq!(ids_of_tests(text).collect::<Vec<_>>(), [9, 10]);
}
