//! What can be typed behind the commands that read a topic or a group: `consume`, `balance`, `verify`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::job::JobArgs;
use super::records::{CsvArgs, RecordArgs};
use super::schema::SchemaArgs;
use super::{ClusterArgs, RegistryArgs};
use crate::values;

/// `tidegate consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// Topic to read
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Consumer group to join; its offsets are committed after the output is written [default: none, nothing is committed]
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Where to start: beginning, end, an offset, or a time such as 2026-01-31T12:00:00Z; a group goes on where it has committed
    #[arg(long, value_name = "WHERE", default_value = "beginning")]
    pub(crate) from: From,
    /// Stop at what was the end of the topic at the start [default: go on until a signal]
    #[arg(long)]
    pub(crate) until_end: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max: Option<u64>,
    /// What to print of each record
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ConsumeFormat::Json)]
    pub(crate) format: ConsumeFormat,
    /// Whether records of open and aborted transactions are read
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = IsolationChoice::ReadCommitted)]
    pub(crate) isolation: IsolationChoice,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Where `consume` starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The first record there is.
    Beginning,
    /// What comes after the last record.
    End,
    /// This offset, in every partition.
    Offset(i64),
    /// The first record with at least this timestamp, in milliseconds since 1970.
    Time(i64),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Ok(offset) = text.parse::<i64>() {
            return if offset < 0 {
                Err("an offset is not negative".to_owned())
            } else {
                Ok(Self::Offset(offset))
            };
        }
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Self::Time(time.as_millisecond())),
            Err(_) => Err(
                "expected beginning, end, an offset, or a time such as 2026-01-31T12:00:00Z"
                    .to_owned(),
            ),
        }
    }
}

/// What `consume` prints of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConsumeFormat {
    /// One object a line: topic, partition, offset, timestamp, key, headers, value (decoded by its schema id)
    Json,
    /// The decoded value alone, one a line
    Value,
    /// A header line (the fields of the first record), then one line a record; arrays and records inside are JSON text
    Csv,
    /// The stored bytes of the value and a newline
    Raw,
}

/// Isolation level as the command line writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum IsolationChoice {
    /// Only what is committed
    ReadCommitted,
    /// Everything
    ReadUncommitted,
}

/// `tidegate balance`.
#[derive(Debug, Args)]
pub(crate) struct BalanceArgs {
    /// Consumer group to wait for
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: String,
    /// Receipt of the load that the group must have committed
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "topic",
        conflicts_with = "topic"
    )]
    pub(crate) receipt: Option<PathBuf>,
    /// Topic of which the group must have committed everything that is in it now
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// How long to wait; 0s looks once
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    pub(crate) timeout: Duration,
    /// Print the table each time it changes
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// `tidegate verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// CSV files that were published, compressed or not [default: those the receipt names]
    #[arg(value_name = "FILE", required_unless_present = "receipt")]
    pub(crate) files: Vec<PathBuf>,
    /// Topic to compare with [default: the one the receipt names]
    #[arg(
        short,
        long,
        value_name = "TOPIC",
        required_unless_present = "receipt",
        conflicts_with = "receipt"
    )]
    pub(crate) topic: Option<String>,
    /// Receipt of the load: says what was published, where, and how
    #[arg(long, value_name = "FILE", conflicts_with_all = ["schema", "schema_id", "subject", "subject_strategy", "group_by", "key", "no_key", "key_format", "null", "job"])]
    pub(crate) receipt: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) schema: SchemaArgs,
    #[command(flatten)]
    pub(crate) records: RecordArgs,
    #[command(flatten)]
    pub(crate) csv: CsvArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
