//! The producer against brokers: the embedded one with faults, and real Kafka where `TIDEGATE_TEST_KAFKA` names it (or says `download`).
#![cfg(test)]

mod common;
mod delivery;
mod faults;
mod transactions;
