//! The input of a load: a file that can be read again, or a stream that cannot.
//!
//! Opening it reads the header and guesses the number of rows from the first bytes. What was read of a stream for that is kept and
//! comes first when the load reads it.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tidegate::core::read::{CsvFormat, Header, RowReader, Source};

use crate::failure::{Failure, Kind};
use crate::signals::Interrupt;
use crate::stream::Stream;

/// Beginnings of compressed files, which would otherwise be read as one strange header.
const COMPRESSED: [(&[u8], &str, &str); 3] = [
    (b"\x1f\x8b", "gzip", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    (b"PK\x03\x04", "zip", "unzip -p"),
];

/// An opened input.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    header: Header,
    from: From,
    rows_guess: Option<u64>,
}

#[derive(Debug)]
enum From {
    /// A regular file and its length.
    File(u64),
    /// Standard input, a pipe, a device: read once.
    Stream(Mutex<Option<Box<dyn ReadDebug>>>),
}

/// What a stream must be: readable on the load's thread.
trait ReadDebug: Read + Send {}

impl<T: Read + Send> ReadDebug for T {}

impl std::fmt::Debug for dyn ReadDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stream")
    }
}

impl Input {
    /// Opens `path` (`-` is standard input) and reads its header.
    pub(crate) fn prepare(
        path: &Path,
        format: &CsvFormat,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let prepared = Self::prepare_whole(path, format, interrupt);
        // A stream that a signal stopped before its header came is no unreadable one.
        prepared.map_err(|failure| {
            if interrupt.is_set() {
                interrupt.failure()
            } else {
                failure
            }
        })
    }

    fn prepare_whole(
        path: &Path,
        format: &CsvFormat,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let unreadable = |error| {
            Failure::new(Kind::LocalIo, format!("cannot read {}", path.display())).because(error)
        };
        if path == Path::new("-") {
            let stdin = Stream::stdin(interrupt).map_err(unreadable)?;
            return Self::stream(path, format, stdin);
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(Failure::new(
                Kind::LocalIo,
                format!("cannot read {}: it is a folder", path.display()),
            ));
        }
        if !metadata.is_file() {
            return Self::stream(path, format, Stream::new(file, interrupt));
        }
        let mut start = Vec::new();
        let (header, seen) = read_header(path, &mut file, format, &mut start)?;
        let rows_guess = guess_rows(&start, seen, metadata.len());
        Ok(Self {
            path: path.to_owned(),
            header,
            from: From::File(metadata.len()),
            rows_guess,
        })
    }

    fn stream(
        path: &Path,
        format: &CsvFormat,
        mut stream: impl Read + Send + 'static,
    ) -> Result<Self, Failure> {
        let mut start = Vec::new();
        let (header, _) = read_header(path, &mut stream, format, &mut start)?;
        let whole: Box<dyn ReadDebug> = Box::new(Cursor::new(start).chain(stream));
        let from = From::Stream(Mutex::new(Some(whole)));
        Ok(Self {
            path: path.to_owned(),
            header,
            from,
            rows_guess: None,
        })
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        if self.path == Path::new("-") {
            "stdin".to_owned()
        } else {
            self.path.display().to_string()
        }
    }

    /// What it is called in a receipt: the absolute path, so that it is found again from elsewhere.
    pub(crate) fn identity(&self) -> String {
        match std::fs::canonicalize(&self.path) {
            Ok(path) if self.is_file() => path.display().to_string(),
            _ => self.name(),
        }
    }

    /// Its columns.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Its length in bytes, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.from {
            From::File(length) => Some(length),
            From::Stream(_) => None,
        }
    }

    /// About how many rows it has, where that can be guessed.
    pub(crate) fn rows_guess(&self) -> Option<u64> {
        self.rows_guess
    }

    /// Whether it can be read again.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.from, From::File(_))
    }
}

impl Source for Input {
    type Reader = Box<dyn Read + Send>;

    fn name(&self) -> Option<String> {
        Some(Input::name(self))
    }

    /// Opens a file; a stream only once.
    fn open(&self) -> io::Result<Self::Reader> {
        match &self.from {
            From::File(_) => Ok(Box::new(File::open(&self.path)?)),
            From::Stream(stream) => {
                let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                match taken {
                    Some(stream) => Ok(Box::new(stream)),
                    None => Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "a stream cannot be read a second time",
                    )),
                }
            }
        }
    }
}

/// Reads the header, keeping in `start` everything that was read for it; returns how many of these bytes the header took.
fn read_header(
    path: &Path,
    input: &mut impl Read,
    format: &CsvFormat,
    start: &mut Vec<u8>,
) -> Result<(Header, u64), Failure> {
    let reader = RowReader::open(Tee { input, copy: start }, format.clone());
    let read = reader.map(|reader| (reader.header().clone(), reader.position().byte));
    // Looked at first: what is wrong with the header of a compressed file says nothing to people.
    for (magic, name, reader) in COMPRESSED {
        if start.starts_with(magic) {
            let message = format!("{} is compressed with {name}, not CSV", path.display());
            let failure = Failure::new(Kind::Input, message);
            return Err(failure.hint(format!(
                "{reader} {} | tidegate publish - ...",
                path.display()
            )));
        }
    }
    let (header, bytes) = read.map_err(|error| {
        let failure = Failure::from(error);
        failure.in_file(&path.display().to_string())
    })?;
    Ok((header, bytes))
}

/// Keeps a copy of what is read through it.
struct Tee<'a, R> {
    input: &'a mut R,
    copy: &'a mut Vec<u8>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.copy.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// How many rows a file has if the rest is like its start.
fn guess_rows(start: &[u8], header_bytes: u64, length: u64) -> Option<u64> {
    let header = usize::try_from(header_bytes).ok()?;
    let sample = start.get(header..).filter(|sample| !sample.is_empty())?;
    let breaks = |byte: u8| sample.iter().filter(|found| **found == byte).count();
    let lines = match breaks(b'\n') {
        0 => breaks(b'\r'),
        lines => lines,
    };
    let unterminated = u64::from(!matches!(sample.last(), Some(b'\n' | b'\r')));
    let sample_bytes = u64::try_from(sample.len()).ok()?;
    let rest = length.saturating_sub(header_bytes);
    let lines = u64::try_from(lines).ok()?;
    if sample_bytes >= rest {
        return Some(lines + unterminated);
    }
    u64::try_from(u128::from(lines.max(1)) * u128::from(rest) / u128::from(sample_bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(content: &[u8]) -> Result<Input, Failure> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Input::prepare(file.path(), &CsvFormat::default(), &Interrupt::default())
    }

    #[test]
    fn rows_are_guessed_from_the_start() {
        assert_eq!(open(b"a,b\n1,2\n3,4\n").unwrap().rows_guess(), Some(2));
        assert_eq!(open(b"a,b\n1,2\n3,4").unwrap().rows_guess(), Some(2));
        assert_eq!(open(b"a,b\r1,2\r3,4\r").unwrap().rows_guess(), Some(2));
        assert_eq!(open(b"a,b\n").unwrap().rows_guess(), None);
        let many = [b"a\n".as_slice(), &b"12345678\n".repeat(100_000)].concat();
        let guess = open(&many).unwrap().rows_guess().unwrap();
        assert!((99_000..=101_000).contains(&guess), "{guess}");
    }

    #[test]
    fn what_is_no_csv_is_said_plainly() {
        let failure = open(b"\x1f\x8b\x08\x00rest").unwrap_err();
        assert_eq!(failure.kind(), Kind::Input);
        assert!(failure.to_string().contains("gzip"), "{failure}");
        assert_eq!(open(b"").unwrap_err().kind(), Kind::Input);
        let missing = Input::prepare(
            Path::new("/nowhere/a.csv"),
            &CsvFormat::default(),
            &Interrupt::default(),
        )
        .unwrap_err();
        assert_eq!(missing.kind(), Kind::LocalIo);
        assert!(missing.to_string().contains("/nowhere/a.csv"), "{missing}");
    }

    #[test]
    fn a_stream_is_read_once_and_whole() {
        let input = Input::stream(
            Path::new("-"),
            &CsvFormat::default(),
            Cursor::new(b"a\n1\n2\n"),
        )
        .unwrap();
        let mut text = String::new();
        Source::open(&input)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "a\n1\n2\n");
        assert!(Source::open(&input).is_err());
    }
}
