//! Publish: a load as a loop of attempts, each built from a position.
//!
//! An attempt opens the input at a [`LoadPosition`] and follows the path of a row, which `publish::attempt` shows in one place, until the input ends,
//! the load is interrupted, or an error ends it. A sink that was rolled back starts another attempt from the last stored position; a load that is
//! resumed starts its first one there. Reader, groups, ledger, digests, rejects and pacing are all built from the position, so these are one
//! code path.
//!
//! What the sink is makes the mode: a topic publishes, a [`Counter`] is a dry run, a comparison verifies. There is no second copy of the path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::balance::HoldOptions;
use crate::clock::Clock;
use crate::digest::PrefixDigest;
use crate::encode::SchemaIds;
use crate::event::Event;
use crate::job::JobPosition;
use crate::limits::{
    COMMIT_BYTES, COMMIT_GROWTH, COMMIT_INTERVAL, COMMIT_LONGEST_INTERVAL, COMMIT_SHARE,
    MAX_REPLAYS, REPLAY_LONGEST_PAUSE, REPLAY_PAUSE,
};
use crate::position::{FinishedInput, LoadPosition, PartitionPosition};
use crate::produce::{Committed, Produce, RolledBack, SinkError};
use crate::read::{CsvFormat, ReadCounts, Source};
use crate::receipt::{PartitionReceipt, RecordCounts, RowCounts, Status};
use crate::rejects::{RejectGroup, RejectSummary, RejectsOptions};
use crate::schema::RecordPlan;
use crate::seen::ReturnedGroups;
use crate::{Error, ErrorKind, Result};

use attempt::{Attempt, Counts, End};
use beforehand::seen_groups;
use inputs::Inputs;

pub use counter::Counter;
pub use inputs::has_more;

mod attempt;
mod beforehand;
mod counter;
mod inputs;
mod pace;

/// What a load is told.
#[derive(Debug)]
pub struct PublishOptions<'a> {
    /// How the input is written.
    pub csv: &'a CsvFormat,
    /// How rows become records.
    pub plan: &'a RecordPlan,
    /// The ids of the schemas.
    pub schema_ids: SchemaIds,
    /// What to do with bad rows.
    pub rejects: &'a RejectsOptions,
    /// When to commit, where the sink is transactional.
    pub commits: CommitCadence,
    /// Whether an unterminated last row, and with groups the last group, are left for a later load, when the input may have grown. The load is
    /// complete all the same, and what it tells is of what stands before them.
    pub hold_last: bool,
    /// Set by whoever wants the load to stop early, and in order.
    pub interrupt: &'a AtomicBool,
}

/// When a load commits: as soon as either bound is reached, at the end of a record. Time and bytes count from the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitCadence {
    /// Time between two commits.
    pub interval: Duration,
    /// Where commits take more than one part in [`COMMIT_SHARE`] of the time (to thousands of partitions, say), the
    /// interval grows, up to this. The same as `interval`: it never does.
    pub longest_interval: Duration,
    /// Bytes of the input between two commits.
    pub bytes: u64,
}

impl Default for CommitCadence {
    fn default() -> Self {
        Self {
            interval: COMMIT_INTERVAL,
            longest_interval: COMMIT_LONGEST_INTERVAL,
            bytes: COMMIT_BYTES,
        }
    }
}

impl CommitCadence {
    /// How long to wait with the next commit behind one that took so long, and for which it was waited for `before`.
    fn interval_after(&self, before: Duration, took: Duration) -> Duration {
        // One slow commit alone says little.
        let longest = self.longest_interval.min(before * COMMIT_GROWTH);
        let wanted = took * (COMMIT_SHARE - 1);
        wanted.clamp(self.interval, longest.max(self.interval))
    }
}

/// A group that the load must not run ahead of.
pub struct HoldOn<'a> {
    /// How far it may.
    pub options: HoldOptions,
    /// What the group has committed.
    pub committed: &'a mut dyn Committed,
}

impl std::fmt::Debug for HoldOn<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("HoldOn")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What came of a load. All counts are of the whole load, with what stood in the position it began at.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What ended it, if it failed.
    pub error: Option<Error>,
    /// Rows by outcome. A row that stopped the load is not counted as read.
    pub rows: RowCounts,
    /// Records by outcome.
    pub records: RecordCounts,
    /// What is in each partition.
    pub partitions: Vec<PartitionReceipt>,
    /// The inputs that were read to their ends and have others behind them, in order.
    pub finished: Vec<FinishedInput>,
    /// Length and digest of the input behind these up to `position`; without one, of what was read of it.
    pub source: PrefixDigest,
    /// What was passed over or evened out.
    pub read_counts: ReadCounts,
    /// Bytes of the rejects file.
    pub rejects_length: u64,
    /// What this run has rejected, by kind and column, the most frequent first.
    pub rejects: Vec<RejectGroup>,
    /// Groups that came again in this run, where rows are grouped.
    pub returned_groups: Option<ReturnedGroups>,
    /// Producer ids of the records.
    pub producer_ids: Vec<i64>,
    /// Where a later load goes on: of a transactional sink what was committed last; else `None` after a failure, which may have left records of
    /// unknown fate.
    pub position: Option<LoadPosition>,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// How long it took, by the monotonic clock.
    pub seconds: f64,
}

impl Outcome {
    /// Length and digest of each input that was begun, in order.
    pub fn sources(&self) -> impl Iterator<Item = PrefixDigest> {
        let finished = self.finished.iter().map(|input| input.digest);
        finished.chain([self.source])
    }

    /// What a job has come to at its position, over all its runs: the outcome of a load that had ended there.
    #[must_use]
    pub fn of(job: &JobPosition) -> Self {
        let (load, counts) = (&job.load, Counts::of(&job.load));
        Self {
            status: if job.is_complete {
                Status::Complete
            } else {
                Status::Interrupted
            },
            error: None,
            rows: counts.rows,
            records: counts.records,
            partitions: counts.partitions.iter().map(receipt).collect(),
            finished: load.finished.clone(),
            source: load.prefix,
            read_counts: counts.read_counts,
            rejects_length: load.rejects.length,
            rejects: Vec::new(),
            returned_groups: None,
            producer_ids: job.producer_ids.clone(),
            position: Some(load.clone()),
            started_at: job.started_at,
            finished_at: job.written_at,
            seconds: job.seconds,
        }
    }

    /// Whether the end of the input was left for a later load.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let position = self.position.as_ref();
        position.is_some_and(|position| position.end.is_held)
    }
}

/// Runs a load of `sources`, in this order, from `position` to its end. An earlier load, which `position` is of, may have had fewer of them.
///
/// A load that was begun always has an [`Outcome`], also when it failed: what is in the topic must be known.
///
/// # Errors
/// What kept it from beginning: an input that cannot be opened or has changed, a rejects file that cannot be written; [`ErrorKind::Interrupted`].
pub fn publish<S: Source, P: Produce>(
    sources: &[S],
    position: &LoadPosition,
    options: &PublishOptions<'_>,
    mut hold: Option<HoldOn<'_>>,
    sink: &mut P,
    clock: &dyn Clock,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let (started, started_at) = (clock.monotonic(), clock.unix_millis());
    let mut start = position.clone();
    let (mut replays, mut has_begun) = (0, false);
    let mut rejects = RejectSummary::default();
    let mut seen = {
        let mut told = rereading(&mut *events, Some(options.interrupt));
        seen_groups(sources, position, options, &mut told)?
    };
    loop {
        // Once begun it ends in order, with an outcome.
        let interrupt = (!has_begun).then_some(options.interrupt);
        let mut inputs = {
            let mut told = rereading(&mut *events, interrupt);
            Inputs::open(sources, &start, options, seen.take(), &mut told)?
        };
        has_begun = true;
        let mut attempt = Attempt::new(&start, options, hold.as_mut(), &mut *sink, clock, events)?;
        attempt.rejects.sum_up_behind(std::mem::take(&mut rejects));
        let mut end = attempt.run(&mut inputs);
        seen = inputs.stream.forget();
        if let Some(reason) = rolled_back(&end) {
            let committed = attempt.committed_position();
            match committed.map(|committed| committed.unwrap_or_else(|| position.clone())) {
                Ok(committed) if committed.input.row > start.input.row || replays < MAX_REPLAYS => {
                    rejects = attempt.take_summary();
                    let has_progress = committed.input.row > start.input.row;
                    replays = if has_progress { 0 } else { replays + 1 };
                    events(Event::Replaying {
                        after_row: committed.input.row,
                        reason: &reason,
                    });
                    clock.sleep(pause_before(replays));
                    start = committed;
                    continue;
                }
                Ok(_) => {}
                Err(error) => end.error = Some(error),
            }
        }
        let position = attempt.position(&end);
        let rejects = attempt.take_summary().into_groups();
        let counts = attempt.counts(&inputs.stream, &end);
        let (finished, source) = match &position {
            Some(position) => (position.finished.clone(), position.prefix),
            None => (
                attempt.into_finished(),
                inputs.stream.digest().unwrap_or_default(),
            ),
        };
        return Ok(Outcome {
            status: end.status(),
            error: end.error.take(),
            rows: counts.rows,
            records: counts.records,
            partitions: counts.partitions.iter().map(receipt).collect(),
            finished,
            source,
            read_counts: counts.read_counts,
            rejects_length: counts.rejects.length,
            rejects,
            returned_groups: seen.map(|seen| seen.into_returned()),
            producer_ids: sink.producer_ids(),
            position,
            started_at,
            finished_at: clock.unix_millis(),
            seconds: clock.monotonic().saturating_sub(started).as_secs_f64(),
        });
    }
}

/// Tells of what is read again, and ends that when an interrupt comes.
fn rereading<'a>(
    events: &'a mut dyn FnMut(Event<'_>),
    interrupt: Option<&'a AtomicBool>,
) -> impl FnMut(u64) -> Result<()> + 'a {
    let mut reread = 0;
    move |bytes| {
        reread += bytes;
        events(Event::Rereading { bytes: reread });
        if interrupt.is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
            let message = "interrupted while what was loaded before was read again";
            return Err(Error::new(ErrorKind::Interrupted, message));
        }
        Ok(())
    }
}

/// How long to wait before a replay that is the `replays`th in a row without progress.
fn pause_before(replays: u32) -> Duration {
    let Some(doubled) = replays.checked_sub(2) else {
        return Duration::ZERO;
    };
    (REPLAY_PAUSE * 2_u32.saturating_pow(doubled.min(16))).min(REPLAY_LONGEST_PAUSE)
}

/// Why the sink was rolled back, if that is what ended an attempt.
fn rolled_back(end: &End) -> Option<String> {
    let cause = std::error::Error::source(end.error.as_ref()?)?;
    cause.downcast_ref::<RolledBack>().map(ToString::to_string)
}

fn receipt((state, whole): &(PartitionPosition, bool)) -> PartitionReceipt {
    PartitionReceipt {
        partition: state.partition,
        first_offset: state.first_offset,
        last_offset: state.last_offset,
        records: state.records,
        rows: state.rows,
        digest: whole.then_some(state.digest.value),
    }
}

/// The error of a sink that failed.
fn sink_failed(error: SinkError) -> Error {
    // A comparison fails with an error of this crate, which says all there is to say.
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(error) => Error::sink(error.to_string(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_rollbacks_in_a_row() {
        let pauses: Vec<u128> = (0..=MAX_REPLAYS)
            .map(|replays| pause_before(replays).as_millis())
            .collect();
        let longest = [2_000; 5];
        assert_eq!(pauses[..6], [0, 0, 200, 400, 800, 1_600]);
        assert_eq!(pauses[6..], longest);
        assert_eq!(pause_before(u32::MAX), REPLAY_LONGEST_PAUSE);
    }

    #[test]
    fn commits_that_take_long_come_less_often() {
        let cadence = CommitCadence::default();
        let after = |before, took| {
            let [before, took] = [before, took].map(Duration::from_millis);
            cadence.interval_after(before, took).as_millis()
        };
        assert_eq!(
            (after(500, 1), after(500, 20), after(500, 30)),
            (500, 980, 1_470)
        );
        assert_eq!((after(500, 100), after(2_000, 100)), (2_000, 4_900));
        assert_eq!((after(8_000, 60_000), after(10_000, 1)), (10_000, 500));
        let fixed = CommitCadence {
            longest_interval: cadence.interval,
            ..cadence
        };
        assert_eq!(
            fixed.interval_after(cadence.interval, Duration::from_secs(60)),
            cadence.interval
        );
    }
}
