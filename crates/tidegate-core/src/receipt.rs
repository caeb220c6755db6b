//! The receipt: what a load did, in a form that can be checked later.
