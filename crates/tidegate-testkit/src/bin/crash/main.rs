//! The crash campaign: loads that are killed again and again, and what an independent reader finds of them.
//!
//! ```console
//! $ cargo run -p tidegate-testkit --bin crash -- --cycles 25 --seed 7 --broker embedded
//! ```
//!
//! Each cycle publishes a file with `tidegate publish`, kills the program with SIGKILL (some also twice in a row, or at a certain step of a
//! commit, or the broker too), runs the same command again until it is complete, and then counts what kcat or Python finds in the topic. Input
//! and plan of a cycle follow from seed and index alone; where exactly a kill strikes depends on the machine.

mod brokers;
mod cycle;
mod input;
mod judge;
mod plan;
mod reader;

use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::brokers::Brokers;
use crate::cycle::{Campaign, Outcome, Pace, check};
use crate::judge::Judgement;
use crate::plan::{Limits, Plan};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(30);

/// Kills loads and counts what is in the topic.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many cycles
    #[arg(long, default_value_t = 25)]
    cycles: u64,
    /// The first cycle, to run one again
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// What decides all inputs and plans [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Which broker
    #[arg(long, value_enum, default_value_t = Broker::Embedded)]
    broker: Broker,
    /// Use the Kafka at HOST:PORT, which is not killed, instead of starting one
    #[arg(long)]
    kafka: Option<String>,
    /// Registry for --broker kafka [default: one is started if Avro is asked for]
    #[arg(long)]
    registry: Option<String>,
    /// Rows of a file, give or take a half
    #[arg(long, default_value_t = 50_000)]
    rows: u32,
    /// The most partitions
    #[arg(long, default_value_t = 6)]
    partitions: u32,
    /// Of a hundred kills, how many are of the broker too [default: 10, Kafka 4]
    #[arg(long)]
    broker_kills: Option<u64>,
    /// A Python with confluent-kafka and fastavro: some cycles are Avro then
    #[arg(long)]
    python: Option<PathBuf>,
    /// Where to write the totals as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// The program under test [default: built beside this one]
    #[arg(long, env = "TIDEGATE_BIN")]
    tidegate: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Broker {
    /// `tidegate broker`, as a process
    Embedded,
    /// Apache Kafka
    Kafka,
}

/// What came of all cycles together.
#[derive(Debug, Default)]
struct Totals {
    cycles: u64,
    failed: u64,
    judgement: Judgement,
    kills: u64,
    double_kills: u64,
    step_kills: u64,
    broker_kills: u64,
    outages: u64,
    misses: u64,
    late_arrivals: u64,
    resumes: u64,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        self.judgement += &outcome.judgement;
        self.kills += outcome.kills;
        self.double_kills += outcome.double_kills;
        self.step_kills += outcome.step_kills;
        self.broker_kills += outcome.broker_kills;
        self.outages += outcome.outages;
        self.misses += outcome.misses;
        self.late_arrivals += outcome.late_arrivals;
        self.resumes += outcome.resumes;
    }

    fn named(&self) -> [(&'static str, u64); 14] {
        let judgement = &self.judgement;
        [
            ("cycles", self.cycles),
            ("kills that hit", self.kills),
            ("double kills", self.double_kills),
            ("at a step of a commit", self.step_kills),
            ("broker kills", self.broker_kills),
            ("loads ended by that", self.outages),
            ("kills too late", self.misses),
            ("late requests", self.late_arrivals),
            ("resumes", self.resumes),
            ("rows checked", judgement.rows),
            ("lost", judgement.lost),
            ("duplicates", judgement.doubled),
            ("out of order", judgement.disordered),
            ("wrong contents", judgement.wrong),
        ]
    }

    fn line(&self) -> String {
        let parts = self.named().map(|(name, count)| format!("{name} {count}"));
        parts.join(", ")
    }
}

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(seed_of_the_clock);
    let limits = Limits {
        rows: arguments.rows,
        partitions: arguments.partitions,
        broker_kills: match (arguments.broker, &arguments.kafka) {
            // Not ours to kill.
            (Broker::Kafka, Some(_)) => 0,
            (Broker::Kafka, None) => arguments.broker_kills.unwrap_or(4),
            (Broker::Embedded, _) => arguments.broker_kills.unwrap_or(10),
        },
        with_avro: arguments.python.is_some(),
    };
    let folder = tempfile::Builder::new()
        .prefix("tidegate-crash-")
        .tempdir()?;
    let mut campaign = prepare(&arguments, seed, folder.path().to_owned())?;
    say(&format!(
        "seed {seed}, {} cycles on {:?}",
        arguments.cycles, arguments.broker
    ))?;
    let started = Instant::now();
    let totals = run(&mut campaign, &arguments, seed, limits)?;
    drop(campaign);
    say(&format!(
        "seed {seed}: {} ({:.0} s)",
        totals.line(),
        started.elapsed().as_secs_f64()
    ))?;
    if let Some(path) = &arguments.report {
        write_report(path, seed, &arguments, &totals, started.elapsed())?;
    }
    if totals.failed > 0 {
        say(&format!(
            "{} cycles FAILED; their files are in {}",
            totals.failed,
            folder.keep().display()
        ))?;
        return Ok(ExitCode::FAILURE);
    }
    if totals.kills == 0 || (totals.cycles >= 25 && totals.step_kills == 0) {
        say("no kill hit an unfinished load, or none a step of a commit: nothing was tested")?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn prepare(arguments: &Arguments, seed: u64, folder: PathBuf) -> io::Result<Campaign> {
    let program = match &arguments.tidegate {
        Some(program) => program.clone(),
        None => build()?,
    };
    let brokers = match (arguments.broker, &arguments.kafka) {
        (Broker::Embedded, _) => Brokers::embedded(&program, &folder)?,
        (Broker::Kafka, Some(bootstrap)) => Brokers::given(bootstrap, arguments.registry.clone()),
        (Broker::Kafka, None) => {
            Brokers::kafka(arguments.registry.clone(), arguments.python.is_some())?
        }
    };
    let name = tidegate_testkit::unique_name(&format!("crash-{seed}"));
    Ok(Campaign {
        brokers,
        program,
        python: arguments.python.clone(),
        name,
        folder,
        pace: Pace::default(),
    })
}

fn run(
    campaign: &mut Campaign,
    arguments: &Arguments,
    seed: u64,
    limits: Limits,
) -> io::Result<Totals> {
    let mut totals = Totals::default();
    let mut told = Instant::now();
    for index in arguments.first..arguments.first + arguments.cycles {
        let plan = Plan::new(seed, index, limits);
        // The launchers panic where a test would fail.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| campaign.run(&plan)));
        let result = result.unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
        totals.cycles += 1;
        if let Ok(outcome) = &result {
            totals.add(outcome);
        }
        if let Err(what) = result.and_then(|outcome| check(&outcome.judgement)) {
            totals.failed += 1;
            say(&format!(
                "cycle {index} of seed {seed} FAILED: {what}\n{plan:?}\nagain: cargo run -p tidegate-testkit --bin crash -- {}",
                replay(arguments, seed, index)
            ))?;
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            say(&totals.line())?;
        }
    }
    Ok(totals)
}

/// The options that make the same cycle again.
fn replay(arguments: &Arguments, seed: u64, index: u64) -> String {
    let broker = format!("{:?}", arguments.broker).to_lowercase();
    let mut line = format!(
        "--seed {seed} --first {index} --cycles 1 --broker {broker} --rows {} --partitions {}",
        arguments.rows, arguments.partitions
    );
    if let Some(broker_kills) = arguments.broker_kills {
        line.push_str(&format!(" --broker-kills {broker_kills}"));
    }
    if let Some(python) = &arguments.python {
        line.push_str(&format!(" --python {}", python.display()));
    }
    line
}

/// Builds the program as this one was built, and says where it is.
fn build() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own
        .parent()
        .ok_or_else(|| io::Error::other("this program is nowhere"))?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "tidegate"]);
        if folder.ends_with("release") {
            command.arg("--release");
        }
        if !command.status()?.success() {
            return Err(io::Error::other("tidegate cannot be built"));
        }
    }
    let program = folder.join("tidegate");
    if program.exists() {
        return Ok(program);
    }
    Err(io::Error::other(format!(
        "{} is not there: build it, or set TIDEGATE_BIN",
        program.display()
    )))
}

fn write_report(
    path: &std::path::Path,
    seed: u64,
    arguments: &Arguments,
    totals: &Totals,
    elapsed: Duration,
) -> io::Result<()> {
    let mut report = json!({
        "seed": seed,
        "broker": format!("{:?}", arguments.broker).to_lowercase(),
        "seconds": elapsed.as_secs(),
        "failed cycles": totals.failed,
    });
    for (name, count) in totals.named() {
        report[name] = json!(count);
    }
    std::fs::write(path, format!("{report:#}\n"))
}

fn seed_of_the_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ since.as_secs()
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
