//! Loads that are killed at each step of a commit, or whose requests and answers are lost, late or crossed: every row is there once, in order.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use common::load::{Load, PATIENCE, POSITIONS, ROWS};
use serde_json::Value;
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::proxy::messages::{EndTxnRequest, ProduceRequest};
use tidegate_testkit::proxy::{ActiveRule, ApiKey, Proxy, Rule, Verb};
use tidegate_testkit::{Cluster, for_each_cluster};

/// Kafka's codes for a producer that was replaced.
const FENCED: [i16; 2] = [47, 90];

/// A step of a commit: the request or the answer that does not get through.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Rows,
    RowsDone,
    Position,
    PositionDone,
    End,
    EndDone,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::Rows,
        Self::RowsDone,
        Self::Position,
        Self::PositionDone,
        Self::End,
        Self::EndDone,
    ];

    /// Those whose request the broker never gets.
    const REQUESTS: [Self; 3] = [Self::Rows, Self::Position, Self::End];

    /// Those that the broker has done, and the program does not know.
    const DONE: [Self; 3] = [Self::RowsDone, Self::PositionDone, Self::EndDone];

    fn rule(self, load: &Load<'_>) -> Rule {
        match self {
            Self::Rows => load.rows(Verb::Hold),
            Self::RowsDone => load.rows(Verb::Drop).on_answer(),
            Self::Position => load.positions(Verb::Hold),
            Self::PositionDone => load.positions(Verb::Drop).on_answer(),
            Self::End => load.ends(Verb::Hold),
            Self::EndDone => load.ends(Verb::Drop).on_answer(),
        }
    }
}

/// The codes the broker answered to the requests that a rule acted on.
fn codes(rule: &ActiveRule) -> Vec<i16> {
    let ends = rule.answers::<EndTxnRequest>();
    let rows = rule.answers::<ProduceRequest>();
    let rows = rows.iter().flat_map(|answer| &answer.responses);
    let rows = rows.flat_map(|topic| &topic.partition_responses);
    ends.iter()
        .map(|answer| answer.error_code)
        .chain(rows.map(|partition| partition.error_code))
        .collect()
}

/// Runs `test` on embedded brokers that offer the older protocols of transactions alone, and then as [`for_each_cluster`]. It is told which of them,
/// for the cell.
fn for_each_protocol(mut test: impl FnMut(&Cluster, &str)) {
    for version in [0, 1] {
        let cluster = Cluster::embedded_with(|config| config.transaction_version = version);
        test(&cluster, &format!(", transaction.version {version}"));
    }
    for_each_cluster(|cluster| test(cluster, ""));
}

/// Runs a load through a proxy until this rule has acted, and kills it then.
#[track_caller]
fn kill_at(load: &Load<'_>, proxy: &Proxy, rule: Rule) -> ActiveRule {
    let active = proxy.inject(rule.clone());
    let running = load.through(proxy.bootstrap()).start();
    assert!(active.wait_fired(1, PATIENCE), "{rule:?}");
    assert_eq!(running.kill().code, None, "{rule:?}");
    active
}

/// How many rows a run found committed.
#[track_caller]
fn resumed_at(summary: &Value) -> u64 {
    let row = summary["resumed_at_row"].as_u64().unwrap_or_default();
    let sent = summary["this_run"]["rows"].as_u64().unwrap();
    assert_eq!(row + sent, u64::from(ROWS), "{summary}");
    row
}

#[test]
fn t01_a_load_killed_at_any_step_of_a_commit_goes_on() {
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(1, "killed at each step of a commit").on(cluster.kind());
        for step in Step::ALL {
            let load = Load::new(cluster);
            let proxy = load.proxy();
            let at = kill_at(&load, &proxy, step.rule(&load).nth(2));
            // What is held is lost.
            drop(proxy);
            assert!(resumed_at(&load.complete()) > 0, "{step:?}");
            cell = cell.fired(at.fired()).counts(load.counts(ROWS));
        }
        cell.code(Some(0)).record();
    });
}

#[test]
fn t01_a_load_killed_before_its_first_commit_is_known_begins_at_the_right_row() {
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(1, "killed during the first commit").on(cluster.kind());
        for (step, is_committed) in [(Step::End, false), (Step::EndDone, true)] {
            let load = Load::new(cluster);
            let proxy = load.proxy();
            let at = kill_at(&load, &proxy, step.rule(&load).nth(1));
            drop(proxy);
            let row = resumed_at(&load.complete());
            assert_eq!(row > 0, is_committed, "{step:?}: {row}");
            cell = cell.fired(at.fired()).counts(load.counts(ROWS));
        }
        cell.code(Some(0)).record();
    });
}

/// The first commit of a dead run arrives when the next run has looked for it, and not found it, but has not taken the job over yet.
#[test]
fn t03_a_first_commit_that_arrives_while_the_job_is_taken_over_counts() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let end = kill_at(&load, &proxy, load.ends(Verb::Hold).nth(1));
        let takeover = Rule::new(ApiKey::InitProducerId, Verb::Hold).transactional_id(load.job());
        let takeover = proxy.inject(takeover);
        let next = load.through(proxy.bootstrap()).start();
        assert!(takeover.wait_fired(1, PATIENCE));
        end.release();
        assert!(end.wait_answered(1, PATIENCE));
        assert_eq!(codes(&end), [0]);
        takeover.release();
        let summary = next.finish().expect_code(0).json();
        assert!(resumed_at(&summary) > 0, "{summary}");
        load.check();
        load.cell(
            3,
            "the first commit of a dead run arrives during the takeover",
        )
        .fired(end.fired())
        .counts(load.counts(ROWS))
        .code(Some(0))
        .record();
    });
}

/// Killed, and killed again within 500 ms of the resume.
#[test]
fn t02_a_load_killed_twice_in_a_row_goes_on() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let (mut soon, mut before) = (0, 0);
        for _ in 0..4 {
            let proxy = load.proxy();
            let started = Instant::now();
            kill_at(&load, &proxy, load.ends(Verb::Hold).nth(2));
            let is_soon = started.elapsed() < Duration::from_millis(500);
            soon += u32::from(is_soon && before > 0);
            before += 1;
        }
        assert!(soon > 0, "no kill came within 500 ms of the start");
        assert!(resumed_at(&load.complete()) > 0);
        load.cell(2, "killed again within 500 ms of the resume")
            .fired(soon.into())
            .counts(load.counts(ROWS))
            .code(Some(0))
            .record();
    });
}

/// What a dead run had sent reaches the broker only when the next run is done.
#[test]
fn t03_late_requests_of_a_dead_run_are_refused() {
    for_each_protocol(|cluster, protocol| {
        let fault = format!("late requests of a dead run{protocol}");
        let mut cell = Cell::new(3, &fault).on(cluster.kind());
        for step in Step::REQUESTS {
            let load = Load::new(cluster);
            let proxy = load.proxy();
            let late = kill_at(&load, &proxy, step.rule(&load).nth(2));
            assert!(resumed_at(&load.complete()) > 0, "{step:?}");
            let before = (load.ends_of(&load.topic), load.ends_of(POSITIONS));
            assert_eq!(late.answered(), 0, "{step:?}");
            late.release();
            assert!(late.wait_answered(1, PATIENCE), "{step:?}");
            let codes = codes(&late);
            assert!(
                codes.len() == 1 && FENCED.contains(&codes[0]),
                "{step:?}: {codes:?}"
            );
            let rows = before.0;
            assert_eq!(load.ends_of(&load.topic), rows, "{step:?}");
            load.check();
            cell = cell.fired(late.answered()).counts(load.counts(ROWS));
        }
        cell.code(Some(0)).record();
    });
}

/// The broker has done it and its answer is lost: the same run finds that out, and tells the right offsets.
#[test]
fn t13_lost_answers_change_nothing() {
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(13, "answers are lost, alone or with their connection");
        for step in Step::DONE {
            let load = Load::new(cluster);
            let proxy = load.proxy();
            // One is lost, and then one with its connection.
            let lost = proxy.inject(step.rule(&load).nth(2));
            let cut = proxy.inject(step.rule(&load).verb(Verb::Reset).nth(2));
            let receipt = load.folder.name("receipt.json");
            let run = load
                .through(proxy.bootstrap())
                .args(["--request-timeout", "500ms", "--receipt", &receipt])
                .run()
                .expect_code(0);
            assert_eq!((lost.fired(), cut.fired()), (1, 1), "{step:?}");
            load.check();
            let receipt: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
            let last = common::records(cluster, &load.topic);
            let last = &last.last().unwrap()["offset"];
            assert_eq!(
                &receipt["partitions"][0]["last_offset"], last,
                "{step:?}\n{run}"
            );
            cell = cell.fired(2).counts(load.counts(ROWS)).code(run.code);
        }
        cell.on(cluster.kind()).record();
    });
}

/// An EndTxn that was given up by the program, and sent again, arrives when the next transaction is open: it must not end that one.
#[test]
fn t16_a_late_end_of_one_transaction_does_not_end_the_next() {
    for_each_protocol(|cluster, protocol| {
        let load = Load::new(cluster);
        let proxy = load.proxy();
        let late = proxy.inject(load.ends(Verb::Hold).nth(2));
        // The third transaction stays open until the late end was there: its position waits.
        let position = proxy.inject(load.positions(Verb::Hold).nth(3));
        let running = load
            .through(proxy.bootstrap())
            .args(["--request-timeout", "1s"])
            .start();
        assert!(late.wait_fired(1, PATIENCE) && position.wait_fired(1, PATIENCE));
        let (end, stable) = load.ends_of(&load.topic);
        assert!(stable < end, "a transaction is open: {stable} of {end}");
        late.release();
        assert!(late.wait_answered(1, PATIENCE));
        let codes = codes(&late);
        assert_eq!(load.ends_of(&load.topic).1, stable, "{codes:?}");
        position.release();
        let finished = running.finish().expect_code(0);
        assert!(
            codes.len() == 1 && FENCED.contains(&codes[0]),
            "{codes:?}\n{finished}"
        );
        load.check();
        let fault = format!("a late EndTxn meets the next transaction{protocol}");
        load.cell(16, &fault)
            .fired(late.answered())
            .counts(load.counts(ROWS))
            .code(finished.code)
            .record();
    });
}

/// The connections of a load break while it begins: whatever it asks then is asked again.
#[test]
fn t14_a_load_whose_beginning_is_disturbed_begins_all_the_same() {
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(14, "connections are reset while the load begins");
        for (asked, spared) in [
            // The first answers who is there, which has a deadline of its own.
            (ApiKey::Metadata, 1),
            (ApiKey::ListOffsets, 0),
            (ApiKey::Fetch, 0),
            (ApiKey::CreateTopics, 0),
            (ApiKey::DescribeConfigs, 0),
            (ApiKey::FindCoordinator, 0),
            (ApiKey::InitProducerId, 0),
        ] {
            let load = Load::new(cluster);
            let proxy = load.proxy();
            // More often than a kept connection is replaced without a word.
            let cut = Rule::new(asked, Verb::Reset).after(spared).times(3);
            let cut = proxy.inject(cut);
            let finished = load.through(proxy.bootstrap()).run();
            assert_eq!(finished.code, Some(0), "{asked:?}\n{finished}");
            assert_eq!(cut.fired(), 3, "{asked:?}");
            load.check();
            cell = cell.fired(cut.fired()).counts(load.counts(ROWS));
        }
        cell.on(cluster.kind()).code(Some(0)).record();
    });
}
