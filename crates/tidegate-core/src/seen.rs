//! Groups that come again: consecutive rows make a group, so an input that is not sorted by the group-by columns has several records where one was
//! meant.
//!
//! The groups that have begun are remembered by their digests, up to [`MAX_SEEN_GROUPS`]; those behind are not looked for any more, and whoever asks is
//! told so.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io::Read;

use xxhash_rust::xxh3::xxh3_128;

use crate::digest::Hash128;
use crate::error::ErrorPosition;
use crate::limits::MAX_SEEN_GROUPS;
use crate::read::{ReadRow, Row, RowReader};
use crate::{Error, ErrorKind, Result};

/// Groups that came again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReturnedGroups {
    /// How often one did.
    pub count: u64,
    /// The first one.
    pub first: Option<ReturnedGroup>,
    /// Whether there were more groups than are remembered, so that some that came again may not have been noticed.
    pub has_stopped: bool,
}

/// A group that came again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnedGroup {
    /// Its group-by columns with their values, for people.
    pub group: String,
    /// The row it began with for the first time.
    pub first_row: u64,
    /// The row it began with again.
    pub row: u64,
}

/// The groups that have begun.
#[derive(Debug, Default)]
pub(crate) struct SeenGroups {
    /// The row that each began with, by the digest of its cells.
    rows: HashMap<Key, u64, BuildHasherDefault<Whole>>,
    /// All groups up to this row are known: a load that replays comes to them again.
    last_row: u64,
    returned: ReturnedGroups,
    scratch: Vec<u8>,
}

/// A digest in a form that takes no more room than it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key([u64; 2]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// The hash of what is a hash already.
#[derive(Debug, Default)]
struct Whole(u64);

impl Hasher for Whole {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl From<&Hash128> for Key {
    fn from(hash: &Hash128) -> Self {
        let [low, high] = [hash.0, hash.0 >> 64];
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        Self([low as u64, high as u64])
    }
}

impl SeenGroups {
    /// Takes the group that begins with a row. `name` tells it for people.
    ///
    /// # Errors
    /// [`ErrorKind::UnsortedGroups`] when it has begun before, if that `is_error`.
    pub(crate) fn begin<'a>(
        &mut self,
        cells: impl Iterator<Item = &'a [u8]>,
        row: &Row<'_>,
        is_error: bool,
        name: impl FnOnce() -> String,
    ) -> Result<()> {
        let number = row.number();
        if number <= self.last_row {
            return Ok(());
        }
        let cells = digest_of(cells, &mut self.scratch);
        let Some(first_row) = self.insert(&cells, number) else {
            self.last_row = number;
            return Ok(());
        };
        let group = name();
        if is_error {
            let message = format!(
                "the group {group} comes again: it had ended, and began with row {first_row}; --strict-groups wants the rows of a group to stand together"
            );
            let position = ErrorPosition {
                byte: row.start().byte,
                line: row.line(),
                row: number,
                column: None,
            };
            return Err(Error::new(ErrorKind::UnsortedGroups, message).at(position));
        }
        self.last_row = number;
        self.returned.count += 1;
        self.returned.first.get_or_insert(ReturnedGroup {
            group,
            first_row,
            row: number,
        });
        Ok(())
    }

    /// Enters a group, and gives the row it began with before, if it did.
    fn insert(&mut self, cells: &Hash128, row: u64) -> Option<u64> {
        let key = Key::from(cells);
        if let Some(first) = self.rows.get(&key) {
            return Some(*first);
        }
        if self.rows.len() < MAX_SEEN_GROUPS {
            self.rows.insert(key, row);
        } else {
            self.returned.has_stopped = true;
        }
        None
    }

    /// Takes the groups of what an earlier run has loaded of an input, up to `end` in bytes. `told` is given the bytes read.
    pub(crate) fn learn<R: Read>(
        &mut self,
        mut reader: RowReader<R>,
        (columns, rows_before): (&[usize], u64),
        end: u64,
        mut told: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut cells = None;
        let mut told_up_to = 0;
        loop {
            let row = match reader.next()? {
                ReadRow::Row(row) => row,
                ReadRow::Bad(_) | ReadRow::Idle => continue,
                ReadRow::End => return Ok(()),
            };
            if row.start().byte >= end {
                return Ok(());
            }
            if row.end().byte - told_up_to >= LEARNT_BYTES {
                told(row.end().byte - told_up_to)?;
                told_up_to = row.end().byte;
            }
            let texts = columns.iter().map(|column| row.field(*column));
            let digest = digest_of(texts, &mut self.scratch);
            let number = rows_before + row.number();
            if cells != Some(digest) {
                cells = Some(digest);
                self.insert(&digest, number);
            }
            self.last_row = number;
        }
    }

    pub(crate) fn into_returned(self) -> ReturnedGroups {
        self.returned
    }
}

/// Bytes between two words about what is read again.
const LEARNT_BYTES: u64 = 1 << 20;

/// The digest of group-by cells, as [`LastGroup::cells`](crate::position::LastGroup::cells) has it.
pub(crate) fn digest_of<'a>(
    texts: impl Iterator<Item = &'a [u8]>,
    scratch: &mut Vec<u8>,
) -> Hash128 {
    scratch.clear();
    for text in texts {
        scratch.extend_from_slice(&(text.len() as u64).to_le_bytes());
        scratch.extend_from_slice(text);
    }
    Hash128(xxh3_128(scratch))
}
