//! Decoders that are handed data piece by piece, bzip2's and xz's, read as what they give.
//!
//! Such a decoder keeps what it knows between two pieces, so an input that has nothing at present can be asked again later. A piece of which it
//! takes nothing, and for which it gives nothing, would be handed to it for ever: that is damage.

use std::fmt;
use std::io::{self, BufRead, Read};

use bzip2::Decompress;
use lzma_rust2::{Action, XzStream};

/// The largest dictionary of an xz block in KiB: 128 MiB, as for zstd. The xz command makes 64 MiB at most without being told more.
const DICTIONARY_MAX: u32 = 128 * 1024;

/// What the xz decoder counts on top of the dictionary, in KiB: its tables.
const TABLES: u32 = 40;

/// A decoder of data that comes in pieces.
pub(super) trait Steps {
    /// Takes of `input` and gives to `output` as much as it can. An empty `input` has no meaning of its own.
    ///
    /// # Errors
    ///
    /// What is wrong with the data.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step>;

    /// Goes on behind the end of the input.
    ///
    /// # Errors
    ///
    /// What is wrong with the data; it being cut off is [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
    fn finish(&mut self, output: &mut [u8]) -> io::Result<usize>;

    /// How many bytes it has taken since it was made, also by a step that failed.
    fn taken(&self) -> u64;
}

/// What a step came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Bytes that were given.
    given: usize,
    /// Something changed without a byte: a stream ended or began.
    has_turned: bool,
}

/// The content of `input`, which `decoder` decompresses.
pub(super) struct Stepwise<D, R> {
    decoder: D,
    input: R,
    /// The last step filled all it was given room for, so there may be more without another byte of input.
    is_full: bool,
}

impl<D: Steps, R: BufRead> Stepwise<D, R> {
    pub(super) fn new(decoder: D, input: R) -> Self {
        Self {
            decoder,
            input,
            is_full: false,
        }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.input
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }
}

impl<D: Steps, R: BufRead> Read for Stepwise<D, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.is_full {
            // Asked before the input is, which may have nothing for long.
            let step = self.decoder.step(&[], buffer)?;
            self.is_full = step.given == buffer.len();
            if step.given > 0 {
                return Ok(step.given);
            }
        }
        loop {
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return self.decoder.finish(buffer);
            }
            let (before, length) = (self.decoder.taken(), piece.len());
            let step = self.decoder.step(piece, buffer);
            // Also of a step that failed: the error says up to where all was read.
            let taken = usize::try_from(self.decoder.taken() - before).unwrap_or(usize::MAX);
            self.input.consume(taken.min(length));
            let step = step?;
            if step.given > 0 {
                self.is_full = step.given == buffer.len();
                return Ok(step.given);
            }
            if taken == 0 && !step.has_turned {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "its decoder does not get any further",
                ));
            }
        }
    }
}

fn cut_off() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// Decompresses all streams of bzip2 data, one behind the other.
pub(super) struct Bzip2 {
    /// The open stream; none between two.
    stream: Option<Decompress>,
    /// Bytes of the streams that ended.
    taken: u64,
}

impl Bzip2 {
    pub(super) fn new() -> Self {
        Self {
            stream: Some(Decompress::new(false)),
            taken: 0,
        }
    }
}

impl Steps for Bzip2 {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step> {
        if self.stream.is_none() && input.is_empty() {
            return Ok(Step {
                given: 0,
                has_turned: false,
            });
        }
        let stream = self.stream.get_or_insert_with(|| Decompress::new(false));
        let before = stream.total_out();
        let status = stream.decompress(input, output)?;
        let given = usize::try_from(stream.total_out() - before).map_err(io::Error::other)?;
        let has_turned = status == bzip2::Status::StreamEnd;
        if has_turned {
            self.taken += stream.total_in();
            self.stream = None;
        }
        Ok(Step { given, has_turned })
    }

    fn finish(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match self.step(&[], output)? {
            Step {
                given: 0,
                has_turned: false,
            } if self.stream.is_some() => Err(cut_off()),
            step => Ok(step.given),
        }
    }

    fn taken(&self) -> u64 {
        let open = self.stream.as_ref().map_or(0, Decompress::total_in);
        self.taken + open
    }
}

/// Decompresses all streams of xz data, one behind the other, with what fills them up between.
pub(super) struct Xz(XzStream);

impl Xz {
    pub(super) fn new() -> Self {
        Self(XzStream::new_mem_limit(true, DICTIONARY_MAX + TABLES))
    }

    fn process(&mut self, input: &[u8], output: &mut [u8], action: Action) -> io::Result<Step> {
        match self.0.process(input, output, action) {
            Ok(result) => Ok(Step {
                given: result.bytes_produced,
                has_turned: result.status == lzma_rust2::Status::StreamEnd,
            }),
            Err(_) if self.0.memory_usage() > Some(self.0.mem_limit()) => {
                Err(io::Error::new(io::ErrorKind::OutOfMemory, TooLarge))
            }
            Err(error) => Err(error),
        }
    }
}

impl Steps for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step> {
        self.process(input, output, Action::Run)
    }

    fn finish(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match self.process(&[], output, Action::Finish)? {
            Step {
                given: 0,
                has_turned: false,
            } => Err(cut_off()),
            step => Ok(step.given),
        }
    }

    fn taken(&self) -> u64 {
        self.0.total_in()
    }
}

/// A block of xz data asks for a dictionary of more than 128 MiB.
#[derive(Debug)]
pub(super) struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dictionary of more than 128 MiB")
    }
}

impl std::error::Error for TooLarge {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it is asked for, and takes nothing for it.
    struct Stuck;

    impl Steps for Stuck {
        fn step(&mut self, _: &[u8], _: &mut [u8]) -> io::Result<Step> {
            Ok(Step {
                given: 0,
                has_turned: false,
            })
        }

        fn finish(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }

        fn taken(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_decoder_that_does_not_move_ends_with_an_error() {
        let error = Stepwise::new(Stuck, &b"data"[..]).read(&mut [0; 8]);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Stepwise::new(Stuck, &b""[..]).read(&mut [0; 8]).unwrap(), 0);
    }

    /// What is inside the decoder is given before the input is asked for more.
    #[test]
    fn what_was_taken_is_given_without_another_byte() {
        struct Silent<'a>(&'a [u8]);
        impl Read for Silent<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => Ok(count),
                }
            }
        }
        let content = b"0123456789".repeat(1_000);
        let mut packed = Vec::new();
        let mut encoder =
            bzip2::read::BzEncoder::new(content.as_slice(), bzip2::Compression::best());
        encoder.read_to_end(&mut packed).unwrap();
        let input = io::BufReader::new(Silent(&packed));
        let mut decoder = Stepwise::new(Bzip2::new(), input);
        let (mut found, mut piece) = (Vec::new(), [0; 7]);
        let ended = loop {
            match decoder.read(&mut piece) {
                Ok(count) => found.extend_from_slice(&piece[..count]),
                Err(error) => break error,
            }
        };
        assert_eq!(ended.kind(), io::ErrorKind::WouldBlock);
        assert!(found == content);
    }
}
