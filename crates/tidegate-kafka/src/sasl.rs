//! SASL: how a connection proves who the client is (KIP-43, KIP-152).
//!
//! A mechanism is a short conversation: the client begins, and answers each challenge until the broker is content. What is said is made here;
//! [`crate::connection`] carries it. No secret shows in `Debug` or in an error.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use scram::Scram;

mod scram;

pub use scram::ScramHash;

/// How the client proves who it is.
#[derive(Clone)]
#[non_exhaustive]
pub enum Sasl {
    /// User and password as they are (RFC 4616): only over TLS are they kept from others.
    Plain {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A proof that the password is known, which both sides give (RFC 5802, RFC 7677).
    Scram {
        /// The hash in the mechanism's name.
        hash: ScramHash,
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that somebody else issued (RFC 7628, KIP-255).
    OAuthBearer {
        /// Where a token is from; asked for each connection, and again when a session must be prolonged.
        source: Arc<dyn TokenSource>,
        /// What is said beside the token, as names and values (KIP-342), `logicalCluster` mostly.
        extensions: Vec<(String, String)>,
    },
}

/// Where tokens are from.
pub trait TokenSource: Send + Sync {
    /// A token that is valid now.
    ///
    /// # Errors
    /// Why there is none. The text holds no secret.
    fn token(&self) -> Result<String, Error>;
}

impl Sasl {
    /// The mechanism's name (IANA registry of SASL mechanisms).
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "PLAIN",
            Self::Scram { hash, .. } => hash.mechanism(),
            Self::OAuthBearer { .. } => "OAUTHBEARER",
        }
    }

    /// Begins the conversation.
    ///
    /// # Errors
    /// That of the token's source, or [`ErrorKind::Configuration`] for what the mechanism cannot say.
    pub(crate) fn begin(&self) -> Result<Conversation, Error> {
        match self {
            Self::Plain { user, password } => {
                if user.contains('\0') || password.contains('\0') {
                    return Err(Error::new(
                        ErrorKind::Configuration,
                        "user and password of SASL/PLAIN hold no NUL",
                    ));
                }
                Ok(Conversation::Once(
                    format!("\0{user}\0{password}").into_bytes(),
                ))
            }
            Self::Scram {
                hash,
                user,
                password,
            } => Scram::begin(*hash, user, password)
                .map(|scram| Conversation::Scram(Box::new(scram))),
            Self::OAuthBearer { source, extensions } => {
                let token = source.token()?;
                // Section 3.1 of RFC 7628: nothing that could end the token, or the message, may stand in it.
                let is_sound = |text: &str| !text.is_empty() && text.chars().all(|char| char > ' ');
                if !is_sound(&token) {
                    return Err(Error::new(
                        ErrorKind::Authentication,
                        "the token is empty, or holds white space",
                    ));
                }
                let mut message = format!("n,,\x01auth=Bearer {token}\x01");
                for (name, value) in extensions {
                    message.push_str(&format!("{name}={value}\x01"));
                }
                message.push('\x01');
                Ok(Conversation::Bearer(message.into_bytes()))
            }
        }
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Sasl");
        shown.field("mechanism", &self.mechanism());
        if let Self::Plain { user, .. } | Self::Scram { user, .. } = self {
            shown.field("user", user);
        }
        shown.finish_non_exhaustive()
    }
}

/// A conversation under way.
pub(crate) enum Conversation {
    /// All is said at once.
    Once(Vec<u8>),
    /// A token; a challenge to it is a refusal.
    Bearer(Vec<u8>),
    /// Challenge and proof.
    Scram(Box<Scram>),
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// This is sent, and the answer awaited.
    Send(Vec<u8>),
    /// The client is content too.
    Done,
}

impl Conversation {
    /// What the client says first.
    pub(crate) fn first(&self) -> Vec<u8> {
        match self {
            Self::Once(message) | Self::Bearer(message) => message.clone(),
            Self::Scram(scram) => scram.first(),
        }
    }

    /// Takes in what the broker answered without refusing.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] where the broker does not prove that it knows the password, or the answer is none.
    pub(crate) fn next(&mut self, answer: &[u8]) -> Result<Step, Error> {
        match self {
            Self::Once(_) => Ok(Step::Done),
            Self::Bearer(_) if answer.is_empty() => Ok(Step::Done),
            // Section 3.2.3 of RFC 7628: the refusal as JSON; what the client then sends only ends the conversation.
            Self::Bearer(_) => Ok(Step::Send(vec![1])),
            Self::Scram(scram) => scram.next(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static str);

    impl TokenSource for Fixed {
        fn token(&self) -> Result<String, Error> {
            Ok(self.0.to_owned())
        }
    }

    fn bearer(token: &'static str, extensions: &[(&str, &str)]) -> Sasl {
        let extensions = extensions.iter();
        Sasl::OAuthBearer {
            source: Arc::new(Fixed(token)),
            extensions: extensions
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn plain_is_said_at_once() {
        let sasl = Sasl::Plain {
            user: "ada".to_owned(),
            password: "pâss".to_owned(),
        };
        let mut conversation = sasl.begin().unwrap();
        assert_eq!(conversation.first(), "\0ada\0pâss".as_bytes());
        assert!(matches!(conversation.next(b"").unwrap(), Step::Done));
    }

    #[test]
    fn a_token_is_said_as_the_rfc_has_it() {
        let mut conversation = bearer("a.b.c", &[("logicalCluster", "lkc-1")])
            .begin()
            .unwrap();
        assert_eq!(
            conversation.first(),
            b"n,,\x01auth=Bearer a.b.c\x01logicalCluster=lkc-1\x01\x01"
        );
        assert!(matches!(conversation.next(b"").unwrap(), Step::Done));
        let refusal = br#"{"status":"invalid_token"}"#;
        assert!(matches!(conversation.next(refusal).unwrap(), Step::Send(end) if end == [1]));
        for wrong in ["", "a b", "a\x01b"] {
            assert!(bearer(wrong, &[]).begin().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let all = [
            Sasl::Plain {
                user: "ada".to_owned(),
                password: "hidden".to_owned(),
            },
            Sasl::Scram {
                hash: ScramHash::Sha512,
                user: "ada".to_owned(),
                password: "hidden".to_owned(),
            },
            bearer("hidden", &[("name", "hidden")]),
        ];
        for sasl in all {
            let shown = format!("{sasl:?}");
            assert!(
                shown.contains(sasl.mechanism()) && !shown.contains("hidden"),
                "{shown}"
            );
        }
    }
}
