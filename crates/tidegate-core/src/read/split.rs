//! The splitter: finds where a row and its fields end.
//!
//! It is written for the common row, which holds no quote: a block of bytes at a time is tested for the four bytes that matter, and fields are
//! bounds into the buffer, without copying. A quote switches to the careful states, until its row ends. Work goes on where it stopped when more
//! bytes arrive, so that no byte is looked at twice.
//!
//! The csv-core crate, the engine of the csv crate, is the model for what a row is, and the tests hold the two against each other on every
//! well-formed input; it is not used here because it never fails (so strict quotes need a second look at each row anyway) and because
//! its byte-wise automaton costs more than all the rest of the path together.

use memchr::{memchr, memchr2};

use super::row::FieldBounds;
use super::scan::{BLOCK, Scanner};
use super::{CsvFormat, Ragged};
use crate::limits::MAX_COLUMNS;

/// What was found from the start of a row on. Whether the row is sound, [`Splitter::fault`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The row ends after `len` bytes, with a line end of `line_end` bytes (0 at the end of the input).
    Row { len: usize, line_end: usize },
    /// The field whose quote opens at `open` does not end properly: the row is what stands up to the end of that line.
    Broken { open: usize },
}

/// What is wrong with a row: the first fault of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// The index of the field it is in: the fields before it are sound.
    pub(super) field: usize,
    /// Where the quote in question stands, from the start of the row.
    pub(super) at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A quote inside a field that does not start with one.
    BareQuote,
    /// Something other than a delimiter or a line end follows the closing quote; here on the line of the opening one.
    TextAfterQuote,
    /// As before, but the field began on an earlier line; `at` is the opening quote.
    TextAfterDistantQuote,
    /// The input, or what fits into the size limit, ends inside the quotes; `at` is the opening quote.
    Unclosed,
    /// The row does not fit into the size limit, and no quote is open.
    TooLarge,
}

/// Where in a row the splitter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside quotes.
    Plain,
    /// Inside the field whose opening quote stands at `open`.
    Quoted { open: usize },
}

/// What a state came to.
enum Next {
    /// Another state goes on from `at`.
    State,
    /// More bytes are needed.
    More,
    /// The row has ended.
    Found(Found),
}

/// Splits one row after the other. Offsets count from the start of the row.
#[derive(Debug)]
pub(super) struct Splitter {
    specials: Specials,
    trim: bool,
    /// There is more to look for than the four bytes.
    is_careful: bool,
    scanner: Scanner,
    /// The first `found` of them are fields of the row.
    bounds: Vec<FieldBounds>,
    found: usize,
    /// Fields beyond these are counted, not kept: a row of delimiters alone must not take 16 times its size.
    kept_fields: usize,
    surplus_fields: usize,
    /// The fields of a row with doubled quotes, unescaped, one behind the other.
    unescaped: Vec<u8>,
    state: State,
    /// Everything before has been looked at.
    at: usize,
    field_start: usize,
    /// Where what was escaped last ends: a blank before that is text.
    escaped_to: usize,
    fault: Option<Fault>,
    /// Where bytes were seen that are not ASCII, or-ed.
    high: u64,
    has_quotes: bool,
    has_doubled_quotes: bool,
}

impl Splitter {
    pub(super) fn new(format: &CsvFormat) -> Self {
        let CsvFormat {
            delimiter, trim, ..
        } = *format;
        Self {
            specials: Specials::of(format),
            trim,
            is_careful: trim || format.escape.is_some(),
            scanner: Scanner::new(delimiter, format.quote),
            bounds: Vec::new(),
            found: 0,
            kept_fields: MAX_COLUMNS + 1,
            surplus_fields: 0,
            unescaped: Vec::new(),
            state: State::Plain,
            at: 0,
            field_start: 0,
            escaped_to: 0,
            fault: None,
            high: 0,
            has_quotes: false,
            has_doubled_quotes: false,
        }
    }

    /// How many fields of a row are kept: one more than the header has, so that the first surplus one can be shown.
    pub(super) fn keep_fields(&mut self, count: usize) {
        self.kept_fields = count;
        self.bounds.truncate(count);
        self.found = self.found.min(count);
    }

    /// How many fields the row has, kept or not.
    #[inline]
    pub(super) fn fields(&self) -> usize {
        self.found + self.surplus_fields
    }

    /// Begins a new row.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.found = 0;
        self.surplus_fields = 0;
        self.state = State::Plain;
        self.at = 0;
        self.field_start = 0;
        self.escaped_to = 0;
        self.fault = None;
        self.high = 0;
        self.has_quotes = false;
        self.has_doubled_quotes = false;
    }

    /// The fields of the row, as bounds into its raw bytes, or into [`unescaped`](Self::unescape) once that was called.
    #[inline]
    pub(super) fn bounds(&self) -> &[FieldBounds] {
        &self.bounds[..self.found]
    }

    /// True when all bytes of the row are known to be ASCII.
    #[inline]
    pub(super) fn ascii(&self) -> bool {
        self.high == 0 && !self.has_quotes
    }

    /// True when a quote was seen in the row, so that it may hold line ends.
    #[inline]
    pub(super) fn has_quotes(&self) -> bool {
        self.has_quotes
    }

    /// True when the row's bounds mean the unescaped copy.
    #[inline]
    pub(super) fn has_doubled_quotes(&self) -> bool {
        self.has_doubled_quotes
    }

    /// The copy that [`unescape`](Self::unescape) made.
    pub(super) fn unescaped(&self) -> &[u8] {
        &self.unescaped
    }

    /// The first fault of the row.
    #[inline]
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether all bytes up to `limit` were looked at.
    pub(super) fn has_come_to(&self, limit: usize) -> bool {
        self.at == limit
    }

    /// Whether the row in `bytes` goes to their end, which is a carriage return behind its last field: only a line feed could still belong to it.
    pub(super) fn waits_for_line_feed(&self, bytes: &[u8]) -> bool {
        let behind = match self.state {
            State::Plain => 1,
            // Stands at the closing quote.
            State::Quoted { .. } => 2,
        };
        bytes.last() == Some(&b'\r') && self.at + behind == bytes.len()
    }

    /// Ends a row that goes on at `limit`, where the size limit cuts it: at the end of the line on which its open quote stands, or, when
    /// none is open, of the line at hand. A quote right at the limit, which may be the closing one, is given the benefit of the doubt.
    pub(super) fn cut(&mut self, limit: usize) -> Found {
        let (open, kind) = match self.state {
            State::Quoted { open } if self.at == limit => (open, FaultKind::Unclosed),
            // Being too large is the fault, whatever its quotes are.
            _ => {
                self.fault = None;
                (self.at, FaultKind::TooLarge)
            }
        };
        self.note(kind, open);
        Found::Broken { open }
    }

    /// Goes on with the row until it ends or the bytes do (then `None`). `bytes` starts where the row does and is readable for a block
    /// beyond `limit`; `is_last` says that nothing follows `limit`.
    #[inline]
    pub(super) fn advance(&mut self, bytes: &[u8], limit: usize, is_last: bool) -> Option<Found> {
        loop {
            let next = match self.state {
                State::Plain if self.is_careful => self.plain_carefully(bytes, limit, is_last),
                State::Plain => self.plain(bytes, limit, is_last),
                State::Quoted { open } => self.quoted(bytes, limit, is_last, open),
            };
            match next {
                Next::State => {}
                Next::More => return None,
                Next::Found(found) => return Some(found),
            }
        }
    }

    #[inline]
    fn plain(&mut self, bytes: &[u8], limit: usize, is_last: bool) -> Next {
        let mut block_at = self.at;
        while block_at < limit {
            let Some(block) = bytes[block_at..].first_chunk::<BLOCK>() else {
                debug_assert!(false, "the window is padded by a block");
                break;
            };
            let mut found = self.scanner.scan(block);
            if limit - block_at < BLOCK {
                let before_limit = (1 << (limit - block_at)) - 1;
                found.delimiters &= before_limit;
                found.others &= before_limit;
                found.high &= before_limit;
            }
            // The bits below the lowest one; all of them where there is none.
            let before = found.others.wrapping_sub(1) & !found.others;
            self.high |= found.high & before;
            self.push_all(block_at, found.delimiters & before);
            if found.others != 0 {
                let at = block_at + found.others.trailing_zeros() as usize;
                return if bytes[at] == b'\n' {
                    self.end_row(at, 1)
                } else {
                    self.rare(bytes, at, limit, is_last)
                };
            }
            block_at += BLOCK;
        }
        if is_last {
            return self.end_row(limit, 0);
        }
        self.at = limit;
        Next::More
    }

    /// Pushes the fields that end at delimiters, which are bits behind `from`.
    #[inline]
    fn push_all(&mut self, from: usize, mut delimiters: u64) {
        let (mut start, mut found) = (self.field_start, self.found);
        while delimiters != 0 {
            let Some(bounds) = self.bounds.get_mut(found) else {
                (self.field_start, self.found) = (start, found);
                return self.push_with_care(from, delimiters);
            };
            let end = from + delimiters.trailing_zeros() as usize;
            *bounds = FieldBounds { start, end };
            (start, found) = (end + 1, found + 1);
            delimiters &= delimiters - 1;
        }
        (self.field_start, self.found) = (start, found);
    }

    /// As [`push_all`](Self::push_all), where there is no room.
    #[cold]
    fn push_with_care(&mut self, from: usize, mut delimiters: u64) {
        while delimiters != 0 {
            let end = from + delimiters.trailing_zeros() as usize;
            self.push(self.field_start, end);
            self.field_start = end + 1;
            delimiters &= delimiters - 1;
        }
    }

    /// A quote or a carriage return outside quotes.
    #[cold]
    fn rare(&mut self, bytes: &[u8], at: usize, limit: usize, is_last: bool) -> Next {
        if Some(bytes[at]) == self.specials.quote {
            self.has_quotes = true;
            self.at = at + 1;
            if at == self.field_start {
                self.state = State::Quoted { open: at };
            } else {
                self.note(FaultKind::BareQuote, at);
            }
            return Next::State;
        }
        match line_end(bytes, at, limit, is_last) {
            Some(line_end) => self.end_row(at, line_end),
            None => {
                self.at = at;
                Next::More
            }
        }
    }

    /// As [`plain`](Self::plain), byte by byte: escapes, and blanks around fields.
    fn plain_carefully(&mut self, bytes: &[u8], limit: usize, is_last: bool) -> Next {
        while self.at < limit {
            let at = self.at;
            let byte = bytes[at];
            self.high |= u64::from(byte & 0x80);
            if Some(byte) == self.specials.escape {
                match self.escaped(bytes, at, limit, is_last) {
                    Some(len) => self.at += len,
                    None => return Next::More,
                }
                continue;
            }
            if byte == self.specials.delimiter {
                self.push_trimmed(bytes, at);
                self.field_start = at + 1;
            } else if Some(byte) == self.specials.quote {
                self.has_quotes = true;
                let before = &bytes[self.field_start..at];
                if before.is_empty() || self.trim && before.iter().all(|byte| is_blank(*byte)) {
                    self.at = at + 1;
                    self.state = State::Quoted { open: at };
                    return Next::State;
                }
                self.note(FaultKind::BareQuote, at);
            } else if byte == b'\n' || byte == b'\r' {
                let Some(line_end) = line_end(bytes, at, limit, is_last) else {
                    return Next::More;
                };
                self.push_trimmed(bytes, at);
                return Next::Found(Found::Row { len: at, line_end });
            }
            self.at += 1;
        }
        if is_last {
            self.push_trimmed(bytes, limit);
            return Next::Found(Found::Row {
                len: limit,
                line_end: 0,
            });
        }
        Next::More
    }

    /// How many bytes the escape at `at` and what it takes the meaning of have; `None` if it takes more bytes to tell.
    fn escaped(&mut self, bytes: &[u8], at: usize, limit: usize, is_last: bool) -> Option<usize> {
        if at + 1 == limit {
            return is_last.then_some(1);
        }
        let behind = bytes[at + 1];
        if !self.specials.is_escapable(behind) {
            return Some(1);
        }
        let len = match behind {
            b'\r' => 1 + line_end(bytes, at + 1, limit, is_last)?,
            _ => 2,
        };
        (self.has_quotes, self.has_doubled_quotes) = (true, true);
        self.escaped_to = at + len;
        Some(len)
    }

    /// Pushes an unquoted field that ends at `end`.
    fn push_trimmed(&mut self, bytes: &[u8], end: usize) {
        let (mut start, mut end) = (self.field_start, end);
        if self.trim {
            while start < end && is_blank(bytes[start]) {
                start += 1;
            }
            while start < end && end > self.escaped_to && is_blank(bytes[end - 1]) {
                end -= 1;
            }
        }
        self.push(start, end);
    }

    /// The next quote in a quoted field from where it has come to, past what is escaped. `Err(true)`: there is none before the limit; `Err(false)`: it takes more
    /// bytes to tell.
    fn find_quote(
        &mut self,
        bytes: &[u8],
        limit: usize,
        is_last: bool,
    ) -> std::result::Result<usize, bool> {
        let Some(quote) = self.specials.quote else {
            return Err(true);
        };
        let Some(escape) = self.specials.escape else {
            let found = memchr(quote, &bytes[self.at..limit]);
            return found.map(|found| self.at + found).ok_or(true);
        };
        while let Some(found) = memchr2(quote, escape, &bytes[self.at..limit]) {
            let at = self.at + found;
            if bytes[at] == quote {
                return Ok(at);
            }
            self.at = at;
            self.at += self.escaped(bytes, at, limit, is_last).ok_or(false)?;
        }
        Err(true)
    }

    fn quoted(&mut self, bytes: &[u8], limit: usize, is_last: bool, open: usize) -> Next {
        let close = match self.find_quote(bytes, limit, is_last) {
            Ok(close) => close,
            Err(false) => return Next::More,
            Err(true) => {
                self.at = limit;
                return if is_last {
                    self.broken(FaultKind::Unclosed, open)
                } else {
                    Next::More
                };
            }
        };
        self.at = close;
        let mut after = close + 1;
        if after < limit && Some(bytes[after]) == self.specials.quote {
            self.has_doubled_quotes = true;
            self.at = after + 1;
            return Next::State;
        }
        while self.trim
            && after < limit
            && is_blank(bytes[after])
            && bytes[after] != self.specials.delimiter
        {
            after += 1;
        }
        if after == limit {
            if !is_last {
                return Next::More;
            }
            self.push(open + 1, close);
            return Next::Found(Found::Row {
                len: after,
                line_end: 0,
            });
        }
        let byte = bytes[after];
        if byte == self.specials.delimiter {
            self.push(open + 1, close);
            self.field_start = after + 1;
            self.at = after + 1;
            self.state = State::Plain;
            return Next::State;
        }
        if byte == b'\n' || byte == b'\r' {
            let Some(line_end) = line_end(bytes, after, limit, is_last) else {
                return Next::More;
            };
            self.push(open + 1, close);
            return Next::Found(Found::Row {
                len: after,
                line_end,
            });
        }
        if memchr2(b'\n', b'\r', &bytes[open..close]).is_some() {
            return self.broken(FaultKind::TextAfterDistantQuote, open);
        }
        self.note(FaultKind::TextAfterQuote, close);
        self.at = after;
        self.state = State::Plain;
        Next::State
    }

    fn broken(&mut self, kind: FaultKind, open: usize) -> Next {
        self.note(kind, open);
        Next::Found(Found::Broken { open })
    }

    /// The first fault of the row is kept.
    fn note(&mut self, kind: FaultKind, at: usize) {
        let field = self.fields();
        self.fault.get_or_insert(Fault { kind, field, at });
    }

    #[inline]
    fn push(&mut self, start: usize, end: usize) {
        if self.found == self.bounds.len() && !self.make_room() {
            self.surplus_fields += 1;
            return;
        }
        self.bounds[self.found] = FieldBounds { start, end };
        self.found += 1;
    }

    /// Makes room for more fields. `false`: no more are kept.
    #[cold]
    fn make_room(&mut self) -> bool {
        let room = self.kept_fields.min(2 * self.found + 8);
        let nothing = FieldBounds { start: 0, end: 0 };
        self.bounds.resize(room.max(self.found), nothing);
        room > self.found
    }

    #[inline]
    fn end_row(&mut self, len: usize, line_end: usize) -> Next {
        self.push(self.field_start, len);
        Next::Found(Found::Row { len, line_end })
    }

    /// Makes a sound row one of so many fields, if that is allowed; says whether it is one now.
    #[cold]
    pub(super) fn even_out(&mut self, columns: usize, ragged: Ragged) -> bool {
        let found = self.fields();
        match ragged {
            Ragged::Pad if found < columns => {
                // Bounds of nothing, at the end of the row.
                let end = self.bounds().last().map_or(0, |last| last.end);
                while self.fields() < columns {
                    self.push(end, end);
                }
                true
            }
            Ragged::DropExtra if found > columns => {
                self.found = columns;
                self.surplus_fields = 0;
                true
            }
            _ => false,
        }
    }

    /// Copies the fields with doubled quotes made single; the bounds then mean the copy.
    #[cold]
    pub(super) fn unescape(&mut self, raw: &[u8]) {
        self.unescaped.clear();
        for bounds in &mut self.bounds[..self.found] {
            let text = &raw[bounds.start..bounds.end];
            bounds.start = self.unescaped.len();
            self.specials.unescape_into(&mut self.unescaped, text);
            bounds.end = self.unescaped.len();
        }
    }
}

/// Blanks that may be left out around fields.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The bytes that mean something, besides line ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Specials {
    delimiter: u8,
    quote: Option<u8>,
    escape: Option<u8>,
}

impl Specials {
    pub(super) fn of(format: &CsvFormat) -> Self {
        Self {
            delimiter: format.delimiter,
            quote: format.quote,
            escape: format.escape,
        }
    }

    /// Whether an escape takes the meaning of this byte.
    fn is_escapable(self, byte: u8) -> bool {
        let special = [Some(self.delimiter), self.quote, self.escape];
        special.contains(&Some(byte)) || matches!(byte, b'\n' | b'\r')
    }

    fn find(self, text: &[u8]) -> Option<usize> {
        match (self.quote, self.escape) {
            (Some(quote), None) => memchr(quote, text),
            (None, Some(escape)) => memchr(escape, text),
            (Some(quote), Some(escape)) => memchr2(quote, escape, text),
            (None, None) => None,
        }
    }

    /// Appends a sound field with its doubled quotes made single and its escapes taken away.
    pub(super) fn unescape_into(self, out: &mut Vec<u8>, mut text: &[u8]) {
        while let Some(at) = self.find(text) {
            let behind = text.get(at + 1).copied();
            let taken = if Some(text[at]) == self.quote {
                // Inside a sound field quotes come in pairs only.
                out.extend_from_slice(&text[..=at]);
                at + 2
            } else if let Some(behind) = behind.filter(|byte| self.is_escapable(*byte)) {
                out.extend_from_slice(&text[..at]);
                out.push(behind);
                at + 2
            } else {
                out.extend_from_slice(&text[..=at]);
                at + 1
            };
            text = text.get(taken..).unwrap_or_default();
        }
        out.extend_from_slice(text);
    }
}

/// The length of the line end at `at`, or `None` if it takes the next byte to tell a lone CR from CRLF.
pub(super) fn line_end(bytes: &[u8], at: usize, limit: usize, is_last: bool) -> Option<usize> {
    if bytes[at] == b'\n' {
        return Some(1);
    }
    if at + 1 < limit {
        return Some(if bytes[at + 1] == b'\n' { 2 } else { 1 });
    }
    is_last.then_some(1)
}

/// How many line ends the bytes hold: LF, CRLF and lone CR count one each.
pub(super) fn count_line_ends(bytes: &[u8]) -> u64 {
    let mut count = 0;
    let mut rest = bytes;
    while let Some(at) = memchr2(b'\n', b'\r', rest) {
        count += 1;
        let crlf = rest[at] == b'\r' && rest.get(at + 1) == Some(&b'\n');
        rest = &rest[at + 1 + usize::from(crlf)..];
    }
    count
}
