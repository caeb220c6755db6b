//! Embedded, durable, single-node Kafka broker and schema registry for development and tests.
