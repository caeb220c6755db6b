//! Transactions: instances of one job, each the machine that runs in production and a caller that resumes from the position in the log, against
//! a model of coordinator and partitions.
//!
//! A job has steps. Each step is one transaction: some batches of rows, and the position behind them. Instances crash at any moment, are held up and
//! come back (zombies), a second one is started beside a living one; requests and answers are lost, or come long after their sender is gone; the
//! coordinator moves, is away, and aborts what takes too long; clusters speak the old protocol, the new one, or change over; epochs run out; other producers
//! keep transactions open in the position's partition.
//!
//! After each schedule a read-committed reader finds every batch once and in order; no step was reported as committed that is not; only
//! an instance that really was replaced gives up for that reason; and the job gets done soon after the faults end.
//!
//! Not promised by the protocol, and so not modelled: leaders before Kafka 3.6 take a late batch of a transaction that was aborted and leave
//! it open (KIP-890, first part). All leaders here ask the coordinator.

mod coordinator;
mod job;
mod judge;
mod log;
mod network;
mod world;

use tidegate_kafka::producer::machine::BrokenRule;

use crate::counts::Counts;
use crate::schedule::Verdict;
use crate::{number, run_many};
use world::World;

/// Everything that has to happen in a run of many schedules.
const EXPECTED: [&str; 28] = [
    "aborts asked for",
    "answers of the coordinator lost",
    "batches refused for another epoch",
    "batches that arrive after their instance is gone",
    "clusters that change over to the new protocol",
    "commits of nothing",
    "connections that break",
    "coordinators that move",
    "crashes",
    "errors after the append",
    "errors before the append",
    "failures at the deadline",
    "first batches that come before the last markers",
    "foreign transactions",
    "instances held up",
    "instances replaced",
    "late EndTxn requests of an instance that is gone",
    "late requests to the coordinator",
    "lost requests to the coordinator",
    "new producer ids at the end of the epochs",
    "positions read behind the last stable offset",
    "refusals of the coordinator",
    "second instances",
    "transactions committed by the new protocol",
    "transactions committed by the old protocol",
    "transactions rolled back",
    "transactions that take too long",
    "unanswered commits that were decided",
];

/// Schedules within which a broken rule must be noticed.
const ENOUGH_TO_NOTICE: u64 = 20_000;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// One of the machine's.
    Rule(BrokenRule),
    /// The position is read up to the last stable offset only.
    ReadToLastStable,
    /// The position is read before the id is taken over.
    ReadBeforeTakingOver,
}

#[test]
fn every_step_is_committed_once_and_in_order() {
    if let Some(seed) = number("TIDEGATE_SEED") {
        let (verdict, counts) = World::new(seed, None).telling().run();
        eprintln!("{counts:#?}");
        assert_eq!(verdict, Verdict::Kept, "seed {seed}");
        return;
    }
    let schedules = number("TIDEGATE_SCHEDULES").unwrap_or(100_000);
    let (counts, wrong): (Counts, _) = run_many(schedules, |seed| World::new(seed, None).run());
    if let Some((seed, verdict)) = wrong {
        panic!(
            "{verdict:?}\nTIDEGATE_SEED={seed} cargo test -p tidegate-kafka --test simulator every_step -- --nocapture"
        );
    }
    eprintln!("{schedules} schedules: {counts:#?}");
    if schedules >= 10_000 {
        counts.assert_all_fired(&EXPECTED);
    }
}

/// A rule that is dropped on purpose must be noticed, and it must be the rule that is noticed: with it kept, the same schedule ends well.
fn is_noticed(planted: Planted) {
    let (_, wrong) = run_many(ENOUGH_TO_NOTICE, |seed| {
        World::new(seed, Some(planted)).run()
    });
    let Some((seed, verdict)) = wrong else {
        panic!("{planted:?} went unnoticed in {ENOUGH_TO_NOTICE} schedules");
    };
    eprintln!("{planted:?}: seed {seed}: {verdict:?}");
    assert_eq!(World::new(seed, None).run().0, Verdict::Kept, "seed {seed}");
}

#[test]
fn ending_before_all_is_acknowledged_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::EndBeforeAcks));
}

#[test]
fn producing_while_the_end_is_unresolved_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::ProduceWhileEnding));
}

#[test]
fn taking_an_unanswered_commit_for_done_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::AssumeCommitted));
}

#[test]
fn taking_an_invalid_state_for_a_commit_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::InvalidIsCommitted));
}

#[test]
fn keeping_sequences_in_a_new_epoch_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::KeepSequences));
}

#[test]
fn keeping_the_epoch_after_a_roll_back_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::SameEpochAfterAbort));
}

#[test]
fn keeping_the_epoch_after_a_lost_request_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::SameEpochAfterResend));
}

#[test]
fn keeping_the_epoch_when_the_cluster_changes_over_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::SameEpochAtChange));
}

#[test]
fn fighting_for_ownership_is_noticed() {
    is_noticed(Planted::Rule(BrokenRule::FightForOwnership));
}

#[test]
fn reading_the_position_to_the_last_stable_offset_is_noticed() {
    is_noticed(Planted::ReadToLastStable);
}

#[test]
fn reading_the_position_before_taking_over_is_noticed() {
    is_noticed(Planted::ReadBeforeTakingOver);
}
