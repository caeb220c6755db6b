//! HTTPS: whom the client trusts, and what it says of whom it does not.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;
use tidegate_registry::{ErrorKind, Registry, RegistryConfig};

/// An authority and the file that makes it trusted.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn issue(&self, host: &str, last_year: i32) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key)
    }
}

/// Answers every request with an empty list of subjects.
struct TlsServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl TlsServer {
    fn start(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, stopped) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let acceptor = {
            let (config, connections, stopped) = (
                Arc::new(config),
                Arc::clone(&connections),
                Arc::clone(&stopped),
            );
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    connections.fetch_add(1, Ordering::SeqCst);
                    // A client that does not trust this server leaves in the middle.
                    drop(serve(stream.unwrap(), &config));
                }
            })
        };
        Self {
            address,
            connections,
            stopped,
            acceptor: Some(acceptor),
        }
    }

    fn ask(&self, ca_file: Option<PathBuf>) -> Result<Vec<String>, tidegate_registry::Error> {
        let mut config = RegistryConfig::new(format!("https://{}", self.address));
        config.ca_file = ca_file;
        config.timeout = Duration::from_secs(5);
        Registry::new(config).unwrap().subjects()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        self.acceptor.take().unwrap().join().unwrap();
    }
}

fn serve(stream: TcpStream, config: &Arc<ServerConfig>) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        asked.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn the_given_authority_is_trusted_and_no_other() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let namesake = Authority::new("ours");
    let (certificate, key) = authority.issue("127.0.0.1", 2090);
    let server = TlsServer::start(certificate, &key);
    assert_eq!(
        server.ask(Some(authority.file())).unwrap(),
        Vec::<String>::new()
    );
    for ca_file in [None, Some(other.file()), Some(namesake.file())] {
        let before = server.connections.load(Ordering::SeqCst);
        let error = server.ask(ca_file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.to_string().contains("unknown authority"), "{error}");
        assert_eq!(
            server.connections.load(Ordering::SeqCst),
            before + 1,
            "certificates do not get better"
        );
    }
}

#[test]
fn a_certificate_that_does_not_fit_is_refused_with_the_reason() {
    let authority = Authority::new("ours");
    for (host, last_year, word) in [
        ("other.example", 2090, "name"),
        ("127.0.0.1", 2021, "expired"),
    ] {
        let (certificate, key) = authority.issue(host, last_year);
        let server = TlsServer::start(certificate, &key);
        let error = server.ask(Some(authority.file())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.to_string().to_lowercase().contains(word), "{error}");
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn an_authority_that_serves_itself_is_told_what_to_do() {
    let authority = Authority::new("ours");
    let server = TlsServer::start(authority.issuer.der().clone(), authority.issuer.key());
    let error = server.ask(Some(authority.file())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(
        error.to_string().contains("issue a server certificate"),
        "{error}"
    );
}
