//! Verify: read the topic back and compare it, record by record, with what the input says.
//!
//! It is the path of [`publish`](mod@crate::publish) with another sink: a comparison takes each record that would be sent, reads the next one of that
//! partition from the topic, and compares key, value and headers byte by byte. So what is checked is by construction what publishing would do.
//!
//! At the first record that is not as expected it looks a little further on both sides, to tell a changed record from one that is missing,
//! too many, doubled, out of order or in another partition.

use crate::clock::Clock;
use crate::event::Event;
use crate::position::{FinishedInput, LoadPosition};
use crate::produce::{Consume, SinkError};
use crate::publish::{Outcome, PublishOptions, publish};
use crate::read::Source;
use crate::receipt::{Receipt, Status};
use crate::{Error, ErrorKind, Result};

use comparison::Comparison;

pub use difference::{Difference, DifferenceKind};

mod comparison;
mod difference;

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyStatus {
    /// The topic holds exactly the records of the input.
    Same,
    /// It does not.
    Differs,
    /// Records that are needed for the comparison are gone, or it was interrupted.
    CannotVerify,
}

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
    /// Records that were passed over because the load sent them again, as one that is delivered at least once may.
    pub repeated_records: u64,
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
    /// The load's receipt, if there is one: its counts, offsets and digests must agree too.
    pub receipt: Option<&'a Receipt>,
}

/// Compares the records of `sources`, one behind the other, with those that `topic` gives.
///
/// # Errors
/// [`ErrorKind::InputChanged`] when the input is not the one that the receipt speaks of; a bad row that the options do not allow;
/// [`ErrorKind::Consume`] when the topic cannot be read.
pub fn verify<S: Source, C: Consume>(
    sources: &[S],
    options: &PublishOptions<'_>,
    compared: &Compared<'_>,
    topic: &mut C,
    clock: &dyn Clock,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<VerifyReport> {
    if let Some(reason) = gone(compared, topic)? {
        return Ok(VerifyReport {
            status: VerifyStatus::CannotVerify,
            records: 0,
            rows: 0,
            first_difference: None,
            foreign_records: 0,
            repeated_records: 0,
            reason: Some(reason),
        });
    }
    let framed = options.schema_ids.value.is_some();
    let mut sink = Comparison::new(topic, compared, options.plan, framed);
    let start = LoadPosition::start();
    let mut outcome = publish(sources, &start, options, None, &mut sink, clock, events)?;

    let mut difference = sink.difference()?;
    if difference.is_none() {
        if let Some(error) = outcome.error.take() {
            return Err(error);
        }
        if outcome.status == Status::Complete {
            check_sources(&outcome, compared)?;
            difference = sink.extra()?;
        }
    }
    if let (None, Some(receipt), Status::Complete) = (&difference, compared.receipt, outcome.status)
    {
        difference = against_receipt(&outcome, &sink, receipt);
    }
    if let Some(difference) = &mut difference
        && sources.len() > 1
    {
        difference.file = difference
            .row
            .and_then(|row| source_of(row, &outcome, sources));
    }
    let interrupted = difference.is_none() && outcome.status == Status::Interrupted;
    Ok(VerifyReport {
        status: match &difference {
            Some(_) => VerifyStatus::Differs,
            None if interrupted => VerifyStatus::CannotVerify,
            None => VerifyStatus::Same,
        },
        records: sink.same_records(),
        rows: sink.same_rows(),
        first_difference: difference,
        foreign_records: sink.foreign_records(),
        repeated_records: sink.repeated_records(),
        reason: interrupted.then(|| "the comparison was interrupted".to_owned()),
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

/// The name of the input that a row stands in.
fn source_of<S: Source>(row: u64, outcome: &Outcome, sources: &[S]) -> Option<String> {
    let mut last_row = 0;
    let ends_before = |input: &&FinishedInput| {
        last_row += input.rows;
        last_row < row
    };
    let index = outcome.finished.iter().take_while(ends_before).count();
    sources.get(index)?.name()
}

/// The inputs must be those of the receipt.
fn check_sources(outcome: &Outcome, compared: &Compared<'_>) -> Result<()> {
    let Some(receipt) = compared.receipt else {
        return Ok(());
    };
    // The receipt of a load that did not complete knows the beginning of its inputs only.
    if receipt.status != Status::Complete || receipt.sources.is_empty() {
        return Ok(());
    }
    let (known, found) = (&receipt.sources, outcome.sources().collect::<Vec<_>>());
    if known.len() != found.len() {
        let message = format!(
            "{} inputs were loaded, and {} are there to compare with",
            known.len(),
            found.len()
        );
        return Err(Error::new(ErrorKind::InputChanged, message));
    }
    let mut pairs = known.iter().zip(&found);
    match pairs.find(|(known, found)| !known.matches(found)) {
        None => Ok(()),
        Some((changed, _)) => {
            let message = format!(
                "{} is not the input that was loaded: its content has changed",
                changed.path
            );
            Err(Error::new(ErrorKind::InputChanged, message))
        }
    }
}

/// Holds what was found, and is as the input says, against what the receipt says.
fn against_receipt<C: Consume>(
    outcome: &Outcome,
    sink: &Comparison<'_, C>,
    receipt: &Receipt,
) -> Option<Difference> {
    let (expected, found) = (receipt.rows.rejected, outcome.rows.rejected);
    if found != expected {
        let expected = format!("{expected} rows rejected");
        return Some(Difference::of_receipt(None, expected, found.to_string()));
    }
    for (found, expected) in outcome.partitions.iter().zip(&receipt.partitions) {
        let partition = found.partition;
        let (first, last) = sink.offsets(partition);
        let said = [
            (
                Some(expected.records.to_string()),
                Some(found.records.to_string()),
                "records",
            ),
            (
                expected.first_offset.map(|offset| offset.to_string()),
                first.map(|offset| offset.to_string()),
                "as first offset",
            ),
            (
                expected.last_offset.map(|offset| offset.to_string()),
                last.map(|offset| offset.to_string()),
                "as last offset",
            ),
            (
                expected.digest.map(|digest| digest.to_string()),
                found.digest.map(|digest| digest.to_string()),
                "as digest",
            ),
        ];
        for (expected, found, what) in said {
            // What the receipt does not know it cannot contradict.
            if let Some(expected) = expected.filter(|expected| Some(expected) != found.as_ref()) {
                let found = found.unwrap_or_else(|| "none".to_owned());
                return Some(Difference::of_receipt(
                    Some(partition),
                    format!("{expected} {what}"),
                    found,
                ));
            }
        }
    }
    None
}

pub(crate) fn unreadable(error: SinkError) -> Error {
    let message = format!("the topic cannot be read back: {error}");
    Error::new(ErrorKind::Consume, message).with_source(error)
}
