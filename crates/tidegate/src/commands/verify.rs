//! `tidegate verify`: read a topic back and compare it with the files, record by record. Also `publish --verify`.

use std::path::{Path, PathBuf};

use tidegate::bridge::{CommittedReader, ReadRange, SystemClock};
use tidegate::core::encode::SchemaIds;
use tidegate::core::event::Event;
use tidegate::core::job::JobPosition;
use tidegate::core::publish::{CommitCadence, PublishOptions};
use tidegate::core::receipt::{Receipt, Status};
use tidegate::core::rejects::{MaxRejects, OnBadRow, RejectsOptions};
use tidegate::core::schema::RecordPlan;
use tidegate::core::verify::{Compared, VerifyReport, VerifyStatus, verify};
use tidegate::kafka::{Client, Isolation, OffsetSpec};

use crate::args::VerifyArgs;
use crate::failure::{Failure, Kind};
use crate::inputs::Inputs;
use crate::job::find_position;
use crate::options::{ResolvedOptions, Typed};
use crate::progress::{Figures, Progress};
use crate::receipts::Ended;
use crate::report::{Finished, Summary, VerifySummary, grouped};
use crate::service::{Context, Reach, Service};
use crate::subject_schema::Schemas;
use crate::topic;

/// What is compared with what.
#[derive(Debug)]
pub(crate) struct Proof<'a> {
    /// The files.
    pub(crate) inputs: &'a Inputs,
    /// How its rows become records.
    pub(crate) plan: &'a RecordPlan,
    /// The cluster.
    pub(crate) client: &'a Client,
    /// The topic.
    pub(crate) topic: &'a str,
    /// The schema ids that Avro values and keys carry.
    pub(crate) schema_ids: SchemaIds,
    /// The load's receipt; without one the whole topic is compared.
    pub(crate) receipt: Option<&'a Receipt>,
}

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs, context: &mut Context) -> Result<Finished, Failure> {
    let (summary, failure) = match &args.receipt {
        Some(path) => with_receipt(args, path, context)?,
        None => with_topic(args, context)?,
    };
    Ok(Finished {
        summary: Summary::Verify(summary),
        failure,
    })
}

/// The receipt says what was published, where, and how.
fn with_receipt(
    args: &VerifyArgs,
    path: &Path,
    context: &mut Context,
) -> Result<(VerifySummary, Option<Failure>), Failure> {
    let receipt = Receipt::read(path)?;
    if receipt.status != Status::Complete {
        let reason = format!(
            "the load did not complete: its receipt says {:?}",
            receipt.status
        )
        .to_lowercase();
        return Ok(judged(cannot(reason)));
    }
    let whose = format!("the receipt {}", path.display());
    let options = ResolvedOptions::parse(&receipt.plan, &whose)?;
    let files = sources_of(args, &receipt)?;
    let service = context.connect(Reach {
        cluster: &args.cluster,
        registry: None,
        delivery_timeout: None,
    })?;
    against(&receipt, &options, &files, &service.client, context)
}

/// Compares with what a receipt says.
fn against(
    receipt: &Receipt,
    options: &ResolvedOptions,
    files: &[PathBuf],
    client: &Client,
    context: &Context,
) -> Result<(VerifySummary, Option<Failure>), Failure> {
    let (inputs, plan) = options.open(files, &context.interrupt)?;
    let proof = Proof {
        inputs: &inputs,
        plan: &plan,
        client,
        topic: &receipt.topic,
        schema_ids: receipt.schema_ids(),
        receipt: Some(receipt),
    };
    compare(&proof, context)
}

/// Without a receipt the job's position says what was published. Where there is none either, the flags say how the rows became records, and the
/// whole topic is compared.
fn with_topic(
    args: &VerifyArgs,
    context: &mut Context,
) -> Result<(VerifySummary, Option<Failure>), Failure> {
    let Some(topic) = args.topic.as_ref().filter(|_| !args.files.is_empty()) else {
        return Err(Failure::new(
            Kind::Usage,
            "FILE and --topic, or --receipt, say what is compared",
        ));
    };
    let inputs = Inputs::prepare(&args.files, &args.csv, &context.interrupt)?;
    let reach = Reach {
        cluster: &args.cluster,
        registry: Some(&args.registry),
        delivery_timeout: None,
    };
    let service = context.connect(reach)?;
    topic::partitions(&service.client, topic)?;
    if let Some(found) = find_position(&service.client, &args.job, topic, &inputs)? {
        return with_position(args, &found, &service, context);
    }
    let registry = service.registry.as_ref();
    let (schemas, plan) = Schemas::choose(&args.schema, &args.records, topic, registry, &inputs)?;
    let schema_ids = schemas.find_ids(&plan, registry)?;
    let proof = Proof {
        inputs: &inputs,
        plan: &plan,
        client: &service.client,
        topic,
        schema_ids,
        receipt: None,
    };
    compare(&proof, context)
}

/// The position of the job says what was published, and how.
fn with_position(
    args: &VerifyArgs,
    found: &JobPosition,
    service: &Service,
    context: &Context,
) -> Result<(VerifySummary, Option<Failure>), Failure> {
    let job = &found.identity.job;
    if !found.is_complete {
        let rows = grouped(found.load.input.row);
        let reason = format!("the job {job} is not complete: it has come to row {rows}");
        return Ok(judged(cannot(reason)));
    }
    let options = ResolvedOptions::parse(&found.identity.plan, &format!("the job {job}"))?;
    let typed = Typed {
        schema: &args.schema,
        records: &args.records,
        csv: &args.csv,
    };
    let registry = service.registry.as_ref();
    options.refuse_others(&typed, found.identity.schema_id, registry)?;
    let mut receipt = Ended::of(found).receipt();
    // The files that were typed are compared, whether they are still those that were loaded or not: how it differs is what was asked.
    receipt.sources.clear();
    against(&receipt, &options, &args.files, &service.client, context)
}

/// Compares; a difference is a failure beside the summary that names it.
pub(crate) fn compare(
    proof: &Proof<'_>,
    context: &Context,
) -> Result<(VerifySummary, Option<Failure>), Failure> {
    if !proof.inputs.is_file() {
        let message = format!(
            "{} can be read only once, so it cannot be compared",
            proof.inputs.name()
        );
        return Err(Failure::new(Kind::Usage, message));
    }
    // Damage is none of the topic's differences.
    proof.inputs.check(context)?;
    let partitions = topic::partitions(proof.client, proof.topic)?;
    if let Some(reason) = proof
        .receipt
        .and_then(|receipt| changed(proof, receipt, partitions.len()))
    {
        return Ok(judged(cannot(reason)));
    }
    let producer_ids = proof
        .receipt
        .map(|receipt| receipt.producer_ids.as_slice())
        .filter(|ids| !ids.is_empty());
    let ranges = ranges(proof, &partitions)?;
    let own = producer_ids.unwrap_or_default();
    let mut reader = CommittedReader::open(proof.client, proof.topic, &ranges, own)?;
    let rejects = RejectsOptions {
        on_bad_row: OnBadRow::Skip,
        max_rejects: MaxRejects::Unlimited,
        file: None,
        to_sink: false,
    };
    let options = PublishOptions {
        csv: proof.inputs.format(),
        plan: proof.plan,
        schema_ids: proof.schema_ids,
        rejects: &rejects,
        commits: CommitCadence::default(),
        hold_last: proof.receipt.is_some_and(|receipt| receipt.held),
        interrupt: context.interrupt.flag(),
    };
    let compared = Compared {
        partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
        producer_ids,
        receipt: proof.receipt,
    };
    let mut progress = Progress::new(context.terminal, "verify", proof.inputs.length());
    let mut figures = Figures::default();
    let mut events = |event: Event<'_>| {
        figures.take(&event);
        progress.update(&figures);
    };
    let report = verify(
        proof.inputs.all(),
        &options,
        &compared,
        &mut reader,
        &SystemClock::new(),
        &mut events,
    );
    progress.finish();
    if context.interrupt.is_set() {
        // What was compared until then says nothing about the rest.
        return Err(context.interrupt.failure());
    }
    Ok(judged(report?))
}

/// Why the topic cannot be compared with the receipt, if it is not as it was.
fn changed(proof: &Proof<'_>, receipt: &Receipt, now: usize) -> Option<String> {
    let (topic, then) = (proof.topic, receipt.partitions.len());
    let created_again = match (&receipt.topic_id, topic::id(proof.client, topic)) {
        (Some(then), Some(now)) => *then != now,
        _ => false,
    };
    if created_again {
        return Some(format!(
            "{topic} was deleted and created again since the load"
        ));
    }
    // Who may not read the settings is not stopped by that: a record that is gone is found missing.
    let configs = proof.client.admin().topic_configs(topic).ok()?;
    let policy = configs.get("cleanup.policy").map(String::as_str);
    if policy.is_some_and(|policy| policy.contains("compact")) {
        return Some(format!(
            "{topic} is compacted: records whose key came again may be gone"
        ));
    }
    (then != now)
        .then(|| format!("{topic} has {now} partitions now and had {then} when it was loaded"))
}

/// Which part of each partition is read: the load's own, or all there is.
fn ranges(proof: &Proof<'_>, partitions: &[i32]) -> Result<Vec<ReadRange>, Failure> {
    let (admin, isolation) = (proof.client.admin(), Isolation::ReadUncommitted);
    let starts = admin.list_offsets(proof.topic, partitions, OffsetSpec::Earliest, isolation)?;
    let ends = admin.list_offsets(proof.topic, partitions, OffsetSpec::Latest, isolation)?;
    let range = |(index, (partition, first)): (usize, &(i32, i64))| {
        let end = ends.get(index).map_or(*first, |(_, end)| *end);
        let whole = ReadRange {
            partition: *partition,
            start: *first,
            end,
        };
        let Some(receipt) = proof.receipt else {
            return whole;
        };
        let own = receipt
            .partitions
            .iter()
            .find(|own| own.partition == *partition);
        match own.map(|own| (own.records, own.first_offset, own.last_offset)) {
            Some((0, ..)) | None => ReadRange {
                end: *first,
                ..whole
            },
            Some((_, Some(start), Some(last))) => ReadRange {
                start,
                end: last + 1,
                ..whole
            },
            // An answer that was lost left the offsets unknown: ours are found by their producer id.
            Some(_) => whole,
        }
    };
    Ok(starts.iter().enumerate().map(range).collect())
}

/// The summary of a report, and the failure where it is one.
fn judged(report: VerifyReport) -> (VerifySummary, Option<Failure>) {
    let difference = report.first_difference.as_ref().map(ToString::to_string);
    let failure = match report.status {
        VerifyStatus::Same => None,
        VerifyStatus::Differs => {
            let what = difference.clone().unwrap_or_default();
            Some(Failure::new(
                Kind::Differs,
                format!("the topic differs from the file: {what}"),
            ))
        }
        VerifyStatus::CannotVerify => {
            let why = report.reason.clone().unwrap_or_default();
            Some(Failure::new(
                Kind::Differs,
                format!("the load cannot be verified: {why}"),
            ))
        }
    };
    let summary = VerifySummary {
        status: report.status,
        exit_code: failure
            .as_ref()
            .map_or(0, |failure| failure.kind().exit_code()),
        records: report.records,
        rows: report.rows,
        first_difference: report.first_difference,
        foreign_records: report.foreign_records,
        repeated_records: report.repeated_records,
        reason: difference.or(report.reason),
    };
    (summary, failure)
}

fn cannot(reason: String) -> VerifyReport {
    let status = VerifyStatus::CannotVerify;
    VerifyReport {
        status,
        records: 0,
        rows: 0,
        first_difference: None,
        foreign_records: 0,
        repeated_records: 0,
        reason: Some(reason),
    }
}

/// The files that are compared: those that were typed, else the receipt's.
fn sources_of(args: &VerifyArgs, receipt: &Receipt) -> Result<Vec<PathBuf>, Failure> {
    if !args.files.is_empty() {
        return Ok(args.files.clone());
    }
    if receipt.sources.iter().any(|source| source.path == "stdin") {
        return Err(Failure::new(
            Kind::Usage,
            "the load read stdin: name a file with the same content to compare with",
        ));
    }
    let paths = receipt.sources.iter().map(|source| &source.path);
    Ok(paths.map(PathBuf::from).collect())
}
