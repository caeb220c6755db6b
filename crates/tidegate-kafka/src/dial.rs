//! From `host:port` to a connected socket: every address that a name resolves to is tried, and nothing outlasts the deadline.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// The shortest time that one of several addresses gets.
const SHORTEST_TRY: Duration = Duration::from_millis(500);

/// Connects to `address` by `deadline`.
///
/// # Errors
/// [`ErrorKind::Unreachable`], or [`ErrorKind::Timeout`] if the deadline passed; the message names every address that was tried, and why it
/// failed.
pub(crate) fn dial(address: &str, deadline: Instant) -> Result<TcpStream, Error> {
    let resolved = resolve_by(address, deadline)?;
    let mut failures: Vec<String> = Vec::new();
    let mut last = None;
    for (tried, socket_address) in resolved.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // An address that swallows packets must not eat the time of the others.
        let remaining = u32::try_from(resolved.len() - tried).unwrap_or(u32::MAX);
        let share = (left / remaining).max(SHORTEST_TRY).min(left);
        match TcpStream::connect_timeout(socket_address, share) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                failures.push(format!("{socket_address}: {}", why(&error, share)));
                last = Some(error);
            }
        }
    }
    let Some(last) = last else {
        let message = format!("{address}: cannot connect: the time was up before it began");
        return Err(Error::new(ErrorKind::Timeout, message));
    };
    let failures = failures.join(", ");
    let message = if failures.starts_with(&format!("{address}: ")) {
        format!("cannot connect to {failures}")
    } else {
        format!("cannot connect to {address} ({failures})")
    };
    let kind = match last.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::Timeout,
        _ => ErrorKind::Unreachable,
    };
    Err(Error::new(kind, message).with_source(last))
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

fn why(error: &io::Error, share: Duration) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("no answer within {:.1} s", share.as_secs_f64())
        }
        _ => error.to_string(),
    }
}

/// The addresses of `host:port`, as the system's name service has them.
///
/// # Errors
/// [`ErrorKind::Unreachable`] if there is none, [`ErrorKind::Timeout`] if that was not known in time.
pub fn resolve(address: &str, timeout: Duration) -> Result<Vec<SocketAddr>, Error> {
    resolve_by(address, Instant::now() + timeout)
}

fn resolve_by(address: &str, deadline: Instant) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(numeric) = address.parse::<SocketAddr>() {
        return Ok(vec![numeric]);
    }
    let failed =
        |kind, why: String| Error::new(kind, format!("{address}: cannot be resolved: {why}"));
    let addresses = look_up(address, deadline)
        .map_err(|error| failed(ErrorKind::Unreachable, error.to_string()).with_source(error))?
        .ok_or_else(|| {
            failed(
                ErrorKind::Timeout,
                "the name service does not answer".to_owned(),
            )
        })?;
    if addresses.is_empty() {
        return Err(failed(
            ErrorKind::Unreachable,
            "it has no address".to_owned(),
        ));
    }
    Ok(addresses)
}

/// Asks the system's name service; `None` if it did not answer by `deadline`.
///
/// The system's call has no time-out of its own and may take minutes. It runs on a thread that ends by itself when the call does; this is the
/// one thread outside of the producer's runner, and it touches nothing but the name.
fn look_up(address: &str, deadline: Instant) -> io::Result<Option<Vec<SocketAddr>>> {
    let (answer, answered) = mpsc::sync_channel(1);
    let name = address.to_owned();
    thread::Builder::new()
        .name("tidegate-resolve".to_owned())
        .spawn(move || {
            let found = name.to_socket_addrs().map(Iterator::collect);
            // Nobody listens any more if the deadline has passed: then the answer is of no use.
            answer.send(found).ok();
        })?;
    match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(found) => found.map(Some),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn a_name_is_resolved_and_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            dial(&format!("{host}:{port}"), soon()).unwrap();
        }
    }

    #[test]
    fn hosts_are_found_in_addresses() {
        assert_eq!(host_of("broker.example:9093"), "broker.example");
        assert_eq!(host_of("[::1]:9093"), "::1");
    }

    #[test]
    fn every_address_is_named_with_the_reason() {
        // Bound and dropped: nobody listens there now.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = dial(&format!("localhost:{port}"), soon()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{text}");
        assert!(text.contains("localhost:"), "{text}");
        assert!(
            text.contains(&format!("127.0.0.1:{port}: Connection refused")),
            "{text}"
        );
    }

    #[test]
    fn a_name_without_an_address_says_so() {
        let error = dial("no-such-host.invalid:9092", soon()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no-such-host.invalid:9092: cannot be resolved"),
            "{error}"
        );
    }
}
