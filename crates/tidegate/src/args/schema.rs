//! What can be typed behind `tidegate schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::records::{CsvArgs, RecordArgs};
use super::{ClusterArgs, RegistryArgs};

/// `tidegate schema`.
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Print the schema that the rows of a file suggest, and why
    Infer(InferArgs),
    /// Check whether a file can be published with a topic's schema
    Check(CheckArgs),
    /// Register a schema
    Register(RegisterArgs),
    /// Print the latest schema of a topic
    Show(ShowArgs),
}

/// `tidegate schema infer`.
#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// CSV file, also compressed with gzip or zstd; - reads stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name of the record [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Infer the schema of grouped records
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    pub(crate) group_by: Vec<String>,
    #[command(flatten)]
    pub(crate) csv: CsvArgs,
}

/// `tidegate schema check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// CSV file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Topic it is for
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) records: RecordArgs,
    #[command(flatten)]
    pub(crate) csv: CsvArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `tidegate schema register`.
#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// Avro schema
    #[arg(value_name = "FILE.avsc")]
    pub(crate) schema: PathBuf,
    /// Topic it is for
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Registry subject [default: TOPIC-value]
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `tidegate schema show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Topic whose schema is asked for
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Registry subject [default: TOPIC-value]
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
