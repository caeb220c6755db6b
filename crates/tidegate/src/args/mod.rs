//! What was typed: the command line as data, each help text with its default.
//!
//! Nothing here is resolved or checked beyond its own form; what the words mean is [`crate::plan`]'s business. A flag stands on exactly the
//! commands where it does something.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::properties::{Typed, keys};
use crate::values;

mod doctor;
mod job;
mod publish;
mod read;
mod records;
mod schema;

pub(crate) use doctor::DoctorArgs;
pub(crate) use job::{JobArgs, JobCommand, JobIdArgs, JobListArgs, PositionsArgs};
pub(crate) use publish::{Codec, DeliveryChoice, OnBadRow, PublishArgs, RejectArgs};
pub(crate) use read::{BalanceArgs, ConsumeArgs, ConsumeFormat, From, IsolationChoice, VerifyArgs};
pub(crate) use records::{AmbiguityChoice, CsvArgs, Format, JsonTimes, RaggedChoice, RecordArgs};
pub(crate) use schema::{
    CheckArgs, InferArgs, InferenceArgs, ReferenceArgs, ReferenceWish, RegisterArgs, SchemaArgs,
    SchemaCommand, ShowArgs, SubjectArgs, SubjectStrategy,
};

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
    Verify(Box<VerifyArgs>),
    /// Look at all that a load depends on: network, TLS, SASL, topic, rights, registry, clocks
    Doctor(DoctorArgs),
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
            Self::Doctor(_) => "doctor",
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

/// Reads `KEY=VALUE`; for `help` it ends as `--help` does.
#[derive(Clone, Debug)]
struct PropertyParser;

impl TypedValueParser for PropertyParser {
    type Value = Typed;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Typed, clap::Error> {
        if value == "help" {
            return Err(clap::Error::raw(ErrorKind::DisplayHelp, keys::help()));
        }
        let typed = value.to_str().and_then(Typed::parse);
        typed.ok_or_else(|| {
            let message = "-X takes KEY=VALUE in UTF-8; -X help lists all keys\n";
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// Which cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Brokers to ask first [default: the embedded broker] [env: KAFKA_BOOTSTRAP_SERVERS]
    #[arg(short, long, value_name = "HOST:PORT,...")]
    pub(crate) bootstrap_server: Option<String>,
    /// Client properties, as Kafka's own tools and librdkafka take them: TLS, SASL, the registry
    #[arg(long, value_name = "FILE")]
    pub(crate) command_config: Option<PathBuf>,
    /// One client property (what stands here, other users of the machine can see); `-X help` lists them
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = PropertyParser)]
    pub(crate) properties: Vec<Typed>,
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
    /// Schema Registry [default: the embedded one, with the embedded broker] [env: SCHEMA_REGISTRY_URL]
    #[arg(long, value_name = "URL,...")]
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
