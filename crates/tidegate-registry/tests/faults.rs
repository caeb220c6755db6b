//! The client against a server that misbehaves: what is tried again, what is final, what the error says, and that no secret gets out.

#![expect(clippy::unwrap_used, reason = "tests")]

mod scripted;

use std::time::{Duration, Instant};

use scripted::{Reply, ScriptedServer};
use tidegate_registry::{Auth, Error, ErrorKind, Registry, RegistryConfig};
use tidegate_testkit::matrix::Cell;

const SECRET: &str = "hunter2-and-more";
const VERSION: &str = r#"{"subject":"s","id":7,"version":3,"schema":"\"int\""}"#;

fn registry(url: impl Into<String>) -> Registry {
    let mut config = RegistryConfig::new(url);
    config.timeout = Duration::from_secs(5);
    Registry::new(config).unwrap()
}

fn quick(url: impl Into<String>) -> Registry {
    let mut config = RegistryConfig::new(url);
    config.timeout = Duration::from_millis(400);
    Registry::new(config).unwrap()
}

/// The error that a server with this script causes, and how often it was asked.
fn error_of(script: Vec<Reply>) -> (Error, usize) {
    let server = ScriptedServer::start(script);
    let error = quick(server.url()).latest("s").unwrap_err();
    assert!(
        error.to_string().contains(&server.url()),
        "{error} names the URL"
    );
    assert!(
        error
            .to_string()
            .contains("GET /subjects/s/versions/latest"),
        "{error} names the call"
    );
    (error, server.received().len())
}

/// A port nobody listens on.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn t20_troubles_that_pass_are_tried_again() {
    let trouble = [
        Reply::Close,
        Reply::Truncated(VERSION.to_owned()),
        Reply::refusal(500, 50001, "store"),
        Reply::Answer(502, "text/html", "<html>bad gateway</html>".to_owned()),
        Reply::WithHeaders(429, "Retry-After: 0\r\n", String::new()),
    ];
    for fault in trouble {
        let server = ScriptedServer::start(vec![fault.clone(), Reply::json(200, VERSION)]);
        let found = registry(server.url()).latest("s").unwrap().unwrap();
        assert_eq!((found.id, found.version), (7, 3), "after {fault:?}");
        assert_eq!(server.received().len(), 2, "{fault:?} happened once");
    }
    Cell::new(20, "troubles that pass, the registry's client alone")
        .fired(5)
        .record();
}

#[test]
fn t20_troubles_that_stay_end_in_time_with_their_kind() {
    for (fault, kind, word) in [
        (Reply::Close, ErrorKind::Unreachable, "attempts in"),
        (
            Reply::Truncated("{".to_owned()),
            ErrorKind::Unreachable,
            "attempts in",
        ),
        (Reply::Silence, ErrorKind::Timeout, "no answer in time"),
        (
            Reply::refusal(503, 50003, "no leader"),
            ErrorKind::Server,
            "no leader",
        ),
        (Reply::json(429, ""), ErrorKind::Server, "too many requests"),
    ] {
        let started = Instant::now();
        let (error, asked) = error_of(vec![fault.clone()]);
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(asked >= 2, "{fault:?} was asked {asked} times");
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "{fault:?} took {:?}",
            started.elapsed()
        );
    }
    Cell::new(20, "troubles that stay, the registry's client alone")
        .fired(5)
        .record();
}

/// What a web server says that is no registry.
fn html() -> Reply {
    let welcome = "<html>welcome</html>".to_owned();
    Reply::Answer(200, "text/html; charset=utf-8", welcome)
}

#[test]
fn t20_answers_about_the_request_are_final() {
    for (answer, kind, word) in [
        (
            Reply::Answer(401, "", String::new()),
            ErrorKind::Unauthorized,
            "none were given",
        ),
        (
            Reply::refusal(403, 40301, "no read on s"),
            ErrorKind::Forbidden,
            "no read on s",
        ),
        (
            Reply::refusal(422, 42201, "bad"),
            ErrorKind::InvalidSchema,
            "bad",
        ),
        (
            Reply::refusal(409, 409, "READER_FIELD_MISSING"),
            ErrorKind::Incompatible,
            "READER_FIELD_MISSING",
        ),
        (
            Reply::refusal(404, 404, "HTTP 404 Not Found"),
            ErrorKind::NotARegistry,
            "not under this URL",
        ),
        (
            Reply::Answer(404, "text/html", "<h1>nginx</h1>".to_owned()),
            ErrorKind::NotARegistry,
            "text/html",
        ),
        (html(), ErrorKind::NotARegistry, "text/html"),
        (
            Reply::json(200, "[1, 2]"),
            ErrorKind::NotARegistry,
            "not what a schema registry says",
        ),
        (
            Reply::Huge(17 << 20),
            ErrorKind::NotARegistry,
            "larger than",
        ),
        (
            Reply::Raw(b"220 smtp ready\r\n"),
            ErrorKind::NotARegistry,
            "registry",
        ),
        (
            Reply::WithHeaders(
                302,
                "Location: https://u:hunter2-and-more@sso/login?t=1\r\n",
                String::new(),
            ),
            ErrorKind::NotARegistry,
            "https://sso/login",
        ),
    ] {
        let (error, asked) = error_of(vec![answer.clone()]);
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
        assert_eq!(asked, 1, "{answer:?}");
    }
    Cell::new(20, "answers that are final, the registry's client alone")
        .fired(11)
        .record();
}

#[test]
fn what_is_missing_is_none_and_not_an_error() {
    for code in [40401, 40402] {
        let server = ScriptedServer::start(vec![Reply::refusal(404, code, "not found")]);
        assert_eq!(registry(server.url()).latest("s").unwrap(), None);
    }
    let server = ScriptedServer::start(vec![Reply::refusal(404, 40403, "not found")]);
    let registry = registry(server.url());
    assert_eq!(registry.lookup("s", "\"int\"").unwrap(), None);
    let error = registry.by_id(9).unwrap_err();
    assert_eq!(
        (error.kind(), error.registry_code()),
        (ErrorKind::NotFound, Some(40403))
    );
}

#[test]
fn the_next_url_is_used_and_kept() {
    let server = ScriptedServer::start(vec![Reply::json(200, VERSION)]);
    let failing = ScriptedServer::start(vec![Reply::Close]);
    let registry = registry(format!(
        "{},{},{}",
        closed_port(),
        failing.url(),
        server.url()
    ));
    registry.latest("s").unwrap();
    registry.latest("s").unwrap();
    assert_eq!(failing.received().len(), 1, "asked once, then left aside");
    assert_eq!(server.received().len(), 2);
}

#[test]
fn a_silent_url_leaves_time_for_the_next() {
    let silent = ScriptedServer::start(vec![Reply::Silence]);
    let server = ScriptedServer::start(vec![Reply::json(200, VERSION)]);
    let registry = registry(format!("{},{}", silent.url(), server.url()));
    assert!(registry.latest("s").unwrap().is_some());
    assert_eq!(silent.received().len(), 1);
}

#[test]
fn nobody_listening_is_unreachable_within_the_time() {
    let started = Instant::now();
    let error = quick(closed_port()).subjects().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let echo = Reply::refusal(
        401,
        40101,
        "hunter2-and-more is wrong, as Basic dTpodW50ZXIyLWFuZC1tb3Jl or Bearer hunter2-and-more",
    );
    let basic = Auth::Basic {
        user: "u".to_owned(),
        password: SECRET.to_owned(),
    };
    for (auth, header) in [
        (basic, "Basic dTpodW50ZXIyLWFuZC1tb3Jl"),
        (Auth::Bearer(SECRET.to_owned()), "Bearer hunter2-and-more"),
        (Auth::None, "Basic dTpodW50ZXIyLWFuZC1tb3Jl"),
    ] {
        let server = ScriptedServer::start(vec![echo.clone()]);
        let url = match auth {
            Auth::None => server.url().replace("://", &format!("://u:{SECRET}@")),
            _ => server.url(),
        };
        let mut config = RegistryConfig::new(url);
        config.auth = auth;
        let registry = Registry::new(config.clone()).unwrap();
        let error = registry.register("s", "\"int\"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        let received = &server.received()[0];
        assert!(
            received
                .header
                .lines()
                .any(|line| line.eq_ignore_ascii_case(&format!("authorization: {header}")))
        );
        let mut shown = format!("{error} {error:?} {registry:?} {config:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            shown = format!("{shown} {cause} {cause:?}");
            source = cause.source();
        }
        assert!(
            !shown.contains(SECRET) && !shown.contains(header),
            "{shown}"
        );
    }
}

#[test]
fn what_never_changes_is_asked_for_once() {
    let server = ScriptedServer::start(vec![Reply::json(200, r#"{"id":5,"schema":"\"int\""}"#)]);
    let registry = registry(server.url());
    for _ in 0..3 {
        assert_eq!(registry.by_id(5).unwrap(), "\"int\"");
        assert_eq!(registry.register("a/b c", "\"int\"").unwrap(), 5);
    }
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(
        received[1].line,
        "POST /subjects/a%2Fb%20c/versions HTTP/1.1"
    );
    assert_eq!(
        received[1].body,
        r#"{"schema":"\"int\"","schemaType":"AVRO"}"#
    );
}

#[test]
fn schemas_of_other_types_are_refused_by_name() {
    let protobuf = r#"{"schema":"syntax = \"proto3\";","schemaType":"PROTOBUF","subject":"s","id":7,"version":3}"#;
    let server = ScriptedServer::start(vec![Reply::json(200, protobuf)]);
    let registry = registry(server.url());
    for error in [
        registry.latest("s").unwrap_err(),
        registry.by_id(7).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("PROTOBUF"), "{error}");
    }
}

#[test]
fn https_to_a_server_without_tls_is_final_and_says_so() {
    let server = ScriptedServer::start(vec![Reply::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")]);
    let error = quick(server.url().replace("http:", "https:"))
        .subjects()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
}

#[test]
fn an_unusable_ca_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for content in [
        None,
        Some(""),
        Some("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"),
    ] {
        let path = dir.path().join("ca.pem");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let mut config = RegistryConfig::new("https://localhost");
        config.ca_file = Some(path);
        let error = Registry::new(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("ca.pem"), "{error}");
    }
}

#[test]
fn a_reference_to_what_is_not_there_is_named() {
    let schema = r#"{"schema":"[\"T\"]","references":[{"name":"T","subject":"t","version":3}]}"#;
    let server = ScriptedServer::start(vec![
        Reply::json(200, schema),
        Reply::refusal(404, 40402, "no such version"),
    ]);
    let error = registry(server.url()).by_id(5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSchema, "{error}");
    let said = "takes the type T from version 3 of subject 't'";
    assert!(error.to_string().contains(said), "{error}");
}

#[test]
fn references_in_a_circle_are_asked_for_once() {
    let schema = |subject: &str, text: &str, other: &str| {
        format!(
            r#"{{"subject":"{subject}","id":1,"version":1,"schema":"{text}","references":[{{"name":"{other}","subject":"{other}","version":1}}]}}"#
        )
    };
    let server = ScriptedServer::start(vec![
        Reply::json(200, schema("a", r#"[\"b\"]"#, "b")),
        Reply::json(
            200,
            schema(
                "b",
                r#"{\"type\":\"fixed\",\"name\":\"b\",\"size\":1}"#,
                "a",
            ),
        ),
        Reply::json(200, schema("a", r#"[\"b\"]"#, "b")),
    ]);
    let whole = registry(server.url()).by_id(1).unwrap();
    assert!(whole.contains(r#""size":1"#), "{whole}");
    assert_eq!(server.received().len(), 3);
}
