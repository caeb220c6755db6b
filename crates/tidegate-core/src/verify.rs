//! Verify: read the topic back and compare it, record by record, with what the input says.
//!
//! It is the path of [`publish`](mod@crate::publish) with another sink: a comparison takes each record that would be sent, reads the next one of that
//! partition from the topic, and compares key and value byte by byte. So what is checked is by construction what publishing would do.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::decode::first_difference;
use crate::event::Event;
use crate::limits::DIFFERENCE_BYTES;
use crate::position::LoadPosition;
use crate::produce::{Consume, OutRecord, Produce, Settled, SinkError};
use crate::publish::{Outcome, PublishOptions, Source, publish};
use crate::receipt::{Receipt, Status};
use crate::schema::RecordPlan;
use crate::{Error, ErrorKind, Result};

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyStatus {
    /// The topic holds exactly the records of the input.
    Same,
    /// It does not.
    Differs,
    /// Records that are needed for the comparison are gone.
    CannotVerify,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The partition ends before this record.
    Missing,
    /// The topic has a record that the input does not.
    Extra,
    /// The record before it stands there once more.
    Duplicate,
    /// Another key.
    Key,
    /// Another value.
    Value,
    /// The records compared are right, but the receipt says otherwise.
    Receipt,
}

/// The first place where topic and input differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What is wrong.
    pub what: DifferenceKind,
    /// The partition.
    pub partition: i32,
    /// The offset of the record in the topic; null where there is none.
    pub offset: Option<i64>,
    /// Physical line on which the expected record's first row starts; null where none is expected.
    pub line: Option<u64>,
    /// The expected record's first row.
    pub row: Option<u64>,
    /// The field that differs, if it is one.
    pub column: Option<String>,
    /// What the input says.
    pub expected: Option<String>,
    /// What the topic says.
    pub found: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "partition {}", self.partition)?;
        if let Some(offset) = self.offset {
            write!(formatter, ", offset {offset}")?;
        }
        if let (Some(line), Some(row)) = (self.line, self.row) {
            write!(formatter, ", line {line} (row {row})")?;
        }
        match self.what {
            DifferenceKind::Missing => formatter.write_str(": the record is missing")?,
            DifferenceKind::Extra => formatter.write_str(": the input has no such record")?,
            DifferenceKind::Duplicate => {
                formatter.write_str(": the record before it stands here once more")?;
            }
            DifferenceKind::Key => formatter.write_str(": another key")?,
            DifferenceKind::Value => match &self.column {
                Some(column) => write!(formatter, ", column {column}: another value")?,
                None => formatter.write_str(": another value")?,
            },
            DifferenceKind::Receipt => formatter.write_str(": the receipt says otherwise")?,
        }
        if let (Some(expected), Some(found)) = (&self.expected, &self.found) {
            write!(formatter, ": expected {expected}, found {found}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Difference {}

/// The result of a comparison.
#[derive(Debug)]
pub struct VerifyReport {
    /// What it came to.
    pub status: VerifyStatus,
    /// Records that were compared and are the same.
    pub records: u64,
    /// Rows in these.
    pub rows: u64,
    /// Where they differ first.
    pub first_difference: Option<Difference>,
    /// Records of other producers that were passed over.
    pub foreign_records: u64,
    /// Why it cannot be verified.
    pub reason: Option<String>,
}

/// What is compared, beside the input.
#[derive(Debug)]
pub struct Compared<'a> {
    /// How many partitions the topic has.
    pub partitions: i32,
    /// Producer ids whose records count; `None`: all.
    pub producer_ids: Option<&'a [i64]>,
    /// The load's receipt, if there is one: its counts and digests must agree too.
    pub receipt: Option<&'a Receipt>,
}

/// Compares the records of `source` with those that `topic` gives.
///
/// # Errors
/// [`ErrorKind::InputChanged`] when the input is not the one that the receipt speaks of; a bad row that the options do not allow;
/// [`ErrorKind::Consume`] when the topic cannot be read.
pub fn verify<S: Source, C: Consume>(
    source: &S,
    options: &PublishOptions<'_>,
    compared: &Compared<'_>,
    topic: &mut C,
    clock: &dyn Clock,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<VerifyReport> {
    if let Some(reason) = gone(compared, topic)? {
        let status = VerifyStatus::CannotVerify;
        let report = VerifyReport {
            status,
            records: 0,
            rows: 0,
            first_difference: None,
            foreign_records: 0,
            reason: Some(reason),
        };
        return Ok(report);
    }
    let framed = options.schema_id.is_some();
    let mut sink = Comparison::new(topic, compared, options.plan, framed);
    let outcome = publish(
        source,
        &LoadPosition::start(),
        options,
        None,
        &mut sink,
        clock,
        events,
    )?;
    let difference = match sink.difference.take() {
        Some(difference) => Some(difference),
        None => {
            let outcome = checked(&outcome, compared)?;
            match sink.extra()? {
                Some(extra) => Some(extra),
                None => compared
                    .receipt
                    .and_then(|receipt| against_receipt(outcome, receipt)),
            }
        }
    };
    Ok(VerifyReport {
        status: if difference.is_some() {
            VerifyStatus::Differs
        } else {
            VerifyStatus::Same
        },
        records: outcome.records.delivered,
        rows: outcome.rows.accepted - outcome.rows.failed,
        first_difference: difference,
        foreign_records: sink.foreign_records,
        reason: None,
    })
}

/// Why the records cannot all be there any more.
fn gone<C: Consume>(compared: &Compared<'_>, topic: &mut C) -> Result<Option<String>> {
    let Some(receipt) = compared.receipt else {
        return Ok(None);
    };
    for partition in &receipt.partitions {
        let start = topic.log_start(partition.partition).map_err(unreadable)?;
        if let (Some(first), Some(start)) = (partition.first_offset, start)
            && start > first
        {
            let number = partition.partition;
            let reason = format!(
                "partition {number} begins at offset {start}, the load at {first}: records were deleted"
            );
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// The comparison must have seen the whole input, and the input of the receipt.
fn checked<'a>(outcome: &'a Outcome, compared: &Compared<'_>) -> Result<&'a Outcome> {
    if let Some(error) = &outcome.error {
        let copy = Error::new(error.kind(), error.message().to_owned());
        return Err(match error.position() {
            Some(position) => copy.at(position.clone()),
            None => copy,
        });
    }
    if let Some(source) = compared.receipt.and_then(|receipt| receipt.sources.first())
        && outcome.status == Status::Complete
        && !source.matches(&outcome.source)
    {
        let message = format!(
            "{} is not the input that was loaded: its content has changed",
            source.path
        );
        return Err(Error::new(ErrorKind::InputChanged, message));
    }
    Ok(outcome)
}

fn against_receipt(outcome: &Outcome, receipt: &Receipt) -> Option<Difference> {
    let say = |partition, expected: String, found: String| Difference {
        what: DifferenceKind::Receipt,
        partition,
        offset: None,
        line: None,
        row: None,
        column: None,
        expected: Some(expected),
        found: Some(found),
    };
    if outcome.rows.rejected != receipt.rows.rejected {
        let (expected, found) = (receipt.rows.rejected, outcome.rows.rejected);
        return Some(say(
            -1,
            format!("{expected} rows rejected"),
            format!("{found}"),
        ));
    }
    for (found, expected) in outcome.partitions.iter().zip(&receipt.partitions) {
        if found.records != expected.records {
            let number = found.partition;
            return Some(say(
                number,
                format!("{} records", expected.records),
                format!("{}", found.records),
            ));
        }
        if let (Some(found_digest), Some(expected_digest)) = (found.digest, expected.digest)
            && found_digest != expected_digest
        {
            let number = found.partition;
            return Some(say(
                number,
                format!("digest {expected_digest:?}"),
                format!("{found_digest:?}"),
            ));
        }
    }
    None
}

fn unreadable(error: SinkError) -> Error {
    Error::new(
        ErrorKind::Consume,
        format!("the topic cannot be read back: {error}"),
    )
    .with_source(error)
}

/// A sink that compares instead of sending.
struct Comparison<'a, C> {
    topic: &'a mut C,
    partitions: Vec<Seen>,
    producer_ids: Option<&'a [i64]>,
    plan: &'a RecordPlan,
    framed: bool,
    foreign_records: u64,
    difference: Option<Difference>,
}

/// What was compared in one partition since the last settlement, and its last record.
#[derive(Debug, Default, Clone)]
struct Seen {
    records: u32,
    base_offset: i64,
    first_tag: u64,
    last_tag: u64,
    last_offset: i64,
    last_key: Option<Vec<u8>>,
    last_value: Vec<u8>,
}

impl<'a, C: Consume> Comparison<'a, C> {
    fn new(topic: &'a mut C, compared: &Compared<'a>, plan: &'a RecordPlan, framed: bool) -> Self {
        let count = usize::try_from(compared.partitions).unwrap_or(0).max(1);
        Self {
            topic,
            partitions: vec![Seen::default(); count],
            producer_ids: compared.producer_ids,
            plan,
            framed,
            foreign_records: 0,
            difference: None,
        }
    }

    /// The first record of ours behind all that were expected.
    fn extra(&mut self) -> Result<Option<Difference>> {
        for partition in 0..Produce::partitions(self) {
            while let Some(found) = self.topic.next(partition).map_err(unreadable)? {
                if self
                    .producer_ids
                    .is_some_and(|ids| !ids.contains(&found.producer_id))
                {
                    self.foreign_records += 1;
                    continue;
                }
                let seen = &self.partitions[partition.unsigned_abs() as usize];
                let again = found.value == Some(&seen.last_value[..])
                    && found.key == seen.last_key.as_deref();
                return Ok(Some(Difference {
                    what: if again {
                        DifferenceKind::Duplicate
                    } else {
                        DifferenceKind::Extra
                    },
                    partition,
                    offset: Some(found.offset),
                    line: None,
                    row: None,
                    column: None,
                    expected: None,
                    found: Some(quote(found.value)),
                }));
            }
        }
        Ok(None)
    }

    fn compare(&mut self, expected: &OutRecord<'_>) -> Result<(), SinkError> {
        let partition = expected.partition;
        let seen = &mut self.partitions[partition.unsigned_abs() as usize];
        let place = |what, offset| Difference {
            what,
            partition,
            offset,
            line: Some(expected.first_line),
            row: Some(expected.first_row),
            column: None,
            expected: None,
            found: None,
        };
        loop {
            let Some(found) = self.topic.next(partition)? else {
                self.difference = Some(place(DifferenceKind::Missing, None));
                break;
            };
            if self
                .producer_ids
                .is_some_and(|ids| !ids.contains(&found.producer_id))
            {
                self.foreign_records += 1;
                continue;
            }
            let (same_key, same_value) = (
                found.key == expected.key,
                found.value == Some(expected.value),
            );
            if same_key && same_value {
                seen.take(expected, found.offset);
                return Ok(());
            }
            let again =
                found.value == Some(&seen.last_value[..]) && found.key == seen.last_key.as_deref();
            let mut difference = place(DifferenceKind::Value, Some(found.offset));
            if again && !seen.last_value.is_empty() {
                difference.what = DifferenceKind::Duplicate;
            } else if !same_key {
                difference.what = DifferenceKind::Key;
                (difference.expected, difference.found) =
                    (Some(quote(expected.key)), Some(quote(found.key)));
            } else {
                let field = first_difference(
                    self.plan,
                    self.framed,
                    expected.value,
                    found.value.unwrap_or_default(),
                );
                if let Some(field) = field {
                    difference.column = Some(field.column.unwrap_or(field.field));
                    (difference.expected, difference.found) =
                        (Some(field.expected), Some(field.found));
                }
            }
            self.difference = Some(difference);
            break;
        }
        Err(Box::new(Error::new(
            ErrorKind::Consume,
            "the topic differs from the input",
        )))
    }
}

impl Seen {
    fn take(&mut self, record: &OutRecord<'_>, offset: i64) {
        if self.records == 0 {
            (self.base_offset, self.first_tag) = (offset, record.tag);
        }
        self.records += 1;
        (self.last_tag, self.last_offset) = (record.tag, offset);
        self.last_value.clear();
        self.last_value.extend_from_slice(record.value);
        match (record.key, &mut self.last_key) {
            (Some(key), Some(last)) => {
                last.clear();
                last.extend_from_slice(key);
            }
            (key, last) => *last = key.map(<[u8]>::to_vec),
        }
    }
}

impl<C: Consume> Produce for Comparison<'_, C> {
    fn partitions(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        self.compare(&record)
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

    /// Foreign records and markers may stand between ours, so the offsets of a run are known only at its ends: they are no matter here.
    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        for (partition, seen) in (0..).zip(&mut self.partitions) {
            if seen.records > 0 {
                settled.push(Settled {
                    partition,
                    records: seen.records,
                    base_offset: None,
                    first_tag: seen.first_tag,
                    last_tag: seen.last_tag,
                    outcome: Ok(()),
                });
                seen.records = 0;
            }
        }
        Ok(())
    }
}

/// Bytes as a person can read them, cut where they get long.
fn quote(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else {
        return "null".to_owned();
    };
    let shown = &bytes[..bytes.len().min(DIFFERENCE_BYTES)];
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}
