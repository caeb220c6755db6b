//! The one error of the facade.

use std::fmt;

/// What kind of problem an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Kafka: the source is a [`tidegate_kafka::Error`], which says more.
    Kafka,
    /// The registry: the source is a [`tidegate_registry::Error`].
    Registry,
    /// The schema is not valid Avro, or not a record.
    Schema,
    /// The message does not fit the schema.
    Message,
    /// A consumer group had not committed everything in time.
    Behind,
}

/// A call of the facade that failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind, for callers that decide by it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<tidegate_kafka::Error> for Error {
    fn from(error: tidegate_kafka::Error) -> Self {
        Self::new(ErrorKind::Kafka, error.to_string()).because(error)
    }
}

impl From<tidegate_registry::Error> for Error {
    fn from(error: tidegate_registry::Error) -> Self {
        Self::new(ErrorKind::Registry, error.to_string()).because(error)
    }
}
