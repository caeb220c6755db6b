//! Encoding: a row becomes the bytes of an Avro record, by a flat list of operations.
//!
//! The schema and the header are compiled once (see [`schema`](crate::schema)); what is left for each row is to run over the list, which looks
//! nothing up, follows no tree and allocates nothing. The binary form is that of the Avro specification, 1.12: zig-zag varints for
//! int and long, little-endian IEEE 754 for float and double, a length before bytes and strings, the branch index before a union's value.

pub(crate) mod coded;
pub(crate) mod collection;
pub(crate) mod decimal;
mod format;
pub(crate) mod kind;
mod quick;
pub(crate) mod scalar;
pub(crate) mod time;
pub(crate) mod value;
pub(crate) mod wide_decimal;
pub(crate) mod written_time;

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_JOINED;
use crate::read::{Row, show_text};
use crate::{Error, Result};
pub(crate) use decimal::NARROW_DIGITS;
pub use decimal::Rounding;
pub use format::CellFormat;
pub(crate) use format::{NullTokens, PLAIN_CELLS};
pub(crate) use kind::Kind;
pub(crate) use quick::Quick;
use scalar::Problem;
use value::{AvroWriter, ValueWriter};
pub use written_time::TimeAmbiguity;

/// How a record's value is written.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ValueFormat {
    /// Avro's binary form, behind Confluent's five-byte header where a schema id is known.
    #[default]
    Avro,
    /// One JSON object.
    Json,
}

impl fmt::Display for ValueFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avro => "avro",
            Self::Json => "json",
        })
    }
}

impl FromStr for ValueFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "avro" => Ok(Self::Avro),
            "json" => Ok(Self::Json),
            _ => Err(Error::option(format!(
                "there is no value format `{name}`: known are avro and json"
            ))),
        }
    }
}

/// Confluent's wire format: a zero byte and the schema id, big-endian, before the Avro bytes.
#[must_use]
pub fn confluent_header(schema_id: u32) -> [u8; 5] {
    let [a, b, c, d] = schema_id.to_be_bytes();
    [0, a, b, c, d]
}

/// The ids that a registry gave the schemas of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchemaIds {
    /// Stands before each Avro value; `None` with JSON.
    pub value: Option<u32>,
    /// Stands before each Avro key; `None` with other keys.
    pub key: Option<u32>,
}

impl From<Option<u32>> for SchemaIds {
    /// The id of the values, where keys have none.
    fn from(value: Option<u32>) -> Self {
        Self { value, key: None }
    }
}

/// One step of a compiled record.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// The same bytes in each record: defaults, union branches, and all that JSON writes between values.
    Constant(Box<[u8]>),
    /// A cell of the row.
    Cell(Cell),
    /// A record inside that is null where all its cells are.
    Optional(Optional),
}

/// A field that is taken from a column.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    /// The index of the column, or of the first of several.
    pub(crate) column: usize,
    /// The columns whose texts are put together, a blank between two; empty where there is only one.
    pub(crate) joined: Box<[usize]>,
    pub(crate) kind: Kind,
    /// The encoded branch of null, for a field that takes null.
    pub(crate) null: Option<u8>,
    /// The encoded branch of the value, where the union does not choose one.
    pub(crate) branch: Option<u8>,
    /// Whether the empty text stands for null; only asked where null is possible.
    pub(crate) empty_is_null: bool,
    /// The texts that stand for null here, the empty one among them or not; the general ones where there are none of its own.
    pub(crate) own_nulls: Option<NullTokens>,
}

/// A nullable record inside a record.
#[derive(Debug, Clone)]
pub(crate) struct Optional {
    /// The encoded branches.
    pub(crate) null: u8,
    pub(crate) value: u8,
    pub(crate) ops: Vec<Op>,
}

impl Cell {
    /// The columns it is taken from.
    pub(crate) fn columns(&self) -> &[usize] {
        match &*self.joined {
            [] => std::slice::from_ref(&self.column),
            joined => joined,
        }
    }

    /// True when the text stands for null in this field.
    #[inline]
    pub(crate) fn is_null(&self, nulls: &NullTokens, text: &[u8]) -> bool {
        match &self.own_nulls {
            None => text.is_empty() && self.empty_is_null || nulls.contain(text),
            Some(own) => own.contain(text),
        }
    }

    /// True when the text is a word for null, whether the field takes null or not.
    #[inline]
    fn is_null_token(&self, nulls: &NullTokens, text: &[u8]) -> bool {
        !text.is_empty() && self.own_nulls.as_ref().unwrap_or(nulls).contain(text)
    }

    #[inline]
    fn put<W: ValueWriter>(
        &self,
        nulls: &NullTokens,
        row: &Row<'_>,
        out: &mut W,
    ) -> Result<(), Problem> {
        if self.joined.is_empty() {
            return self.put_text(nulls, row.field(self.column), row.is_ascii(), out);
        }
        let mut joined = [0; MAX_JOINED];
        let length = self.join(nulls, row, &mut joined)?;
        self.put_text(nulls, &joined[..length], row.is_ascii(), out)
    }

    /// Puts the texts of several cells together; where all are null, so is what they come to.
    #[cold]
    fn join(
        &self,
        nulls: &NullTokens,
        row: &Row<'_>,
        joined: &mut [u8; MAX_JOINED],
    ) -> Result<usize, Problem> {
        let mut texts = self.joined.iter().map(|column| row.field(*column));
        if texts.clone().all(|text| self.is_null(nulls, text)) {
            return Ok(0);
        }
        let mut length = 0;
        if texts.any(|text| self.is_null(nulls, text)) {
            return Err(Problem::PartlyNull);
        }
        for (number, column) in self.joined.iter().enumerate() {
            let text = row.field(*column);
            let start = length + usize::from(number > 0);
            let place = joined.get_mut(start..start + text.len());
            place.ok_or(Problem::NotWrittenAsOne)?.copy_from_slice(text);
            if number > 0 {
                joined[length] = b' ';
            }
            length = start + text.len();
        }
        Ok(length)
    }

    #[inline]
    fn put_text<W: ValueWriter>(
        &self,
        nulls: &NullTokens,
        text: &[u8],
        is_ascii: bool,
        out: &mut W,
    ) -> Result<(), Problem> {
        if let Some(null) = self.null {
            if self.is_null(nulls, text) || !self.joined.is_empty() && text.is_empty() {
                out.branch(null);
                out.null();
                return Ok(());
            }
        } else if self.is_null_token(nulls, text) {
            if self.kind == Kind::Null {
                out.null();
                return Ok(());
            }
            return Err(Problem::Null);
        }
        if let Some(branch) = self.branch {
            out.branch(branch);
        }
        self.kind.put(text, is_ascii, out)
    }
}

/// A cell that is no value of its field's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellError {
    /// The index of the column.
    pub(crate) column: usize,
    /// Where its cell stands among all that the operations take, from 0.
    pub(crate) number: usize,
    pub(crate) problem: Problem,
}

/// What to do about text that is not UTF-8.
pub(crate) const ENCODING_HINT: &str = "--encoding says what the text is in, such as latin1";

impl CellError {
    /// What was expected and what was found, for people. `ops` are those that failed, over `row`.
    #[cold]
    pub(crate) fn reason(&self, ops: &[Op], row: &Row<'_>) -> String {
        let cell = cells(ops).nth(self.number);
        let expected = cell.map_or_else(|| Kind::String.expected(), |cell| cell.kind.expected());
        let show = |column: usize| match row.field(column) {
            [] => "an empty field".to_owned(),
            text => show_text(text),
        };
        let found = match cell.map(|cell| &*cell.joined) {
            None | Some([]) => show(self.column),
            Some(columns) => {
                let all: Vec<String> = columns.iter().map(|column| show(*column)).collect();
                all.join(" and ")
            }
        };
        let what = match self.problem {
            Problem::NotWrittenAsOne if str::from_utf8(row.field(self.column)).is_err() => {
                return format!("expected {expected}, found {found}: {ENCODING_HINT}");
            }
            Problem::NotWrittenAsOne => return format!("expected {expected}, found {found}"),
            Problem::NotInJson => {
                return format!("expected a finite number, found {found}, which JSON cannot hold");
            }
            Problem::OutOfRange => "which is out of range",
            Problem::TooPrecise => "which is more precise than that",
            Problem::Null => "which stands for null",
            Problem::NeedsRounding => "which would have to be rounded",
            Problem::HasOffset => {
                "whose offset from UTC would be lost (a time zone says on whose clock it is wanted)"
            }
            Problem::InGap => {
                "which no clock there shows: it is skipped when the clocks are put forward"
            }
            Problem::InFold => "which clocks there show twice: before and after they are put back",
            Problem::Twice => "in which a name stands twice",
            Problem::PartlyNull => "of which only a part is there",
        };
        format!("expected {expected}, found {found}, {what}")
    }
}

/// All cells that operations take, in their order.
pub(crate) fn cells(ops: &[Op]) -> Box<dyn Iterator<Item = &Cell> + '_> {
    Box::new(
        ops.iter()
            .flat_map(|op| -> Box<dyn Iterator<Item = &Cell> + '_> {
                match op {
                    Op::Constant(_) => Box::new(std::iter::empty()),
                    Op::Cell(cell) => Box::new(std::iter::once(cell)),
                    Op::Optional(optional) => cells(&optional.ops),
                }
            }),
    )
}

/// Writes what the operations make of a row. After an error a part of it was written.
#[inline]
pub(crate) fn encode_row<W: ValueWriter + PutConstant>(
    ops: &[Op],
    nulls: &NullTokens,
    row: &Row<'_>,
    out: &mut W,
) -> Result<(), CellError> {
    for (at, op) in ops.iter().enumerate() {
        match op {
            Op::Constant(bytes) => out.constant(bytes),
            Op::Cell(cell) => cell.put(nulls, row, out).map_err(|problem| CellError {
                column: cell.column,
                number: cells(&ops[..at]).count(),
                problem,
            })?,
            Op::Optional(optional) => {
                optional.put(nulls, row, out).map_err(|error| CellError {
                    number: error.number + cells(&ops[..at]).count(),
                    ..error
                })?;
            }
        }
    }
    Ok(())
}

impl Optional {
    fn put<W: ValueWriter + PutConstant>(
        &self,
        nulls: &NullTokens,
        row: &Row<'_>,
        out: &mut W,
    ) -> Result<(), CellError> {
        let is_null = |cell: &Cell, column: usize| {
            let text = row.field(column);
            text.is_empty() || cell.is_null(nulls, text)
        };
        let all_null = cells(&self.ops).all(|cell| match &*cell.joined {
            [] => is_null(cell, cell.column),
            columns => columns.iter().all(|column| is_null(cell, *column)),
        });
        if all_null {
            out.branch(self.null);
            out.null();
            return Ok(());
        }
        out.branch(self.value);
        encode_row(&self.ops, nulls, row, out)
    }
}

/// Takes what a plan has ready, in the form of its format.
pub(crate) trait PutConstant {
    /// Writes it as it is.
    fn constant(&mut self, bytes: &[u8]);
}

impl PutConstant for AvroWriter<'_> {
    #[inline]
    fn constant(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Maps small numbers of either sign to small numbers without one, as Avro has them.
#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Appends an Avro int or long.
#[inline]
pub(crate) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    let mut bytes = [0_u8; 10];
    let mut len = 0;
    while rest > 0x7f {
        bytes[len] = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
        len += 1;
    }
    bytes[len] = (rest & 0x7f) as u8;
    // All ten bytes first: a copy of a length known beforehand costs an instruction or two, one of any length a call.
    let end = out.len() + len + 1;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// Appends a length and as many bytes: an Avro string or bytes.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() < 64 {
        // A zig-zag length below 64 is one byte.
        out.push(u8::try_from(bytes.len() * 2).unwrap_or_default());
    } else {
        put_long(out, bytes.len().cast_signed() as i64);
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_zig_zag_varints() {
        // From the examples of the Avro specification, and the ends of the range.
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (
                i64::MAX,
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ] {
            let mut out = Vec::new();
            put_long(&mut out, value);
            assert_eq!(out, bytes, "{value}");
        }
    }

    #[test]
    fn lengths_around_one_byte_are_right() {
        for len in [0_usize, 1, 63, 64, 8191, 8192] {
            let mut out = Vec::new();
            put_bytes(&mut out, &vec![b'x'; len]);
            let mut expected = Vec::new();
            put_long(&mut expected, i64::try_from(len).unwrap());
            assert_eq!(out[..expected.len()], expected);
            assert_eq!(out.len(), expected.len() + len);
        }
    }

    #[test]
    fn the_confluent_header_is_a_zero_and_the_id() {
        assert_eq!(confluent_header(0x0102_0304), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn formats_have_names() {
        for format in [ValueFormat::Avro, ValueFormat::Json] {
            assert_eq!(format.to_string().parse::<ValueFormat>().unwrap(), format);
        }
        assert!("xml".parse::<ValueFormat>().is_err());
    }
}
