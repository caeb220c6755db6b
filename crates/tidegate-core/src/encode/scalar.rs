//! From the text of a cell to a value: strict, exact, and without allocation.
//!
//! A text either is a value of the wanted type in full, with nothing around it, or it is refused: surrounding blanks, thousands separators,
//! hexadecimal digits and numbers that do not fit are errors, never something close to it.

use super::time::{self, TimeUnit};

/// Why a text is no value of the wanted type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is not written as one.
    NotWrittenAsOne,
    /// It is written as one, but the type cannot hold it.
    OutOfRange,
    /// It is finer than the type's unit.
    TooPrecise,
    /// The text stands for null, and the field takes none.
    Null,
    /// The value exists, but JSON has no way to write it: a NaN or an infinity.
    NotInJson,
    /// A decimal number has more digits than its type, and none may be dropped.
    NeedsRounding,
    /// It has an offset from UTC, which a local time would lose.
    HasOffset,
    /// No clock of its time zone shows it: it is skipped when the clocks are put forward.
    InGap,
    /// The clocks of its time zone show it twice, before and after they are put back.
    InFold,
    /// A name stands twice in a map.
    Twice,
    /// Of the cells that are put together some are null, and not all.
    PartlyNull,
}

/// A whole number: an optional sign and decimal digits, leading zeros allowed.
#[inline]
pub(crate) fn long(text: &[u8]) -> Result<i64, Problem> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let value = match digits.len() {
        1..=8 => eight_digits(last_eight(digits), digits.len()),
        9..=16 => {
            let (high, low) = digits.split_at(digits.len() - 8);
            let high = eight_digits(last_eight(high), high.len());
            let low = eight_digits(last_eight(low), 8);
            high.zip(low).map(|(high, low)| high * 100_000_000 + low)
        }
        0 => None,
        _ => return long_checked(negative, digits),
    };
    let value = value.ok_or(Problem::NotWrittenAsOne)?.cast_signed();
    Ok(if negative { -value } else { value })
}

/// The last bytes of a text of 1 to 8 bytes, the last one highest; zeros below them where there are fewer than eight.
#[inline]
fn last_eight(text: &[u8]) -> u64 {
    let missing = 8 * (8 - text.len().min(8));
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        // They overlap where there are fewer than eight, and agree there.
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(last) << 32 | u64::from(first) << missing;
    }
    match *text {
        [a] => u64::from(a) << 56,
        [a, b] => u64::from(a) << 48 | u64::from(b) << 56,
        [a, b, c] => u64::from(a) << 40 | u64::from(b) << 48 | u64::from(c) << 56,
        _ => 0,
    }
}

/// The number that the highest `count` bytes are the digits of, the highest byte the last one; all below are zero. `None` if they are no digits.
/// All at once: neighbours become numbers of two digits, then of four, then of eight.
#[inline]
fn eight_digits(text: u64, count: usize) -> Option<u64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let missing = 8 * (8 - count);
    let digits = text ^ (ONES * u64::from(b'0')) << missing;
    // A byte above nine has its high bit, or gets it.
    if (digits | ((digits & (ONES * 0x7f)) + ONES * 0x76)) & (ONES * 0x80) != 0 {
        return None;
    }
    let pairs = (digits * 10) + (digits >> 8);
    const EVEN_PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let high = (pairs & EVEN_PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let low = (pairs >> 16 & EVEN_PAIRS).wrapping_mul(1 + (10_000 << 32));
    Some(high.wrapping_add(low) >> 32)
}

#[cold]
fn long_checked(negative: bool, digits: &[u8]) -> Result<i64, Problem> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Problem::NotWrittenAsOne);
    }
    // Counted downwards, for the lowest value has no positive counterpart.
    let mut value: i64 = 0;
    for digit in digits {
        let digit = i64::from(digit - b'0');
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(digit))
            .ok_or(Problem::OutOfRange)?;
    }
    if negative {
        Ok(value)
    } else {
        value.checked_neg().ok_or(Problem::OutOfRange)
    }
}

/// A whole number of 32 bits.
#[inline]
pub(crate) fn int(text: &[u8]) -> Result<i32, Problem> {
    i32::try_from(long(text)?).map_err(|_| Problem::OutOfRange)
}

/// A decimal number, rounded to the nearest double: digits with an optional sign, point and exponent, or, in any case, `nan`, `inf` or
/// `infinity` with an optional sign.
#[inline]
pub(crate) fn double(text: &[u8]) -> Result<f64, Problem> {
    if let Some(value) = short_double(text) {
        return Ok(value);
    }
    let value: f64 = fast_float2::parse(text).map_err(|_| Problem::NotWrittenAsOne)?;
    if !value.is_finite() {
        check_non_finite(text)?;
    }
    Ok(value)
}

/// A number of at most 15 digits and perhaps a point, without an exponent: most numbers of most files. As a whole number its digits fit into the
/// mantissa of a double and so does the power of ten, so that one division gives the nearest double (Clinger 1990). `None` for all
/// else, which is then read in full.
#[inline]
pub(crate) fn short_double(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if (1..=8).contains(&digits.len()) {
        let value = tiny_double(digits)?;
        return Some(if negative { -value } else { value });
    }
    if digits.len() > 16 {
        return None;
    }
    let mut value: i64 = 0;
    let mut point = None;
    for (at, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + i64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(at);
        } else {
            return None;
        }
    }
    let (whole_digits, decimals) = match point {
        Some(at) => (digits.len() - 1, digits.len() - 1 - at),
        None => (digits.len(), 0),
    };
    if whole_digits == 0 || whole_digits > 15 {
        return None;
    }
    let value = value as f64 / POWERS[decimals];
    Some(if negative { -value } else { value })
}

/// The powers of ten that a double holds exactly, as far as they are needed.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// As [`short_double`], of 1 to 8 bytes without a sign: all digits at once.
#[inline]
fn tiny_double(text: &[u8]) -> Option<f64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW_BITS: u64 = ONES * 0x7f;
    let word = last_eight(text);
    let difference = word ^ (ONES * u64::from(b'.'));
    let points = !(((difference & LOW_BITS) + LOW_BITS) | difference) & !LOW_BITS;
    if points == 0 {
        return eight_digits(word, text.len()).map(|value| value as f64);
    }
    // The first point is taken out, and what stands before it moved up; another one is no digit.
    let point_at = points.trailing_zeros() - 7;
    let before = word & ((1 << point_at) - 1);
    let behind = word & (u64::MAX << point_at << 8);
    if text.len() == 1 {
        return None;
    }
    let value = eight_digits(before << 8 | behind, text.len() - 1)?;
    let decimals = 7 - point_at / 8;
    Some(value as f64 / POWERS[decimals as usize])
}

/// As [`double`], in single precision.
#[inline]
pub(crate) fn float(text: &[u8]) -> Result<f32, Problem> {
    let value: f32 = fast_float2::parse(text).map_err(|_| Problem::NotWrittenAsOne)?;
    if !value.is_finite() {
        check_non_finite(text)?;
    }
    Ok(value)
}

/// A number that came out infinite although it is written in digits is too large, and not infinite.
#[cold]
fn check_non_finite(text: &[u8]) -> Result<(), Problem> {
    if is_non_finite_word(text) {
        Ok(())
    } else {
        Err(Problem::OutOfRange)
    }
}

/// True for `nan`, `inf` and `infinity` in any case, with an optional sign.
pub(crate) fn is_non_finite_word(text: &[u8]) -> bool {
    let word = match text {
        [b'-' | b'+', word @ ..] => word,
        word => word,
    };
    [&b"nan"[..], b"inf", b"infinity"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

/// `true` or `false` in any case, or `1` or `0`.
#[inline]
pub(crate) fn boolean(text: &[u8]) -> Result<bool, Problem> {
    match text {
        b"1" => Ok(true),
        b"0" => Ok(false),
        _ if text.eq_ignore_ascii_case(b"true") => Ok(true),
        _ if text.eq_ignore_ascii_case(b"false") => Ok(false),
        _ => Err(Problem::NotWrittenAsOne),
    }
}

/// A point in time: an ISO 8601 text (see [`time::instant`]), or a whole number, which is taken as it stands, in the unit of the type.
#[inline]
pub(crate) fn timestamp(text: &[u8], unit: TimeUnit) -> Result<i64, Problem> {
    let is_written = text.get(4) == Some(&b'-') && text.len() >= 10;
    if is_written || matches!(text.get(8), Some(b'T' | b't')) {
        return time::instant(text)?.in_unit(unit);
    }
    long(text)
}

/// A day: `YYYY-MM-DD`, or a whole number of days since 1970-01-01.
#[inline]
pub(crate) fn date(text: &[u8]) -> Result<i32, Problem> {
    if text.get(4) == Some(&b'-') {
        return time::day(text);
    }
    int(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Problem::{NotWrittenAsOne, OutOfRange};
    use super::*;

    #[test]
    fn whole_numbers_are_read_in_full_or_refused() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("+7", Ok(7)),
            ("007", Ok(7)),
            ("999999999999999999", Ok(999_999_999_999_999_999)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("0000000000000000000000000001", Ok(1)),
            ("9223372036854775808", Err(OutOfRange)),
            ("-9223372036854775809", Err(OutOfRange)),
            ("99999999999999999999999999", Err(OutOfRange)),
            ("", Err(NotWrittenAsOne)),
            ("-", Err(NotWrittenAsOne)),
            ("--1", Err(NotWrittenAsOne)),
            (" 1", Err(NotWrittenAsOne)),
            ("1 ", Err(NotWrittenAsOne)),
            ("1.0", Err(NotWrittenAsOne)),
            ("1e3", Err(NotWrittenAsOne)),
            ("0x10", Err(NotWrittenAsOne)),
            ("1_000", Err(NotWrittenAsOne)),
            ("1234567890123456789x", Err(NotWrittenAsOne)),
            ("\u{0661}", Err(NotWrittenAsOne)),
        ] {
            assert_eq!(long(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(int(b"2147483647"), Ok(i32::MAX));
        assert_eq!(int(b"2147483648"), Err(OutOfRange));
    }

    #[test]
    fn decimal_numbers_are_read_in_full_or_refused() {
        for (text, expected) in [
            ("0.52", Ok(0.52)),
            ("-1.5e3", Ok(-1500.0)),
            ("1E5", Ok(100_000.0)),
            (".5", Ok(0.5)),
            ("5.", Ok(5.0)),
            ("+5", Ok(5.0)),
            ("1e-400", Ok(0.0)),
            ("1.7976931348623157e308", Ok(f64::MAX)),
            ("inf", Ok(f64::INFINITY)),
            ("-Infinity", Ok(f64::NEG_INFINITY)),
            ("1e309", Err(OutOfRange)),
            ("-1e999999999999999999999", Err(OutOfRange)),
            ("", Err(NotWrittenAsOne)),
            (".", Err(NotWrittenAsOne)),
            ("1,5", Err(NotWrittenAsOne)),
            ("1e", Err(NotWrittenAsOne)),
            (" 1", Err(NotWrittenAsOne)),
            ("1 ", Err(NotWrittenAsOne)),
            ("0x1p3", Err(NotWrittenAsOne)),
            ("nano", Err(NotWrittenAsOne)),
            ("infinit", Err(NotWrittenAsOne)),
            ("1_0", Err(NotWrittenAsOne)),
        ] {
            assert_eq!(double(text.as_bytes()), expected, "{text}");
        }
        assert!(double(b"NaN").unwrap().is_nan());
        assert_eq!(float(b"0.1"), Ok(0.1));
        assert_eq!(float(b"1e39"), Err(OutOfRange));
        assert!(float(b"-nan").unwrap().is_nan());
    }

    #[test]
    fn truth_is_written_in_words_or_bits() {
        for (text, expected) in [
            ("true", true),
            ("False", false),
            ("TRUE", true),
            ("1", true),
            ("0", false),
        ] {
            assert_eq!(boolean(text.as_bytes()), Ok(expected));
        }
        for text in ["", "t", "yes", "2", " true", "01"] {
            assert_eq!(boolean(text.as_bytes()), Err(NotWrittenAsOne), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_read_as_the_standard_library_does(text in "[+-]?[0-9]{1,22}") {
            prop_assert_eq!(long(text.as_bytes()).ok(), text.parse().ok());
        }

        #[test]
        fn written_numbers_come_back(value: i64, fraction: f64, single: f32) {
            prop_assert_eq!(long(value.to_string().as_bytes()), Ok(value));
            let read = double(format!("{fraction:e}").as_bytes()).unwrap();
            prop_assert!(read == fraction || read.is_nan() && fraction.is_nan());
            let read = float(single.to_string().as_bytes()).unwrap();
            prop_assert!(read == single || read.is_nan() && single.is_nan());
        }

        #[test]
        fn short_numbers_are_read_as_the_standard_library_does(text in "-?[0-9]{0,9}[.]?[0-9]{0,9}") {
            if let Some(value) = short_double(text.as_bytes()) {
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
            }
        }

        #[test]
        fn no_text_is_a_number_here_that_is_none_for_the_standard_library(text in "[-+.0-9eExinfaNy_ ]{0,9}") {
            let ours = double(text.as_bytes());
            let theirs = text.parse::<f64>();
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => prop_assert!(ours == theirs || ours.is_nan() && theirs.is_nan()),
                (Err(OutOfRange), Ok(theirs)) => prop_assert!(theirs.is_infinite()),
                (Err(_), Err(_)) => {}
                (ours, theirs) => prop_assert!(false, "{ours:?} {theirs:?}"),
            }
        }
    }
}
