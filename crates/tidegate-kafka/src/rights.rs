//! What the client may do, as the brokers tell who asks (KIP-430).

use std::collections::BTreeMap;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{DescribeClusterRequest, MetadataRequest};
use kafka_protocol::protocol::{Message, Request};

use crate::admin::Admin;
use crate::client::{CoordinatorKind, check, topic_name};
use crate::error::{Error, ErrorKind};

/// What can be done with a topic, a group or the cluster (Kafka's `AclOperation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// Read records; join a group and commit its offsets.
    Read,
    /// Write records.
    Write,
    /// Create topics.
    Create,
    /// See that it is there, and how it stands.
    Describe,
    /// See its settings.
    DescribeConfigs,
}

impl Operation {
    /// As it is written in access control lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Create => "CREATE",
            Self::Describe => "DESCRIBE",
            Self::DescribeConfigs => "DESCRIBE_CONFIGS",
        }
    }

    fn bit(self) -> i32 {
        // The codes of org.apache.kafka.common.acl.AclOperation.
        1 << match self {
            Self::Read => 3,
            Self::Write => 4,
            Self::Create => 5,
            Self::Describe => 8,
            Self::DescribeConfigs => 10,
        }
    }
}

/// Which operations are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(i32);

impl Rights {
    /// Said by brokers that do not know, or were not asked.
    const UNKNOWN: Self = Self(i32::MIN);
    /// Nothing is allowed, not even to see that it is there.
    const NONE: Self = Self(0);

    /// Whether this is allowed; `None` where the broker does not say.
    pub fn allow(self, operation: Operation) -> Option<bool> {
        (self != Self::UNKNOWN).then_some(self.0 & operation.bit() != 0)
    }
}

const UNKNOWN_TOPIC: i16 = 3;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
/// Metadata tells of rights from this version on.
const METADATA_WITH_RIGHTS: i16 = 8;

impl Admin {
    /// What the client may do with these topics. Those that do not exist are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`].
    pub fn topic_rights(&self, topics: &[&str]) -> Result<BTreeMap<String, Rights>, Error> {
        let names = topics
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
        let request = MetadataRequest::default()
            .with_topics(Some(names.collect()))
            .with_allow_auto_topic_creation(false);
        self.client().retrying(&[], |client| {
            let mut connection = client.open_any()?;
            let version = connection
                .versions()
                .choose(MetadataRequest::KEY, MetadataRequest::VERSIONS)?;
            let tells = version >= METADATA_WITH_RIGHTS;
            let request = request
                .clone()
                .with_include_topic_authorized_operations(tells);
            let answer = connection.call_version(&request, version)?;
            let mut found = BTreeMap::new();
            for topic in &answer.topics {
                let Some(name) = &topic.name else { continue };
                let rights = match topic.error_code {
                    UNKNOWN_TOPIC => continue,
                    TOPIC_AUTHORIZATION_FAILED => Rights::NONE,
                    _ if tells => Rights(topic.topic_authorized_operations),
                    _ => Rights::UNKNOWN,
                };
                found.insert(name.to_string(), rights);
            }
            Ok(found)
        })
    }

    /// What the client may do with the cluster itself.
    ///
    /// # Errors
    /// As [`topic_rights`](Self::topic_rights).
    pub fn cluster_rights(&self) -> Result<Rights, Error> {
        let request =
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        self.client().retrying(&[], |client| {
            let mut connection = client.open_any()?;
            let versions = connection.versions();
            let Ok(version) = versions.choose(
                DescribeClusterRequest::KEY,
                DescribeClusterRequest::VERSIONS,
            ) else {
                return Ok(Rights::UNKNOWN);
            };
            let answer = connection.call_version(&request, version)?;
            check(
                "describe the cluster",
                answer.error_code,
                answer.error_message.as_deref(),
            )?;
            Ok(Rights(answer.cluster_authorized_operations))
        })
    }

    /// Whether the client may see how a group stands.
    ///
    /// # Errors
    /// As [`topic_rights`](Self::topic_rights).
    pub fn may_see_group(&self, group: &str) -> Result<bool, Error> {
        self.may_see(CoordinatorKind::Group, group)
    }

    /// Whether the client may see how a transactional id stands, as whoever may write with it can.
    ///
    /// # Errors
    /// As [`topic_rights`](Self::topic_rights).
    pub fn may_see_transactional_id(&self, id: &str) -> Result<bool, Error> {
        self.may_see(CoordinatorKind::Transaction, id)
    }

    /// Only who may see it is told its coordinator.
    fn may_see(&self, kind: CoordinatorKind, key: &str) -> Result<bool, Error> {
        match self.client().coordinator(kind, key) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Authorization => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_refused() {
        assert_eq!(Rights::UNKNOWN.allow(Operation::Write), None);
        assert_eq!(Rights::NONE.allow(Operation::Describe), Some(false));
        // READ and DESCRIBE.
        let some = Rights(1 << 3 | 1 << 8);
        assert_eq!(some.allow(Operation::Read), Some(true));
        assert_eq!(some.allow(Operation::Write), Some(false));
    }
}
