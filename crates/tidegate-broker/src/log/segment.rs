//! One file of a partition's log: batches one after the other, and a sparse index of them in memory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_wire::{BatchHeader, HEADER_LEN};

use super::files::read_at;
use super::header::parse_header;

/// Bytes of log per index entry, at least: 24 bytes of memory for each 32 KiB.
pub(super) const INDEX_INTERVAL: u64 = 32 * 1024;

/// How much is read at once when looking for a batch: what lies between two index entries, as a rule.
const SCAN_CHUNK: usize = 32 * 1024 + HEADER_LEN;

/// A file of the log, without its open handle.
#[derive(Debug)]
pub(super) struct Segment {
    /// The offset of its first record, and its name.
    pub(super) base_offset: i64,
    pub(super) path: PathBuf,
    /// The offset after the last batch in it.
    pub(super) next_offset: i64,
    /// Bytes of whole batches in it.
    pub(super) len: u64,
    /// When the file was made, in milliseconds since 1970.
    pub(super) created_ms: i64,
    /// The largest timestamp in it, and the offset of the batch that holds it.
    pub(super) max_timestamp: i64,
    pub(super) max_timestamp_batch: i64,
    index: Vec<IndexEntry>,
}

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    base_offset: i64,
    position: u64,
    /// The largest timestamp of all batches before this one.
    max_timestamp_before: i64,
}

impl Segment {
    pub(super) fn new(dir: &Path, base_offset: i64, created_ms: i64) -> Self {
        Self {
            base_offset,
            next_offset: base_offset,
            path: dir.join(file_name(base_offset)),
            len: 0,
            created_ms,
            max_timestamp: -1,
            max_timestamp_batch: base_offset,
            index: Vec::new(),
        }
    }

    /// Takes note of the batch that now ends the file.
    pub(super) fn note(&mut self, header: &BatchHeader) {
        let due = self
            .index
            .last()
            .is_none_or(|entry| self.len - entry.position >= INDEX_INTERVAL);
        if due {
            self.index.push(IndexEntry {
                base_offset: header.base_offset,
                position: self.len,
                max_timestamp_before: self.max_timestamp,
            });
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_batch = header.base_offset;
        }
        self.len += header.total_len() as u64;
        self.next_offset = header.next_offset();
    }

    /// Where to begin looking for the batch that holds `offset`: the start of some batch before or at it.
    pub(super) fn position_before(&self, offset: i64) -> u64 {
        let after = self
            .index
            .partition_point(|entry| entry.base_offset <= offset);
        after
            .checked_sub(1)
            .map_or(0, |last| self.index[last].position)
    }

    /// Where to begin looking for the first batch with a timestamp of at least `timestamp`.
    pub(super) fn position_before_time(&self, timestamp: i64) -> u64 {
        let after = self
            .index
            .partition_point(|entry| entry.max_timestamp_before < timestamp);
        after
            .checked_sub(1)
            .map_or(0, |last| self.index[last].position)
    }
}

/// The file name of the segment that begins at `base_offset`, as Kafka names it.
pub(super) fn file_name(base_offset: i64) -> String {
    format!("{base_offset:020}.log")
}

/// The offset in a file name made by [`file_name`].
pub(super) fn parse_file_name(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// A stretch of one file to be read after the log's lock has been released. What it covers never changes
/// any more: a file only grows, and compaction puts another one in its place.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(super) file: Arc<File>,
    /// The start of a batch.
    pub(super) start: u64,
    /// The end of a batch.
    pub(super) end: u64,
    /// What has this offset or a higher one is not read. A batch begins here, or the log ends.
    pub(super) end_offset: i64,
}

impl Slice {
    /// The same stretch, with nothing at or above `offset`, at which a batch begins.
    pub(super) fn up_to(mut self, offset: i64) -> Self {
        self.end_offset = self.end_offset.min(offset);
        self
    }

    /// Reads at most `max_bytes`, from the batch that holds `offset` on; the last batch may be cut off, as
    /// in Kafka's answers. With `at_least_one` the first batch is whole, however large it is.
    pub(crate) fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> io::Result<Bytes> {
        let Some((start, header)) = self.first(|header| header.last_offset() >= offset)? else {
            return Ok(Bytes::new());
        };
        let first_len = header.total_len();
        if first_len > max_bytes && !at_least_one || header.base_offset >= self.end_offset {
            return Ok(Bytes::new());
        }
        let left = usize::try_from(self.end - start).unwrap_or(usize::MAX);
        let len = left.min(max_bytes.max(first_len));
        let mut bytes = Bytes::from(self.read_exact(start, len)?);
        bytes.truncate(self.allowed_len(&bytes));
        Ok(bytes)
    }

    /// How many of `bytes` come before the end offset.
    fn allowed_len(&self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(header) = bytes.get(at..).and_then(parse_header) {
            if header.base_offset >= self.end_offset {
                return at;
            }
            at += header.total_len().max(HEADER_LEN);
        }
        bytes.len()
    }

    /// Reads the first batch for which `wanted` says so, whole.
    pub(crate) fn find(
        &self,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        match self.first(wanted)? {
            Some((position, header)) => self.read_exact(position, header.total_len()).map(Some),
            None => Ok(None),
        }
    }

    /// The position and header of the first batch for which `wanted` says so.
    fn first(
        &self,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        let mut position = self.start;
        while position < self.end {
            let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
            let chunk = self.read_exact(position, left.min(SCAN_CHUNK))?;
            let mut at = 0;
            while let Some(header) = chunk.get(at..).and_then(parse_header) {
                if wanted(&header) {
                    return Ok(Some((position + at as u64, header)));
                }
                at += header.total_len().max(HEADER_LEN);
            }
            if at == 0 {
                let message = format!("no batch begins at byte {position} of the log file");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            position += at as u64;
        }
        Ok(None)
    }

    fn read_exact(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        let found = read_at(&self.file, &mut buffer, position)?;
        if found < len {
            let message = format!("the log file ends {} bytes early", len - found);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(buffer)
    }
}
