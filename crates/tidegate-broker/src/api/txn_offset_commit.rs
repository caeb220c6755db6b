//! TxnOffsetCommit (28): keeps a group's positions if a transaction is committed.

use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestTopic;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{ProducerId, TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use kafka_protocol::protocol::VersionRange;

use super::offset_commit::judge_position;
use super::{Api, Context};
use crate::codes;
use crate::group::Sender;
use crate::journal::{Change, Committed, CommittedPartition};
use crate::shared::Shared;
use crate::transaction::{Caller, Protocol, Touched, Writing};

/// The first version whose clients know TRANSACTION_ABORTABLE. (KIP-890)
const ABORTABLE_KNOWN: i16 = 4;

/// The first version that adds the group to the transaction on the way. (KIP-890)
const SECOND_PROTOCOL: i16 = 5;

impl Api for TxnOffsetCommitRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> TxnOffsetCommitResponse {
        if self.group_id.is_empty() {
            return self.refuse(context, codes::INVALID_GROUP_ID);
        }
        let shared = &context.shared;
        let mut offsets = Vec::new();
        let topics = self.topics.iter();
        let topics = topics.map(|topic| judge(topic, shared, &mut offsets));
        let topics = topics.collect();
        match keep(&self, context, offsets) {
            Ok(()) => TxnOffsetCommitResponse::default().with_topics(topics),
            Err(code) => self.refuse(context, code),
        }
    }

    fn refuse(&self, _: &Context, code: i16) -> TxnOffsetCommitResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter();
            let partitions = partitions.map(|partition| answer(partition.partition_index, code));
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        TxnOffsetCommitResponse::default().with_topics(topics.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        self.topics
            .iter()
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| (topic.name.to_string(), partition.partition_index))
            })
            .collect()
    }

    fn group(&self) -> Option<String> {
        Some(self.group_id.to_string())
    }

    fn transactional_id(&self) -> Option<String> {
        Some(self.transactional_id.to_string())
    }
}

fn answer(partition: i32, code: i16) -> TxnOffsetCommitResponsePartition {
    TxnOffsetCommitResponsePartition::default()
        .with_partition_index(partition)
        .with_error_code(code)
}

/// Says of each position whether it can be kept, and puts those that can into `offsets`.
fn judge(
    topic: &TxnOffsetCommitRequestTopic,
    shared: &Shared,
    offsets: &mut Vec<CommittedPartition>,
) -> TxnOffsetCommitResponseTopic {
    let known = shared.topics.by_name(&topic.name);
    let partitions = topic.partitions.iter().map(|partition| {
        let index = partition.partition_index;
        let committed = Committed::new(
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.committed_metadata.as_deref(),
        );
        let code = judge_position(known.as_deref(), index, committed, offsets);
        answer(index, code)
    });
    TxnOffsetCommitResponseTopic::default()
        .with_name(topic.name.clone())
        .with_partitions(partitions.collect())
}

/// Writes the positions down, to wait for the end of the transaction.
fn keep(
    request: &TxnOffsetCommitRequest,
    context: &Context,
    offsets: Vec<CommittedPartition>,
) -> Result<(), i16> {
    let shared = &context.shared;
    let ProducerId(producer_id) = request.producer_id;
    let writing = Writing {
        id: &request.transactional_id,
        caller: Caller {
            producer_id,
            epoch: request.producer_epoch,
        },
        place: Touched::group(&request.group_id),
        protocol: match context.version {
            SECOND_PROTOCOL.. => Protocol::Second,
            _ => Protocol::First,
        },
    };
    let sender = Sender {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let kept = shared.transactions.write_to(shared, &writing, || {
        let groups = &shared.groups;
        groups.commit_in_transaction(&request.group_id, sender, || {
            let pending = Change::OffsetsPending {
                producer_id,
                group: request.group_id.to_string(),
                offsets,
            };
            shared.commit(pending).map_err(|refusal| refusal.code)
        })
    });
    kept.map_err(|code| not_admitted(code, context.version))?
}

/// Why the group is not part of a transaction, in codes that a client of `version` knows what to do with.
fn not_admitted(code: i16, version: i16) -> i16 {
    match code {
        codes::PRODUCER_FENCED => codes::INVALID_PRODUCER_EPOCH,
        codes::TRANSACTION_ABORTABLE if version < ABORTABLE_KNOWN => codes::INVALID_TXN_STATE,
        // What older clients do not retry becomes something they do.
        codes::CONCURRENT_TRANSACTIONS if version < SECOND_PROTOCOL => {
            codes::COORDINATOR_NOT_AVAILABLE
        }
        code => code,
    }
}
