//! What was typed: the command line as data, each help text with its default.
//!
//! Nothing here is resolved or checked beyond its own form; what the words mean is [`crate::plan`]'s business. A flag stands on exactly the
//! commands where it does something.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use tidegate::core::limits::MAX_ROW_SIZE;

use crate::values::{self, Delimiter, MaxRejects};

/// Loads CSV into Kafka as Avro and proves it.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 ok, 1 internal, 2 usage, 3 input data, 4 Kafka unreachable or deadline, 5 rights, 6 topic or schema, \
                  7 delivery failed, 8 consumers not done in time, 9 verification differs, 10 already running, 11 local files, \
                  130/143 signal."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish the rows of a CSV file to a topic
    Publish(Box<PublishArgs>),
    /// Print the records of a topic, decoded
    Consume(ConsumeArgs),
    /// Wait until a consumer group has committed everything
    Balance(BalanceArgs),
    /// Read a topic back and compare it with the file
    Verify(VerifyArgs),
    /// List, show and forget jobs: loads that go on where they stopped
    #[command(subcommand)]
    Job(JobCommand),
    /// Infer, check, register and show schemas
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Run the embedded broker and registry for any Kafka client (development and tests: one node, no replication)
    Broker(BrokerArgs),
}

impl Command {
    /// The command's name as it is typed; it stands in the JSON summary too.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Consume(_) => "consume",
            Self::Balance(_) => "balance",
            Self::Verify(_) => "verify",
            Self::Job(_) => "job",
            Self::Schema(_) => "schema",
            Self::Broker(_) => "broker",
        }
    }
}

/// How the program speaks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Form of the closing summary on stdout
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = OutputForm::Human)]
    pub(crate) output: OutputForm,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more: warnings in full, every cause of an error
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Colours on stderr; auto honours NO_COLOR and terminals
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub(crate) color: ColorChoice,
    /// No progress on stderr (where stderr is no terminal, progress is a line every 10 s)
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

/// Form of the closing summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// Text for people
    Human,
    /// Exactly one JSON object
    Json,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Which cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Brokers to ask first [default: the embedded broker]
    #[arg(
        short,
        long,
        value_name = "HOST:PORT,...",
        env = "KAFKA_BOOTSTRAP_SERVERS",
        hide_env_values = true
    )]
    pub(crate) bootstrap_server: Option<String>,
    /// The embedded broker's data; a running `tidegate broker` on it is used as it is
    #[arg(long, value_name = "DIR", default_value = ".tidegate")]
    pub(crate) data_dir: PathBuf,
    /// How long the first answer of the cluster may take
    #[arg(long, value_name = "DURATION", default_value = "12s", value_parser = values::duration)]
    pub(crate) connect_timeout: Duration,
    /// How long one request may take before it is tried again
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub(crate) request_timeout: Duration,
}

/// Which registry.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Schema Registry")]
pub(crate) struct RegistryArgs {
    /// Schema Registry [default: the embedded one, with the embedded broker]
    #[arg(
        long,
        value_name = "URL,...",
        env = "SCHEMA_REGISTRY_URL",
        hide_env_values = true
    )]
    pub(crate) registry: Option<String>,
    /// User for basic authentication
    #[arg(long, value_name = "USER", requires = "registry_password_file")]
    pub(crate) registry_user: Option<String>,
    /// File with the user's password (one line)
    #[arg(long, value_name = "FILE", requires = "registry_user")]
    pub(crate) registry_password_file: Option<PathBuf>,
    /// File with a bearer token (one line)
    #[arg(long, value_name = "FILE", conflicts_with = "registry_user")]
    pub(crate) registry_token_file: Option<PathBuf>,
    /// File with the certificate authority to trust, PEM [default: the public ones]
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_ca: Option<PathBuf>,
}

/// How the CSV is written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "CSV")]
pub(crate) struct CsvArgs {
    /// Character between columns; \t for tabs [default: ,]
    #[arg(long, value_name = "CHAR")]
    pub(crate) delimiter: Option<Delimiter>,
    /// Cell text that means null, besides the empty cell
    #[arg(long, value_name = "TOKEN")]
    pub(crate) null: Option<String>,
    /// Longest row; a longer one is a bad row [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) max_row_size: Option<u64>,
}

impl CsvArgs {
    /// The character between columns.
    pub(crate) fn delimiter(&self) -> u8 {
        self.delimiter.map_or(b',', |delimiter| delimiter.0)
    }

    /// The longest row in bytes.
    pub(crate) fn max_row_size(&self) -> u64 {
        self.max_row_size.unwrap_or(MAX_ROW_SIZE as u64)
    }
}

/// What the records look like.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Records")]
pub(crate) struct RecordArgs {
    /// Value schema [default: the subject's latest in the registry, else inferred from the data and registered]
    #[arg(long, value_name = "FILE.avsc")]
    pub(crate) schema: Option<PathBuf>,
    /// Registry subject [default: TOPIC-value]
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    /// Form of the values [default: avro]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Consecutive rows equal in these columns make one record with an array of them [default: one record a row]
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    pub(crate) group_by: Vec<String>,
    /// Record key [default: the group-by columns, else the timestamp column (logical type, or named timestamp, ts, time), else none]
    #[arg(
        long,
        value_name = "COL,...",
        value_delimiter = ',',
        conflicts_with = "no_key"
    )]
    pub(crate) key: Vec<String>,
    /// Records without a key
    #[arg(long)]
    pub(crate) no_key: bool,
}

impl RecordArgs {
    /// The form of the values.
    pub(crate) fn format(&self) -> Format {
        self.format.unwrap_or(Format::Avro)
    }
}

/// Form of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Avro in the Confluent wire format (a registry is needed)
    Avro,
    /// One JSON object a record
    Json,
}

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
    /// The row goes to the rejects file
    Skip,
}

/// `tidegate publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// CSV files, one behind the other, also compressed with gzip or zstd; - reads stdin
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Topic to publish to
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
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
    /// What a bad row does [default: stop; skip with --rejects]
    #[arg(long, value_enum, value_name = "ACTION")]
    pub(crate) on_bad_row: Option<OnBadRow>,
    /// Where bad rows go, as JSON lines: line, row, column, reason, raw row
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    /// Stop when more rows than this are bad: a number, or a share such as 1% [default: no limit]
    #[arg(long, value_name = "N|P%", requires = "rejects")]
    pub(crate) max_rejects: Option<MaxRejects>,
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

/// Which job a load is.
#[derive(Clone, Debug, Args)]
pub(crate) struct JobArgs {
    /// Identity of the load, taken literally: its transactional id, and the key of its position [default: TOPIC:PATH]
    #[arg(long, value_name = "ID")]
    pub(crate) job: Option<String>,
    #[command(flatten)]
    pub(crate) positions: PositionsArgs,
}

/// Where positions are kept.
#[derive(Clone, Debug, Args)]
pub(crate) struct PositionsArgs {
    /// Topic that holds the positions of jobs
    #[arg(long, value_name = "NAME", default_value = "tidegate-positions")]
    pub(crate) positions_topic: String,
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["schema", "subject", "group_by", "key", "no_key", "null", "job"])]
    pub(crate) receipt: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) records: RecordArgs,
    #[command(flatten)]
    pub(crate) csv: CsvArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `tidegate job`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Print every job that has a position, and where it stands
    List(JobListArgs),
    /// Print where a job stands, and what it has in the topic
    Show(JobIdArgs),
    /// Forget where a job stands: its load begins at the first row again; whoever runs it is stopped
    Forget(JobIdArgs),
}

/// `tidegate job list`.
#[derive(Debug, Args)]
pub(crate) struct JobListArgs {
    #[command(flatten)]
    pub(crate) positions: PositionsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// `tidegate job show` and `tidegate job forget`.
#[derive(Debug, Args)]
pub(crate) struct JobIdArgs {
    /// The job's id, as `tidegate job list` prints it
    #[arg(value_name = "ID")]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) positions: PositionsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

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

/// `tidegate broker`.
#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Address for Kafka clients; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    pub(crate) listen: SocketAddr,
    /// Address of the Schema Registry; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub(crate) registry_listen: SocketAddr,
    /// Where topics and schemas are kept
    #[arg(long, value_name = "DIR", default_value = ".tidegate")]
    pub(crate) data_dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_what_the_help_states() {
        let arguments =
            Arguments::try_parse_from(["tidegate", "publish", "a.csv", "-t", "a"]).unwrap();
        let Command::Publish(publish) = arguments.command else {
            panic!("publish was typed")
        };
        assert_eq!(publish.delivery.delivery, None);
        assert_eq!(publish.delivery.commit_interval, None);
        assert_eq!(
            publish.delivery.transaction_timeout,
            Duration::from_secs(60)
        );
        assert_eq!(publish.delivery.delivery_timeout, Duration::from_secs(600));
        assert_eq!(publish.cluster.connect_timeout, Duration::from_secs(12));
        assert_eq!(publish.cluster.request_timeout, Duration::from_secs(10));
        assert_eq!(publish.csv.max_row_size(), 8 << 20);
        assert_eq!(publish.records.format(), Format::Avro);
        assert!(publish.rejects.on_bad_row.is_none());
    }

    #[test]
    fn flags_that_belong_together_are_asked_for_together() {
        for wrong in [
            &["tidegate", "publish", "a", "-t", "a", "--hold-group", "g"][..],
            &["tidegate", "publish", "a", "-t", "a", "--hold-limit", "5"],
            &[
                "tidegate", "publish", "a", "-t", "a", "--key", "x", "--no-key",
            ],
            &[
                "tidegate",
                "publish",
                "a",
                "-t",
                "a",
                "--dry-run",
                "--verify",
            ],
            &["tidegate", "balance", "-g", "g"],
            &[
                "tidegate",
                "balance",
                "-g",
                "g",
                "-t",
                "t",
                "--receipt",
                "r",
            ],
            &["tidegate", "verify"],
            &["tidegate", "verify", "a.csv"],
            &[
                "tidegate",
                "publish",
                "a",
                "-t",
                "a",
                "--delivery",
                "exactly-twice",
            ],
        ] {
            assert!(Arguments::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_place_to_start_is_a_word_an_offset_or_a_time() {
        assert_eq!("beginning".parse(), Ok(From::Beginning));
        assert_eq!("42".parse(), Ok(From::Offset(42)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(From::Time(1_000)));
        assert!("-1".parse::<From>().is_err());
        assert!("yesterday".parse::<From>().is_err());
    }
}
