//! A partition's log: batches as they were received, in files of bounded size.
//!
//! Only base offset and leader epoch are written into a batch; both are outside its checksum. Appends go to
//! the end of the last file, straight from the request's buffer. Reads are planned under the lock
//! ([`PartitionLog::slice`]) and done after it ([`Slice`]).
//!
//! When is data on the disk? An append is in the operating system's page cache when it is acknowledged, so
//! it survives the death of this process in any form. It is forced to the disk when the next file is begun
//! and at a clean stop. A power failure may therefore cost the end of the last file, as with Kafka's
//! defaults (which rely on replicas there; this broker has none).
//!
//! A compacted topic's complete files are written anew in the background ([`compaction`]).
//!
//! Nothing else is kept beside the batches: index, producer state, open and aborted transactions, leader epochs
//! and offsets are found again by reading the files at the start.

mod aborted;
mod compaction;
mod files;
mod header;
mod producers;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use tidegate_wire::{Batch, BatchHeader, Batches, HEADER_LEN, Marker, encode_marker};

use aborted::AbortedIndex;
pub(crate) use aborted::AbortedTransaction;
pub(crate) use compaction::CompactionRules;
use compaction::{UNFINISHED, read_cleaned_below};
pub(crate) use files::FilePool;
pub(crate) use header::parse_header;
pub(crate) use producers::{DescribedProducer, Producers, Refused, Verdict};
pub use recovery::Truncation;
use recovery::{Damage, Scanner};
pub(crate) use segment::Slice;
use segment::{Segment, file_name, parse_file_name};

use crate::error::Error;

/// The largest size a batch is decompressed to when the broker has to look into it.
const DECOMPRESSED_LIMIT: usize = 256 << 20;

/// One partition's log.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    dir: PathBuf,
    files: Arc<FilePool>,
    /// In offset order; empty until the first append.
    segments: Vec<Segment>,
    start_offset: i64,
    next_offset: i64,
    producers: Producers,
    aborted: AbortedIndex,
    /// Each leader epoch with the first offset appended in it.
    epochs: Vec<(i32, i64)>,
    truncation: Option<Truncation>,
    /// Set when a failed append could not be taken back: nothing more may be appended behind it.
    broken: bool,
    /// Whether there is something in the last file that has not been forced to the disk.
    dirty: bool,
    /// Below this offset compaction has been at work, and there may be gaps.
    cleaned_below: i64,
    /// Whether a compaction is under way.
    compacting: bool,
    /// Set when the files are about to belong to somebody else: a compaction must not touch them any more.
    closed: Arc<AtomicBool>,
}

/// What an append came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// The batch was here already.
    pub(crate) duplicate: bool,
    /// A file that is complete now and not yet forced to the disk.
    pub(crate) completed: Option<PathBuf>,
}

/// Why a batch was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// By the rules of idempotence.
    Refused(Refused),
    /// The file could not be written.
    Io(io::Error),
}

/// How a batch is to be appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendRules {
    pub(crate) leader_epoch: i32,
    pub(crate) segment_bytes: u64,
    /// The age at which a file is complete.
    pub(crate) segment_ms: i64,
    pub(crate) now_ms: i64,
    /// The time to write over the records' timestamps, where the topic asks for it.
    pub(crate) append_time: Option<i64>,
    /// Whether a producer nobody remembers here has to begin at sequence 0.
    pub(crate) from_zero: bool,
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) marker: Marker,
    pub(crate) producer_id: i64,
    /// The epoch the producer has from now on.
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) timestamp: i64,
}

/// A stretch of log to be read, with what was known of the log when it was planned.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) slice: Option<Slice>,
    pub(crate) start_offset: i64,
    pub(crate) next_offset: i64,
    pub(crate) last_stable_offset: i64,
    /// The aborted transactions that may have records in the slice.
    pub(crate) aborted: Vec<AbortedTransaction>,
}

impl PartitionLog {
    /// Opens the log in `dir`, which is made if it is missing, and reads all of it.
    pub(crate) fn open(
        dir: &Path,
        files: Arc<FilePool>,
        max_producers: usize,
    ) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|error| Error::file("make", dir, error))?;
        let mut log = Self {
            dir: dir.to_owned(),
            files,
            segments: Vec::new(),
            start_offset: 0,
            next_offset: 0,
            producers: Producers::new(max_producers),
            aborted: AbortedIndex::default(),
            epochs: Vec::new(),
            truncation: None,
            broken: false,
            dirty: false,
            cleaned_below: read_cleaned_below(dir)?,
            compacting: false,
            closed: Arc::new(AtomicBool::new(false)),
        };
        let base_offsets = list_segments(dir)?;
        if let Some(first) = base_offsets.first() {
            log.start_offset = *first;
            log.next_offset = *first;
        }
        for (index, base_offset) in base_offsets.iter().enumerate() {
            log.recover_segment(*base_offset, index + 1 == base_offsets.len())?;
        }
        Ok(log)
    }

    fn recover_segment(&mut self, base_offset: i64, is_last: bool) -> Result<(), Error> {
        let path = self.dir.join(file_name(base_offset));
        let was_cleaned = base_offset <= self.cleaned_below;
        if was_cleaned && base_offset < self.next_offset {
            // Compaction has put its records into the file before it, and had no time to remove it.
            return fs::remove_file(&path).map_err(|error| Error::file("remove", &path, error));
        }
        if was_cleaned {
            self.next_offset = base_offset;
        }
        let mut segment = Segment::new(&self.dir, base_offset, created_ms(&path));
        if base_offset != self.next_offset {
            let what = format!(
                "it begins at offset {base_offset}, not at {}",
                self.next_offset
            );
            return Err(Error::corrupt(&path, 0, what));
        }
        let file = self
            .files
            .open(&path)
            .map_err(|error| Error::file("open", &path, error))?;
        let mut scanner = Scanner::new(&file, &path)?;
        let (next_offset, damage) = scanner.run(base_offset, self.cleaned_below, |batch| {
            segment.note(batch.header());
            self.take_note(batch);
        })?;
        self.next_offset = next_offset;
        if let Some(Damage { position, what }) = damage {
            if !is_last {
                return Err(Error::corrupt(&path, position, what));
            }
            if let Some(follows) = scanner.next_valid(position + 1, next_offset)? {
                let what = format!("{what}; a valid batch follows at byte {follows}");
                return Err(Error::corrupt(&path, position, what));
            }
            let dropped_bytes = scanner.len() - position;
            file.set_len(position)
                .map_err(|error| Error::file("cut", &path, error))?;
            self.truncation = Some(Truncation {
                path,
                kept_bytes: position,
                dropped_bytes,
            });
        }
        self.segments.push(segment);
        Ok(())
    }

    /// What was dropped when the log was opened.
    pub(crate) fn truncation(&self) -> Option<&Truncation> {
        self.truncation.as_ref()
    }

    /// The offset of the first record kept.
    pub(crate) fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// The offset the next record gets. With a single replica it is the high watermark too.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Where readers of committed data must stop: before the first record of an open transaction.
    pub(crate) fn last_stable_offset(&self) -> i64 {
        self.producers
            .first_open_offset()
            .unwrap_or(self.next_offset)
    }

    /// What the log knows of producers.
    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Appends `batch`, whose header is `header` and which has been checked, or finds it here already.
    pub(crate) fn append(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        rules: AppendRules,
    ) -> Result<Appended, AppendError> {
        let verdict = self.producers.judge(header, rules.from_zero);
        match verdict.map_err(AppendError::Refused)? {
            Verdict::Append => {}
            Verdict::Duplicate { base_offset } => {
                return Ok(Appended {
                    base_offset,
                    duplicate: true,
                    completed: None,
                });
            }
        }
        self.put(batch, rules)
    }

    /// Appends the marker that ends a transaction. It has been decided on: nothing is judged any more.
    pub(crate) fn append_marker(
        &mut self,
        end: &End,
        rules: AppendRules,
    ) -> Result<Appended, AppendError> {
        let batch = encode_marker(
            end.marker,
            end.producer_id,
            end.epoch,
            end.coordinator_epoch,
            end.timestamp,
        );
        self.put(&batch, rules)
    }

    /// Writes `batch` at the end of the log and takes note of it.
    fn put(&mut self, batch: &[u8], rules: AppendRules) -> Result<Appended, AppendError> {
        let base_offset = self.next_offset;
        let stamped = header::stamped(batch, base_offset, rules.leader_epoch, rules.append_time)
            .and_then(|bytes| parse_header(&bytes).map(|header| (bytes, header)));
        let Some((bytes, stored)) = stamped else {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(AppendError::Io(error));
        };
        let completed = self.roll_if_due(batch.len(), rules);
        self.write(&bytes, &batch[HEADER_LEN..])
            .map_err(AppendError::Io)?;
        if let Some(segment) = self.segments.last_mut() {
            segment.note(&stored);
        }
        self.dirty = true;
        self.next_offset = stored.next_offset();
        self.note_producer(&stored, batch);
        note_epoch(&mut self.epochs, rules.leader_epoch, base_offset);
        Ok(Appended {
            base_offset,
            duplicate: false,
            completed,
        })
    }

    /// Takes note of a batch found in the log at the start.
    fn take_note(&mut self, batch: &Batch<'_>) {
        let header = batch.header();
        self.next_offset = header.next_offset();
        self.note_producer(header, batch.raw());
        note_epoch(
            &mut self.epochs,
            header.partition_leader_epoch,
            header.base_offset,
        );
    }

    /// Brings what is known of producers and transactions up to the batch `header`, which ends the log now.
    fn note_producer(&mut self, header: &BatchHeader, batch: &[u8]) {
        if !header.is_control() {
            return self.producers.remember(header);
        }
        let Some(Ok(control)) = Batches::new(batch).next() else {
            return;
        };
        // Control batches of other kinds (there are some in Kafka's own logs) end no transaction.
        let Some(marker) = control.control_marker() else {
            return;
        };
        let coordinator_epoch = producers::coordinator_epoch(&control);
        let ended = self.producers.end_transaction(header, coordinator_epoch);
        if let (Some(first_offset), Marker::Abort) = (ended, marker) {
            let stable_offset = self.last_stable_offset();
            self.aborted.push(AbortedTransaction {
                producer_id: header.producer_id,
                first_offset,
                last_offset: header.base_offset,
                stable_offset,
            });
        }
    }

    /// Begins a new file where the last one is full or old; returns the one that is complete.
    fn roll_if_due(&mut self, batch_len: usize, rules: AppendRules) -> Option<PathBuf> {
        let is_complete = self.segments.last().map(|segment| {
            let is_full = segment.len + batch_len as u64 > rules.segment_bytes;
            let is_old = rules.now_ms.saturating_sub(segment.created_ms) > rules.segment_ms;
            segment.len > 0 && (is_full || is_old)
        });
        if is_complete == Some(false) {
            return None;
        }
        let completed = self.segments.last().map(|segment| segment.path.clone());
        let next = Segment::new(&self.dir, self.next_offset, rules.now_ms);
        self.segments.push(next);
        completed
    }

    /// Writes at the end of the last file, and takes it back if only a part could be written.
    fn write(&mut self, header: &[u8], records: &[u8]) -> io::Result<()> {
        let Some(segment) = self.segments.last() else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        if self.broken {
            let message = "an earlier append failed and could not be taken back";
            return Err(io::Error::other(message));
        }
        let file = self.files.open(&segment.path)?;
        let written = write_all_vectored(&mut &*file, header, records);
        if written.is_err() && file.set_len(segment.len).is_err() {
            self.broken = true;
        }
        written
    }

    /// The stretch of log that holds `offset`, up to the end of its file; `None` at the end of the log.
    /// `offset` lies between start and next offset.
    pub(crate) fn slice(&self, offset: i64) -> io::Result<Option<Slice>> {
        if offset >= self.next_offset {
            return Ok(None);
        }
        let first = self
            .segments
            .partition_point(|segment| segment.next_offset <= offset);
        // Compaction may have left nothing of a file.
        let mut following = self.segments[first..].iter();
        let Some(segment) = following.find(|segment| segment.len > 0) else {
            return Ok(None);
        };
        self.slice_of(segment, segment.position_before(offset))
            .map(Some)
    }

    /// Plans to read from `offset` on, which lies between start and next offset. With `committed` only what
    /// readers of committed records may have.
    pub(crate) fn plan_reading(&self, offset: i64, committed: bool) -> io::Result<Reading> {
        let stable = self.last_stable_offset();
        let mut reading = Reading {
            slice: None,
            start_offset: self.start_offset,
            next_offset: self.next_offset,
            last_stable_offset: stable,
            aborted: Vec::new(),
        };
        if !committed {
            reading.slice = self.slice(offset)?;
        } else if offset < stable {
            reading.slice = self.slice(offset)?.map(|slice| slice.up_to(stable));
            reading.aborted = self.aborted.between(offset, stable);
        }
        Ok(reading)
    }

    fn slice_of(&self, segment: &Segment, start: u64) -> io::Result<Slice> {
        Ok(Slice {
            file: self.files.open(&segment.path)?,
            start,
            end: segment.len,
            end_offset: segment.next_offset,
        })
    }

    /// About how many bytes there are from `offset` on: more by up to one index interval, never less.
    pub(crate) fn bytes_after(&self, offset: i64) -> u64 {
        if offset >= self.next_offset {
            return 0;
        }
        let mut total = 0;
        for segment in self.segments.iter().rev() {
            if segment.base_offset <= offset {
                return total + segment.len - segment.position_before(offset);
            }
            total += segment.len;
        }
        total
    }

    /// Where to look for the first record with a timestamp of at least `timestamp`.
    pub(crate) fn slice_by_time(&self, timestamp: i64) -> io::Result<Option<Slice>> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.len > 0 && segment.max_timestamp >= timestamp);
        segment
            .map(|segment| self.slice_of(segment, segment.position_before_time(timestamp)))
            .transpose()
    }

    /// The largest timestamp, and where to find the batch that holds it.
    pub(crate) fn slice_of_max_timestamp(&self) -> io::Result<Option<(i64, Slice)>> {
        let mut best: Option<&Segment> = None;
        for segment in self.segments.iter().filter(|segment| segment.len > 0) {
            if best.is_none_or(|best| segment.max_timestamp > best.max_timestamp) {
                best = Some(segment);
            }
        }
        best.map(|segment| {
            let start = segment.position_before(segment.max_timestamp_batch);
            Ok((segment.max_timestamp, self.slice_of(segment, start)?))
        })
        .transpose()
    }

    /// The largest leader epoch not above `epoch` in which something was appended, and the offset at which
    /// the next one began; `None` if there is none. (KIP-279)
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let after = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let (found, _) = *self.epochs.get(after.checked_sub(1)?)?;
        let end = self
            .epochs
            .get(after)
            .map_or(self.next_offset, |(_, start)| *start);
        Some((found, end))
    }

    /// Lets go of the files: a compaction under way comes to nothing. Reading and appending go on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Forces the last file to the disk; the others have been forced when they were completed.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Some(segment) = self.segments.last().filter(|_| self.dirty) {
            self.files.open(&segment.path)?.sync_data()?;
        }
        self.dirty = false;
        Ok(())
    }
}

/// The first record in `batch` with a timestamp of at least `timestamp`: its offset and timestamp.
pub(crate) fn first_record_at(
    batch: &[u8],
    timestamp: i64,
) -> Result<Option<(i64, i64)>, tidegate_wire::Error> {
    let Some(batch) = Batches::new(batch).next().transpose()? else {
        return Ok(None);
    };
    let mut scratch = Vec::new();
    for record in batch.records(&mut scratch, DECOMPRESSED_LIMIT)? {
        let record = record?;
        if record.timestamp >= timestamp {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

fn note_epoch(epochs: &mut Vec<(i32, i64)>, epoch: i32, offset: i64) {
    if epochs.last().is_none_or(|(last, _)| *last < epoch) {
        epochs.push((epoch, offset));
    }
}

/// When the file was made, in milliseconds since 1970, or the nearest thing to it the system knows.
fn created_ms(path: &Path) -> i64 {
    let metadata = fs::metadata(path).ok();
    let created = metadata.and_then(|metadata| metadata.created().or(metadata.modified()).ok());
    let since = created.and_then(|created| created.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The base offsets of the log files in `dir`, in order. What a compaction left unfinished is removed.
fn list_segments(dir: &Path) -> Result<Vec<i64>, Error> {
    let read = |error| Error::file("list", dir, error);
    let mut base_offsets = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        if name.to_str().is_some_and(|name| name.ends_with(UNFINISHED)) {
            let path = dir.join(&name);
            fs::remove_file(&path).map_err(|error| Error::file("remove", &path, error))?;
        }
        if let Some(base_offset) = name.to_str().and_then(parse_file_name) {
            debug_assert_eq!(Some(file_name(base_offset).as_str()), name.to_str());
            base_offsets.push(base_offset);
        }
    }
    base_offsets.sort_unstable();
    Ok(base_offsets)
}

/// Writes both parts, with one system call as a rule.
fn write_all_vectored(file: &mut impl Write, first: &[u8], second: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < first.len() {
        let parts = [IoSlice::new(&first[done..]), IoSlice::new(second)];
        match file.write_vectored(&parts) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.write_all(&second[done - first.len()..])
}
