//! The reader: a source of bytes, a window into it, and the splitter, put together.

use std::borrow::Cow;
use std::io::{ErrorKind as IoErrorKind, Read};

use memchr::memchr2;

use super::buffer::Buffer;
use super::format::show_byte;
use super::row::show_text;
use super::split::{Fault, FaultKind, Found, Splitter, count_line_ends, line_end, unescape_into};
use super::{BadRow, BadRowKind, CsvFormat, Header, Position, Row};
use crate::error::ErrorPosition;
use crate::limits::KEPT_OF_OVERSIZED;
use crate::{Error, ErrorKind, Result};

/// What [`RowReader::next`] gives.
#[derive(Debug)]
pub enum ReadRow<'a> {
    /// A row with as many fields as the header.
    Row(Row<'a>),
    /// Bytes that are no row, counted as one.
    Bad(BadRow),
    /// The input has nothing at present: it answered [`WouldBlock`](IoErrorKind::WouldBlock). The next call asks it again.
    Idle,
    /// The input has ended.
    End,
}

/// Reads rows from a source of bytes.
///
/// ```
/// use tidegate_core::read::{CsvFormat, ReadRow, RowReader};
///
/// let input = "id,name\n1,\"Ada, Countess\"\n2\n";
/// let mut reader = RowReader::open(input.as_bytes(), CsvFormat::default())?;
/// assert_eq!(reader.header().names(), ["id", "name"]);
///
/// let ReadRow::Row(row) = reader.next()? else { panic!("the first row is sound") };
/// assert_eq!(row.field(1), b"Ada, Countess");
/// let ReadRow::Bad(bad) = reader.next()? else { panic!("the second row is short") };
/// assert_eq!((bad.row, bad.line), (2, 3));
/// assert!(matches!(reader.next()?, ReadRow::End));
/// # Ok::<(), tidegate_core::Error>(())
/// ```
#[derive(Debug)]
pub struct RowReader<R> {
    input: R,
    max_row_size: usize,
    quote: u8,
    header: Header,
    buffer: Buffer,
    splitter: Splitter,
    /// Where the row that was given last starts; its raw bytes are `raw_len`, its line end `line_end` long.
    start: Position,
    raw_len: usize,
    line_end: usize,
    line: u64,
    rows: u64,
    blank_lines: u64,
    /// The input paused inside a row, whose beginning the splitter has seen.
    is_mid_row: bool,
    /// Of a bad row: how many of its fields, from the first on, were read before the fault.
    sound_fields: usize,
}

/// What [`RowReader::advance`] came to, with nothing borrowed: the row itself is [`RowReader::current`].
pub(crate) enum Advance {
    Row,
    /// Boxed, so that the common outcome is handed on in registers.
    Bad(Box<BadRow>),
    Idle,
    End,
}

/// What [`RowReader::split`] came to.
enum Split {
    Found(Found),
    Idle,
    End,
}

impl Advance {
    #[cold]
    fn bad(row: BadRow) -> Self {
        Self::Bad(Box::new(row))
    }
}

impl<R: Read> RowReader<R> {
    /// Opens an input at its start: skips a UTF-8 byte order mark and blank lines, and reads the header.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] for a format that cannot be, [`ErrorKind::EmptyInput`] for an input without even a header, [`ErrorKind::BadRow`]
    /// for a header that is not UTF-8, names a column twice or has a fault in its quotes, and for an input in UTF-16,
    /// [`ErrorKind::Input`] when reading fails.
    pub fn open(input: R, format: CsvFormat) -> Result<Self> {
        format.check()?;
        let mut reader = Self::bare(input, &format, Position::START);
        reader.skip_byte_order_mark()?;
        let header = reader.read_header()?;
        reader.splitter.keep_fields(header.len() + 1);
        reader.header = header;
        reader.rows = 0;
        reader.blank_lines = 0;
        Ok(reader)
    }

    /// Goes on at `position`, to which `input` was already brought: from [`Position::START`] as [`open`](Self::open) does,
    /// with a check that the header is still `header`; from elsewhere without reading a header.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::InputChanged`] when the header found is another one.
    pub fn resume(
        input: R,
        format: CsvFormat,
        header: &Header,
        position: Position,
    ) -> Result<Self> {
        if position.byte == 0 {
            let reader = Self::open(input, format)?;
            if reader.header != *header {
                let message = format!(
                    "the header has changed: it was {}, it is {}",
                    show_text(header.names().join(",").as_bytes()),
                    show_text(reader.header.names().join(",").as_bytes())
                );
                return Err(Error::new(ErrorKind::InputChanged, message));
            }
            return Ok(reader);
        }
        format.check()?;
        let mut reader = Self::bare(input, &format, position);
        reader.splitter.keep_fields(header.len() + 1);
        reader.header = header.clone();
        Ok(reader)
    }

    fn bare(input: R, format: &CsvFormat, position: Position) -> Self {
        Self {
            input,
            max_row_size: format.max_row_size,
            quote: format.quote,
            header: Header::none(),
            buffer: Buffer::new(position.byte),
            splitter: Splitter::new(format.delimiter, format.quote),
            start: position,
            raw_len: 0,
            line_end: 0,
            line: position.line,
            rows: position.row,
            blank_lines: 0,
            is_mid_row: false,
            sound_fields: 0,
        }
    }

    /// The header of the input.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the next row starts.
    #[inline]
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            byte: self.buffer.byte(),
            line: self.line,
            row: self.rows,
        }
    }

    /// Blank lines skipped so far, since the position the reader started at.
    #[must_use]
    pub fn blank_lines(&self) -> u64 {
        self.blank_lines
    }

    /// The next row, borrowed until the one after is read.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when reading fails. What is wrong with a row is no error but a [`ReadRow::Bad`].
    #[expect(
        clippy::should_implement_trait,
        reason = "a row borrows from the reader, which an Iterator's item cannot"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<ReadRow<'_>> {
        Ok(match self.advance()? {
            Advance::Row => ReadRow::Row(self.current()),
            Advance::Bad(bad) => ReadRow::Bad(*bad),
            Advance::Idle => ReadRow::Idle,
            Advance::End => ReadRow::End,
        })
    }

    /// The row that [`next`](Self::next) gave last. Means nothing after a bad row or the end.
    #[inline]
    pub(crate) fn current(&self) -> Row<'_> {
        let raw = self
            .buffer
            .behind(self.raw_len + self.line_end, self.raw_len);
        Row {
            data: if self.splitter.has_doubled_quotes() {
                self.splitter.unescaped()
            } else {
                raw
            },
            bounds: self.splitter.bounds(),
            raw,
            ascii: self.splitter.ascii(),
            start: self.start,
            end: self.position(),
        }
    }

    /// How many bytes the reader holds room for.
    #[cfg(test)]
    pub(super) fn buffer_size(&self) -> usize {
        self.buffer.capacity()
    }

    /// A field of the bad row that was given last, if it stands before the fault.
    pub(crate) fn sound_field(&self, bad: &BadRow, index: usize) -> Option<Vec<u8>> {
        if index >= self.sound_fields {
            return None;
        }
        let bounds = self.splitter.bounds().get(index)?;
        let text = bad.raw.get(bounds.start..bounds.end)?;
        let mut field = Vec::with_capacity(text.len());
        unescape_into(&mut field, text, self.quote);
        Some(field)
    }

    /// Reads on to the next row: what [`next`](Self::next) does, for callers that hold the reader as one of their parts.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Advance> {
        loop {
            if !self.is_mid_row {
                self.splitter.begin();
                self.start = self.position();
            }
            let found = match self.split()? {
                Split::Found(found) => found,
                Split::Idle => {
                    self.is_mid_row = true;
                    return Ok(Advance::Idle);
                }
                Split::End => return Ok(Advance::End),
            };
            self.is_mid_row = false;
            let (Found::Row { len, line_end }, None) = (found, self.splitter.fault()) else {
                return self.faulty(found).map(Advance::bad);
            };
            if len == 0 && self.header.len() != 1 {
                self.buffer.consume(line_end);
                self.line += 1;
                self.blank_lines += 1;
                continue;
            }
            if len > self.max_row_size {
                return Ok(Advance::bad(self.whole_bad_row(
                    len,
                    line_end,
                    BadRowKind::TooLarge,
                    None,
                    self.size_reason(),
                )));
            }
            if self.splitter.fields() != self.header.len() && self.header.len() != 0 {
                return Ok(Advance::bad(self.ragged(len, line_end)));
            }
            if self.splitter.has_doubled_quotes() {
                self.splitter.unescape(&self.buffer.bytes()[..len]);
            }
            self.take(len, line_end);
            return Ok(Advance::Row);
        }
    }

    /// Finds the end of the row that starts at the window's start. A row over the size limit comes out as
    /// [`Found::Broken`] or as a row that is longer than the limit.
    #[inline]
    fn split(&mut self) -> Result<Split> {
        // A line end behind the largest row still fits. Cut here, what is found does not depend on how much happens to be buffered.
        let widest = self.max_row_size + 2;
        loop {
            let limit = self.buffer.len().min(widest);
            let is_last = self.buffer.at_end_of_input() && limit < widest;
            if is_last && limit == 0 {
                return Ok(Split::End);
            }
            if let Some(found) = self.splitter.advance(self.buffer.padded(), limit, is_last) {
                return Ok(Split::Found(found));
            }
            if limit == widest {
                return Ok(Split::Found(self.splitter.cut(limit)));
            }
            if !self.fill()? {
                return Ok(Split::Idle);
            }
        }
    }

    /// Reads more of the input, or finds its end. `false`: it has nothing at present.
    fn fill(&mut self) -> Result<bool> {
        match self.buffer.fill(&mut self.input) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == IoErrorKind::WouldBlock => Ok(false),
            Err(error) => {
                let at = self.buffer.byte() + self.buffer.len() as u64;
                let message = format!("cannot read the input at byte {at}");
                Err(Error::input(message, error))
            }
        }
    }

    /// As [`fill`](Self::fill), but asks again until the input has something: where there is nothing else to do meanwhile.
    fn fill_at_last(&mut self) -> Result<()> {
        while !self.fill()? {}
        Ok(())
    }

    /// Moves behind the row and its line end.
    #[inline]
    fn take(&mut self, len: usize, line_end: usize) {
        if self.splitter.has_quotes() {
            self.line += count_line_ends(&self.buffer.bytes()[..len]);
        }
        self.raw_len = len;
        self.line_end = line_end;
        self.buffer.consume(len + line_end);
        self.line += u64::from(line_end > 0);
        self.rows += 1;
    }

    /// A bad row that ends where it should.
    fn whole_bad_row(
        &mut self,
        len: usize,
        line_end: usize,
        kind: BadRowKind,
        column: Option<String>,
        reason: String,
    ) -> BadRow {
        let kept = if len > self.max_row_size {
            KEPT_OF_OVERSIZED.min(len)
        } else {
            len
        };
        let raw = self.buffer.bytes()[..kept].to_vec();
        self.take(len, line_end);
        self.bad_row(kind, column, reason, raw, len as u64)
    }

    fn bad_row(
        &self,
        kind: BadRowKind,
        column: Option<String>,
        reason: String,
        raw: Vec<u8>,
        raw_len: u64,
    ) -> BadRow {
        BadRow {
            row: self.start.row + 1,
            line: self.start.line,
            byte: self.start.byte,
            column,
            kind,
            reason,
            raw,
            raw_len,
        }
    }

    #[cold]
    fn ragged(&mut self, len: usize, line_end: usize) -> BadRow {
        let found = self.splitter.fields();
        let expected = self.header.len();
        self.sound_fields = found.min(expected);
        let fields = |count: usize| {
            if count == 1 {
                "1 field".to_owned()
            } else {
                format!("{count} fields")
            }
        };
        let (column, detail) = if found < expected {
            let missing = self.header.names()[found].clone();
            let detail = format!("`{missing}` is the first column without one");
            (missing, detail)
        } else {
            let last = self.header.names()[expected - 1].clone();
            let bounds = self.splitter.bounds()[expected];
            let extra = show_text(&self.buffer.bytes()[bounds.start..bounds.end]);
            let detail = format!("the first one too many, behind `{last}`, is {extra}");
            (last, detail)
        };
        let reason = format!("expected {}, found {found}: {detail}", fields(expected));
        self.whole_bad_row(len, line_end, BadRowKind::Ragged, Some(column), reason)
    }

    /// A row with a fault in its quotes, or one that was cut by the size limit.
    #[cold]
    fn faulty(&mut self, found: Found) -> Result<BadRow> {
        let fault = self
            .splitter
            .fault()
            .expect("a row without a fault is no bad row, and a broken one has a fault");
        let (kind, column, reason) = self.explain(fault);
        match found {
            Found::Row { len, line_end } => {
                Ok(self.whole_bad_row(len, line_end, kind, column, reason))
            }
            Found::Broken { open } => self.broken_row(open, kind, column, reason),
        }
    }

    /// What a fault is, for people.
    fn explain(&mut self, fault: Fault) -> (BadRowKind, Option<String>, String) {
        self.sound_fields = fault.field;
        let names = self.header.names();
        let column = names.get(fault.field).or(names.last()).cloned();
        let bytes = self.buffer.bytes();
        let quote = show_byte(self.quote);
        let line = self.start.line + count_line_ends(&bytes[..fault.at]);
        let around = &bytes[fault.at.saturating_sub(20)..bytes.len().min(fault.at + 20)];
        let around = show_text(
            around
                .split(|byte| matches!(byte, b'\n' | b'\r'))
                .find(|part| part.contains(&self.quote))
                .unwrap_or(around),
        );
        let reason = match fault.kind {
            FaultKind::BareQuote => format!(
                "expected no {quote} inside a field that does not begin with one, found {around} on line {line}: enclose the field in quotes and double the quotes in it"
            ),
            FaultKind::TextAfterQuote => {
                format!(
                    "expected a delimiter or a line end after the closing {quote}, found {around} on line {line}"
                )
            }
            FaultKind::TextAfterDistantQuote => format!(
                "expected a closing {quote} for the one opened on line {line} ({around}), found the next one on a later line with text right behind it"
            ),
            FaultKind::Unclosed => {
                format!(
                    "expected a closing {quote} for the one opened on line {line} ({around}), found none"
                )
            }
            FaultKind::TooLarge => return (BadRowKind::TooLarge, None, self.size_reason()),
        };
        (BadRowKind::Quotes, column, reason)
    }

    fn size_reason(&self) -> String {
        format!(
            "expected at most {} bytes in a row, found more",
            self.max_row_size
        )
    }

    /// A bad row that ends where the line ends on which byte `from` stands, wherever that is; held in memory is no more than the size limit.
    #[cold]
    fn broken_row(
        &mut self,
        from: usize,
        kind: BadRowKind,
        column: Option<String>,
        reason: String,
    ) -> Result<BadRow> {
        let lines_before = count_line_ends(&self.buffer.bytes()[..from]);
        let mut raw = Vec::new();
        let mut given_up: u64 = 0;
        let mut search = from;
        let (len, line_end) = loop {
            let bytes = self.buffer.bytes();
            let is_last = self.buffer.at_end_of_input();
            match memchr2(b'\n', b'\r', &bytes[search..]) {
                Some(found) => {
                    let at = search + found;
                    if let Some(line_end) = line_end(bytes, at, bytes.len(), is_last) {
                        break (at, line_end);
                    }
                    search = at;
                }
                None if is_last => break (bytes.len(), 0),
                None => search = bytes.len(),
            }
            if search > self.max_row_size {
                keep(&mut raw, &bytes[..search]);
                given_up += search as u64;
                self.buffer.consume(search);
                search = 0;
            }
            self.fill_at_last()?;
        };
        let raw_len = given_up + len as u64;
        let rest = &self.buffer.bytes()[..len];
        if raw_len > self.max_row_size as u64 {
            keep(&mut raw, rest);
        } else {
            raw.extend_from_slice(rest);
        }
        self.buffer.consume(len + line_end);
        self.line += lines_before + u64::from(line_end > 0);
        self.rows += 1;
        Ok(self.bad_row(kind, column, reason, raw, raw_len))
    }

    fn skip_byte_order_mark(&mut self) -> Result<()> {
        while self.buffer.len() < 3 && !self.buffer.at_end_of_input() {
            self.fill_at_last()?;
        }
        let bytes = self.buffer.bytes();
        if bytes.starts_with(b"\xef\xbb\xbf") {
            self.buffer.consume(3);
        } else if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(self.header_error(
                "the input is in UTF-16, going by its first two bytes: convert it to UTF-8 first, for example with `iconv -f UTF-16 -t UTF-8`",
                None,
            ));
        }
        Ok(())
    }

    fn read_header(&mut self) -> Result<Header> {
        let mut advance = self.advance()?;
        while matches!(advance, Advance::Idle) {
            advance = self.advance()?;
        }
        match advance {
            Advance::Row | Advance::Idle => {}
            Advance::Bad(bad) => {
                let message = format!("the header cannot be read: {}", bad.reason);
                return Err(self.header_error(message, bad.column));
            }
            Advance::End => return Err(Error::empty_input()),
        }
        let mut names = Vec::with_capacity(self.splitter.fields());
        for (index, name) in self.current().fields().enumerate() {
            let Ok(name) = str::from_utf8(name) else {
                let message = format!(
                    "the name of column {} is not UTF-8: {}",
                    index + 1,
                    show_text(name)
                );
                return Err(self.header_error(message, None));
            };
            names.push(name.to_owned());
        }
        Header::new(names).map_err(|error| self.header_error(error.message().to_owned(), None))
    }

    fn header_error(&self, message: impl Into<Cow<'static, str>>, column: Option<String>) -> Error {
        let position = ErrorPosition {
            byte: self.start.byte,
            line: self.start.line,
            row: 0,
            column,
        };
        Error::bad_row(message, position)
    }
}

/// Keeps the beginning of a row over the size limit.
fn keep(raw: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT_OF_OVERSIZED.saturating_sub(raw.len());
    raw.extend_from_slice(&bytes[..room.min(bytes.len())]);
}
