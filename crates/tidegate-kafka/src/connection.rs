//! One connection to one broker: blocking, pipelined, with a deadline on every read and write.
//!
//! Requests may be sent before earlier ones were answered; a broker answers in order, so an answer whose correlation id is
//! not the oldest open one means that the stream is out of step, and the connection is of no more use.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tidegate_wire::frame;

use crate::error::{Error, ErrorKind};
use crate::versions::{Versions, api_name};

/// Requests that may be open on one connection.
pub const MAX_IN_FLIGHT: usize = 64;

/// Answered with a version of ApiVersions that is older than the one asked for.
const UNSUPPORTED_VERSION: i16 = 35;

/// The bytes below the protocol. TLS becomes a second variant: a rustls stream cannot be split into a reader and a writer,
/// so nothing above relies on that.
#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
        }
    }

    /// Writes `parts` one after the other without joining them first.
    fn write_all_vectored(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
                let mut rest = &mut slices[..];
                IoSlice::advance_slices(&mut rest, 0);
                while !rest.is_empty() {
                    match socket.write_vectored(rest) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(written) => IoSlice::advance_slices(&mut rest, written),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        }
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
        }
    }
}

/// An open connection whose versions are negotiated.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    address: String,
    client_id: StrBytes,
    versions: Versions,
    correlation: i32,
    open: VecDeque<i32>,
}

impl Connection {
    /// Connects to `address` (`host:port`, every address that it resolves to is tried) and negotiates versions.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] or [`ErrorKind::Timeout`] if no connection came about within `timeout`;
    /// [`ErrorKind::Protocol`] if what answers there is no Kafka broker.
    pub fn open(address: &str, client_id: &str, timeout: Duration, request_timeout: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + timeout;
        let socket = connect(address, deadline)?;
        socket.set_nodelay(true).map_err(|error| Error::io(format_args!("{address}: set TCP_NODELAY"), error))?;
        let mut connection = Self {
            transport: Transport::Plain(socket),
            address: address.to_owned(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            versions: Versions::default(),
            correlation: 0,
            open: VecDeque::new(),
        };
        connection.set_timeouts(remaining(deadline, request_timeout))?;
        connection.negotiate()?;
        connection.set_timeouts(request_timeout)?;
        Ok(connection)
    }

    /// The address that this connection was opened to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The versions that the broker offers.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// A second handle on the socket, by which another thread can shut it down.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if the operating system refuses, for lack of file descriptors mostly.
    pub fn socket_handle(&self) -> Result<TcpStream, Error> {
        let socket = self.transport.socket();
        socket.try_clone().map_err(|error| Error::io(format_args!("{}: duplicate the socket", self.address), error))
    }

    /// Requests that have not been answered yet.
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Sets how long a read or write on the socket may wait; the request time-out by default.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if the operating system refuses.
    pub fn set_timeouts(&mut self, timeout: Duration) -> Result<(), Error> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        let socket = self.transport.socket();
        socket
            .set_read_timeout(timeout)
            .and_then(|()| socket.set_write_timeout(timeout))
            .map_err(|error| Error::io(format_args!("{}: set time-outs", self.address), error))
    }

    /// Sends a request and waits for its answer, in the highest version that both sides know.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, Error> {
        let version = self.versions.choose(R::KEY, R::VERSIONS)?;
        self.call_version(request, version)
    }

    /// Sends a request in this version and waits for its answer. No other request may be open.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    pub fn call_version<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, Error> {
        self.send(request, version)?;
        self.receive::<R>(version)
    }

    /// Sends a request in this version; returns its correlation id. Its answer comes after those of all earlier requests.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if too many requests are open or the request cannot be said in this version;
    /// [`ErrorKind::Unreachable`] or [`ErrorKind::Timeout`] if the connection failed.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, Error> {
        let correlation = self.next_correlation_id();
        let mut buffer = BytesMut::with_capacity(256);
        buffer.extend_from_slice(&[0; frame::LENGTH_LEN]);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(self.client_id.clone()));
        header
            .encode(&mut buffer, R::header_version(version))
            .and_then(|()| request.encode(&mut buffer, version))
            .map_err(|error| {
                Error::new(
                    ErrorKind::Configuration,
                    format!("{} version {version} cannot be encoded: {error}", api_name(R::KEY)),
                )
            })?;
        let length = i32::try_from(buffer.len() - frame::LENGTH_LEN)
            .map_err(|_| Error::new(ErrorKind::TooLarge, "a request of more than 2 GiB"))?;
        buffer[..frame::LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
        self.send_raw(correlation, &[&buffer])?;
        Ok(correlation)
    }

    /// A new correlation id, for a frame that the caller makes.
    pub fn next_correlation_id(&mut self) -> i32 {
        self.correlation = self.correlation.wrapping_add(1) & i32::MAX;
        self.correlation
    }

    /// Sends a whole frame, its length first, in parts that need not be joined.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_raw(&mut self, correlation: i32, parts: &[&[u8]]) -> Result<(), Error> {
        if self.open.len() >= MAX_IN_FLIGHT {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("{}: more than {MAX_IN_FLIGHT} requests in flight", self.address),
            ));
        }
        self.transport
            .write_all_vectored(parts)
            .map_err(|error| Error::io(format_args!("{}: send a request", self.address), error))?;
        self.open.push_back(correlation);
        Ok(())
    }

    /// Waits for the answer to the oldest open request, which must have been `R` in this version.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] or [`ErrorKind::Unreachable`] if it did not come, [`ErrorKind::Protocol`] if it cannot be read.
    /// After any of them the connection is of no more use.
    pub fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response, Error> {
        let mut buffer = Vec::new();
        self.receive_frame(&mut buffer)?;
        let mut answer = Bytes::from(buffer);
        ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .and_then(|_| R::Response::decode(&mut answer, version))
            .map_err(|error| {
                let message = format!(
                    "{}: the answer to {} version {version} cannot be read: {error}",
                    self.address,
                    api_name(R::KEY)
                );
                Error::new(ErrorKind::Protocol, message)
            })
    }

    /// Waits for the next answer and puts it, from its correlation id on, into `buffer`. Returns the correlation id.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_frame(&mut self, buffer: &mut Vec<u8>) -> Result<i32, Error> {
        frame::read_frame(&mut self.transport, frame::MAX_FRAME, buffer)
            .map_err(|error| Error::io(format_args!("{}: read an answer", self.address), error))?;
        let expected = self.open.pop_front();
        let found = buffer.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        match found {
            Some(id) if Some(id) == expected => Ok(id),
            _ => Err(Error::new(
                ErrorKind::Protocol,
                format!("{}: an answer with correlation id {found:?} where {expected:?} was due", self.address),
            )),
        }
    }

    /// ApiVersions: version 3 first; a broker that knows only older ones answers error 35 in version 0 (KIP-511).
    fn negotiate(&mut self) -> Result<(), Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("tidegate"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        self.send(&request, 3)?;
        let mut buffer = Vec::new();
        self.receive_frame(&mut buffer).map_err(|error| not_kafka(&self.address, error))?;
        let code = buffer.get(4..6).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
        let response = if code == Some(UNSUPPORTED_VERSION) {
            self.call_version(&ApiVersionsRequest::default(), 0)?
        } else {
            let mut answer = Bytes::from(buffer).slice(4..);
            ApiVersionsResponse::decode(&mut answer, 3).map_err(|error| {
                let message = format!("{}: does not answer as a Kafka broker does: {error}", self.address);
                Error::new(ErrorKind::Protocol, message)
            })?
        };
        if response.error_code != 0 {
            return Err(Error::kafka(format_args!("{}: ApiVersions", self.address), response.error_code, None));
        }
        self.versions = Versions::from_response(&response);
        Ok(())
    }
}

/// A broken first exchange mostly means that the port speaks something else: say so.
fn not_kafka(address: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Protocol => Error::new(
            ErrorKind::Protocol,
            format!("{address}: does not answer as a Kafka broker does (is it a TLS or HTTP port?): {error}"),
        ),
        ErrorKind::Unreachable => Error::new(
            ErrorKind::Unreachable,
            format!("{address}: closed the connection during the first exchange (is it a TLS port?): {error}"),
        ),
        _ => error,
    }
}

fn remaining(deadline: Instant, at_most: Duration) -> Duration {
    deadline.saturating_duration_since(Instant::now()).min(at_most)
}

/// Tries each address that the name resolves to, until one answers or the deadline passes.
fn connect(address: &str, deadline: Instant) -> Result<TcpStream, Error> {
    let resolved = address.to_socket_addrs().map_err(|error| {
        Error::new(ErrorKind::Unreachable, format!("{address}: cannot be resolved: {error}")).with_source(error)
    })?;
    let mut last = None;
    for socket_address in resolved {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&socket_address, left) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => Error::io(format_args!("{address}: connect"), error),
        None => Error::new(ErrorKind::Unreachable, format!("{address}: resolves to no address")),
    })
}
