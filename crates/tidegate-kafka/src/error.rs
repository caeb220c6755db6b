//! What can go wrong between this client and a cluster.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// What sort of failure an [`Error`] is: enough to choose an exit code or a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No broker could be reached, or a connection broke.
    Unreachable,
    /// An answer, or any progress, did not come in time.
    Timeout,
    /// The broker does not believe who we are.
    Authentication,
    /// A certificate, a key or the TLS of either side does not do.
    Tls,
    /// We are known, but may not do this.
    Authorization,
    /// The topic (or partition) does not exist.
    TopicMissing,
    /// Something else is wrong with the topic: it exists already, or its settings do not allow this.
    Topic,
    /// A record or batch is larger than the broker takes.
    TooLarge,
    /// A batch was refused for good, or what became of it cannot be known.
    Delivery,
    /// Another producer with the same identity took over.
    Fenced,
    /// The transaction was rolled back and the producer is ready for the next one. What was committed last has to be read back, and the
    /// work goes on from there.
    RolledBack,
    /// The other side broke the protocol, or speaks none that we know.
    Protocol,
    /// The client was set up wrongly.
    Configuration,
    /// A consumer group refused us, or is not in a state that allows this.
    Group,
    /// An offset lies outside of the log.
    OffsetOutOfRange,
    /// The client was closed while this was under way.
    Closed,
}

/// A failed operation: what, where, and why.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    kafka_code: Option<i16>,
    /// What it is, if it goes on.
    suspicion: Option<ErrorKind>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            message: message.into(),
            kafka_code: None,
            suspicion: None,
            source: None,
        };
        Self {
            inner: Box::new(inner),
        }
    }

    /// An I/O failure with what was being done.
    pub(crate) fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        if let Some(why) = crate::tls::explain(&source) {
            return Self::new(ErrorKind::Tls, format!("{doing}: {why}")).with_source(source);
        }
        let kind = match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::Timeout,
            io::ErrorKind::InvalidData => ErrorKind::Protocol,
            _ => ErrorKind::Unreachable,
        };
        // The kernel's word for a passed deadline is "Resource temporarily unavailable": say what it means.
        let why = match kind {
            ErrorKind::Timeout => "no answer in time".to_owned(),
            _ => source.to_string(),
        };
        Self::new(kind, format!("{doing}: {why}")).with_source(source)
    }

    /// An error code in a broker's answer, with what was being done and the broker's own words if it sent any.
    pub fn kafka(doing: impl fmt::Display, code: i16, said: Option<&str>) -> Self {
        let what = crate::retry::describe(code);
        let message = match said.filter(|said| !said.is_empty()) {
            Some(said) => format!("{doing}: {what}: {said}"),
            None => format!("{doing}: {what}"),
        };
        let mut error = Self::new(crate::retry::kind_of(code), message);
        error.inner.kafka_code = Some(code);
        error
    }

    /// A failure that was judged elsewhere, with the broker's code if it was one.
    pub(crate) fn failure(kind: ErrorKind, code: Option<i16>, message: String) -> Self {
        let mut error = Self::new(kind, message);
        error.inner.kafka_code = code;
        error
    }

    /// The same error once more, for everyone whom it concerns, without the failure below it.
    #[must_use]
    pub fn repeat(&self) -> Self {
        Self::failure(
            self.inner.kind,
            self.inner.kafka_code,
            self.inner.message.clone(),
        )
    }

    /// The same error with the failure below it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same error, told as part of something larger: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.inner.message = format!("{context}: {}", self.inner.message);
        self
    }

    /// The same error, which is of another kind if it is the same however often it is tried: a connection that is always closed at the same point, say.
    #[must_use]
    pub(crate) fn suspect(mut self, kind: ErrorKind) -> Self {
        self.inner.suspicion = Some(kind);
        self
    }

    /// The same error for somebody who does not try again: a connection that was closed without a word, say, is then one that was refused.
    #[must_use]
    pub fn settled(self) -> Self {
        let kind = self.settled_kind();
        self.of_kind(kind)
    }

    /// What sort of failure this is once nobody tries again.
    pub(crate) fn settled_kind(&self) -> ErrorKind {
        self.inner.suspicion.unwrap_or(self.inner.kind)
    }

    /// The same error as one of another kind.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.inner.kind = kind;
        self
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The error code that the broker answered with, if it was an answer.
    pub fn kafka_code(&self) -> Option<i16> {
        self.inner.kafka_code
    }

    /// Whether fewer brokers run than there are to be copies of a topic.
    pub fn is_lack_of_brokers(&self) -> bool {
        let code = self.inner.kafka_code;
        code.is_some_and(crate::retry::is_lack_of_brokers)
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retriable(&self) -> bool {
        match self.inner.kafka_code {
            Some(code) => crate::retry::is_retriable(code),
            None => matches!(self.inner.kind, ErrorKind::Unreachable | ErrorKind::Timeout),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("kafka_code", &self.inner.kafka_code)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}
