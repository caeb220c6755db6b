//! One instance of the job: the machine, the caller that drives it, and its connections.

use std::collections::BTreeMap;

use tidegate_kafka::producer::machine::{
    Event, Failure, LinkId, Machine, Outcome, Protocol, Rules, Slot, Time,
};

use super::log::Content;
use super::world::{Happening, News, World};

/// What the caller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for the id.
    Starting,
    /// It reads its position back.
    Reading,
    /// It waits for a commit of nothing.
    EndingNothing,
    /// It seals the rows of its step; so many are sealed.
    Writing(u32),
    /// It waits until the rows are acknowledged.
    Settling,
    /// It has asked for a commit.
    Committing,
    /// It has asked for a roll-back.
    Aborting,
    Done,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) dropped: bool,
    /// From here on nothing arrives any more, in either direction.
    pub(super) cut: bool,
    pub(super) last_there: u64,
    pub(super) last_back: u64,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) machine: Machine,
    pub(super) alive: bool,
    pub(super) failure: Option<Failure>,
    pub(super) held_until: u64,
    pub(super) links: BTreeMap<LinkId, Link>,
    /// What each batch holds, by number.
    pub(super) batches: Vec<(Slot, Content, u32)>,
    pub(super) next_tick: Option<u64>,
    /// The latest question to the coordinator.
    pub(super) question: u64,
    /// Whether the coordinator has given the id to another instance, or ended our epoch, since we got it.
    pub(super) replaced: bool,
    pub(super) ready: bool,
    pub(super) stage: Stage,
    pub(super) step: u32,
    unsettled: usize,
    /// Tells the caller's plans for this transaction from those for earlier ones.
    pub(super) attempt: u64,
    pub(super) protocol: Protocol,
}

impl Instance {
    pub(super) fn new(rules: Rules, partitions: usize, start_timeout: Time) -> Self {
        let mut machine = Machine::transactional(rules, start_timeout);
        for _ in 0..partitions {
            machine.add_partition();
        }
        Self {
            machine,
            alive: true,
            failure: None,
            held_until: 0,
            links: BTreeMap::new(),
            batches: Vec::new(),
            next_tick: None,
            question: 0,
            replaced: false,
            ready: false,
            stage: Stage::Starting,
            step: 0,
            unsettled: 0,
            attempt: 0,
            protocol: Protocol::Old,
        }
    }

    pub(super) fn is_working(&self) -> bool {
        self.alive && self.stage != Stage::Done
    }
}

impl World {
    /// The id is the instance's: it reads where to go on.
    pub(super) fn ready(&mut self, who: usize) {
        self.instances[who].ready = true;
        self.read_soon(who);
    }

    fn read_soon(&mut self, who: usize) {
        self.instances[who].stage = Stage::Reading;
        let at = self.now + self.random.between(1, 20);
        self.at(at, Happening::Reaches(who, News::Read));
    }

    pub(super) fn read(&mut self, who: usize) {
        let step = match self.read_early(who) {
            Some(step) => step,
            None => self.read_position(),
        };
        // One that was replaced meanwhile may find less: the markers of its successor's last commit may still be on their way. It is fenced.
        if step < self.reported && !self.instances[who].replaced {
            let reported = self.reported;
            self.break_off(format!(
                "step {reported} was reported as committed, but the position is {step}"
            ));
        }
        self.instances[who].step = step;
        self.begin_or_finish(who);
    }

    fn begin_or_finish(&mut self, who: usize) {
        if self.instances[who].step >= self.steps() {
            self.instances[who].stage = Stage::Done;
            return;
        }
        self.begin(who);
        if self.random.percent(5) {
            self.counts.note("commits of nothing");
            self.instances[who].stage = Stage::EndingNothing;
            self.tell(who, Event::Commit);
        }
    }

    fn begin(&mut self, who: usize) {
        let protocol = self.protocol();
        let instance = &mut self.instances[who];
        instance.attempt += 1;
        instance.unsettled = 0;
        instance.protocol = protocol;
        instance.stage = Stage::Writing(0);
        let attempt = instance.attempt;
        self.tell(who, Event::Begin(protocol));
        let at = self.now + self.random.below(20);
        self.at(at, Happening::Reaches(who, News::Write(attempt)));
    }

    /// The caller seals its next batch, or whatever comes after the last one.
    pub(super) fn write(&mut self, who: usize, attempt: u64) {
        let instance = &self.instances[who];
        let Stage::Writing(sealed) = instance.stage else {
            return;
        };
        if instance.attempt != attempt {
            return;
        }
        let step = instance.step;
        let rows = self.plan[step as usize].clone();
        if let Some(slot) = rows.get(sealed as usize) {
            self.instances[who].stage = Stage::Writing(sealed + 1);
            let content = Content::Row {
                step,
                index: sealed,
            };
            self.seal(who, *slot, content);
            let at = self.now + self.random.below(15);
            return self.at(at, Happening::Reaches(who, News::Write(attempt)));
        }
        if self.random.percent(3) && !self.calm {
            self.counts.note("aborts asked for");
            self.instances[who].stage = Stage::Aborting;
            return self.tell(who, Event::Abort);
        }
        self.instances[who].stage = Stage::Settling;
        // Some callers wait for the rows before they write the position, some do not.
        if self.instances[who].unsettled == 0 || self.impatient {
            self.write_position(who);
        }
    }

    fn write_position(&mut self, who: usize) {
        let step = self.instances[who].step;
        let last = Slot(u32::try_from(self.logs.len() - 1).unwrap());
        self.instances[who].stage = Stage::Committing;
        self.seal(
            who,
            last,
            Content::Position {
                next_step: step + 1,
            },
        );
        self.tell(who, Event::Commit);
    }

    fn seal(&mut self, who: usize, slot: Slot, content: Content) {
        let records = u32::try_from(self.random.between(1, 50)).unwrap();
        let instance = &mut self.instances[who];
        let batch = tidegate_kafka::producer::machine::BatchId(instance.batches.len() as u64);
        instance.batches.push((slot, content, records));
        instance.unsettled += 1;
        let event = Event::Sealed {
            slot,
            batch,
            records,
        };
        self.tell(who, event);
    }

    pub(super) fn settled(&mut self, who: usize) {
        let instance = &mut self.instances[who];
        instance.unsettled = instance.unsettled.saturating_sub(1);
        if instance.unsettled == 0 && instance.stage == Stage::Settling {
            let attempt = instance.attempt;
            let at = self.now + 1;
            self.at(at, Happening::Reaches(who, News::Settled(attempt)));
        }
    }

    pub(super) fn all_settled(&mut self, who: usize, attempt: u64) {
        let instance = &self.instances[who];
        if instance.stage == Stage::Settling && instance.attempt == attempt {
            self.write_position(who);
        }
    }

    pub(super) fn transaction_ended(&mut self, who: usize, outcome: &Outcome) {
        let stage = self.instances[who].stage;
        match (outcome, stage) {
            (Outcome::Committed, Stage::EndingNothing) => {
                let at = self.now + 1;
                self.instances[who].stage = Stage::Writing(0);
                self.at(at, Happening::Reaches(who, News::Begin));
            }
            (Outcome::Committed, Stage::Committing) => {
                self.counts.note(match self.instances[who].protocol {
                    Protocol::New => "transactions committed by the new protocol",
                    Protocol::Old => "transactions committed by the old protocol",
                });
                self.instances[who].step += 1;
                self.reported = self.reported.max(self.instances[who].step);
                let at = self.now + self.random.between(1, 50);
                self.at(at, Happening::Reaches(who, News::Next));
                self.instances[who].stage = Stage::Reading;
            }
            (Outcome::Committed, stage) => {
                self.break_off(format!("committed while {stage:?}"));
            }
            (Outcome::RolledBack { why }, stage) => {
                self.counts.note("transactions rolled back");
                // The first batch under a new producer id may come too early, and dooms its transaction.
                if self.calm && !self.rotated {
                    self.break_off(format!("rolled back for nothing while {stage:?}: {why}"));
                }
                self.instances[who].attempt += 1;
                self.read_soon(who);
            }
        }
    }

    pub(super) fn next_step(&mut self, who: usize) {
        self.begin_or_finish(who);
    }

    pub(super) fn begin_again(&mut self, who: usize) {
        self.begin(who);
    }
}
