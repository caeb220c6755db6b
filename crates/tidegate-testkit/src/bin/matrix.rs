//! Runs every test of the fault matrix and makes the table of docs/guarantees.md of what they noted.
//!
//! ```console
//! $ cargo run -p tidegate-testkit --bin matrix                 # the quick ones; shows the table
//! $ cargo run -p tidegate-testkit --bin matrix -- --all --write
//! ```
//!
//! Set TIDEGATE_TEST_KAFKA=download (and TIDEGATE_TEST_REGISTRY) for the cells on real Kafka. A fault without a cell, or a test that fails, fails it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use serde_json::Value;
use tidegate_testkit::matrix::{FILE, IDS};

/// The page with the table, and what stands around it there.
const PAGE: &str = "docs/guarantees.md";
const BEGIN: &str = "<!-- the fault matrix, made by the program `matrix` of tidegate-testkit -->\n";
const END: &str = "<!-- the end of the fault matrix -->\n";

/// Runs the fault matrix.
#[derive(Debug, Parser)]
struct Arguments {
    /// Also run the tests that take long, which are ignored otherwise
    #[arg(long)]
    all: bool,
    /// Put the table into docs/guarantees.md instead of showing it
    #[arg(long)]
    write: bool,
    /// Only these faults: 9 for T9
    #[arg(long, value_delimiter = ',')]
    only: Vec<u8>,
    /// Keep what was noted in this file; what it has already stays in it, unless the same test notes it anew
    #[arg(long)]
    cells: Option<PathBuf>,
    /// Run nothing; make the table of what the file of --cells has
    #[arg(long, requires = "cells")]
    table: bool,
    /// Run the tests built for release
    #[arg(long)]
    release: bool,
}

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let ids: BTreeSet<u8> = IDS
        .into_iter()
        .filter(|id| arguments.only.is_empty() || arguments.only.contains(id))
        .collect();
    let folder = tempfile::tempdir()?;
    let path = match &arguments.cells {
        Some(path) => std::path::absolute(path)?,
        None => folder.path().join("cells"),
    };
    let passed = arguments.table || run(&arguments, &root, &ids, &path)?;
    let cells = read(&path)?;
    let missing: Vec<String> = ids
        .iter()
        .filter(|id| !cells.iter().any(|cell| cell["id"] == **id))
        .map(|id| format!("T{id}"))
        .collect();
    let mut stdout = io::stdout().lock();
    if arguments.write {
        replace_table(&root.join(PAGE), &table(&cells))?;
    } else {
        stdout.write_all(table(&cells).as_bytes())?;
    }
    if !missing.is_empty() {
        writeln!(stdout, "no cell for {}", missing.join(", "))?;
    }
    if !passed {
        writeln!(stdout, "a test failed, see above")?;
    }
    Ok(if passed && missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the tests whose names begin with these ids; whether all of them passed.
fn run(arguments: &Arguments, root: &Path, ids: &BTreeSet<u8>, cells: &Path) -> io::Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["test", "--workspace", "--no-fail-fast"])
        .env(FILE, cells);
    if arguments.release {
        command.arg("--release");
    }
    command.arg("--");
    if arguments.all {
        command.arg("--include-ignored");
    }
    // One at a time: a fault of one test is no fault of another.
    command.arg("--test-threads=1");
    command.args(ids.iter().map(|id| format!("t{id:02}_")));
    Ok(command.status()?.success())
}

/// What was noted, the newest of each test on each broker, by id.
fn read(path: &Path) -> io::Result<Vec<Value>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let mut cells: Vec<Value> = Vec::new();
    for line in text.lines() {
        let cell: Value = serde_json::from_str(line)?;
        cells.retain(|other| identity(other) != identity(&cell));
        cells.push(cell);
    }
    cells.sort_by_key(|cell| (cell["id"].as_u64(), identity(cell)));
    Ok(cells)
}

fn identity(cell: &Value) -> [String; 4] {
    ["id", "test", "fault", "broker"].map(|name| cell[name].to_string())
}

fn table(cells: &[Value]) -> String {
    let mut text = String::from(
        "| | fault | on | faults | rows | lost, doubled, out of order | going on after | exit code | seed | shown by |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in cells {
        let word = |name: &str| cell[name].as_str().unwrap_or_default();
        let count = |name: &str| cell["counts"][name].as_u64();
        let rows = count("rows").map(grouped).unwrap_or_default();
        let wrong = ["lost", "doubled", "disordered"].map(count);
        let wrong = wrong.map(|count| count.map(grouped).unwrap_or_default());
        let wrong = if cell["counts"].is_null() {
            String::new()
        } else {
            wrong.join(", ")
        };
        let seed = cell["seed"].as_u64();
        text.push_str(&format!(
            "| T{} | {} | {} | {} | {rows} | {wrong} | {} | {} | {} | `{}` |\n",
            cell["id"],
            word("fault"),
            word("broker"),
            grouped(cell["fired"].as_u64().unwrap_or_default()),
            recovery(&cell["recovery_ms"]),
            list(&cell["codes"]),
            seed.map(|seed| seed.to_string()).unwrap_or_default(),
            word("test"),
        ));
    }
    text
}

/// The shortest and the longest time, in seconds.
fn recovery(times: &Value) -> String {
    let times = times.as_array().into_iter().flatten();
    let times: BTreeSet<u64> = times.filter_map(Value::as_u64).collect();
    let seconds = |time: &u64| format!("{}.{}", time / 1_000, time % 1_000 / 100);
    match (times.first(), times.last()) {
        (Some(shortest), Some(longest)) if times.len() > 1 => {
            format!("{} to {} s", seconds(shortest), seconds(longest))
        }
        (Some(only), _) => format!("{} s", seconds(only)),
        _ => String::new(),
    }
}

fn list(codes: &Value) -> String {
    let codes = codes.as_array().into_iter().flatten();
    codes.map(Value::to_string).collect::<Vec<_>>().join(", ")
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn replace_table(page: &Path, table: &str) -> io::Result<()> {
    let text = fs::read_to_string(page)?;
    let without = || io::Error::other(format!("{PAGE} has no place for the table"));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(without)?;
    let (_, after) = rest.split_once(END).ok_or_else(without)?;
    fs::write(page, format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_a_line_for_each_cell() {
        let cell = json!({
            "id": 9, "fault": "leaders are killed", "broker": "embedded", "seed": null, "fired": 1234,
            "counts": {"rows": 1_000_000, "lost": 0, "doubled": 0, "disordered": 0},
            "recovery_ms": [3_210, 900, 900], "codes": [0], "test": "tests/a.rs::t09_a",
        });
        let text = table(&[cell]);
        let last = text.lines().last();
        assert_eq!(
            last,
            Some(
                "| T9 | leaders are killed | embedded | 1,234 | 1,000,000 | 0, 0, 0 | 0.9 to 3.2 s | 0 |  | `tests/a.rs::t09_a` |"
            )
        );
    }

    #[test]
    fn the_newest_cell_of_a_test_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cells");
        let cell = |fired, broker| json!({"id": 9, "test": "a", "fault": "b", "broker": broker, "fired": fired});
        let lines = [cell(1, "c"), cell(2, "d"), cell(3, "c")];
        fs::write(&path, lines.map(|line| format!("{line}\n")).concat()).unwrap();
        let fired: Vec<_> = read(&path).unwrap();
        let fired: Vec<_> = fired.iter().map(|cell| cell["fired"].clone()).collect();
        assert_eq!(fired, [3, 2]);
    }
}
