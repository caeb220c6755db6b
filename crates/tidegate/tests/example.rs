//! The example of the library runs, and says what it promises.

use std::path::PathBuf;
use std::process::Command;

/// Cargo builds examples before it runs integration tests, beside the binaries of the same profile.
#[test]
fn streaming_runs_on_the_embedded_broker() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"))
        .with_file_name("examples")
        .join("streaming");
    if !program.exists() {
        eprintln!("skipped: needs the example built (cargo test builds it; --test alone does not)");
        return;
    }
    let output = Command::new(program).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(
        stdout.contains("published 50 messages, worked off 50"),
        "{stdout}\n{stderr}"
    );
    assert!(
        stdout.contains("usage-0: last offset") && stdout.contains("usage-1: last offset"),
        "{stdout}"
    );
}
