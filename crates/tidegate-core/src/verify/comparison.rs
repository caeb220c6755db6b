//! The sink of a verification: it takes the records that would be sent and compares them with those that are there.

use std::time::Duration;

use crate::decode::first_difference;
use crate::digest::{Hash128, KeyTerm, RecordHasher};
use crate::job::Repeat;
use crate::limits::{VERIFY_LOOKAHEAD, VERIFY_LOOKAHEAD_ALL};
use crate::produce::{
    Consume, ConsumedHeader, ConsumedRecord, Headers, OutRecord, Produce, Settled, SinkError,
};
use crate::schema::RecordPlan;
use crate::verify::difference::{Difference, DifferenceKind, quote};
use crate::verify::{Compared, unreadable};
use crate::{Error, ErrorKind, Result};

/// Compares instead of sending.
pub(super) struct Comparison<'a, C> {
    topic: &'a mut C,
    partitions: Vec<Seen>,
    own: Own<'a>,
    plan: &'a RecordPlan,
    framed: bool,
    same_records: u64,
    same_rows: u64,
    mismatch: Option<Box<Mismatch>>,
}

/// Which records are the load's, and how many were passed over that are not.
#[derive(Debug)]
struct Own<'a> {
    producer_ids: Option<&'a [i64]>,
    repeats: &'a [Repeat],
    /// Of other producers.
    foreign: u64,
    /// Sent by a run beyond what the next one went on from, and so sent again.
    repeated: u64,
}

impl Own<'_> {
    /// Whether the record counts.
    fn takes(&mut self, found: &ConsumedRecord<'_>) -> bool {
        let is_foreign = self
            .producer_ids
            .is_some_and(|ids| !ids.contains(&found.producer_id));
        let mut repeats = self.repeats.iter();
        let is_repeated = !is_foreign
            && repeats.any(|repeat| repeat.holds(found.producer_id, found.partition, found.offset));
        self.foreign += u64::from(is_foreign);
        self.repeated += u64::from(is_repeated);
        !is_foreign && !is_repeated
    }
}

/// What was taken and found in one partition.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// Records taken since the last settlement, and their tags.
    open: u32,
    first_tag: u64,
    last_tag: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
    last: Option<Content>,
}

/// Key and value of a record.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Content {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Content {
    fn new(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
        }
    }

    /// Takes the content of another record, in the same memory where there is some.
    fn set(&mut self, key: Option<&[u8]>, value: &[u8]) {
        match (key, &mut self.key) {
            (Some(key), Some(kept)) => {
                kept.clear();
                kept.extend_from_slice(key);
            }
            (key, kept) => *kept = key.map(<[u8]>::to_vec),
        }
        let kept = self.value.get_or_insert_default();
        kept.clear();
        kept.extend_from_slice(value);
    }
}

/// An expected record, by place and content.
#[derive(Debug, Clone, Copy)]
struct Expected {
    partition: i32,
    row: u64,
    line: u64,
    hash: Hash128,
}

/// A record found, by place and content.
#[derive(Debug, Clone, Copy)]
struct Found {
    partition: i32,
    offset: i64,
    hash: Hash128,
}

impl Expected {
    fn new(record: &OutRecord<'_>) -> Self {
        Self {
            partition: record.partition,
            row: record.first_row,
            line: record.first_line,
            hash: RecordHasher::new().hash(
                KeyTerm::of(record.key),
                record.value,
                Headers::default(),
            ),
        }
    }
}

impl Found {
    fn new(record: &ConsumedRecord<'_>) -> Self {
        let value = record.value.unwrap_or_default();
        Self {
            partition: record.partition,
            offset: record.offset,
            hash: RecordHasher::new().hash(KeyTerm::of(record.key), value, Headers::default()),
        }
    }
}

impl Seen {
    /// Enters a record that is as expected.
    fn take(&mut self, record: &OutRecord<'_>, offset: i64) {
        self.first_offset.get_or_insert(offset);
        self.last_offset = Some(offset);
        self.last
            .get_or_insert_default()
            .set(record.key, record.value);
    }
}

/// The first record that is not as expected, and what comes after it on both sides.
#[derive(Debug)]
struct Mismatch {
    expected_content: Content,
    /// `None`: the partition has ended.
    found_content: Option<Content>,
    repeats_last: bool,
    /// Where key and value are as expected: what is not, what was expected, and what was found.
    beside: Option<(DifferenceKind, String, String)>,
    /// Each row of the expected record stands on one line of its own, without blank lines between them.
    single_lines: bool,
    /// The expected record, and those behind it in all partitions.
    expected: Vec<Expected>,
    /// The record found, and those behind it in its partition; behind them the next ones of the other partitions.
    found: Vec<Found>,
}

impl<'a, C: Consume> Comparison<'a, C> {
    pub(super) fn new(
        topic: &'a mut C,
        compared: &Compared<'a>,
        plan: &'a RecordPlan,
        framed: bool,
    ) -> Self {
        let count = usize::try_from(compared.partitions).unwrap_or(0).max(1);
        Self {
            topic,
            partitions: vec![Seen::default(); count],
            own: Own {
                producer_ids: compared.producer_ids,
                repeats: compared.receipt.map_or(&[], |receipt| &receipt.repeats),
                foreign: 0,
                repeated: 0,
            },
            plan,
            framed,
            same_records: 0,
            same_rows: 0,
            mismatch: None,
        }
    }

    /// Records that are as expected, before the first that is not.
    pub(super) fn same_records(&self) -> u64 {
        self.same_records
    }

    /// Rows in these.
    pub(super) fn same_rows(&self) -> u64 {
        self.same_rows
    }

    /// Records of other producers that were passed over.
    pub(super) fn foreign_records(&self) -> u64 {
        self.own.foreign
    }

    /// Records that were passed over because the load sent them again.
    pub(super) fn repeated_records(&self) -> u64 {
        self.own.repeated
    }

    /// Offsets of the first and the last record of ours in a partition.
    pub(super) fn offsets(&self, partition: i32) -> (Option<i64>, Option<i64>) {
        let seen = &self.partitions[partition.unsigned_abs() as usize];
        (seen.first_offset, seen.last_offset)
    }

    /// The first record of ours behind all that were expected.
    pub(super) fn extra(&mut self) -> Result<Option<Difference>> {
        for (partition, seen) in (0..).zip(&self.partitions) {
            let extra = |found: Option<ConsumedRecord<'_>>| {
                let found = found?;
                let content = Content::new(found.key, found.value);
                let what = if seen.last.as_ref() == Some(&content) {
                    DifferenceKind::Duplicate
                } else {
                    DifferenceKind::Extra
                };
                Some(Difference {
                    offset: Some(found.offset),
                    found: Some(quote(found.value)),
                    ..Difference::new(what, partition)
                })
            };
            let extra =
                take_own(self.topic, partition, &mut self.own, extra).map_err(unreadable)?;
            if extra.is_some() {
                return Ok(extra);
            }
        }
        Ok(None)
    }

    fn compare(&mut self, expected: &OutRecord<'_>) -> Result<(), SinkError> {
        let partition = expected.partition;
        let seen = &mut self.partitions[partition.unsigned_abs() as usize];
        let mismatch = take_own(self.topic, partition, &mut self.own, |found| match found {
            Some(found) if is_same(expected, &found) => {
                seen.take(expected, found.offset);
                None
            }
            found => Some(Mismatch::new(expected, found.as_ref(), seen.last.as_ref())),
        })?;
        let Some(mut mismatch) = mismatch else {
            self.same_records += 1;
            self.same_rows += u64::from(expected.rows);
            return Ok(());
        };
        self.look_ahead(partition, &mut mismatch.found)?;
        self.mismatch = Some(Box::new(mismatch));
        Ok(())
    }

    /// Reads what comes next in the partition of a mismatch, then in the others.
    fn look_ahead(&mut self, partition: i32, found: &mut Vec<Found>) -> Result<(), SinkError> {
        let others = (0..self.partitions()).filter(|other| *other != partition);
        for partition in std::iter::once(partition).chain(others) {
            for _ in 0..VERIFY_LOOKAHEAD {
                let next = |found: Option<ConsumedRecord<'_>>| found.as_ref().map(Found::new);
                let Some(next) = take_own(self.topic, partition, &mut self.own, next)? else {
                    break;
                };
                found.push(next);
            }
            if found.len() >= VERIFY_LOOKAHEAD_ALL {
                break;
            }
        }
        Ok(())
    }

    /// The first difference, told from what was seen around it.
    pub(super) fn difference(&mut self) -> Result<Option<Difference>> {
        let Some(mismatch) = self.mismatch.take() else {
            return Ok(None);
        };
        let what = mismatch.kind();
        let expected = mismatch.expected[0];
        let mut difference = Difference {
            offset: mismatch
                .found_content
                .as_ref()
                .map(|_| mismatch.found[0].offset),
            row: Some(expected.row),
            line: Some(expected.line),
            ..Difference::new(what, expected.partition)
        };
        match what {
            DifferenceKind::Partition => mismatch.tell_partition(&mut difference),
            DifferenceKind::Missing => {
                difference.offset = None;
                difference.expected = Some(quote(mismatch.expected_content.value.as_deref()));
            }
            DifferenceKind::Extra => {
                let found = mismatch.found_content.and_then(|content| content.value);
                difference.found = Some(quote(found.as_deref()));
            }
            DifferenceKind::Key => {
                let found = mismatch.found_content.and_then(|content| content.key);
                difference.expected = Some(quote(mismatch.expected_content.key.as_deref()));
                difference.found = Some(quote(found.as_deref()));
            }
            DifferenceKind::Value => self.tell_value(&mismatch, &mut difference),
            DifferenceKind::Headers | DifferenceKind::Timestamp => {
                if let Some((_, expected, found)) = mismatch.beside {
                    (difference.expected, difference.found) = (Some(expected), Some(found));
                }
            }
            _ => {}
        }
        Ok(Some(difference))
    }

    /// Names the field in which the values differ, and in a group the row it is in.
    fn tell_value(&self, mismatch: &Mismatch, difference: &mut Difference) {
        let value = |content: Option<&Content>| content.and_then(|content| content.value.clone());
        let expected = value(Some(&mismatch.expected_content)).unwrap_or_default();
        let Some(found) = value(mismatch.found_content.as_ref()) else {
            difference.expected = Some(quote(Some(&expected)));
            difference.found = Some(quote(None));
            return;
        };
        let Some(field) = first_difference(self.plan, self.framed, &expected, &found) else {
            difference.expected = Some(quote(Some(&expected)));
            difference.found = Some(quote(Some(&found)));
            return;
        };
        // In a group the row itself is named, where its line is known: rows before it may span several.
        if let Some(index) = field.row_in_record.filter(|_| mismatch.single_lines) {
            difference.row = difference.row.map(|row| row + index as u64);
            difference.line = difference.line.map(|line| line + index as u64);
        }
        difference.column = field
            .column
            .or(Some(field.field))
            .filter(|name| !name.is_empty());
        difference.expected = Some(field.expected);
        difference.found = Some(field.found);
    }
}

impl Mismatch {
    fn new(
        expected: &OutRecord<'_>,
        found: Option<&ConsumedRecord<'_>>,
        last: Option<&Content>,
    ) -> Self {
        let expected_content = Content::new(expected.key, Some(expected.value));
        let found_content = found.map(|found| Content::new(found.key, found.value));
        Self {
            repeats_last: found_content
                .as_ref()
                .is_some_and(|found| last == Some(found)),
            beside: found
                .filter(|_| found_content.as_ref() == Some(&expected_content))
                .map(|found| beside(expected, found)),
            expected_content,
            found_content,
            expected: vec![Expected::new(expected)],
            found: found.map(Found::new).into_iter().collect(),
            single_lines: expected.tag + 1 - expected.first_row == u64::from(expected.rows)
                && expected.end_line.saturating_sub(expected.first_line)
                    <= u64::from(expected.rows),
        }
    }

    /// Enters a record that would be sent after the mismatch. False when enough is known.
    fn take(&mut self, record: &OutRecord<'_>) -> bool {
        self.expected.push(Expected::new(record));
        let partition = self.expected[0].partition;
        let own = self
            .expected
            .iter()
            .filter(|expected| expected.partition == partition);
        self.expected.len() < VERIFY_LOOKAHEAD_ALL && own.count() <= VERIFY_LOOKAHEAD
    }

    fn kind(&self) -> DifferenceKind {
        let expected = self.expected[0];
        let in_partition = |found: &&Found| found.partition == expected.partition;
        let comes_later = self
            .found
            .iter()
            .filter(in_partition)
            .skip(1)
            .any(|found| found.hash == expected.hash);
        let found = self.found.first().filter(in_partition);
        let is_expected_later = found.is_some_and(|found| {
            self.expected[1..]
                .iter()
                .any(|later| later.partition == found.partition && later.hash == found.hash)
        });
        if let Some((what, ..)) = &self.beside {
            *what
        } else if comes_later && is_expected_later {
            DifferenceKind::Order
        } else if self.repeats_last && !is_expected_later {
            DifferenceKind::Duplicate
        } else if self.misplaced().is_some() {
            DifferenceKind::Partition
        } else if comes_later {
            DifferenceKind::Extra
        } else if is_expected_later || found.is_none() {
            DifferenceKind::Missing
        } else if self
            .found_content
            .as_ref()
            .is_some_and(|found| found.key != self.expected_content.key)
        {
            DifferenceKind::Key
        } else {
            DifferenceKind::Value
        }
    }

    /// A record that stands in another partition than expected: the expected one elsewhere, or the one found here, which is expected elsewhere.
    fn misplaced(&self) -> Option<(Expected, Found)> {
        let expected = self.expected[0];
        let elsewhere = self
            .found
            .iter()
            .find(|found| found.partition != expected.partition && found.hash == expected.hash);
        if let Some(found) = elsewhere.filter(|_| !self.is_expected_elsewhere(expected.hash)) {
            return Some((expected, *found));
        }
        let found = self
            .found
            .first()
            .filter(|found| found.partition == expected.partition)?;
        let later = self.expected[1..].iter();
        let mut elsewhere = later.filter(|later| later.partition != found.partition);
        let expected = elsewhere.find(|later| later.hash == found.hash)?;
        let is_there =
            |there: &Found| there.partition == expected.partition && there.hash == expected.hash;
        (!self.found.iter().any(is_there)).then_some((*expected, *found))
    }

    /// Whether a record of the same content is expected in another partition too, as is possible without keys.
    fn is_expected_elsewhere(&self, hash: Hash128) -> bool {
        let partition = self.expected[0].partition;
        self.expected[1..]
            .iter()
            .any(|later| later.partition != partition && later.hash == hash)
    }

    fn tell_partition(&self, difference: &mut Difference) {
        let Some((expected, found)) = self.misplaced() else {
            return;
        };
        difference.partition = Some(found.partition);
        difference.offset = Some(found.offset);
        (difference.row, difference.line) = (Some(expected.row), Some(expected.line));
        difference.expected = Some(format!("partition {}", expected.partition));
        difference.found = Some(format!("partition {}", found.partition));
    }
}

/// Gives the next record of `partition` that is ours, or `None` at its end, to `take`.
fn take_own<C: Consume, T>(
    topic: &mut C,
    partition: i32,
    own: &mut Own<'_>,
    take: impl FnOnce(Option<ConsumedRecord<'_>>) -> T,
) -> Result<T, SinkError> {
    loop {
        let found = topic.next(partition)?;
        if found.as_ref().is_none_or(|found| own.takes(found)) {
            return Ok(take(found));
        }
    }
}

fn is_same(expected: &OutRecord<'_>, found: &ConsumedRecord<'_>) -> bool {
    found.key == expected.key
        && found.value == Some(expected.value)
        && has_same_headers(expected, found)
        && has_same_timestamp(expected, found)
}

fn has_same_headers(expected: &OutRecord<'_>, found: &ConsumedRecord<'_>) -> bool {
    let is_same = |(expected, found): ((&str, &[u8]), &ConsumedHeader)| {
        found.name == expected.0 && found.value.as_deref() == Some(expected.1)
    };
    expected.headers.len() == found.headers.len()
        && expected.headers.iter().zip(found.headers).all(is_same)
}

/// What differs of two records with the same key and value.
fn beside(
    expected: &OutRecord<'_>,
    found: &ConsumedRecord<'_>,
) -> (DifferenceKind, String, String) {
    if has_same_headers(expected, found) {
        let told =
            |timestamp: Option<i64>| timestamp.map_or("none".into(), |time| time.to_string());
        return (
            DifferenceKind::Timestamp,
            told(expected.timestamp),
            told(found.timestamp),
        );
    }
    let ours = expected.headers.iter();
    let theirs = found.headers.iter();
    (
        DifferenceKind::Headers,
        told_headers(ours.map(|(name, value)| (name, Some(value)))),
        told_headers(theirs.map(|header| (header.name.as_str(), header.value.as_deref()))),
    )
}

/// Only a timestamp that comes from the input is known, and only one that the broker has not replaced can be told.
fn has_same_timestamp(expected: &OutRecord<'_>, found: &ConsumedRecord<'_>) -> bool {
    match (expected.timestamp, found.timestamp) {
        (Some(expected), Some(found)) => expected == found,
        _ => true,
    }
}

/// Headers for people, as names and values.
fn told_headers<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> String {
    let told: Vec<String> = headers
        .map(|(name, value)| format!("{name}={}", quote(value)))
        .collect();
    if told.is_empty() {
        return "none".to_owned();
    }
    told.join(", ")
}

impl<C: Consume> Produce for Comparison<'_, C> {
    fn partitions(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        match &mut self.mismatch {
            None => self.compare(&record)?,
            Some(mismatch) => {
                if !mismatch.take(&record) {
                    let message = "the topic differs from the input";
                    return Err(Box::new(Error::new(ErrorKind::Sink, message)));
                }
            }
        }
        let seen = &mut self.partitions[record.partition.unsigned_abs() as usize];
        if seen.open == 0 {
            seen.first_tag = record.tag;
        }
        seen.open += 1;
        seen.last_tag = record.tag;
        Ok(())
    }

    fn poll(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.flush(settled)
    }

    fn wait(&mut self, _timeout: Duration, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.flush(settled)
    }

    fn seal(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Markers and records of others may stand between ours, so a run of records has no base offset.
    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        for (partition, seen) in (0..).zip(&mut self.partitions) {
            if seen.open > 0 {
                settled.push(Settled {
                    partition,
                    records: std::mem::take(&mut seen.open),
                    base_offset: None,
                    first_tag: seen.first_tag,
                    last_tag: seen.last_tag,
                    outcome: Ok(()),
                });
            }
        }
        Ok(())
    }
}
