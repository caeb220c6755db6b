//! Connecting, metadata and administration.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::common::{append, connect, connect_impatient, create, numbered};
use tidegate_broker::{Action, ApiKey, Rule};
use tidegate_kafka::{Client, ClientConfig, ErrorKind, Isolation, NewTopic, OffsetSpec};
use tidegate_testkit::{Cluster, for_each_kafka, unique_name};

/// A port on which nobody listens, and one on which nobody answers.
fn dead_and_silent() -> (String, String, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    (
        dead.to_string(),
        silent.local_addr().unwrap().to_string(),
        silent,
    )
}

#[test]
fn an_unreachable_cluster_is_named_with_every_address_and_reason() {
    let (dead, silent, _listener) = dead_and_silent();
    let config = ClientConfig {
        connect_timeout: Duration::from_secs(2),
        ..ClientConfig::new(&format!("{dead},{silent},no-such-host.invalid")).unwrap()
    };
    let started = Instant::now();
    let error = Client::connect(config).unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert!(
        matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout),
        "{error}"
    );
    let text = error.to_string();
    for part in [
        &*dead,
        "Connection refused",
        &*silent,
        "no answer in time",
        "no-such-host.invalid:9092",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn one_bootstrap_server_of_several_is_enough() {
    for_each_kafka(|_, bootstrap| {
        let (dead, silent, _listener) = dead_and_silent();
        let client = connect(&format!("{dead},{silent},{bootstrap}"));
        assert!(!client.view().brokers.is_empty());
    });
}

#[test]
fn a_topic_is_made_described_and_deleted() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let admin = client.admin();
        let name = unique_name("made");
        assert!(admin.describe_topic(&name).unwrap().is_none());
        let new = NewTopic {
            name: name.clone(),
            partitions: Some(3),
            replication_factor: Some(1),
            configs: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
        };
        admin.create_topic(&new).unwrap();
        let topic = admin.describe_topic(&name).unwrap().unwrap();
        assert_eq!(topic.partitions.len(), 3);
        assert!(topic.is_ready());
        assert_ne!(topic.id, [0; 16]);
        assert_eq!(
            admin.topic_configs(&name).unwrap()["cleanup.policy"],
            "compact"
        );

        let again = admin.create_topic(&new).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Topic, "{again}");
        assert!(again.to_string().contains(&name), "{again}");

        admin.delete_topic(&name).unwrap();
        let missing = admin.delete_topic(&unique_name("never-made")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::TopicMissing, "{missing}");
    });
}

#[test]
fn metadata_never_makes_a_topic() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let name = unique_name("not-made");
        for _ in 0..3 {
            let view = client.refresh(&[&name]).unwrap();
            assert_eq!(
                view.topic(&name).unwrap_err().kind(),
                ErrorKind::TopicMissing
            );
        }
    });
}

#[test]
fn the_answer_to_making_a_topic_may_be_lost() {
    let cluster = Cluster::embedded();
    let faults = cluster.broker().unwrap().faults();
    let lost = faults.inject(Rule::new(ApiKey::CreateTopics, Action::Disconnect).nth(1));
    let unanswered = faults.inject(Rule::new(ApiKey::CreateTopics, Action::DropAnswer).nth(2));
    let client = connect_impatient(cluster.bootstrap());
    let config = ClientConfig {
        request_timeout: Duration::from_secs(3),
        ..client.config().clone()
    };
    let client = Client::connect(config).unwrap();
    create(&client, "t", 2);
    assert!(lost.fired() + unanswered.fired() > 0);
    assert_eq!(
        client
            .admin()
            .describe_topic("t")
            .unwrap()
            .unwrap()
            .partitions
            .len(),
        2
    );
}

#[test]
fn offsets_are_found_by_end_and_by_time() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let admin = client.admin();
        let name = unique_name("offsets");
        create(&client, &name, 2);
        append(&client, &name, 1, &numbered(0..5));
        let list = |spec| {
            admin
                .list_offsets(&name, &[0, 1], spec, Isolation::ReadUncommitted)
                .unwrap()
        };
        assert_eq!(list(OffsetSpec::Earliest), [(0, 0), (1, 0)]);
        assert_eq!(list(OffsetSpec::Latest), [(0, 0), (1, 5)]);
        assert_eq!(
            list(OffsetSpec::Timestamp(1_600_000_000_000)),
            [(0, 0), (1, 0)]
        );
        assert_eq!(
            list(OffsetSpec::Timestamp(1_800_000_000_000)),
            [(0, 0), (1, 5)]
        );

        let error = admin.list_offsets(&name, &[7], OffsetSpec::Latest, Isolation::ReadUncommitted);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TopicMissing);
    });
}

#[test]
fn a_leader_that_moved_is_asked_again() {
    let cluster = Cluster::embedded();
    let client = connect(cluster.bootstrap());
    create(&client, "t", 1);
    append(&client, "t", 0, &numbered(0..3));
    const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    let moved = cluster.broker().unwrap().faults().inject(
        Rule::new(
            ApiKey::ListOffsets,
            Action::AnswerError(NOT_LEADER_OR_FOLLOWER),
        )
        .times(2),
    );
    let admin = client.admin();
    let found = admin
        .list_offsets("t", &[0], OffsetSpec::Latest, Isolation::ReadUncommitted)
        .unwrap();
    assert_eq!(found, [(0, 3)]);
    assert_eq!(moved.fired(), 2);
}

#[test]
fn a_group_is_read_and_set_without_joining_it() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let admin = client.admin();
        let (topic, group) = (unique_name("work"), unique_name("workers"));
        create(&client, &topic, 2);
        assert_eq!(
            admin.committed(&group, &topic, &[0, 1]).unwrap(),
            [(0, None), (1, None)]
        );
        admin.commit_offsets(&group, &topic, &[(1, 42)]).unwrap();
        assert_eq!(
            admin.committed(&group, &topic, &[0, 1]).unwrap(),
            [(0, None), (1, Some(42))]
        );
        assert_eq!(admin.describe_group(&group).unwrap().state, "Empty");
        assert!(admin.list_groups().unwrap().contains(&group));
    });
}

#[test]
fn a_broker_that_stays_silent_does_not_hang_a_request() {
    let cluster = Cluster::embedded();
    let client = connect_impatient(cluster.bootstrap());
    let silent = cluster
        .broker()
        .unwrap()
        .faults()
        .inject(Rule::new(ApiKey::ListGroups, Action::DropRequest));
    let started = Instant::now();
    let error = client.admin().list_groups().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    assert!(silent.fired() > 0);
}
