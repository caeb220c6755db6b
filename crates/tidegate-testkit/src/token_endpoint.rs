//! An HTTPS server that gives tokens for the credentials of a client, as an identity provider does (RFC 6749, section 4.4).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::kafka::certificates::{Authority, Subject};

/// The longest form that is read.
const LONGEST_FORM: usize = 64 << 10;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct TokenEndpoint {
    address: SocketAddr,
    folder: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl TokenEndpoint {
    /// Answers every request with what `token` makes. Its certificate is for 127.0.0.1, of an authority of its own.
    ///
    /// # Errors
    /// There is no free port, or no certificate can be made.
    pub fn start(token: impl Fn() -> String + Send + 'static) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = Arc::new(server_config(folder.path())?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let stopped: Arc<AtomicBool> = Arc::default();
        let acceptor = {
            let (requests, stopped) = (Arc::clone(&requests), Arc::clone(&stopped));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    // A client that does not trust this server leaves in the middle.
                    if let Ok(asked) = stream.and_then(|stream| serve(stream, &config, &token())) {
                        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
                        requests.push(asked);
                    }
                }
            })
        };
        Ok(Self {
            address,
            folder,
            requests,
            stopped,
            acceptor: Some(acceptor),
        })
    }

    /// Where tokens are asked for.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}/token", self.address)
    }

    /// The PEM file of the authority that signed its certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// What was asked so far: headers and form of each request that was answered.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor; if that fails it has ended already.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

fn server_config(folder: &Path) -> io::Result<ServerConfig> {
    let authority = Authority::new("tokens")?;
    std::fs::write(folder.join("authority.pem"), authority.certificate())?;
    let subject = Subject {
        common_name: "tokens",
        names: &["127.0.0.1"],
        expired: false,
    };
    let pem = std::fs::read(authority.sign(&subject, folder, "server")?)?;
    let chain = CertificateDer::pem_slice_iter(&pem);
    let chain = chain.collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&pem);
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(
            chain.map_err(io::Error::other)?,
            key.map_err(io::Error::other)?,
        )
        .map_err(io::Error::other)
}

/// Answers one request; gives what was asked.
fn serve(stream: TcpStream, config: &Arc<ServerConfig>, token: &str) -> io::Result<String> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let (mut asked, mut length) = (String::new(), 0);
    loop {
        let begin = asked.len();
        if reader.read_line(&mut asked)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = asked[begin..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut form = vec![0; length.min(LONGEST_FORM)];
    reader.read_exact(&mut form)?;
    asked.push_str(&String::from_utf8_lossy(&form));
    let body =
        serde_json::json!({"access_token": token, "expires_in": 600, "token_type": "Bearer"});
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let stream = reader.get_mut();
    stream.write_all(format!("{head}{body}").as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(asked)
}
