//! Native, blocking Kafka client: producer, consumer, admin.
