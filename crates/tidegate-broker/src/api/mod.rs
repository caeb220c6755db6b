//! The APIs served: one file each, and here the table of them and the way of a request through it.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_producers;
mod describe_transactions;
mod end_txn;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;
#[cfg(test)]
mod tests;
mod txn_offset_commit;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiKey, ApiVersionsRequest,
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeProducersRequest,
    DescribeTransactionsRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest,
    HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, ListTransactionsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, RequestHeader, ResponseHeader, SyncGroupRequest,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Request, StrBytes, VersionRange,
};
use uuid::Uuid;

use crate::codes;
use crate::faults::{Action, Seen};
use crate::server::Connection;
use crate::shared::Shared;
use crate::topics::Topic;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A whole frame, length included.
    Send(BytesMut),
    /// Nothing is sent; the connection stays.
    Silence,
    /// The connection is closed, as Kafka does with what it cannot understand.
    Disconnect,
}

/// What a request comes with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) version: i16,
    /// The client's name for itself; empty if it has none.
    pub(crate) client_id: String,
    pub(crate) client_host: IpAddr,
    /// Where clients are told to connect: the address this one came in by, unless configured.
    pub(crate) host: StrBytes,
    pub(crate) port: i32,
}

/// One API, implemented for its request. Requests reach it only in versions that are served.
pub(crate) trait Api: Request + Send + Sized {
    /// The versions served: those known to the message types here and handled by the code.
    const SERVED: VersionRange;

    /// Does what is asked for.
    fn handle(self, context: &Context) -> impl Future<Output = Self::Response> + Send;

    /// The answer that reports `code` everywhere it can stand.
    fn refuse(&self, context: &Context, code: i16) -> Self::Response;

    /// The topics and partitions the request names, -1 where it names a topic alone. For faults.
    fn partitions(&self, _shared: &Shared) -> Vec<(String, i32)> {
        Vec::new()
    }

    /// The group the request names. For faults.
    fn group(&self) -> Option<String> {
        None
    }

    /// The transactional id the request names. For faults.
    fn transactional_id(&self) -> Option<String> {
        None
    }

    /// Whether the client waits for an answer.
    fn is_answered(&self) -> bool {
        true
    }
}

/// Writes the table of APIs: the versions of each, and which code a request goes to.
macro_rules! apis {
    ($($key:ident => $request:ty,)*) => {
        /// The APIs served, by key.
        pub(crate) const SERVED: &[(ApiKey, VersionRange)] =
            &[$((ApiKey::$key, <$request as Api>::SERVED),)*];

        async fn dispatch(key: ApiKey, call: Call<'_>) -> Answer {
            match key {
                $(ApiKey::$key => call.run::<$request>(key).await,)*
                _ => Answer::Disconnect,
            }
        }
    };
}

apis! {
    Produce => ProduceRequest,
    Fetch => FetchRequest,
    ListOffsets => ListOffsetsRequest,
    Metadata => MetadataRequest,
    OffsetCommit => OffsetCommitRequest,
    OffsetFetch => OffsetFetchRequest,
    FindCoordinator => FindCoordinatorRequest,
    JoinGroup => JoinGroupRequest,
    Heartbeat => HeartbeatRequest,
    LeaveGroup => LeaveGroupRequest,
    SyncGroup => SyncGroupRequest,
    DescribeGroups => DescribeGroupsRequest,
    ListGroups => ListGroupsRequest,
    ApiVersions => ApiVersionsRequest,
    CreateTopics => CreateTopicsRequest,
    DeleteTopics => DeleteTopicsRequest,
    InitProducerId => InitProducerIdRequest,
    OffsetForLeaderEpoch => OffsetForLeaderEpochRequest,
    AddPartitionsToTxn => AddPartitionsToTxnRequest,
    AddOffsetsToTxn => AddOffsetsToTxnRequest,
    EndTxn => EndTxnRequest,
    TxnOffsetCommit => TxnOffsetCommitRequest,
    DescribeConfigs => DescribeConfigsRequest,
    CreatePartitions => CreatePartitionsRequest,
    DeleteGroups => DeleteGroupsRequest,
    IncrementalAlterConfigs => IncrementalAlterConfigsRequest,
    OffsetDelete => OffsetDeleteRequest,
    DescribeCluster => DescribeClusterRequest,
    DescribeProducers => DescribeProducersRequest,
    DescribeTransactions => DescribeTransactionsRequest,
    ListTransactions => ListTransactionsRequest,
    ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest,
    ConsumerGroupDescribe => ConsumerGroupDescribeRequest,
}

fn served(key: ApiKey) -> Option<VersionRange> {
    let found = SERVED.iter().find(|(other, _)| *other == key)?;
    Some(found.1)
}

/// The bytes before anything that depends on the version: key, version, correlation id.
const PEEKED: usize = 8;

/// Works on the request in `frame`. Sets `late` when it must be finished even if the client leaves.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut frame: Bytes,
    late: &AtomicBool,
) -> Answer {
    let Some(mut start) = frame.get(..PEEKED) else {
        return Answer::Disconnect;
    };
    let key = ApiKey::try_from(start.get_i16());
    let version = start.get_i16();
    let correlation_id = start.get_i32();
    let Ok((key, versions)) = key.and_then(|key| served(key).map(|v| (key, v)).ok_or(())) else {
        return Answer::Disconnect;
    };
    if version < versions.min || version > versions.max {
        return match key {
            // The one request a client may send before it knows what is served. (KIP-511)
            ApiKey::ApiVersions => {
                encode::<ApiVersionsRequest>(correlation_id, 0, &api_versions::unsupported())
            }
            _ => Answer::Disconnect,
        };
    }
    let header_version = key.request_header_version(version);
    let Ok(header) = RequestHeader::decode(&mut frame, header_version) else {
        return Answer::Disconnect;
    };
    let (host, port) = advertised(shared, connection);
    let context = Context {
        shared: Arc::clone(shared),
        version,
        client_id: header
            .client_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        client_host: connection.peer.ip(),
        host,
        port,
    };
    let call = Call {
        context,
        connection: connection.number,
        correlation_id,
        body: frame,
        late,
    };
    dispatch(key, call).await
}

fn advertised(shared: &Shared, connection: &Connection) -> (StrBytes, i32) {
    let (host, port) = match &shared.config.advertised {
        Some((host, port)) => (host.clone(), *port),
        None => (connection.local.ip().to_string(), connection.local.port()),
    };
    (StrBytes::from_string(host), i32::from(port))
}

/// A request whose API is known and whose body is not decoded yet.
struct Call<'a> {
    context: Context,
    connection: u64,
    correlation_id: i32,
    body: Bytes,
    late: &'a AtomicBool,
}

impl Call<'_> {
    async fn run<R: Api>(mut self, key: ApiKey) -> Answer {
        let version = self.context.version;
        let Ok(request) = R::decode(&mut self.body, version) else {
            return Answer::Disconnect;
        };
        let context = &self.context;
        let faults = &context.shared.config.faults;
        let mut ruling = faults.judge(|| Seen {
            api_key: key,
            version,
            correlation_id: self.correlation_id,
            client_id: context.client_id.clone(),
            connection: self.connection,
            partitions: request.partitions(&context.shared),
            group: request.group(),
            transactional_id: request.transactional_id(),
        });
        match ruling.action {
            Action::Pass | Action::DropAnswer | Action::DisconnectAfter => {}
            Action::Delay(time) => {
                self.late.store(true, Ordering::Release);
                tokio::time::sleep(time).await;
            }
            Action::Hold => {
                self.late.store(true, Ordering::Release);
                ruling.wait_for_release().await;
            }
            Action::DropRequest => return Answer::Silence,
            Action::Disconnect => return Answer::Disconnect,
            Action::AnswerError(code) => {
                let refusal = request.refuse(context, code);
                return encode::<R>(self.correlation_id, version, &refusal);
            }
        }
        let answered = request.is_answered();
        let response = request.handle(context).await;
        match ruling.action {
            Action::DropAnswer => Answer::Silence,
            Action::DisconnectAfter => Answer::Disconnect,
            _ if !answered => Answer::Silence,
            _ => encode::<R>(self.correlation_id, version, &response),
        }
    }
}

/// Makes the frame of an answer.
fn encode<R: Request>(correlation_id: i32, version: i16, response: &R::Response) -> Answer {
    try_encode::<R>(correlation_id, version, response).map_or(Answer::Disconnect, Answer::Send)
}

fn try_encode<R: Request>(
    correlation_id: i32,
    version: i16,
    response: &R::Response,
) -> Option<BytesMut> {
    const LENGTH_LEN: usize = 4;
    const HEADER_ROOM: usize = 8;
    let size = response.compute_size(version).ok()?;
    let mut frame = BytesMut::with_capacity(LENGTH_LEN + HEADER_ROOM + size);
    frame.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(&mut frame, R::Response::header_version(version))
        .ok()?;
    response.encode(&mut frame, version).ok()?;
    let length = i32::try_from(frame.len() - LENGTH_LEN).ok()?;
    frame[..LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
    Some(frame)
}

/// The topic a request means: by name, or by id from the version on that has ids.
fn find_topic(shared: &Shared, name: &str, id: Uuid, by_id: bool) -> Option<Arc<Topic>> {
    if by_id {
        shared.topics.by_id(id)
    } else {
        shared.topics.by_name(name)
    }
}

/// As [`find_topic`], for the names that faults go by.
fn topic_name(shared: &Shared, name: &str, id: Uuid) -> String {
    if !name.is_empty() || id.is_nil() {
        return name.to_owned();
    }
    let topic = shared.topics.by_id(id);
    topic.map_or_else(String::new, |topic| topic.name.clone())
}

/// `code` as a client of `version` understands it: what was split off as PRODUCER_FENCED in version `known`
/// was INVALID_PRODUCER_EPOCH before. (KIP-588)
fn code_for(version: i16, known: i16, code: i16) -> i16 {
    match code {
        codes::PRODUCER_FENCED if version < known => codes::INVALID_PRODUCER_EPOCH,
        code => code,
    }
}

fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}
