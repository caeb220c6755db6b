//! What a cycle will be, from the seed alone: its input, how it is published, and when what is killed.

use std::time::Duration;

use tidegate_testkit::usage::Random;

/// Everything about a cycle that is decided beforehand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) index: u64,
    /// Decides the input.
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    pub(crate) rows: u32,
    pub(crate) keys: u32,
    pub(crate) partitions: u32,
    /// How many of ten thousand rows are bad; none means that there is no rejects file either.
    pub(crate) bad: u32,
    pub(crate) commit_interval: Duration,
    pub(crate) interruptions: Vec<Interruption>,
    /// Run it once more when it is complete: nothing may change.
    pub(crate) again: bool,
}

/// What records look like; how long a load takes depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    /// `--group-by device`.
    pub(crate) is_grouped: bool,
    /// Avro, read by Python; otherwise JSON, read by kcat.
    pub(crate) is_avro: bool,
}

/// A kill.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Interruption {
    pub(crate) moment: Moment,
    pub(crate) victim: Victim,
}

/// When it is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Moment {
    /// After this share of the time that an undisturbed load takes.
    Share(f64),
    /// The same, but within 500 ms of the start.
    Soon(f64),
    /// At the `nth` time that a commit comes to this step.
    Step { step: Step, nth: u64, late: Late },
}

/// Where a commit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Rows are on their way to the broker.
    Rows,
    /// The position is on its way.
    Position,
    /// The position is in the log, and the program does not know.
    PositionDone,
    /// The commit is on its way.
    Commit,
    /// It is committed, and the program does not know.
    CommitDone,
}

/// What becomes of a request that was on its way when its sender was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// It is lost.
    Never,
    /// It arrives when the next run begins.
    AtNextStart,
    /// It arrives when the next run has ended.
    AtNextEnd,
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The program; it is started again.
    Program,
    /// The broker; it is started again, and the program has to go on by itself.
    Broker,
    /// Both.
    Both,
}

/// What the command line says about all cycles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of a cycle, give or take a half.
    pub(crate) rows: u32,
    /// The most partitions.
    pub(crate) partitions: u32,
    /// Of a hundred kills, how many are of the broker too.
    pub(crate) broker_kills: u64,
    /// Whether there is a reader of Avro.
    pub(crate) with_avro: bool,
}

impl Plan {
    /// The plan of the cycle `index` of a campaign.
    pub(crate) fn new(campaign: u64, index: u64, limits: Limits) -> Self {
        let mut random = Random::new(campaign);
        let first = random.next_u64();
        let mut random = Random::new(first ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seed = random.next_u64();
        let chance = |random: &mut Random, percent: u64| random.below(100) < percent;
        let shape = Shape {
            is_grouped: chance(&mut random, 30),
            is_avro: chance(&mut random, 30) && limits.with_avro,
        };
        let rows = limits.rows / 2 + below(&mut random, limits.rows.max(1));
        let mut interruptions = vec![Interruption {
            moment: moment(&mut random),
            victim: victim(&mut random, limits),
        }];
        while interruptions.len() < 4 && chance(&mut random, 30) {
            interruptions.push(Interruption {
                moment: if chance(&mut random, 75) {
                    Moment::Soon(share(&mut random))
                } else {
                    moment(&mut random)
                },
                victim: victim(&mut random, limits),
            });
        }
        Self {
            index,
            seed,
            shape,
            // Python decodes a tenth as fast as kcat copies.
            rows: if shape.is_avro { rows / 4 } else { rows }.max(1),
            keys: 1 + below(&mut random, 300),
            partitions: 1 + below(&mut random, limits.partitions.max(1)),
            bad: if chance(&mut random, 40) {
                1 + below(&mut random, 100)
            } else {
                0
            },
            commit_interval: Duration::from_millis(1 + random.below(20)),
            interruptions,
            again: chance(&mut random, 25),
        }
    }
}

fn below(random: &mut Random, limit: u32) -> u32 {
    u32::try_from(random.below(u64::from(limit))).unwrap_or(0)
}

/// From 0 to 1, in ten thousand steps.
fn share(random: &mut Random) -> f64 {
    f64::from(below(random, 10_000)) / 10_000.0
}

fn moment(random: &mut Random) -> Moment {
    if random.below(100) < 55 {
        return Moment::Share(share(random));
    }
    let steps = [
        Step::Rows,
        Step::Position,
        Step::PositionDone,
        Step::Commit,
        Step::CommitDone,
    ];
    let lates = [Late::Never, Late::AtNextStart, Late::AtNextEnd];
    let step = steps[usize::try_from(random.below(5)).unwrap_or(0)];
    let late = lates[usize::try_from(random.below(3)).unwrap_or(0)];
    Moment::Step {
        step,
        nth: 1 + random.below(4),
        late: match step {
            Step::PositionDone | Step::CommitDone => Late::Never,
            _ => late,
        },
    }
}

fn victim(random: &mut Random, limits: Limits) -> Victim {
    match random.below(200) {
        chosen if chosen < limits.broker_kills => Victim::Both,
        chosen if chosen < 2 * limits.broker_kills => Victim::Broker,
        _ => Victim::Program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        rows: 1000,
        partitions: 6,
        broker_kills: 20,
        with_avro: true,
    };

    #[test]
    fn a_seed_is_a_plan() {
        let plans = |seed| (0..50).map(move |index| Plan::new(seed, index, LIMITS));
        assert!(plans(7).eq(plans(7)));
        assert!(!plans(7).eq(plans(8)));
        // A cycle is the same whichever came before it.
        assert_eq!(Plan::new(7, 30, LIMITS), plans(7).nth(30).unwrap());
    }

    #[test]
    fn plans_are_of_every_kind() {
        let plans: Vec<Plan> = (0..500).map(|index| Plan::new(1, index, LIMITS)).collect();
        let some = |holds: &dyn Fn(&Plan) -> bool| plans.iter().any(holds);
        assert!(some(&|plan| plan.shape.is_avro && plan.shape.is_grouped));
        assert!(some(&|plan| plan.bad == 0) && some(&|plan| plan.bad > 0));
        assert!(some(&|plan| plan.interruptions.len() == 1));
        assert!(some(&|plan| plan.interruptions.len() > 2));
        for victim in [Victim::Program, Victim::Broker, Victim::Both] {
            assert!(some(&|plan| plan.interruptions[0].victim == victim));
        }
        for wanted in [
            Step::Rows,
            Step::Position,
            Step::PositionDone,
            Step::Commit,
            Step::CommitDone,
        ] {
            assert!(some(&|plan| matches!(
                plan.interruptions[0].moment,
                Moment::Step { step, .. } if step == wanted
            )));
        }
    }
}
