//! The client against brokers: the embedded one, and real Kafka where `TIDEGATE_TEST_KAFKA` names it (or says `download`).
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod client;
mod common;
mod consumer;
mod group;
mod modern;
