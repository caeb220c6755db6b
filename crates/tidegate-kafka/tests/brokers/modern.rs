//! Group membership by the new protocol (KIP-848, `group.protocol=consumer`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{
    SOON, append, connect, connect_impatient, create, numbered, poll_all_until, poll_until,
    records_of, stalled,
};
use kafka_protocol::messages::{ApiKey, ConsumerGroupHeartbeatRequest, OffsetCommitRequest};
use tidegate_broker::Action;
use tidegate_kafka::{
    Assignor, Client, Consumer, ConsumerConfig, Error, ErrorKind, GroupConfig, GroupKind,
    GroupProtocol,
};
use tidegate_testkit::kafka::RealKafka;
use tidegate_testkit::proxy::{Proxy, Rule, Verb};
use tidegate_testkit::{Cluster, services, unique_name};

/// A coordinator that notices soon who died, and lets members be told soon.
const PROPERTIES: &str = "group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=300
group.consumer.max.size=4";

/// Runs `test` on each broker that offers the protocol, both of them set up alike.
#[expect(
    clippy::print_stderr,
    reason = "shown by the test harness next to the failure"
)]
fn for_each_broker(mut test: impl FnMut(&str)) {
    static OWN: OnceLock<Option<RealKafka>> = OnceLock::new();
    let cluster = Cluster::embedded_with(|config| {
        config.modern_session_timeout = Duration::from_secs(3);
        config.modern_heartbeat_interval = Duration::from_millis(300);
        config.max_group_size = 4;
    });
    eprintln!("on the embedded broker");
    test(cluster.bootstrap());
    let Some(kafka) = OWN.get_or_init(|| services::own_kafka(PROPERTIES)) else {
        return;
    };
    let bootstrap = kafka.address().to_string();
    if !offers(&bootstrap) {
        // An older one was asked for; a newer one must offer it.
        let name = services::kafka_name();
        assert!(name.starts_with("Kafka 3."), "{name} does not offer it");
        eprintln!("not on {name}, which does not offer it");
        return;
    }
    eprintln!("on real Kafka at {bootstrap}");
    test(&bootstrap);
}

fn offers(bootstrap: &str) -> bool {
    let connection = connect(bootstrap).open_any().unwrap();
    let versions = connection.versions();
    versions
        .offered(ApiKey::ConsumerGroupHeartbeat as i16)
        .is_some_and(|(_, highest)| highest > 0)
}

fn config(group: &str) -> ConsumerConfig {
    let group = GroupConfig {
        protocol: GroupProtocol::Consumer,
        rebalance_timeout: Duration::from_secs(10),
        ..GroupConfig::new(group)
    };
    ConsumerConfig {
        group: Some(group),
        max_wait: Duration::from_millis(50),
        partition_max_bytes: 500,
        ..ConsumerConfig::default()
    }
}

fn member(client: &Client, group: &str, topic: &str) -> Consumer {
    open(client, config(group), topic)
}

fn open(client: &Client, config: ConsumerConfig, topic: &str) -> Consumer {
    let mut consumer = Consumer::open(client.clone(), config).unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

/// Polls until the group's refusal.
fn refusal_of(mut consumer: Consumer) -> Error {
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < SOON, "it is not refused");
        if let Err(error) = consumer.poll(Duration::from_millis(100)) {
            return error;
        }
    }
}

/// Whether each partition is read by exactly one, and nobody reads more than one more than another.
fn is_shared_evenly(members: &[Consumer], partitions: usize) -> bool {
    let owned: Vec<(String, i32)> = members.iter().flat_map(Consumer::assignment).collect();
    let distinct: BTreeSet<&(String, i32)> = owned.iter().collect();
    assert_eq!(
        owned.len(),
        distinct.len(),
        "read by two at once: {owned:?}"
    );
    let shares = members.iter().map(|member| member.assignment().len());
    let (least, most) = (shares.clone().min().unwrap_or(0), shares.max().unwrap_or(0));
    distinct.len() == partitions && most - least <= 1
}

fn created(client: &Client, name: &str, partitions: i32) -> (String, String) {
    let (topic, group) = (unique_name(name), unique_name(name));
    create(client, &topic, partitions);
    (topic, group)
}

#[test]
fn modern_members_share_come_leave_and_die() {
    for_each_broker(|bootstrap| {
        for assignor in [None, Some("uniform"), Some("range")] {
            let client = connect(bootstrap);
            let (topic, group) = created(&client, "shared", 6);
            let mut config = config(&group);
            if let Some(group) = &mut config.group {
                group.remote_assignor = assignor.map(ToOwned::to_owned);
            }
            let mut members = Vec::new();
            for count in 1..=3 {
                members.push(open(&client, config.clone(), &topic));
                poll_all_until(&mut members, |members| is_shared_evenly(members, 6));
                assert_eq!(members.len(), count);
            }
            let described = client.admin().describe_group(&group).unwrap();
            assert_eq!(
                (described.kind, described.members.len()),
                (GroupKind::Consumer, 3)
            );
            assert_eq!(described.protocol, assignor.unwrap_or("uniform"));

            members.remove(0).leave().unwrap();
            poll_all_until(&mut members, |members| is_shared_evenly(members, 6));
            // Dies without a word: the session time-out finds out.
            drop(members.remove(0));
            poll_all_until(&mut members, |members| is_shared_evenly(members, 6));
            members.remove(0).leave().unwrap();
            let described = client.admin().describe_group(&group).unwrap();
            // The embedded broker forgets a group of which nothing is left, offsets included.
            let is_empty = matches!(&*described.state, "Empty" | "Dead");
            assert!(is_empty && described.members.is_empty(), "{described:?}");
        }
    });
}

/// Reads as a group whose members come and go, committing after each poll: every record is seen, and none twice.
#[test]
fn nothing_is_lost_or_doubled_while_modern_members_come_and_go() {
    const PARTITIONS: i32 = 4;
    const RECORDS: usize = 2000;
    for_each_broker(|bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = created(&client, "moving", PARTITIONS);
        for partition in 0..PARTITIONS {
            for _ in 0..50 {
                append(&client, &topic, partition, &numbered(0..10));
            }
        }
        let mut seen: BTreeMap<(i32, i64), u32> = BTreeMap::new();
        let mut members = vec![member(&client, &group, &topic)];
        let (mut known, mut since) = (0, Instant::now());
        let mut most = 0;
        while seen.len() < RECORDS {
            if seen.len() > known {
                (known, since) = (seen.len(), Instant::now());
            }
            // How long all of it takes is the machine's affair; that it goes on is ours.
            assert!(
                since.elapsed() < SOON,
                "{}, {:?}",
                stalled(&seen, &members, &topic),
                client.admin().describe_group(&group)
            );
            match seen.len() {
                50.. if most == 0 => {
                    most = 1;
                    members.push(member(&client, &group, &topic));
                }
                500.. if most == 1 && !members[1].assignment().is_empty() => {
                    most = 2;
                    members.push(member(&client, &group, &topic));
                }
                1000.. if most == 2 && !members[2].assignment().is_empty() => {
                    most = 3;
                    members.remove(0).leave().unwrap();
                }
                _ => {}
            }
            for consumer in &mut members {
                let fetched = consumer.poll(Duration::from_millis(20)).unwrap();
                let mut offsets: Vec<(&str, i32, i64)> = Vec::new();
                for fetched in &fetched {
                    for record in records_of(fetched) {
                        *seen.entry((record.partition, record.offset)).or_insert(0) += 1;
                    }
                    offsets.push((&*fetched.topic, fetched.partition, fetched.next_offset));
                }
                consumer.commit(&offsets).unwrap();
            }
            assert!(is_disjoint(&members), "read by two at once");
        }
        let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "{doubled:?}");
        assert!(most > 0, "nobody came");
        for consumer in members {
            consumer.leave().unwrap();
        }
    });
}

fn is_disjoint(members: &[Consumer]) -> bool {
    let owned: Vec<(String, i32)> = members.iter().flat_map(Consumer::assignment).collect();
    owned.iter().collect::<BTreeSet<_>>().len() == owned.len()
}

#[test]
fn a_modern_group_goes_on_where_it_committed() {
    for_each_broker(|bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = created(&client, "resumed", 1);
        append(&client, &topic, 0, &numbered(0..10));
        let mut first = member(&client, &group, &topic);
        poll_until(&mut first, |seen| seen.len() >= 10);
        first.commit(&[(&topic, 0, 4)]).unwrap();
        // Anybody may look, without being a member.
        let committed = || client.admin().committed(&group, &topic, &[0]).unwrap();
        assert_eq!(committed(), [(0, Some(4))]);
        first.leave().unwrap();
        assert_eq!(committed(), [(0, Some(4))]);
        let mut second = member(&client, &group, &topic);
        let seen = poll_until(&mut second, |seen| seen.len() >= 6);
        assert_eq!((seen.len(), seen[0].offset), (6, 4));
    });
}

#[test]
fn a_modern_member_that_was_fenced_cannot_commit_and_joins_anew() {
    for_each_broker(|bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = created(&client, "fenced", 1);
        append(&client, &topic, 0, &numbered(0..10));
        let mut slow = member(&client, &group, &topic);
        poll_until(&mut slow, |seen| seen.len() >= 10);
        // Meanwhile it does not poll, until another has taken over.
        let mut quick = member(&client, &group, &topic);
        poll_until(&mut quick, |seen| seen.len() >= 10);
        quick.commit(&[(&topic, 0, 10)]).unwrap();
        let error = slow.commit(&[(&topic, 0, 3)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Group, "{error}");
        let committed = client.admin().committed(&group, &topic, &[0]).unwrap();
        assert_eq!(committed, [(0, Some(10))]);
        let mut both = vec![slow, quick];
        poll_all_until(&mut both, |members| {
            let described = client.admin().describe_group(&group).unwrap();
            described.members.len() == 2 && is_shared_evenly(members, 1)
        });
    });
}

/// The answer that brings a new epoch is lost. What is committed in the old one is refused, or not, and is committed in the end. (Kafka takes
/// some commits of older epochs since KIP-1251.)
#[test]
fn a_modern_member_whose_epoch_is_stale_commits_all_the_same() {
    const STALE_MEMBER_EPOCH: i16 = 113;
    for_each_broker(|bootstrap| {
        let proxy = Proxy::start(bootstrap).unwrap();
        let direct = connect(bootstrap);
        let (topic, group) = created(&direct, "stale", 2);
        append(&direct, &topic, 0, &numbered(0..10));
        append(&direct, &topic, 1, &numbered(0..10));
        let client = connect_impatient(proxy.bootstrap());
        let mut first = member(&client, &group, &topic);
        poll_until(&mut first, |seen| seen.len() >= 20);
        // It says that it has given one of two partitions up, and does not hear what it is told then.
        let gave_up = |request: ConsumerGroupHeartbeatRequest| {
            let held = request.topic_partitions.unwrap_or_default();
            let held: usize = held.iter().map(|topic| topic.partitions.len()).sum();
            request.member_epoch > 0 && request.rebalance_timeout_ms < 0 && held == 1
        };
        let rule = Rule::new(ApiKey::ConsumerGroupHeartbeat, Verb::Drop).on_answer();
        let rule = rule.when(move |seen| seen.request().is_some_and(gave_up));
        let lost = proxy.inject(rule.times(1));
        let commits = proxy.inject(Rule::new(ApiKey::OffsetCommit, Verb::Pass).on_answer());
        let mut second = member(&direct, &group, &topic);
        let mut offset = 0;
        let started = Instant::now();
        while lost.fired() == 0 || second.assignment().is_empty() {
            assert!(started.elapsed() < SOON, "lost {}", lost.fired());
            second.poll(Duration::from_millis(20)).unwrap();
            first.poll(Duration::from_millis(20)).unwrap();
        }
        // It does not know yet that its epoch is over.
        for _ in 0..3 {
            offset += 1;
            let held = first.assignment();
            let offsets: Vec<(&str, i32, i64)> = held
                .iter()
                .map(|(topic, partition)| (&**topic, *partition, offset))
                .collect();
            assert_eq!(offsets.len(), 1);
            first.commit(&offsets).unwrap();
            let number = offsets[0].1;
            let committed = direct.admin().committed(&group, &topic, &[number]).unwrap();
            assert_eq!(committed, [(number, Some(offset))]);
        }
        let refused = commits.answers::<OffsetCommitRequest>();
        let refused = refused.iter().flat_map(|answer| &answer.topics);
        let refused = refused.flat_map(|topic| &topic.partitions);
        let refused = refused.filter(|answer| answer.error_code == STALE_MEMBER_EPOCH);
        let refused = refused.count();
        eprintln!("commits refused as stale: {refused}");
        let mut both = vec![first, second];
        poll_all_until(&mut both, |members| is_shared_evenly(members, 2));
    });
}

/// A commit, and a look at what was committed, are tried again behind a heartbeat.
#[test]
fn a_modern_member_that_is_told_of_a_stale_epoch_asks_for_the_current_one() {
    const STALE_MEMBER_EPOCH: i16 = 113;
    let cluster = Cluster::embedded();
    let client = connect(cluster.bootstrap());
    create(&client, "t", 1);
    append(&client, "t", 0, &numbered(0..10));
    let faults = cluster.broker().unwrap().faults();
    let stale = Action::AnswerError(STALE_MEMBER_EPOCH);
    let rule = |api| tidegate_broker::Rule::new(api, stale).nth(1);
    let looks = faults.inject(rule(tidegate_broker::ApiKey::OffsetFetch));
    let commits = faults.inject(rule(tidegate_broker::ApiKey::OffsetCommit));
    let mut consumer = member(&client, "g", "t");
    poll_until(&mut consumer, |seen| seen.len() >= 10);
    consumer.commit(&[("t", 0, 10)]).unwrap();
    assert_eq!((looks.fired(), commits.fired()), (1, 1));
    let committed = client.admin().committed("g", "t", &[0]).unwrap();
    assert_eq!(committed, [(0, Some(10))]);
}

/// Requests and answers get lost, and connections break: the group goes on, and nothing is read by two at once.
#[test]
fn a_modern_group_survives_whatever_happens_to_its_requests() {
    for_each_broker(|bootstrap| {
        let direct = connect(bootstrap);
        for (verb, on_answer) in [
            (Verb::Drop, false),
            (Verb::Drop, true),
            (Verb::Reset, false),
            (Verb::Reset, true),
            (Verb::HalfOpen, true),
        ] {
            let proxy = Proxy::start(bootstrap).unwrap();
            let (topic, group) = created(&direct, "survives", 2);
            for partition in 0..2 {
                append(&direct, &topic, partition, &numbered(0..10));
            }
            let client = connect_impatient(proxy.bootstrap());
            let rule = Rule::new(ApiKey::ConsumerGroupHeartbeat, verb)
                .after(1)
                .times(3);
            let fault = proxy.inject(if on_answer { rule.on_answer() } else { rule });
            let mut members: Vec<Consumer> =
                (0..2).map(|_| member(&client, &group, &topic)).collect();
            let started = Instant::now();
            let done = |client: &Client| {
                let committed = client.admin().committed(&group, &topic, &[0, 1]).unwrap();
                committed == [(0, Some(10)), (1, Some(10))]
            };
            while fault.fired() < 3 || !done(&direct) || !is_shared_evenly(&members, 2) {
                assert!(
                    started.elapsed() < SOON,
                    "{verb:?}: fired {}",
                    fault.fired()
                );
                for consumer in &mut members {
                    consumer.poll(Duration::from_millis(50)).unwrap();
                    let offsets: Vec<(&str, i32, i64)> = (0..2)
                        .filter_map(|partition| {
                            Some((&*topic, partition, consumer.position(&topic, partition)?))
                        })
                        .collect();
                    if let Err(error) = consumer.commit(&offsets) {
                        assert_eq!(error.kind(), ErrorKind::Group, "{verb:?}: {error}");
                    }
                }
            }
        }
    });
}

#[test]
fn what_a_modern_group_refuses_is_told() {
    for_each_broker(|bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = created(&client, "refused", 1);
        let mut unknown = config(&group);
        if let Some(group) = &mut unknown.group {
            group.remote_assignor = Some("no-such-assignor".to_owned());
        }
        let error = refusal_of(open(&client, unknown, &topic));
        assert_eq!(error.kind(), ErrorKind::Group, "{error}");
        assert!(
            error.to_string().contains("UNSUPPORTED_ASSIGNOR"),
            "{error}"
        );

        // As many as there may be, and one more.
        let mut members: Vec<Consumer> = (0..4).map(|_| member(&client, &group, &topic)).collect();
        poll_all_until(&mut members, |_| {
            client.admin().describe_group(&group).unwrap().members.len() == 4
        });
        let error = refusal_of(member(&client, &group, &topic));
        assert!(
            error.to_string().contains("GROUP_MAX_SIZE_REACHED"),
            "{error}"
        );
    });
}

/// A classic group becomes one of the new protocol when the first such member joins, and both work side by side. The embedded broker knows no
/// such change, and says so.
#[test]
fn modern_and_classic_members_share_a_group() {
    for_each_broker(|bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = created(&client, "mixed", 4);
        let mut classic = config(&group);
        if let Some(group) = &mut classic.group {
            group.protocol = GroupProtocol::Classic;
            group.session_timeout = Duration::from_secs(6);
            group.heartbeat_interval = Duration::from_millis(300);
            group.assignors = vec![Assignor::CooperativeSticky];
        }
        let mut members = vec![open(&client, classic.clone(), &topic)];
        poll_all_until(&mut members, |members| is_shared_evenly(members, 4));
        let kind = || client.admin().describe_group(&group).unwrap().kind;
        assert_eq!(kind(), GroupKind::Classic);
        if !changes_kind(bootstrap) {
            let error = refusal_of(member(&client, &group, &topic));
            assert_eq!(error.kind(), ErrorKind::Group, "{error}");
            assert!(error.to_string().contains("of another kind"), "{error}");
            return;
        }
        members.push(member(&client, &group, &topic));
        poll_all_until(&mut members, |members| is_shared_evenly(members, 4));
        assert_eq!(kind(), GroupKind::Consumer);
        for member in &mut members {
            let held = member.assignment();
            let offsets: Vec<(&str, i32, i64)> = held
                .iter()
                .map(|(topic, partition)| (&**topic, *partition, 0))
                .collect();
            member.commit(&offsets).unwrap();
        }
        // The way back.
        members.push(open(&client, classic, &topic));
        poll_all_until(&mut members, |members| is_shared_evenly(members, 4));
        members.remove(1).leave().unwrap();
        poll_all_until(&mut members, |members| is_shared_evenly(members, 4));
        assert_eq!(kind(), GroupKind::Classic);
    });
}

/// Whether the broker is Kafka, which can turn groups of one kind into the other.
fn changes_kind(bootstrap: &str) -> bool {
    let connection = connect(bootstrap).open_any().unwrap();
    let versions = connection.versions();
    versions.finalised_feature("group.version").is_some()
}

/// Where it is known, and turned off: as in a cluster that has not finalised `group.version`.
#[test]
fn a_broker_without_the_new_protocol_is_told_of() {
    const UNSUPPORTED_VERSION: i16 = 35;
    let cluster = Cluster::embedded();
    let client = connect(cluster.bootstrap());
    create(&client, "t", 1);
    let faults = cluster.broker().unwrap().faults();
    let refusal = Action::AnswerError(UNSUPPORTED_VERSION);
    let fault = faults.inject(tidegate_broker::Rule::new(
        tidegate_broker::ApiKey::ConsumerGroupHeartbeat,
        refusal,
    ));
    let error = refusal_of(member(&client, "g", "t"));
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(
        error.to_string().contains("group.protocol=classic"),
        "{error}"
    );
    assert_eq!(fault.fired(), 1);
}

/// One that is older does not offer it at all.
#[test]
fn an_old_broker_without_the_new_protocol_is_told_of() {
    let Some(bootstrap) = services::kafka() else {
        return;
    };
    if offers(&bootstrap) {
        return;
    }
    let client = connect(&bootstrap);
    let (topic, group) = created(&client, "old", 1);
    let error = refusal_of(member(&client, &group, &topic));
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(
        error.to_string().contains("group.protocol=classic"),
        "{error}"
    );
}
