//! `tidegate balance`: wait until a consumer group has committed everything. Also the waiting of `publish --wait-group`.

use std::time::Duration;

use tidegate::bridge::{GroupCommits, ReadRange, SystemClock, TopicReader};
use tidegate::core::balance::{BalanceOptions, BalanceReport, BalanceStatus, Target, wait};
use tidegate::core::event::Event;
use tidegate::core::produce::Consume as _;
use tidegate::core::receipt::Receipt;
use tidegate::kafka::Client;
use tidegate::kafka::admin::{Isolation, OffsetSpec};

use crate::args::BalanceArgs;
use crate::commands::publish::warning_of;
use crate::failure::{Failure, Kind};
use crate::groups;
use crate::progress::{Figures, Progress};
use crate::report::{self, BalanceSummary, Finished, Summary, counted};
use crate::rights::{self, Need};
use crate::service::{Context, Reach};
use crate::topic;

/// How far before a partition's end its last record is looked for at first; doubled until it is found.
const FIRST_LOOK_BACK: i64 = 16;

/// A group, and what it is to have committed.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    /// The group.
    pub(crate) group: &'a str,
    /// The topic.
    pub(crate) topic: &'a str,
    /// What must be committed, per partition.
    pub(crate) targets: Vec<Target>,
    /// How long to wait.
    pub(crate) timeout: Duration,
    /// Whether each change is told.
    pub(crate) watch: bool,
}

/// Runs the command.
pub(crate) fn run(args: &BalanceArgs, context: &mut Context) -> Result<Finished, Failure> {
    // The receipt is read first: without it there is nothing to connect for.
    let receipt = args.receipt.as_deref().map(Receipt::read).transpose()?;
    let service = context.connect(Reach {
        cluster: &args.cluster,
        registry: None,
        delivery_timeout: None,
    })?;
    // Who has nothing to wait for would not find out.
    rights::require(
        &service.client,
        &[Need::group(&args.group, "balance needs")],
    )?;
    groups::require_consumers(&service.client, &args.group)?;
    let (topic, targets) = match (&receipt, &args.topic) {
        (Some(receipt), _) => {
            topic::partitions(&service.client, &receipt.topic)?;
            (receipt.topic.as_str(), receipt.targets()?)
        }
        (None, Some(topic)) => (topic.as_str(), targets_now(&service.client, topic)?),
        (None, None) => {
            return Err(Failure::new(
                Kind::Usage,
                "--receipt or --topic says what is to be committed",
            ));
        }
    };
    let wait = Wait {
        group: &args.group,
        topic,
        targets,
        timeout: args.timeout,
        watch: args.watch,
    };
    let (summary, failure) = wait_for(context, &service.client, wait)?;
    Ok(Finished {
        summary: Summary::Balance(summary),
        failure,
    })
}

/// Waits; a group that was not done in time is a failure beside the summary that shows it.
pub(crate) fn wait_for(
    context: &Context,
    client: &Client,
    asked: Wait<'_>,
) -> Result<(BalanceSummary, Option<Failure>), Failure> {
    let Wait {
        group,
        topic,
        targets,
        timeout,
        watch,
    } = asked;
    let mut commits = GroupCommits::new(
        client,
        group,
        topic,
        targets.iter().map(|target| target.partition),
    );
    let terminal = context.terminal;
    let mut progress = Progress::new(terminal, "wait", None);
    let mut events = |event: Event<'_>| {
        if let Event::Balancing { behind, .. } = &event {
            progress.update(&Figures {
                lag: Some(*behind),
                ..Figures::default()
            });
        }
        if let Some(warning) = warning_of(&event) {
            progress.say(|| terminal.warn(&warning));
        }
        if let (Event::Balancing { partitions, .. }, true) = (&event, watch) {
            let exact = partitions.iter().all(|partition| partition.exact);
            let partitions = partitions.to_vec();
            let now = BalanceSummary {
                status: BalanceStatus::Behind,
                exit_code: 0,
                group: group.to_owned(),
                topic: topic.to_owned(),
                exact,
                partitions,
            };
            progress.say(|| terminal.note(&report::balance_table(&now)));
        }
    };
    let options = BalanceOptions { timeout };
    let report = wait(
        &mut commits,
        targets,
        options,
        context.interrupt.flag(),
        &SystemClock::new(),
        &mut events,
    );
    progress.finish();
    let report = report?;
    let failure = failure_of(context, client, group, topic, timeout, &report);
    let exact = report.partitions.iter().all(|partition| partition.exact);
    let summary = BalanceSummary {
        status: report.status,
        exit_code: failure
            .as_ref()
            .map_or(0, |failure| failure.kind().exit_code()),
        group: group.to_owned(),
        topic: topic.to_owned(),
        exact,
        partitions: report.partitions,
    };
    Ok((summary, failure))
}

fn failure_of(
    context: &Context,
    client: &Client,
    group: &str,
    topic: &str,
    timeout: Duration,
    report: &BalanceReport,
) -> Option<Failure> {
    if report.status == BalanceStatus::Balanced {
        return None;
    }
    if report.interrupted {
        return Some(context.interrupt.failure());
    }
    let nobody = report
        .partitions
        .iter()
        .all(|partition| partition.committed.is_none());
    let state = if nobody {
        "has committed nothing".to_owned()
    } else {
        format!("is still {} behind", counted(report.behind(), "record"))
    };
    let message = format!("group {group} {state} on {topic} after {timeout:?}");
    let seen = groups::Seen {
        group,
        topic,
        nothing: nobody,
        moved_back: &report.moved_back,
    };
    let hints = groups::hints(client, seen);
    let failure = hints
        .into_iter()
        .fold(Failure::new(Kind::Behind, message), Failure::hint)
        .hint(
            "see that the group's consumers run and commit, then ask again with `tidegate balance`",
        );
    match &report.last_error {
        Some(error) => Some(failure.because(error.as_str())),
        None => Some(failure),
    }
}

/// What is in the topic now: one past the last data record of each partition that has one.
pub(crate) fn targets_now(client: &Client, name: &str) -> Result<Vec<Target>, Failure> {
    let partitions = topic::partitions(client, name)?;
    let admin = client.admin();
    let starts = admin.list_offsets(
        name,
        &partitions,
        OffsetSpec::Earliest,
        Isolation::ReadCommitted,
    )?;
    let ends = admin.list_offsets(
        name,
        &partitions,
        OffsetSpec::Latest,
        Isolation::ReadCommitted,
    )?;
    let mut targets = Vec::new();
    for (partition, end) in ends {
        let start = starts
            .iter()
            .find(|(number, _)| *number == partition)
            .map_or(0, |(_, offset)| *offset);
        if let Some(last) = last_record(client, name, partition, start, end)? {
            targets.push(Target {
                partition,
                target: last + 1,
                first: Some(start),
                records: None,
            });
        }
    }
    Ok(targets)
}

/// Offset of the last data record in `start..end`. Markers of transactions take offsets too, so it need not be the last offset.
fn last_record(
    client: &Client,
    topic: &str,
    partition: i32,
    start: i64,
    end: i64,
) -> Result<Option<i64>, Failure> {
    let mut look_back = FIRST_LOOK_BACK;
    loop {
        let from = end.saturating_sub(look_back).max(start);
        let range = ReadRange {
            partition,
            start: from,
            end,
        };
        let mut reader = TopicReader::open(client, topic, &[range], Isolation::ReadCommitted)?;
        let mut last = None;
        while let Some(record) = reader.next(partition).map_err(of_reader)? {
            last = Some(record.offset);
        }
        if last.is_some() || from == start {
            return Ok(last);
        }
        look_back = look_back.saturating_mul(8);
    }
}

/// The reader's errors are the client's own, boxed.
fn of_reader(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    match error.downcast::<tidegate::kafka::Error>() {
        Ok(error) => Failure::from(*error),
        Err(error) => Failure::new(Kind::Internal, "the topic could not be read").because(error),
    }
}
