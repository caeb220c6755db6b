//! From names to brokers that believe who we are: first those that were named, then all that the cluster says it has.

use std::thread;
use std::time::{Duration, Instant};

use tidegate::kafka::{Client, ClientConfig, Connection, Error, ErrorKind, resolve};

use super::Findings;
use crate::failure::{Failure, Kind};

/// Looks at the brokers that were named; `false` if none of them can be used.
pub(crate) fn check_named(config: &ClientConfig, findings: &mut Findings) -> bool {
    let timeout = share(config);
    let tried = try_all(&config.bootstrap, config, timeout);
    let usable = tried.iter().any(|(_, connected)| connected.is_ok());
    for (address, connected) in tried {
        if let Ok(found) = resolve(&address, timeout) {
            let all: Vec<String> = found.iter().map(|found| found.ip().to_string()).collect();
            if !address.starts_with(&all[0]) {
                findings.ok("resolve", format!("{address}: {}", all.join(", ")));
            }
        }
        match connected {
            Ok(said) => findings.ok("connect", format!("{address}: {said}")),
            Err(error) if usable => findings.warn(
                "connect",
                error.to_string(),
                "the other brokers named do: a load would use them",
            ),
            Err(error) => findings.fail("connect", &error.into()),
        }
    }
    usable
}

/// Looks at all brokers of the cluster: clients come to each by the address that the broker has been told to advertise.
pub(crate) fn check_advertised(client: &Client, findings: &mut Findings) {
    let config = client.config();
    let view = client.view();
    let all = view.brokers.iter();
    let addresses: Vec<String> = all.map(|(_, broker)| broker.to_string()).collect();
    let tried = try_all(&addresses, config, share(config));
    for ((id, _), (address, connected)) in view.brokers.iter().zip(tried) {
        match connected {
            Ok(said) => findings.ok("broker", format!("{id} at {address}: {said}")),
            Err(error) => {
                let unreachable = matches!(
                    error.kind(),
                    ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Protocol
                );
                let failure = Failure::from(error).in_file(&format!("broker {id}"));
                findings.fail("broker", &if unreachable {
                    failure.hint(format!(
                        "the cluster sends clients to {address}: advertised.listeners of broker {id} must name what can be reached from here"
                    ))
                } else {
                    failure
                });
            }
        }
    }
    if view.brokers.is_empty() {
        let failure = Failure::new(Kind::Unreachable, "the cluster names no broker");
        findings.fail("broker", &failure);
    }
}

/// Half of the time there is: the brokers named and those of the cluster come one after the other.
fn share(config: &ClientConfig) -> Duration {
    config.connect_timeout / 2
}

/// What each connection came to, all at once, in their order.
fn try_all(
    addresses: &[String],
    config: &ClientConfig,
    timeout: Duration,
) -> Vec<(String, Result<String, Error>)> {
    thread::scope(|scope| {
        let open = |address: &String| {
            let address = address.clone();
            scope.spawn(move || {
                let connected = connect(&address, config, timeout);
                (address, connected)
            })
        };
        let opened: Vec<_> = addresses.iter().map(open).collect();
        let joined = opened.into_iter().map(thread::ScopedJoinHandle::join);
        // A thread that panicked has said so.
        joined.filter_map(Result::ok).collect()
    })
}

fn connect(address: &str, config: &ClientConfig, timeout: Duration) -> Result<String, Error> {
    let started = Instant::now();
    let connection = Connection::open(address, config, timeout).map_err(Error::settled)?;
    let security = connection.security();
    Ok(format!(
        "connected in {} ms, {security}",
        started.elapsed().as_millis()
    ))
}
