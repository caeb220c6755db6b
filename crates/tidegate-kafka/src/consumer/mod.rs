//! Reading topics: fetching records, alone or as a member of a group.

mod assignor;
mod group;
mod protocol;

pub use assignor::{Assignor, TopicPartition};
