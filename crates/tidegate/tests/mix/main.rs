//! T34, a random mix of all faults: loads run while the program, the brokers and the line between them are disturbed by what a seed has planned. Then
//! all is healed, and every row must be there once, in order, with its content.
//!
//! `TIDEGATE_MIX_SECONDS` says for how long rounds are begun (30 s for each kind of broker), `TIDEGATE_MIX_SEED` which plan it is. The same seed gives the
//! same loads and faults in the same order; where in a load a fault strikes depends on the machine.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests, which fail by panicking and tell how far they are"
)]

mod book;
mod brokers;
#[path = "../common/mod.rs"]
mod common;
mod crew;
mod lanes;
mod load;
mod plan;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::proxy::Proxy;
use tidegate_testkit::usage::Random;
use tidegate_testkit::{services, unique_name};

use book::Shared;
use brokers::{Brokers, Embedded};
use crew::{Actor, Codes, Crew, Standing};
use load::Load;
use plan::{LoadPlan, RoundPlan};

const SECONDS: u64 = 30;
const TICK: Duration = Duration::from_millis(10);
/// How soon there must be progress when all is healed. Meant are 30 s; here others use the machine too.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(90);
/// How soon a load must be complete then.
const COMPLETION_PATIENCE: Duration = Duration::from_secs(300);

/// What came of all rounds.
#[derive(Default)]
struct Totals {
    counts: Counts,
    recoveries: Vec<Duration>,
    codes: Codes,
    rounds: u64,
    loads: u64,
    /// Loads that could not be gone on with, for the cluster has lost the end of a transaction.
    lost_ends: u64,
}

/// The mix on some brokers.
struct Mix {
    seed: u64,
    brokers: Brokers,
    shared: Shared,
    totals: Totals,
}

/// A round that goes on.
struct Round {
    index: u64,
    plan: RoundPlan,
    proxy: Proxy,
    positions: String,
    /// Loads that are complete and not yet checked.
    done: Vec<Load>,
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {value}")))
}

impl Mix {
    fn new(brokers: Brokers) -> Self {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        let random =
            || Random::new(u64::try_from(now.as_nanos() & 0xffff_ffff).unwrap()).next_u64();
        let mut mix = Self {
            seed: number("TIDEGATE_MIX_SEED").unwrap_or_else(|| random() >> 32),
            brokers,
            shared: Shared::new(),
            totals: Totals::default(),
        };
        mix.shared.set_answering(mix.brokers.answering());
        mix
    }

    /// Runs rounds until the time is over; gives what came of them as a cell.
    fn run(mut self) -> Cell {
        let seconds = number("TIDEGATE_MIX_SECONDS").unwrap_or(SECONDS);
        let (seed, name) = (self.seed, self.brokers.name());
        eprintln!("on {name} for {seconds} s: TIDEGATE_MIX_SEED={seed}");
        let started = Instant::now();
        let mut index = 0;
        while index == 0 || started.elapsed() < Duration::from_secs(seconds) {
            let round = catch_unwind(AssertUnwindSafe(|| self.round(index)));
            if let Err(panic) = round {
                let events = self.shared.events();
                eprintln!("TIDEGATE_MIX_SEED={seed}, round {index} failed; before that:\n{events}");
                resume_unwind(panic);
            }
            index += 1;
        }
        self.tell(started.elapsed());
        assert_eq!(self.shared.complaints(), 0, "see above what is WRONG");
        let Totals {
            counts,
            recoveries,
            codes,
            ..
        } = self.totals;
        let fired = self.shared.fired().values().sum();
        let cell = Cell::new(34, "a random mix of all")
            .on_broker(&name)
            .seed(seed)
            .fired(fired)
            .counts(counts)
            .recovered(recoveries);
        codes.keys().fold(cell, |cell, code| cell.code(*code))
    }

    fn tell(&self, elapsed: Duration) {
        let Totals {
            counts,
            recoveries,
            codes,
            rounds,
            loads,
            lost_ends,
        } = &self.totals;
        let longest = recoveries.iter().max();
        eprintln!(
            "seed {}, {} s: {rounds} rounds, {loads} loads, {counts:?}, {lost_ends} lost ends of transactions\nexit codes {codes:?}\nlongest recovery {longest:?} of {}\nfired {:#?}\nbesides {:?}",
            self.seed,
            elapsed.as_secs(),
            recoveries.len(),
            self.shared.fired(),
            self.shared.counted(),
        );
    }

    fn round(&mut self, index: u64) {
        let started = Instant::now();
        let mut round = Round {
            index,
            plan: RoundPlan::new(self.seed, index, self.brokers.nodes()),
            proxy: Proxy::start(&self.brokers.bootstrap()).unwrap(),
            positions: unique_name("mix-positions"),
            done: Vec::new(),
        };
        self.shared.set_over(false);
        self.disturb(&mut round);
        let recovery = self.totals.recoveries.last().copied();
        let disturbed = started.elapsed();
        let loads = round.done.len();
        let before = self.totals.counts.rows;
        self.check(round);
        self.totals.rounds += 1;
        eprintln!(
            "round {index}: {loads} loads, {} rows, disturbed and healed {disturbed:.1?}, recovery {recovery:.1?}, in all {:.1?}",
            self.totals.counts.rows - before,
            started.elapsed(),
        );
    }

    /// Has loads run while the lanes are at work, and the last of them complete when these are done.
    fn disturb(&mut self, round: &mut Round) {
        let Self {
            seed,
            brokers,
            shared,
            totals,
        } = self;
        let (shared, proxy, plan) = (&*shared, &round.proxy, &round.plan);
        let bootstrap = brokers.bootstrap();
        thread::scope(|scope| {
            // Also where something fails: the lanes end soon then.
            let _ends = OnDrop(|| shared.set_over(true));
            let mut disturbance = Disturbance {
                until: Instant::now() + plan.phase,
                actor: Actor::new(&plan.program),
                brokers: Some(scope.spawn(move || {
                    lanes::brokers(brokers, &plan.brokers, shared);
                    brokers
                })),
                lines: (plan.lines.iter())
                    .map(|steps| scope.spawn(move || lanes::line(proxy, steps, shared)))
                    .collect(),
                healed: None,
            };
            for index in 0.. {
                let load = Load::new(LoadPlan::new(*seed, round.index, index), &round.positions);
                shared.set_topic(&load.topic, load.plan.partitions);
                shared.tell(&format!("{}: {:?}", load.topic, load.plan));
                let (standing, codes) =
                    disturbance.run(&load, proxy.bootstrap(), &bootstrap, shared);
                for (code, count) in codes {
                    *totals.codes.entry(code).or_insert(0) += count;
                }
                match standing {
                    Standing::Lost => totals.lost_ends += 1,
                    _ => round.done.push(load),
                }
                if let Some(healed) = &disturbance.healed {
                    totals.recoveries.extend(healed.progress);
                    break;
                }
            }
        });
    }

    /// Checks the loads of a round, and removes them.
    fn check(&mut self, round: Round) {
        let bootstrap = self.brokers.bootstrap();
        // The end of all connections through it.
        drop(round.proxy);
        let mut topics = vec![round.positions];
        for load in round.done {
            let found = load.check(&self.shared, &bootstrap);
            let is_whole = found == Counts::whole(found.rows);
            assert!(is_whole, "{}: {found:?}, {:?}", load.topic, load.plan);
            self.totals.counts.rows += found.rows;
            self.totals.loads += 1;
            topics.push(load.topic);
        }
        self.brokers.delete_topics(&topics).unwrap();
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// All that goes on beside the loads of a round.
struct Disturbance<'scope> {
    until: Instant,
    actor: Actor,
    brokers: Option<ScopedJoinHandle<'scope, &'scope mut Brokers>>,
    lines: Vec<ScopedJoinHandle<'scope, ()>>,
    healed: Option<Healed<'scope>>,
}

/// All is well again.
struct Healed<'scope> {
    brokers: &'scope mut Brokers,
    since: Instant,
    /// The first end of the topic that was found since.
    end: Option<i64>,
    /// When there was progress.
    progress: Option<Duration>,
}

impl Disturbance<'_> {
    /// Runs a load to its end.
    fn run(
        &mut self,
        load: &Load,
        proxied: &str,
        bootstrap: &str,
        shared: &Shared,
    ) -> (Standing, Codes) {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let _ends = OnDrop(|| done.store(true, Ordering::SeqCst));
            let worker = scope.spawn(|| load.work_off(bootstrap, shared, &done));
            let mut crew = Crew::new(load, proxied, shared);
            loop {
                let standing = crew.tick();
                if standing != Standing::UnderWay {
                    if let Some(healed) = &mut self.healed {
                        healed.progress.get_or_insert(healed.since.elapsed());
                    }
                    return (standing, crew.codes());
                }
                let is_left = load.plan.held.is_some() && worker.is_finished();
                assert!(!is_left, "nobody works the load off any more");
                if self.healed.is_none() {
                    self.go_on(&mut crew, shared);
                }
                if let Some(healed) = &mut self.healed {
                    healed.look(load, &crew);
                }
                thread::sleep(TICK);
            }
        })
    }

    /// Disturbs the runs as long as that is planned, and then waits for the lanes.
    fn go_on(&mut self, crew: &mut Crew<'_>, shared: &Shared) {
        if Instant::now() < self.until {
            self.actor.act(crew);
            return;
        }
        shared.set_over(true);
        let brokers = self.brokers.as_ref();
        let is_over = brokers.is_some_and(ScopedJoinHandle::is_finished)
            && self.lines.iter().all(ScopedJoinHandle::is_finished);
        if !is_over {
            return;
        }
        let lines = self.lines.drain(..).map(ScopedJoinHandle::join);
        lines.for_each(Result::unwrap);
        crew.resume();
        shared.tell("healed");
        self.healed = self.brokers.take().map(|brokers| Healed {
            brokers: brokers.join().unwrap(),
            since: Instant::now(),
            end: None,
            progress: None,
        });
    }
}

impl Healed<'_> {
    /// Sees whether the load has gone on, and whether that is soon enough.
    fn look(&mut self, load: &Load, crew: &Crew<'_>) {
        let since = self.since.elapsed();
        let is_late = since > COMPLETION_PATIENCE;
        assert!(
            !is_late,
            "not complete after {since:?}: {}",
            crew.describe()
        );
        if self.progress.is_some() {
            return;
        }
        let is_late = since > PROGRESS_PATIENCE;
        assert!(!is_late, "no progress after {since:?}: {}", crew.describe());
        if let Some(end) = self.brokers.end(&load.topic, load.plan.partitions) {
            let before = *self.end.get_or_insert(end);
            self.progress = (end > before).then_some(since);
        }
    }
}

/// The mix on real Kafka and that on the embedded broker take turns.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn t34_a_random_mix_of_all_faults() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(kafka) = services::replicated_kafka("") else {
        return;
    };
    Mix::new(Brokers::Replicated(Box::new(kafka)))
        .run()
        .record();
}

#[test]
fn t34_a_random_mix_of_all_faults_on_the_embedded_broker() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Mix::new(Brokers::Embedded(Embedded::start()))
        .run()
        .record();
}
