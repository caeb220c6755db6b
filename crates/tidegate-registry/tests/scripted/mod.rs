//! An HTTP server that misbehaves as told: each connection gets the next reply of a script, the last one for ever.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// What one connection gets.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A whole answer: status, content type, body.
    Answer(u16, &'static str, String),
    /// A whole answer with further header lines, each with its line end.
    WithHeaders(u16, &'static str, String),
    /// The connection is closed before anything is said.
    Close,
    /// An answer that announces more bytes than it has.
    Truncated(String),
    /// An answer of that many bytes.
    Huge(u64),
    /// These bytes, whatever they are, and whatever was asked.
    Raw(&'static [u8]),
    /// Nothing, until the server is dropped.
    Silence,
}

impl Reply {
    /// A registry's answer.
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Self::Answer(
            status,
            "application/vnd.schemaregistry.v1+json",
            body.into(),
        )
    }

    /// A registry's refusal.
    pub(crate) fn refusal(status: u16, code: u32, message: &str) -> Self {
        Self::json(
            status,
            format!(r#"{{"error_code":{code},"message":"{message}"}}"#),
        )
    }
}

/// A request as it came: its first line, its header, its body.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) header: String,
    pub(crate) body: String,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    stopped: AtomicBool,
    stop: (Mutex<bool>, Condvar),
}

/// The server; stops when dropped.
#[derive(Debug)]
pub(crate) struct ScriptedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl ScriptedServer {
    /// Listens on a free port of this machine.
    pub(crate) fn start(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &script, &shared))
        };
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far: the proof that a fault really happened.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        *self.shared.stop.0.lock().unwrap() = true;
        self.shared.stop.1.notify_all();
        // Wakes the acceptor, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

fn accept(listener: &TcpListener, script: &[Reply], shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for (number, stream) in listener.incoming().enumerate() {
        if shared.stopped.load(Ordering::SeqCst) {
            break;
        }
        let reply = script[number.min(script.len() - 1)].clone();
        let (stream, shared) = (stream.unwrap(), Arc::clone(shared));
        connections.push(std::thread::spawn(move || {
            // A client that gives up in the middle is part of the game.
            drop(serve(stream, &reply, &shared));
        }));
    }
    for connection in connections {
        connection.join().unwrap();
    }
}

fn serve(mut stream: TcpStream, reply: &Reply, shared: &Shared) -> std::io::Result<()> {
    if let Reply::Raw(bytes) = reply {
        return serve_raw(stream, bytes, shared);
    }
    let received = read_request(&stream)?;
    shared.received.lock().unwrap().push(received);
    match reply {
        Reply::Answer(status, content_type, body) => {
            let headers = format!("Content-Type: {content_type}\r\n");
            write_answer(
                &mut stream,
                *status,
                &headers,
                body.len() as u64,
                body.as_bytes(),
            )
        }
        Reply::WithHeaders(status, headers, body) => write_answer(
            &mut stream,
            *status,
            headers,
            body.len() as u64,
            body.as_bytes(),
        ),
        Reply::Close => Ok(()),
        Reply::Truncated(body) => write_answer(
            &mut stream,
            200,
            "",
            body.len() as u64 + 100,
            body.as_bytes(),
        ),
        Reply::Huge(len) => {
            write_answer(
                &mut stream,
                200,
                "Content-Type: application/json\r\n",
                *len,
                b"",
            )?;
            std::io::copy(&mut std::io::repeat(b' ').take(*len), &mut stream).map(drop)
        }
        Reply::Raw(_) => Ok(()),
        Reply::Silence => {
            let mut over = shared.stop.0.lock().unwrap();
            while !*over {
                over = shared.stop.1.wait(over).unwrap();
            }
            Ok(())
        }
    }
}

fn serve_raw(mut stream: TcpStream, bytes: &[u8], shared: &Shared) -> std::io::Result<()> {
    let mut asked = [0; 4096];
    let read = stream.read(&mut asked)?;
    shared.received.lock().unwrap().push(Received {
        line: String::from_utf8_lossy(&asked[..read]).into_owned(),
        header: String::new(),
        body: String::new(),
    });
    stream.write_all(bytes)?;
    // Unread bytes would turn the close into a reset, which may overtake the answer.
    stream.shutdown(std::net::Shutdown::Write)?;
    std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
}

fn write_answer(
    stream: &mut TcpStream,
    status: u16,
    headers: &str,
    len: u64,
    body: &[u8],
) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} Said\r\n{headers}Content-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

fn read_request(stream: &TcpStream) -> std::io::Result<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut header = String::new();
    while !header.ends_with("\r\n\r\n") && header != "\r\n" {
        if reader.read_line(&mut header)? == 0 {
            break;
        }
    }
    let length = header.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length:")
            .map(str::to_owned)
    });
    let length: usize = length
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Received {
        line: line.trim_end().to_owned(),
        header,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
