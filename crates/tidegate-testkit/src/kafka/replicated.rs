//! A Kafka of three nodes: three replicas of everything, of which two must be in sync. Its nodes can be killed, stopped, frozen and started again, and
//! leaders moved.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
use kafka_protocol::protocol::StrBytes;
use rustix::process::Signal;
use tempfile::TempDir;

use super::installation::{Installation, common, on_free_ports, wait_until_ready};
use super::new_folder;
use crate::log::LogRecord;
use crate::raw::{self, RawClient};
use crate::server::{ServerProcess, free_ports};

/// How many nodes there are.
pub const NODES: usize = 3;
/// After how long without a sign of life a broker counts as dead. Kafka's default is 9 s; tests have less time.
const SESSION_MS: u32 = 3_000;
/// How long the cluster may take to agree on something.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// The cluster; stopped and its data removed when dropped.
#[derive(Debug)]
pub struct ReplicatedKafka {
    nodes: Vec<Node>,
    installation: Installation,
    dir: TempDir,
}

#[derive(Debug)]
struct Node {
    server: ServerProcess,
    address: SocketAddr,
    is_frozen: bool,
}

impl ReplicatedKafka {
    /// Fetches Kafka `version` (once) and starts its nodes. `properties` are added to the configuration of each.
    ///
    /// # Errors
    /// As [`RealKafka::start`](super::RealKafka::start).
    pub fn start(version: &str, properties: &str) -> io::Result<Self> {
        let installation = Installation::of(version)?;
        on_free_ports(|| Self::start_once(&installation, properties))
    }

    fn start_once(installation: &Installation, properties: &str) -> io::Result<Self> {
        let dir = new_folder()?;
        let brokers: [u16; NODES] = free_ports()?;
        let controllers: [u16; NODES] = free_ports()?;
        let folders: Vec<_> = (1..=NODES)
            .map(|id| dir.path().join(id.to_string()))
            .collect();
        for (index, folder) in folders.iter().enumerate() {
            fs::create_dir(folder)?;
            let text = configuration(folder, index, &brokers, &controllers, properties);
            fs::write(folder.join("server.properties"), text)?;
        }
        thread::scope(|scope| {
            let format = |folder| scope.spawn(move || installation.format(folder, &[]));
            let formatting: Vec<_> = folders.iter().map(|folder| format(folder)).collect();
            formatting.into_iter().try_for_each(|done| {
                done.join()
                    .unwrap_or_else(|_| Err(io::Error::other("formatting panicked")))
            })
        })?;
        let nodes = folders.iter().zip(brokers).map(|(folder, port)| {
            Ok(Node {
                server: installation.launch(folder)?,
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                is_frozen: false,
            })
        });
        let mut kafka = Self {
            nodes: nodes.collect::<io::Result<_>>()?,
            installation: installation.clone(),
            dir,
        };
        for node in &mut kafka.nodes {
            wait_until_ready(&mut node.server, node.address)?;
        }
        kafka.wait_until("all brokers are there", |kafka| {
            raw::describe(&kafka.running(), None).is_ok_and(|view| view.brokers.len() == NODES)
        })?;
        Ok(kafka)
    }

    /// All brokers, for clients.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let all = self.nodes.iter().map(|node| node.address.to_string());
        all.collect::<Vec<_>>().join(",")
    }

    /// Where the node of this id, from 1, listens.
    #[must_use]
    pub fn address(&self, id: i32) -> SocketAddr {
        self.nodes[index(id)].address
    }

    /// Where the nodes listen that run and can answer.
    pub fn running(&mut self) -> Vec<SocketAddr> {
        let running = self.nodes.iter_mut();
        let running = running.filter_map(|node| {
            let answers = node.server.is_running() && !node.is_frozen;
            answers.then_some(node.address)
        });
        running.collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: i32) {
        self.nodes[index(id)].server.kill();
    }

    /// An orderly stop, as an operator does it: leaders move before.
    pub fn stop(&mut self, id: i32) {
        self.nodes[index(id)].server.stop();
    }

    /// Freezes the node: it keeps its connections, and says nothing.
    pub fn freeze(&mut self, id: i32) {
        let node = &mut self.nodes[index(id)];
        node.server.signal(Signal::STOP);
        node.is_frozen = true;
    }

    /// Lets a frozen node go on.
    pub fn thaw(&mut self, id: i32) {
        let node = &mut self.nodes[index(id)];
        node.server.signal(Signal::CONT);
        node.is_frozen = false;
    }

    /// Starts nodes again that were killed or stopped, and waits until they answer.
    ///
    /// # Errors
    /// One does not come up.
    pub fn restart(&mut self, ids: &[i32]) -> io::Result<()> {
        for id in ids {
            let folder = self.dir.path().join(id.to_string());
            let node = &mut self.nodes[index(*id)];
            node.server.kill();
            node.is_frozen = false;
            node.server = self.installation.launch(&folder)?;
        }
        // Without a majority of the controllers none of them answers.
        ids.iter().try_for_each(|id| {
            let node = &mut self.nodes[index(*id)];
            wait_until_ready(&mut node.server, node.address)
        })
    }

    /// Has every node run again, whatever became of it.
    ///
    /// # Errors
    /// One does not come up.
    pub fn recover(&mut self) -> io::Result<()> {
        let mut dead = Vec::new();
        for (id, node) in (1..).zip(&mut self.nodes) {
            if node.server.is_running() {
                node.server.signal(Signal::CONT);
                node.is_frozen = false;
            } else {
                dead.push(id);
            }
        }
        self.restart(&dead)
    }

    /// The leader of a partition; none while there is none.
    ///
    /// # Errors
    /// No node answers.
    pub fn leader(&mut self, topic: &str, partition: i32) -> io::Result<Option<i32>> {
        let view = raw::describe(&self.running(), Some(topic))?;
        Ok(view.leaders.get(&partition).copied())
    }

    /// The offset behind the last record of a partition, as its leader has it.
    ///
    /// # Errors
    /// It has no leader, or that does not answer.
    pub fn end_offset(&mut self, topic: &str, partition: i32) -> io::Result<i64> {
        let leader = self.leader(topic, partition)?;
        let leader = leader.filter(|leader| !self.nodes[index(*leader)].is_frozen);
        let leader = leader.ok_or_else(|| io::Error::other("no leader that answers"))?;
        let mut client = RawClient::connect(&self.address(leader).to_string())?;
        client.end_offset(topic, partition)
    }

    /// Shows every committed record of a topic.
    ///
    /// # Errors
    /// As [`raw::read_committed`].
    pub fn read_committed(&mut self, topic: &str, show: impl FnMut(LogRecord)) -> io::Result<()> {
        raw::read_committed(&self.running(), topic, show)
    }

    /// Waits until every partition of the topic has all its replicas in sync again.
    ///
    /// # Errors
    /// It does not happen.
    pub fn wait_until_in_sync(&mut self, topic: &str) -> io::Result<()> {
        self.wait_until("all replicas are in sync", |kafka| {
            raw::describe(&kafka.running(), Some(topic)).is_ok_and(|view| {
                !view.in_sync.is_empty() && view.in_sync.iter().all(|count| *count == NODES)
            })
        })
    }

    /// Has another replica lead the partition; gives the new leader.
    ///
    /// # Errors
    /// The cluster refuses, or does not come to it.
    pub fn move_leader(&mut self, topic: &str, partition: i32) -> io::Result<i32> {
        const REASSIGN: i16 = 0;
        const ELECT: i16 = 2;
        let now = self.leader(topic, partition)?.unwrap_or(1);
        let next = now % i32::try_from(NODES).unwrap_or(1) + 1;
        let others = (1..).take(NODES).filter(|id| *id != next);
        let replicas = [next].into_iter().chain(others).map(Into::into);
        let name = kafka_protocol::messages::TopicName(StrBytes::from_string(topic.to_owned()));
        let reassigned = ReassignableTopic::default()
            .with_name(name.clone())
            .with_partitions(vec![
                ReassignablePartition::default()
                    .with_partition_index(partition)
                    .with_replicas(Some(replicas.collect())),
            ]);
        let order = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(30_000)
            .with_topics(vec![reassigned]);
        let elected = TopicPartitions::default()
            .with_topic(name)
            .with_partitions(vec![partition]);
        // The first replica in the order is the preferred one.
        let election = ElectLeadersRequest::default()
            .with_timeout_ms(30_000)
            .with_election_type(0)
            .with_topic_partitions(Some(vec![elected]));
        let address = self.address(now).to_string();
        RawClient::connect(&address)?.call(&order, REASSIGN)?;
        self.wait_until("the leader moved", |kafka| {
            // Refused while the order is being changed; then asked again.
            RawClient::connect(&address)
                .and_then(|mut client| client.call(&election, ELECT))
                .is_ok()
                && kafka.leader(topic, partition).ok().flatten() == Some(next)
        })?;
        Ok(next)
    }

    fn wait_until(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> io::Result<()> {
        let started = Instant::now();
        while !condition(self) {
            if started.elapsed() > PATIENCE {
                let tail = self.nodes[0].server.log_tail();
                let message = format!("not in time: {what}; the end of node 1's log:\n{tail}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

fn index(id: i32) -> usize {
    usize::try_from(id - 1).unwrap_or(0)
}

fn configuration(
    folder: &Path,
    index: usize,
    brokers: &[u16],
    controllers: &[u16],
    properties: &str,
) -> String {
    let (id, port, controller) = (index + 1, brokers[index], controllers[index]);
    let voters = controllers.iter().enumerate();
    let voters = voters.map(|(index, port)| format!("{}@127.0.0.1:{port}", index + 1));
    let voters = voters.collect::<Vec<_>>().join(",");
    let common = common(&folder.join("data"), 3);
    let heartbeat = SESSION_MS / 5;
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
default.replication.factor=3
min.insync.replicas=2
num.partitions=3
unclean.leader.election.enable=false
auto.leader.rebalance.enable=false
broker.session.timeout.ms={SESSION_MS}
broker.heartbeat.interval.ms={heartbeat}
replica.lag.time.max.ms=10000
num.network.threads=2
num.io.threads=4
{common}{properties}
"
    )
}
