//! TLS: whom a connection trusts, who it says it is, and what its failures mean in plain words.
//!
//! A client is set up once ([`Tls::new`]); each connection then makes its handshake by it. Certificates and keys are PEM (RFC 7468). What Java
//! keeps in stores of its own kinds is recognised, and the error says how to convert it.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    RootCertStore, SignatureScheme,
};

use crate::error::{Error, ErrorKind};

/// Begins the container of a Java keystore (JKS).
const JKS_MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];

/// Text in PEM, and where it is from, for messages.
#[derive(Clone)]
pub struct Pem {
    /// The text; other bytes where somebody took another file for one.
    pub text: Vec<u8>,
    /// Where it is from: a path, or the property that held it.
    pub origin: String,
}

impl fmt::Debug for Pem {
    /// Without the text: it may hold a key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pem")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Who the client says it is.
#[derive(Clone)]
pub struct Identity {
    /// Its certificate first, then those that lead to an authority.
    pub certificates: Pem,
    /// The key of the first one: PKCS#8, also encrypted, PKCS#1 or SEC 1.
    pub key: Pem,
    /// The password of an encrypted key.
    pub key_password: Option<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("certificates", &self.certificates)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// How TLS is to be spoken.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// The authorities to trust; those of the system by default.
    pub authorities: Option<Pem>,
    /// Who the client says it is; nobody by default.
    pub identity: Option<Identity>,
    /// Take a certificate that is in order but for the name in it.
    pub any_name: bool,
}

/// What every handshake goes by.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    has_identity: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("has_identity", &self.has_identity)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificates and keys.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] naming what cannot be used, why, and how to convert it where that is possible.
    pub fn new(options: &TlsOptions) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(match &options.authorities {
            Some(pem) => authorities(pem)?,
            None => system_authorities()?,
        });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS", error))?;
        let builder = if options.any_name {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| unusable("the authorities", error))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
        } else {
            builder.with_root_certificates(roots)
        };
        let config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificates = certificates(&identity.certificates)?;
                let key = private_key(&identity.key, identity.key_password.as_deref())?;
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(|error| {
                        let what = format!(
                            "the client's certificate in {} and the key in {}",
                            identity.certificates.origin, identity.key.origin
                        );
                        unusable(&what, error)
                    })?
            }
        };
        Ok(Self {
            config: Arc::new(config),
            has_identity: options.identity.is_some(),
        })
    }

    /// The beginning of a connection to `host`.
    pub(crate) fn begin(&self, host: &str) -> Result<ClientConnection, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            let message =
                format!("{host} is no name that a certificate could be checked for: {error}");
            Error::new(ErrorKind::Configuration, message)
        })?;
        ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|error| Error::new(ErrorKind::Tls, error.to_string()))
    }
}

/// Checks everything but the name, as Java does where `ssl.endpoint.identification.algorithm` is empty.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name is looked at last, once everything else was found in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn unusable(what: &str, error: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!("{what} cannot be used: {error}"),
    )
}

fn authorities(pem: &Pem) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(&format!("a certificate in {}", pem.origin), error))?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why = found.errors.first().map(|error| format!(": {error}"));
        let message = format!(
            "the system has no certificates of authorities{}: name a file with ssl.truststore.location (or ssl.ca.location)",
            why.unwrap_or_default()
        );
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    Ok(roots)
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Error> {
    refuse_stores(pem, "-nokeys")?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.text).collect();
    let found = found.map_err(|error| unusable(&format!("{} as PEM", pem.origin), error))?;
    if found.is_empty() {
        return Err(unusable(
            &pem.origin,
            "it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)",
        ));
    }
    Ok(found)
}

/// What Java and Windows keep certificates and keys in is not PEM: says how to make it that.
fn refuse_stores(pem: &Pem, part: &str) -> Result<(), Error> {
    let origin = &pem.origin;
    if pem.text.starts_with(&JKS_MAGIC) {
        let message = format!(
            "{origin} is a Java keystore (JKS), and PEM is needed: keytool -importkeystore -srckeystore {origin} -destkeystore store.p12 \
             -deststoretype PKCS12, then openssl pkcs12 -in store.p12 {part} -out store.pem"
        );
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    // A sequence (X.690): PKCS#12, or a certificate that is not in PEM.
    if pem.text.starts_with(&[0x30, 0x82]) || pem.text.starts_with(&[0x30, 0x84]) {
        let message = format!(
            "{origin} is binary, and PEM is needed: openssl pkcs12 -in {origin} {part} -out store.pem makes it of PKCS#12, openssl x509 -inform der \
             -in {origin} -out store.pem of a certificate"
        );
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    Ok(())
}

fn private_key(pem: &Pem, password: Option<&str>) -> Result<PrivateKeyDer<'static>, Error> {
    refuse_stores(pem, "-nocerts -nodes")?;
    let origin = &pem.origin;
    let text = String::from_utf8_lossy(&pem.text);
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return decrypted(origin, &text, password);
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        let message = format!(
            "the key in {origin} is encrypted in the old way of OpenSSL: openssl pkcs8 -topk8 -in {origin} -out key.pem writes it as PKCS#8, which can be \
             read with its password"
        );
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    PrivateKeyDer::from_pem_slice(&pem.text)
        .map_err(|error| unusable(&format!("the key in {origin}"), error))
}

/// The key of PKCS#8 that a password keeps (RFC 5958, section 3).
fn decrypted(
    origin: &str,
    text: &str,
    password: Option<&str>,
) -> Result<PrivateKeyDer<'static>, Error> {
    let Some(password) = password else {
        let message =
            format!("the key in {origin} is encrypted: ssl.key.password says how to read it");
        return Err(Error::new(ErrorKind::Configuration, message));
    };
    const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
    let what = format!("the encrypted key in {origin}");
    let start = text.find(BEGIN).unwrap_or_default();
    let end = text[start..].find(END).map(|end| start + end + END.len());
    let block = end.map_or(&text[start..], |end| &text[start..end]);
    let (_, document) =
        pkcs8::SecretDocument::from_pem(block).map_err(|error| unusable(&what, error))?;
    let info = pkcs8::EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .map_err(|error| unusable(&what, error))?;
    let key = info.decrypt(password).map_err(|_| {
        unusable(
            &what,
            "the password is wrong, or it is encrypted in a way that is not known here (PBES2 with AES is)",
        )
    })?;
    Ok(PrivateKeyDer::Pkcs8(key.as_bytes().to_vec().into()))
}

/// What a failure of TLS means, and how to go on; `None` for what is no failure of TLS.
pub(crate) fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(why) => explain_certificate(why),
        rustls::Error::AlertReceived(alert) => explain_alert(*alert),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: if the listener is one without, security.protocol is PLAINTEXT or SASL_PLAINTEXT".to_owned()
        }
        rustls::Error::PeerIncompatible(why) => {
            format!("the broker's TLS and ours have nothing in common ({why:?}): it must offer TLS 1.2 or 1.3")
        }
        other => format!("TLS failed: {other}"),
    })
}

fn explain_certificate(why: &CertificateError) -> String {
    const CA: &str = "ssl.truststore.location (or ssl.ca.location) names the authority to trust";
    match why {
        CertificateError::UnknownIssuer => {
            format!("the broker's certificate was issued by an authority that is not trusted: {CA}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet: look at the clocks".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the broker's certificate is for another name ({why}): connect by a name that stands in it, or, if it cannot be had otherwise, set \
                 ssl.endpoint.identification.algorithm to nothing"
            )
        }
        CertificateError::BadSignature | CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
            format!("the broker's certificate has a signature that does not hold ({why}): {CA}")
        }
        // What webpki says of an authority's own certificate that a broker shows as its own.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the broker shows the certificate of an authority as its own (self-signed, CA:TRUE), which is not taken for a broker's: give it one that an \
             authority has signed, with CA:FALSE"
                .to_owned()
        }
        other => format!("the broker's certificate is not taken: {other}"),
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the broker wants a certificate of the client: ssl.keystore.location (or ssl.certificate.location and ssl.key.location) names it".to_owned()
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => format!(
            "the broker does not take the client's certificate, or wants one and got none ({alert:?}): see ssl.keystore.location (or \
             ssl.certificate.location)"
        ),
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => format!(
            "the broker ended the handshake ({alert:?}): its TLS and ours have nothing in common, or it wants a certificate of the client \
             (ssl.keystore.location)"
        ),
        other => format!("the broker ended the connection: {other:?}"),
    }
}

#[cfg(test)]
mod tests;
