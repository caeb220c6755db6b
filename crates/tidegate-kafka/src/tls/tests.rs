//! Handshakes with a server that shares no code with the broker, and what is said where they fail.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::dial::dial;
use crate::transport::{Stream, Transport};

const PASSWORD: &str = "a password of a key";

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

/// What a server shows.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Shown {
    fn signed(params: CertificateParams, issuer: &Issuer) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        Self {
            chain: vec![certificate.der().clone()],
            key,
        }
    }

    /// A server that sends back what it gets, on one connection, to clients that `clients` has signed, or to all.
    fn echo(self, clients: Option<&Issuer>) -> (String, JoinHandle<()>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(issuer) => {
                let mut roots = RootCertStore::empty();
                roots.add(issuer.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let config = Arc::new(builder.with_single_cert(self.chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let running = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(config).unwrap();
            let mut stream = StreamOwned::new(connection, socket);
            let mut buffer = vec![0; 10_000];
            while let Ok(count) = stream.read(&mut buffer) {
                if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
        (format!("localhost:{port}"), running)
    }
}

fn pem(text: impl Into<Vec<u8>>, origin: &str) -> Pem {
    Pem {
        text: text.into(),
        origin: origin.to_owned(),
    }
}

fn trusting(issuer: &Issuer) -> TlsOptions {
    TlsOptions {
        authorities: Some(pem(issuer.pem(), "ca.pem")),
        ..TlsOptions::default()
    }
}

/// A connection that speaks TLS, or why there is none.
fn connect(address: &str, options: &TlsOptions) -> Result<Stream, Error> {
    let socket = dial(address, soon()).unwrap();
    let stream = Stream::new(Transport::Plain(socket)).unwrap();
    let beginning = Tls::new(options).unwrap().begin("localhost").unwrap();
    let encrypted = stream.encrypt(beginning, soon());
    encrypted.map_err(|error| Error::io("handshake", error))
}

/// Sends a text and reads it back.
fn echoed(stream: &mut Stream, text: &[u8]) -> Result<(), Error> {
    stream
        .write_all(&[text], soon())
        .map_err(|error| Error::io("write", error))?;
    let mut back = vec![0; text.len()];
    let read = stream.reader(soon()).read_exact(&mut back);
    read.map_err(|error| Error::io("read", error))?;
    assert_eq!(back, text);
    Ok(())
}

#[test]
fn what_is_written_in_parts_arrives_whole() {
    let issuer = authority("an authority");
    let (address, running) = Shown::signed(leaf("localhost"), &issuer).echo(None);
    let mut stream = connect(&address, &trusting(&issuer)).unwrap();
    // Tickets for later sessions are no answer.
    assert!(!stream.wait_readable(Duration::from_millis(50)).unwrap());
    let large: Vec<u8> = (0..1_000_000_u32)
        .map(|byte| byte.to_le_bytes()[0])
        .collect();
    for _ in 0..3 {
        // An echo that is not read stops the other side, so it is read piece by piece.
        for piece in large.chunks(100_000) {
            let (start, rest) = piece.split_at(13);
            stream.write_all(&[start, &[], rest], soon()).unwrap();
            let mut back = vec![0; piece.len()];
            assert!(stream.wait_readable(Duration::from_secs(10)).unwrap());
            stream.reader(soon()).read_exact(&mut back[..7]).unwrap();
            assert!(stream.wait_readable(Duration::from_secs(10)).unwrap());
            stream.reader(soon()).read_exact(&mut back[7..]).unwrap();
            assert_eq!(back, piece);
        }
    }
    drop(stream);
    running.join().unwrap();
}

#[test]
fn a_client_shows_its_certificate_where_it_is_wanted() {
    let issuer = authority("an authority");
    let clients = authority("an authority of clients");
    let client = Shown::signed(leaf("client"), &clients);
    let certificate = rcgen_pem(&client.chain[0]);
    let plain = client.key.serialize_pem();
    let encrypted = encrypted_key(&client.key);
    for (key, key_password) in [(plain, None), (encrypted, Some(PASSWORD.to_owned()))] {
        let options = TlsOptions {
            identity: Some(Identity {
                certificates: pem(certificate.clone(), "client.pem"),
                key: pem(key, "client.key"),
                key_password,
            }),
            ..trusting(&issuer)
        };
        let (address, running) = Shown::signed(leaf("localhost"), &issuer).echo(Some(&clients));
        let mut stream = connect(&address, &options).unwrap();
        echoed(&mut stream, b"hello").unwrap();
        drop(stream);
        running.join().unwrap();
    }
    let (address, running) = Shown::signed(leaf("localhost"), &issuer).echo(Some(&clients));
    // In TLS 1.3 the client is done before the server has looked at its certificate: the refusal comes with the first answer.
    let refused = connect(&address, &trusting(&issuer))
        .and_then(|mut stream| echoed(&mut stream, b"hello"))
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Tls, "{refused}");
    assert!(
        refused
            .to_string()
            .contains("wants a certificate of the client"),
        "{refused}"
    );
    running.join().unwrap();
}

#[test]
fn a_certificate_that_does_not_do_is_told_why() {
    let (issuer, other) = (authority("an authority"), authority("another authority"));
    let mut expired = leaf("localhost");
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut early = leaf("localhost");
    early.not_before = date_time_ymd(2999, 1, 1);
    early.not_after = date_time_ymd(3000, 1, 1);
    let itself = Shown {
        chain: vec![issuer.der().clone()],
        key: KeyPair::try_from(issuer.key().serialize_der()).unwrap(),
    };
    for (shown, why) in [
        (
            Shown::signed(leaf("localhost"), &other),
            "an authority that is not trusted: ssl.truststore.location",
        ),
        (Shown::signed(expired, &issuer), "has expired"),
        (Shown::signed(early, &issuer), "not valid yet"),
        (
            Shown::signed(leaf("elsewhere"), &issuer),
            "is for another name",
        ),
        (itself, "of an authority as its own"),
    ] {
        let (address, running) = shown.echo(None);
        let error = connect(&address, &trusting(&issuer)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(!error.is_retriable(), "{error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
        running.join().unwrap();
    }
}

#[test]
fn without_the_check_of_names_all_else_is_checked() {
    let (issuer, other) = (authority("an authority"), authority("another authority"));
    let options = TlsOptions {
        any_name: true,
        ..trusting(&issuer)
    };
    let (address, running) = Shown::signed(leaf("elsewhere"), &issuer).echo(None);
    let mut stream = connect(&address, &options).unwrap();
    echoed(&mut stream, b"hello").unwrap();
    drop(stream);
    running.join().unwrap();
    let (address, running) = Shown::signed(leaf("elsewhere"), &other).echo(None);
    let error = connect(&address, &options).unwrap_err();
    assert!(error.to_string().contains("not trusted"), "{error}");
    running.join().unwrap();
}

#[test]
fn a_peer_that_speaks_no_tls_is_told_from_one_that_does() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let running = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        let mut rest = Vec::new();
        drop(socket.read_to_end(&mut rest));
    });
    let issuer = authority("an authority");
    let error = connect(&format!("localhost:{port}"), &trusting(&issuer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    running.join().unwrap();
}

#[test]
fn what_is_no_pem_is_told_how_to_convert() {
    let issuer = authority("an authority");
    let client = Shown::signed(leaf("client"), &issuer);
    let certificate = rcgen_pem(&client.chain[0]);
    let key = client.key.serialize_pem();
    let encrypted = encrypted_key(&client.key);
    let legacy = key.replace(
        "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n",
    );
    let error = |certificates: &[u8], key: &[u8], password: Option<&str>| {
        let options = TlsOptions {
            identity: Some(Identity {
                certificates: pem(certificates, "client.crt"),
                key: pem(key, "client.key"),
                key_password: password.map(str::to_owned),
            }),
            ..trusting(&issuer)
        };
        let error = Tls::new(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        error.to_string()
    };
    let good = certificate.as_bytes();
    for (said, expected) in [
        (
            error(b"\xfe\xed\xfe\xed\0\0\0\x02", key.as_bytes(), None),
            "keytool -importkeystore -srckeystore client.crt",
        ),
        (
            error(b"\x30\x82\x0a\x00", key.as_bytes(), None),
            "openssl pkcs12 -in client.crt",
        ),
        (
            error(good, b"\x30\x82\x0a\x00", None),
            "openssl pkcs12 -in client.key -nocerts",
        ),
        (
            error(b"no certificate", key.as_bytes(), None),
            "client.crt cannot be used: it holds no certificate in PEM",
        ),
        (
            error(good, b"no key", None),
            "the key in client.key cannot be used",
        ),
        (
            error(good, legacy.as_bytes(), None),
            "openssl pkcs8 -topk8 -in client.key",
        ),
        (error(good, encrypted.as_bytes(), None), "ssl.key.password"),
        (
            error(good, encrypted.as_bytes(), Some("wrong")),
            "the password is wrong",
        ),
        (
            error(issuer.pem().as_bytes(), key.as_bytes(), None),
            "the client's certificate in client.crt and the key in client.key",
        ),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

fn rcgen_pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// The key as PKCS#8 that [`PASSWORD`] keeps.
fn encrypted_key(key: &KeyPair) -> String {
    let der = key.serialize_der();
    let info = pkcs8::PrivateKeyInfoRef::try_from(der.as_slice()).unwrap();
    let parameters = pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(
        2_048,
        b"some salt",
        [7; 16],
    )
    .unwrap();
    let document = info.encrypt_with_params(parameters, PASSWORD).unwrap();
    let pem = document
        .to_pem("ENCRYPTED PRIVATE KEY", Default::default())
        .unwrap();
    pem.to_string()
}
