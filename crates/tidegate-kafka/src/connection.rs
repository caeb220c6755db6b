//! One connection to one broker: blocking, pipelined, with a deadline on every read and write.
//!
//! Requests may be sent before earlier ones were answered; a broker answers in order, so an answer whose correlation id is
//! not the oldest open one means that the stream is out of step, and the connection is of no more use.
//!
//! Where the cluster wants it, a connection begins with TLS and with SASL. A broker may say how long it believes who we are (KIP-368); before that time
//! is over the next request waits until we have said it again. Answers that arrive meanwhile are kept.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, RequestHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Encodable, Message, Request, StrBytes};
use tidegate_wire::frame;

use crate::answer;
use crate::config::ClientConfig;
use crate::dial::{dial, host_of};
use crate::error::{Error, ErrorKind};
use crate::sasl::{Sasl, Step};
use crate::transport::{Stream, Transport};
use crate::versions::{Versions, api_name};

/// Requests that may be open on one connection.
pub const MAX_IN_FLIGHT: usize = 64;

/// Answered, in version 0, by a broker that does not know the version of ApiVersions that was asked for (KIP-511).
const UNSUPPORTED_VERSION: i16 = 35;

/// The version of ApiVersions asked for first. Version 4 differs only in features whose lowest level is 0, which nothing here looks at.
const API_VERSIONS: i16 = 3;

/// The part of a session after which it is prolonged, in hundredths: Kafka's own client takes 85 to 95 (KIP-368).
const RENEW_AFTER: u32 = 85;

/// An open connection whose versions are negotiated, and which the broker knows the client of.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    address: String,
    client_id: StrBytes,
    versions: Versions,
    correlation: i32,
    open: VecDeque<i32>,
    timeout: Duration,
    frame_limit: usize,
    sasl: Option<Sasl>,
    /// When the session is to be prolonged.
    renew_at: Option<Instant>,
    /// Answers that came while it was, oldest first.
    early: VecDeque<(i32, Vec<u8>)>,
    /// Something was answered since the connection was made.
    was_answered: bool,
}

impl Connection {
    /// Connects to `address` (`host:port`, every address that it resolves to is tried), speaks TLS and SASL as `config` has it, and negotiates versions.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] or [`ErrorKind::Timeout`] if no connection came about within `timeout`;
    /// [`ErrorKind::Protocol`] if what answers there is no Kafka broker; [`ErrorKind::Tls`] and [`ErrorKind::Authentication`] if the two sides do not believe
    /// each other.
    pub fn open(address: &str, config: &ClientConfig, timeout: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + timeout;
        let socket = dial(address, deadline)?;
        let mut stream = Stream::new(Transport::Plain(socket))
            .map_err(|error| Error::io(format_args!("{address}: set TCP_NODELAY"), error))?;
        if let Some(tls) = &config.security.tls {
            let beginning = tls.begin(host_of(address))?;
            let encrypted = stream.encrypt(beginning, deadline);
            stream = encrypted.map_err(|error| no_handshake(address, error))?;
        }
        let mut connection = Self {
            stream,
            address: address.to_owned(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            versions: Versions::default(),
            correlation: 0,
            open: VecDeque::new(),
            timeout: deadline
                .saturating_duration_since(Instant::now())
                .min(config.request_timeout),
            frame_limit: frame::MAX_FRAME,
            sasl: config.security.sasl.clone(),
            renew_at: None,
            early: VecDeque::new(),
            was_answered: false,
        };
        connection.negotiate()?;
        connection.authenticate()?;
        connection.timeout = config.request_timeout;
        Ok(connection)
    }

    /// The address that this connection was opened to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How the connection is secured, for people: `TLS 1.3, SCRAM-SHA-512`.
    pub fn security(&self) -> String {
        let tls = self.stream.tls_version();
        let sasl = self.sasl.as_ref().map(Sasl::mechanism);
        match (tls, sasl) {
            (None, None) => "in the clear".to_owned(),
            (None, Some(mechanism)) => format!("in the clear, {mechanism}"),
            (Some(tls), None) => tls.to_owned(),
            (Some(tls), Some(mechanism)) => format!("{tls}, {mechanism}"),
        }
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
        self.stream.socket_handle().map_err(|error| {
            Error::io(
                format_args!("{}: duplicate the socket", self.address),
                error,
            )
        })
    }

    /// Requests that have not been answered yet.
    pub fn in_flight(&self) -> usize {
        self.open.len() + self.early.len()
    }

    /// Sets how long a whole frame may take to be written or, from the call that waits for it, to be read. The request time-out by default.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sets how long an answer may be, in bytes; 100 MiB by default.
    pub fn set_frame_limit(&mut self, limit: usize) {
        self.frame_limit = limit;
    }

    /// Waits until an answer begins to arrive, or the connection breaks; `false` if neither happens within `timeout`.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if the connection is broken.
    pub fn wait_readable(&mut self, timeout: Duration) -> Result<bool, Error> {
        if !self.early.is_empty() {
            return Ok(true);
        }
        self.stream
            .wait_readable(timeout)
            .map_err(|error| Error::io(format_args!("{}: wait for an answer", self.address), error))
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
    pub fn call_version<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Error> {
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
                    format!(
                        "{} version {version} cannot be encoded: {error}",
                        api_name(R::KEY)
                    ),
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
    /// As [`send`](Self::send), and [`ErrorKind::Authentication`] if the session was to be prolonged and could not.
    pub fn send_raw(&mut self, correlation: i32, parts: &[&[u8]]) -> Result<(), Error> {
        if self.renew_at.is_some_and(|at| at <= Instant::now()) {
            self.renew()?;
        }
        if self.open.len() >= MAX_IN_FLIGHT {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "{}: more than {MAX_IN_FLIGHT} requests in flight",
                    self.address
                ),
            ));
        }
        self.stream
            .write_all(parts, Instant::now() + self.timeout)
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
        self.decode::<R>(Bytes::from(buffer), version)
    }

    /// Reads a frame of [`receive_frame`](Self::receive_frame) as the answer to `R` in this version.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if it is none.
    pub fn decode<R: Request>(&self, frame: Bytes, version: i16) -> Result<R::Response, Error> {
        answer::decode::<R>(frame, version).map_err(|why| {
            let message = format!(
                "{}: the answer to {} version {version} cannot be read: {why}",
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
        if let Some((correlation, frame)) = self.early.pop_front() {
            *buffer = frame;
            return Ok(correlation);
        }
        let read = self.read_frame(buffer);
        if !self.was_answered && self.sasl.is_none() {
            return match read {
                Err(error) if error.kind() == ErrorKind::Unreachable => Err(self.unproven(error)),
                read => {
                    self.was_answered = true;
                    read
                }
            };
        }
        read
    }

    /// Reads the next frame.
    fn read_frame(&mut self, buffer: &mut Vec<u8>) -> Result<i32, Error> {
        let deadline = Instant::now() + self.timeout;
        frame::read_frame(&mut self.stream.reader(deadline), self.frame_limit, buffer)
            .map_err(|error| Error::io(format_args!("{}: read an answer", self.address), error))?;
        let expected = self.open.pop_front();
        let found = buffer.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        match found {
            Some(id) if Some(id) == expected => Ok(id),
            _ => Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "{}: an answer with correlation id {found:?} where {expected:?} was due",
                    self.address
                ),
            )),
        }
    }

    /// A broker that wants to know who asks closes the connection at the first request, without a word.
    fn unproven(&self, error: Error) -> Error {
        let message = format!(
            "{error} (does this listener want SASL? Then security.protocol and sasl.mechanism say so)"
        );
        Error::new(ErrorKind::Unreachable, message)
            .with_source(error)
            .suspect(ErrorKind::Authentication)
    }

    /// Asks which versions the broker knows.
    fn negotiate(&mut self) -> Result<(), Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("tidegate"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        self.send(&request, API_VERSIONS)?;
        let mut buffer = Vec::new();
        self.refuse_tls()?;
        self.read_frame(&mut buffer)
            .map_err(|error| not_kafka(&self.address, error))?;
        let code = buffer
            .get(4..6)
            .map(|code| i16::from_be_bytes([code[0], code[1]]));
        let response = if code == Some(UNSUPPORTED_VERSION) {
            self.exchange(&ApiVersionsRequest::default(), 0)
        } else {
            self.decode::<ApiVersionsRequest>(Bytes::from(buffer), API_VERSIONS)
        };
        let response = response.map_err(|error| not_kafka(&self.address, error))?;
        if response.error_code != 0 {
            let doing = format_args!("{}: ApiVersions", self.address);
            return Err(Error::kafka(doing, response.error_code, None));
        }
        self.versions = Versions::from_response(&response);
        Ok(())
    }

    /// What a TLS listener answers to a request in the clear is an alert, and looks like a frame of no length that could be.
    fn refuse_tls(&mut self) -> Result<(), Error> {
        const ALERT: [u8; 2] = [0x15, 0x03];
        let start = self
            .stream
            .peek_plain(Instant::now() + self.timeout)
            .map_err(|error| Error::io(format_args!("{}: read an answer", self.address), error))
            .map_err(|error| not_kafka(&self.address, error))?;
        if start == Some(ALERT) {
            let message = format!(
                "{}: this listener speaks TLS: security.protocol is SSL or SASL_SSL",
                self.address
            );
            return Err(Error::new(ErrorKind::Tls, message));
        }
        Ok(())
    }

    /// As [`call_version`](Self::call_version), past answers that are kept.
    fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, Error> {
        self.send(request, version)?;
        let mut buffer = Vec::new();
        self.read_frame(&mut buffer)?;
        self.decode::<R>(Bytes::from(buffer), version)
    }

    /// Prolongs the session, once all requests before are answered.
    fn renew(&mut self) -> Result<(), Error> {
        // What is sent for it must not begin it again.
        self.renew_at = None;
        while !self.open.is_empty() {
            let mut frame = Vec::new();
            let correlation = self.read_frame(&mut frame)?;
            self.early.push_back((correlation, frame));
        }
        self.authenticate()
    }

    /// Proves who the client is, if it is to.
    fn authenticate(&mut self) -> Result<(), Error> {
        let Some(sasl) = self.sasl.clone() else {
            return Ok(());
        };
        let here = |error: Error| error.context(format_args!("{}", self.address));
        let mut conversation = sasl.begin().map_err(here)?;
        self.choose_mechanism(sasl.mechanism())?;
        let version = self.versions.choose(
            SaslAuthenticateRequest::KEY,
            SaslAuthenticateRequest::VERSIONS,
        )?;
        let mut message = conversation.first();
        loop {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
            let answer = self.exchange(&request, version)?;
            if answer.error_code != 0 {
                let doing = format_args!("{}: {}", self.address, sasl.mechanism());
                return Err(Error::kafka(
                    doing,
                    answer.error_code,
                    answer.error_message.as_deref(),
                ));
            }
            let step = conversation.next(&answer.auth_bytes).map_err(|error| {
                error.context(format_args!("{}: {}", self.address, sasl.mechanism()))
            })?;
            match step {
                Step::Send(next) => message = next,
                Step::Done => {
                    let lifetime = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
                    let lifetime = Duration::from_millis(lifetime);
                    self.renew_at = (!lifetime.is_zero())
                        .then(|| Instant::now() + lifetime * RENEW_AFTER / 100);
                    return Ok(());
                }
            }
        }
    }

    fn choose_mechanism(&mut self, mechanism: &'static str) -> Result<(), Error> {
        let version = self
            .versions
            .choose(SaslHandshakeRequest::KEY, SaslHandshakeRequest::VERSIONS)?;
        let request =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let answer = self
            .exchange(&request, version)
            .map_err(|error| error.suspect(ErrorKind::Authentication))?;
        let said = match answer.error_code {
            0 => return Ok(()),
            // ILLEGAL_SASL_STATE.
            34 => "this listener wants no SASL: security.protocol is PLAINTEXT or SSL".to_owned(),
            _ => {
                let offered: Vec<&str> = answer.mechanisms.iter().map(|name| &**name).collect();
                format!("the broker takes {}", offered.join(", "))
            }
        };
        let doing = format_args!("{}: sasl.mechanism {mechanism}", self.address);
        Err(Error::kafka(doing, answer.error_code, Some(&said)))
    }
}

/// A handshake that ended without a word mostly means that the port speaks no TLS. But a broker that dies looks the same, and comes back.
fn no_handshake(address: &str, error: std::io::Error) -> Error {
    let error = Error::io(format_args!("{address}: TLS handshake"), error);
    if error.kind() != ErrorKind::Unreachable {
        return error;
    }
    let message = format!(
        "{error} (does this listener speak TLS? If not, security.protocol is PLAINTEXT or SASL_PLAINTEXT)"
    );
    Error::new(ErrorKind::Unreachable, message)
        .with_source(error)
        .suspect(ErrorKind::Tls)
}

/// A broken first exchange mostly means that the port speaks something else: say so.
fn not_kafka(address: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Protocol => Error::new(
            ErrorKind::Protocol,
            format!(
                "{address}: does not answer as a Kafka broker does (is it a TLS or HTTP port?): {error}"
            ),
        ),
        ErrorKind::Unreachable => Error::new(
            ErrorKind::Unreachable,
            format!(
                "{address}: closed the connection during the first exchange (is it a TLS port? Then security.protocol is SSL or SASL_SSL): {error}"
            ),
        )
        .suspect(ErrorKind::Tls),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};

    const SOON: Duration = Duration::from_secs(5);

    fn config() -> ClientConfig {
        ClientConfig::new("unused:1").unwrap()
    }

    /// A peer that takes one connection and does `script` with it.
    fn peer(script: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let running = thread::spawn(move || script(listener.accept().unwrap().0));
        (address, running)
    }

    fn read_request(socket: &mut TcpStream) -> Vec<u8> {
        let mut request = Vec::new();
        frame::read_frame(socket, 1 << 20, &mut request).unwrap();
        request
    }

    fn answer(socket: &mut TcpStream, correlation: &[u8], body: &[u8]) {
        let length = i32::try_from(correlation.len() + body.len()).unwrap();
        socket.write_all(&length.to_be_bytes()).unwrap();
        socket.write_all(correlation).unwrap();
        socket.write_all(body).unwrap();
    }

    /// Version 0: no error, one API (Metadata, 4 to 9).
    const ONE_API: [u8; 12] = [0, 0, 0, 0, 0, 1, 0, 3, 0, 4, 0, 9];

    #[test]
    fn an_old_broker_is_asked_again_in_version_0() {
        let (address, running) = peer(|mut socket| {
            let first = read_request(&mut socket);
            assert_eq!(first[..4], [0, 18, 0, 3]);
            answer(&mut socket, &first[4..8], &[0, 35, 0, 0, 0, 0]);
            let second = read_request(&mut socket);
            assert_eq!(second[..4], [0, 18, 0, 0]);
            answer(&mut socket, &second[4..8], &ONE_API);
        });
        let connection = Connection::open(&address, &config(), SOON).unwrap();
        assert_eq!(connection.versions().offered(3), Some((4, 9)));
        running.join().unwrap();
    }

    #[test]
    fn a_port_that_speaks_http_is_recognised() {
        let (address, running) = peer(|mut socket| {
            read_request(&mut socket);
            socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        });
        let error = Connection::open(&address, &config(), SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("TLS or HTTP"), "{error}");
        running.join().unwrap();
    }

    #[test]
    fn a_peer_that_stays_silent_does_not_hang_us() {
        let (address, running) = peer(|mut socket| {
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).unwrap();
        });
        let error = Connection::open(&address, &config(), Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains(&address), "{error}");
        running.join().unwrap();
    }

    #[test]
    fn a_foreign_correlation_id_ends_the_connection() {
        let (address, running) = peer(|mut socket| {
            read_request(&mut socket);
            answer(&mut socket, &[0, 0, 9, 9], &ONE_API);
        });
        let error = Connection::open(&address, &config(), SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        running.join().unwrap();
    }

    /// Takes part in SASL/PLAIN as a broker: the first message must be as expected.
    fn believe(socket: &mut TcpStream, lifetime: i64) {
        let handshake = read_request(socket);
        assert_eq!(handshake[..4], [0, 17, 0, 1]);
        answer(
            socket,
            &handshake[4..8],
            &[0, 0, 0, 0, 0, 1, 0, 5, b'P', b'L', b'A', b'I', b'N'],
        );
        let proof = read_request(socket);
        assert_eq!(proof[..4], [0, 36, 0, 1]);
        assert!(proof.ends_with(b"\0ada\0secret"));
        let body = [&[0, 0, 0xff, 0xff, 0, 0, 0, 0][..], &lifetime.to_be_bytes()].concat();
        answer(socket, &proof[4..8], &body);
    }

    #[test]
    fn a_session_is_prolonged_and_answers_on_the_way_are_kept() {
        let (address, running) = peer(|mut socket| {
            let first = read_request(&mut socket);
            answer(&mut socket, &first[4..8], &[0, 35, 0, 0, 0, 0]);
            let second = read_request(&mut socket);
            // SaslHandshake 1 to 1, SaslAuthenticate 0 to 1.
            let apis = [0, 0, 0, 0, 0, 2, 0, 17, 0, 1, 0, 1, 0, 36, 0, 0, 0, 1];
            answer(&mut socket, &second[4..8], &apis);
            believe(&mut socket, 60_000);
            // Two requests are open when the session runs out: their answers come before the new proof is asked for.
            for _ in 0..2 {
                let correlation = &read_request(&mut socket)[..4];
                answer(&mut socket, correlation, b"answer");
            }
            believe(&mut socket, 0);
            let correlation = &read_request(&mut socket)[..4];
            answer(&mut socket, correlation, b"last");
        });
        let mut config = config();
        config.security.sasl = Some(Sasl::Plain {
            user: "ada".to_owned(),
            password: "secret".to_owned(),
        });
        let mut connection = Connection::open(&address, &config, SOON).unwrap();
        assert!(connection.renew_at.is_some());
        let send = |connection: &mut Connection| {
            let id = connection.next_correlation_id();
            let parts: [&[u8]; 2] = [&4_i32.to_be_bytes(), &id.to_be_bytes()];
            connection.send_raw(id, &parts).unwrap();
            id
        };
        let mut sent = vec![send(&mut connection), send(&mut connection)];
        connection.renew_at = Some(Instant::now());
        sent.push(send(&mut connection));
        assert_eq!(connection.in_flight(), 3);
        assert!(connection.renew_at.is_none(), "a session of any length");
        for id in sent {
            let mut frame = Vec::new();
            assert_eq!(connection.receive_frame(&mut frame).unwrap(), id);
        }
        running.join().unwrap();
    }

    #[test]
    fn a_listener_that_speaks_tls_is_recognised() {
        let (address, running) = peer(|mut socket| {
            read_request(&mut socket);
            // A fatal alert: unexpected message.
            socket.write_all(&[0x15, 3, 3, 0, 2, 2, 10]).unwrap();
        });
        let error = Connection::open(&address, &config(), SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        running.join().unwrap();
    }

    #[test]
    fn the_number_in_flight_is_bounded() {
        let (address, running) = peer(|mut socket| {
            let first = read_request(&mut socket);
            answer(&mut socket, &first[4..8], &[0, 35, 0, 0, 0, 0]);
            let second = read_request(&mut socket);
            answer(&mut socket, &second[4..8], &ONE_API);
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).unwrap();
        });
        let mut connection = Connection::open(&address, &config(), SOON).unwrap();
        for _ in 0..MAX_IN_FLIGHT {
            let id = connection.next_correlation_id();
            connection.send_raw(id, &[&[0, 0, 0, 0]]).unwrap();
        }
        let id = connection.next_correlation_id();
        let error = connection.send_raw(id, &[&[0, 0, 0, 0]]).unwrap_err();
        assert!(error.to_string().contains("in flight"), "{error}");
        drop(connection);
        running.join().unwrap();
    }
}
