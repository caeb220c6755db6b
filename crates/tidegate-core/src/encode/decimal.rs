//! Decimal numbers: exact, or refused.

use serde::{Deserialize, Serialize};

use super::scalar::Problem;
use super::value::ValueWriter;
use super::wide_decimal;

/// The most digits that an integer of 128 bits holds. Types of more are read by [`wide_decimal`](super::wide_decimal).
pub(crate) const NARROW_DIGITS: usize = 38;

/// What becomes of digits behind the scale of a decimal type, where that is allowed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// To the nearest; from the middle to the even neighbour.
    HalfEven,
    /// To the nearest; from the middle away from zero.
    HalfUp,
    /// Towards zero.
    Down,
}

/// A decimal type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecimalType {
    /// How many digits it holds, 1 to [`MAX_DECIMAL_DIGITS`](crate::limits::MAX_DECIMAL_DIGITS).
    pub(crate) precision: usize,
    /// How many of them stand behind the point.
    pub(crate) scale: usize,
    /// Its length in bytes, where that is fixed.
    pub(crate) fixed: Option<usize>,
    pub(crate) rounding: Option<Rounding>,
}

/// Those that 64 bits hold.
const POWERS_OF_TEN: [i64; 19] = {
    let mut powers = [1; 19];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// A decimal number as a whole number of its smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unscaled {
    pub(crate) number: i128,
    pub(crate) scale: usize,
}

impl Unscaled {
    /// The fewest bytes of a big-endian two's complement that hold the number; at least one.
    pub(crate) fn significant(self, bytes: &[u8; 16]) -> &[u8] {
        let filler = if self.number < 0 { 0xff } else { 0 };
        let mut start = 0;
        while start < 15 && bytes[start] == filler && (bytes[start + 1] ^ filler) & 0x80 == 0 {
            start += 1;
        }
        &bytes[start..]
    }
}

impl DecimalType {
    /// Writes the number that a text stands for.
    #[inline]
    pub(crate) fn put<W: ValueWriter>(&self, text: &[u8], out: &mut W) -> Result<(), Problem> {
        let value = match self.parse_short(text) {
            Some(value) => value,
            None if self.precision > NARROW_DIGITS => return self.put_wide(text, out),
            None => self.parse_any(text)?,
        };
        out.decimal(value, self.fixed);
        Ok(())
    }

    /// Out of the way of the others: what is rare is not to make the common larger.
    #[cold]
    #[inline(never)]
    fn put_wide<W: ValueWriter>(&self, text: &[u8], out: &mut W) -> Result<(), Problem> {
        wide_decimal::parse(self, text, |value| {
            out.wide_decimal(value, self.fixed);
        })
    }

    /// The same for what most texts are: a few digits, perhaps a point, nothing to round. `None` for all others.
    #[inline]
    fn parse_short(&self, text: &[u8]) -> Option<Unscaled> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        if digits.len() >= POWERS_OF_TEN.len() {
            return None;
        }
        let (mut number, mut point) = (0_i64, None);
        for (at, byte) in digits.iter().enumerate() {
            match byte {
                b'0'..=b'9' => number = number * 10 + i64::from(byte - b'0'),
                b'.' if point.is_none() => point = Some(at),
                _ => return None,
            }
        }
        let fraction = point.map_or(0, |at| digits.len() - at - 1);
        if digits.len() == usize::from(point.is_some()) {
            return None;
        }
        let number = number.checked_mul(*POWERS_OF_TEN.get(self.scale.checked_sub(fraction)?)?)?;
        let is_too_large = |limit: &i64| number >= *limit;
        if POWERS_OF_TEN.get(self.precision).is_some_and(is_too_large) {
            return None;
        }
        Some(Unscaled {
            number: i128::from(if negative { -number } else { number }),
            scale: self.scale,
        })
    }

    fn parse_any(&self, text: &[u8]) -> Result<Unscaled, Problem> {
        let mut number = 0_i128;
        let negative = self.read(text, &mut number)?;
        let limit = 10_i128.pow(u32::try_from(self.precision).unwrap_or(38));
        if number >= limit {
            return Err(Problem::OutOfRange);
        }
        Ok(Unscaled {
            number: if negative { -number } else { number },
            scale: self.scale,
        })
    }

    /// Reads a number with an optional sign, point and exponent, as a whole number of the type's smallest unit. `true` where it is negative.
    pub(super) fn read<D: Digits>(&self, text: &[u8], number: &mut D) -> Result<bool, Problem> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (digits, exponent) = split_exponent(rest)?;
        let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
            Some(at) => (&digits[..at], &digits[at + 1..]),
            None => (digits, &[][..]),
        };
        let all = || whole.iter().chain(fraction);
        if whole.len() + fraction.len() == 0 || !all().all(u8::is_ascii_digit) {
            return Err(Problem::NotWrittenAsOne);
        }
        // The place of the last digit that is kept, counted from the first one.
        let kept =
            i64::try_from(whole.len() + self.scale).map_err(|_| Problem::OutOfRange)? + exponent;
        let mut rest = Rest::default();
        let mut place = 0_i64;
        for digit in all() {
            let digit = digit - b'0';
            if place < kept {
                number.push(digit)?;
            } else {
                rest.push(digit, place == kept);
            }
            place += 1;
        }
        while place < kept && !number.is_zero() {
            number.push(0)?;
            place += 1;
        }
        if rest.is_something && self.rounds_up(number.is_odd(), rest)? {
            number.increment();
        }
        Ok(negative)
    }

    fn rounds_up(&self, is_odd: bool, rest: Rest) -> Result<bool, Problem> {
        Ok(match self.rounding.ok_or(Problem::NeedsRounding)? {
            Rounding::Down => false,
            Rounding::HalfUp => rest.first >= 5,
            Rounding::HalfEven => match rest.first {
                5 if !rest.has_more => is_odd,
                first => first >= 5,
            },
        })
    }
}

/// Collects the digits of a number, the highest first.
pub(super) trait Digits {
    /// Puts a digit behind the others.
    fn push(&mut self, digit: u8) -> Result<(), Problem>;
    /// Whether all of them are zero.
    fn is_zero(&self) -> bool;
    /// Whether the last of them is odd.
    fn is_odd(&self) -> bool;
    /// Adds one.
    fn increment(&mut self);
}

impl Digits for i128 {
    #[inline]
    fn push(&mut self, digit: u8) -> Result<(), Problem> {
        let number = self.checked_mul(10).ok_or(Problem::OutOfRange)?;
        let number = number.checked_add(Self::from(digit));
        *self = number.ok_or(Problem::OutOfRange)?;
        Ok(())
    }

    fn is_zero(&self) -> bool {
        *self == 0
    }

    fn is_odd(&self) -> bool {
        *self % 2 == 1
    }

    /// What was read without an overflow has room for one more: the highest value ends in a 7.
    fn increment(&mut self) {
        *self += 1;
    }
}

/// The digits behind those that are kept.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    first: u8,
    has_more: bool,
    is_something: bool,
}

impl Rest {
    fn push(&mut self, digit: u8, is_first: bool) {
        if is_first {
            self.first = digit;
        } else {
            self.has_more |= digit != 0;
        }
        self.is_something |= digit != 0;
    }
}

fn split_exponent(text: &[u8]) -> Result<(&[u8], i64), Problem> {
    let Some(at) = text.iter().position(|byte| matches!(byte, b'e' | b'E')) else {
        return Ok((text, 0));
    };
    let exponent = super::scalar::long(&text[at + 1..])?;
    // Far beyond what any precision could hold, and far from an overflow.
    Ok((&text[..at], exponent.clamp(-100_000_000, 100_000_000)))
}

/// The text of a decimal number: all digits of its scale.
pub(crate) fn put_text(out: &mut Vec<u8>, value: Unscaled) {
    let mut buffer = [b'0'; 80];
    let mut rest = value.number.unsigned_abs();
    let (mut at, mut digits) = (buffer.len(), 0);
    while rest > 0 || digits <= value.scale {
        if digits == value.scale && value.scale > 0 {
            at -= 1;
            buffer[at] = b'.';
        }
        at -= 1;
        buffer[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        digits += 1;
    }
    if value.number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&buffer[at..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl DecimalType {
        fn parse(&self, text: &[u8]) -> Result<Unscaled, Problem> {
            self.parse_short(text)
                .map_or_else(|| self.parse_any(text), Ok)
        }
    }

    fn decimal(precision: usize, scale: usize, rounding: Option<Rounding>) -> DecimalType {
        DecimalType {
            precision,
            scale,
            fixed: None,
            rounding,
        }
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let plain = decimal(5, 2, None);
        for (text, expected) in [
            ("0", Ok(0)),
            ("1.5", Ok(150)),
            ("-1.50", Ok(-150)),
            ("+.07", Ok(7)),
            ("999.99", Ok(99_999)),
            ("1.500000000000000000000000000000000000000000000", Ok(150)),
            ("000000000000000000000000000000000000000000001", Ok(100)),
            ("1e2", Ok(10_000)),
            ("12345e-2", Ok(12_345)),
            ("0e99999999999", Ok(0)),
            ("0e999", Ok(0)),
            ("1000", Err(Problem::OutOfRange)),
            ("1e999999", Err(Problem::OutOfRange)),
            ("1.005", Err(Problem::NeedsRounding)),
            ("1e-999999", Err(Problem::NeedsRounding)),
            ("", Err(Problem::NotWrittenAsOne)),
            (".", Err(Problem::NotWrittenAsOne)),
            ("-", Err(Problem::NotWrittenAsOne)),
            ("1,5", Err(Problem::NotWrittenAsOne)),
            ("1.2.3", Err(Problem::NotWrittenAsOne)),
            ("NaN", Err(Problem::NotWrittenAsOne)),
            ("1e", Err(Problem::NotWrittenAsOne)),
        ] {
            let found = plain.parse(text.as_bytes()).map(|value| value.number);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn rounding_is_as_asked_for() {
        for (text, half_even, half_up, down) in [
            ("1.005", 100, 101, 100),
            ("1.015", 102, 102, 101),
            ("1.0051", 101, 101, 100),
            ("-1.005", -100, -101, -100),
            ("0.994999", 99, 99, 99),
            ("9e-9", 0, 0, 0),
        ] {
            for (rounding, expected) in [
                (Rounding::HalfEven, half_even),
                (Rounding::HalfUp, half_up),
                (Rounding::Down, down),
            ] {
                let found = decimal(9, 2, Some(rounding)).parse(text.as_bytes());
                assert_eq!(
                    found.map(|value| value.number),
                    Ok(expected),
                    "{text} {rounding:?}"
                );
            }
        }
        let full = decimal(3, 2, Some(Rounding::HalfUp));
        assert_eq!(full.parse(b"9.995"), Err(Problem::OutOfRange));
    }

    proptest! {
        #[test]
        fn the_short_way_gives_what_the_long_one_gives(text in "[-+]?[0-9]{0,12}[.e]?[0-9]{0,9}", precision in 1_usize..25, scale in 0_usize..25) {
            let kind = decimal(precision, scale.min(precision), None);
            let long = kind.parse_any(text.as_bytes());
            prop_assert_eq!(kind.parse(text.as_bytes()), long);
            if let Some(short) = kind.parse_short(text.as_bytes()) {
                prop_assert_eq!(Ok(short), long);
            }
        }

        #[test]
        fn texts_come_back(number in -10_i128.pow(38) + 1..10_i128.pow(38), scale in 0_usize..=38) {
            let value = Unscaled { number, scale };
            let mut text = Vec::new();
            put_text(&mut text, value);
            prop_assert_eq!(decimal(38, scale, None).parse(&text), Ok(value));
        }

        #[test]
        fn the_fewest_bytes_hold_the_number(number: i128) {
            let bytes = number.to_be_bytes();
            let kept = Unscaled { number, scale: 0 }.significant(&bytes);
            let filler = if number < 0 { 0xff } else { 0 };
            let mut whole = [filler; 16];
            whole[16 - kept.len()..].copy_from_slice(kept);
            prop_assert_eq!(i128::from_be_bytes(whole), number);
            if let [first, second, ..] = kept {
                prop_assert!(*first != filler || (second ^ filler) & 0x80 != 0);
            }
        }
    }
}
