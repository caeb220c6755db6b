//! What a seed decides: the loads of each round, and which faults befall them, in which order and with which pauses. Where in a load a fault strikes
//! depends on the machine.

use std::time::Duration;

use tidegate_testkit::proxy::ApiKey;
use tidegate_testkit::usage::Random;

/// How long a round is disturbed.
const PHASE: Duration = Duration::from_secs(20);
/// Of a hundred rounds, in how many each lane is quiet.
const QUIET: u64 = 20;

/// Something that happens after a pause, and is undone after a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step<F> {
    pub(crate) pause: Duration,
    pub(crate) fault: F,
    pub(crate) lasts: Duration,
}

/// What befalls the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgramFault {
    /// `kill -9`; it runs again when that has lasted.
    Killed,
    /// Asked to end by SIGINT or SIGTERM; it runs again when that has lasted.
    Interrupted,
    Terminated,
    /// SIGSTOP; SIGCONT when that has lasted.
    Suspended,
    /// The same command runs a second time beside it.
    SecondRun,
}

/// What befalls the brokers. Nodes are counted from 0 and taken modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerFault {
    Killed(usize),
    Stopped(usize),
    Frozen(usize),
    /// All but this one: no majority, and too few replicas in sync.
    AllButOneKilled(usize),
    /// Another replica leads this partition, of those the topic has.
    LeaderMoved(i32),
}

/// What befalls the line between the program and the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineFault {
    Lost,
    Delayed(Duration),
    /// Held back as long as it lasts; with `kill` the program is killed meanwhile, so that what was held arrives late, from a dead run.
    Held {
        kill: bool,
    },
    Reset,
    HalfOpen,
    /// Bytes a second.
    Slow(u64),
    /// New connections are refused.
    Refused,
    /// All connections are reset at once.
    AllReset,
}

/// A fault of the line, and which frames it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) fault: LineFault,
    pub(crate) on_answer: bool,
    /// Requests of any kind without it.
    pub(crate) api_key: Option<ApiKey>,
    /// The first of them that are spared.
    pub(crate) spared: u64,
    /// How many are hit at most.
    pub(crate) times: u64,
}

impl ProgramFault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed => "program killed",
            Self::Interrupted => "SIGINT",
            Self::Terminated => "SIGTERM",
            Self::Suspended => "program suspended",
            Self::SecondRun => "second run of the job",
        }
    }
}

impl BrokerFault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed(_) => "node killed",
            Self::Stopped(_) => "node stopped",
            Self::Frozen(_) => "node frozen",
            Self::AllButOneKilled(_) => "all nodes but one killed",
            Self::LeaderMoved(_) => "leader moved",
        }
    }
}

impl Line {
    pub(crate) fn name(self) -> &'static str {
        match (self.fault, self.on_answer) {
            (LineFault::Lost, false) => "request lost",
            (LineFault::Lost, true) => "answer lost",
            (LineFault::Delayed(_), false) => "request delayed",
            (LineFault::Delayed(_), true) => "answer delayed",
            (LineFault::Held { kill: false }, false) => "request held",
            (LineFault::Held { kill: false }, true) => "answer held",
            (LineFault::Held { kill: true }, _) => "request of a dead run held",
            (LineFault::Reset, false) => "reset in a request",
            (LineFault::Reset, true) => "reset in an answer",
            (LineFault::HalfOpen, _) => "half-open connection",
            (LineFault::Slow(_), _) => "slow line",
            (LineFault::Refused, _) => "connection refused",
            (LineFault::AllReset, _) => "all connections reset",
        }
    }
}

/// Who works off a load that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    /// The program's own `consume -g`.
    Program,
    /// A reader that shares no code with it, and an operator's commits.
    Reader,
}

/// How a file, or one of several, is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// One load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadPlan {
    /// Decides the content.
    pub(crate) seed: u64,
    pub(crate) rows: u32,
    pub(crate) keys: u64,
    /// Every so many rows one is bad; 0 for none.
    pub(crate) bad_every: u32,
    pub(crate) partitions: i32,
    pub(crate) files: Vec<Packing>,
    /// Who works it off, and the limit.
    pub(crate) held: Option<(Worker, u32)>,
    pub(crate) commit_interval: Duration,
    pub(crate) transaction_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
}

/// What happens in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoundPlan {
    pub(crate) phase: Duration,
    pub(crate) program: Vec<Step<ProgramFault>>,
    pub(crate) brokers: Vec<Step<BrokerFault>>,
    pub(crate) lines: [Vec<Step<Line>>; 2],
}

struct Dice(Random);

impl Dice {
    /// A sequence of its own for each `what` of each round.
    fn new(seed: u64, round: u64, what: u64) -> Self {
        let first = Random::new(seed).next_u64();
        let second = Random::new(first ^ round).next_u64();
        Self(Random::new(second ^ what))
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    fn milliseconds(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        let index = self.0.below(all.len() as u64);
        all[usize::try_from(index).unwrap()].clone()
    }

    /// Steps that fill the phase; none where the lane is quiet.
    fn lane<F>(&mut self, mut step: impl FnMut(&mut Self) -> Step<F>) -> Vec<Step<F>> {
        let mut steps = Vec::new();
        if self.chance(QUIET) {
            return steps;
        }
        let mut filled = Duration::ZERO;
        while filled < PHASE {
            let next = step(self);
            filled += next.pause + next.lasts;
            steps.push(next);
        }
        steps
    }

    fn program(&mut self) -> Step<ProgramFault> {
        use ProgramFault::{Interrupted, Killed, SecondRun, Suspended, Terminated};
        // Some come within 500 ms of the start.
        let pause = if self.chance(30) {
            self.milliseconds(20, 450)
        } else {
            self.milliseconds(300, 3_000)
        };
        let faults = [
            Killed,
            Killed,
            Interrupted,
            Terminated,
            Suspended,
            Suspended,
            SecondRun,
        ];
        let fault = self.one_of(&faults);
        let lasts = match fault {
            Killed | Interrupted | Terminated => self.milliseconds(0, 800),
            Suspended => self.milliseconds(200, 6_000),
            SecondRun => Duration::ZERO,
        };
        Step {
            pause,
            fault,
            lasts,
        }
    }

    fn brokers(&mut self, nodes: usize) -> Step<BrokerFault> {
        let node = usize::try_from(self.between(0, 5)).unwrap();
        let lasts = self.milliseconds(100, 6_000);
        let (fault, lasts) = match self.between(0, 9) {
            0..=2 => (BrokerFault::Killed(node), lasts),
            3 => (BrokerFault::Stopped(node), lasts),
            4 | 5 => (BrokerFault::Frozen(node), self.milliseconds(500, 9_000)),
            6 => (BrokerFault::AllButOneKilled(node), lasts),
            _ => {
                let partition = i32::try_from(self.between(0, 11)).unwrap();
                (BrokerFault::LeaderMoved(partition), Duration::ZERO)
            }
        };
        let fault = match fault {
            // A single node has nobody else.
            BrokerFault::AllButOneKilled(_) | BrokerFault::LeaderMoved(_) if nodes == 1 => {
                BrokerFault::Killed(node)
            }
            fault => fault,
        };
        Step {
            pause: self.milliseconds(300, 4_000),
            fault,
            lasts,
        }
    }

    fn line(&mut self) -> Step<Line> {
        let mut on_answer = self.chance(50);
        let (fault, lasts) = match self.between(0, 11) {
            0..=2 => (LineFault::Lost, self.milliseconds(200, 3_000)),
            3 => {
                let time = self.milliseconds(20, 3_000);
                (LineFault::Delayed(time), self.milliseconds(200, 3_000))
            }
            4 | 5 => {
                let kill = self.chance(60);
                on_answer &= !kill;
                (LineFault::Held { kill }, self.milliseconds(200, 6_000))
            }
            6 | 7 => (LineFault::Reset, self.milliseconds(200, 2_000)),
            8 => (LineFault::HalfOpen, self.milliseconds(200, 3_000)),
            9 => {
                let rate = self.one_of(&[8_000, 64_000, 400_000]);
                (LineFault::Slow(rate), self.milliseconds(500, 5_000))
            }
            10 => (LineFault::Refused, self.milliseconds(200, 4_000)),
            _ => (LineFault::AllReset, Duration::ZERO),
        };
        let api_keys = [
            None,
            Some(ApiKey::Produce),
            Some(ApiKey::Produce),
            Some(ApiKey::EndTxn),
            Some(ApiKey::EndTxn),
            Some(ApiKey::InitProducerId),
            Some(ApiKey::FindCoordinator),
            Some(ApiKey::Metadata),
        ];
        Step {
            pause: self.milliseconds(100, 2_500),
            fault: Line {
                fault,
                on_answer,
                api_key: self.one_of(&api_keys),
                spared: self.between(0, 3),
                times: self.one_of(&[1, 1, 2, 5, 1_000]),
            },
            lasts,
        }
    }
}

impl RoundPlan {
    /// Round `index` of a seed, on so many nodes.
    pub(crate) fn new(seed: u64, index: u64, nodes: usize) -> Self {
        let lane = |what| Dice::new(seed, index, what);
        Self {
            phase: PHASE,
            program: lane(1).lane(Dice::program),
            brokers: lane(2).lane(|dice| dice.brokers(nodes)),
            lines: [lane(3).lane(Dice::line), lane(4).lane(Dice::line)],
        }
    }
}

impl LoadPlan {
    /// The load `index` of a round of a seed.
    pub(crate) fn new(seed: u64, round: u64, index: u64) -> Self {
        let mut dice = Dice::new(seed, round, 100 + index);
        let rows = dice.between(50_000, 150_000);
        let worker = dice.one_of(&[Worker::Program, Worker::Reader, Worker::Reader]);
        let limit = u32::try_from(dice.between(rows / 10, rows / 2)).unwrap();
        let seconds = |all: &[u64], dice: &mut Dice| Duration::from_secs(dice.one_of(all));
        Self {
            seed: dice.0.next_u64(),
            rows: u32::try_from(rows).unwrap(),
            keys: dice.between(1, 500),
            bad_every: if dice.chance(40) {
                u32::try_from(dice.between(50, 5_000)).unwrap()
            } else {
                0
            },
            partitions: i32::try_from(dice.between(1, 4)).unwrap(),
            files: (0..dice.one_of(&[1, 1, 2, 3]))
                .map(|_| {
                    dice.one_of(&[Packing::Plain, Packing::Plain, Packing::Gzip, Packing::Zstd])
                })
                .collect(),
            held: dice.chance(35).then_some((worker, limit)),
            commit_interval: dice.milliseconds(0, 100),
            transaction_timeout: seconds(&[2, 4, 10, 60], &mut dice),
            request_timeout: seconds(&[1, 2, 5], &mut dice),
            delivery_timeout: seconds(&[15, 60, 600], &mut dice),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rounds(seed: u64) -> Vec<(RoundPlan, LoadPlan)> {
        let round = |index| {
            (
                RoundPlan::new(seed, index, 3),
                LoadPlan::new(seed, index, 1),
            )
        };
        (0..200).map(round).collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
        assert_ne!(rounds(7)[0], rounds(7)[1]);
        assert_ne!(LoadPlan::new(7, 1, 0), LoadPlan::new(7, 1, 1));
    }

    #[test]
    fn plans_have_every_kind_of_fault() {
        let mut names = BTreeSet::new();
        for (round, _) in rounds(1) {
            names.extend(round.program.iter().map(|step| step.fault.name()));
            names.extend(round.brokers.iter().map(|step| step.fault.name()));
            let lines = round.lines.iter().flatten();
            names.extend(lines.map(|step| step.fault.name()));
        }
        assert_eq!(names.len(), 5 + 5 + 13, "{names:?}");
        let single = RoundPlan::new(1, 0, 1).brokers;
        let is_for_many = |step: &Step<BrokerFault>| {
            matches!(
                step.fault,
                BrokerFault::AllButOneKilled(_) | BrokerFault::LeaderMoved(_)
            )
        };
        assert!(!single.iter().any(is_for_many));
    }
}
