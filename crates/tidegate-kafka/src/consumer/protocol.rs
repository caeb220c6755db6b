//! What members of a group tell each other through the coordinator: subscriptions and assignments of Kafka's consumer protocol.
//!
//! The coordinator passes these bytes on unread, so they come from other members, which may be anything: they are decoded here with every
//! count held against the bytes that are there. Versions 0 to 3 of the subscription are read, and later ones as if they were 3, as Java does
//! (fields are only ever added at the end); written is version 3. Source: ConsumerProtocolSubscription.json and
//! ConsumerProtocolAssignment.json of Apache Kafka.

use std::collections::BTreeMap;

use super::assignor::{Assignor, MemberSubscription, TopicPartition};

/// The version written.
const VERSION: i16 = 3;

/// The protocol type of consumer groups.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// Writes a subscription for one assignor.
pub(crate) fn encode_subscription(
    subscription: &MemberSubscription,
    assignor: Assignor,
) -> Vec<u8> {
    let mut topics = subscription.topics.clone();
    topics.sort();
    let mut output = VERSION.to_be_bytes().to_vec();
    put_count(&mut output, topics.len());
    for topic in &topics {
        put_string(&mut output, topic);
    }
    match assignor {
        Assignor::Range => output.extend_from_slice(&(-1_i32).to_be_bytes()),
        // Where Java kept the generation before the subscription had a field for it (version 2): leaders of that age read it here.
        Assignor::CooperativeSticky => {
            put_count(&mut output, 4);
            output.extend_from_slice(&subscription.generation.to_be_bytes());
        }
    }
    put_partitions(&mut output, &subscription.owned);
    output.extend_from_slice(&subscription.generation.to_be_bytes());
    // No rack.
    output.extend_from_slice(&(-1_i16).to_be_bytes());
    output
}

/// Reads a member's subscription; `None` if it is malformed.
pub(crate) fn decode_subscription(bytes: &[u8]) -> Option<MemberSubscription> {
    let mut input = Input(bytes);
    let version = input.i16()?;
    if version < 0 {
        return None;
    }
    let topics = (0..input.count(2)?)
        .map(|_| input.string())
        .collect::<Option<_>>()?;
    let user_data = input.nullable_bytes()?;
    let owned = if version >= 1 {
        input.partitions()?
    } else {
        Vec::new()
    };
    let generation = if version >= 2 {
        input.i32()?
    } else {
        user_data.and_then(generation_of).unwrap_or(-1)
    };
    Some(MemberSubscription {
        topics,
        owned,
        generation,
    })
}

/// The generation in the user data of cooperative-sticky, of members too old for the field: four bytes from Java; from librdkafka the
/// partitions come before it.
fn generation_of(user_data: &[u8]) -> Option<i32> {
    if let Ok(bytes) = user_data.try_into() {
        return Some(i32::from_be_bytes(bytes));
    }
    let mut input = Input(user_data);
    input.partitions()?;
    input.i32()
}

/// Writes what one member is to read.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Vec<u8> {
    let mut output = VERSION.to_be_bytes().to_vec();
    put_partitions(&mut output, partitions);
    output.extend_from_slice(&(-1_i32).to_be_bytes());
    output
}

/// Reads what this member is to read; `None` if it is malformed. No bytes at all, which a coordinator answers where the leader forgot a
/// member, mean nothing.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut input = Input(bytes);
    let version = input.i16()?;
    if version < 0 {
        return None;
    }
    input.partitions()
}

fn put_count(output: &mut Vec<u8>, count: usize) {
    let count = i32::try_from(count).expect("topics and partitions are numbered by 32 bits");
    output.extend_from_slice(&count.to_be_bytes());
}

fn put_string(output: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("a topic's name has at most 249 bytes");
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(text.as_bytes());
}

fn put_partitions(output: &mut Vec<u8>, partitions: &[TopicPartition]) {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        by_topic
            .entry(&partition.topic)
            .or_default()
            .push(partition.partition);
    }
    put_count(output, by_topic.len());
    for (topic, mut numbers) in by_topic {
        numbers.sort_unstable();
        put_string(output, topic);
        put_count(output, numbers.len());
        for number in numbers {
            output.extend_from_slice(&number.to_be_bytes());
        }
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// The number of elements that follow, each of which takes at least `least` bytes. A null array counts as an empty one.
    fn count(&mut self, least: usize) -> Option<usize> {
        match self.i32()? {
            -1 => Some(0),
            count => usize::try_from(count)
                .ok()
                .filter(|count| *count <= self.0.len() / least),
        }
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    /// Bytes, or null; the outer `None` means malformed.
    fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }

    fn partitions(&mut self) -> Option<Vec<TopicPartition>> {
        let mut partitions = Vec::new();
        for _ in 0..self.count(6)? {
            let topic = self.string()?;
            for _ in 0..self.count(4)? {
                partitions.push(TopicPartition::new(topic.as_str(), self.i32()?));
            }
        }
        Some(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Buf, Bytes, BytesMut};
    use kafka_protocol::messages::consumer_protocol_assignment as theirs_assigned;
    use kafka_protocol::messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName,
    };
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use proptest::prelude::*;

    fn sample() -> MemberSubscription {
        MemberSubscription {
            topics: vec!["orders".to_owned(), "events".to_owned()],
            owned: vec![
                TopicPartition::new("events", 3),
                TopicPartition::new("events", 1),
                TopicPartition::new("orders", 0),
            ],
            generation: 7,
        }
    }

    #[test]
    fn a_subscription_is_what_kafka_protocol_reads() {
        let mut encoded = Bytes::from(encode_subscription(&sample(), Assignor::CooperativeSticky));
        assert_eq!(encoded.get_i16(), 3);
        let read = ConsumerProtocolSubscription::decode(&mut encoded, 3).unwrap();
        assert_eq!(
            read.topics,
            [
                StrBytes::from_static_str("events"),
                StrBytes::from_static_str("orders")
            ]
        );
        assert_eq!(read.user_data.as_deref(), Some(&[0, 0, 0, 7][..]));
        assert_eq!(read.generation_id, 7);
        assert_eq!(read.rack_id, None);
        let owned: Vec<_> = read
            .owned_partitions
            .iter()
            .map(|found| (found.topic.0.to_string(), found.partitions.clone()))
            .collect();
        assert_eq!(
            owned,
            [
                ("events".to_owned(), vec![1, 3]),
                ("orders".to_owned(), vec![0])
            ]
        );
        assert!(encoded.is_empty());
    }

    #[test]
    fn every_version_of_a_subscription_is_read() {
        for version in 0..=3_i16 {
            let mut encoded = BytesMut::new();
            encoded.extend_from_slice(&version.to_be_bytes());
            let theirs = ConsumerProtocolSubscription::default()
                .with_topics(vec![StrBytes::from_static_str("t")])
                .with_user_data(Some(Bytes::from_static(&[0, 0, 0, 5])))
                .with_generation_id(5);
            theirs.encode(&mut encoded, version).unwrap();
            let read = decode_subscription(&encoded).unwrap();
            assert_eq!(
                (read.topics, read.generation),
                (vec!["t".to_owned()], 5),
                "version {version}"
            );
        }
        // A version of the future has more at its end.
        let mut later = encode_subscription(&sample(), Assignor::Range);
        later[1] = 9;
        later.extend_from_slice(&[1, 2, 3]);
        assert_eq!(decode_subscription(&later).unwrap().generation, 7);
    }

    #[test]
    fn an_assignment_goes_there_and_back() {
        let partitions = vec![
            TopicPartition::new("a", 0),
            TopicPartition::new("a", 2),
            TopicPartition::new("b", 1),
        ];
        let encoded = encode_assignment(&partitions);
        assert_eq!(decode_assignment(&encoded).unwrap(), partitions);
        let theirs =
            ConsumerProtocolAssignment::decode(&mut Bytes::from(encoded).slice(2..), 3).unwrap();
        let expected = vec![
            theirs_assigned::TopicPartition::default()
                .with_topic(TopicName(StrBytes::from_static_str("a")))
                .with_partitions(vec![0, 2]),
            theirs_assigned::TopicPartition::default()
                .with_topic(TopicName(StrBytes::from_static_str("b")))
                .with_partitions(vec![1]),
        ];
        assert_eq!(theirs.assigned_partitions, expected);
        assert_eq!(decode_assignment(&[]).unwrap(), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..60, spoiled: [u8; 4]) {
            decode_subscription(&bytes);
            decode_assignment(&bytes);
            let mut own = encode_subscription(&sample(), Assignor::CooperativeSticky);
            let at = at % (own.len() - 4);
            own[at..at + 4].copy_from_slice(&spoiled);
            decode_subscription(&own);
        }
    }
}
