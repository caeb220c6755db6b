//! DescribeTransactions (65): where transactional ids stand. (KIP-664)

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::codes;
use crate::transaction::Transaction;

impl Api for DescribeTransactionsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 0 };

    async fn handle(self, context: &Context) -> DescribeTransactionsResponse {
        let transactions = &context.shared.transactions;
        let states = self.transactional_ids.iter().map(|id| {
            if id.is_empty() {
                return refused(id, codes::INVALID_REQUEST);
            }
            match transactions.describe(id) {
                Some(transaction) => describe(id, &transaction),
                None => refused(id, codes::TRANSACTIONAL_ID_NOT_FOUND),
            }
        });
        DescribeTransactionsResponse::default().with_transaction_states(states.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> DescribeTransactionsResponse {
        let states = self.transactional_ids.iter();
        let states = states.map(|id| refused(id, code)).collect();
        DescribeTransactionsResponse::default().with_transaction_states(states)
    }

    fn transactional_id(&self) -> Option<String> {
        self.transactional_ids.first().map(|id| id.to_string())
    }
}

fn refused(id: &TransactionalId, code: i16) -> TransactionState {
    TransactionState::default()
        .with_transactional_id(id.clone())
        .with_error_code(code)
}

fn describe(id: &TransactionalId, transaction: &Transaction) -> TransactionState {
    let partitions = transaction.touched.partitions.iter();
    let topics = partitions.map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(TopicName(text(topic.clone())))
            .with_partitions(partitions.iter().copied().collect())
    });
    TransactionState::default()
        .with_transactional_id(id.clone())
        .with_transaction_state(text(transaction.state.name()))
        .with_transaction_timeout_ms(transaction.timeout_ms)
        .with_transaction_start_time_ms(transaction.started_ms)
        .with_producer_id(ProducerId(transaction.producer_id))
        .with_producer_epoch(transaction.epoch)
        .with_topics(topics.collect())
}
