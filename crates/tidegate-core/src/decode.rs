//! Reading records back: to show them, and to name differences.
