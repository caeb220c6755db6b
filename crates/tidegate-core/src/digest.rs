//! Digests that can be resumed and merged: of the records of a partition, and of the bytes of the input.
//!
//! They find what was lost, doubled, swapped or changed by accident. They are not cryptographic: whoever wants to forge one can.
//!
//! # Digest of records
//! For the records of one partition in order, `D = D * M + H(record) mod 2^128`, from `D = 0`, with `M` = [`MULTIPLIER`] and
//!
//! ```text
//! H(record) = X(value) + K * X(key) + N * X(headers)        X = XXH3-128 with seed 0, as a number; K, N = KEY_FACTOR, HEADERS_FACTOR
//! headers   = for each header: length of its name, length of its value (32 bit little endian each), name, value
//! ```
//!
//! A record without a key, or without headers, has no such term; an empty key has one. Key and value are hashed apart because consecutive records
//! often share their key, which is then hashed once; a hash over a copy of both took half as long again (16 and 24 ns for 9 + 36 bytes).
//!
//! Two ranges that follow one another merge without their records: `D = D1 * M^n2 + D2`, where `n2` records are in the second.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::produce::Headers;

/// The factor of the digest of records: odd, so that no record ever falls out of the sum, and without visible structure (the fraction of the
/// golden ratio in 128 bits).
pub const MULTIPLIER: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;

/// The factor of a key's hash. Odd like [`MULTIPLIER`], and no power of it, so that a key cannot stand in for a neighbour's value (the fraction of the
/// square root of two).
pub const KEY_FACTOR: u128 = 0x6A09_E667_F3BC_C908_B2FB_1366_EA95_7D3F;

/// The factor of the headers' hash, for the same reason (the fraction of the square root of three).
pub const HEADERS_FACTOR: u128 = 0xBB67_AE85_84CA_A73B_2574_2D70_78B8_3B89;

/// A 128 bit hash; written as 32 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Hash128(pub u128);

impl fmt::Display for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash128 {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a digest has 32 hexadecimal digits");
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| "a digest has 32 hexadecimal digits")
    }
}

impl Serialize for Hash128 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash128 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The ordered digest of a range of records, with their count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsDigest {
    /// How many records are in it.
    pub records: u64,
    /// The digest; zero without records.
    pub value: Hash128,
}

impl RecordsDigest {
    /// The digest of no records.
    pub const EMPTY: Self = Self {
        records: 0,
        value: Hash128(0),
    };

    /// Adds the next record.
    #[inline]
    pub fn push(&mut self, hash: Hash128) {
        self.records += 1;
        self.value.0 = self.value.0.wrapping_mul(MULTIPLIER).wrapping_add(hash.0);
    }

    /// Adds a range that follows this one.
    pub fn append(&mut self, next: &Self) {
        self.value.0 = self
            .value
            .0
            .wrapping_mul(power(MULTIPLIER, next.records))
            .wrapping_add(next.value.0);
        self.records += next.records;
    }
}

/// `base` to the power of `exponent` mod 2^128, by squaring.
fn power(mut base: u128, mut exponent: u64) -> u128 {
    let mut result = 1u128;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    result
}

/// The part of a record's hash that comes from its key; the same for every record with that key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyTerm(u128);

impl KeyTerm {
    /// The term of `key`; nothing without a key.
    #[inline]
    #[must_use]
    pub fn of(key: Option<&[u8]>) -> Self {
        Self(key.map_or(0, |key| xxh3_128(key).wrapping_mul(KEY_FACTOR)))
    }
}

/// Hashes records one by one; keeps its scratch buffer, so that hashing allocates nothing.
#[derive(Debug, Default)]
pub struct RecordHasher {
    scratch: Vec<u8>,
}

impl RecordHasher {
    /// A hasher with an empty scratch buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The hash of one record, as the [module](self) defines it.
    #[inline]
    pub fn hash(&mut self, key: KeyTerm, value: &[u8], headers: Headers<'_>) -> Hash128 {
        let mut hash = xxh3_128(value).wrapping_add(key.0);
        if !headers.is_empty() {
            hash = hash.wrapping_add(self.headers_term(headers));
        }
        Hash128(hash)
    }

    fn headers_term(&mut self, headers: Headers<'_>) -> u128 {
        self.scratch.clear();
        for (name, value) in headers.iter() {
            self.scratch
                .extend_from_slice(&length(name.as_bytes()).to_le_bytes());
            self.scratch.extend_from_slice(&length(value).to_le_bytes());
            self.scratch.extend_from_slice(name.as_bytes());
            self.scratch.extend_from_slice(value);
        }
        xxh3_128(&self.scratch).wrapping_mul(HEADERS_FACTOR)
    }
}

/// A length as it stands in the hashed bytes. Kafka's own lengths have 31 bits, so it never saturates.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Length and XXH3-128 of the first bytes of the decompressed input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixDigest {
    /// How many bytes.
    pub bytes: u64,
    /// Their XXH3-128 with seed 0.
    pub hash: Hash128,
}

impl PrefixDigest {
    /// The digest of no bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            bytes: 0,
            hash: Hash128(xxh3_128(&[])),
        }
    }
}

impl Default for PrefixDigest {
    fn default() -> Self {
        Self::empty()
    }
}

/// Hashes the input as it is read.
#[derive(Clone)]
pub struct PrefixHasher {
    state: Box<Xxh3Default>,
    bytes: u64,
}

impl fmt::Debug for PrefixHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixHasher")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Default for PrefixHasher {
    fn default() -> Self {
        Self {
            state: Box::new(Xxh3Default::new()),
            bytes: 0,
        }
    }
}

impl PrefixHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes of the input.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes it has seen.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Length and hash of what it has seen.
    #[must_use]
    pub fn digest(&self) -> PrefixDigest {
        PrefixDigest {
            bytes: self.bytes,
            hash: Hash128(self.state.digest128()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type OwnedRecord = (Option<Vec<u8>>, Vec<u8>, Vec<(String, Vec<u8>)>);

    fn digest(records: &[OwnedRecord]) -> RecordsDigest {
        let mut hasher = RecordHasher::new();
        let mut digest = RecordsDigest::EMPTY;
        for (key, value, headers) in records {
            let headers: Vec<(&str, &[u8])> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()))
                .collect();
            let headers = Headers::list(&headers);
            digest.push(hasher.hash(KeyTerm::of(key.as_deref()), value, headers));
        }
        digest
    }

    fn record() -> impl Strategy<Value = OwnedRecord> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..12);
        (
            proptest::option::of(bytes()),
            bytes(),
            proptest::collection::vec(("[a-z]{0,4}", bytes()), 0..3),
        )
    }

    proptest! {
        #[test]
        fn ranges_merge_into_the_digest_of_the_whole(records in proptest::collection::vec(record(), 0..40), cuts in proptest::collection::vec(0usize..40, 0..5)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(records.len())).collect();
            cuts.sort_unstable();
            let mut merged = RecordsDigest::EMPTY;
            let mut from = 0;
            for cut in cuts.into_iter().chain([records.len()]) {
                merged.append(&digest(&records[from..cut]));
                from = cut;
            }
            prop_assert_eq!(merged, digest(&records));
        }

        #[test]
        fn merging_is_associative(a in proptest::collection::vec(record(), 0..9), b in proptest::collection::vec(record(), 0..9), c in proptest::collection::vec(record(), 0..9)) {
            let (a, b, c) = (digest(&a), digest(&b), digest(&c));
            let mut left = a;
            left.append(&b);
            left.append(&c);
            let mut right = b;
            right.append(&c);
            let mut whole = a;
            whole.append(&right);
            prop_assert_eq!(left, whole);
        }

        #[test]
        fn a_swap_a_loss_and_a_change_show(records in proptest::collection::vec(record(), 2..20), at in any::<prop::sample::Index>()) {
            let whole = digest(&records);
            let at = at.index(records.len() - 1);
            let mut swapped = records.clone();
            swapped.swap(at, at + 1);
            prop_assert_eq!(digest(&swapped) == whole, records[at] == records[at + 1]);
            let mut lost = records.clone();
            lost.remove(at);
            prop_assert_ne!(digest(&lost), whole);
            let mut changed = records.clone();
            changed[at].1.push(0);
            prop_assert_ne!(digest(&changed), whole);
        }

        #[test]
        fn digests_survive_their_text(value in any::<u128>()) {
            prop_assert_eq!(Hash128(value).to_string().parse(), Ok(Hash128(value)));
            let json = serde_json::to_string(&Hash128(value)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Hash128>(&json).unwrap(), Hash128(value));
        }
    }

    /// The boundaries between key, value and headers are part of the hash.
    #[test]
    fn fields_do_not_run_into_each_other() {
        let mut hasher = RecordHasher::new();
        type Record = (
            Option<&'static [u8]>,
            &'static [u8],
            &'static [(&'static str, &'static [u8])],
        );
        let variants: [Record; 8] = [
            (None, b"ab", &[]),
            (Some(b""), b"ab", &[]),
            (Some(b"a"), b"b", &[]),
            (Some(b"b"), b"a", &[]),
            (Some(b"ab"), b"", &[]),
            (None, b"a", &[("b", b"")]),
            (None, b"a", &[("", b"b")]),
            (None, b"a", &[("", b""), ("", b"")]),
        ];
        let hashes: std::collections::HashSet<u128> = variants
            .iter()
            .map(|(key, value, headers)| {
                let headers = Headers::list(headers);
                hasher.hash(KeyTerm::of(*key), value, headers).0
            })
            .collect();
        assert_eq!(hashes.len(), variants.len());
    }

    /// The definition is stored in receipts: it may not change unnoticed.
    #[test]
    fn the_definition_stands() {
        let digest = digest(&[
            (Some(b"k".to_vec()), b"v".to_vec(), vec![]),
            (None, b"w".to_vec(), vec![("h".into(), b"x".to_vec())]),
        ]);
        let first = xxh3_128(b"v").wrapping_add(xxh3_128(b"k").wrapping_mul(KEY_FACTOR));
        let second = xxh3_128(b"w")
            .wrapping_add(xxh3_128(b"\x01\0\0\0\x01\0\0\0hx").wrapping_mul(HEADERS_FACTOR));
        assert_eq!(
            digest,
            RecordsDigest {
                records: 2,
                value: Hash128(first.wrapping_mul(MULTIPLIER).wrapping_add(second))
            }
        );
        assert_eq!(digest.value.to_string().len(), 32);
    }
}
