//! The one error of this crate: what was wrong with the bytes, and where.

use std::borrow::Cow;
use std::fmt;

/// What kind of problem an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The bytes end before the value they announce.
    Truncated,
    /// The bytes contradict themselves or their checksum.
    Corrupt,
    /// The bytes may be right, but are of a version or codec this crate does not know.
    Unsupported,
    /// The content is larger than the limit the caller set, or than the format can hold.
    TooLarge,
}

/// Bytes that could not be read, or a value that could not be written.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: Cow<'static, str>,
    base_offset: Option<i64>,
}

impl Error {
    /// The kind, for callers that decide by it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The base offset of the record batch the error is in, where it is known.
    #[must_use]
    pub fn base_offset(&self) -> Option<i64> {
        self.base_offset
    }

    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            base_offset: None,
        }
    }

    #[cold]
    pub(crate) fn truncated(what: &'static str) -> Self {
        Self::new(Kind::Truncated, format!("the bytes end inside {what}"))
    }

    #[cold]
    pub(crate) fn corrupt(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    #[cold]
    pub(crate) fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    #[cold]
    pub(crate) fn over_limit(limit: usize) -> Self {
        Self::new(
            Kind::TooLarge,
            format!("the decompressed size is over the limit of {limit} bytes"),
        )
    }

    #[cold]
    pub(crate) fn in_batch(mut self, base_offset: i64) -> Self {
        self.base_offset = Some(base_offset);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(offset) = self.base_offset {
            write!(f, "record batch at offset {offset}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            Kind::Truncated => std::io::ErrorKind::UnexpectedEof,
            Kind::Corrupt | Kind::Unsupported | Kind::TooLarge => std::io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
