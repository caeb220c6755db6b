//! Every version that is advertised works, and means what it should.

use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::ApiVersionsResponse;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchResponse, GroupId, ProduceResponse, ProducerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use tidegate_wire::ProducerStamp;
use tokio::time::Instant;

use super::*;
use crate::codes;
use crate::faults::Rule;
use crate::testing::{base_offsets, batch, batch_at, call, shared, stamp, try_call};

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

async fn create(shared: &Arc<Shared>, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string((*name).to_owned()))
            .with_value(Some(StrBytes::from_string((*value).to_owned())))
    });
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let response = call(shared, 7, &request).await;
    assert_eq!(response.topics[0].error_code, codes::NONE);
}

fn produce_request(shared: &Shared, version: i16, topic: &str, batch: Vec<u8>) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
    let data = TopicProduceData::default().with_partition_data(vec![partition]);
    let data = match shared.topics.by_name(topic) {
        Some(topic) if version >= 13 => data.with_topic_id(topic.id),
        _ => data.with_name(name(topic)),
    };
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![data])
}

fn produced(response: &ProduceResponse) -> (i16, i64) {
    let answer = &response.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

async fn produce(shared: &Arc<Shared>, topic: &str, batch: Vec<u8>) -> (i16, i64) {
    let request = produce_request(shared, 9, topic, batch);
    produced(&call(shared, 9, &request).await)
}

fn fetch_request(shared: &Shared, version: i16, topic: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_partitions(vec![partition]);
    let wanted = match shared.topics.by_name(topic) {
        Some(topic) if version >= 13 => wanted.with_topic_id(topic.id),
        _ => wanted.with_topic(name(topic)),
    };
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

fn fetched(response: &FetchResponse) -> (i16, Vec<i64>) {
    let data = &response.responses[0].partitions[0];
    let records = data.records.clone().unwrap_or_default();
    (data.error_code, base_offsets(&records))
}

/// All versions of an API: `request` as it is, and refused by a fault.
async fn check_versions<R: Api>(shared: &Arc<Shared>, request: R) {
    for version in R::SERVED.min..=R::SERVED.max {
        call(shared, version, &request).await;
        let faults = &shared.config.faults;
        let fault = faults.inject(Rule::any(Action::AnswerError(codes::KAFKA_STORAGE_ERROR)));
        call(shared, version, &request).await;
        assert_eq!(fault.fired(), 1);
        fault.remove();
    }
}

macro_rules! check_all_versions {
    ($shared:expr, $($request:ident $(. $set:ident ($value:expr))*,)*) => {{
        let checked = [$(<$request as Request>::KEY,)*];
        let missing = SERVED.iter().find(|(key, _)| !checked.contains(&(*key as i16)));
        assert_eq!(missing, None, "not checked");
        $(check_versions($shared, $request::default()$(.$set($value))*).await;)*
    }};
}

#[tokio::test]
async fn every_advertised_version_is_understood_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    check_all_versions!(
        shared,
        ProduceRequest.with_acks(1),
        FetchRequest.with_session_epoch(-1),
        ListOffsetsRequest,
        MetadataRequest,
        OffsetCommitRequest,
        OffsetFetchRequest,
        FindCoordinatorRequest,
        JoinGroupRequest,
        HeartbeatRequest,
        LeaveGroupRequest,
        SyncGroupRequest,
        DescribeGroupsRequest,
        ListGroupsRequest,
        ApiVersionsRequest,
        CreateTopicsRequest,
        DeleteTopicsRequest,
        InitProducerIdRequest,
        OffsetForLeaderEpochRequest,
        AddPartitionsToTxnRequest,
        AddOffsetsToTxnRequest,
        EndTxnRequest,
        TxnOffsetCommitRequest,
        DescribeConfigsRequest,
        CreatePartitionsRequest,
        DeleteGroupsRequest,
        IncrementalAlterConfigsRequest,
        OffsetDeleteRequest,
        DescribeClusterRequest,
        DescribeProducersRequest,
        DescribeTransactionsRequest,
        ListTransactionsRequest,
        ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribeRequest.with_group_ids(vec![GroupId::default()]),
    );
}

#[tokio::test]
async fn versions_that_are_not_served_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    // Key 18 in a version of the far future, correlation id 5; what follows is not looked at.
    let frame = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff]);
    let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 1));
    let connection = Connection {
        number: 1,
        peer: address,
        local: address,
    };
    let late = AtomicBool::new(false);
    let Answer::Send(bytes) = answer(shared, &connection, frame, &late).await else {
        panic!("not answered");
    };
    let mut body = bytes.freeze().slice(8..);
    let response = ApiVersionsResponse::decode(&mut body, 0).unwrap();
    assert_eq!(response.error_code, codes::UNSUPPORTED_VERSION);
    assert_eq!(response.api_keys[0].api_key, 18);
    assert_eq!(response.api_keys[0].max_version, 4);

    for frame in [
        &[0, 0, 0, 2, 0, 0, 0, 5][..],
        &[0, 7, 0, 0, 0, 0, 0, 5],
        &[1, 2],
    ] {
        let frame = Bytes::copy_from_slice(frame);
        let refused = answer(shared, &connection, frame, &late).await;
        assert!(matches!(refused, Answer::Disconnect), "{refused:?}");
    }
}

#[tokio::test]
async fn records_go_in_and_come_out_in_every_version() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    create(shared, "usage", 1, &[]).await;
    let mut next = 0;
    for version in ProduceRequest::SERVED.min..=ProduceRequest::SERVED.max {
        let request = produce_request(shared, version, "usage", batch(&[b"a", b"b"]));
        let response = call(shared, version, &request).await;
        assert_eq!(
            produced(&response),
            (codes::NONE, next),
            "version {version}"
        );
        next += 2;
    }
    let all: Vec<i64> = (0..next / 2).map(|number| number * 2).collect();
    for version in FetchRequest::SERVED.min..=FetchRequest::SERVED.max {
        let request = fetch_request(shared, version, "usage", 0);
        let response = call(shared, version, &request).await;
        assert_eq!(
            fetched(&response),
            (codes::NONE, all.clone()),
            "version {version}"
        );
        assert_eq!(response.responses[0].partitions[0].high_watermark, next);

        let request = fetch_request(shared, version, "usage", next + 1);
        let response = call(shared, version, &request).await;
        let (code, _) = fetched(&response);
        assert_eq!(code, codes::OFFSET_OUT_OF_RANGE);
    }
    for version in ListOffsetsRequest::SERVED.min..=ListOffsetsRequest::SERVED.max {
        for (time, expected) in [(-1, next), (-2, 0), (0, 0), (i64::MAX, -1)] {
            let partition = ListOffsetsPartition::default().with_timestamp(time);
            let topic = ListOffsetsTopic::default()
                .with_name(name("usage"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_topics(vec![topic]);
            let response = call(shared, version, &request).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!((found.error_code, found.offset), (codes::NONE, expected));
        }
    }
}

#[tokio::test]
async fn what_produce_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    create(shared, "plain", 1, &[("max.message.bytes", "300")]).await;
    create(shared, "compact", 1, &[("cleanup.policy", "compact")]).await;

    let mut damaged = batch(&[b"value"]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut two = batch(&[b"one"]);
    two.extend_from_slice(&batch(&[b"two"]));
    let far_ahead = batch_at(now() + 7_200_000, &[b"v"], ProducerStamp::NONE);
    let transactional = ProducerStamp {
        transactional: true,
        ..stamp(1, 0, 0)
    };
    let noise: Vec<u8> = (0..900_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect();
    let table = [
        ("plain", damaged, codes::CORRUPT_MESSAGE),
        ("plain", two, codes::INVALID_RECORD),
        ("plain", Vec::new(), codes::INVALID_RECORD),
        (
            "plain",
            batch(&[b"v"])[..40].to_vec(),
            codes::CORRUPT_MESSAGE,
        ),
        ("plain", batch(&[&noise]), codes::MESSAGE_TOO_LARGE),
        ("plain", far_ahead, codes::INVALID_TIMESTAMP),
        (
            "plain",
            batch_at(5, &[b"v"], transactional),
            codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        (
            "plain",
            batch_at(5, &[b"v"], stamp(1, -1, -1)),
            codes::INVALID_RECORD,
        ),
        ("missing", batch(&[b"v"]), codes::UNKNOWN_TOPIC_OR_PARTITION),
        ("compact", batch(&[b"v"]), codes::NONE),
    ];
    for (topic, bytes, expected) in table {
        let (code, offset) = produce(shared, topic, bytes).await;
        assert_eq!(code, expected, "{topic}");
        assert_eq!(offset, if expected == codes::NONE { 0 } else { -1 });
    }
    let mut request = produce_request(shared, 9, "plain", batch(&[b"v"]));
    request.acks = 2;
    let (code, _) = produced(&call(shared, 9, &request).await);
    assert_eq!(code, codes::INVALID_REQUIRED_ACKS);
    request.acks = 0;
    assert_eq!(try_call(shared, 9, &request).await, None);
    assert_eq!(
        shared
            .topics
            .by_name("plain")
            .unwrap()
            .partition(0)
            .unwrap()
            .log()
            .next_offset(),
        1
    );
}

#[tokio::test]
async fn a_compacted_topic_wants_keys() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    create(shared, "compact", 1, &[("cleanup.policy", "compact")]).await;
    let mut builder = tidegate_wire::BatchBuilder::with_buffer(Vec::new(), 5);
    builder.append(None, None, Some(b"no key"), &[]);
    let body = builder.finish();
    let mut bytes = tidegate_wire::encode_header(&body, ProducerStamp::NONE).to_vec();
    bytes.extend_from_slice(&body.records);
    let (code, _) = produce(shared, "compact", bytes).await;
    assert_eq!(code, codes::INVALID_RECORD);
}

/// Asks for a producer id without a transactional id.
fn idempotent() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(None)
}

#[tokio::test]
async fn a_resend_is_answered_with_the_first_offset() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    create(shared, "usage", 1, &[]).await;
    let id = call(shared, 4, &idempotent()).await;
    let ProducerId(id) = id.producer_id;
    let first = batch_at(5, &[b"a", b"b"], stamp(id, 0, 0));
    assert_eq!(
        produce(shared, "usage", first.clone()).await,
        (codes::NONE, 0)
    );
    let second = batch_at(5, &[b"c"], stamp(id, 0, 2));
    assert_eq!(produce(shared, "usage", second).await, (codes::NONE, 2));
    assert_eq!(produce(shared, "usage", first).await, (codes::NONE, 0));
    let gap = batch_at(5, &[b"e"], stamp(id, 0, 4));
    let (code, _) = produce(shared, "usage", gap).await;
    assert_eq!(code, codes::OUT_OF_ORDER_SEQUENCE_NUMBER);
}

#[tokio::test]
async fn producer_ids_are_never_handed_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let shared = shared(dir.path());
        for _ in 0..1500 {
            let response = call(&shared, 4, &idempotent()).await;
            assert!(seen.insert(response.producer_id));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_its_bytes_and_no_longer_than_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    create(shared, "usage", 1, &[]).await;
    let mut request = fetch_request(shared, 12, "usage", 0);
    request.max_wait_ms = 5000;
    let begun = Instant::now();
    let response = call(shared, 12, &request).await;
    assert_eq!(fetched(&response), (codes::NONE, vec![]));
    assert_eq!(begun.elapsed().as_millis(), 5000);

    let waiting = {
        let (shared, request) = (Arc::clone(shared), request.clone());
        tokio::spawn(async move { call(&shared, 12, &request).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    produce(shared, "usage", batch(&[b"v"])).await;
    let response = waiting.await.unwrap();
    assert_eq!(fetched(&response), (codes::NONE, vec![0]));

    // More than there is: all the time, and then what there is.
    request.min_bytes = 1 << 20;
    let begun = Instant::now();
    let response = call(shared, 12, &request).await;
    assert_eq!(fetched(&response), (codes::NONE, vec![0]));
    assert_eq!(begun.elapsed().as_millis(), 5000);
}

#[tokio::test]
async fn topics_are_made_by_metadata_only_where_both_sides_allow_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::config::BrokerConfig::new(dir.path());
    config.auto_create_topics = false;
    let strict = Arc::new(Shared::open(config).unwrap());
    let ask = |topic: &str, allowed| {
        let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(allowed)
    };
    let code = async |shared: &Arc<Shared>, request: MetadataRequest| {
        call(shared, 12, &request).await.topics[0].error_code
    };
    assert_eq!(
        code(&strict, ask("t", true)).await,
        codes::UNKNOWN_TOPIC_OR_PARTITION
    );
    drop(strict);
    let shared = shared(dir.path());
    assert_eq!(
        code(&shared, ask("t", false)).await,
        codes::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        code(&shared, ask("a b", true)).await,
        codes::INVALID_TOPIC_EXCEPTION
    );
    assert_eq!(code(&shared, ask("t", true)).await, codes::NONE);
    let all = call(&shared, 12, &MetadataRequest::default().with_topics(None)).await;
    assert_eq!(all.topics.len(), 1);
    assert_eq!(all.brokers[0].port, 9092);
}

#[tokio::test]
async fn topics_are_checked_created_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let shared = &shared(dir.path());
    let asked = |topic: &str, partitions: i32, replicas: i16| {
        CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
    };
    let table = [
        (asked("ok", 3, 1), codes::NONE),
        (asked("ok", 3, 1), codes::TOPIC_ALREADY_EXISTS),
        (asked("left-to-the-broker", -1, -1), codes::NONE),
        (asked("none", 0, 1), codes::INVALID_PARTITIONS),
        (asked("many", 1_000_000, 1), codes::INVALID_PARTITIONS),
        (asked("replicas", 1, 3), codes::INVALID_REPLICATION_FACTOR),
        (asked("no spaces", 1, 1), codes::INVALID_TOPIC_EXCEPTION),
        (asked("left.to_the-broker", 1, 1), codes::NONE),
        (
            asked("left_to.the-broker", 1, 1),
            codes::INVALID_TOPIC_EXCEPTION,
        ),
        (
            asked("odd", 1, 1).with_configs(vec![
                CreatableTopicConfig::default()
                    .with_name("no.such".into())
                    .with_value(Some("1".into())),
            ]),
            codes::INVALID_CONFIG,
        ),
    ];
    for (topic, expected) in table {
        for validate_only in [true, false] {
            let request = CreateTopicsRequest::default()
                .with_topics(vec![topic.clone()])
                .with_validate_only(validate_only);
            let response = call(shared, 5, &request).await;
            assert_eq!(response.topics[0].error_code, expected, "{topic:?}");
        }
    }
    let twice =
        CreateTopicsRequest::default().with_topics(vec![asked("x", 1, 1), asked("x", 1, 1)]);
    let response = call(shared, 5, &twice).await;
    assert!(
        response
            .topics
            .iter()
            .all(|topic| topic.error_code == codes::INVALID_REQUEST)
    );

    produce(shared, "ok", batch(&[b"v"])).await;
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![name("ok"), name("gone")]);
    let response = call(shared, 5, &delete).await;
    let found: Vec<i16> = response
        .responses
        .iter()
        .map(|result| result.error_code)
        .collect();
    assert_eq!(found, [codes::NONE, codes::UNKNOWN_TOPIC_OR_PARTITION]);
    // Made again, it is another topic: nothing of the old one is left.
    create(shared, "ok", 1, &[]).await;
    assert_eq!(
        produce(shared, "ok", batch(&[b"v"])).await,
        (codes::NONE, 0)
    );
}

fn commit_request(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some("note".into()));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_topics(vec![topic])
}

/// The offset of partition 0 of `topic`, asked for as each version does.
async fn committed(shared: &Arc<Shared>, version: i16, group: &str, topic: &str) -> i64 {
    let group = GroupId(StrBytes::from_string(group.to_owned()));
    if version < 8 {
        let topics = OffsetFetchRequestTopic::default()
            .with_name(name(topic))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group)
            .with_topics(Some(vec![topics]));
        let response = call(shared, version, &request).await;
        return response.topics[0].partitions[0].committed_offset;
    }
    let topics = OffsetFetchRequestTopics::default()
        .with_name(name(topic))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group)
        .with_topics(Some(vec![topics]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let response = call(shared, version, &request).await;
    response.groups[0].topics[0].partitions[0].committed_offset
}

#[tokio::test]
async fn committed_offsets_are_kept_in_every_version_and_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let opened = shared(dir.path());
    create(&opened, "usage", 1, &[]).await;
    assert_eq!(committed(&opened, 9, "g", "usage").await, -1);
    for version in OffsetCommitRequest::SERVED.min..=OffsetCommitRequest::SERVED.max {
        let offset = i64::from(version) * 10;
        let response = call(&opened, version, &commit_request("g", "usage", offset)).await;
        assert_eq!(response.topics[0].partitions[0].error_code, codes::NONE);
        for version in OffsetFetchRequest::SERVED.min..=OffsetFetchRequest::SERVED.max {
            assert_eq!(committed(&opened, version, "g", "usage").await, offset);
        }
    }
    let response = call(&opened, 8, &commit_request("g", "missing", 1)).await;
    let code = response.topics[0].partitions[0].error_code;
    assert_eq!(code, codes::UNKNOWN_TOPIC_OR_PARTITION);

    drop(opened);
    let opened = shared(dir.path());
    assert_eq!(committed(&opened, 9, "g", "usage").await, 90);
    let listed = call(&opened, 4, &ListGroupsRequest::default()).await;
    assert_eq!(&*listed.groups[0].group_state, "Empty");
    let delete = DeleteGroupsRequest::default()
        .with_groups_names(vec![GroupId("g".into()), GroupId("h".into())]);
    let response = call(&opened, 2, &delete).await;
    let found: Vec<i16> = response
        .results
        .iter()
        .map(|result| result.error_code)
        .collect();
    assert_eq!(found, [codes::NONE, codes::GROUP_ID_NOT_FOUND]);
    assert_eq!(committed(&opened, 9, "g", "usage").await, -1);
}

#[tokio::test]
async fn a_stale_leader_epoch_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let first = shared(dir.path());
    create(&first, "usage", 1, &[]).await;
    produce(&first, "usage", batch(&[b"v"])).await;
    drop(first);
    let second = &shared(dir.path());
    for (seen, expected) in [
        (-1, codes::NONE),
        (0, codes::FENCED_LEADER_EPOCH),
        (1, codes::NONE),
        (2, codes::UNKNOWN_LEADER_EPOCH),
    ] {
        let mut request = fetch_request(second, 12, "usage", 0);
        request.topics[0].partitions[0].current_leader_epoch = seen;
        let (code, _) = fetched(&call(second, 12, &request).await);
        assert_eq!(code, expected, "epoch {seen}");
    }
}

fn now() -> i64 {
    crate::shared::now_ms()
}
