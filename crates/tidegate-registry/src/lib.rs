//! Confluent Schema Registry client.
