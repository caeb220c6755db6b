//! Compaction: of each key only the last committed record stays.
//!
//! Complete files below the last stable offset are written anew, without the records that a later one of
//! the same key replaces, without those of aborted transactions, and, when they are old enough, without
//! tombstones and without markers whose transactions have nothing left. Offsets stay as they are, so gaps
//! appear; small files that follow each other become one. The rules are those of Kafka's `LogCleaner`.
//!
//! It is planned under the log's lock ([`PartitionLog::plan_compaction`]), done without it ([`Plan::run`]),
//! and put in place under it again ([`PartitionLog::install`]). A crash at any moment leaves a whole log:
//!
//! 1. The new file is complete on the disk before it gets a log file's name.
//! 2. [`CLEANED_FILE`] says below which offset gaps are no damage before the first such file is there.
//! 3. The new file takes the place of the first old one by a rename; the others are removed after it. What a
//!    crash leaves of them is known by offsets that the log has already, and removed at the start.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_wire::{Batch, Compressor, Record, retain_records};

use super::recovery::Scanner;
use super::segment::Segment;
use super::{AbortedTransaction, DECOMPRESSED_LIMIT, PartitionLog};
use crate::error::Error;

/// The file in a partition's folder that says below which offset there may be gaps.
pub(super) const CLEANED_FILE: &str = "cleaned";

/// What the names of files end with that are not complete yet.
pub(super) const UNFINISHED: &str = ".unfinished";

/// The most bytes of keys remembered at a time. Keys beyond it are looked at in the next compaction.
const KEY_BYTES_LIMIT: usize = 64 << 20;

/// What a key is taken to cost besides its bytes.
const KEY_OVERHEAD: usize = 64;

/// How long a producer must be silent before compaction forgets where it was (`producer.id.expiration.ms`).
const PRODUCER_REMEMBERED_MS: i64 = 24 * 3600 * 1000;

/// When to compact, and what may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompactionRules {
    /// The part of the log that must be new since the last time.
    pub(crate) min_dirty_ratio: f64,
    /// How old the youngest record of a file must be.
    pub(crate) min_lag_ms: i64,
    /// How long a tombstone stays after its file was last appended to.
    pub(crate) delete_retention_ms: i64,
    pub(crate) segment_bytes: u64,
    pub(crate) now_ms: i64,
}

/// A compaction that has been planned.
#[derive(Debug)]
pub(crate) struct Plan {
    dir: PathBuf,
    inputs: Vec<Input>,
    end: i64,
    /// By producer id, in the order of their offsets.
    aborted: HashMap<i64, Vec<AbortedTransaction>>,
    /// The last offsets of batches that stay, if only as empty ones.
    needed: HashSet<i64>,
    rules: CompactionRules,
    closed: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
struct Input {
    base_offset: i64,
    path: PathBuf,
    len: u64,
}

/// A compaction that is done but for putting it in place.
#[derive(Debug)]
pub(crate) struct Compacted {
    outputs: Vec<Output>,
    end: i64,
}

#[derive(Debug)]
struct Output {
    /// The base offsets of the files it replaces.
    replaces: Vec<i64>,
    unfinished: PathBuf,
    segment: Segment,
}

impl PartitionLog {
    /// Plans a compaction, if there is enough to do and none is under way.
    pub(crate) fn plan_compaction(&mut self, rules: CompactionRules) -> Option<Plan> {
        let stable = self.last_stable_offset();
        let closed = self.segments.len().saturating_sub(1);
        // Without a lag clocks play no part: a producer's may be ahead of this one.
        let oldest_young = match rules.min_lag_ms {
            0 => i64::MAX,
            lag => rules.now_ms.saturating_sub(lag),
        };
        let is_old = |segment: &&Segment| {
            segment.next_offset <= stable && segment.max_timestamp < oldest_young
        };
        let inputs = self.segments[..closed].iter().take_while(is_old);
        let inputs: Vec<_> = inputs
            .map(|segment| Input {
                base_offset: segment.base_offset,
                path: segment.path.clone(),
                len: segment.len,
            })
            .collect();
        let total: u64 = inputs.iter().map(|input| input.len).sum();
        let new = inputs
            .iter()
            .filter(|input| input.base_offset >= self.cleaned_below);
        let dirty: u64 = new.map(|input| input.len).sum();
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no last digit")]
        let is_due = dirty > 0 && dirty as f64 >= total as f64 * rules.min_dirty_ratio;
        if !is_due || self.compacting || self.closed.load(Ordering::Acquire) {
            return None;
        }
        self.compacting = true;
        let mut aborted: HashMap<i64, Vec<_>> = HashMap::new();
        for transaction in self.aborted.between(0, stable) {
            let of_producer = aborted.entry(transaction.producer_id).or_default();
            of_producer.push(transaction);
        }
        let silent_since = rules.now_ms.saturating_sub(PRODUCER_REMEMBERED_MS);
        Some(Plan {
            dir: self.dir.clone(),
            end: self.segments[inputs.len()].base_offset,
            inputs,
            aborted,
            needed: self.producers.needed_offsets(silent_since).collect(),
            rules,
            closed: Arc::clone(&self.closed),
        })
    }

    /// Puts what a compaction came to in place, or forgets it if it failed.
    pub(crate) fn install(&mut self, compacted: io::Result<Compacted>) -> io::Result<()> {
        self.compacting = false;
        let compacted = compacted?;
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.cleaned_below = self.cleaned_below.max(compacted.end);
        write_cleaned_below(&self.dir, self.cleaned_below)?;
        for output in compacted.outputs {
            self.replace(output)?;
        }
        self.aborted.forget_below(compacted.end);
        Ok(())
    }

    fn replace(&mut self, output: Output) -> io::Result<()> {
        let Some(first) = output.replaces.first() else {
            return Ok(());
        };
        let at = self
            .segments
            .partition_point(|segment| segment.base_offset < *first);
        let count = output.replaces.len();
        fs::rename(&output.unfinished, &output.segment.path)?;
        // From here on the new file is the log; whoever reads the old ones still has them open.
        let old = self.segments.splice(at..at + count, [output.segment]);
        let old: Vec<_> = old.map(|segment| segment.path).collect();
        for (number, path) in old.iter().enumerate() {
            self.files.forget(path);
            if number > 0 {
                fs::remove_file(path)?;
            }
        }
        sync_dir(&self.dir)
    }
}

impl Plan {
    /// Writes the new files. They are not part of the log yet.
    pub(crate) fn run(self) -> io::Result<Compacted> {
        let mut newest = Newest::default();
        for input in &self.inputs {
            self.read(input, |batch| newest.note(&self, batch))?;
        }
        let mut cleaner = Cleaner {
            plan: &self,
            newest,
            unfinished: HashSet::new(),
            compressor: Compressor::new(),
        };
        let mut outputs = Vec::new();
        for group in self.groups() {
            outputs.push(cleaner.write(group)?);
        }
        Ok(Compacted {
            outputs,
            end: self.end,
        })
    }

    /// Files that follow each other and fit into one.
    fn groups(&self) -> Vec<&[Input]> {
        let mut groups = Vec::new();
        let (mut begin, mut len) = (0, 0);
        for (at, input) in self.inputs.iter().enumerate() {
            if at > begin && len + input.len > self.rules.segment_bytes {
                groups.push(&self.inputs[begin..at]);
                (begin, len) = (at, 0);
            }
            len += input.len;
        }
        groups.push(&self.inputs[begin..]);
        groups
    }

    fn read(
        &self,
        input: &Input,
        mut visit: impl FnMut(&Batch<'_>) -> Result<(), tidegate_wire::Error>,
    ) -> io::Result<()> {
        self.check_open()?;
        let file = File::open(&input.path)?;
        let mut scanner = Scanner::new(&file, &input.path).map_err(io::Error::other)?;
        let mut failure = None;
        let read = scanner.run(input.base_offset, self.end, |batch| {
            if failure.is_none() {
                failure = visit(batch).err();
            }
        });
        let (_, damage) = read.map_err(io::Error::other)?;
        if let Some(damage) = damage {
            return Err(io::Error::new(io::ErrorKind::InvalidData, damage.what));
        }
        match failure {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            None => Ok(()),
        }
    }

    /// An error if the files belong to somebody else by now.
    fn check_open(&self) -> io::Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(io::Error::other("the log is closed")),
            false => Ok(()),
        }
    }

    fn is_aborted(&self, batch: &Batch<'_>) -> bool {
        let header = batch.header();
        let Some(aborted) = self.aborted.get(&header.producer_id) else {
            return false;
        };
        let before = aborted.partition_point(|one| one.last_offset < header.base_offset);
        header.is_transactional()
            && aborted
                .get(before)
                .is_some_and(|one| one.first_offset <= header.base_offset)
    }

    /// Whether what has served its time may go from `input`.
    fn is_expired(&self, input: &Input) -> io::Result<bool> {
        let appended = fs::metadata(&input.path)?.modified()?;
        let since = appended
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let appended_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Ok(appended_ms.saturating_add(self.rules.delete_retention_ms) < self.rules.now_ms)
    }
}

/// The offset of the newest committed record of each key.
#[derive(Default)]
struct Newest {
    offsets: HashMap<Vec<u8>, i64>,
    key_bytes: usize,
    /// From here on there was no room for further keys: all records stay.
    full_from: Option<i64>,
}

impl Newest {
    fn note(&mut self, plan: &Plan, batch: &Batch<'_>) -> Result<(), tidegate_wire::Error> {
        if batch.header().is_control() || plan.is_aborted(batch) || self.full_from.is_some() {
            return Ok(());
        }
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch, DECOMPRESSED_LIMIT)? {
            let record = record?;
            let Some(key) = record.key else { continue };
            if let Some(offset) = self.offsets.get_mut(key) {
                *offset = record.offset;
                continue;
            }
            self.key_bytes += key.len() + KEY_OVERHEAD;
            if self.key_bytes > KEY_BYTES_LIMIT {
                self.full_from = Some(record.offset);
                return Ok(());
            }
            self.offsets.insert(key.to_vec(), record.offset);
        }
        Ok(())
    }

    /// Whether the record stays. Without a key it has no place in a compacted log, as with Kafka.
    fn keeps(&self, record: &Record<'_>, expired: bool) -> bool {
        if self.full_from.is_some_and(|full| record.offset >= full) {
            return true;
        }
        let Some(key) = record.key else { return false };
        let is_newest = self.offsets.get(key) == Some(&record.offset);
        is_newest && (record.value.is_some() || !expired)
    }
}

/// What becomes of a batch.
enum Cleaned {
    Whole,
    Rewritten(Vec<u8>),
    Dropped,
}

/// Goes through the log once more and writes what stays.
struct Cleaner<'a> {
    plan: &'a Plan,
    newest: Newest,
    /// The producers of transactions of which something stays and whose marker has not come yet.
    unfinished: HashSet<i64>,
    compressor: Compressor,
}

impl Cleaner<'_> {
    /// Writes what stays of `group` into one new file.
    fn write(&mut self, group: &[Input]) -> io::Result<Output> {
        let base_offset = group.first().map_or(0, |input| input.base_offset);
        let mut segment = Segment::new(&self.plan.dir, base_offset, self.plan.rules.now_ms);
        let mut unfinished = segment.path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        self.plan.check_open()?;
        let mut file = BufWriter::new(File::create(&unfinished)?);
        let mut appended = UNIX_EPOCH;
        let plan = self.plan;
        for input in group {
            let expired = plan.is_expired(input)?;
            appended = appended.max(modified(&input.path)?);
            let mut written = Ok(());
            plan.read(input, |batch| {
                let cleaned = self.clean(batch, expired)?;
                let kept = match &cleaned {
                    Cleaned::Whole => batch.raw(),
                    Cleaned::Rewritten(bytes) => bytes,
                    Cleaned::Dropped => return Ok(()),
                };
                if let Some(header) = super::header::parse_header(kept) {
                    segment.note(&header);
                    written =
                        std::mem::replace(&mut written, Ok(())).and_then(|()| file.write_all(kept));
                }
                Ok(())
            })?;
            written?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // Tombstones count their time from the last append, not from this.
        file.set_modified(appended)?;
        file.sync_all()?;
        Ok(Output {
            replaces: group.iter().map(|input| input.base_offset).collect(),
            unfinished,
            segment,
        })
    }

    fn clean(&mut self, batch: &Batch<'_>, expired: bool) -> Result<Cleaned, tidegate_wire::Error> {
        let header = batch.header();
        let needed = self.plan.needed.contains(&header.last_offset());
        if header.is_control() {
            // Without it, what stays of its transaction would look like an open one.
            let ends_something = self.unfinished.remove(&header.producer_id);
            let is_marker = batch.control_marker().is_some();
            return Ok(match is_marker && expired && !ends_something && !needed {
                true => Cleaned::Dropped,
                false => Cleaned::Whole,
            });
        }
        let is_aborted = self.plan.is_aborted(batch);
        let (newest, mut left) = (&self.newest, 0_usize);
        let limit = DECOMPRESSED_LIMIT;
        let rewritten = retain_records(batch, limit, &mut self.compressor, |record| {
            let keeps = !is_aborted && newest.keeps(record, expired);
            left += usize::from(keeps);
            keeps
        })?;
        if left == 0 && !needed {
            return Ok(Cleaned::Dropped);
        }
        if header.is_transactional() {
            self.unfinished.insert(header.producer_id);
        }
        Ok(rewritten.map_or(Cleaned::Whole, Cleaned::Rewritten))
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

/// The offset below which the log in `dir` may have gaps.
pub(super) fn read_cleaned_below(dir: &Path) -> Result<i64, Error> {
    let path = dir.join(CLEANED_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::file("read", &path, error)),
    };
    text.trim()
        .parse()
        .map_err(|_| Error::corrupt(&path, 0, format_args!("{text:?} is no offset")))
}

fn write_cleaned_below(dir: &Path, offset: i64) -> io::Result<()> {
    let unfinished = dir.join(format!("{CLEANED_FILE}{UNFINISHED}"));
    let mut file = File::create(&unfinished)?;
    file.write_all(format!("{offset}\n").as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&unfinished, dir.join(CLEANED_FILE))?;
    sync_dir(dir)
}

/// Makes renames in `dir` durable, where the system can.
fn sync_dir(dir: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(dir)?.sync_all(),
        false => Ok(()),
    }
}
