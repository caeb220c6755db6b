//! Starts a real Apache Kafka broker: one node, KRaft, on free ports of 127.0.0.1.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::cache::{cached, maven};
use crate::java;
use crate::server::{ServerProcess, free_ports};

/// The version that tests run on unless told otherwise.
pub const DEFAULT_VERSION: &str = "4.3.1";

/// How long a broker may take to answer. It takes 3 s on two quiet cores; a disk that is still busy with a build can hold it up for minutes.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// A base64 UUID, as Kafka's storage tool takes it. Nobody else sees the cluster, so any will do.
const CLUSTER_ID: &str = "dGlkZWdhdGUtdGVzdGtpdA";

/// A broker of its own; stopped and its data removed when dropped.
#[derive(Debug)]
pub struct RealKafka {
    server: ServerProcess,
    address: SocketAddr,
    java: PathBuf,
    jars: PathBuf,
    dir: TempDir,
}

impl RealKafka {
    /// Fetches Kafka `version` (once) and starts it. `properties` are added to its configuration, one `name=value` a line.
    ///
    /// # Errors
    /// Java or Maven is missing, the download fails, or the broker does not come up; the message says which.
    pub fn start(version: &str, properties: &str) -> io::Result<Self> {
        let java = java::find(17)?.command;
        let jars = fetch(version)?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&java, &jars, properties) {
                // Somebody else took a port between our look and Kafka's.
                Err(error)
                    if attempt < 3 && error.to_string().contains("Address already in use") =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn start_once(java: &Path, jars: &Path, properties: &str) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("tidegate-kafka-")
            .tempdir()?;
        let [port, controller] = free_ports()?;
        let config = dir.path().join("server.properties");
        fs::write(
            &config,
            configuration(dir.path(), port, controller, properties),
        )?;
        format_storage(java, jars, &config)?;
        let server = launch(java, jars, dir.path())?;
        let mut kafka = Self {
            server,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            java: java.to_owned(),
            jars: jars.to_owned(),
            dir,
        };
        kafka.wait_until_ready()?;
        Ok(kafka)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process, to send it signals.
    pub fn server(&mut self) -> &mut ServerProcess {
        &mut self.server
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// An orderly stop, as an operator does it.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Starts it again on the same data and port, after [`kill`](Self::kill) or [`stop`](Self::stop), and waits until it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> io::Result<()> {
        self.server.kill();
        self.server = launch(&self.java, &self.jars, self.dir.path())?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let address = self.address;
        self.server.wait_until("Kafka", START_PATIENCE, || {
            answers_api_versions(address).unwrap_or(false)
        })
    }
}

/// The folder with Kafka's jars (54 MB), fetched on first use.
fn fetch(version: &str) -> io::Result<PathBuf> {
    cached(&format!("kafka-{version}"), |dir| {
        let project = tempfile::tempdir()?;
        fs::write(project.path().join("pom.xml"), pom(version))?;
        let target = format!("-DoutputDirectory={}", dir.display());
        let goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies";
        maven(project.path(), &[goal, &target])
    })
}

fn pom(version: &str) -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tidegate</groupId><artifactId>kafka-jars</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}{}{}</dependencies></project>"#,
        dependency("org.apache.kafka", "kafka_2.13", version),
        dependency("org.apache.kafka", "kafka-tools", version),
        // Without a binding of slf4j the broker's log stays empty.
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    )
}

fn configuration(dir: &Path, port: u16, controller: u16, properties: &str) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=33554432
{properties}
",
        dir.join("data").display()
    )
}

fn class_path(jars: &Path) -> String {
    format!("{}/*", jars.display())
}

fn format_storage(java: &Path, jars: &Path, config: &Path) -> io::Result<()> {
    let output = Command::new(java)
        .args([
            "-Xmx128m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-cp",
        ])
        .arg(class_path(jars))
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(config)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(io::Error::other(format!(
        "Kafka's storage cannot be formatted: {}",
        String::from_utf8_lossy(&said)
    )))
}

fn launch(java: &Path, jars: &Path, dir: &Path) -> io::Result<ServerProcess> {
    let arguments = [
        "-Xms400m",
        "-Xmx400m",
        // Quick to start, light on two cores that the tests share with it.
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
    ];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    arguments.push(class_path(jars));
    arguments.push("kafka.Kafka".to_owned());
    arguments.push(dir.join("server.properties").display().to_string());
    ServerProcess::start(dir, dir, java, &arguments)
}

/// Whether a broker answers ApiVersions. Kafka opens its port before it takes requests; it takes requests only once it is part of its cluster.
///
/// # Errors
/// No connection, or it broke.
pub fn answers_api_versions(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // Length 10; API key 18, version 0, correlation id 7, client id null.
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    // Length; correlation id; error code.
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    Ok(answer[4..] == [0, 0, 0, 7, 0, 0])
}
