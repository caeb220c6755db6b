//! Verification: the same path with a sink that compares.
