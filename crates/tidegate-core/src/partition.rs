//! Which partition a record goes to: the same one in every run, so that a replayed load and a verification agree with the first run.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Records without a key go to the next partition after so many of them.
const KEYLESS_STRIPE: u64 = 4096;

/// How a record's partition is chosen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Partitioner {
    /// With a key: `toPositive(murmur2(key)) % partitions`, as Kafka's Java producer does, so that records of one key written by either meet in
    /// one partition. Without: 4096 records each in turn, by the number of the record and never by where a batch happens to end.
    #[default]
    Murmur2,
    /// With a key: `crc32(key) % partitions`, as librdkafka's default (`consistent_random`) does. Without: as [`Murmur2`](Self::Murmur2).
    Crc32,
    /// All records go to this partition.
    Only(i32),
}

impl Partitioner {
    /// The partition, from 0, of the record with this key; `record_number` counts the records of the load from 0.
    ///
    /// # Panics
    /// When `partitions` is not positive.
    #[inline]
    #[must_use]
    pub fn partition(&self, key: Option<&[u8]>, record_number: u64, partitions: i32) -> i32 {
        assert!(
            partitions > 0,
            "a topic has at least one partition, not {partitions}"
        );
        match (self, key) {
            (Self::Murmur2, Some(key)) => to_positive(murmur2(key)) % partitions,
            (Self::Crc32, Some(key)) => {
                let partition = crc32fast::hash(key) % partitions.unsigned_abs();
                i32::try_from(partition).expect("a remainder is below its divisor, which is an i32")
            }
            (Self::Only(partition), _) => *partition,
            (Self::Murmur2 | Self::Crc32, None) => {
                let partition =
                    (record_number / KEYLESS_STRIPE) % u64::from(partitions.unsigned_abs());
                i32::try_from(partition).expect("a remainder is below its divisor, which is an i32")
            }
        }
    }
}

impl fmt::Display for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Murmur2 => f.write_str("murmur2"),
            Self::Crc32 => f.write_str("crc32"),
            Self::Only(partition) => write!(f, "only {partition}"),
        }
    }
}

impl FromStr for Partitioner {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "murmur2" => Ok(Self::Murmur2),
            "crc32" => Ok(Self::Crc32),
            _ => Err(Error::option(format!(
                "there is no partitioner `{name}`: known are murmur2 and crc32"
            ))),
        }
    }
}

/// Clears the sign bit, which is what Kafka's `Utils.toPositive` does: not the same as the absolute value.
fn to_positive(hash: i32) -> i32 {
    hash & 0x7fff_ffff
}

/// MurmurHash2 (Austin Appleby), 32 bits, with the seed of Kafka's Java client (`org.apache.kafka.common.utils.Utils.murmur2`).
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;

    let (words, rest) = data.as_chunks::<4>();
    // Java's array lengths are an int, so only the low half of a longer length could ever matter; keys are far shorter.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "Kafka limits a key to an i32 of bytes"
    )]
    let mut hash = SEED ^ data.len() as u32;
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^= hash >> 15;
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_loses_its_sign_bit_only() {
        assert_eq!(to_positive(-973_932_308), 1_173_551_340);
        let partition = Partitioner::Murmur2.partition(Some(b"21"), 0, 12);
        assert_eq!(partition, 1_173_551_340 % 12);
    }

    #[test]
    fn records_without_a_key_take_turns_by_number() {
        let partition = |number| Partitioner::Murmur2.partition(None, number, 3);
        assert_eq!(
            [
                partition(0),
                partition(4095),
                partition(4096),
                partition(12_287),
                partition(12_288)
            ],
            [0, 0, 1, 2, 0]
        );
        assert_eq!(Partitioner::Murmur2.partition(None, u64::MAX, 1), 0);
    }

    #[test]
    fn names_are_read_and_written() {
        assert_eq!(
            "murmur2".parse::<Partitioner>().unwrap().to_string(),
            "murmur2"
        );
        assert_eq!("crc32".parse::<Partitioner>().unwrap(), Partitioner::Crc32);
        assert!("random".parse::<Partitioner>().is_err());
    }

    /// The check value of CRC-32/ISO-HDLC, which librdkafka's `rd_crc32` is.
    #[test]
    fn crc32_is_that_of_librdkafka() {
        let partition =
            |key: &str, count| Partitioner::Crc32.partition(Some(key.as_bytes()), 0, count);
        assert_eq!(
            partition("123456789", i32::MAX),
            0xcbf4_3926_u32.wrapping_rem(0x7fff_ffff).cast_signed()
        );
        assert_eq!(partition("123456789", 10), 2);
        assert_eq!(Partitioner::Crc32.partition(None, 4_096, 3), 1);
        assert_eq!(Partitioner::Only(2).partition(Some(b"x"), 9_000, 3), 2);
    }
}
