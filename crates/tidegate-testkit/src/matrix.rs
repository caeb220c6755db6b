//! The fault matrix: each test of a fault notes what happened in a [`Cell`], and `cargo run -p tidegate-testkit --bin matrix` runs them all and
//! makes the table of `docs/guarantees.md` of the cells.
//!
//! A test of fault T9 has a name that begins with `t09_`, and ends with [`Cell::record`] for each broker it ran on. A cell says which
//! test it comes from by itself.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Kind;
use crate::log::LogRecord;
use crate::raw::read_committed;
use crate::services;

/// The faults that have a number. T19 and T25 were never given.
pub const IDS: [u8; 32] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 26, 27, 28,
    29, 30, 31, 32, 33, 34,
];

/// Names the file that cells are appended to; without it they are only checked.
pub const FILE: &str = "TIDEGATE_MATRIX";

/// What became of rows, as somebody counted who had no part in the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that should be there.
    pub rows: u64,
    /// Of these, how many are not.
    pub lost: u64,
    /// How many are there more than once.
    pub doubled: u64,
    /// How many stand before one that comes earlier in the file.
    pub disordered: u64,
}

impl Counts {
    /// All of them are there once and in order.
    #[must_use]
    pub fn whole(rows: u64) -> Self {
        Self {
            rows,
            ..Self::default()
        }
    }

    /// What is committed in a topic whose records should be these rows, ascending, each keyed by its number; read by a client that shares no code with
    /// the program's.
    ///
    /// # Panics
    /// The topic cannot be read, or a record's key is no number.
    #[must_use]
    pub fn of_keys(bootstrap: &str, topic: &str, rows: impl IntoIterator<Item = u64>) -> Self {
        Self::of(bootstrap, topic, rows, |record| number(record.key.as_ref()))
    }

    /// As [`of_keys`](Self::of_keys), for rows whose number is the value.
    ///
    /// # Panics
    /// The topic cannot be read, or a record's value is no number.
    #[must_use]
    pub fn of_values(bootstrap: &str, topic: &str, rows: impl IntoIterator<Item = u64>) -> Self {
        Self::of(bootstrap, topic, rows, |record| {
            number(record.value.as_ref())
        })
    }

    fn of(
        bootstrap: &str,
        topic: &str,
        rows: impl IntoIterator<Item = u64>,
        number: impl Fn(&LogRecord) -> u64,
    ) -> Self {
        let mut tally = Tally::new(rows);
        let brokers = bootstrap.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        brokers
            .and_then(|brokers| {
                read_committed(&brokers, topic, |record| {
                    tally.add(record.partition, number(&record));
                })
            })
            .unwrap_or_else(|error| panic!("{topic}: {error}"));
        tally.counts()
    }
}

/// The number that is a record's key or value, in digits.
fn number(text: Option<&Vec<u8>>) -> u64 {
    let text = text.map(|text| String::from_utf8_lossy(text));
    let number = text.as_ref().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("not a number: {text:?}"))
}

/// How often each row was found. Rows that nobody sent count as doubled.
#[derive(Debug, Default)]
struct Tally {
    found: BTreeMap<u64, u64>,
    last: BTreeMap<i32, u64>,
    strangers: u64,
    disordered: u64,
}

impl Tally {
    fn new(rows: impl IntoIterator<Item = u64>) -> Self {
        Self {
            found: rows.into_iter().map(|row| (row, 0)).collect(),
            ..Self::default()
        }
    }

    fn add(&mut self, partition: i32, row: u64) {
        match self.found.get_mut(&row) {
            Some(count) => *count += 1,
            None => self.strangers += 1,
        }
        let before = self.last.insert(partition, row);
        self.disordered += u64::from(before.is_some_and(|before| before > row));
    }

    fn counts(&self) -> Counts {
        let how_many = |wanted: fn(&u64) -> bool| {
            let found = self.found.values().filter(|count| wanted(count));
            found.count() as u64
        };
        Counts {
            rows: self.found.len() as u64,
            lost: how_many(|count| *count == 0),
            doubled: how_many(|count| *count > 1) + self.strangers,
            disordered: self.disordered,
        }
    }
}

/// One fault on one broker, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    id: u8,
    fault: String,
    broker: String,
    seed: Option<u64>,
    fired: u64,
    counts: Option<Counts>,
    recoveries: Vec<Duration>,
    codes: Vec<i32>,
}

impl Cell {
    /// Fault T`id`, told in a few words.
    #[must_use]
    pub fn new(id: u8, fault: &str) -> Self {
        Self {
            id,
            fault: fault.to_owned(),
            broker: "none".to_owned(),
            ..Self::default()
        }
    }

    /// Whose broker it was on. Without this: on none.
    #[must_use]
    pub fn on(self, kind: Kind) -> Self {
        match kind {
            Kind::Embedded => self.on_broker("embedded"),
            Kind::Real => self.on_broker(&services::kafka_name()),
        }
    }

    /// It was on a broker of this name.
    #[must_use]
    pub fn on_broker(mut self, name: &str) -> Self {
        name.clone_into(&mut self.broker);
        self
    }

    /// What decided what is left to chance.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How many faults really happened, in all.
    #[must_use]
    pub fn fired(mut self, fired: u64) -> Self {
        self.fired += fired;
        self
    }

    /// What was found of the rows, in one of its loads.
    #[must_use]
    pub fn counts(mut self, counts: Counts) -> Self {
        let all = self.counts.get_or_insert_default();
        all.rows += counts.rows;
        all.lost += counts.lost;
        all.doubled += counts.doubled;
        all.disordered += counts.disordered;
        self
    }

    /// How long it took after a fault until there was progress again.
    #[must_use]
    pub fn recovered(mut self, recoveries: impl IntoIterator<Item = Duration>) -> Self {
        self.recoveries.extend(recoveries);
        self
    }

    /// What the disturbed program ended with, if no signal ended it.
    #[must_use]
    pub fn code(mut self, code: Option<i32>) -> Self {
        self.codes.extend(code);
        self.codes.sort_unstable();
        self.codes.dedup();
        self
    }

    /// Notes the cell, for the table.
    ///
    /// # Panics
    /// No fault happened, so nothing was tested; rows are lost, doubled or out of order; or the file cannot be written.
    #[track_caller]
    pub fn record(self) {
        assert!(self.fired > 0, "the fault never happened: {self:?}");
        if let Some(counts) = self.counts {
            assert_eq!(counts, Counts::whole(counts.rows), "{self:?}");
        }
        let Some(path) = std::env::var_os(FILE).map(PathBuf::from) else {
            return;
        };
        let line = self.line(Location::caller().file());
        append(&path, &line).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn line(&self, file: &str) -> Value {
        let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let counts = self.counts.map(|counts| {
            json!({
                "rows": counts.rows,
                "lost": counts.lost,
                "doubled": counts.doubled,
                "disordered": counts.disordered,
            })
        });
        json!({
            "id": self.id,
            "fault": self.fault,
            "broker": self.broker,
            "seed": self.seed,
            "fired": self.fired,
            "counts": counts,
            "recovery_ms": self.recoveries.iter().map(milliseconds).collect::<Vec<_>>(),
            "codes": self.codes,
            "test": format!("{file}::{}", test_name()),
        })
    }
}

/// The test that runs: the harness names its thread after it.
fn test_name() -> String {
    let current = thread::current();
    let name = current.name().unwrap_or("main");
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

/// Adds a line in one write, so that the lines of several processes do not mix.
fn append(path: &Path, line: &Value) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_what_was_and_where() {
        let cell = Cell::new(9, "leaders are killed")
            .on(Kind::Embedded)
            .seed(7)
            .fired(2)
            .counts(Counts::whole(10))
            .recovered([Duration::from_millis(1_500)])
            .code(Some(4))
            .code(Some(0))
            .code(Some(0));
        let line = cell.line("crates/a/tests/b.rs");
        assert_eq!(
            line,
            json!({
                "id": 9, "fault": "leaders are killed", "broker": "embedded", "seed": 7, "fired": 2,
                "counts": {"rows": 10, "lost": 0, "doubled": 0, "disordered": 0},
                "recovery_ms": [1500], "codes": [0, 4],
                "test": "crates/a/tests/b.rs::a_cell_says_what_was_and_where",
            })
        );
    }

    #[test]
    fn what_is_lost_doubled_or_disordered_is_counted() {
        let mut tally = Tally::new(0..6);
        for (partition, row) in [(0, 0), (0, 2), (0, 1), (1, 3), (1, 3), (0, 9)] {
            tally.add(partition, row);
        }
        let counts = Counts {
            rows: 6,
            lost: 2,
            doubled: 2,
            disordered: 1,
        };
        assert_eq!(tally.counts(), counts);
    }

    #[test]
    #[should_panic(expected = "the fault never happened")]
    fn a_fault_that_never_happened_fails_the_test() {
        Cell::new(9, "none").record();
    }

    #[test]
    #[should_panic(expected = "lost: 1")]
    fn a_lost_row_fails_the_test() {
        let lost = Counts {
            lost: 1,
            ..Counts::whole(10)
        };
        Cell::new(9, "one").fired(1).counts(lost).record();
    }
}
