//! Tests of the log: recovery, reading, searching.
