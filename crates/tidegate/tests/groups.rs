//! Groups of either protocol that are read from, held back for and waited for; and what is said of one that has not committed what it should,
//! because it is empty, rebalancing, set back, or its commits are gone.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::load::PATIENCE;
use common::{Exits, Folder, on, tidegate, usage};
use rustix::process::Signal;
use serde_json::Value;
use tidegate::kafka::{
    Client, ClientConfig, Consumer, ConsumerConfig, GroupConfig, GroupKind, GroupProtocol,
};
use tidegate_broker::Action;
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::program::wait_until;
use tidegate_testkit::proxy::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use tidegate_testkit::proxy::messages::{
    DeleteGroupsRequest, GroupId, OffsetDeleteRequest, ShareGroupHeartbeatRequest, TopicName,
};
use tidegate_testkit::proxy::{ApiKey, Proxy, Rule, Verb};
use tidegate_testkit::raw::RawClient;
use tidegate_testkit::{Cluster, Finished, Kind, for_each_cluster, services};

fn connect(bootstrap: &str) -> Client {
    Client::connect(ClientConfig::new(bootstrap).unwrap()).unwrap()
}

/// The protocols that a cluster offers, as `-X` takes them.
fn protocols(bootstrap: &str) -> Vec<(GroupProtocol, &'static str)> {
    let connection = connect(bootstrap).open_any().unwrap();
    let offered = connection
        .versions()
        .offered(ApiKey::ConsumerGroupHeartbeat as i16);
    let classic = (GroupProtocol::Classic, "group.protocol=classic");
    let consumer = (GroupProtocol::Consumer, "group.protocol=consumer");
    match offered.is_some_and(|(_, highest)| highest > 0) {
        true => vec![classic, consumer],
        false => vec![classic],
    }
}

/// Publishes 12 records to a topic of its own.
fn published(cluster: &Cluster, name: &str) -> String {
    let (folder, topic) = (Folder::new(), cluster.unique(name));
    let file = folder.file("usage.csv", usage(12, 2));
    let arguments = ["publish", &file, "-t", &topic, "--create-topic"];
    on(cluster, arguments)
        .args(["--group-by", "timestamp"])
        .exits(0);
    topic
}

/// Has a group of this protocol work off so many records, and leave.
fn work_off(cluster: &Cluster, topic: &str, group: &str, protocol: &str, records: &str) {
    let arguments = ["consume", "-t", topic, "-g", group, "--max", records];
    on(cluster, arguments).args(["-X", protocol]).exits(0);
}

/// One fault, and what a wait ended with.
fn cell(cluster: &Cluster, fault: &str, done: &Finished) -> Cell {
    Cell::new(31, fault)
        .on(cluster.kind())
        .fired(1)
        .code(done.code)
}

/// That a balance ended as behind, with a table, and a hint that says why.
#[track_caller]
fn is_behind(done: &Finished, hint: &str) {
    assert_eq!(done.code, Some(8), "{done}");
    assert!(
        done.stdout.contains("partition") && done.stdout.contains("committed"),
        "{done}"
    );
    assert!(done.stderr.contains(hint), "no \"{hint}\" in {done}");
}

#[test]
fn t31_a_group_that_is_not_there_or_has_no_members_is_told_of() {
    for_each_cluster(|cluster| {
        let topic = published(cluster, "empty");
        let balance = |group: &str| {
            on(
                cluster,
                ["balance", "-g", group, "-t", &topic, "--timeout", "0s"],
            )
            .run()
        };
        let group = cluster.unique("nobody");
        let nobody = balance(&group);
        is_behind(&nobody, &format!("there is no group {group}"));
        let mut cell = cell(
            cluster,
            "a group that is not there, or has no members",
            &nobody,
        );
        for (_, protocol) in protocols(cluster.bootstrap()) {
            let group = cluster.unique("empty");
            work_off(cluster, &topic, &group, protocol, "5");
            is_behind(&balance(&group), "has no members: start its consumers");
            cell = cell.fired(1);
            // Whoever is held back by it is told the same.
            let (folder, held) = (Folder::new(), cluster.unique("held"));
            let file = folder.file("usage.csv", usage(20, 1));
            let arguments = ["publish", &file, "-t", &held, "--create-topic"];
            let gate = ["--hold-group", &group, "--hold-limit", "5"];
            let load = on(cluster, arguments)
                .args(gate)
                .args(["--hold-timeout", "300ms"])
                .exits(8);
            assert!(load.stderr.contains("has no members"), "{load}");
            // It goes on where it was, and is done.
            work_off(cluster, &topic, &group, protocol, "7");
            on(cluster, ["balance", "-g", &group, "-t", &topic]).exits(0);
        }
        cell.record();
    });
}

fn member(client: &Client, group: &str, topic: &str, protocol: GroupProtocol) -> Consumer {
    let group = GroupConfig {
        protocol,
        heartbeat_interval: Duration::from_millis(300),
        ..GroupConfig::new(group)
    };
    let config = ConsumerConfig {
        group: Some(group),
        max_wait: Duration::from_millis(50),
        ..ConsumerConfig::default()
    };
    let mut consumer = Consumer::open(client.clone(), config).unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

#[test]
fn t31_a_group_that_rebalances_is_told_of() {
    for_each_cluster(|cluster| {
        let topic = published(cluster, "rebalancing");
        let client = connect(cluster.bootstrap());
        for (protocol, _) in protocols(cluster.bootstrap()) {
            let group = cluster.unique("rebalancing");
            let mut first = member(&client, &group, &topic, protocol);
            let step = Duration::from_millis(50);
            wait_until(PATIENCE, || {
                first.poll(step).unwrap();
                !first.assignment().is_empty()
            })
            .unwrap();
            // The first says nothing to what is asked of it from now on: its partition is to go to one of those that come.
            let mut others = Vec::new();
            wait_until(PATIENCE, || {
                if others.len() < 3 {
                    others.push(member(&client, &group, &topic, protocol));
                }
                for other in &mut others {
                    other.poll(step).unwrap();
                }
                let found = client.admin().describe_group(&group).unwrap();
                found.is_rebalancing()
            })
            .unwrap();
            let arguments = ["balance", "-g", &group, "-t", &topic, "--timeout", "0s"];
            let rebalancing = on(cluster, arguments).run();
            is_behind(&rebalancing, "is rebalancing, members");
            let protocol = format!("{protocol:?}").to_lowercase();
            let fault = format!("a group that rebalances, {protocol} protocol");
            cell(cluster, &fault, &rebalancing).record();
        }
    });
}

/// What becomes of a group while it is waited for.
#[derive(Clone, Copy, Debug)]
enum Change {
    SetBack,
    OffsetsDeleted,
    GroupDeleted,
}

impl Change {
    fn apply(self, cluster: &Cluster, group: &str, topic: &str) {
        let id = GroupId(group.to_owned().into());
        let mut raw = RawClient::connect(cluster.bootstrap()).unwrap();
        match self {
            Self::SetBack => {
                let admin = connect(cluster.bootstrap()).admin();
                admin.commit_offsets(group, topic, &[(0, 3)]).unwrap();
            }
            Self::OffsetsDeleted => {
                let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
                let topic = OffsetDeleteRequestTopic::default()
                    .with_name(TopicName(topic.to_owned().into()))
                    .with_partitions(vec![partition]);
                let request = OffsetDeleteRequest::default()
                    .with_group_id(id)
                    .with_topics(vec![topic]);
                let answer = raw.call(&request, 0).unwrap();
                assert_eq!(answer.error_code, 0);
                assert_eq!(answer.topics[0].partitions[0].error_code, 0);
            }
            Self::GroupDeleted => {
                let request = DeleteGroupsRequest::default().with_groups_names(vec![id]);
                let answer = raw.call(&request, 2).unwrap();
                assert_eq!(answer.results[0].error_code, 0);
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::SetBack => "a group is set back while it is waited for",
            Self::OffsetsDeleted => "the commits of a group are deleted while it is waited for",
            Self::GroupDeleted => "a group is deleted while it is waited for",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::SetBack => "was set back, in partition 0 from 8 to 3",
            // Kafka forgets a group that has neither members nor commits; the embedded broker does not.
            Self::OffsetsDeleted => "expired (offsets.retention.minutes)",
            Self::GroupDeleted => "was deleted",
        }
    }
}

/// The waits go on beside each other.
#[test]
fn t31_a_group_that_is_set_back_or_deleted_is_told_of() {
    for_each_cluster(|cluster| {
        let topic = published(cluster, "changed");
        for (_, protocol) in protocols(cluster.bootstrap()) {
            let changes = [
                Change::SetBack,
                Change::OffsetsDeleted,
                Change::GroupDeleted,
            ];
            let mut waits = Vec::new();
            for change in changes {
                let group = cluster.unique("changed");
                work_off(cluster, &topic, &group, protocol, "8");
                let proxy = Proxy::start(cluster.bootstrap()).unwrap();
                let looks = proxy.inject(Rule::new(ApiKey::OffsetFetch, Verb::Pass).on_answer());
                let arguments = ["balance", "-g", &group, "-t", &topic, "--timeout", "5s"];
                let wait = tidegate(arguments).args(["-b", proxy.bootstrap()]).start();
                assert!(looks.wait_fired(1, PATIENCE));
                change.apply(cluster, &group, &topic);
                waits.push((change, group, wait, proxy, looks.fired(), looks));
            }
            for (change, group, wait, proxy, before, looks) in waits {
                let done = wait.finish();
                let fault = format!("{}, {protocol}", change.name());
                let cell = cell(cluster, &fault, &done);
                assert!(looks.fired() > before + 1, "nobody looked again");
                is_behind(&done, change.hint());
                let warned = done.stderr.contains("the group went back from 8 to");
                assert!(warned, "{done}");
                drop(proxy);
                // Whatever happened: its next member reads again, and it is done.
                let rest = if matches!(change, Change::SetBack) {
                    "9"
                } else {
                    "12"
                };
                work_off(cluster, &topic, &group, protocol, rest);
                on(cluster, ["balance", "-g", &group, "-t", &topic]).exits(0);
                cell.record();
            }
        }
    });
}

/// Commits that nobody keeps alive expire, minutes after the last member left.
#[test]
fn t31_a_group_whose_commits_expire_is_told_of() {
    let properties = "offsets.retention.minutes=1\noffsets.retention.check.interval.ms=500";
    let Some(kafka) = services::own_kafka(properties) else {
        return;
    };
    let bootstrap = kafka.address().to_string();
    let (folder, topic) = (Folder::new(), "expiring");
    let file = folder.file("usage.csv", usage(12, 1));
    let arguments = [
        "publish",
        &file,
        "-t",
        topic,
        "--create-topic",
        "-b",
        &bootstrap,
    ];
    tidegate(arguments)
        .args(["--format", "json", "--delivery", "at-least-once"])
        .exits(0);
    let mut waits = Vec::new();
    for (_, protocol) in protocols(&bootstrap) {
        let group = protocol.replace('=', "-");
        let arguments = ["consume", "-t", topic, "-g", &group, "-X", protocol];
        tidegate(arguments)
            .args(["--max", "8", "-b", &bootstrap])
            .exits(0);
        let arguments = ["balance", "-g", &group, "-t", topic, "--timeout", "100s"];
        let wait = tidegate(arguments).args(["-b", &bootstrap]);
        waits.push(wait.timeout(Duration::from_secs(150)).start());
    }
    for wait in waits {
        let done = wait.finish();
        is_behind(&done, "its commits expired (offsets.retention.minutes)");
        assert!(
            done.stderr.contains("went back from 8 to nothing"),
            "{done}"
        );
        let cell = Cell::new(31, "the commits of a group expire while it is waited for");
        let cell = cell.on(Kind::Real).fired(1).code(done.code);
        cell.record();
    }
}

/// Two members of each protocol share what a load sends that they hold back; nothing is read twice.
#[test]
fn a_load_is_held_for_members_of_either_protocol() {
    for_each_cluster(|cluster| {
        for (kind, protocol) in protocols(cluster.bootstrap()) {
            let (folder, topic) = (Folder::new(), cluster.unique("hold"));
            let group = cluster.unique("hold");
            let file = folder.file("usage.csv", usage(400, 1));
            let arguments = ["publish", &file, "-t", &topic, "--create-topic"];
            let gate = ["--hold-group", &group, "--hold-limit", "50"];
            let wait = ["--wait-group", &group, "--wait-timeout", "60s"];
            let load = on(cluster, arguments)
                .args(["--partitions", "2", "-o", "json"])
                .args(gate)
                .args(wait)
                .timeout(Duration::from_secs(120))
                .start();
            let client = connect(cluster.bootstrap());
            let exists = || client.admin().describe_topic(&topic).unwrap().is_some();
            wait_until(PATIENCE, exists).unwrap();
            let members: Vec<_> = (0..2)
                .map(|_| {
                    let arguments = ["consume", "-t", &topic, "-g", &group, "-X", protocol];
                    on(cluster, arguments)
                        .timeout(Duration::from_secs(120))
                        .start()
                })
                .collect();
            let summary = load.finish().exits(0).json();
            assert_eq!(summary["records"]["delivered"], 400, "{summary}");
            assert_eq!(summary["wait"]["status"], "balanced", "{summary}");
            let found = client.admin().describe_group(&group).unwrap();
            let expected = match kind {
                GroupProtocol::Classic => GroupKind::Classic,
                GroupProtocol::Consumer => GroupKind::Consumer,
            };
            assert_eq!(found.kind, expected);
            let said = on(cluster, ["doctor", "-g", &group]).run();
            assert!(
                said.stdout.contains(protocol.rsplit('=').next().unwrap()),
                "{said}"
            );
            let mut read = Vec::new();
            for mut member in members {
                member.signal(Signal::INT);
                let done = member.finish().exits(130);
                read.extend(done.stdout.lines().map(place));
            }
            let distinct: BTreeSet<_> = read.iter().collect();
            assert_eq!((distinct.len(), read.len()), (400, 400));
            on(cluster, ["balance", "-g", &group, "-t", &topic]).exits(0);
        }
    });
}

/// Partition and offset of a record as `consume` prints it.
fn place(line: &str) -> (i64, i64) {
    let record: Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| record[name].as_i64().unwrap();
    (number("partition"), number("offset"))
}

/// A share group keeps no offsets: it is refused, whatever it is asked for.
#[test]
fn a_share_group_is_refused_by_name() {
    let Some(cluster) = Cluster::real() else {
        return;
    };
    let topic = published(&cluster, "share");
    let group = cluster.unique("share");
    let connection = connect(cluster.bootstrap()).open_any().unwrap();
    let versions = connection.versions();
    let offered = versions.offered(ApiKey::ShareGroupHeartbeat as i16);
    if offered.is_none_or(|(_, highest)| highest < 1) {
        return services::skip("Kafka 4.1 or later, which has share groups");
    }
    let heartbeat = ShareGroupHeartbeatRequest::default()
        .with_group_id(GroupId(group.clone().into()))
        .with_member_id("00000000000000000001".into())
        .with_member_epoch(0)
        .with_subscribed_topic_names(Some(vec![TopicName(topic.clone().into())]));
    let mut raw = RawClient::connect(cluster.bootstrap()).unwrap();
    let answer = raw.call(&heartbeat, 1).unwrap();
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    let said = format!("group {group} is a share group");
    let balance = on(&cluster, ["balance", "-g", &group, "-t", &topic]).exits(2);
    assert!(balance.stderr.contains(&said), "{balance}");
    let folder = Folder::new();
    let file = folder.file("usage.csv", usage(2, 2));
    for gate in [
        &["--hold-group", &group, "--hold-limit", "5"][..],
        &["--wait-group", &group],
    ] {
        let load = on(&cluster, ["publish", &file, "-t", &topic]).args(gate);
        let load = load.args(["--group-by", "timestamp"]);
        let load = load.exits(2);
        assert!(load.stderr.contains(&said), "{load}");
    }
    let doctor = on(&cluster, ["doctor", "-g", &group]).run();
    assert!(doctor.stdout.contains(&said), "{doctor}");
    // And one cannot be joined.
    let arguments = ["consume", "-t", &topic, "-g", &group];
    let joined = on(&cluster, arguments)
        .args(["-X", "group.protocol=consumer"])
        .exits(2);
    assert!(joined.stderr.contains("of another kind"), "{joined}");
}

#[test]
fn a_protocol_that_is_not_offered_or_not_known_is_told_of() {
    for_each_cluster(|cluster| {
        if cluster.kind() == Kind::Real {
            return;
        }
        let topic = published(cluster, "refused");
        let consume = |property: &str| {
            let arguments = ["consume", "-t", &topic, "-g", "g", "-X", property];
            on(cluster, arguments).exits(2)
        };
        // Known and turned off, as in a cluster that has not finalised group.version.
        let faults = cluster.broker().unwrap().faults();
        let off = Action::AnswerError(35);
        faults.inject(tidegate_broker::Rule::new(
            ApiKey::ConsumerGroupHeartbeat,
            off,
        ));
        let refused = consume("group.protocol=consumer");
        assert!(
            refused
                .stderr
                .contains("does not offer group.protocol=consumer")
                && refused.stderr.contains("group.protocol=classic"),
            "{refused}"
        );
        let refused = consume("group.protocol=share");
        assert!(
            refused.stderr.contains("it takes classic or consumer"),
            "{refused}"
        );
        let refused = consume("group.remote.assignor=uniform");
        assert!(
            refused.stderr.contains("group.protocol=consumer"),
            "{refused}"
        );
    });
}
