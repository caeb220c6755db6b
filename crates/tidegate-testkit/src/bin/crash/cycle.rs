//! One cycle: a file is published, what its plan says is killed, and it is published again until it is complete; then all is judged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tidegate_testkit::proxy::{ActiveRule, ApiKey, Proxy, Rule, Verb};
use tidegate_testkit::{Finished, Running, Tidegate};

use crate::brokers::Brokers;
use crate::input::{Input, schema};
use crate::judge::{Judgement, judge};
use crate::plan::{Interruption, Late, Moment, Plan, Shape, Step, Victim};
use crate::reader::Reader;

/// Roughly what a load takes that has no rows.
const STARTUP: f64 = 0.03;
/// How long after its start a run is killed at most, if it is to be soon.
const SOON: f64 = 0.5;
const LATE_PATIENCE: Duration = Duration::from_secs(5);
/// The exit code of a load that cannot reach the broker.
const UNREACHABLE: i32 = 4;
const POSITIONS: &str = "tidegate-positions";

/// What a campaign has for all its cycles.
pub(crate) struct Campaign {
    pub(crate) brokers: Brokers,
    pub(crate) program: PathBuf,
    pub(crate) python: Option<PathBuf>,
    /// Begins the names of topics.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) pace: Pace,
}

/// How long undisturbed loads take, in seconds a row.
#[derive(Debug, Default)]
pub(crate) struct Pace(BTreeMap<Shape, f64>);

impl Pace {
    fn note(&mut self, plan: &Plan, elapsed: Duration) {
        let found = (elapsed.as_secs_f64() - STARTUP).max(0.001) / f64::from(plan.rows);
        let pace = self.0.entry(plan.shape).or_insert(found);
        // Nearer to the shortest than to the mean: a kill that comes too late has tested nothing.
        *pace = found.min(*pace * 0.9 + found * 0.1);
    }

    fn expected(&self, plan: &Plan) -> Option<f64> {
        let pace = self.0.get(&plan.shape)?;
        Some(STARTUP + pace * f64::from(plan.rows))
    }
}

/// What came of a cycle.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) judgement: Judgement,
    /// Kills of the program that hit an unfinished load.
    pub(crate) kills: u64,
    /// Of these, those within 500 ms of a start that followed another one.
    pub(crate) double_kills: u64,
    /// Of all kills, those at a certain step of a commit.
    pub(crate) step_kills: u64,
    /// Kills of the broker while a load was going on.
    pub(crate) broker_kills: u64,
    /// Of these, those after which it stayed away for so long that the load ended.
    pub(crate) outages: u64,
    /// Kills that came after the end of the load.
    pub(crate) misses: u64,
    /// Requests of dead runs that the broker got and answered later.
    pub(crate) late_arrivals: u64,
    /// Runs that went on behind the first row.
    pub(crate) resumes: u64,
}

impl Campaign {
    /// Runs the cycle of a plan; the error says what is wrong, and the cycle's files are still there.
    pub(crate) fn run(&mut self, plan: &Plan) -> Result<Outcome, String> {
        if self.pace.expected(plan).is_none() {
            let calm = Plan {
                interruptions: Vec::new(),
                ..plan.clone()
            };
            let outcome = self.run_in_folder(&calm, "pace")?;
            check(&outcome.judgement)?;
        }
        self.run_in_folder(plan, "cycle")
    }

    fn run_in_folder(&mut self, plan: &Plan, what: &str) -> Result<Outcome, String> {
        let folder = self.folder.join(format!("{what}-{}", plan.index));
        fs::create_dir_all(&folder).map_err(told)?;
        let input = Input::new(plan);
        input.write(&folder.join("input.csv")).map_err(told)?;
        fs::write(folder.join("schema.avsc"), schema(plan.shape.is_grouped)).map_err(told)?;
        let mut cycle = Cycle {
            topic: format!("{}-{what}-{}", self.name, plan.index),
            plan,
            input,
            folder: folder.clone(),
            campaign: self,
            late: Vec::new(),
            outcome: Outcome::default(),
            runs: 0,
        };
        cycle.publish()?;
        cycle.judge()?;
        let Cycle { topic, outcome, .. } = cycle;
        if outcome.judgement.is_clean() {
            self.brokers.delete_topic(&topic).map_err(told)?;
            fs::remove_dir_all(&folder).map_err(told)?;
        }
        Ok(outcome)
    }
}

/// An error if something is lost, doubled, out of order or wrong.
pub(crate) fn check(judgement: &Judgement) -> Result<(), String> {
    if judgement.is_clean() {
        return Ok(());
    }
    Err(format!(
        "{} rows lost, {} doubled, {} out of order, {} wrong:\n  {}",
        judgement.lost,
        judgement.doubled,
        judgement.disordered,
        judgement.wrong,
        judgement.told.join("\n  ")
    ))
}

fn told(error: std::io::Error) -> String {
    error.to_string()
}

/// A cycle that is going on.
struct Cycle<'a> {
    plan: &'a Plan,
    campaign: &'a mut Campaign,
    input: Input,
    topic: String,
    folder: PathBuf,
    /// What was on its way when its sender was killed.
    late: Vec<LateRequest>,
    outcome: Outcome,
    runs: u32,
}

/// A request that the proxy holds for a program that is dead.
struct LateRequest {
    rule: ActiveRule,
    when: Late,
    /// The broker's, to which the request's connection leads.
    generation: u64,
    is_released: bool,
    _proxy: Proxy,
}

impl Cycle<'_> {
    /// Publishes until everything is there.
    fn publish(&mut self) -> Result<(), String> {
        let mut was_hit = false;
        for interruption in &self.plan.interruptions {
            let is_hit = self.interrupt(interruption)?;
            let is_soon = matches!(interruption.moment, Moment::Soon(_));
            self.outcome.double_kills += u64::from(is_hit && was_hit && is_soon);
            was_hit = is_hit;
        }
        let running = self.start(&self.campaign.brokers.bootstrap.clone());
        let finished = self.finish(running)?;
        if self.plan.interruptions.is_empty() {
            self.campaign.pace.note(self.plan, finished.elapsed);
        }
        self.check_summary(&finished)?;
        if self.plan.again {
            let running = self.start(&self.campaign.brokers.bootstrap.clone());
            let finished = self.finish(running)?;
            self.check_summary(&finished)?;
            if summary(&finished)?["status"] != "already-published" {
                return Err(format!("run again, it should do nothing\n{finished}"));
            }
        }
        Ok(())
    }

    fn start(&mut self, bootstrap: &str) -> Running {
        let plan = self.plan;
        self.runs += 1;
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Tidegate::new(&self.campaign.program)
            .args(["publish", &path("input.csv"), "-t", &self.topic])
            .args(["-b", bootstrap, "--create-topic"])
            .args(["--partitions", &plan.partitions.to_string()])
            .args(["--schema", &path("schema.avsc")])
            .arg("--commit-interval")
            .arg(format!("{}ms", plan.commit_interval.as_millis()))
            .args(["-o", "json", "--no-progress"]);
        if let Some(registry) = &self.campaign.brokers.registry {
            command = command.args(["--registry", registry]);
        }
        if !plan.shape.is_avro {
            command = command.args(["--format", "json"]);
        }
        command = command.args(if plan.shape.is_grouped {
            ["--group-by", "device"]
        } else {
            ["--key", "device"]
        });
        if plan.bad > 0 {
            command = command.args(["--rejects", &path("rejects.jsonl")]);
        }
        let running = command.start();
        self.release(Late::AtNextStart);
        running
    }

    /// One run that is killed at its moment; whether the kill hit an unfinished load.
    fn interrupt(&mut self, interruption: &Interruption) -> Result<bool, String> {
        let bootstrap = self.campaign.brokers.bootstrap.clone();
        let expected = self.campaign.pace.expected(self.plan).unwrap_or(STARTUP);
        let delay = match interruption.moment {
            Moment::Share(share) => expected * share,
            Moment::Soon(share) => expected.min(SOON) * share,
            Moment::Step { step, nth, late } => {
                return self.interrupt_at_step(step, nth, late, interruption.victim);
            }
        };
        let running = self.start(&bootstrap);
        std::thread::sleep(Duration::from_secs_f64(delay));
        self.strike(running, interruption.victim)
    }

    fn interrupt_at_step(
        &mut self,
        step: Step,
        nth: u64,
        when: Late,
        victim: Victim,
    ) -> Result<bool, String> {
        let proxy = Proxy::start(&self.campaign.brokers.bootstrap).map_err(told)?;
        let rule = match step {
            Step::Rows => Rule::new(ApiKey::Produce, Verb::Hold).topic(&self.topic),
            Step::Position => Rule::new(ApiKey::Produce, Verb::Hold).topic(POSITIONS),
            Step::PositionDone => Rule::new(ApiKey::Produce, Verb::Drop)
                .topic(POSITIONS)
                .on_answer(),
            Step::Commit => Rule::new(ApiKey::EndTxn, Verb::Hold),
            Step::CommitDone => Rule::new(ApiKey::EndTxn, Verb::Drop).on_answer(),
        };
        let rule = proxy.inject(rule.nth(nth));
        let generation = self.campaign.brokers.generation;
        let mut running = self.start(proxy.bootstrap());
        while !rule.wait_fired(1, Duration::from_millis(5)) && running.is_running() {}
        let is_hit = self.strike(running, victim)?;
        self.outcome.step_kills += u64::from(is_hit && rule.fired() > 0);
        if when != Late::Never && rule.fired() > 0 {
            self.late.push(LateRequest {
                rule,
                when,
                generation,
                is_released: false,
                _proxy: proxy,
            });
        }
        Ok(is_hit)
    }

    /// Kills; whether an unfinished load was hit.
    fn strike(&mut self, mut running: Running, victim: Victim) -> Result<bool, String> {
        if victim == Victim::Program {
            let finished = running.kill();
            return self.note_killed(&finished);
        }
        let was_running = running.is_running();
        self.outcome.broker_kills += u64::from(was_running);
        self.campaign.brokers.kill();
        if victim == Victim::Both {
            let finished = running.kill();
            self.campaign.brokers.restart().map_err(told)?;
            return self.note_killed(&finished);
        }
        self.campaign.brokers.restart().map_err(told)?;
        let finished = running.finish();
        if finished.code == Some(UNREACHABLE) {
            // The broker was away for longer than the program waits, as Kafka can be: the next run goes on.
            self.keep_output(&finished);
            self.release(Late::AtNextEnd);
            self.outcome.outages += 1;
            return Ok(false);
        }
        self.ended(&finished)?;
        Ok(false)
    }

    fn note_killed(&mut self, finished: &Finished) -> Result<bool, String> {
        self.keep_output(finished);
        self.release(Late::AtNextEnd);
        match finished.code {
            None => {
                self.outcome.kills += 1;
                Ok(true)
            }
            Some(0) => {
                self.outcome.misses += 1;
                if self.runs == 1 {
                    self.campaign.pace.note(self.plan, finished.elapsed);
                }
                Ok(false)
            }
            Some(_) => Err(format!("a run failed\n{finished}")),
        }
    }

    /// The end of a run that is not killed.
    fn finish(&mut self, running: Running) -> Result<Finished, String> {
        let finished = running.finish();
        self.ended(&finished)?;
        Ok(finished)
    }

    /// A run has ended that must have completed.
    fn ended(&mut self, finished: &Finished) -> Result<(), String> {
        self.keep_output(finished);
        self.release(Late::AtNextEnd);
        if finished.code != Some(0) {
            return Err(format!("a run failed\n{finished}"));
        }
        let resumed_at = &summary(finished)?["resumed_at_row"];
        self.outcome.resumes += u64::from(resumed_at.as_u64().is_some_and(|row| row > 0));
        Ok(())
    }

    fn keep_output(&self, finished: &Finished) {
        let name = self.folder.join(format!("run-{}.txt", self.runs));
        // For whoever looks at a failure; nothing depends on it.
        fs::write(name, finished.to_string()).ok();
    }

    /// Lets late requests go whose time has come, and waits for those that must have arrived.
    fn release(&mut self, when: Late) {
        for late in &mut self.late {
            if late.when == when {
                late.rule.release();
                late.is_released = true;
            }
        }
        if when != Late::AtNextEnd {
            return;
        }
        let generation = self.campaign.brokers.generation;
        let (arrived, waiting) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|late| late.is_released);
        self.late = waiting;
        for late in arrived {
            // The connection to a broker that was killed leads nowhere.
            if late.generation == generation && late.rule.wait_answered(1, LATE_PATIENCE) {
                self.outcome.late_arrivals += 1;
            }
        }
    }

    /// The closing summary must say what the input says.
    fn check_summary(&self, finished: &Finished) -> Result<(), String> {
        let summary = summary(finished)?;
        let count = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok());
        let rows = &summary["rows"];
        let (total, rejected) = (self.input.rows.len(), self.input.rejected.len());
        let expected = [
            ("rows.read", &rows["read"], total),
            ("rows.accepted", &rows["accepted"], total - rejected),
            ("rows.rejected", &rows["rejected"], rejected),
            (
                "records.delivered",
                &summary["records"]["delivered"],
                self.input.records(),
            ),
        ];
        for (name, told, right) in expected {
            if count(told) != Some(right) {
                return Err(format!("{name} should be {right}\n{finished}"));
            }
        }
        let status = &summary["status"];
        if status != "complete" && status != "already-published" {
            return Err(format!("the status should be complete\n{finished}"));
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), String> {
        let reader = Reader {
            bootstrap: self.campaign.brokers.bootstrap.clone(),
            registry: self.campaign.brokers.registry.clone(),
            python: self.campaign.python.clone(),
        };
        let found = reader.read(&self.topic, self.plan.shape.is_avro)?;
        let rejects = read_rejects(&self.folder.join("rejects.jsonl"), self.plan.bad > 0)?;
        self.outcome.judgement = judge(&self.input, self.plan.shape.is_grouped, &found, &rejects);
        Ok(())
    }
}

fn read_rejects(path: &Path, is_asked_for: bool) -> Result<String, String> {
    if !is_asked_for {
        return Ok(String::new());
    }
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn summary(finished: &Finished) -> Result<Value, String> {
    serde_json::from_str(&finished.stdout)
        .map_err(|error| format!("no summary: {error}\n{finished}"))
}
