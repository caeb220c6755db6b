//! Encoding, the other form: a row becomes one JSON object, by the same compiled operations.
//!
//! The object is plain: unions are untagged, timestamps and dates are the integers that Avro would hold, bytes are base64 (RFC 4648, with padding).
//! JSON has no NaN and no infinities, so a cell that holds one is a bad row rather than a null or a string.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::encode::scalar::{self, Problem};
use crate::encode::{Cell, CellError, Kind, NullTokens, Op, find_symbol};
use crate::read::Row;

/// Appends the JSON form of what the operations make of a row. After an error `out` holds a part of it.
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

fn encode_cell(
    cell: &Cell,
    nulls: &NullTokens,
    text: &[u8],
    ascii: bool,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    if cell.union.is_some() && cell.is_null(nulls, text) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    if cell.union.is_none() && nulls.contain(text) && cell.kind != Kind::Null {
        return Err(Problem::Null);
    }
    match &cell.kind {
        Kind::Long => put_integer(out, scalar::long(text)?),
        Kind::Double => {
            let value = scalar::double(text)?;
            put_float(out, value, value.is_finite())?;
        }
        Kind::String => {
            if !ascii && str::from_utf8(text).is_err() {
                return Err(Problem::NotWrittenAsOne);
            }
            put_string(out, text);
        }
        Kind::Bytes => put_base64(out, text),
        Kind::Int => put_integer(out, i64::from(scalar::int(text)?)),
        Kind::Float => {
            let value = scalar::float(text)?;
            put_float(out, value, value.is_finite())?;
        }
        Kind::Boolean => out.extend_from_slice(if scalar::boolean(text)? {
            b"true"
        } else {
            b"false"
        }),
        Kind::Timestamp(unit) => put_integer(out, scalar::timestamp(text, *unit)?),
        Kind::Date => put_integer(out, i64::from(scalar::date(text)?)),
        Kind::Enum(symbols) => {
            find_symbol(symbols, text)?;
            // Symbols are Avro names: nothing in them needs escaping.
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        Kind::Null => {
            if !text.is_empty() && !nulls.contain(text) {
                return Err(Problem::NotWrittenAsOne);
            }
            out.extend_from_slice(b"null");
        }
    }
    Ok(())
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    serde_json::to_writer(out, &value).expect("writing an integer into memory cannot fail");
}

fn put_float<T: serde::Serialize>(
    out: &mut Vec<u8>,
    value: T,
    is_finite: bool,
) -> Result<(), Problem> {
    if !is_finite {
        return Err(Problem::NotInJson);
    }
    serde_json::to_writer(out, &value).expect("writing a finite number into memory cannot fail");
    Ok(())
}

fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    // Three bytes at a time need no buffer for the whole.
    let mut quad = [0_u8; 4];
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let len = STANDARD
            .encode_slice(chunk, &mut quad)
            .expect("three bytes become four");
        out.extend_from_slice(&quad[..len]);
    }
    out.push(b'"');
}

/// Appends a JSON string of a text known to be UTF-8.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        put_escape(out, *byte);
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

#[cold]
fn put_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_comes_back(text: String) {
            let mut out = Vec::new();
            put_string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn bytes_are_the_base64_of_the_whole(bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_base64(&mut out, &bytes);
            let text: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(STANDARD.decode(text).unwrap(), bytes);
        }
    }
}
