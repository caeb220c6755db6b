//! The input of a load: a file that can be read again, or a stream that cannot.
//!
//! Opening it reads the header and guesses the number of rows from the first bytes. What was read of a stream for that is kept and
//! comes first when the load reads it.
//!
//! A compressed input is read as what is in it: lengths, offsets and digests are of that. Of a compressed file this is what stood there when it
//! was opened first; what is appended meanwhile is left for a later run, for it may be half of a member.

use std::fs::File;
use std::io::{self, Cursor, Read, Take};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use encoding_rs::Encoding;
use tidegate::core::Error;
use tidegate::core::limits::READ_BUFFER;
use tidegate::core::read::{CsvFormat, Header, RowReader, Source};

use crate::decompress::{Compression, Content, unsupported};
use crate::encoding::{NamedEncoding, Text};
use crate::failure::{Failure, Kind};
use crate::progress::{Figures, Progress};
use crate::report::grouped;
use crate::service::Context;
use crate::signals::Interrupt;
use crate::stream::Stream;

/// An opened input.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    header: Header,
    compression: Option<Compression>,
    /// How its text is encoded, where that is not UTF-8.
    encoding: Option<&'static Encoding>,
    from: From,
}

#[derive(Debug)]
enum From {
    /// A regular file.
    File(Regular),
    /// Standard input, a pipe, a device: read once.
    Stream(Mutex<Option<Box<dyn ReadDebug>>>),
}

#[derive(Debug)]
struct Regular {
    /// Its length on the disk when it was opened first.
    length: u64,
    /// The length of its content, once that is known: of a compressed file only its end tells.
    content_length: Arc<OnceLock<u64>>,
    sample: Sample,
}

/// What the first bytes of a file's content tell of its rows.
#[derive(Clone, Copy, Debug)]
struct Sample {
    header: u64,
    /// Bytes behind the header.
    bytes: u64,
    lines: u64,
    /// Whether the last of the lines has no end.
    is_cut: bool,
}

/// How an input is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct InputFormat {
    /// Its rows.
    pub(crate) csv: CsvFormat,
    /// Its text.
    pub(crate) encoding: NamedEncoding,
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
        format: &InputFormat,
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
        format: &InputFormat,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let unreadable = |error| {
            Failure::new(Kind::LocalIo, format!("cannot read {}", path.display())).because(error)
        };
        if path == Path::new("-") {
            let stdin = Stream::stdin(interrupt).map_err(unreadable)?;
            return Self::stream(path, format, stdin);
        }
        let file = File::open(path).map_err(unreadable)?;
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
        Self::file(path, format, file, metadata.len())
    }

    /// A reader of the first rows of the file at `path`; none where its header cannot be read like this.
    pub(crate) fn peek(
        path: &Path,
        format: &InputFormat,
    ) -> Result<Option<RowReader<impl Read>>, Failure> {
        let file = File::open(path).map_err(|error| {
            Failure::new(Kind::LocalIo, format!("cannot read {}", path.display())).because(error)
        })?;
        let text = Text::new(Content::new(file), format.encoding);
        Ok(RowReader::open(text, format.csv.clone()).ok())
    }

    fn file(path: &Path, format: &InputFormat, file: File, length: u64) -> Result<Self, Failure> {
        let mut start = Vec::new();
        let mut content = Text::new(Content::new(file), format.encoding);
        let (header, header_bytes) = read_header(path, &mut content, format, &mut start)?;
        let missing = READ_BUFFER.saturating_sub(start.len()) as u64;
        let sampled = content.by_ref().take(missing).read_to_end(&mut start);
        sampled.map_err(|error| {
            let error = Error::input("cannot read the input", error);
            Failure::from(error).in_file(&name(path))
        })?;
        let compression = content.get_ref().compression();
        let encoding = content.encoding();
        let content_length = match (compression, encoding) {
            (None, None) => OnceLock::from(length),
            _ => OnceLock::new(),
        };
        Ok(Self {
            path: path.to_owned(),
            header,
            compression,
            encoding,
            from: From::File(Regular {
                length,
                content_length: Arc::new(content_length),
                sample: Sample::of(&start, header_bytes),
            }),
        })
    }

    fn stream(
        path: &Path,
        format: &InputFormat,
        stream: impl Read + Send + 'static,
    ) -> Result<Self, Failure> {
        let mut start = Vec::new();
        let mut content = Text::new(Content::new(stream), format.encoding);
        let (header, _) = read_header(path, &mut content, format, &mut start)?;
        let compression = content.get_ref().compression();
        let encoding = content.encoding();
        let whole: Box<dyn ReadDebug> = Box::new(Cursor::new(start).chain(content));
        let from = From::Stream(Mutex::new(Some(whole)));
        Ok(Self {
            path: path.to_owned(),
            header,
            compression,
            encoding,
            from,
        })
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        name(&self.path)
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

    /// The length of its content in bytes, as far as that is known: that of a compressed file is when it was read to its end.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.from {
            From::File(file) => file.content_length.get().copied(),
            From::Stream(_) => None,
        }
    }

    /// About how many rows it has, where that can be guessed.
    pub(crate) fn rows_guess(&self) -> Option<u64> {
        match &self.from {
            From::File(file) => file.sample.rows(self.length()?),
            From::Stream(_) => None,
        }
    }

    /// What it is and how large, for people.
    pub(crate) fn describe(&self) -> String {
        let mut text = match (self.length(), self.is_file()) {
            (Some(bytes), _) => format!("{} bytes", grouped(bytes)),
            (None, true) => "a file".to_owned(),
            (None, false) => "a stream".to_owned(),
        };
        if let Some(compression) = self.compression {
            text.push_str(&format!(" unpacked from {compression}"));
        }
        if let Some(encoding) = self.encoding {
            text.push_str(&format!(" in {}", encoding.name()));
        }
        if let Some(rows) = self.rows_guess() {
            text.push_str(&format!(", about {} rows", grouped(rows)));
        }
        text
    }

    /// Whether it can be read again.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.from, From::File(_))
    }

    /// Whether it is a compressed one.
    pub(crate) fn is_compressed(&self) -> bool {
        self.compression.is_some()
    }

    /// Reads a compressed file to its end, unless that was done. Checksums stand behind what they are of, so only then is it known that nothing of it is
    /// damaged; and how long its content is.
    pub(crate) fn check(&self, context: &Context) -> Result<(), Failure> {
        let From::File(file) = &self.from else {
            return Ok(());
        };
        if self.length().is_some() {
            return Ok(());
        }
        let mut progress = Progress::new(context.terminal, "check", Some(file.length));
        let checked = self
            .unpack(file)
            .and_then(|mut content| content.read_through(&context.interrupt, &mut progress));
        progress.finish();
        match checked {
            _ if context.interrupt.is_set() => Err(context.interrupt.failure()),
            Ok(()) => Ok(()),
            Err(error) => {
                let error = Error::input("cannot read the input", error);
                Err(Failure::from(error).in_file(&self.name()))
            }
        }
    }

    fn unpack(&self, file: &Regular) -> io::Result<Unpacked> {
        let input = File::open(&self.path)?.take(file.length);
        let content = match self.compression {
            Some(compression) => Content::compressed(compression, input)?,
            None => Content::plain(input),
        };
        Ok(Unpacked {
            content: Text::new(content, self.encoding.into()),
            bytes: 0,
            length: Arc::clone(&file.content_length),
        })
    }
}

impl Source for Input {
    type Reader = Box<dyn Read + Send>;

    fn name(&self) -> Option<String> {
        Some(Self::name(self))
    }

    /// Opens a file; a stream only once.
    fn open(&self) -> io::Result<Self::Reader> {
        match &self.from {
            From::File(file) => Ok(match (self.compression, self.encoding) {
                (None, None) => Box::new(File::open(&self.path)?),
                _ => Box::new(self.unpack(file)?),
            }),
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
    format: &InputFormat,
    start: &mut Vec<u8>,
) -> Result<(Header, u64), Failure> {
    let reader = RowReader::open(Tee { input, copy: start }, format.csv.clone());
    let read = reader.map(|reader| (reader.header().clone(), reader.position().byte));
    // Looked at first: what is wrong with the header of a compressed file says nothing to people.
    if let Some((format, command)) = unsupported(start) {
        let message = format!(
            "{} is compressed with {format}, which is not supported",
            name(path)
        );
        let hint = format!("decompress it first, with `{command} {}`", path.display());
        return Err(Failure::new(Kind::Input, message).hint(hint));
    }
    let (header, bytes) = read.map_err(|error| Failure::from(error).in_file(&name(path)))?;
    Ok((header, bytes))
}

/// What the input at `path` is called in messages.
fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    }
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

/// The content of a compressed file. Its end tells how long it is.
struct Unpacked {
    content: Text<Content<Take<File>>>,
    bytes: u64,
    length: Arc<OnceLock<u64>>,
}

impl Unpacked {
    /// Reads to the end, or until a signal comes.
    fn read_through(&mut self, interrupt: &Interrupt, progress: &mut Progress) -> io::Result<()> {
        let mut buffer = vec![0; READ_BUFFER];
        while !interrupt.is_set() {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                // What it took of the file: how long the content is shows only at its end.
                _ => progress.update(&Figures {
                    bytes: self.content.get_ref().bytes_taken(),
                    ..Figures::default()
                }),
            }
        }
        Ok(())
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.bytes += count as u64;
        if count == 0 && !buffer.is_empty() {
            self.length.get_or_init(|| self.bytes);
        }
        Ok(count)
    }
}

impl Sample {
    /// What `start` tells, of which the header takes `header` bytes.
    fn of(start: &[u8], header: u64) -> Self {
        let behind = usize::try_from(header).ok();
        let sample = behind.and_then(|behind| start.get(behind..));
        let sample = sample.unwrap_or_default();
        let breaks = |byte: u8| sample.iter().filter(|found| **found == byte).count() as u64;
        let lines = match breaks(b'\n') {
            0 => breaks(b'\r'),
            lines => lines,
        };
        Self {
            header,
            bytes: sample.len() as u64,
            lines,
            is_cut: !matches!(sample.last(), None | Some(b'\n' | b'\r')),
        }
    }

    /// How many rows content of `length` bytes has if the rest is like its start.
    fn rows(&self, length: u64) -> Option<u64> {
        let rest = length.saturating_sub(self.header);
        if self.bytes == 0 {
            return None;
        }
        if self.bytes >= rest {
            return Some(self.lines + u64::from(self.is_cut));
        }
        let rows = u128::from(self.lines.max(1)) * u128::from(rest) / u128::from(self.bytes);
        u64::try_from(rows).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(content: &[u8]) -> Result<Input, Failure> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Input::prepare(file.path(), &InputFormat::default(), &Interrupt::default())
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
        // How much is in a compressed file shows at its end.
        let packed = open(&zstd::encode_all(many.as_slice(), 3).unwrap()).unwrap();
        assert_eq!((packed.length(), packed.rows_guess()), (None, None));
        assert_eq!(packed.describe(), "a file unpacked from zstd");
    }

    #[test]
    fn a_compressed_file_is_what_stood_there_when_it_was_opened_first() {
        let pack = |content: &[u8]| zstd::encode_all(content, 3).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = b"a,b\n".to_vec();
        content.extend(b"1,2\n".repeat(200_000));
        std::fs::write(file.path(), pack(&content)).unwrap();
        let interrupt = Interrupt::default();
        let input = Input::prepare(file.path(), &InputFormat::default(), &interrupt).unwrap();
        // Half of another frame, which is being written.
        let more = pack(&content);
        let grown = [pack(&content).as_slice(), &more[..more.len() / 2]].concat();
        std::fs::write(file.path(), grown).unwrap();
        let mut found = Vec::new();
        Source::open(&input)
            .unwrap()
            .read_to_end(&mut found)
            .unwrap();
        assert!(found == content);
        assert_eq!(input.length(), Some(content.len() as u64));
        assert_eq!(
            input.describe(),
            "800,004 bytes unpacked from zstd, about 200,000 rows"
        );
        // Another file under its name is not read by halves.
        std::fs::write(file.path(), &content).unwrap();
        let error = Source::open(&input).unwrap().read_to_end(&mut found);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("damaged at byte"), "{error}");
    }

    #[test]
    fn what_is_no_csv_is_said_plainly() {
        let failure = open(b"PK\x03\x04rest").unwrap_err();
        assert_eq!(failure.kind(), Kind::Input);
        let message = "is compressed with zip, which is not supported";
        assert!(failure.to_string().ends_with(message), "{failure}");
        assert_eq!(
            open(b"BZh9,a\n1,2\n").unwrap().header.names(),
            ["BZh9", "a"]
        );
        for (start, said) in [
            (&b"\x1f\x8b\x08\x00rest"[..], "the gzip data is cut off"),
            (b"\xfd7zXZ\x00rest", "the xz data is cut off"),
            (b"BZh91AY&SYrest", "the bzip2 data is cut off"),
        ] {
            let failure = open(start).unwrap_err();
            assert_eq!(failure.kind(), Kind::Input);
            let message = failure.full_message();
            assert!(message.contains(said), "{message}");
        }
        assert_eq!(open(b"").unwrap_err().kind(), Kind::Input);
        let missing = Input::prepare(
            Path::new("/nowhere/a.csv"),
            &InputFormat::default(),
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
            &InputFormat::default(),
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
