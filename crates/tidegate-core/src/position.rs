//! Where a load stands: the place in the input, and everything that must be known to go on from there.
//!
//! An attempt is always built from a [`LoadPosition`]: [`LoadPosition::start`], or a stored one where a load resumes or replays; nothing else
//! changes.
//!
//! An input may have grown when a load goes on behind its end. Some of what was decided there was decided because nothing followed: that a row had
//! ended, that a group was whole, that a quote was never closed. [`InputEnd`] keeps these, so that growth which would have made it otherwise is
//! refused, and everything else comes to what one load of the whole would have.

use serde::{Deserialize, Serialize};

use crate::digest::{Hash128, PrefixDigest, RecordsDigest};

pub use crate::read::{Position, ReadCounts};

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

/// State of the rejected rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectsPosition {
    /// Bytes of the rejects file.
    pub length: u64,
    /// Rows rejected.
    pub rows: u64,
    /// Rows that stand in the topic for rejects, counted from the start of the load. It may be ahead of `rows`: those behind the position are given
    /// again by whoever goes on there, in the same order, and are not sent again.
    #[serde(default)]
    pub sent: u64,
}

/// An input that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedInput {
    /// Its length and digest.
    #[serde(flatten)]
    pub digest: PrefixDigest,
    /// Rows in it.
    pub rows: u64,
}

/// Everything a load needs to go on: where in the input, what is in the topic, what was rejected.
///
/// It is only ever taken where every record before it is settled, and never inside a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPosition {
    /// The inputs that were read to their ends and have others behind them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finished: Vec<FinishedInput>,
    /// The start of the next row, in the input behind these. Only its number counts the rows of all inputs.
    pub input: Position,
    /// Length and digest of that input up to `input.byte`.
    pub prefix: PrefixDigest,
    /// Records appended before; the partition of records without a key depends on it.
    pub records: u64,
    /// What was passed over or evened out before.
    #[serde(flatten)]
    pub read_counts: ReadCounts,
    /// One entry per partition of the topic, in order; empty at the start.
    pub partitions: Vec<PartitionPosition>,
    /// State of the rejected rows.
    pub rejects: RejectsPosition,
    /// What was decided because the input ended here; nothing where it was read further.
    #[serde(default, skip_serializing_if = "InputEnd::is_nothing")]
    pub end: InputEnd,
}

/// What a load decided because its input ended, for a later one that goes on there and may find more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputEnd {
    /// How the last row ended.
    pub line_end: LineEnd,
    /// The first row whose quote was still open.
    pub open_quote: Option<OpenQuote>,
    /// The last group, where rows are grouped.
    pub group: Option<LastGroup>,
    /// Bad rows behind that group, which may belong to the next one.
    pub stray: Stray,
    /// Whether the last record before the position was marked as the last of its input.
    pub is_marked: bool,
    /// Whether something stands behind the position that was left for later: an unterminated row, or a group that may go on.
    pub is_held: bool,
}

impl InputEnd {
    /// Whether nothing needs to be known.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What stands behind a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineEnd {
    /// A line end.
    #[default]
    Whole,
    /// A carriage return, and nothing more yet: a line feed would belong to it.
    CarriageReturn,
    /// Nothing: more bytes may belong to the row.
    Missing,
}

/// A row whose quote was not closed when the input ended; so its lines were read one by one, as rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQuote {
    /// Where the row starts.
    pub row: Position,
    /// How long the input was then, in bytes. Any more of it may close the quote.
    pub length: u64,
}

/// The group that the end of the input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGroup {
    /// Digest of its group-by cells: the cells themselves may be too large for a position. XXH3-128 over each cell's length (64 bit little endian)
    /// and text.
    pub cells: Hash128,
    /// Whether it became a record; otherwise its rows were rejected.
    pub is_published: bool,
}

/// What is known of bad rows that belong to no group yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stray {
    /// There are none.
    #[default]
    None,
    /// The last of them has the group-by cells of this digest, made as [`LastGroup::cells`].
    Of(Hash128),
    /// For at least one they cannot be read.
    Unknown,
}

impl LoadPosition {
    /// The position of a load that has done nothing yet.
    #[must_use]
    pub fn start() -> Self {
        Self::default()
    }

    /// Offset of the load's last record in a partition, from 0; `None` as [`PartitionPosition::last_offset`].
    #[must_use]
    pub fn last_offset(&self, partition: i32) -> Option<i64> {
        let index = usize::try_from(partition).ok()?;
        self.partitions.get(index)?.last_offset
    }

    /// Bytes of all inputs before it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let finished = self.finished.iter().map(|input| input.digest.bytes);
        finished.sum::<u64>() + self.input.byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_was_written_before_comments_were_counted_is_readable() {
        let position = LoadPosition {
            read_counts: ReadCounts {
                blank_lines: 3,
                comment_lines: 2,
                evened_rows: 1,
            },
            ..LoadPosition::start()
        };
        let mut json = serde_json::to_value(&position).unwrap();
        assert_eq!(
            serde_json::from_value::<LoadPosition>(json.clone()).unwrap(),
            position
        );
        let fields = json.as_object_mut().unwrap();
        fields.remove("comment_lines").unwrap();
        fields.remove("evened_rows").unwrap();
        let read: LoadPosition = serde_json::from_value(json).unwrap();
        let expected = ReadCounts {
            blank_lines: 3,
            ..ReadCounts::default()
        };
        assert_eq!(read.read_counts, expected);
    }
}
