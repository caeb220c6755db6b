//! Group membership.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::common::{
    SOON, append, connect, connect_impatient, create, numbered, poll_all_until, poll_until,
    records_of, stalled,
};
use tidegate_broker::{Action, ApiKey, Rule};
use tidegate_kafka::{Assignor, Client, Consumer, ConsumerConfig, ErrorKind, GroupConfig};
use tidegate_testkit::{Cluster, for_each_kafka, unique_name};

fn member(client: &Client, group: &str, topic: &str, assignors: &[Assignor]) -> Consumer {
    let group = GroupConfig {
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(300),
        rebalance_timeout: Duration::from_secs(10),
        assignors: assignors.to_vec(),
        ..GroupConfig::new(group)
    };
    let config = ConsumerConfig {
        group: Some(group),
        max_wait: Duration::from_millis(50),
        partition_max_bytes: 500,
        ..ConsumerConfig::default()
    };
    let mut consumer = Consumer::open(client.clone(), config).unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

/// Whether each partition is read by exactly one, and nobody reads more than one more than another.
fn is_shared_evenly(members: &[Consumer], partitions: usize) -> bool {
    let owned: Vec<(String, i32)> = members.iter().flat_map(Consumer::assignment).collect();
    let distinct: BTreeSet<&(String, i32)> = owned.iter().collect();
    let shares = members.iter().map(|member| member.assignment().len());
    let (least, most) = (shares.clone().min().unwrap_or(0), shares.max().unwrap_or(0));
    distinct.len() == partitions && owned.len() == partitions && most - least <= 1
}

const CHOICES: [&[Assignor]; 3] = [
    &[Assignor::Range],
    &[Assignor::CooperativeSticky],
    &[Assignor::Range, Assignor::CooperativeSticky],
];

#[test]
fn members_share_come_leave_and_die() {
    for_each_kafka(|_, bootstrap| {
        for assignors in CHOICES {
            let client = connect(bootstrap);
            let (topic, group) = (unique_name("shared"), unique_name("members"));
            create(&client, &topic, 6);
            let mut members = Vec::new();
            for count in 1..=3 {
                members.push(member(&client, &group, &topic, assignors));
                poll_all_until(&mut members, |members| is_shared_evenly(members, 6));
                assert_eq!(members.len(), count);
            }
            let described = client.admin().describe_group(&group).unwrap();
            assert_eq!((&*described.state, described.members.len()), ("Stable", 3));
            assert_eq!(described.protocol, assignors[0].name());

            members.remove(0).leave().unwrap();
            let left = Instant::now();
            poll_all_until(&mut members, |members| is_shared_evenly(members, 6));
            assert!(
                left.elapsed() < Duration::from_secs(5),
                "{:?}",
                left.elapsed()
            );
            // Dies without a word: the session time-out finds out.
            drop(members.remove(0));
            poll_all_until(&mut members, |members| is_shared_evenly(members, 6));
            members.remove(0).leave().unwrap();
            let state = client.admin().describe_group(&group).unwrap().state;
            // Kafka forgets an empty group without offsets.
            assert!(matches!(&*state, "Empty" | "Dead"), "{state}");
        }
    });
}

#[test]
fn a_member_keeps_reading_what_it_keeps() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = (unique_name("kept"), unique_name("sticky"));
        create(&client, &topic, 4);
        let sticky = &[Assignor::CooperativeSticky];
        let mut members = vec![member(&client, &group, &topic, sticky)];
        poll_all_until(&mut members, |members| is_shared_evenly(members, 4));
        let before: BTreeSet<_> = members[0].assignment().into_iter().collect();
        members.push(member(&client, &group, &topic, sticky));
        poll_all_until(&mut members, |members| {
            // At no time does it hold less than what it keeps in the end.
            assert!(
                members[0].assignment().len() >= 2,
                "{:?}",
                members[0].assignment()
            );
            is_shared_evenly(members, 4)
        });
        let after: BTreeSet<_> = members[0].assignment().into_iter().collect();
        assert!(after.is_subset(&before), "{after:?} of {before:?}");
    });
}

/// Reads as a group whose members come and go, committing after each poll: every record is seen, and none twice.
#[test]
fn nothing_is_lost_or_doubled_while_members_come_and_go() {
    const PARTITIONS: i32 = 4;
    const RECORDS: usize = 2000;
    for_each_kafka(|_, bootstrap| {
        for assignors in CHOICES {
            let client = connect(bootstrap);
            let (topic, group) = (unique_name("moving"), unique_name("moving"));
            create(&client, &topic, PARTITIONS);
            for partition in 0..PARTITIONS {
                for _ in 0..50 {
                    append(&client, &topic, partition, &numbered(0..10));
                }
            }
            let mut seen: BTreeMap<(i32, i64), u32> = BTreeMap::new();
            let mut members = vec![member(&client, &group, &topic, assignors)];
            let (mut rounds, mut known, mut since) = (0, 0, Instant::now());
            while seen.len() < RECORDS {
                if seen.len() > known {
                    (known, since) = (seen.len(), Instant::now());
                }
                // How long all of it takes is the machine's affair; that it goes on is ours.
                assert!(
                    since.elapsed() < SOON,
                    "{}",
                    stalled(&seen, &members, &topic)
                );
                rounds += 1;
                match rounds {
                    4 | 30 => members.push(member(&client, &group, &topic, assignors)),
                    60 => members.remove(0).leave().unwrap(),
                    _ => {}
                }
                for consumer in &mut members {
                    let fetched = consumer.poll(Duration::from_millis(20)).unwrap();
                    for record in fetched.iter().flat_map(records_of) {
                        *seen.entry((record.partition, record.offset)).or_insert(0) += 1;
                    }
                    let offsets: Vec<(&str, i32, i64)> = fetched
                        .iter()
                        .map(|fetched| (&*fetched.topic, fetched.partition, fetched.next_offset))
                        .collect();
                    consumer.commit(&offsets).unwrap();
                }
            }
            let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
            assert!(doubled.is_empty(), "{assignors:?}: {doubled:?}");
            for consumer in members {
                consumer.leave().unwrap();
            }
        }
    });
}

#[test]
fn a_group_goes_on_where_it_committed() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = (unique_name("resumed"), unique_name("resumed"));
        create(&client, &topic, 1);
        append(&client, &topic, 0, &numbered(0..10));
        let mut first = member(&client, &group, &topic, &[Assignor::Range]);
        poll_until(&mut first, |seen| seen.len() >= 10);
        first.commit(&[(&topic, 0, 4)]).unwrap();
        first.leave().unwrap();
        assert_eq!(
            client.admin().committed(&group, &topic, &[0]).unwrap(),
            [(0, Some(4))]
        );
        let mut second = member(&client, &group, &topic, &[Assignor::Range]);
        let seen = poll_until(&mut second, |seen| seen.len() >= 6);
        assert_eq!((seen.len(), seen[0].offset), (6, 4));
    });
}

#[test]
fn a_member_that_was_evicted_cannot_commit() {
    for_each_kafka(|_, bootstrap| {
        let client = connect(bootstrap);
        let (topic, group) = (unique_name("evicted"), unique_name("evicted"));
        create(&client, &topic, 1);
        append(&client, &topic, 0, &numbered(0..10));
        let mut slow = member(&client, &group, &topic, &[Assignor::CooperativeSticky]);
        poll_until(&mut slow, |seen| seen.len() >= 10);
        // Meanwhile it does not poll, until another has taken over.
        let mut quick = member(&client, &group, &topic, &[Assignor::CooperativeSticky]);
        poll_until(&mut quick, |seen| seen.len() >= 10);
        quick.commit(&[(&topic, 0, 10)]).unwrap();
        let error = slow.commit(&[(&topic, 0, 3)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Group, "{error}");
        assert_eq!(
            client.admin().committed(&group, &topic, &[0]).unwrap(),
            [(0, Some(10))]
        );
        let mut both = vec![slow, quick];
        poll_all_until(&mut both, |members| is_shared_evenly(members, 1));
    });
}

#[test]
fn a_group_survives_whatever_happens_to_its_requests() {
    // COORDINATOR_LOAD_IN_PROGRESS, NOT_COORDINATOR, and what a member is told that was forgotten.
    let answers = [14, 16, 22, 25].map(Action::AnswerError);
    let losses = [Action::DropAnswer, Action::Disconnect];
    for api in [
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::Heartbeat,
        ApiKey::OffsetCommit,
        ApiKey::OffsetFetch,
    ] {
        for action in answers.into_iter().chain(losses) {
            let forgets = matches!(action, Action::AnswerError(22 | 25));
            if api == ApiKey::OffsetFetch && forgets {
                continue;
            }
            // Nobody waits for the answer to a join that was lost for as long as a rebalance may take.
            if api == ApiKey::JoinGroup && action == Action::DropAnswer {
                continue;
            }
            survives(api, action);
        }
    }
}

fn survives(api: ApiKey, action: Action) {
    let cluster = Cluster::embedded();
    let client = connect_impatient(cluster.bootstrap());
    create(&client, "t", 2);
    for partition in 0..2 {
        append(&client, "t", partition, &numbered(0..10));
    }
    let faults = cluster.broker().unwrap().faults();
    let fault = faults.inject(Rule::new(api, action).nth(2));
    let mut members: Vec<Consumer> = (0..2)
        .map(|_| member(&client, "g", "t", &[Assignor::CooperativeSticky]))
        .collect();
    let started = Instant::now();
    let done = |client: &Client| {
        let committed = client.admin().committed("g", "t", &[0, 1]).unwrap();
        committed == [(0, Some(10)), (1, Some(10))]
    };
    while fault.fired() == 0 || !done(&client) || !is_shared_evenly(&members, 2) {
        assert!(
            started.elapsed() < SOON,
            "{api:?} {action:?}: fired {}",
            fault.fired()
        );
        for consumer in &mut members {
            consumer.poll(Duration::from_millis(50)).unwrap();
            let offsets: Vec<(&str, i32, i64)> = (0..2)
                .filter_map(|partition| Some(("t", partition, consumer.position("t", partition)?)))
                .collect();
            match consumer.commit(&offsets) {
                Ok(()) => {}
                Err(error) => assert_eq!(
                    error.kind(),
                    ErrorKind::Group,
                    "{api:?} {action:?}: {error}"
                ),
            }
        }
    }
}
