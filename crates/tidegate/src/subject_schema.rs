//! The schemas of values and keys: which ones, where they came from, and their ids in the registry.
//!
//! In this order: the file of `--schema`; the schema with the id of `--schema-id`; the subject's latest version; what the data suggests. For keys
//! with a schema likewise, where the types in the value stand for the data. Only [`Schemas::register`] changes anything, and it runs after every
//! other check has passed.

use std::path::{Path, PathBuf};

use tidegate::core::encode::{SchemaIds, ValueFormat};
use tidegate::core::infer::AddedField;
use tidegate::core::job::JobIdentity;
use tidegate::core::key::KeyFormat;
use tidegate::core::schema::{RecordPlan, record_name};
use tidegate::registry::{NewSchema, Reference, Registry};
use tidegate_broker::incompatibilities;

use crate::args::{
    Format, RecordArgs, ReferenceArgs, ReferenceWish, SchemaArgs, SubjectArgs, SubjectStrategy,
};
use crate::failure::{Failure, Kind};
use crate::inputs::Inputs;
use crate::report::grouped;
use crate::service::needs_registry;

/// Versions that are looked at for the reason why a schema is incompatible with all of them.
const MAX_EXPLAINED: usize = 10;

/// Where a schema came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file that was named.
    File(PathBuf),
    /// The registry's latest.
    Registry {
        /// Version under the subject.
        version: u32,
    },
    /// The registry, by the id that was named.
    Id,
    /// The data, of which so many rows were looked at.
    Inferred {
        /// Rows looked at.
        rows: u64,
        /// Fields that no column has.
        added: Vec<AddedField>,
    },
    /// The types that the key's columns have in the value.
    Derived,
    /// The job that is gone on with.
    Job,
}

/// The schemas of a load.
#[derive(Clone, Debug)]
pub(crate) struct Schemas {
    /// That of the values.
    pub(crate) value: SubjectSchema,
    /// That of keys which are not text.
    key: Option<SubjectSchema>,
}

impl Schemas {
    /// Finds them, and compiles the plan of the records by them.
    pub(crate) fn choose(
        args: &SchemaArgs,
        records: &RecordArgs,
        topic: &str,
        registry: Option<&Registry>,
        inputs: &Inputs,
    ) -> Result<(Self, RecordPlan), Failure> {
        let value = SubjectSchema::choose(args, records, topic, registry, inputs)?;
        let mut key = SubjectSchema::of_key(args, records.key_format(), topic, registry)?;
        let key_json = key.as_ref().map(|schema| schema.json.as_str());
        let plan = inputs.plan(&value.json, key_json, records)?;
        if let (None, Some(json)) = (&key, plan.key_schema_json()) {
            key = Some(SubjectSchema {
                is_fixed: args.no_register,
                subject: key_subject(args, topic),
                ..SubjectSchema::new(json.to_owned(), Origin::Derived)
            });
        }
        Ok((Self { value, key }, plan))
    }

    /// Those a job began with, and their ids.
    pub(crate) fn of_job(value: String, key: Option<String>, identity: &JobIdentity) -> Self {
        let of_job = |json, id| SubjectSchema {
            id,
            ..SubjectSchema::new(json, Origin::Job)
        };
        Self {
            value: of_job(value, identity.schema_id),
            key: key.map(|json| of_job(json, identity.key_schema_id)),
        }
    }

    /// Asks the registry whether they may become their subjects' next versions; changes nothing.
    pub(crate) fn check_compatible(
        &self,
        plan: &RecordPlan,
        registry: Option<&Registry>,
    ) -> Result<(), Failure> {
        let check = |schema: &SubjectSchema, registry: &Registry| {
            schema.check_compatible(registry)?;
            Ok(0)
        };
        self.ids(plan, registry, check).map(drop)
    }

    /// The ids under which the registry knows them; changes nothing.
    pub(crate) fn find_ids(
        &self,
        plan: &RecordPlan,
        registry: Option<&Registry>,
    ) -> Result<SchemaIds, Failure> {
        self.ids(plan, registry, SubjectSchema::find_id)
    }

    /// The same; registers them if need be, and that is allowed.
    pub(crate) fn register(
        &self,
        plan: &RecordPlan,
        registry: Option<&Registry>,
    ) -> Result<SchemaIds, Failure> {
        self.ids(plan, registry, SubjectSchema::register)
    }

    /// What `id` gives for those that stand in a registry.
    fn ids(
        &self,
        plan: &RecordPlan,
        registry: Option<&Registry>,
        id: impl Fn(&SubjectSchema, &Registry) -> Result<u32, Failure>,
    ) -> Result<SchemaIds, Failure> {
        let is_avro = plan.format() == ValueFormat::Avro;
        let value = Some(&self.value).filter(|_| is_avro);
        let is_avro = plan.key_format() == KeyFormat::Avro;
        let key = self.key.as_ref().filter(|_| is_avro);
        let id_of = |schema: Option<&SubjectSchema>| {
            schema
                .map(|schema| id(schema, registry.ok_or_else(needs_registry)?))
                .transpose()
        };
        Ok(SchemaIds {
            value: id_of(value)?,
            key: id_of(key)?,
        })
    }

    /// Where that of the keys came from, as a plan states it.
    pub(crate) fn describe_key(&self) -> Option<String> {
        self.key.as_ref().map(SubjectSchema::describe)
    }
}

/// The subject of a load's keys.
fn key_subject(args: &SchemaArgs, topic: &str) -> String {
    let default = || format!("{topic}-key");
    args.key_subject.clone().unwrap_or_else(default)
}

/// The schema of a load's values, or of its keys.
#[derive(Clone, Debug)]
pub(crate) struct SubjectSchema {
    /// In Avro's JSON form, with the types in it that it takes from other subjects.
    pub(crate) json: String,
    /// Where it came from.
    pub(crate) origin: Origin,
    subject: String,
    id: Option<u32>,
    /// As the registry has it or is to have it, where that is not `json`.
    registered: Option<(String, Vec<Reference>)>,
    /// Nothing may be registered.
    is_fixed: bool,
}

impl SubjectSchema {
    fn new(json: String, origin: Origin) -> Self {
        Self {
            json,
            origin,
            subject: String::new(),
            id: None,
            registered: None,
            is_fixed: false,
        }
    }

    /// Finds the schema of keys that have one; `None` where nothing but the value says it.
    fn of_key(
        args: &SchemaArgs,
        format: KeyFormat,
        topic: &str,
        registry: Option<&Registry>,
    ) -> Result<Option<Self>, Failure> {
        let subject = key_subject(args, topic);
        if format == KeyFormat::Avro && registry.is_none() {
            return Err(needs_registry());
        }
        if let Some(path) = &args.key_schema {
            let file = FileSchema::read(path, &ReferenceArgs::default(), registry)?;
            return Ok(Some(Self {
                subject,
                is_fixed: args.no_register,
                ..Self::new(file.text, Origin::File(file.path))
            }));
        }
        if let (KeyFormat::Avro, Some(registry)) = (format, registry)
            && let Some(latest) = registry.latest(&subject)?
        {
            let origin = Origin::Registry {
                version: latest.version,
            };
            return Ok(Some(Self {
                id: Some(latest.id),
                subject,
                ..Self::new(registry.complete(&latest)?, origin)
            }));
        }
        Ok(None)
    }

    /// Finds the schema of the values. The inputs are read for one only when nothing else says it.
    fn choose(
        args: &SchemaArgs,
        records: &RecordArgs,
        topic: &str,
        registry: Option<&Registry>,
        inputs: &Inputs,
    ) -> Result<Self, Failure> {
        let format = records.format();
        if registry.is_none() && (format == Format::Avro || args.schema_id.is_some()) {
            return Err(needs_registry());
        }
        let found = |json, origin, subject| Self {
            subject,
            is_fixed: args.no_register,
            ..Self::new(json, origin)
        };
        if let Some(path) = &args.schema {
            let file = FileSchema::read(path, &args.references, registry)?;
            let subject = subject_of(&args.subject, topic, || Ok(file.text.clone()))?;
            return Ok(Self {
                registered: Some((file.text, file.references)),
                ..found(file.complete, Origin::File(file.path), subject)
            });
        }
        if let (Some(id), Some(registry)) = (args.schema_id, registry) {
            return Ok(Self {
                id: Some(id),
                ..found(registry.by_id(id)?, Origin::Id, String::new())
            });
        }
        let subject = subject_of(&args.subject, topic, || Err(needs_schema()))?;
        if let Some(registry) = registry
            && let Some(latest) = registry.latest(&subject)?
        {
            let json = registry.complete(&latest)?;
            let origin = Origin::Registry {
                version: latest.version,
            };
            return Ok(Self {
                id: Some(latest.id),
                ..found(json, origin, subject)
            });
        }
        if args.no_register && format == Format::Avro {
            let message = format!("the registry has no schema for the subject {subject}");
            let failure = Failure::new(Kind::Schema, message);
            return Err(failure.hint(
                "`tidegate schema register` puts one there; without --no-register, publishing does",
            ));
        }
        let inferred = inputs.infer(topic, records, &args.inference)?;
        let origin = Origin::Inferred {
            rows: inferred.rows,
            added: inferred.added,
        };
        Ok(found(inferred.schema_json, origin, subject))
    }

    /// Where it came from, as a plan states it.
    pub(crate) fn describe(&self) -> String {
        match &self.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::Registry { version } => {
                format!("{} version {version} of the registry", self.subject)
            }
            Origin::Id => format!("id {} of the registry", self.id.unwrap_or_default()),
            Origin::Inferred { rows, added } => {
                let mut text = format!("inferred from {} rows", grouped(*rows));
                for (number, AddedField { field, avro_type }) in added.iter().enumerate() {
                    let before = if number == 0 { ", with" } else { " and" };
                    text += &format!("{before} the {avro_type} field {field}");
                }
                text
            }
            Origin::Derived => "made of the types in the value".to_owned(),
            Origin::Job => "as the job began with".to_owned(),
        }
    }

    /// Asks the registry whether the schema may become the subject's next version, or, where nothing may be registered, whether it is there;
    /// changes nothing.
    fn check_compatible(&self, registry: &Registry) -> Result<(), Failure> {
        if self.id.is_some() {
            return Ok(());
        }
        if self.is_fixed {
            return self.find_id(registry).map(drop);
        }
        let answer = registry.compatible(&self.subject, self.new_schema())?;
        if answer.ok {
            return Ok(());
        }
        let message = format!(
            "the schema ({}) is incompatible with the subject {}",
            self.describe(),
            self.subject
        );
        let reasons = if answer.messages.is_empty() {
            self.reasons(registry)?
        } else {
            answer.messages
        };
        let failure = Failure::new(Kind::Schema, message).because(reasons.join("; "));
        Err(failure.hint("change the schema so that old readers can read it, or register it under another subject (--subject, --key-subject)"))
    }

    /// Why the schema is incompatible, where the registry does not say: found by the rules of the embedded one.
    fn reasons(&self, registry: &Registry) -> Result<Vec<String>, Failure> {
        let level = registry.config(&self.subject)?;
        let mut versions = registry.versions(&self.subject)?;
        let first = if level.ends_with("TRANSITIVE") {
            versions.len().saturating_sub(MAX_EXPLAINED)
        } else {
            versions.len().saturating_sub(1)
        };
        for version in versions.split_off(first).into_iter().rev() {
            let Some(earlier) = registry.version(&self.subject, version)? else {
                continue;
            };
            let found = incompatibilities(&level, &self.json, &registry.complete(&earlier)?);
            if !found.is_empty() {
                let reason = |what: String| format!("version {version}, {level}: {what}");
                return Ok(found.into_iter().map(reason).collect());
            }
        }
        Ok(vec![format!(
            "the registry gives no reason (level {level})"
        )])
    }

    /// The id under which the registry knows the schema; changes nothing.
    fn find_id(&self, registry: &Registry) -> Result<u32, Failure> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        match registry.lookup(&self.subject, self.new_schema())? {
            Some(found) => Ok(found.id),
            None => {
                let message = format!(
                    "the registry does not know the schema ({}) under the subject {}",
                    self.describe(),
                    self.subject
                );
                let hint = if self.is_fixed {
                    "`tidegate schema register` puts it there; without --no-register, publishing does"
                } else {
                    "name the schema that was published with, or the load's --receipt"
                };
                Err(Failure::new(Kind::Schema, message).hint(hint))
            }
        }
    }

    /// The id under which the registry knows the schema; registers it if need be, and that is allowed.
    fn register(&self, registry: &Registry) -> Result<u32, Failure> {
        match self.id {
            Some(id) => Ok(id),
            None if self.is_fixed => self.find_id(registry),
            None => Ok(registry.register(&self.subject, self.new_schema())?),
        }
    }

    /// The schema as it is handed to the registry.
    fn new_schema(&self) -> NewSchema<'_> {
        match &self.registered {
            Some((text, references)) => NewSchema { text, references },
            None => NewSchema::from(&self.json),
        }
    }
}

/// A schema in a file, with the types that it takes from other subjects.
#[derive(Clone, Debug)]
pub(crate) struct FileSchema {
    /// The file.
    pub(crate) path: PathBuf,
    /// What stands in it.
    pub(crate) text: String,
    /// The types it takes from other subjects.
    pub(crate) references: Vec<Reference>,
    /// The text with these types in it.
    pub(crate) complete: String,
}

impl FileSchema {
    /// Reads it, and asks the registry for the types it takes from others.
    pub(crate) fn read(
        path: &Path,
        references: &ReferenceArgs,
        registry: Option<&Registry>,
    ) -> Result<Self, Failure> {
        let wishes = &references.references;
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read the schema {}", path.display());
            Failure::new(Kind::LocalIo, message).because(error)
        })?;
        let mut file = Self {
            path: path.to_owned(),
            references: Vec::new(),
            complete: text.clone(),
            text,
        };
        if !wishes.is_empty() {
            let registry = registry.ok_or_else(needs_registry)?;
            for wish in wishes {
                file.references.push(resolve(wish, registry)?);
            }
            file.complete = registry.complete(NewSchema {
                text: &file.text,
                references: &file.references,
            })?;
        }
        Ok(file)
    }
}

/// A reference with its version.
fn resolve(wish: &ReferenceWish, registry: &Registry) -> Result<Reference, Failure> {
    let version = match wish.version {
        Some(version) => version,
        None => match registry.latest(&wish.subject)? {
            Some(latest) => latest.version,
            None => {
                let message = format!(
                    "the registry has no schema for the subject {}, which --reference names for the type {}",
                    wish.subject, wish.name
                );
                return Err(Failure::new(Kind::Schema, message));
            }
        },
    };
    Ok(Reference {
        name: wish.name.clone(),
        subject: wish.subject.clone(),
        version,
    })
}

/// The subject that was named, or the one by Confluent's strategy of that name, which may need the `schema` for its record's name.
pub(crate) fn subject_of(
    args: &SubjectArgs,
    topic: &str,
    schema: impl FnOnce() -> Result<String, Failure>,
) -> Result<String, Failure> {
    if let Some(named) = &args.subject {
        return Ok(named.clone());
    }
    let record = || -> Result<String, Failure> { Ok(record_name(&schema()?)?) };
    Ok(match args.subject_strategy.unwrap_or_default() {
        SubjectStrategy::Topic => format!("{topic}-value"),
        SubjectStrategy::Record => record()?,
        SubjectStrategy::TopicRecord => format!("{topic}-{}", record()?),
    })
}

fn needs_schema() -> Failure {
    let message = "--subject-strategy record and topic-record name the subject by the schema's record, and no schema is named";
    Failure::new(Kind::Usage, message)
        .hint("--schema or --schema-id names one, --subject the subject itself")
}
