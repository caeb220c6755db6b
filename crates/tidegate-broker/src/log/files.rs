//! The open log files: a bounded number, the one unused longest closed first.
//!
//! A thousand partitions must not need a thousand file descriptors. Files are opened for reading and
//! appending, so that whoever holds one needs no position of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Open files by path.
#[derive(Debug)]
pub(crate) struct FilePool {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: HashMap<PathBuf, Entry>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    file: Arc<File>,
    last_use: u64,
}

impl FilePool {
    /// A pool of `capacity` files, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// The file at `path`, made if it is missing.
    pub(crate) fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        let mut inner = lock(&self.inner);
        inner.uses += 1;
        let last_use = inner.uses;
        if let Some(entry) = inner.files.get_mut(path) {
            entry.last_use = last_use;
            return Ok(Arc::clone(&entry.file));
        }
        if inner.files.len() >= self.capacity {
            inner.close_oldest();
        }
        let file = Arc::new(
            File::options()
                .create(true)
                .read(true)
                .append(true)
                .open(path)?,
        );
        let entry = Entry {
            file: Arc::clone(&file),
            last_use,
        };
        inner.files.insert(path.to_owned(), entry);
        Ok(file)
    }

    /// Closes what is open under `dir`, which is about to be deleted.
    pub(crate) fn forget(&self, dir: &Path) {
        lock(&self.inner)
            .files
            .retain(|path, _| !path.starts_with(dir));
    }
}

impl Inner {
    fn close_oldest(&mut self) {
        let oldest = self
            .files
            .iter()
            .min_by_key(|(_, entry)| entry.last_use)
            .map(|(path, _)| path.clone());
        if let Some(path) = oldest {
            self.files.remove(&path);
        }
    }
}

/// Reads until `buffer` is full or the file ends, from `position` on; returns how much was read.
pub(crate) fn read_at(file: &File, mut buffer: &mut [u8], mut position: u64) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match read_some_at(file, buffer, position) {
            Ok(0) => break,
            Ok(count) => {
                total += count;
                position += count as u64;
                buffer = &mut buffer[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

#[cfg(unix)]
fn read_some_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, position)
}

#[cfg(windows)]
fn read_some_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_file_unused_longest_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let pool = FilePool::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        let first = Arc::downgrade(&pool.open(&a).unwrap());
        let second = Arc::downgrade(&pool.open(&b).unwrap());
        pool.open(&a).unwrap();
        pool.open(&c).unwrap();
        assert!(first.upgrade().is_some());
        assert!(second.upgrade().is_none());

        // Opened again, it still holds what was written.
        (&*pool.open(&b).unwrap()).write_all(b"kept").unwrap();
        pool.open(&a).unwrap();
        pool.open(&c).unwrap();
        let mut found = [0; 8];
        let count = read_at(&pool.open(&b).unwrap(), &mut found, 1).unwrap();
        assert_eq!(&found[..count], b"ept");
    }
}
