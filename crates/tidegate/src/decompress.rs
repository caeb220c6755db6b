//! Compressed inputs: gzip and zstd, known by their first bytes whatever the file is called, and read as what is in them.
//!
//! All members of a gzip file and all frames of a zstd file are read, one behind the other. What the input cannot give at present
//! ([`WouldBlock`](io::ErrorKind::WouldBlock)) and what goes wrong when it is read is handed on; data that cannot be decompressed is an error
//! of its own. Checksums stand at the end of a member or frame: what was given before that may yet turn out to be wrong.

use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::mem;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;
use zstd::zstd_safe;

/// How much compressed data is read at once.
const BUFFER: usize = 64 * 1024;

/// So many bytes tell how an input is compressed; a shorter one is not.
const MAGIC: usize = 4;

/// The largest window of a zstd frame, as a power of two: 128 MiB, which is what the zstd command itself takes without being told more.
const WINDOW_LOG_MAX: u32 = 27;

/// How an input is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// How data is compressed that begins like this.
    fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, _, _] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Self::Zstd),
            // A frame to be skipped, which some programs write first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What its data consists of.
    fn part(self) -> &'static str {
        match self {
            Self::Gzip => "member",
            Self::Zstd => "frame",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// The format of data that begins like this and cannot be read here, and the command that decompresses it.
pub(crate) fn unsupported(start: &[u8]) -> Option<(&'static str, &'static str)> {
    match start {
        [b'P', b'K', 3, 4, ..] => Some(("zip", "unzip -p")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(("xz", "xz -dc")),
        // The letters alone might be the name of a column.
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => Some(("bzip2", "bzip2 -dc")),
        _ => None,
    }
}

/// Why an input cannot be decompressed.
#[derive(Debug)]
pub(crate) struct Damage {
    compression: Compression,
    fault: Fault,
    /// So many bytes of the input were worked off when it was noticed.
    byte: u64,
}

#[derive(Debug)]
enum Fault {
    CutOff,
    /// It asks for more memory than it gets.
    Window,
    Broken(io::Error),
}

impl Damage {
    fn new(compression: Compression, error: io::Error, byte: u64) -> Self {
        let fault = if error.kind() == io::ErrorKind::UnexpectedEof {
            Fault::CutOff
        } else if error.to_string() == window_error() {
            Fault::Window
        } else {
            Fault::Broken(error)
        };
        Self {
            compression,
            fault,
            byte,
        }
    }

    /// The damage that an error tells of, if it tells of one.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// How to go on.
    pub(crate) fn hint(&self) -> String {
        match self.fault {
            Fault::CutOff => {
                "get the whole file; one that is still being written can be read when that is done"
                    .to_owned()
            }
            Fault::Window => {
                "decompress it first, with `zstd -d --long=31`, or compress it without --long"
                    .to_owned()
            }
            Fault::Broken(_) => {
                format!(
                    "get the file again; `{} -t` tells whether it is sound",
                    self.compression
                )
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, part, byte) = (self.compression, self.compression.part(), self.byte);
        match &self.fault {
            Fault::CutOff => write!(
                f,
                "the {name} data is cut off: it ends at byte {byte}, and the end of its last {part} is missing"
            ),
            Fault::Window => write!(
                f,
                "the {name} data has a {part} near byte {byte} that needs a window of more than 128 MiB: it was compressed with --long=28 or more"
            ),
            Fault::Broken(error) => {
                write!(
                    f,
                    "the {name} data is damaged at byte {byte} or before: {error}"
                )
            }
        }
    }
}

impl std::error::Error for Damage {}

/// How the decoder words it that a frame's window is too large.
fn window_error() -> &'static str {
    use zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as CODE;
    // Codes are returned as negative sizes.
    zstd_safe::get_error_name((CODE as usize).wrapping_neg())
}

/// The content of an input, decompressed where it is compressed.
pub(crate) struct Content<R: Read>(State<R>);

enum State<R: Read> {
    /// Its first bytes are not all there yet.
    Unknown(Vec<u8>, R),
    Plain(Start<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Raw<R>>>>),
    Zstd(Box<Decoder<'static, BufReader<Raw<R>>>>),
    /// It ended with an error, which has been told.
    Failed,
}

/// An input with its first bytes put back.
type Start<R> = Chain<Cursor<Vec<u8>>, R>;

/// Compressed data.
struct Raw<R> {
    input: Start<R>,
    /// All bytes that were read.
    bytes: u64,
    /// The last read failed: what the decoder says is what it was told.
    has_failed: bool,
}

impl<R: Read> Content<R> {
    /// The content of `input`, which stands at its start. Its first bytes say how it is compressed.
    pub(crate) fn new(input: R) -> Self {
        Self(State::Unknown(Vec::with_capacity(MAGIC), input))
    }

    /// The content of `input`, which stands at its start and is known to be compressed like this. If it is not any more, that is damage.
    pub(crate) fn compressed(compression: Compression, input: R) -> io::Result<Self> {
        let input = Cursor::new(Vec::new()).chain(input);
        Ok(Self(State::decoding(compression, input)?))
    }

    /// The content of `input`, which is known not to be compressed.
    pub(crate) fn plain(input: R) -> Self {
        Self(State::Plain(Cursor::new(Vec::new()).chain(input)))
    }

    /// How it is compressed, once something was read.
    pub(crate) fn compression(&self) -> Option<Compression> {
        match &self.0 {
            State::Gzip(_) => Some(Compression::Gzip),
            State::Zstd(_) => Some(Compression::Zstd),
            State::Unknown(..) | State::Plain(_) | State::Failed => None,
        }
    }

    /// How many bytes of compressed data it took to give what was given.
    pub(crate) fn bytes_taken(&self) -> u64 {
        let raw = match &self.0 {
            State::Gzip(decoder) => decoder.get_ref(),
            State::Zstd(decoder) => decoder.get_ref(),
            State::Unknown(..) | State::Plain(_) | State::Failed => return 0,
        };
        let ahead = raw.buffer().len() as u64;
        raw.get_ref().bytes.saturating_sub(ahead)
    }

    /// Reads the first bytes and chooses.
    fn recognise(&mut self) -> io::Result<()> {
        let State::Unknown(start, input) = &mut self.0 else {
            return Ok(());
        };
        let missing = MAGIC - start.len();
        // What came before an error is kept.
        input.take(missing as u64).read_to_end(start)?;
        let State::Unknown(start, input) = mem::replace(&mut self.0, State::Failed) else {
            return Ok(());
        };
        let compression = Compression::of(&start);
        let input = Cursor::new(start).chain(input);
        self.0 = match compression {
            None => State::Plain(input),
            Some(compression) => State::decoding(compression, input)?,
        };
        Ok(())
    }
}

impl<R: Read> State<R> {
    fn decoding(compression: Compression, input: Start<R>) -> io::Result<Self> {
        let raw = Raw {
            input,
            bytes: 0,
            has_failed: false,
        };
        let raw = BufReader::with_capacity(BUFFER, raw);
        Ok(match compression {
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(raw))),
            Compression::Zstd => {
                let mut decoder = Decoder::with_buffer(raw)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recognise()?;
        let (read, raw, compression) = match &mut self.0 {
            State::Plain(input) => return input.read(buffer),
            State::Gzip(decoder) => {
                let read = decoder.read(buffer);
                (read, decoder.get_mut().get_mut(), Compression::Gzip)
            }
            State::Zstd(decoder) => {
                let read = decoder.read(buffer);
                (read, decoder.get_mut().get_mut(), Compression::Zstd)
            }
            State::Unknown(..) | State::Failed => {
                return Err(io::Error::other("it could not be read before"));
            }
        };
        let error = match read {
            Err(error) if !mem::take(&mut raw.has_failed) => error,
            read => return read,
        };
        let damage = Damage::new(compression, error, self.bytes_taken());
        self.0 = State::Failed;
        Err(io::Error::new(io::ErrorKind::InvalidData, damage))
    }
}

impl<R: Read> Read for Raw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer);
        self.has_failed = read.is_err();
        self.bytes += *read.as_ref().unwrap_or(&0) as u64;
        read
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Gives a byte at a time, and before each has nothing.
    struct Trickle<'a> {
        bytes: &'a [u8],
        is_ready: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.is_ready = !self.is_ready;
            if self.is_ready {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let size = buffer.len().min(1);
            self.bytes.read(&mut buffer[..size])
        }
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::encode_all(content, 3).unwrap()
    }

    /// What is read to the end, and the error that ends it.
    fn read(input: impl Read) -> (Vec<u8>, Option<io::Error>) {
        let mut content = Content::new(input);
        let (mut whole, mut piece) = (Vec::new(), [0; 100]);
        loop {
            match content.read(&mut piece) {
                Ok(0) => return (whole, None),
                Ok(count) => whole.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return (whole, Some(error)),
            }
        }
    }

    #[test]
    fn members_and_frames_are_read_one_behind_the_other() {
        let (one, two) = (b"a,b\n1,2\n".repeat(9_000), b"3,4\n".to_vec());
        let skipped = [0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7].to_vec();
        let both = [one.clone(), two.clone()].concat();
        for (input, expected) in [
            ([gzip(&one), gzip(&two)].concat(), &both),
            ([zstd(&one), zstd(&two)].concat(), &both),
            ([skipped, zstd(&one), zstd(b""), zstd(&two)].concat(), &both),
            ([gzip(b""), gzip(&two)].concat(), &two),
            (gzip(b""), &Vec::new()),
            (both.clone(), &both),
            (Vec::new(), &Vec::new()),
            (b"a".to_vec(), &b"a".to_vec()),
        ] {
            for found in [
                read(input.as_slice()),
                read(Trickle {
                    bytes: &input,
                    is_ready: false,
                }),
            ] {
                assert!(found.1.is_none(), "{:?}", found.1);
                assert!(found.0 == *expected);
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_an_error_of_its_own() {
        let rows: Vec<u8> = (0..20_000u32)
            .flat_map(|row| row.to_string().into_bytes())
            .collect();
        for whole in [gzip(&rows), zstd(&rows)] {
            for end in [5, 10, whole.len() / 2, whole.len() - 1] {
                let (found, error) = read(&whole[..end]);
                let error = error.unwrap();
                assert!(
                    Damage::of(&error).is_some() && error.to_string().contains("cut off"),
                    "{error}"
                );
                assert!(rows.starts_with(&found));
            }
            let mut broken = whole.clone();
            let middle = whole.len() / 2;
            broken[middle..middle + 40].fill(0xff);
            assert!(Damage::of(&read(broken.as_slice()).1.unwrap()).is_some());
            let behind = [whole.as_slice(), b"a,b\n1,2\n"].concat();
            let (found, error) = read(behind.as_slice());
            assert!(Damage::of(&error.unwrap()).is_some() && found == rows);
        }
    }

    #[test]
    fn no_changed_bit_goes_unnoticed() {
        let rows: Vec<u8> = (0..100u32)
            .flat_map(|row| format!("{row},{}\n", row * row).into_bytes())
            .collect();
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(&rows).unwrap();
        for whole in [gzip(&rows), encoder.finish().unwrap()] {
            let (mut noticed, bits) = (0, (whole.len() - MAGIC) * 8);
            for bit in MAGIC * 8..whole.len() * 8 {
                let mut changed = whole.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                // A few bits of a header say nothing about the content, such as its time.
                match read(changed.as_slice()) {
                    (_, Some(error)) => noticed += usize::from(Damage::of(&error).is_some()),
                    (found, None) => assert!(found == rows, "bit {bit}"),
                }
            }
            assert!(noticed + 64 >= bits, "{noticed} of {bits}");
        }
    }

    #[test]
    fn an_input_that_cannot_be_read_is_not_damaged() {
        struct Broken<'a>(&'a [u8]);
        impl Read for Broken<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(io::Error::other("the disk is gone")),
                    count => Ok(count),
                }
            }
        }
        let content = b"a,b\n1,2\n".repeat(9_000);
        for whole in [gzip(&content), zstd(&content), content.clone()] {
            let (_, error) = read(Broken(&whole[..whole.len() / 2]));
            let error = error.unwrap();
            assert!(Damage::of(&error).is_none(), "{error}");
            assert_eq!(error.to_string(), "the disk is gone");
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_refused_and_says_how_to_go_on() {
        // A frame of one raw block, whose header asks for a window of 2^(10 + exponent).
        let frame = |exponent: u8| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 0x21, 0, 0];
            frame.extend(b"a\n1\n");
            frame
        };
        let (found, error) = read(frame(17).as_slice());
        assert!(error.is_none() && found == b"a\n1\n", "{error:?}");
        let error = read(frame(18).as_slice()).1.unwrap();
        assert!(error.to_string().contains("--long=28"), "{error}");
        let hint = Damage::of(&error).unwrap().hint();
        assert!(hint.contains("zstd -d --long=31"), "{hint}");
    }

    #[test]
    fn too_few_bytes_are_not_compressed() {
        for start in [&[0x1f, 0x8b][..], &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f]] {
            let (found, error) = read(start);
            assert!(error.is_none() && found == start, "{error:?}");
        }
    }

    #[test]
    fn what_was_taken_is_told() {
        let whole = gzip(&b"a,b\n1,2\n".repeat(50_000));
        let mut content = Content::new(whole.as_slice());
        assert_eq!(content.compression(), None);
        io::copy(&mut content, &mut io::sink()).unwrap();
        assert_eq!(content.compression(), Some(Compression::Gzip));
        assert_eq!(content.bytes_taken(), whole.len() as u64);
    }
}
