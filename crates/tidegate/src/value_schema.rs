//! The schema of the values: which one, where it came from, and its id in the registry.
//!
//! In this order: the file of `--schema`; the subject's latest version; what the data suggests. Only
//! [`ValueSchema::register`] changes anything, and it runs after every other check has passed.

use std::path::{Path, PathBuf};

use tidegate::core::infer::Inferred;
use tidegate::registry::Registry;

use crate::args::{Format, RecordArgs};
use crate::failure::{Failure, Kind};
use crate::report::grouped;
use crate::service::needs_registry;

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
    /// The data, of which so many rows were looked at.
    Inferred {
        /// Rows looked at.
        rows: u64,
    },
    /// The job that is gone on with.
    Job,
}

/// The schema of a load's values.
#[derive(Clone, Debug)]
pub(crate) struct ValueSchema {
    /// In Avro's JSON form.
    pub(crate) json: String,
    /// Where it came from.
    pub(crate) origin: Origin,
    subject: String,
    id: Option<u32>,
}

impl ValueSchema {
    /// Finds the schema. `infer` is called only when neither a file nor the registry has one.
    pub(crate) fn choose(
        args: &RecordArgs,
        topic: &str,
        registry: Option<&Registry>,
        infer: impl FnOnce() -> Result<Inferred, Failure>,
    ) -> Result<Self, Failure> {
        let subject = subject_of(args.subject.as_deref(), topic);
        if args.format() == Format::Avro && registry.is_none() {
            return Err(needs_registry());
        }
        if let Some(path) = &args.schema {
            let json = read(path)?;
            return Ok(Self {
                json,
                origin: Origin::File(path.clone()),
                subject,
                id: None,
            });
        }
        if let Some(registry) = registry
            && let Some(latest) = registry.latest(&subject)?
        {
            let origin = Origin::Registry {
                version: latest.version,
            };
            return Ok(Self {
                json: latest.schema,
                origin,
                subject,
                id: Some(latest.id),
            });
        }
        let inferred = infer()?;
        Ok(Self {
            json: inferred.schema_json,
            origin: Origin::Inferred {
                rows: inferred.rows,
            },
            subject,
            id: None,
        })
    }

    /// The schema a job began with, and its id.
    pub(crate) fn of_job(json: String, id: Option<u32>) -> Self {
        Self {
            json,
            origin: Origin::Job,
            subject: String::new(),
            id,
        }
    }

    /// Where it came from, as a plan states it.
    pub(crate) fn describe(&self) -> String {
        match &self.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::Registry { version } => {
                format!("{} version {version} of the registry", self.subject)
            }
            Origin::Inferred { rows } => format!("inferred from {} rows", grouped(*rows)),
            Origin::Job => "as the job began with".to_owned(),
        }
    }

    /// Asks the registry whether the schema may become the subject's next version; changes nothing.
    pub(crate) fn check_compatible(&self, registry: &Registry) -> Result<(), Failure> {
        if self.id.is_some() {
            return Ok(());
        }
        let answer = registry.compatible(&self.subject, &self.json)?;
        if answer.ok {
            return Ok(());
        }
        let message = format!(
            "the schema ({}) is incompatible with the subject {}",
            self.describe(),
            self.subject
        );
        let failure = Failure::new(Kind::Schema, message).because(answer.messages.join("; "));
        Err(failure.hint("change the schema so that old readers can read it, or register it under another --subject"))
    }

    /// The id under which the registry knows the schema; changes nothing.
    pub(crate) fn find_id(&self, registry: &Registry) -> Result<u32, Failure> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        match registry.lookup(&self.subject, &self.json)? {
            Some(found) => Ok(found.id),
            None => {
                let message = format!(
                    "the registry does not know the schema ({}) under the subject {}",
                    self.describe(),
                    self.subject
                );
                Err(Failure::new(Kind::Schema, message)
                    .hint("name the schema that was published with, or the load's --receipt"))
            }
        }
    }

    /// The id under which the registry knows the schema; registers it if need be.
    pub(crate) fn register(&self, registry: &Registry) -> Result<u32, Failure> {
        match self.id {
            Some(id) => Ok(id),
            None => Ok(registry.register(&self.subject, &self.json)?),
        }
    }
}

/// The subject that was named, or the topic's by Confluent's TopicNameStrategy.
pub(crate) fn subject_of(named: Option<&str>, topic: &str) -> String {
    named.map_or_else(|| format!("{topic}-value"), ToOwned::to_owned)
}

/// A schema file's text.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Kind::LocalIo,
            format!("cannot read the schema {}", path.display()),
        )
        .because(error)
    })
}
