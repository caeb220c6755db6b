//! Which job a load is, where it stands, and whether it may go on from there.
//!
//! [`LoadJob::find`] only looks, so that a load that is refused disturbs nobody; [`LoadJob::open`] takes the job over, and looks again: until then
//! an earlier run may still have been at work.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate::bridge::{Job, JobSink, job_positions};
use tidegate::core;
use tidegate::core::job::{Delivery, JobPosition};
use tidegate::core::position::LoadPosition;
use tidegate::core::produce::SinkError;
use tidegate::core::publish::has_more;
use tidegate::kafka::producer::ProducerConfig;
use tidegate::kafka::{self, Client};

use crate::args::{DeliveryChoice, JobArgs, PublishArgs};
use crate::failure::{Failure, Kind};
use crate::inputs::Inputs;
use crate::options::other;

/// The job of a load, as it stood when it was looked for.
#[derive(Debug)]
pub(crate) struct LoadJob {
    /// Its id.
    pub(crate) id: String,
    /// What is promised.
    pub(crate) delivery: Delivery,
    /// Whether the topic for positions is still to be created.
    pub(crate) positions_missing: bool,
    /// Where it stands; `None` for one that is new, or is to begin again.
    pub(crate) found: Option<JobPosition>,
    others: Vec<JobPosition>,
}

impl LoadJob {
    /// Looks for the job of a load. `None` for one that keeps no positions: a stream, which cannot be read again, and a load at least once on a
    /// cluster without a topic for positions.
    pub(crate) fn find(
        args: &PublishArgs,
        inputs: &Inputs,
        client: &Client,
    ) -> Result<Option<Self>, Failure> {
        if !inputs.is_file() {
            return refuse_stream(args, inputs).map(|()| None);
        }
        let typed = args.delivery.delivery.map(|choice| match choice {
            DeliveryChoice::ExactlyOnce => Delivery::ExactlyOnce,
            DeliveryChoice::AtLeastOnce => Delivery::AtLeastOnce,
        });
        let looked = look(client, &args.delivery.job, &args.topic, inputs);
        let (id, looked) = match looked {
            // At least once, positions are a help and no condition.
            Err(failure) if is_let_go(typed, &failure) => return Ok(None),
            looked => looked?,
        };
        let positions_missing = looked.is_none();
        if typed == Some(Delivery::AtLeastOnce) && positions_missing {
            return Ok(None);
        }
        let (found, others) = looked.unwrap_or_default();
        let found = found.filter(|_| !args.delivery.restart);
        let known = found.as_ref().map(|found| found.identity.delivery);
        if let (Some(typed), Some(known)) = (typed, known)
            && typed != known
        {
            return Err(other("delivery", &typed.to_string(), &known.to_string()));
        }
        let job = Self {
            id,
            delivery: known.or(typed).unwrap_or(Delivery::ExactlyOnce),
            positions_missing,
            found,
            others,
        };
        job.check(args)?;
        Ok(Some(job))
    }

    /// Holds what was typed against what the job began with, as far as it does not concern records.
    fn check(&self, args: &PublishArgs) -> Result<(), Failure> {
        let Some(found) = &self.found else {
            return Ok(());
        };
        if found.identity.topic != args.topic {
            return Err(other("topic", &args.topic, &found.identity.topic));
        }
        let topic = found.rejects_topic.as_ref();
        let typed_topic = args.rejects.rejects_topic.as_ref();
        if let Some(known) = topic.filter(|_| found.load.rejects.sent > 0)
            && Some(known) != typed_topic
        {
            let rows = found.load.rejects.sent;
            let message = format!("the load has sent {rows} rejected rows to topic {known} so far");
            let failure = Failure::new(Kind::Usage, message);
            return Err(failure.hint(format!("--rejects-topic {known} goes on with it")));
        }
        let typed = args.rejects.rejects.as_deref().map(absolute);
        let known = found
            .rejects_file
            .as_ref()
            .filter(|_| found.load.rejects.rows > 0);
        if known.is_some_and(|known| Some(known) != typed.as_ref()) {
            let known = known.map_or("", String::as_str);
            let rows = found.load.rejects.rows;
            let message = format!("the load has written {rows} rejected rows to {known} so far");
            let failure = Failure::new(Kind::LocalIo, message);
            return Err(failure.hint(format!("--rejects {known} goes on with it")));
        }
        Ok(())
    }

    /// Refuses files that another job has published or begun to, where either is a load of several: a list in which files were put in front, removed
    /// or exchanged would else make another job, which publishes them again. Who names the job knows.
    pub(crate) fn refuse_other_list(
        &self,
        args: &PublishArgs,
        inputs: &Inputs,
        topic_id: Option<&str>,
    ) -> Result<(), Failure> {
        if args.delivery.job.job.is_some() || args.delivery.restart {
            return Ok(());
        }
        let known = self.found.as_ref().map_or(&[][..], |found| &found.sources);
        let ours = inputs.identities();
        let mut new = ours.iter().filter(|source| !known.contains(source));
        let holder = new.find_map(|source| {
            let holds = |other: &&JobPosition| {
                let theirs = &other.identity;
                (theirs.topic.as_str(), theirs.topic_id.as_deref()) == (&args.topic, topic_id)
                    && (ours.len() > 1 || other.sources.len() > 1)
                    && other.sources.contains(source)
            };
            Some((source, self.others.iter().find(holds)?))
        });
        let Some((source, other)) = holder else {
            return Ok(());
        };
        let (job, topic) = (&other.identity.job, &args.topic);
        let message = format!(
            "{source} belongs to another load to {topic} already: the job {job}, of {}",
            other.sources.join(", ")
        );
        Err(Failure::new(Kind::Input, message)
            .hint("a load is gone on with by the same files in the same order, with new ones behind them")
            .hint("--job NAME makes this one a load of its own, which publishes every row of these files"))
    }

    /// Whether all rows are in the topic already.
    pub(crate) fn is_published(&self, inputs: &Inputs) -> Result<bool, Failure> {
        let Some(found) = self.found.as_ref().filter(|found| found.is_complete) else {
            return Ok(false);
        };
        let known = &found.load;
        if inputs.length().is_some_and(|length| length > known.bytes()) {
            return Ok(false);
        }
        Ok(!has_more(inputs.all(), known).map_err(failed)?)
    }

    /// What people should know of other jobs before this one begins: the same content on the same topic is there twice then.
    pub(crate) fn warning(
        &self,
        inputs: &Inputs,
        topic: &str,
        topic_id: Option<&str>,
    ) -> Option<String> {
        if self.found.is_some() {
            return None;
        }
        let is_candidate = |other: &&JobPosition| {
            let (theirs, bytes) = (&other.identity, other.load.bytes());
            other.is_complete
                && theirs.job != self.id
                && (theirs.topic.as_str(), theirs.topic_id.as_deref()) == (topic, topic_id)
                && inputs.length().is_none_or(|length| length == bytes)
        };
        let mut others = self.others.iter().filter(is_candidate);
        let same = others.find(|other| matches!(has_more(inputs.all(), &other.load), Ok(false)))?;
        Some(format!(
            "the job {} has published the same content to {topic} already: its rows will be there twice",
            same.identity.job
        ))
    }

    /// Takes the job over; also gives where it stands.
    pub(crate) fn open(
        &self,
        client: &Client,
        config: ProducerConfig,
        job: Job,
    ) -> Result<Opened, Failure> {
        let (sink, now) = match JobSink::open(client, config, job).map_err(of_sink) {
            Err(failure) if is_let_go(Some(self.delivery), &failure) => {
                return Ok(Opened::Unkept(Some(failure)));
            }
            opened => opened?,
        };
        let known = self.found.as_ref().map(|found| &found.identity);
        if now.as_ref().map(|now| &now.identity) != known {
            return Ok(Opened::Changed);
        }
        let position = now.map_or_else(LoadPosition::start, |now| now.load);
        Ok(Opened::Ready(Box::new((sink, position))))
    }
}

/// What became of taking a job over.
pub(crate) enum Opened {
    /// It is ours, and stands there.
    Ready(Box<(JobSink, LoadPosition)>),
    /// Another run has begun it since it was looked for: its plan is that run's.
    Changed,
    /// There is none, or its positions may not be written, and a load at least once does without.
    Unkept(Option<Failure>),
}

/// Whether a failure about positions does not stop a load: without the right to use them it can do no more than not be gone on with.
fn is_let_go(delivery: Option<Delivery>, failure: &Failure) -> bool {
    delivery == Some(Delivery::AtLeastOnce) && failure.kind() == Kind::Rights
}

/// The position of a job, and those of all others that can be read.
type Positions = (Option<JobPosition>, Vec<JobPosition>);

/// The id of a job, where it stands, and where all others do that can be read; `None` without a topic for positions.
fn look(
    client: &Client,
    args: &JobArgs,
    topic: &str,
    inputs: &Inputs,
) -> Result<(String, Option<Positions>), Failure> {
    let id = match args.job.as_deref() {
        Some("") => return Err(Failure::new(Kind::Usage, "--job is empty")),
        Some(id) => id.to_owned(),
        None => inputs.default_job(topic),
    };
    let Some(mut positions) = job_positions(client, &args.positions.positions_topic)? else {
        return Ok((id, None));
    };
    let found = positions.remove(&id);
    let found = found.as_deref().map(JobPosition::parse).transpose()?;
    let others = positions.values().map(|value| JobPosition::parse(value));
    let others = others.filter_map(Result::ok).collect();
    Ok((id, Some((found, others))))
}

/// Where the job of files and a topic stands, for a command that only looks.
pub(crate) fn find_position(
    client: &Client,
    args: &JobArgs,
    topic: &str,
    inputs: &Inputs,
) -> Result<Option<JobPosition>, Failure> {
    let (_, looked) = look(client, args, topic, inputs)?;
    Ok(looked.and_then(|(found, _)| found))
}

/// A stream cannot be read again, so nothing can be gone on with.
fn refuse_stream(args: &PublishArgs, inputs: &Inputs) -> Result<(), Failure> {
    let typed = [
        (
            "--delivery exactly-once",
            args.delivery.delivery == Some(DeliveryChoice::ExactlyOnce),
        ),
        ("--job", args.delivery.job.job.is_some()),
        ("--restart", args.delivery.restart),
        ("--hold-last", args.delivery.hold_last),
    ];
    match typed.iter().find(|(_, is_typed)| *is_typed) {
        None => Ok(()),
        Some((flag, _)) => {
            let name = inputs.name();
            let message = format!("{flag} needs a file: {name} cannot be read a second time");
            Err(Failure::new(Kind::Usage, message).hint("put it into a file first"))
        }
    }
}

/// The failure of a load whose input was looked at: how to go on with another one than the job's.
pub(crate) fn failed(error: core::Error) -> Failure {
    let is_other = error.kind() == core::ErrorKind::InputChanged;
    let has_more = error.position().is_some();
    let failure = Failure::from(error);
    if !is_other {
        return failure;
    }
    if has_more {
        return failure
            .hint("--restart publishes every row again")
            .hint("--hold-last leaves a row without a line end, and the last group, for the run after: for files that still grow");
    }
    failure
        .hint("--job NAME gives another input a position of its own")
        .hint("--restart forgets the position and publishes every row again")
}

/// The failure that a sink's error tells of.
fn of_sink(error: SinkError) -> Failure {
    let error = match error.downcast::<kafka::Error>() {
        Ok(error) => return Failure::from(*error),
        Err(error) => error,
    };
    match error.downcast::<core::Error>() {
        Ok(error) => Failure::from(*error),
        Err(error) => Failure::new(Kind::Internal, error.to_string()),
    }
}

/// The path of a file that may not exist yet, so that it is the same from every folder.
pub(crate) fn absolute(path: &Path) -> String {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok();
    let whole: PathBuf = match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    };
    whole.display().to_string()
}
