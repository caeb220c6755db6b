//! Asks the transaction coordinator what the machine wants to know, on a thread of its own, over a connection that is kept.
//!
//! Each question is asked once here; the machine decides what an answer means and whether to ask again.

use std::sync::mpsc::{Receiver, SyncSender};

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, InitProducerIdRequest,
    TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes, VersionRange};

use super::machine::{CoordinatorAnswer, CoordinatorRequest, Event, Identity, Protocol};
use super::runner::Signal;
use super::shared::{Shared, Target};
use super::types::Transactional;
use crate::client::{Client, CoordinatorKind, topic_name};
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::retry;

/// From version 3 on it can say who we were (KIP-360).
const INIT_PRODUCER_ID: VersionRange = VersionRange { min: 3, max: 5 };
/// Later versions are for brokers (KIP-890).
const ADD_PARTITIONS: VersionRange = VersionRange { min: 3, max: 3 };
/// Asking in version 5 ends the epoch too (KIP-890).
const END_TXN_OLD: VersionRange = VersionRange { min: 3, max: 4 };
const END_TXN_NEW: VersionRange = VersionRange { min: 5, max: 5 };

/// Of an answer that has no identity.
const NO_PRODUCER_ID: i64 = -1;

/// The coordinator knows of no such id: nobody used it for a week.
const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;

/// A question of the machine.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) request: CoordinatorRequest,
    /// Whether to look up who coordinates first.
    pub(super) find: bool,
    /// The partitions that the request names.
    pub(super) targets: Vec<Target>,
}

/// The thread: until the driver drops the other end of `questions`.
pub(super) fn run(
    client: &Client,
    transactional: &Transactional,
    questions: &Receiver<Ask>,
    driver: &SyncSender<Signal>,
    shared: &Shared,
) {
    let mut coordinator = Coordinator {
        client,
        id: transactional_id(transactional),
        timeout_ms: i32::try_from(transactional.timeout.as_millis()).unwrap_or(i32::MAX),
        connection: None,
        shared,
    };
    for ask in questions {
        let event = match coordinator.ask(&ask) {
            Ok(answer) => Event::CoordinatorAnswered(answer),
            Err(error) => {
                if let Some(connection) = coordinator.connection.take() {
                    client.note_silence(connection.address());
                }
                let (kind, why) = (error.kind(), error.to_string());
                if error.is_retriable() {
                    Event::CoordinatorLost(why)
                } else {
                    Event::Refused { kind, why }
                }
            }
        };
        if driver.send(Signal::Event(event)).is_err() {
            return;
        }
    }
}

struct Coordinator<'a> {
    client: &'a Client,
    id: TransactionalId,
    timeout_ms: i32,
    connection: Option<Connection>,
    shared: &'a Shared,
}

impl Coordinator<'_> {
    fn ask(&mut self, ask: &Ask) -> Result<CoordinatorAnswer, Error> {
        // One that fell silent for others is not waited for once more: there may be another coordinator by now.
        let client = self.client;
        let kept = self.connection.take();
        self.connection = kept.filter(|kept| !ask.find && !client.is_silent(kept.address()));
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let node = self
                    .client
                    .coordinator(CoordinatorKind::Transaction, &self.id)?;
                let connection = self.client.open(node)?;
                self.shared.note_features(connection.versions());
                self.connection.insert(connection)
            }
        };
        match &ask.request {
            CoordinatorRequest::InitProducerId(identity) => {
                let current = identity.unwrap_or(Identity {
                    producer_id: NO_PRODUCER_ID,
                    epoch: -1,
                });
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(Some(self.id.clone()))
                    .with_transaction_timeout_ms(self.timeout_ms)
                    .with_producer_id(current.producer_id.into())
                    .with_producer_epoch(current.epoch);
                let answer = call(connection, &request, INIT_PRODUCER_ID)?;
                let identity = (answer.producer_id.0, answer.producer_epoch);
                Ok(answer_of(answer.error_code, identity))
            }
            CoordinatorRequest::AddPartitions { identity, .. } => {
                let request = add_partitions(&self.id, *identity, &ask.targets);
                let answer = call(connection, &request, ADD_PARTITIONS)?;
                let codes = answer
                    .results_by_topic_v3_and_below
                    .iter()
                    .flat_map(|topic| &topic.results_by_partition)
                    .map(|partition| partition.partition_error_code);
                let code = worst(codes.chain([answer.error_code]));
                Ok(answer_of(code, (NO_PRODUCER_ID, -1)))
            }
            CoordinatorRequest::EndTxn {
                identity,
                commit,
                protocol,
            } => {
                let request = EndTxnRequest::default()
                    .with_transactional_id(self.id.clone())
                    .with_producer_id(identity.producer_id.into())
                    .with_producer_epoch(identity.epoch)
                    .with_committed(*commit);
                let versions = match protocol {
                    Protocol::Old => END_TXN_OLD,
                    Protocol::New => END_TXN_NEW,
                };
                let answer = call(connection, &request, versions)?;
                let identity = (answer.producer_id.0, answer.producer_epoch);
                Ok(answer_of(answer.error_code, identity))
            }
        }
    }
}

fn transactional_id(transactional: &Transactional) -> TransactionalId {
    TransactionalId(StrBytes::from_string(transactional.id.clone()))
}

fn call<R: Request>(
    connection: &mut Connection,
    request: &R,
    ours: VersionRange,
) -> Result<R::Response, Error> {
    let version = connection.versions().choose(R::KEY, ours)?;
    connection.call_version(request, version)
}

fn answer_of(code: i16, (producer_id, epoch): (i64, i16)) -> CoordinatorAnswer {
    let identity =
        (code == 0 && producer_id != NO_PRODUCER_ID).then_some(Identity { producer_id, epoch });
    CoordinatorAnswer { code, identity }
}

fn add_partitions(
    id: &TransactionalId,
    identity: Identity,
    targets: &[Target],
) -> AddPartitionsToTxnRequest {
    let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
    for target in targets {
        let known = topics
            .iter_mut()
            .find(|topic| *topic.name.0 == *target.topic);
        match known {
            Some(topic) => topic.partitions.push(target.partition),
            None => topics.push(
                AddPartitionsToTxnTopic::default()
                    .with_name(topic_name(&target.topic))
                    .with_partitions(vec![target.partition]),
            ),
        }
    }
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id.clone())
        .with_v3_and_below_producer_id(identity.producer_id.into())
        .with_v3_and_below_producer_epoch(identity.epoch)
        .with_v3_and_below_topics(topics)
}

/// The code that decides: one that cannot be waited out comes before one that can.
fn worst(codes: impl Iterator<Item = i16>) -> i16 {
    let rank = |code: &i16| match retry::coordinator(*code) {
        retry::CoordinatorVerdict::Done => 0,
        retry::CoordinatorVerdict::Again => 1,
        retry::CoordinatorVerdict::Abort => 2,
        retry::CoordinatorVerdict::Fenced => 3,
        retry::CoordinatorVerdict::Stop => 4,
    };
    codes.max_by_key(rank).unwrap_or(0)
}

/// Whether the transactional id still belongs to `identity`, while no transaction of it is open.
///
/// DescribeTransactions reads only. InitProducerId and EndTxn would tell as well; but InitProducerId ends whatever transaction the new owner has open,
/// for the coordinator compares epochs only where none is open, and a copy of an EndTxn that comes late may end a transaction of
/// our own (before KIP-890). A coordinator that does not know yet that it was replaced answers what was true before: then the next transaction finds out.
///
/// # Errors
/// [`ErrorKind::Fenced`] if it does not; the coordinator's refusal.
pub(super) fn prove_ownership(
    client: &Client,
    transactional: &Transactional,
    identity: Identity,
) -> Result<(), Error> {
    let request = DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![transactional_id(transactional)]);
    let described = client
        .coordinator(CoordinatorKind::Transaction, &transactional.id)
        .and_then(|node| client.call(node, &request));
    let described = match described {
        Ok(described) => described,
        // It cannot be asked now; a coordinator that does not offer the API answers that with "no common version".
        Err(error) if error.is_retriable() || error.kind() == ErrorKind::Protocol => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(state) = described.transaction_states.first() else {
        return Ok(());
    };
    let doing = format_args!("ask who owns the transactional id {}", transactional.id);
    match state.error_code {
        0 => {}
        TRANSACTIONAL_ID_NOT_FOUND => return Ok(()),
        code if retry::is_retriable(code) => return Ok(()),
        code => return Err(Error::kafka(doing, code, None)),
    }
    // Between the answer to EndTxn and the last marker the coordinator may still name the identity before.
    let settling = matches!(&*state.transaction_state, "PrepareCommit" | "PrepareAbort");
    let found = Identity {
        producer_id: state.producer_id.0,
        epoch: state.producer_epoch,
    };
    if settling || found == identity {
        return Ok(());
    }
    let message = format!(
        "{doing}: another instance (producer id {}, epoch {}; ours was {}, {})",
        found.producer_id, found.epoch, identity.producer_id, identity.epoch
    );
    Err(Error::new(ErrorKind::Fenced, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_code_that_cannot_be_waited_out_decides() {
        for (codes, expected) in [
            (vec![0, 0], 0),
            (vec![0, 51, 0], 51),
            (vec![55, 29, 55], 29),
            (vec![51, 90], 90),
        ] {
            assert_eq!(worst(codes.into_iter()), expected);
        }
    }

    #[test]
    fn partitions_are_named_by_topic() {
        let target = |topic: &str, partition| Target {
            topic: Arc::from(topic),
            topic_id: [0; 16],
            partition,
        };
        let identity = Identity {
            producer_id: 7,
            epoch: 3,
        };
        let id = transactional_id(&Transactional::new("job"));
        let targets = [target("a", 0), target("b", 5), target("a", 2)];
        let request = add_partitions(&id, identity, &targets);
        let named: Vec<(&str, &[i32])> = request
            .v3_and_below_topics
            .iter()
            .map(|topic| (&*topic.name.0, topic.partitions.as_slice()))
            .collect();
        assert_eq!(named, [("a", &[0, 2][..]), ("b", &[5][..])]);
    }
}
