//! One test body, several brokers: a [`Cluster`] is the embedded one or a real one, and the test does not know which.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tidegate_broker::{Broker, BrokerConfig};

use crate::services;

/// Whose broker and registry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours, in this process.
    Embedded,
    /// Apache Kafka, and a registry of others.
    Real,
}

/// A Kafka cluster with a schema registry, used by one test. Topics of other tests may be there too: take names from
/// [`unique`](Self::unique).
#[derive(Debug)]
pub struct Cluster {
    kind: Kind,
    bootstrap: String,
    registry_url: String,
    embedded: Option<(Broker, TempDir)>,
}

impl Cluster {
    /// An embedded broker and registry of the test's own.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn embedded() -> Self {
        Self::embedded_with(|_| {})
    }

    /// As [`embedded`](Self::embedded), set up by `configure`.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn embedded_with(configure: impl FnOnce(&mut BrokerConfig)) -> Self {
        let dir = TempDir::with_prefix("tidegate-embedded-")
            .unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let mut config = BrokerConfig::new(dir.path());
        config.registry_listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        configure(&mut config);
        let broker = Broker::start(config)
            .unwrap_or_else(|error| panic!("the embedded broker cannot be started: {error}"));
        Self {
            kind: Kind::Embedded,
            bootstrap: broker.address().to_string(),
            registry_url: broker.registry_url().unwrap_or_default(),
            embedded: Some((broker, dir)),
        }
    }

    /// The real services that the environment asks for (see [`services`]), or none.
    ///
    /// # Panics
    /// They are asked for and cannot be had, or they are required and not asked for.
    #[must_use]
    pub fn real() -> Option<Self> {
        let bootstrap = services::kafka()?;
        let registry_url = services::registry()?;
        Some(Self {
            kind: Kind::Real,
            bootstrap,
            registry_url,
            embedded: None,
        })
    }

    /// Whose it is: for the few places where they rightly differ.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `HOST:PORT` for clients.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The registry's base URL.
    #[must_use]
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// The embedded broker, where it is one: its faults can be used.
    #[must_use]
    pub fn broker(&self) -> Option<&Broker> {
        self.embedded.as_ref().map(|(broker, _)| broker)
    }

    /// A name that no other test and no earlier run uses, for topics, groups and subjects.
    #[must_use]
    pub fn unique(&self, prefix: &str) -> String {
        unique_name(prefix)
    }
}

/// A name that no other test and no earlier run uses.
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(
        "{prefix}-{:x}-{:x}-{number}",
        since.as_micros(),
        std::process::id()
    )
}

/// Runs `test` on the embedded broker, and then on real Kafka with a real registry where the environment asks for them.
///
/// # Panics
/// `test` does, after a line that says on which of the two.
#[expect(
    clippy::print_stderr,
    reason = "shown by the test harness next to the failure"
)]
pub fn for_each_cluster(mut test: impl FnMut(&Cluster)) {
    eprintln!("on the embedded broker");
    test(&Cluster::embedded());
    if let Some(cluster) = Cluster::real() {
        eprintln!(
            "on real Kafka at {} with the registry {}",
            cluster.bootstrap(),
            cluster.registry_url()
        );
        test(&cluster);
    }
}

/// As [`for_each_cluster`], for tests that need no registry: they get `HOST:PORT`.
///
/// # Panics
/// `test` does, after a line that says on which of the two.
#[expect(
    clippy::print_stderr,
    reason = "shown by the test harness next to the failure"
)]
pub fn for_each_kafka(mut test: impl FnMut(Kind, &str)) {
    eprintln!("on the embedded broker");
    let embedded = Cluster::embedded();
    test(Kind::Embedded, embedded.bootstrap());
    if let Some(bootstrap) = services::kafka() {
        eprintln!("on real Kafka at {bootstrap}");
        test(Kind::Real, &bootstrap);
    }
}

/// As [`for_each_cluster`], for tests that need a registry alone: they get its URL.
///
/// # Panics
/// `test` does, after a line that says on which of the two.
#[expect(
    clippy::print_stderr,
    reason = "shown by the test harness next to the failure"
)]
pub fn for_each_registry(mut test: impl FnMut(Kind, &str)) {
    eprintln!("on the embedded registry");
    let embedded = Cluster::embedded();
    test(Kind::Embedded, embedded.registry_url());
    if let Some(url) = services::registry() {
        eprintln!("on the real registry {url}");
        test(Kind::Real, &url);
    }
}

#[cfg(test)]
mod tests {
    use super::unique_name;

    #[test]
    fn names_differ_and_are_legal() {
        let (one, two) = (unique_name("usage"), unique_name("usage"));
        assert_ne!(one, two);
        assert!(
            one.len() < 100
                && one
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
    }
}
