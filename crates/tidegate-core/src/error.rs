//! The one error of this crate: what was wrong, where in the input, and why.
//!
//! A bad row is data and has a place in the file; a bad system (a sink that failed, a disk that is full) is not and has none. Callers decide
//! by [`Error::kind`]; the message is for people and never needs to be parsed.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of problem an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input could not be opened or read.
    Input,
    /// The input holds nothing at all, not even a header.
    EmptyInput,
    /// The input is not the one it was before: its prefix, its length or its order changed.
    InputChanged,
    /// The load was told to stop: before it had come to its position, or when the outcome of what it had sent was slow to come.
    Interrupted,
    /// A row, or the header, is not what the format or the schema asks for.
    BadRow,
    /// A group came again that had ended, and the load takes that for an error.
    UnsortedGroups,
    /// More rows were bad than the run may reject.
    TooManyRejects,
    /// A chosen option does not fit: an unknown column, a delimiter that is also the quote, two options that exclude each other.
    Option,
    /// The schema is not valid Avro, or does not fit the header.
    Schema,
    /// The sink failed; [`source`](StdError::source) is its own error, and says more.
    Sink,
    /// The consumer group could not be asked for what it committed; [`source`](StdError::source) says more.
    Group,
    /// The topic could not be read back; [`source`](StdError::source) says more.
    Consume,
    /// A local file of the run (rejects, receipt) could not be written, read, or is damaged.
    LocalFile,
    /// The load was held back for a consumer group for longer than allowed.
    HoldTimeout,
    /// Something that must hold in this program did not: a defect here or in a sink, never the user's doing.
    Internal,
}

/// A place in an input, as precise as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPosition {
    /// Offset in the decompressed input of the first byte of the row.
    pub byte: u64,
    /// Physical line the row starts on, from 1.
    pub line: u64,
    /// The data row, from 1, counted through all inputs of the load; 0 is the header.
    pub row: u64,
    /// The column by its header name, where one column is to blame.
    pub column: Option<String>,
}

impl fmt::Display for ErrorPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.row == 0 {
            write!(f, "header (line {})", self.line)?;
        } else {
            write!(f, "row {} (line {})", self.row, self.line)?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column {column:?}")?;
        }
        Ok(())
    }
}

/// The boxed cause of an error.
type Source = Box<dyn StdError + Send + Sync>;

/// Why a step of the pipeline failed.
///
/// The parts stand behind one pointer, so that a `Result` in the hot loop stays small.
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    message: Cow<'static, str>,
    /// What the input is called.
    input: Option<String>,
    position: Option<ErrorPosition>,
    source: Option<Source>,
    retriable: bool,
}

impl Error {
    /// The kind, for callers that decide by it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where in the input the problem is, when it is in the input.
    #[must_use]
    pub fn position(&self) -> Option<&ErrorPosition> {
        self.0.position.as_ref()
    }

    /// What the input is called in which the problem is, where it is in one that has a name.
    #[must_use]
    pub fn input_name(&self) -> Option<&str> {
        self.0.input.as_deref()
    }

    /// Whether the same call may succeed later without anything being changed by hand.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.0.retriable
    }

    /// What is wrong, without the place and without the cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Gives the cause back, to be downcast to the error of the sink or of the system.
    #[must_use]
    pub fn into_source(self) -> Option<Box<dyn StdError + Send + Sync>> {
        self.0.source
    }

    /// An error of `kind`; the constructors below say the usual ones.
    #[cold]
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            kind,
            message: message.into(),
            input: None,
            position: None,
            source: None,
            retriable: false,
        }))
    }

    /// The input could not be opened or read.
    #[cold]
    #[must_use]
    pub fn input(message: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Input, message).with_source(source)
    }

    /// The input holds nothing at all.
    #[cold]
    #[must_use]
    pub fn empty_input() -> Self {
        Self::new(
            ErrorKind::EmptyInput,
            "the input is empty: not even a header",
        )
    }

    /// A row, or with row 0 the header, is not what it must be.
    #[cold]
    #[must_use]
    pub fn bad_row(message: impl Into<Cow<'static, str>>, position: ErrorPosition) -> Self {
        Self::new(ErrorKind::BadRow, message).at(position)
    }

    /// A chosen option does not fit the input or another option.
    #[cold]
    #[must_use]
    pub fn option(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Option, message)
    }

    /// The schema is not valid, or does not fit the header.
    #[cold]
    #[must_use]
    pub fn schema(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Schema, message)
    }

    /// The sink failed while it did `message`.
    #[cold]
    #[must_use]
    pub fn sink(message: impl Into<Cow<'static, str>>, source: Source) -> Self {
        let mut error = Self::new(ErrorKind::Sink, message);
        error.0.source = Some(source);
        error
    }

    /// A local file of the run could not be written or read.
    #[cold]
    #[must_use]
    pub fn local_file(message: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::LocalFile, message).with_source(source)
    }

    /// Something that must hold in this program did not.
    #[cold]
    #[must_use]
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says where in the input it happened.
    #[must_use]
    pub fn at(mut self, position: ErrorPosition) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Says which input it happened in, if it is about an input at all.
    #[must_use]
    pub(crate) fn in_source(mut self, name: Option<String>) -> Self {
        let is_about_input = self.0.position.is_some()
            || matches!(
                self.0.kind,
                ErrorKind::Input | ErrorKind::EmptyInput | ErrorKind::InputChanged
            );
        if is_about_input && self.0.input.is_none() {
            self.0.input = name;
        }
        self
    }

    /// Says whether trying again may help.
    #[must_use]
    pub fn with_retriable(mut self, retriable: bool) -> Self {
        self.0.retriable = retriable;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(input) = &self.0.input {
            write!(f, "{input}: ")?;
        }
        if let Some(position) = &self.0.position {
            write!(f, "{position}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("input", &self.0.input)
            .field("position", &self.0.position)
            .field("source", &self.0.source)
            .field("retriable", &self.0.retriable)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_place_then_problem() {
        let error = Error::bad_row(
            "\"x\" is not a double",
            ErrorPosition {
                byte: 40,
                line: 7,
                row: 5,
                column: Some("cpu".into()),
            },
        );
        assert_eq!(
            error.to_string(),
            "row 5 (line 7), column \"cpu\": \"x\" is not a double"
        );
        assert_eq!(error.kind(), ErrorKind::BadRow);
        let header = Error::bad_row(
            "two columns are named \"a\"",
            ErrorPosition {
                byte: 0,
                line: 1,
                row: 0,
                column: None,
            },
        );
        assert_eq!(
            header.to_string(),
            "header (line 1): two columns are named \"a\""
        );
    }

    #[test]
    fn keeps_the_cause() {
        let error = Error::input("cannot read the input", std::io::Error::other("torn cable"));
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("torn cable")
        );
        assert!(
            error
                .into_source()
                .is_some_and(|source| source.is::<std::io::Error>())
        );
    }

    #[test]
    fn stays_one_pointer_wide() {
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }
}
