//! Waiting until a group has worked off what it should.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::MovedBack;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::limits::{BALANCE_TIMEOUT, COMMITTED_INTERVAL};
use crate::produce::Committed;

/// What a group must have committed in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The partition.
    pub partition: i32,
    /// One past the offset of the last record: done is `committed >= target`.
    pub target: i64,
    /// Offset of the first record, where it is known.
    pub first: Option<i64>,
    /// How many records are in between, where that is known; fewer than offsets where markers or others stand between them.
    pub records: Option<u64>,
}

impl Target {
    /// Records the group has still to commit, at most, and whether that is exact.
    fn behind(&self, committed: Option<i64>) -> (u64, bool) {
        let first = self.first.unwrap_or(0).min(self.target);
        let at = committed.map_or(first, |committed| committed.clamp(first, self.target));
        let offsets = self.target.abs_diff(at);
        let Some(records) = self.records else {
            return (offsets, offsets == 0);
        };
        let dense = records == self.target.abs_diff(first);
        (offsets.min(records), offsets == 0 || at == first || dense)
    }
}

/// How long a balance is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceOptions {
    /// Give up after this time; zero looks once.
    pub timeout: Duration,
}

impl Default for BalanceOptions {
    fn default() -> Self {
        Self {
            timeout: BALANCE_TIMEOUT,
        }
    }
}

/// Whether the group is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BalanceStatus {
    /// Every partition is committed up to its target.
    Balanced,
    /// At least one is not.
    Behind,
}

/// Where the group stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionBalance {
    /// The partition.
    pub partition: i32,
    /// One past the last record.
    pub target: i64,
    /// The offset the group would read next; null when it never committed.
    pub committed: Option<i64>,
    /// Records it has still to commit: a count when `exact`, otherwise at most so many.
    pub behind: u64,
    /// Whether `behind` is the number of records; false where only a difference of offsets is known.
    pub exact: bool,
}

/// What a balance came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceReport {
    /// Done or not.
    pub status: BalanceStatus,
    /// Every partition that has a target, in order.
    pub partitions: Vec<PartitionBalance>,
    /// Whether the wait ended because it was told to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Partitions in which the group has committed less than it had at some time of the wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved_back: Vec<MovedBack>,
    /// Why the group could not be asked the last time, when it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl BalanceReport {
    /// Records the group has still to commit, at most.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.behind)
            .sum()
    }
}

/// A group and what it should have worked off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    targets: Vec<Target>,
    partitions: Vec<PartitionBalance>,
    /// The highest commit seen of each partition.
    highest: BTreeMap<i32, i64>,
}

impl Balance {
    /// A group that has not been asked yet. Without targets it is balanced from the start.
    #[must_use]
    pub fn new(mut targets: Vec<Target>) -> Self {
        targets.sort_unstable_by_key(|target| target.partition);
        let mut balance = Self {
            targets,
            partitions: Vec::new(),
            highest: BTreeMap::new(),
        };
        balance.committed(&[]);
        balance
    }

    /// Enters what the group has committed; a partition that is not named has no commit. Returns where that is less than it was the last time.
    pub fn committed(&mut self, committed: &[(i32, Option<i64>)]) -> Vec<MovedBack> {
        let state = |target: &Target| {
            let committed = committed
                .iter()
                .find(|(partition, _)| *partition == target.partition)
                .and_then(|(_, offset)| *offset);
            let (behind, exact) = target.behind(committed);
            PartitionBalance {
                partition: target.partition,
                target: target.target,
                committed,
                behind,
                exact,
            }
        };
        let before = std::mem::take(&mut self.partitions);
        self.partitions = self.targets.iter().map(state).collect();
        for partition in &self.partitions {
            if let Some(committed) = partition.committed {
                let highest = self.highest.entry(partition.partition).or_insert(committed);
                *highest = committed.max(*highest);
            }
        }
        let moved = before.iter().zip(&self.partitions);
        let moved = moved.filter_map(|(before, now)| moved_back(before.committed?, now));
        moved.collect()
    }

    /// Whether every partition is committed up to its target. A partition without a commit is not, even when nothing lies before its target.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.partitions.iter().all(|partition| {
            partition
                .committed
                .is_some_and(|committed| committed >= partition.target)
        })
    }

    fn report(&self, interrupted: bool, last_error: Option<String>) -> BalanceReport {
        let status = if self.is_balanced() {
            BalanceStatus::Balanced
        } else {
            BalanceStatus::Behind
        };
        BalanceReport {
            status,
            partitions: self.partitions.clone(),
            interrupted,
            moved_back: self
                .partitions
                .iter()
                .filter_map(|now| moved_back(*self.highest.get(&now.partition)?, now))
                .collect(),
            last_error,
        }
    }
}

fn moved_back(from: i64, now: &PartitionBalance) -> Option<MovedBack> {
    now.committed
        .is_none_or(|committed| committed < from)
        .then_some(MovedBack {
            partition: now.partition,
            from,
            to: now.committed,
        })
}

/// Waits until the group has committed every target, at most for the time in `options` or until `interrupt` is set.
///
/// Not being done in time is no error but the report's [`BalanceStatus::Behind`]. A group that cannot be asked is asked again.
///
/// # Errors
/// [`ErrorKind::Group`] when the time is over and the group could not be asked even once.
pub fn wait(
    committed: &mut dyn Committed,
    targets: Vec<Target>,
    options: BalanceOptions,
    interrupt: &AtomicBool,
    clock: &dyn Clock,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<BalanceReport> {
    let start = clock.monotonic();
    let mut balance = Balance::new(targets);
    let mut asked = balance.targets.is_empty();
    let mut seen = None;
    loop {
        let answer = match balance.targets.is_empty() {
            true => Ok(Vec::new()),
            false => committed.committed(),
        };
        let error = match answer {
            Ok(offsets) => {
                for moved in balance.committed(&offsets) {
                    events(Event::GroupMovedBack {
                        partition: moved.partition,
                        from: moved.from,
                        to: moved.to,
                    });
                }
                None
            }
            Err(error) => Some(error),
        };
        asked |= error.is_none();
        let waited = clock.monotonic().saturating_sub(start);
        if let Some(error) = &error {
            events(Event::GroupUnanswered {
                reason: &error.to_string(),
            });
        } else if seen.as_ref() != Some(&balance.partitions) {
            let report = balance.report(false, None);
            events(Event::Balancing {
                behind: report.behind(),
                waited,
                partitions: &report.partitions,
            });
            seen = Some(report.partitions);
        }
        if error.is_none() && balance.is_balanced() {
            return Ok(balance.report(false, None));
        }
        let interrupted = interrupt.load(Ordering::Relaxed);
        if interrupted || waited >= options.timeout {
            return match error {
                Some(error) if !asked => Err(Error::new(
                    ErrorKind::Group,
                    "the consumer group could not be asked what it has committed",
                )
                .with_source(error)),
                error => Ok(balance.report(interrupted, error.map(|error| error.to_string()))),
            };
        }
        clock.sleep(COMMITTED_INTERVAL.min(options.timeout.saturating_sub(waited)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::produce::SinkError;

    type Answer = Result<Vec<(i32, Option<i64>)>, &'static str>;

    /// A group that answers from a list, then repeats its last answer.
    struct Script {
        answers: Vec<Answer>,
        asked: usize,
    }

    impl Committed for Script {
        fn committed(&mut self) -> Result<Vec<(i32, Option<i64>)>, SinkError> {
            let answer = &self.answers[self.asked.min(self.answers.len() - 1)];
            self.asked += 1;
            answer.clone().map_err(Into::into)
        }
    }

    fn target(partition: i32, first: i64, target: i64, records: u64) -> Target {
        Target {
            partition,
            target,
            first: Some(first),
            records: Some(records),
        }
    }

    fn run(answers: Vec<Answer>, targets: Vec<Target>) -> (Result<BalanceReport>, Duration) {
        let clock = ManualClock::new();
        let options = BalanceOptions {
            timeout: Duration::from_secs(2),
        };
        let report = wait(
            &mut Script { answers, asked: 0 },
            targets,
            options,
            &AtomicBool::new(false),
            &clock,
            &mut |_| {},
        );
        (report, clock.monotonic())
    }

    #[test]
    fn is_done_when_every_partition_is_committed() {
        let answers = vec![
            Ok(vec![]),
            Ok(vec![(0, Some(6)), (1, Some(9))]),
            Ok(vec![(0, Some(7)), (1, Some(9))]),
            Ok(vec![(1, Some(11)), (0, Some(7))]),
        ];
        let (report, waited) = run(answers, vec![target(1, 0, 10, 10), target(0, 0, 7, 7)]);
        let report = report.unwrap();
        assert_eq!(
            (report.status, report.behind()),
            (BalanceStatus::Balanced, 0)
        );
        assert_eq!(
            report
                .partitions
                .iter()
                .map(|partition| partition.partition)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(waited, 3 * COMMITTED_INTERVAL);
    }

    #[test]
    fn a_group_that_goes_back_is_told_of() {
        let answers = vec![
            Ok(vec![(0, Some(5)), (1, Some(3))]),
            Ok(vec![(0, Some(2)), (1, None)]),
            Ok(vec![(0, Some(3)), (1, None)]),
        ];
        let clock = ManualClock::new();
        let options = BalanceOptions {
            timeout: 5 * COMMITTED_INTERVAL,
        };
        let mut told = Vec::new();
        let report = wait(
            &mut Script { answers, asked: 0 },
            vec![target(0, 0, 7, 7), target(1, 0, 7, 7)],
            options,
            &AtomicBool::new(false),
            &clock,
            &mut |event| {
                if let Event::GroupMovedBack {
                    partition,
                    from,
                    to,
                } = event
                {
                    told.push((partition, from, to));
                }
            },
        );
        assert_eq!(told, [(0, 5, Some(2)), (1, 3, None)]);
        let moved = report.unwrap().moved_back;
        let moved: Vec<_> = moved.iter().map(|m| (m.partition, m.from, m.to)).collect();
        assert_eq!(moved, [(0, 5, Some(3)), (1, 3, None)]);
    }

    /// Offset 7 is the marker behind the last record: the group commits 7 and is done, although its lag is 1.
    #[test]
    fn lag_does_not_matter() {
        let (report, _) = run(vec![Ok(vec![(0, Some(7))])], vec![target(0, 0, 7, 7)]);
        assert_eq!(report.unwrap().status, BalanceStatus::Balanced);
    }

    #[test]
    fn reports_who_is_behind_when_the_time_is_over() {
        let (report, waited) = run(
            vec![Ok(vec![(0, Some(7)), (1, None), (2, Some(4))])],
            vec![target(0, 0, 7, 7), target(1, 5, 10, 3), target(2, 0, 9, 6)],
        );
        let report = report.unwrap();
        assert_eq!(report.status, BalanceStatus::Behind);
        let rows: Vec<_> = report
            .partitions
            .iter()
            .map(|p| (p.partition, p.committed, p.behind, p.exact))
            .collect();
        assert_eq!(
            rows,
            [
                (0, Some(7), 0, true),
                (1, None, 3, true),
                (2, Some(4), 5, false)
            ]
        );
        assert_eq!(waited, Duration::from_secs(2));
    }

    #[test]
    fn nothing_to_wait_for_is_balanced() {
        let (report, waited) = run(vec![Err("must not be asked")], vec![]);
        assert_eq!(
            (report.unwrap().status, waited),
            (BalanceStatus::Balanced, Duration::ZERO)
        );
    }

    #[test]
    fn a_group_that_moved_away_is_asked_again() {
        let answers = vec![
            Err("coordinator moves"),
            Ok(vec![(0, Some(1))]),
            Err("again"),
            Ok(vec![(0, Some(2))]),
        ];
        assert_eq!(
            run(answers, vec![target(0, 0, 2, 2)]).0.unwrap().status,
            BalanceStatus::Balanced
        );
        let report = run(
            vec![Ok(vec![(0, Some(1))]), Err("gone")],
            vec![target(0, 0, 2, 2)],
        )
        .0
        .unwrap();
        assert_eq!(
            (report.status, report.behind(), report.last_error.as_deref()),
            (BalanceStatus::Behind, 1, Some("gone"))
        );
        assert_eq!(
            run(vec![Err("never there")], vec![target(0, 0, 2, 2)])
                .0
                .unwrap_err()
                .kind(),
            ErrorKind::Group
        );
    }

    #[test]
    fn can_be_interrupted() {
        let clock = ManualClock::new();
        let mut group = Script {
            answers: vec![Ok(vec![])],
            asked: 0,
        };
        let report = wait(
            &mut group,
            vec![target(0, 0, 2, 2)],
            BalanceOptions::default(),
            &AtomicBool::new(true),
            &clock,
            &mut |_| {},
        )
        .unwrap();
        assert!(report.interrupted);
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }
}
