//! Reads what came back: a registry's JSON, a registry's error, or something that is no registry at all.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{Auth, without_userinfo};
use crate::endpoint::{Answer, MAX_BODY};
use crate::error::{Error, ErrorKind};

/// Characters of a registry's message that are kept.
const MAX_MESSAGE: usize = 2000;

/// A registry's way to refuse.
#[derive(Debug, Deserialize)]
struct Refusal {
    error_code: u32,
    message: Option<String>,
}

/// The result in `answer`, or why there is none. `auth` words the message of a 401.
pub(crate) fn interpret<T: DeserializeOwned>(answer: &Answer, auth: &Auth) -> Result<T, Error> {
    if answer.status == 200 {
        return serde_json::from_slice(&answer.body)
            .map_err(|error| not_a_registry(answer).with_source(error));
    }
    let refusal: Option<Refusal> = serde_json::from_slice(&answer.body).ok();
    let code = refusal.as_ref().map(|refusal| refusal.error_code);
    let said = refusal
        .and_then(|refusal| refusal.message)
        .map(|message| printable(&message))
        .unwrap_or_default();
    let error = match answer.status {
        401 => Error::new(ErrorKind::Unauthorized, unauthorized(auth, &said)),
        403 => Error::new(
            ErrorKind::Forbidden,
            join("403, the credentials lack the right for it", &said),
        ),
        404 if code.is_some_and(|code| code > 999) => {
            Error::new(ErrorKind::NotFound, join("404", &said))
        }
        409 => Error::new(ErrorKind::Incompatible, join("409, incompatible", &said)),
        422 => Error::new(
            ErrorKind::InvalidSchema,
            join("422, refused as invalid", &said),
        ),
        429 => Error::new(ErrorKind::Server, join("429, too many requests", &said)),
        status @ 500.. => Error::new(
            ErrorKind::Server,
            join(&format!("{status}, the registry failed"), &said),
        ),
        status @ 300..=399 => redirect(status, answer),
        _ if said.is_empty() => not_a_registry(answer),
        // 400, 405 and the like from something that talks as a registry does; a bare 404 is a path that no registry serves.
        status => Error::new(
            ErrorKind::NotARegistry,
            join(
                &format!(
                    "{status}, the registry's API is not under this URL, or does not know this call"
                ),
                &said,
            ),
        ),
    };
    Err(error.with_code(code))
}

fn join(what: &str, said: &str) -> String {
    if said.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {said}")
    }
}

fn unauthorized(auth: &Auth, said: &str) -> String {
    let what = match auth {
        Auth::None => "401, the registry wants credentials and none were given".to_owned(),
        Auth::Basic { user, .. } => format!(
            "401, the registry refuses the password of user '{}'",
            printable(user)
        ),
        Auth::Bearer(_) => "401, the registry refuses the token".to_owned(),
    };
    join(&what, said)
}

fn redirect(status: u16, answer: &Answer) -> Error {
    let target = answer.location.as_deref().unwrap_or("nowhere");
    // Only as far as the host and path: a query may carry a session's secret.
    let target = target.split(['?', '#']).next().unwrap_or_default();
    let message = format!(
        "{status}, redirected to {}; redirects are not followed, give the URL of the registry itself",
        printable(&without_userinfo(target))
    );
    Error::new(ErrorKind::NotARegistry, message)
}

fn not_a_registry(answer: &Answer) -> Error {
    let content_type = answer
        .content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let is_json = serde_json::from_slice::<Value>(&answer.body).is_ok();
    let what = match (is_json, content_type) {
        (true, _) => "JSON, but not what a schema registry says".to_owned(),
        (false, "") if answer.body.is_empty() => "an empty answer".to_owned(),
        (false, "") => "something that is not JSON".to_owned(),
        (false, kind) => format!(
            "{}, which is not JSON of a schema registry",
            printable(kind)
        ),
    };
    Error::new(
        ErrorKind::NotARegistry,
        format!(
            "status {} with {what}; is this the URL of a schema registry?",
            answer.status
        ),
    )
}

/// What to say of a request that got no whole answer.
pub(crate) fn describe_transport(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the connection was closed in the middle of the answer".to_owned()
        }
        ureq::Error::Io(error) => {
            let text = error.to_string();
            let hint = if text.contains("UnknownIssuer") || text.contains("BadSignature") {
                "; its certificate is signed by an unknown authority: give that authority's CA file"
            } else if text.contains("CaUsedAsEndEntity") {
                "; it presents a CA certificate as its own: issue a server certificate with that CA"
            } else if text.contains("InvalidContentType") {
                "; it does not speak TLS: try http://"
            } else {
                ""
            };
            format!("{}{hint}", printable(&text))
        }
        ureq::Error::HostNotFound => "the host's name cannot be resolved".to_owned(),
        ureq::Error::BodyExceedsLimit(_) => format!("the answer is larger than {MAX_BODY} bytes"),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        other => printable(&other.to_string()),
    }
}

/// The text without control characters (it comes from elsewhere and goes to a terminal) and of bounded length.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_MESSAGE)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        shown.push_str(" ...");
    }
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: &str, body: &str) -> Answer {
        Answer {
            status,
            content_type: content_type.to_owned(),
            location: Some("https://u:hunter2@other/login?session=hunter2".to_owned()),
            retry_after: None,
            body: body.as_bytes().to_vec(),
        }
    }

    fn error(status: u16, content_type: &str, body: &str) -> Error {
        interpret::<Vec<u32>>(&answer(status, content_type, body), &Auth::None).unwrap_err()
    }

    #[test]
    fn each_status_has_its_kind() {
        let refusal = |code: u32| format!(r#"{{"error_code":{code},"message":"why it is so"}}"#);
        for (status, body, kind) in [
            (401, String::new(), ErrorKind::Unauthorized),
            (401, refusal(40101), ErrorKind::Unauthorized),
            (403, refusal(0), ErrorKind::Forbidden),
            (404, refusal(40401), ErrorKind::NotFound),
            (404, refusal(404), ErrorKind::NotARegistry),
            (404, "<html>".to_owned(), ErrorKind::NotARegistry),
            (409, refusal(409), ErrorKind::Incompatible),
            (422, refusal(42201), ErrorKind::InvalidSchema),
            (429, String::new(), ErrorKind::Server),
            (500, "<html>".to_owned(), ErrorKind::Server),
            (302, String::new(), ErrorKind::NotARegistry),
            (200, "<html>".to_owned(), ErrorKind::NotARegistry),
            (200, String::new(), ErrorKind::NotARegistry),
            (
                200,
                r#"{"hello":"world"}"#.to_owned(),
                ErrorKind::NotARegistry,
            ),
        ] {
            let error = error(status, "text/html", &body);
            assert_eq!(error.kind(), kind, "{status} {body}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
            if body.contains("why it is so") {
                assert!(error.to_string().contains("why it is so"), "{error}");
            }
        }
    }

    #[test]
    fn a_redirect_is_named_without_its_secrets() {
        let text = error(307, "", "").to_string();
        assert!(
            text.contains("https://other/login") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn escapes_of_a_terminal_do_not_come_through() {
        let body = "{\"error_code\":42201,\"message\":\"\\u001b[2Jcleared\"}";
        assert!(!error(422, "", body).to_string().contains('\u{1b}'));
    }

    #[test]
    fn a_long_message_is_cut() {
        let body = format!(
            r#"{{"error_code":409,"message":"{}"}}"#,
            "x".repeat(100_000)
        );
        assert!(error(409, "", &body).to_string().len() < 3000);
    }
}
