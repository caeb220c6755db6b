//! What a client is told before it connects.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::sasl::Sasl;
use crate::tls::Tls;

/// How to reach a cluster, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Brokers to ask first, each as `host:port`; `[v6]:port` for an IPv6 address.
    pub bootstrap: Vec<String>,
    /// Name that the brokers' logs and quotas know this client by.
    pub client_id: String,
    /// Time until the first metadata has been received.
    pub connect_timeout: Duration,
    /// Time that one request may take.
    pub request_timeout: Duration,
    /// Time that a load may go without any progress before it is given up.
    pub delivery_timeout: Duration,
    /// TLS and SASL; neither by default.
    pub security: Security,
}

/// How the two sides of a connection know each other.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// TLS; none where the connection is in the clear.
    pub tls: Option<Tls>,
    /// SASL; none where the broker asks nobody, or goes by the certificate of the client.
    pub sasl: Option<Sasl>,
}

impl ClientConfig {
    /// The defaults for a comma-separated list of brokers. The port is 9092 where none is given, as in Kafka's own tools.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the list is empty or a port is no number.
    pub fn new(bootstrap: &str) -> Result<Self, Error> {
        let mut brokers = Vec::new();
        for part in bootstrap
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            brokers.push(with_port(part)?);
        }
        if brokers.is_empty() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "no bootstrap server was given",
            ));
        }
        Ok(Self {
            bootstrap: brokers,
            client_id: "tidegate".to_owned(),
            connect_timeout: Duration::from_secs(12),
            request_timeout: Duration::from_secs(10),
            delivery_timeout: Duration::from_secs(600),
            security: Security::default(),
        })
    }
}

fn with_port(address: &str) -> Result<String, Error> {
    let after_host = address.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = address[after_host..].rfind(':') else {
        return Ok(format!("{address}:9092"));
    };
    let port = &address[after_host + colon + 1..];
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(address.to_owned()),
        _ => Err(Error::new(
            ErrorKind::Configuration,
            format!("the bootstrap server \"{address}\" has no valid port: write host:port"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_and_ports_are_added() {
        let config = ClientConfig::new(" a:1, b ,[::1]:3,[::2]").unwrap();
        assert_eq!(config.bootstrap, ["a:1", "b:9092", "[::1]:3", "[::2]:9092"]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in ["", " , ", "a:x", "a:0", "a:99999"] {
            assert_eq!(
                ClientConfig::new(wrong).unwrap_err().kind(),
                ErrorKind::Configuration,
                "{wrong}"
            );
        }
    }
}
