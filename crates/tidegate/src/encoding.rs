//! Inputs in other encodings than UTF-8: read as the UTF-8 that they say.
//!
//! All that is said of an input from here on (positions, lengths, digests) is of that text, not of the file's own bytes. What is no text in
//! its encoding is an error, and never replaced by something that is.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How much is decoded at once.
const BUFFER: usize = 64 * 1024;

/// So many bytes tell UTF-16 by its byte order mark.
const MARK: usize = 2;

/// The encoding with this name, by the labels of the WHATWG encoding standard; `None` is UTF-8, which needs nothing done.
pub(crate) fn parse(name: &str) -> Result<Option<&'static Encoding>, String> {
    match Encoding::for_label(name.as_bytes()) {
        Some(encoding) if encoding == UTF_8 => Ok(None),
        Some(encoding) => Ok(Some(encoding)),
        None => Err(format!(
            "there is no encoding {name:?}: known are utf-8, utf-16le, utf-16be, windows-1252 (latin1), iso-8859-15, shift_jis and the other labels of the \
             WHATWG encoding standard"
        )),
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
    Undecided,
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
}

impl<R: Read> Text<R> {
    /// The text of `input`, whose encoding is as said, or else UTF-8, unless a byte order mark says UTF-16.
    pub(crate) fn new(input: R, encoding: Option<&'static Encoding>) -> Self {
        Self {
            input,
            state: match encoding {
                None => State::Undecided,
                Some(encoding) => State::Decoding(Box::new(Decoding::new(encoding))),
            },
            start: Vec::new(),
            given: 0,
        }
    }

    /// The encoding, if it is another one than UTF-8, as far as that was found out.
    pub(crate) fn encoding(&self) -> Option<&'static Encoding> {
        match &self.state {
            State::Decoding(decoding) => Some(decoding.encoding),
            State::Undecided | State::Plain => None,
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.input
    }

    /// Looks at the first bytes.
    fn decide(&mut self) -> io::Result<()> {
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
        let encoding = match self.start.as_slice() {
            [0xff, 0xfe] => Some(UTF_16LE),
            [0xfe, 0xff] => Some(UTF_16BE),
            _ => None,
        };
        self.state = match encoding {
            None => State::Plain,
            Some(encoding) => {
                let mut decoding = Decoding::new(encoding);
                // The mark is no part of the text, and not decoded.
                decoding.byte = self.start.len() as u64;
                self.start.clear();
                State::Decoding(Box::new(decoding))
            }
        };
        Ok(())
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if matches!(self.state, State::Undecided) {
            self.decide()?;
        }
        if self.given < self.start.len() {
            let count = buffer.len().min(self.start.len() - self.given);
            buffer[..count].copy_from_slice(&self.start[self.given..self.given + count]);
            self.given += count;
            return Ok(count);
        }
        match &mut self.state {
            State::Decoding(decoding) => decoding.read(&mut self.input, buffer),
            State::Undecided | State::Plain => self.input.read(buffer),
        }
    }
}

impl Decoding {
    fn new(encoding: &'static Encoding) -> Self {
        Self {
            encoding,
            decoder: encoding.new_decoder_with_bom_removal(),
            raw: vec![0; BUFFER],
            rest: 0..0,
            text: vec![0; BUFFER],
            ready: 0..0,
            byte: 0,
            has_ended: false,
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
        let source = &self.raw[self.rest.clone()];
        let decoded =
            self.decoder
                .decode_to_utf8_without_replacement(source, &mut self.text, self.has_ended);
        let (result, read, written) = decoded;
        self.rest.start += read;
        self.byte += read as u64;
        self.ready = 0..written;
        match result {
            DecoderResult::InputEmpty => Ok(written > 0 || !self.has_ended),
            DecoderResult::OutputFull => Ok(true),
            DecoderResult::Malformed(length, behind) => {
                let at = self
                    .byte
                    .saturating_sub(u64::from(length) + u64::from(behind));
                let message = format!(
                    "what stands at byte {at} is no text in {}",
                    self.encoding.name()
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
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
        let mut text = Text::new(Dribble(bytes, false), parse(encoding).unwrap());
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
        assert!(parse("klingon").unwrap_err().contains("no encoding"));
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
}
