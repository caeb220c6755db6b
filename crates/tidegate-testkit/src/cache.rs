//! Where downloads are kept, and how they get there: through Maven's own client, from whatever repository it is set up to use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder for downloads: `TIDEGATE_CACHE`, or `tidegate` in the user's cache folder. Never inside the checkout, so that a fresh clone
/// finds what an earlier one fetched.
///
/// # Errors
/// None of `TIDEGATE_CACHE`, `XDG_CACHE_HOME` and `HOME` is set.
pub fn cache_dir() -> io::Result<PathBuf> {
    let given = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    given("TIDEGATE_CACHE")
        .or_else(|| given("XDG_CACHE_HOME").map(|dir| dir.join("tidegate")))
        .or_else(|| given("HOME").map(|home| home.join(".cache/tidegate")))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "set TIDEGATE_CACHE to a folder for downloads",
            )
        })
}

/// The folder `name` of the cache, filled by `fill` (which gets an empty folder) if it is not there yet. Several processes may ask at once: one fills,
/// the others wait. A process that dies meanwhile leaves nothing half done.
///
/// # Errors
/// The cache cannot be written, or `fill` failed.
pub fn cached(name: &str, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    let cache = cache_dir()?;
    fs::create_dir_all(&cache)?;
    let target = cache.join(name);
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock()?;
    if !target.is_dir() {
        let partial = tempfile::Builder::new()
            .prefix(&format!("{name}."))
            .tempdir_in(&cache)?;
        fill(partial.path())?;
        fs::rename(partial.keep(), &target)?;
    }
    Ok(target)
}

/// Runs Maven with `arguments` in `dir`.
///
/// # Errors
/// Maven is not installed, or fails; the message has its last lines.
pub fn maven(dir: &Path, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("mvn")
        .args(["-q", "-B", "-Dstyle.color=never"])
        .args(arguments)
        .current_dir(dir)
        .output()
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("mvn (Apache Maven) cannot be run: {error}"),
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let tail: Vec<&str> = said.lines().rev().take(10).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(io::Error::other(format!(
        "mvn failed: {}\n{}",
        output.status,
        tail.join("\n")
    )))
}
