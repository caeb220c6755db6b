//! Why the broker could not start, or could not stop in order.

use std::fmt;
use std::io;
use std::path::Path;

use crate::log::AppendError;

/// What kind of problem an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another process (or another broker in this one) holds the data directory. Its address may be had
    /// from [`Addresses::read`](crate::Addresses::read).
    Locked,
    /// A file of the data directory is damaged in a place that a crash cannot explain.
    Corrupt,
    /// The configuration cannot be used.
    Configuration,
    /// The operating system refused: a file, a port, a thread.
    Io,
}

/// The broker could not start, or could not stop in order.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<io::Error>,
}

impl Error {
    /// The kind, for callers that decide by it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn locked(dir: &Path) -> Self {
        Self {
            kind: ErrorKind::Locked,
            message: format!(
                "the data directory {} is in use by another broker",
                dir.display()
            ),
            source: None,
        }
    }

    /// Damage in `path`, at `byte` from its start.
    pub(crate) fn corrupt(path: &Path, byte: u64, what: impl fmt::Display) -> Self {
        Self {
            kind: ErrorKind::Corrupt,
            message: format!("{} is damaged at byte {byte}: {what}", path.display()),
            source: None,
        }
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Configuration,
            message: message.into(),
            source: None,
        }
    }

    /// `what` completes the sentence "cannot ...".
    pub(crate) fn io(what: impl fmt::Display, source: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io,
            message: format!("cannot {what}"),
            source: Some(source),
        }
    }

    /// The journal could not be written.
    pub(crate) fn journal(what: &str) -> Self {
        Self::io("write the journal", io::Error::other(what.to_owned()))
    }

    /// A transaction that a crash interrupted could not be ended in `topic`.
    pub(crate) fn marker(topic: &str, error: AppendError) -> Self {
        let source = match error {
            AppendError::Io(error) => error,
            AppendError::Refused(refused) => io::Error::other(refused.message),
        };
        Self::io(format_args!("end a transaction in topic {topic}"), source)
    }

    /// As [`Error::io`], for a file or folder; `verb` is "open", "write", and so on.
    pub(crate) fn file(verb: &str, path: &Path, source: io::Error) -> Self {
        Self::io(format_args!("{verb} {}", path.display()), source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
