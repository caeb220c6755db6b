//! What a record has around its value: headers, and a timestamp where it comes from a column.
//!
//! Both are resolved once, when the plan is compiled; what is left per record is to copy a few cells into a buffer that is kept.

use std::str::FromStr;

use crate::encode::value::AvroWriter;
use crate::encode::{CellError, Op, encode_row};
use crate::produce::Headers;
use crate::read::{BadRow, BadRowKind, Row, show_text};
use crate::records::{bad_cell, bad_row};
use crate::schema::RecordPlan;
use crate::{Error, Result};

/// A header that every record gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderChoice {
    /// Its name; several headers may share it.
    pub name: String,
    /// Where its value comes from.
    pub value: HeaderValue,
}

/// Where the value of a header comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// The same in every record.
    Constant(String),
    /// The text of the cell in this column. A cell that is empty or a null token makes no header.
    Column(String),
}

impl HeaderChoice {
    /// Reads `NAME=VALUE`, a constant; the value may be empty.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) without a name.
    pub fn constant(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: HeaderValue::Constant(value.to_owned()),
            }),
            _ => Err(Error::option(format!(
                "a header looks like NAME=VALUE, not `{text}`"
            ))),
        }
    }

    /// Reads `COLUMN`, which names the header too, or `NAME=COLUMN`.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) where one of them is empty.
    pub fn column(text: &str) -> Result<Self> {
        let (name, column) = text.split_once('=').unwrap_or((text, text));
        if name.is_empty() || column.is_empty() {
            return Err(Error::option(format!(
                "a header from a column looks like COLUMN or NAME=COLUMN, not `{text}`"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            value: HeaderValue::Column(column.to_owned()),
        })
    }
}

/// What a record's timestamp is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TimestampChoice {
    /// The moment at which the record is sent.
    #[default]
    Now,
    /// The time in this column, read as a field of the type timestamp-millis is.
    Column(String),
}

impl FromStr for TimestampChoice {
    type Err = Error;

    /// Reads `now`, or the name of a column.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" => Err(Error::option(
                "a record timestamp is `now` or the name of a column",
            )),
            "now" => Ok(Self::Now),
            column => Ok(Self::Column(column.to_owned())),
        }
    }
}

/// The same, resolved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    pub(crate) headers: Vec<HeaderPlan>,
    pub(crate) timestamp: Option<TimestampPlan>,
}

#[derive(Debug, Clone)]
pub(crate) struct HeaderPlan {
    pub(crate) name: Box<str>,
    pub(crate) value: ValuePlan,
}

#[derive(Debug, Clone)]
pub(crate) enum ValuePlan {
    Constant(Box<[u8]>),
    Column(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct TimestampPlan {
    pub(crate) column: usize,
    /// What makes an Avro timestamp-millis of the cell.
    pub(crate) ops: Vec<Op>,
}

impl Around {
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.headers.is_empty() && self.timestamp.is_none()
    }

    /// The columns it takes something from, each with what it is taken for.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        let headers = self.headers.iter().filter_map(|header| match header.value {
            ValuePlan::Column(column) => Some((column, format!("the header `{}`", header.name))),
            ValuePlan::Constant(_) => None,
        });
        let timestamp = self.timestamp.iter();
        headers.chain(timestamp.map(|plan| (plan.column, "the timestamp of the record".to_owned())))
    }
}

/// What one record has around its value; its memory is used again for the next one.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    values: Vec<u8>,
    headers: Vec<Entry>,
    timestamp: Option<i64>,
    scratch: Vec<u8>,
}

/// A header of the record: which one of the plan's, and where its value ends.
#[derive(Debug, Clone, Copy)]
struct Entry {
    header: usize,
    end: usize,
}

impl Surroundings {
    /// Takes what a row says.
    pub(crate) fn fill(&mut self, plan: &RecordPlan, row: &Row<'_>) -> Result<(), BadRow> {
        self.values.clear();
        self.headers.clear();
        for (header, choice) in plan.around.headers.iter().enumerate() {
            match &choice.value {
                ValuePlan::Constant(value) => self.values.extend_from_slice(value),
                ValuePlan::Column(column) => {
                    let text = row.field(*column);
                    if text.is_empty() || plan.null_tokens.contain(text) {
                        continue;
                    }
                    self.values.extend_from_slice(text);
                }
            }
            let end = self.values.len();
            self.headers.push(Entry { header, end });
        }
        if let Some(timestamp) = &plan.around.timestamp {
            let ops = &timestamp.ops;
            let millis = self
                .millis(plan, ops, row)
                .map_err(|error| bad_cell(plan, ops, row, error))?;
            if millis < 0 {
                return Err(too_early(plan, row, timestamp.column));
            }
            self.timestamp = Some(millis);
        }
        Ok(())
    }

    fn millis(&mut self, plan: &RecordPlan, ops: &[Op], row: &Row<'_>) -> Result<i64, CellError> {
        self.scratch.clear();
        encode_row(
            ops,
            &plan.null_tokens,
            row,
            &mut AvroWriter(&mut self.scratch),
        )?;
        Ok(long(&self.scratch))
    }

    /// The headers of the record.
    #[inline]
    pub(crate) fn headers<'a>(&'a self, around: &'a Around) -> Headers<'a> {
        Headers::of(around, self)
    }

    /// The timestamp of the record, where it has one of its own.
    #[inline]
    pub(crate) fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    pub(crate) fn len(&self) -> usize {
        self.headers.len()
    }

    /// Name and value of one of the headers.
    pub(crate) fn header<'a>(&'a self, around: &'a Around, index: usize) -> (&'a str, &'a [u8]) {
        let before = index.checked_sub(1).map(|before| self.headers[before]);
        let (start, entry) = (before.map_or(0, |before| before.end), self.headers[index]);
        (
            &around.headers[entry.header].name,
            &self.values[start..entry.end],
        )
    }
}

/// The value of an encoded Avro long.
fn long(bytes: &[u8]) -> i64 {
    let shifted = bytes.iter().zip((0..64).step_by(7));
    let value = shifted.fold(0_u64, |value, (byte, shift)| {
        value | u64::from(byte & 0x7f) << shift
    });
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cold]
fn too_early(plan: &RecordPlan, row: &Row<'_>, column: usize) -> BadRow {
    let reason = format!(
        "expected a time since 1970 for the timestamp of the record, found {}: Kafka has none before",
        show_text(row.field(column))
    );
    let name = plan.header().names()[column].clone();
    bad_row(row, BadRowKind::Value, Some(name), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::put_long;

    #[test]
    fn longs_are_read_as_they_are_written() {
        for value in [0, 1, -1, 63, -64, 1_700_000_000_000, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_long(&mut bytes, value);
            assert_eq!(long(&bytes), value);
        }
    }

    #[test]
    fn choices_are_read_as_they_are_typed() {
        let column = |name: &str, column: &str| HeaderChoice {
            name: name.into(),
            value: HeaderValue::Column(column.into()),
        };
        assert_eq!(
            HeaderChoice::column("host").unwrap(),
            column("host", "host")
        );
        assert_eq!(HeaderChoice::column("h=host").unwrap(), column("h", "host"));
        let constant = HeaderChoice::constant("source=a=b").unwrap();
        assert_eq!(constant.value, HeaderValue::Constant("a=b".into()));
        for wrong in ["", "=x"] {
            assert!(HeaderChoice::constant(wrong).is_err(), "{wrong}");
            assert!(HeaderChoice::column(wrong).is_err(), "{wrong}");
        }
        assert!(HeaderChoice::constant("source").is_err());
        assert_eq!(
            "now".parse::<TimestampChoice>().unwrap(),
            TimestampChoice::Now
        );
        assert!("".parse::<TimestampChoice>().is_err());
    }
}
