//! The binary: parse, plan, run, exit code.

fn main() {}
