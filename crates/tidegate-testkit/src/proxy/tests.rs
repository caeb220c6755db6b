//! Each verb, with the raw client on the embedded broker.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsResponse, DescribeClusterRequest, FindCoordinatorRequest,
    MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::cluster::Cluster;
use crate::raw::RawClient;

const PATIENCE: Duration = Duration::from_secs(20);

/// An embedded broker behind a proxy.
fn proxied() -> (Cluster, Proxy) {
    let cluster = Cluster::embedded();
    let proxy = Proxy::start(cluster.bootstrap()).unwrap();
    (cluster, proxy)
}

/// Something that changes the broker, so that one sees whether it was done.
fn creation(topic: &str) -> CreateTopicsRequest {
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_num_partitions(1)
        .with_replication_factor(1);
    CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000)
}

fn create(client: &mut RawClient, topic: &str) -> io::Result<CreateTopicsResponse> {
    client.call(&creation(topic), 5)
}

/// Whether the topic is there, by a client beside the proxy.
fn is_there(cluster: &Cluster, topic: &str) -> bool {
    RawClient::connect(cluster.bootstrap())
        .unwrap()
        .partitions(topic)
        .is_ok()
}

/// A client whose call goes on in a thread, for calls that are not answered soon.
fn calling(
    proxy: &Proxy,
    topic: &'static str,
) -> std::thread::JoinHandle<io::Result<CreateTopicsResponse>> {
    let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
    std::thread::spawn(move || create(&mut client, topic))
}

/// Sends a request and leaves, as a process does that is killed.
fn send_and_die(proxy: &Proxy, topic: &str, rule: &ActiveRule) {
    use kafka_protocol::messages::RequestHeader;
    use kafka_protocol::protocol::{Encodable, HeaderVersion};
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::CreateTopics as i16)
        .with_request_api_version(5)
        .with_correlation_id(7);
    let mut frame = vec![0; 4];
    header
        .encode(&mut frame, CreateTopicsRequest::header_version(5))
        .unwrap();
    creation(topic).encode(&mut frame, 5).unwrap();
    let length = u32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    let mut stream = TcpStream::connect(proxy.bootstrap()).unwrap();
    stream.write_all(&frame).unwrap();
    assert!(rule.wait_fired(1, PATIENCE));
}

#[test]
fn clients_stay_behind_it_in_every_version() {
    let (cluster, proxy) = proxied();
    let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
    let own: Vec<i32> = [proxy.bootstrap(), cluster.bootstrap()]
        .iter()
        .map(|address| address.rsplit_once(':').unwrap().1.parse().unwrap())
        .collect();
    let seen = Cell::new(0);
    let check = |port: i32| {
        assert!(port == own[0], "{port} of {own:?}");
        seen.set(seen.get() + 1);
    };
    client.create_topic("known", 2, &[]).unwrap();
    let offered = client.call(&ApiVersionsRequest::default(), 0).unwrap();
    let versions = |key: ApiKey| {
        let found = offered
            .api_keys
            .iter()
            .find(|api| api.api_key == key as i16);
        let found = found.unwrap();
        found.min_version.max(key.valid_versions().min)..=found.max_version
    };
    for version in versions(ApiKey::Metadata) {
        // All topics: an empty list in the first version, none later.
        let all = MetadataRequest::default().with_topics((version == 0).then(Vec::new));
        let answer = client.call(&all, version).unwrap();
        answer.brokers.iter().for_each(|broker| check(broker.port));
    }
    for version in versions(ApiKey::FindCoordinator) {
        let key = StrBytes::from_static_str("some group");
        let request = FindCoordinatorRequest::default();
        let request = if version < 4 {
            request.with_key(key)
        } else {
            request.with_coordinator_keys(vec![key])
        };
        let answer = client.call(&request, version).unwrap();
        if version < 4 {
            check(answer.port);
        }
        answer
            .coordinators
            .iter()
            .for_each(|found| check(found.port));
    }
    for version in versions(ApiKey::DescribeCluster) {
        let request = DescribeClusterRequest::default().with_endpoint_type(1);
        let answer = client.call(&request, version).unwrap();
        answer.brokers.iter().for_each(|broker| check(broker.port));
    }
    assert!(seen.get() > 10, "{seen:?}");
}

#[test]
fn several_addresses_lead_to_several_brokers() {
    let (cluster, other) = (Cluster::embedded(), Cluster::embedded());
    let both = format!("{},{}", cluster.bootstrap(), other.bootstrap());
    let proxy = Proxy::start(&both).unwrap();
    let all: Vec<&str> = proxy.bootstrap().split(',').collect();
    assert_eq!(all.len(), 2);
    drop(cluster);
    create(&mut RawClient::connect(all[0]).unwrap(), "a").unwrap_err();
    create(&mut RawClient::connect(all[1]).unwrap(), "a").unwrap();
    assert!(is_there(&other, "a"));
    for wrong in ["", "127.0.0.1", "127.0.0.1:9092,", "127.0.0.1:x"] {
        let error = Proxy::start(wrong).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong}");
    }
}

#[test]
fn what_passes_is_counted_and_its_answer_kept() {
    let (_cluster, proxy) = proxied();
    let topics =
        proxy.inject(Rule::new(ApiKey::CreateTopics, Verb::Pass).client_id("tidegate-testkit"));
    let others = proxy.inject(Rule::any(Verb::Drop).client_id("somebody else"));
    let never = proxy.inject(Rule::any(Verb::Drop).when(|seen| {
        seen.request::<CreateTopicsRequest>()
            .is_some_and(|request| request.topics.len() > 1)
    }));
    let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut client, "a").unwrap();
    create(&mut client, "a").unwrap();
    assert_eq!((topics.fired(), topics.answered()), (2, 2));
    assert_eq!((others.fired(), never.fired()), (0, 0));
    let codes: Vec<i16> = topics
        .answers::<CreateTopicsRequest>()
        .iter()
        .map(|answer| answer.topics[0].error_code)
        .collect();
    assert_eq!(codes, [0, 36]);
    topics.remove();
    create(&mut client, "a").unwrap();
    assert_eq!(topics.fired(), 2);
}

#[test]
fn a_held_request_arrives_when_it_is_released_though_its_sender_is_dead() {
    let (cluster, proxy) = proxied();
    let held = proxy.inject(Rule::new(ApiKey::CreateTopics, Verb::Hold).nth(1));
    send_and_die(&proxy, "late", &held);
    // Others pass meanwhile, also with the same request.
    let mut other = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut other, "soon").unwrap();
    assert!(is_there(&cluster, "soon") && !is_there(&cluster, "late"));
    assert!(!held.wait_answered(1, Duration::from_millis(50)));
    held.release();
    assert!(held.wait_answered(1, PATIENCE));
    assert!(is_there(&cluster, "late"));
    assert_eq!(
        held.answers::<CreateTopicsRequest>()[0].topics[0].error_code,
        0
    );
}

#[test]
fn what_is_held_is_lost_with_the_proxy() {
    let (cluster, proxy) = proxied();
    let held = proxy.inject(Rule::new(ApiKey::CreateTopics, Verb::Hold));
    send_and_die(&proxy, "lost", &held);
    drop(proxy);
    assert!(!is_there(&cluster, "lost"));
}

#[test]
fn a_delayed_request_arrives_later() {
    let (_cluster, proxy) = proxied();
    let time = Duration::from_millis(150);
    let delayed = proxy.inject(Rule::new(ApiKey::CreateTopics, Verb::Delay(time)).times(1));
    let answer = proxy.inject(
        Rule::new(ApiKey::CreateTopics, Verb::Delay(time))
            .on_answer()
            .after(1),
    );
    let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
    for topic in ["a", "b"] {
        let started = Instant::now();
        create(&mut client, topic).unwrap();
        assert!(started.elapsed() >= time);
    }
    assert_eq!((delayed.fired(), answer.fired()), (1, 1));
}

#[test]
fn a_dropped_request_is_not_done_and_a_dropped_answer_is() {
    for (on_answer, done) in [(false, false), (true, true)] {
        let (cluster, proxy) = proxied();
        let rule = Rule::new(ApiKey::CreateTopics, Verb::Drop).nth(1);
        let rule = proxy.inject(if on_answer { rule.on_answer() } else { rule });
        let waiting = calling(&proxy, "a");
        assert!(rule.wait_fired(1, PATIENCE));
        assert_eq!(is_there(&cluster, "a"), done);
        assert!(!waiting.is_finished(), "the connection stays open");
        assert_eq!(proxy.reset_connections(), 1);
        waiting.join().unwrap().unwrap_err();
    }
}

#[test]
fn a_reset_cuts_a_frame_in_two() {
    for (on_answer, done) in [(false, false), (true, true)] {
        let (cluster, proxy) = proxied();
        let rule = Rule::new(ApiKey::CreateTopics, Verb::Reset);
        let rule = proxy.inject(if on_answer { rule.on_answer() } else { rule });
        let error = calling(&proxy, "a").join().unwrap().unwrap_err();
        let kind = error.kind();
        assert!(
            kind == io::ErrorKind::ConnectionReset || kind == io::ErrorKind::UnexpectedEof,
            "{error}"
        );
        assert_eq!((rule.fired(), is_there(&cluster, "a")), (1, done));
    }
}

#[test]
fn half_open_is_silence_on_both_sides() {
    let (cluster, proxy) = proxied();
    let mut other = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut other, "a").unwrap();
    let rule = proxy.inject(Rule::new(ApiKey::CreateTopics, Verb::HalfOpen));
    let silent = calling(&proxy, "b");
    assert!(rule.wait_fired(1, PATIENCE));
    assert!(!is_there(&cluster, "b"));
    rule.remove();
    // Another connection hears that the broker ends, and this one does not.
    create(&mut other, "c").unwrap();
    drop(cluster);
    create(&mut other, "d").unwrap_err();
    assert!(!silent.is_finished());
    assert!(proxy.reset_connections() >= 1);
    silent.join().unwrap().unwrap_err();
}

#[test]
fn slow_is_so_many_bytes_a_second() {
    let (_cluster, proxy) = proxied();
    let slow = proxy.inject(Rule::new(ApiKey::CreateTopics, Verb::Slow(500)));
    let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
    let started = Instant::now();
    create(&mut client, &"x".repeat(100)).unwrap();
    assert!(started.elapsed() > Duration::from_millis(250));
    assert_eq!(slow.fired(), 1);
}

#[test]
fn refused_connections_are_counted() {
    let (_cluster, proxy) = proxied();
    let mut before = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut before, "a").unwrap();
    proxy.refuse();
    let mut refused = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut refused, "b").unwrap_err();
    assert!(proxy.wait_refused(1, PATIENCE));
    create(&mut before, "c").unwrap();
    proxy.accept();
    let mut after = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut after, "b").unwrap();
    assert_eq!(proxy.refused(), 1);
}

#[test]
fn a_broker_that_ends_is_noticed() {
    let (cluster, proxy) = proxied();
    let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut client, "a").unwrap();
    drop(cluster);
    create(&mut client, "b").unwrap_err();
    let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
    create(&mut client, "b").unwrap_err();
}
