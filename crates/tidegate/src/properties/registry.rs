//! The registry's side of the properties: its URL, who asks, whom to trust. Names are those of Confluent's serializers.

use std::path::PathBuf;
use std::time::Duration;

use tidegate::registry::{Auth, RegistryConfig};

use super::keys::Setting;
use super::{Given, Properties, secret};
use crate::args::RegistryArgs;
use crate::failure::Failure;

/// How long the registry may take, its own retries included.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Properties {
    /// How to reach the registry at `url`.
    pub(crate) fn registry(
        &self,
        url: String,
        args: &RegistryArgs,
    ) -> Result<RegistryConfig, Failure> {
        let mut config = RegistryConfig::new(url);
        config.timeout = TIMEOUT;
        config.ca_file = match &args.registry_ca {
            Some(path) => Some(path.clone()),
            None => self.text(Setting::RegistryAuthorityFile).map(PathBuf::from),
        };
        config.auth =
            if let (Some(user), Some(file)) = (&args.registry_user, &args.registry_password_file) {
                Auth::Basic {
                    user: user.clone(),
                    password: secret(file)?,
                }
            } else if let Some(file) = &args.registry_token_file {
                Auth::Bearer(secret(file)?)
            } else {
                self.registry_auth()?
            };
        Ok(config)
    }

    fn registry_auth(&self) -> Result<Auth, Failure> {
        if let Some(given) = self.get(Setting::RegistryTokenSource)
            && !given.value.eq_ignore_ascii_case("STATIC_TOKEN")
        {
            return Err(given
                .wrong("only STATIC_TOKEN is supported")
                .hint("--registry-token-file names a file with a token"));
        }
        let user = self.get(Setting::RegistryUser);
        let token = self.get(Setting::RegistryToken);
        let source = self.get(Setting::RegistryUserSource);
        let wished = source.map(|source| source.value.to_ascii_uppercase());
        match (wished.as_deref(), user, token) {
            (None | Some("USER_INFO"), Some(user), None) => user_info(user),
            (None | Some("URL"), None, None) | (Some("URL"), Some(_), None) => Ok(Auth::None),
            (None, None, Some(token)) => Ok(Auth::Bearer(token.value.clone())),
            (Some("SASL_INHERIT"), None, None) => match self.user_and_password()? {
                Some((user, password)) => Ok(Auth::Basic { user, password }),
                None => Err(missing(source, "no user of SASL is given")),
            },
            (Some("USER_INFO"), None, _) => Err(missing(source, "basic.auth.user.info is missing")),
            (Some("URL" | "USER_INFO" | "SASL_INHERIT"), ..) | (None, Some(_), Some(_)) => {
                Err(missing(
                    user.or(token),
                    "more than one way to say who asks: leave one out",
                ))
            }
            (Some(_), ..) => Err(missing(source, "USER_INFO, URL and SASL_INHERIT are known")),
        }
    }
}

fn user_info(given: &Given) -> Result<Auth, Failure> {
    match given.value.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok(Auth::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }),
        _ => Err(given.wrong("expected user:password")),
    }
}

/// The failure of a property that may not be there itself.
fn missing(given: Option<&Given>, why: &str) -> Failure {
    match given {
        Some(given) => given.wrong(why),
        None => Failure::new(crate::failure::Kind::Usage, why),
    }
}
