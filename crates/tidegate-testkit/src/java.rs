//! Finds a Java that is new enough among those installed.

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// A Java runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Java {
    /// Its `java` command.
    pub command: PathBuf,
    /// Its feature version: 17, 21, ...
    pub version: u32,
}

/// The first Java of at least version `minimum`: the one of `JAVA_HOME`, the one on the `PATH`, then those in the usual folder.
///
/// # Errors
/// There is none.
pub fn find(minimum: u32) -> io::Result<Java> {
    let mut seen = Vec::new();
    for command in candidates() {
        let Some(version) = version_of(&command) else {
            continue;
        };
        if version >= minimum {
            return Ok(Java { command, version });
        }
        seen.push(version.to_string());
    }
    let found = if seen.is_empty() {
        "none".to_owned()
    } else {
        seen.join(", ")
    };
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "Java {minimum} or newer is needed (JAVA_HOME, PATH, /usr/lib/jvm); found: {found}"
        ),
    ))
}

fn candidates() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    if let Some(home) = std::env::var_os("JAVA_HOME") {
        candidates.push(PathBuf::from(home).join("bin/java"));
    }
    candidates.push(PathBuf::from("java"));
    let mut installed: Vec<PathBuf> = std::fs::read_dir("/usr/lib/jvm")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/java")))
        .filter(|command| command.is_file())
        .collect();
    installed.sort();
    candidates.extend(installed);
    candidates
}

fn version_of(command: &PathBuf) -> Option<u32> {
    let output = Command::new(command)
        .args(["-XshowSettings:properties", "-version"])
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stderr))
}

fn parse_version(properties: &str) -> Option<u32> {
    let line = properties
        .lines()
        .find(|line| line.contains("java.specification.version ="))?;
    let version = line.rsplit('=').next()?.trim();
    // Java 8 calls itself 1.8.
    version.strip_prefix("1.").unwrap_or(version).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_old_and_new_are_read() {
        assert_eq!(
            parse_version("    java.specification.version = 17\n"),
            Some(17)
        );
        assert_eq!(
            parse_version("    java.specification.version = 1.8\n"),
            Some(8)
        );
        assert_eq!(parse_version("nonsense"), None);
    }
}
