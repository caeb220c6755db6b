//! Encoding: a row becomes the bytes of an Avro record, by a flat list of operations.
//!
//! The schema and the header are compiled once (see [`schema`](crate::schema)); what is left for each row is to run over the list, which looks
//! nothing up, follows no tree and allocates nothing. The binary form is that of the Avro specification, 1.12: zig-zag varints for
//! int and long, little-endian IEEE 754 for float and double, a length before bytes and strings, the branch index before a union's value.

mod format;
pub(crate) mod scalar;
pub(crate) mod time;

use std::fmt;
use std::str::FromStr;

use crate::read::{Row, show_text};
use crate::{Error, Result};
pub use format::CellFormat;
pub(crate) use format::{NullTokens, PLAIN_CELLS};
use scalar::Problem;
use time::TimeUnit;

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

/// One step of a compiled record.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// The same bytes in each record: defaults, union branches, and all that JSON writes between values.
    Constant(Box<[u8]>),
    /// A cell of the row.
    Cell(Cell),
}

/// A field that is taken from a column.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    /// The index of the column.
    pub(crate) column: usize,
    pub(crate) kind: Kind,
    /// For a nullable field, its union's branches.
    pub(crate) union: Option<Branches>,
    /// Whether the empty text stands for null; only asked where null is possible.
    pub(crate) empty_is_null: bool,
}

impl Cell {
    /// True when the text stands for null in this field.
    #[inline]
    pub(crate) fn is_null(&self, nulls: &NullTokens, text: &[u8]) -> bool {
        text.is_empty() && self.empty_is_null || nulls.contain(text)
    }
}

/// The encoded branch indices of a union of null and one other type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Branches {
    pub(crate) null: u8,
    pub(crate) value: u8,
}

/// The type a cell becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    /// The symbols, sorted, each with its index in the schema.
    Enum(Box<[(Box<[u8]>, i32)]>),
    Timestamp(TimeUnit),
    Date,
}

impl Kind {
    /// What a cell of this type holds, for messages.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Null => "nothing (the field's type is null)".into(),
            Self::Boolean => "a boolean (true or false)".into(),
            Self::Int => "an int (a whole number of 32 bits)".into(),
            Self::Long => "a long (a whole number of 64 bits)".into(),
            Self::Float => "a float (a decimal number)".into(),
            Self::Double => "a double (a decimal number)".into(),
            Self::Bytes => "bytes".into(),
            Self::String => "a string in UTF-8".into(),
            Self::Enum(symbols) => {
                let mut names: Vec<_> = symbols.iter().collect();
                names.sort_by_key(|(_, index)| *index);
                let shown: Vec<_> = names.iter().take(10).map(|(name, _)| String::from_utf8_lossy(name)).collect();
                let more = if names.len() > shown.len() { ", …" } else { "" };
                format!("one of {}{more}", shown.join(", "))
            }
            Self::Timestamp(TimeUnit::Milliseconds) => {
                "a timestamp-millis (such as 2024-01-31T12:30:15.250Z, or milliseconds since 1970)".into()
            }
            Self::Timestamp(TimeUnit::Microseconds) => {
                "a timestamp-micros (such as 2024-01-31T12:30:15.250001Z, or microseconds since 1970)".into()
            }
            Self::Date => "a date (such as 2024-01-31, or days since 1970)".into(),
        }
    }
}

/// A cell that is no value of its field's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellError {
    /// The index of the column.
    pub(crate) column: usize,
    pub(crate) problem: Problem,
}

impl CellError {
    /// What was expected and what was found, for people. `ops` are those that failed.
    #[cold]
    pub(crate) fn reason(&self, ops: &[Op], text: &[u8]) -> String {
        let cell = ops.iter().find_map(|op| match op {
            Op::Cell(cell) if cell.column == self.column => Some(cell),
            _ => None,
        });
        let expected = cell.map_or_else(|| Kind::String.expected(), |cell| cell.kind.expected());
        let found = if text.is_empty() {
            "an empty field".to_owned()
        } else {
            show_text(text)
        };
        match self.problem {
            Problem::NotWrittenAsOne => format!("expected {expected}, found {found}"),
            Problem::OutOfRange => {
                format!("expected {expected}, found {found}, which is out of range")
            }
            Problem::TooPrecise => {
                format!("expected {expected}, found {found}, which is more precise than that")
            }
            Problem::Null => format!("expected {expected}, found {found}, which stands for null"),
            Problem::NotInJson => {
                format!("expected a finite number, found {found}, which JSON cannot hold")
            }
        }
    }
}

/// Appends the Avro form of what the operations make of a row. After an error `out` holds a part of it.
#[inline]
pub(crate) fn encode_row(
    ops: &[Op],
    nulls: &NullTokens,
    row: &Row<'_>,
    out: &mut Vec<u8>,
) -> Result<(), CellError> {
    for op in ops {
        match op {
            Op::Constant(bytes) => out.extend_from_slice(bytes),
            Op::Cell(cell) => {
                let text = row.field(cell.column);
                encode_cell(cell, nulls, text, row.is_ascii(), out).map_err(|problem| {
                    CellError {
                        column: cell.column,
                        problem,
                    }
                })?;
            }
        }
    }
    Ok(())
}

#[inline]
fn encode_cell(
    cell: &Cell,
    nulls: &NullTokens,
    text: &[u8],
    ascii: bool,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    if let Some(branches) = cell.union {
        if cell.is_null(nulls, text) {
            out.push(branches.null);
            return Ok(());
        }
        out.push(branches.value);
    } else if nulls.contain(text) && cell.kind != Kind::Null {
        return Err(Problem::Null);
    }
    match &cell.kind {
        Kind::Long => put_long(out, scalar::long(text)?),
        Kind::Double => out.extend_from_slice(&scalar::double(text)?.to_le_bytes()),
        Kind::String => {
            if !ascii && str::from_utf8(text).is_err() {
                return Err(Problem::NotWrittenAsOne);
            }
            put_bytes(out, text);
        }
        Kind::Bytes => put_bytes(out, text),
        Kind::Int => put_long(out, i64::from(scalar::int(text)?)),
        Kind::Float => out.extend_from_slice(&scalar::float(text)?.to_le_bytes()),
        Kind::Boolean => out.push(u8::from(scalar::boolean(text)?)),
        Kind::Timestamp(unit) => put_long(out, scalar::timestamp(text, *unit)?),
        Kind::Date => put_long(out, i64::from(scalar::date(text)?)),
        Kind::Enum(symbols) => put_long(out, i64::from(find_symbol(symbols, text)?)),
        Kind::Null => {
            if !text.is_empty() && !nulls.contain(text) {
                return Err(Problem::NotWrittenAsOne);
            }
        }
    }
    Ok(())
}

/// The index of a symbol.
pub(crate) fn find_symbol(symbols: &[(Box<[u8]>, i32)], text: &[u8]) -> Result<i32, Problem> {
    match symbols.binary_search_by(|(symbol, _)| (**symbol).cmp(text)) {
        Ok(found) => Ok(symbols[found].1),
        Err(_) => Err(Problem::NotWrittenAsOne),
    }
}

/// Appends an Avro int or long.
#[inline]
pub(crate) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
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
