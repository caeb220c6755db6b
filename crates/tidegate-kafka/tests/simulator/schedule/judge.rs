//! The judgement on a schedule that has ended.

use tidegate_kafka::ErrorKind;
use tidegate_kafka::producer::machine::{BatchId, Failure, Slot};

use super::{DELIVERY_TIMEOUT, Ending, HEALED, Schedule};
use crate::cluster::{OUT_OF_ORDER, UNKNOWN_PRODUCER};

/// A producer notices within this time (ms) that its topic is gone.
const MISSING_NOTICED: u64 = 15_000;

impl Schedule {
    /// What is wrong, if anything.
    pub(super) fn judge(&mut self) -> Option<String> {
        if let Some(why) = self.broken.take() {
            return Some(why);
        }
        for slot in 0..self.partitions.len() {
            if let Some(why) = self.judge_log(slot) {
                return Some(why);
            }
        }
        match self.failure.take() {
            Some((at, failure)) => self.judge_failure(at, &failure),
            None => self.judge_completeness(),
        }
    }

    /// The log holds the first of the sealed batches: in order, without a gap or a duplicate.
    fn judge_log(&self, slot: usize) -> Option<String> {
        let partition = &self.partitions[slot];
        let logged: Vec<BatchId> = partition.log.iter().map(|entry| entry.batch).collect();
        let sealed = self.sealed[slot].iter().map(|(batch, _)| *batch);
        let kept = if partition.lost.is_empty() {
            sealed.take(logged.len()).eq(logged.iter().copied())
        } else {
            // What the cluster lost is missing; the rest is in order, and once.
            logged.is_sorted_by(|one, next| one < next)
        };
        (!kept).then(|| format!("partition {slot} holds {logged:?}"))
    }

    /// Stopping is right only where the schedule gives a reason, and then in time.
    fn judge_failure(&mut self, at: u64, failure: &Failure) -> Option<String> {
        let wrong = |expected: &str| Some(format!("stopped at {at}: {failure:?}; {expected}"));
        match failure.code {
            Some(UNKNOWN_PRODUCER) if self.may_stop => {
                self.counts
                    .note("failures because a producer was forgotten in doubt");
                return None;
            }
            Some(OUT_OF_ORDER) if self.ending == Ending::Truncated => {
                self.counts.note("failures because of a gap");
                return None;
            }
            _ => {}
        }
        match self.ending {
            Ending::NeverHeals(from) => {
                self.counts.note("failures at the deadline");
                // What was sealed when nothing else was open counts from then.
                let deadline = from.max(HEALED) + DELIVERY_TIMEOUT;
                let in_time = failure.kind == ErrorKind::Timeout && at >= DELIVERY_TIMEOUT;
                (!in_time || at > deadline).then(|| wrong("not at the deadline"))?
            }
            Ending::Refuses(from, code, kind) => {
                self.counts.note("failures because of a refusal");
                let right = failure.code == Some(code)
                    && failure.kind == kind
                    && failure.slot == Some(Slot(0))
                    && failure.batch.is_some()
                    && at >= from;
                (!right).then(|| wrong("not because of the refusal"))?
            }
            Ending::Deleted(from) => {
                self.counts.note("failures because of a missing topic");
                let right = failure.kind == ErrorKind::TopicMissing && at >= from;
                let latest = from.max(HEALED) + MISSING_NOTICED;
                (!right || at > latest).then(|| wrong("not because of the topic, or late"))?
            }
            Ending::Heals | Ending::Truncated => wrong("for no reason"),
        }
    }

    fn judge_completeness(&self) -> Option<String> {
        for (slot, sealed) in self.sealed.iter().enumerate() {
            let (settled, all) = (self.settled[slot], sealed.len());
            if settled != all {
                return Some(format!("partition {slot}: {settled} of {all} settled"));
            }
            let partition = &self.partitions[slot];
            if partition.lost.is_empty() && partition.log.len() != all {
                let logged = partition.log.len();
                return Some(format!("partition {slot}: {logged} of {all} in the log"));
            }
        }
        None
    }
}
