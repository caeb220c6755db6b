//! Every bound of the pipeline, in one place.
//!
//! Nothing in this crate grows with the size of the input: each buffer, queue and list is held by one of these, by an option, or by the sink's
//! own budget for records that are not settled yet.

use std::time::Duration;

/// Longest row by default, in bytes as they stand in the input; a longer one is a bad row. Also bounds what is kept of a row for the rejects file.
pub const MAX_ROW_SIZE: usize = 8 * 1024 * 1024;

/// How much of the input is read at once, in bytes.
pub const READ_BUFFER: usize = 256 * 1024;

/// Most columns a header may have.
pub const MAX_COLUMNS: usize = 100_000;

/// Of a row over the size limit, so many bytes are kept for the rejects.
pub const KEPT_OF_OVERSIZED: usize = 64 * 1024;

/// The largest group, in bytes of its rows as they stand in the input and, separately, of its record; a larger one is a bad one.
pub const MAX_GROUP_SIZE: usize = 8 * 1024 * 1024;

/// Most rows in one record of a group; a longer group is a bad one.
pub const MAX_GROUP_ROWS: usize = 1_000_000;

/// Groups that are remembered to notice one that comes again: 25 bytes each, in a table that is full with so many.
pub const MAX_SEEN_GROUPS: usize = (1 << 19) / 8 * 7;

/// Inputs of one load: its position names them all, and must fit into a record.
pub const MAX_INPUTS: usize = 1_000;

/// Most digits of a decimal type. Avro knows no bound, but work grows with the square of the length, and a text or a value may come from anywhere.
pub const MAX_DECIMAL_DIGITS: usize = 65_536;

/// Levels of a field's default in a schema; a deeper one is refused.
pub const MAX_DEFAULT_DEPTH: usize = 64;

/// Levels of a value that is shown; a schema may refer to itself, so nothing else bounds them.
pub const MAX_VALUE_DEPTH: usize = 128;

/// Items of an array that take no bytes, such as nulls, in a value that is shown.
pub const MAX_EMPTY_ITEMS: i64 = 1 << 16;

/// Records between two looks at what the sink has settled. Settling is cheap but not free; a batch holds thousands of records anyway.
pub const RECORDS_PER_POLL: u64 = 512;

/// Records between two looks at the clock, for progress and for the group's commits.
pub const RECORDS_PER_CLOCK: u64 = 4_096;

/// Time between two commits of a load into a transactional sink by default: readers see rows soon, and the pauses weigh little.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// The longest that a load stretches the time between two commits to, by default, where commits take long.
pub const COMMIT_LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// One part of so many is what the pauses for commits may take of the time: where they take more, the time between them grows. What a commit costs is about
/// twice its pause, for behind it the compressors and the broker have run dry; all of it is to stay within 5 %.
pub const COMMIT_SHARE: u32 = 50;

/// How many times as long the time between two commits may become at once.
pub const COMMIT_GROWTH: u32 = 4;

/// Bytes of input between two commits by default: what a load that was killed reads again at most.
pub const COMMIT_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes of input between two looks at whether a commit is due.
pub const COMMIT_LOOK_BYTES: u64 = 64 * 1024;

/// How often in a row a load that makes no progress replays after a rollback, before that is an error.
pub const MAX_REPLAYS: u32 = 10;

/// How long it waits before the second of these, and twice as long before each further one. Whoever takes the job over meanwhile rolls its transactions
/// back without owning the job yet, and gets in only while none is open.
pub const REPLAY_PAUSE: Duration = Duration::from_millis(200);

/// The longest of these pauses.
pub const REPLAY_LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a sink may leave everything open, settling nothing at all, before the load gives up on it. The sink's own deadline is
/// shorter and says more; this one only makes sure that a load never hangs.
pub const SETTLE_PATIENCE: Duration = Duration::from_secs(900);

/// How long an interrupted load waits for what it has sent. It has to have ended, with its threads, within 30 s.
pub const INTERRUPT_PATIENCE: Duration = Duration::from_secs(15);

/// How long a load whose sink has failed waits for what was on its way.
pub const FAILURE_PATIENCE: Duration = Duration::from_secs(5);

/// Rows that must have been read before a share of rejected ones is judged in mid-load.
pub const REJECT_SHARE_ROWS: u64 = 10_000;

/// Kinds and columns by which rejected rows are summed up; all others are one more.
pub const MAX_REJECT_GROUPS: usize = 64;

/// Records after which the spread over partitions is judged once.
pub const SKEW_RECORDS: u64 = 100_000;

/// Time between two progress events.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long one wait for the sink may last before the interrupt flag is looked at again.
pub const SETTLE_WAIT: Duration = Duration::from_millis(100);

/// Time between two questions for a group's commits while the load is held back or a balance is waited for.
pub const COMMITTED_INTERVAL: Duration = Duration::from_millis(100);

/// The first of these waits; they double from here, so that a fast group is not held up by a slow question.
pub const COMMITTED_FIRST_INTERVAL: Duration = Duration::from_millis(5);

/// Longest time a held load stays silent towards its sink.
pub const IDLE_TICK: Duration = Duration::from_secs(3);

/// How long a group that cannot be asked (its coordinator moves, a connection broke) is asked again before that is an error.
pub const GROUP_PATIENCE: Duration = Duration::from_secs(60);

/// Default for how long a load may be held back by a group in one piece.
pub const HOLD_TIMEOUT: Duration = Duration::from_secs(600);

/// Default for how long a balance is waited for.
pub const BALANCE_TIMEOUT: Duration = Duration::from_secs(600);

/// Records looked for around a difference to tell a missing, an extra and a reordered record apart.
pub const VERIFY_LOOKAHEAD: usize = 64;

/// The same for all partitions together.
pub const VERIFY_LOOKAHEAD_ALL: usize = 4_096;

/// Bytes of expected and found values quoted in a difference.
pub const DIFFERENCE_BYTES: usize = 1024;

/// Largest receipt that is read back, in bytes.
pub const MAX_RECEIPT_SIZE: u64 = 64 * 1024 * 1024;

/// Bytes of the longest text that several cells are put together to: times are shorter by far.
pub const MAX_JOINED: usize = 256;
