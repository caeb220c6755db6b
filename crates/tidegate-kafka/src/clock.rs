//! What time it is where the cluster is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::{DescribeQuorumRequest, TopicName};
use kafka_protocol::protocol::{Message, Request, StrBytes};

use crate::admin::Admin;
use crate::client::check;
use crate::error::Error;

/// The topic that the controllers keep their state in.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// From this version on the answer has times (KIP-836).
const WITH_TIMES: i16 = 1;

/// How far the cluster's clock is from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSkew {
    /// The cluster's clock minus ours, in milliseconds, as if its answer had been half way back.
    pub milliseconds: i64,
    /// What the way there and back took: the skew is known to half of it.
    pub round_trip: Duration,
}

impl Admin {
    /// Compares the active controller's clock with ours; `None` where it cannot be asked, for want of the right to DESCRIBE the cluster, say.
    ///
    /// No request of Kafka's asks for the time. But of the replicas of its own log the active controller says when each was last heard of, and of
    /// itself that is now (KIP-836).
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable), [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
    pub fn clock_skew(&self) -> Result<Option<ClockSkew>, Error> {
        let topic = TopicData::default()
            .with_topic_name(TopicName(StrBytes::from_static_str(METADATA_TOPIC)))
            .with_partitions(vec![PartitionData::default()]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        self.client().retrying(&[], |client| {
            let mut connection = client.open_any()?;
            let version = connection
                .versions()
                .choose(DescribeQuorumRequest::KEY, DescribeQuorumRequest::VERSIONS);
            let Some(version) = version.ok().filter(|version| *version >= WITH_TIMES) else {
                return Ok(None);
            };
            let (sent, started) = (now(), Instant::now());
            let answer = connection.call_version(&request, version)?;
            let round_trip = started.elapsed();
            if check("describe the quorum", answer.error_code, None).is_err() {
                return Ok(None);
            }
            let partition = answer
                .topics
                .first()
                .and_then(|topic| topic.partitions.first());
            let leader = partition.and_then(|partition| {
                let voters = partition.current_voters.iter();
                let mut leaders = voters.filter(|voter| voter.replica_id == partition.leader_id);
                leaders.next()
            });
            let theirs = leader.map_or(-1, |leader| leader.last_caught_up_timestamp);
            let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(0);
            Ok((theirs > 0).then(|| ClockSkew {
                milliseconds: theirs - sent - half,
                round_trip,
            }))
        })
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
