//! What metadata says about a cluster: its brokers, and who leads which partition.

use std::collections::BTreeMap;

use kafka_protocol::messages::MetadataResponse;

use crate::error::{Error, ErrorKind};
use crate::retry;

/// One picture of the cluster, as one Metadata answer gave it.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Brokers by node id.
    pub brokers: BTreeMap<i32, BrokerAddress>,
    /// The topics that were asked for, by name, those with an error included.
    pub topics: BTreeMap<String, TopicView>,
    /// The cluster's id, if it has one.
    pub cluster_id: Option<String>,
    /// Node id of the controller; -1 if unknown.
    pub controller: i32,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Rack, if the broker has one.
    pub rack: Option<String>,
}

impl std::fmt::Display for BrokerAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// One topic.
#[derive(Clone, Debug, Default)]
pub struct TopicView {
    /// Its id (KIP-516): a topic that was deleted and created again has another. Zero where the broker gives none.
    pub id: [u8; 16],
    /// 0, or why the broker says nothing about it.
    pub error_code: i16,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionView>,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionView {
    /// Its number, from 0.
    pub partition: i32,
    /// Node id of its leader; -1 if it has none.
    pub leader: i32,
    /// Which term of leadership this is; -1 if unknown.
    pub leader_epoch: i32,
    /// Node ids of its replicas.
    pub replicas: Vec<i32>,
    /// Node ids of the replicas that are in sync.
    pub isr: Vec<i32>,
    /// 0, or what is wrong with it.
    pub error_code: i16,
}

impl ClusterView {
    pub(crate) fn from_response(response: &MetadataResponse) -> Self {
        let brokers = response
            .brokers
            .iter()
            .filter_map(|broker| {
                let address = BrokerAddress {
                    host: broker.host.to_string(),
                    port: u16::try_from(broker.port).ok()?,
                    rack: broker.rack.as_ref().map(ToString::to_string),
                };
                Some((broker.node_id.0, address))
            })
            .collect();
        let topics = response
            .topics
            .iter()
            .filter_map(|topic| Some((topic.name.as_ref()?.0.to_string(), topic_view(topic))))
            .collect();
        Self {
            brokers,
            topics,
            cluster_id: response.cluster_id.as_ref().map(ToString::to_string),
            controller: response.controller_id.0,
        }
    }

    /// The topic, if it was asked for and exists.
    ///
    /// # Errors
    /// [`ErrorKind::TopicMissing`] if it does not exist or was not asked for; the broker's error otherwise.
    pub fn topic(&self, name: &str) -> Result<&TopicView, Error> {
        match self.topics.get(name) {
            Some(topic) if topic.error_code == 0 => Ok(topic),
            Some(topic) => Err(Error::kafka(
                format_args!("topic {name}"),
                topic.error_code,
                None,
            )),
            None => Err(Error::new(
                ErrorKind::TopicMissing,
                format!("topic {name} does not exist"),
            )),
        }
    }

    /// Node id of the leader of a partition.
    ///
    /// # Errors
    /// As [`topic`](Self::topic); LEADER_NOT_AVAILABLE, which is retriable, if it has none at the moment.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<i32, Error> {
        let Some(found) = self.topic(topic)?.partition(partition) else {
            let message = format!("topic {topic} has no partition {partition}");
            return Err(Error::new(ErrorKind::TopicMissing, message));
        };
        if found.leader < 0 || !self.brokers.contains_key(&found.leader) {
            const LEADER_NOT_AVAILABLE: i16 = 5;
            return Err(Error::kafka(
                format_args!("{topic}-{partition}"),
                LEADER_NOT_AVAILABLE,
                None,
            ));
        }
        Ok(found.leader)
    }
}

impl TopicView {
    /// The partition of this number.
    pub fn partition(&self, partition: i32) -> Option<&PartitionView> {
        let index = usize::try_from(partition).ok()?;
        self.partitions
            .get(index)
            .filter(|found| found.partition == partition)
    }

    /// Whether every partition has a leader.
    pub fn is_ready(&self) -> bool {
        self.error_code == 0
            && !self.partitions.is_empty()
            && self
                .partitions
                .iter()
                .all(|partition| partition.leader >= 0)
    }

    /// Whether the error means that the topic may appear or recover by itself.
    pub fn may_recover(&self) -> bool {
        retry::is_retriable(self.error_code)
    }
}

fn topic_view(
    topic: &kafka_protocol::messages::metadata_response::MetadataResponseTopic,
) -> TopicView {
    let mut partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| PartitionView {
            partition: partition.partition_index,
            leader: partition.leader_id.0,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replica_nodes.iter().map(|node| node.0).collect(),
            isr: partition.isr_nodes.iter().map(|node| node.0).collect(),
            error_code: partition.error_code,
        })
        .collect();
    partitions.sort_by_key(|partition| partition.partition);
    TopicView {
        id: topic.topic_id.into_bytes(),
        error_code: topic.error_code,
        partitions,
    }
}
