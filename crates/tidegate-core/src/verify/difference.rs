//! A difference between topic and input, and how it is told.

use serde::Serialize;

use crate::limits::DIFFERENCE_BYTES;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The record is not there: the one behind it stands in its place, or the partition ends before it.
    Missing,
    /// The topic has a record that the input does not.
    Extra,
    /// The record before it stands there once more.
    Duplicate,
    /// The record is there, but another one that should come later comes first.
    Order,
    /// The record stands in another partition than its key says.
    Partition,
    /// Another key.
    Key,
    /// Another value.
    Value,
    /// Other headers.
    Headers,
    /// Another timestamp than the column says.
    Timestamp,
    /// The records compared are right, but the receipt says otherwise.
    Receipt,
}

/// The first place where topic and input differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What is wrong.
    pub what: DifferenceKind,
    /// The partition; null where the difference is in none of them.
    pub partition: Option<i32>,
    /// The offset of the record in the topic; null where there is none.
    pub offset: Option<i64>,
    /// The input that the line is of, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Physical line on which the row starts that is to blame, or the expected record's first row; null where no record is expected.
    pub line: Option<u64>,
    /// That row, counted through all inputs.
    pub row: Option<u64>,
    /// The column that differs, or the field where it is taken from none.
    pub column: Option<String>,
    /// What the input says.
    pub expected: Option<String>,
    /// What the topic says.
    pub found: Option<String>,
}

impl Difference {
    pub(super) fn new(what: DifferenceKind, partition: i32) -> Self {
        Self {
            what,
            partition: Some(partition),
            offset: None,
            file: None,
            line: None,
            row: None,
            column: None,
            expected: None,
            found: None,
        }
    }

    /// The receipt says `expected`.
    pub(super) fn of_receipt(partition: Option<i32>, expected: String, found: String) -> Self {
        Self {
            partition,
            expected: Some(expected),
            found: Some(found),
            ..Self::new(DifferenceKind::Receipt, 0)
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut places = Vec::new();
        places.extend(
            self.partition
                .map(|partition| format!("partition {partition}")),
        );
        places.extend(self.offset.map(|offset| format!("offset {offset}")));
        places.extend(self.file.clone());
        if let (Some(line), Some(row)) = (self.line, self.row) {
            places.push(format!("line {line} (row {row})"));
        }
        places.extend(
            self.column
                .as_ref()
                .map(|column| format!("column {column}")),
        );
        if !places.is_empty() {
            write!(formatter, "{}: ", places.join(", "))?;
        }
        formatter.write_str(match self.what {
            DifferenceKind::Missing => "the record is missing",
            DifferenceKind::Extra => "the input has no such record",
            DifferenceKind::Duplicate => "the record before it stands here once more",
            DifferenceKind::Order => "the record comes later than it should",
            DifferenceKind::Partition => "the record stands in another partition",
            DifferenceKind::Key => "another key",
            DifferenceKind::Value => "another value",
            DifferenceKind::Headers => "other headers",
            DifferenceKind::Timestamp => "another timestamp",
            DifferenceKind::Receipt => "the receipt says otherwise",
        })?;
        if let (Some(expected), Some(found)) = (&self.expected, &self.found) {
            write!(formatter, ": expected {expected}, found {found}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Difference {}

/// Bytes as a person can read them, cut where they get long.
pub(super) fn quote(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else {
        return "null".to_owned();
    };
    let shown = &bytes[..bytes.len().min(DIFFERENCE_BYTES)];
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}
