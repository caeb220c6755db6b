//! What can be typed behind `tidegate publish`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::job::JobArgs;
use super::records::{CsvArgs, RecordArgs};
use super::schema::SchemaArgs;
use super::{ClusterArgs, RegistryArgs};
use crate::values::{self, MaxRejects};

/// What a publish promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeliveryChoice {
    /// In transactions, each with the position behind it: a load that was killed and started again goes on there
    ExactlyOnce,
    /// Idempotent within a run; a load that was killed and started again may repeat rows
    AtLeastOnce,
}

/// Codec of the record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codec {
    /// LZ4 frames
    Lz4,
    /// Zstandard, level 1
    Zstd,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// Uncompressed
    None,
}

/// What a bad row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBadRow {
    /// The load stops with exit 3
    Stop,
    /// The row goes to the rejects file, or topic
    Skip,
}

/// `tidegate publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// CSV files, one behind the other, also compressed with gzip, zstd, bzip2 or xz; - reads stdin
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Topic to publish to
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) schema: SchemaArgs,
    #[command(flatten)]
    pub(crate) records: RecordArgs,
    #[command(flatten)]
    pub(crate) csv: CsvArgs,
    #[command(flatten)]
    pub(crate) rejects: RejectArgs,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
    #[command(flatten)]
    pub(crate) consumers: ConsumerGateArgs,
    #[command(flatten)]
    pub(crate) proof: ProofArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// What happens to bad rows.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Bad rows")]
pub(crate) struct RejectArgs {
    /// What a bad row does [default: stop; skip with --rejects or --rejects-topic]
    #[arg(long, value_enum, value_name = "ACTION")]
    pub(crate) on_bad_row: Option<OnBadRow>,
    /// Where bad rows go, as JSON lines: line, row, column, reason, raw row
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    /// Topic where bad rows go, each as a record with its place and the reason in the headers; exactly once, with the records around it
    #[arg(long, value_name = "TOPIC")]
    pub(crate) rejects_topic: Option<String>,
    /// Stop when more rows than this are bad: a number, or a share such as 1% [default: no limit]
    #[arg(long, value_name = "N|P%")]
    pub(crate) max_rejects: Option<MaxRejects>,
}

impl RejectArgs {
    /// Whether bad rows have somewhere to go.
    pub(crate) fn has_place(&self) -> bool {
        self.rejects.is_some() || self.rejects_topic.is_some()
    }
}

/// How records are delivered, and to what topic.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Delivery")]
pub(crate) struct DeliveryArgs {
    /// What is promised [default: exactly-once for files, at-least-once for stdin and pipes]
    #[arg(long, value_enum, value_name = "PROMISE")]
    pub(crate) delivery: Option<DeliveryChoice>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Time between two commits; readers see rows then, and a load that was killed goes on from there [default: 500ms, up to 10s where
    /// commits take long]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) commit_interval: Option<Duration>,
    /// How long a transaction may stay open before the cluster rolls it back
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(crate) transaction_timeout: Duration,
    /// Forget where the job stands and publish every row again
    #[arg(long)]
    pub(crate) restart: bool,
    /// Leave a last row without a line end, and with --group-by the last group, for a later run: for files that still grow
    #[arg(long)]
    pub(crate) hold_last: bool,
    /// How long the load may go without any progress
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    pub(crate) delivery_timeout: Duration,
    /// Codec of the record batches
    #[arg(long, value_enum, value_name = "CODEC", default_value_t = Codec::Lz4)]
    pub(crate) compression: Codec,
    /// Create the topic if it is missing (the embedded broker always does)
    #[arg(long)]
    pub(crate) create_topic: bool,
    /// Partitions of a topic that is created; one that exists must have as many [default: embedded 1, a cluster the broker's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub(crate) partitions: Option<i32>,
    /// Replicas of a topic that is created [default: the broker's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..=1_000))]
    pub(crate) replication_factor: Option<i16>,
}

/// Holding back for, and waiting on, a consumer group.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Consumers")]
pub(crate) struct ConsumerGateArgs {
    /// Hold the load back for this consumer group
    #[arg(long, value_name = "GROUP", requires = "hold_limit")]
    pub(crate) hold_group: Option<String>,
    /// Never send more than this many records beyond what the group has committed
    #[arg(long, value_name = "N", requires = "hold_group", value_parser = values::count)]
    pub(crate) hold_limit: Option<u64>,
    /// How long the group may take to commit something while the load is held
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    pub(crate) hold_timeout: Duration,
    /// After the load, wait until this consumer group has committed all of it
    #[arg(long, value_name = "GROUP")]
    pub(crate) wait_group: Option<String>,
    /// How long to wait for --wait-group
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    pub(crate) wait_timeout: Duration,
}

/// Proof of a load.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Proof")]
pub(crate) struct ProofArgs {
    /// After the load, read back and compare
    #[arg(long)]
    pub(crate) verify: bool,
    /// Write the receipt to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// Everything but sending: parse and encode every row, check schema and topic, print the plan
    #[arg(long, conflicts_with_all = ["verify", "receipt", "wait_group"])]
    pub(crate) dry_run: bool,
}
