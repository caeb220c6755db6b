//! Decimal numbers of more digits than an integer of 128 bits holds: exact as the others are, digit by digit.

use std::cell::RefCell;

use num_bigint::{BigInt, Sign};

use super::decimal::{DecimalType, Digits};
use super::scalar::Problem;

thread_local! {
    /// Where digits are collected; grown once.
    static DIGITS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A decimal number as a whole number of its smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WideUnscaled<'a> {
    negative: bool,
    /// Values 0 to 9, the highest first and no zero; none for zero.
    digits: &'a [u8],
    scale: usize,
}

/// Gives the number that a text stands for to `take`; what is taken is that of narrower types.
pub(super) fn parse(
    kind: &DecimalType,
    text: &[u8],
    take: impl FnOnce(WideUnscaled<'_>),
) -> Result<(), Problem> {
    DIGITS.with_borrow_mut(|digits| {
        digits.clear();
        let most = kind.precision;
        let mut number = Collected { digits, most };
        let negative = kind.read(text, &mut number)?;
        if number.digits.len() > most {
            return Err(Problem::OutOfRange);
        }
        take(WideUnscaled {
            negative,
            digits: number.digits,
            scale: kind.scale,
        });
        Ok(())
    })
}

/// Digits of a type that holds so many.
struct Collected<'a> {
    digits: &'a mut Vec<u8>,
    most: usize,
}

impl Digits for Collected<'_> {
    fn push(&mut self, digit: u8) -> Result<(), Problem> {
        if digit > 0 || !self.digits.is_empty() {
            if self.digits.len() == self.most {
                return Err(Problem::OutOfRange);
            }
            self.digits.push(digit);
        }
        Ok(())
    }

    fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    fn is_odd(&self) -> bool {
        self.digits.last().is_some_and(|digit| digit % 2 == 1)
    }

    fn increment(&mut self) {
        for digit in self.digits.iter_mut().rev() {
            if *digit < 9 {
                *digit += 1;
                return;
            }
            *digit = 0;
        }
        self.digits.insert(0, 1);
    }
}

impl WideUnscaled<'_> {
    /// The fewest bytes of a big-endian two's complement that hold the number; at least one.
    pub(crate) fn significant(&self) -> Vec<u8> {
        let sign = if self.negative {
            Sign::Minus
        } else {
            Sign::Plus
        };
        let number = BigInt::from_radix_be(sign, self.digits, 10);
        number.unwrap_or_default().to_signed_bytes_be()
    }

    /// What stands before it where its length is fixed.
    pub(crate) fn filler(&self) -> u8 {
        if self.negative && !self.digits.is_empty() {
            0xff
        } else {
            0
        }
    }
}

/// The text of a decimal number: all digits of its scale.
pub(crate) fn put_text(out: &mut Vec<u8>, value: WideUnscaled<'_>) {
    let WideUnscaled {
        negative,
        digits,
        scale,
    } = value;
    if negative && !digits.is_empty() {
        out.push(b'-');
    }
    let zeros = (scale + 1).saturating_sub(digits.len());
    let whole = zeros + digits.len() - scale;
    let all = std::iter::repeat_n(&0, zeros).chain(digits);
    for (place, digit) in all.enumerate() {
        if place == whole {
            out.push(b'.');
        }
        out.push(b'0' + digit);
    }
}

/// The text of a big-endian two's complement number with `scale` digits behind the point.
pub(crate) fn text(bytes: &[u8], scale: usize) -> String {
    let (sign, digits) = BigInt::from_signed_bytes_be(bytes).to_radix_be(10);
    let mut text = Vec::new();
    put_text(
        &mut text,
        WideUnscaled {
            negative: sign == Sign::Minus,
            digits: if sign == Sign::NoSign { &[] } else { &digits },
            scale,
        },
    );
    text.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decimal::Rounding;
    use super::*;

    fn kind(precision: usize, scale: usize, rounding: Option<Rounding>) -> DecimalType {
        DecimalType {
            precision,
            scale,
            fixed: None,
            rounding,
        }
    }

    /// The text of what a text is read as.
    fn read(kind: &DecimalType, given: &str) -> Result<String, Problem> {
        let mut found = String::new();
        parse(kind, given.as_bytes(), |value| {
            found = text(&value.significant(), value.scale);
            let mut written = Vec::new();
            put_text(&mut written, value);
            assert_eq!(found.as_bytes(), written, "{given}");
        })?;
        Ok(found)
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let nines = "9".repeat(50);
        let plain = kind(50, 2, None);
        let last = format!("{}.99", "9".repeat(48));
        for (given, expected) in [
            ("0", Ok("0.00")),
            ("-0", Ok("0.00")),
            ("-0.01", Ok("-0.01")),
            ("1e47", Ok(&*format!("1{}.00", "0".repeat(47)))),
            ("1e48", Err(Problem::OutOfRange)),
            ("0e99999999", Ok("0.00")),
            (&nines, Err(Problem::OutOfRange)),
            (&format!("{nines}e-2"), Ok(&last)),
            (&format!("-{last}"), Ok(&format!("-{last}"))),
            (&format!("000{last}00"), Ok(&last)),
            ("0.005", Err(Problem::NeedsRounding)),
            ("1e99999999", Err(Problem::OutOfRange)),
            ("", Err(Problem::NotWrittenAsOne)),
            ("-", Err(Problem::NotWrittenAsOne)),
            ("1,5", Err(Problem::NotWrittenAsOne)),
        ] {
            assert_eq!(read(&plain, given), expected.map(str::to_owned), "{given}");
        }
    }

    #[test]
    fn rounding_carries_and_may_leave_the_range() {
        let rounded = kind(40, 1, Some(Rounding::HalfUp));
        assert_eq!(read(&rounded, "99.95"), Ok("100.0".into()));
        assert_eq!(read(&rounded, "-0.05"), Ok("-0.1".into()));
        assert_eq!(read(&rounded, "-0.04"), Ok("0.0".into()));
        let last = format!("{}.95", "9".repeat(39));
        assert_eq!(read(&rounded, &last), Err(Problem::OutOfRange));
        let even = kind(40, 1, Some(Rounding::HalfEven));
        assert_eq!(read(&even, "0.25"), Ok("0.2".into()));
        assert_eq!(read(&even, "0.35"), Ok("0.4".into()));
    }

    proptest! {
        /// What the two ways make of a number that both hold is the same.
        #[test]
        fn wide_types_read_what_narrow_ones_do(given in "[-+]?[0-9]{0,30}[.e]?[0-9]{0,3}", scale in 0_usize..20, rounding in 0..4_u8) {
            let rounding = [None, Some(Rounding::HalfEven), Some(Rounding::HalfUp), Some(Rounding::Down)][usize::from(rounding)];
            let mut narrow = Vec::new();
            let narrow_kind = kind(38, scale, rounding);
            let found = narrow_kind.put(given.as_bytes(), &mut crate::json::JsonWriter { out: &mut narrow, iso_times: false });
            let expected = found.map(|()| String::from_utf8(narrow).unwrap().trim_matches('"').to_owned());
            prop_assert_eq!(read(&narrow_kind, &given), expected);
        }
    }
}
