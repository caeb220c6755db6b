//! Counts of what really happened in schedules: a fault that never fired has tested nothing.

use std::collections::BTreeMap;

/// Everything that has to happen in a run of many schedules without transactions.
pub(crate) const PLAIN: [&str; 31] = [
    "answers lost",
    "answers that come after their link was dropped",
    "answers that name the new leader",
    "batches appended to a log that forgot their producer",
    "clusters that never heal",
    "connections refused",
    "connections that break",
    "duplicates recognised",
    "duplicates recognised without an offset",
    "errors after the append",
    "errors before the append",
    "failures at the deadline",
    "failures because a producer was forgotten in doubt",
    "failures because of a gap",
    "failures because of a missing topic",
    "failures because of a refusal",
    "full windows",
    "identities renewed",
    "leader moves",
    "memories lost with batches in flight",
    "memories lost without any",
    "metadata failed",
    "metadata missing",
    "metadata stale",
    "requests lost",
    "requests that arrive after their link was dropped",
    "requests timed out",
    "restarts",
    "sequences wrapped",
    "throttled",
    "truncations of acknowledged records",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Nothing but what is expected happened, and all of it did.
    pub(crate) fn assert_all_fired(&self, expected: &[&'static str]) {
        for what in expected {
            assert!(self.0.contains_key(what), "never happened: {what}");
        }
        for what in self.0.keys() {
            assert!(expected.contains(what), "happened unexpectedly: {what}");
        }
    }
}
