//! What goes into the machine and what comes out of it.

use std::time::Duration;

use crate::error::ErrorKind;

/// Time since the producer was opened, by a monotonic clock.
pub type Time = Duration;

/// A partition of any topic of the producer: a dense index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A sealed batch. Numbers are given by the caller and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// One attempt at a connection to one broker. Numbers are never used again, so what comes late from a dropped link is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Who this producer is to the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Given by InitProducerId.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// How transactions are spoken of to brokers; which one, is decided anew at the start of each (KIP-890: a running cluster may be upgraded).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Clusters whose finalised `transaction.version` is below 2, or that have none: partitions are added by AddPartitionsToTxn before the
    /// first batch, and EndTxn leaves the epoch as it is (KIP-98).
    Old,
    /// From `transaction.version` 2 on (KIP-890): Produce adds its partition, and every EndTxn answers with the next epoch, or with a new
    /// producer id once the epochs are used up.
    New,
}

/// What is asked of the transaction coordinator. One such question is open at a time, and it is asked again as it was until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorRequest {
    /// Take the transactional id over, ending whatever transaction is open under it (`None`), or go on with the next epoch after this
    /// identity, which is refused if somebody else took over meanwhile (KIP-360).
    InitProducerId(Option<Identity>),
    /// Partitions that this transaction is about to write to.
    AddPartitions {
        /// Who asks.
        identity: Identity,
        /// The partitions.
        slots: Vec<Slot>,
    },
    /// End the transaction.
    EndTxn {
        /// Who asks.
        identity: Identity,
        /// Commit, or abort.
        commit: bool,
        /// In which protocol.
        protocol: Protocol,
    },
}

/// What the coordinator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorAnswer {
    /// Kafka's error code; of several, the worst.
    pub code: i16,
    /// Producer id and epoch from now on, where the answer has them.
    pub identity: Option<Identity>,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its records count.
    Committed,
    /// They do not, and the producer is ready for the next one.
    RolledBack {
        /// Why, for people.
        why: String,
    },
}

/// What one Produce answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Kafka's error code.
    pub code: i16,
    /// Offset of the batch's first record; negative if the answer does not tell.
    pub base_offset: i64,
    /// Time that the broker wants to be left alone.
    pub throttle: Duration,
    /// Who leads now, where the broker asked does not lead any more and says so (KIP-951).
    pub new_leader: Option<Leadership>,
    /// What the broker says about an error.
    pub message: Option<String>,
}

/// A term of leadership of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Node id of the leader.
    pub node: i32,
    /// Which term this is; a later one is higher. -1 if unknown.
    pub epoch: i32,
}

/// What metadata says about the leader of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// This node leads it.
    Known(Leadership),
    /// Nobody does at the moment.
    Nobody,
    /// The topic or partition is not known.
    Missing,
    /// The topic was deleted and created again under the same name.
    Recreated,
    /// The broker refuses to tell, with this error code.
    Refused(i16),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A batch is ready to be sent; batches of one partition come in order.
    Sealed {
        /// Its partition.
        slot: Slot,
        /// Its number.
        batch: BatchId,
        /// Its records: sequences count records.
        records: u32,
    },
    /// The link asked for by [`Action::Open`] is there.
    Opened(LinkId),
    /// A link could not be opened, broke, or a request on it timed out.
    Lost {
        /// Which.
        link: LinkId,
        /// Why, for people.
        why: String,
    },
    /// The oldest unanswered request of a link was answered.
    Answered {
        /// The link.
        link: LinkId,
        /// The answer.
        answer: Answer,
    },
    /// The metadata asked for by [`Action::RefreshMetadata`]: a leader for each slot that was named.
    Metadata(Vec<(Slot, Leader)>),
    /// The metadata could not be had.
    MetadataFailed(String),
    /// The new identity asked for by [`Action::RenewIdentity`]; all windows are empty.
    Renewed(Identity),
    /// What was asked for, a link or an identity, is refused, and trying again would not help.
    Refused {
        /// What sort of failure.
        kind: ErrorKind,
        /// Why, for people.
        why: String,
    },
    /// A transaction begins; batches that are sealed from now on belong to it.
    Begin(Protocol),
    /// It is to be committed once all of it is acknowledged. No more batches are sealed.
    Commit,
    /// It is to be rolled back, whatever became of its batches.
    Abort,
    /// The coordinator's answer to [`Action::AskCoordinator`].
    CoordinatorAnswered(CoordinatorAnswer),
    /// The coordinator did not answer, for this reason; whether it got the question is not known.
    CoordinatorLost(String),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to a broker; answer [`Event::Opened`] or [`Event::Lost`].
    Open {
        /// The new link.
        link: LinkId,
        /// The broker's node id.
        node: i32,
    },
    /// Drop a link; nothing more is expected from it.
    Close(LinkId),
    /// Send a batch; answer [`Event::Answered`] in the order of sending, or [`Event::Lost`].
    Send {
        /// The link.
        link: LinkId,
        /// The partition.
        slot: Slot,
        /// The batch.
        batch: BatchId,
        /// Producer id and epoch to send it with.
        identity: Identity,
        /// Sequence of its first record.
        sequence: i32,
        /// How its transaction is spoken of, if it belongs to one.
        transaction: Option<Protocol>,
    },
    /// Ask for the leaders of these partitions; answer [`Event::Metadata`] or [`Event::MetadataFailed`]. One such question is open at a time.
    RefreshMetadata(Vec<Slot>),
    /// Ask for a new producer id; answer [`Event::Renewed`] or [`Event::Refused`].
    RenewIdentity,
    /// Ask the transaction coordinator; answer [`Event::CoordinatorAnswered`] or [`Event::CoordinatorLost`].
    AskCoordinator {
        /// What.
        request: CoordinatorRequest,
        /// Whether to look up first who coordinates now.
        find: bool,
    },
    /// The transactional id is ours, and nothing is open under it: transactions may begin.
    Ready,
    /// The transaction has ended. If it was rolled back, its batches that are not settled have failed.
    Ended(Outcome),
    /// A batch is in the log.
    Settle {
        /// The partition.
        slot: Slot,
        /// The batch.
        batch: BatchId,
        /// Offset of its first record, if the broker still knew it.
        base_offset: Option<i64>,
    },
    /// Nothing more can be delivered; every batch that is not settled has failed, and no further event matters.
    Fail(Failure),
}

/// Why the producer stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// The broker's error code, if it was one.
    pub code: Option<i16>,
    /// The partition concerned, if it was one.
    pub slot: Option<Slot>,
    /// The batch concerned, if it was one.
    pub batch: Option<BatchId>,
    /// Why, for people.
    pub why: String,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Time without any settlement after which the producer gives up.
    pub delivery_timeout: Duration,
    /// Links to one broker, at most; each partition is on one of them.
    pub links_per_node: usize,
    /// Where sequences start; 0 but in simulations, which must see them wrap.
    #[doc(hidden)]
    pub first_sequence: i32,
    /// A rule that is broken on purpose, to show that the simulator notices.
    #[doc(hidden)]
    pub broken: Option<BrokenRule>,
}

impl Rules {
    /// The rules as they should be.
    pub fn new(delivery_timeout: Duration, links_per_node: usize) -> Self {
        Self {
            delivery_timeout,
            links_per_node: links_per_node.max(1),
            first_sequence: 0,
            broken: None,
        }
    }

    pub(super) fn break_rule(&self, rule: BrokenRule) -> bool {
        self.broken == Some(rule)
    }
}

/// A rule to break on purpose in a simulation.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenRule {
    /// window: twice as many batches in flight as a broker remembers.
    WideWindow,
    /// fixed: gives a batch a new sequence when it is sent again.
    NewSequence,
    /// head: takes an answer from a dropped link for one about the head.
    LateAnswers,
    /// repair: sends only the failed batch again, behind those in flight.
    NoRepair,
    /// repair: takes a lost link as success of what was on it.
    AssumeDelivered,
    /// alone: sends the first window of a producer id at once.
    CrowdAtStart,
    /// alone: sends a whole window at once after a repair.
    CrowdAfterRepair,
    /// gap: takes possible loss as success.
    IgnoreGap,
    /// renewal: takes a new producer id although a batch is in doubt.
    RenewInDoubt,
    /// certain: gives up a batch that failed a few times, and goes on.
    GiveUpOne,
    /// all acknowledged: sends EndTxn while batches are in flight.
    EndBeforeAcks,
    /// resolved: takes a commit for done as soon as it was asked for, and goes on sending.
    ProduceWhileEnding,
    /// resolved: takes an unanswered commit for done.
    AssumeCommitted,
    /// resolved: takes the answer that there is no such transaction (48) for a commit.
    InvalidIsCommitted,
    /// next epoch: goes on with the sequences of the last epoch.
    KeepSequences,
    /// next epoch: goes on under the same epoch after a roll-back, in the old protocol.
    SameEpochAfterAbort,
    /// next epoch: goes on under the same epoch although a request of it may still be on its way, in the old protocol.
    SameEpochAfterResend,
    /// next epoch: goes on under the same epoch when the cluster changes over to the new protocol.
    SameEpochAtChange,
    /// one owner: takes the transactional id back from whoever took it.
    FightForOwnership,
}
