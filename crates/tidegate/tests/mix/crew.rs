//! The runs of one load: the command is run again whenever it ends before the load is complete, and disturbed meanwhile.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate_testkit::{Finished, Running};

use crate::book::Shared;
use crate::load::Load;
use crate::plan::{ProgramFault, Step};

/// How soon a run must end that was asked to. It gives its transaction 30 s.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// How soon the command is run again where it ended by itself.
const AGAIN: Duration = Duration::from_millis(200);
const ALREADY_RUNNING: i32 = 10;
const UNREACHABLE: i32 = 4;
const TOPIC: i32 = 6;
/// What is said where the cluster has lost the end of a transaction.
const LOST_END: &str = "the cluster has lost the end of an earlier transaction";

/// What the cluster says when a topic is to be made while a node is down. Nobody but an operator can know that it will be back.
const TOO_FEW_NODES: &str = "INVALID_REPLICATION_FACTOR (38)";

/// How often runs ended with each exit code; none where a signal ended it.
pub(crate) type Codes = BTreeMap<Option<i32>, u64>;

/// How a load stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    UnderWay,
    Complete,
    /// The cluster has lost the end of a transaction: nobody can go on with it.
    Lost,
}

/// One run of the command.
struct Run {
    running: Running,
    /// Suspended until then.
    resumes: Option<Instant>,
    /// It was asked to end, and must have by then.
    ends: Option<Instant>,
    is_killed: bool,
}

/// All runs of one load.
pub(crate) struct Crew<'a> {
    load: &'a Load,
    bootstrap: &'a str,
    shared: &'a Shared,
    runs: Vec<Run>,
    starts: Instant,
    standing: Standing,
    codes: Codes,
}

impl<'a> Crew<'a> {
    pub(crate) fn new(load: &'a Load, bootstrap: &'a str, shared: &'a Shared) -> Self {
        Self {
            load,
            bootstrap,
            shared,
            runs: Vec::new(),
            starts: Instant::now(),
            standing: Standing::UnderWay,
            codes: Codes::new(),
        }
    }

    /// Looks after the runs. Once the load is complete and no run is left, it is done.
    pub(crate) fn tick(&mut self) -> Standing {
        if self.shared.take_kill() {
            self.kill(Duration::ZERO, "program killed while a request is held");
        }
        let now = Instant::now();
        for run in &mut self.runs {
            if run.resumes.is_some_and(|resumes| resumes <= now) {
                run.resume();
                self.shared.tell("resumed");
            }
            let is_late = run.resumes.is_none() && run.ends.is_some_and(|ends| ends < now);
            assert!(
                !is_late,
                "a run that was asked to end goes on: {:?}",
                run.running
            );
        }
        while let Some(ended) = self
            .runs
            .iter_mut()
            .position(|run| !run.running.is_running())
        {
            let run = self.runs.remove(ended);
            self.ended(run);
        }
        if !self.runs.is_empty() {
            return Standing::UnderWay;
        }
        if self.standing == Standing::UnderWay && self.starts <= now {
            self.start();
        }
        self.standing
    }

    fn start(&mut self) {
        self.shared.tell("started");
        self.runs.push(Run {
            running: self.load.publish(self.bootstrap).start(),
            resumes: None,
            ends: None,
            is_killed: false,
        });
    }

    fn ended(&mut self, run: Run) {
        let (is_killed, was_asked) = (run.is_killed, run.ends.is_some());
        let finished = run.running.finish();
        self.shared.tell(&format!("ended with {:?}", finished.code));
        *self.codes.entry(finished.code).or_insert(0) += 1;
        self.starts = self.starts.max(Instant::now() + AGAIN);
        match finished.code {
            Some(0) => {
                assert_complete(&finished);
                self.standing = Standing::Complete;
            }
            None if is_killed || was_asked => {}
            Some(130 | 143) if was_asked => {}
            Some(UNREACHABLE | ALREADY_RUNNING) => {}
            Some(TOPIC) if finished.stdout.contains(LOST_END) => {
                eprintln!("{finished}");
                self.standing = Standing::Lost;
            }
            Some(TOPIC) if finished.stdout.contains(TOO_FEW_NODES) => {
                self.shared.count("topics refused while a node was down", 1);
            }
            _ => self
                .shared
                .complain(&format!("a load must not end like this: {finished}")),
        }
    }

    /// The run that is disturbed: of those that have not ended, the one that was started first.
    fn first(&mut self) -> Option<&mut Run> {
        self.runs
            .iter_mut()
            .find_map(|run| run.running.is_running().then_some(run))
    }

    fn kill(&mut self, pause: Duration, name: &'static str) {
        let Some(run) = self.first() else { return };
        // A killed process ends also while it is stopped.
        run.running.signal(Signal::KILL);
        run.is_killed = true;
        run.resumes = None;
        self.starts = Instant::now() + pause;
        self.shared.fire(name);
    }

    fn strike(&mut self, step: &Step<ProgramFault>) {
        let (now, name) = (Instant::now(), step.fault.name());
        match step.fault {
            ProgramFault::Killed => self.kill(step.lasts, name),
            ProgramFault::SecondRun => {
                if self.runs.len() == 1 && self.standing == Standing::UnderWay {
                    self.start();
                    self.shared.fire(name);
                }
            }
            ProgramFault::Suspended => {
                let shared = self.shared;
                let Some(run) = self.first() else { return };
                run.suspend(now, step.lasts);
                shared.fire(name);
            }
            ProgramFault::Interrupted | ProgramFault::Terminated => {
                let shared = self.shared;
                let Some(run) = self.first() else { return };
                let signal = if step.fault == ProgramFault::Interrupted {
                    Signal::INT
                } else {
                    Signal::TERM
                };
                run.running.signal(signal);
                run.ends.get_or_insert(now + END_PATIENCE);
                self.starts = now + step.lasts;
                shared.fire(name);
            }
        }
    }

    /// Lets go on what is suspended.
    pub(crate) fn resume(&mut self) {
        self.runs.iter_mut().for_each(Run::resume);
    }

    pub(crate) fn codes(self) -> Codes {
        self.codes
    }

    /// The runs there are, for a message.
    pub(crate) fn describe(&self) -> String {
        let ids = self.runs.iter().map(|run| run.running.id().to_string());
        ids.collect::<Vec<_>>().join(", ")
    }
}

impl Run {
    fn suspend(&mut self, now: Instant, time: Duration) {
        self.running.signal(Signal::STOP);
        self.resumes = Some(now + time);
        self.ends = self.ends.map(|ends| ends + time);
    }

    fn resume(&mut self) {
        if self.resumes.take().is_some() {
            self.running.signal(Signal::CONT);
        }
    }
}

fn assert_complete(finished: &Finished) {
    let status = &finished.json()["status"];
    let is_done = status == "complete" || status == "already-published";
    assert!(is_done, "exit code 0 and not complete: {finished}");
}

/// Works off the steps for the program, whichever load is under way.
pub(crate) struct Actor {
    steps: VecDeque<Step<ProgramFault>>,
    due: Instant,
}

impl Actor {
    pub(crate) fn new(steps: &[Step<ProgramFault>]) -> Self {
        let now = Instant::now();
        Self {
            due: steps.first().map_or(now, |step| now + step.pause),
            steps: steps.iter().cloned().collect(),
        }
    }

    /// Makes the fault that is due, if one is.
    pub(crate) fn act(&mut self, crew: &mut Crew<'_>) {
        if Instant::now() < self.due {
            return;
        }
        let Some(step) = self.steps.pop_front() else {
            return;
        };
        crew.strike(&step);
        let pause = self.steps.front().map_or(Duration::ZERO, |step| step.pause);
        self.due = Instant::now() + step.lasts + pause;
    }
}
