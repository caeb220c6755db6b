//! Waiting for a consumer group: holding a load back while it runs, and waiting until everything was committed.
