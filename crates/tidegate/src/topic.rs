//! The topic a load goes to: looked at before anything is sent, created only as the very last step of the preparation.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate::kafka::admin::NewTopic;
use tidegate::kafka::{Client, Isolation, OffsetSpec};

use crate::failure::{Failure, Kind};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicWish<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// How many partitions it must have, if that was said.
    pub(crate) partitions: Option<i32>,
    /// How many replicas a new one gets, if that was said.
    pub(crate) replication_factor: Option<i16>,
    /// Whether it may be created.
    pub(crate) may_create: bool,
    /// Partitions of a new one where nothing was said; `None` leaves it to the broker.
    pub(crate) default_partitions: Option<i32>,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicState {
    /// It exists with this many partitions.
    Exists(i32),
    /// It is missing and will be created with this many partitions; `None`: as the broker decides.
    ToCreate(Option<i32>),
}

impl TopicState {
    /// The number of partitions as a plan states it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Exists(1) => "1 partition".to_owned(),
            Self::Exists(count) => format!("{count} partitions"),
            Self::ToCreate(Some(1)) => "to be created with 1 partition".to_owned(),
            Self::ToCreate(Some(count)) => format!("to be created with {count} partitions"),
            Self::ToCreate(None) => "to be created".to_owned(),
        }
    }
}

/// Looks at the topic without changing anything.
pub(crate) fn inspect(client: &Client, wish: &TopicWish<'_>) -> Result<TopicState, Failure> {
    check_name(wish.name)?;
    let Some(view) = client.admin().describe_topic(wish.name)? else {
        if wish.may_create {
            let partitions = wish.partitions.or(wish.default_partitions);
            client
                .admin()
                .check_new_topic(&new_topic(wish, partitions))?;
            return Ok(TopicState::ToCreate(partitions));
        }
        return Err(missing(wish.name).hint(
            "--create-topic creates it, with --partitions and --replication-factor as you like",
        ));
    };
    let count = i32::try_from(view.partitions.len()).unwrap_or(i32::MAX);
    match wish.partitions {
        Some(asked) if asked != count => {
            let message = format!(
                "topic {} has {count} partitions, not {asked} as --partitions says",
                wish.name
            );
            Err(Failure::new(Kind::Topic, message)
                .hint("leave --partitions out, or publish to another topic"))
        }
        _ => Ok(TopicState::Exists(count)),
    }
}

/// Creates the topic if it is to be created. Somebody else may do so at the same time: then it must be as it was to be.
pub(crate) fn prepare(
    client: &Client,
    wish: &TopicWish<'_>,
    state: &TopicState,
) -> Result<(), Failure> {
    let TopicState::ToCreate(partitions) = state else {
        return Ok(());
    };
    let topic = new_topic(wish, *partitions);
    client.admin().ensure_topic(&topic)?;
    inspect(client, wish).map(drop)
}

fn new_topic(wish: &TopicWish<'_>, partitions: Option<i32>) -> NewTopic {
    NewTopic {
        name: wish.name.to_owned(),
        partitions,
        replication_factor: wish.replication_factor,
        configs: BTreeMap::new(),
    }
}

/// Refuses a topic that keeps the last record of each key only: rejected rows have no key, and brokers refuse such records there.
pub(crate) fn refuse_compacted(client: &Client, name: &str) -> Result<(), Failure> {
    // Who may not read the settings is told by the broker.
    let Ok(configs) = client.admin().topic_configs(name) else {
        return Ok(());
    };
    match configs.get("cleanup.policy") {
        Some(policy) if policy.contains("compact") => {
            let message =
                format!("topic {name} has cleanup.policy {policy}: rejected rows have no key");
            Err(Failure::new(Kind::Topic, message).hint("name a topic with cleanup.policy delete"))
        }
        _ => Ok(()),
    }
}

/// The topic's partitions, for a command that reads it.
pub(crate) fn partitions(client: &Client, name: &str) -> Result<Vec<i32>, Failure> {
    check_name(name)?;
    match client.admin().describe_topic(name)? {
        Some(view) => Ok(view
            .partitions
            .iter()
            .map(|partition| partition.partition)
            .collect()),
        None => Err(missing(name)),
    }
}

/// The topic's id as Kafka's tools write it (URL-safe base64), from the newest metadata; `None` from brokers that give none. A topic that was
/// deleted and created again has another.
pub(crate) fn id(client: &Client, name: &str) -> Option<String> {
    let id = client.view().topics.get(name)?.id;
    (id != [0; 16]).then(|| URL_SAFE_NO_PAD.encode(id))
}

/// Whether anything stands in the topic.
pub(crate) fn has_records(client: &Client, name: &str) -> Result<bool, Failure> {
    let (admin, partitions) = (client.admin(), partitions(client, name)?);
    let offsets = |spec| admin.list_offsets(name, &partitions, spec, Isolation::ReadUncommitted);
    Ok(offsets(OffsetSpec::Earliest)? != offsets(OffsetSpec::Latest)?)
}

/// What makes an existing topic less durable than its users may believe: acks=all counts only the replicas there are.
pub(crate) fn durability_warning(client: &Client, name: &str) -> Option<String> {
    let view = client.view();
    let partitions = &view.topics.get(name)?.partitions;
    let replicas = partitions
        .iter()
        .map(|partition| partition.replicas.len())
        .min()?;
    if replicas <= 1 {
        return Some(format!(
            "topic {name} has one replica: what is acknowledged is lost with its broker"
        ));
    }
    // Who may not read the settings is not warned: that is no reason to stop.
    let configs = client.admin().topic_configs(name).ok()?;
    let least = configs.get("min.insync.replicas")?;
    (least == "1").then(|| format!("topic {name} has min.insync.replicas=1: a single broker may acknowledge, and take it along when it dies"))
}

fn missing(name: &str) -> Failure {
    Failure::new(Kind::Topic, format!("topic {name} does not exist"))
}

/// Kafka's rule for topic names (`Topic.validate`): 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
fn check_name(name: &str) -> Result<(), Failure> {
    const LONGEST: usize = 249;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it is a folder's name",
        _ if name.len() > LONGEST => "it is longer than 249 characters",
        _ if !name.chars().all(legal) => "only ASCII letters, digits, '.', '_' and '-' are allowed",
        _ => return Ok(()),
    };
    Err(Failure::new(
        Kind::Usage,
        format!("{name:?} is no name for a topic: {why}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
        let longest = "x".repeat(249);
        for right in ["usage", "a.b-c_9", &longest] {
            assert!(check_name(right).is_ok(), "{right}");
        }
        let too_long = "x".repeat(250);
        for wrong in ["", ".", "..", "a b", "ä", "a/b", &too_long] {
            assert_eq!(
                check_name(wrong).unwrap_err().kind(),
                Kind::Usage,
                "{wrong}"
            );
        }
    }
}
