//! What happens during a load, as typed events for progress bars, logs and metrics.
