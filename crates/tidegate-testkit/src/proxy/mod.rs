//! A proxy that speaks Kafka, for faults between a client and any broker: the embedded one, or Apache Kafka.
//!
//! It listens on 127.0.0.1, with one port for each broker behind it, and names these ports wherever an answer names brokers. It knows
//! requests by their headers and answers by connection and correlation id. A [`Rule`] says which frames it is about and what becomes of them;
//! [`Proxy::inject`] puts it in force and gives an [`ActiveRule`] that counts. A test whose rule never fired has tested nothing: ask it.
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate_testkit::proxy::{ApiKey, Proxy, Rule, Verb};
//!
//! # fn main() -> std::io::Result<()> {
//! let proxy = Proxy::start("127.0.0.1:9092")?;
//! // The second commit reaches the broker only when it is let go, whatever became of its client.
//! let late = proxy.inject(Rule::new(ApiKey::EndTxn, Verb::Hold).nth(2));
//! // ... a client on proxy.bootstrap() ...
//! assert!(late.wait_fired(1, Duration::from_secs(10)));
//! // ... is killed, and started again ...
//! late.release();
//! assert!(late.wait_answered(1, Duration::from_secs(10)));
//! # Ok(())
//! # }
//! ```

mod connection;
mod hub;
mod rewrite;
mod rules;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use kafka_protocol::messages;
pub use kafka_protocol::messages::ApiKey;

pub use self::rules::{ActiveRule, Rule, Seen, Verb};

use self::hub::Hub;
use self::rules::InForce;

/// A running proxy. Its end is that of all connections through it, and of what it holds.
#[derive(Debug)]
pub struct Proxy {
    hub: Arc<Hub>,
    bootstrap: String,
}

impl Proxy {
    /// Stands in front of the cluster that `upstream` (`HOST:PORT`, or several of them with commas between) belongs to.
    ///
    /// # Errors
    /// `upstream` is no such address, or there is no free port.
    pub fn start(upstream: &str) -> io::Result<Self> {
        let hub = Arc::new(Hub::default());
        let mut bootstrap = Vec::new();
        for address in upstream.split(',') {
            let wrong = || {
                let message = format!("not HOST:PORT: {address}");
                io::Error::new(io::ErrorKind::InvalidInput, message)
            };
            let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
            let port = hub.route(host, port.parse().map_err(|_| wrong())?)?;
            bootstrap.push(format!("127.0.0.1:{port}"));
        }
        Ok(Self {
            hub,
            bootstrap: bootstrap.join(","),
        })
    }

    /// `HOST:PORT` for clients; as many as the proxy was started with.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Puts a rule in force.
    pub fn inject(&self, rule: Rule) -> ActiveRule {
        let index = self.hub.change(|state| {
            state.rules.push(InForce::new(rule));
            state.rules.len() - 1
        });
        ActiveRule {
            hub: Arc::clone(&self.hub),
            index,
        }
    }

    /// From now on the brokers seem to know an API up to this version only, as older ones do, to whoever connects.
    pub fn limit(&self, api_key: ApiKey, newest: i16) {
        self.hub
            .change(|state| state.newest.insert(api_key as i16, newest));
    }

    /// From now on new connections are reset as soon as they are made; those there are stay.
    pub fn refuse(&self) {
        self.hub.change(|state| state.is_refusing = true);
    }

    /// Ends [`refuse`](Self::refuse).
    pub fn accept(&self) {
        self.hub.change(|state| state.is_refusing = false);
    }

    /// How many connections were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.hub.state().refused
    }

    /// Waits until `count` connections were refused; false if that takes longer than `patience`.
    #[must_use]
    pub fn wait_refused(&self, count: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        self.hub
            .wait(Some(deadline), |state| state.refused >= count)
    }

    /// Resets all connections there are now; answers how many.
    pub fn reset_connections(&self) -> usize {
        let connections = self.hub.connections();
        for connection in &connections {
            connection.reset();
        }
        connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.hub.close();
    }
}
