//! TLS, SASL and rights, on a real Kafka with every kind of each (T30). The embedded broker has none of them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Exits, Folder, tidegate};
use tidegate_testkit::kafka::secure::{
    ADMIN, Listener, Operation, Resource, SecureKafka, USERS, password,
};
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::proxy::{ApiKey, Proxy, Rule, Verb};
use tidegate_testkit::token_endpoint::TokenEndpoint;
use tidegate_testkit::{Finished, Kind, Tidegate, services, unique_name};

/// How long a failure of credentials or rights may take to be told.
const BOUND: Duration = Duration::from_secs(15);

/// Who comes in, and how.
fn properties(kafka: &SecureKafka, listener: Listener, lines: &str) -> String {
    let protocol = match listener {
        Listener::Plaintext => "PLAINTEXT",
        Listener::Tls | Listener::MutualTls | Listener::Expired | Listener::OtherName => "SSL",
        Listener::Sasl | Listener::ShortSession => "SASL_PLAINTEXT",
        Listener::SaslTls => "SASL_SSL",
    };
    let trust = if protocol.ends_with("SSL") {
        format!("ssl.truststore.location={}\n", kafka.authority().display())
    } else {
        String::new()
    };
    let address = kafka.address(listener);
    format!("bootstrap.servers={address}\nsecurity.protocol={protocol}\n{trust}{lines}\n")
}

/// The properties of a user with a password.
fn user(mechanism: &str, name: &str, password: &str) -> String {
    format!("sasl.mechanism={mechanism}\nsasl.username={name}\nsasl.password={password}")
}

/// A token that nobody signed, valid for `seconds` from now.
fn token(name: &str, seconds: i64) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let claims = serde_json::json!({"sub": name, "iat": now - 60, "exp": now + seconds});
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.",
        part(r#"{"alg":"none"}"#),
        part(&claims.to_string())
    )
}

/// A load of two rows into an existing topic, as whoever `config` says.
fn load(folder: &Folder, topic: &str, config: &str) -> Tidegate {
    let file = folder.file("a.csv", "a,b\n1,2\n3,4\n");
    let config = folder.file("client.properties", config);
    tidegate(["publish", &file, "-t", topic, "--format", "json"]).args([
        "--command-config",
        &config,
        "-o",
        "json",
    ])
}

fn new_topic(kafka: &SecureKafka, prefix: &str) -> String {
    let topic = unique_name(prefix);
    kafka.admin().unwrap().create_topic(&topic, 1, &[]).unwrap();
    topic
}

#[test]
fn every_way_in_leads_to_a_proven_load() {
    let Some(kafka) = services::secure_kafka() else {
        return;
    };
    let folder = Folder::new();
    let identity = kafka.identity(ADMIN).unwrap();
    let certificate = format!("ssl.keystore.location={}", identity.display());
    let token_file = folder.file("token", token(ADMIN, 600));
    let mut ways = vec![
        (Listener::Tls, String::new()),
        (Listener::MutualTls, certificate),
    ];
    for listener in [Listener::Sasl, Listener::SaslTls] {
        for mechanism in kafka.password_mechanisms() {
            ways.push((listener, user(mechanism, ADMIN, &password(ADMIN))));
        }
        for way in [
            format!("file={token_file}"),
            format!("command=cat {token_file}"),
        ] {
            let lines = format!("sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.{way}");
            ways.push((listener, lines));
        }
    }
    for (listener, lines) in ways {
        let topic = new_topic(kafka, "way-in");
        let config = properties(kafka, listener, &lines);
        let said = load(&folder, &topic, &config).arg("--verify").exits(0);
        assert_eq!(
            said.json()["records"]["delivered"],
            2,
            "{listener:?} {lines}: {said}"
        );
        let records = kafka.admin().unwrap().read_topic(&topic).unwrap();
        assert_eq!(records.len(), 2, "{listener:?} {lines}");
    }
}

/// Credentials are exchanged for a token over HTTPS, and only with somebody whom they may be told.
#[test]
fn a_token_from_an_endpoint_leads_to_a_proven_load() {
    let Some(kafka) = services::secure_kafka() else {
        return;
    };
    let folder = Folder::new();
    let endpoint = TokenEndpoint::start(|| token(ADMIN, 600)).unwrap();
    let lines = format!(
        "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url={}\n\
         sasl.oauthbearer.client.id=ada\nsasl.oauthbearer.client.secret=wrong-secret\n",
        endpoint.url()
    );
    let topic = new_topic(kafka, "endpoint");
    let trusting = format!(
        "{lines}https.ca.location={}",
        endpoint.authority().display()
    );
    for listener in [Listener::Sasl, Listener::SaslTls] {
        let config = properties(kafka, listener, &trusting);
        let said = load(&folder, &topic, &config).args(["--verify", "--restart"]);
        assert_eq!(said.exits(0).json()["records"]["delivered"], 2);
    }
    let asked = endpoint.requests();
    assert!(!asked.is_empty());
    // ada:wrong-secret, and the grant.
    let believed = |asked: &String| {
        asked.contains("YWRhOndyb25nLXNlY3JldA==")
            && asked.contains("grant_type=client_credentials")
    };
    assert!(asked.iter().all(believed), "{asked:?}");
    // Without the authority nobody is told the secret.
    let config = properties(kafka, Listener::Sasl, &lines);
    let started = Instant::now();
    let said = load(&folder, &topic, &config).run();
    check_refusal(
        "an endpoint nobody vouches for",
        &said,
        &["UnknownIssuer", "https.ca.location"],
        started.elapsed(),
    );
    assert_eq!(endpoint.requests().len(), asked.len());
}

#[test]
fn a_session_is_prolonged_while_a_load_is_held_back() {
    let Some(kafka) = services::secure_kafka() else {
        return;
    };
    let (folder, topic) = (Folder::new(), new_topic(kafka, "session"));
    let group = unique_name("group");
    let proxy = Proxy::start(&kafka.address(Listener::ShortSession)).unwrap();
    let connections = proxy.inject(Rule::new(ApiKey::ApiVersions, Verb::Pass));
    let proofs = proxy.inject(Rule::new(ApiKey::SaslAuthenticate, Verb::Pass));
    let lines = user("PLAIN", ADMIN, &password(ADMIN));
    let config = properties(kafka, Listener::ShortSession, &lines);
    let loading = load(&folder, &topic, &config)
        .args(["-b", proxy.bootstrap()])
        .args(["--hold-group", &group, "--hold-limit", "1"])
        .start();
    // One more proof than connections is one that prolonged a session.
    let prolonged = || proofs.fired() > connections.fired() + 3;
    tidegate_testkit::program::wait_until(Duration::from_secs(60), prolonged).unwrap();
    let consumer = folder.file(
        "door.properties",
        properties(kafka, Listener::Plaintext, ""),
    );
    tidegate([
        "consume",
        "-t",
        &topic,
        "-g",
        &group,
        "--from",
        "beginning",
        "--max",
        "2",
    ])
    .args(["--command-config", &consumer])
    .exits(0);
    let loaded = loading.finish().expect_code(0);
    assert_eq!(loaded.json()["records"]["delivered"], 2, "{loaded}");
    assert_eq!(kafka.admin().unwrap().read_topic(&topic).unwrap().len(), 2);
}

/// What is wrong, how one comes in, and parts of what must be said.
type Refusal = (&'static str, String, &'static [&'static str]);

/// Whom the broker does not believe.
fn wrong_credentials(kafka: &SecureKafka, folder: &Folder) -> Vec<Refusal> {
    let with = |lines: &str| properties(kafka, Listener::Sasl, lines);
    let over_tls = |lines: &str| properties(kafka, Listener::SaslTls, lines);
    let bearer = |name: &str, token: &str| {
        let file = folder.file(name, token);
        with(&format!(
            "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.file={file}"
        ))
    };
    let command = "sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.command=exit 3";
    const FAILED: &str = "SASL_AUTHENTICATION_FAILED";
    let mut all = vec![
        (
            "a wrong password, PLAIN",
            with(&user("PLAIN", ADMIN, "wrong-secret")),
            &["PLAIN", FAILED][..],
        ),
        (
            "an unknown user",
            over_tls(&user("PLAIN", "nobody", "wrong-secret")),
            &["PLAIN", FAILED],
        ),
        (
            "a token that has expired",
            bearer("old", &token(ADMIN, -30)),
            &["OAUTHBEARER"],
        ),
        (
            "a token that is none",
            bearer("none", "wrong-secret"),
            &["OAUTHBEARER"],
        ),
        (
            "a command that fails",
            with(command),
            &["token.command", "3"],
        ),
    ];
    if kafka.password_mechanisms().len() > 1 {
        all.extend([
            (
                "a wrong password, SCRAM",
                over_tls(&user("SCRAM-SHA-256", ADMIN, "wrong-secret")),
                &["SCRAM-SHA-256", FAILED][..],
            ),
            (
                "an unknown user, SCRAM",
                over_tls(&user("SCRAM-SHA-512", "nobody", "wrong-secret")),
                &["SCRAM-SHA-512", FAILED],
            ),
        ]);
    }
    all
}

/// Certificates that one of the two sides does not take.
fn wrong_certificates(kafka: &SecureKafka) -> [Refusal; 6] {
    let with = |listener, lines: &str| properties(kafka, listener, lines);
    let shown = |path: std::io::Result<std::path::PathBuf>| {
        let path = path.unwrap();
        let lines = format!("ssl.keystore.location={}", path.display());
        with(Listener::MutualTls, &lines)
    };
    let wrong_ca = with(Listener::Tls, "").replace(
        &*kafka.authority().to_string_lossy(),
        &kafka.other_authority().to_string_lossy(),
    );
    const NOT_TAKEN: &[&str] = &["does not take the client's certificate"];
    [
        (
            "a wrong authority",
            wrong_ca,
            &["authority that is not trusted", "ssl.truststore.location"],
        ),
        (
            "a broker whose certificate has expired",
            with(Listener::Expired, ""),
            &["certificate has expired"],
        ),
        (
            "a broker with another name",
            with(Listener::OtherName, ""),
            &["another name", "ssl.endpoint.identification.algorithm"],
        ),
        (
            "no certificate of the client",
            with(Listener::MutualTls, ""),
            &["certificate", "ssl.keystore.location"],
        ),
        (
            "a client's certificate that has expired",
            shown(kafka.expired_identity(ADMIN)),
            NOT_TAKEN,
        ),
        (
            "a client's certificate of a stranger",
            shown(kafka.foreign_identity(ADMIN)),
            NOT_TAKEN,
        ),
    ]
}

/// A protocol that the listener does not speak.
fn wrong_protocols(kafka: &SecureKafka) -> [Refusal; 5] {
    let with = |listener, protocol: &str, lines: &str| {
        let config = properties(kafka, listener, lines);
        let (before, after) = config.split_once("security.protocol=").unwrap();
        let (_, after) = after.split_once('\n').unwrap();
        format!("{before}security.protocol={protocol}\n{after}")
    };
    let known = user("PLAIN", ADMIN, &password(ADMIN));
    const NO_SASL: &[&str] = &["SASL", "security.protocol"];
    [
        (
            "in the clear where there is TLS",
            with(Listener::Tls, "PLAINTEXT", ""),
            &["speaks TLS", "security.protocol"],
        ),
        (
            "TLS where there is none",
            with(Listener::Plaintext, "SSL", ""),
            &["TLS", "security.protocol"],
        ),
        (
            "no SASL where it is wanted",
            with(Listener::Sasl, "PLAINTEXT", ""),
            NO_SASL,
        ),
        (
            "no SASL where it is wanted, over TLS",
            with(Listener::SaslTls, "SSL", ""),
            NO_SASL,
        ),
        (
            "SASL where it is not wanted",
            with(Listener::Plaintext, "SASL_PLAINTEXT", &known),
            &["wants no SASL"],
        ),
    ]
}

/// Notes that so many faults each ended with exit code 5 in time.
#[track_caller]
fn refused(fault: &str, fired: usize) {
    Cell::new(30, fault)
        .on(Kind::Real)
        .fired(fired as u64)
        .code(Some(5))
        .record();
}

/// Exit code 5 in time, the parts on stderr and in the summary, and no secret anywhere.
#[track_caller]
fn check_refusal(what: &str, said: &Finished, parts: &[&str], took: Duration) {
    assert_eq!(said.code, Some(5), "{what}: {said}");
    assert!(took < BOUND, "{what} took {took:?}: {said}");
    let summary = said.json();
    assert_eq!(summary["error"]["kind"], "rights", "{what}: {said}");
    for part in parts {
        assert!(
            said.stderr.contains(part),
            "{what}: {part} is not in: {said}"
        );
    }
    for secret in ["-secret", "eyJ", "PRIVATE KEY"] {
        let shown = said.stderr.contains(secret) || said.stdout.contains(secret);
        assert!(!shown, "{what}: {secret} is in: {said}");
    }
}

#[test]
fn t30_what_is_wrong_with_credentials_is_said_in_time_and_without_a_secret() {
    let Some(kafka) = services::secure_kafka() else {
        return;
    };
    let (folder, topic) = (Folder::new(), new_topic(kafka, "refused"));
    let credentials = wrong_credentials(kafka, &folder);
    let (certificates, protocols) = (wrong_certificates(kafka), wrong_protocols(kafka));
    let faults = credentials.len() + certificates.len() + protocols.len();
    thread::scope(|scope| {
        for (what, config, parts) in credentials.iter().chain(&certificates).chain(&protocols) {
            let topic = &topic;
            scope.spawn(move || {
                let folder = Folder::new();
                let started = Instant::now();
                let said = load(&folder, topic, config).arg("-v").run();
                check_refusal(what, &said, parts, started.elapsed());
            });
        }
    });
    assert_eq!(kafka.admin().unwrap().read_topic(&topic).unwrap().len(), 0);
    refused("wrong credentials, certificates and protocols", faults);
}

/// A right: to do that with that.
type Right = (Resource, &'static str, Operation);

/// All that the load below needs. READ and WRITE give DESCRIBE. The names are made for each load.
const NEEDED: [Right; 6] = [
    (Resource::Topic, "topic", Operation::Write),
    (Resource::Topic, "topic", Operation::Read),
    (Resource::TransactionalId, "job", Operation::Write),
    (Resource::Topic, "positions", Operation::Read),
    (Resource::Topic, "positions", Operation::Write),
    (Resource::Group, "group", Operation::Describe),
];

#[test]
fn t30_each_missing_right_is_named_before_anything_is_sent() {
    let Some(kafka) = services::secure_kafka() else {
        return;
    };
    thread::scope(|scope| {
        for (index, missing) in NEEDED.iter().enumerate() {
            scope.spawn(move || {
                let rights = Rights::new(kafka, USERS[index], Some(missing));
                let (resource, text, operation) = missing;
                let started = Instant::now();
                let said = rights.load().run();
                let operation = format!("{operation:?}").to_uppercase();
                let name = rights.name(text);
                let parts = [&*name, "right to", &operation];
                check_refusal(
                    &format!("without {resource:?}"),
                    &said,
                    &parts,
                    started.elapsed(),
                );
                let records = kafka.admin().unwrap().read_topic(&rights.topic);
                assert_eq!(records.unwrap().len(), 0, "{said}");
            });
        }
        scope.spawn(|| {
            let said = Rights::new(kafka, USERS[NEEDED.len()], None).load().run();
            let said = said.expect_code(0).json();
            assert_eq!(said["verify"]["status"], "same", "{said}");
        });
    });
    refused("each right that a load needs is missing", NEEDED.len());
}

/// A user who may do all that a load needs, but perhaps for one thing.
struct Rights {
    folder: Folder,
    topic: String,
    config: String,
}

impl Rights {
    fn new(kafka: &SecureKafka, user_name: &str, missing: Option<&Right>) -> Self {
        let rights = Self {
            folder: Folder::new(),
            topic: new_topic(kafka, "rights"),
            config: properties(
                kafka,
                Listener::Sasl,
                &user("PLAIN", user_name, &password(user_name)),
            ),
        };
        let mut admin = kafka.admin().unwrap();
        admin
            .create_topic(
                &rights.name("positions"),
                1,
                &[("cleanup.policy", "compact")],
            )
            .unwrap();
        for right in NEEDED.iter().filter(|right| Some(*right) != missing) {
            let (resource, text, operation) = right;
            let name = rights.name(text);
            kafka
                .allow(user_name, *resource, &name, *operation)
                .unwrap();
        }
        rights
    }

    fn name(&self, text: &str) -> String {
        match text {
            "topic" => self.topic.clone(),
            _ => format!("{text}-{}", self.topic),
        }
    }

    fn load(&self) -> Tidegate {
        load(&self.folder, &self.topic, &self.config)
            .args(["--job", &self.name("job")])
            .args(["--positions-topic", &self.name("positions")])
            .args(["--hold-group", &self.name("group"), "--hold-limit", "100"])
            .arg("--verify")
    }
}

#[test]
fn t30_other_commands_name_the_missing_right_too() {
    let Some(kafka) = services::secure_kafka() else {
        return;
    };
    let (folder, topic, name) = (Folder::new(), new_topic(kafka, "commands"), USERS[10]);
    let config = properties(kafka, Listener::Sasl, &user("PLAIN", name, &password(name)));
    let config = folder.file("client.properties", config);
    let (new, group) = (unique_name("new"), unique_name("group"));
    let file = folder.file("a.csv", "a\n1\n");
    let asked = std::cell::Cell::new(0);
    let is_refused = |arguments: &[&str], parts: &[&str]| {
        asked.set(asked.get() + 1);
        let command = tidegate(["-o", "json"]).args(arguments);
        let started = Instant::now();
        let said = command.args(["--command-config", &config]).run();
        check_refusal(&arguments.join(" "), &said, parts, started.elapsed());
    };
    let json = ["--format", "json"];
    let publish = |topic| {
        [
            &["publish", &file, "-t", topic, "--delivery", "at-least-once"],
            &json[..],
        ]
        .concat()
    };
    is_refused(&publish(&topic), &[&topic, "right", "WRITE"]);
    is_refused(
        &[&publish(&new)[..], &["--create-topic"]].concat(),
        &[&new, "right", "CREATE"],
    );
    is_refused(
        &[&["verify", &file, "-t", &topic], &json[..]].concat(),
        &[&topic, "right", "READ"],
    );
    is_refused(
        &["balance", "-t", &topic, "-g", &group, "--timeout", "1s"],
        &["right"],
    );
    kafka
        .allow(name, Resource::Topic, &topic, Operation::Describe)
        .unwrap();
    is_refused(&publish(&topic), &[&topic, "right", "WRITE"]);
    is_refused(
        &["balance", "-t", &topic, "-g", &group, "--timeout", "1s"],
        &[&group, "right", "DESCRIBE"],
    );
    kafka
        .allow(name, Resource::Topic, &topic, Operation::Read)
        .unwrap();
    is_refused(
        &["consume", "-t", &topic, "-g", &group, "--max", "1"],
        &[&group, "right", "READ"],
    );
    refused("rights of other commands are missing", asked.get());
}

#[test]
fn doctor_tells_what_is_wrong_with_credentials_and_rights() {
    let Some(kafka) = services::secure_kafka() else {
        return;
    };
    let (folder, topic, name) = (Folder::new(), new_topic(kafka, "doctor"), USERS[11]);
    let doctor = |listener, lines: &str| {
        let config = properties(kafka, listener, lines);
        let config = folder.file("client.properties", config);
        let command = tidegate(["doctor", "-t", &topic, "-g", "group-of-others"]);
        command.args(["--command-config", &config])
    };
    let mechanism = kafka.password_mechanisms().last().unwrap();
    let known = user(mechanism, name, &password(name));
    kafka
        .allow(name, Resource::Topic, &topic, Operation::Read)
        .unwrap();
    let said = doctor(Listener::SaslTls, &known).exits(5);
    for part in [
        "ok    connect     ",
        &format!("TLS 1.3, {mechanism}"),
        &format!("fail  rights      topic {topic}: the right to WRITE is missing"),
        "fail  rights      group group-of-others: the right to DESCRIBE is missing",
        &format!("ok    rights      READ on topic {topic}"),
        "fail  positions   ",
        "hint: whoever administers the cluster can give it: kafka-acls.sh",
    ] {
        assert!(said.stdout.contains(part), "{part}: {said}");
    }
    let wrong = user("PLAIN", name, "wrong-secret");
    let said = doctor(Listener::SaslTls, &wrong).exits(5);
    assert!(said.stdout.contains("SASL_AUTHENTICATION_FAILED"), "{said}");
    assert!(
        !said.stdout.contains("-secret") && !said.stderr.contains("-secret"),
        "{said}"
    );
    let said = doctor(Listener::Expired, "").exits(5);
    assert!(said.stdout.contains("certificate has expired"), "{said}");
}
