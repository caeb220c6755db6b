//! Bytes written as text, identifiers, and lengths of time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::scalar::{Problem, long};

/// How bytes are written in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Coding {
    /// They are the cell's own, whatever they mean.
    #[default]
    Raw,
    /// Two hexadecimal digits each, in either case.
    Hex,
    /// Base64 (RFC 4648, section 4), with padding.
    Base64,
}

impl Coding {
    /// Gives the bytes that a text stands for to `take`, by way of `buffer` where they are not the text itself.
    pub(crate) fn decode<'a>(
        self,
        text: &'a [u8],
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Problem> {
        buffer.clear();
        match self {
            Self::Raw => return Ok(text),
            Self::Hex => {
                let (pairs, rest) = text.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(Problem::NotWrittenAsOne);
                }
                for [high, low] in pairs {
                    buffer.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                }
            }
            Self::Base64 => {
                let decoded = STANDARD.decode_vec(text, buffer);
                decoded.map_err(|_| Problem::NotWrittenAsOne)?;
            }
        }
        Ok(buffer)
    }

    /// What a cell holds, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "bytes",
            Self::Hex => "bytes in hexadecimal digits",
            Self::Base64 => "bytes in base64",
        }
    }
}

fn hex_digit(byte: u8) -> Result<u8, Problem> {
    let digit = char::from(byte).to_digit(16);
    let digit = digit.and_then(|digit| u8::try_from(digit).ok());
    digit.ok_or(Problem::NotWrittenAsOne)
}

/// The months, days and milliseconds of a duration in ISO 8601 (`P1Y2M3W4DT5H6M7.008S`), as Avro has them: none stands for another. Parts come in
/// this order, each at most once; a year is twelve months and a week seven days.
pub(crate) fn duration(text: &[u8]) -> Result<[u32; 3], Problem> {
    let [b'P' | b'p', rest @ ..] = text else {
        return Err(Problem::NotWrittenAsOne);
    };
    let (date, time) = match rest.iter().position(|byte| matches!(byte, b'T' | b't')) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    if rest.is_empty() || time.is_some_and(<[u8]>::is_empty) {
        return Err(Problem::NotWrittenAsOne);
    }
    let [mut months, mut days, mut millis] = [0_u64; 3];
    parts(date, b"YMWD", |unit, whole, fraction| {
        if fraction > 0 {
            return Err(Problem::TooPrecise);
        }
        match unit {
            b'Y' => months += 12 * whole,
            b'M' => months += whole,
            b'W' => days += 7 * whole,
            _ => days += whole,
        }
        Ok(())
    })?;
    parts(time.unwrap_or_default(), b"HMS", |unit, whole, fraction| {
        let each = match unit {
            b'H' => 3_600_000,
            b'M' => 60_000,
            _ => 1_000,
        };
        if fraction > 0 && unit != b'S' {
            return Err(Problem::TooPrecise);
        }
        millis += whole * each + fraction;
        Ok(())
    })?;
    let narrow = |value: u64| u32::try_from(value).map_err(|_| Problem::OutOfRange);
    Ok([narrow(months)?, narrow(days)?, narrow(millis)?])
}

/// Splits numbers and their units, which come in the order of `units`. Gives unit, whole part, and thousandths.
fn parts(
    mut text: &[u8],
    mut units: &[u8],
    mut take: impl FnMut(u8, u64, u64) -> Result<(), Problem>,
) -> Result<(), Problem> {
    while !text.is_empty() {
        let end = text.iter().position(u8::is_ascii_alphabetic);
        let end = end.ok_or(Problem::NotWrittenAsOne)?;
        let (number, unit) = (&text[..end], text[end].to_ascii_uppercase());
        let place = units.iter().position(|known| *known == unit);
        units = &units[place.ok_or(Problem::NotWrittenAsOne)? + 1..];
        text = &text[end + 1..];
        let split = number.iter().position(|byte| matches!(byte, b'.' | b','));
        let (whole, fraction) = match split {
            Some(at) => (&number[..at], thousandths(&number[at + 1..])?),
            None => (number, 0),
        };
        if !whole.iter().all(u8::is_ascii_digit) {
            return Err(Problem::NotWrittenAsOne);
        }
        let whole = u64::try_from(long(whole)?).map_err(|_| Problem::OutOfRange)?;
        if whole > u64::from(u32::MAX) {
            return Err(Problem::OutOfRange);
        }
        take(unit, whole, fraction)?;
    }
    Ok(())
}

fn thousandths(digits: &[u8]) -> Result<u64, Problem> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Problem::NotWrittenAsOne);
    }
    if digits.iter().skip(3).any(|digit| *digit != b'0') {
        return Err(Problem::TooPrecise);
    }
    let digit = |place: usize| digits.get(place).map_or(0, |digit| u64::from(digit - b'0'));
    Ok(digit(0) * 100 + digit(1) * 10 + digit(2))
}

/// The text of a duration: months, days and seconds.
pub(crate) fn duration_text([months, days, millis]: [u32; 3]) -> String {
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    format!("P{months}M{days}DT{seconds}.{millis:03}S")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_read_as_they_are_coded() {
        let mut buffer = Vec::new();
        for (coding, text, expected) in [
            (Coding::Raw, &b"\xffx"[..], Ok(&b"\xffx"[..])),
            (Coding::Hex, b"", Ok(b"")),
            (Coding::Hex, b"00fF", Ok(b"\x00\xff")),
            (Coding::Hex, b"0", Err(Problem::NotWrittenAsOne)),
            (Coding::Hex, b"0g", Err(Problem::NotWrittenAsOne)),
            (Coding::Base64, b"AP8=", Ok(b"\x00\xff")),
            (Coding::Base64, b"AP8", Err(Problem::NotWrittenAsOne)),
            (Coding::Base64, b"AP9=", Err(Problem::NotWrittenAsOne)),
        ] {
            assert_eq!(
                coding.decode(text, &mut buffer),
                expected,
                "{coding:?} {text:?}"
            );
        }
    }

    #[test]
    fn durations_have_three_parts() {
        for (text, expected) in [
            ("P1Y2M3W4DT5H6M7.008S", Ok([14, 25, 18_367_008])),
            ("P0D", Ok([0, 0, 0])),
            ("pt0,5s", Ok([0, 0, 500])),
            ("PT36H", Ok([0, 0, 129_600_000])),
            ("P4294967295D", Ok([0, u32::MAX, 0])),
            ("P4294967296D", Err(Problem::OutOfRange)),
            ("PT4294968S", Err(Problem::OutOfRange)),
            ("PT0.0001S", Err(Problem::TooPrecise)),
            ("P0.5D", Err(Problem::TooPrecise)),
            ("P", Err(Problem::NotWrittenAsOne)),
            ("PT", Err(Problem::NotWrittenAsOne)),
            ("P1DT", Err(Problem::NotWrittenAsOne)),
            ("P1D2M", Err(Problem::NotWrittenAsOne)),
            ("P1H", Err(Problem::NotWrittenAsOne)),
            ("-P1D", Err(Problem::NotWrittenAsOne)),
            ("P-1D", Err(Problem::NotWrittenAsOne)),
            ("1D", Err(Problem::NotWrittenAsOne)),
        ] {
            assert_eq!(duration(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_text_of_a_duration_comes_back(parts: [u32; 3]) {
            prop_assert_eq!(duration(duration_text(parts).as_bytes()), Ok(parts));
        }
    }
}
