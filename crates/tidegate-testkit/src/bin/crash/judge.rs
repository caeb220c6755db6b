//! Compares what readers found with the input: every row once, in order, with its content, or in the rejects file.

use std::collections::HashMap;
use std::ops::AddAssign;

use serde_json::Value;

use crate::input::Input;
use crate::reader::Found;

/// How many differences are told.
const MAX_TOLD: usize = 10;

/// How many rows are not as they must be, and what the first of them are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Rows that were compared.
    pub(crate) rows: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) disordered: u64,
    pub(crate) wrong: u64,
    pub(crate) told: Vec<String>,
}

impl Judgement {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.disordered == 0 && self.wrong == 0
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() < MAX_TOLD {
            self.told.push(what());
        }
    }
}

impl AddAssign<&Self> for Judgement {
    fn add_assign(&mut self, other: &Self) {
        self.rows += other.rows;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        self.wrong += other.wrong;
    }
}

/// Judges the records of a topic, in the order of their offsets, and the lines of the rejects file.
pub(crate) fn judge(input: &Input, is_grouped: bool, found: &[Found], rejects: &str) -> Judgement {
    let mut judgement = Judgement {
        rows: input.rows.len() as u64,
        ..Judgement::default()
    };
    let starts = judge_contents(input, is_grouped, found, &mut judgement);
    judge_counts(input, &starts, &mut judgement);
    judge_order(input, found, &starts, &mut judgement);
    judge_rejects(input, rejects, &mut judgement);
    judgement
}

/// For each found record the row it begins with, if it is what that row must become.
fn judge_contents(
    input: &Input,
    is_grouped: bool,
    found: &[Found],
    judgement: &mut Judgement,
) -> Vec<Option<usize>> {
    let mut starts = Vec::with_capacity(found.len());
    for record in found {
        let start = first_row(&record.value, is_grouped)
            .filter(|(start, _)| input.record_rows.get(*start).is_some_and(|len| *len > 0))
            .filter(|(start, value)| is_right(input, *start, is_grouped, &record.key, value))
            .map(|(start, _)| start);
        if start.is_none() {
            judgement.wrong += 1;
            judgement.tell(|| format!("no record of the input: {record:?}"));
        }
        starts.push(start);
    }
    starts
}

/// The number of the first row in a record, and the record.
fn first_row(value: &str, is_grouped: bool) -> Option<(usize, Value)> {
    let value: Value = serde_json::from_str(value).ok()?;
    let row = if is_grouped {
        value["rows"].get(0)?
    } else {
        &value
    };
    let sequence = usize::try_from(row["sequence"].as_u64()?).ok()?;
    Some((sequence, value))
}

fn is_right(input: &Input, start: usize, is_grouped: bool, key: &str, value: &Value) -> bool {
    let device = input.rows[start].device();
    let len = usize::try_from(input.record_rows[start]).unwrap_or(0);
    let has_fields = |value: &Value, names: &[&str]| {
        value.as_object().is_some_and(|object| {
            object.len() == names.len() && names.iter().all(|name| object.contains_key(*name))
        })
    };
    let is_row = |sequence: usize, value: &Value| {
        let row = &input.rows[sequence];
        value["sequence"].as_u64() == Some(sequence as u64)
            && value["amount"].as_f64() == Some(row.amount())
            && value["note"].as_str() == row.note().as_deref()
            && (row.note().is_some() || value["note"].is_null())
    };
    if key != device || value["device"].as_str() != Some(device.as_str()) {
        return false;
    }
    if !is_grouped {
        return has_fields(value, &["device", "sequence", "amount", "note"])
            && is_row(start, value);
    }
    has_fields(value, &["device", "rows"])
        && value["rows"].as_array().is_some_and(|rows| {
            rows.len() == len
                && rows.iter().zip(start..).all(|(row, sequence)| {
                    has_fields(row, &["sequence", "amount", "note"]) && is_row(sequence, row)
                })
        })
}

/// Rows of one key stand in one partition, in the order of the file.
fn judge_order(
    input: &Input,
    found: &[Found],
    starts: &[Option<usize>],
    judgement: &mut Judgement,
) {
    let mut last: HashMap<u32, (i32, usize)> = HashMap::new();
    let right = found.iter().zip(starts);
    for (record, start) in right.filter_map(|(record, start)| Some((record, (*start)?))) {
        let device = input.rows[start].device;
        let previous = last.insert(device, (record.partition, start));
        if let Some((partition, before)) = previous
            && (partition != record.partition || before > start)
        {
            judgement.disordered += 1;
            judgement.tell(|| {
                format!(
                    "row {start} at {}-{} comes after row {before} in partition {partition}, with the same key",
                    record.partition, record.offset
                )
            });
        }
    }
}

fn judge_counts(input: &Input, starts: &[Option<usize>], judgement: &mut Judgement) {
    let mut counts = vec![0_u64; input.rows.len()];
    for start in starts.iter().flatten() {
        counts[*start] += 1;
    }
    for (start, (count, len)) in counts.iter().zip(&input.record_rows).enumerate() {
        let len = u64::from(*len);
        if len > 0 && *count == 0 {
            judgement.lost += len;
            judgement.tell(|| format!("row {start} is not there, nor {} behind it", len - 1));
        } else if *count > 1 {
            judgement.doubled += len * (count - 1);
            judgement.tell(|| format!("row {start} is there {count} times"));
        }
    }
}

/// Each rejected row stands in the rejects file once, as it was.
fn judge_rejects(input: &Input, rejects: &str, judgement: &mut Judgement) {
    let mut raws: HashMap<String, u64> = HashMap::new();
    for line in rejects.lines() {
        let raw = serde_json::from_str::<Value>(line)
            .ok()
            .and_then(|value| value["raw"].as_str().map(str::to_owned));
        match raw {
            Some(raw) => *raws.entry(raw).or_default() += 1,
            None => {
                judgement.wrong += 1;
                judgement.tell(|| format!("no line of a rejects file: {line}"));
            }
        }
    }
    for sequence in &input.rejected {
        match raws.remove(&input.text(*sequence)) {
            Some(1) => {}
            None => {
                judgement.lost += 1;
                judgement.tell(|| format!("row {sequence} is not in the rejects file"));
            }
            Some(count) => {
                judgement.doubled += count - 1;
                judgement.tell(|| format!("row {sequence} was rejected {count} times"));
            }
        }
    }
    for (raw, count) in raws {
        judgement.wrong += count;
        judgement.tell(|| format!("rejected without a reason: {raw}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Limits, Plan, Shape};

    fn input(is_grouped: bool) -> Input {
        let limits = Limits {
            rows: 400,
            partitions: 1,
            broker_kills: 0,
            with_avro: false,
        };
        let mut plan = Plan::new(5, 1, limits);
        plan.shape = Shape {
            is_grouped,
            is_avro: false,
        };
        plan.keys = 9;
        plan.bad = 300;
        Input::new(&plan)
    }

    /// The topic and the rejects file of a load without faults.
    fn right(input: &Input, is_grouped: bool) -> (Vec<Found>, String) {
        let item = |sequence: usize| {
            let row = &input.rows[sequence];
            json!({"sequence": sequence, "amount": row.amount(), "note": row.note()})
        };
        let mut found = Vec::new();
        for (start, len) in input.record_rows.iter().enumerate() {
            if *len == 0 {
                continue;
            }
            let device = input.rows[start].device();
            let rows = start..start + usize::try_from(*len).unwrap();
            let value = if is_grouped {
                json!({"device": device, "rows": rows.map(item).collect::<Vec<_>>()})
            } else {
                let mut value = item(start);
                value["device"] = json!(device);
                value
            };
            found.push(Found {
                partition: 0,
                offset: i64::try_from(found.len()).unwrap(),
                key: device,
                value: value.to_string(),
            });
        }
        let lines = input
            .rejected
            .iter()
            .map(|row| json!({"raw": input.text(*row)}).to_string() + "\n");
        (found, lines.collect())
    }

    #[test]
    fn what_is_right_is_clean() {
        for is_grouped in [false, true] {
            let input = input(is_grouped);
            let (found, rejects) = right(&input, is_grouped);
            assert!(!rejects.is_empty());
            let judgement = judge(&input, is_grouped, &found, &rejects);
            assert!(judgement.is_clean(), "{:?}", judgement.told);
            assert_eq!(judgement.rows, input.rows.len() as u64);
        }
    }

    #[test]
    fn every_fault_is_found_and_named() {
        for is_grouped in [false, true] {
            let input = input(is_grouped);
            let (found, rejects) = right(&input, is_grouped);
            let judged = |found: &[Found]| judge(&input, is_grouped, found, &rejects);
            let lost = judged(&found[1..]);
            assert!(lost.lost > 0 && lost.doubled == 0 && lost.wrong == 0);
            let mut doubled = found.clone();
            doubled.push(found.last().unwrap().clone());
            let doubled = judged(&doubled);
            assert!(doubled.doubled > 0 && doubled.lost == 0 && doubled.disordered == 0);
            let mut swapped = found.clone();
            swapped.rotate_left(1);
            let swapped = judged(&swapped);
            assert!(swapped.disordered > 0 && swapped.lost == 0 && swapped.doubled == 0);
            let mut elsewhere = found.clone();
            elsewhere.last_mut().unwrap().partition = 1;
            assert!(judged(&elsewhere).disordered > 0);
            for (from, to) in [("amount", "amounts"), ("note ", "n0te "), ("device ", "x")] {
                let mut changed = found.clone();
                let place = changed.iter().position(|found| found.value.contains(from));
                let value = &mut changed[place.unwrap()].value;
                *value = value.replacen(from, to, 1);
                assert!(judged(&changed).wrong == 1, "{from}");
            }
            let mut key = found.clone();
            key[0].key.push('x');
            assert_eq!(judged(&key).wrong, 1);
        }
    }

    #[test]
    fn rejected_rows_are_counted_too() {
        let input = input(false);
        let (found, rejects) = right(&input, false);
        let (first, rest) = rejects.split_once('\n').unwrap();
        assert_eq!(judge(&input, false, &found, rest).lost, 1);
        let twice = format!("{rejects}{first}\n");
        assert_eq!(judge(&input, false, &found, &twice).doubled, 1);
        for surplus in ["{\"raw\": \"fine\"}", "not JSON"] {
            let more = format!("{rejects}{surplus}\n");
            assert_eq!(judge(&input, false, &found, &more).wrong, 1);
        }
    }
}
