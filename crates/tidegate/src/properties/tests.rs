//! Files as cloud providers hand them out, and what can be wrong with them.

use std::path::PathBuf;

use clap::Parser;
use tempfile::TempDir;
use tidegate::kafka::Security;
use tidegate::registry::Auth;

use super::*;
use crate::args::{Arguments, Command, PublishArgs};

/// A file of properties, and what else was typed.
struct Case {
    folder: TempDir,
    args: Box<PublishArgs>,
}

fn case(text: &str, typed: &[&str]) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.properties");
    let text = text.replace("FOLDER", folder.path().to_str().unwrap());
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let fixed = [
        "tidegate",
        "publish",
        "a.csv",
        "-t",
        "t",
        "-q",
        "--command-config",
        path,
    ];
    let arguments = Arguments::try_parse_from(fixed.iter().chain(typed)).unwrap();
    let Command::Publish(args) = arguments.command else {
        panic!("publish was typed")
    };
    Case { folder, args }
}

impl Case {
    fn properties(&self) -> Result<Properties, Failure> {
        Properties::gather(&self.args.cluster)
    }

    fn security(&self) -> Result<Security, Failure> {
        self.properties()?.security()
    }

    fn servers(&self) -> String {
        let servers = self.properties().unwrap().servers(&self.args.cluster);
        servers.unwrap().unwrap()
    }

    fn auth(&self) -> Result<Auth, Failure> {
        let properties = self.properties()?;
        let url = properties.registry_url(&self.args.registry).unwrap();
        Ok(properties.registry(url, &self.args.registry)?.auth)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The first lines of a failure, hints included.
fn said(failure: &Failure) -> String {
    format!("{failure} | {}", failure.hints().join(" | "))
}

fn basic(user: &str, password: &str) -> Auth {
    Auth::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    }
}

/// For Java, with keys for a registry.
const CONFLUENT_JAVA: &str = r#"
# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers=pkc-1.example:9092
security.protocol=SASL_SSL
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username='KEY' password='SECRET/+';
sasl.mechanism=PLAIN
client.dns.lookup=use_all_dns_ips
session.timeout.ms=45000
acks=all
client.id=ccloud-java-client-1
schema.registry.url=https://psrc-1.example
basic.auth.credentials.source=USER_INFO
basic.auth.user.info=SRKEY:SRSECRET:+
"#;

/// For librdkafka.
const CONFLUENT_PYTHON: &str = "
bootstrap.servers=pkc-1.example:9092
security.protocol=SASL_SSL
sasl.mechanisms=PLAIN
sasl.username=KEY
sasl.password=SECRET/+
session.timeout.ms=45000
schema.registry.url=https://psrc-1.example
basic.auth.credentials.source=USER_INFO
basic.auth.user.info=SRKEY:SRSECRET:+
";

const EVENT_HUBS: &str = r#"
bootstrap.servers=NAME.servicebus.windows.net:9093
security.protocol=SASL_SSL
sasl.mechanism=PLAIN
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
   username="$ConnectionString" \
   password="Endpoint=sb://NAME.servicebus.windows.net/;SharedAccessKeyName=X;SharedAccessKey=SECRET=";
"#;

const SCRAM: &str = r#"
bootstrap.servers = b-1.example:9096,b-2.example:9096
security.protocol = SASL_SSL
sasl.mechanism = SCRAM-SHA-512
sasl.jaas.config = org.apache.kafka.common.security.scram.ScramLoginModule required \
  username="ada" \
  password="SECRET" ;
"#;

const OAUTH: &str = r#"
bootstrap.servers=pkc-2.example:9092
security.protocol=SASL_SSL
sasl.mechanism=OAUTHBEARER
sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler
sasl.oauthbearer.token.endpoint.url=https://idp.example/oauth2/token
sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
  clientId='client' \
  clientSecret='SECRET' \
  scope='kafka' \
  extension_logicalCluster='lkc-1' \
  extension_identityPoolId='pool-1';
"#;

#[test]
fn files_of_providers_are_understood() {
    for (text, servers, sasl) in [
        (
            CONFLUENT_JAVA,
            "pkc-1.example:9092",
            r#"mechanism: "PLAIN", user: "KEY""#,
        ),
        (
            CONFLUENT_PYTHON,
            "pkc-1.example:9092",
            r#"mechanism: "PLAIN", user: "KEY""#,
        ),
        (
            EVENT_HUBS,
            "NAME.servicebus.windows.net:9093",
            r#"mechanism: "PLAIN", user: "$ConnectionString""#,
        ),
        (
            SCRAM,
            "b-1.example:9096,b-2.example:9096",
            r#"mechanism: "SCRAM-SHA-512", user: "ada""#,
        ),
        (OAUTH, "pkc-2.example:9092", r#"mechanism: "OAUTHBEARER""#),
    ] {
        let case = case(text, &[]);
        assert_eq!(case.servers(), servers);
        let security = case.security().unwrap();
        assert!(security.tls.is_some());
        let shown = format!("{security:?} {:?} {:?}", case.args, case.properties());
        assert!(shown.contains(sasl), "{shown}");
        assert!(!shown.contains("SECRET"), "{shown}");
    }
    for text in [CONFLUENT_JAVA, CONFLUENT_PYTHON] {
        let case = case(text, &[]);
        assert_eq!(case.auth().unwrap(), basic("SRKEY", "SRSECRET:+"));
    }
    let ignored = case(CONFLUENT_JAVA, &[]).properties().unwrap();
    let ignored = ignored.ignored().join("\n");
    for part in [
        "client.properties:7: client.dns.lookup is not followed",
        "session.timeout.ms",
        "acks",
    ] {
        assert!(ignored.contains(part), "{ignored}");
    }
}

#[test]
fn the_password_is_what_stands_between_the_quotes() {
    let case = case(EVENT_HUBS, &[]);
    let (user, password) = case
        .properties()
        .unwrap()
        .user_and_password()
        .unwrap()
        .unwrap();
    assert_eq!(user, "$ConnectionString");
    let whole =
        "Endpoint=sb://NAME.servicebus.windows.net/;SharedAccessKeyName=X;SharedAccessKey=SECRET=";
    assert_eq!(password, whole);
}

#[test]
fn certificates_are_taken_from_files_and_from_the_text() {
    let authority = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
    let (certificate, key) = (authority.cert.pem(), authority.signing_key.serialize_pem());
    let joined = |pem: &str| pem.lines().collect::<Vec<_>>().join(" \\\n  ");
    let inline = format!(
        "security.protocol=ssl\nssl.truststore.type=PEM\nssl.truststore.certificates={}\nssl.keystore.type=PEM\n\
         ssl.keystore.certificate.chain={}\nssl.keystore.key={}\n",
        joined(&certificate),
        joined(&certificate),
        joined(&key)
    );
    let files = "security.protocol=SSL\nssl.ca.location=FOLDER/ca.pem\nssl.certificate.location=FOLDER/ca.pem\nssl.key.location=FOLDER/key.pem\n\
                 ssl.endpoint.identification.algorithm=\n";
    let one_file = "security.protocol=SSL\nssl.truststore.location=FOLDER/ca.pem\nssl.keystore.location=FOLDER/both.pem\n";
    for text in [&*inline, files, one_file] {
        let case = case(text, &[]);
        std::fs::write(case.path("ca.pem"), &certificate).unwrap();
        std::fs::write(case.path("key.pem"), &key).unwrap();
        std::fs::write(case.path("both.pem"), format!("{key}{certificate}")).unwrap();
        let security = case.security().unwrap();
        let shown = format!("{security:?}");
        assert!(shown.contains("has_identity: true"), "{shown}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}

#[test]
fn a_flag_wins_over_a_typed_property_and_that_over_the_file() {
    let file = "bootstrap.servers=file:1\nschema.registry.url=http://file:1\nclient.id=file\nsasl.username=u\n";
    let case_of = |typed: &[&str]| case(file, typed);
    assert_eq!(case_of(&[]).servers(), "file:1");
    let typed = case_of(&[
        "-X",
        "metadata.broker.list=typed:1",
        "-Xclient.id=a",
        "-X",
        "client.id = b",
    ]);
    assert_eq!(typed.servers(), "typed:1");
    assert_eq!(typed.properties().unwrap().client_id().unwrap(), "b");
    let flag = case_of(&[
        "-X",
        "bootstrap.servers=typed:1",
        "-b",
        "flag:1",
        "--registry",
        "http://flag:1",
    ]);
    assert_eq!(flag.servers(), "flag:1");
    let url = flag.properties().unwrap().registry_url(&flag.args.registry);
    assert_eq!(url.unwrap(), "http://flag:1");
}

#[test]
fn the_registry_is_told_who_asks() {
    let url = "schema.registry.url=https://registry.example\n";
    for (text, auth) in [
        ("", Auth::None),
        ("basic.auth.user.info=a:b", basic("a", "b")),
        ("schema.registry.basic.auth.user.info=a:b", basic("a", "b")),
        ("bearer.auth.token=c", Auth::Bearer("c".to_owned())),
        (
            "bearer.auth.credentials.source=STATIC_TOKEN\nbearer.auth.token=c",
            Auth::Bearer("c".to_owned()),
        ),
        (
            "basic.auth.credentials.source=SASL_INHERIT\nsasl.username=a\nsasl.password=b",
            basic("a", "b"),
        ),
        ("basic.auth.credentials.source=URL", Auth::None),
    ] {
        let case = case(&format!("{url}{text}"), &[]);
        assert_eq!(case.auth().unwrap(), auth, "{text}");
    }
    for (text, part) in [
        ("basic.auth.user.info=SECRET", "user:password"),
        ("basic.auth.credentials.source=USER_INFO", "is missing"),
        ("basic.auth.credentials.source=ELSEWHERE", "SASL_INHERIT"),
        ("basic.auth.credentials.source=SASL_INHERIT", "no user"),
        (
            "basic.auth.user.info=a:SECRET\nbearer.auth.token=SECRET",
            "more than one",
        ),
        ("bearer.auth.credentials.source=OAUTHBEARER", "STATIC_TOKEN"),
    ] {
        let case = case(&format!("{url}{text}"), &[]);
        let failure = case.auth().unwrap_err();
        let said = said(&failure);
        assert!(said.contains(part) && !said.contains("SECRET"), "{said}");
        assert_eq!(failure.kind(), Kind::Usage);
    }
}

/// What cannot be, and a part of what is said.
const WRONG: &[(&str, &str)] = &[
    (
        "secuirty.protocol=SSL",
        "client.properties:1: there is no property \"secuirty.protocol\" | did you mean security.protocol?",
    ),
    ("colour=green", "-X help"),
    (
        "\nsasl.username=a\n\nsasl.username=b",
        "client.properties:4: sasl.username",
    ),
    (
        "sasl.mechanism=PLAIN\nsasl.mechanisms=SCRAM-SHA-256",
        "says otherwise",
    ),
    ("a=\\u12", "client.properties:1"),
    ("security.protocol=TLS", "none of PLAINTEXT"),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI",
        "Kerberos",
    ),
    ("sasl.kerberos.service.name=kafka", "Kerberos"),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true;",
        "Kerberos",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=AWS_MSK_IAM",
        "AWS_MSK_IAM is not supported",
    ),
    ("security.protocol=SASL_SSL", "sasl.mechanism is missing"),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN",
        "who asks",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.password=SECRET",
        "sasl.username is missing",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=a",
        "sasl.password is missing",
    ),
    (
        "sasl.username=a\nsasl.password=SECRET",
        "security.protocol=SASL_SSL",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=x.ScramLoginModule required username=a password=SECRET;",
        "it needs PlainLoginModule",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=x.PlainLoginModule required username=a password=SECRET",
        "semicolon",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.jaas.config=x.PlainLoginModule required username=a password=SECRET tokenauth=true;",
        "no option tokenauth",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.username=b\nsasl.jaas.config=x.PlainLoginModule required username=a password=SECRET;",
        "says it too",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER",
        "one way to a token",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=http://idp.example/\nsasl.oauthbearer.client.id=a\n\
         sasl.oauthbearer.client.secret=SECRET",
        "https",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.login.callback.handler.class=com.google.cloud.hosted.kafka.auth.GcpLoginCallbackHandler",
        "sasl.oauthbearer.token.command",
    ),
    (
        "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.file=t\nsasl.jaas.config=x.OAuthBearerLoginModule required \
         unsecuredLoginStringClaim_sub=a;",
        "without a signature",
    ),
    (
        "security.protocol=SSL\nenable.ssl.certificate.verification=false",
        "always verified",
    ),
    (
        "security.protocol=SSL\nssl.endpoint.identification.algorithm=http",
        "https, nothing and none",
    ),
    (
        "security.protocol=SSL\nssl.certificate.pem=x",
        "its key is missing",
    ),
    ("security.protocol=SSL\nssl.ca.pem=x", "no certificate"),
    (
        "security.protocol=SSL\nssl.ca.location=FOLDER/none.pem",
        "cannot read",
    ),
    ("config.providers=env", "not supported"),
];

#[test]
fn what_cannot_be_is_said_with_its_place_and_without_a_secret() {
    for (text, part) in WRONG {
        let case = case(text, &[]);
        let failure = case.security().unwrap_err();
        let said = said(&failure);
        assert!(said.contains(part), "{text}: {said}");
        assert!(!said.contains("SECRET"), "{said}");
        let kinds = [Kind::Usage, Kind::LocalIo];
        assert!(kinds.contains(&failure.kind()), "{said}");
    }
}

#[test]
fn a_cluster_that_is_described_must_be_named() {
    let case = case("security.protocol=SSL", &[]);
    let failure = case.properties().unwrap().servers(&case.args.cluster);
    assert!(said(&failure.unwrap_err()).contains("--bootstrap-server"));
}

#[test]
fn a_file_that_is_no_text_is_refused_with_its_line() {
    let case = case("", &[]);
    let path = case.path("client.properties");
    std::fs::write(&path, b"client.id=a\nsasl.password=p\xe9\n").unwrap();
    let failure = case.properties().unwrap_err();
    assert!(
        said(&failure).contains("client.properties:2: "),
        "{failure}"
    );
    std::fs::remove_file(&path).unwrap();
    assert_eq!(case.properties().unwrap_err().kind(), Kind::LocalIo);
}

#[test]
fn help_on_properties_needs_nothing_else() {
    let error = Arguments::try_parse_from(["tidegate", "publish", "-X", "help"]).unwrap_err();
    assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp);
    assert!(error.to_string().contains("security.protocol"));
    let error = Arguments::try_parse_from(["tidegate", "balance", "-X", "SECRET"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(!error.to_string().contains("SECRET"), "{error}");
}

#[test]
fn a_group_is_joined_by_the_protocol_that_was_named() {
    let group = |text: &str| case(text, &[]).properties().unwrap().group();
    let (classic, consumer) = (GroupProtocol::Classic, GroupProtocol::Consumer);
    let range = Some("range".to_owned());
    for (text, expected) in [
        ("", (classic, None)),
        ("group.protocol=Classic", (classic, None)),
        (
            "group.protocol=classic\ngroup.remote.assignor=",
            (classic, None),
        ),
        ("group.protocol=CONSUMER", (consumer, None)),
        (
            "group.protocol=consumer\ngroup.remote.assignor=range",
            (consumer, range),
        ),
    ] {
        assert_eq!(group(text).unwrap(), expected, "{text}");
    }
    for (text, why) in [
        ("group.protocol=share", "it takes classic or consumer"),
        (
            "group.remote.assignor=uniform",
            "it needs group.protocol=consumer",
        ),
    ] {
        let failure = group(text).unwrap_err();
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(said(&failure).contains(why), "{failure}");
    }
}
