//! Where the tokens of OAUTHBEARER are from: a file, a command, or an authorization server by client credentials (RFC 6749, section 4.4; KIP-768).

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tidegate::kafka::{Error, ErrorKind, TokenSource};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a command or a server may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at a command that runs.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that an answer, or the output of a command, may have.
const MAX_ANSWER: u64 = 1 << 20;
/// The part of a token's life in which it is used again, in hundredths: less than the part after which a connection asks for the next one.
const USED_FOR: u32 = 80;
/// Seconds that a token is used for at most, whatever its server says.
const MAX_LIFE: u64 = 86_400;
/// The server asks to be left alone for a while (RFC 6585, section 4).
const TOO_MANY_REQUESTS: u16 = 429;

/// A token in a file, which somebody else keeps fresh.
#[derive(Debug)]
pub(super) struct TokenFile(PathBuf);

impl TokenFile {
    pub(super) fn new(path: &str) -> Self {
        Self(PathBuf::from(path))
    }
}

impl TokenSource for TokenFile {
    fn token(&self) -> Result<String, Error> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(no_token(format!(
                "cannot read the token in {}: {error}",
                self.0.display()
            ))),
        }
    }
}

/// A command that prints a token.
#[derive(Debug)]
pub(super) struct TokenCommand(String);

impl TokenCommand {
    pub(super) fn new(command: &str) -> Self {
        Self(command.to_owned())
    }
}

impl TokenSource for TokenCommand {
    fn token(&self) -> Result<String, Error> {
        let failed = |why: String| no_token(format!("sasl.oauthbearer.token.command: {why}"));
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(&self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| failed(format!("cannot run sh: {error}")))?;
        // Read beside the waiting, so that a command which prints too much ends in an error and not in silence.
        let output = child.stdout.take().map(|stdout| {
            std::thread::spawn(move || {
                let mut text = String::new();
                stdout
                    .take(MAX_ANSWER)
                    .read_to_string(&mut text)
                    .map(|_| text)
            })
        });
        let ended = wait(&mut child).map_err(failed)?;
        if !ended.success() {
            return Err(failed(format!("it ended with {ended}")));
        }
        let text = output.and_then(|thread| thread.join().ok());
        let text = text.ok_or_else(|| failed("its output is lost".to_owned()))?;
        let text = text.map_err(|error| failed(format!("its output cannot be read: {error}")))?;
        Ok(text.trim().to_owned())
    }
}

/// Waits for a command, and ends it where it takes too long.
fn wait(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Ok(None) => {
                // It may have ended by itself meanwhile: either way nothing of it is left.
                child.kill().ok();
                child.wait().ok();
                return Err(format!("it took more than {} s", TIMEOUT.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Tokens of an authorization server.
pub(super) struct ClientCredentials {
    agent: Agent,
    url: String,
    authorization: String,
    scope: Option<String>,
    /// The last token, and until when it is used.
    kept: Mutex<Option<(String, Instant)>>,
}

/// What the server answers (RFC 6749, sections 5.1 and 5.2).
#[derive(Default, Deserialize)]
struct Answer {
    access_token: Option<String>,
    expires_in: Option<u64>,
    error: Option<String>,
    error_description: Option<String>,
}

impl ClientCredentials {
    /// Prepares to ask; nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the URL or with the authorities.
    pub(super) fn new(
        url: &str,
        client: String,
        secret: String,
        scope: Option<String>,
        authorities: Option<String>,
    ) -> Result<Self, String> {
        let uri: ureq::http::Uri = url.parse().map_err(|error| format!("no URL: {error}"))?;
        let host = uri.host().unwrap_or_default();
        let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_local => {}
            _ => return Err("it must be https, for the client's secret is sent there".to_owned()),
        }
        let roots = match authorities {
            None => RootCerts::WebPki,
            Some(path) => root_certificates(&path)?,
        };
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // The secret goes to the server that was named, and to no other.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots).build());
        if is_local {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().new_agent(),
            url: url.to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{client}:{secret}"))),
            scope,
            kept: Mutex::new(None),
        })
    }

    fn fetch(&self) -> Result<(String, Instant), Error> {
        let mut form = vec![("grant_type", "client_credentials")];
        if let Some(scope) = &self.scope {
            form.push(("scope", scope));
        }
        let asked = Instant::now();
        let answer = self
            .agent
            .post(&self.url)
            .header("Authorization", &self.authorization)
            .header("Accept", "application/json")
            .send_form(form);
        let mut answer = answer.map_err(|error| self.not_asked(&error))?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER);
        let said: Answer = body
            .read_to_vec()
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok())
            .unwrap_or_default();
        if status.is_success()
            && let Some(token) = said.access_token
        {
            let life = Duration::from_secs(said.expires_in.unwrap_or(0).min(MAX_LIFE));
            return Ok((token, asked + life * USED_FOR / 100));
        }
        let why = [said.error, said.error_description];
        let why: String = why.iter().flatten().map(|why| format!(": {why}")).collect();
        let message = format!("no token from {}: it answered {status}{why}", self.url);
        let kind = if status.is_server_error() || status.as_u16() == TOO_MANY_REQUESTS {
            ErrorKind::Unreachable
        } else {
            ErrorKind::Authentication
        };
        Err(Error::new(kind, message))
    }

    /// Why there was no answer. Who the endpoint is does not get better by asking again, as little as a password does.
    fn not_asked(&self, error: &ureq::Error) -> Error {
        let message = format!("no token from {}: {error}", self.url);
        match error {
            // What is wrong with certificates is told as invalid data.
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => no_token(
                format!("{message} (https.ca.location names the authority to trust)"),
            ),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => no_token(message),
            _ => Error::new(ErrorKind::Unreachable, message),
        }
    }
}

impl TokenSource for ClientCredentials {
    fn token(&self) -> Result<String, Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until)) = &*kept
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let (token, until) = self.fetch()?;
        *kept = Some((token.clone(), until));
        Ok(token)
    }
}

fn no_token(why: String) -> Error {
    Error::new(ErrorKind::Authentication, why)
}

fn root_certificates(path: &str) -> Result<RootCerts, String> {
    let pem = std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("{path} is not valid PEM: {error}")),
        }
    }
    if certificates.is_empty() {
        return Err(format!("{path} holds no certificate (PEM is expected)"));
    }
    Ok(RootCerts::from(certificates))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    /// A server that gives these answers to as many requests; what it was asked comes back.
    fn server(answers: &'static [(u16, &'static str)]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let running = thread::spawn(move || {
            let serve = |(status, body): &(u16, &str)| {
                let mut socket = listener.accept().unwrap().0;
                let mut lines = BufReader::new(socket.try_clone().unwrap());
                let mut asked = String::new();
                while !asked.ends_with("\r\n\r\n") {
                    lines.read_line(&mut asked).unwrap();
                }
                let length = asked.to_ascii_lowercase();
                let length = length.split("content-length: ").nth(1).unwrap();
                let length = length.lines().next().unwrap().parse().unwrap();
                let mut form = vec![0; length];
                lines.read_exact(&mut form).unwrap();
                asked.push_str(&String::from_utf8(form).unwrap());
                let length = body.len();
                write!(
                    socket,
                    "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                )
                .unwrap();
                asked
            };
            answers.iter().map(serve).collect()
        });
        (url, running)
    }

    fn credentials(url: &str) -> ClientCredentials {
        let scope = Some("kafka".to_owned());
        ClientCredentials::new(url, "ada".to_owned(), "hidden".to_owned(), scope, None).unwrap()
    }

    #[test]
    fn a_token_is_fetched_and_used_for_most_of_its_life() {
        let (url, running) = server(&[
            (
                200,
                r#"{"access_token":"first","expires_in":3600,"token_type":"Bearer"}"#,
            ),
            (200, r#"{"access_token":"second"}"#),
            (200, r#"{"access_token":"third"}"#),
        ]);
        let credentials = credentials(&url);
        assert_eq!(credentials.token().unwrap(), "first");
        assert_eq!(credentials.token().unwrap(), "first");
        credentials.kept.lock().unwrap().as_mut().unwrap().1 = Instant::now();
        // A server that does not say for how long a token holds is asked each time.
        assert_eq!(credentials.token().unwrap(), "second");
        assert_eq!(credentials.token().unwrap(), "third");
        let asked = running.join().unwrap();
        assert!(asked[0].starts_with("POST /token "), "{}", asked[0]);
        assert!(
            asked[0].contains(&STANDARD.encode("ada:hidden")),
            "{}",
            asked[0]
        );
        assert!(
            asked[0].ends_with("grant_type=client_credentials&scope=kafka"),
            "{}",
            asked[0]
        );
    }

    #[test]
    fn a_refusal_says_why_and_no_secret() {
        let (url, running) = server(&[
            (
                401,
                r#"{"error":"invalid_client","error_description":"no such client"}"#,
            ),
            (503, "busy"),
            (302, ""),
        ]);
        let credentials = credentials(&url);
        for (kind, part) in [
            (
                ErrorKind::Authentication,
                "401 Unauthorized: invalid_client: no such client",
            ),
            (ErrorKind::Unreachable, "503"),
            (ErrorKind::Authentication, "302"),
        ] {
            let error = credentials.token().unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
        running.join().unwrap();
    }

    #[test]
    fn a_secret_goes_nowhere_in_the_clear() {
        let new = |url| {
            let ada = "ada".to_owned();
            ClientCredentials::new(url, ada.clone(), ada, None, None).map(|_| ())
        };
        assert!(
            new("http://tokens.example/token")
                .unwrap_err()
                .contains("https")
        );
        assert!(new("tokens.example").is_err());
        assert!(new("https://tokens.example/token").is_ok());
    }

    #[test]
    fn a_token_comes_from_a_file_or_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let path = path.to_str().unwrap();
        let file = TokenFile::new(path);
        assert!(file.token().unwrap_err().to_string().contains(path));
        std::fs::write(path, "a.b.c\n").unwrap();
        assert_eq!(file.token().unwrap(), "a.b.c");
        let command = TokenCommand::new(&format!("cat {path}"));
        assert_eq!(command.token().unwrap(), "a.b.c");
        let error = TokenCommand::new("exit 3").token().unwrap_err();
        assert!(error.to_string().contains('3'), "{error}");
        assert_eq!(error.kind(), ErrorKind::Authentication);
    }
}
