//! Kafka's jars, the Java that runs them, and what is the same for every node that is started of them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::answers_api_versions;
use crate::cache::{cached, maven};
use crate::java;
use crate::server::ServerProcess;

/// How long a broker may take to answer. It takes 3 s on two quiet cores; a disk that is still busy with a build can hold it up for minutes.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// A base64 UUID, as Kafka's storage tool takes it. Nobody else sees the cluster, so any will do.
const CLUSTER_ID: &str = "dGlkZWdhdGUtdGVzdGtpdA";
/// How often other ports are tried where somebody else took one between our look and Kafka's.
const ATTEMPTS: u32 = 3;

/// Kafka of one version, ready to be started.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    java: PathBuf,
    jars: PathBuf,
}

impl Installation {
    /// Finds a Java and fetches Kafka `version`, once.
    pub(super) fn of(version: &str) -> io::Result<Self> {
        Ok(Self {
            java: java::find(17)?.command,
            jars: fetch(version)?,
        })
    }

    /// Makes the folder of a node ready that is configured in `server.properties` there. `arguments` go to the storage tool.
    pub(super) fn format(&self, dir: &Path, arguments: &[String]) -> io::Result<()> {
        let output = Command::new(&self.java)
            .args([
                "-Xmx128m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-cp",
            ])
            .arg(self.class_path())
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(dir.join("server.properties"))
            .args(arguments)
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

    /// Starts the node of that folder.
    pub(super) fn launch(&self, dir: &Path) -> io::Result<ServerProcess> {
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
        arguments.push(self.class_path());
        arguments.push("kafka.Kafka".to_owned());
        arguments.push(dir.join("server.properties").display().to_string());
        ServerProcess::start(dir, dir, &self.java, &arguments)
    }

    fn class_path(&self) -> String {
        format!("{}/*", self.jars.display())
    }
}

/// Waits until the node answers at `address`.
pub(super) fn wait_until_ready(server: &mut ServerProcess, address: SocketAddr) -> io::Result<()> {
    server.wait_until("Kafka", START_PATIENCE, || {
        answers_api_versions(address).unwrap_or(false)
    })
}

/// Starts something on free ports, and on others where one was taken meanwhile.
pub(super) fn on_free_ports<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut attempt = 1;
    loop {
        match start() {
            Err(error)
                if attempt < ATTEMPTS && error.to_string().contains("Address already in use") =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// What every node has in its configuration; `data` is where its records are. Kafka's own topics get the replication factor of `replicas`.
///
/// Records are kept for ten years: those of many tests are of years ago, and Kafka deletes what is older than its usual week whenever it looks, half a minute
/// after its start and every five minutes, in the middle of a test.
pub(super) fn common(data: &Path, replicas: u16) -> String {
    let in_sync = replicas.div_ceil(2).max(1);
    format!(
        "log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
log.retention.hours=87600
log.cleaner.dedupe.buffer.size=33554432
",
        data.display()
    )
}

/// The folder with Kafka's jars (54 MB), fetched on first use.
fn fetch(version: &str) -> io::Result<PathBuf> {
    cached(&format!("kafka-{version}"), |dir| {
        let project = tempfile::tempdir()?;
        fs::write(project.path().join("pom.xml"), pom(version))?;
        let target = format!("-DoutputDirectory={}", dir.display());
        let goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies";
        // Kafka before 4 brings a binding of slf4j of its own, which needs a file to write anything: there must be one alone.
        let without = "-DexcludeArtifactIds=slf4j-reload4j";
        maven(project.path(), &[goal, &target, without])
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
