//! The ledger: every record ends in exactly one outcome.
