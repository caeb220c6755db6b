//! Reading: bytes become rows, and no row is ever lost, merged with another or made up.
//!
//! A CSV reader that never fails has to guess, and each guess is a wrong value somewhere. So this one is strict, and says what it found:
//!
//! - fields are separated by one delimiter byte, rows end with LF, CRLF or a lone CR, and a field that holds one of these, or a quote, is
//!   enclosed in quotes, with inner quotes doubled (RFC 4180);
//! - a quote inside an unquoted field, text after a closing quote, a row with another number of fields than the header, and a row larger than
//!   [`CsvFormat::max_row_size`] are [`BadRow`]s, with their line, column, reason and raw bytes;
//! - a quote that is opened and never properly closed is a bad row of the line that opens it, and reading goes on at the next line: the rest of the
//!   file is not swallowed. *Never properly closed* means: not before the end of the file or the size limit, or closed on a later line
//!   with text right behind the quote, which is where a forgotten quote meets the next quoted field of the file;
//! - blank lines are skipped and counted, except in files of one column, where they are rows with an empty field.
//!
//! What a [`CsvFormat`] says beyond that (escapes, comments, blanks around fields, no header, ragged rows) is never guessed.
//!
//! The outcome depends on the bytes alone, never on how they arrive: the splitter sees windows that are cut by row and size limit, not
//! by buffer. One row at a time is held in memory, so memory is bounded by the size limit for any input.
//!
//! A reader starts anywhere that a [`Position`] says a row starts, so that a resumed load and a fresh one are the same code.

use std::io;

use serde::{Deserialize, Serialize};

use crate::digest::{PrefixDigest, PrefixHasher};
use crate::position::InputEnd;

mod buffer;
mod format;
mod header;
pub(crate) mod reader;
mod row;
mod scan;
mod split;
mod trail;

pub use format::{CsvFormat, Ragged};
pub use header::Header;
pub use reader::{ReadRow, RowReader};
pub(crate) use row::as_row;
pub(crate) use row::show_text;
pub use row::{BadRow, BadRowKind, Row};

/// An input: where rows come from. A load may have several, which are read one behind the other as one sequence of rows. Each has the same header, and no
/// row or group goes on from one into the next.
pub trait Source {
    /// What its bytes are read from.
    type Reader: io::Read;

    /// What it is called in errors, and, where there are several inputs, in the rejects.
    fn name(&self) -> Option<String> {
        None
    }

    /// Opens the input at the start of its decompressed content. A load that goes on reads from there too, to see that it is still the same.
    ///
    /// # Errors
    /// When it cannot be opened; a stream can only once.
    fn open(&self) -> io::Result<Self::Reader>;
}

/// The start of a row in the decompressed input: where reading can begin, or begin again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Position {
    /// Bytes before the row.
    pub byte: u64,
    /// The physical line the row starts on, from 1.
    pub line: u64,
    /// Rows read before it, the header not counted.
    pub row: u64,
}

impl Position {
    /// The start of the input: before the byte order mark, if any, and the header.
    pub const START: Self = Self {
        byte: 0,
        line: 1,
        row: 0,
    };
}

impl Default for Position {
    fn default() -> Self {
        Self::START
    }
}

/// What a reader passed over, or changed as its format says, without a row being rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadCounts {
    /// Lines without anything on them, skipped.
    pub blank_lines: u64,
    /// Lines that are comments, skipped.
    pub comment_lines: u64,
    /// Rows with fewer or more fields than the header that were evened out, as [`Ragged`] says.
    pub evened_rows: u64,
}

impl std::ops::Add for ReadCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            blank_lines: self.blank_lines + other.blank_lines,
            comment_lines: self.comment_lines + other.comment_lines,
            evened_rows: self.evened_rows + other.evened_rows,
        }
    }
}

/// A place between two rows, and what was counted before it, from where the reader began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) counts: ReadCounts,
}

/// Places behind the reader at which a load may have to go on later all the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// Behind the last group that was given.
    pub(crate) boundary: Mark,
    /// Behind the last row of the group at hand.
    pub(crate) end: Mark,
}

/// Everything that a position says of the input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) input: Position,
    /// The input up to there.
    pub(crate) prefix: PrefixDigest,
    /// What was counted before it, from where the reader began.
    pub(crate) counts: ReadCounts,
    pub(crate) end: InputEnd,
}

/// Where and how a reader begins.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// The place.
    pub(crate) position: Position,
    /// What was decided there because the input ended.
    pub(crate) end: InputEnd,
    /// The digest up to there, where it is wanted of later places too.
    pub(crate) hasher: Option<PrefixHasher>,
    /// Whether an unterminated last row is left unread.
    pub(crate) hold_last: bool,
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
