//! What members are told, and when.

use super::*;

const T: Uuid = Uuid::from_u128(7);
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(3);

struct Harness {
    group: ModernGroup,
    now: Instant,
    partitions: i32,
}

fn harness(partitions: i32) -> Harness {
    Harness {
        group: ModernGroup::new(SESSION),
        now: Instant::now(),
        partitions,
    }
}

fn places(numbers: &[i32]) -> BTreeSet<Place> {
    numbers.iter().map(|number| (T, *number)).collect()
}

impl Harness {
    fn beat(&mut self, beat: &Beat) -> Result<Beaten, i16> {
        let count = self.partitions;
        let look_up = |name: &str| (name == "t").then_some((T, count));
        self.group.beat(beat, self.now, look_up)
    }

    /// Tells everything.
    fn full(&mut self, id: &str, epoch: i32, held: &[i32]) -> Result<(i32, Vec<i32>), i16> {
        let beaten = self.beat(&Beat {
            member_id: id.to_owned(),
            epoch,
            rebalance_timeout: Some(REBALANCE),
            topics: Some(BTreeSet::from(["t".to_owned()])),
            held: Some(places(held)),
            ..Beat::default()
        })?;
        let assignment = beaten.assignment.expect("everything is answered");
        let numbers = assignment.into_iter().map(|(_, number)| number);
        Ok((beaten.epoch, numbers.collect()))
    }

    /// Tells nothing new.
    fn quiet(&mut self, id: &str, epoch: i32) -> Result<Beaten, i16> {
        self.beat(&Beat {
            member_id: id.to_owned(),
            epoch,
            ..Beat::default()
        })
    }
}

#[test]
fn a_partition_changes_hands_only_when_its_holder_has_let_go() {
    let mut h = harness(2);
    assert_eq!(h.full("a", 0, &[]), Ok((1, vec![0, 1])));
    assert_eq!(h.group.state(), "Stable");
    // The new member gets nothing yet, and waits.
    assert_eq!(h.full("b", 0, &[]), Ok((2, vec![])));
    assert_eq!(h.group.state(), "Reconciling");
    // The holder is told what to keep, in its old epoch, for as long as it holds the other.
    let told = h.quiet("a", 1).unwrap();
    assert_eq!(
        (told.epoch, told.assignment.map(|kept| kept.len())),
        (1, Some(1))
    );
    assert_eq!(h.quiet("a", 1).unwrap().assignment, None);
    assert_eq!(h.quiet("b", 2).unwrap().assignment, None);
    let kept: Vec<i32> = h.group.members["a"]
        .assigned
        .iter()
        .map(|place| place.1)
        .collect();
    assert_eq!(h.full("a", 1, &kept), Ok((2, kept.clone())));
    let given = h.quiet("b", 2).unwrap().assignment.unwrap();
    assert_eq!(given.len(), 1);
    assert!(given.is_disjoint(&places(&kept)));
    assert_eq!(h.group.state(), "Stable");
}

#[test]
fn the_epoch_before_is_taken_only_of_who_says_what_it_holds() {
    let mut h = harness(2);
    h.full("a", 0, &[]).unwrap();
    h.partitions = 3;
    // The answer to this is lost.
    assert_eq!(h.full("a", 1, &[0, 1]), Ok((2, vec![0, 1, 2])));
    assert_eq!(h.quiet("a", 1), Err(codes::FENCED_MEMBER_EPOCH));
    assert_eq!(h.full("a", 1, &[0, 9]), Err(codes::FENCED_MEMBER_EPOCH));
    assert_eq!(h.full("a", 1, &[0, 1]), Ok((2, vec![0, 1, 2])));
    assert_eq!(h.quiet("a", 3), Err(codes::FENCED_MEMBER_EPOCH));
    assert_eq!(h.quiet("b", 1), Err(codes::UNKNOWN_MEMBER_ID));
}

#[test]
fn only_who_is_in_its_epoch_commits() {
    let mut h = harness(1);
    let by = |member_id, generation| Sender {
        member_id,
        instance_id: None,
        generation,
    };
    assert_eq!(h.group.check_commit(by("", -1)), Ok(()));
    h.full("a", 0, &[]).unwrap();
    assert_eq!(h.group.check_commit(by("a", 1)), Ok(()));
    for (sender, code) in [
        (by("", -1), codes::UNKNOWN_MEMBER_ID),
        (by("b", 1), codes::UNKNOWN_MEMBER_ID),
        (by("a", 0), codes::STALE_MEMBER_EPOCH),
    ] {
        assert_eq!(h.group.check_commit(sender), Err(code));
    }
    assert_eq!(h.group.check_transactional_commit(by("", -1)), Ok(()));
    let stale = h.group.check_transactional_commit(by("a", 7));
    assert_eq!(stale, Err(codes::ILLEGAL_GENERATION));
}

#[test]
fn who_is_silent_or_does_not_let_go_is_dismissed() {
    let mut h = harness(2);
    h.full("a", 0, &[]).unwrap();
    h.full("b", 0, &[]).unwrap();
    h.quiet("a", 1).unwrap();
    // It has a moment to let go, which is shorter than a session.
    assert_eq!(h.group.next_deadline(), Some(h.now + REBALANCE));
    h.now += REBALANCE;
    let now = h.now;
    h.group.expire(now);
    assert_eq!(h.quiet("a", 1), Err(codes::UNKNOWN_MEMBER_ID));
    let told = h.quiet("b", 2).unwrap();
    assert_eq!(
        (told.epoch, told.assignment.map(|all| all.len())),
        (3, Some(2))
    );
    h.now += SESSION;
    let now = h.now;
    h.group.expire(now);
    assert!(h.group.is_gone());
    assert_eq!(h.group.state(), "Empty");
}

#[test]
fn who_joins_again_holds_nothing_and_goes_on() {
    let mut h = harness(2);
    h.full("a", 0, &[]).unwrap();
    h.full("b", 0, &[]).unwrap();
    h.quiet("a", 1).unwrap();
    // It has lost everything, what it was to give up included.
    let (epoch, given) = h.full("a", 0, &[]).unwrap();
    assert_eq!((epoch, given.len()), (2, 1));
    assert_eq!(
        h.quiet("b", 2).unwrap().assignment.map(|all| all.len()),
        Some(1)
    );
}

#[test]
fn a_static_member_waits_for_its_place() {
    let mut h = harness(1);
    let join = |id: &str| Beat {
        member_id: id.to_owned(),
        instance_id: Some("seat".to_owned()),
        rebalance_timeout: Some(REBALANCE),
        topics: Some(BTreeSet::from(["t".to_owned()])),
        held: Some(BTreeSet::new()),
        ..Beat::default()
    };
    h.beat(&join("a")).unwrap();
    assert_eq!(h.beat(&join("b")), Err(codes::UNRELEASED_INSTANCE_ID));
    assert_eq!(h.group.leave("a"), codes::NONE);
    assert_eq!(h.group.leave("a"), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(h.beat(&join("b")).unwrap().assignment, Some(places(&[0])));
}
