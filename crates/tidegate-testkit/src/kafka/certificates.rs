//! Certificates for tests, made anew each time: two authorities, and whatever they sign.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Whom a certificate is for, and until when.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The common name: the principal that Kafka makes of a client's certificate.
    pub common_name: &'a str,
    /// Names and addresses that a server goes by; none for a client.
    pub names: &'a [&'a str],
    /// It ended in 2001.
    pub expired: bool,
}

impl Authority {
    /// A new one of this name.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self {
            certificate: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Writes `NAME.pem` into `folder`: a key, its certificate, and that of the authority.
    ///
    /// # Errors
    /// No certificate can be made, or the file cannot be written.
    pub fn sign(&self, subject: &Subject<'_>, folder: &Path, name: &str) -> io::Result<PathBuf> {
        let names: Vec<String> = subject.names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        let name_type = DnType::CommonName;
        params
            .distinguished_name
            .push(name_type, subject.common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if subject.expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let signed = params.signed_by(&key, &self.issuer);
        let signed = signed.map_err(io::Error::other)?;
        let path = folder.join(format!("{name}.pem"));
        let text = [&*key.serialize_pem(), &*signed.pem(), &*self.certificate].concat();
        fs::write(&path, text)?;
        Ok(path)
    }
}
