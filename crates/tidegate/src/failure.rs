//! What went wrong, for people: what, where, why, and how to go on; and the one mapping from a failure to an exit code.
//!
//! Libraries speak of their own errors; here each of them becomes a [`Failure`] of one [`Kind`], and nothing else in the program knows
//! an exit code.

use std::error::Error;
use std::fmt;

use serde_json::{Value, json};
use tidegate::{broker, core, kafka, registry};

use crate::decompress::Damage;

/// What sort of failure it is; each has one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A fault of tidegate itself.
    Internal,
    /// Something typed that cannot be: an unknown column, flags that do not fit together.
    Usage,
    /// The input's data: bad rows, an empty file.
    Input,
    /// Kafka cannot be reached, or did nothing until a deadline.
    Unreachable,
    /// Credentials or rights.
    Rights,
    /// The topic is missing or not as it must be.
    Topic,
    /// The schema does not fit, or the registry does not help.
    Schema,
    /// Kafka refused a record for good.
    Delivery,
    /// A consumer group was not done in time.
    Behind,
    /// The topic differs from the file.
    Differs,
    /// Somebody else runs this already.
    AlreadyRunning,
    /// A local file cannot be read or written.
    LocalIo,
    /// A signal ended the run; the number is the signal's.
    Signal(u8),
}

impl Kind {
    /// The process's exit code. This is the one place that knows them.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Input => 3,
            Self::Unreachable => 4,
            Self::Rights => 5,
            Self::Topic | Self::Schema => 6,
            Self::Delivery => 7,
            Self::Behind => 8,
            Self::Differs => 9,
            Self::AlreadyRunning => 10,
            Self::LocalIo => 11,
            // As shells report a process that a signal ended.
            Self::Signal(number) => 128u8.saturating_add(number),
        }
    }

    /// The name that stands in the JSON summary; programs rely on it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Input => "input",
            Self::Unreachable => "unreachable",
            Self::Rights => "rights",
            Self::Topic => "topic",
            Self::Schema => "schema",
            Self::Delivery => "delivery",
            Self::Behind => "behind",
            Self::Differs => "differs",
            Self::AlreadyRunning => "already-running",
            Self::LocalIo => "local-io",
            Self::Signal(_) => "signal",
        }
    }
}

/// One failure: its kind, what and where (the message), why (the chain of sources), and how to go on (hints).
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hints: Vec<String>,
}

impl Failure {
    /// A failure that says all there is in its message.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            hints: Vec::new(),
        }
    }

    /// Keeps the error underneath as the reason.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds one way to go on.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says which file it happened in.
    pub(crate) fn in_file(mut self, name: &str) -> Self {
        self.message = format!("{name}: {}", self.message);
        self
    }

    /// Adds what helps with most failures of this kind.
    fn with_usual_hints(self) -> Self {
        match self.kind {
            Kind::Unreachable => self.hint("check -b, --bootstrap-server (or KAFKA_BOOTSTRAP_SERVERS), and that the brokers run"),
            Kind::Behind => self.hint("see that the group's consumers run and commit; `tidegate balance -g GROUP -t TOPIC` shows where it stands"),
            _ => self,
        }
    }

    /// What sort of failure it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// How to go on.
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Message and reasons in one line, without repeating what an outer error already quotes.
    pub(crate) fn full_message(&self) -> String {
        let mut text = self.message.clone();
        for reason in self.reasons() {
            text.push_str(": ");
            text.push_str(&reason);
        }
        text
    }

    /// The reasons, outermost first; a reason that the line above it already contains is left out.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut above = self.message.clone();
        let mut next = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = next {
            let text = error.to_string();
            if !text.is_empty() && !above.contains(&text) {
                above.clone_from(&text);
                reasons.push(text);
            }
            next = error.source();
        }
        reasons
    }

    /// The `error` object of the JSON summary.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "kind": self.kind.name(), "message": self.full_message(), "hints": self.hints })
    }
}

impl From<core::Error> for Failure {
    fn from(error: core::Error) -> Self {
        let damage = damage_of(&error).map(Damage::hint);
        let kind = match error.kind() {
            core::ErrorKind::Option => Kind::Usage,
            core::ErrorKind::EmptyInput
            | core::ErrorKind::InputChanged
            | core::ErrorKind::BadRow
            | core::ErrorKind::UnsortedGroups
            | core::ErrorKind::TooManyRejects => Kind::Input,
            core::ErrorKind::Schema => Kind::Schema,
            core::ErrorKind::HoldTimeout => Kind::Behind,
            core::ErrorKind::Input if damage.is_some() => Kind::Input,
            core::ErrorKind::Input | core::ErrorKind::LocalFile => Kind::LocalIo,
            core::ErrorKind::Sink | core::ErrorKind::Group | core::ErrorKind::Consume => {
                kind_underneath(&error)
            }
            // Kinds of later versions included.
            _ => Kind::Internal,
        };
        let failure = Self::new(kind, error.to_string());
        let failure = match error.into_source() {
            Some(source) => failure.because(source),
            None => failure,
        };
        let failure = failure.with_usual_hints();
        match damage {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<kafka::Error> for Failure {
    fn from(error: kafka::Error) -> Self {
        let lacks_brokers = error.is_lack_of_brokers();
        let failure = Self::new(kind_of_kafka(&error), error.to_string());
        let failure = failure.because(error).with_usual_hints();
        if lacks_brokers {
            return failure.hint("see that all brokers run, and try again; --replication-factor asks for fewer copies of the topic");
        }
        failure
    }
}

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Self {
        let kind = match error.kind() {
            registry::ErrorKind::Configuration => Kind::Usage,
            registry::ErrorKind::Unauthorized
            | registry::ErrorKind::Forbidden
            | registry::ErrorKind::Tls => Kind::Rights,
            _ => Kind::Schema,
        };
        let failure = Self::new(kind, error.to_string());
        let failure = match error.kind() {
            registry::ErrorKind::Unauthorized => failure.hint("--registry-user and --registry-password-file, or --registry-token-file, say who asks"),
            registry::ErrorKind::Unreachable | registry::ErrorKind::Timeout => {
                failure.hint("check the address of --registry (or SCHEMA_REGISTRY_URL), and that the registry runs")
            }
            registry::ErrorKind::NotARegistry => failure.hint("some registries serve under a path: Apicurio's is /apis/ccompat/v7"),
            registry::ErrorKind::Incompatible => {
                failure.hint("change the schema so that old readers can read it, or register it under another --subject")
            }
            _ => failure,
        };
        failure.because(error)
    }
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        let kind = match error.kind() {
            broker::ErrorKind::Locked => Kind::AlreadyRunning,
            broker::ErrorKind::Configuration => Kind::Usage,
            _ => Kind::LocalIo,
        };
        let failure = Self::new(kind, error.to_string());
        let failure = match error.kind() {
            broker::ErrorKind::Locked => failure.hint("another tidegate holds it and does not answer: stop it, or choose another --data-dir"),
            _ => failure,
        };
        failure.because(error)
    }
}

/// What is wrong with a compressed input that could not be read, if that is why.
fn damage_of(error: &core::Error) -> Option<&Damage> {
    Damage::of(error.source()?.downcast_ref()?)
}

/// The kind of a failure that core only passes on: the client's own, where it is the client's. A load that was rolled back again and again was refused nothing: it
/// has not come any further in time.
fn kind_underneath(error: &core::Error) -> Kind {
    let is_rolled_back = error
        .source()
        .is_some_and(|source| source.is::<core::produce::RolledBack>());
    if is_rolled_back {
        return Kind::Unreachable;
    }
    match error
        .source()
        .and_then(|source| source.downcast_ref::<kafka::Error>())
    {
        Some(error) => kind_of_kafka(error),
        None if error.kind() == core::ErrorKind::Sink => Kind::Delivery,
        None => Kind::Unreachable,
    }
}

fn kind_of_kafka(error: &kafka::Error) -> Kind {
    match error.kind() {
        // What answers is no Kafka broker, or one of an unknown age: for the user both mean that there is no cluster to work with.
        kafka::ErrorKind::Unreachable | kafka::ErrorKind::Timeout | kafka::ErrorKind::Protocol => {
            Kind::Unreachable
        }
        kafka::ErrorKind::Tls
        | kafka::ErrorKind::Authentication
        | kafka::ErrorKind::Authorization => Kind::Rights,
        kafka::ErrorKind::TopicMissing | kafka::ErrorKind::Topic => Kind::Topic,
        kafka::ErrorKind::TooLarge | kafka::ErrorKind::Delivery => Kind::Delivery,
        kafka::ErrorKind::Fenced => Kind::AlreadyRunning,
        kafka::ErrorKind::Configuration
        | kafka::ErrorKind::Group
        | kafka::ErrorKind::OffsetOutOfRange => Kind::Usage,
        _ => Kind::Internal,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            (Kind::Internal, 1),
            (Kind::Usage, 2),
            (Kind::Input, 3),
            (Kind::Unreachable, 4),
            (Kind::Rights, 5),
            (Kind::Topic, 6),
            (Kind::Schema, 6),
            (Kind::Delivery, 7),
            (Kind::Behind, 8),
            (Kind::Differs, 9),
            (Kind::AlreadyRunning, 10),
            (Kind::LocalIo, 11),
            (Kind::Signal(2), 130),
            (Kind::Signal(15), 143),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.exit_code(), code, "{kind:?}");
        }
    }

    #[test]
    fn reasons_are_told_once() {
        let inner = std::io::Error::other("connection refused");
        let failure = Failure::new(Kind::Unreachable, "cannot reach localhost:1")
            .because(inner)
            .hint("start it");
        assert_eq!(
            failure.full_message(),
            "cannot reach localhost:1: connection refused"
        );
        let quoting = Failure::new(Kind::Unreachable, "connection refused by localhost:1");
        let quoting = quoting.because(std::io::Error::other("connection refused"));
        assert_eq!(quoting.full_message(), "connection refused by localhost:1");
        assert_eq!(failure.to_json()["kind"], "unreachable");
        assert_eq!(failure.to_json()["hints"][0], "start it");
    }
}
