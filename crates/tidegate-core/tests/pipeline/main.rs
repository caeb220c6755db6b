//! The whole pipeline on a topic in memory: what a load does when everything goes well, when the sink fails in one of its ways, when a group is slow,
//! when it is stopped and goes on; and that a verification finds what was tampered with.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod around;
mod groups;
mod growth;
mod hold;
mod inputs;
mod interruption;
mod load;
mod rejects;
mod sink_faults;
mod support;
mod tampering;
mod transactions;
