//! The receipt of a load: of the run that just ended, or of a job as its position tells.

use serde_json::Value;
use tidegate::core::digest::PrefixDigest;
use tidegate::core::job::{JobIdentity, JobPosition, Repeat};
use tidegate::core::partition::Partitioner;
use tidegate::core::publish::Outcome;
use tidegate::core::receipt::{RECEIPT_VERSION, Receipt, RejectsReceipt, SourceIdentity};

use crate::options::ResolvedOptions;

/// A load that came to an end, whichever: what it was, and what came of it over all its runs.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it was.
    pub(crate) identity: JobIdentity,
    /// Its inputs, in order.
    pub(crate) sources: Vec<String>,
    /// Where its rejected rows are.
    pub(crate) rejects_file: Option<String>,
    /// The topic they are in.
    pub(crate) rejects_topic: Option<String>,
    /// What was sent twice, as far as that is known.
    pub(crate) repeats: Vec<Repeat>,
    /// Rows that earlier runs had done; `None` for a load of one run.
    pub(crate) resumed_at_row: Option<u64>,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

impl Ended {
    /// A job as its position tells.
    pub(crate) fn of(job: &JobPosition) -> Self {
        Self {
            identity: job.identity.clone(),
            sources: job.sources.clone(),
            rejects_file: job.rejects_file.clone(),
            rejects_topic: job.rejects_topic.clone(),
            repeats: job.repeats.clone(),
            resumed_at_row: None,
            outcome: Outcome::of(job),
        }
    }

    /// Its receipt.
    pub(crate) fn receipt(&self) -> Receipt {
        let Self {
            identity, outcome, ..
        } = self;
        let read = outcome
            .sources()
            .chain(std::iter::repeat(PrefixDigest::empty()));
        let source = |(path, read): (&String, PrefixDigest)| SourceIdentity {
            path: path.clone(),
            length: read.bytes,
            xxh3_128: read.hash,
        };
        let rejects = |path: &String| RejectsReceipt {
            path: path.clone(),
            length: outcome.rejects_length,
            rows: outcome.rows.rejected,
        };
        Receipt {
            version: RECEIPT_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            status: outcome.status,
            delivery: identity.delivery,
            may_contain_duplicates: !self.repeats.is_empty(),
            repeats: self.repeats.clone(),
            topic: identity.topic.clone(),
            topic_id: identity.topic_id.clone(),
            schema_id: identity.schema_id,
            key_schema_id: identity.key_schema_id,
            partitioner: partitioner(&identity.plan).to_string(),
            plan: identity.plan.clone(),
            sources: self.sources.iter().zip(read).map(source).collect(),
            rows: outcome.rows,
            records: outcome.records,
            read_counts: outcome.read_counts,
            partitions: outcome.partitions.clone(),
            producer_ids: outcome.producer_ids.clone(),
            held: outcome.is_held(),
            rejects: self.rejects_file.as_ref().map(rejects),
            rejects_topic: self.rejects_topic.clone(),
            resumed_at_row: self.resumed_at_row,
            started_at: outcome.started_at,
            finished_at: outcome.finished_at,
            seconds: outcome.seconds,
        }
    }
}

/// The partitioner of a plan.
fn partitioner(plan: &Value) -> Partitioner {
    ResolvedOptions::parse(plan, "the load").map_or(Partitioner::default(), |options| {
        options.records.partitioner()
    })
}
