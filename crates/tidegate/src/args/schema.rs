//! What can be typed behind `tidegate schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::records::{CsvArgs, RecordArgs};
use super::{ClusterArgs, RegistryArgs};
use crate::values;

/// Which schema the values have, and what the registry calls it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Schema")]
pub(crate) struct SchemaArgs {
    /// Value schema [default: the subject's latest in the registry, else inferred from the data and registered]
    #[arg(long, value_name = "FILE.avsc")]
    pub(crate) schema: Option<PathBuf>,
    /// Value schema by its id in the registry
    #[arg(long, value_name = "ID", conflicts_with_all = ["schema", "subject", "subject_strategy", "no_register"])]
    pub(crate) schema_id: Option<u32>,
    #[command(flatten)]
    pub(crate) references: ReferenceArgs,
    #[command(flatten)]
    pub(crate) inference: InferenceArgs,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    /// Schema of Avro or JSON keys [default: the latest of the key's subject in the registry, else of the types the key's columns have in the value]
    #[arg(long, value_name = "FILE.avsc", requires = "key_format")]
    pub(crate) key_schema: Option<PathBuf>,
    /// The registry's subject for Avro keys [default: TOPIC-key]
    #[arg(long, value_name = "NAME", requires = "key_format")]
    pub(crate) key_subject: Option<String>,
    /// Register nothing: a schema that the registry does not have is an error
    #[arg(long)]
    pub(crate) no_register: bool,
}

/// How a schema is inferred from the data.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct InferenceArgs {
    /// Infer a schema from so many rows only [default: all]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) sample: Option<u64>,
    /// Infer NA, N/A, NULL, \N and - to be text, and not null where all else is no text; --null names others
    #[arg(long)]
    pub(crate) no_null_tokens: bool,
}

/// Which types a schema takes from other subjects.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ReferenceArgs {
    /// A type that the schema in a file takes from another subject, by its full name; may be given several times [default
    /// VERSION: the latest]
    #[arg(
        long = "reference",
        value_name = "NAME=SUBJECT[:VERSION]",
        requires = "schema"
    )]
    pub(crate) references: Vec<ReferenceWish>,
}

/// A type of another subject, as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReferenceWish {
    /// The type's full name.
    pub(crate) name: String,
    /// The subject that defines it.
    pub(crate) subject: String,
    /// The version of that subject; none for the latest.
    pub(crate) version: Option<u32>,
}

impl std::str::FromStr for ReferenceWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected NAME=SUBJECT or NAME=SUBJECT:VERSION".to_owned();
        let (name, subject) = text.split_once('=').ok_or_else(wrong)?;
        let (subject, version) = match subject.rsplit_once(':') {
            Some((subject, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => {
                (subject, Some(version.parse().map_err(|_| wrong())?))
            }
            _ => (subject, None),
        };
        if name.is_empty() || subject.is_empty() || version == Some(0) {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            subject: subject.to_owned(),
            version,
        })
    }
}

/// What the registry calls a schema.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SubjectArgs {
    /// Registry subject [default: by --subject-strategy]
    #[arg(long, value_name = "NAME", conflicts_with = "subject_strategy")]
    pub(crate) subject: Option<String>,
    /// How the registry subject is named where --subject does not [default: topic]
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub(crate) subject_strategy: Option<SubjectStrategy>,
}

/// How a subject is named, in the words of Confluent's serializers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SubjectStrategy {
    /// TOPIC-value
    #[default]
    Topic,
    /// The full name of the record
    Record,
    /// TOPIC-RECORD
    TopicRecord,
}

/// `tidegate schema`.
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Print the schema that the rows of a file suggest, and why
    Infer(InferArgs),
    /// Check whether a file can be published with a topic's schema
    Check(Box<CheckArgs>),
    /// Register a schema
    Register(RegisterArgs),
    /// Print the latest schema of a topic
    Show(ShowArgs),
}

/// `tidegate schema infer`.
#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// CSV file, also compressed with gzip, zstd, bzip2 or xz; - reads stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name of the record [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) inference: InferenceArgs,
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

/// `tidegate schema register`.
#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// Avro schema
    #[arg(value_name = "FILE.avsc")]
    pub(crate) schema: PathBuf,
    /// Topic it is for
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) references: ReferenceArgs,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
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
