//! What the pipeline needs of Kafka: a sink for records ([`Produce`]), a way to read them back ([`Consume`]), and a group's commits
//! ([`Committed`]).
//!
//! The traits are the only door between the pipeline and the outside. Publishing, verifying and a dry run are the same path with another
//! [`Produce`] behind it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::around::{Around, Surroundings};
use crate::position::LoadPosition;
use crate::read::BadRow;

/// An error of whatever stands behind these traits; callers downcast it to the client's own type.
pub type SinkError = Box<dyn StdError + Send + Sync>;

/// A record on its way into the sink.
#[derive(Debug, Clone, Copy)]
pub struct OutRecord<'a> {
    /// The partition it goes to, from 0.
    pub partition: i32,
    /// The key, `None` for a record without one.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: &'a [u8],
    /// Record headers, in order; names may repeat.
    pub headers: Headers<'a>,
    /// Milliseconds since the Unix epoch; `None` leaves it to the sink: the moment it began the record's batch.
    pub timestamp: Option<i64>,
    /// How many rows are in the record.
    pub rows: u32,
    /// The last row in the record. It grows from record to record, and comes back in [`Settled`].
    pub tag: u64,
    /// The first row in the record.
    pub first_row: u64,
    /// The physical line that row starts on.
    pub first_line: u64,
    /// The physical line on which the row behind the record starts.
    pub end_line: u64,
}

/// Headers of a record, in order; names may repeat.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a>(Source<'a>);

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    List(&'a [(&'a str, &'a [u8])]),
    Record(&'a Around, &'a Surroundings),
}

impl Default for Source<'_> {
    fn default() -> Self {
        Self::List(&[])
    }
}

impl<'a> Headers<'a> {
    /// Those of a list of names and values.
    #[must_use]
    pub fn list(list: &'a [(&'a str, &'a [u8])]) -> Self {
        Self(Source::List(list))
    }

    pub(crate) fn of(around: &'a Around, record: &'a Surroundings) -> Self {
        Self(Source::Record(around, record))
    }

    /// How many they are.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        match self.0 {
            Source::List(list) => list.len(),
            Source::Record(_, record) => record.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Names and values, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        (0..self.len()).map(move |index| match self.0 {
            Source::List(list) => list[index],
            Source::Record(around, record) => record.header(around, index),
        })
    }
}

/// The error of a transactional sink that was rolled back, for whatever reason, and is ready again: nothing since the last stored position is in the
/// topic, and the load goes on from there.
#[derive(Debug)]
pub struct RolledBack {
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the transaction was rolled back: {}", self.reason)
    }
}

impl StdError for RolledBack {}

/// A rejected row on its way to where the sink keeps such rows.
#[derive(Debug, Clone, Copy)]
pub struct Reject<'a> {
    /// How many were rejected before it, over the whole load.
    pub number: u64,
    /// The input it stands in, where that has a name.
    pub input: Option<&'a str>,
    /// The row, and why it was rejected.
    pub row: &'a BadRow,
}

/// The known outcome of one record batch.
///
/// The batches of a partition settle in the order in which their records were appended, each record in exactly one batch.
#[derive(Debug)]
pub struct Settled {
    /// The partition of all its records.
    pub partition: i32,
    /// How many records it held.
    pub records: u32,
    /// Offset of its first record. `None` when it failed, or when the broker took it for a duplicate and no longer knew where it stands
    /// (`DUPLICATE_SEQUENCE_NUMBER`): then it is delivered, at an offset nobody told.
    pub base_offset: Option<i64>,
    /// Tag of its first record.
    pub first_tag: u64,
    /// Tag of its last record.
    pub last_tag: u64,
    /// Delivered, or why not.
    pub outcome: Result<(), SinkError>,
}

/// A delivered batch whose offset the broker did not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownOffset {
    /// The partition it stands in.
    pub partition: i32,
    /// How many records it held.
    pub records: u32,
    /// Last known offset of this load before it in the partition; it stands above.
    pub after: Option<i64>,
    /// How many records of this load stand between that offset and the batch: those of batches that are unknown too.
    pub skip: u64,
    /// Tag of its first record.
    pub first_tag: u64,
    /// Tag of its last record.
    pub last_tag: u64,
}

/// Where records go: a topic of Kafka, a comparison with one, or a counter.
///
/// One thread calls it. A sink bounds what it buffers, and [`append`](Self::append) waits where the bound is reached.
pub trait Produce {
    /// How many partitions the topic has; at least 1, and the same for the life of the sink.
    fn partitions(&self) -> i32;

    /// Takes one record. The bytes are copied: nothing is kept of what `record` borrows.
    ///
    /// # Errors
    /// The first permanent failure of the sink; every later call fails too.
    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError>;

    /// Takes one rejected row. It settles with no [`Settled`]: it is kept when [`flush`](Self::flush) has come back, and of a transactional sink when it
    /// was [committed](Self::commit), with the records around it or not at all. Only asked of a sink that was opened to keep such rows.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    fn reject(&mut self, reject: &Reject<'_>) -> Result<(), SinkError> {
        let number = reject.row.row;
        Err(format!("row {number} was rejected, and the sink keeps no such rows").into())
    }

    /// Adds to `settled` what became known since the last call. Never waits.
    ///
    /// # Errors
    /// As [`append`](Self::append). Outcomes known before the failure are added first.
    fn poll(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError>;

    /// Like [`poll`](Self::poll), but waits up to `timeout` for at least one outcome while any is outstanding.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    fn wait(&mut self, timeout: Duration, settled: &mut Vec<Settled>) -> Result<(), SinkError>;

    /// Closes every open batch, so that it is sent without waiting for more records.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    fn seal(&mut self) -> Result<(), SinkError>;

    /// Closes every open batch and waits until the outcome of all that was appended is known.
    ///
    /// # Errors
    /// As [`append`](Self::append), and when the sink's own deadline passes.
    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError>;

    /// Called at least every [`limits::IDLE_TICK`](crate::limits::IDLE_TICK) while the load is held back, for a sink that must show it is alive.
    ///
    /// # Errors
    /// When the sink found that it may not go on (another instance took over, say).
    fn idle(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Finds the base offset of a delivered batch whose offset no answer told, by reading the topic. `None` when it cannot.
    ///
    /// # Errors
    /// When reading the topic fails.
    fn locate(&mut self, unknown: &UnknownOffset) -> Result<Option<i64>, SinkError> {
        let _: &UnknownOffset = unknown;
        Ok(None)
    }

    /// Whether records are in the topic only once they were [committed](Self::commit).
    fn is_transactional(&self) -> bool {
        false
    }

    /// Whether it [keeps](Self::commit) where the load stands.
    fn keeps_positions(&self) -> bool {
        self.is_transactional()
    }

    /// Keeps the position. All that was appended before it has been delivered; a transactional sink makes it visible, and with it the
    /// position, or nothing of both. `is_complete` says that the input ended there. Only asked of a sink that keeps positions.
    ///
    /// # Errors
    /// [`RolledBack`] when nothing of it is in the topic; after any other error nobody knows, until the job is opened again.
    fn commit(&mut self, position: &LoadPosition, is_complete: bool) -> Result<(), SinkError> {
        let _: (&LoadPosition, bool) = (position, is_complete);
        Ok(())
    }

    /// The position of the last commit that took place, after a rollback; `None` if there was none, and the load begins again where it began.
    ///
    /// # Errors
    /// When it cannot be read.
    fn committed(&mut self) -> Result<Option<LoadPosition>, SinkError> {
        Ok(None)
    }

    /// The producer ids the records carry, oldest first; empty where there are none.
    fn producer_ids(&self) -> Vec<i64> {
        Vec::new()
    }
}

/// A record read back from the topic.
#[derive(Debug, Clone, Copy)]
pub struct ConsumedRecord<'a> {
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Who wrote it; -1 for a producer without idempotence.
    pub producer_id: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Record headers, in order.
    pub headers: &'a [ConsumedHeader],
    /// Milliseconds since the Unix epoch; `None` where it is the broker's own time and no matter of the one who wrote the record.
    pub timestamp: Option<i64>,
}

/// A header of a record read back. It owns its bytes: few records have any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedHeader {
    /// Its name; several headers of a record may share it.
    pub name: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Reads the data records of a topic, one partition at a time, up to an end offset fixed when it was opened.
pub trait Consume {
    /// The next data record of `partition` in offset order; `None` at the end offset. Control records and aborted ones are never given.
    ///
    /// # Errors
    /// When the topic cannot be read.
    fn next(&mut self, partition: i32) -> Result<Option<ConsumedRecord<'_>>, SinkError>;

    /// The lowest offset `partition` still holds; `None` where that is not known. Records below it were deleted, and cannot be compared.
    ///
    /// # Errors
    /// When the topic cannot be asked.
    fn log_start(&mut self, partition: i32) -> Result<Option<i64>, SinkError> {
        let _: i32 = partition;
        Ok(None)
    }
}

/// What a consumer group has committed on the topic.
pub trait Committed {
    /// Per partition the next offset the group would read; `None` where it never committed, which counts as not started.
    ///
    /// # Errors
    /// When the group cannot be asked now. Callers ask again until their own deadline.
    fn committed(&mut self) -> Result<Vec<(i32, Option<i64>)>, SinkError>;
}
