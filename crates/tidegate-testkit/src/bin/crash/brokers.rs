//! The broker of a campaign: the embedded one as a process of its own, or Apache Kafka; killed and started again on the same port and data.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kafka_protocol::messages::{DeleteTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tidegate_testkit::apicurio::RealRegistry;
use tidegate_testkit::kafka::{RealKafka, answers_api_versions};
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::server::{ServerProcess, free_ports};
use tidegate_testkit::services;

const START_PATIENCE: Duration = Duration::from_secs(60);
const DELETE_TOPICS: i16 = 4;

/// A broker, and a registry where one is needed.
pub(crate) struct Brokers {
    kind: Kind,
    pub(crate) bootstrap: String,
    pub(crate) registry: Option<String>,
    /// How often it was started.
    pub(crate) generation: u64,
}

enum Kind {
    Embedded {
        server: ServerProcess,
        command: EmbeddedCommand,
    },
    Kafka {
        kafka: Box<RealKafka>,
        _registry: Option<Box<RealRegistry>>,
    },
    /// Somebody else's: it is not killed.
    Given,
}

struct EmbeddedCommand {
    program: PathBuf,
    /// The server's own folder, with its log.
    dir: PathBuf,
    arguments: Vec<String>,
}

impl EmbeddedCommand {
    fn start(&self) -> io::Result<ServerProcess> {
        ServerProcess::start(&self.dir, &self.dir, &self.program, &self.arguments)
    }
}

impl Brokers {
    /// `tidegate broker`, with its data in `folder`.
    pub(crate) fn embedded(program: &Path, folder: &Path) -> io::Result<Self> {
        let [port, registry_port] = free_ports()?;
        let dir = folder.join("broker");
        std::fs::create_dir_all(&dir)?;
        let bootstrap = format!("127.0.0.1:{port}");
        let arguments = [
            "broker",
            "--listen",
            &bootstrap,
            "--registry-listen",
            &format!("127.0.0.1:{registry_port}"),
            "--data-dir",
            &folder.join("data").display().to_string(),
        ];
        let command = EmbeddedCommand {
            program: program.to_owned(),
            dir,
            arguments: arguments.map(str::to_owned).to_vec(),
        };
        let mut brokers = Self {
            kind: Kind::Embedded {
                server: command.start()?,
                command,
            },
            bootstrap,
            registry: Some(format!("http://127.0.0.1:{registry_port}")),
            generation: 1,
        };
        brokers.wait_until_ready()?;
        Ok(brokers)
    }

    /// A Kafka of the campaign's own, and a registry of its own where `registry` names none and one is needed.
    pub(crate) fn kafka(registry: Option<String>, needs_registry: bool) -> io::Result<Self> {
        let own = (registry.is_none() && needs_registry)
            .then(|| RealRegistry::start(&services::registry_options()))
            .transpose()?;
        let kafka = RealKafka::start(&services::kafka_version(), "")?;
        Ok(Self {
            bootstrap: kafka.address().to_string(),
            registry: registry.or_else(|| own.as_ref().map(|own| own.url().to_owned())),
            kind: Kind::Kafka {
                kafka: Box::new(kafka),
                _registry: own.map(Box::new),
            },
            generation: 1,
        })
    }

    /// A cluster that is there already.
    pub(crate) fn given(bootstrap: &str, registry: Option<String>) -> Self {
        Self {
            kind: Kind::Given,
            bootstrap: bootstrap.to_owned(),
            registry,
            generation: 1,
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.generation += 1;
        match &mut self.kind {
            Kind::Embedded { server, .. } => server.kill(),
            Kind::Kafka { kafka, .. } => kafka.kill(),
            Kind::Given => {}
        }
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Embedded { server, command } => *server = command.start()?,
            Kind::Kafka { kafka, .. } => return kafka.restart(),
            Kind::Given => return Ok(()),
        }
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let address = self.bootstrap.parse().map_err(io::Error::other)?;
        if let Kind::Embedded { server, .. } = &mut self.kind {
            server.wait_until("the embedded broker", START_PATIENCE, || {
                answers_api_versions(address).unwrap_or(false)
            })?;
        }
        Ok(())
    }

    /// Deletes a topic, so that a long campaign needs no large disk.
    pub(crate) fn delete_topic(&self, topic: &str) -> io::Result<()> {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name])
            .with_timeout_ms(30_000);
        let answer = RawClient::connect(&self.bootstrap)?.call(&request, DELETE_TOPICS)?;
        match answer.responses.first().map(|topic| topic.error_code) {
            Some(0) => Ok(()),
            code => Err(io::Error::other(format!("DeleteTopics: {code:?}"))),
        }
    }
}
