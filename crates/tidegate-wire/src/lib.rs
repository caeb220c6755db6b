//! Kafka frames and record batches (v2): build, read, compress.
