//! Starts Apache Kafka and a schema registry for a series of test runs, prints where they are, and stops them when its standard input ends.
//!
//! ```console
//! $ cargo run -p tidegate-testkit --bin services
//! TIDEGATE_TEST_KAFKA=127.0.0.1:40001
//! TIDEGATE_TEST_REGISTRY=http://127.0.0.1:40002/apis/ccompat/v7
//! READY=1
//! ```
//!
//! A signal ends it too: the servers notice that it is gone (see `tidegate_testkit::server`).

use std::io::{self, Read, Write};
use std::thread;

use tidegate_testkit::apicurio::RealRegistry;
use tidegate_testkit::kafka::RealKafka;
use tidegate_testkit::services::{kafka_version, registry_options};

fn main() -> io::Result<()> {
    let (kafka, registry) = thread::scope(|scope| {
        let registry = scope.spawn(|| RealRegistry::start(&registry_options()));
        let kafka = RealKafka::start(&kafka_version(), "");
        let registry = registry
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the registry's launcher panicked")));
        (kafka, registry)
    });
    let (kafka, registry) = (kafka?, registry?);
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "TIDEGATE_TEST_KAFKA={}", kafka.address())?;
    writeln!(stdout, "TIDEGATE_TEST_REGISTRY={}", registry.url())?;
    writeln!(stdout, "READY=1")?;
    stdout.flush()?;
    drop(stdout);
    io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink())?;
    Ok(())
}
