//! Who is to hold what in a group of the new protocol.

use std::collections::{BTreeMap, BTreeSet};

use super::{Assignor, Place, Topics};

/// What each member reads, by member id.
type Wishes = BTreeMap<String, BTreeSet<String>>;
/// What each member is to hold.
type Shares = BTreeMap<String, BTreeSet<Place>>;

/// Divides all partitions of the topics that members read among those who read them.
pub(super) fn divide(
    assignor: Assignor,
    wishes: &Wishes,
    topics: &Topics,
    before: &Shares,
) -> Shares {
    match assignor {
        Assignor::Uniform => evenly(wishes, topics, before),
        Assignor::Range => by_range(wishes, topics),
    }
}

/// Neighbouring partitions of each topic to each of its readers, the first ones getting one more.
fn by_range(wishes: &Wishes, topics: &Topics) -> Shares {
    let mut shares: Shares = wishes
        .keys()
        .map(|id| (id.clone(), BTreeSet::new()))
        .collect();
    for (name, (id, count)) in topics {
        let readers: Vec<&String> = wishes
            .iter()
            .filter(|(_, reads)| reads.contains(name))
            .map(|(member, _)| member)
            .collect();
        let total = usize::try_from(*count).unwrap_or(0);
        let (each, more) = (total / readers.len().max(1), total % readers.len().max(1));
        let mut next = 0..*count;
        for (index, member) in readers.into_iter().enumerate() {
            let share = each + usize::from(index < more);
            if let Some(held) = shares.get_mut(member) {
                held.extend(next.by_ref().take(share).map(|number| (*id, number)));
            }
        }
    }
    shares
}

/// As many to each as can be, moving as few as that allows.
fn evenly(wishes: &Wishes, topics: &Topics, before: &Shares) -> Shares {
    let names: BTreeMap<Place, &str> = topics
        .iter()
        .flat_map(|(name, (id, count))| {
            (0..*count).map(move |number| ((*id, number), name.as_str()))
        })
        .collect();
    let may_hold = |member: &str, place: &Place| {
        let name = names.get(place);
        name.is_some_and(|name| wishes[member].contains(*name))
    };
    let mut shares: Shares = wishes
        .keys()
        .map(|member| {
            let before = before.get(member).into_iter().flatten();
            let kept = before.filter(|place| may_hold(member, place)).copied();
            (member.clone(), kept.collect())
        })
        .collect();
    let taken: BTreeSet<Place> = shares.values().flatten().copied().collect();
    for place in names.keys().filter(|place| !taken.contains(place)) {
        let readers = shares
            .iter_mut()
            .filter(|(member, _)| may_hold(member, place));
        if let Some((_, held)) = readers.min_by_key(|(_, held)| held.len()) {
            held.insert(*place);
        }
    }
    while let Some((from, to, place)) = unfair(&shares, may_hold) {
        if let Some(held) = shares.get_mut(&from) {
            held.remove(&place);
        }
        if let Some(held) = shares.get_mut(&to) {
            held.insert(place);
        }
    }
    shares
}

/// A partition whose holder has at least two more than another that may hold it.
fn unfair(
    shares: &Shares,
    may_hold: impl Fn(&str, &Place) -> bool,
) -> Option<(String, String, Place)> {
    let mut members: Vec<(&String, &BTreeSet<Place>)> = shares.iter().collect();
    members.sort_by_key(|(_, held)| held.len());
    for (from, many) in members.iter().rev() {
        for (to, few) in &members {
            if many.len() < few.len() + 2 {
                break;
            }
            if let Some(place) = many.iter().rev().find(|place| may_hold(to, place)) {
                return Some(((*from).clone(), (*to).clone(), *place));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn topics(counts: &[(&str, i32)]) -> Topics {
        let counts = counts.iter().enumerate();
        counts
            .map(|(index, (name, count))| {
                let id = Uuid::from_u128(index as u128 + 1);
                ((*name).to_owned(), (id, *count))
            })
            .collect()
    }

    fn wishes(reads: &[(&str, &[&str])]) -> Wishes {
        let names = |topics: &[&str]| topics.iter().map(ToString::to_string).collect();
        let reads = reads.iter();
        reads
            .map(|(member, topics)| ((*member).to_owned(), names(topics)))
            .collect()
    }

    fn sizes(shares: &Shares) -> Vec<usize> {
        shares.values().map(BTreeSet::len).collect()
    }

    /// Everything is held once, by somebody who reads it.
    fn check(shares: &Shares, wishes: &Wishes, topics: &Topics) {
        let held: Vec<Place> = shares.values().flatten().copied().collect();
        let distinct: BTreeSet<Place> = held.iter().copied().collect();
        let all: i32 = topics.values().map(|(_, count)| count).sum();
        assert_eq!(held.len(), distinct.len());
        assert_eq!(held.len(), usize::try_from(all).unwrap());
        for (member, held) in shares {
            for (id, _) in held {
                let name = topics.iter().find(|(_, (other, _))| other == id).unwrap().0;
                assert!(wishes[member].contains(name));
            }
        }
    }

    #[test]
    fn shares_are_even_and_members_keep_what_they_can() {
        let topics = topics(&[("t", 7), ("u", 3)]);
        let both: &[&str] = &["t", "u"];
        let mut before = Shares::new();
        for members in [&["a"][..], &["a", "b"], &["a", "b", "c"], &["b", "c"]] {
            let reads: Vec<(&str, &[&str])> = members.iter().map(|id| (*id, both)).collect();
            let wishes = wishes(&reads);
            let shares = divide(Assignor::Uniform, &wishes, &topics, &before);
            check(&shares, &wishes, &topics);
            let sizes = sizes(&shares);
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            for (member, held) in &shares {
                let before = before.get(member).cloned().unwrap_or_default();
                let fair = 10 / members.len();
                let kept = held.intersection(&before).count();
                assert!(kept >= before.len().min(fair), "{member} kept {kept}");
            }
            before = shares;
        }
    }

    #[test]
    fn only_readers_of_a_topic_hold_it() {
        let topics = topics(&[("t", 6), ("u", 2)]);
        let wishes = wishes(&[("a", &["t", "u"]), ("b", &["t"]), ("c", &["t"])]);
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let shares = divide(assignor, &wishes, &topics, &Shares::new());
            check(&shares, &wishes, &topics);
        }
        let even = divide(Assignor::Uniform, &wishes, &topics, &Shares::new());
        let mut sizes = sizes(&even);
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 3, 3]);
    }

    #[test]
    fn a_range_is_of_neighbours() {
        let topics = topics(&[("t", 5)]);
        let wishes = wishes(&[("a", &["t"]), ("b", &["t"])]);
        let shares = divide(Assignor::Range, &wishes, &topics, &Shares::new());
        let numbers = |member: &str| -> Vec<i32> {
            shares[member].iter().map(|(_, number)| *number).collect()
        };
        assert_eq!((numbers("a"), numbers("b")), (vec![0, 1, 2], vec![3, 4]));
    }
}
