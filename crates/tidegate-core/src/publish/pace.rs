//! When an attempt waits: for the group it must not run ahead of, and for the last outcomes. And what it tells while it works.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::balance::Hold;
use crate::event::{Event, Progress};
use crate::limits;
use crate::produce::Produce;
use crate::publish::attempt::Attempt;
use crate::publish::sink_failed;
use crate::{Error, ErrorKind, Result};

impl<P: Produce> Attempt<'_, '_, P> {
    /// Whether the group is too far behind for another record.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        match &self.hold {
            Some((hold, _)) => hold.is_full(self.ledger.totals().appended),
            None => false,
        }
    }

    /// Waits until another record may be sent. `false`: the load was interrupted meanwhile.
    #[cold]
    pub(super) fn wait_for_group(&mut self) -> Result<bool> {
        let began = self.clock.monotonic();
        let mut idle_since = began;
        let mut pause = limits::COMMITTED_FIRST_INTERVAL;
        let mut told = false;
        loop {
            self.poll()?;
            self.ask_group(began)?;
            let now = self.clock.monotonic();
            let waited = now.saturating_sub(began);
            let Some((hold, on)) = self.hold.as_ref().filter(|_| self.is_held()) else {
                if told {
                    (self.events)(Event::Resumed { waited });
                }
                return Ok(true);
            };
            let outstanding = hold.outstanding(self.ledger.totals().appended);
            if waited >= on.options.timeout {
                return Err(held_too_long(hold, outstanding, waited));
            }
            if self.interrupt.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if !told {
                // What is open must reach the group before it can be expected to commit it.
                told = true;
                self.sink.seal().map_err(sink_failed)?;
            }
            (self.events)(Event::Held {
                outstanding,
                limit: hold.limit(),
                waited,
            });
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
        let error = match on.committed.committed() {
            Ok(offsets) => {
                for moved in hold.committed(&offsets) {
                    (self.events)(Event::GroupMovedBack {
                        partition: moved.partition,
                        from: moved.from,
                        to: moved.to,
                    });
                }
                return Ok(());
            }
            Err(error) => error,
        };
        if self.clock.monotonic().saturating_sub(since) < limits::GROUP_PATIENCE {
            (self.events)(Event::GroupUnanswered {
                reason: &error.to_string(),
            });
            return Ok(());
        }
        let message = "the consumer group could not be asked for its commits";
        Err(Error::new(ErrorKind::Group, message).with_source(error))
    }

    /// Has everything sent and waits for its outcome. The sink has a deadline of its own; this one only makes sure that no load hangs, and that an
    /// interrupted one ends soon.
    pub(super) fn drain(&mut self) -> Result<()> {
        let outstanding = self.ledger.totals().outstanding();
        (self.events)(Event::Flushing { outstanding });
        self.sink.seal().map_err(sink_failed)?;
        let mut quiet_since = self.clock.monotonic();
        let mut interrupted_at = None;
        while self.ledger.totals().outstanding() > 0 {
            let waited = self.sink.wait(limits::SETTLE_WAIT, &mut self.settled);
            let now = self.clock.monotonic();
            if !self.settled.is_empty() {
                quiet_since = now;
            }
            self.settle()?;
            waited.map_err(sink_failed)?;
            if self.interrupt.load(Ordering::Relaxed) {
                interrupted_at.get_or_insert(now);
            }
            let hangs = now.saturating_sub(quiet_since) >= limits::SETTLE_PATIENCE;
            let late = interrupted_at
                .is_some_and(|at| now.saturating_sub(at) >= limits::INTERRUPT_PATIENCE);
            if hangs || late {
                let waited = now.saturating_sub(quiet_since.min(interrupted_at.unwrap_or(now)));
                let kind = if late {
                    ErrorKind::Interrupted
                } else {
                    ErrorKind::Sink
                };
                return Err(unsettled(kind, self.ledger.totals().outstanding(), waited));
            }
            self.report_now_and_then(now);
        }
        // The books say that nothing is open; this is the sink's own word for it.
        let flushed = self.sink.flush(&mut self.settled);
        self.settle()?;
        flushed.map_err(sink_failed)
    }

    /// Takes what a failed sink still has to tell: batches on their way may have arrived all the same.
    pub(super) fn salvage(&mut self) -> Result<()> {
        let began = self.clock.monotonic();
        while self.ledger.totals().outstanding() > 0 {
            let waited = self.sink.wait(limits::SETTLE_WAIT, &mut self.settled);
            // Another failed batch is counted, and is no news.
            drop(self.settle());
            waited.map_err(sink_failed)?;
            let waited_for = self.clock.monotonic().saturating_sub(began);
            if waited_for >= limits::FAILURE_PATIENCE {
                let outstanding = self.ledger.totals().outstanding();
                return Err(unsettled(ErrorKind::Sink, outstanding, waited_for));
            }
        }
        Ok(())
    }

    #[cold]
    pub(super) fn look_at_the_clock(&mut self) {
        let appended = self.ledger.totals().appended;
        if !self.skew_judged && appended >= limits::SKEW_RECORDS {
            self.skew_judged = true;
            self.judge_skew(appended);
        }
        self.report_now_and_then(self.clock.monotonic());
    }

    fn judge_skew(&mut self, of: u64) {
        if self.is_one_partition_meant() {
            return;
        }
        let partitions = self.ledger.appended().count();
        // Of two partitions one always has half or more.
        let (share, parts) = if partitions == 2 { (3, 4) } else { (1, 2) };
        let largest = self.ledger.appended().zip(0..).max();
        if let Some((records, partition)) = largest.filter(|_| partitions > 1)
            && records * parts > of * share
        {
            (self.events)(Event::Skewed {
                partition,
                records,
                of,
            });
        }
    }

    fn report_now_and_then(&mut self, now: Duration) {
        if now.saturating_sub(self.reported) >= limits::PROGRESS_INTERVAL {
            self.report(now);
        }
    }

    pub(super) fn report(&mut self, now: Duration) {
        self.reported = now;
        let totals = self.ledger.totals();
        let outstanding = self
            .hold
            .as_ref()
            .map(|(hold, _)| hold.outstanding(totals.appended));
        (self.events)(Event::Progress(Progress {
            bytes: self.bytes,
            rows: self.rows,
            rejected: self.rejects.rows(),
            appended: totals.appended,
            delivered: totals.delivered,
            outstanding,
            elapsed: now.saturating_sub(self.started),
        }));
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

fn unsettled(kind: ErrorKind, outstanding: u64, waited: Duration) -> Error {
    let seconds = waited.as_secs();
    let message =
        format!("after {seconds} s the outcome of {outstanding} records is still unknown");
    Error::new(kind, message).with_retriable(true)
}
