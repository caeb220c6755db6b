//! Where the registry is and who asks: URLs, credentials, certificates, time.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind};

/// How to reach the registry. `Debug` shows no secret.
#[derive(Clone)]
pub struct RegistryConfig {
    /// One URL, or several separated by commas that are tried in turn. A path is kept (`http://host/apis/ccompat/v7`). `user:password@` before the
    /// host is taken as basic authentication of that URL, percent-encoded where needed.
    pub url: String,
    /// Credentials for all URLs; wins over those inside a URL.
    pub auth: Auth,
    /// A PEM file with the authorities to trust instead of the well-known ones.
    pub ca_file: Option<PathBuf>,
    /// The time one call may take in all, repeats included. Default: 10 s.
    pub timeout: Duration,
}

impl RegistryConfig {
    /// The registry at `url`, without credentials of its own, with the default time.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            auth: Auth::None,
            ca_file: None,
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.url.split(',').map(without_userinfo).collect();
        f.debug_struct("RegistryConfig")
            .field("url", &urls.join(","))
            .field("auth", &self.auth)
            .field("ca_file", &self.ca_file)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Who asks. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// Nobody in particular (or whom the URL names).
    #[default]
    None,
    /// HTTP basic authentication (RFC 7617), in UTF-8.
    Basic {
        /// The name; without a colon.
        user: String,
        /// The password.
        password: String,
    },
    /// A bearer token (RFC 6750), as it is.
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => f
                .debug_struct("Basic")
                .field("user", user)
                .finish_non_exhaustive(),
            Self::Bearer(_) => f.write_str("Bearer(..)"),
        }
    }
}

/// One of the URLs, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// Scheme, host, port and path, without a slash at the end and without user info: safe to show.
    pub(crate) base: String,
    /// Host name or address, without brackets.
    pub(crate) host: String,
    pub(crate) is_https: bool,
    pub(crate) auth: Auth,
}

impl Location {
    /// Takes apart every URL of `config`.
    pub(crate) fn parse_all(config: &RegistryConfig) -> Result<Vec<Self>, Error> {
        let texts = config
            .url
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let mut locations = texts
            .map(|text| Self::parse(text).map_err(|what| invalid_url(text, what)))
            .collect::<Result<Vec<_>, _>>()?;
        if locations.is_empty() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the registry's URL is empty",
            ));
        }
        if config.auth != Auth::None {
            check_auth(&config.auth)?;
            for location in &mut locations {
                location.auth = config.auth.clone();
            }
        }
        Ok(locations)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("it lacks http:// or https://")?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("only http:// and https:// are known"),
        };
        if rest.contains(['?', '#']) {
            return Err("it must end with its path: no '?' or '#'");
        }
        let (authority, path) = rest
            .find('/')
            .map_or((rest, ""), |slash| rest.split_at(slash));
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => (Some(userinfo), host_port),
            None => (None, authority),
        };
        let host = match host_port.strip_prefix('[') {
            Some(bracketed) => {
                bracketed
                    .split_once(']')
                    .ok_or("the bracket of its address is not closed")?
                    .0
            }
            None => host_port
                .rsplit_once(':')
                .map_or(host_port, |(host, _)| host),
        };
        if host.is_empty() {
            return Err("it names no host");
        }
        let base = format!(
            "{}://{host_port}{}",
            if is_https { "https" } else { "http" },
            path.trim_end_matches('/')
        );
        base.parse::<ureq::http::Uri>()
            .map_err(|_| "it is not a URL")?;
        Ok(Self {
            base,
            host: host.to_owned(),
            is_https,
            auth: userinfo.map_or(Ok(Auth::None), parse_userinfo)?,
        })
    }

    /// Whether the host is this machine, which no proxy stands before.
    pub(crate) fn is_local(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Location")
            .field(&self.base)
            .field(&self.auth)
            .finish()
    }
}

fn invalid_url(text: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!(
            "the registry's URL '{}' cannot be used: {what}",
            without_userinfo(text)
        ),
    )
}

fn check_auth(auth: &Auth) -> Result<(), Error> {
    let what = match auth {
        Auth::Basic { user, .. } if user.contains(':') => {
            "the registry's user name must not contain a colon"
        }
        Auth::Bearer(token)
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            "the registry's token must be one word of ASCII; is there a line feed or a space in it?"
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Configuration, what))
}

fn parse_userinfo(text: &str) -> Result<Auth, &'static str> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |part: &str| {
        let decoded = percent_decode_str(part).decode_utf8();
        decoded
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| "its user or password is not UTF-8")
    };
    Ok(Auth::Basic {
        user: decode(user)?,
        password: decode(password)?,
    })
}

/// A URL as it may be shown. Also for texts that are no valid URL: whatever stands before the last `@` may be a secret.
pub(crate) fn without_userinfo(text: &str) -> String {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    // A password may contain a slash, wrongly; then the last '@' still ends it.
    let shown = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() {
        shown.to_owned()
    } else {
        format!("{scheme}://{shown}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Vec<Location>, Error> {
        Location::parse_all(&RegistryConfig::new(url))
    }

    #[test]
    fn urls_are_taken_apart() {
        let found = parse("http://u%40x:p%3Aw@one:8081/, https://[::1]/apis/ccompat/v7/").unwrap();
        assert_eq!(found[0].base, "http://one:8081");
        assert_eq!(
            found[0].auth,
            Auth::Basic {
                user: "u@x".to_owned(),
                password: "p:w".to_owned()
            }
        );
        assert_eq!(found[1].base, "https://[::1]/apis/ccompat/v7");
        assert!(found[1].is_https && found[1].is_local() && !found[0].is_local());
    }

    #[test]
    fn explicit_credentials_win() {
        let mut config = RegistryConfig::new("http://u:p@one,http://two");
        config.auth = Auth::Bearer("t".to_owned());
        let found = Location::parse_all(&config).unwrap();
        assert!(found.iter().all(|location| location.auth == config.auth));
    }

    #[test]
    fn bad_urls_are_named_without_their_secrets() {
        for url in [
            "",
            " , ",
            "localhost:8081",
            "ftp://u:hunter2@h",
            "http://",
            "http://u:hunter2@",
            "http://[::1",
            "http://u:hunter2@h/?q",
            "http://u:hun/hunter2@h ost",
            "u:hunter2@host:8081",
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert!(!format!("{:?}", RegistryConfig::new(url)).contains("hunter2"));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut config = RegistryConfig::new("http://u:hunter2@h");
        for auth in [
            Auth::Bearer("hunter2".to_owned()),
            Auth::Basic {
                user: "u".to_owned(),
                password: "hunter2".to_owned(),
            },
        ] {
            config.auth = auth;
            assert!(!format!("{config:?}").contains("hunter2"));
            assert!(!format!("{:?}", Location::parse_all(&config).unwrap()).contains("hunter2"));
        }
    }

    #[test]
    fn a_token_with_a_line_feed_is_refused() {
        let mut config = RegistryConfig::new("http://h");
        config.auth = Auth::Bearer("abc\n".to_owned());
        assert_eq!(
            Location::parse_all(&config).unwrap_err().kind(),
            ErrorKind::Configuration
        );
    }
}
