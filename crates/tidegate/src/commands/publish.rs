//! `tidegate publish`: the rows of a file to a topic, proven and waited for as asked.

use std::fs::{self, OpenOptions};
use std::path::Path;

use tidegate::bridge::{GroupCommits, SystemClock, TopicSink};
use tidegate::core::balance::HoldOptions;
use tidegate::core::encode::ValueFormat;
use tidegate::core::event::Event;
use tidegate::core::partition::Partitioner;
use tidegate::core::position::LoadPosition;
use tidegate::core::produce::Produce;
use tidegate::core::publish::{CommitCadence, Counter, HoldOn, Outcome, PublishOptions, publish};
use tidegate::core::receipt::{RECEIPT_VERSION, Receipt, RejectsReceipt, SourceIdentity, Status};
use tidegate::core::rejects::{MaxRejects, OnBadRow, RejectsOptions};
use tidegate::kafka::producer::ProducerConfig;

use crate::args::{PublishArgs, RejectArgs};
use crate::commands;
use crate::commands::balance::{self, Wait};
use crate::commands::verify::{self, Proof};
use crate::failure::{Failure, Kind};
use crate::plan::Load;
use crate::progress::{Figures, Progress};
use crate::report::{
    BalanceSummary, Finished, LoadStatus, PublishSummary, RunFigures, Summary, VerifySummary,
};
use crate::service::Context;
use crate::topic;
use crate::values;

/// What the load is told on its way that people should know at its end; more of the same helps nobody.
const MAX_WARNINGS: usize = 20;

/// Runs the command.
pub(crate) fn run(args: &PublishArgs, context: &mut Context) -> Result<Finished, Failure> {
    let load = Load::prepare(args, context)?;
    check_local_files(args, &load)?;
    context.terminal.note(&load.describe());
    let mut warnings = load.warnings();
    for warning in &warnings {
        context.terminal.warn(warning);
    }
    let sent = if args.proof.dry_run || load.is_empty() {
        count(args, &load, context, &mut warnings)?
    } else {
        send(args, &load, context, &mut warnings)?
    };
    finish(args, &load, context, sent, warnings)
}

/// A load that ran, and what its records carry.
struct Sent {
    outcome: Outcome,
    schema_id: Option<u32>,
}

/// Everything but sending.
fn count(
    args: &PublishArgs,
    load: &Load<'_>,
    context: &Context,
    warnings: &mut Vec<String>,
) -> Result<Sent, Failure> {
    let rejects = RejectsOptions {
        file: None,
        ..rejects_options(&args.rejects)
    };
    let mut sink = Counter::new(load.expected_partitions());
    // An id is taken for the frame only: it changes no length and no check.
    let schema_id = (load.records.format() == ValueFormat::Avro).then_some(0);
    let outcome = run_load(
        load, context, &rejects, schema_id, None, &mut sink, warnings,
    )?;
    Ok(Sent {
        outcome,
        schema_id: None,
    })
}

/// Registers, creates, and sends.
fn send(
    args: &PublishArgs,
    load: &Load<'_>,
    context: &Context,
    warnings: &mut Vec<String>,
) -> Result<Sent, Failure> {
    let schema_id = load.commit()?;
    let client = &load.service.client;
    let config = ProducerConfig {
        compression: commands::compression(args.delivery.compression),
        ..ProducerConfig::default()
    };
    let mut sink = TopicSink::open(client, config, &args.topic)?;
    let gate = &args.consumers;
    let mut committed = gate
        .hold_group
        .as_ref()
        .map(|group| GroupCommits::new(client, group, &args.topic, 0..sink.partitions()));
    let hold = match (&mut committed, gate.hold_limit) {
        (Some(committed), Some(limit)) => Some(HoldOn {
            options: HoldOptions {
                timeout: gate.hold_timeout,
                ..HoldOptions::new(limit)
            },
            committed,
        }),
        _ => None,
    };
    let rejects = rejects_options(&args.rejects);
    let outcome = run_load(
        load, context, &rejects, schema_id, hold, &mut sink, warnings,
    )?;
    Ok(Sent { outcome, schema_id })
}

/// Runs the path of a row into `sink`, showing progress.
fn run_load<P: Produce>(
    load: &Load<'_>,
    context: &Context,
    rejects: &RejectsOptions,
    schema_id: Option<u32>,
    hold: Option<HoldOn<'_>>,
    sink: &mut P,
    warnings: &mut Vec<String>,
) -> Result<Outcome, Failure> {
    let mut progress = Progress::new(context.terminal, "publish", load.input.length());
    let mut figures = Figures::default();
    let mut events = |event: Event<'_>| {
        if let Some(warning) = warning_of(&event).filter(|_| warnings.len() < MAX_WARNINGS) {
            progress.say(|| context.terminal.warn(&warning));
            warnings.push(warning);
        }
        if let (Event::RowRejected(row), true) = (&event, context.terminal.is_verbose()) {
            progress.say(|| {
                context.terminal.note(&format!(
                    "rejected row {} (line {}): {}",
                    row.row, row.line, row.reason
                ));
            });
        }
        figures.take(&event);
        progress.update(&figures);
    };
    let options = PublishOptions {
        csv: load.input.format(),
        plan: &load.records,
        schema_id,
        partitioner: Partitioner::default(),
        rejects,
        commits: CommitCadence::default(),
        interrupt: context.interrupt.flag(),
    };
    let outcome = publish(
        &load.input,
        &LoadPosition::start(),
        &options,
        hold,
        sink,
        &SystemClock::new(),
        &mut events,
    );
    progress.finish();
    outcome.map_err(|error| Failure::from(error).in_file(&load.input.name()))
}

/// What happened on the way that is probably not meant.
fn warning_of(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Skewed {
            partition,
            records,
            of,
        } => Some(format!(
            "partition {partition} has {records} of the first {of} records: a key of few values cannot spread them (--key chooses another)"
        )),
        Event::GroupMovedBack {
            partition,
            from,
            to,
        } => {
            let to = to.map_or_else(|| "nothing".to_owned(), |offset| offset.to_string());
            Some(format!(
                "the group went back from {from} to {to} in partition {partition}: it was reset, or its offsets expired"
            ))
        }
        Event::Replaying { after_row, reason } => {
            Some(format!("going on again after row {after_row}: {reason}"))
        }
        _ => None,
    }
}

/// Sums up, after the receipt is written and what else was asked for is done.
fn finish(
    args: &PublishArgs,
    load: &Load<'_>,
    context: &Context,
    sent: Sent,
    mut warnings: Vec<String>,
) -> Result<Finished, Failure> {
    let Sent {
        mut outcome,
        schema_id,
    } = sent;
    if outcome.rows.read == 0 && outcome.status == Status::Complete {
        let warning = format!("{} has a header and no rows", load.input.name());
        context.terminal.warn(&warning);
        warnings.push(warning);
    }
    let ended = match outcome.error.take() {
        // A stream that a signal stopped says so by an error, for it cannot end.
        Some(_) if context.interrupt.is_set() && !load.input.is_file() => {
            outcome.status = Status::Interrupted;
            Some(context.interrupt.failure())
        }
        Some(error) => Some(of_load(error, load)),
        None if outcome.status == Status::Interrupted => Some(context.interrupt.failure()),
        None => None,
    };
    let nothing_sent = args.proof.dry_run || load.is_empty();
    let receipt = receipt(args, load, &outcome, schema_id)?;
    let mut after = Aftermath::default();
    after.note(
        args.proof
            .receipt
            .as_deref()
            .map_or(Ok(()), |path| Ok(receipt.write(path)?)),
    );
    if ended.is_none() && !nothing_sent {
        after.prove(args, load, context, &receipt);
    }
    let delivered = outcome.records.delivered;
    if nothing_sent {
        outcome.records.delivered = 0;
        outcome.partitions.clear();
    }
    let summary = PublishSummary {
        status: match outcome.status {
            Status::Complete if args.proof.dry_run => LoadStatus::Planned,
            Status::Complete => LoadStatus::Complete,
            Status::Interrupted => LoadStatus::Interrupted,
            Status::Failed => LoadStatus::Failed,
        },
        topic: args.topic.clone(),
        source: load.input.name(),
        rows: outcome.rows,
        records: outcome.records,
        partitions: outcome.partitions,
        schema_id,
        resumed_at_row: None,
        this_run: RunFigures::new(outcome.rows.read, delivered, outcome.seconds),
        warnings,
        wait: after.wait,
        verify: after.verify,
    };
    Ok(Finished {
        summary: Summary::Publish(Box::new(summary)),
        failure: ended.or(after.failure),
    })
}

/// What was asked for beyond the load. Whatever fails here, the load's own summary is still told; the first failure gives the exit code.
#[derive(Default)]
struct Aftermath {
    wait: Option<BalanceSummary>,
    verify: Option<VerifySummary>,
    failure: Option<Failure>,
}

impl Aftermath {
    /// Verifies and waits as asked.
    fn prove(&mut self, args: &PublishArgs, load: &Load<'_>, context: &Context, receipt: &Receipt) {
        if args.proof.verify {
            let proof = Proof {
                input: &load.input,
                plan: &load.records,
                client: &load.service.client,
                topic: &args.topic,
                schema_id: receipt.schema_id,
                receipt: Some(receipt),
            };
            self.verify = self.keep(verify::compare(&proof, context));
        }
        if let Some(group) = &args.consumers.wait_group {
            let waited = receipt
                .targets()
                .map_err(Failure::from)
                .and_then(|targets| {
                    let wait = Wait {
                        group,
                        topic: &args.topic,
                        targets,
                        timeout: args.consumers.wait_timeout,
                        watch: false,
                    };
                    balance::wait_for(context, &load.service.client, wait)
                });
            self.wait = self.keep(waited);
        }
    }

    fn keep<T>(&mut self, done: Result<(T, Option<Failure>), Failure>) -> Option<T> {
        match done {
            Ok((summary, failure)) => {
                self.note(failure.map_or(Ok(()), Err));
                Some(summary)
            }
            Err(failure) => {
                self.note(Err(failure));
                None
            }
        }
    }

    fn note(&mut self, done: Result<(), Failure>) {
        if let Err(failure) = done {
            self.failure.get_or_insert(failure);
        }
    }
}

/// The failure of a load, with the file and how to go on.
fn of_load(error: tidegate::core::Error, load: &Load<'_>) -> Failure {
    let in_input = error.position().is_some();
    let failure = Failure::from(error);
    let failure = if in_input {
        failure.in_file(&load.input.name())
    } else {
        failure
    };
    match failure.kind() {
        Kind::Input => failure.hint("correct the row, or keep bad rows apart with --rejects FILE"),
        Kind::Unreachable | Kind::Delivery => failure.hint("what was delivered is stated above; loading again sends every row again (at least once)"),
        _ => failure,
    }
}

fn receipt(
    args: &PublishArgs,
    load: &Load<'_>,
    outcome: &Outcome,
    schema_id: Option<u32>,
) -> Result<Receipt, Failure> {
    let rejects = args.rejects.rejects.as_ref().map(|path| RejectsReceipt {
        path: path.display().to_string(),
        length: outcome.rejects_length,
        rows: outcome.rows.rejected,
    });
    let plan = serde_json::to_value(load.options()).map_err(|error| {
        Failure::new(Kind::Internal, "the plan cannot be written as JSON").because(error)
    })?;
    Ok(Receipt {
        version: RECEIPT_VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        status: outcome.status,
        delivery: "at-least-once".to_owned(),
        may_contain_duplicates: false,
        topic: args.topic.clone(),
        topic_id: topic::id(&load.service.client, &args.topic),
        schema_id,
        partitioner: Partitioner::default().to_string(),
        plan,
        sources: vec![SourceIdentity {
            path: load.input.identity(),
            length: outcome.source.bytes,
            xxh3_128: outcome.source.hash,
        }],
        rows: outcome.rows,
        records: outcome.records,
        blank_lines: outcome.blank_lines,
        partitions: outcome.partitions.clone(),
        producer_ids: outcome.producer_ids.clone(),
        rejects,
        resumed_at_row: None,
        started_at: outcome.started_at,
        finished_at: outcome.finished_at,
        seconds: outcome.seconds,
    })
}

/// What can be known of the local files before anything is sent.
fn check_local_files(args: &PublishArgs, load: &Load<'_>) -> Result<(), Failure> {
    let written = [
        ("--rejects", args.rejects.rejects.as_deref()),
        ("--receipt", args.proof.receipt.as_deref()),
    ];
    for (flag, path) in written {
        let Some(path) = path else { continue };
        if load.input.is_file() && same_file(path, &args.file) {
            return Err(Failure::new(
                Kind::Usage,
                format!("{flag} {} is the input itself", path.display()),
            ));
        }
    }
    if let [(_, Some(rejects)), (_, Some(receipt))] = written
        && (rejects == receipt || same_file(rejects, receipt))
    {
        let message = format!("--rejects and --receipt are both {}", receipt.display());
        return Err(Failure::new(Kind::Usage, message));
    }
    let cannot = |path: &Path, error| {
        Failure::new(Kind::LocalIo, format!("cannot write {}", path.display())).because(error)
    };
    if let Some(path) = args
        .rejects
        .rejects
        .as_deref()
        .filter(|_| !args.proof.dry_run)
    {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| cannot(path, error))?;
    }
    if let Some(path) = args.proof.receipt.as_deref() {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let is_folder = fs::metadata(folder)
            .map_err(|error| cannot(path, error))?
            .is_dir();
        if !is_folder || path.is_dir() {
            return Err(Failure::new(
                Kind::LocalIo,
                format!("cannot write {}: it is no place for a file", path.display()),
            ));
        }
    }
    Ok(())
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

fn rejects_options(args: &RejectArgs) -> RejectsOptions {
    let on_bad_row = if args.rejects.is_some() {
        OnBadRow::Skip
    } else {
        OnBadRow::Stop
    };
    let max_rejects = match args.max_rejects {
        None => MaxRejects::Unlimited,
        Some(values::MaxRejects::Rows(rows)) => MaxRejects::Rows(rows),
        Some(values::MaxRejects::Percent(percent)) => MaxRejects::Percent(percent),
    };
    RejectsOptions {
        on_bad_row,
        max_rejects,
        file: args.rejects.clone(),
    }
}
