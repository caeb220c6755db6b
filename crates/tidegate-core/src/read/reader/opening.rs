//! The beginning of an input: its byte order mark, and what its columns are called.

use std::borrow::Cow;
use std::io::Read;

use super::super::row::show_text;
use super::super::{CsvFormat, Header};
use super::{Advance, Found, RowReader, Split};
use crate::error::ErrorPosition;
use crate::{Error, Result};

impl<R: Read> RowReader<R> {
    pub(super) fn skip_byte_order_mark(&mut self) -> Result<()> {
        while self.buffer.len() < 3 && !self.buffer.has_ended() {
            self.fill_at_last(None)?;
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

    pub(super) fn read_header(&mut self, format: &CsvFormat) -> Result<Header> {
        if !format.has_header {
            return self.header_of_none(format);
        }
        let mut advance = self.advance(None)?;
        while matches!(advance, Advance::Idle) {
            advance = self.advance(None)?;
        }
        match advance {
            Advance::Row | Advance::Idle => {}
            Advance::Bad(bad) => {
                let message = format!("the header cannot be read: {}", bad.reason);
                return Err(self.header_error(message, bad.column));
            }
            Advance::End => return Err(Error::empty_input()),
        }
        if !format.columns.is_empty() {
            return self.given_header(format);
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
        Header::read(names).map_err(|error| self.header_error(error.message().to_owned(), None))
    }

    /// The columns of an input without a header: as many as its first row has, which is not taken.
    fn header_of_none(&mut self, format: &CsvFormat) -> Result<Header> {
        if !format.columns.is_empty() {
            return Header::new(format.columns.iter().cloned());
        }
        loop {
            if self.comment.is_some() {
                self.skip_comments(None)?;
            }
            self.splitter.begin();
            self.start = self.position();
            let found = match self.split(None)? {
                Split::Found(found) => found,
                Split::Idle => continue,
                Split::End => return Err(Error::empty_input()),
            };
            let (Found::Row { len, line_end }, None) = (found, self.splitter.fault()) else {
                let message = "the first row cannot be read, so how many columns there are is not known: --columns names them";
                return Err(self.header_error(message, None));
            };
            if len == 0 && self.splitter.fields() == 1 && line_end > 0 {
                // Before the first row even a file of one column has blank lines only.
                self.buffer.consume(line_end);
                self.line += 1;
                continue;
            }
            let names = (1..=self.splitter.fields()).map(|number| format!("c{number}"));
            return Header::new(names)
                .map_err(|error| self.header_error(error.message().to_owned(), None));
        }
    }

    /// The names that were given for the columns of the header that was read.
    fn given_header(&self, format: &CsvFormat) -> Result<Header> {
        let (found, given) = (self.splitter.fields(), format.columns.len());
        if found != given {
            let message =
                format!("the header has {found} columns, and {given} names are given for them");
            return Err(self.header_error(message, None));
        }
        Header::new(format.columns.iter().cloned())
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
