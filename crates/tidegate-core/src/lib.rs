//! The pure pipeline from CSV rows to Avro records and their proof.
