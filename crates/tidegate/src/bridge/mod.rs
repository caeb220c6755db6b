//! The pipeline's traits on the Kafka client: core asks for a sink, a reader, a group's commits and a clock, and here they are.
//!
//! | core asks for | here |
//! |---|---|
//! | [`Produce`](tidegate_core::produce::Produce) | [`TopicSink`]: an idempotent producer on one topic; [`JobSink`]: with positions, in transactions |
//! | [`Consume`](tidegate_core::produce::Consume) | [`TopicReader`]: every partition of one topic, up to fixed ends; [`CommittedReader`]: what was committed |
//! | [`Committed`](tidegate_core::produce::Committed) | [`GroupCommits`]: a group's offsets, without joining it |
//! | [`Clock`](tidegate_core::clock::Clock) | [`SystemClock`] |

use std::time::Duration;

mod clock;
mod commits;
mod job;
mod reader;
mod rejects;
mod sink;

pub use clock::SystemClock;
pub use commits::GroupCommits;
pub use job::{Job, JobSink, forget_job, job_positions, left_open, prepare_positions_topic};
pub use reader::{CommittedReader, ReadRange, TopicReader};
pub use sink::{TopicSink, other_partitions};

/// Time between two looks for the markers of a transaction.
const MARKERS_PAUSE: Duration = Duration::from_millis(20);
