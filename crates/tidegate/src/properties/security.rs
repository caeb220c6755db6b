//! TLS and SASL as the properties have them.

use std::path::Path;
use std::sync::Arc;

use tidegate::kafka::{Identity, Pem, Sasl, ScramHash, Security, Tls, TlsOptions, TokenSource};

use super::jaas::{self, Login};
use super::keys::{KERBEROS, Setting, name_of};
use super::token::{ClientCredentials, TokenCommand, TokenFile};
use super::{Given, Properties};
use crate::failure::{Failure, Kind};

/// Kafka's own handlers of OAUTHBEARER (KIP-768), which fetch a token by client credentials. The package has moved more than once.
const KAFKA_HANDLER: &str = "OAuthBearerLoginCallbackHandler";

/// What a mechanism needs to be told.
enum Mechanism {
    Plain,
    Scram(ScramHash),
    OAuthBearer,
}

impl Properties {
    /// How the connections to the brokers are secured.
    pub(crate) fn security(&self) -> Result<Security, Failure> {
        let (tls, sasl) = self.protocol()?;
        Ok(Security {
            tls: tls.then(|| self.tls()).transpose()?,
            sasl: sasl.then(|| self.sasl()).transpose()?,
        })
    }

    /// Whether there is TLS, and whether there is SASL.
    fn protocol(&self) -> Result<(bool, bool), Failure> {
        let Some(given) = self.get(Setting::Protocol) else {
            return self.no_sasl().map(|()| (false, false));
        };
        match given.value.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => self.no_sasl().map(|()| (false, false)),
            "SSL" => self.no_sasl().map(|()| (true, false)),
            "SASL_PLAINTEXT" => Ok((false, true)),
            "SASL_SSL" => Ok((true, true)),
            _ => Err(given.wrong(format!(
                "\"{}\" is none of PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL",
                given.value
            ))),
        }
    }

    /// Credentials that nobody would be shown are a mistake.
    fn no_sasl(&self) -> Result<(), Failure> {
        let of_sasl = [Setting::Jaas, Setting::User, Setting::Password];
        match of_sasl.iter().find_map(|&setting| self.get(setting)) {
            None => Ok(()),
            Some(given) => Err(given.wrong("it is for SASL, which security.protocol does not ask for").hint(
                "security.protocol=SASL_SSL does (SASL_PLAINTEXT where the listener speaks no TLS)",
            )),
        }
    }

    fn tls(&self) -> Result<Tls, Failure> {
        if let Some(given) = self.get(Setting::VerifyCertificates)
            && !given.value.eq_ignore_ascii_case("true")
        {
            let failure = given.wrong("certificates are always verified");
            return Err(failure.hint(
                "name the authority by ssl.truststore.location (or ssl.ca.location); ssl.endpoint.identification.algorithm=none takes any name",
            ));
        }
        let any_name = match self.get(Setting::NameCheck) {
            None => false,
            Some(given) => match given.value.to_ascii_lowercase().as_str() {
                "https" => false,
                "" | "none" => true,
                _ => return Err(given.wrong("https, nothing and none are known")),
            },
        };
        let options = TlsOptions {
            authorities: self.pem(Setting::AuthorityFile, Setting::AuthorityText)?,
            identity: self.identity()?,
            any_name,
        };
        Ok(Tls::new(&options)?)
    }

    fn identity(&self) -> Result<Option<Identity>, Failure> {
        let certificates = self.pem(Setting::CertificateFile, Setting::CertificateText)?;
        let key = self.pem(Setting::KeyFile, Setting::KeyText)?;
        let both = match self.get(Setting::IdentityFile) {
            Some(given) => Some((given, read_pem(given)?)),
            None => None,
        };
        let (certificates, key) = match (both, certificates, key) {
            (None, None, None) => return Ok(None),
            (Some((_, both)), None, None) => (both.clone(), both),
            (None, Some(certificates), Some(key)) => (certificates, key),
            (Some((given, _)), ..) => {
                return Err(given.wrong(format!(
                    "it holds key and certificates: leave out {} or it",
                    name_of(Setting::KeyFile)
                )));
            }
            (None, Some(certificates), None) => {
                return Err(half_identity(&certificates, "its key", Setting::KeyFile));
            }
            (None, None, Some(key)) => {
                return Err(half_identity(
                    &key,
                    "its certificate",
                    Setting::CertificateFile,
                ));
            }
        };
        Ok(Some(Identity {
            certificates,
            key,
            key_password: self.text(Setting::KeyPassword),
        }))
    }

    /// PEM of a file or of a text.
    fn pem(&self, file: Setting, text: Setting) -> Result<Option<Pem>, Failure> {
        match (self.get(file), self.get(text)) {
            (None, None) => Ok(None),
            (Some(given), None) => read_pem(given).map(Some),
            (None, Some(given)) => Ok(Some(Pem {
                text: with_lines(&given.value).into_bytes(),
                origin: given.to_string(),
            })),
            (Some(given), Some(other)) => {
                Err(given.wrong(format!("{other} says it too: leave one of them out")))
            }
        }
    }

    fn sasl(&self) -> Result<Sasl, Failure> {
        let login = self.login()?;
        let mechanism = self.mechanism(login.as_ref().map(|(_, login)| login))?;
        if let Mechanism::OAuthBearer = mechanism {
            return self.bearer(login);
        }
        let Some((user, password)) = self.user_and_password()? else {
            let message = "SASL needs to know who asks: sasl.username and sasl.password (or sasl.jaas.config) say it";
            return Err(Failure::new(Kind::Usage, message));
        };
        Ok(match mechanism {
            Mechanism::Scram(hash) => Sasl::Scram {
                hash,
                user,
                password,
            },
            _ => Sasl::Plain { user, password },
        })
    }

    fn login(&self) -> Result<Option<(&Given, Login)>, Failure> {
        let Some(given) = self.get(Setting::Jaas) else {
            return Ok(None);
        };
        let login = jaas::parse(&given.value).map_err(|why| given.wrong(why))?;
        match login.module.as_str() {
            "PlainLoginModule" | "ScramLoginModule" | "OAuthBearerLoginModule" => {
                Ok(Some((given, login)))
            }
            "Krb5LoginModule" => Err(given.wrong(KERBEROS)),
            other => Err(given.wrong(format!(
                "the login module {other} is not supported: PlainLoginModule, ScramLoginModule and OAuthBearerLoginModule are"
            ))),
        }
    }

    fn mechanism(&self, login: Option<&Login>) -> Result<Mechanism, Failure> {
        let module = login.map(|login| login.module.as_str());
        let Some(given) = self.get(Setting::Mechanism) else {
            return match module {
                Some("PlainLoginModule") => Ok(Mechanism::Plain),
                Some("OAuthBearerLoginModule") => Ok(Mechanism::OAuthBearer),
                _ => Err(Failure::new(
                    Kind::Usage,
                    "sasl.mechanism is missing: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are supported",
                )),
            };
        };
        let mechanism = given.value.to_ascii_uppercase();
        let (mechanism, its_module) = match mechanism.as_str() {
            "PLAIN" => (Mechanism::Plain, "PlainLoginModule"),
            "SCRAM-SHA-256" => (Mechanism::Scram(ScramHash::Sha256), "ScramLoginModule"),
            "SCRAM-SHA-512" => (Mechanism::Scram(ScramHash::Sha512), "ScramLoginModule"),
            "OAUTHBEARER" => (Mechanism::OAuthBearer, "OAuthBearerLoginModule"),
            "GSSAPI" => return Err(given.wrong(KERBEROS)),
            other => {
                return Err(given.wrong(format!(
                    "{other} is not supported: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are"
                )));
            }
        };
        match module {
            Some(module) if module != its_module => Err(given.wrong(format!(
                "it needs {its_module}, and sasl.jaas.config names {module}"
            ))),
            _ => Ok(mechanism),
        }
    }

    /// The user of PLAIN and SCRAM; none where neither property speaks of one.
    pub(super) fn user_and_password(&self) -> Result<Option<(String, String)>, Failure> {
        let user = self.get(Setting::User);
        let password = self.get(Setting::Password);
        match (self.login()?, user, password) {
            (None, None, None) => Ok(None),
            (None, Some(user), Some(password)) => {
                Ok(Some((user.value.clone(), password.value.clone())))
            }
            (None, Some(given), None) => Err(given.wrong("sasl.password is missing")),
            (None, None, Some(given)) => Err(given.wrong("sasl.username is missing")),
            (Some((given, login)), None, None) => {
                let mut options = Options::new(given, login);
                let user = options.take("username");
                let password = options.take("password");
                options.finish()?;
                match (user, password) {
                    (Some(user), Some(password)) => Ok(Some((user, password))),
                    _ => Err(given.wrong("username and password are needed")),
                }
            }
            (Some((given, _)), Some(other), _) | (Some((given, _)), _, Some(other)) => {
                Err(given.wrong(format!("{other} says it too: leave one of them out")))
            }
        }
    }

    fn bearer(&self, login: Option<(&Given, Login)>) -> Result<Sasl, Failure> {
        self.check_handler()?;
        let mut options = login.map(|(given, login)| Options::new(given, login));
        let mut option = |name: &str| options.as_mut().and_then(|options| options.take(name));
        let client = option("clientId").or_else(|| self.text(Setting::TokenClient));
        let secret = option("clientSecret").or_else(|| self.text(Setting::TokenSecret));
        let scope = option("scope").or_else(|| self.text(Setting::TokenScope));
        let authorities =
            option("ssl.truststore.location").or_else(|| self.text(Setting::TokenAuthorityFile));
        let mut extensions = self.extensions()?;
        if let Some(options) = &mut options {
            extensions.extend(options.take_all("extension_"));
        }
        if let Some(options) = options {
            options.finish()?;
        }
        let ways = [Setting::TokenFile, Setting::TokenCommand, Setting::TokenUrl];
        let ways: Vec<&Given> = ways.iter().filter_map(|&way| self.get(way)).collect();
        let [way] = ways[..] else {
            let message = "OAUTHBEARER needs one way to a token: sasl.oauthbearer.token.endpoint.url with client id and secret, \
                           sasl.oauthbearer.token.file, or sasl.oauthbearer.token.command";
            return Err(Failure::new(Kind::Usage, message));
        };
        let source: Arc<dyn TokenSource> = match way.setting {
            Setting::TokenFile => Arc::new(TokenFile::new(&way.value)),
            Setting::TokenCommand => Arc::new(TokenCommand::new(&way.value)),
            _ => match way.value.strip_prefix("file://") {
                Some(path) => Arc::new(TokenFile::new(path)),
                None => {
                    let (Some(client), Some(secret)) = (client, secret) else {
                        let why = "it needs sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret (or clientId and clientSecret in sasl.jaas.config)";
                        return Err(way.wrong(why));
                    };
                    let fetched =
                        ClientCredentials::new(&way.value, client, secret, scope, authorities);
                    Arc::new(fetched.map_err(|why| way.wrong(why))?)
                }
            },
        };
        Ok(Sasl::OAuthBearer { source, extensions })
    }

    /// A class of Java cannot be run here; what Kafka's own one does is what is done anyway.
    fn check_handler(&self) -> Result<(), Failure> {
        match self.get(Setting::LoginHandler) {
            Some(given) if given.value.rsplit('.').next() != Some(KAFKA_HANDLER) => {
                let failure = given.wrong("a class of Java cannot be run here");
                Err(failure.hint(
                    "sasl.oauthbearer.token.command takes a command that prints a token, such as your cloud's command line has one",
                ))
            }
            _ => Ok(()),
        }
    }

    fn extensions(&self) -> Result<Vec<(String, String)>, Failure> {
        let Some(given) = self.get(Setting::TokenExtensions) else {
            return Ok(Vec::new());
        };
        let pairs = given.value.split(',').map(str::trim);
        pairs
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(given.wrong("expected name=value,...")),
            })
            .collect()
    }
}

/// The options of a login module, of which each is to be taken.
struct Options<'a> {
    given: &'a Given,
    login: Login,
}

impl<'a> Options<'a> {
    fn new(given: &'a Given, login: Login) -> Self {
        Self { given, login }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let options = &mut self.login.options;
        let found = options.iter().position(|(other, _)| other == name)?;
        Some(options.remove(found).1)
    }

    /// All whose names begin with `prefix`, without it.
    fn take_all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (found, rest) = std::mem::take(&mut self.login.options)
            .into_iter()
            .partition(|(name, _)| name.starts_with(prefix));
        self.login.options = rest;
        let found: Vec<(String, String)> = found;
        let named = found.into_iter();
        named
            .map(|(name, value)| (name[prefix.len()..].to_owned(), value))
            .collect()
    }

    /// What is left nobody knows.
    fn finish(self) -> Result<(), Failure> {
        match self.login.options.first() {
            None => Ok(()),
            Some((name, _)) if name.starts_with("unsecuredLogin") => Err(self.given.wrong(format!(
                "{name}: tokens without a signature are not made here: put one into a file (sasl.oauthbearer.token.file)"
            ))),
            Some((name, _)) => Err(self.given.wrong(format!(
                "{} has no option {name} here",
                self.login.module
            ))),
        }
    }
}

/// What people should know of how their connections are secured.
pub(crate) fn warning(security: &Security) -> Option<&'static str> {
    let in_the_clear = security.tls.is_none() && matches!(security.sasl, Some(Sasl::Plain { .. }));
    in_the_clear.then_some(
        "SASL/PLAIN without TLS: whoever can listen on the way to the brokers reads the password (SASL_SSL would hide it)",
    )
}

fn half_identity(pem: &Pem, missing: &str, by: Setting) -> Failure {
    let message = format!(
        "{}: {missing} is missing: {} names it",
        pem.origin,
        name_of(by)
    );
    Failure::new(Kind::Usage, message)
}

fn read_pem(given: &Given) -> Result<Pem, Failure> {
    let text = std::fs::read(Path::new(&given.value)).map_err(|error| {
        let message = format!("{given}: cannot read {}", given.value);
        Failure::new(Kind::LocalIo, message).because(error)
    })?;
    Ok(Pem {
        text,
        origin: given.value.clone(),
    })
}

/// PEM with the lines that it lost where a file of properties joined them: each block's body is base64, in which white space means nothing (RFC 7468,
/// section 2).
fn with_lines(text: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let block = &rest[start..];
        let Some(label) = block["-----BEGIN ".len()..].split("-----").next() else {
            break;
        };
        let begin = format!("-----BEGIN {label}-----");
        let end = format!("-----END {label}-----");
        let Some(end_at) = block.find(&end) else {
            break;
        };
        let Some(body) = block.get(begin.len()..end_at) else {
            break;
        };
        whole.push_str(&begin);
        whole.push('\n');
        for piece in body.split_ascii_whitespace() {
            whole.push_str(piece);
            whole.push('\n');
        }
        whole.push_str(&end);
        whole.push('\n');
        rest = &block[end_at + end.len()..];
    }
    // What is no block is left to be complained about.
    whole.push_str(rest.trim());
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_gets_its_lines_back() {
        let joined = "-----BEGIN CERTIFICATE----- QUJD REVG -----END CERTIFICATE----- -----BEGIN X Y-----R0g=-----END X Y-----";
        let lines = "-----BEGIN CERTIFICATE-----\nQUJD\nREVG\n-----END CERTIFICATE-----\n-----BEGIN X Y-----\nR0g=\n-----END X Y-----\n";
        assert_eq!(with_lines(joined), lines);
        assert_eq!(with_lines(lines), lines);
        for odd in ["", "none", "-----BEGIN A----- QQ==", "-----BEGIN A"] {
            assert_eq!(with_lines(odd), odd);
        }
    }
}
