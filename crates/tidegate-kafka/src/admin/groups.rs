//! Groups as their coordinator sees them, of either protocol: state and members. Nobody is joined for it.

use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, ListGroupsRequest,
};
use kafka_protocol::protocol::Request;

use super::{Admin, group_id};
use crate::client::{Client, CoordinatorKind, at_coordinator, check};
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};

const UNSUPPORTED_VERSION: i16 = 35;
const GROUP_ID_NOT_FOUND: i16 = 69;

/// By which protocol a group works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// The classic one; also a group that only ever committed offsets, and one that does not exist.
    Classic,
    /// The new one (KIP-848), whichever its members speak.
    Consumer,
}

/// A consumer group as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// By which protocol it works.
    pub kind: GroupKind,
    /// `Stable`, `Empty`, or `Dead` if there is no such group; between them `PreparingRebalance` and `CompletingRebalance` in a classic group,
    /// `Assigning` and `Reconciling` in one of the new protocol.
    pub state: String,
    /// The assignor that the group agreed on; empty if it has none.
    pub protocol: String,
    /// Member ids with the client ids behind them.
    pub members: Vec<(String, String)>,
}

impl GroupDescription {
    fn dead() -> Self {
        Self {
            kind: GroupKind::Classic,
            state: "Dead".to_owned(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }

    /// Whether there is such a group, be it that it has nothing but offsets.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.state != "Dead"
    }

    /// Whether its partitions are being divided anew.
    #[must_use]
    pub fn is_rebalancing(&self) -> bool {
        // Java writes the states of its two kinds of groups as it writes the words, and Kafka 3.x the new ones with capitals alone.
        let states = [
            "PreparingRebalance",
            "CompletingRebalance",
            "Assigning",
            "Reconciling",
        ];
        states
            .iter()
            .any(|state| state.eq_ignore_ascii_case(&self.state))
    }
}

impl Admin {
    /// A group's state and members, by whichever protocol it works.
    ///
    /// # Errors
    /// [`ErrorKind::Group`] for a share or streams group, which commits no offsets of this kind; [`ErrorKind::Authorization`],
    /// [`ErrorKind::Timeout`].
    pub fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let found = at_coordinator(&self.client, group, |client, node_id| {
            let address = client.address(node_id)?;
            client.with_connection(&address, client.config().request_timeout, |connection| {
                match describe_modern(connection, group)? {
                    Some(found) => Ok(found),
                    None => describe_classic(connection, group),
                }
            })
        })?;
        if !found.exists() {
            self.refuse_other_kinds(group)?;
        }
        Ok(found)
    }

    /// The names of all groups, on whichever broker coordinates them.
    ///
    /// # Errors
    /// [`ErrorKind::Authorization`], [`ErrorKind::Unreachable`], [`ErrorKind::Timeout`].
    pub fn list_groups(&self) -> Result<Vec<String>, Error> {
        let view = self.client.refresh(&[])?;
        let mut groups = Vec::new();
        for node_id in view.brokers.keys() {
            groups.extend(
                listed(&self.client, *node_id)?
                    .into_iter()
                    .map(|(name, _)| name),
            );
        }
        groups.sort();
        Ok(groups)
    }

    /// Says what a refusal to tell a group's offsets means, if it is that the group is of a kind that has none.
    pub(super) fn explain_refusal(&self, group: &str, error: Error) -> Error {
        if error.kafka_code() != Some(GROUP_ID_NOT_FOUND) {
            return error;
        }
        self.refuse_other_kinds(group).err().unwrap_or(error)
    }

    /// Whether there is a group of this name that is no consumer group. Such a group's progress is kept elsewhere, and no number that could be
    /// told here would be about it.
    fn refuse_other_kinds(&self, group: &str) -> Result<(), Error> {
        let coordinator = self.client.coordinator(CoordinatorKind::Group, group)?;
        // Whether the group may be seen at all was asked before: what cannot be listed has no name to be found.
        let listed = listed(&self.client, coordinator).unwrap_or_default();
        let kind = listed
            .into_iter()
            .find(|(name, _)| name == group)
            .map(|(_, kind)| kind.to_ascii_lowercase());
        match kind.as_deref() {
            None | Some("" | "classic" | "consumer") => Ok(()),
            Some(kind) => {
                let message = format!(
                    "group {group} is a {kind} group, which commits no offsets: only consumer groups can be held back for or waited for"
                );
                Err(Error::new(ErrorKind::Group, message))
            }
        }
    }
}

/// The groups that a broker coordinates, each with its type; that is empty where the broker does not tell it (before 3.8).
fn listed(client: &Client, node_id: i32) -> Result<Vec<(String, String)>, Error> {
    let answer = client.call(node_id, &ListGroupsRequest::default())?;
    check("list groups", answer.error_code, None)?;
    let groups = answer.groups.iter();
    Ok(groups
        .map(|group| (group.group_id.0.to_string(), group.group_type.to_string()))
        .collect())
}

/// A group of the new protocol; `None` if it is none, or the broker knows of no such groups.
fn describe_modern(
    connection: &mut Connection,
    group: &str,
) -> Result<Option<GroupDescription>, Error> {
    let key = ConsumerGroupDescribeRequest::KEY;
    if connection.versions().offered(key).is_none() {
        return Ok(None);
    }
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    let answer = connection.call(&request)?;
    let found = answer.groups.first().ok_or_else(|| no_answer(group))?;
    if matches!(found.error_code, GROUP_ID_NOT_FOUND | UNSUPPORTED_VERSION) {
        return Ok(None);
    }
    check(
        format_args!("describe group {group}"),
        found.error_code,
        found.error_message.as_deref(),
    )?;
    let members = found.members.iter();
    Ok(Some(GroupDescription {
        kind: GroupKind::Consumer,
        state: found.group_state.to_string(),
        protocol: found.assignor_name.to_string(),
        members: members
            .map(|member| (member.member_id.to_string(), member.client_id.to_string()))
            .collect(),
    }))
}

fn describe_classic(connection: &mut Connection, group: &str) -> Result<GroupDescription, Error> {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
    let answer = connection.call(&request)?;
    let found = answer.groups.first().ok_or_else(|| no_answer(group))?;
    // Kafka forgets an empty group without offsets, and from version 6 of the request on says so by an error (KIP-1043).
    if found.error_code == GROUP_ID_NOT_FOUND {
        return Ok(GroupDescription::dead());
    }
    check(
        format_args!("describe group {group}"),
        found.error_code,
        found.error_message.as_deref(),
    )?;
    let members = found.members.iter();
    Ok(GroupDescription {
        kind: GroupKind::Classic,
        state: found.group_state.to_string(),
        protocol: found.protocol_data.to_string(),
        members: members
            .map(|member| (member.member_id.to_string(), member.client_id.to_string()))
            .collect(),
    })
}

fn no_answer(group: &str) -> Error {
    let message = format!("no answer about group {group}");
    Error::new(ErrorKind::Protocol, message)
}
