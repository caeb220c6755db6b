//! Publish: the path of a row from the input to the receipt, wired in one place.
//!
//! A load is built from a [`LoadPosition`] and runs until its input ends, a bad row or the sink stops it, or it is interrupted:
//!
//! ```text
//! RecordStream (read, group, encode) -> Partitioner -> Produce::append -> Produce::poll -> Ledger -> Outcome -> Receipt
//!         \-> Rejects                         Hold (before each record)
//! ```
//!
//! What the sink is makes the mode: a topic publishes, a counter is a dry run, a comparison verifies. There is no second copy of this path.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::balance::{Hold, HoldOptions};
use crate::clock::Clock;
use crate::digest::{KeyTerm, PrefixDigest, PrefixHasher, RecordHasher};
use crate::event::{Event, Progress};
use crate::ledger::Ledger;
use crate::limits;
use crate::partition::Partitioner;
use crate::position::LoadPosition;
use crate::produce::{Committed, OutRecord, Produce, Settled, SinkError};
use crate::read::{CsvFormat, RowReader};
use crate::receipt::{PartitionReceipt, RecordCounts, RowCounts, Status};
use crate::records::{EncodedRecord, RecordStream, Step};
use crate::rejects::{Rejects, RejectsOptions};
use crate::schema::RecordPlan;
use crate::{Error, ErrorKind, Result};

/// Where rows come from.
pub trait Source {
    /// What its bytes are read from.
    type Reader: Read;

    /// Opens the input at `byte` of its decompressed content.
    ///
    /// # Errors
    /// When it cannot be opened, or cannot be brought there: a stream has only its start, and only once.
    fn open(&self, byte: u64) -> io::Result<Self::Reader>;
}

/// What a load is told.
#[derive(Debug)]
pub struct PublishOptions<'a> {
    /// How the input is written.
    pub csv: &'a CsvFormat,
    /// How rows become records.
    pub plan: &'a RecordPlan,
    /// The schema's id, which stands before each Avro value; `None` with JSON.
    pub schema_id: Option<u32>,
    /// How records are spread over the partitions.
    pub partitioner: Partitioner,
    /// What to do with bad rows.
    pub rejects: &'a RejectsOptions,
    /// Set by whoever wants the load to stop early, and in order.
    pub interrupt: &'a AtomicBool,
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

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What ended it, if it failed.
    pub error: Option<Error>,
    /// Rows by outcome.
    pub rows: RowCounts,
    /// Records by outcome.
    pub records: RecordCounts,
    /// What is in each partition.
    pub partitions: Vec<PartitionReceipt>,
    /// Length and digest of what was read of the input.
    pub source: PrefixDigest,
    /// Lines without anything on them.
    pub blank_lines: u64,
    /// Bytes of the rejects file.
    pub rejects_length: u64,
    /// Producer ids of the records.
    pub producer_ids: Vec<i64>,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// How long it took, by the monotonic clock.
    pub seconds: f64,
}

/// Runs a load from `position` to its end.
///
/// A load that was begun always has an [`Outcome`], also when it failed: what is in the topic must be known.
///
/// # Errors
/// What kept it from beginning: an input that cannot be opened or has changed, a rejects file that cannot be written.
pub fn publish<S: Source, P: Produce>(
    source: &S,
    position: &LoadPosition,
    options: &PublishOptions<'_>,
    hold: Option<HoldOn<'_>>,
    sink: &mut P,
    clock: &dyn Clock,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let (started, started_at) = (clock.monotonic(), clock.unix_millis());
    let hasher = Rc::new(RefCell::new(PrefixHasher::new()));
    let input = source
        .open(position.input.byte)
        .map_err(|error| Error::input("cannot open the input", error))?;
    let input = Hashed {
        input,
        hasher: Rc::clone(&hasher),
    };
    let reader = RowReader::resume(
        input,
        options.csv.clone(),
        options.plan.header(),
        position.input,
    )?;
    let mut stream = RecordStream::new(reader, options.plan, options.schema_id)?;
    let mut load = Load::new(position, options, hold, sink, clock, events)?;

    (load.events)(Event::Started {
        after_row: position.input.row,
    });
    let ran = load.run(&mut stream);
    let (status, error) = load.finish(ran, stream.rows_read());
    let rejects = load.rejects.sync();
    let error = error.or_else(|| {
        rejects
            .as_ref()
            .err()
            .map(|error| Error::new(error.kind(), error.to_string()))
    });
    let rejects = load.rejects.position();
    let totals = load.ledger.totals();
    let source = hasher.borrow().digest();
    Ok(Outcome {
        status: if error.is_some() {
            Status::Failed
        } else {
            status
        },
        error,
        rows: RowCounts {
            read: stream.rows_read(),
            accepted: totals.delivered_rows + totals.failed_rows,
            rejected: rejects.rows,
            failed: totals.failed_rows,
        },
        records: RecordCounts {
            delivered: totals.delivered,
            failed: totals.failed,
        },
        partitions: receipts(&load.ledger),
        source,
        blank_lines: position.blank_lines + stream.blank_lines(),
        rejects_length: rejects.length,
        producer_ids: load.sink.producer_ids(),
        started_at,
        finished_at: clock.unix_millis(),
        seconds: clock.monotonic().saturating_sub(started).as_secs_f64(),
    })
}

fn receipts(ledger: &Ledger) -> Vec<PartitionReceipt> {
    let receipt = |(state, whole): (crate::position::PartitionPosition, bool)| PartitionReceipt {
        partition: state.partition,
        first_offset: state.first_offset,
        last_offset: state.last_offset,
        records: state.records,
        rows: state.rows,
        digest: whole.then_some(state.digest.value),
    };
    ledger.partitions().into_iter().map(receipt).collect()
}

/// Hashes what is read, where the load can look at it afterwards.
struct Hashed<R> {
    input: R,
    hasher: Rc<RefCell<PrefixHasher>>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hasher.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// One attempt: everything that a record meets after it was encoded.
struct Load<'a, 'h, P> {
    sink: &'a mut P,
    clock: &'a dyn Clock,
    events: &'a mut dyn FnMut(Event<'_>),
    interrupt: &'a AtomicBool,
    partitioner: Partitioner,
    partitions: i32,
    hasher: RecordHasher,
    ledger: Ledger,
    rejects: Rejects,
    hold: Option<(Hold, HoldOn<'h>)>,
    settled: Vec<Settled>,
    started: Duration,
    reported: Duration,
    rows: u64,
    bytes: u64,
    skew_judged: bool,
}

impl<'a, 'h, P: Produce> Load<'a, 'h, P> {
    fn new(
        position: &LoadPosition,
        options: &PublishOptions<'a>,
        hold: Option<HoldOn<'h>>,
        sink: &'a mut P,
        clock: &'a dyn Clock,
        events: &'a mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        let partitions = sink.partitions();
        let hold = hold.map(|on| {
            (
                Hold::new(on.options.limit, partitions, &position.partitions),
                on,
            )
        });
        Ok(Self {
            ledger: Ledger::new(partitions, &position.partitions)?,
            rejects: Rejects::open(options.rejects, position.rejects)?,
            hold,
            sink,
            clock,
            events,
            interrupt: options.interrupt,
            partitioner: options.partitioner,
            partitions,
            hasher: RecordHasher::new(),
            settled: Vec::new(),
            started: clock.monotonic(),
            reported: clock.monotonic(),
            rows: position.input.row,
            bytes: position.input.byte,
            skew_judged: false,
        })
    }

    /// Every record of the input, until it ends or the load is interrupted.
    fn run<R: Read>(&mut self, stream: &mut RecordStream<'_, R>) -> Result<Status> {
        loop {
            if self.interrupt.load(Ordering::Relaxed) {
                return Ok(Status::Interrupted);
            }
            match stream.next()? {
                Step::Record(record) => {
                    if !self.may_go_on()? {
                        return Ok(Status::Interrupted);
                    }
                    self.append(&record)?;
                    self.rows += u64::from(record.rows);
                    self.bytes = record.end.byte;
                }
                Step::Bad(rows) => {
                    self.rejects.take(rows)?;
                    self.rows += rows.len() as u64;
                    for row in rows {
                        (self.events)(Event::RowRejected(row));
                    }
                    self.rejects.check(self.rows, false)?;
                }
                Step::End => return Ok(Status::Complete),
            }
        }
    }

    #[inline]
    fn append(&mut self, record: &EncodedRecord<'_>) -> Result<()> {
        let number = self.ledger.totals().appended;
        let partition = self
            .partitioner
            .partition(record.key, number, self.partitions);
        let hash = self.hasher.hash(KeyTerm::of(record.key), record.value, &[]);
        let out = OutRecord {
            partition,
            key: record.key,
            value: record.value,
            headers: &[],
            timestamp: None,
            tag: record.last_row,
            first_row: record.first_row,
            first_line: record.first_line,
        };
        self.sink.append(out).map_err(sink_failed)?;
        self.ledger.append(partition, hash, record.rows);
        if number.is_multiple_of(limits::RECORDS_PER_POLL) {
            let polled = self.sink.poll(&mut self.settled);
            self.settle()?;
            polled.map_err(sink_failed)?;
        }
        if number.is_multiple_of(limits::RECORDS_PER_CLOCK) {
            self.look_at_the_clock();
        }
        Ok(())
    }

    #[cold]
    fn look_at_the_clock(&mut self) {
        let appended = self.ledger.totals().appended;
        if !self.skew_judged && appended >= limits::SKEW_RECORDS {
            self.skew_judged = true;
            self.judge_skew(appended);
        }
        let now = self.clock.monotonic();
        if now.saturating_sub(self.reported) >= limits::PROGRESS_INTERVAL {
            self.reported = now;
            self.report(now);
        }
    }

    fn judge_skew(&mut self, of: u64) {
        // With two partitions one of them always has half or more.
        let (share, parts) = if self.partitions == 2 { (3, 4) } else { (1, 2) };
        let largest = self.ledger.appended().zip(0..).max();
        if let Some((records, partition)) = largest.filter(|_| self.partitions > 1)
            && records * parts > of * share
        {
            (self.events)(Event::Skewed {
                partition,
                records,
                of,
            });
        }
    }

    fn report(&mut self, now: Duration) {
        let totals = self.ledger.totals();
        (self.events)(Event::Progress(Progress {
            bytes: self.bytes,
            rows: self.rows,
            rejected: self.rejects.rows(),
            appended: totals.appended,
            delivered: totals.delivered,
            outstanding: self
                .hold
                .as_ref()
                .map(|(hold, _)| hold.outstanding(totals.appended)),
            elapsed: now.saturating_sub(self.started),
        }));
    }

    /// Enters what the sink has settled. The first failed batch ends the load.
    fn settle(&mut self) -> Result<()> {
        for settled in self.settled.drain(..) {
            (self.events)(Event::BatchSettled(&settled));
            if let (Some((hold, _)), Some(base), Ok(())) =
                (&mut self.hold, settled.base_offset, &settled.outcome)
            {
                hold.delivered(settled.partition, base, settled.records);
            }
            self.ledger.settle(settled)?;
        }
        match self.ledger.take_failure() {
            None => Ok(()),
            Some(failure) => {
                let (partition, first, last) =
                    (failure.partition, failure.first_tag, failure.last_tag);
                let message = format!(
                    "partition {partition}: the records of rows {first} to {last} were not delivered"
                );
                Err(Error::sink(message, failure.cause))
            }
        }
    }

    /// Waits while the group is too far behind for another record. `false`: the load was interrupted meanwhile.
    #[inline]
    fn may_go_on(&mut self) -> Result<bool> {
        match &self.hold {
            Some((hold, _)) if hold.is_full(self.ledger.totals().appended) => self.wait_for_group(),
            _ => Ok(true),
        }
    }

    #[cold]
    fn wait_for_group(&mut self) -> Result<bool> {
        // What is open must reach the group before it can be expected to commit it.
        self.sink.seal().map_err(sink_failed)?;
        let began = self.clock.monotonic();
        let mut idle_since = began;
        let mut pause = limits::COMMITTED_FIRST_INTERVAL;
        let mut told = false;
        loop {
            let polled = self.sink.poll(&mut self.settled);
            self.settle()?;
            polled.map_err(sink_failed)?;
            self.ask_group(began)?;
            let appended = self.ledger.totals().appended;
            let now = self.clock.monotonic();
            let waited = now.saturating_sub(began);
            let Some((hold, on)) = &self.hold else {
                return Ok(true);
            };
            if !hold.is_full(appended) {
                if told {
                    (self.events)(Event::Resumed { waited });
                }
                return Ok(true);
            }
            let (outstanding, limit) = (hold.outstanding(appended), hold.limit());
            if waited >= on.options.timeout {
                return Err(held_too_long(hold, outstanding, waited));
            }
            if self.interrupt.load(Ordering::Relaxed) {
                return Ok(false);
            }
            (self.events)(Event::Held {
                outstanding,
                limit,
                waited,
            });
            told = true;
            self.report(now);
            if now.saturating_sub(idle_since) >= limits::IDLE_TICK {
                idle_since = now;
                self.sink.idle().map_err(sink_failed)?;
            }
            self.clock.sleep(pause);
            pause = (pause * 2).min(limits::COMMITTED_INTERVAL);
        }
    }

    fn ask_group(&mut self, since: Duration) -> Result<()> {
        let Some((hold, on)) = &mut self.hold else {
            return Ok(());
        };
        match on.committed.committed() {
            Ok(offsets) => {
                for moved in hold.committed(&offsets) {
                    let (partition, from, to) = (moved.partition, moved.from, moved.to);
                    (self.events)(Event::GroupMovedBack {
                        partition,
                        from,
                        to,
                    });
                }
                Ok(())
            }
            Err(error) if self.clock.monotonic().saturating_sub(since) < limits::GROUP_PATIENCE => {
                (self.events)(Event::GroupUnanswered {
                    reason: &error.to_string(),
                });
                Ok(())
            }
            Err(error) => {
                let message = "the consumer group could not be asked for its commits";
                Err(Error::new(ErrorKind::Group, message).with_source(error))
            }
        }
    }

    /// Waits for the outcome of everything that was appended, whatever ended the load, and closes the books.
    fn finish(&mut self, ran: Result<Status>, rows_read: u64) -> (Status, Option<Error>) {
        let (status, mut error) = match ran {
            Ok(status) => (status, None),
            Err(error) => (Status::Failed, Some(error)),
        };
        let outstanding = self.ledger.totals().outstanding();
        (self.events)(Event::Flushing { outstanding });
        let flushed = self.sink.flush(&mut self.settled);
        let settled = self.settle();
        // What the sink says first is the cause; the rest follows from it.
        let mut keep = |result: Result<()>| error = error.take().or(result.err());
        keep(settled);
        keep(flushed.map_err(sink_failed));
        self.ledger.abandon();
        keep(self.find_unknown_offsets());
        if status == Status::Complete {
            keep(self.rejects.check(rows_read, true));
        }
        if error.is_none() {
            error = self.close(rows_read).err();
        }
        let now = self.clock.monotonic();
        self.report(now);
        (status, error)
    }

    /// `read = delivered + rejected + failed`; an interrupted or failed load may have read a row that it did not work off.
    fn close(&self, rows_read: u64) -> Result<()> {
        let worked_off = if self.interrupt.load(Ordering::Relaxed) {
            self.rows
        } else {
            rows_read
        };
        self.ledger.close(worked_off, self.rejects.rows())
    }

    fn find_unknown_offsets(&mut self) -> Result<()> {
        for unknown in self.ledger.unknown_offsets() {
            if let Some(offset) = self.sink.locate(&unknown).map_err(sink_failed)? {
                self.ledger.locate(&unknown, offset);
            }
        }
        Ok(())
    }
}

fn held_too_long(hold: &Hold, outstanding: u64, waited: Duration) -> Error {
    let commits: Vec<String> = hold
        .commits()
        .iter()
        .map(|(partition, offset)| match offset {
            Some(offset) => format!("partition {partition}: {offset}"),
            None => format!("partition {partition}: none"),
        })
        .collect();
    let message = format!(
        "held back for {:.0} s: the group has not committed {outstanding} records, {} may be open; its commits: {}",
        waited.as_secs_f64(),
        hold.limit(),
        commits.join(", ")
    );
    Error::new(ErrorKind::HoldTimeout, message)
}

fn sink_failed(error: SinkError) -> Error {
    // Comparisons fail with an error of this crate, which says all there is to say.
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(error) => Error::sink(error.to_string(), error),
    }
}

/// A sink that only counts: everything but sending, for a dry run.
#[derive(Debug)]
pub struct Counter {
    partitions: i32,
    open: Vec<(u32, u64, u64)>,
    next_offsets: Vec<i64>,
}

impl Counter {
    /// A counter with `partitions` partitions, at least 1.
    #[must_use]
    pub fn new(partitions: i32) -> Self {
        let partitions = partitions.max(1);
        let count = partitions.unsigned_abs() as usize;
        Self {
            partitions,
            open: vec![(0, 0, 0); count],
            next_offsets: vec![0; count],
        }
    }
}

impl Produce for Counter {
    fn partitions(&self) -> i32 {
        self.partitions
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        let open = &mut self.open[record.partition.unsigned_abs() as usize];
        if open.0 == 0 {
            open.1 = record.tag;
        }
        (open.0, open.2) = (open.0 + 1, record.tag);
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

    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        for ((partition, open), next) in (0..).zip(&mut self.open).zip(&mut self.next_offsets) {
            let (records, first_tag, last_tag) = std::mem::take(open);
            if records > 0 {
                let base_offset = Some(*next);
                settled.push(Settled {
                    partition,
                    records,
                    base_offset,
                    first_tag,
                    last_tag,
                    outcome: Ok(()),
                });
                *next += i64::from(records);
            }
        }
        Ok(())
    }
}
