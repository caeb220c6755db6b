//! Who holds a data directory, and where that broker can be reached.
//!
//! Two files: `lock`, held by an operating system lock for as long as the process lives, and
//! `broker.json`, the addresses. The lock alone decides; the addresses may be stale after a crash.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

const LOCK_FILE: &str = "lock";
const ADDRESS_FILE: &str = "broker.json";

/// The sole right to write into a data directory. Released when dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory if it is missing and takes the lock, without waiting.
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|error| Error::file("make", dir, error))?;
        let path = dir.join(LOCK_FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| Error::file("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::locked(dir)),
            Err(TryLockError::Error(error)) => Err(Error::file("lock", &path, error)),
        }
    }
}

/// Where the broker that holds a data directory can be reached.
///
/// [`Broker::start`](crate::Broker::start) writes them and a clean stop removes them. After a crash they are
/// stale: connecting fails, and the directory can be taken by a broker of one's own. Between taking the
/// directory and listening there is a moment in which they are missing: whoever finds the directory
/// [locked](crate::ErrorKind::Locked) tries for a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Where Kafka clients connect.
    pub kafka: SocketAddr,
    /// The registry's base URL, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// The process that serves.
    pub process_id: u32,
}

impl Addresses {
    /// The addresses written in `data_dir`; `None` if nobody serves it, as far as the file tells.
    ///
    /// # Errors
    /// If the file is there and cannot be read or understood (`InvalidData`).
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(address_file(data_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the addresses into `data_dir`, so that a reader sees all of them or none.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let path = address_file(data_dir);
        let fresh = path.with_extension("json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        drop(file);
        fs::rename(&fresh, &path)
    }

    /// Removes the addresses from `data_dir`; it is no error if there are none.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(address_file(data_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn address_file(data_dir: &Path) -> PathBuf {
    data_dir.join(ADDRESS_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let refused = DirectoryLock::take(dir.path()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked);
        drop(first);
        DirectoryLock::take(dir.path()).unwrap();
    }

    #[test]
    fn addresses_are_written_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Addresses::read(dir.path()).unwrap(), None);
        let addresses = Addresses {
            kafka: "127.0.0.1:9092".parse().unwrap(),
            registry: Some("http://127.0.0.1:8081".to_owned()),
            process_id: 7,
        };
        addresses.write(dir.path()).unwrap();
        assert_eq!(Addresses::read(dir.path()).unwrap(), Some(addresses));
        Addresses::remove(dir.path()).unwrap();
        Addresses::remove(dir.path()).unwrap();
        assert_eq!(Addresses::read(dir.path()).unwrap(), None);
    }
}
