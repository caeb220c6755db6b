//! What an error code of a broker means, and what may be done about it. The ONE place that decides it, for every API.
//!
//! - [`produce`]: what the producer does about a batch; its rules are told in [`crate::producer::machine`].
//! - [`coordinator`]: what a transactional producer does about an answer of its coordinator.
//! - [`heartbeat`]: what a group member of the new protocol (KIP-848) does about an answer of its coordinator.
//! - [`is_stale_epoch`], [`is_between_generations`]: whether a member's commit may succeed once it knows where its group stands.
//! - [`is_retriable`]: whether the same request may succeed later; asked by everything that repeats a request.
//! - [`coordinator_moved`]: whether to look for the coordinator of a group or a transactional id again before that.
//! - [`is_lack_of_brokers`]: whether a topic was refused only because too few brokers run.
//! - [`kind_of`]: what sort of failure it is to the caller, once nobody tries again.
//!
//! Codes and their retriability: Apache Kafka, `org.apache.kafka.common.protocol.Errors`. Where we differ, the branch says why.

use kafka_protocol::error::ResponseError;

use crate::error::ErrorKind;

/// What the producer does about the error code of a Produce answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The batch is in the log.
    Appended,
    /// The batch is in the log, but the answer does not say where.
    AppendedSomewhere,
    /// Nothing is lost: drop the connection, refresh the metadata and send the whole window again, in order.
    Repair,
    /// Not now: nothing was appended, and nothing is wrong with the connection.
    Later,
    /// A batch arrived out of order. Behind a failed batch that is only its consequence; on the head it is a possible loss.
    OutOfOrder,
    /// The broker does not know this producer any more.
    ProducerUnknown,
    /// Another producer holds our identity, or our transaction timed out.
    Fenced,
    /// Our transaction is doomed: abort it and replay from the last committed position.
    Abort,
    /// Trying again would give the same answer.
    Stop,
}

/// Judges the error code of a Produce answer.
pub fn produce(code: i16) -> Verdict {
    match code {
        0 => Verdict::Appended,
        // DUPLICATE_SEQUENCE_NUMBER: an earlier copy of this very batch was appended, too long ago for the broker to know where.
        46 => Verdict::AppendedSomewhere,
        // CORRUPT_MESSAGE: the bytes were damaged on their way; the sum was right when they left.
        2
        // UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID: metadata is stale, or a starting broker does not know
        // its partitions yet. A topic that is truly gone, or another one under its name, is found by the metadata refresh of the repair.
        | 3 | 100 | 103
        // LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH: the leader moved.
        | 5 | 6 | 74 | 75
        // REQUEST_TIMED_OUT, NETWORK_EXCEPTION: may or may not have been appended; the sequence finds out.
        | 7 | 13
        // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR: the leader asks the coordinator whether the
        // partition belongs to the transaction (KIP-890); nothing was appended.
        | 14 | 15 | 16
        // NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND: the second one IS in the leader's log; the sequence keeps it single.
        | 19 | 20
        // KAFKA_STORAGE_ERROR: the disk of this leader failed; another will lead.
        | 56
        // THROTTLING_QUOTA_EXCEEDED: later.
        | 89 => Verdict::Repair,
        // CONCURRENT_TRANSACTIONS: EndTxn is answered before the markers are written, so the first batch of the next transaction may come
        // too early (KIP-890). It happens in every healthy load, so it must not cost a connection.
        51 => Verdict::Later,
        // OUT_OF_ORDER_SEQUENCE_NUMBER. Kafka's own client goes on under a new epoch; that would pass over what was lost.
        45 => Verdict::OutOfOrder,
        // UNKNOWN_PRODUCER_ID, INVALID_PRODUCER_ID_MAPPING: the producer's state on the broker is gone.
        59 | 49 => Verdict::ProducerUnknown,
        // INVALID_PRODUCER_EPOCH, PRODUCER_FENCED.
        47 | 90 => Verdict::Fenced,
        // TRANSACTION_ABORTABLE (KIP-890), INVALID_TXN_STATE: the transaction is not open any more, or never got this partition.
        120 | 48 => Verdict::Abort,
        // Sizes, rights, formats and everything unknown: the same bytes would fail again. UNKNOWN_SERVER_ERROR (-1) too: nothing says
        // that the batch was not appended, but nothing says that a fault which the broker itself does not expect will pass.
        _ => Verdict::Stop,
    }
}

/// What a transactional producer does about an answer of its coordinator: to InitProducerId, AddPartitionsToTxn and EndTxn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorVerdict {
    /// Done.
    Done,
    /// Ask again, word for word; [`coordinator_moved`] says whom.
    Again,
    /// The transaction cannot be committed any more, whoever is to blame: abort it and replay from the last committed position.
    Abort,
    /// The epoch in the request is not the current one: another instance took over, or the coordinator rolled the transaction back
    /// because it took too long. Which of the two, the answer to EndTxn(abort) tells (KIP-588, KIP-890).
    Fenced,
    /// Trying again would give the same answer.
    Stop,
}

/// Judges an answer of a transaction coordinator (Apache Kafka, `TransactionCoordinator` and `TransactionManager`).
pub fn coordinator(code: i16) -> CoordinatorVerdict {
    match code {
        0 => CoordinatorVerdict::Done,
        // INVALID_PRODUCER_EPOCH, PRODUCER_FENCED.
        47 | 90 => CoordinatorVerdict::Fenced,
        // INVALID_TXN_STATE: the opposite was decided, or nothing is open: never a success (KIP-98). INVALID_PRODUCER_ID_MAPPING,
        // UNKNOWN_PRODUCER_ID: the coordinator knows another producer id. TRANSACTION_ABORTABLE.
        48 | 49 | 59 | 120 => CoordinatorVerdict::Abort,
        // OPERATION_NOT_ATTEMPTED: only because another partition of the request was refused; that one's code comes with it.
        55 => CoordinatorVerdict::Again,
        code if is_retriable(code) => CoordinatorVerdict::Again,
        // Rights, settings and everything unknown.
        _ => CoordinatorVerdict::Stop,
    }
}

/// What a member of the new group protocol (KIP-848) does about an answer of its coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatVerdict {
    /// Done.
    Done,
    /// The group does not count us in, or not any more: whatever was held is lost, and the way back is to join.
    JoinAnew,
    /// Ask again, telling everything; [`coordinator_moved`] says whom.
    Again,
    /// Trying again would give the same answer.
    Stop,
}

/// Judges an answer to ConsumerGroupHeartbeat (Apache Kafka, `AbstractHeartbeatRequestManager`).
pub fn heartbeat(code: i16) -> HeartbeatVerdict {
    match code {
        0 => HeartbeatVerdict::Done,
        // FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID. GROUP_ID_NOT_FOUND: the last member expired, and the group was deleted; Kafka's own client
        // ends there, but nothing speaks against joining what does not exist. (To a member that joins it means another thing, see there.)
        110 | 25 | 69 => HeartbeatVerdict::JoinAnew,
        code if is_retriable(code) => HeartbeatVerdict::Again,
        // Rights, INVALID_REQUEST, GROUP_MAX_SIZE_REACHED, UNRELEASED_INSTANCE_ID, UNSUPPORTED_ASSIGNOR, UNSUPPORTED_VERSION, a group of
        // another kind and everything unknown.
        _ => HeartbeatVerdict::Stop,
    }
}

/// Whether a commit was refused only because the member's epoch has moved on: a heartbeat brings the current one.
pub fn is_stale_epoch(code: i16) -> bool {
    // STALE_MEMBER_EPOCH. ILLEGAL_GENERATION is how the same is said by versions before 9 of the request.
    matches!(code, 113 | 22)
}

/// Whether a refusal means that the group of the classic protocol is, or was, rebalancing.
pub fn is_between_generations(code: i16) -> bool {
    // ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS.
    matches!(code, 22 | 25 | 27)
}

/// Whether the same request may succeed later without anybody changing anything.
pub fn is_retriable(code: i16) -> bool {
    match code {
        // UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID: metadata spreads, and brokers start. Whoever asks for a topic
        // that may really be missing gives this a deadline.
        3 | 100 | 103 => true,
        // LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, LISTENER_NOT_FOUND, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
        // ELIGIBLE_LEADERS_NOT_AVAILABLE, PREFERRED_LEADER_NOT_AVAILABLE: leadership moves.
        5 | 6 | 72 | 74 | 75 | 80 | 83 => true,
        // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR: coordinators load and move.
        14..=16 => true,
        // NOT_CONTROLLER: the controller moved.
        41 => true,
        // CORRUPT_MESSAGE: damaged on its way.
        2 => true,
        // REQUEST_TIMED_OUT, NETWORK_EXCEPTION: the other side, or what is between, was slow or broke.
        7 | 13 => true,
        // REPLICA_NOT_AVAILABLE, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND, KAFKA_STORAGE_ERROR: a broker is down or full.
        9 | 19 | 20 | 56 => true,
        // CONCURRENT_TRANSACTIONS: the last transaction of this id is being completed.
        51 => true,
        // REBALANCE_IN_PROGRESS: the group settles. Not retriable to Kafka, whose members must join again; ours do so by their own
        // rules before they ask this, and who only looks at a group may look again.
        27 => true,
        // FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR: a new session, and on.
        70 | 71 | 106 => true,
        // OFFSET_NOT_AVAILABLE, UNSTABLE_OFFSET_COMMIT: known soon.
        78 | 88 => true,
        // THROTTLING_QUOTA_EXCEEDED: asked for later.
        89 => true,
        _ => false,
    }
}

/// Whether the coordinator has to be looked up again before the next try.
pub fn coordinator_moved(code: i16) -> bool {
    // COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR. COORDINATOR_LOAD_IN_PROGRESS (14) is the right coordinator, only early.
    matches!(code, 15 | 16)
}

/// Whether fewer brokers run than there are to be copies of a topic: that may pass, but nobody knows when.
pub fn is_lack_of_brokers(code: i16) -> bool {
    // INVALID_REPLICATION_FACTOR: also said of a number below 1, which nobody here asks for.
    code == 38
}

/// What sort of failure a code is to the caller.
pub fn kind_of(code: i16) -> ErrorKind {
    match code {
        // OFFSET_OUT_OF_RANGE.
        1 => ErrorKind::OffsetOutOfRange,
        // UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID.
        3 | 100 | 103 => ErrorKind::TopicMissing,
        // REQUEST_TIMED_OUT.
        7 => ErrorKind::Timeout,
        // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE.
        10 | 18 => ErrorKind::TooLarge,
        // INVALID_TOPIC_EXCEPTION, TOPIC_ALREADY_EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_REPLICA_ASSIGNMENT,
        // INVALID_CONFIG, POLICY_VIOLATION, REASSIGNMENT_IN_PROGRESS.
        17 | 36..=40 | 44 | 60 => ErrorKind::Topic,
        // Rights on topic, group, cluster, transactional id, delegation token.
        29 | 30 | 31 | 53 | 65 => ErrorKind::Authorization,
        // UNSUPPORTED_SASL_MECHANISM, ILLEGAL_SASL_STATE, SASL_AUTHENTICATION_FAILED.
        33 | 34 | 58 => ErrorKind::Authentication,
        // UNSUPPORTED_VERSION, INVALID_REQUEST, UNSUPPORTED_COMPRESSION_TYPE.
        35 | 42 | 76 => ErrorKind::Protocol,
        // INVALID_REQUIRED_ACKS, INVALID_TRANSACTION_TIMEOUT.
        21 | 50 => ErrorKind::Configuration,
        // Generations, members, sessions and protocols of groups; NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND, MEMBER_ID_REQUIRED,
        // GROUP_MAX_SIZE_REACHED, FENCED_INSTANCE_ID, and those of KIP-848.
        22..=28 | 68 | 69 | 79 | 81 | 82 | 110..=113 => ErrorKind::Group,
        // INVALID_PRODUCER_EPOCH, PRODUCER_FENCED.
        47 | 90 => ErrorKind::Fenced,
        // No leader, coordinator, controller or replica at the moment, or a broken disk: what a cluster in trouble says.
        5 | 6 | 8 | 9 | 13..=16 | 19 | 20 | 41 | 56 | 72 | 74 | 75 | 80 | 83 => {
            ErrorKind::Unreachable
        }
        // OFFSET_NOT_AVAILABLE of a leader that is new, THROTTLING_QUOTA_EXCEEDED and the like: what would pass, and has not in time.
        _ if is_retriable(code) => ErrorKind::Unreachable,
        // INVALID_RECORD, INVALID_TIMESTAMP, sequences, transactions and everything unknown.
        _ => ErrorKind::Delivery,
    }
}

/// A code by name and number, and which right is missing where it is about rights.
pub fn describe(code: i16) -> String {
    let lacking = match code {
        29 => {
            ": a right on the topic is missing: WRITE to publish, READ to read, CREATE to create it"
        }
        30 => {
            ": a right on the group is missing: READ to join it and to commit, DESCRIBE to see how it stands"
        }
        31 => {
            ": a right on the cluster is missing: CREATE to create topics, or WRITE on any topic to publish"
        }
        53 => ": the right to WRITE with the transactional id is missing",
        _ => "",
    };
    format!("{} ({code}){lacking}", code_name(code))
}

/// The name of a code as Kafka's documentation writes it.
pub fn code_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "NONE".to_owned(),
        Some(ResponseError::Unknown(_)) => "UNKNOWN_ERROR_CODE".to_owned(),
        Some(error) => shouting_snake_case(&format!("{error:?}")),
    }
}

fn shouting_snake_case(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 8);
    for character in camel.chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_documentation() {
        assert_eq!(code_name(0), "NONE");
        assert_eq!(code_name(45), "OUT_OF_ORDER_SEQUENCE_NUMBER");
        assert_eq!(code_name(3), "UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(code_name(9999), "UNKNOWN_ERROR_CODE");
    }

    #[test]
    fn what_repairs_a_window_is_retriable() {
        for code in 1..200 {
            if matches!(produce(code), Verdict::Repair | Verdict::Later) {
                assert!(is_retriable(code), "{} ({code})", code_name(code));
            }
        }
    }

    /// 51 became retriable to Kafka later than the table of the protocol crate. 84 is a matter of elections that we do not ask for; from 122
    /// on it is about share groups, which we do not use. 27 is told beside its branch.
    #[test]
    fn retriable_is_what_kafka_calls_so_but_for_a_few() {
        let of_kafka =
            |code| ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable());
        let differing: Vec<i16> = (-1..200)
            .filter(|code| is_retriable(*code) != of_kafka(*code))
            .collect();
        assert_eq!(differing, [27, 51, 84, 122, 123, 133]);
    }

    /// Nobody has refused a record where the cluster was only not ready in time.
    #[test]
    fn what_may_pass_is_no_failed_delivery() {
        for code in (-1..200).filter(|code| is_retriable(*code)) {
            let kind = kind_of(code);
            assert_ne!(kind, ErrorKind::Delivery, "{} ({code})", code_name(code));
        }
        assert_eq!(kind_of(78), ErrorKind::Unreachable);
    }

    #[test]
    fn no_refusal_of_a_coordinator_is_taken_for_success() {
        let done: Vec<i16> = (-1..200)
            .filter(|code| coordinator(*code) == CoordinatorVerdict::Done)
            .collect();
        assert_eq!(done, [0]);
        for code in [14, 15, 16, 51] {
            assert_eq!(coordinator(code), CoordinatorVerdict::Again, "{code}");
        }
        for code in [-1, 29, 50, 53, 1234] {
            assert_eq!(coordinator(code), CoordinatorVerdict::Stop, "{code}");
        }
    }

    #[test]
    fn a_member_joins_anew_only_where_the_group_does_not_count_it_in() {
        let of = |verdict| -> Vec<i16> {
            let codes = -1..200;
            codes.filter(|code| heartbeat(*code) == verdict).collect()
        };
        assert_eq!(of(HeartbeatVerdict::Done), [0]);
        assert_eq!(of(HeartbeatVerdict::JoinAnew), [25, 69, 110]);
        for code in [14, 15, 16] {
            assert_eq!(heartbeat(code), HeartbeatVerdict::Again, "{code}");
        }
        // What is said to a commit does not come in answer to a heartbeat.
        for code in [-1, 23, 30, 35, 42, 81, 111, 112, 113] {
            assert_eq!(heartbeat(code), HeartbeatVerdict::Stop, "{code}");
        }
    }

    #[test]
    fn rights_sizes_and_unknown_codes_stop() {
        for code in [-1, 10, 17, 18, 29, 31, 53, 87, 1234] {
            assert_eq!(produce(code), Verdict::Stop, "{code}");
            assert!(!is_retriable(code), "{code}");
        }
    }
}
