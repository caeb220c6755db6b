//! `tidegate publish`: the rows of a file to a topic, proven and waited for as asked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tidegate::bridge::{GroupCommits, SystemClock, TopicSink};
use tidegate::core::ErrorKind;
use tidegate::core::balance::{HoldOptions, MovedBack};
use tidegate::core::encode::{SchemaIds, ValueFormat};
use tidegate::core::event::Event;
use tidegate::core::job::{JobIdentity, JobPosition};
use tidegate::core::key::KeyFormat;
use tidegate::core::limits::MAX_SEEN_GROUPS;
use tidegate::core::position::LoadPosition;
use tidegate::core::produce::Produce;
use tidegate::core::publish::{CommitCadence, Counter, HoldOn, Outcome, PublishOptions, publish};
use tidegate::core::receipt::{Receipt, Status};
use tidegate::core::rejects::{MaxRejects, OnBadRow, RejectsOptions};
use tidegate::core::seen::ReturnedGroups;
use tidegate::kafka::producer::ProducerConfig;

use crate::args::{PublishArgs, RejectArgs};
use crate::commands;
use crate::commands::balance::{self, Wait};
use crate::commands::verify::{self, Proof};
use crate::failure::{Failure, Kind};
use crate::groups;
use crate::job::{self, Opened};
use crate::plan::{Load, commit_cadence};
use crate::progress::{Figures, Progress};
use crate::receipts::Ended;
use crate::report::{
    BalanceSummary, Finished, LoadStatus, PublishSummary, RunFigures, Summary, VerifySummary,
    counted, grouped,
};
use crate::service::Context;
use crate::values;

/// What the load is told on its way that people should know at its end; more of the same helps nobody.
const MAX_WARNINGS: usize = 20;

/// How often a load looks for its job anew, because an earlier run began it between the look and the takeover.
const MAX_LOOKS: u32 = 3;

/// Runs the command.
pub(crate) fn run(args: &PublishArgs, context: &mut Context) -> Result<Finished, Failure> {
    // Taken before the job is, and kept to the end.
    let mut rejects_file = None;
    for _ in 0..MAX_LOOKS {
        let load = Load::prepare(args, context)?;
        check_local_files(args, &load)?;
        if rejects_file.is_none() {
            let kept = load.found().map_or(0, |found| found.load.rejects.length);
            rejects_file = take_rejects_file(args, kept == 0)?;
        }
        context.terminal.note(&load.describe());
        let mut warnings = load.warnings()?;
        for warning in &warnings {
            context.terminal.warn(warning);
        }
        let done = match load.published()? {
            Some(found) => Some(Done::already(found)),
            None if args.proof.dry_run || load.is_empty() => {
                Some(count(args, &load, context, &mut warnings)?)
            }
            None => send(args, &load, context, &mut warnings)?,
        };
        if let Some(done) = done {
            return finish(args, &load, context, done, warnings);
        }
        // The commit of a run that was killed may arrive as late as that. It is fenced now, and its plan is the one to go on with.
        context
            .terminal
            .note("an earlier run of this job was still at work: looking again where it stands");
    }
    let message = "other runs of this job begin it again and again";
    Err(Failure::new(Kind::AlreadyRunning, message).hint("let one of them run alone"))
}

/// What was done, by this run and those before it.
struct Done {
    ended: Ended,
    /// Rows and records of this run alone.
    rows: u64,
    records: u64,
    /// How long this run took.
    seconds: f64,
    /// Whether an earlier run had done it all.
    was_published: bool,
    /// What may be the matter with a group that was waited for too long.
    hints: Vec<String>,
}

impl Done {
    /// An earlier run had published everything.
    fn already(found: &JobPosition) -> Self {
        Self {
            ended: Ended {
                resumed_at_row: resumed_at(&found.load),
                ..Ended::of(found)
            },
            rows: 0,
            records: 0,
            seconds: 0.0,
            was_published: true,
            hints: Vec::new(),
        }
    }

    /// This run went on from `position` and came to `outcome`.
    fn now(
        load: &Load<'_>,
        identity: JobIdentity,
        position: &LoadPosition,
        outcome: Outcome,
    ) -> Self {
        Self {
            rows: outcome.rows.read.saturating_sub(position.input.row),
            records: outcome.records.delivered.saturating_sub(position.records),
            seconds: outcome.seconds,
            was_published: false,
            hints: Vec::new(),
            ended: Ended {
                identity,
                sources: load.sources(),
                rejects_file: load.rejects_file(),
                rejects_topic: load.rejects_topic(),
                repeats: Vec::new(),
                resumed_at_row: resumed_at(position),
                outcome,
            },
        }
    }
}

/// The row a run goes on behind; `None` for one that begins at the start.
fn resumed_at(position: &LoadPosition) -> Option<u64> {
    (position.input.row > 0).then_some(position.input.row)
}

/// Everything but sending.
fn count(
    args: &PublishArgs,
    load: &Load<'_>,
    context: &Context,
    warnings: &mut Vec<String>,
) -> Result<Done, Failure> {
    let rejects = RejectsOptions {
        file: None,
        to_sink: false,
        ..rejects_options(&args.rejects)
    };
    let found = load.found();
    let position = found.map_or_else(LoadPosition::start, |found| found.load.clone());
    let mut run = Run {
        load,
        context,
        rejects: &rejects,
        // Ids are taken for the frames only: they change no length and no check.
        schema_ids: SchemaIds {
            value: (load.records.format() == ValueFormat::Avro).then_some(0),
            key: (load.records.key_format() == KeyFormat::Avro).then_some(0),
        },
        commits: CommitCadence::default(),
        warnings,
        moved_back: Vec::new(),
        hints: Vec::new(),
    };
    let mut sink = Counter::new(load.expected_partitions(), &position);
    let outcome = run.go(&position, None, &mut sink)?;
    let identity = load.identity(SchemaIds::default())?;
    Ok(Done::now(load, identity, &position, outcome))
}

/// Registers, creates, and sends. `None`: the job is not what it was when it was looked for.
fn send(
    args: &PublishArgs,
    load: &Load<'_>,
    context: &Context,
    warnings: &mut Vec<String>,
) -> Result<Option<Done>, Failure> {
    let schema_ids = load.commit()?;
    let identity = load.identity(schema_ids)?;
    let client = &load.service.client;
    let config = ProducerConfig {
        compression: commands::compression(args.delivery.compression),
        ..ProducerConfig::default()
    };
    let rejects = rejects_options(&args.rejects);
    let mut run = Run {
        load,
        context,
        rejects: &rejects,
        schema_ids,
        commits: commit_cadence(args),
        warnings,
        moved_back: Vec::new(),
        hints: Vec::new(),
    };
    let opened = match &load.job {
        Some(job) => job.open(client, config.clone(), load.run_of(identity.clone()))?,
        None => Opened::Unkept(None),
    };
    match opened {
        Opened::Ready(ready) => {
            let (mut sink, position) = *ready;
            let outcome = run.held(args, &position, &mut sink)?;
            let mut done = Done::now(load, identity, &position, outcome);
            done.ended.repeats = sink.repeats().to_vec();
            done.ended.outcome.seconds = sink.seconds();
            done.hints = run.hints;
            Ok(Some(done))
        }
        Opened::Changed => Ok(None),
        Opened::Unkept(refused) => {
            if let Some(why) = refused {
                let warning = format!("no position is kept: {}", why.full_message());
                context.terminal.warn(&warning);
                run.warnings.push(warning);
            }
            let mut sink = TopicSink::open(client, config, &args.topic)?;
            if let Some(topic) = &args.rejects.rejects_topic {
                sink.keep_rejects(topic, None)?;
            }
            let position = LoadPosition::start();
            let outcome = run.held(args, &position, &mut sink)?;
            let mut done = Done::now(load, identity, &position, outcome);
            done.hints = run.hints;
            Ok(Some(done))
        }
    }
}

/// One way through the input.
struct Run<'a, 'b> {
    load: &'a Load<'a>,
    context: &'a Context,
    rejects: &'a RejectsOptions,
    schema_ids: SchemaIds,
    commits: CommitCadence,
    warnings: &'b mut Vec<String>,
    /// Where a group that holds the load went back.
    moved_back: Vec<MovedBack>,
    /// What may be the matter with it, once it was waited for too long.
    hints: Vec<String>,
}

impl Run<'_, '_> {
    /// Goes, held back by a group if that was asked for.
    fn held<P: Produce>(
        &mut self,
        args: &PublishArgs,
        position: &LoadPosition,
        sink: &mut P,
    ) -> Result<Outcome, Failure> {
        let gate = &args.consumers;
        let (Some(group), Some(limit)) = (&gate.hold_group, gate.hold_limit) else {
            return self.go(position, None, sink);
        };
        let client = &self.load.service.client;
        let all: Vec<i32> = (0..sink.partitions()).collect();
        let mut committed = GroupCommits::new(client, group, &args.topic, all.iter().copied());
        let hold = HoldOn {
            options: HoldOptions {
                timeout: gate.hold_timeout,
                ..HoldOptions::new(limit)
            },
            committed: &mut committed,
        };
        let outcome = self.go(position, Some(hold), sink)?;
        let gave_up = outcome.error.as_ref();
        if gave_up.is_some_and(|error| error.kind() == ErrorKind::HoldTimeout) {
            let committed = client.admin().committed(group, &args.topic, &all);
            let seen = groups::Seen {
                group,
                topic: &args.topic,
                nothing: committed.is_ok_and(|found| found.iter().all(|(_, at)| at.is_none())),
                moved_back: &self.moved_back,
            };
            self.hints = groups::hints(client, seen);
        }
        Ok(outcome)
    }

    /// Runs the path of a row into `sink`, showing progress.
    fn go<P: Produce>(
        &mut self,
        position: &LoadPosition,
        hold: Option<HoldOn<'_>>,
        sink: &mut P,
    ) -> Result<Outcome, Failure> {
        let (load, context) = (self.load, self.context);
        let (warnings, moved_back) = (&mut *self.warnings, &mut self.moved_back);
        let mut progress = Progress::new(context.terminal, "publish", load.inputs.length());
        let mut figures = Figures::default();
        let mut events = |event: Event<'_>| {
            if let Some(warning) = warning_of(&event).filter(|_| warnings.len() < MAX_WARNINGS) {
                progress.say(|| context.terminal.warn(&warning));
                warnings.push(warning);
            }
            note_moved_back(&event, moved_back);
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
            csv: load.inputs.format(),
            plan: &load.records,
            schema_ids: self.schema_ids,
            rejects: self.rejects,
            commits: self.commits,
            hold_last: load.hold_last(),
            interrupt: context.interrupt.flag(),
        };
        let outcome = publish(
            load.inputs.all(),
            position,
            &options,
            hold,
            sink,
            &SystemClock::new(),
            &mut events,
        );
        progress.finish();
        outcome.map_err(|error| match error.kind() {
            ErrorKind::Interrupted => context.interrupt.failure(),
            _ => job::failed(error),
        })
    }
}

/// Keeps where the group went back last, in each partition.
fn note_moved_back(event: &Event<'_>, moved_back: &mut Vec<MovedBack>) {
    if let Event::GroupMovedBack {
        partition,
        from,
        to,
    } = *event
    {
        moved_back.retain(|moved| moved.partition != partition);
        moved_back.push(MovedBack {
            partition,
            from,
            to,
        });
    }
}

/// What happened on the way that is probably not meant.
pub(super) fn warning_of(event: &Event<'_>) -> Option<String> {
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

/// What people should know of groups that came again.
fn about_returned(groups: ReturnedGroups) -> Option<String> {
    let unnoticed = if groups.has_stopped {
        format!(
            "; of more than {} groups those behind were not looked for",
            grouped(MAX_SEEN_GROUPS as u64)
        )
    } else {
        String::new()
    };
    let Some(first) = groups.first else {
        return groups.has_stopped.then(|| {
            format!("no group was seen to come again{unnoticed}: is the input sorted by the group-by columns?")
        });
    };
    Some(format!(
        "{} came again and made another record: the first is {}, of row {} and again of row {}{unnoticed}; is the input sorted by the group-by columns? --strict-groups makes that an error",
        counted(groups.count, "group"),
        first.group,
        first.first_row,
        first.row
    ))
}

/// Sums up, after the receipt is written and what else was asked for is done.
fn finish(
    args: &PublishArgs,
    load: &Load<'_>,
    context: &Context,
    mut done: Done,
    mut warnings: Vec<String>,
) -> Result<Finished, Failure> {
    let outcome = &mut done.ended.outcome;
    let is_held = outcome.is_held();
    if is_held && outcome.status == Status::Complete {
        let note = "the end of the file is left for a later run, when it may have grown";
        context.terminal.note(note);
    }
    if outcome.rows.read == 0 && outcome.status == Status::Complete && !is_held {
        let warning = format!("{} has a header and no rows", load.inputs.name());
        context.terminal.warn(&warning);
        warnings.push(warning);
    }
    if let Some(warning) = outcome.returned_groups.take().and_then(about_returned) {
        context.terminal.warn(&warning);
        warnings.push(warning);
    }
    let hints = std::mem::take(&mut done.hints);
    let ended = why_it_ended(outcome, load, context);
    let ended = ended.map(|failure| hints.into_iter().fold(failure, Failure::hint));
    let nothing_sent = (args.proof.dry_run || load.is_empty()) && !done.was_published;
    let receipt = done.ended.receipt();
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
    Ok(Finished {
        summary: Summary::Publish(Box::new(summary(
            args,
            load,
            done,
            nothing_sent,
            warnings,
            &mut after,
        ))),
        failure: ended.or(after.failure),
    })
}

/// The summary of what was done, and of what was asked for beyond it.
fn summary(
    args: &PublishArgs,
    load: &Load<'_>,
    done: Done,
    nothing_sent: bool,
    warnings: Vec<String>,
    after: &mut Aftermath,
) -> PublishSummary {
    let mut outcome = done.ended.outcome;
    if nothing_sent {
        outcome.records.delivered = 0;
        outcome.partitions.clear();
    }
    PublishSummary {
        status: match outcome.status {
            Status::Complete if done.was_published => LoadStatus::AlreadyPublished,
            Status::Complete if args.proof.dry_run => LoadStatus::Planned,
            Status::Complete => LoadStatus::Complete,
            Status::Interrupted => LoadStatus::Interrupted,
            Status::Failed => LoadStatus::Failed,
        },
        topic: args.topic.clone(),
        source: load.inputs.name(),
        job: load.job.as_ref().map(|job| job.id.clone()),
        delivery: load.delivery(),
        rows: outcome.rows,
        read_counts: outcome.read_counts,
        records: outcome.records,
        partitions: outcome.partitions,
        schema_id: done.ended.identity.schema_id,
        key_schema_id: done.ended.identity.key_schema_id,
        resumed_at_row: done.ended.resumed_at_row,
        this_run: RunFigures::new(done.rows, done.records, done.seconds),
        warnings,
        rejects: outcome.rejects,
        wait: after.wait.take(),
        verify: after.verify.take(),
    }
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
                inputs: &load.inputs,
                plan: &load.records,
                client: &load.service.client,
                topic: &args.topic,
                schema_ids: receipt.schema_ids(),
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

/// What ended a load before its input did, and how to go on; `None` where nothing did.
fn why_it_ended(outcome: &mut Outcome, load: &Load<'_>, context: &Context) -> Option<Failure> {
    let failure = match outcome.error.take() {
        // A stream that a signal stopped says so by an error, for it cannot end.
        Some(_) if context.interrupt.is_set() && !load.inputs.is_file() => {
            outcome.status = Status::Interrupted;
            context.interrupt.failure()
        }
        Some(error) if error.kind() == ErrorKind::Interrupted => {
            context.interrupt.failure().because(error)
        }
        // The same command would not go on with another input.
        Some(error) if error.kind() == ErrorKind::InputChanged => {
            return Some(job::failed(error));
        }
        Some(error) => match context.storage_failure() {
            Some(failure) if error.kind() == ErrorKind::Sink => {
                Failure::new(Kind::LocalIo, failure).because(error)
            }
            _ => of_load(error),
        },
        None if outcome.status == Status::Interrupted => context.interrupt.failure(),
        None => return None,
    };
    Some(how_to_go_on(failure, load, outcome))
}

/// The failure of a load.
fn of_load(error: tidegate::core::Error) -> Failure {
    let is_unreadable = error.kind() == ErrorKind::Input;
    let is_unsorted = error.kind() == ErrorKind::UnsortedGroups;
    let failure = Failure::from(error);
    match failure.kind() {
        Kind::Input if is_unsorted => {
            failure.hint("sort the input by the group-by columns, or leave --strict-groups out: then each part makes a record of its own")
        }
        Kind::Input if !is_unreadable => failure
            .hint("correct the row, or keep bad rows apart with --rejects FILE or --rejects-topic TOPIC"),
        _ => failure,
    }
}

/// Says what running the same command again would do.
fn how_to_go_on(failure: Failure, load: &Load<'_>, outcome: &Outcome) -> Failure {
    if load.job.is_none() {
        return failure
            .hint("what was delivered is stated above; loading again sends every row again");
    }
    let rows = outcome.position.as_ref().map(|position| position.input.row);
    match (failure.kind(), rows) {
        (Kind::AlreadyRunning, _) => failure
            .hint("another run of this job took over, and goes on with it; if there is none, the same command goes on behind what was committed"),
        (_, Some(rows)) => {
            let rows = grouped(rows);
            failure.hint(format!("the same command goes on after row {rows}"))
        }
        (_, None) => failure.hint("the same command goes on behind what was kept last"),
    }
}

/// What can be known of the local files before anything is sent.
fn check_local_files(args: &PublishArgs, load: &Load<'_>) -> Result<(), Failure> {
    let written = [
        ("--rejects", args.rejects.rejects.as_deref()),
        ("--receipt", args.proof.receipt.as_deref()),
    ];
    for (flag, path) in written {
        let Some(path) = path else { continue };
        let is_input = |file: &PathBuf| same_file(path, file);
        if load.inputs.is_file() && args.files.iter().any(is_input) {
            return Err(Failure::new(
                Kind::Usage,
                format!("{flag} {} is an input itself", path.display()),
            ));
        }
    }
    if let [(_, Some(rejects)), (_, Some(receipt))] = written
        && (rejects == receipt || same_file(rejects, receipt))
    {
        let message = format!("--rejects and --receipt are both {}", receipt.display());
        return Err(Failure::new(Kind::Usage, message));
    }
    if let Some(path) = args.proof.receipt.as_deref() {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let is_folder = fs::metadata(folder)
            .map_err(|error| cannot_write(path, error))?
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

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::new(Kind::LocalIo, format!("cannot write {}", path.display())).because(error)
}

/// The file for rejected rows, which no other run may write as long as it is open here. A run that was replaced does not know that at once, and would cut
/// the file to where it stands itself. Nothing for a dry run, and without such a file; one that should hold something is not made anew.
fn take_rejects_file(args: &PublishArgs, may_create: bool) -> Result<Option<File>, Failure> {
    let path = args.rejects.rejects.as_deref();
    let Some(path) = path.filter(|_| !args.proof.dry_run) else {
        return Ok(None);
    };
    let mut options = OpenOptions::new();
    let file = match options.create(may_create).append(true).open(path) {
        // Told by whoever opens it to go on with it.
        Err(error) if !may_create && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| cannot_write(path, error))?,
    };
    // Several may write to a terminal or a pipe; and there are file systems without locks.
    if file.metadata().is_ok_and(|found| found.is_file())
        && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    {
        let message = format!("another run writes its rejected rows to {}", path.display());
        let failure = Failure::new(Kind::AlreadyRunning, message);
        return Err(failure.hint("wait for it, or end it; the same command goes on then"));
    }
    Ok(Some(file))
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

fn rejects_options(args: &RejectArgs) -> RejectsOptions {
    let on_bad_row = if args.has_place() {
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
        to_sink: args.rejects_topic.is_some(),
    }
}
