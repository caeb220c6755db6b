//! What reading gives: rows, and bad rows.

use std::fmt;

use super::Position;

/// Where a field's text stands in the data of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldBounds {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// One row, borrowed from the reader's buffer until the next one is read.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub(super) data: &'a [u8],
    pub(super) bounds: &'a [FieldBounds],
    pub(super) raw: &'a [u8],
    pub(super) ascii: bool,
    pub(super) start: Position,
    pub(super) end: Position,
}

impl<'a> Row<'a> {
    /// How many fields the row has: as many as the header.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a row has at least one field")]
    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    /// The text of a field: without its quotes, doubled quotes made single. Not checked to be UTF-8.
    ///
    /// # Panics
    /// When the index is not below [`len`](Self::len).
    #[inline]
    #[must_use]
    pub fn field(&self, index: usize) -> &'a [u8] {
        let bounds = self.bounds[index];
        &self.data[bounds.start..bounds.end]
    }

    /// A field, and all that the row has from its first byte on.
    #[inline]
    pub(crate) fn field_and_rest(&self, index: usize) -> (&'a [u8], &'a [u8]) {
        let bounds = self.bounds[index];
        let rest = &self.data[bounds.start..];
        (&rest[..bounds.end - bounds.start], rest)
    }

    /// As many bytes as all fields have together, at most.
    #[inline]
    pub(crate) fn len_of_text(&self) -> usize {
        self.data.len()
    }

    /// All fields, in the order of the header.
    pub fn fields(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let data = self.data;
        self.bounds
            .iter()
            .map(move |bounds| &data[bounds.start..bounds.end])
    }

    /// The row as it stands in the input, without its line end.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// True when every field is known to be ASCII; false when it is not known.
    #[inline]
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.ascii
    }

    /// The number of the row, from 1, the header not counted.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.start.row + 1
    }

    /// The physical line the row starts on, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.start.line
    }

    /// Where the row starts.
    #[must_use]
    pub fn start(&self) -> Position {
        self.start
    }

    /// Where the next row starts.
    #[inline]
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }
}

/// Shows `text` as a row of one field, as if it stood in an input.
pub(crate) fn as_row<T>(text: &[u8], take: impl FnOnce(&Row<'_>) -> T) -> T {
    let end = text.len();
    take(&Row {
        data: text,
        bounds: &[FieldBounds { start: 0, end }],
        raw: text,
        ascii: text.is_ascii(),
        start: Position::START,
        end: Position::START,
    })
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.fields().map(String::from_utf8_lossy).collect();
        f.debug_struct("Row")
            .field("start", &self.start)
            .field("fields", &fields)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a row, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BadRowKind {
    /// It has another number of fields than the header.
    Ragged,
    /// Its quotes do not add up: one inside an unquoted field, text after a closing one, or one that never closes.
    Quotes,
    /// It is larger than the limit.
    TooLarge,
    /// A field's text is not a value of the type the schema wants.
    Value,
    /// It is good, but belongs to a group that is rejected.
    Group,
}

/// A row that cannot become (part of) a record, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The number of the row, from 1, the header not counted.
    pub row: u64,
    /// The physical line it starts on, from 1.
    pub line: u64,
    /// Where it starts, in bytes of the decompressed input.
    pub byte: u64,
    /// The column the fault is in, where it is in one.
    pub column: Option<String>,
    /// What kind of fault it is.
    pub kind: BadRowKind,
    /// What was found and what was expected, for people.
    pub reason: String,
    /// The row as it stands in the input, without its line end; of a row over the size limit the beginning only.
    pub raw: Vec<u8>,
    /// The length of the whole raw row in bytes: more than `raw` holds when the row is over the size limit.
    pub raw_len: u64,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (line {})", self.row, self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column `{column}`")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// A text from the input for a message: escaped where it would disturb a terminal, and cut where it is long.
pub(crate) fn show_text(text: &[u8]) -> String {
    const SHOWN: usize = 60;
    // A character cut off at the end is behind the last one that is shown.
    let start = &text[..text.len().min(4 * SHOWN)];
    let mut parts = start.utf8_chunks().flat_map(|chunk| {
        let chars = chunk
            .valid()
            .chars()
            .map(|char| char.escape_debug().to_string());
        chars.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")))
    });
    let mut shown: String = parts.by_ref().take(SHOWN).collect();
    if parts.next().is_some() || text.len() > start.len() {
        shown.push('…');
    }
    // `escape_debug` also escapes quotes, which do no harm between backticks.
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_messages_are_short_and_harmless() {
        assert_eq!(show_text(b"abc"), "`abc`");
        assert_eq!(show_text(b"a\"b'c"), "`a\"b'c`");
        assert_eq!(show_text(b"a\x1b[31m\n"), "`a\\u{1b}[31m\\n`");
        assert_eq!(show_text(&[b'x'; 61]), format!("`{}…`", "x".repeat(60)));
        assert_eq!(show_text(&[b'x'; 60]), format!("`{}`", "x".repeat(60)));
        assert_eq!(show_text(b"Z\xfcri\xc3"), "`Z\\xfcri\\xc3`");
        assert_eq!(show_text(&[0xff; 60]).len(), 4 * 60 + 2);
        let umlauts = "ü".repeat(130);
        assert_eq!(
            show_text(umlauts.as_bytes()),
            format!("`{}…`", "ü".repeat(60))
        );
    }
}
