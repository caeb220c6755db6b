//! Checks what a topic holds, record by record, without knowing how it got there.

use std::collections::BTreeMap;

/// A record as some reader found it in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The partition.
    pub partition: i32,
    /// The offset within it.
    pub offset: i64,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Option<Vec<u8>>,
}

/// What is wrong with a log; empty lists if nothing is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LogProblems {
    /// Values that were sent and are not there, or not as often as they were sent.
    pub lost: Vec<String>,
    /// Values that are there more often than they were sent, or were never sent.
    pub surplus: Vec<String>,
    /// Where values of one partition stand in another order than they were sent in.
    pub disorder: Vec<String>,
}

impl LogProblems {
    /// Whether every value is there once, in order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How many problems of each kind are listed.
const MAX_LISTED: usize = 10;

/// Compares `found` with what was sent: partition by partition, the values in the order they were sent. Records may come in any order; their offsets
/// say where they stand.
#[must_use]
pub fn compare(sent: &BTreeMap<i32, Vec<Vec<u8>>>, found: &[LogRecord]) -> LogProblems {
    let mut by_partition: BTreeMap<i32, Vec<&LogRecord>> = sent
        .keys()
        .map(|partition| (*partition, Vec::new()))
        .collect();
    for record in found {
        by_partition
            .entry(record.partition)
            .or_default()
            .push(record);
    }
    let mut problems = LogProblems::default();
    for (partition, mut records) in by_partition {
        records.sort_by_key(|record| record.offset);
        let expected = sent.get(&partition).map_or(&[][..], Vec::as_slice);
        compare_partition(partition, expected, &records, &mut problems);
    }
    problems
}

fn compare_partition(
    partition: i32,
    expected: &[Vec<u8>],
    records: &[&LogRecord],
    problems: &mut LogProblems,
) {
    let mut balance: BTreeMap<&[u8], i64> = BTreeMap::new();
    for value in expected {
        *balance.entry(value).or_default() += 1;
    }
    for record in records {
        *balance
            .entry(record.value.as_deref().unwrap_or_default())
            .or_default() -= 1;
    }
    let mut same_content = true;
    for (value, count) in balance {
        let shown = || {
            format!(
                "partition {partition}: {} time(s) {}",
                count.abs(),
                value.escape_ascii()
            )
        };
        match count {
            0 => continue,
            1.. => note(&mut problems.lost, shown),
            _ => note(&mut problems.surplus, shown),
        }
        same_content = false;
    }
    if !same_content {
        // Positions after a loss or a duplicate are all different: no news.
        return;
    }
    for (value, record) in expected.iter().zip(records) {
        if record.value.as_deref().unwrap_or_default() != value.as_slice() {
            note(&mut problems.disorder, || {
                format!(
                    "partition {partition} offset {}: expected {}",
                    record.offset,
                    value.escape_ascii()
                )
            });
        }
    }
}

fn note(list: &mut Vec<String>, shown: impl Fn() -> String) {
    if list.len() < MAX_LISTED {
        list.push(shown());
    }
}

/// Asserts that every value sent is there exactly once and in order.
///
/// # Panics
/// It is not so; the message lists what is lost, surplus or out of order.
#[track_caller]
pub fn assert_exactly_once(sent: &BTreeMap<i32, Vec<Vec<u8>>>, found: &[LogRecord]) {
    let problems = compare(sent, found);
    assert!(problems.is_empty(), "{problems:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(values: &[&str]) -> BTreeMap<i32, Vec<Vec<u8>>> {
        BTreeMap::from([(
            0,
            values
                .iter()
                .map(|value| value.as_bytes().to_vec())
                .collect(),
        )])
    }

    fn found(values: &[&str]) -> Vec<LogRecord> {
        let records = values.iter().zip(0_i64..);
        records
            .map(|(value, offset)| LogRecord {
                partition: 0,
                offset,
                key: None,
                value: Some(value.as_bytes().to_vec()),
            })
            .collect()
    }

    #[test]
    fn the_same_is_fine_even_with_equal_values() {
        assert_exactly_once(&sent(&["a", "b", "a"]), &found(&["a", "b", "a"]));
        assert_exactly_once(&sent(&[]), &[]);
    }

    #[test]
    fn each_problem_is_told_apart() {
        let lost = compare(&sent(&["a", "b"]), &found(&["a"]));
        assert_eq!(
            (lost.lost.len(), lost.surplus.len(), lost.disorder.len()),
            (1, 0, 0)
        );
        let doubled = compare(&sent(&["a", "b"]), &found(&["a", "b", "b"]));
        assert_eq!(
            (
                doubled.lost.len(),
                doubled.surplus.len(),
                doubled.disorder.len()
            ),
            (0, 1, 0)
        );
        let swapped = compare(&sent(&["a", "b"]), &found(&["b", "a"]));
        assert_eq!(
            (
                swapped.lost.len(),
                swapped.surplus.len(),
                swapped.disorder.len()
            ),
            (0, 0, 2)
        );
        let elsewhere = LogRecord {
            partition: 7,
            ..found(&["x"]).remove(0)
        };
        assert_eq!(compare(&sent(&[]), &[elsewhere]).surplus.len(), 1);
    }
}
