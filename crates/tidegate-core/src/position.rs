//! Where a load stands: the place in the input, and everything that must be known to go on from there.
//!
//! An attempt is always built from a [`LoadPosition`]. Today that is always [`LoadPosition::start`]; a load that resumes or replays hands in a
//! stored one, and nothing else changes.

use serde::{Deserialize, Serialize};

use crate::digest::{PrefixDigest, RecordsDigest};

pub use crate::read::Position;

/// What a load has in one partition of the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// The partition, from 0.
    pub partition: i32,
    /// Offset of the load's first record; `None` without records, and while no answer told it.
    pub first_offset: Option<i64>,
    /// Offset of the load's last record; `None` as above.
    pub last_offset: Option<i64>,
    /// Records delivered.
    pub records: u64,
    /// Rows in these records.
    pub rows: u64,
    /// Digest of these records, in order.
    pub digest: RecordsDigest,
}

/// State of the rejects file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectsPosition {
    /// Bytes written.
    pub length: u64,
    /// Rows rejected.
    pub rows: u64,
}

/// Everything a load needs to go on: where in the input, what is in the topic, what was rejected.
///
/// It is only ever taken where every record before it is settled, and never inside a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPosition {
    /// The start of the next row.
    pub input: Position,
    /// Length and digest of the input as far as it was read: at least up to `input.byte`, and at most one read buffer more.
    pub prefix: PrefixDigest,
    /// Records appended before; the partition of records without a key depends on it.
    pub records: u64,
    /// Lines without anything on them, skipped.
    pub blank_lines: u64,
    /// One entry per partition of the topic, in order; empty at the start.
    pub partitions: Vec<PartitionPosition>,
    /// State of the rejects file.
    pub rejects: RejectsPosition,
}

impl LoadPosition {
    /// The position of a load that has done nothing yet.
    #[must_use]
    pub fn start() -> Self {
        Self::default()
    }
}
