//! SCRAM (RFC 5802; with SHA-256, RFC 7677): each side proves that it knows the password, and nobody says it.
//!
//! As Kafka does, the password is taken as it is in UTF-8, without SASLprep.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

use super::Step;
use crate::error::{Error, ErrorKind};

/// How often a broker may have the password hashed: fewer would be too easy to guess (RFC 7677, section 4), more would keep us busy at a stranger's word.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;

/// No channel is bound, and nobody else is spoken for: the header of the client's first message (RFC 5802, section 7).
const GS2_HEADER: &str = "n,,";

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramHash {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn hash(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; self.hash().output_len()];
        pbkdf2::derive(
            algorithm,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        salted
    }
}

/// The client's side of a conversation.
pub(crate) struct Scram {
    hash: ScramHash,
    password: String,
    nonce: String,
    /// The client's first message without its header.
    first_bare: String,
    state: State,
}

enum State {
    /// The broker's nonce, salt and iterations are due.
    First,
    /// The broker's signature is due, and must be made by this key over this text.
    Last(hmac::Key, String),
    /// All was said.
    Done,
}

impl Scram {
    pub(super) fn begin(hash: ScramHash, user: &str, password: &str) -> Result<Self, Error> {
        let mut random = [0; 24];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| failed("the system has no random numbers"))?;
        Ok(Self::with_nonce(
            hash,
            user,
            password,
            BASE64.encode(random),
        ))
    }

    fn with_nonce(hash: ScramHash, user: &str, password: &str, nonce: String) -> Self {
        // Section 5.1: `,` and `=` would end the name.
        let name = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            password: password.to_owned(),
            first_bare: format!("n={name},r={nonce}"),
            nonce,
            state: State::First,
        }
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("{GS2_HEADER}{}", self.first_bare).into_bytes()
    }

    pub(super) fn next(&mut self, answer: &[u8]) -> Result<Step, Error> {
        let answer =
            str::from_utf8(answer).map_err(|_| failed("the broker's answer is no text"))?;
        match std::mem::replace(&mut self.state, State::Done) {
            State::First => self.prove(answer),
            State::Last(key, signed) => {
                let signature = attribute(answer, 'v').and_then(|text| BASE64.decode(text).ok());
                let signature = signature.ok_or_else(|| refusal(answer))?;
                hmac::verify(&key, signed.as_bytes(), &signature).map_err(|_| {
                    failed("the broker does not prove that it knows the password: is it the right one?")
                })?;
                Ok(Step::Done)
            }
            State::Done => Err(failed("the broker goes on though all was said")),
        }
    }

    /// The client's proof (section 3).
    fn prove(&mut self, server_first: &str) -> Result<Step, Error> {
        let parts = (
            attribute(server_first, 'r'),
            attribute(server_first, 's').and_then(|salt| BASE64.decode(salt).ok()),
            attribute(server_first, 'i').and_then(|count| count.parse::<NonZeroU32>().ok()),
        );
        let (Some(nonce), Some(salt), Some(iterations)) = parts else {
            return Err(refusal(server_first));
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(failed("the broker's nonce does not go on from ours"));
        }
        if !ITERATIONS.contains(&iterations.get()) {
            let message = format!(
                "the broker asks for {iterations} iterations, and {} to {} are taken",
                ITERATIONS.start(),
                ITERATIONS.end()
            );
            return Err(failed(&message));
        }
        let without_proof = format!("c={},r={nonce}", BASE64.encode(GS2_HEADER));
        let signed = format!("{},{server_first},{without_proof}", self.first_bare);
        let salted = self.hash.salted(&self.password, &salt, iterations);
        let key = hmac::Key::new(self.hash.hmac(), &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(self.hash.hash(), client_key.as_ref());
        let stored_key = hmac::Key::new(self.hash.hmac(), stored_key.as_ref());
        let signature = hmac::sign(&stored_key, signed.as_bytes());
        let proof = client_key.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = proof.map(|(key, signature)| key ^ signature).collect();
        let server_key = hmac::sign(&key, b"Server Key");
        let server_key = hmac::Key::new(self.hash.hmac(), server_key.as_ref());
        self.state = State::Last(server_key, signed);
        let message = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok(Step::Send(message.into_bytes()))
    }
}

/// The value of an attribute of a message.
fn attribute(message: &str, name: char) -> Option<&str> {
    let mut parts = message.split(',');
    parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// An answer that is none: the broker's own word for it if there is one.
fn refusal(answer: &str) -> Error {
    match attribute(answer, 'e') {
        Some(why) => failed(&format!("the broker refused: {why}")),
        None => failed("the broker's answer is not one of SCRAM"),
    }
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::Authentication, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn begun() -> Scram {
        Scram::with_nonce(ScramHash::Sha256, "user", "pencil", NONCE.to_owned())
    }

    /// The conversation of RFC 7677, section 3.
    #[test]
    fn the_conversation_of_the_rfc_is_held() {
        let mut scram = begun();
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let Step::Send(last) = scram.next(SERVER_FIRST.as_bytes()).unwrap() else {
            panic!("a proof is due");
        };
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(last).unwrap(), expected);
        let signed = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(matches!(scram.next(signed).unwrap(), Step::Done));
        assert!(scram.next(signed).is_err());
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_found_out() {
        let mut scram = begun();
        scram.next(SERVER_FIRST.as_bytes()).unwrap();
        let error = scram
            .next(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        let mut scram = begun();
        scram.next(SERVER_FIRST.as_bytes()).unwrap();
        let error = scram.next(b"e=invalid-proof").unwrap_err();
        assert!(error.to_string().contains("invalid-proof"), "{error}");
    }

    #[test]
    fn answers_that_are_none_are_refused() {
        for (answer, why) in [
            ("r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
            (
                "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "nonce",
            ),
            (
                "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
                "4095 iterations",
            ),
            (
                "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
                "iterations",
            ),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=*,i=4096", "not one of SCRAM"),
            ("e=unknown-user", "unknown-user"),
            ("", "not one of SCRAM"),
        ] {
            let error = begun().next(answer.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(why), "{answer}: {error}");
        }
        assert!(begun().next(b"\xff").is_err());
    }

    #[test]
    fn names_are_escaped_and_nonces_differ() {
        let scram = Scram::begin(ScramHash::Sha512, "a=b,c", "x").unwrap();
        assert!(scram.first().starts_with(b"n,,n=a=3Db=2Cc,r="));
        let other = Scram::begin(ScramHash::Sha512, "a=b,c", "x").unwrap();
        assert_ne!(scram.first(), other.first());
    }
}
