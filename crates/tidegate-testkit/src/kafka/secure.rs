//! A Kafka of one node with every kind of security: TLS, certificates of clients, SASL with and without TLS, and access control lists.
//!
//! | listener | what it asks for |
//! |---|---|
//! | [`Listener::Plaintext`] | nothing: the door by which tests administer; whoever comes in may do everything |
//! | [`Listener::Tls`] | nothing, over TLS |
//! | [`Listener::MutualTls`] | a certificate of [`SecureKafka::authority`]; its common name is the principal |
//! | [`Listener::Sasl`], [`Listener::SaslTls`] | PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, or OAUTHBEARER with a token that nobody signed |
//! | [`Listener::ShortSession`] | as [`Listener::Sasl`], and again after [`SESSION`] |
//! | [`Listener::Expired`], [`Listener::OtherName`] | nothing, over TLS; the broker's certificate has expired, or is for another host |
//!
//! A user's password is its name and `-secret`. There are [`ADMIN`], who may do everything, and [`USERS`], who may do nothing until [`SecureKafka::allow`] says so.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use kafka_protocol::messages::describe_acls_request::DescribeAclsRequest;
use kafka_protocol::protocol::StrBytes;
use tempfile::TempDir;

use super::certificates::{Authority, Subject};
use super::installation::{Installation, common, on_free_ports, wait_until_ready};
use super::new_folder;
use crate::raw::RawClient;
use crate::server::{ServerProcess, free_ports};

/// May do everything.
pub const ADMIN: &str = "admin";
/// May do nothing of themselves.
pub const USERS: [&str; 12] = [
    "user-0", "user-1", "user-2", "user-3", "user-4", "user-5", "user-6", "user-7", "user-8",
    "user-9", "user-10", "user-11",
];
/// How long a session of [`Listener::ShortSession`] lasts.
pub const SESSION: Duration = Duration::from_millis(1_500);
/// How long the lists may take to reach the broker.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// In the clear.
    Plaintext,
    /// TLS.
    Tls,
    /// TLS in which the client shows a certificate.
    MutualTls,
    /// SASL in the clear.
    Sasl,
    /// SASL over TLS.
    SaslTls,
    /// SASL in the clear, to be said again and again.
    ShortSession,
    /// TLS with a certificate that has expired.
    Expired,
    /// TLS with a certificate of another host.
    OtherName,
}

/// All listeners, in the order of their ports, with their names in Kafka's configuration and their protocols.
const LISTENERS: [(Listener, &str, &str); 8] = [
    (Listener::Plaintext, "PLAINTEXT", "PLAINTEXT"),
    (Listener::Tls, "TLS", "SSL"),
    (Listener::MutualTls, "MUTUAL", "SSL"),
    (Listener::Sasl, "SASL", "SASL_PLAINTEXT"),
    (Listener::SaslTls, "SASLTLS", "SASL_SSL"),
    (Listener::ShortSession, "SHORT", "SASL_PLAINTEXT"),
    (Listener::Expired, "EXPIRED", "SSL"),
    (Listener::OtherName, "OTHERNAME", "SSL"),
];

/// What a right is about (Kafka's `ResourceType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// A transactional id.
    TransactionalId,
    /// The cluster itself.
    Cluster,
}

/// What may be done (Kafka's `AclOperation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Fetch; commit offsets of a group.
    Read,
    /// Produce; transactions of an id.
    Write,
    /// Create topics.
    Create,
    /// See that it is there.
    Describe,
    /// See how it is set up.
    DescribeConfigs,
}

/// The broker; stopped and its data removed when dropped.
#[derive(Debug)]
pub struct SecureKafka {
    server: ServerProcess,
    ports: [u16; LISTENERS.len()],
    authority: Authority,
    stranger: Authority,
    mechanisms: &'static [&'static str],
    dir: TempDir,
}

impl SecureKafka {
    /// Fetches Kafka `version` (once) and starts it.
    ///
    /// # Errors
    /// As [`RealKafka::start`](super::RealKafka::start).
    pub fn start(version: &str) -> io::Result<Self> {
        let installation = Installation::of(version)?;
        let mechanisms = mechanisms(version);
        on_free_ports(|| Self::start_once(&installation, mechanisms))
    }

    fn start_once(
        installation: &Installation,
        mechanisms: &'static [&'static str],
    ) -> io::Result<Self> {
        let dir = new_folder()?;
        let (authority, stranger) = (
            Authority::new("tidegate tests")?,
            Authority::new("strangers")?,
        );
        fs::write(dir.path().join("ca.pem"), authority.certificate())?;
        fs::write(dir.path().join("other-ca.pem"), stranger.certificate())?;
        let all_ports: [u16; LISTENERS.len() + 1] = free_ports()?;
        let mut ports = [0; LISTENERS.len()];
        ports.copy_from_slice(&all_ports[..LISTENERS.len()]);
        sign_servers(&authority, dir.path())?;
        let controller = all_ports[LISTENERS.len()];
        fs::write(
            dir.path().join("server.properties"),
            configuration(dir.path(), &ports, controller, mechanisms),
        )?;
        installation.format(dir.path(), &scram_users(mechanisms))?;
        let mut server = installation.launch(dir.path())?;
        let door = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
        wait_until_ready(&mut server, door)?;
        Ok(Self {
            server,
            ports,
            authority,
            stranger,
            mechanisms,
            dir,
        })
    }

    /// The mechanisms of SASL by which a user can come in with a password.
    #[must_use]
    pub fn password_mechanisms(&self) -> &'static [&'static str] {
        self.mechanisms
    }

    /// `HOST:PORT` of a listener.
    #[must_use]
    pub fn address(&self, listener: Listener) -> String {
        let all = LISTENERS.iter().zip(self.ports);
        let port = all.clone().find(|((other, ..), _)| *other == listener);
        format!("127.0.0.1:{}", port.map_or(0, |(_, port)| port))
    }

    /// The file with the authority that signed the broker's certificates.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The file with an authority that signed nothing of the broker's.
    #[must_use]
    pub fn other_authority(&self) -> PathBuf {
        self.dir.path().join("other-ca.pem")
    }

    /// A file with a key and a certificate that the broker takes for `user`'s.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn identity(&self, user: &str) -> io::Result<PathBuf> {
        self.sign(&self.authority, user, false, user)
    }

    /// As [`identity`](Self::identity), of a certificate that has expired.
    ///
    /// # Errors
    /// As [`identity`](Self::identity).
    pub fn expired_identity(&self, user: &str) -> io::Result<PathBuf> {
        self.sign(&self.authority, user, true, &format!("expired-{user}"))
    }

    /// As [`identity`](Self::identity), signed by somebody whom the broker does not know.
    ///
    /// # Errors
    /// As [`identity`](Self::identity).
    pub fn foreign_identity(&self, user: &str) -> io::Result<PathBuf> {
        self.sign(&self.stranger, user, false, &format!("foreign-{user}"))
    }

    fn sign(
        &self,
        authority: &Authority,
        user: &str,
        expired: bool,
        file: &str,
    ) -> io::Result<PathBuf> {
        let subject = Subject {
            common_name: user,
            names: &[],
            expired,
        };
        authority.sign(&subject, self.dir.path(), file)
    }

    /// An administrator.
    ///
    /// # Errors
    /// The broker is not there.
    pub fn admin(&self) -> io::Result<RawClient> {
        RawClient::connect(&self.address(Listener::Plaintext))
    }

    /// Lets `user` do that with what is called `name`, and waits until it holds.
    ///
    /// # Errors
    /// The broker refuses, or it does not hold in time.
    pub fn allow(
        &self,
        user: &str,
        resource: Resource,
        name: &str,
        operation: Operation,
    ) -> io::Result<()> {
        const VERSION: i16 = 3;
        const LITERAL: i8 = 3;
        const ALLOW: i8 = 3;
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let principal = format!("User:{user}");
        let creation = AclCreation::default()
            .with_resource_type(resource.code())
            .with_resource_name(text(name))
            .with_resource_pattern_type(LITERAL)
            .with_principal(text(&principal))
            .with_host(text("*"))
            .with_operation(operation.code())
            .with_permission_type(ALLOW);
        let mut admin = self.admin()?;
        let request = CreateAclsRequest::default().with_creations(vec![creation]);
        let answer = admin.call(&request, VERSION)?;
        let result = answer.results.first();
        if result.is_none_or(|result| result.error_code != 0) {
            return Err(io::Error::other(format!("CreateAcls: {result:?}")));
        }
        let holds = DescribeAclsRequest::default()
            .with_resource_type_filter(resource.code())
            .with_resource_name_filter(Some(text(name)))
            .with_pattern_type_filter(LITERAL)
            .with_principal_filter(Some(text(&principal)))
            .with_host_filter(None)
            .with_operation(operation.code())
            .with_permission_type(ALLOW);
        let started = Instant::now();
        while admin.call(&holds, VERSION)?.resources.is_empty() {
            if started.elapsed() > PATIENCE {
                return Err(io::Error::other("a new right does not reach the broker"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The end of the broker's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }
}

impl Resource {
    fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Group => 3,
            Self::Cluster => 4,
            Self::TransactionalId => 5,
        }
    }
}

impl Operation {
    fn code(self) -> i8 {
        match self {
            Self::Read => 3,
            Self::Write => 4,
            Self::Create => 5,
            Self::Describe => 8,
            Self::DescribeConfigs => 10,
        }
    }
}

/// The password of a user.
#[must_use]
pub fn password(user: &str) -> String {
    format!("{user}-secret")
}

fn users() -> impl Iterator<Item = &'static str> {
    USERS.into_iter().chain([ADMIN])
}

/// The mechanisms for passwords; before Kafka 3.5 a cluster with KRaft has no SCRAM (KIP-900).
fn mechanisms(version: &str) -> &'static [&'static str] {
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (3, 5) {
        &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    } else {
        &["PLAIN"]
    }
}

/// What the storage tool is told of users, for those of `mechanisms` that are SCRAM.
fn scram_users(mechanisms: &[&str]) -> Vec<String> {
    let scram = mechanisms.iter().filter(|name| name.starts_with("SCRAM"));
    let of = |user: &str| {
        let one = |mechanism: &&str| {
            let users = format!("{mechanism}=[name={user},password={}]", password(user));
            ["--add-scram".to_owned(), users]
        };
        scram.clone().flat_map(one).collect::<Vec<_>>()
    };
    users().flat_map(of).collect()
}

fn sign_servers(authority: &Authority, dir: &Path) -> io::Result<()> {
    let here: &[&str] = &["localhost", "127.0.0.1"];
    for (file, names, expired) in [
        ("server", here, false),
        ("expired-server", here, true),
        ("other-server", &["broker.example"][..], false),
    ] {
        let subject = Subject {
            common_name: "broker",
            names,
            expired,
        };
        authority.sign(&subject, dir, file)?;
    }
    Ok(())
}

fn configuration(dir: &Path, ports: &[u16], controller: u16, mechanisms: &[&str]) -> String {
    let enabled = mechanisms.join(",");
    let joined = |line: &dyn Fn(&str, &str, u16) -> String| {
        let all = LISTENERS.iter().zip(ports);
        let lines = all.map(|((_, name, protocol), port)| line(name, protocol, *port));
        lines.collect::<Vec<_>>().join(",")
    };
    let addresses = joined(&|name, _, port| format!("{name}://127.0.0.1:{port}"));
    let protocols = joined(&|name, protocol, _| format!("{name}:{protocol}"));
    let folder = dir.display();
    let mut text = common(&dir.join("data"), 1);
    let plain_users = users().fold(String::new(), |mut all, user| {
        write!(all, " user_{user}=\"{}\"", password(user)).ok();
        all
    });
    let session = SESSION.as_millis();
    write!(
        text,
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={addresses},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={addresses}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
ssl.client.auth=none
listener.name.mutual.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={folder}/expired-server.pem
listener.name.expired.ssl.keystore.type=PEM
listener.name.othername.ssl.keystore.location={folder}/other-server.pem
listener.name.othername.ssl.keystore.type=PEM
ssl.principal.mapping.rules=RULE:^.*?CN=([^,]+).*$/$1/,DEFAULT
sasl.enabled.mechanisms={enabled},OAUTHBEARER
listener.name.short.connections.max.reauth.ms={session}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{ADMIN};User:ANONYMOUS
allow.everyone.if.no.acl.found=false
connection.failed.authentication.delay.ms=100
num.partitions=1
"
    )
    .ok();
    let package = "org.apache.kafka.common.security";
    for name in ["sasl", "sasltls", "short"] {
        let prefix = format!("listener.name.{name}");
        write!(
            text,
            "{prefix}.plain.sasl.jaas.config={package}.plain.PlainLoginModule required{plain_users};
{prefix}.scram-sha-256.sasl.jaas.config={package}.scram.ScramLoginModule required;
{prefix}.scram-sha-512.sasl.jaas.config={package}.scram.ScramLoginModule required;
{prefix}.oauthbearer.sasl.jaas.config={package}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";
"
        )
        .ok();
    }
    text
}
