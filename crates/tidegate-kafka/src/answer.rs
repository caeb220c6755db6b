//! Decoding answers without believing their lengths.
//!
//! `kafka-protocol` reserves room for as many elements as an array announces before it reads the first. In the flexible encoding (KIP-482),
//! which every version spoken here uses but for the very first exchange, every such count is an unsigned variable-length integer, and each
//! element takes at least one byte: a count beyond the bytes that are left is a lie. [`Checked`] sits below the decoder and refuses the
//! last byte of such an integer, before anything is reserved for it. Brokers are trusted with our data, but not everything that answers on a port is a broker.

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::buf::{ByteBuf, NotEnoughBytesError};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};

/// Counts up to this are always let through: they reserve little, and single bytes that are no counts must not be mistaken for them.
const HARMLESS: u64 = 1 << 14;

/// Decodes the answer to `R`, its header with the correlation id included.
pub(crate) fn decode<R: Request>(frame: Bytes, version: i16) -> Result<R::Response, String> {
    let mut frame = Checked::new(frame);
    ResponseHeader::decode(&mut frame, R::Response::header_version(version))
        .and_then(|_| R::Response::decode(&mut frame, version))
        .map_err(|error| error.to_string())
}

/// The most bytes before the last one of a variable-length integer of 32 bits.
const MOST_BEFORE_LAST: usize = 4;

/// Bytes that refuse to announce more than they hold.
#[derive(Debug)]
struct Checked {
    bytes: Bytes,
    /// The latest single bytes that said "more follows", the newest last. Where the integer began is not known here, so that every one of
    /// them may have been its first.
    unfinished: Vec<u8>,
}

impl Checked {
    fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            unfinished: Vec::with_capacity(MOST_BEFORE_LAST + 1),
        }
    }

    /// Whether an integer that ends with `byte` may be a count beyond what is left.
    fn lies(&self, byte: u8) -> bool {
        let ends = byte < 0x80 || self.unfinished.len() == MOST_BEFORE_LAST;
        let believable = HARMLESS.max(self.bytes.len() as u64 + 1);
        ends && (0..=self.unfinished.len()).any(|start| {
            let mut value = 0;
            for part in self.unfinished[start..].iter().chain([&byte]).rev() {
                value = value << 7 | u64::from(part & 0x7f);
            }
            value > believable
        })
    }
}

impl Buf for Checked {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.unfinished.clear();
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        if self.lies(byte) {
            return Err(TryGetError {
                requested: usize::MAX,
                available: self.bytes.len(),
            });
        }
        if byte < 0x80 {
            self.unfinished.clear();
        } else {
            if self.unfinished.len() == MOST_BEFORE_LAST {
                self.unfinished.remove(0);
            }
            self.unfinished.push(byte);
        }
        Ok(byte)
    }
}

impl ByteBuf for Checked {
    fn peek_bytes(&mut self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.unfinished.clear();
        self.bytes.split_to(size)
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        if self.bytes.len() < size {
            return Err(NotEnoughBytesError);
        }
        Ok(self.get_bytes(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
    use kafka_protocol::protocol::Encodable;
    use proptest::prelude::*;

    const VERSION: i16 = 12;

    fn frame(response: &MetadataResponse) -> BytesMut {
        let mut frame = BytesMut::new();
        ResponseHeader::default().encode(&mut frame, 1).unwrap();
        response.encode(&mut frame, VERSION).unwrap();
        frame
    }

    fn response(brokers: i32, partitions: i32) -> MetadataResponse {
        let brokers = (0..brokers)
            .map(|node| {
                MetadataResponseBroker::default()
                    .with_node_id(node.into())
                    .with_port(9092)
            })
            .collect();
        let partitions = (0..partitions)
            .map(|partition| {
                MetadataResponsePartition::default()
                    .with_partition_index(partition)
                    .with_replica_nodes(vec![1.into(), 2.into(), (-1).into()])
            })
            .collect();
        let topic = MetadataResponseTopic::default().with_partitions(partitions);
        MetadataResponse::default()
            .with_brokers(brokers)
            .with_topics(vec![topic])
    }

    #[test]
    fn a_true_answer_is_read() {
        for (brokers, partitions) in [(0, 0), (1, 1), (200, 300), (3, 40_000)] {
            let expected = response(brokers, partitions);
            let found = decode::<MetadataRequest>(frame(&expected).freeze(), VERSION).unwrap();
            assert_eq!(found.brokers, expected.brokers);
            assert_eq!(found.topics[0].partitions, expected.topics[0].partitions);
        }
    }

    #[test]
    fn a_count_that_lies_reserves_nothing() {
        let mut lying = frame(&response(0, 0));
        // Header 5 bytes, throttle 4; the next byte counts the brokers.
        assert_eq!(lying[9], 1);
        lying.truncate(9);
        lying.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        lying.extend_from_slice(&[0; 64]);
        let error = decode::<MetadataRequest>(lying.freeze(), VERSION).unwrap_err();
        assert!(!error.is_empty());
    }

    proptest! {
        /// Whatever a peer sends is refused or read, within memory and without a panic.
        #[test]
        fn any_bytes_end_in_an_answer_or_an_error(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..512),
            at in 0usize..512,
            spoiled in any::<[u8; 5]>(),
        ) {
            decode::<MetadataRequest>(Bytes::from(bytes.clone()), VERSION).ok();
            let mut true_answer = frame(&response(3, 4)).to_vec();
            let at = at % true_answer.len();
            let end = true_answer.len().min(at + 5);
            true_answer[at..end].copy_from_slice(&spoiled[..end - at]);
            decode::<MetadataRequest>(Bytes::from(true_answer), VERSION).ok();
            bytes.truncate(4);
            decode::<MetadataRequest>(Bytes::from(bytes), VERSION).ok();
        }
    }
}
