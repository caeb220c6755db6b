//! The broker through its sockets: starting, stopping, crashing, and what it bears from clients.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    MetadataRequest, OffsetCommitRequest, ProduceRequest,
};
use support::{Client, batch, fetch, name, produce};
use tidegate_broker::{Action, Addresses, ApiKey, Broker, BrokerConfig, ErrorKind, Rule};

fn start(dir: &tempfile::TempDir) -> Broker {
    Broker::start(BrokerConfig::new(dir.path())).unwrap()
}

/// Waits until `holds`, which becomes true by what another thread does.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        thread::yield_now();
    }
}

#[test]
fn records_offsets_and_addresses_over_stop_and_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for round in 0..4_i32 {
        let broker = start(&dir);
        let addresses = Addresses::read(dir.path()).unwrap().unwrap();
        assert_eq!(addresses.kafka, broker.address());
        let mut client = Client::connect(broker.address());
        client.create("usage");
        assert_eq!(client.values("usage"), expected);
        let value = format!("round {round}").into_bytes();
        let sent = client.produce("usage", batch(&value, 5, round));
        assert_eq!(sent, (0, i64::from(round)));
        // The producer's state is the one of before the restart: a resend is recognised.
        let again = client.produce("usage", batch(&value, 5, round));
        assert_eq!(again, (0, i64::from(round)));
        expected.push(value);
        if round % 2 == 0 {
            broker.stop().unwrap();
            assert_eq!(Addresses::read(dir.path()).unwrap(), None);
        } else {
            broker.crash();
            assert!(Addresses::read(dir.path()).unwrap().is_some());
        }
    }
}

#[test]
fn one_broker_for_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let second = Broker::start(BrokerConfig::new(dir.path())).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Locked);
    assert!(
        second
            .to_string()
            .contains(&dir.path().display().to_string())
    );
    // The refused one has not touched the address of the other.
    assert!(Addresses::read(dir.path()).unwrap().is_some());
    drop(broker);
    start(&dir).stop().unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let [first, second] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let broker = start(&first);
    let config = BrokerConfig {
        listen: broker.address(),
        ..BrokerConfig::new(second.path())
    };
    let error = Broker::start(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error.to_string().contains(&broker.address().to_string()),
        "{error}"
    );
}

#[test]
fn a_stop_is_quick_whatever_clients_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let held = broker
        .faults()
        .inject(Rule::new(ApiKey::Metadata, Action::Hold));
    let mut polling = Client::connect(broker.address());
    let mut holding = Client::connect(broker.address());
    holding.send(9, &MetadataRequest::default());
    polling.call(3, &api_versions());
    polling.send(12, &fetch("missing", 0, 60_000));
    assert!(held.wait_fired(1, Duration::from_secs(10)));
    eventually("two connections", || broker.connections() == 2);
    let begun = Instant::now();
    broker.stop().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert!(holding.receive::<MetadataRequest>(9).is_err());
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name("test".into())
        .with_client_software_version("1".into())
}

#[test]
fn connections_are_counted_also_while_a_request_waits() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address());
    client.create("usage");
    assert_eq!(broker.connections(), 1);
    client.send(12, &fetch("usage", 0, 60_000));
    let second = Client::connect(broker.address());
    eventually("two connections", || broker.connections() == 2);
    drop(client);
    drop(second);
    eventually("no connection", || broker.connections() == 0);
}

#[test]
fn requests_of_a_connection_are_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address());
    client.create("usage");
    let sent: Vec<i32> = (0..50)
        .map(|number| client.send(9, &produce("usage", batch(b"v", 1, number))))
        .collect();
    for (id, offset) in sent.into_iter().zip(0..) {
        let (received, response) = client.receive::<ProduceRequest>(9).unwrap();
        assert_eq!(received, id);
        assert_eq!(
            response.responses[0].partition_responses[0].base_offset,
            offset
        );
    }
}

#[test]
fn a_fetch_that_waits_is_woken_by_another_client() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let address = broker.address();
    Client::connect(address).create("usage");
    let (seen, fetching) = mpsc::sync_channel(1);
    broker.faults().observe(move |request| {
        if request.api_key == ApiKey::Fetch {
            // Nobody listens any more to the later ones.
            seen.try_send(()).ok();
        }
    });
    let waiting = thread::spawn(move || {
        let response = Client::connect(address).call(12, &fetch("usage", 0, 15_000));
        response.responses[0].partitions[0].high_watermark
    });
    fetching.recv().unwrap();
    let begun = Instant::now();
    Client::connect(address).produce("usage", batch(b"v", 1, 0));
    assert_eq!(waiting.join().unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_is_not_kafka_is_hung_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        max_request_bytes: 1000,
        ..BrokerConfig::new(dir.path())
    };
    let broker = Broker::start(config).unwrap();
    let too_long = 1001_i32.to_be_bytes();
    let negative = (-1_i32).to_be_bytes();
    let unknown_api = [0, 0, 0, 8, 0x7f, 0, 0, 0, 0, 0, 0, 1];
    let cut_off = [0, 0, 0, 9, 0, 3, 0, 9, 0, 0, 0, 1, 0];
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n",
        &too_long[..],
        &negative,
        &unknown_api,
        &cut_off,
    ] {
        let mut stream = TcpStream::connect(broker.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // Reset or closed: the system decides which of the two the client sees.
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() || answer.is_empty(), "{bytes:?}: {ended:?}");
        assert!(answer.is_empty(), "{bytes:?}");
    }
    Client::connect(broker.address()).create("usage");
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        max_connections: 2,
        ..BrokerConfig::new(dir.path())
    };
    let broker = Broker::start(config).unwrap();
    let mut clients = [(), ()].map(|()| Client::connect(broker.address()));
    for client in &mut clients {
        client.create("usage");
    }
    let mut third = TcpStream::connect(broker.address()).unwrap();
    let mut answer = Vec::new();
    assert_eq!(third.read_to_end(&mut answer).unwrap(), 0);
    clients[0].create("usage");
}

// Faults.

#[test]
fn a_dropped_answer_leaves_the_append() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address());
    client.create("usage");
    let rule = Rule::new(ApiKey::Produce, Action::DropAnswer)
        .topic("usage")
        .nth(2);
    let lost = broker.faults().inject(rule);
    assert_eq!(client.produce("usage", batch(b"a", 1, 0)), (0, 0));
    client.set_patience(Duration::from_millis(200));
    assert!(client.try_produce("usage", batch(b"b", 1, 1)).is_err());
    assert_eq!(lost.fired(), 1);
    let mut client = Client::connect(broker.address());
    assert_eq!(client.produce("usage", batch(b"b", 1, 1)), (0, 1));
    assert_eq!(client.values("usage"), [b"a", b"b"]);
}

#[test]
fn a_dropped_request_leaves_nothing_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address());
    client.create("usage");
    let rule = Rule::new(ApiKey::Produce, Action::DropRequest)
        .partition(0)
        .nth(1);
    let lost = broker.faults().inject(rule);
    client.send(9, &produce("usage", batch(b"lost", 1, 0)));
    assert_eq!(client.send(9, &produce("usage", batch(b"kept", 1, 0))), 3);
    let (answered, _) = client.receive::<ProduceRequest>(9).unwrap();
    assert_eq!((answered, lost.fired()), (3, 1));
    assert_eq!(client.values("usage"), [b"kept"]);
}

#[test]
fn disconnecting_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    Client::connect(broker.address()).create("usage");
    let mut kept = Vec::new();
    for (action, appended) in [(Action::Disconnect, 0), (Action::DisconnectAfter, 1)] {
        let fault = broker
            .faults()
            .inject(Rule::new(ApiKey::Produce, action).client_id("victim"));
        let mut victim = Client::connect(broker.address()).named("victim");
        assert!(victim.try_produce("usage", batch(b"v", 1, 0)).is_err());
        assert_eq!(fault.fired(), 1);
        kept.resize(appended, b"v".to_vec());
        assert_eq!(Client::connect(broker.address()).values("usage"), kept);
        fault.remove();
    }
}

#[test]
fn a_held_request_is_worked_on_after_its_client_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut dead = Client::connect(broker.address()).named("dead");
    dead.create("usage");
    let held = broker
        .faults()
        .inject(Rule::new(ApiKey::Produce, Action::Hold).client_id("dead"));
    dead.send(9, &produce("usage", batch(b"late", 1, 0)));
    assert!(held.wait_fired(1, Duration::from_secs(10)));
    drop(dead);
    let mut client = Client::connect(broker.address());
    assert_eq!(client.produce("usage", batch(b"early", 2, 0)), (0, 0));
    held.release();
    let response = client.call(12, &fetch("usage", 1, 15_000));
    assert_eq!(response.responses[0].partitions[0].high_watermark, 2);
    assert_eq!(client.values("usage"), [&b"early"[..], b"late"]);
}

#[test]
fn a_delay_delays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address());
    let time = Duration::from_millis(150);
    let fault = broker
        .faults()
        .inject(Rule::new(ApiKey::Metadata, Action::Delay(time)).times(1));
    let begun = Instant::now();
    client.create("usage");
    assert!(begun.elapsed() >= time);
    assert_eq!(fault.fired(), 1);
}

#[test]
fn error_codes_come_where_clients_look_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address());
    client.create("usage");
    let fault = broker.faults().inject(Rule::any(Action::AnswerError(14)));

    let response = client.call(9, &produce("usage", batch(b"v", 1, 0)));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 14);
    let response = client.call(12, &fetch("usage", 0, 0));
    assert_eq!(response.responses[0].partitions[0].error_code, 14);
    let topic = kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
        .with_name(Some(name("usage")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    assert_eq!(client.call(9, &request).topics[0].error_code, 14);
    let request = FindCoordinatorRequest::default().with_key("g".into());
    assert_eq!(client.call(3, &request).error_code, 14);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec!["g".into()]);
    assert_eq!(client.call(4, &request).coordinators[0].error_code, 14);
    assert_eq!(client.call(9, &JoinGroupRequest::default()).error_code, 14);
    assert_eq!(client.call(4, &HeartbeatRequest::default()).error_code, 14);
    let partition =
        kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition::default();
    let topic =
        kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(name("usage"))
            .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default().with_topics(vec![topic]);
    assert_eq!(
        client.call(8, &request).topics[0].partitions[0].error_code,
        14
    );

    assert_eq!(fault.fired(), 8);
    fault.remove();
    assert_eq!(client.produce("usage", batch(b"v", 1, 0)), (0, 0));
    let refused = client
        .try_call::<FetchRequest>(12, &fetch("usage", 0, 0))
        .unwrap();
    assert_eq!(refused.responses[0].partitions[0].error_code, 0);
}
