//! Launchers, fixtures and checks for tidegate's own tests.
