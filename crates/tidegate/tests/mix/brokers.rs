//! The brokers of the mix: Apache Kafka of three nodes, or the embedded one as a process of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tidegate_testkit::kafka::answers_api_versions;
use tidegate_testkit::kafka::replicated::{NODES, ReplicatedKafka};
use tidegate_testkit::proxy::messages::{DeleteTopicsRequest, TopicName};
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::server::{ServerProcess, free_ports};
use tidegate_testkit::services;

use crate::book::Shared;
use crate::common::Folder;
use crate::plan::BrokerFault;

const START_PATIENCE: Duration = Duration::from_secs(60);
const DELETE_TOPICS: i16 = 4;

/// Brokers of the test's own, which it may kill.
pub(crate) enum Brokers {
    Replicated(Box<ReplicatedKafka>),
    Embedded(Embedded),
}

/// `tidegate broker`.
pub(crate) struct Embedded {
    server: ServerProcess,
    address: SocketAddr,
    arguments: Vec<String>,
    is_frozen: bool,
    folder: Folder,
}

impl Embedded {
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let [port] = free_ports().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let arguments = [
            "broker",
            "--listen",
            &address.to_string(),
            "--registry-listen",
            "127.0.0.1:0",
            "--data-dir",
            &folder.name("data"),
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        let mut broker = Self {
            server: launch(&folder, &arguments),
            address,
            arguments,
            is_frozen: false,
            folder,
        };
        broker.wait_until_ready();
        broker
    }

    fn restart(&mut self) {
        self.server.kill();
        self.is_frozen = false;
        self.server = launch(&self.folder, &self.arguments);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let address = self.address;
        let ready = || answers_api_versions(address).unwrap_or(false);
        self.server
            .wait_until("the embedded broker", START_PATIENCE, ready)
            .unwrap();
    }

    fn answers(&mut self) -> bool {
        self.server.is_running() && !self.is_frozen
    }
}

fn launch(folder: &Folder, arguments: &[String]) -> ServerProcess {
    let (dir, program) = (folder.path("."), env!("CARGO_BIN_EXE_tidegate"));
    ServerProcess::start(&dir, &dir, Path::new(program), arguments).unwrap()
}

impl Brokers {
    pub(crate) fn nodes(&self) -> usize {
        match self {
            Self::Replicated(_) => NODES,
            Self::Embedded(_) => 1,
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Replicated(_) => format!("{}, three nodes", services::kafka_name()),
            Self::Embedded(_) => "embedded, as a process".to_owned(),
        }
    }

    pub(crate) fn bootstrap(&self) -> String {
        match self {
            Self::Replicated(kafka) => kafka.bootstrap(),
            Self::Embedded(broker) => broker.address.to_string(),
        }
    }

    pub(crate) fn answering(&mut self) -> Vec<SocketAddr> {
        match self {
            Self::Replicated(kafka) => kafka.running(),
            Self::Embedded(broker) => {
                let address = broker.answers().then_some(broker.address);
                address.into_iter().collect()
            }
        }
    }

    /// Makes the fault; the nodes that it hit, of which none is left if it could not be made.
    pub(crate) fn strike(&mut self, fault: BrokerFault, shared: &Shared) -> Vec<i32> {
        let node = |index: usize| i32::try_from(index % self.nodes()).unwrap() + 1;
        let all = 1..=i32::try_from(self.nodes()).unwrap();
        let hit: Vec<i32> = match fault {
            BrokerFault::Killed(index)
            | BrokerFault::Stopped(index)
            | BrokerFault::Frozen(index) => vec![node(index)],
            BrokerFault::AllButOneKilled(index) => all.filter(|id| *id != node(index)).collect(),
            BrokerFault::LeaderMoved(partition) => {
                let (topic, partitions) = shared.topic();
                let Self::Replicated(kafka) = self else {
                    return Vec::new();
                };
                let moved = kafka.move_leader(&topic, partition % partitions.max(1));
                return moved.into_iter().collect();
            }
        };
        for id in &hit {
            match (&mut *self, fault) {
                (Self::Replicated(kafka), BrokerFault::Stopped(_)) => kafka.stop(*id),
                (Self::Replicated(kafka), BrokerFault::Frozen(_)) => kafka.freeze(*id),
                (Self::Replicated(kafka), _) => kafka.kill(*id),
                (Self::Embedded(broker), BrokerFault::Stopped(_)) => broker.server.stop(),
                (Self::Embedded(broker), BrokerFault::Frozen(_)) => {
                    broker.server.signal(Signal::STOP);
                    broker.is_frozen = true;
                }
                (Self::Embedded(broker), _) => broker.server.kill(),
            }
        }
        shared.set_answering(self.answering());
        hit
    }

    /// Ends the fault that hit these nodes, and waits until they answer.
    pub(crate) fn heal(&mut self, fault: BrokerFault, hit: &[i32], shared: &Shared) {
        match (&mut *self, fault) {
            (_, BrokerFault::LeaderMoved(_)) => {}
            (Self::Replicated(kafka), BrokerFault::Frozen(_)) => {
                hit.iter().for_each(|id| kafka.thaw(*id));
            }
            (Self::Replicated(kafka), _) => kafka.restart(hit).unwrap(),
            (Self::Embedded(broker), BrokerFault::Frozen(_)) => {
                broker.server.signal(Signal::CONT);
                broker.is_frozen = false;
            }
            (Self::Embedded(broker), _) => broker.restart(),
        }
        shared.set_answering(self.answering());
    }

    /// The sum of the offsets behind the last records of all partitions; none while not all can be asked.
    pub(crate) fn end(&mut self, topic: &str, partitions: i32) -> Option<i64> {
        match self {
            Self::Replicated(kafka) => (0..partitions)
                .map(|partition| kafka.end_offset(topic, partition).ok())
                .sum(),
            Self::Embedded(broker) => {
                let mut client = RawClient::connect(&broker.address.to_string()).ok()?;
                let ends = client.end_offsets(topic).ok()?;
                (ends.len() == usize::try_from(partitions).ok()?).then(|| ends.values().sum())
            }
        }
    }

    /// Deletes topics, so that a long mix needs no large disk.
    pub(crate) fn delete_topics(&mut self, topics: &[String]) -> io::Result<()> {
        let names = topics.iter().map(|topic| TopicName(topic.clone().into()));
        let request = DeleteTopicsRequest::default()
            .with_topic_names(names.collect())
            .with_timeout_ms(30_000);
        let address = self.answering()[0].to_string();
        RawClient::connect(&address)?
            .call(&request, DELETE_TOPICS)
            .map(|_| ())
    }
}
