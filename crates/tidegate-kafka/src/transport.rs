//! The bytes below the protocol: a socket, with a deadline over every whole read and write.
//!
//! The operating system's time-outs are for one system call; a peer that sends a byte now and then would never hit one. So each frame gets a
//! deadline, and the socket's own time-out is shortened as it comes closer.
//!
//! A TLS connection does not split into a reader and a writer, so nothing above relies on that: one owner reads and writes by turns.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, ProtocolVersion};

/// How far the socket's time-out may be from what is left until a deadline: saves a system call for most reads.
const SLACK: Duration = Duration::from_millis(50);

/// A stream to a broker.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Nothing between the protocol and TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<Encrypted>),
}

/// A TLS connection and the socket under it.
#[derive(Debug)]
pub(crate) struct Encrypted {
    connection: ClientConnection,
    socket: TcpStream,
}

impl Encrypted {
    /// Sends what is ready to be sent.
    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in what the socket has, waiting for it; `false` at its end. An answer to it, such as an alert, is sent.
    fn receive(&mut self) -> io::Result<bool> {
        let is_open = self.connection.read_tls(&mut self.socket)? > 0;
        if let Err(error) = self.connection.process_new_packets() {
            // The other side is told why. Whether that reaches it changes nothing here.
            self.flush().ok();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        // A broken socket shows with the next read or write of ours; what was received is worth more.
        if self.flush().is_err_and(|error| !is_timeout(&error)) && !is_open {
            return Ok(false);
        }
        Ok(is_open)
    }

    /// Bytes that were received and deciphered.
    fn buffered(&mut self) -> usize {
        match self.connection.process_new_packets() {
            Ok(state) => state.plaintext_bytes_to_read(),
            // The next read tells.
            Err(_) => 0,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if !self.receive()? {
                // Whatever came with the end can still be read; else it says whether the end was announced.
                return match self.connection.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                    result => result,
                };
            }
        }
    }

    /// Takes in plaintext; it may not all be sent yet, which [`flush`](Self::flush) does.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // What is in the way must be gone first: a time-out before anything is taken can be told from one behind it.
        self.flush()?;
        let taken = self.connection.writer().write_vectored(parts)?;
        match self.flush() {
            Err(error) if !is_timeout(&error) => Err(error),
            _ => Ok(taken),
        }
    }
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(parts),
            Self::Tls(tls) => tls.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// A transport that remembers which time-outs its socket is set to.
#[derive(Debug)]
pub(crate) struct Stream {
    transport: Transport,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Stream {
    /// Wraps a connected transport.
    pub(crate) fn new(transport: Transport) -> io::Result<Self> {
        // Requests are written in one piece each: waiting for more would only delay them.
        transport.socket().set_nodelay(true)?;
        Ok(Self {
            transport,
            read_timeout: None,
            write_timeout: None,
        })
    }

    /// Makes the handshake by `deadline`, and is TLS from then on.
    pub(crate) fn encrypt(
        self,
        connection: ClientConnection,
        deadline: Instant,
    ) -> io::Result<Self> {
        let Transport::Plain(socket) = self.transport else {
            return Err(io::Error::other("the connection speaks TLS already"));
        };
        let mut stream = Self {
            transport: Transport::Tls(Box::new(Encrypted { connection, socket })),
            ..self
        };
        loop {
            stream.flush(deadline)?;
            let Transport::Tls(tls) = &mut stream.transport else {
                return Ok(stream);
            };
            if !tls.connection.is_handshaking() {
                return Ok(stream);
            }
            stream.arm_read(time_left(deadline)?)?;
            let Transport::Tls(tls) = &mut stream.transport else {
                return Ok(stream);
            };
            match tls.receive() {
                Ok(true) => {}
                Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => stream.read_timeout = None,
                Err(error) => return Err(error),
            }
        }
    }

    /// The version of TLS, for people; none in the clear.
    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        let Transport::Tls(tls) = &self.transport else {
            return None;
        };
        Some(match tls.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS",
        })
    }

    /// A second handle on the socket.
    pub(crate) fn socket_handle(&self) -> io::Result<TcpStream> {
        self.transport.socket().try_clone()
    }

    /// A reader whose reads all end by `deadline`.
    pub(crate) fn reader(&mut self, deadline: Instant) -> impl Read + '_ {
        Reader {
            stream: self,
            deadline,
        }
    }

    /// Writes `parts` one after the other, without joining them, by `deadline`.
    pub(crate) fn write_all(&mut self, parts: &[&[u8]], deadline: Instant) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Drops empty parts: a write of nothing looks like a closed stream.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            self.arm_write(time_left(deadline)?)?;
            match self.transport.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => self.write_timeout = None,
                Err(error) => return Err(error),
            }
        }
        self.flush(deadline)
    }

    fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            self.arm_write(time_left(deadline)?)?;
            match self.transport.flush() {
                Err(error) if is_timeout(&error) => self.write_timeout = None,
                result => return result,
            }
        }
    }

    fn arm_read(&mut self, left: Duration) -> io::Result<()> {
        if needs_arming(self.read_timeout, left) {
            self.transport.socket().set_read_timeout(Some(left))?;
            self.read_timeout = Some(left);
        }
        Ok(())
    }

    fn arm_write(&mut self, left: Duration) -> io::Result<()> {
        if needs_arming(self.write_timeout, left) {
            self.transport.socket().set_write_timeout(Some(left))?;
            self.write_timeout = Some(left);
        }
        Ok(())
    }

    /// Waits until something can be read, the end of the stream included; `false` if nothing came within `timeout`.
    pub(crate) fn wait_readable(&mut self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        let mut left = timeout;
        loop {
            if let Transport::Tls(tls) = &mut self.transport
                && tls.buffered() > 0
            {
                return Ok(true);
            }
            if !self.wait_for_socket(left)? {
                return Ok(false);
            }
            let Transport::Tls(tls) = &mut self.transport else {
                return Ok(true);
            };
            // It may be TLS's own business, such as a ticket for a later session, or only a part of a record.
            if !tls.receive()? {
                return Ok(true);
            }
            left = deadline.saturating_duration_since(Instant::now());
        }
    }

    /// The first two bytes that come in the clear by `deadline`; none where the stream ends before, or is TLS.
    pub(crate) fn peek_plain(&mut self, deadline: Instant) -> io::Result<Option<[u8; 2]>> {
        let Transport::Plain(_) = self.transport else {
            return Ok(None);
        };
        while !self.wait_for_socket(time_left(deadline)?)? {}
        let mut start = [0; 2];
        let length = self.transport.socket().peek(&mut start)?;
        Ok((length == start.len()).then_some(start))
    }

    /// Waits until the socket has something, or is at its end.
    fn wait_for_socket(&mut self, timeout: Duration) -> io::Result<bool> {
        let result = if timeout.is_zero() {
            let socket = self.transport.socket();
            socket.set_nonblocking(true)?;
            let result = socket.peek(&mut [0]);
            socket.set_nonblocking(false)?;
            result
        } else {
            if self.read_timeout != Some(timeout) {
                self.transport.socket().set_read_timeout(Some(timeout))?;
                self.read_timeout = Some(timeout);
            }
            self.transport.socket().peek(&mut [0])
        };
        match result {
            Ok(_) => Ok(true),
            Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

struct Reader<'a> {
    stream: &'a mut Stream,
    deadline: Instant,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.arm_read(time_left(self.deadline)?)?;
            match self.stream.transport.read(buffer) {
                // Fired a little early: the deadline decides.
                Err(error) if is_timeout(&error) => self.stream.read_timeout = None,
                result => return result,
            }
        }
    }
}

/// Whether an I/O error is a passed deadline: systems disagree on which of the two it is.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// What is left until `deadline`; an error if that is nothing.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Whether the socket's time-out is too far from what is left until the deadline.
fn needs_arming(armed: Option<Duration>, left: Duration) -> bool {
    armed.is_none_or(|armed| armed.abs_diff(left) > SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (Stream::new(Transport::Plain(near)).unwrap(), far)
    }

    #[test]
    fn a_peer_that_trickles_does_not_outlast_the_deadline() {
        let (mut stream, mut far) = pair();
        let dripping = thread::spawn(move || {
            while far.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let started = Instant::now();
        let mut buffer = [0; 4096];
        let error = stream
            .reader(started + Duration::from_millis(300))
            .read_exact(&mut buffer)
            .unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
        drop(stream);
        dripping.join().unwrap();
    }

    #[test]
    fn a_peer_that_does_not_read_does_not_outlast_the_deadline() {
        let (mut stream, _far) = pair();
        let megabyte = vec![0; 1 << 20];
        let parts: Vec<&[u8]> = vec![&megabyte; 64];
        let error = stream
            .write_all(&parts, Instant::now() + Duration::from_millis(200))
            .unwrap_err();
        assert!(is_timeout(&error), "{error}");
    }

    #[test]
    fn waiting_tells_data_silence_and_the_end_apart() {
        let (mut stream, mut far) = pair();
        assert!(!stream.wait_readable(Duration::ZERO).unwrap());
        assert!(!stream.wait_readable(Duration::from_millis(10)).unwrap());
        far.write_all(b"x").unwrap();
        assert!(stream.wait_readable(Duration::from_secs(5)).unwrap());
        let mut byte = [0];
        let soon = Instant::now() + Duration::from_secs(5);
        stream.reader(soon).read_exact(&mut byte).unwrap();
        drop(far);
        assert!(stream.wait_readable(Duration::from_secs(5)).unwrap());
    }
}
