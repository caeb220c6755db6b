//! Reading a log file again at the start: what is whole is kept, what a crash cut off is dropped, and what
//! a crash cannot explain is an error.
//!
//! A process killed in mid-append leaves the beginning of a batch at the end of the last file, for the
//! operating system keeps what has been written. After a power failure that end may also hold zeros or old
//! blocks. Either way nothing valid follows it. Where something valid does follow, or where a file that is
//! not the last one is broken, acknowledged data has been damaged, and going on would hide it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tidegate_wire::{Batch, BatchHeader, Batches, HEADER_LEN};

use super::files::read_at;
use super::header::parse_header;
use crate::error::Error;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// The end of a log file that was dropped at the start because a crash had cut it off.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Truncation {
    /// The file.
    pub path: PathBuf,
    /// The length it was cut to.
    pub kept_bytes: u64,
    /// The bytes dropped. No batch that was acknowledged before a mere crash of the process is in them.
    pub dropped_bytes: u64,
}

/// What is wrong with a file, and from where on.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) position: u64,
    pub(super) what: String,
}

/// A file's batches, read in order through a window that grows to the largest batch.
pub(super) struct Scanner<'a> {
    file: &'a File,
    path: &'a Path,
    len: u64,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path) -> Result<Self, Error> {
        let len = file
            .metadata()
            .map_err(|error| Error::file("examine", path, error))?
            .len();
        Ok(Self {
            file,
            path,
            len,
            position: 0,
            window: Vec::new(),
            window_start: 0,
        })
    }

    /// Bytes in the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Gives every whole batch to `visit`, the first expected at `next_offset`. Below `gaps_below` compaction
    /// may have left gaps. Returns the offset after the
    /// last one, and the damage that ended the reading, if any.
    pub(super) fn run(
        &mut self,
        mut next_offset: i64,
        gaps_below: i64,
        mut visit: impl FnMut(&Batch<'_>),
    ) -> Result<(i64, Option<Damage>), Error> {
        while self.position < self.len {
            match self.batch_at(self.position, next_offset)? {
                // The checksum does not cover the offset, and nothing but compaction takes anything out.
                Ok(header)
                    if header.base_offset != next_offset && header.base_offset >= gaps_below =>
                {
                    let position = self.position;
                    let what = out_of_place(&header, next_offset);
                    return Ok((next_offset, Some(Damage { position, what })));
                }
                Ok(header) => {
                    if let Some(Ok(batch)) = Batches::new(self.window_at(self.position)).next() {
                        visit(&batch);
                    }
                    next_offset = header.next_offset();
                    self.position += header.total_len() as u64;
                }
                Err(what) => {
                    let position = self.position;
                    return Ok((next_offset, Some(Damage { position, what })));
                }
            }
        }
        Ok((next_offset, None))
    }

    /// Looks for a valid batch at or after `from`, with offsets from `next_offset` on.
    pub(super) fn next_valid(&mut self, from: u64, next_offset: i64) -> Result<Option<u64>, Error> {
        let mut position = from;
        while position + HEADER_LEN as u64 <= self.len {
            self.fill(position, HEADER_LEN)?;
            let at = usize::try_from(position - self.window_start).unwrap_or(usize::MAX);
            // Runs of zeros are what a power failure leaves: pass them quickly.
            if self.window[at..at + HEADER_LEN]
                .iter()
                .all(|byte| *byte == 0)
            {
                position += HEADER_LEN as u64 / 2;
                continue;
            }
            if self.batch_at(position, next_offset)?.is_ok() {
                return Ok(Some(position));
            }
            position += 1;
        }
        Ok(None)
    }

    /// The whole and valid batch at `position`, or why there is none.
    fn batch_at(
        &mut self,
        position: u64,
        next_offset: i64,
    ) -> Result<Result<BatchHeader, String>, Error> {
        let left = self.len - position;
        if left < HEADER_LEN as u64 {
            return Ok(Err(format!("{left} bytes are less than a batch header")));
        }
        self.fill(position, HEADER_LEN)?;
        let at = usize::try_from(position - self.window_start).unwrap_or(usize::MAX);
        let Some(header) = parse_header(&self.window[at..]) else {
            return Ok(Err("no batch header".to_owned()));
        };
        if let Some(what) = implausible(&header, next_offset) {
            return Ok(Err(what));
        }
        let total = header.total_len();
        if total as u64 > left {
            return Ok(Err(format!("a batch of {total} bytes ends after {left}")));
        }
        self.fill(position, total)?;
        let at = usize::try_from(position - self.window_start).unwrap_or(usize::MAX);
        let checked = match Batches::new(&self.window[at..at + total]).next() {
            Some(Ok(batch)) => batch.check_crc(),
            Some(Err(error)) => Err(error),
            None => return Ok(Err("no batch".to_owned())),
        };
        Ok(match checked {
            Ok(()) => Ok(header),
            Err(error) => Err(error.to_string()),
        })
    }

    /// What the window holds from `position` on.
    fn window_at(&self, position: u64) -> &[u8] {
        let at = usize::try_from(position - self.window_start).unwrap_or(usize::MAX);
        self.window.get(at..).unwrap_or_default()
    }

    /// Makes the window hold `len` bytes from `position` on; they are known to be in the file.
    fn fill(&mut self, position: u64, len: usize) -> Result<(), Error> {
        let end = position + len as u64;
        if position >= self.window_start && end <= self.window_start + self.window.len() as u64 {
            return Ok(());
        }
        let wanted = usize::try_from(self.len - position)
            .unwrap_or(usize::MAX)
            .min(len.max(CHUNK));
        self.window.resize(wanted, 0);
        self.window_start = position;
        let found = read_at(self.file, &mut self.window, position)
            .map_err(|error| Error::file("read", self.path, error))?;
        if found < wanted {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(Error::file("read", self.path, error));
        }
        Ok(())
    }
}

/// What in a header cannot be, for a batch that has been appended by this broker.
fn implausible(header: &BatchHeader, next_offset: i64) -> Option<String> {
    if header.magic != 2 {
        return Some(format!("batch format {}, expected 2", header.magic));
    }
    if header.total_len() < HEADER_LEN {
        return Some(format!("a batch length of {}", header.batch_length));
    }
    if header.base_offset < next_offset || header.last_offset_delta < 0 {
        return Some(out_of_place(header, next_offset));
    }
    None
}

fn out_of_place(header: &BatchHeader, next_offset: i64) -> String {
    format!(
        "a batch at offset {} where {next_offset} is next",
        header.base_offset
    )
}
