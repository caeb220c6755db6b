//! The one error of this crate: which registry, what was asked of it, and what it said.

use std::fmt;

/// What kind of problem an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration cannot be used: a URL, a CA file.
    Configuration,
    /// No connection to any of the URLs, or it broke each time.
    Unreachable,
    /// Connected, but no answer in time.
    Timeout,
    /// TLS failed: an unknown authority, a wrong name, an expired certificate, no TLS at all.
    Tls,
    /// 401: no credentials, or wrong ones.
    Unauthorized,
    /// 403: the credentials lack a right.
    Forbidden,
    /// 404 with a registry's own error code: no such subject, version or id.
    NotFound,
    /// 409: the schema is incompatible with an earlier version of the subject.
    Incompatible,
    /// 422: the registry refuses the schema (or version, or level) as invalid.
    InvalidSchema,
    /// The schema is of a type this client does not handle: Protobuf, JSON Schema, or Avro spread over references.
    Unsupported,
    /// Something answers, but no registry: HTML, a redirect, JSON of another shape, an oversized body.
    NotARegistry,
    /// 5xx or 429 until the time was up.
    Server,
}

/// A call to the registry that failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    registry_code: Option<u32>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The kind, for callers that decide by it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The `error_code` of the registry's answer, if there was one: 40401, 42201, ...
    #[must_use]
    pub fn registry_code(&self) -> Option<u32> {
        self.registry_code
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            registry_code: None,
            source: None,
        }
    }

    pub(crate) fn with_code(mut self, code: Option<u32>) -> Self {
        self.registry_code = code;
        self
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts where it happened in front of the message.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Adds what a reader should know besides.
    pub(crate) fn note(mut self, note: impl fmt::Display) -> Self {
        self.message = format!("{} ({note})", self.message);
        self
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
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
