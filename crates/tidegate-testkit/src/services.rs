//! Which real services the tests use, by the environment, and what is said where there are none.
//!
//! | variable | value | meaning |
//! |---|---|---|
//! | `TIDEGATE_TEST_KAFKA` | `download` | fetch Apache Kafka, start one for this process |
//! | | `HOST:PORT` | use that broker |
//! | `TIDEGATE_TEST_KAFKA_VERSION` | `4.3.1` | the version to download |
//! | `TIDEGATE_TEST_REGISTRY` | `download` | fetch Apicurio Registry, start one for this process |
//! | | a URL | use that registry |
//! | `TIDEGATE_TEST_REGISTRY_VERSION` | `3.3.3`, `2.6.13.Final` | the version to download; default: the newest that Java runs |
//! | `TIDEGATE_TEST_REQUIRE` | `1` | a test that would be skipped fails |

use std::sync::OnceLock;

use crate::apicurio::{RealRegistry, RegistryOptions};
use crate::kafka::replicated::ReplicatedKafka;
use crate::kafka::secure::SecureKafka;
use crate::kafka::{DEFAULT_VERSION, RealKafka};

const KAFKA_VALUES: &str = "download (Java 17 and Maven), or HOST:PORT";
const REGISTRY_VALUES: &str = "download (Java 17 and Maven), or a URL";

/// The bootstrap address of the real Kafka that the environment asks for; one for all tests of a process. None, and a line that says how to
/// turn it on, where it asks for none.
///
/// # Panics
/// It is asked for and cannot be had, or it is required and not asked for.
#[must_use]
pub fn kafka() -> Option<String> {
    static STARTED: OnceLock<Option<RealKafka>> = OnceLock::new();
    let wish = wish("TIDEGATE_TEST_KAFKA", KAFKA_VALUES)?;
    let started = STARTED.get_or_init(|| {
        (wish == "download").then(|| {
            RealKafka::start(&kafka_version(), "")
                .unwrap_or_else(|error| panic!("TIDEGATE_TEST_KAFKA=download: {error}"))
        })
    });
    Some(
        started
            .as_ref()
            .map_or(wish, |kafka| kafka.address().to_string()),
    )
}

/// The URL of the real registry that the environment asks for; otherwise as [`kafka`].
///
/// # Panics
/// As [`kafka`].
#[must_use]
pub fn registry() -> Option<String> {
    static STARTED: OnceLock<Option<RealRegistry>> = OnceLock::new();
    let wish = wish("TIDEGATE_TEST_REGISTRY", REGISTRY_VALUES)?;
    let started = STARTED.get_or_init(|| {
        (wish == "download").then(|| {
            RealRegistry::start(&registry_options())
                .unwrap_or_else(|error| panic!("TIDEGATE_TEST_REGISTRY=download: {error}"))
        })
    });
    Some(
        started
            .as_ref()
            .map_or(wish, |registry| registry.url().to_owned()),
    )
}

/// A Kafka of the test's own, which it may kill and restart. Given wherever real Kafka is asked for, also where the shared one is somebody else's.
///
/// # Panics
/// As [`kafka`].
#[must_use]
pub fn own_kafka(properties: &str) -> Option<RealKafka> {
    wish("TIDEGATE_TEST_KAFKA", KAFKA_VALUES)?;
    let started = RealKafka::start(&kafka_version(), properties);
    Some(started.unwrap_or_else(|error| panic!("a Kafka of the test's own: {error}")))
}

/// A Kafka of three nodes of the test's own; otherwise as [`own_kafka`].
///
/// # Panics
/// As [`kafka`].
#[must_use]
pub fn replicated_kafka(properties: &str) -> Option<ReplicatedKafka> {
    wish("TIDEGATE_TEST_KAFKA", KAFKA_VALUES)?;
    let started = ReplicatedKafka::start(&kafka_version(), properties);
    Some(started.unwrap_or_else(|error| panic!("a Kafka of three nodes: {error}")))
}

/// A Kafka with every kind of security; one for all tests of a process. Given wherever real Kafka is asked for.
///
/// # Panics
/// As [`kafka`].
#[must_use]
pub fn secure_kafka() -> Option<&'static SecureKafka> {
    static STARTED: OnceLock<SecureKafka> = OnceLock::new();
    wish("TIDEGATE_TEST_KAFKA", KAFKA_VALUES)?;
    Some(STARTED.get_or_init(|| {
        SecureKafka::start(&kafka_version())
            .unwrap_or_else(|error| panic!("a Kafka with security: {error}"))
    }))
}

/// A registry of the test's own; otherwise as [`own_kafka`].
///
/// # Panics
/// As [`kafka`].
#[must_use]
pub fn own_registry(options: &RegistryOptions) -> Option<RealRegistry> {
    wish("TIDEGATE_TEST_REGISTRY", REGISTRY_VALUES)?;
    let started = RealRegistry::start(options);
    Some(started.unwrap_or_else(|error| panic!("a registry of the test's own: {error}")))
}

/// Whether the environment asks for both real services; if not, says how. Starts nothing.
///
/// # Panics
/// They are required and not asked for.
#[must_use]
pub fn are_wanted() -> bool {
    wish("TIDEGATE_TEST_KAFKA", KAFKA_VALUES).is_some()
        && wish("TIDEGATE_TEST_REGISTRY", REGISTRY_VALUES).is_some()
}

/// The version of Kafka to download.
#[must_use]
pub fn kafka_version() -> String {
    read("TIDEGATE_TEST_KAFKA_VERSION").unwrap_or_else(|| DEFAULT_VERSION.to_owned())
}

/// What the real Kafka is called where figures are told.
#[must_use]
pub fn kafka_name() -> String {
    format!("Kafka {}", kafka_version())
}

/// The registry to download.
#[must_use]
pub fn registry_options() -> RegistryOptions {
    RegistryOptions {
        version: read("TIDEGATE_TEST_REGISTRY_VERSION"),
        ..RegistryOptions::default()
    }
}

fn read(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

fn wish(name: &str, values: &str) -> Option<String> {
    let wish = read(name);
    if wish.is_none() {
        skip(&format!("{name}={values}"));
    }
    wish
}

/// Says that a test, or a part of one, is skipped for want of `need`.
///
/// # Panics
/// `TIDEGATE_TEST_REQUIRE=1`: nothing may be skipped.
#[expect(
    clippy::print_stderr,
    reason = "the line is for whoever reads the tests' output"
)]
pub fn skip(need: &str) {
    let line = format!("skipped: needs {need}");
    assert!(
        read("TIDEGATE_TEST_REQUIRE").is_none_or(|value| value == "0"),
        "{line}"
    );
    eprintln!("{line}");
}
