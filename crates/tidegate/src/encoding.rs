//! Inputs in other encodings than UTF-8: read as the UTF-8 that they say.
//!
//! All that is said of an input from here on (positions, lengths, digests) is of that text, not of the file's own bytes. What is no text in
//! its encoding is an error, and never replaced by something that is.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16LE};

/// How much is decoded at once.
const BUFFER: usize = 64 * 1024;

/// So many bytes show any byte order mark.
const MARK: usize = 3;

/// What was said of an input's encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NamedEncoding {
    /// UTF-8, or nothing: UTF-16 where a byte order mark says so.
    #[default]
    Utf8,
    /// UTF-16 in the byte order that its mark says; little-endian without one, as the WHATWG encoding standard has it.
    Utf16,
    /// This one and no other.
    Exactly(&'static Encoding),
}

impl NamedEncoding {
    /// The encoding with this name, by the labels of the WHATWG encoding standard.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        match Encoding::for_label(name.as_bytes()) {
            Some(encoding) if encoding == UTF_8 => Ok(Self::Utf8),
            // The standard reads this label as little-endian, for pages that say so falsely. A mark knows better.
            Some(_) if name.trim().eq_ignore_ascii_case("utf-16") => Ok(Self::Utf16),
            Some(encoding) => Ok(Self::Exactly(encoding)),
            None => Err(format!(
                "there is no encoding {name:?}: known are utf-8, utf-16, utf-16le, utf-16be, windows-1252 (latin1), iso-8859-15, shift_jis and the other \
                 labels of the WHATWG encoding standard"
            )),
        }
    }

    /// The name that stands for all of its labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf16 => "utf-16",
            Self::Exactly(encoding) => encoding.name(),
        }
    }

    /// What an input is read in that begins with the mark of another encoding, or with none; `None` is UTF-8, which needs nothing done.
    fn with_mark(self, mark: Option<&'static Encoding>) -> io::Result<Option<&'static Encoding>> {
        let (named, chosen) = match (self, mark) {
            (Self::Utf8, mark) => return Ok(mark.filter(|encoding| *encoding != UTF_8)),
            (Self::Utf16, None) => return Ok(Some(UTF_16LE)),
            (Self::Utf16, Some(mark)) => ("UTF-16", (mark != UTF_8).then_some(mark)),
            (Self::Exactly(named), mark) => {
                let agrees = mark.is_none_or(|mark| mark == named);
                (named.name(), agrees.then_some(named))
            }
        };
        if let (None, Some(mark)) = (chosen, mark) {
            let mark = mark.name();
            let message = format!(
                "it begins with the byte order mark of {mark}, but --encoding says {named}: without --encoding the mark is followed"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(chosen)
    }
}

impl From<Option<&'static Encoding>> for NamedEncoding {
    /// An encoding that was found out before.
    fn from(encoding: Option<&'static Encoding>) -> Self {
        encoding.map_or(Self::Utf8, Self::Exactly)
    }
}

/// The text of an input.
pub(crate) struct Text<R> {
    input: R,
    state: State,
    /// What was read to find out the encoding, and is given first.
    start: Vec<u8>,
    given: usize,
}

enum State {
    /// The first bytes are yet to be seen.
    Undecided(NamedEncoding),
    /// The input is its text.
    Plain,
    Decoding(Box<Decoding>),
}

struct Decoding {
    encoding: &'static Encoding,
    decoder: Decoder,
    raw: Vec<u8>,
    /// The part of `raw` that is not decoded yet.
    rest: std::ops::Range<usize>,
    text: Vec<u8>,
    /// The part of `text` that was not given yet.
    ready: std::ops::Range<usize>,
    /// Bytes of the input before `rest`.
    byte: u64,
    has_ended: bool,
    /// How it came to its end: nothing more is decoded, and whoever asks again is told the same.
    end: Option<Result<(), String>>,
}

impl<R: Read> Text<R> {
    /// The text of `input`, in the encoding that was named, which its byte order mark must not contradict.
    pub(crate) fn new(input: R, named: NamedEncoding) -> Self {
        Self {
            input,
            state: State::Undecided(named),
            start: Vec::new(),
            given: 0,
        }
    }

    /// The encoding, if it is another one than UTF-8, as far as that was found out.
    pub(crate) fn encoding(&self) -> Option<&'static Encoding> {
        match &self.state {
            State::Decoding(decoding) => Some(decoding.encoding),
            State::Undecided(_) | State::Plain => None,
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.input
    }

    /// Looks at the first bytes.
    fn decide(&mut self, named: NamedEncoding) -> io::Result<()> {
        while self.start.len() < MARK {
            let mut buffer = [0; MARK];
            let missing = MARK - self.start.len();
            match self.input.read(&mut buffer[..missing]) {
                Ok(0) => break,
                Ok(count) => self.start.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let (mark, length) = match Encoding::for_bom(&self.start) {
            Some((mark, length)) => (Some(mark), length),
            None => (None, 0),
        };
        self.state = match named.with_mark(mark)? {
            None => State::Plain,
            Some(encoding) => {
                let start = std::mem::take(&mut self.start);
                State::Decoding(Box::new(Decoding::new(encoding, &start, length)))
            }
        };
        Ok(())
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let State::Undecided(named) = self.state {
            self.decide(named)?;
        }
        if self.given < self.start.len() {
            let count = buffer.len().min(self.start.len() - self.given);
            buffer[..count].copy_from_slice(&self.start[self.given..self.given + count]);
            self.given += count;
            return Ok(count);
        }
        match &mut self.state {
            State::Decoding(decoding) => decoding.read(&mut self.input, buffer),
            State::Undecided(_) | State::Plain => self.input.read(buffer),
        }
    }
}

impl Decoding {
    /// Decodes what follows upon `start`, whose first `mark` bytes are a byte order mark: no part of the text.
    fn new(encoding: &'static Encoding, start: &[u8], mark: usize) -> Self {
        let mut raw = vec![0; BUFFER];
        raw[..start.len()].copy_from_slice(start);
        Self {
            encoding,
            decoder: encoding.new_decoder_without_bom_handling(),
            raw,
            rest: mark..start.len(),
            text: vec![0; BUFFER],
            ready: 0..0,
            byte: mark as u64,
            has_ended: false,
            end: None,
        }
    }

    fn read(&mut self, input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.ready.is_empty() {
            if self.rest.is_empty() && !self.has_ended {
                let count = input.read(&mut self.raw)?;
                (self.rest, self.has_ended) = (0..count, count == 0);
            }
            if !self.decode()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.ready.len());
        let from = self.ready.start;
        buffer[..count].copy_from_slice(&self.text[from..from + count]);
        self.ready.start += count;
        Ok(count)
    }

    /// Decodes what was read; says whether anything can still come.
    fn decode(&mut self) -> io::Result<bool> {
        match &self.end {
            None => {}
            Some(Ok(())) => return Ok(false),
            Some(Err(why)) => return Err(io::Error::new(io::ErrorKind::InvalidData, why.clone())),
        }
        let source = &self.raw[self.rest.clone()];
        let decoded =
            self.decoder
                .decode_to_utf8_without_replacement(source, &mut self.text, self.has_ended);
        let (result, read, written) = decoded;
        self.rest.start += read;
        self.byte += read as u64;
        self.ready = 0..written;
        match result {
            DecoderResult::InputEmpty => {
                self.end = self.has_ended.then_some(Ok(()));
                Ok(written > 0 || !self.has_ended)
            }
            DecoderResult::OutputFull => Ok(true),
            DecoderResult::Malformed(length, behind) => {
                let at = self
                    .byte
                    .saturating_sub(u64::from(length) + u64::from(behind));
                let message = format!(
                    "what stands at byte {at} is no text in {}",
                    self.encoding.name()
                );
                self.end = Some(Err(message));
                // What stands before it is given first.
                if written > 0 { Ok(true) } else { self.decode() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time, and has nothing every other time.
    struct Dribble<'a>(&'a [u8], bool);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = self.0.len().min(1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read(bytes: &[u8], encoding: &str) -> io::Result<String> {
        let mut text = Text::new(
            Dribble(bytes, false),
            NamedEncoding::parse(encoding).unwrap(),
        );
        let (mut all, mut buffer) = (Vec::new(), [0; 3]);
        loop {
            match text.read(&mut buffer) {
                Ok(0) => return Ok(String::from_utf8(all).unwrap()),
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn texts_are_read_in_their_encodings() {
        assert_eq!(read(b"\xe9t\xe9", "latin1").unwrap(), "été");
        assert_eq!(read(b"\xa4", "iso-8859-15").unwrap(), "€");
        let text = "a,é,😀\n";
        assert_eq!(read(text.as_bytes(), "utf-8").unwrap(), text);
        for (bytes, name) in [
            (utf_16(text, u16::to_le_bytes), "utf-16le"),
            (utf_16(text, u16::to_be_bytes), "utf-16be"),
            (
                utf_16(&format!("\u{feff}{text}"), u16::to_le_bytes),
                "utf-8",
            ),
            (
                utf_16(&format!("\u{feff}{text}"), u16::to_be_bytes),
                "utf-8",
            ),
        ] {
            assert_eq!(read(&bytes, name).unwrap(), text, "{name}");
        }
        assert_eq!(read(b"", "utf-8").unwrap(), "");
        assert_eq!(read(b"x", "utf-8").unwrap(), "x");
        let unknown = NamedEncoding::parse("klingon").unwrap_err();
        assert!(unknown.contains("no encoding"), "{unknown}");
    }

    #[test]
    fn a_byte_order_mark_is_followed_where_nothing_contradicts_it() {
        let text = "a,é\n";
        let marked = format!("\u{feff}{text}");
        let little = utf_16(&marked, u16::to_le_bytes);
        let big = utf_16(&marked, u16::to_be_bytes);
        for (bytes, name) in [
            (&little, "utf-16"),
            (&big, "UTF-16"),
            (&utf_16(text, u16::to_le_bytes), "utf-16"),
            (&little, "utf-16le"),
            (&big, "utf-16be"),
        ] {
            assert_eq!(read(bytes, name).unwrap(), text, "{name}");
        }
        // A second mark is text: a space of no width.
        let twice = utf_16(&format!("\u{feff}{marked}"), u16::to_be_bytes);
        assert_eq!(read(&twice, "utf-16").unwrap(), marked);
        for (bytes, name, mark) in [
            (big.as_slice(), "utf-16le", "UTF-16BE"),
            (&little, "utf-16be", "UTF-16LE"),
            (&little, "latin1", "UTF-16LE"),
            (marked.as_bytes(), "latin1", "UTF-8"),
            (marked.as_bytes(), "utf-16", "UTF-8"),
        ] {
            let error = read(bytes, name).unwrap_err().to_string();
            let expected = format!("begins with the byte order mark of {mark}, but --encoding");
            assert!(error.contains(&expected), "{name}: {error}");
        }
    }

    #[test]
    fn what_is_no_text_is_an_error_with_its_place() {
        let error = read(b"ab\x00\xd8ab\x00", "utf-16le").unwrap_err();
        assert!(
            error.to_string().contains("byte 2 is no text in UTF-16LE"),
            "{error}"
        );
        let error = read(b"ok \x81\x20", "shift_jis").unwrap_err();
        assert!(
            error.to_string().contains("byte 3 is no text in Shift_JIS"),
            "{error}"
        );
        assert!(read(b"a\x00b", "utf-16le").is_err(), "cut off");
    }

    #[test]
    fn who_asks_again_is_told_the_same() {
        for (bytes, expected) in [
            (&b"a\x00"[..], None),
            (b"a\x00b", Some("byte 2 is no text")),
            (b"a\x00\x00\xd8b\x00", Some("byte 2 is no text")),
        ] {
            let mut text = Text::new(bytes, NamedEncoding::Utf16);
            let mut all = Vec::new();
            let first = text
                .read_to_end(&mut all)
                .map_err(|error| error.to_string());
            let again = text.read(&mut [0; 4]).map_err(|error| error.to_string());
            match expected {
                None => assert_eq!((first, again), (Ok(1), Ok(0))),
                Some(why) => {
                    assert!(
                        again.as_ref().is_err_and(|error| error.contains(why)),
                        "{again:?}"
                    );
                    assert_eq!(first.unwrap_err(), again.unwrap_err());
                    assert_eq!(all, b"a", "what stands before it");
                }
            }
        }
    }
}
