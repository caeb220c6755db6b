//! `tidegate job`: the jobs that have a position, where they stand, and forgetting them.

use serde_json::{Value, json};
use tidegate::bridge::{forget_job, job_positions};
use tidegate::core::job::JobPosition;

use crate::args::{ClusterArgs, JobCommand, JobIdArgs, JobListArgs, PositionsArgs};
use crate::failure::{Failure, Kind};
use crate::receipts::Ended;
use crate::report::{AnswerSummary, Finished, Summary, counted, grouped};
use crate::service::{Context, Reach, Service};

/// Runs the command.
pub(crate) fn run(command: &JobCommand, context: &mut Context) -> Result<Finished, Failure> {
    let answer = match command {
        JobCommand::List(args) => list(args, context)?,
        JobCommand::Show(args) => show(args, context)?,
        JobCommand::Forget(args) => forget(args, context)?,
    };
    Ok(Finished::well(Summary::Answer(answer)))
}

fn connect(cluster: &ClusterArgs, context: &mut Context) -> Result<Service, Failure> {
    context.connect(Reach {
        cluster,
        registry: None,
        delivery_timeout: None,
    })
}

fn list(args: &JobListArgs, context: &mut Context) -> Result<AnswerSummary, Failure> {
    let service = connect(&args.cluster, context)?;
    let positions = job_positions(&service.client, &args.positions.positions_topic)?;
    let positions = positions.unwrap_or_default();
    let (mut text, mut jobs) = (String::new(), Vec::new());
    for (id, value) in &positions {
        match JobPosition::parse(value) {
            Ok(job) => {
                text.push_str(&format!("{}\n", one_line(&job)));
                jobs.push(in_short(&job));
            }
            // One that a newer program wrote must not hide the others.
            Err(error) => context.terminal.warn(&format!("{id}: {error}")),
        }
    }
    if text.is_empty() {
        text = format!(
            "no job has a position in {}\n",
            args.positions.positions_topic
        );
    }
    Ok(AnswerSummary {
        text,
        json: json!({ "status": "listed", "jobs": jobs }),
    })
}

fn show(args: &JobIdArgs, context: &mut Context) -> Result<AnswerSummary, Failure> {
    let service = connect(&args.cluster, context)?;
    let job = find(&service, &args.job, &args.positions)?;
    let receipt = serde_json::to_value(Ended::of(&job).receipt()).map_err(|error| {
        Failure::new(Kind::Internal, "the receipt cannot be written as JSON").because(error)
    })?;
    let mut text = format!("{}\n", one_line(&job));
    for (name, value) in [
        ("topic", job.identity.topic.clone()),
        ("input", job.sources.join(", ")),
        ("delivery", job.identity.delivery.to_string()),
        ("runs", job.runs.to_string()),
        ("began", time(job.started_at)),
        ("last commit", time(job.written_at)),
        ("rejected", counted(job.load.rejects.rows, "row")),
    ] {
        text.push_str(&format!("  {name:<11} {value}\n"));
    }
    for partition in job
        .load
        .partitions
        .iter()
        .filter(|partition| partition.records > 0)
    {
        let last = partition.last_offset;
        let last = last.map_or_else(|| "unknown".to_owned(), |offset| offset.to_string());
        let records = counted(partition.records, "record");
        text.push_str(&format!(
            "  partition {:<3} {records}, the last at offset {last}\n",
            partition.partition
        ));
    }
    let mut json = in_short(&job);
    json["receipt"] = receipt;
    Ok(AnswerSummary { text, json })
}

fn forget(args: &JobIdArgs, context: &mut Context) -> Result<AnswerSummary, Failure> {
    let service = connect(&args.cluster, context)?;
    let job = find(&service, &args.job, &args.positions)?;
    forget_job(&service.client, &args.positions.positions_topic, &args.job)?;
    let rows = grouped(job.load.input.row);
    Ok(AnswerSummary {
        text: format!("forgot {}, which stood at row {rows}\n", args.job),
        json: json!({ "status": "forgotten", "job": args.job, "rows": job.load.input.row }),
    })
}

fn find(service: &Service, id: &str, args: &PositionsArgs) -> Result<JobPosition, Failure> {
    let positions = job_positions(&service.client, &args.positions_topic)?;
    match positions.unwrap_or_default().get(id) {
        Some(value) => Ok(JobPosition::parse(value)?),
        None => {
            let message = format!("there is no job {id} in {}", args.positions_topic);
            Err(Failure::new(Kind::Usage, message)
                .hint("`tidegate job list` names those there are"))
        }
    }
}

/// `usage:/data/usage.csv: complete, 240 rows, 24 records`.
fn one_line(job: &JobPosition) -> String {
    format!(
        "{}: {}, {}, {}",
        job.identity.job,
        status(job),
        counted(job.load.input.row, "row"),
        counted(job.load.records, "record")
    )
}

fn in_short(job: &JobPosition) -> Value {
    json!({
        "status": status(job), "job": job.identity.job, "topic": job.identity.topic, "sources": job.sources,
        "delivery": job.identity.delivery, "rows": job.load.input.row, "records": job.load.records, "runs": job.runs,
        "started_at": job.started_at, "written_at": job.written_at,
    })
}

fn status(job: &JobPosition) -> &'static str {
    if job.is_complete {
        "complete"
    } else {
        "incomplete"
    }
}

/// A moment as people read it, in UTC; one that no calendar has as it is.
fn time(unix_millis: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_millis)
        .map_or_else(|_| unix_millis.to_string(), |time| format!("{time:.3}"))
}
