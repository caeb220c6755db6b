//! The input of a cycle, row by row from its seed, and what each row must become. Nothing in here is tidegate's.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tidegate_testkit::usage::Random;

use crate::plan::Plan;

const HEADER: &str = "device,sequence,amount,note";

/// A row of the file. Its number is its place in [`Input::rows`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputRow {
    pub(crate) device: u32,
    /// In eighths, so that text and double are the same number.
    eighths: u32,
    note: Note,
    bad: Option<Bad>,
}

/// Texts that a careless reader or writer would spoil.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Note {
    Empty,
    Plain(u32),
    Quoted(u32),
    Broken(u32),
    Foreign(u32),
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bad {
    Sequence,
    Amount,
    /// A cell too many. Not in grouped files, where it would leave open which group the row belongs to.
    Ragged,
}

impl InputRow {
    pub(crate) fn device(&self) -> String {
        format!("device {}", self.device)
    }

    pub(crate) fn amount(&self) -> f64 {
        f64::from(self.eighths) / 8.0
    }

    pub(crate) fn note(&self) -> Option<String> {
        match self.note {
            Note::Empty => None,
            Note::Plain(number) => Some(format!("note {number}")),
            Note::Quoted(number) => Some(format!("a, \"b\" and {number}")),
            Note::Broken(number) => Some(format!("first\nsecond {number}")),
            Note::Foreign(number) => Some(format!("å ☃ {number}")),
        }
    }

    /// The row as it stands in the file, without its line end.
    fn text(&self, sequence: usize) -> String {
        let mut text = format!("{},", self.device());
        if self.bad == Some(Bad::Sequence) {
            text.push('x');
        }
        // Writing to a string cannot fail.
        write!(text, "{sequence},").ok();
        match self.bad {
            Some(Bad::Amount) => text.push_str("plenty"),
            _ => {
                write!(text, "{}", self.amount()).ok();
            }
        }
        text.push(',');
        let note = self.note().unwrap_or_default();
        match self.note {
            Note::Quoted(_) | Note::Broken(_) => {
                write!(text, "\"{}\"", note.replace('"', "\"\"")).ok();
            }
            _ => text.push_str(&note),
        }
        if self.bad == Some(Bad::Ragged) {
            text.push_str(",surplus");
        }
        text
    }
}

/// A whole file, and the records it must become.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) rows: Vec<InputRow>,
    /// For each row how many rows the record has that begins with it: 0 where none does.
    pub(crate) record_rows: Vec<u32>,
    /// The rejected rows, in order.
    pub(crate) rejected: Vec<usize>,
}

impl Input {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let mut rows: Vec<InputRow> = Vec::new();
        let mut left_in_group = 0;
        for _ in 0..plan.rows {
            let previous = rows.last().map(|row| row.device);
            let device = match previous {
                Some(device) if left_in_group > 0 => device,
                // Another one than before, or the two groups would be one.
                Some(device) if plan.shape.is_grouped => {
                    (device + 1 + number(&mut random, plan.keys)) % (plan.keys + 1)
                }
                _ => number(&mut random, plan.keys + 1),
            };
            left_in_group = match (plan.shape.is_grouped, left_in_group) {
                (false, _) => 0,
                (true, 0) => number(&mut random, 8),
                (true, left) => left - 1,
            };
            rows.push(row(&mut random, plan, device));
        }
        Self::with_records(rows, plan.shape.is_grouped)
    }

    fn with_records(rows: Vec<InputRow>, is_grouped: bool) -> Self {
        let mut record_rows = vec![0; rows.len()];
        let mut rejected = Vec::new();
        let mut start = 0;
        while start < rows.len() {
            let same = |row: &&InputRow| is_grouped && row.device == rows[start].device;
            let len = 1 + rows[start + 1..].iter().take_while(same).count();
            let group = start..start + len;
            if rows[group.clone()].iter().any(|row| row.bad.is_some()) {
                rejected.extend(group);
            } else {
                record_rows[start] = u32::try_from(len).unwrap_or(u32::MAX);
            }
            start += len;
        }
        Self {
            rows,
            record_rows,
            rejected,
        }
    }

    /// How many records there must be.
    pub(crate) fn records(&self) -> usize {
        self.record_rows.iter().filter(|len| **len > 0).count()
    }

    /// A row as it stands in the file, without its line end.
    pub(crate) fn text(&self, sequence: usize) -> String {
        self.rows[sequence].text(sequence)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{HEADER}")?;
        for (sequence, row) in self.rows.iter().enumerate() {
            writeln!(file, "{}", row.text(sequence))?;
        }
        file.flush()
    }
}

fn row(random: &mut Random, plan: &Plan, device: u32) -> InputRow {
    let value = number(random, 1000);
    let note = match random.below(20) {
        0 => Note::Empty,
        1 => Note::Quoted(value),
        2 => Note::Broken(value),
        3 => Note::Foreign(value),
        _ => Note::Plain(value),
    };
    let is_bad = random.below(10_000) < u64::from(plan.bad);
    let kinds = if plan.shape.is_grouped { 2 } else { 3 };
    let bad = match random.below(kinds) {
        0 => Bad::Sequence,
        1 => Bad::Amount,
        _ => Bad::Ragged,
    };
    InputRow {
        device,
        eighths: number(random, 1 << 20),
        note,
        bad: is_bad.then_some(bad),
    }
}

fn number(random: &mut Random, limit: u32) -> u32 {
    u32::try_from(random.below(u64::from(limit))).unwrap_or(0)
}

/// The schema of the values.
pub(crate) fn schema(is_grouped: bool) -> &'static str {
    if is_grouped {
        r#"{"type": "record", "name": "Group", "fields": [
            {"name": "device", "type": "string"},
            {"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
                {"name": "sequence", "type": "long"}, {"name": "amount", "type": "double"},
                {"name": "note", "type": ["null", "string"]}]}}}]}"#
    } else {
        r#"{"type": "record", "name": "Row", "fields": [
            {"name": "device", "type": "string"}, {"name": "sequence", "type": "long"},
            {"name": "amount", "type": "double"}, {"name": "note", "type": ["null", "string"]}]}"#
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Limits, Shape};

    const LIMITS: Limits = Limits {
        rows: 2000,
        partitions: 4,
        broker_kills: 0,
        with_avro: false,
    };

    #[test]
    fn groups_are_maximal_and_a_bad_row_takes_its_group() {
        let plan = Plan {
            shape: Shape {
                is_grouped: true,
                is_avro: false,
            },
            bad: 100,
            ..Plan::new(1, 1, LIMITS)
        };
        let input = Input::new(&plan);
        let mut at = 0;
        let mut rejected = 0;
        while at < input.rows.len() {
            let len = match input.record_rows[at] {
                0 => {
                    let device = input.rows[at].device;
                    let rest = input.rows[at..].iter();
                    let len = rest.take_while(|row| row.device == device).count();
                    rejected += len;
                    len
                }
                len => usize::try_from(len).unwrap(),
            };
            assert!((1..=8).contains(&len));
            at += len;
        }
        assert_eq!(rejected, input.rejected.len());
        assert!(rejected > 0 && input.records() > 300);
    }

    #[test]
    fn a_file_is_what_its_rows_say() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            bad: 50,
            ..Plan::new(1, 2, LIMITS)
        };
        let input = Input::new(&plan);
        let path = dir.path().join("input.csv");
        input.write(&path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("device,sequence,amount,note\ndevice "));
        assert!(text.contains("\"a, \"\"b\"\" and ") && text.contains(",\"first\nsecond "));
        assert_eq!(
            input.rejected.len() + input.records(),
            usize::try_from(plan.rows).unwrap()
        );
    }
}
