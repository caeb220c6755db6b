//! What is the matter with a consumer group that has not committed what it should: told from its state, its members, and where its commits went.

use tidegate::core::balance::MovedBack;
use tidegate::kafka::{Client, ErrorKind, GroupDescription};

use crate::failure::Failure;

/// What is known of a group that is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Its name.
    pub(crate) group: &'a str,
    /// The topic.
    pub(crate) topic: &'a str,
    /// Whether it has committed nothing on it.
    pub(crate) nothing: bool,
    /// Where it went back while it was looked at.
    pub(crate) moved_back: &'a [MovedBack],
}

/// Refuses a group that can never be waited for: what it has worked off is not kept as committed offsets.
pub(crate) fn require_consumers(client: &Client, group: &str) -> Result<(), Failure> {
    match client.admin().describe_group(group) {
        Err(error) if error.kind() == ErrorKind::Group => Err(Failure::from(error)),
        // What else keeps it from being seen is told when it is waited for.
        _ => Ok(()),
    }
}

/// What may be the matter, and what to do about it.
pub(crate) fn hints(client: &Client, seen: Seen<'_>) -> Vec<String> {
    tell(
        client.admin().describe_group(seen.group).ok().as_ref(),
        seen,
    )
}

fn tell(found: Option<&GroupDescription>, seen: Seen<'_>) -> Vec<String> {
    let Seen {
        group,
        topic,
        nothing,
        moved_back,
    } = seen;
    let exists = found.is_none_or(GroupDescription::exists);
    let mut hints = Vec::new();
    if let Some(moved) = moved_back.iter().find(|moved| moved.to.is_none()) {
        let partition = moved.partition;
        hints.push(match exists {
            true => format!(
                "the commits of group {group} are gone, in partition {partition} from {}: they expired (offsets.retention.minutes) or were deleted; \
                 without them it begins where its auto.offset.reset says",
                moved.from
            ),
            false => format!(
                "group {group} was deleted, or its commits expired (offsets.retention.minutes): it was at {} in partition {partition}; \
                 without them it begins where its auto.offset.reset says",
                moved.from
            ),
        });
    }
    let set_back = moved_back.iter().find_map(|moved| Some((moved, moved.to?)));
    if let Some((moved, to)) = set_back {
        hints.push(format!(
            "group {group} was set back, in partition {} from {} to {to}: it reads from there again",
            moved.partition, moved.from
        ));
    }
    let Some(found) = found else {
        return hints;
    };
    let members = found.members.len();
    if !exists {
        if moved_back.is_empty() {
            hints.push(format!(
                "there is no group {group}: it never committed, or it was deleted, or its commits expired (offsets.retention.minutes); check its name"
            ));
        }
    } else if found.is_rebalancing() {
        hints.push(format!(
            "group {group} is rebalancing, members {members}: if that does not end, one of them joins again and again, or does not answer"
        ));
    } else if members == 0 {
        hints.push(format!("group {group} has no members: start its consumers"));
    } else if nothing {
        hints.push(format!(
            "group {group} has members ({members}), which have committed nothing on {topic}: they read another topic, or do not commit"
        ));
    } else {
        hints.push(format!(
            "group {group} has members ({members}): they are slow, or do not commit"
        ));
    }
    hints
}

#[cfg(test)]
mod tests {
    use tidegate::kafka::GroupKind;

    use super::*;

    fn group(state: &str, members: usize) -> GroupDescription {
        GroupDescription {
            kind: GroupKind::Consumer,
            state: state.to_owned(),
            protocol: String::new(),
            members: vec![(String::new(), String::new()); members],
        }
    }

    fn told(found: &GroupDescription, nothing: bool, moved_back: &[MovedBack]) -> String {
        let seen = Seen {
            group: "g",
            topic: "t",
            nothing,
            moved_back,
        };
        tell(Some(found), seen).join(" | ")
    }

    #[test]
    fn each_state_is_told_apart() {
        for (found, nothing, said) in [
            (group("Dead", 0), true, "there is no group g"),
            (group("Empty", 0), true, "has no members"),
            (group("Empty", 0), false, "has no members"),
            (
                group("PreparingRebalance", 2),
                false,
                "is rebalancing, members 2",
            ),
            (group("Reconciling", 1), false, "is rebalancing, members 1"),
            (group("ASSIGNING", 1), false, "is rebalancing, members 1"),
            (group("Stable", 3), true, "have committed nothing on t"),
            (group("Stable", 3), false, "are slow"),
        ] {
            let told = told(&found, nothing, &[]);
            assert!(told.contains(said), "{told}");
            assert!(!told.contains(" | "), "{told}");
        }
    }

    #[test]
    fn where_commits_went_is_told_first() {
        let moved = |to| MovedBack {
            partition: 3,
            from: 9,
            to,
        };
        let told = |found: &GroupDescription, to| told(found, false, &[moved(to)]);
        let back = told(&group("Stable", 1), Some(4));
        assert!(
            back.starts_with("group g was set back, in partition 3 from 9 to 4"),
            "{back}"
        );
        let gone = told(&group("Empty", 0), None);
        assert!(
            gone.starts_with("the commits of group g are gone, in partition 3 from 9"),
            "{gone}"
        );
        assert!(gone.contains("has no members"), "{gone}");
        let deleted = told(&group("Dead", 0), None);
        assert!(deleted.starts_with("group g was deleted"), "{deleted}");
        assert!(!deleted.contains("check its name"), "{deleted}");
    }
}
