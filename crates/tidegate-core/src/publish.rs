//! Publishing: the one place where the stages of the path meet.
