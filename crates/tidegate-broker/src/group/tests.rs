//! Scenarios with a paused clock: what members are told, and when.

use std::sync::Arc;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(30);

/// A coordinator and its clock.
struct Harness {
    groups: Arc<Coordinator>,
    timers: tokio::task::JoinHandle<()>,
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.timers.abort();
    }
}

fn harness(change: impl FnOnce(&mut BrokerConfig)) -> Harness {
    let mut config = BrokerConfig::new("unused");
    change(&mut config);
    let groups = Arc::new(Coordinator::new(&config));
    let timed = Arc::clone(&groups);
    let timers = tokio::spawn(async move { timed.run_timers().await });
    Harness { groups, timers }
}

/// A client without an id, with what it says to the protocol "range".
fn client(metadata: &'static str) -> Join {
    Join {
        member_id: String::new(),
        instance_id: None,
        client_id: "test".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(metadata.as_bytes()))],
        id_is_required: false,
        may_skip_assignment: false,
    }
}

fn member(id: &str, metadata: &'static str) -> Join {
    Join {
        member_id: id.to_owned(),
        ..client(metadata)
    }
}

fn static_client(instance: &str, metadata: &'static str) -> Join {
    Join {
        instance_id: Some(instance.to_owned()),
        ..client(metadata)
    }
}

fn by(member_id: &str, generation: i32) -> Sender<'_> {
    Sender {
        member_id,
        instance_id: None,
        generation,
    }
}

impl Harness {
    /// Joins in the background.
    fn joining(&self, join: Join) -> tokio::task::JoinHandle<Joined> {
        let groups = Arc::clone(&self.groups);
        tokio::spawn(async move { groups.join("g", join).await })
    }

    async fn join(&self, join: Join) -> Joined {
        self.groups.join("g", join).await
    }

    /// Syncs in the background.
    fn syncing(&self, id: &str, generation: i32) -> tokio::task::JoinHandle<Synced> {
        let (groups, id) = (Arc::clone(&self.groups), id.to_owned());
        tokio::spawn(async move {
            let sender = by(&id, generation);
            groups.sync("g", sender, (None, None), Vec::new()).await
        })
    }

    /// The leader assigns to each of `members` its own id.
    async fn assign(&self, leader: &Joined, members: &[&str]) -> Synced {
        let assignments = members
            .iter()
            .map(|id| ((*id).to_owned(), Bytes::copy_from_slice(id.as_bytes())))
            .collect();
        let sender = by(&leader.member_id, leader.generation);
        let protocol = (Some("consumer"), Some("range"));
        self.groups.sync("g", sender, protocol, assignments).await
    }

    fn heartbeat(&self, joined: &Joined) -> i16 {
        let sender = by(&joined.member_id, joined.generation);
        self.groups.heartbeat("g", sender)
    }

    fn state(&self) -> Option<State> {
        self.groups.describe("g").map(|group| group.state)
    }

    /// Two members in a stable group; the leader first.
    async fn two_members(&self) -> (Joined, Joined) {
        let first = self.join(client("one")).await;
        let other = self.joining(client("two"));
        pause().await;
        assert_eq!(self.heartbeat(&first), codes::REBALANCE_IN_PROGRESS);
        let first = self.join(member(&first.member_id, "one")).await;
        let other = other.await.unwrap();
        assert_eq!((first.generation, other.generation), (2, 2));
        assert_eq!(first.leader, first.member_id);
        assert_eq!((first.members.len(), other.members.len()), (2, 0));
        let waiting = self.syncing(&other.member_id, 2);
        let ids = [first.member_id.as_str(), &other.member_id];
        let own = self.assign(&first, &ids).await;
        assert_eq!(own.assignment, first.member_id);
        assert_eq!(waiting.await.unwrap().assignment, other.member_id);
        assert_eq!(self.state(), Some(State::Stable));
        (first, other)
    }
}

/// Lets the other tasks do what they can do now.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_with_the_id_it_is_given() {
    let harness = harness(|_| {});
    let strict = || Join {
        id_is_required: true,
        ..client("one")
    };
    let sent_back = harness.join(strict()).await;
    assert_eq!(sent_back.code, codes::MEMBER_ID_REQUIRED);
    assert!(!sent_back.member_id.is_empty());
    let again = Join {
        member_id: sent_back.member_id.clone(),
        ..strict()
    };
    let joined = harness.join(again).await;
    assert_eq!((joined.code, joined.generation), (codes::NONE, 1));
    assert_eq!(joined.member_id, sent_back.member_id);
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    assert_eq!(joined.members.len(), 1);

    let nobody = harness.join(member("nobody", "x")).await;
    assert_eq!(nobody.code, codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_nobody_comes_back_with_lapses() {
    let harness = harness(|_| {});
    let first = harness.join(client("one")).await;
    harness.assign(&first, &[&first.member_id]).await;
    let strict = Join {
        id_is_required: true,
        ..client("two")
    };
    let sent_back = harness.join(strict.clone()).await;
    // The group waits for it in the next rebalance, until its session would have ended.
    let rejoining = harness.joining(member(&first.member_id, "changed"));
    pause().await;
    assert!(!rejoining.is_finished());
    tokio::time::sleep(SESSION).await;
    assert_eq!(rejoining.await.unwrap().generation, 2);
    let late = Join {
        member_id: sent_back.member_id,
        ..strict
    };
    assert_eq!(harness.join(late).await.code, codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn a_second_member_makes_the_first_join_again() {
    let harness = harness(|_| {});
    let (first, other) = harness.two_members().await;
    assert_eq!(harness.heartbeat(&first), codes::NONE);
    assert_eq!(harness.heartbeat(&other), codes::NONE);
    let described = harness.groups.describe("g").unwrap();
    assert_eq!(described.members.len(), 2);
    assert_eq!(described.protocol, "range");
    assert_eq!(
        described.members[0].assignment,
        described.members[0].member_id
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_of_the_past_is_told_so() {
    let harness = harness(|_| {});
    let (first, _) = harness.two_members().await;
    let heartbeat = |sender| harness.groups.heartbeat("g", sender);
    assert_eq!(
        heartbeat(by(&first.member_id, 1)),
        codes::ILLEGAL_GENERATION
    );
    assert_eq!(heartbeat(by("nobody", 2)), codes::UNKNOWN_MEMBER_ID);
    let commit = |sender| harness.groups.commit("g", sender, || Ok(()));
    assert_eq!(commit(by(&first.member_id, 2)), Ok(()));
    assert_eq!(
        commit(by(&first.member_id, 1)),
        Err(codes::ILLEGAL_GENERATION)
    );
    assert_eq!(commit(by("nobody", 2)), Err(codes::UNKNOWN_MEMBER_ID));
    // Without membership only while nobody is a member.
    assert_eq!(commit(by("", -1)), Err(codes::UNKNOWN_MEMBER_ID));
    let elsewhere = harness.groups.commit("other", by("", -1), || Ok(()));
    assert_eq!(elsewhere, Ok(()));
    let elsewhere = harness.groups.commit("other", by("", 3), || Ok(()));
    assert_eq!(elsewhere, Err(codes::ILLEGAL_GENERATION));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_commits_for_a_member_or_for_nobody_in_particular() {
    let harness = harness(|_| {});
    let (first, _) = harness.two_members().await;
    let commit = |sender| {
        let groups = &harness.groups;
        groups.commit_in_transaction("g", sender, || Ok(()))
    };
    assert_eq!(commit(by(&first.member_id, 2)), Ok(()));
    let past = commit(by(&first.member_id, 1));
    assert_eq!(past, Err(codes::ILLEGAL_GENERATION));
    assert_eq!(commit(by("nobody", 2)), Err(codes::UNKNOWN_MEMBER_ID));
    // Producers from before KIP-447 do not know who is a member.
    assert_eq!(commit(by("", -1)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_silent_member_is_gone_after_its_session() {
    let harness = harness(|_| {});
    let (first, other) = harness.two_members().await;
    let begun = Instant::now();
    let code = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match harness.heartbeat(&first) {
            codes::NONE => {}
            code => break code,
        }
    };
    assert_eq!(code, codes::REBALANCE_IN_PROGRESS);
    assert!((10..=11).contains(&begun.elapsed().as_secs()));
    let alone = harness.join(member(&first.member_id, "one")).await;
    assert_eq!((alone.generation, alone.members.len()), (3, 1));
    assert_eq!(harness.heartbeat(&other), codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_goes_on_without_those_that_do_not_join() {
    let harness = harness(|_| {});
    let (first, other) = harness.two_members().await;
    let begun = Instant::now();
    // The other keeps its session alive, and never joins again.
    let groups = Arc::clone(&harness.groups);
    let id = other.member_id.clone();
    let beating = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let code = groups.heartbeat("g", by(&id, 2));
            if code != codes::REBALANCE_IN_PROGRESS {
                return code;
            }
        }
    });
    let joined = harness.join(member(&first.member_id, "changed")).await;
    assert_eq!(begun.elapsed(), REBALANCE);
    assert_eq!((joined.generation, joined.members.len()), (3, 1));
    assert_eq!(beating.await.unwrap(), codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_is_not_waited_for() {
    let harness = harness(|_| {});
    let (first, other) = harness.two_members().await;
    assert_eq!(
        harness.groups.leave("g", &other.member_id, None),
        codes::NONE
    );
    let again = harness.groups.leave("g", &other.member_id, None);
    assert_eq!(again, codes::UNKNOWN_MEMBER_ID);
    assert_eq!(harness.heartbeat(&first), codes::REBALANCE_IN_PROGRESS);
    let alone = harness.join(member(&first.member_id, "one")).await;
    assert_eq!(alone.members.len(), 1);
    assert_eq!(
        harness.groups.leave("g", &first.member_id, None),
        codes::NONE
    );
    assert_eq!(harness.state(), None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_is_followed_by_another() {
    let harness = harness(|_| {});
    let (first, other) = harness.two_members().await;
    harness.groups.leave("g", &first.member_id, None);
    let alone = harness.join(member(&other.member_id, "two")).await;
    assert_eq!(alone.leader, other.member_id);
    assert_eq!(alone.members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_join_during_the_assignment_begins_anew() {
    let harness = harness(|_| {});
    let first = harness.join(client("one")).await;
    let other = harness.joining(client("two"));
    pause().await;
    let first = harness.join(member(&first.member_id, "one")).await;
    let other = other.await.unwrap();
    let waiting = harness.syncing(&other.member_id, 2);
    pause().await;
    let third = harness.joining(client("three"));
    assert_eq!(waiting.await.unwrap().code, codes::REBALANCE_IN_PROGRESS);
    let late = harness.assign(&first, &[]).await;
    assert_eq!(late.code, codes::REBALANCE_IN_PROGRESS);
    let other = harness.joining(member(&other.member_id, "two"));
    let first = harness.join(member(&first.member_id, "one")).await;
    assert_eq!((first.generation, first.members.len()), (3, 3));
    assert_eq!(other.await.unwrap().generation, 3);
    assert_eq!(third.await.unwrap().generation, 3);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_asks_for_its_assignment_is_gone() {
    let harness = harness(|_| {});
    let first = harness.join(client("one")).await;
    let other = harness.joining(client("two"));
    pause().await;
    let first = harness.join(member(&first.member_id, "one")).await;
    let other = other.await.unwrap();
    harness.assign(&first, &[&first.member_id]).await;
    // Both send heartbeats; one of them lacks its assignment.
    for _ in 0..29 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(harness.heartbeat(&first), codes::NONE);
        assert_eq!(harness.heartbeat(&other), codes::NONE);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(harness.heartbeat(&other), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(harness.heartbeat(&first), codes::REBALANCE_IN_PROGRESS);
}

#[tokio::test(start_paused = true)]
async fn the_protocol_is_one_that_all_support() {
    let harness = harness(|_| {});
    let protocols = |names: &[&'static str]| -> Vec<(String, Bytes)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Bytes::from_static(name.as_bytes())))
            .collect()
    };
    let with = |join: Join, names: &[&'static str]| Join {
        protocols: protocols(names),
        ..join
    };
    let both = ["cooperative-sticky", "range"];
    let first = harness.join(with(client(""), &both)).await;
    assert_eq!(first.protocol.as_deref(), Some("cooperative-sticky"));
    let alien = harness.join(with(client(""), &["roundrobin"])).await;
    assert_eq!(alien.code, codes::INCONSISTENT_GROUP_PROTOCOL);
    let connect = Join {
        protocol_type: "connect".to_owned(),
        ..client("")
    };
    let alien = harness.join(connect).await;
    assert_eq!(alien.code, codes::INCONSISTENT_GROUP_PROTOCOL);

    let other = harness.joining(with(client(""), &["range"]));
    pause().await;
    let first = harness
        .join(with(member(&first.member_id, ""), &both))
        .await;
    assert_eq!(first.protocol.as_deref(), Some("range"));
    assert!(
        first
            .members
            .iter()
            .all(|member| member.metadata == "range")
    );
    let other = other.await.unwrap();
    let sender = by(&other.member_id, 2);
    let protocol = (Some("consumer"), Some("cooperative-sticky"));
    let synced = harness.groups.sync("g", sender, protocol, Vec::new()).await;
    assert_eq!(synced.code, codes::INCONSISTENT_GROUP_PROTOCOL);
}

#[tokio::test(start_paused = true)]
async fn joining_again_unchanged_disturbs_nobody_but_for_the_leader() {
    let harness = harness(|_| {});
    let (first, other) = harness.two_members().await;
    let again = harness.join(member(&other.member_id, "two")).await;
    assert_eq!((again.code, again.generation), (codes::NONE, 2));
    assert_eq!(harness.heartbeat(&first), codes::NONE);
    let synced = harness.syncing(&other.member_id, 2).await.unwrap();
    assert_eq!(synced.assignment, other.member_id);

    let leading = harness.joining(member(&first.member_id, "one"));
    pause().await;
    assert_eq!(harness.heartbeat(&other), codes::REBALANCE_IN_PROGRESS);
    harness.join(member(&other.member_id, "two")).await;
    assert_eq!(leading.await.unwrap().generation, 3);
}

#[tokio::test(start_paused = true)]
async fn a_static_member_comes_back_without_a_rebalance() {
    let harness = harness(|_| {});
    let first = harness.join(static_client("a", "one")).await;
    harness.assign(&first, &[&first.member_id]).await;
    let back = Join {
        may_skip_assignment: true,
        ..static_client("a", "one")
    };
    let second = harness.join(back).await;
    assert_ne!(second.member_id, first.member_id);
    assert_eq!((second.generation, second.skip_assignment), (1, true));
    assert_eq!(second.leader, second.member_id);
    let synced = harness.syncing(&second.member_id, 1).await.unwrap();
    assert_eq!(synced.assignment, first.member_id);
    let fenced = Sender {
        instance_id: Some("a"),
        ..by(&first.member_id, 1)
    };
    assert_eq!(
        harness.groups.heartbeat("g", fenced),
        codes::FENCED_INSTANCE_ID
    );
    assert_eq!(harness.groups.leave("g", "", Some("a")), codes::NONE);
    assert_eq!(harness.state(), None);
}

#[tokio::test(start_paused = true)]
async fn a_new_group_waits_for_further_members_if_it_is_told_to() {
    let harness = harness(|config| config.initial_rebalance_delay = Duration::from_secs(3));
    let begun = Instant::now();
    let first = harness.joining(client("one"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let second = harness.joining(client("two"));
    assert_eq!(first.await.unwrap().generation, 1);
    assert_eq!(second.await.unwrap().generation, 1);
    // The second came in time to prolong the wait once.
    assert_eq!(begun.elapsed().as_secs(), 6);
}

#[tokio::test(start_paused = true)]
async fn limits_are_held() {
    let harness = harness(|config| config.max_group_size = 1);
    let hasty = Join {
        session_timeout: Duration::from_secs(1),
        ..client("one")
    };
    assert_eq!(
        harness.join(hasty).await.code,
        codes::INVALID_SESSION_TIMEOUT
    );
    let nameless = harness.groups.join("", client("one")).await;
    assert_eq!(nameless.code, codes::INVALID_GROUP_ID);
    let first = harness.join(client("one")).await;
    assert_eq!(first.code, codes::NONE);
    assert_eq!(
        harness.join(client("two")).await.code,
        codes::GROUP_MAX_SIZE_REACHED
    );
    let in_use = harness.groups.while_empty("g", || Ok(()));
    assert_eq!(in_use, Err(codes::NON_EMPTY_GROUP));
    assert_eq!(harness.groups.list().len(), 1);
}
