//! What a consumer group has committed, asked of its coordinator without joining it.

use tidegate_core::produce::{Committed, SinkError};
use tidegate_kafka::Client;
use tidegate_kafka::admin::Admin;

/// A group's committed offsets on the partitions of one topic.
#[derive(Debug)]
pub struct GroupCommits {
    admin: Admin,
    group: String,
    topic: String,
    partitions: Vec<i32>,
}

impl GroupCommits {
    /// The commits of `group` on these partitions of `topic`.
    #[must_use]
    pub fn new(
        client: &Client,
        group: &str,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Self {
        let partitions = partitions.into_iter().collect();
        Self {
            admin: client.admin(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            partitions,
        }
    }
}

impl Committed for GroupCommits {
    fn committed(&mut self) -> Result<Vec<(i32, Option<i64>)>, SinkError> {
        Ok(self
            .admin
            .committed(&self.group, &self.topic, &self.partitions)?)
    }
}
