//! Administrative requests: topics, their settings and offsets; groups are next door, in `admin/groups.rs`.

mod groups;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DescribeConfigsRequest,
    GroupId, ListOffsetsRequest, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use kafka_protocol::protocol::{Message, Request, StrBytes};

pub use groups::{GroupDescription, GroupKind};

use crate::client::{Client, RETRY_PAUSE, at_coordinator, check, topic_name};
use crate::cluster::{ClusterView, TopicView};
use crate::error::{Error, ErrorKind};

const TOPIC_ALREADY_EXISTS: i16 = 36;

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Only records of committed transactions, and those outside of transactions.
    #[default]
    ReadCommitted,
    /// All records, those of open and aborted transactions included.
    ReadUncommitted,
}

impl Isolation {
    pub(crate) fn level(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// Which offset of a partition to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that is still there.
    Earliest,
    /// The next to be written; with [`Isolation::ReadCommitted`], the last stable offset.
    Latest,
    /// The first record whose timestamp is this (milliseconds since 1970) or later; the latest offset if there is none.
    Timestamp(i64),
}

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions; `None`: the broker's default.
    pub partitions: Option<i32>,
    /// Replicas of each partition; `None`: the broker's default.
    pub replication_factor: Option<i16>,
    /// Settings that differ from the broker's.
    pub configs: BTreeMap<String, String>,
}

/// The administrative requests of a cluster. Each waits for its answer, at most the client's request time-out.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Creates a topic and waits until each of its partitions has a leader.
    ///
    /// # Errors
    /// [`ErrorKind::Topic`] if it exists or cannot be like that, [`ErrorKind::Authorization`], [`ErrorKind::Timeout`].
    pub fn create_topic(&self, topic: &NewTopic) -> Result<(), Error> {
        self.create(topic, false)
    }

    /// As [`create_topic`](Self::create_topic), but a topic of that name that is there already, because somebody else created it at the same time,
    /// say, is none the worse for it. How that one was set up is not looked at.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic), but for a topic that exists.
    pub fn ensure_topic(&self, topic: &NewTopic) -> Result<(), Error> {
        self.create(topic, true)
    }

    /// Whether a topic like that could be created: the broker checks everything, and creates nothing. One that exists meanwhile is no error.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic).
    pub fn check_new_topic(&self, topic: &NewTopic) -> Result<(), Error> {
        let request = self.creation(topic).with_validate_only(true);
        self.client.retrying(&[], |client| {
            let answer = client.call_any(&request)?;
            check_creation(topic, &answer, true)
        })
    }

    fn creation(&self, topic: &NewTopic) -> CreateTopicsRequest {
        let timeout =
            i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| {
                CreatableTopicConfig::default()
                    .with_name(StrBytes::from_string(name.clone()))
                    .with_value(Some(StrBytes::from_string(value.clone())))
            })
            .collect();
        let creatable = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partitions.unwrap_or(-1))
            .with_replication_factor(topic.replication_factor.unwrap_or(-1))
            .with_configs(configs);
        CreateTopicsRequest::default()
            .with_topics(vec![creatable])
            .with_timeout_ms(timeout)
    }

    fn create(&self, topic: &NewTopic, may_exist: bool) -> Result<(), Error> {
        let request = self.creation(topic);
        // The answer to an earlier try may have been lost: then the topic that is there already is the one we made.
        let mut may_exist = may_exist;
        self.client.retrying(&[], |client| {
            let answer = client.open_any().and_then(|mut connection| {
                connection.call(&request).inspect_err(|_| may_exist = true)
            })?;
            check_creation(topic, &answer, may_exist)
        })?;
        self.wait_until_led(&topic.name)
    }

    /// Asks for metadata of a topic, again if nobody answers: a broker may just be starting anew.
    fn refresh(&self, topic: &str) -> Result<Arc<ClusterView>, Error> {
        self.client.retrying(&[], |client| client.refresh(&[topic]))
    }

    fn wait_until_led(&self, topic: &str) -> Result<(), Error> {
        let deadline = Instant::now() + self.client.config().request_timeout;
        while !self
            .refresh(topic)?
            .topics
            .get(topic)
            .is_some_and(TopicView::is_ready)
        {
            if Instant::now() >= deadline {
                let message = format!(
                    "topic {topic} was created, but not every partition got a leader in time"
                );
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            thread::sleep(RETRY_PAUSE);
        }
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// [`ErrorKind::TopicMissing`], [`ErrorKind::Authorization`], [`ErrorKind::Timeout`].
    pub fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        // From version 6 on topics are named one struct each, so that ids fit in (KIP-516).
        const BY_STATE: i16 = 6;
        let timeout =
            i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
        self.client.retrying(&[], |client| {
            let mut connection = client.open_any()?;
            let version = connection
                .versions()
                .choose(DeleteTopicsRequest::KEY, DeleteTopicsRequest::VERSIONS)?;
            let request = DeleteTopicsRequest::default().with_timeout_ms(timeout);
            let request = match version {
                BY_STATE.. => request.with_topics(vec![
                    DeleteTopicState::default().with_name(Some(topic_name(topic))),
                ]),
                _ => request.with_topic_names(vec![topic_name(topic)]),
            };
            let answer = connection.call_version(&request, version)?;
            answer.responses.iter().try_for_each(|result| {
                check(
                    format_args!("delete topic {topic}"),
                    result.error_code,
                    result.error_message.as_deref(),
                )
            })
        })
    }

    /// What metadata says about a topic; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Authorization`], [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`].
    pub fn describe_topic(&self, topic: &str) -> Result<Option<TopicView>, Error> {
        const UNKNOWN_TOPIC: i16 = 3;
        let view = self.refresh(topic)?;
        match view.topics.get(topic) {
            None => Ok(None),
            Some(found) if found.error_code == UNKNOWN_TOPIC => Ok(None),
            Some(_) => view.topic(topic).cloned().map(Some),
        }
    }

    /// The settings of a topic, defaults included.
    ///
    /// # Errors
    /// As [`describe_topic`](Self::describe_topic), and [`ErrorKind::TopicMissing`].
    pub fn topic_configs(&self, topic: &str) -> Result<BTreeMap<String, String>, Error> {
        const TOPIC: i8 = 2;
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(StrBytes::from_string(topic.to_owned()))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        self.client.retrying(&[], |client| {
            let answer = client.call_any(&request)?;
            let mut configs = BTreeMap::new();
            for result in &answer.results {
                check(
                    format_args!("settings of topic {topic}"),
                    result.error_code,
                    result.error_message.as_deref(),
                )?;
                for config in &result.configs {
                    if let Some(value) = &config.value {
                        configs.insert(config.name.to_string(), value.to_string());
                    }
                }
            }
            Ok(configs)
        })
    }

    /// One offset of each of these partitions, by [`OffsetSpec`].
    ///
    /// # Errors
    /// [`ErrorKind::TopicMissing`], [`ErrorKind::Authorization`], [`ErrorKind::Timeout`].
    pub fn list_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Vec<(i32, i64)>, Error> {
        let mut found: BTreeMap<i32, i64> = BTreeMap::new();
        if !self
            .client
            .view()
            .topics
            .get(topic)
            .is_some_and(TopicView::is_ready)
        {
            self.refresh(topic)?;
        }
        self.client.retrying(&[topic], |client| {
            let view = client.view();
            let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
            for &partition in partitions
                .iter()
                .filter(|partition| !found.contains_key(partition))
            {
                by_leader
                    .entry(view.leader(topic, partition)?)
                    .or_default()
                    .push(partition);
            }
            for (leader, partitions) in by_leader {
                for (partition, offset) in
                    offsets_at(client, leader, topic, &partitions, spec, isolation)?
                {
                    found.insert(partition, offset);
                }
            }
            Ok(())
        })?;
        if let OffsetSpec::Timestamp(_) = spec {
            self.fill_with_latest(topic, &mut found, isolation)?;
        }
        Ok(partitions
            .iter()
            .filter_map(|partition| Some((*partition, *found.get(partition)?)))
            .collect())
    }

    /// No record is as late as asked for: the partition counts from its end.
    fn fill_with_latest(
        &self,
        topic: &str,
        found: &mut BTreeMap<i32, i64>,
        isolation: Isolation,
    ) -> Result<(), Error> {
        let late: Vec<i32> = found
            .iter()
            .filter(|(_, offset)| **offset < 0)
            .map(|(partition, _)| *partition)
            .collect();
        if !late.is_empty() {
            found.extend(self.list_offsets(topic, &late, OffsetSpec::Latest, isolation)?);
        }
        Ok(())
    }

    /// The offsets that a group has committed on a topic (the NEXT offset it wants), `None` where it has not. The group is not joined.
    ///
    /// # Errors
    /// [`ErrorKind::Authorization`], [`ErrorKind::Group`], [`ErrorKind::Timeout`].
    pub fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<Vec<(i32, Option<i64>)>, Error> {
        let request = GroupOffsets {
            group,
            topic,
            partitions,
            stable: false,
            member: None,
        };
        let found = request.fetch(&self.client);
        found.map_err(|error| self.explain_refusal(group, error))
    }

    /// Commits offsets for a group without members, as an operator does it.
    ///
    /// # Errors
    /// [`ErrorKind::Group`] if the group has members, else as [`committed`](Self::committed).
    pub fn commit_offsets(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(i32, i64)],
    ) -> Result<(), Error> {
        let offsets: Vec<(&str, i32, i64)> = offsets
            .iter()
            .map(|(partition, offset)| (topic, *partition, *offset))
            .collect();
        let request = commit_request(group, None, &offsets);
        at_coordinator(&self.client, group, |client, node_id| {
            check_commit(group, &client.call(node_id, &request)?)
        })
    }
}

fn check_creation(
    topic: &NewTopic,
    answer: &CreateTopicsResponse,
    may_exist: bool,
) -> Result<(), Error> {
    answer.topics.iter().try_for_each(|result| {
        if may_exist && result.error_code == TOPIC_ALREADY_EXISTS {
            return Ok(());
        }
        check(
            format_args!("create topic {}", topic.name),
            result.error_code,
            result.error_message.as_deref(),
        )
    })
}

fn offsets_at(
    client: &Client,
    leader: i32,
    topic: &str,
    partitions: &[i32],
    spec: OffsetSpec,
    isolation: Isolation,
) -> Result<Vec<(i32, i64)>, Error> {
    let timestamp = match spec {
        OffsetSpec::Latest => -1,
        OffsetSpec::Earliest => -2,
        OffsetSpec::Timestamp(milliseconds) => milliseconds,
    };
    let asked = partitions
        .iter()
        .map(|partition| {
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp)
        })
        .collect();
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(isolation.level())
        .with_topics(vec![
            ListOffsetsTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(asked),
        ]);
    let answer = client.call(leader, &request)?;
    let mut offsets = Vec::with_capacity(partitions.len());
    for result in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        check(
            format_args!("offsets of {topic}-{}", result.partition_index),
            result.error_code,
            None,
        )?;
        offsets.push((result.partition_index, result.offset));
    }
    if offsets.len() != partitions.len() {
        let message = format!(
            "asked for {} offsets of {topic}, got {}",
            partitions.len(),
            offsets.len()
        );
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    Ok(offsets)
}

/// OffsetFetch in its two shapes: one group a request up to version 7, several from 8 on (KIP-709).
pub(crate) struct GroupOffsets<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partitions: &'a [i32],
    /// Whether to wait for open transactions that commit offsets (KIP-447): their outcome decides where to go on.
    pub(crate) stable: bool,
    /// Who asks, as a member of a group of the new protocol (KIP-848); versions before 9 cannot say it. Nobody in particular may ask of any group.
    pub(crate) member: Option<&'a Committer>,
}

/// A member, at the time of a request of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committer {
    pub(crate) member_id: String,
    /// Its generation; its epoch in the new protocol.
    pub(crate) generation: i32,
}

impl GroupOffsets<'_> {
    const SEVERAL_GROUPS: i16 = 8;
    const BY_MEMBER: i16 = 9;

    /// Asks the group's coordinator.
    pub(crate) fn fetch(&self, client: &Client) -> Result<Vec<(i32, Option<i64>)>, Error> {
        at_coordinator(client, self.group, |client, node_id| {
            let address = client.address(node_id)?;
            client.with_connection(&address, client.config().request_timeout, |connection| {
                let version = connection
                    .versions()
                    .choose(OffsetFetchRequest::KEY, OffsetFetchRequest::VERSIONS)?;
                let answer = connection.call_version(&self.encode(version), version)?;
                self.decode(&answer)
            })
        })
    }

    fn encode(&self, version: i16) -> OffsetFetchRequest {
        if version >= Self::SEVERAL_GROUPS {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(topic_name(self.topic))
                .with_partition_indexes(self.partitions.to_vec());
            let group = OffsetFetchRequestGroup::default()
                .with_group_id(group_id(self.group))
                .with_member_epoch(-1)
                .with_topics(Some(vec![topic]));
            let group = match self.member.filter(|_| version >= Self::BY_MEMBER) {
                Some(member) => group
                    .with_member_id(Some(StrBytes::from_string(member.member_id.clone())))
                    .with_member_epoch(member.generation),
                None => group,
            };
            return OffsetFetchRequest::default()
                .with_require_stable(self.stable)
                .with_groups(vec![group]);
        }
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(self.topic))
            .with_partition_indexes(self.partitions.to_vec());
        OffsetFetchRequest::default()
            .with_group_id(group_id(self.group))
            .with_require_stable(self.stable)
            .with_topics(Some(vec![topic]))
    }

    fn decode(&self, answer: &OffsetFetchResponse) -> Result<Vec<(i32, Option<i64>)>, Error> {
        let doing = format!(
            "committed offsets of group {} on {}",
            self.group, self.topic
        );
        check(&doing, answer.error_code, None)?;
        let mut found: BTreeMap<i32, i64> = BTreeMap::new();
        for group in &answer.groups {
            check(&doing, group.error_code, None)?;
            for partition in group.topics.iter().flat_map(|topic| &topic.partitions) {
                check(&doing, partition.error_code, None)?;
                found.insert(partition.partition_index, partition.committed_offset);
            }
        }
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            check(&doing, partition.error_code, None)?;
            found.insert(partition.partition_index, partition.committed_offset);
        }
        let committed =
            |partition: &i32| found.get(partition).copied().filter(|offset| *offset >= 0);
        Ok(self
            .partitions
            .iter()
            .map(|partition| (*partition, committed(partition)))
            .collect())
    }
}

pub(crate) fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

/// A commit by a member; or, with generation -1 and no member id, by nobody in particular.
pub(crate) fn commit_request(
    group: &str,
    member: Option<&Committer>,
    offsets: &[(&str, i32, i64)],
) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (topic, partition, offset) in offsets {
        let committed = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(-1);
        topics.entry(topic).or_default().push(committed);
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions)
        })
        .collect();
    let member_id = member.map_or_else(String::new, |member| member.member_id.clone());
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(member.map_or(-1, |member| member.generation))
        .with_member_id(StrBytes::from_string(member_id))
        .with_topics(topics)
}

/// The first refusal in the answer to a commit.
pub(crate) fn check_commit(group: &str, answer: &OffsetCommitResponse) -> Result<(), Error> {
    for topic in &answer.topics {
        for result in &topic.partitions {
            let (name, partition) = (&*topic.name.0, result.partition_index);
            let doing = format_args!("group {group}: commit on {name}-{partition}");
            check(doing, result.error_code, None)?;
        }
    }
    Ok(())
}
