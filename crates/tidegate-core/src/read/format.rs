//! How a CSV file is written.

use crate::limits::MAX_ROW_SIZE;
use crate::{Error, Result};

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvFormat {
    /// The byte between two fields of a row; `,` by default.
    pub delimiter: u8,
    /// The byte that encloses fields; `"` by default. Doubled inside a field, it stands for itself.
    pub quote: u8,
    /// The largest raw row in bytes, its line end not counted; 8 MiB by default. Larger ones are bad rows.
    pub max_row_size: usize,
}

impl CsvFormat {
    /// The most that [`max_row_size`](Self::max_row_size) may be: 1 GiB.
    pub const HIGHEST_MAX_ROW_SIZE: usize = 1 << 30;

    /// Checks that the parts can be told apart.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) when delimiter and quote are the same or a line end, or the size limit is out of range.
    pub fn check(&self) -> Result<()> {
        if self.delimiter == self.quote {
            return Err(Error::option(format!(
                "delimiter and quote are the same character, {}",
                show_byte(self.quote)
            )));
        }
        for (what, byte) in [("delimiter", self.delimiter), ("quote", self.quote)] {
            if byte == b'\n' || byte == b'\r' {
                return Err(Error::option(format!(
                    "the {what} is {}, which ends rows",
                    show_byte(byte)
                )));
            }
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
            quote: b'"',
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
            quote: b',',
            ..default.clone()
        };
        assert!(
            same.check()
                .unwrap_err()
                .to_string()
                .contains("same character, `,`")
        );
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
