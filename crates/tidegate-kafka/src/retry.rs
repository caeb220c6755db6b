//! What an error code of a broker means, and what may be done about it. The ONE place that decides it.
//!
//! Codes and their retriability: Apache Kafka, `clients/.../common/protocol/Errors.java`. What to do with them on Produce: the rules
//! beside each branch of [`produce`].

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
        // UNKNOWN_TOPIC_OR_PARTITION: metadata is stale, or a starting broker does not know its partitions yet. A topic that is
        // truly gone is found by the metadata refresh of the repair.
        | 3
        // LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH: the leader moved.
        | 5 | 6 | 74 | 75
        // REQUEST_TIMED_OUT, NETWORK_EXCEPTION: may or may not have been appended; the sequence finds out.
        | 7 | 13
        // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, CONCURRENT_TRANSACTIONS: transaction version 2
        // checks with the coordinator on the way; nothing was appended.
        | 14 | 15 | 16 | 51
        // NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND: the second one IS in the leader's log; the sequence keeps it single.
        | 19 | 20
        // KAFKA_STORAGE_ERROR: the disk of this leader failed; another will lead.
        | 56
        // THROTTLING_QUOTA_EXCEEDED: later.
        | 89
        // UNKNOWN_TOPIC_ID: as 3, for versions that name the topic by id.
        | 100 => Verdict::Repair,
        // OUT_OF_ORDER_SEQUENCE_NUMBER.
        45 => Verdict::OutOfOrder,
        // UNKNOWN_PRODUCER_ID, INVALID_PRODUCER_ID_MAPPING: the producer's state on the broker is gone.
        59 | 49 => Verdict::ProducerUnknown,
        // INVALID_PRODUCER_EPOCH, PRODUCER_FENCED.
        47 | 90 => Verdict::Fenced,
        // TRANSACTION_ABORTABLE (KIP-890).
        120 => Verdict::Abort,
        // Sizes, rights, formats, INCONSISTENT_TOPIC_ID (the topic was recreated) and everything unknown: the same bytes would fail again.
        _ => Verdict::Stop,
    }
}

/// Whether the same request may succeed later without anybody changing anything.
pub fn is_retriable(code: i16) -> bool {
    match code {
        // Metadata, leaders and coordinators move; brokers start, load and elect.
        3 | 5 | 6 | 14 | 15 | 16 | 72 | 73 | 74 | 75 | 78 | 100 | 103 => true,
        // The network or the load of the other side.
        2 | 7 | 13 | 19 | 20 | 51 | 56 | 89 => true,
        // REBALANCE_IN_PROGRESS: the group settles. OFFSET_NOT_AVAILABLE and UNSTABLE_OFFSET_COMMIT: soon known.
        27 | 88 => true,
        // NOT_CONTROLLER, FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, ELIGIBLE_LEADERS_NOT_AVAILABLE.
        41 | 70 | 71 | 83 => true,
        _ => false,
    }
}

/// Whether the coordinator has to be looked up again before the next try.
pub fn coordinator_moved(code: i16) -> bool {
    // COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR. 14 (load in progress) is the right coordinator, only early.
    matches!(code, 15 | 16)
}

/// What sort of failure a code is to the caller.
pub fn kind_of(code: i16) -> ErrorKind {
    match code {
        1 => ErrorKind::OffsetOutOfRange,
        3 | 100 => ErrorKind::TopicMissing,
        7 => ErrorKind::Timeout,
        10 | 18 => ErrorKind::TooLarge,
        17 | 36..=40 | 44 | 87 | 60 => ErrorKind::Topic,
        // Rights on topic, group, cluster, transactional id, delegation token.
        29 | 30 | 31 | 53 | 65 => ErrorKind::Authorization,
        33 | 34 | 58 => ErrorKind::Authentication,
        35 | 42 | 76 => ErrorKind::Protocol,
        22..=28 | 69 | 79 | 81 | 82 | 110..=113 => ErrorKind::Group,
        47 | 90 => ErrorKind::Fenced,
        5 | 6 | 8 | 13..=16 | 41 | 56 => ErrorKind::Unreachable,
        _ => ErrorKind::Delivery,
    }
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
            if produce(code) == Verdict::Repair {
                assert!(is_retriable(code), "{} ({code})", code_name(code));
            }
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
