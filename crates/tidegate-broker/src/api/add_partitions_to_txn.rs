//! AddPartitionsToTxn (24): makes partitions part of a transaction, or asks whether they are.
//!
//! Up to version 3 a producer sends it for its transaction. From version 4 on brokers do, for several
//! transactions at once, and may ask without adding. (KIP-890)

use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ProducerId};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, code_for};
use crate::codes;
use crate::shared::Shared;
use crate::transaction::{Caller, Touched};

/// The first version with several transactions.
const SEVERAL_TRANSACTIONS: i16 = 4;

/// The first version whose clients know PRODUCER_FENCED. (KIP-588)
const PRODUCER_FENCED_KNOWN: i16 = 2;

impl Api for AddPartitionsToTxnRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 5 };

    async fn handle(self, context: &Context) -> AddPartitionsToTxnResponse {
        if context.version < SEVERAL_TRANSACTIONS {
            let results = add(&only_transaction(&self), context);
            return AddPartitionsToTxnResponse::default()
                .with_results_by_topic_v3_and_below(results);
        }
        let results = self.transactions.iter().map(|transaction| {
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id.clone())
                .with_topic_results(add(transaction, context))
        });
        AddPartitionsToTxnResponse::default().with_results_by_transaction(results.collect())
    }

    fn refuse(&self, context: &Context, code: i16) -> AddPartitionsToTxnResponse {
        if context.version < SEVERAL_TRANSACTIONS {
            let results = for_each_partition(&self.v3_and_below_topics, |_, _| code);
            return AddPartitionsToTxnResponse::default()
                .with_results_by_topic_v3_and_below(results);
        }
        let results = self.transactions.iter().map(|transaction| {
            let results = for_each_partition(&transaction.topics, |_, _| code);
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id.clone())
                .with_topic_results(results)
        });
        AddPartitionsToTxnResponse::default()
            .with_error_code(code)
            .with_results_by_transaction(results.collect())
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        let batched = self.transactions.iter().flat_map(|one| &one.topics);
        self.v3_and_below_topics
            .iter()
            .chain(batched)
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| (topic.name.to_string(), *partition))
            })
            .collect()
    }

    fn transactional_id(&self) -> Option<String> {
        let first = self.transactions.first();
        let id = first.map_or(&self.v3_and_below_transactional_id, |first| {
            &first.transactional_id
        });
        Some(id.to_string())
    }
}

/// What a request up to version 3 asks for.
fn only_transaction(request: &AddPartitionsToTxnRequest) -> AddPartitionsToTxnTransaction {
    AddPartitionsToTxnTransaction::default()
        .with_transactional_id(request.v3_and_below_transactional_id.clone())
        .with_producer_id(request.v3_and_below_producer_id)
        .with_producer_epoch(request.v3_and_below_producer_epoch)
        .with_topics(request.v3_and_below_topics.clone())
}

fn add(
    asked: &AddPartitionsToTxnTransaction,
    context: &Context,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let shared = &context.shared;
    let exists = |topic: &str, partition: i32| {
        let topic = shared.topics.by_name(topic);
        topic.is_some_and(|topic| topic.partition(partition).is_some())
    };
    let mut missing = false;
    let mut touched = Touched::default();
    for topic in &asked.topics {
        for partition in &topic.partitions {
            missing |= !exists(&topic.name, *partition);
            touched.extend(Touched::partition(&topic.name, *partition));
        }
    }
    // One that cannot be added keeps out the others too.
    if missing {
        return for_each_partition(&asked.topics, |topic, partition| {
            match exists(topic, partition) {
                true => codes::OPERATION_NOT_ATTEMPTED,
                false => codes::UNKNOWN_TOPIC_OR_PARTITION,
            }
        });
    }
    let ProducerId(producer_id) = asked.producer_id;
    let caller = Caller {
        producer_id,
        epoch: asked.producer_epoch,
    };
    let id = &asked.transactional_id;
    let added = match asked.verify_only {
        true => return verify(asked, caller, context),
        false => shared.transactions.add(shared, id, caller, &touched),
    };
    let code = added.err().unwrap_or(codes::NONE);
    let code = code_for(context.version, PRODUCER_FENCED_KNOWN, code);
    for_each_partition(&asked.topics, |_, _| code)
}

fn verify(
    asked: &AddPartitionsToTxnTransaction,
    caller: Caller,
    context: &Context,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let transactions = &context.shared.transactions;
    for_each_partition(&asked.topics, |topic, partition| {
        let place = Touched::partition(topic, partition);
        let verified = transactions.verify(&asked.transactional_id, caller, &place);
        verified.err().unwrap_or(codes::NONE)
    })
}

fn for_each_partition(
    topics: &[AddPartitionsToTxnTopic],
    code: impl Fn(&str, i32) -> i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(code(&topic.name, *partition))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    results.collect()
}
