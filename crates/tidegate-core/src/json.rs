//! Encoding, the other form: a row becomes one JSON object, by the same compiled operations.
//!
//! The object is plain: unions are untagged, timestamps and dates are the integers that Avro would hold (or, if asked for, ISO 8601), bytes are
//! base64 (RFC 4648, with padding), decimals are strings.
//! JSON has no NaN and no infinities, so a cell that holds one is a bad row rather than a null or a string; in a union the next type
//! that takes the text is asked, so that it is a string where the schema itself says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use jiff::tz::TimeZone;

use crate::encode::PutConstant;
use crate::encode::coded::duration_text;
use crate::encode::decimal::{self, Unscaled};
use crate::encode::scalar::Problem;
use crate::encode::time::TimeUnit;
use crate::encode::value::{TimeType, ValueWriter};
use crate::encode::wide_decimal::{self, WideUnscaled};

/// JSON, in the plain form that this module describes.
pub(crate) struct JsonWriter<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    /// Whether times are written as ISO 8601 has them, and not as numbers.
    pub(crate) iso_times: bool,
}

impl PutConstant for JsonWriter<'_> {
    fn constant(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
}

impl ValueWriter for JsonWriter<'_> {
    /// Unions are untagged.
    fn branch(&mut self, _index: u8) {}

    fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    fn boolean(&mut self, value: bool) {
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn integer(&mut self, value: i64) {
        put_integer(self.out, value);
    }

    fn float(&mut self, value: f32) -> Result<(), Problem> {
        put_float(self.out, value, value.is_finite())
    }

    fn double(&mut self, value: f64) -> Result<(), Problem> {
        put_float(self.out, value, value.is_finite())
    }

    fn text(&mut self, text: &[u8]) {
        put_string(self.out, text);
    }

    /// Symbols are Avro names: nothing in them needs escaping.
    fn symbol(&mut self, _index: i32, name: &[u8]) {
        self.quoted(name);
    }

    fn time(&mut self, count: i64, of: TimeType) {
        match self.iso_times.then(|| time_text(count, of)).flatten() {
            Some(text) => self.quoted(text.as_bytes()),
            None => put_integer(self.out, count),
        }
    }

    fn bytes(&mut self, bytes: &[u8], _fixed: bool) {
        put_base64(self.out, bytes);
    }

    fn decimal(&mut self, value: Unscaled, _fixed: Option<usize>) {
        self.out.push(b'"');
        decimal::put_text(self.out, value);
        self.out.push(b'"');
    }

    fn wide_decimal(&mut self, value: WideUnscaled<'_>, _fixed: Option<usize>) {
        self.out.push(b'"');
        wide_decimal::put_text(self.out, value);
        self.out.push(b'"');
    }

    fn duration(&mut self, parts: [u32; 3]) {
        self.quoted(duration_text(parts).as_bytes());
    }

    fn begin_array(&mut self, _items: usize) {
        self.out.push(b'[');
    }

    fn next_item(&mut self) {
        self.out.push(b',');
    }

    fn end_array(&mut self, _items: usize) {
        self.out.push(b']');
    }

    fn begin_map(&mut self, _entries: usize) {
        self.out.push(b'{');
    }

    fn entry(&mut self, name: &[u8]) {
        put_string(self.out, name);
        self.out.push(b':');
    }

    fn end_map(&mut self, _entries: usize) {
        self.out.push(b'}');
    }

    fn mark(&self) -> usize {
        self.out.len()
    }

    fn go_back(&mut self, mark: usize) {
        self.out.truncate(mark);
    }
}

impl JsonWriter<'_> {
    /// A text in which nothing needs escaping.
    fn quoted(&mut self, text: &[u8]) {
        self.out.push(b'"');
        self.out.extend_from_slice(text);
        self.out.push(b'"');
    }
}

/// A time as ISO 8601 has it; `None` where its year has more than four digits.
pub(crate) fn time_text(count: i64, of: TimeType) -> Option<String> {
    let at = |unit: TimeUnit| {
        let (seconds, rest) = (
            count.div_euclid(unit.per_second()),
            count.rem_euclid(unit.per_second()),
        );
        let nanoseconds = i32::try_from(rest * (1_000_000_000 / unit.per_second())).ok()?;
        let at = jiff::Timestamp::new(seconds, nanoseconds).ok()?;
        (0..=9999)
            .contains(&TimeZone::UTC.to_datetime(at).year())
            .then_some(at)
    };
    let local = |unit| Some(TimeZone::UTC.to_datetime(at(unit)?));
    Some(match of {
        TimeType::Date => {
            let at = jiff::Timestamp::from_second(count.checked_mul(86_400)?).ok()?;
            TimeZone::UTC.to_datetime(at).date().to_string()
        }
        TimeType::TimeOfDay(unit) => local(unit)?.time().to_string(),
        TimeType::Timestamp(unit) => at(unit)?.to_string(),
        TimeType::LocalTimestamp(unit) => local(unit)?.to_string(),
    })
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
