//! What a load means: input opened, schema chosen, records planned, topic and registry looked at. Nothing is changed before all of it is right.
//!
//! [`Load::prepare`] only looks; [`Load::commit`] then registers the schema and creates the topic, which is the last that can fail before
//! records are sent.

use serde::{Deserialize, Serialize};
use tidegate::core::encode::ValueFormat;
use tidegate::core::key::{KeyChoice, KeyReason};
use tidegate::core::partition::Partitioner;
use tidegate::core::schema::RecordPlan;

use crate::args::{Format, OnBadRow, PublishArgs};
use crate::failure::{Failure, Kind};
use crate::input::Input;
use crate::report::grouped;
use crate::service::{Context, Reach, Service, needs_registry};
use crate::topic::{self, TopicState, TopicWish};
use crate::value_schema::{Origin, ValueSchema};

/// A load, ready to be run.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    args: &'a PublishArgs,
    /// Where the rows come from.
    pub(crate) input: Input,
    /// How rows become records.
    pub(crate) records: RecordPlan,
    /// The cluster.
    pub(crate) service: Service,
    schema: ValueSchema,
    topic: TopicState,
}

/// Every option that changes records, resolved. It stands in the receipt, and a verification derives the same records from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvedOptions {
    /// How values are written.
    pub(crate) format: ValueFormat,
    /// The schema, in Avro's JSON form, as text: its id in a registry depends on every character.
    pub(crate) schema: String,
    /// Columns of the key; empty without one.
    pub(crate) key: Vec<String>,
    /// Columns that rows are grouped by; empty without grouping.
    pub(crate) group_by: Vec<String>,
    /// The character between columns.
    pub(crate) delimiter: String,
    /// Cell text that means null.
    pub(crate) null: Option<String>,
    /// Longest row in bytes.
    pub(crate) max_row_size: u64,
    /// How partitions are chosen.
    pub(crate) partitioner: Partitioner,
}

impl ResolvedOptions {
    /// What an input and the plan of its records come to.
    pub(crate) fn of(input: &Input, records: &RecordPlan) -> Self {
        let owned = |columns: Vec<&str>| columns.into_iter().map(str::to_owned).collect();
        let format = input.format();
        Self {
            format: records.format(),
            schema: records.schema_json().to_owned(),
            key: owned(records.key_columns()),
            group_by: owned(records.group_columns()),
            delimiter: char::from(format.delimiter).to_string(),
            null: format.null_token.clone(),
            max_row_size: format.max_row_size as u64,
            partitioner: Partitioner::default(),
        }
    }

    /// The key as the plan's compiler takes it.
    pub(crate) fn key_choice(&self) -> KeyChoice {
        if self.key.is_empty() {
            KeyChoice::None
        } else {
            KeyChoice::Columns(self.key.clone())
        }
    }
}

impl<'a> Load<'a> {
    /// Opens, resolves and checks everything, and changes nothing.
    pub(crate) fn prepare(args: &'a PublishArgs, context: &mut Context) -> Result<Self, Failure> {
        check_flags(args)?;
        let input = Input::prepare(&args.file, &args.csv, &context.interrupt)?;
        if args.proof.verify && !input.is_file() {
            let message = format!(
                "--verify reads the input a second time, and {} can be read only once",
                input.name()
            );
            return Err(Failure::new(Kind::Usage, message).hint("put it into a file first"));
        }
        let reach = Reach {
            cluster: &args.cluster,
            registry: Some(&args.registry),
            delivery_timeout: Some(args.delivery.delivery_timeout),
        };
        let service = context.connect(reach)?;
        let schema = ValueSchema::choose(
            &args.records,
            &args.topic,
            service.registry.as_ref(),
            || input.infer(&args.topic, &args.records.group_by, args.records.format),
        )?;
        let records = input.plan(&schema.json, &args.records)?;
        let mut load = Self {
            args,
            input,
            records,
            service,
            schema,
            topic: TopicState::Exists(1),
        };
        load.topic = topic::inspect(&load.service.client, &load.wish())?;
        if load.sends_avro() {
            load.schema.check_compatible(load.registry()?)?;
        }
        Ok(load)
    }

    /// What people should know before the load, though nothing is wrong with it.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.records.warnings().to_vec();
        if !self.service.embedded && matches!(self.topic, TopicState::Exists(_)) {
            warnings.extend(topic::durability_warning(
                &self.service.client,
                &self.args.topic,
            ));
        }
        warnings
    }

    /// Registers the schema and creates the topic, as far as that is needed; returns the schema's id.
    pub(crate) fn commit(&self) -> Result<Option<u32>, Failure> {
        let id = match self.records.format() {
            ValueFormat::Avro => Some(self.schema.register(self.registry()?)?),
            ValueFormat::Json => None,
        };
        topic::prepare(&self.service.client, &self.wish(), &self.topic)?;
        Ok(id)
    }

    /// Whether the input suggested the schema and has no row to send: then nothing is registered or created for it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.schema.origin, Origin::Inferred { rows: 0 })
    }

    /// How many partitions there are or will be, as far as that is known before the topic is created.
    pub(crate) fn expected_partitions(&self) -> i32 {
        match self.topic {
            TopicState::Exists(count) | TopicState::ToCreate(Some(count)) => count,
            TopicState::ToCreate(None) => 1,
        }
    }

    /// Every option that changes records.
    pub(crate) fn options(&self) -> ResolvedOptions {
        ResolvedOptions::of(&self.input, &self.records)
    }

    /// The plan in one line.
    pub(crate) fn describe(&self) -> String {
        let rows = match (self.input.length(), self.input.rows_guess()) {
            (Some(bytes), Some(rows)) => {
                format!("{} bytes, about {} rows", grouped(bytes), grouped(rows))
            }
            (Some(bytes), None) => format!("{} bytes", grouped(bytes)),
            (None, _) => "a stream".to_owned(),
        };
        let unit = match self.records.group_columns().as_slice() {
            [] => "one record a row".to_owned(),
            columns => format!("one record per {}", columns.join(", ")),
        };
        let key = match (
            self.records.key_columns().as_slice(),
            self.records.key_reason(),
        ) {
            ([], reason @ (KeyReason::AskedForNone | KeyReason::NothingFits)) => {
                format!("no key ({reason})")
            }
            ([], _) => "no key".to_owned(),
            (columns, reason) => format!("key {} ({reason})", columns.join(", ")),
        };
        format!(
            "plan: {} ({rows}) -> topic {} ({}); {}, {unit}, schema {}; {key}; at-least-once, idempotent, {}",
            self.input.name(),
            self.args.topic,
            self.topic.describe(),
            self.records.format(),
            self.schema.describe(),
            crate::commands::compression(self.args.delivery.compression),
        )
    }

    fn wish(&self) -> TopicWish<'_> {
        TopicWish {
            name: &self.args.topic,
            partitions: self.args.delivery.partitions,
            replication_factor: self.args.delivery.replication_factor,
            may_create: self.args.delivery.create_topic || self.service.embedded,
            default_partitions: self.service.embedded.then_some(1),
        }
    }

    fn sends_avro(&self) -> bool {
        self.records.format() == ValueFormat::Avro
    }

    fn registry(&self) -> Result<&tidegate::registry::Registry, Failure> {
        self.service.registry.as_ref().ok_or_else(needs_registry)
    }
}

/// Flags that do not fit together in ways that the parser cannot know.
fn check_flags(args: &PublishArgs) -> Result<(), Failure> {
    if args.rejects.on_bad_row == Some(OnBadRow::Skip) && args.rejects.rejects.is_none() {
        let failure = Failure::new(
            Kind::Usage,
            "--on-bad-row skip needs a place for the bad rows",
        );
        return Err(failure.hint("--rejects FILE names one"));
    }
    if args.rejects.on_bad_row == Some(OnBadRow::Stop) && args.rejects.rejects.is_some() {
        let failure = Failure::new(
            Kind::Usage,
            "--rejects takes bad rows, and --on-bad-row stop says that there are none to take",
        );
        return Err(failure.hint("leave one of them out"));
    }
    let no_registry = args.cluster.bootstrap_server.is_some() && args.registry.registry.is_none();
    if args.records.format == Format::Avro && no_registry {
        return Err(needs_registry());
    }
    Ok(())
}
