//! Balance with a consumer group: hold a load back while the group is behind, and wait until the group has worked it off.
//!
//! Both look at what the group has *committed*, the offset it would read next, and compare it with offsets of records of the load. Neither
//! looks at lag: transaction markers take offsets too, so that on a transactional topic lag may never become 0. A partition without a
//! commit counts as not started. What a consumer does before it commits is its own affair: a commit is what can be seen.
//!
//! - [`Hold`] counts records that were sent and are not committed. It is a hard bound, and pure bookkeeping: the load asks it before each record.
//! - [`wait`] returns when every partition is committed up to its [`Target`], or reports who is behind when the time is over.

mod hold;
mod wait;

pub use hold::{Hold, HoldOptions, MovedBack};
pub use wait::{
    Balance, BalanceOptions, BalanceReport, BalanceStatus, PartitionBalance, Target, wait,
};
