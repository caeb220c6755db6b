//! The bytes below the protocol: a socket, with a deadline over every whole read and write.
//!
//! The operating system's time-outs are for one system call; a peer that sends a byte now and then would never hit one. So each frame gets a
//! deadline, and the socket's own time-out is shortened as it comes closer.
//!
//! TLS becomes a second variant of [`Transport`]. A rustls connection does not split into a reader and a writer, so nothing above relies on
//! that: one owner reads and writes by turns, and [`Transport::has_buffered`] answers for plaintext that has left the socket already.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How far the socket's time-out may be from what is left until a deadline: saves a system call for most reads.
const SLACK: Duration = Duration::from_millis(50);

/// A stream to a broker.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Nothing between the protocol and TCP.
    Plain(TcpStream),
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
        }
    }

    /// Whether bytes can be read without asking the socket.
    fn has_buffered(&self) -> bool {
        match self {
            Self::Plain(_) => false,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(parts),
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
            let left = time_left(deadline)?;
            if needs_arming(self.write_timeout, left) {
                self.transport.socket().set_write_timeout(Some(left))?;
                self.write_timeout = Some(left);
            }
            match self.transport.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => self.write_timeout = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until something can be read, the end of the stream included; `false` if nothing came within `timeout`.
    pub(crate) fn wait_readable(&mut self, timeout: Duration) -> io::Result<bool> {
        if self.transport.has_buffered() {
            return Ok(true);
        }
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
            let left = time_left(self.deadline)?;
            if needs_arming(self.stream.read_timeout, left) {
                let socket = self.stream.transport.socket();
                socket.set_read_timeout(Some(left))?;
                self.stream.read_timeout = Some(left);
            }
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
