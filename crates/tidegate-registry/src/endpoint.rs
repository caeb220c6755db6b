//! One URL of the registry: sends a request there and brings back what was answered, whatever it was.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::Agent;
use ureq::http::{Response, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::{Auth, Location};
use crate::error::{Error, ErrorKind};

/// Bytes an answer may have; more is not a registry's. (The list of 100,000 subjects takes about 8 MB.)
pub(crate) const MAX_BODY: u64 = 16 << 20;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json;q=0.9";

/// What to ask: the method, the path behind the base URL, and a JSON body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request<'a> {
    Get(&'a str),
    Post(&'a str, &'a str),
    Put(&'a str, &'a str),
}

impl Request<'_> {
    fn path(&self) -> &str {
        match self {
            Self::Get(path) | Self::Post(path, _) | Self::Put(path, _) => path,
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self {
            Self::Get(_) => "GET",
            Self::Post(..) => "POST",
            Self::Put(..) => "PUT",
        };
        write!(f, "{method} {}", self.path())
    }
}

/// An answer with any status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) location: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// A URL with its connections.
pub(crate) struct Endpoint {
    pub(crate) location: Location,
    authorization: Option<String>,
    agent: Agent,
}

impl Endpoint {
    pub(crate) fn new(location: Location, roots: &RootCerts) -> Self {
        let authorization = match &location.auth {
            Auth::None => None,
            Auth::Basic { user, password } => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{user}:{password}"))
            )),
            Auth::Bearer(token) => Some(format!("Bearer {token}")),
        };
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirected POST would turn into a GET, and credentials could follow to another host: the caller is told instead.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots.clone()).build());
        if location.is_local() {
            config = config.proxy(None);
        }
        Self {
            agent: config.build().new_agent(),
            location,
            authorization,
        }
    }

    /// Sends `request` once; `timeout` holds for all of it, the answer's body included.
    pub(crate) fn send(
        &self,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Answer, ureq::Error> {
        let url = format!("{}{}", self.location.base, request.path());
        match request {
            Request::Get(_) => {
                let builder = self.prepare(self.agent.get(url), timeout);
                read(builder.call()?)
            }
            Request::Post(_, body) => {
                let builder = self.prepare(self.agent.post(url), timeout);
                read(
                    builder
                        .header(header::CONTENT_TYPE, MEDIA_TYPE)
                        .send(body)?,
                )
            }
            Request::Put(_, body) => {
                let builder = self.prepare(self.agent.put(url), timeout);
                read(
                    builder
                        .header(header::CONTENT_TYPE, MEDIA_TYPE)
                        .send(body)?,
                )
            }
        }
    }

    /// What must not be shown: password or token, and how they travel. One or two characters occur in any text and hide nothing.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let plain = match &self.location.auth {
            Auth::None => None,
            Auth::Basic { password, .. } => Some(password.as_str()),
            Auth::Bearer(token) => Some(token.as_str()),
        };
        let encoded = self
            .authorization
            .as_deref()
            .and_then(|header| header.split_once(' '));
        let all = [encoded.map(|(_, credentials)| credentials), plain];
        all.into_iter().flatten().filter(|secret| secret.len() > 2)
    }

    fn prepare<B>(
        &self,
        builder: ureq::RequestBuilder<B>,
        timeout: Duration,
    ) -> ureq::RequestBuilder<B> {
        let builder = builder
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header(header::ACCEPT, ACCEPTED);
        match &self.authorization {
            Some(authorization) => builder.header(header::AUTHORIZATION, authorization),
            None => builder,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.location).finish()
    }
}

fn read(mut response: Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let text = |name: header::HeaderName| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    Ok(Answer {
        status: response.status().as_u16(),
        content_type: text(header::CONTENT_TYPE).unwrap_or_default(),
        location: text(header::LOCATION),
        retry_after: text(header::RETRY_AFTER)
            .and_then(|seconds| seconds.trim().parse().ok())
            .map(Duration::from_secs),
        body: response
            .body_mut()
            .with_config()
            .limit(MAX_BODY)
            .read_to_vec()?,
    })
}

/// The authorities to trust: those of `ca_file` alone, or the well-known ones.
pub(crate) fn root_certificates(ca_file: Option<&Path>) -> Result<RootCerts, Error> {
    let Some(path) = ca_file else {
        return Ok(RootCerts::WebPki);
    };
    let problem = |what: String| {
        let message = format!("the registry's CA file {}: {what}", path.display());
        Error::new(ErrorKind::Configuration, message)
    };
    let pem = std::fs::read(path).map_err(|error| problem(error.to_string()).with_source(error))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(problem(format!("not valid PEM: {error}")).with_source(error)),
        }
    }
    if certificates.is_empty() {
        return Err(problem(
            "there is no certificate in it (PEM is expected)".to_owned(),
        ));
    }
    Ok(RootCerts::from(certificates))
}
