//! Who reads what: the assignors that a group's leader runs for all of its members.
//!
//! Both give the results that Apache Kafka's assignors of the same name stand for, so that a member of ours may lead a group of Java clients
//! or follow one. Racks are not looked at.
//!
//! `range` deals each topic out in consecutive stretches. `cooperative-sticky` (KIP-429) keeps what members hold as far as a balanced
//! assignment allows, and gives a partition to another member only when its holder has let it go: that takes a second rebalance, and in
//! exchange nobody stops reading what he keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition of this number.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.topic, self.partition)
    }
}

/// How a group divides partitions among its members. All members must have one in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assignor {
    /// Consecutive partitions of each topic. Everything is given up before each rebalance.
    Range,
    /// As few moves as a balanced assignment allows. Only what moves is given up in a rebalance.
    CooperativeSticky,
}

impl Assignor {
    /// The name that members agree on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Whether members may keep what they hold while a rebalance is under way.
    #[must_use]
    pub fn is_cooperative(self) -> bool {
        self == Self::CooperativeSticky
    }
}

impl fmt::Display for Assignor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Assignor {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        [Self::Range, Self::CooperativeSticky]
            .into_iter()
            .find(|assignor| assignor.name() == name)
            .ok_or_else(|| {
                let message = format!("no assignor \"{name}\": range or cooperative-sticky");
                Error::new(ErrorKind::Configuration, message)
            })
    }
}

/// What a member brings to a rebalance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberSubscription {
    /// The topics it wants to read.
    pub(crate) topics: Vec<String>,
    /// What it holds, and does not let go of unless told.
    pub(crate) owned: Vec<TopicPartition>,
    /// The generation in which it got that; -1 if it never got anything.
    pub(crate) generation: i32,
}

/// Partitions by the member that is to read them.
pub(crate) type Assignments = BTreeMap<String, Vec<TopicPartition>>;

/// Divides the partitions of all topics (with their number of partitions) among the members, by member id.
pub(crate) fn assign(
    assignor: Assignor,
    members: &BTreeMap<String, MemberSubscription>,
    partition_counts: &BTreeMap<String, i32>,
) -> Assignments {
    let mut assignments = match assignor {
        Assignor::Range => range(members, partition_counts),
        Assignor::CooperativeSticky => {
            let target = Sticky::new(members, partition_counts).balance();
            without_held_by_others(members, target)
        }
    };
    for partitions in assignments.values_mut() {
        partitions.sort();
    }
    assignments
}

fn subscribers<'a>(
    members: &'a BTreeMap<String, MemberSubscription>,
    topic: &str,
) -> Vec<&'a String> {
    members
        .iter()
        .filter(|(_, member)| member.topics.iter().any(|wanted| wanted == topic))
        .map(|(member_id, _)| member_id)
        .collect()
}

fn range(
    members: &BTreeMap<String, MemberSubscription>,
    partition_counts: &BTreeMap<String, i32>,
) -> Assignments {
    let mut assignments: Assignments = members
        .keys()
        .map(|member_id| (member_id.clone(), Vec::new()))
        .collect();
    for (topic, count) in partition_counts {
        let readers = subscribers(members, topic);
        let Ok(reader_count) = i32::try_from(readers.len()) else {
            continue;
        };
        if reader_count == 0 {
            continue;
        }
        let (each, extra) = (count / reader_count, count % reader_count);
        let mut next = 0;
        for (index, member_id) in (0..).zip(readers) {
            let end = next + each + i32::from(index < extra);
            let stretch = (next..end).map(|partition| TopicPartition::new(topic, partition));
            assignments
                .entry(member_id.clone())
                .or_default()
                .extend(stretch);
            next = end;
        }
    }
    assignments
}

/// A partition that its present holder is to give up stays with nobody in this rebalance: only when the holder has come back without it
/// may another member have it. Every claim counts here, that of an outdated generation too: whoever makes it may still be reading.
fn without_held_by_others(
    members: &BTreeMap<String, MemberSubscription>,
    mut target: Assignments,
) -> Assignments {
    let mut holders: BTreeMap<&TopicPartition, BTreeSet<&String>> = BTreeMap::new();
    for (member_id, member) in members {
        for partition in &member.owned {
            holders.entry(partition).or_default().insert(member_id);
        }
    }
    for (member_id, partitions) in &mut target {
        partitions.retain(|partition| {
            holders
                .get(partition)
                .is_none_or(|holders| holders.iter().all(|holder| *holder == member_id))
        });
    }
    target
}

/// The search for a balanced assignment that moves little.
struct Sticky<'a> {
    members: &'a BTreeMap<String, MemberSubscription>,
    /// Subscribers by topic, and the topic's number of partitions.
    topics: BTreeMap<&'a str, (Vec<&'a String>, i32)>,
    assignments: Assignments,
}

impl<'a> Sticky<'a> {
    fn new(
        members: &'a BTreeMap<String, MemberSubscription>,
        partition_counts: &'a BTreeMap<String, i32>,
    ) -> Self {
        let topics = partition_counts
            .iter()
            .map(|(topic, count)| (topic.as_str(), (subscribers(members, topic), *count)))
            .collect();
        let assignments = members
            .keys()
            .map(|member_id| (member_id.clone(), Vec::new()))
            .collect();
        Self {
            members,
            topics,
            assignments,
        }
    }

    fn balance(mut self) -> Assignments {
        let kept = self.keep_what_is_held();
        self.hand_out_the_rest(&kept);
        while self.even_out() {}
        self.assignments
    }

    /// Leaves with each member what it rightly holds: of several that claim a partition, the one with the youngest generation; none of
    /// them if two claim it in the same one, for then neither can be believed.
    fn keep_what_is_held(&mut self) -> BTreeSet<TopicPartition> {
        let mut best: BTreeMap<&TopicPartition, (i32, Option<&String>)> = BTreeMap::new();
        for (member_id, member) in self.members {
            for partition in member.owned.iter().collect::<BTreeSet<_>>() {
                let claim = best.entry(partition).or_insert((i32::MIN, None));
                if member.generation > claim.0 {
                    *claim = (member.generation, Some(member_id));
                } else if member.generation == claim.0 {
                    claim.1 = None;
                }
            }
        }
        let mut kept = BTreeSet::new();
        for (partition, (_, holder)) in best {
            let Some(holder) = holder else { continue };
            let still_wanted =
                self.topics
                    .get(partition.topic.as_str())
                    .is_some_and(|(readers, count)| {
                        (0..*count).contains(&partition.partition) && readers.contains(&holder)
                    });
            if still_wanted {
                self.assignments
                    .entry(holder.clone())
                    .or_default()
                    .push(partition.clone());
                kept.insert(partition.clone());
            }
        }
        kept
    }

    /// Gives each partition that nobody holds to the subscriber with the fewest; topics with few subscribers first, for they have the
    /// least choice.
    fn hand_out_the_rest(&mut self, kept: &BTreeSet<TopicPartition>) {
        let mut topics: Vec<(&str, &(Vec<&String>, i32))> = self
            .topics
            .iter()
            .map(|(topic, found)| (*topic, found))
            .collect();
        topics.sort_by_key(|(_, (readers, _))| readers.len());
        for (topic, (readers, count)) in topics {
            for partition in (0..*count).map(|number| TopicPartition::new(topic, number)) {
                if kept.contains(&partition) {
                    continue;
                }
                let fewest = readers.iter().min_by_key(|id| self.assignments[**id].len());
                if let Some(reader) = fewest {
                    self.assignments
                        .entry((*reader).clone())
                        .or_default()
                        .push(partition);
                }
            }
        }
    }

    /// Moves one partition from a member to one with at least two fewer; `false` if there is no such move. Each move makes the sum of
    /// squares smaller, so this ends.
    fn even_out(&mut self) -> bool {
        let mut fullest_first: Vec<(usize, String)> = self
            .assignments
            .iter()
            .map(|(member_id, partitions)| (partitions.len(), member_id.clone()))
            .collect();
        fullest_first
            .sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(&right.1)));
        for (count, giver) in &fullest_first {
            if let Some((index, taker)) = self.best_move(giver, *count) {
                let taker = taker.clone();
                let partition = self
                    .assignments
                    .entry(giver.clone())
                    .or_default()
                    .swap_remove(index);
                self.assignments.entry(taker).or_default().push(partition);
                return true;
            }
        }
        false
    }

    /// The partition of `giver` (by index) and the member that should have it: the one with the fewest of all that may; of its partitions
    /// one that `giver` does not hold yet, if possible, for that costs nobody anything.
    fn best_move(&self, giver: &str, count: usize) -> Option<(usize, &'a String)> {
        let held: BTreeSet<&TopicPartition> = self.members[giver].owned.iter().collect();
        let mut best: Option<((usize, bool), usize, &'a String)> = None;
        let mut takers: BTreeMap<&str, Option<&'a String>> = BTreeMap::new();
        for (index, partition) in self.assignments[giver].iter().enumerate() {
            let topic = partition.topic.as_str();
            let taker = *takers.entry(topic).or_insert_with(|| {
                let (readers, _) = self.topics.get(topic)?;
                readers
                    .iter()
                    .copied()
                    .min_by_key(|id| self.assignments[*id].len())
            });
            let Some(taker) = taker else { continue };
            let cost = (self.assignments[taker].len(), held.contains(partition));
            if cost.0 + 1 < count && best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, index, taker));
            }
        }
        best.map(|(_, index, taker)| (index, taker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(topics: &[&str], owned: &[(&str, i32)], generation: i32) -> MemberSubscription {
        MemberSubscription {
            topics: topics.iter().map(ToString::to_string).collect(),
            owned: owned
                .iter()
                .map(|(topic, partition)| TopicPartition::new(*topic, *partition))
                .collect(),
            generation,
        }
    }

    fn group(members: &[(&str, MemberSubscription)]) -> BTreeMap<String, MemberSubscription> {
        members
            .iter()
            .map(|(id, member)| ((*id).to_owned(), member.clone()))
            .collect()
    }

    fn counts(topics: &[(&str, i32)]) -> BTreeMap<String, i32> {
        topics
            .iter()
            .map(|(topic, count)| ((*topic).to_owned(), *count))
            .collect()
    }

    fn told(assignments: &Assignments) -> Vec<(String, Vec<String>)> {
        assignments
            .iter()
            .map(|(id, partitions)| {
                (
                    id.clone(),
                    partitions.iter().map(ToString::to_string).collect(),
                )
            })
            .collect()
    }

    fn expect(assignments: &Assignments, expected: &[(&str, &[&str])]) {
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(id, partitions)| {
                (
                    (*id).to_owned(),
                    partitions.iter().map(ToString::to_string).collect(),
                )
            })
            .collect();
        assert_eq!(told(assignments), expected);
    }

    /// The examples of the documentation of Java's RangeAssignor, and one with different subscriptions.
    #[test]
    fn range_deals_out_each_topic_in_stretches() {
        let both = group(&[
            ("C0", member(&["t0", "t1"], &[], -1)),
            ("C1", member(&["t0", "t1"], &[], -1)),
        ]);
        let found = assign(Assignor::Range, &both, &counts(&[("t0", 3), ("t1", 3)]));
        expect(
            &found,
            &[
                ("C0", &["t0-0", "t0-1", "t1-0", "t1-1"]),
                ("C1", &["t0-2", "t1-2"]),
            ],
        );

        let three = group(&[
            ("C0", member(&["t0"], &[], -1)),
            ("C1", member(&["t0", "t1"], &[], -1)),
            ("C2", member(&["t1"], &[], -1)),
        ]);
        let found = assign(Assignor::Range, &three, &counts(&[("t0", 5), ("t1", 1)]));
        expect(
            &found,
            &[
                ("C0", &["t0-0", "t0-1", "t0-2"]),
                ("C1", &["t0-3", "t0-4", "t1-0"]),
                ("C2", &[]),
            ],
        );
    }

    #[test]
    fn a_new_member_gets_its_share_when_the_others_have_let_go() {
        let held = [("t", 0), ("t", 1), ("t", 2), ("t", 3)];
        let first = group(&[
            ("a", member(&["t"], &held, 4)),
            ("b", member(&["t"], &[], -1)),
        ]);
        let found = assign(Assignor::CooperativeSticky, &first, &counts(&[("t", 4)]));
        let kept = found["a"].clone();
        assert_eq!((kept.len(), found["b"].len()), (2, 0));

        let owned: Vec<(&str, i32)> = kept.iter().map(|found| ("t", found.partition)).collect();
        let second = group(&[
            ("a", member(&["t"], &owned, 5)),
            ("b", member(&["t"], &[], 5)),
        ]);
        let found = assign(Assignor::CooperativeSticky, &second, &counts(&[("t", 4)]));
        assert_eq!(found["a"], kept);
        assert_eq!(found["b"].len(), 2);
    }

    #[test]
    fn the_youngest_claim_wins_and_the_outdated_one_still_blocks() {
        let members = group(&[
            ("old", member(&["t"], &[("t", 0), ("t", 1)], 3)),
            ("young", member(&["t"], &[("t", 0), ("t", 1)], 4)),
        ]);
        let found = assign(Assignor::CooperativeSticky, &members, &counts(&[("t", 2)]));
        // Balance would give each one; "old" may read both at this moment, so nobody gets what it does not hold alone.
        expect(&found, &[("old", &[]), ("young", &[])]);
    }

    #[test]
    fn what_a_member_does_not_want_any_more_goes_to_others() {
        let members = group(&[
            ("a", member(&["u"], &[("t", 0), ("u", 0)], 3)),
            ("b", member(&["t"], &[], 3)),
        ]);
        let found = assign(
            Assignor::CooperativeSticky,
            &members,
            &counts(&[("t", 1), ("u", 1)]),
        );
        expect(&found, &[("a", &["u-0"]), ("b", &[])]);
    }

    fn any_group()
    -> impl Strategy<Value = (BTreeMap<String, MemberSubscription>, BTreeMap<String, i32>)> {
        let topics = proptest::collection::vec(0i32..9, 1..4);
        let wants = proptest::collection::vec(proptest::collection::vec(any::<bool>(), 3), 1..6);
        let owned = proptest::collection::vec((0usize..6, 0usize..4, 0i32..10, 0i32..3), 0..12);
        (topics, wants, owned).prop_map(|(topics, wants, owned)| {
            let name = |index: usize| format!("t{index}");
            let counts: BTreeMap<String, i32> = topics
                .iter()
                .enumerate()
                .map(|(index, count)| (name(index), *count))
                .collect();
            let mut members: BTreeMap<String, MemberSubscription> = BTreeMap::new();
            for (index, wants) in wants.iter().enumerate() {
                let topics = wants
                    .iter()
                    .enumerate()
                    .filter(|(_, wants)| **wants)
                    .map(|(index, _)| name(index));
                let member = MemberSubscription {
                    topics: topics.collect(),
                    owned: Vec::new(),
                    generation: -1,
                };
                members.insert(format!("m{index}"), member);
            }
            for (member, topic, partition, generation) in owned {
                let id = format!("m{}", member % wants.len());
                let member = members.get_mut(&id).expect("made above");
                member
                    .owned
                    .push(TopicPartition::new(name(topic), partition));
                member.generation = generation;
            }
            (members, counts)
        })
    }

    fn check_rules(
        assignor: Assignor,
        members: &BTreeMap<String, MemberSubscription>,
        counts: &BTreeMap<String, i32>,
    ) -> Assignments {
        let found = assign(assignor, members, counts);
        assert_eq!(found.len(), members.len());
        let mut given = BTreeSet::new();
        for (id, partitions) in &found {
            for partition in partitions {
                assert!(
                    members[id].topics.contains(&partition.topic),
                    "{id} does not want {partition}"
                );
                assert!(
                    (0..counts[&partition.topic]).contains(&partition.partition),
                    "{partition}"
                );
                assert!(
                    given.insert(partition.clone()),
                    "{partition} is given twice"
                );
            }
        }
        found
    }

    proptest! {
        #[test]
        fn every_assignment_is_sound((members, counts) in any_group()) {
            let ranged = check_rules(Assignor::Range, &members, &counts);
            let wanted: i32 = counts
                .iter()
                .filter(|(topic, _)| members.values().any(|member| member.topics.contains(topic)))
                .map(|(_, count)| count)
                .sum();
            let given: usize = ranged.values().map(Vec::len).sum();
            prop_assert_eq!(given, usize::try_from(wanted).unwrap());

            let sticky = check_rules(Assignor::CooperativeSticky, &members, &counts);
            for (id, partitions) in &sticky {
                for partition in partitions {
                    for (other, member) in &members {
                        prop_assert!(other == id || !member.owned.contains(partition), "{} is still held", partition);
                    }
                }
            }
        }

        /// Everybody does what he is told and comes back: after a few rounds all is given out, balanced, and stays as it is.
        #[test]
        fn rounds_settle((mut members, counts) in any_group()) {
            let mut last = Assignments::new();
            for generation in 10..14 {
                last = check_rules(Assignor::CooperativeSticky, &members, &counts);
                for (id, partitions) in &last {
                    let member = members.get_mut(id).expect("assigned to a member");
                    member.owned.clone_from(partitions);
                    member.generation = generation;
                }
            }
            let again = check_rules(Assignor::CooperativeSticky, &members, &counts);
            prop_assert_eq!(&again, &last);
            for (topic, count) in &counts {
                let readers = subscribers(&members, topic);
                let given = again.values().flatten().filter(|found| &found.topic == topic).count();
                let expected = if readers.is_empty() { 0 } else { usize::try_from(*count).unwrap() };
                prop_assert_eq!(given, expected);
                // No reader of a topic has two more than another who could take one of them.
                for giver in again.iter().filter(|(_, has)| has.iter().any(|found| &found.topic == topic)) {
                    for reader in &readers {
                        prop_assert!(giver.1.len() <= again[*reader].len() + 1);
                    }
                }
            }
        }
    }

    #[test]
    fn many_partitions_are_dealt_out_quickly() {
        let members: BTreeMap<String, MemberSubscription> = (0..50)
            .map(|index| (format!("m{index:02}"), member(&["t"], &[], -1)))
            .collect();
        let mut members = members;
        let all: Vec<(&str, i32)> = (0..2000).map(|partition| ("t", partition)).collect();
        members.insert("m00".to_owned(), member(&["t"], &all, 1));
        let started = std::time::Instant::now();
        let found = Sticky::new(&members, &counts(&[("t", 2000)])).balance();
        assert!(found.values().all(|partitions| partitions.len() == 40));
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
