//! The registry's memory on disk: one JSON object a line, appended and synced before a change takes effect.
//!
//! A process that dies while it writes leaves at most one line without its line feed: that line was never answered for, so it is dropped when the
//! journal is read again. Damage anywhere else is an error that names file and line, for a registry that forgets an id makes data unreadable.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "registry.jsonl";
const FORMAT: u32 = 1;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub(super) enum Entry {
    /// The first line of every journal.
    Journal { format: u32 },
    /// A schema became a version of a subject.
    Register {
        subject: String,
        version: u32,
        id: u32,
        schema: String,
    },
    /// Versions were deleted: hidden, or with `permanent` removed.
    Delete {
        subject: String,
        versions: Vec<u32>,
        permanent: bool,
    },
    /// The compatibility level of a subject, or of all (no subject), was set, or (no level) taken back.
    Level {
        subject: Option<String>,
        level: Option<String>,
    },
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    len: u64,
    /// A failed append that could not be taken back leaves an unknown tail: nothing may be written behind it.
    broken: bool,
}

impl Journal {
    /// Opens or creates the journal in `dir` and hands each entry to `replay`, which says what is wrong with it.
    pub(super) fn open(
        dir: &Path,
        mut replay: impl FnMut(Entry) -> Result<(), String>,
    ) -> io::Result<Self> {
        let path = dir.join(FILE_NAME);
        let describe =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(describe)?;
        let len = read_entries(&file, &path, &mut replay).map_err(describe)?;
        // Cuts off the line that a dying process left unfinished.
        file.set_len(len).map_err(describe)?;
        let mut journal = Self {
            file,
            path: path.clone(),
            len,
            broken: false,
        };
        if len == 0 {
            journal
                .append(&Entry::Journal { format: FORMAT })
                .map_err(describe)?;
            // The file's name must last as well, or a crash of the machine loses the whole file.
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(describe)?;
        }
        Ok(journal)
    }

    /// Writes `entry` and waits until the disk has it. After an error nothing of it remains.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(format!(
                "{} could not be repaired after a failed write; restart the broker",
                self.path.display()
            )));
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let written = self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.file.write_all(&line))
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.len += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.broken = self.file.set_len(self.len).is_err();
                Err(error)
            }
        }
    }
}

/// Replays every whole line and answers the length of the file up to the last of them.
fn read_entries(
    file: &File,
    path: &Path,
    replay: &mut impl FnMut(Entry) -> Result<(), String>,
) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut len = 0;
    let mut number = 0_u64;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(len);
        }
        number += 1;
        let damaged = |what: String| {
            let hint =
                "restore the file from a copy, or move it away to start with an empty registry";
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("damaged at line {number}: {what}; {hint}"),
            )
        };
        let entry: Entry =
            serde_json::from_slice(&line).map_err(|error| damaged(error.to_string()))?;
        match entry {
            Entry::Journal { format: FORMAT } if number == 1 => {}
            Entry::Journal { format } if number == 1 => {
                let what = format!(
                    "{} has format {format}; this version knows {FORMAT}",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
            Entry::Journal { .. } => return Err(damaged("a second heading".to_owned())),
            _ if number == 1 => return Err(damaged("the heading is missing".to_owned())),
            entry => replay(entry).map_err(damaged)?,
        }
        len += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str) -> Entry {
        Entry::Level {
            subject: None,
            level: Some(name.to_owned()),
        }
    }

    fn reopen(dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        Journal::open(dir, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    #[test]
    fn a_line_cut_off_anywhere_is_dropped_and_the_journal_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut journal = Journal::open(dir.path(), |_| Ok(())).unwrap();
        journal.append(&level("FULL")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        journal.append(&level("NONE")).unwrap();
        drop(journal);
        let longer = std::fs::read(&path).unwrap();
        for cut in whole.len()..longer.len() {
            std::fs::write(&path, &longer[..cut]).unwrap();
            assert_eq!(reopen(dir.path()).unwrap(), [level("FULL")], "cut at {cut}");
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let mut journal = Journal::open(dir.path(), |_| Ok(())).unwrap();
        journal.append(&level("FORWARD")).unwrap();
        drop(journal);
        assert_eq!(
            reopen(dir.path()).unwrap(),
            [level("FULL"), level("FORWARD")]
        );
    }

    #[test]
    fn a_heading_cut_off_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), b"{\"entry\":\"jour").unwrap();
        assert_eq!(reopen(dir.path()).unwrap(), []);
        assert_eq!(reopen(dir.path()).unwrap(), []);
    }

    #[test]
    fn damage_elsewhere_names_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut journal = Journal::open(dir.path(), |_| Ok(())).unwrap();
        journal.append(&level("FULL")).unwrap();
        journal.append(&level("NONE")).unwrap();
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"FULL\"", "\"FU")).unwrap();
        let error = reopen(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("registry.jsonl") && error.contains("line 2"),
            "{error}"
        );
        std::fs::write(&path, text.replace("\"format\":1", "\"format\":2")).unwrap();
        let error = reopen(dir.path()).unwrap_err().to_string();
        assert!(error.contains("format 2"), "{error}");
    }
}
