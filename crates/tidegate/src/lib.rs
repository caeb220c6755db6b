//! Loads CSV into Kafka as Avro and proves it: every row exactly once.
