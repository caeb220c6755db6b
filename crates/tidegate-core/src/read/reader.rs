//! The reader: a source of bytes, a window into it, and the splitter, put together.

use std::io::{ErrorKind as IoErrorKind, Read};

use memchr::memchr2;

use super::buffer::Buffer;
use super::format::show_byte;
use super::row::show_text;
use super::split::{Fault, FaultKind, Found, Specials, Splitter, count_line_ends, line_end};
use super::trail::Trail;
use super::{
    BadRow, BadRowKind, CsvFormat, Header, Mark, Marks, Place, Position, Ragged, ReadCounts, Row,
    Start,
};
use crate::digest::PrefixDigest;
use crate::error::ErrorPosition;
use crate::limits::KEPT_OF_OVERSIZED;
use crate::position::{InputEnd, LineEnd, OpenQuote};
use crate::{Error, ErrorKind, Result};

mod opening;

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
    specials: Specials,
    quote: Option<u8>,
    comment: Option<u8>,
    ragged: Ragged,
    header: Header,
    buffer: Buffer,
    splitter: Splitter,
    /// Where the row that was given last starts; its raw bytes are `raw_len`, its line end `line_end` long.
    start: Position,
    raw_len: usize,
    line_end: usize,
    line: u64,
    rows: u64,
    counts: ReadCounts,
    /// The row that was given last was evened out.
    is_evened: bool,
    /// The input paused inside a row, whose beginning the splitter has seen.
    is_mid_row: bool,
    /// Of a bad row: how many of its fields, from the first on, were read before the fault.
    sound_fields: usize,
    /// The digest of the input, where it is wanted.
    trail: Option<Trail>,
    /// The input ended in a row, which was held.
    is_held: bool,
    /// The first row whose quote only the end of the input ended.
    open_quote: Option<OpenQuote>,
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
        Self::begin(input, &format, Start::default())
    }

    fn begin(input: R, format: &CsvFormat, start: Start) -> Result<Self> {
        format.check()?;
        let (hold_last, position) = (start.hold_last, start.position);
        let mut reader = Self::bare(input, format, start);
        reader.skip_byte_order_mark()?;
        let header = reader.read_header(format)?;
        reader.splitter.keep_fields(header.len() + 1);
        reader.header = header;
        reader.rows = position.row;
        reader.counts = ReadCounts::default();
        if hold_last {
            reader.buffer.hold_last();
        }
        if hold_last && reader.line_end == 0 && format.has_header {
            // It may not be the whole header yet.
            (reader.start, reader.line) = (position, position.line);
            reader.hold();
        }
        Ok(reader)
    }

    /// Goes on at `position`, to which `input` was already brought: from its first byte as [`open`](Self::open) does,
    /// with a check that the header is still `header`; from elsewhere without reading a header. Rows are counted from `position` on.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::InputChanged`] when the header found is another one.
    pub fn resume(
        input: R,
        format: CsvFormat,
        header: &Header,
        position: Position,
    ) -> Result<Self> {
        let start = Start {
            position,
            ..Start::default()
        };
        Self::go_on(input, &format, header, start)
    }

    /// As [`resume`](Self::resume), with all that a load knows of the place.
    pub(crate) fn go_on(
        input: R,
        format: &CsvFormat,
        header: &Header,
        start: Start,
    ) -> Result<Self> {
        if start.position.byte == 0 {
            let mut reader = Self::begin(input, format, start)?;
            if reader.is_held {
                reader.header = header.clone();
            }
            if reader.header != *header {
                let message = format!(
                    "the header is another one: it must be {}, it is {}",
                    show_text(header.names().join(",").as_bytes()),
                    show_text(reader.header.names().join(",").as_bytes())
                );
                return Err(Error::new(ErrorKind::InputChanged, message));
            }
            return Ok(reader);
        }
        format.check()?;
        let (line_end, hold_last) = (start.end.line_end, start.hold_last);
        let mut reader = Self::bare(input, format, start);
        if hold_last {
            reader.buffer.hold_last();
        }
        reader.splitter.keep_fields(header.len() + 1);
        reader.header = header.clone();
        reader.begin_behind(line_end)?;
        Ok(reader)
    }

    fn bare(input: R, format: &CsvFormat, start: Start) -> Self {
        let Start { position, end, .. } = start;
        let before = (end.line_end == LineEnd::CarriageReturn).then_some(b'\r');
        Self {
            input,
            max_row_size: format.max_row_size,
            specials: Specials::of(format),
            quote: format.quote,
            comment: format.comment,
            ragged: format.ragged,
            header: Header::none(),
            buffer: Buffer::new(position.byte, before),
            splitter: Splitter::new(format),
            start: position,
            raw_len: 0,
            line_end: usize::from(end.line_end != LineEnd::Missing),
            line: position.line,
            rows: position.row,
            counts: ReadCounts::default(),
            is_evened: false,
            is_mid_row: false,
            sound_fields: 0,
            trail: start.hasher.map(Trail::new),
            is_held: false,
            open_quote: end.open_quote,
        }
    }

    /// The input had ended here, right behind a row or in it: what it has grown by must not make that another row.
    fn begin_behind(&mut self, line_end_then: LineEnd) -> Result<()> {
        if line_end_then == LineEnd::Whole {
            return Ok(());
        }
        while self.buffer.len() < 2 && !self.buffer.has_ended() {
            self.fill_at_last(None)?;
        }
        let bytes = self.buffer.bytes();
        let Some(first) = bytes.first() else {
            return Ok(());
        };
        if line_end_then == LineEnd::CarriageReturn {
            if *first == b'\n' {
                self.buffer.consume(1);
            }
            return Ok(());
        }
        let Some(line_end) = Some(*first)
            .filter(|first| matches!(first, b'\n' | b'\r'))
            .and_then(|_| line_end(bytes, 0, bytes.len(), true))
        else {
            let message = "it had no line end when it was loaded, and what the input has grown by continues it";
            let position = ErrorPosition {
                byte: self.start.byte,
                line: self.line,
                row: self.rows,
                column: None,
            };
            return Err(Error::new(ErrorKind::InputChanged, message).at(position));
        };
        self.buffer.consume(line_end);
        self.line_end = line_end;
        self.line += 1;
        Ok(())
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

    /// The place the reader has come to.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            position: self.position(),
            counts: self.counts,
        }
    }

    /// The start of the row that was given last.
    pub(crate) fn mark_before(&self) -> Mark {
        Mark {
            position: self.start,
            counts: ReadCounts {
                evened_rows: self.counts.evened_rows - u64::from(self.is_evened),
                ..self.counts
            },
        }
    }

    /// What a position says of the input at `mark`, which the reader has come to, or which was among the marks it was to keep.
    pub(crate) fn place(&mut self, mark: Mark) -> Result<Place> {
        let Mark { position, counts } = mark;
        let trail = self.trail.as_mut();
        let prefix = trail.and_then(|trail| trail.at(&self.buffer, position.byte));
        let Some(prefix) = prefix else {
            let message = format!(
                "there is no digest of the input up to byte {}",
                position.byte
            );
            return Err(Error::internal(message));
        };
        let is_here = position.byte == self.buffer.byte();
        let end = InputEnd {
            line_end: if is_here && !self.is_held {
                self.line_end_behind()
            } else {
                LineEnd::Whole
            },
            open_quote: self
                .open_quote
                .filter(|quote| quote.row.byte < position.byte),
            is_held: self.is_held,
            ..InputEnd::default()
        };
        Ok(Place {
            input: position,
            prefix,
            counts,
            end,
        })
    }

    /// The digest of all that was given.
    pub(crate) fn digest(&mut self) -> Option<PrefixDigest> {
        let byte = self.buffer.byte();
        self.trail.as_mut()?.at(&self.buffer, byte)
    }

    /// What stands behind the row that was given last.
    fn line_end_behind(&self) -> LineEnd {
        if self.line_end == 0 {
            LineEnd::Missing
        } else if self.buffer.len() == 0 && self.buffer.byte_before() == Some(b'\r') {
            LineEnd::CarriageReturn
        } else {
            LineEnd::Whole
        }
    }

    /// What was passed over or evened out so far, since the position the reader started at.
    #[must_use]
    pub fn counts(&self) -> ReadCounts {
        self.counts
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
        Ok(match self.advance(None)? {
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
        self.specials.unescape_into(&mut field, text);
        Some(field)
    }

    /// Reads on to the next row: what [`next`](Self::next) does, for callers that hold the reader as one of their parts. The digests up to `marks` are kept.
    #[inline]
    pub(crate) fn advance(&mut self, marks: Option<&Marks>) -> Result<Advance> {
        loop {
            if !self.is_mid_row {
                if self.comment.is_some() {
                    self.skip_comments(marks)?;
                }
                self.splitter.begin();
                self.start = self.position();
            }
            let found = match self.split(marks)? {
                Split::Found(found) => found,
                Split::Idle => {
                    self.is_mid_row = true;
                    return Ok(Advance::Idle);
                }
                Split::End => return Ok(Advance::End),
            };
            self.is_mid_row = false;
            let (Found::Row { len, line_end }, None) = (found, self.splitter.fault()) else {
                return self.faulty(found, marks);
            };
            if len == 0 && self.header.len() != 1 {
                self.buffer.consume(line_end);
                self.line += 1;
                self.counts.blank_lines += 1;
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
            self.is_evened = false;
            if self.splitter.fields() != self.header.len() && self.header.len() != 0 {
                if !self.splitter.even_out(self.header.len(), self.ragged) {
                    return Ok(Advance::bad(self.ragged(len, line_end)));
                }
                self.is_evened = true;
                self.counts.evened_rows += 1;
            }
            if self.splitter.has_doubled_quotes() {
                self.splitter.unescape(&self.buffer.bytes()[..len]);
            }
            self.take(len, line_end);
            return Ok(Advance::Row);
        }
    }

    /// Passes over lines that begin with the comment's byte.
    #[cold]
    fn skip_comments(&mut self, marks: Option<&Marks>) -> Result<()> {
        loop {
            if self.buffer.len() == 0 && !self.buffer.has_ended() {
                self.start = self.position();
                self.fill_at_last(marks)?;
            }
            if self.buffer.bytes().first().copied() != self.comment {
                return Ok(());
            }
            self.start = self.position();
            let line_end = loop {
                let bytes = self.buffer.bytes();
                let is_last = self.buffer.has_ended();
                let found = memchr2(b'\n', b'\r', bytes);
                let at = found.unwrap_or(bytes.len());
                match found.map(|at| line_end(bytes, at, bytes.len(), is_last)) {
                    Some(Some(line_end)) => {
                        self.buffer.consume(at);
                        break line_end;
                    }
                    None if is_last => {
                        self.buffer.consume(at);
                        break 0;
                    }
                    // What was seen of a long line needs no place.
                    None | Some(None) => self.buffer.consume(at),
                }
                self.fill_at_last(marks)?;
            };
            self.buffer.consume(line_end);
            self.line_end = line_end;
            self.line += u64::from(line_end > 0);
            self.counts.comment_lines += 1;
        }
    }

    /// Finds the end of the row that starts at the window's start. A row over the size limit comes out as
    /// [`Found::Broken`] or as a row that is longer than the limit.
    #[inline]
    fn split(&mut self, marks: Option<&Marks>) -> Result<Split> {
        // A line end behind the largest row still fits. Cut here, what is found does not depend on how much happens to be buffered.
        let widest = self.max_row_size + 2;
        loop {
            let limit = self.buffer.len().min(widest);
            let is_last = self.buffer.is_final() && limit < widest;
            if is_last && limit == 0 {
                return Ok(Split::End);
            }
            if let Some(found) = self.splitter.advance(self.buffer.padded(), limit, is_last) {
                return Ok(Split::Found(found));
            }
            if limit == widest {
                return Ok(Split::Found(self.splitter.cut(limit)));
            }
            if self.buffer.has_ended() {
                if self.is_held_at(limit) {
                    return Ok(Split::End);
                }
            } else if !self.fill(marks)? {
                return Ok(Split::Idle);
            }
        }
    }

    /// The input ends, perhaps in a row, and such a row is to be held.
    #[cold]
    fn is_held_at(&mut self, limit: usize) -> bool {
        if self.splitter.waits_for_line_feed(self.buffer.bytes()) {
            // A carriage return may be half a line end; either way the row has ended.
            self.buffer.make_final();
            return false;
        }
        if limit > 0 {
            self.hold();
        }
        true
    }

    /// Ends the input before the row at hand.
    fn hold(&mut self) {
        self.is_held = true;
        if let Some(trail) = &mut self.trail {
            // Kept already if the window has left it behind.
            let _: Option<PrefixDigest> = trail.at(&self.buffer, self.start.byte);
        }
        self.buffer.end_at(self.start.byte);
        self.rows = self.start.row;
    }

    /// Reads more of the input, or finds its end. `false`: it has nothing at present.
    #[cold]
    fn fill(&mut self, marks: Option<&Marks>) -> Result<bool> {
        if let Some(trail) = &mut self.trail {
            // A load may have to stop before the row at hand, too.
            let row = self.start.byte;
            let (boundary, end) = marks.map_or((row, row), |marks| {
                (marks.boundary.position.byte, marks.end.position.byte)
            });
            trail.follow(&self.buffer, &mut [boundary, end, row]);
        }
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
    fn fill_at_last(&mut self, marks: Option<&Marks>) -> Result<()> {
        while !self.fill(marks)? {}
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
    fn faulty(&mut self, found: Found, marks: Option<&Marks>) -> Result<Advance> {
        let fault = self
            .splitter
            .fault()
            .expect("a row without a fault is no bad row, and a broken one has a fault");
        let (kind, column, reason) = self.explain(fault);
        let open = match found {
            Found::Row { len, line_end } => {
                let bad = self.whole_bad_row(len, line_end, kind, column, reason);
                return Ok(Advance::bad(bad));
            }
            Found::Broken { open } => open,
        };
        let size = self.buffer.len();
        if self.buffer.is_final() && size < self.max_row_size + 2 && self.splitter.has_come_to(size)
        {
            let length = self.buffer.byte() + size as u64;
            let row = self.start;
            self.open_quote.get_or_insert(OpenQuote { row, length });
        }
        Ok(match self.broken_row(open, marks)? {
            None => Advance::End,
            Some((raw, raw_len)) => Advance::bad(self.bad_row(kind, column, reason, raw, raw_len)),
        })
    }

    /// What a fault is, for people.
    fn explain(&mut self, fault: Fault) -> (BadRowKind, Option<String>, String) {
        self.sound_fields = fault.field;
        let names = self.header.names();
        let column = names.get(fault.field).or(names.last()).cloned();
        // What is shown must not depend on how much happens to be buffered either.
        let size = self.buffer.len().min(self.max_row_size + 2);
        let bytes = &self.buffer.bytes()[..size];
        let quote = show_byte(self.quote.unwrap_or(b'"'));
        let line = self.start.line + count_line_ends(&bytes[..fault.at]);
        let around = &bytes[fault.at.saturating_sub(20)..bytes.len().min(fault.at + 20)];
        let around = show_text(
            around
                .split(|byte| matches!(byte, b'\n' | b'\r'))
                .find(|part| part.iter().any(|byte| Some(*byte) == self.quote))
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

    /// Takes a bad row that ends where the line ends on which byte `from` stands, wherever that is; held in memory is no more than the size limit.
    /// Gives its raw bytes and their number; `None` if the input ends in it and it is held.
    #[cold]
    fn broken_row(&mut self, from: usize, marks: Option<&Marks>) -> Result<Option<(Vec<u8>, u64)>> {
        let lines_before = count_line_ends(&self.buffer.bytes()[..from]);
        let mut raw = Vec::new();
        let mut given_up: u64 = 0;
        let mut search = from;
        let (len, line_end) = loop {
            let bytes = self.buffer.bytes();
            let is_last = self.buffer.has_ended();
            match memchr2(b'\n', b'\r', &bytes[search..]) {
                Some(found) => {
                    let at = search + found;
                    if let Some(line_end) = line_end(bytes, at, bytes.len(), is_last) {
                        break (at, line_end);
                    }
                    search = at;
                }
                None if is_last && !self.buffer.is_final() => {
                    self.hold();
                    return Ok(None);
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
            self.fill_at_last(marks)?;
        };
        let raw_len = given_up + len as u64;
        let rest = &self.buffer.bytes()[..len];
        if raw_len > self.max_row_size as u64 {
            keep(&mut raw, rest);
        } else {
            raw.extend_from_slice(rest);
        }
        self.buffer.consume(len + line_end);
        self.line_end = line_end;
        self.line += lines_before + u64::from(line_end > 0);
        self.rows += 1;
        Ok(Some((raw, raw_len)))
    }
}

/// Keeps the beginning of a row over the size limit.
fn keep(raw: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT_OF_OVERSIZED.saturating_sub(raw.len());
    raw.extend_from_slice(&bytes[..room.min(bytes.len())]);
}
