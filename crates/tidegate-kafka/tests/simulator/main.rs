//! The producer's state machine, the very one that runs in production, against a model of a cluster under seeded faults.
//!
//! Each seed is one schedule: how many batches go where and when, which requests and answers get lost or come late, which connections break,
//! when leaders move and brokers restart, with their memory of producers or without. After each, every sealed batch must stand in its
//! partition's log exactly once, in the order of sealing, and must have settled exactly once with the offset that it really has.
//!
//! `TIDEGATE_SCHEDULES` says how many schedules to run, `TIDEGATE_SEED` runs a single one and tells its story.
//!
//! Not promised by the protocol, and so not asked for here: a broker that forgets a producer while a batch of it is in doubt may append it
//! twice; acknowledged records that the cluster itself loses (an unclean election) are lost, and the producer only notices when it goes on.
#![expect(clippy::print_stderr, reason = "a failing schedule tells its story")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;
mod random;

use model::{Counts, Schedule, Verdict};
use tidegate_kafka::producer::machine::BrokenRule;

fn schedules() -> u64 {
    std::env::var("TIDEGATE_SCHEDULES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(20_000)
}

#[test]
fn nothing_is_lost_doubled_or_disordered() {
    if let Some(seed) = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        let (verdict, counts) = Schedule::new(seed, None).telling().run();
        eprintln!("{counts:#?}");
        assert_eq!(verdict, Verdict::Kept, "seed {seed}");
        return;
    }
    let mut counts = Counts::default();
    for seed in 0..schedules() {
        let (verdict, mut fired) = Schedule::new(seed, None).run();
        assert_eq!(verdict, Verdict::Kept, "TIDEGATE_SEED={seed} replays it");
        counts.add(&mut fired);
    }
    eprintln!("{} schedules: {counts:#?}", schedules());
    counts.assert_all_fired();
}

/// A rule that is dropped on purpose must be noticed: else the simulator proves nothing.
fn is_noticed(broken: BrokenRule) {
    let noticed =
        (0..5_000).find(|seed| Schedule::new(*seed, Some(broken)).run().0 != Verdict::Kept);
    assert!(noticed.is_some(), "{broken:?} went unnoticed");
}

#[test]
fn sending_a_first_window_at_once_is_noticed() {
    is_noticed(BrokenRule::NotAlone);
}

#[test]
fn a_new_sequence_for_a_batch_sent_again_is_noticed() {
    is_noticed(BrokenRule::NewSequence);
}

#[test]
fn sending_only_the_failed_batch_again_is_noticed() {
    is_noticed(BrokenRule::NoRepair);
}

#[test]
fn taking_a_lost_connection_for_success_is_noticed() {
    is_noticed(BrokenRule::AssumeDelivered);
}

#[test]
fn ignoring_a_gap_in_the_log_is_noticed() {
    is_noticed(BrokenRule::IgnoreGap);
}
