//! Single steps of a member; whole groups are in `simulation`.

use super::*;

pub(super) fn settings(assignors: &[Assignor]) -> Settings {
    Settings {
        session_timeout: Duration::from_secs(10),
        heartbeat_interval: Duration::from_secs(3),
        rebalance_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(5),
        assignors: assignors.to_vec(),
    }
}

const NOW: Duration = Duration::from_secs(100);

fn counts(count: i32) -> BTreeMap<String, i32> {
    BTreeMap::from([("t".to_owned(), count)])
}

fn answer(generation: i32, leader: &str, member_id: &str) -> JoinAnswer {
    JoinAnswer {
        generation,
        protocol: "cooperative-sticky".to_owned(),
        leader: leader.to_owned(),
        member_id: member_id.to_owned(),
        ..JoinAnswer::default()
    }
}

fn given(partitions: &[i32]) -> Event {
    let partitions: Vec<_> = partitions
        .iter()
        .map(|number| TopicPartition::new("t", *number))
        .collect();
    Event::Synced {
        code: 0,
        assignment: protocol::encode_assignment(&partitions),
    }
}

/// A follower that holds these partitions.
fn follower(partitions: &[i32]) -> Member {
    let mut member = Member::new(settings(&[Assignor::CooperativeSticky]), &["t"]);
    assert_eq!(member.handle(NOW, Event::Tick), [Action::Connect]);
    assert!(matches!(
        member.handle(NOW, Event::Connected)[..],
        [Action::Join { .. }]
    ));
    let refused = JoinAnswer {
        code: code::MEMBER_ID_REQUIRED,
        member_id: "me".to_owned(),
        ..JoinAnswer::default()
    };
    let actions = member.handle(NOW, Event::Joined(refused));
    assert!(
        matches!(&actions[..], [Action::Join { member_id, .. }] if member_id == "me"),
        "{actions:?}"
    );
    let actions = member.handle(NOW, Event::Joined(answer(1, "other", "me")));
    assert!(
        matches!(actions[..], [Action::Sync { generation: 1, .. }]),
        "{actions:?}"
    );
    member.handle(NOW, given(partitions));
    member
}

fn partitions(numbers: &[i32]) -> Vec<TopicPartition> {
    numbers
        .iter()
        .map(|number| TopicPartition::new("t", *number))
        .collect()
}

#[test]
fn a_leader_counts_assigns_and_reads() {
    let mut member = Member::new(settings(&[Assignor::CooperativeSticky]), &["t"]);
    member.handle(NOW, Event::Tick);
    let actions = member.handle(NOW, Event::Connected);
    let [Action::Join { protocols, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    let mut joined = answer(1, "me", "me");
    joined.members = vec![
        ("me".to_owned(), protocols[0].1.clone()),
        ("garbled".to_owned(), vec![1]),
    ];
    let actions = member.handle(NOW, Event::Joined(joined));
    assert_eq!(actions, [Action::CountPartitions(vec!["t".to_owned()])]);
    let actions = member.handle(NOW, Event::Counted(counts(2)));
    let [Action::Sync { assignments, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        assignments.len(),
        2,
        "a member that cannot be read is not forgotten"
    );
    let actions = member.handle(NOW, given(&[0, 1]));
    assert_eq!(actions, [Action::Assigned(partitions(&[0, 1]))]);
    assert!(member.is_stable() && member.is_leader());
    // A partition more: the leader calls for a rebalance, once.
    assert_eq!(
        member.handle(NOW, Event::Counted(counts(3))),
        [Action::RebalanceDue]
    );
    assert_eq!(member.handle(NOW, Event::Counted(counts(3))), []);
}

#[test]
fn a_rebalance_waits_for_the_commit_and_keeps_what_is_held() {
    let mut member = follower(&[0, 1]);
    let later = NOW + Duration::from_secs(3);
    assert_eq!(member.next_deadline(), Some(later));
    assert!(matches!(
        member.handle(later, Event::Tick)[..],
        [Action::Heartbeat { generation: 1, .. }]
    ));
    assert_eq!(
        member.handle(later, Event::Beaten { code: 27 }),
        [Action::RebalanceDue]
    );
    // Heartbeats go on meanwhile.
    let more = later + Duration::from_secs(3);
    assert!(matches!(
        member.handle(more, Event::Tick)[..],
        [Action::Heartbeat { .. }]
    ));
    assert_eq!(member.handle(more, Event::Beaten { code: 27 }), []);
    let actions = member.handle(more, Event::Proceed);
    let [Action::Join { protocols, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    let subscription = protocol::decode_subscription(&protocols[0].1).unwrap();
    assert_eq!(
        (subscription.owned, subscription.generation),
        (partitions(&[0, 1]), 1)
    );
    member.handle(more, Event::Joined(answer(2, "other", "me")));
    // One goes, one comes. What goes may still be committed; then it joins again without it, for whoever waits for it.
    let actions = member.handle(more, given(&[1, 2]));
    assert_eq!(
        actions,
        [Action::Assigned(partitions(&[2])), Action::RebalanceDue]
    );
    assert_eq!(member.owned().len(), 3);
    let actions = member.handle(more, Event::Proceed);
    let [Action::Revoked(gone), Action::Join { protocols, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(*gone, partitions(&[0]));
    let subscription = protocol::decode_subscription(&protocols[0].1).unwrap();
    assert_eq!(subscription.owned, partitions(&[1, 2]));
}

#[test]
fn an_eager_member_gives_everything_up_before_it_joins() {
    let mut member = Member::new(
        settings(&[Assignor::Range, Assignor::CooperativeSticky]),
        &["t"],
    );
    member.handle(NOW, Event::Tick);
    member.handle(NOW, Event::Connected);
    let mut joined = answer(1, "other", "me");
    joined.protocol = "range".to_owned();
    member.handle(NOW, Event::Joined(joined));
    member.handle(NOW, given(&[0]));
    let later = NOW + Duration::from_secs(3);
    member.handle(later, Event::Tick);
    member.handle(later, Event::Beaten { code: 27 });
    let actions = member.handle(later, Event::Proceed);
    assert!(
        matches!(&actions[..], [Action::Revoked(gone), Action::Join { .. }] if *gone == partitions(&[0])),
        "{actions:?}"
    );
}

#[test]
fn who_is_not_known_any_more_has_lost_everything() {
    for (code, keeps_id) in [
        (code::UNKNOWN_MEMBER_ID, false),
        (code::ILLEGAL_GENERATION, true),
    ] {
        let mut member = follower(&[0, 1]);
        let later = NOW + Duration::from_secs(3);
        member.handle(later, Event::Tick);
        let actions = member.handle(later, Event::Beaten { code });
        let [Action::Lost(lost), Action::Join { member_id, .. }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(*lost, partitions(&[0, 1]));
        assert_eq!(member_id == "me", keeps_id, "{code}");
        assert_eq!(member.generation(), None);
    }
}

#[test]
fn a_commit_refused_in_an_older_generation_says_nothing() {
    let mut member = follower(&[0]);
    assert_eq!(
        member.handle(
            NOW,
            Event::CommitRefused {
                code: 22,
                generation: 0
            }
        ),
        []
    );
    let actions = member.handle(
        NOW,
        Event::CommitRefused {
            code: 22,
            generation: 1,
        },
    );
    assert!(matches!(actions[0], Action::Lost(_)), "{actions:?}");
}

#[test]
fn a_coordinator_that_moved_is_looked_for_and_nothing_is_lost() {
    let mut member = follower(&[0]);
    let later = NOW + Duration::from_secs(3);
    member.handle(later, Event::Tick);
    assert_eq!(
        member.handle(later, Event::Beaten { code: 16 }),
        [Action::Disconnect]
    );
    let after = member.next_deadline().unwrap();
    assert_eq!(member.handle(after, Event::Tick), [Action::Connect]);
    assert_eq!(member.handle(after, Event::Disconnected), []);
    let after = member.next_deadline().unwrap();
    assert_eq!(member.handle(after, Event::Tick), [Action::Connect]);
    member.handle(after, Event::Connected);
    assert!(member.is_stable());
    assert_eq!(member.owned().len(), 1);
}

#[test]
fn a_silent_coordinator_is_given_up_at_the_deadline() {
    let mut member = follower(&[0]);
    let later = NOW + Duration::from_secs(3);
    member.handle(later, Event::Tick);
    assert_eq!(member.next_deadline(), Some(later + Duration::from_secs(5)));
    assert_eq!(
        member.handle(later + Duration::from_secs(5), Event::Tick),
        [Action::Disconnect]
    );
}

#[test]
fn a_refusal_for_good_ends_it() {
    let mut member = Member::new(settings(&[Assignor::Range]), &["t"]);
    member.handle(NOW, Event::Tick);
    member.handle(NOW, Event::Connected);
    let actions = member.handle(
        NOW,
        Event::Joined(JoinAnswer {
            code: 30,
            ..JoinAnswer::default()
        }),
    );
    assert!(
        matches!(actions[..], [Action::Fail { code: Some(30), .. }]),
        "{actions:?}"
    );
    assert_eq!(member.handle(NOW, Event::Tick), []);
    assert_eq!(
        Action::failure("g", Some(30), "join").kind(),
        ErrorKind::Authorization
    );
}
