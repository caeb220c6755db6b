//! A member of a group, and what it is told.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Where the answer to a request goes that has to wait for other members.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// Empty if the client has no id yet.
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    /// The protocols the member can follow, best first, with what it says to each.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether a client without an id is sent back to join again with the one it is given. (KIP-394)
    pub(crate) id_is_required: bool,
    /// Whether a leader can be told that the assignment stays as it is. (KIP-814)
    pub(crate) may_skip_assignment: bool,
}

/// The answer to a [`Join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) code: i16,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    pub(crate) skip_assignment: bool,
    /// All members, if the one answered is the leader.
    pub(crate) members: Vec<JoinedMember>,
}

/// A member as the leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) metadata: Bytes,
}

impl Joined {
    pub(crate) fn refused(code: i16, member_id: &str) -> Self {
        Self {
            code,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member_id: member_id.to_owned(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// Who sends a request, as members say it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance_id: Option<&'a str>,
    pub(crate) generation: i32,
}

impl Sender<'_> {
    /// Whether the sender says that it is a member.
    pub(super) fn is_named(&self) -> bool {
        self.generation >= 0 || !self.member_id.is_empty() || self.instance_id.is_some()
    }
}

/// The answer to a SyncGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) code: i16,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    pub(crate) fn refused(code: i16) -> Self {
        Self {
            code,
            protocol_type: None,
            protocol: None,
            assignment: Bytes::new(),
        }
    }
}

/// A member of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// When it counts as gone, unless it is heard of before.
    pub(super) expires: Instant,
    /// Its first join has not been answered yet.
    pub(super) is_new: bool,
    pub(super) joining: Option<Reply<Joined>>,
    pub(super) syncing: Option<Reply<Synced>>,
}

impl Member {
    /// Whether it can be gone without having said so. One whose request is being held cannot be expected
    /// to send another, except that a new one is not waited for without end.
    pub(super) fn may_expire(&self) -> bool {
        self.is_new || (self.joining.is_none() && self.syncing.is_none())
    }

    pub(super) fn is_heard_of(&mut self, now: Instant) {
        self.expires = now + self.session_timeout;
    }

    /// What it says to `protocol`.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    pub(super) fn answer_join(&mut self, joined: Joined) {
        if let Some(reply) = self.joining.take() {
            // The client may have left; it is found out by its silence.
            drop(reply.send(joined));
        }
    }

    pub(super) fn answer_sync(&mut self, synced: Synced) {
        if let Some(reply) = self.syncing.take() {
            // As above.
            drop(reply.send(synced));
        }
    }

    /// Answers what is being held with `code`.
    pub(super) fn dismiss(&mut self, code: i16) {
        self.answer_join(Joined::refused(code, ""));
        self.answer_sync(Synced::refused(code));
    }
}
