//! How a CSV file is written.

use super::Header;
use crate::limits::MAX_ROW_SIZE;
use crate::{Error, Result};

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvFormat {
    /// The byte between two fields of a row; `,` by default.
    pub delimiter: u8,
    /// The byte that encloses fields; `"` by default, none where quotes mean nothing. Doubled inside a field, it stands for itself.
    pub quote: Option<u8>,
    /// The byte that takes its meaning from the delimiter, quote, line end or escape behind it, inside quotes and outside; none by default. Before
    /// anything else it stands for itself.
    pub escape: Option<u8>,
    /// The byte with which lines begin that are no rows, wherever a row could begin; none by default.
    pub comment: Option<u8>,
    /// Whether blanks and tabs around a field, outside its quotes, are left out.
    pub trim: bool,
    /// Whether the first row holds the names of the columns.
    pub has_header: bool,
    /// Names of the columns instead of those in the file; without a header, `c1`, `c2` and so on by default.
    pub columns: Vec<String>,
    /// What becomes of rows with another number of fields than there are columns.
    pub ragged: Ragged,
    /// The largest raw row in bytes, its line end not counted; 8 MiB by default. Larger ones are bad rows.
    pub max_row_size: usize,
}

/// What becomes of rows with another number of fields than there are columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ragged {
    /// They are bad rows.
    #[default]
    Error,
    /// Fields that are missing at the end are empty; surplus ones are an error.
    Pad,
    /// Surplus fields at the end are left out; missing ones are an error.
    DropExtra,
}

impl CsvFormat {
    /// The most that [`max_row_size`](Self::max_row_size) may be: 1 GiB.
    pub const HIGHEST_MAX_ROW_SIZE: usize = 1 << 30;

    /// Checks that the parts can be told apart.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) when two of delimiter, quote, escape and comment are the same or one is a line end, a name
    /// of a column stands twice, or the size limit is out of range.
    pub fn check(&self) -> Result<()> {
        let mut known: Vec<(&str, u8)> = Vec::new();
        let parts = [
            ("delimiter", Some(self.delimiter)),
            ("quote", self.quote),
            ("escape", self.escape),
            ("comment", self.comment),
        ];
        for (what, byte) in parts {
            let Some(byte) = byte else { continue };
            if byte == b'\n' || byte == b'\r' {
                return Err(Error::option(format!(
                    "the {what} is {}, which ends rows",
                    show_byte(byte)
                )));
            }
            if let Some((other, _)) = known.iter().find(|(_, known)| *known == byte) {
                return Err(Error::option(format!(
                    "{other} and {what} are the same character, {}",
                    show_byte(byte)
                )));
            }
            known.push((what, byte));
        }
        if self.trim && matches!(self.delimiter, b' ') {
            return Err(Error::option(
                "blanks are the delimiter, and cannot be left out around fields",
            ));
        }
        if !self.columns.is_empty() {
            Header::new(self.columns.iter().cloned())
                .map_err(|error| Error::option(error.message().to_owned()))?;
        }
        if self.max_row_size == 0 || self.max_row_size > Self::HIGHEST_MAX_ROW_SIZE {
            return Err(Error::option(format!(
                "the maximum row size is {} bytes: it must be between 1 byte and 1 GiB",
                self.max_row_size
            )));
        }
        Ok(())
    }
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            comment: None,
            trim: false,
            has_header: true,
            columns: Vec::new(),
            ragged: Ragged::Error,
            max_row_size: MAX_ROW_SIZE,
        }
    }
}

/// A byte as people write it.
pub(super) fn show_byte(byte: u8) -> String {
    format!("`{}`", byte.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_format_must_differ() {
        let default = CsvFormat::default();
        default.check().unwrap();
        let same = CsvFormat {
            quote: Some(b','),
            ..default.clone()
        };
        assert!(
            same.check()
                .unwrap_err()
                .to_string()
                .contains("same character, `,`")
        );
        let same = CsvFormat {
            escape: Some(b'"'),
            ..default.clone()
        };
        assert!(
            same.check()
                .unwrap_err()
                .to_string()
                .contains("quote and escape are the same character")
        );
        let twice = CsvFormat {
            columns: vec!["a".into(), "a".into()],
            ..default.clone()
        };
        assert!(twice.check().unwrap_err().to_string().contains("`a`"));
        let newline = CsvFormat {
            delimiter: b'\n',
            ..default.clone()
        };
        assert!(
            newline
                .check()
                .unwrap_err()
                .to_string()
                .contains("delimiter is `\\n`")
        );
        let size = CsvFormat {
            max_row_size: 0,
            ..default
        };
        assert!(
            size.check()
                .unwrap_err()
                .to_string()
                .contains("maximum row size")
        );
    }
}
