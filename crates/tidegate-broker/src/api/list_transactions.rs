//! ListTransactions (66): the transactional ids there are. (KIP-664, KIP-994)

use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::shared::now_ms;
use crate::transaction::{State, Transaction};

/// The states there are, by their names.
const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::PrepareCommit,
    State::PrepareAbort,
    State::CompleteCommit,
    State::CompleteAbort,
];

impl Api for ListTransactionsRequest {
    // Version 2 selects by a regular expression of Java's kind, which nothing here can judge.
    const SERVED: VersionRange = VersionRange { min: 0, max: 1 };

    async fn handle(self, context: &Context) -> ListTransactionsResponse {
        let now = now_ms();
        let is_known = |name: &str| STATES.iter().any(|state| state.name() == name);
        let unknown = self.state_filters.iter().filter(|name| !is_known(name));
        let unknown = unknown.cloned().collect();
        let found = context.shared.transactions.list().into_iter();
        let found = found.filter(|(_, transaction)| is_asked_for(&self, transaction, now));
        let states = found.map(|(id, transaction)| {
            TransactionState::default()
                .with_transactional_id(TransactionalId(text(id)))
                .with_producer_id(ProducerId(transaction.producer_id))
                .with_transaction_state(text(transaction.state.name()))
        });
        ListTransactionsResponse::default()
            .with_unknown_state_filters(unknown)
            .with_transaction_states(states.collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> ListTransactionsResponse {
        ListTransactionsResponse::default().with_error_code(code)
    }
}

/// Whether all filters of the request let the transaction through. A list that is empty lets all through.
fn is_asked_for(asked: &ListTransactionsRequest, transaction: &Transaction, now_ms: i64) -> bool {
    let name = transaction.state.name();
    let producer = ProducerId(transaction.producer_id);
    let for_ms = now_ms.saturating_sub(transaction.started_ms);
    let states = &asked.state_filters;
    let producers = &asked.producer_id_filters;
    (states.is_empty() || states.iter().any(|state| **state == *name))
        && (producers.is_empty() || producers.contains(&producer))
        && (asked.duration_filter < 0 || for_ms > asked.duration_filter)
}
