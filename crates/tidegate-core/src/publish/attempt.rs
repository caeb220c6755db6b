//! One attempt: the path of a row, from the stream of records to the books.
//!
//! ```text
//! stream.next() -> partition -> sink.append -> settle -> ledger -> receipt
//!       \-> rejects        \-> digest        hold (once a record is there, see `pace`)
//! ```

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::balance::Hold;
use crate::clock::Clock;
use crate::digest::{KeyTerm, RecordHasher};
use crate::event::Event;
use crate::ledger::Ledger;
use crate::limits;
use crate::partition::Partitioner;
use crate::position::{FinishedInput, LoadPosition, PartitionPosition, RejectsPosition};
use crate::produce::{OutRecord, Produce, Settled, UnknownOffset};
use crate::publish::inputs::Inputs;
use crate::publish::{CommitCadence, HoldOn, PublishOptions, sink_failed};
use crate::read::{BadRow, BadRowKind, Place, ReadCounts, Source};
use crate::receipt::{RecordCounts, RowCounts, Status};
use crate::records::{EncodedRecord, Given, RecordStream, Step};
use crate::rejects::{self, RejectSummary, Rejects};
use crate::{Error, ErrorKind, Result};

/// Everything that a record meets after it was encoded.
pub(super) struct Attempt<'a, 'h, P> {
    pub(super) sink: &'a mut P,
    pub(super) clock: &'a dyn Clock,
    pub(super) events: &'a mut dyn FnMut(Event<'_>),
    pub(super) interrupt: &'a AtomicBool,
    partitioner: Partitioner,
    partitions: i32,
    last_key: LastKey,
    hasher: RecordHasher,
    pub(super) ledger: Ledger,
    pub(super) rejects: Rejects,
    pub(super) hold: Option<(Hold, &'a mut HoldOn<'h>)>,
    pub(super) settled: Vec<Settled>,
    /// Rows worked off, in a record or rejected, over the whole load.
    pub(super) rows: u64,
    /// Bytes of all inputs up to the end of the last record that was appended.
    pub(super) bytes: u64,
    /// The inputs that were read to their ends, and the bytes of these.
    finished: Vec<FinishedInput>,
    bytes_before: u64,
    read_counts: ReadCounts,
    /// Where the load stopped, if the stream has gone on from there by a record that was not sent.
    stopped_at: Option<Place>,
    pub(super) started: Duration,
    pub(super) reported: Duration,
    pub(super) skew_judged: bool,
    /// The rejects at the last place where everything given was worked off.
    rejects_between: RejectsPosition,
    /// Of a sink that keeps positions: what was committed last. In a transactional one everything behind it may still be undone.
    commits: Option<Commits>,
}

/// How far the commits of an attempt are.
struct Commits {
    last: LoadPosition,
    at: Duration,
    cadence: CommitCadence,
    /// How long to wait with the next one.
    interval: Duration,
    /// After how many bytes of all inputs the clock is looked at next.
    look_at: u64,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct End {
    interrupted: bool,
    pub(super) error: Option<Error>,
    /// Where all that was given of the stream is worked off; `None` inside a group.
    place: Option<Place>,
}

impl End {
    pub(super) fn status(&self) -> Status {
        match (&self.error, self.interrupted) {
            (Some(error), _) if error.kind() == ErrorKind::Interrupted => Status::Interrupted,
            (Some(_), _) => Status::Failed,
            (None, true) => Status::Interrupted,
            (None, false) => Status::Complete,
        }
    }
}

/// The sums of an attempt, with those of the position it began at.
pub(super) struct Counts {
    pub(super) rows: RowCounts,
    pub(super) records: RecordCounts,
    pub(super) partitions: Vec<(PartitionPosition, bool)>,
    pub(super) rejects: RejectsPosition,
    pub(super) read_counts: ReadCounts,
}

/// What depends on a key alone, kept for the next record: consecutive records often share theirs.
#[derive(Default)]
struct LastKey {
    key: Vec<u8>,
    partition: i32,
    /// `None` before the first key.
    term: Option<KeyTerm>,
}

impl<'a, 'h, P: Produce> Attempt<'a, 'h, P> {
    pub(super) fn new(
        position: &LoadPosition,
        options: &PublishOptions<'a>,
        hold: Option<&'a mut HoldOn<'h>>,
        sink: &'a mut P,
        clock: &'a dyn Clock,
        events: &'a mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        let partitions = sink.partitions();
        let hold = hold.map(|on| {
            let hold = Hold::new(on.options.limit, partitions, &position.partitions);
            (hold, on)
        });
        let now = clock.monotonic();
        let commits = sink.keeps_positions().then(|| Commits {
            last: position.clone(),
            at: now,
            cadence: options.commits,
            interval: options.commits.interval,
            look_at: 0,
        });
        Ok(Self {
            ledger: Ledger::new(partitions, &position.partitions)?,
            rejects: Rejects::open(options.rejects, position.rejects)?,
            hold,
            sink,
            clock,
            events,
            interrupt: options.interrupt,
            partitioner: options.plan.partitioner(),
            partitions,
            last_key: LastKey::default(),
            hasher: RecordHasher::new(),
            settled: Vec::new(),
            rows: position.input.row,
            bytes: position.bytes(),
            finished: position.finished.clone(),
            bytes_before: position.bytes() - position.input.byte,
            read_counts: position.read_counts,
            stopped_at: None,
            started: now,
            reported: now,
            skew_judged: false,
            rejects_between: position.rejects,
            commits,
        })
    }

    /// Works off all inputs, and whatever ends that, waits for the outcome of all that was sent and closes the books.
    pub(super) fn run<S: Source>(&mut self, inputs: &mut Inputs<'_, '_, S>) -> End {
        (self.events)(Event::Started {
            after_row: self.rows,
        });
        let (interrupted, mut error) = match self.send_all(inputs) {
            Ok(interrupted) => (interrupted, None),
            Err(error) => (false, Some(error.in_source(inputs.name()))),
        };
        // What comes first is the cause; the rest follows from it.
        let sink_is_sound = is_sound(error.as_ref());
        let mut keep = |result: Result<()>| error = error.take().or(result.err());
        keep(if sink_is_sound {
            self.drain()
        } else {
            self.salvage()
        });
        self.ledger.abandon();
        keep(self.find_unknown_offsets());
        keep(self.rejects.sync().map(drop));
        keep(self.ledger.close(self.rows, self.rejects.rows()));
        let place = self.place(&mut inputs.stream).unwrap_or_else(|wrong| {
            keep(Err(wrong));
            None
        });
        let is_complete = error.is_none() && !interrupted;
        // What is whole is committed, whatever ended the load behind it.
        if is_sound(error.as_ref())
            && let Some(place) = &place
        {
            let committed = self.commit(place, is_complete);
            error = error.or(committed.err());
        }
        self.report(self.clock.monotonic());
        End {
            interrupted,
            error,
            place,
        }
    }

    /// Where everything that was given of the stream is worked off; `None` inside a group.
    fn place<R: Read>(&self, stream: &mut RecordStream<'_, R>) -> Result<Option<Place>> {
        if self.stopped_at.is_some() || !self.is_between_groups(stream) {
            return Ok(self.stopped_at);
        }
        stream.place().map(Some)
    }

    /// Whether it is time for a commit.
    #[inline]
    fn is_commit_due(&mut self) -> bool {
        let Some(commits) = &mut self.commits else {
            return false;
        };
        if self.bytes < commits.look_at {
            return false;
        }
        let (interval, bytes) = (commits.interval, commits.cadence.bytes);
        commits.look_at = self.bytes + limits::COMMIT_LOOK_BYTES.min(bytes);
        let since = self.bytes.saturating_sub(commits.last.bytes());
        since >= bytes || self.clock.monotonic().saturating_sub(commits.at) >= interval
    }

    /// Commits everything up to `place`: all of it delivered, its offsets known, its rejected rows on disk. Nothing to do for a sink that keeps
    /// no positions, or where nothing was worked off since the last commit.
    #[cold]
    fn commit(&mut self, place: &Place, is_complete: bool) -> Result<()> {
        let Some(commits) = &self.commits else {
            return Ok(());
        };
        let (last, count) = (&commits.last, self.finished.len());
        let is_same_place = (place.input, count) == (last.input, last.finished.len());
        let has_rejects = self.rejects.position().sent != last.rejects.sent;
        if is_same_place && !has_rejects && !is_complete {
            return Ok(());
        }
        let began = self.clock.monotonic();
        self.drain()?;
        self.find_unknown_offsets()?;
        self.rejects.sync()?;
        let position = self.position_at(place);
        self.sink
            .commit(&position, is_complete)
            .map_err(sink_failed)?;
        (self.events)(Event::Committed {
            rows: position.input.row,
        });
        let at = self.clock.monotonic();
        if let Some(commits) = &mut self.commits {
            (commits.last, commits.at) = (position, at);
            let took = at.saturating_sub(began);
            commits.interval = commits.cadence.interval_after(commits.interval, took);
        }
        let all = place.input.row >= self.rows;
        self.rejects.summary().mark_committed(all);
        Ok(())
    }

    /// The position of the last commit that took place, after a rollback.
    pub(super) fn committed_position(&mut self) -> Result<Option<LoadPosition>> {
        self.sink.committed().map_err(sink_failed)
    }

    /// One input behind the other. True when it was interrupted.
    fn send_all<S: Source>(&mut self, inputs: &mut Inputs<'_, '_, S>) -> Result<bool> {
        self.rejects
            .begin_input(inputs.name(), inputs.are_several());
        while !self.send(&mut inputs.stream)? {
            let (read_to, read_counts) = (inputs.stream.read_to(), inputs.stream.counts());
            if read_to.row != self.rows && !inputs.is_last() {
                let message = format!(
                    "an input ended with row {}, and {} were worked off",
                    read_to.row, self.rows
                );
                return Err(Error::internal(message));
            }
            let Some(finished) = inputs.next_source()? else {
                self.take_back(inputs.stream.position().row)?;
                self.rejects.check(self.rows, true)?;
                return Ok(false);
            };
            self.read_counts = self.read_counts + read_counts;
            self.bytes_before += finished.digest.bytes;
            self.finished.push(finished);
            self.rejects
                .begin_input(inputs.name(), inputs.are_several());
        }
        Ok(true)
    }

    /// The path: every record of the stream goes to its partition and into the books. True when it was interrupted.
    fn send<R: Read>(&mut self, stream: &mut RecordStream<'_, R>) -> Result<bool> {
        loop {
            if self.interrupt.load(Ordering::Relaxed) && self.is_between_groups(stream) {
                return Ok(true);
            }
            // Whether there is another record is found out first: the last one of an input needs no room behind it.
            let held_at = self.is_held().then(|| stream.place()).transpose()?;
            match stream.advance()? {
                Given::Record => {
                    if let Some(place) = held_at {
                        // The group sees what is committed only, and no transaction stays open while nothing is sent.
                        self.commit(&place, false)?;
                        if !self.wait_for_group()? {
                            self.stopped_at = held_at;
                            return Ok(true);
                        }
                    }
                    self.append(&stream.record())?;
                    if self.is_commit_due() {
                        self.commit(&stream.place()?, false)?;
                    }
                }
                Given::Bad => {
                    let rows = stream.bad();
                    let blamed = rows.iter().any(|row| row.kind != BadRowKind::Group);
                    let before = (self.rows, self.rejects.position());
                    let rejected = self.reject(rows);
                    if stream.position().row == before.0 {
                        self.rejects_between = before.1;
                        self.rejects.summary().mark_between();
                    }
                    if rejected.is_err() {
                        // A load that stops at a row ends before it.
                        let place = stream.place_before_rejected()?;
                        self.stopped_at = Some(place).filter(|place| place.input.row == self.rows);
                    }
                    match rejected {
                        Err(stop) if stop.kind() == ErrorKind::BadRow && !blamed => {
                            return Err(culprit(stream).unwrap_or(stop));
                        }
                        rejected => rejected?,
                    }
                    // What a transaction holds of rejected rows alone must be committed in time, too.
                    if self.is_commit_due() {
                        self.commit(&stream.place()?, false)?;
                    }
                }
                // What was appended is not to wait for what may never come.
                Given::Idle => {
                    self.poll()?;
                    self.look_at_the_clock();
                }
                Given::End => return Ok(false),
            }
        }
    }

    /// At the end of an input whose last group is held: rows of it that were rejected already are no more than `rows` are worked off.
    fn take_back(&mut self, rows: u64) -> Result<()> {
        if rows < self.rows {
            self.rejects.go_back(self.rejects_between)?;
            self.rows = rows;
        }
        Ok(())
    }

    /// Whether everything that was given of the stream is worked off up to its position. It is not while the rows of a rejected group are
    /// being given: a load that stopped there would go on in the middle of a group.
    fn is_between_groups<R: Read>(&self, stream: &RecordStream<'_, R>) -> bool {
        stream.position().row == self.rows
    }

    #[inline]
    fn append(&mut self, record: &EncodedRecord<'_>) -> Result<()> {
        let number = self.ledger.totals().appended;
        let (partition, key_term) = self.route(record.key, number);
        let out = OutRecord {
            partition,
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp: record.timestamp,
            rows: record.rows,
            tag: record.last_row,
            first_row: record.first_row,
            first_line: record.first_line,
            end_line: record.end.line,
        };
        self.sink.append(out).map_err(sink_failed)?;
        let hash = self.hasher.hash(key_term, record.value, record.headers);
        self.ledger.append(partition, hash, record.rows);
        self.rows += u64::from(record.rows);
        self.bytes = self.bytes_before + record.end.byte;
        if number.is_multiple_of(limits::RECORDS_PER_POLL) {
            self.poll()?;
        }
        if number.is_multiple_of(limits::RECORDS_PER_CLOCK) {
            self.look_at_the_clock();
        }
        Ok(())
    }

    /// Whether all records are to go to one partition.
    pub(super) fn is_one_partition_meant(&self) -> bool {
        matches!(self.partitioner, Partitioner::Only(_))
    }

    /// The partition of a record, and its key's part in the digest.
    #[inline]
    fn route(&mut self, key: Option<&[u8]>, number: u64) -> (i32, KeyTerm) {
        if let (Some(key), Some(term)) = (key, self.last_key.term)
            && key == self.last_key.key
        {
            return (self.last_key.partition, term);
        }
        let partition = self.partitioner.partition(key, number, self.partitions);
        let term = KeyTerm::of(key);
        if let Some(key) = key {
            self.last_key.key.clear();
            self.last_key.key.extend_from_slice(key);
            (self.last_key.partition, self.last_key.term) = (partition, Some(term));
        }
        (partition, term)
    }

    /// Enters bad rows. When they stop the load they are not counted: the load ends before them.
    fn reject(&mut self, rows: &[BadRow]) -> Result<()> {
        let before = self.rejects.rows();
        let (rejects, sink) = (&mut self.rejects, &mut *self.sink);
        let taken = rejects.take(rows, |reject| sink.reject(reject).map_err(sink_failed));
        self.rows += self.rejects.rows() - before;
        taken?;
        if let Some(last) = rows.last() {
            let end = self.bytes_before + last.byte + last.raw_len;
            self.bytes = self.bytes.max(end);
        }
        for row in rows {
            (self.events)(Event::RowRejected(row));
        }
        self.rejects.check(self.rows, false)
    }

    /// Takes from the sink what has settled meanwhile, without waiting.
    pub(super) fn poll(&mut self) -> Result<()> {
        let polled = self.sink.poll(&mut self.settled);
        self.settle()?;
        polled.map_err(sink_failed)
    }

    /// Enters what the sink has settled. The first failed batch ends the load.
    pub(super) fn settle(&mut self) -> Result<()> {
        for settled in self.settled.drain(..) {
            (self.events)(Event::BatchSettled(&settled));
            let (partition, base_offset, records) =
                (settled.partition, settled.base_offset, settled.records);
            let entered = self.ledger.settle(settled)?;
            let Some((hold, _)) = self.hold.as_mut().filter(|_| entered.delivered) else {
                continue;
            };
            // A hold cannot count what it does not know the place of: it would wait for ever.
            let base_offset = match entered.unknown {
                None => base_offset,
                Some(unknown) => locate(self.sink, &mut self.ledger, &unknown)?,
            };
            if let Some(base_offset) = base_offset {
                hold.delivered(partition, base_offset, records);
            }
        }
        let Some(failure) = self.ledger.take_failure() else {
            return Ok(());
        };
        let (partition, first, last) = (failure.partition, failure.first_tag, failure.last_tag);
        let message = format!(
            "partition {partition}: the records of rows {first} to {last} were not delivered"
        );
        Err(Error::sink(message, failure.cause))
    }

    fn find_unknown_offsets(&mut self) -> Result<()> {
        for unknown in self.ledger.unknown_offsets() {
            locate(self.sink, &mut self.ledger, &unknown)?;
        }
        Ok(())
    }

    /// The sums so far. `accepted + rejected = read`. In a transactional sink only what was committed counts.
    pub(super) fn counts<R: Read>(&self, stream: &RecordStream<'_, R>, end: &End) -> Counts {
        if let Some(commits) = &self.commits
            && self.sink.is_transactional()
            && commits.last.input.row != self.rows
        {
            return Counts::of(&commits.last);
        }
        let (totals, rejects) = (self.ledger.totals(), self.rejects.position());
        let read_counts = end.place.map(|place| place.counts);
        Counts {
            rows: RowCounts {
                read: self.rows,
                accepted: totals.delivered_rows + totals.failed_rows,
                rejected: rejects.rows,
                failed: totals.failed_rows,
            },
            records: RecordCounts {
                delivered: totals.delivered,
                failed: totals.failed,
            },
            partitions: self.ledger.partitions(),
            rejects,
            read_counts: self.read_counts + read_counts.unwrap_or_else(|| stream.counts()),
        }
    }

    /// Where a later load goes on from: behind the last commit, or, without transactions, where this load has ended, if it has ended well.
    pub(super) fn position(&self, end: &End) -> Option<LoadPosition> {
        if let Some(commits) = &self.commits
            && self.sink.is_transactional()
        {
            return Some(commits.last.clone());
        }
        if end.error.is_some() {
            return None;
        }
        end.place.as_ref().map(|place| self.position_at(place))
    }

    /// The inputs that were read to their ends.
    pub(super) fn into_finished(self) -> Vec<FinishedInput> {
        self.finished
    }

    /// What was rejected before a place: either all that was, or, where some of it stands behind, what had been when all was worked off last.
    fn rejects_at(&self, place: &Place) -> RejectsPosition {
        let now = self.rejects.position();
        if place.input.row >= self.rows {
            return now;
        }
        RejectsPosition {
            sent: now.sent,
            ..self.rejects_between
        }
    }

    /// What this run has rejected, as far as it stands.
    pub(super) fn take_summary(&mut self) -> RejectSummary {
        let summary = self.rejects.summary();
        if let Some(commits) = &self.commits
            && self.sink.is_transactional()
            && commits.last.input.row != self.rows
        {
            summary.roll_back();
        }
        std::mem::take(summary)
    }

    fn position_at(&self, place: &Place) -> LoadPosition {
        let state = |(state, _): (PartitionPosition, bool)| state;
        LoadPosition {
            finished: self.finished.clone(),
            input: place.input,
            prefix: place.prefix,
            records: self.ledger.totals().appended,
            read_counts: self.read_counts + place.counts,
            partitions: self.ledger.partitions().into_iter().map(state).collect(),
            rejects: self.rejects_at(place),
            end: place.end,
        }
    }
}

impl Counts {
    /// What a load had come to at a position.
    pub(super) fn of(position: &LoadPosition) -> Self {
        let rejected = position.rejects.rows;
        Self {
            rows: RowCounts {
                read: position.input.row,
                accepted: position.input.row - rejected,
                rejected,
                failed: 0,
            },
            records: RecordCounts {
                delivered: position.records,
                failed: 0,
            },
            partitions: position
                .partitions
                .iter()
                .map(|state| (state.clone(), true))
                .collect(),
            rejects: position.rejects,
            read_counts: position.read_counts,
        }
    }
}

/// Whether the sink can still be asked to finish what it has.
fn is_sound(error: Option<&Error>) -> bool {
    error.is_none_or(|error| !matches!(error.kind(), ErrorKind::Sink | ErrorKind::Interrupted))
}

/// Asks the sink where a batch stands, and enters the answer.
fn locate<P: Produce>(
    sink: &mut P,
    ledger: &mut Ledger,
    unknown: &UnknownOffset,
) -> Result<Option<i64>> {
    let offset = sink.locate(unknown).map_err(sink_failed)?;
    if let Some(offset) = offset {
        ledger.locate(unknown, offset);
    }
    Ok(offset)
}

/// The row to blame for good rows that stopped the load: rows of a group can be given before the bad one that spoils them.
#[cold]
fn culprit<R: Read>(stream: &mut RecordStream<'_, R>) -> Option<Error> {
    while let Ok(Step::Bad(rows)) = stream.next() {
        if let Some(row) = rows.iter().find(|row| row.kind != BadRowKind::Group) {
            return Some(rejects::stopping(row));
        }
    }
    None
}
