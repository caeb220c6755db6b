//! Compressed inputs: gzip, zstd, bzip2 and xz, known by their first bytes whatever the file is called, and read as what is in them.
//!
//! All members of a gzip file, frames of a zstd file and streams of the others are read, one behind the other. What the input cannot give at present
//! ([`WouldBlock`](io::ErrorKind::WouldBlock)) and what goes wrong when it is read is handed on; data that cannot be decompressed is an error
//! of its own. Checksums stand at the end of a member or frame: what was given before that may yet turn out to be wrong.

mod steps;

use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::mem;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;
use zstd::zstd_safe;

use steps::{Bzip2, Stepwise, TooLarge, Xz};

/// How much compressed data is read at once.
const BUFFER: usize = 64 * 1024;

/// So many bytes tell how an input is compressed, at most.
const MAGIC: usize = 10;

/// The largest window of a zstd frame, as a power of two: 128 MiB, which is what the zstd command itself takes without being told more.
const WINDOW_LOG_MAX: u32 = 27;

/// How an input is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// The bytes from one to another, both included.
type Bytes = std::ops::RangeInclusive<u8>;

const fn only(byte: u8) -> Bytes {
    byte..=byte
}

/// How each of them begins.
const MAGICS: &[(Compression, &[Bytes])] = &[
    (
        Compression::Gzip,
        &[only(0x1f), only(0x8b), 0..=0xff, 0..=0xff],
    ),
    (
        Compression::Zstd,
        &[only(0x28), only(0xb5), only(0x2f), only(0xfd)],
    ),
    // A frame to be skipped, which some programs write first.
    (
        Compression::Zstd,
        &[0x50..=0x5f, only(0x2a), only(0x4d), only(0x18)],
    ),
    (
        Compression::Xz,
        &[
            only(0xfd),
            only(b'7'),
            only(b'z'),
            only(b'X'),
            only(b'Z'),
            only(0),
        ],
    ),
    // The letters alone might be the name of a column: behind them stands how a block begins, or how a stream ends that has none.
    (Compression::Bzip2, &bzip2_magic(*b"1AY&SY")),
    (
        Compression::Bzip2,
        &bzip2_magic([0x17, 0x72, 0x45, 0x38, 0x50, 0x90]),
    ),
];

const fn bzip2_magic(next: [u8; 6]) -> [Bytes; MAGIC] {
    let [one, two, three, four, five, six] = next;
    [
        only(b'B'),
        only(b'Z'),
        only(b'h'),
        b'1'..=b'9',
        only(one),
        only(two),
        only(three),
        only(four),
        only(five),
        only(six),
    ]
}

impl Compression {
    /// How data is compressed that begins like this; `Err` if so many more bytes of it may tell.
    fn of(start: &[u8]) -> Result<Option<Self>, usize> {
        let mut missing: Option<usize> = None;
        for (compression, magic) in MAGICS {
            let fits = start.iter().zip(*magic).all(|(byte, of)| of.contains(byte));
            if fits && start.len() >= magic.len() {
                return Ok(Some(*compression));
            }
            if fits {
                let more = magic.len() - start.len();
                missing = Some(missing.map_or(more, |least| least.min(more)));
            }
        }
        missing.map_or(Ok(None), Err)
    }

    /// What its data consists of.
    fn part(self) -> &'static str {
        match self {
            Self::Gzip => "member",
            Self::Zstd => "frame",
            Self::Bzip2 | Self::Xz => "stream",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        })
    }
}

/// The format of data that begins like this and cannot be read here, and the command that decompresses it.
pub(crate) fn unsupported(start: &[u8]) -> Option<(&'static str, &'static str)> {
    match start {
        [b'P', b'K', 3, 4, ..] => Some(("zip", "unzip -p")),
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
    /// It is sound as far as can be told, and of a kind that is not read.
    Unread(io::Error),
    Broken(io::Error),
}

impl Damage {
    fn new(compression: Compression, error: io::Error, byte: u64) -> Self {
        let fault = if error.kind() == io::ErrorKind::UnexpectedEof {
            Fault::CutOff
        } else if error.to_string() == window_error()
            || error.get_ref().is_some_and(|cause| cause.is::<TooLarge>())
        {
            Fault::Window
        } else if error.to_string().contains("supported") {
            // The xz decoder's word for what it leaves out, a check or a chain of filters; its header has a checksum of its own.
            Fault::Unread(error)
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
            Fault::Window if self.compression == Compression::Zstd => {
                "decompress it first, with `zstd -d --long=31`, or compress it without --long"
                    .to_owned()
            }
            Fault::Window | Fault::Unread(_) => format!(
                "decompress it first, with `{name} -dc`, or compress it with `{name} -9`",
                name = self.compression
            ),
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
            Fault::Window if self.compression == Compression::Xz => write!(
                f,
                "the {name} data has a block near byte {byte} that needs {TooLarge}"
            ),
            Fault::Unread(error) => write!(
                f,
                "the {name} data has a {part} near byte {byte} of a kind that is not read: {error}"
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
    Gzip(Box<MultiGzDecoder<Compressed<R>>>),
    Zstd(Box<Decoder<'static, Compressed<R>>>),
    Bzip2(Box<Stepwise<Bzip2, Compressed<R>>>),
    Xz(Box<Stepwise<Xz, Compressed<R>>>),
    /// It ended with an error, which has been told.
    Failed,
}

/// An input with its first bytes put back.
type Start<R> = Chain<Cursor<Vec<u8>>, R>;

/// Compressed data, as decoders take it.
type Compressed<R> = BufReader<Raw<R>>;

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
            State::Bzip2(_) => Some(Compression::Bzip2),
            State::Xz(_) => Some(Compression::Xz),
            State::Unknown(..) | State::Plain(_) | State::Failed => None,
        }
    }

    /// How many bytes of compressed data it took to give what was given.
    pub(crate) fn bytes_taken(&self) -> u64 {
        let raw = match &self.0 {
            State::Gzip(decoder) => decoder.get_ref(),
            State::Zstd(decoder) => decoder.get_ref(),
            State::Bzip2(decoder) => decoder.get_ref(),
            State::Xz(decoder) => decoder.get_ref(),
            State::Unknown(..) | State::Plain(_) | State::Failed => return 0,
        };
        let ahead = raw.buffer().len() as u64;
        raw.get_ref().bytes.saturating_sub(ahead)
    }

    /// Reads the first bytes and chooses. No more of them are asked for than can tell: a pipe may have no others for long.
    fn recognise(&mut self) -> io::Result<()> {
        let State::Unknown(start, input) = &mut self.0 else {
            return Ok(());
        };
        let compression = loop {
            let missing = match Compression::of(start) {
                Ok(compression) => break compression,
                Err(missing) => missing as u64,
            };
            let before = start.len();
            // What came before an error is kept.
            input.take(missing).read_to_end(start)?;
            if start.len() == before {
                break None;
            }
        };
        let State::Unknown(start, input) = mem::replace(&mut self.0, State::Failed) else {
            return Ok(());
        };
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
            Compression::Bzip2 => Self::Bzip2(Box::new(Stepwise::new(Bzip2::new(), raw))),
            Compression::Xz => Self::Xz(Box::new(Stepwise::new(Xz::new(), raw))),
        })
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recognise()?;
        let Some(compression) = self.compression() else {
            return match &mut self.0 {
                State::Plain(input) => input.read(buffer),
                _ => Err(io::Error::other("it could not be read before")),
            };
        };
        let (read, raw) = match &mut self.0 {
            State::Gzip(decoder) => (decoder.read(buffer), decoder.get_mut()),
            State::Zstd(decoder) => (decoder.read(buffer), decoder.get_mut()),
            State::Bzip2(decoder) => (decoder.read(buffer), decoder.get_mut()),
            State::Xz(decoder) => (decoder.read(buffer), decoder.get_mut()),
            State::Unknown(..) | State::Plain(_) | State::Failed => return Ok(0),
        };
        let raw = raw.get_mut();
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
    use std::num::NonZeroU64;

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

    fn bzip2(content: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// With the check that the xz command takes, in blocks of 64 KiB.
    fn xz(content: &[u8]) -> Vec<u8> {
        let mut options = lzma_rust2::XzOptions::with_preset(1);
        options.set_check_sum_type(lzma_rust2::CheckType::Crc64);
        options.set_block_size(NonZeroU64::new(64 * 1024));
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
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
            ([bzip2(&one), bzip2(&two)].concat(), &both),
            ([bzip2(b""), bzip2(b""), bzip2(&two)].concat(), &two),
            ([xz(&one), xz(&two)].concat(), &both),
            ([xz(b""), vec![0; 8], xz(&two), vec![0; 4]].concat(), &two),
            (gzip(b""), &Vec::new()),
            (bzip2(b""), &Vec::new()),
            (xz(b""), &Vec::new()),
            (b"BZh91AY&S,b\n".to_vec(), &b"BZh91AY&S,b\n".to_vec()),
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
        for whole in [gzip(&rows), zstd(&rows), bzip2(&rows), xz(&rows)] {
            for end in [MAGIC, 14, whole.len() / 2, whole.len() - 1] {
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
        // Behind what tells the format: data that begins otherwise is not compressed.
        for whole in [
            gzip(&rows),
            encoder.finish().unwrap(),
            bzip2(&rows),
            xz(&rows),
        ] {
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
        for whole in [
            gzip(&content),
            zstd(&content),
            bzip2(&content),
            xz(&content),
            content.clone(),
        ] {
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
        for start in [
            &[0x1f, 0x8b][..],
            &[0x1f, 0x8b, 8],
            &[0x28, 0xb5, 0x2f],
            b"\xfd7zXZ",
            b"BZh91AY&S",
        ] {
            let (found, error) = read(start);
            assert!(error.is_none() && found == start, "{error:?}");
        }
    }

    #[test]
    fn a_dictionary_that_is_too_large_is_refused_before_it_is_made() {
        let packed = |dictionary: u32| {
            let mut options = lzma_rust2::XzOptions::with_preset(0);
            options.lzma_options.dict_size = dictionary;
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            encoder.write_all(b"a\n1\n").unwrap();
            encoder.finish().unwrap()
        };
        let (found, error) = read(packed(128 << 20).as_slice());
        assert!(error.is_none() && found == b"a\n1\n", "{error:?}");
        let error = read(packed(192 << 20).as_slice()).1.unwrap();
        assert!(error.to_string().contains("more than 128 MiB"), "{error}");
        let hint = Damage::of(&error).unwrap().hint();
        assert!(hint.contains("`xz -dc`"), "{hint}");
    }

    /// A block that was changed by two filters before it was compressed, which no tool does unless it is told to.
    #[test]
    fn what_is_not_read_is_not_called_damage() {
        let mut options = lzma_rust2::XzOptions::with_preset(0);
        for kind in [
            lzma_rust2::FilterType::Delta,
            lzma_rust2::FilterType::BcjX86,
        ] {
            options.prepend_pre_filter(kind, u32::from(kind == lzma_rust2::FilterType::Delta));
        }
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        encoder.write_all(b"a\n1\n").unwrap();
        let error = read(encoder.finish().unwrap().as_slice()).1.unwrap();
        assert!(error.to_string().contains("that is not read"), "{error}");
        let hint = Damage::of(&error).unwrap().hint();
        assert!(hint.contains("`xz -dc`"), "{hint}");
    }

    #[test]
    fn a_start_is_given_as_soon_as_it_can_be_no_magic() {
        struct Four<'a>(&'a [u8]);
        impl Read for Four<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => Ok(count),
                }
            }
        }
        let mut content = Content::new(Four(b"a\n1\n"));
        let mut found = [0; 4];
        content.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"a\n1\n");
    }

    #[test]
    fn what_was_taken_is_told() {
        let content = b"a,b\n1,2\n".repeat(50_000);
        for (whole, compression) in [
            (gzip(&content), Compression::Gzip),
            (zstd(&content), Compression::Zstd),
            (bzip2(&content), Compression::Bzip2),
            (xz(&content), Compression::Xz),
        ] {
            let mut content = Content::new(whole.as_slice());
            assert_eq!(content.compression(), None);
            io::copy(&mut content, &mut io::sink()).unwrap();
            assert_eq!(content.compression(), Some(compression));
            assert_eq!(content.bytes_taken(), whole.len() as u64);
        }
    }
}
