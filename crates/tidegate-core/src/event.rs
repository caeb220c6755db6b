//! What happens during a load, as typed events for progress bars, logs and metrics.
//!
//! Events are given to a closure on the load's own thread: it should be quick, and it cannot fail. What an event says is also in the
//! receipt or in an error; nothing depends on anybody listening.

use std::time::Duration;

use crate::balance::PartitionBalance;
use crate::produce::Settled;
use crate::read::BadRow;

/// How far a load is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Decompressed bytes of the input that are worked off.
    pub bytes: u64,
    /// Rows that are worked off: in a record, or rejected.
    pub rows: u64,
    /// Rows rejected.
    pub rejected: u64,
    /// Records handed to the sink.
    pub appended: u64,
    /// Records known to be in the topic.
    pub delivered: u64,
    /// Records the group of a hold has not committed; `None` without a hold.
    pub outstanding: Option<u64>,
    /// Time since the load began.
    pub elapsed: Duration,
}

/// Something that happened during a load.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A load that goes on reads what was loaded before again, to see that it is still the same.
    Rereading {
        /// So many bytes of all inputs were read by now.
        bytes: u64,
    },
    /// An attempt begins, after so many rows.
    Started {
        /// Rows of earlier attempts or runs; 0 at the start.
        after_row: u64,
    },
    /// How far the load is; at least every [`limits::PROGRESS_INTERVAL`](crate::limits::PROGRESS_INTERVAL) while rows move.
    Progress(Progress),
    /// A row was rejected.
    RowRejected(&'a BadRow),
    /// The outcome of a batch is known: the delivery report.
    BatchSettled(&'a Settled),
    /// One partition gets far more than its share of the records: more than half, or of two partitions more than three quarters.
    Skewed {
        /// The partition.
        partition: i32,
        /// Its records.
        records: u64,
        /// The records of all partitions.
        of: u64,
    },
    /// The load waits for the group.
    Held {
        /// Records the group has not committed.
        outstanding: u64,
        /// How many it may leave.
        limit: u64,
        /// For how long it has waited.
        waited: Duration,
    },
    /// The group has committed enough, the load goes on.
    Resumed {
        /// For how long it had waited.
        waited: Duration,
    },
    /// The group went back in a partition: somebody reset it, or its offsets expired. Records sent beyond its new place may now exceed the limit; none
    /// are added until it has caught up.
    GroupMovedBack {
        /// The partition.
        partition: i32,
        /// Where it was.
        from: i64,
        /// Where it is now; `None` when it has no commit any more.
        to: Option<i64>,
    },
    /// The group could not be asked; it will be asked again.
    GroupUnanswered {
        /// Why.
        reason: &'a str,
    },
    /// A balance is being waited for.
    Balancing {
        /// Records the group has still to commit, at most.
        behind: u64,
        /// For how long it has been waited.
        waited: Duration,
        /// Every partition, in order.
        partitions: &'a [PartitionBalance],
    },
    /// Everything was read; the load waits for the last outcomes.
    Flushing {
        /// Records that are open.
        outstanding: u64,
    },
    /// Everything up to there is in the topic for good, and so is the position.
    Committed {
        /// Rows before that position.
        rows: u64,
    },
    /// The sink was rolled back; the load goes on from a stored position.
    Replaying {
        /// Rows before that position.
        after_row: u64,
        /// Why.
        reason: &'a str,
    },
}
